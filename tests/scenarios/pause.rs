//! A serving machine is paused, like a virtual machine, and continues later without knowing it.

use std::time::Duration;

use lab::{Cluster, LAST_RETRY, Moment, Pause, Result, log_lines};

use crate::{SOON, nothing_lost, wait_for_whole_copy};

#[test]
fn a_paused_master_finds_that_another_one_serves() -> Result<()> {
    let cluster = Cluster::build().masters(2).start()?;
    let load = cluster.client().keep_writing()?;
    cluster.wait_for_metalogger_in_step("m2", SOON)?;
    cluster.wait_for_log("m1", log_lines::M2_REMEMBERED, SOON)?;
    cluster.freeze("m1")?;
    cluster.wait_for_serving("m2", SOON)?;
    cluster.wait_for_log("m2", log_lines::SERVING, SOON)?;
    load.wait_for_progress(LAST_RETRY)?;
    let mark = cluster.mark();
    cluster.thaw("m1")?;
    // By the time that has passed it was cut off, or another machine knows more: whichever it sees first.
    cluster.wait_for_log_since(mark, "m1", log_lines::STOPPED_SERVING_OR_M2_ALIVE, SOON)?;
    cluster.expect("m1 to stop its master", SOON, || cluster.master_pid("m1").is_none().then_some(()))?;
    cluster.wait_for_serving("m2", SOON)?;
    cluster.expect("the address to be on m2 alone", SOON, || {
        (cluster.holds_vip("m2") && !cluster.holds_vip("m1")).then_some(())
    })?;
    load.wait_for_progress(LAST_RETRY)?;
    assert_eq!(cluster.serving(), ["m2"]);
    let verdict = load.verify(&cluster.crashes())?;
    assert_eq!((verdict.lost, verdict.failed), (vec![], vec![]));
    Ok(())
}

/// Another machine takes over within this while the serving one is stopped, although its kernel goes on.
const TAKEOVER: Duration = Duration::from_secs(30);

/// The processes of the serving machine stop, and its kernel goes on: it has the address, and acknowledges what clients
/// send. For less time than another machine needs to take over, for about as long, for longer, and until one has done so.
fn paused(how: Pause) -> Result<()> {
    let cluster = Cluster::build().masters(2).start()?;
    let load = cluster.client().keep_writing()?;
    for seconds in [1, 4, 8, 15] {
        for machine in ["m1", "m2"] {
            wait_for_whole_copy(&cluster, machine)?;
        }
        let serving = cluster.expect("a machine to serve", SOON, || cluster.answering())?.by;
        let at = cluster.pause(&serving, how)?;
        std::thread::sleep(Duration::from_secs(seconds));
        if seconds == 15 {
            cluster.wait_for_serving_other_than(&serving, TAKEOVER.saturating_sub(Moment::now() - at))?;
        }
        let stopped = Moment::now() - at;
        cluster.resume(&serving)?;
        cluster.expect("one machine to serve", SOON, || {
            let one = cluster.serving();
            let holders = ["m1", "m2"].iter().filter(|machine| cluster.holds_vip(machine)).count();
            (one.len() == 1 && holders == 1 && cluster.answers(&one[0])).then_some(())
        })?;
        load.wait_for_progress(LAST_RETRY)?;
        let waited = load.outage(at)?;
        eprintln!("{serving} was stopped for {stopped:.1?} ({how:?}): {:?} serves, {waited:.1?}", cluster.serving());
    }
    nothing_lost(&cluster, &load)
}

#[test]
fn every_process_of_the_serving_machine_is_stopped_by_a_signal() -> Result<()> {
    paused(Pause::Signal)
}

#[test]
fn the_control_group_of_everything_on_the_serving_machine_is_frozen() -> Result<()> {
    paused(Pause::Group)
}
