//! MooseFS 4.57.5, on the Debian 13 that brings it, and the newest one that Debian has: what differs from 3.0 must not
//! matter.

use lab::{Cluster, LAST_RETRY, Release, Result, log_lines};

use crate::SOON;
use crate::nothing_lost;
use crate::wait_for_whole_copy;

#[test]
fn a_switchover_and_two_power_cuts_on_4_57() -> Result<()> {
    switchover_and_two_power_cuts(Release::Debian13, log_lines::PROVED_4_57)
}

#[test]
fn a_switchover_and_two_power_cuts_on_the_newest_release() -> Result<()> {
    switchover_and_two_power_cuts(Release::DebianUnstable, log_lines::PROVED_NEWEST)
}

/// After each change of the master the others must follow, with nobody's help: the next one needs their copies.
fn switchover_and_two_power_cuts(release: Release, proved: &str) -> Result<()> {
    let cluster = Cluster::build().release(release).masters(3).start()?;
    let load = cluster.client().keep_writing()?;
    for standby in ["m2", "m3"] {
        cluster.wait_for_metalogger_in_step(standby, SOON)?;
    }
    let dry_run = cluster.must("m2", &["mfs-promote", "--dry-run"])?;
    let rehearsal = cluster.must("m2", &["mfs-promote", "--rehearse"])?;
    eprintln!("{dry_run}{rehearsal}");
    assert!(dry_run.contains(log_lines::WOULD_SUCCEED) && rehearsal.contains(log_lines::WOULD_SERVE));

    cluster.must("m1", &["mfs-promote", log_lines::SWITCHOVER])?;
    cluster.wait_for_serving("m2", SOON)?;
    for standby in ["m1", "m3"] {
        wait_for_whole_copy(&cluster, standby)?;
    }
    let mut serving = "m2".to_owned();
    for _ in 0..2 {
        let off = cluster.power_off(&serving)?;
        let taken = cluster.wait_for_serving_other_than(&serving, SOON)?;
        load.wait_for_progress(LAST_RETRY)?;
        eprintln!("{} serves {:.1} s after {serving}; {:?}", taken.by, taken.at.seconds_since(off), load.outage(off)?);
        cluster.wait_for_log(&taken.by, proved, SOON)?;
        cluster.wait_for_log(&taken.by, log_lines::SERVING, SOON)?;
        cluster.power_on(&serving)?;
        for machine in ["m1", "m2", "m3"] {
            wait_for_whole_copy(&cluster, machine)?;
        }
        assert_eq!(cluster.serving(), [taken.by.as_str()]);
        serving = taken.by;
    }
    nothing_lost(&cluster, &load)
}
