//! `mfs-promote` is killed: its supervisor starts it again, and the address never stays on a machine that does not serve.

use std::time::Duration;

use lab::{Cluster, LAST_RETRY, Result, log_lines};
use nix::sys::signal::Signal;

use crate::SOON;
use crate::nothing_lost;
use crate::storm::{Call, call, m2_alone};
use crate::wait_for_whole_copy;

/// What a promotion logs before it is killed, in this order.
const PROMOTION: [&str; 7] = [
    log_lines::PROMOTION_BEGUN,
    log_lines::PREPARED,
    log_lines::METALOGGER_STOPPED,
    log_lines::STAGED,
    log_lines::COMMITTED,
    log_lines::MASTER_STARTED,
    log_lines::PROVED,
];
/// And a demotion of a machine that serves.
const DEMOTION: [&str; 2] = [log_lines::DEMOTION_BEGUN, log_lines::GRACE_BEGUN];

/// Kills the run on m2 in a phase of its work.
fn kill_in(cluster: &Cluster, mark: usize, phase: &str, role: &str) -> Result<()> {
    cluster.wait_for_log_since(mark, "m2", phase, SOON)?;
    cluster.signal_run("m2", role, Signal::SIGKILL)?;
    let begun_again = format!("{role} .*{}", log_lines::KILLED_AND_RESTARTED);
    cluster.wait_for_log_since(mark, "m2", &begun_again, SOON).map(drop)
}

#[test]
fn a_run_that_is_killed_is_started_again() -> Result<()> {
    let (cluster, load) = m2_alone()?;
    for (round, phase) in PROMOTION.iter().enumerate() {
        let mut mark = cluster.mark();
        call(&cluster, Call::Up)?;
        kill_in(&cluster, mark, phase, "promotion")?;
        cluster.wait_for_log_since(mark, "m2", log_lines::SERVING_OR_ALREADY, SOON)?;
        assert_eq!(cluster.serving(), ["m2"], "killed after {phase}");

        mark = cluster.mark();
        call(&cluster, Call::Down)?;
        if let Some(phase) = DEMOTION.get(round) {
            kill_in(&cluster, mark, phase, "demotion")?;
        }
        cluster.wait_for_log_since(mark, "m2", log_lines::DEMOTED, SOON)?;
        assert_eq!((cluster.holds_vip("m2"), cluster.master_pid("m2")), (false, None), "after {phase}");
    }
    call(&cluster, Call::Up)?;
    load.wait_for_progress(LAST_RETRY)?;
    nothing_lost(&cluster, &load)
}

#[test]
fn the_monitor_of_a_serving_machine_is_replaced() -> Result<()> {
    let cluster = Cluster::build().masters(2).start()?;
    let load = cluster.client().keep_writing()?;
    cluster.wait_for_metalogger_in_step("m2", SOON)?;
    cluster.wait_for_log("m1", log_lines::ALREADY_SERVING, SOON)?;
    let (pid, mark) = (cluster.master_pid("m1"), cluster.mark());
    cluster.signal_run("m1", "promotion", Signal::SIGKILL)?;
    cluster.wait_for_log_since(mark, "m1", log_lines::ALREADY_SERVING, SOON)?;
    cluster.must("m1", &["ip", "addr", "del", "172.16.0.99/16", "dev", "eth0"])?;
    cluster.wait_for_log_since(mark, "m1", log_lines::ADDRESS_PUT_BACK, SOON)?;
    // Too often for an accident: the last one is not replaced any more, and what serves is not touched.
    for _ in 0..2 {
        let mark = cluster.mark();
        cluster.signal_run("m1", "promotion", Signal::SIGKILL)?;
        cluster.wait_for_log_since(mark, "m1", log_lines::ALREADY_SERVING, SOON)?;
    }
    cluster.signal_run("m1", "promotion", Signal::SIGKILL)?;
    cluster.expect("the last mfs-promote to be gone", SOON, || {
        cluster.daemon("m1", "mfs-promote").is_err().then_some(())
    })?;
    load.wait_for_progress(LAST_RETRY)?;
    assert_eq!((cluster.serving(), cluster.master_pid("m1")), (vec!["m1".to_owned()], pid));
    nothing_lost(&cluster, &load)
}

#[test]
fn a_promotion_that_is_killed_again_and_again_releases_the_address() -> Result<()> {
    let cluster = Cluster::build().masters(3).start()?;
    let load = cluster.client().keep_writing()?;
    for standby in ["m2", "m3"] {
        cluster.wait_for_metalogger_in_step(standby, SOON)?;
    }
    let mut mark = cluster.mark();
    cluster.power_off("m1")?;
    for _ in 0..3 {
        cluster.wait_for_log_since(mark, "m2", log_lines::PROMOTION_BEGUN, SOON)?;
        mark = cluster.mark();
        cluster.signal_run("m2", "promotion", Signal::SIGKILL)?;
    }
    cluster.wait_for_log_since(mark, "m2", log_lines::KILLED_TOO_OFTEN, SOON)?;
    cluster.wait_for_log_since(mark, "m2", log_lines::UCARP_STOPPED, SOON)?;
    assert!(!cluster.holds_vip("m2"));
    cluster.wait_for_serving("m3", SOON)?;
    load.wait_for_progress(LAST_RETRY)?;
    assert!(cluster.daemon("m2", "ucarp").is_err(), "ucarp of m2 ended");
    nothing_lost(&cluster, &load)
}

/// The longest time until another machine serves after everything of ours is gone from the serving one.
const TAKEOVER: Duration = Duration::from_secs(30);

#[test]
fn everything_of_ours_on_the_serving_machine_is_killed_at_once() -> Result<()> {
    let cluster = Cluster::build().masters(2).start()?;
    let load = cluster.client().keep_writing()?;
    cluster.wait_for_log("m1", log_lines::ALREADY_SERVING, SOON)?;
    wait_for_whole_copy(&cluster, "m2")?;
    let killed = cluster.kill_ours_and("m1", &["ucarp"])?;
    let taken = cluster.wait_for_serving("m2", TAKEOVER)?;
    eprintln!("m2 serves {:.1} s after everything of ours on m1 was killed", taken.at.seconds_since(killed));
    load.wait_for_progress(LAST_RETRY)?;
    assert!(!cluster.holds_vip("m1"), "its kernel has removed the address");
    // Nobody was there to stop the master; the next run does it.
    cluster.start_ucarp("m1")?;
    cluster.expect("m1 to stop its master", SOON, || cluster.master_pid("m1").is_none().then_some(()))?;
    wait_for_whole_copy(&cluster, "m1")?;
    assert_eq!(cluster.serving(), ["m2"]);
    nothing_lost(&cluster, &load)
}

/// The ucarp there goes on, so no other one becomes MASTER by itself.
#[test]
fn everything_of_ours_but_ucarp_is_killed_at_once() -> Result<()> {
    let cluster = Cluster::build().masters(2).start()?;
    let load = cluster.client().keep_writing()?;
    cluster.wait_for_log("m1", log_lines::ALREADY_SERVING, SOON)?;
    wait_for_whole_copy(&cluster, "m2")?;
    let killed = cluster.kill_ours_and("m1", &[])?;
    cluster.wait_for_log("m2", log_lines::ABANDONED, SOON)?;
    load.wait_for_progress(LAST_RETRY)?;
    eprintln!("clients waited {:.1?}", load.outage(killed)?.metadata);
    cluster.expect("one machine to serve", SOON, || (cluster.serving().len() == 1).then_some(()))?;
    nothing_lost(&cluster, &load)
}
