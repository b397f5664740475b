//! A machine is cut off beyond its link and comes back: it must not serve while it is alone, and what the living master
//! has acknowledged meanwhile must win, whichever machine ucarp prefers.

use std::time::Duration;

use lab::random::{self, pick};
use lab::{Cluster, LAST_RETRY, Result, Workload, log_lines};

use crate::{SOON, nothing_lost, steady};

/// The machine that ucarp prefers has this skew, the other one that.
const PREFERRED: u8 = 0;
const OTHER: u8 = 100;

/// One isolation of the standby `m2` while `m1` serves.
fn isolate_the_standby(cluster: &Cluster, seconds: u64) -> Result<()> {
    let mark = cluster.mark();
    let pid = cluster.master_pid("m1");
    cluster.isolate("m2")?;
    std::thread::sleep(Duration::from_secs(seconds));
    cluster.heal("m2")?;
    let load_goes_on = cluster.wait_for_serving("m1", SOON)?;
    eprintln!("isolated for {seconds} s; {} serves", load_goes_on.by);
    steady(cluster, "m1 to serve and m2 not to hold the address", || {
        cluster.serving() == ["m1"] && !cluster.holds_vip("m2")
    })?;
    assert_eq!(cluster.master_pid("m1"), pid, "the living master was not touched");
    assert!(!cluster.started_master_since(mark, "m2"), "m2 never served");
    assert_eq!(cluster.master_pid("m2"), None);
    Ok(())
}

fn standby(preferred: bool) -> Result<()> {
    let mut rng = random::rng();
    let (m1, m2) = if preferred { (OTHER, PREFERRED) } else { (PREFERRED, OTHER) };
    let cluster = Cluster::build().masters(2).skew("m1", m1).skew("m2", m2).start()?;
    let load = cluster.client().keep_writing_at(pick(&mut rng, &[20, 100, 200]))?;
    cluster.wait_for_metalogger_in_step("m2", SOON)?;
    for seconds in [20, rng.u64(2..=6), rng.u64(7..=14)] {
        isolate_the_standby(&cluster, seconds)?;
        load.wait_for_progress(LAST_RETRY)?;
    }
    nothing_lost(&cluster, &load)
}

#[test]
fn the_preferred_standby_comes_back_and_steps_down() -> Result<()> {
    standby(true)
}

#[test]
fn the_other_standby_comes_back_and_steps_down() -> Result<()> {
    standby(false)
}

/// The serving machine `m1` is cut off for this long. A machine that is promoted meanwhile has the history that counts.
fn isolate_the_server(seconds: u64, m1: u8, m2: u8) -> Result<()> {
    let cluster = Cluster::build()
        .masters(2)
        .skew("m1", m1)
        .skew("m2", m2)
        .file_on("m1", "/usr/local/bin/tell", "#!/bin/sh\necho \"$1: $MFS_ERROR\" >> /var/lib/lab/told\n", 0o755)
        .file_on("m1", "/etc/mfs/mfspromote.cfg", "NOTIFY = /usr/local/bin/tell\n", 0o644)
        .start()?;
    let load = cluster.client().keep_writing_at(100)?;
    cluster.wait_for_metalogger_in_step("m2", SOON)?;
    cluster.isolate("m1")?;
    std::thread::sleep(Duration::from_secs(seconds));
    cluster.heal("m1")?;
    let server = if cluster.master_pid("m2").is_some() { "m2" } else { "m1" };
    steady(&cluster, "one machine to serve", || cluster.serving().len() == 1)?;
    eprintln!("m1 cut off for {seconds} s while it served, skews {m1} and {m2}: {:?} serves", cluster.serving());
    if seconds >= 12 {
        assert_eq!((server, cluster.serving()), ("m2", vec!["m2".to_owned()]));
        cluster.expect("m1 to stop its master", SOON, || cluster.master_pid("m1").is_none().then_some(()))?;
        let told = cluster.must("m1", &["cat", "/var/lib/lab/told"])?;
        assert!(told.contains(log_lines::NOTIFIED_ISOLATED) || told.contains(log_lines::NOTIFIED_PEER_ALIVE), "{told}");
    }
    all_there(&cluster, &load)
}

#[test]
fn the_serving_machine_is_cut_off_and_preferred() -> Result<()> {
    let mut rng = random::rng();
    isolate_the_server(20, PREFERRED, OTHER)?;
    isolate_the_server(rng.u64(2..=14), PREFERRED, OTHER)
}

#[test]
fn the_serving_machine_is_cut_off_and_not_preferred() -> Result<()> {
    let mut rng = random::rng();
    isolate_the_server(20, OTHER, PREFERRED)?;
    isolate_the_server(rng.u64(2..=14), OTHER, PREFERRED)
}

/// The worst moment for a network to come back: the machine that was cut off has won the address while isolated, its
/// hold-off is over, and it is about to find out that it is cut off. The other machine steps down.
#[test]
fn the_network_comes_back_when_an_isolated_machine_has_won() -> Result<()> {
    let cluster = Cluster::build().masters(2).skew("m1", PREFERRED).skew("m2", OTHER).start()?;
    let load = cluster.client().keep_writing_at(100)?;
    cluster.wait_for_metalogger_in_step("m2", SOON)?;
    cluster.isolate("m1")?;
    cluster.wait_for_log("m2", log_lines::SERVING, SOON)?;
    load.wait_for_progress(LAST_RETRY)?;
    let mark = cluster.mark();
    cluster.wait_for_log_since(mark, "m1", log_lines::PROMOTION_BEGUN, SOON)?;
    std::thread::sleep(Duration::from_millis(random::rng().u64(1300..=2500)));
    cluster.heal("m1")?;
    steady(&cluster, "m2 alone to serve", || cluster.serving() == ["m2"])?;
    assert!(!cluster.started_master_since(mark, "m1"), "m1 never served what it knew before it was cut off");
    all_there(&cluster, &load)
}

/// It comes back just when the other machine begins to serve, before the one that was cut off has noticed anything.
#[test]
fn the_network_comes_back_when_the_other_machine_has_just_begun_to_serve() -> Result<()> {
    let cluster = Cluster::build().masters(2).skew("m1", PREFERRED).skew("m2", OTHER).start()?;
    let load = cluster.client().keep_writing_at(100)?;
    cluster.wait_for_metalogger_in_step("m2", SOON)?;
    cluster.wait_for_log("m1", log_lines::M2_REMEMBERED, SOON)?;
    cluster.isolate("m1")?;
    cluster.wait_for_log("m2", log_lines::PROVED, SOON)?;
    cluster.heal("m1")?;
    cluster.wait_for_log("m1", log_lines::STOPPED_SERVING_OR_PEER_ALIVE, SOON)?;
    steady(&cluster, "m2 alone to serve", || cluster.serving() == ["m2"])?;
    all_there(&cluster, &load)
}

/// As `nothing_lost`, but while it was cut off the other machine's address was here too.
fn all_there(cluster: &Cluster, load: &Workload) -> Result<()> {
    load.wait_for_progress(LAST_RETRY)?;
    let verdict = load.verify(&cluster.crashes())?;
    eprintln!("{} operations acknowledged, {} lost", verdict.acknowledged, verdict.lost.len());
    assert_eq!((verdict.lost, verdict.failed), (vec![], vec![]));
    Ok(())
}
