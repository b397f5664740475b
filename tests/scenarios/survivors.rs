//! What becomes of the metalogger that survives a failover, on the third machine: in step with the promoted one, ahead of
//! it, or behind it, it holds a whole copy of the new history soon after. Shown by a second failover, onto exactly it.
//!
//! Metaloggers compare numbers, never histories: without the epoch jump the one ahead would continue its own, dead
//! history, and the second failover would serve that.

use std::ops::RangeInclusive;

use lab::{Builder, Cluster, LAST_RETRY, Moment, Release, Result, Workload, log_lines};

use crate::SOON;
use crate::nothing_lost;
use crate::nothing_lost_but;
use crate::wait_for_whole_copy;

/// Changes that one copy has and the other lacks; the load makes some hundred in each second.
const GAP: u64 = 300;

/// Where the survivor is, seen from the machine that is promoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Survivor {
    Ahead,
    Behind,
    InStep,
}

#[test]
fn survivors_follow_the_new_history_on_3_0() -> Result<()> {
    survivors_follow(Cluster::build())
}

#[test]
fn survivors_follow_the_new_history_on_4_57() -> Result<()> {
    survivors_follow(Cluster::build().release(Release::Debian13))
}

/// One kind after the other, in one cluster: the machine that dies, the one that is promoted, and the survivor.
fn survivors_follow(builder: Builder) -> Result<()> {
    let cluster = builder.masters(3).start()?;
    let load = cluster.client().keep_writing()?;
    let ahead = failover_and_another(&cluster, &load, Survivor::Ahead, ["m1", "m2", "m3"])?;
    failover_and_another(&cluster, &load, Survivor::Behind, ["m3", "m1", "m2"])?;
    failover_and_another(&cluster, &load, Survivor::InStep, ["m2", "m1", "m3"])?;
    let lost = nothing_lost_but(&cluster, &load, std::slice::from_ref(&ahead))?;
    assert!(!lost.is_empty(), "only the survivor knew {GAP} changes, so they are lost");
    Ok(())
}

/// The first machine dies, then the second one, both under load; the third one serves in the end, and the others come
/// back. Returns the time whose changes never reached the machine that was promoted first.
fn failover_and_another(
    cluster: &Cluster,
    load: &Workload,
    kind: Survivor,
    [dies, promoted, survivor]: [&str; 3],
) -> Result<RangeInclusive<Moment>> {
    for machine in [promoted, survivor] {
        wait_for_whole_copy(cluster, machine)?;
    }
    // It is a metalogger for now, and cannot win.
    cluster.stop_ucarp(survivor)?;
    let unheard = fall_behind(cluster, kind, promoted, survivor)?;
    let off = cluster.power_off(dies)?;
    for machine in [promoted, survivor] {
        cluster.feed(machine)?;
    }
    let taken = cluster.wait_for_serving(promoted, SOON)?;
    wait_for_whole_copy(cluster, survivor)?;
    let followed = Moment::now().seconds_since(taken.at);
    load.wait_for_progress(LAST_RETRY)?;
    eprintln!("{kind:?}: {survivor} had the whole history {followed:.1} s after {promoted} began to serve");
    cluster.wait_for_log(promoted, log_lines::SERVING, SOON)?;

    cluster.start_ucarp(survivor)?;
    wait_for_whole_copy(cluster, survivor)?;
    cluster.power_off(promoted)?;
    cluster.wait_for_serving(survivor, SOON)?;
    cluster.wait_for_log(survivor, log_lines::STAGED_COPY, SOON)?;
    load.wait_for_progress(LAST_RETRY)?;
    for machine in [dies, promoted] {
        cluster.power_on(machine)?;
    }
    Ok(unheard..=off)
}

/// Waits until one of the two copies lacks [`GAP`] changes that the other one has. Since when, or now.
fn fall_behind(cluster: &Cluster, kind: Survivor, promoted: &str, survivor: &str) -> Result<Moment> {
    let (less, more) = match kind {
        Survivor::Ahead => (promoted, survivor),
        Survivor::Behind => (survivor, promoted),
        Survivor::InStep => return Ok(Moment::now()),
    };
    let since = cluster.starve(less)?;
    let reaches = |machine| cluster.copy_reaches(machine).ok().flatten();
    let gap = || Some(reaches(more)?.saturating_sub(reaches(less)?)).filter(|gap| *gap >= GAP);
    let gap = cluster.expect(&format!("{more} to be {GAP} changes ahead of {less}"), SOON, gap)?;
    eprintln!("{kind:?}: {less} lacks {gap} changes that {more} has");
    Ok(since)
}

/// Nobody writes any more: on 3.0 nothing would tell the survivor that it lacks what the promoted machine has.
#[test]
fn a_survivor_of_an_idle_file_system_follows_too() -> Result<()> {
    let cluster = Cluster::build().masters(3).start()?;
    let load = cluster.client().keep_writing()?;
    for machine in ["m2", "m3"] {
        wait_for_whole_copy(&cluster, machine)?;
    }
    cluster.stop_ucarp("m3")?;
    fall_behind(&cluster, Survivor::Behind, "m2", "m3")?;
    load.stop()?;
    wait_for_whole_copy(&cluster, "m2")?;
    cluster.power_off("m1")?;
    cluster.feed("m3")?;
    cluster.wait_for_serving("m2", SOON)?;
    cluster.wait_for_log("m2", log_lines::CHANGE_MADE, SOON)?;
    cluster.wait_for_log("m3", log_lines::LOGS_DROPPED, SOON)?;
    cluster.start_ucarp("m3")?;
    wait_for_new_history(&cluster, "m3")?;
    cluster.power_off("m2")?;
    cluster.wait_for_serving("m3", SOON)?;
    nothing_lost(&cluster, &load)
}

fn wait_for_new_history(cluster: &Cluster, machine: &str) -> Result<()> {
    let planned = || {
        let plan = cluster.must(machine, &["mfs-promote", "--dry-run"]).ok()?;
        plan.contains(log_lines::NEW_HISTORY).then_some(())
    };
    cluster.expect(&format!("{machine} to plan with the new history"), SOON, planned)
}
