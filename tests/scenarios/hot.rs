//! The hot standby: a master that has loaded the copy and replays each change as it comes. It serves as soon as it is let go,
//! and until then it serves nobody, whatever happens to the run that feeds it.

use std::thread::sleep;
use std::time::Duration;

use lab::random;
use lab::{Builder, Cluster, LAST_RETRY, Release, Result, Workload, log_lines};
use nix::sys::signal::Signal;

use crate::{SOON, nothing_lost, wait_for_whole_copy};

pub(crate) fn builder() -> Builder {
    let mut builder = Cluster::build().release(Release::Debian13).masters(2);
    for daemon in ["mfsmetalogger", "mfschunkserver"] {
        builder = builder.setting(daemon, "MASTER_RECONNECTION_DELAY", "1");
    }
    builder
}

/// m1 serves, and m2 has loaded its copy and follows.
pub(crate) fn hot_cluster(builder: Builder) -> Result<(Cluster, Workload)> {
    let cluster = builder.start()?;
    let load = cluster.client().keep_writing()?;
    load.wait_for_progress(LAST_RETRY)?;
    cluster.wait_for_log("m2", log_lines::HOT, SOON)?;
    Ok((cluster, load))
}

/// The process that waits on a machine.
fn waiting(cluster: &Cluster, machine: &str) -> Option<i32> {
    let files = cluster.must(machine, &["sh", "-c", "ls /var/lib/mfs/mfs-promote/hot 2>/dev/null || true"]).ok()?;
    if files.contains("waits.") { cluster.master_pid(machine) } else { None }
}

/// Power cuts of the serving machine, `times` round the two. `after` gets the machine that is to take over and where the log
/// ended before the cut; the next one follows when the machine that was cut is hot.
fn power_cuts(
    cluster: &Cluster,
    load: &Workload,
    times: u32,
    mut after: impl FnMut(&str, usize) -> Result<()>,
) -> Result<()> {
    let mut serving = "m1";
    for _ in 0..times {
        let next = if serving == "m1" { "m2" } else { "m1" };
        let mark = cluster.mark();
        cluster.power_off(serving)?;
        after(next, mark)?;
        cluster.wait_for_serving(next, SOON)?;
        load.wait_for_progress(LAST_RETRY)?;
        let mark = cluster.mark();
        cluster.power_on(serving)?;
        cluster.wait_for_log_since(mark, serving, log_lines::HOT, SOON)?;
        serving = next;
    }
    nothing_lost(cluster, load)
}

#[test]
fn four_power_cuts_and_each_takeover_is_hot() -> Result<()> {
    let (cluster, load) = hot_cluster(builder())?;
    power_cuts(&cluster, &load, 4, |next, mark| {
        cluster.wait_for_log_since(mark, next, log_lines::LET_GO, SOON).map(drop)
    })
}

#[test]
fn a_switchover_lets_it_go_before_the_old_master_has_stored_its_image() -> Result<()> {
    let (cluster, load) = hot_cluster(builder())?;
    cluster.wait_for_metalogger_in_step("m2", SOON)?;
    let mark = cluster.mark();
    let text = std::thread::scope(|scope| {
        let switched = scope.spawn(|| cluster.run("m1", &["mfs-promote", log_lines::SWITCHOVER]));
        cluster.wait_for_log_since(mark, "m1", log_lines::ADDRESS_REMOVED, SOON)?;
        // As if the image were so large that it is stored for minutes.
        cluster.kill("m1", "mfsmaster", Signal::SIGSTOP)?;
        let output = switched.join().expect("no panic")?;
        Result::Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    })?;
    assert!(text.contains(log_lines::SWITCHED_OVER), "{text}");
    cluster.wait_for_log_since(mark, "m2", log_lines::LET_GO, Duration::ZERO)?;
    assert!(cluster.master_pid("m1").is_some());
    cluster.kill("m1", "mfsmaster", Signal::SIGCONT)?;
    cluster.wait_for_log_since(mark, "m1", log_lines::HOT, SOON)?;
    assert_eq!(cluster.serving(), ["m2"]);
    load.wait_for_progress(LAST_RETRY)?;
    nothing_lost(&cluster, &load)
}

