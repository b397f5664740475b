//! The wall clock of a standby is set an hour ahead, which ucarp's timers follow: while the master advertises, nothing
//! happens, and a takeover after that is like any other.
//!
//! The clock is that of the host, so only ucarp of one machine (and the hooks that it starts) sees the change, by
//! libfaketime. What it starts in the background has an environment of its own, and waits by the monotonic clock.

use lab::{Cluster, LAST_RETRY, Result};
use nix::sys::signal::Signal;

use crate::{SOON, nothing_lost};

const RESTART: &str = "mapfile -d '' -t line < /proc/$(pidof ucarp)/cmdline; kill $(pidof ucarp); \
    while pidof ucarp; do sleep 0.1; done; \
    exec env LD_PRELOAD=/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1 FAKETIME_NO_CACHE=1 \
    FAKETIME_DONT_FAKE_MONOTONIC=1 FAKETIME_TIMESTAMP_FILE=/var/lib/lab/clock \"${line[@]}\"";

#[test]
fn a_clock_that_is_set_ahead_touches_no_master() -> Result<()> {
    let cluster = Cluster::build().masters(2).start()?;
    let load = cluster.client().keep_writing()?;
    cluster.wait_for_metalogger_in_step("m2", SOON)?;
    let set = |offset: &str| cluster.must("m2", &["sh", "-c", &format!("echo {offset} > /var/lib/lab/clock")]);
    set("+0")?;
    cluster.must("m2", &["bash", "-c", RESTART])?;
    let (pid, metalogger) = (cluster.master_pid("m1"), cluster.daemon("m2", "mfsmetalogger")?);

    let mark = cluster.mark();
    set("+3600")?;
    load.wait_for_progress(LAST_RETRY)?;
    cluster.kill("m2", "ucarp", Signal::SIGUSR1)?;
    cluster.wait_for_log_since(mark, "m2", "ucarp.*BACKUP", SOON)?;
    assert_eq!(cluster.serving(), ["m1"]);
    assert_eq!(cluster.master_pid("m1"), pid);
    assert_eq!((cluster.master_pid("m2"), cluster.daemon("m2", "mfsmetalogger")?), (None, metalogger));

    cluster.power_off("m1")?;
    set("+7200")?;
    cluster.wait_for_log_since(mark, "m2", "promotion ended: serving", SOON)?;
    load.wait_for_progress(LAST_RETRY)?;
    assert_eq!(cluster.serving(), ["m2"]);
    nothing_lost(&cluster, &load)
}
