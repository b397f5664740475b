//! The metalogger that a hot standby follows stands still for longer than its connection lasts, or is restarted.

use lab::{LAST_RETRY, Result, log_lines};
use nix::sys::signal::Signal;

use crate::hot::{builder, hot_cluster, wait_until_hot_and_whole};
use crate::{SOON, nothing_lost};

#[test]
fn a_metalogger_that_stood_still_is_followed_again() -> Result<()> {
    let (cluster, load) = hot_cluster(builder())?;
    cluster.kill("m2", "mfsmetalogger", Signal::SIGSTOP)?;
    let connections = ["ss", "-Htn", "state", "established", "dst", "172.16.0.12", "sport", "=", ":9419"];
    let gone = || cluster.must("m1", &connections).ok()?.trim().is_empty().then_some(());
    cluster.expect("the master to end the connection of m2", SOON, gone)?;
    cluster.kill("m2", "mfsmetalogger", Signal::SIGCONT)?;
    wait_until_hot_and_whole(&cluster, "m2")?;
    let mark = cluster.mark();
    cluster.power_off("m1")?;
    cluster.wait_for_log_since(mark, "m2", log_lines::LET_GO, SOON)?;
    cluster.wait_for_serving("m2", SOON)?;
    load.wait_for_progress(LAST_RETRY)?;
    nothing_lost(&cluster, &load)
}

#[test]
fn a_metalogger_that_was_restarted_is_followed_again() -> Result<()> {
    let (cluster, load) = hot_cluster(builder())?;
    for _ in 0..3 {
        cluster.must("m2", &["mfsmetalogger", "stop"])?;
        load.wait_for_progress(LAST_RETRY)?;
        cluster.must("m2", &["mfsmetalogger", "start"])?;
        wait_until_hot_and_whole(&cluster, "m2")?;
    }
    let mark = cluster.mark();
    cluster.power_off("m1")?;
    cluster.wait_for_log_since(mark, "m2", log_lines::LET_GO, SOON)?;
    cluster.wait_for_serving("m2", SOON)?;
    load.wait_for_progress(LAST_RETRY)?;
    nothing_lost(&cluster, &load)
}
