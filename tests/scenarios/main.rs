//! Whole clusters with real ucarp and real MooseFS. Needs root, ucarp and the MooseFS 3.0 packages.
//! Clusters never overlap: the lab holds a lock of the host while one runs.

mod election;
mod failover;
mod lab_itself;
mod metadata;

use std::time::Duration;

use lab::{Cluster, Moment, Result, Workload};

/// The deadline of every wait for an event.
const SOON: Duration = Duration::from_secs(60);
/// MooseFS acknowledges an operation before it sends the change to the metaloggers: what was acknowledged this shortly
/// before the master died may exist nowhere else. No failover can bring it back, so it is counted apart, and named.
const LOSS_WINDOW: Duration = Duration::from_millis(50);

/// Every acknowledged name and content is there, no operation failed, and at no moment did two machines serve.
fn nothing_lost(cluster: &Cluster, load: &Workload) -> Result<()> {
    let verdict = load.verify()?;
    let crashes = cluster.crashes();
    let in_window =
        |moment: Moment| crashes.iter().any(|crash| moment - *crash < LOSS_WINDOW && *crash - moment < LOSS_WINDOW);
    let in_flight =
        |start: Moment, end: Moment| crashes.iter().any(|crash| start - *crash < LOSS_WINDOW && *crash <= end);
    let (excused, lost): (Vec<_>, Vec<_>) = verdict.lost.iter().partition(|lost| in_window(lost.acknowledged));
    let (cut_off, failed): (Vec<_>, Vec<_>) = verdict.failed.iter().partition(|line| in_flight(line.start, line.end));
    eprintln!("{} operations acknowledged, {} lost", verdict.acknowledged, lost.len());
    for one in excused {
        let before = crashes
            .iter()
            .map(|crash| one.acknowledged.seconds_since(*crash) * 1e3)
            .min_by(|a, b| a.abs().total_cmp(&b.abs()));
        eprintln!("  acknowledged {before:.1?} ms after the master died, replicated nowhere: {}", one.what);
    }
    for line in cut_off {
        eprintln!("  in flight when the master died, not acknowledged: {line}");
    }
    assert_eq!(lost, Vec::<&lab::Lost>::new());
    assert_eq!(failed, Vec::<&lab::oplog::Line>::new());
    assert!(cluster.overlaps().is_empty(), "{:?}", cluster.overlaps());
    Ok(())
}
