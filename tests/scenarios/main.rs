//! Whole clusters with real ucarp and real MooseFS. Needs root, ucarp and the MooseFS 3.0 packages.
//! Clusters never overlap: the lab holds a lock of the host while one runs.

mod election;
mod failover;
mod lab_itself;
mod metadata;

use std::time::Duration;

use lab::{Result, Workload};

/// The deadline of every wait for an event.
const SOON: Duration = Duration::from_secs(60);

/// Every acknowledged name and content is there, and no operation failed.
fn nothing_lost(load: &Workload) -> Result<()> {
    let verdict = load.verify()?;
    eprintln!("{} operations acknowledged, {} lost", verdict.acknowledged, verdict.lost.len());
    assert_eq!(verdict.lost, Vec::<String>::new());
    assert_eq!(verdict.failed, Vec::<String>::new());
    Ok(())
}
