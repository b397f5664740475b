//! The wall clock of a standby is set an hour ahead and back, which ucarp's timers follow: elections that nobody needs
//! touch nothing, and our own waits do not follow it.
//!
//! The clock is that of the host, so only `ucarp` and `mfs-promote` of one machine see the change: by libfaketime, which
//! leaves the monotonic clock alone.

use std::fs;
use std::time::Duration;

use lab::{Cluster, LAST_RETRY, Result, built_programs};

use crate::{SOON, nothing_lost};

const OFFSET: &str = "/var/lib/lab/clock";
const FAKE: &str = "env LD_PRELOAD=/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1 FAKETIME_NO_CACHE=1 \
                    FAKETIME_DONT_FAKE_MONOTONIC=1 FAKETIME_TIMESTAMP_FILE=/var/lib/lab/clock";

#[test]
fn a_clock_that_is_set_touches_no_master_and_no_wait() -> Result<()> {
    let real = fs::read(built_programs()?.join("mfs-promote")).expect("our program");
    let faked = format!("#!/bin/sh\nexec {FAKE} /usr/lib/real/mfs-promote \"$@\"\n");
    let cluster = Cluster::build()
        .masters(2)
        .file_on("m2", "/usr/lib/real/mfs-promote", real, 0o755)
        .file_on("m2", "/usr/bin/mfs-promote", faked, 0o755)
        .start()?;
    let load = cluster.client().keep_writing()?;
    cluster.wait_for_metalogger_in_step("m2", SOON)?;
    let set = |offset: &str| cluster.must("m2", &["sh", "-c", &format!("echo {offset} > {OFFSET}")]);
    let restart = format!(
        "mapfile -d '' -t line < /proc/$(pidof ucarp)/cmdline; kill $(pidof ucarp); \
         while pidof ucarp; do sleep 0.1; done; exec {FAKE} \"${{line[@]}}\""
    );
    set("+0")?;
    cluster.must("m2", &["bash", "-c", &restart])?;
    let (pid, metalogger) = (cluster.master_pid("m1"), cluster.daemon("m2", "mfsmetalogger")?);
    load.wait_for_progress(LAST_RETRY)?;

    // An hour without an advertisement, as ucarp sees it.
    let mark = cluster.mark();
    set("+3600")?;
    cluster.wait_for_log_since(mark, "m2", "promotion begun", SOON)?;
    cluster.wait_for_log_since(mark, "m2", "promotion ended: yielded", SOON)?;
    cluster.expect("the address to be on m1 alone", SOON, || {
        (cluster.holds_vip("m1") && !cluster.holds_vip("m2")).then_some(())
    })?;
    load.wait_for_progress(LAST_RETRY)?;
    assert_eq!(cluster.master_pid("m1"), pid);
    assert_eq!((cluster.master_pid("m2"), cluster.daemon("m2", "mfsmetalogger")?), (None, metalogger));

    // It is set in the middle of a takeover: back and ahead. The settle time would last an hour, or no time at all.
    let mark = cluster.mark();
    cluster.power_off("m1")?;
    cluster.wait_for_log_since(mark, "m2", "promotion begun", SOON)?;
    set("+0")?;
    let settled = cluster.wait_for_log_since(mark, "m2", r"settle: no rival heard for [0-9.]+ s", SOON)?;
    set("+7200")?;
    cluster.wait_for_log_since(mark, "m2", "promotion ended: serving", SOON)?;
    let begun = cluster.wait_for_log_since(mark, "m2", "promotion begun", SOON)?;
    assert!(settled.at - begun.at >= Duration::from_millis(1250), "the settle time was cut short");
    load.wait_for_progress(LAST_RETRY)?;
    assert_eq!(cluster.serving(), ["m2"]);
    nothing_lost(&cluster, &load)
}
