//! Whole clusters with real ucarp and real MooseFS. Needs root, ucarp and the MooseFS 3.0 packages.
//! Clusters never overlap: the lab holds a lock of the host while one runs.

mod booted;
mod election;
mod failover;
mod generations;
mod lab_itself;
mod metadata;
mod notify;
mod old_release;
mod proof;
mod survivors;
mod verbs;

use std::time::Duration;

use lab::{Cluster, LAST_RETRY, Result, Workload};
use nix::sys::signal::Signal;

/// The deadline of every wait for an event.
const SOON: Duration = Duration::from_secs(60);

/// Every acknowledged name and content is there, no operation failed, and at no moment did two machines serve.
fn nothing_lost(cluster: &Cluster, load: &Workload) -> Result<()> {
    let verdict = load.verify(&cluster.crashes())?;
    eprintln!("{} operations acknowledged, {} lost", verdict.acknowledged, verdict.lost.len());
    for one in &verdict.cut_off {
        eprintln!("  cut in two: {one}");
    }
    assert_eq!(verdict.lost, []);
    assert_eq!(verdict.failed, []);
    assert!(cluster.overlaps().is_empty(), "{:?}", cluster.overlaps());
    Ok(())
}

/// Two machines, a load that has ended, and m2's complete copy without a metalogger that goes on writing it: ready to be
/// damaged.
fn copy_left_alone() -> Result<(Cluster, Workload)> {
    let cluster = Cluster::build().masters(2).start()?;
    let load = cluster.client().keep_writing()?;
    load.wait_for_progress(LAST_RETRY)?;
    load.stop()?;
    cluster.wait_for_metalogger_in_step("m2", SOON)?;
    cluster.kill("m2", "mfsmetalogger", Signal::SIGKILL)?;
    Ok((cluster, load))
}

/// The names in the archives of a machine.
fn archived(cluster: &Cluster, machine: &str) -> Result<String> {
    cluster.must(machine, &["sh", "-c", "for a in /var/lib/mfs/bak/metabak.*; do tar --list --file $a; done"])
}
