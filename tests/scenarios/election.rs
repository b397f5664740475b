//! ucarp changes its state, is restarted, or starts everywhere at once: a healthy master is never stopped by that, and
//! exactly one machine ends up serving.

use std::time::Duration;

use lab::{Cluster, LAST_RETRY, Result, VIP, log_lines};
use nix::sys::signal::Signal;

use crate::SOON;
use crate::drop_on_switch;
use crate::nothing_lost;

#[test]
fn ucarp_restarted_beside_a_healthy_master() -> Result<()> {
    // The cluster comes up like a first installation: the master was started by hand, then ucarp.
    let cluster = Cluster::build().masters(1).start()?;
    cluster.wait_for_log("m1", log_lines::ALREADY_SERVING, SOON)?;
    let load = cluster.client().keep_writing()?;
    let (pid, files) = (cluster.master_pid("m1"), cluster.files("m1")?);
    let mark = cluster.mark();

    cluster.restart_ucarp("m1")?;
    cluster.wait_for_log_since(mark, "m1", log_lines::ALREADY_SERVING, SOON)?;
    load.wait_for_progress(LAST_RETRY)?;
    assert_eq!(cluster.master_pid("m1"), pid, "the master was not stopped");
    assert_eq!(cluster.files("m1")?, files, "no file was moved");
    nothing_lost(&cluster, &load)
}

#[test]
fn ucarp_started_on_a_standby_touches_nothing() -> Result<()> {
    let cluster = Cluster::build().masters(2).start()?;
    let metalogger = cluster.daemon("m2", "mfsmetalogger")?;
    let mark = cluster.mark();
    cluster.restart_ucarp("m2")?;
    cluster.wait_for_log_since(mark, "m2", log_lines::NOTHING_TO_DEMOTE, SOON)?;
    assert_eq!(cluster.daemon("m2", "mfsmetalogger")?, metalogger);
    assert_eq!(cluster.serving(), ["m1"]);
    Ok(())
}

#[test]
fn all_three_start_at_once_and_exactly_one_serves() -> Result<()> {
    let cluster = Cluster::build().masters(3).skew("m2", 0).skew("m3", 0).start()?;
    let load = cluster.client().keep_writing()?;
    for standby in ["m1", "m2", "m3"] {
        cluster.wait_for_metalogger_in_step(standby, SOON)?;
    }
    // The serving machine loses its power and two equal ones time out together; then it comes back between them.
    cluster.power_off("m1")?;
    let by = cluster.wait_for_serving_other_than("m1", SOON)?.by;
    cluster.power_on("m1")?;
    load.wait_for_progress(LAST_RETRY)?;
    nothing_lost(&cluster, &load)?;
    assert_eq!(cluster.serving(), [by]);

    // The whole cluster goes and comes back.
    let load = cluster.client().keep_writing()?;
    load.stop()?;
    for machine in ["m1", "m2", "m3"] {
        cluster.wait_for_metalogger_in_step(machine, SOON)?;
    }
    for machine in ["m1", "m2", "m3"] {
        cluster.power_off(machine)?;
    }
    let mark = cluster.mark();
    for machine in ["m1", "m2", "m3"] {
        cluster.power_on(machine)?;
    }
    let promoted = |name: &&str| {
        cluster
            .events()
            .since(mark)
            .iter()
            .any(|event| event.machine == **name && event.text.contains(log_lines::SERVING))
    };
    let by = cluster.expect("one of the three to serve", SOON, || ["m1", "m2", "m3"].into_iter().find(promoted))?;
    assert_eq!(cluster.serving(), [by]);
    nothing_lost(&cluster, &load)
}

/// A standby that has heard the dead machine's heartbeats to the last, and hears those of the third machine.
#[test]
fn an_election_settles_sooner_where_heartbeats_tell_enough_of_each_machine() -> Result<()> {
    let cluster = Cluster::build().masters(3).start()?;
    let load = cluster.client().keep_writing()?;
    for standby in ["m2", "m3"] {
        cluster.wait_for_metalogger_in_step(standby, SOON)?;
    }
    cluster.power_off("m1")?;
    cluster.wait_for_log("m2", log_lines::SETTLED_SOONER, SOON)?;
    cluster.wait_for_serving("m2", SOON)?;
    load.wait_for_progress(LAST_RETRY)?;
    nothing_lost(&cluster, &load)
}

/// Its silence would not show for how long it has been dead.
#[test]
fn an_election_waits_for_an_interval_where_the_heartbeats_of_a_machine_that_advertised_were_lost() -> Result<()> {
    let cluster = Cluster::build().masters(3).start()?;
    let load = cluster.client().keep_writing()?;
    for standby in ["m2", "m3"] {
        cluster.wait_for_log(standby, log_lines::M1_REMEMBERED, SOON)?;
        cluster.wait_for_metalogger_in_step(standby, SOON)?;
    }
    drop_on_switch(&cluster, "iifname v-m1 udp dport 9429")?;
    // It goes on to advertise.
    std::thread::sleep(Duration::from_secs(5));
    cluster.power_off("m1")?;
    let settled = cluster.wait_for_log("m2", log_lines::SETTLED, SOON)?.text;
    assert!(!settled.contains("by their heartbeats"), "{settled}");
    cluster.wait_for_serving("m2", SOON)?;
    load.wait_for_progress(LAST_RETRY)?;
    nothing_lost(&cluster, &load)
}

