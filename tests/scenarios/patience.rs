//! A master that is busy, that is of a release nobody knows, or that takes long to stop, is none that hangs.

use std::time::Duration;

use lab::{Cluster, LAST_RETRY, Result, log_lines};
use nix::sys::signal::Signal;

use crate::SOON;
use crate::nothing_lost;

/// Holds the lock of a master and answers INFO with a release, a length and a version at its place; takes a while to stop.
const STAND_IN: &str = include_str!("patience/mfsmaster.py");

/// m1 alone, with the stand-in at this path.
fn machine(path: &str, config: &str) -> Result<Cluster> {
    let build = Cluster::build().masters(1).unjudged().file("/etc/mfs/mfspromote.cfg", config, 0o644);
    build.file_on("m1", path, STAND_IN, 0o755).start()
}

const BESIDE: &str = "/usr/lib/stand-in/mfsmaster";

/// The real master stops, and the stand-in takes its place, without ucarp.
fn take_its_place(cluster: &Cluster, words: &str) -> Result<Option<i32>> {
    let mark = cluster.mark();
    cluster.stop_ucarp("m1")?;
    cluster.wait_for_log_since(mark, "m1", log_lines::DEMOTED, SOON)?;
    cluster.must("m1", &["sh", "-c", &format!("echo {words} > /etc/mfs/stand-in; {BESIDE} start")])?;
    let pid = cluster.master_pid("m1");
    assert!(pid.is_some());
    Ok(pid)
}

#[test]
fn a_master_that_is_busy_is_left_alone_by_a_promotion_beside_it() -> Result<()> {
    let cluster = Cluster::build().masters(1).unjudged().start()?;
    let load = cluster.client().keep_writing()?;
    load.wait_for_progress(LAST_RETRY)?;
    let pid = cluster.master_pid("m1");
    // As for a master that stores its image in the foreground, or is swapped out.
    for busy in [3, 30] {
        let mark = cluster.mark();
        cluster.kill("m1", "mfsmaster", Signal::SIGSTOP)?;
        cluster.restart_ucarp("m1")?;
        cluster.wait_for_log_since(mark, "m1", log_lines::PROMOTION_BEGUN, SOON)?;
        std::thread::sleep(Duration::from_secs(busy));
        cluster.kill("m1", "mfsmaster", Signal::SIGCONT)?;
        cluster.wait_for_log_since(mark, "m1", log_lines::MASTER_WAITED_FOR, SOON)?;
        cluster.wait_for_log_since(mark, "m1", log_lines::ALREADY_SERVING, SOON)?;
        load.wait_for_progress(LAST_RETRY)?;
        assert_eq!(cluster.master_pid("m1"), pid, "after {busy} s");
    }
    // A later call does not wait for it either.
    let mark = cluster.mark();
    cluster.kill("m1", "mfsmaster", Signal::SIGSTOP)?;
    cluster.restart_ucarp("m1")?;
    cluster.wait_for_log_since(mark, "m1", log_lines::PROMOTION_BEGUN, SOON)?;
    let mark = cluster.mark();
    cluster.wait_for_log_since(mark, "m1", log_lines::MASTER_WAITED_FOR, SOON)?;
    cluster.restart_ucarp("m1")?;
    cluster.wait_for_log_since(mark, "m1", log_lines::SUPERSEDED, Duration::from_secs(3))?;
    cluster.kill("m1", "mfsmaster", Signal::SIGCONT)?;
    cluster.wait_for_log_since(mark, "m1", log_lines::ALREADY_SERVING, SOON)?;
    assert_eq!(cluster.master_pid("m1"), pid);
    nothing_lost(&cluster, &load)
}

#[test]
fn masters_of_3_0_105_and_of_a_release_to_come_are_left_alone() -> Result<()> {
    let cluster = machine(BESIDE, "")?;
    for (words, told) in
        [("0003 00 d2 137 121 0", log_lines::LEFT_ALONE_AT), ("0005 01 08 309 -1 0", log_lines::UNKNOWN_RELEASE)]
    {
        let pid = take_its_place(&cluster, words)?;
        let mark = cluster.mark();
        cluster.start_ucarp("m1")?;
        cluster.wait_for_log_since(mark, "m1", told, SOON)?;
        cluster.wait_for_log_since(mark, "m1", log_lines::ALREADY_SERVING, SOON)?;
        assert_eq!(cluster.master_pid("m1"), pid, "{words}");
        // It goes on serving, and is no master that hangs for the monitor.
        std::thread::sleep(Duration::from_secs(5));
        assert_eq!((cluster.master_pid("m1"), cluster.holds_vip("m1")), (pid, true), "{words}");
    }
    Ok(())
}

#[test]
fn a_master_of_a_release_to_come_can_be_promoted() -> Result<()> {
    let cluster = Cluster::build()
        .masters(2)
        .unjudged()
        .file_on("m2", "/usr/sbin/mfsmaster", STAND_IN, 0o755)
        .file_on("m2", "/etc/mfs/stand-in", "0005 01 08 309 -1 0", 0o644)
        .start()?;
    cluster.wait_for_metalogger_in_step("m2", SOON)?;
    cluster.power_off("m1")?;
    cluster.wait_for_log("m2", log_lines::NOT_PROVED, SOON)?;
    cluster.wait_for_log("m2", log_lines::SERVING, SOON)?;
    Ok(())
}

#[test]
fn a_clean_stop_that_takes_long_is_waited_for_by_the_run_that_wins_meanwhile() -> Result<()> {
    // As if an image had to be stored for which this much time is allowed.
    let cluster = machine(BESIDE, "STOP_TIMEOUT = 200\n")?;
    let stop = 125;
    take_its_place(&cluster, &format!("0003 00 d2 137 121 {stop}"))?;
    let mark = cluster.mark();
    cluster.start_ucarp("m1")?;
    cluster.wait_for_log_since(mark, "m1", log_lines::ALREADY_SERVING, SOON)?;
    let mark = cluster.mark();
    cluster.stop_ucarp("m1")?;
    cluster.wait_for_log_since(mark, "m1", log_lines::GRACE_OVER, SOON)?;
    cluster.start_ucarp("m1")?;
    cluster.wait_for_log_since(mark, "m1", log_lines::DEMOTION_WAITED_FOR, SOON)?;
    cluster.wait_for_log_since(mark, "m1", log_lines::MASTER_STOPPED, SOON + Duration::from_secs(stop))?;
    cluster.wait_for_log_since(mark, "m1", log_lines::SERVING, SOON)?;
    assert!(cluster.holds_vip("m1") && cluster.daemon("m1", "ucarp").is_ok());
    Ok(())
}
