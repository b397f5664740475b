//! A machine is cut off beyond its link and comes back: it must not serve while it is alone, and what the living master
//! has acknowledged meanwhile must win, whichever machine ucarp prefers.

use std::time::Duration;

use lab::random::{self, pick, with_seeds};
use lab::{Cluster, LAST_RETRY, Result, Workload, log_lines};

use crate::{SOON, nothing_lost, steady, wait_for_whole_copy};

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
        // Its ucarp may hear the other one first.
        let why = [log_lines::NOTIFIED_ISOLATED, log_lines::NOTIFIED_PEER_ALIVE, log_lines::NOTIFIED_LEFT];
        assert!(why.iter().any(|why| told.contains(why)), "{told}");
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

/// Moments of the dice in one cluster.
const DRAWS: u32 = 4;

/// It comes back at any moment around the one at which the other machine begins to serve: at none of them do two machines
/// answer, and no client gets an error. `LAB_SEEDS` is the number of clusters (1), each with four moments.
#[test]
fn the_network_comes_back_around_the_moment_when_the_other_machine_begins_to_serve() -> Result<()> {
    with_seeds(1, |mut rng| {
        let cluster = Cluster::build().masters(2).skew("m1", PREFERRED).skew("m2", OTHER).start()?;
        let load = cluster.client().keep_writing_at(100)?;
        for _ in 0..DRAWS {
            for machine in ["m1", "m2"] {
                wait_for_whole_copy(&cluster, machine)?;
            }
            let serving = cluster.expect("a machine to serve", SOON, || cluster.answering())?.by;
            let lasts = Duration::from_millis(rng.u64(2000..=6500));
            let at = cluster.isolate(&serving)?;
            std::thread::sleep(lasts);
            cluster.heal(&serving)?;
            load.wait_for_progress(LAST_RETRY)?;
            cluster.expect("one machine to serve", SOON, || {
                let holders = ["m1", "m2"].iter().filter(|machine| cluster.holds_vip(machine)).count();
                (holders == 1 && cluster.serving().len() == 1).then_some(())
            })?;
            eprintln!(
                "{serving} isolated for {lasts:.2?}: {:?} serves; waited {:.1?}",
                cluster.serving(),
                load.outage(at)?
            );
        }
        eprintln!("{}", cluster.findings());
        all_there(&cluster, &load)
    })
}

/// `mfsmaster -v` takes nine seconds: a plan that needs its release is as slow, as on a disk that hardly answers.
const SLOW_PLAN: &str = "#!/bin/sh\ncase \"$*\" in *-v*) sleep 9 ;; esac\nexec /usr/lib/real/mfsmaster \"$@\"\n";

/// The preferred standby has won while it was alone, comes back while it still plans, and advertises for longer than any wait
/// of the living master, which must not be stopped for a copy that lacks what it has.
#[test]
fn the_preferred_standby_comes_back_and_its_plan_is_slow() -> Result<()> {
    let real = std::fs::read("/usr/sbin/mfsmaster").expect("mfsmaster");
    let cluster = Cluster::build()
        .masters(2)
        .skew("m1", OTHER)
        .skew("m2", PREFERRED)
        .file_on("m2", "/usr/lib/real/mfsmaster", real, 0o755)
        .file_on("m2", "/usr/sbin/mfsmaster", SLOW_PLAN, 0o755)
        // A standby that asks for its release would be taken for a master.
        .file("/etc/mfs/mfspromote.cfg", "STANDBY = cold\n", 0o644)
        .start()?;
    let load = cluster.client().keep_writing()?;
    wait_for_whole_copy(&cluster, "m2")?;
    isolate_the_standby(&cluster, 6)?;
    load.wait_for_progress(LAST_RETRY)?;
    nothing_lost(&cluster, &load)
}

/// As `nothing_lost`, but while it was cut off the other machine's address was here too.
fn all_there(cluster: &Cluster, load: &Workload) -> Result<()> {
    load.wait_for_progress(LAST_RETRY)?;
    let verdict = load.verify(&cluster.crashes())?;
    eprintln!("{} operations acknowledged, {} lost", verdict.acknowledged, verdict.lost.len());
    assert_eq!((verdict.lost, verdict.failed), (vec![], vec![]));
    Ok(())
}
