//! The master of a hot standby dies: for want of memory while it waits, or just when it is let go. And the machine that has just
//! taken over loses its power as well.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use lab::{Cluster, LAST_RETRY, Result, log_lines, random};
use nix::sys::signal::Signal;

use crate::hot::{builder, hot_cluster, hot_standby, wait_until_hot_and_whole};
use crate::{SOON, nothing_lost, nothing_lost_but};

/// How readily the kernel kills the main process of a program when memory runs out.
fn readiness(cluster: &Cluster, machine: &str, program: &str) -> Result<String> {
    let pid = cluster.daemon(machine, program)?.pid;
    Ok(fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).expect("a process").trim().to_owned())
}

/// The kernel kills as this test does.
#[test]
fn want_of_memory_costs_the_hot_standby_and_nothing_else() -> Result<()> {
    let (cluster, load) = hot_cluster(builder())?;
    let metalogger = cluster.daemon("m2", "mfsmetalogger")?;
    let ordinary = readiness(&cluster, "m2", "mfsmetalogger")?;
    for _ in 0..2 {
        wait_until_hot_and_whole(&cluster, "m2")?;
        assert_eq!(readiness(&cluster, "m2", "mfsmaster")?, "1000", "of all it is killed first");
        let mark = cluster.mark();
        cluster.kill("m2", "mfsmaster", Signal::SIGKILL)?;
        let cold = cluster.expect("m2 to be cold", SOON, || hot_standby(&cluster, "m2").ok()?.get("cold").cloned())?;
        assert_eq!(cold["kind"], "for_now", "it has replayed everything: {cold}");
        cluster.wait_for_log_since(mark, "m2", log_lines::HOT, SOON)?;
    }
    assert_eq!(cluster.daemon("m2", "mfsmetalogger")?, metalogger);

    // Without one, a master is started as if there never was one.
    cluster.kill("m2", "mfsmaster", Signal::SIGKILL)?;
    cluster.power_off("m1")?;
    cluster.wait_for_serving("m2", SOON)?;
    load.wait_for_progress(LAST_RETRY)?;
    assert_eq!(readiness(&cluster, "m2", "mfsmaster")?, ordinary);

    let mark = cluster.mark();
    cluster.power_on("m1")?;
    cluster.wait_for_log_since(mark, "m1", log_lines::HOT, SOON)?;
    assert_eq!(readiness(&cluster, "m1", "mfsmaster")?, "1000");
    cluster.power_off("m2")?;
    cluster.wait_for_log_since(mark, "m1", log_lines::LET_GO, SOON)?;
    cluster.wait_for_serving("m1", SOON)?;
    load.wait_for_progress(LAST_RETRY)?;
    assert_eq!(readiness(&cluster, "m1", "mfsmaster")?, ordinary, "it serves, and is killed no sooner than any other");
    nothing_lost(&cluster, &load)
}

#[test]
fn a_master_that_is_killed_just_when_it_is_let_go_is_replaced() -> Result<()> {
    let (cluster, load) = hot_cluster(builder())?;
    let mut rng = random::rng();
    for [serving, next] in [["m1", "m2"], ["m2", "m1"], ["m1", "m2"]] {
        let mark = cluster.mark();
        cluster.power_off(serving)?;
        cluster.wait_for_log_since(mark, next, log_lines::LET_GO, SOON)?;
        // Before it is proved, or while it is watched.
        sleep(Duration::from_millis(rng.u64(..2) * rng.u64(..2000)));
        cluster.kill(next, "mfsmaster", Signal::SIGKILL)?;
        cluster.wait_for_log_since(mark, next, log_lines::SERVING, SOON)?;
        cluster.wait_for_answer_of(next, SOON)?;
        load.wait_for_progress(LAST_RETRY)?;
        let mark = cluster.mark();
        cluster.power_on(serving)?;
        cluster.wait_for_log_since(mark, serving, log_lines::HOT, SOON)?;
    }
    nothing_lost(&cluster, &load)
}

#[test]
fn a_machine_that_loses_power_just_when_it_takes_over_is_followed_by_the_next_one() -> Result<()> {
    let (cluster, load) = hot_cluster(builder().masters(3))?;
    cluster.wait_for_log("m3", log_lines::HOT, SOON)?;
    let mark = cluster.mark();
    cluster.power_off("m1")?;
    let let_go = cluster.wait_for_log_since(mark, "m2", log_lines::LET_GO, SOON)?.at;
    let off = cluster.power_off("m2")?;
    cluster.wait_for_serving("m3", SOON)?;
    cluster.wait_for_log_since(mark, "m3", log_lines::SERVING, SOON)?;
    load.wait_for_progress(LAST_RETRY)?;
    // What m2 acknowledged in between is on m2 alone.
    nothing_lost_but(&cluster, &load, &[let_go..=off])?;
    let mark = cluster.mark();
    for machine in ["m2", "m1"] {
        cluster.power_on(machine)?;
        cluster.wait_for_log_since(mark, machine, log_lines::HOT, SOON)?;
    }
    assert_eq!(cluster.serving(), ["m3"]);
    Ok(())
}
