//! The address of a serving machine is in the wrong place: removed by another program, left behind by a ucarp that was
//! killed, or without a master.

use lab::{Cluster, LAST_RETRY, Moment, Result, log_lines};
use nix::sys::signal::Signal;

use crate::SOON;
use crate::nothing_lost;
use crate::wait_for_whole_copy;

const TAKE_AWAY: [&str; 7] = ["ip", "addr", "flush", "to", "172.16.0.99", "dev", "eth0"];

/// When the lab saw this of a machine first, after a mark.
fn seen(cluster: &Cluster, mark: usize, machine: &str, what: &str) -> Option<Moment> {
    let events = cluster.events().since(mark);
    events.iter().find(|event| event.machine == machine && event.text == what).map(|event| event.at)
}

#[test]
fn an_address_that_is_removed_is_restored_but_not_again_and_again() -> Result<()> {
    let cluster = Cluster::build().masters(2).start()?;
    let load = cluster.client().keep_writing()?;
    wait_for_whole_copy(&cluster, "m2")?;
    cluster.wait_for_log("m1", log_lines::ALREADY_SERVING, SOON)?;
    let (pid, mark) = (cluster.master_pid("m1"), cluster.mark());
    cluster.must("m1", &TAKE_AWAY)?;
    cluster.wait_for_log_since(mark, "m1", log_lines::ADDRESS_PUT_BACK, SOON)?;
    load.wait_for_progress(LAST_RETRY)?;
    assert_eq!(cluster.master_pid("m1"), pid, "the master was not touched");
    assert_eq!(cluster.serving(), ["m1"]);

    // This often it is no accident. What a master does while nothing of it gets out is in no copy, and would keep m2 from
    // taking over: so nobody writes.
    load.stop()?;
    wait_for_whole_copy(&cluster, "m2")?;
    cluster.expect("m1 to step down", SOON, || {
        let _ = cluster.must("m1", &TAKE_AWAY);
        let events = cluster.events().since(mark);
        events.iter().any(|event| event.text.contains(log_lines::ADDRESS_REMOVED_AGAIN)).then_some(())
    })?;
    cluster.wait_for_serving("m2", SOON)?;
    cluster.wait_for_log_since(mark, "m1", log_lines::DEMOTED, SOON)?;
    assert_eq!(cluster.serving(), ["m2"]);
    nothing_lost(&cluster, &load)?;
    cluster.client().keep_writing()?.wait_for_progress(LAST_RETRY)
}

#[test]
fn a_killed_ucarp_leaves_the_address_until_another_machine_advertises() -> Result<()> {
    let cluster = Cluster::build().masters(2).start()?;
    let load = cluster.client().keep_writing()?;
    wait_for_whole_copy(&cluster, "m2")?;
    cluster.wait_for_log("m1", log_lines::ALREADY_SERVING, SOON)?;
    let mark = cluster.mark();
    let killed = cluster.kill("m1", "ucarp", Signal::SIGKILL)?;
    cluster.wait_for_log_since(mark, "m1", log_lines::UCARP_GONE, SOON)?;
    cluster.wait_for_log_since(mark, "m1", log_lines::ADDRESS_RELEASED_TO_M2, SOON)?;
    let served = cluster.wait_for_serving("m2", SOON)?.at;
    cluster.wait_for_log_since(mark, "m2", log_lines::SERVING, SOON)?;
    cluster.wait_for_log_since(mark, "m1", log_lines::DEMOTED, SOON)?;
    let gone = seen(&cluster, mark, "m1", "lab: does not hold the address any more").expect("m1 gave it up");
    let holds = seen(&cluster, mark, "m2", "lab: holds the address").expect("m2 holds it");
    let [gone, holds, served] = [gone, holds, served].map(|at| at.seconds_since(killed));
    eprintln!(
        "ucarp killed; m1 gave the address up after {gone:.1} s, m2 had it after {holds:.1} s, served after {served:.1} s"
    );
    assert!(gone < holds, "never on both");
    load.wait_for_progress(LAST_RETRY)?;

    // There is no other machine that could take the address.
    cluster.power_off("m1")?;
    let (pid, mark) = (cluster.master_pid("m2"), cluster.mark());
    cluster.kill("m2", "ucarp", Signal::SIGSTOP)?;
    cluster.wait_for_log_since(mark, "m2", log_lines::UCARP_SUSPENDED, SOON)?;
    cluster.wait_for_log_since(mark, "m2", log_lines::NO_SUCCESSOR, SOON)?;
    load.wait_for_progress(LAST_RETRY)?;
    assert_eq!((cluster.serving(), cluster.master_pid("m2")), (vec!["m2".to_owned()], pid));
    cluster.kill("m2", "ucarp", Signal::SIGKILL)?;
    cluster.start_ucarp("m2")?;
    cluster.wait_for_log_since(mark, "m2", log_lines::ALREADY_SERVING, SOON)?;
    load.wait_for_progress(LAST_RETRY)?;
    assert_eq!(cluster.master_pid("m2"), pid, "never touched");
    nothing_lost(&cluster, &load)
}

#[test]
fn a_master_that_dies_or_hangs_does_not_keep_the_address() -> Result<()> {
    let quick = "START_TIMEOUT = 4\nSTOP_TIMEOUT = 4\n";
    let cluster = Cluster::build().masters(2).file("/etc/mfs/mfspromote.cfg", quick, 0o644).start()?;
    let load = cluster.client().keep_writing()?;
    wait_for_whole_copy(&cluster, "m2")?;
    cluster.wait_for_log("m1", log_lines::ALREADY_SERVING, SOON)?;
    let mark = cluster.mark();
    cluster.kill("m1", "mfsmaster", Signal::SIGKILL)?;
    cluster.wait_for_log_since(mark, "m1", log_lines::MASTER_EXITED, SOON)?;
    cluster.wait_for_serving("m2", SOON)?;
    cluster.wait_for_log_since(mark, "m2", log_lines::SERVING, SOON)?;
    load.wait_for_progress(LAST_RETRY)?;
    wait_for_whole_copy(&cluster, "m1")?;
    // It accepts connections and answers nothing.
    let mark = cluster.mark();
    load.stop()?;
    cluster.wait_for_metalogger_in_step("m1", SOON)?;
    cluster.kill("m2", "mfsmaster", Signal::SIGSTOP)?;
    cluster.wait_for_log_since(mark, "m2", log_lines::MASTER_SILENT, SOON)?;
    cluster.wait_for_serving("m1", SOON)?;
    cluster.wait_for_log_since(mark, "m2", log_lines::MASTER_STATE_T, SOON)?;
    cluster.wait_for_log_since(mark, "m2", log_lines::DEMOTED, SOON)?;
    assert_eq!((cluster.serving(), cluster.master_pid("m2")), (vec!["m1".to_owned()], None));

    // The last machine: it steps down, and wins again.
    cluster.power_off("m2")?;
    cluster.wait_for_log_since(mark, "m1", log_lines::SERVING, SOON)?;
    let mark = cluster.mark();
    cluster.kill("m1", "mfsmaster", Signal::SIGKILL)?;
    cluster.wait_for_log_since(mark, "m1", log_lines::SERVING, SOON)?;
    assert_eq!(cluster.serving(), ["m1"]);
    nothing_lost(&cluster, &load)
}
