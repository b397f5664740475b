//! Whole clusters with real ucarp and real MooseFS. Needs root, ucarp and the MooseFS 3.0 packages.
//! Clusters never overlap: the lab holds a lock of the host while one runs.

mod booted;
mod election;
mod failover;
mod lab_itself;
mod metadata;
mod verbs;

use std::time::Duration;

use lab::{Cluster, Result, Workload};

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