#[test]
fn a_run_that_feeds_and_is_killed_leaves_no_second_master() -> Result<()> {
    let (cluster, load) = hot_cluster(builder())?;
    let master = waiting(&cluster, "m2").expect("m2 is hot");
    cluster.kill_ours_and("m2", &[])?;
    // Nobody feeds it: it waits, and what is started next ends it.
    assert_eq!(waiting(&cluster, "m2"), Some(master));
    assert!(!cluster.answers("m2"));
    let mark = cluster.mark();
    cluster.power_off("m1")?;
    cluster.wait_for_serving("m2", SOON)?;
    assert!(cluster.wait_for_log_since(mark, "m2", log_lines::LET_GO, Duration::ZERO).is_err());
    assert_ne!(cluster.master_pid("m2"), Some(master));
    load.wait_for_progress(LAST_RETRY)?;
    nothing_lost(&cluster, &load)
}

#[test]
fn a_hot_standby_that_dies_is_loaded_again() -> Result<()> {
    let (cluster, load) = hot_cluster(builder())?;
    let mark = cluster.mark();
    cluster.kill("m2", "mfsmaster", Signal::SIGKILL)?;
    cluster.wait_for_log_since(mark, "m2", log_lines::HOT, SOON)?;
    let mark = cluster.mark();
    cluster.must("m2", &["sh", "-c", "echo '# changed' >> /etc/mfs/mfsexports.cfg"])?;
    cluster.wait_for_log_since(mark, "m2", log_lines::HOT, SOON)?;
    let mark = cluster.mark();
    cluster.power_off("m1")?;
    cluster.wait_for_serving("m2", SOON)?;
    cluster.wait_for_log_since(mark, "m2", log_lines::LET_GO, SOON)?;
    load.wait_for_progress(LAST_RETRY)?;
    nothing_lost(&cluster, &load)
}

#[test]
fn a_machine_that_stands_by_no_more_keeps_none() -> Result<()> {
    let (cluster, load) = hot_cluster(builder())?;
    cluster.stop_ucarp("m2")?;
    cluster.expect("m2 to end its hot standby", SOON, || cluster.master_pid("m2").is_none().then_some(()))?;
    assert_eq!(cluster.must("m2", &["ls", "/var/lib/mfs"])?.matches("mfs-promote").count(), 0);
    nothing_lost(&cluster, &load)
}

#[test]
fn a_hot_standby_that_was_told_to_stop_serves_no_less() -> Result<()> {
    let (cluster, load) = hot_cluster(builder())?;
    // It does not end, but will as soon as it serves.
    cluster.kill("m2", "mfsmaster", Signal::SIGTERM)?;
    cluster.power_off("m1")?;
    cluster.wait_for_serving("m2", SOON)?;
    load.wait_for_progress(LAST_RETRY)?;
    nothing_lost(&cluster, &load)
}

#[test]
fn a_master_of_3_0_is_not_made_to_wait() -> Result<()> {
    let cluster = builder().release(Release::Debian12).start()?;
    cluster.wait_for_log("m2", log_lines::COLD_RELEASE, SOON)?;
    assert_eq!(cluster.master_pid("m2"), None);
    let checked = || -> Result<String> {
        Ok(String::from_utf8_lossy(&cluster.run("m2", &["mfs-promote", "--check"])?.stdout).into_owned())
    };
    let said = checked()?;
    assert!(said.contains("OK        hot standby  cold: MooseFS 3.0"), "{said}");
    // It was asked for: that is another matter.
    cluster.must("m2", &["sh", "-c", "echo STANDBY = hot >> /etc/mfs/mfspromote.cfg"])?;
    let mark = cluster.mark();
    cluster.restart_ucarp("m2")?;
    cluster.wait_for_log_since(mark, "m2", log_lines::COLD_RELEASE, SOON)?;
    let said = checked()?;
    assert!(said.contains("WARNING   hot standby  cold: MooseFS 3.0"), "{said}");
    Ok(())
}

