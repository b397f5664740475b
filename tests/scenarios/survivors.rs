//! The metaloggers that survive a failover, in step with the promoted copy, ahead of it or behind it, must soon hold the
//! whole new history and nothing of the old one: shown by a second failover onto each of them.

use lab::{Cluster, LAST_RETRY, Release, Result};

use crate::{SOON, nothing_lost};

/// The third machine's metalogger when the first machine dies, beside the copy of the second, which is promoted.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Third {
    InStep,
    Ahead,
    Behind,
}

/// What the serving master sends to this machine's metalogger is dropped on the way; ucarp hears on.
fn cut_metalogger_off(cluster: &Cluster, machine: &str) -> Result<()> {
    let rule = format!("oifname v-{machine} ether type ip tcp sport 9419 drop");
    cluster.on_switch(&format!(
        "nft 'table bridge lagging {{ chain forward {{ type filter hook forward priority 0; {rule}; }}; }}'"
    ))
}

fn second_failover_onto(third: Third, release: Option<Release>) -> Result<()> {
    let builder = Cluster::build().masters(3);
    let cluster = release.map_or(builder.clone(), |release| builder.release(release)).start()?;
    let load = cluster.client().keep_writing()?;
    for standby in ["m2", "m3"] {
        cluster.wait_for_metalogger_in_step(standby, SOON)?;
    }
    let lagging = match third {
        Third::InStep => None,
        Third::Ahead => Some("m2"),
        Third::Behind => Some("m3"),
    };
    if let Some(machine) = lagging {
        cut_metalogger_off(&cluster, machine)?;
    }
    load.wait_for_progress(LAST_RETRY)?;
    load.wait_for_progress(LAST_RETRY)?;
    load.stop()?;
    for standby in ["m2", "m3"].into_iter().filter(|standby| Some(*standby) != lagging) {
        cluster.wait_for_metalogger_in_step(standby, SOON)?;
    }
    let copies = ["m2", "m3"].map(|name| cluster.copy_reaches(name));
    eprintln!("m2 reaches {:?}, m3 {:?}", copies[0], copies[1]);
    let [second, third_copy] = [copies[0].as_ref().ok(), copies[1].as_ref().ok()];
    match third {
        Third::InStep => assert_eq!(second, third_copy),
        Third::Ahead => assert!(second < third_copy),
        Third::Behind => assert!(second > third_copy),
    }

    cluster.power_off("m1")?;
    cluster.wait_for_serving("m2", SOON)?;
    if lagging.is_some() {
        cluster.on_switch("nft delete table bridge lagging")?;
    }
    cluster.wait_for_log("m2", "promotion ended: serving", SOON)?;
    let verdict = load.verify(&cluster.crashes())?;
    eprintln!("{} acknowledged, {} of them beyond the promoted copy", verdict.acknowledged, verdict.lost.len());
    assert_eq!(!verdict.lost.is_empty(), third == Third::Ahead, "{:?}", verdict.lost.first());

    // The new master goes on, and passes every number that the old one had given.
    let load = cluster.client().keep_writing()?;
    load.wait_for_progress(LAST_RETRY)?;
    cluster.wait_for_metalogger_in_step("m3", SOON)?;
    load.wait_for_progress(LAST_RETRY)?;
    cluster.power_off("m2")?;
    cluster.wait_for_serving("m3", SOON)?;
    cluster.wait_for_log("m3", "stage: ml, image metadata_ml.mfs.back of version 1[0-9]{6} ", SOON)?;
    load.wait_for_progress(LAST_RETRY)?;
    assert_eq!(cluster.serving(), ["m3"]);
    nothing_lost(&cluster, &load)
}

#[test]
fn in_step_on_3_0() -> Result<()> {
    second_failover_onto(Third::InStep, None)
}

#[test]
fn ahead_on_3_0() -> Result<()> {
    second_failover_onto(Third::Ahead, None)
}

#[test]
fn behind_on_3_0() -> Result<()> {
    second_failover_onto(Third::Behind, None)
}

#[test]
fn in_step_on_4_57() -> Result<()> {
    second_failover_onto(Third::InStep, Some(Release::Debian13))
}

#[test]
fn ahead_on_4_57() -> Result<()> {
    second_failover_onto(Third::Ahead, Some(Release::Debian13))
}

#[test]
fn behind_on_4_57() -> Result<()> {
    second_failover_onto(Third::Behind, Some(Release::Debian13))
}
