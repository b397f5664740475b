//! Metaloggers and chunkservers follow the machine that serves, also where MooseFS itself does not notice that its master
//! is gone (4.58 and later): the machine that serves resets their connections, and the standby ends one that was not reset.
//! Which comes first is left to chance.
//!
//! Shown by a second power cut: what the first standby acknowledged must be on the second one by then.

use lab::{Cluster, LAST_RETRY, Release, Result, log_lines};

use crate::SOON;
use crate::drop_on_switch;
use crate::nothing_lost;
use crate::wait_for_whole_copy;

#[test]
fn a_second_power_cut_on_the_newest_release() -> Result<()> {
    let cluster = Cluster::build().release(Release::DebianUnstable).masters(3).start()?;
    let load = cluster.client().keep_writing()?;
    for standby in ["m2", "m3"] {
        cluster.wait_for_metalogger_in_step(standby, SOON)?;
    }
    cluster.power_off("m1")?;
    cluster.wait_for_serving("m2", SOON)?;
    load.wait_for_progress(LAST_RETRY)?;
    wait_for_whole_copy(&cluster, "m3")?;
    cluster.power_off("m2")?;
    cluster.wait_for_serving("m3", SOON)?;
    load.wait_for_progress(LAST_RETRY)?;
    nothing_lost(&cluster, &load)
}

/// No program writes: nothing wakes the daemons that are connected to the dead master.
#[test]
fn idle_chunkservers_and_metaloggers_follow_twice_on_the_newest_release() -> Result<()> {
    let cluster = Cluster::build().release(Release::DebianUnstable).masters(3).chunkservers(3).start()?;
    let load = cluster.client().keep_writing()?;
    load.wait_for_progress(LAST_RETRY)?;
    load.stop()?;
    for standby in ["m2", "m3"] {
        wait_for_whole_copy(&cluster, standby)?;
    }
    cluster.power_off("m1")?;
    cluster.wait_for_serving("m2", SOON)?;
    wait_for_chunkservers(&cluster, "m2")?;
    wait_for_whole_copy(&cluster, "m3")?;
    cluster.power_off("m2")?;
    cluster.wait_for_serving("m3", SOON)?;
    wait_for_chunkservers(&cluster, "m3")?;
    nothing_lost(&cluster, &load)
}

fn wait_for_chunkservers(cluster: &Cluster, serving: &str) -> Result<()> {
    cluster.expect(&format!("every chunkserver to be connected to {serving}"), SOON, || {
        let status = cluster.must(serving, &["mfs-promote", "--status", "--json"]).ok()?;
        status.contains("\"chunkservers_missing\": []").then_some(())
    })
}

/// Without our programs on its machine a metalogger keeps the old history: the serving machine and a check there say so.
#[test]
fn what_does_not_follow_is_named() -> Result<()> {
    let cluster = Cluster::build().release(Release::DebianUnstable).masters(3).chunkservers(2).start()?;
    let load = cluster.client().keep_writing()?;
    for standby in ["m2", "m3"] {
        cluster.wait_for_metalogger_in_step(standby, SOON)?;
    }
    load.stop()?;
    // Its standby run ends with its ucarp.
    cluster.stop_ucarp("m3")?;
    let check = |name: &str| {
        let output = cluster.run(name, &["mfs-promote", "--check", "--interface", "eth0", "--vip", "172.16.0.99"])?;
        Result::Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let healthy = check("m3")?;
    assert!(!healthy.contains(log_lines::CHECK_NOT_FOLLOWING), "{healthy}");
    // A firewall between them lets no segment through that belongs to no connection.
    drop_on_switch(&cluster, "oifname v-m3 tcp sport 9419 tcp sequence { 0, 2147483648 }")?;
    cluster.power_off("m1")?;
    cluster.isolate("cs2")?;
    cluster.wait_for_serving("m2", SOON)?;

    let named = cluster.wait_for_log("m2", log_lines::NOT_CONNECTED, SOON)?.text;
    assert!(named.contains("the metalogger of 172.16.0.13") && named.contains("172.16.0.42:9422"), "{named}");
    assert!(!named.contains("172.16.0.41"), "{named}");
    let status = cluster.must("m2", &["mfs-promote", "--status"])?;
    assert!(status.contains("172.16.0.13") && status.contains("172.16.0.42:9422"), "{status}");
    let critical = check("m3")?;
    assert!(
        critical.contains("CRITICAL  metalogger") && critical.contains(log_lines::CHECK_NOT_FOLLOWING),
        "{critical}"
    );

    cluster.start_ucarp("m3")?;
    cluster.wait_for_log("m3", log_lines::CONNECTION_ENDED, SOON)?;
    cluster.wait_for_log("m3", log_lines::METALOGGER_FOLLOWS, SOON)?;
    wait_for_whole_copy(&cluster, "m3")?;
    cluster.heal("cs2")?;
    cluster.power_on("m1")?;
    cluster.wait_for_log("m2", log_lines::ALL_CONNECTED, SOON)?;
    let healthy = check("m3")?;
    assert!(!healthy.contains(log_lines::CHECK_NOT_FOLLOWING), "{healthy}");
    nothing_lost(&cluster, &load)
}

/// A reload, as after a change of a setting, makes the metalogger close its connection, and it forgets to connect again.
#[test]
fn a_metalogger_that_was_reloaded_follows_again() -> Result<()> {
    let cluster = Cluster::build().release(Release::DebianUnstable).masters(2).start()?;
    let load = cluster.client().keep_writing()?;
    wait_for_whole_copy(&cluster, "m2")?;
    cluster.must("m2", &["mfsmetalogger", "reload"])?;
    cluster.wait_for_log("m2", log_lines::METALOGGER_FOLLOWS, SOON * 2)?;
    wait_for_whole_copy(&cluster, "m2")?;
    cluster.power_off("m1")?;
    cluster.wait_for_serving("m2", SOON)?;
    nothing_lost(&cluster, &load)
}
