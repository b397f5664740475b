//! The wall clock of a machine is set while it waits.
//!
//! The clock is that of the host, so the change is seen by single programs only, by libfaketime: by ucarp of one machine
//! with the hooks that it starts, or by `mfs-promote`, whose environment is its own. ucarp's timers follow the wall clock,
//! ours the monotonic one.

use lab::{Cluster, LAST_RETRY, Result, log_lines};
use nix::sys::signal::Signal;

use crate::SOON;
use crate::nothing_lost;

/// Starts a program that sees the wall clock of [`set`], and the monotonic one as it is.
const FAKETIME: &str = "exec env LD_PRELOAD=/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1 FAKETIME_NO_CACHE=1 \
    FAKETIME_DONT_FAKE_MONOTONIC=1 NO_FAKE_STAT=1 FAKETIME_TIMESTAMP_FILE=/var/lib/lab/clock";
/// Ends ucarp and starts it with the same arguments.
const RESTART: &str = "mapfile -d '' -t line < /proc/$(pidof ucarp)/cmdline; kill $(pidof ucarp); \
    while pidof ucarp; do sleep 0.1; done";

/// The wall clock of a machine's programs from now on, in seconds ahead of the host's.
fn set(cluster: &Cluster, machine: &str, offset: &str) -> Result<()> {
    cluster.must(machine, &["sh", "-c", &format!("echo {offset} > /var/lib/lab/clock")]).map(drop)
}

#[test]
fn our_waits_do_not_follow_the_clock() -> Result<()> {
    // In the place of `mfs-promote`, with the real one elsewhere.
    let promote = format!("#!/bin/sh\n{FAKETIME} /usr/lib/real/mfs-promote \"$@\"\n");
    let cluster = Cluster::build().masters(2).file_on("m2", "/var/lib/lab/promote", promote, 0o755).start()?;
    let load = cluster.client().keep_writing()?;
    cluster.wait_for_metalogger_in_step("m2", SOON)?;
    set(&cluster, "m2", "+0")?;
    let put =
        "mkdir /usr/lib/real; mv /usr/bin/mfs-promote /usr/lib/real/; mv /var/lib/lab/promote /usr/bin/mfs-promote";
    cluster.must("m2", &["sh", "-ec", put])?;

    // An hour back and ahead again while the election settles, and while the master starts.
    let mut mark = cluster.mark();
    cluster.power_off("m1")?;
    let begun = cluster.wait_for_log_since(mark, "m2", log_lines::PROMOTION_BEGUN, SOON)?.at;
    set(&cluster, "m2", "-3600")?;
    cluster.wait_for_log_since(mark, "m2", log_lines::PREPARED, SOON)?;
    set(&cluster, "m2", "+3600")?;
    let settled = cluster.wait_for_log_since(mark, "m2", log_lines::SETTLED, SOON)?.at;
    assert!(settled.seconds_since(begun) > 0.4, "the wait was cut short");
    set(&cluster, "m2", "-7200")?;
    cluster.wait_for_log_since(mark, "m2", log_lines::SERVING, SOON)?;
    load.wait_for_progress(LAST_RETRY)?;

    // And while a demotion waits for the address to come back.
    let pid = cluster.master_pid("m2");
    for offset in ["+7200", "-7200"] {
        mark = cluster.mark();
        cluster.stop_ucarp("m2")?;
        cluster.wait_for_log_since(mark, "m2", log_lines::GRACE_BEGUN, SOON)?;
        set(&cluster, "m2", offset)?;
        cluster.start_ucarp("m2")?;
        cluster.wait_for_log_since(mark, "m2", log_lines::ADDRESS_BACK, SOON)?;
        assert_eq!(cluster.master_pid("m2"), pid, "the master was not touched");
    }
    cluster.wait_for_log_since(mark, "m2", log_lines::ALREADY_SERVING, SOON)?;
    let status = cluster.must("m2", &["mfs-promote", "--status"])?;
    assert!(status.contains(log_lines::OUTCOME_ALREADY_SERVING), "{status}");
    nothing_lost(&cluster, &load)
}

#[test]
fn a_clock_that_is_set_ahead_touches_no_master() -> Result<()> {
    let cluster = Cluster::build().masters(2).start()?;
    let load = cluster.client().keep_writing()?;
    cluster.wait_for_metalogger_in_step("m2", SOON)?;
    set(&cluster, "m2", "+0")?;
    let mark = cluster.mark();
    cluster.must("m2", &["bash", "-c", &format!("{RESTART}; {FAKETIME} \"${{line[@]}}\"")])?;
    // Before it has come so far, a signal ends it.
    cluster.wait_for_log_since(mark, "m2", log_lines::UCARP_BACKUP, SOON)?;
    let (pid, metalogger) = (cluster.master_pid("m1"), cluster.daemon("m2", "mfsmetalogger")?);

    let mark = cluster.mark();
    set(&cluster, "m2", "+3600")?;
    load.wait_for_progress(LAST_RETRY)?;
    cluster.kill("m2", "ucarp", Signal::SIGUSR1)?;
    cluster.wait_for_log_since(mark, "m2", log_lines::UCARP_BACKUP_ANY, SOON)?;
    assert_eq!(cluster.serving(), ["m1"]);
    assert_eq!(cluster.master_pid("m1"), pid);
    assert_eq!((cluster.master_pid("m2"), cluster.daemon("m2", "mfsmetalogger")?), (None, metalogger));

    cluster.power_off("m1")?;
    set(&cluster, "m2", "+7200")?;
    cluster.wait_for_log_since(mark, "m2", log_lines::SERVING, SOON)?;
    load.wait_for_progress(LAST_RETRY)?;
    assert_eq!(cluster.serving(), ["m2"]);
    nothing_lost(&cluster, &load)
}
