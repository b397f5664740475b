//! What a crash leaves in the data folder, on real daemons: the stock restore gets each of these wrong without a word.

use std::fs;
use std::io::Write as _;

use lab::{Cluster, LAST_RETRY, Result};
use nix::sys::signal::Signal;

use crate::{SOON, archived, copy_left_alone, nothing_lost};

#[test]
fn a_torn_last_line_costs_nothing_else() -> Result<()> {
    let (cluster, load) = copy_left_alone()?;
    let log = cluster.data("m2")?.join("changelog_ml.0.mfs");
    let mut file = fs::OpenOptions::new().append(true).open(&log).expect("the metalogger's log");
    file.write_all(b"99999: 17953").expect("a torn line");

    let dry_run = cluster.must("m2", &["mfs-promote", "--dry-run"])?;
    assert!(dry_run.contains("torn last line of 12 bytes") && dry_run.contains("would succeed"), "{dry_run}");
    cluster.power_off("m1")?;
    cluster.wait_for_serving("m2", SOON)?;
    cluster.wait_for_log("m2", "torn.*12 bytes", SOON)?;
    nothing_lost(&cluster, &load)
}

#[test]
fn leftovers_of_an_earlier_stint_are_set_aside_not_merged() -> Result<()> {
    let cluster = Cluster::build().masters(2).start()?;
    let load = cluster.client().keep_writing()?;
    load.wait_for_progress(LAST_RETRY)?;
    load.stop()?;
    cluster.wait_for_metalogger_in_step("m2", SOON)?;
    // m2 was the master once: its own image, and a history that went another way from there and further.
    let data = cluster.data("m2")?;
    fs::copy(data.join("metadata_ml.mfs.back"), data.join("metadata.mfs.back")).expect("an old image");
    let version = cluster.master_version("m1")?;
    let dead: Vec<String> = (2..version + 500).map(|id| format!("{id}: 1600000000|ACCESS(1)\n")).collect();
    fs::write(data.join("changelog.0.mfs"), dead.concat()).expect("a dead branch");

    cluster.power_off("m1")?;
    cluster.wait_for_serving("m2", SOON)?;
    cluster.wait_for_log("m2", "promotion ended: serving", SOON)?;
    nothing_lost(&cluster, &load)?;
    let names = archived(&cluster, "m2")?;
    for name in ["metadata.mfs.back", "changelog.0.mfs", "metadata_ml.mfs.back", "changelog_ml.0.mfs"] {
        assert!(names.lines().any(|line| line.ends_with(&format!("/{name}"))), "{name} in {names}");
    }
    Ok(())
}

#[test]
fn first_hour_of_a_fresh_installation() -> Result<()> {
    let cluster = Cluster::build().masters(2).fresh().start()?;
    let load = cluster.client().keep_writing()?;
    cluster.wait_for_metalogger_in_step("m2", SOON)?;
    assert!(!cluster.files("m2")?.contains(&"metadata_ml.mfs.back".to_owned()), "no image yet");
    cluster.power_off("m1")?;
    cluster.wait_for_serving("m2", SOON)?;
    load.wait_for_progress(LAST_RETRY)?;
    nothing_lost(&cluster, &load)
}

#[test]
fn an_empty_file_system_is_never_served() -> Result<()> {
    let cluster = Cluster::build().masters(2).start()?;
    cluster.kill("m2", "mfsmetalogger", Signal::SIGKILL)?;
    let data = cluster.data("m2")?;
    for name in cluster.files("m2")?.iter().filter(|name| name.contains("_ml")) {
        fs::remove_file(data.join(name)).expect("a file of the copy");
    }
    fs::write(data.join("metadata_ml.tmp"), "MFSM NEW").expect("what a fresh master leaves");
    let dry_run = cluster.run("m2", &["mfs-promote", "--dry-run"])?;
    assert_eq!(dry_run.status.code(), Some(1), "{dry_run:?}");
    let before = cluster.files("m2")?;

    cluster.power_off("m1")?;
    cluster.wait_for_log("m2", "promotion failed: no promotion from the files here", SOON)?;
    cluster.expect("m2 to give the address up", SOON, || (!cluster.holds_vip("m2")).then_some(()))?;
    assert_eq!(cluster.master_pid("m2"), None);
    assert_eq!(cluster.files("m2")?, before);
    Ok(())
}

#[test]
fn files_of_another_file_system_are_refused() -> Result<()> {
    let cluster = Cluster::build().masters(3).start()?;
    let load = cluster.client().keep_writing()?;
    cluster.wait_for_metalogger_in_step("m3", SOON)?;
    let data = cluster.data("m2")?;
    let mut foreign = fs::read(data.join("metadata_ml.mfs.back")).expect("the copy's image");
    foreign[23] ^= 1;
    fs::write(data.join("metadata.mfs.back"), foreign).expect("an image of another file system");

    cluster.power_off("m1")?;
    cluster.wait_for_log("m2", "promotion failed: no promotion from the files here.*metaid", SOON)?;
    cluster.wait_for_serving("m3", SOON)?;
    load.wait_for_progress(LAST_RETRY)?;
    assert_eq!(cluster.master_pid("m2"), None);
    nothing_lost(&cluster, &load)
}

#[test]
fn cold_start_of_the_last_master_uses_its_own_files() -> Result<()> {
    let cluster = Cluster::build().masters(2).start()?;
    let load = cluster.client().keep_writing()?;
    cluster.wait_for_metalogger_in_step("m1", SOON)?;
    cluster.wait_for_metalogger_in_step("m2", SOON)?;
    // From here on only the master itself has what is written.
    for machine in ["m1", "m2"] {
        cluster.kill(machine, "mfsmetalogger", Signal::SIGKILL)?;
    }
    load.wait_for_progress(LAST_RETRY)?;
    load.wait_for_progress(LAST_RETRY)?;
    load.stop()?;
    cluster.power_off("m1")?;
    cluster.power_off("m2")?;
    let mark = cluster.mark();
    cluster.power_on("m1")?;
    cluster.wait_for_log_since(mark, "m1", "stage: own", SOON)?;
    cluster.wait_for_log_since(mark, "m1", "promotion ended: serving", SOON)?;
    nothing_lost(&cluster, &load)
}