#[test]
fn preempted_during_the_settle_time() -> Result<()> {
    let cluster = Cluster::build().masters(2).start()?;
    let load = cluster.client().keep_writing()?;
    cluster.wait_for_metalogger_in_step("m2", SOON)?;
    let (master, metalogger) = (cluster.master_pid("m1"), cluster.daemon("m2", "mfsmetalogger")?);

    let mark = cluster.mark();
    cluster.isolate("m1")?;
    cluster.wait_for_log("m2", log_lines::UCARP_MASTER, SOON)?;
    cluster.heal("m1")?;
    // Its ucarp steps down, or the run finds first that the master on m1 has more changes.
    let ended = cluster.wait_for_log_since(mark, "m2", log_lines::PROMOTION_ENDED, SOON)?.text;
    assert!(ended.contains("superseded") || ended.contains("stepped down"), "{ended}");
    cluster.wait_for_log_since(mark, "m2", log_lines::NOTHING_TO_DEMOTE, SOON)?;
    load.wait_for_progress(LAST_RETRY)?;
    assert_eq!(cluster.daemon("m2", "mfsmetalogger")?, metalogger, "no daemon was touched");
    assert_eq!(cluster.master_pid("m2"), None);
    assert_eq!(cluster.master_pid("m1"), master);
    let files = cluster.files("m2")?;
    assert!(!files.iter().any(|name| name.starts_with(log_lines::RUN_FOLDER)), "{files:?}");
    nothing_lost(&cluster, &load)
}

#[test]
fn a_demoted_master_stops_cleanly_and_its_metalogger_runs_again() -> Result<()> {
    let cluster = Cluster::build().masters(2).start()?;
    let load = cluster.client().keep_writing()?;
    cluster.wait_for_metalogger_in_step("m2", SOON)?;
    cluster.kill("m1", "mfsmetalogger", Signal::SIGTERM)?;
    // The administrator makes the serving machine step down: first a master that was started by hand, then one that
    // was started by a promotion.
    for (from, to) in [("m1", "m2"), ("m2", "m1")] {
        let mark = step_down(&cluster, from, to)?;
        cluster.wait_for_log_since(mark, from, log_lines::DEMOTED, SOON)?;
        assert_eq!(cluster.master_pid(from), None);
        assert!(cluster.files(from)?.contains(&"metadata.mfs".to_owned()), "the mark of a clean stop");
        load.wait_for_progress(LAST_RETRY)?;
        cluster.daemon(from, "mfsmetalogger")?;
        cluster.wait_for_metalogger_in_step(from, SOON)?;
        assert_eq!(cluster.serving(), [to]);
    }
    nothing_lost(&cluster, &load)
}

#[test]
fn a_master_that_another_machine_waits_for_stops_before_its_grace_is_over() -> Result<()> {
    let cluster = Cluster::build().masters(2).start()?;
    let load = cluster.client().keep_writing()?;
    load.wait_for_progress(LAST_RETRY)?;
    // What was asked for at the very moment would be known to the old master alone.
    load.stop()?;
    cluster.wait_for_metalogger_in_step("m2", SOON)?;
    let mark = cluster.mark();
    cluster.stop_ucarp("m1")?;
    cluster.wait_for_log_since(mark, "m1", log_lines::PEER_WAITS, SOON)?;
    cluster.wait_for_log_since(mark, "m1", log_lines::DEMOTED, SOON)?;
    // A master without an address soon notes that its chunkserver is gone: by that change it knows more, and then m1 serves.
    cluster.expect("one of the two to serve", SOON, || (cluster.serving().len() == 1).then_some(()))?;
    nothing_lost(&cluster, &load)
}

/// Makes ucarp on one machine step down until the other one serves. What clients asked for at the very moment may be known
/// to the old master alone: then the other machine must step down, and the administrator asks again.
fn step_down(cluster: &Cluster, from: &str, to: &str) -> Result<usize> {
    for _ in 0..3 {
        let mark = cluster.mark();
        cluster.kill(from, "ucarp", Signal::SIGUSR2)?;
        let ended = cluster.expect("one of the two to serve", SOON, || {
            let events = cluster.events().since(mark);
            let serves = |text: &str| text.contains(log_lines::SERVING) || text.contains(log_lines::ALREADY_SERVING);
            events.into_iter().find(|event| serves(&event.text))
        })?;
        if ended.machine == to {
            return Ok(mark);
        }
        eprintln!("{to} lacked what {from} had");
        cluster.wait_for_metalogger_in_step(to, SOON)?;
    }
    panic!("{to} lacked changes each time");
}

#[test]
fn a_run_by_hand_never_leaves_the_address_without_a_master() -> Result<()> {
    let cluster = Cluster::build().masters(2).start()?;
    let vip = VIP.to_string();
    let by_hand = |name: &str, verb: &[&str]| {
        let line = [&["mfs-promote", "--interface", "eth0", "--vip", &vip], verb].concat();
        cluster.run(name, &line).map(|output| {
            let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            (output.status.code(), text)
        })
    };
    let (code, text) = by_hand("m2", &[])?;
    assert!(code == Some(1) && text.contains(log_lines::ADDRESS_MISSING), "{code:?} {text}");
    let (code, text) = by_hand("m2", &["--dry-run"])?;
    assert!(code == Some(1) && text.contains(log_lines::ADDRESS_MISSING), "{code:?} {text}");
    let (code, text) = by_hand("m1", &["--demote"])?;
    assert!(code == Some(1) && text.contains(log_lines::STOP_UCARP_INSTEAD), "{code:?} {text}");
    let (code, text) = by_hand("m1", &[])?;
    assert!(code == Some(0) && text.contains(log_lines::OUTCOME_ALREADY_SERVING), "{code:?} {text}");
    assert_eq!(cluster.run("m1", &["mfs-promote", "--dry-run", "--demote"])?.status.code(), Some(2));
    assert_eq!(cluster.run("m1", &["mfs-promote"])?.status.code(), Some(2));
    assert_eq!(cluster.serving(), ["m1"]);
    Ok(())
}
