//! A machine whose last check saw that its copy is stale steps down for a better one, and serves if there is none.

use lab::{Cluster, LAST_RETRY, Result, log_lines};

use crate::SOON;
use crate::nothing_lost;
use crate::wait_for_whole_copy;

/// Where the last check has noted that the copy is stale.
const FRESHNESS: &str = "freshness.json";

/// Three machines; m2, which ucarp prefers, knows that its copy is stale.
fn preferred_is_stale() -> Result<(Cluster, lab::Workload)> {
    let cluster = Cluster::build().masters(3).start()?;
    let load = cluster.client().keep_writing()?;
    load.wait_for_progress(LAST_RETRY)?;
    cluster.wait_for_metalogger_in_step("m2", SOON)?;
    cluster.starve("m2")?;
    load.wait_for_progress(LAST_RETRY)?;
    let check = cluster.run("m2", &["mfs-promote", "--check"])?;
    assert_eq!(check.status.code(), Some(2), "{check:?}");
    let noted = cluster.must("m2", &["ls", "/var/lib/moosefs-ucarp"])?;
    assert!(noted.contains(FRESHNESS), "{noted}");
    load.wait_for_progress(LAST_RETRY)?;
    load.stop()?;
    assert_eq!(load.errors()?, []);
    wait_for_whole_copy(&cluster, "m3")?;
    Ok((cluster, load))
}

#[test]
fn a_copy_known_to_be_stale_steps_down_for_a_better_one() -> Result<()> {
    let (cluster, load) = preferred_is_stale()?;
    cluster.power_off("m1")?;
    cluster.wait_for_log("m2", log_lines::STALE, SOON)?;
    cluster.wait_for_serving("m3", SOON)?;
    nothing_lost(&cluster, &load)
}

#[test]
fn a_copy_known_to_be_stale_is_served_if_there_is_no_better_one() -> Result<()> {
    let (cluster, _load) = preferred_is_stale()?;
    cluster.power_off("m3")?;
    cluster.power_off("m1")?;
    cluster.wait_for_log("m2", log_lines::STEPPED_DOWN, SOON)?;
    assert_eq!(cluster.master_pid("m2"), None);
    cluster.wait_for_serving("m2", SOON)?;
    cluster.wait_for_log("m2", log_lines::LAST_RESORT, SOON)?;
    // It serves now, so nothing else counts any more.
    cluster.wait_for_log("m2", log_lines::SERVING, SOON)?;
    let left = cluster.must("m2", &["ls", "/var/lib/moosefs-ucarp"])?;
    assert!(!left.contains(FRESHNESS), "{left}");
    Ok(())
}

#[test]
fn a_copy_that_lagged_and_followed_the_next_machine_is_not_stale() -> Result<()> {
    let mut builder = Cluster::build().masters(3);
    for daemon in ["mfsmetalogger", "mfschunkserver"] {
        builder = builder.setting(daemon, "MASTER_RECONNECTION_DELAY", "1");
    }
    let cluster = builder.start()?;
    let load = cluster.client().keep_writing()?;
    cluster.wait_for_metalogger_in_step("m3", SOON)?;
    cluster.starve("m3")?;
    cluster.wait_for_log("m3", log_lines::COPY_IS_STALE, SOON)?;
    cluster.power_off("m1")?;
    cluster.wait_for_serving("m2", SOON)?;
    cluster.feed("m3")?;
    load.wait_for_progress(LAST_RETRY)?;
    // No comparison since: it is said at once what m2 serves.
    cluster.wait_for_metalogger_in_step("m3", SOON)?;
    let mark = cluster.mark();
    cluster.power_off("m2")?;
    cluster.wait_for_serving("m3", SOON)?;
    let stepped_down = |event: &lab::Event| event.machine == "m3" && event.text.contains(log_lines::STEPPED_DOWN);
    assert!(!cluster.events().since(mark).iter().any(stepped_down), "never stale");
    load.wait_for_progress(LAST_RETRY)?;
    Ok(())
}