#[test]
fn a_run_that_is_killed_while_it_loads_leaves_no_master_behind() -> Result<()> {
    let (cluster, load) = hot_cluster(builder())?;
    cluster.kill("m2", "mfsmaster", Signal::SIGKILL)?;
    // The next one is held where it is, perhaps before it has its lock, while the run that starts it is killed.
    let held = || cluster.kill("m2", "mfsmaster", Signal::SIGSTOP).ok();
    cluster.expect("m2 to load again", SOON, held)?;
    cluster.kill_ours_and("m2", &[])?;
    // One that was asked for its version has ended with the run.
    let _ = cluster.kill("m2", "mfsmaster", Signal::SIGCONT);
    let mark = cluster.mark();
    cluster.power_off("m1")?;
    cluster.wait_for_serving("m2", SOON)?;
    assert!(cluster.wait_for_log_since(mark, "m2", log_lines::LET_GO, Duration::ZERO).is_err());
    let left = cluster.must("m2", &["ls", "/var/lib/mfs"])?;
    assert!(!left.contains("metadata.mfs-promote") && !left.contains("changelog.97"), "{left}");
    load.wait_for_progress(LAST_RETRY)?;
    nothing_lost(&cluster, &load)
}

#[test]
fn a_change_that_does_not_replay_is_an_alarm_before_it_is_needed() -> Result<()> {
    let (cluster, load) = hot_cluster(builder())?;
    load.stop()?;
    cluster.wait_for_metalogger_in_step("m2", SOON)?;
    let next = cluster.copy_reaches("m2")?.expect("a copy");
    // There is no such chunk.
    let script = format!("echo \"{next}: $(date +%s)|UNLOCK(987654321)\" >> /var/lib/mfs/changelog_ml.0.mfs");
    cluster.must("m2", &["sh", "-c", &script])?;
    cluster.wait_for_log("m2", log_lines::CANNOT_REPLAY, SOON)?;
    let checked = cluster.run("m2", &["mfs-promote", "--check"])?;
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(said.contains("CRITICAL  hot standby"), "{said}");
    nothing_lost(&cluster, &load)
}

/// The runs of the machine that takes over are killed at some moments; their supervisor starts them again.
#[test]
fn power_cuts_while_the_runs_of_the_next_machine_are_killed() -> Result<()> {
    let (cluster, load) = hot_cluster(builder())?;
    let mut rng = random::rng();
    power_cuts(&cluster, &load, 3, |next, _| {
        for _ in 0..2 {
            sleep(Duration::from_millis(rng.u64(..2500)));
            // Between two of them there is none.
            let _ = cluster.kill(next, "mfs-promote", Signal::SIGKILL);
        }
        Ok(())
    })
}

/// What a machine says of its hot standby.
pub(crate) fn hot_standby(cluster: &Cluster, machine: &str) -> Result<serde_json::Value> {
    let said = cluster.must(machine, &["mfs-promote", "--status", "--json"])?;
    let mut status: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    Ok(status["hot_standby"].take())
}

/// Waits until the hot standby of a machine has everything that the serving one had when this was called.
pub(crate) fn wait_until_hot_and_whole(cluster: &Cluster, machine: &str) -> Result<()> {
    wait_for_whole_copy(cluster, machine)?;
    let wanted = cluster.master_version(cluster.serving().first().expect("a machine serves"))?;
    let fed = || {
        let version = hot_standby(cluster, machine).ok()?["hot"]["version"].as_u64();
        version.filter(|fed| *fed >= wanted).map(drop)
    };
    cluster.expect(&format!("the hot standby of {machine} to have everything"), SOON, fed)
}
