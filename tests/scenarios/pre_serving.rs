//! The checks that keep a machine from serving, one by one.

use std::time::Duration;

use lab::{Cluster, LAST_RETRY, Result, log_lines};
use nix::sys::signal::Signal;

use crate::SOON;
use crate::nothing_lost;

/// A switch that drops multicast: no advertisement arrives, everything else does.
const SWALLOW_ADVERTISEMENTS: &str = "nft add table bridge lab
    nft add chain bridge lab forward '{ type filter hook forward priority 0; }'
    nft add rule bridge lab forward ether type ip ip protocol 112 drop";

#[test]
fn advertisements_are_dropped_and_the_living_master_is_still_seen() -> Result<()> {
    let few = "FLAP_LIMIT = 3\n";
    let cluster = Cluster::build().masters(2).file("/etc/mfs/mfspromote.cfg", few, 0o644).start()?;
    let load = cluster.client().keep_writing()?;
    cluster.wait_for_metalogger_in_step("m2", SOON)?;
    cluster.wait_for_log("m2", log_lines::M1_REMEMBERED, SOON)?;
    let (pid, metalogger) = (cluster.master_pid("m1"), cluster.daemon("m2", "mfsmetalogger")?);

    cluster.on_switch(SWALLOW_ADVERTISEMENTS)?;
    cluster.wait_for_log("m2", log_lines::M1_ALIVE_OR_ADDRESS_TAKEN, SOON)?;
    cluster.wait_for_log("m2", log_lines::STEPPED_DOWN, SOON)?;
    // m2 has announced the address; m1 has announced it again.
    cluster.wait_for_log("m1", log_lines::M2_ANNOUNCES, SOON)?;
    // It repeats this until the flapping limit, and then leaves the living master alone.
    cluster.wait_for_log("m2", log_lines::FLAPPING_3, SOON)?;
    cluster.wait_for_log("m2", log_lines::UCARP_STOPPED, SOON)?;
    load.wait_for_progress(LAST_RETRY)?;
    assert!(cluster.daemon("m2", "ucarp").is_err(), "ucarp of m2 ended");
    assert!(!cluster.holds_vip("m2"));
    assert_eq!(cluster.master_pid("m1"), pid);
    assert_eq!(cluster.daemon("m2", "mfsmetalogger")?, metalogger, "no daemon was touched");
    nothing_lost(&cluster, &load)
}

#[test]
fn the_address_leads_to_the_new_master_although_another_standby_announced_it_meanwhile() -> Result<()> {
    // To reset the connections of clients and chunkservers makes this machine known to all, too.
    let cluster = Cluster::build().masters(3).chunkservers(0).start()?;
    cluster.wait_for_metalogger_in_step("m2", SOON)?;
    cluster.kill("m3", "ucarp", Signal::SIGKILL)?;
    let mark = cluster.mark();
    cluster.power_off("m1")?;
    cluster.wait_for_log_since(mark, "m2", log_lines::PROMOTION_BEGUN, SOON)?;
    // ucarp would announce the address once more, some seconds after the first time.
    cluster.kill("m2", "ucarp", Signal::SIGSTOP)?;
    // What a standby does that is MASTER for a moment.
    let briefly = "ip addr add 172.16.0.99/16 dev eth0; arping -q -U -c 1 -w 1 -I eth0 172.16.0.99; ip addr del 172.16.0.99/16 dev eth0";
    cluster.must("m3", &["sh", "-ec", briefly])?;
    // Three seconds after the master's first answer. The neighbour entries of others lead to m3 for eight if nothing announces
    // the address again.
    let ended = cluster.wait_for_log_since(mark, "m2", log_lines::SERVING, SOON)?;
    let taken = cluster.wait_for_serving("m2", SOON)?;
    assert!(taken.at < ended.at, "it is found {:.1} s too late", taken.at.seconds_since(ended.at));
    cluster.kill("m2", "ucarp", Signal::SIGCONT)?;
    Ok(())
}

#[test]
fn an_address_that_another_machine_has_is_not_served() -> Result<()> {
    let cluster = Cluster::build().masters(3).start()?;
    let load = cluster.client().keep_writing()?;
    cluster.wait_for_metalogger_in_step("m2", SOON)?;
    // m3 keeps the address of a killed ucarp, without a master.
    cluster.kill("m3", "ucarp", Signal::SIGKILL)?;
    cluster.must("m3", &["ip", "addr", "add", "172.16.0.99/16", "dev", "eth0"])?;
    cluster.power_off("m1")?;
    cluster.wait_for_log("m2", log_lines::ADDRESS_TAKEN_BY_M3, SOON)?;
    cluster.wait_for_log("m2", log_lines::STEPPED_DOWN, SOON)?;
    assert_eq!(cluster.master_pid("m2"), None);
    cluster.must("m3", &["ip", "addr", "del", "172.16.0.99/16", "dev", "eth0"])?;
    cluster.wait_for_serving("m2", SOON)?;
    load.wait_for_progress(LAST_RETRY)?;
    nothing_lost(&cluster, &load)
}

#[test]
fn a_stale_master_is_stopped_when_another_one_is_alive() -> Result<()> {
    let cluster = Cluster::build().masters(2).start()?;
    let load = cluster.client().keep_writing()?;
    cluster.wait_for_metalogger_in_step("m2", SOON)?;
    cluster.wait_for_log("m2", log_lines::M1_REMEMBERED, SOON)?;
    let pid = cluster.master_pid("m1");
    // Its copy is of this moment, and it has no other one that would show that it is behind.
    let start = "cd /var/lib/mfs; mfsmetalogger stop; mkdir own; cp -p metadata_ml.mfs.back own/metadata.mfs; \
                 rm -f metadata* changelog*; mv own/metadata.mfs .; mfsmaster start";
    cluster.must("m2", &["sh", "-c", start])?;
    load.wait_for_progress(LAST_RETRY)?;
    // With the address, it would serve an old file system until it is recognised as stale.
    load.stop()?;
    cluster.on_switch(SWALLOW_ADVERTISEMENTS)?;
    cluster.wait_for_log("m2", log_lines::STALE_MASTER_M1_ALIVE, SOON)?;
    cluster.unblock()?;
    cluster.expect("the stale master to stop", SOON, || cluster.master_pid("m2").is_none().then_some(()))?;
    cluster.expect("the address to be on m1 alone", SOON, || {
        (cluster.holds_vip("m1") && !cluster.holds_vip("m2")).then_some(())
    })?;
    assert_eq!(cluster.master_pid("m1"), pid);
    // It has the address before the checks are done, and answers nobody there.
    assert_eq!(cluster.findings().overlap(), Duration::ZERO, "{:?}", cluster.overlaps());
    // The others' neighbour tables lead to m2 until m1 has announced the address again.
    cluster.wait_for_log("m1", log_lines::M2_ANNOUNCES, SOON)?;
    cluster.wait_for_serving("m1", SOON)?;
    let verdict = load.verify(&cluster.crashes())?;
    assert_eq!((verdict.lost, verdict.failed), (vec![], vec![]));
    Ok(())
}

#[test]
fn a_hung_master_elsewhere_does_not_prevent_a_promotion() -> Result<()> {
    let cluster = Cluster::build().masters(2).start()?;
    let load = cluster.client().keep_writing()?;
    load.wait_for_progress(LAST_RETRY)?;
    load.stop()?;
    cluster.wait_for_metalogger_in_step("m2", SOON)?;
    cluster.wait_for_log("m2", log_lines::M1_REMEMBERED, SOON)?;
    // It accepts connections and answers nothing; its ucarp ends, so no hook stops it.
    cluster.kill("m1", "mfsmaster", Signal::SIGSTOP)?;
    cluster.kill("m1", "ucarp", Signal::SIGKILL)?;
    cluster.must("m1", &["ip", "addr", "flush", "to", "172.16.0.99", "dev", "eth0"])?;
    cluster.wait_for_log("m2", log_lines::M1_HUNG, SOON)?;
    cluster.wait_for_serving("m2", SOON)?;
    cluster.kill("m1", "mfsmaster", Signal::SIGKILL)?;
    std::thread::sleep(Duration::from_secs(1));
    nothing_lost(&cluster, &load)
}
