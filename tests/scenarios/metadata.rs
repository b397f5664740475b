//! What a crash leaves in the data folder, on real daemons: the stock restore gets each of these wrong without a word.

use std::fs;
use std::io::Write as _;

use lab::{Cluster, LAST_RETRY, Result, log_lines};
use nix::sys::signal::Signal;

use crate::SOON;
use crate::archived;
use crate::copy_left_alone;
use crate::nothing_lost;

#[test]
fn a_torn_last_line_costs_nothing_else() -> Result<()> {
    let (cluster, load) = copy_left_alone()?;
    let log = cluster.data("m2")?.join("changelog_ml.0.mfs");
    let mut file = fs::OpenOptions::new().append(true).open(&log).expect("the metalogger's log");
    file.write_all(b"99999: 17953").expect("a torn line");

    let dry_run = cluster.must("m2", &["mfs-promote", "--dry-run"])?;
    assert!(dry_run.contains(log_lines::TORN) && dry_run.contains("would succeed"), "{dry_run}");
    cluster.power_off("m1")?;
    cluster.wait_for_serving("m2", SOON)?;
    cluster.wait_for_log("m2", log_lines::TORN_LOGGED, SOON)?;
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
    cluster.wait_for_log("m2", log_lines::SERVING, SOON)?;
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
    cluster.wait_for_log("m2", log_lines::NO_PLAN, SOON)?;
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
    cluster.wait_for_log("m2", log_lines::NO_PLAN_METAID, SOON)?;
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
    cluster.wait_for_log_since(mark, "m1", log_lines::STAGED_OWN, SOON)?;
    cluster.wait_for_log_since(mark, "m1", log_lines::SERVING, SOON)?;
    nothing_lost(&cluster, &load)
}

/// Each time the damaged machine is the only one that could serve: it says what is wrong, moves nothing,
/// keeps no address, and takes part again when ucarp is started.
#[test]
fn a_copy_that_cannot_be_served_is_refused_and_left_as_it_is() -> Result<()> {
    let (cluster, load) = copy_left_alone()?;
    let data = cluster.data("m2")?;
    let [image, log] = ["metadata_ml.mfs.back", "changelog_ml.0.mfs"].map(|name| data.join(name));
    let [whole, changes] = [&image, &log].map(|file| fs::read(file).expect("a file of the copy"));
    let lines: Vec<&[u8]> = changes.split_inclusive(|byte| *byte == b'\n').collect();
    let middle = lines.len() / 2;
    let with = |line: &[u8]| [lines[..middle].concat(), line.to_vec(), lines[middle + 1..].concat()].concat();
    // Only what is really missing is refused: an image alone, with no changes after it, would be served.
    let damages: [(&str, &dyn Fn()); 4] = [
        ("bytes of garbage", &|| fs::write(&log, with(b"gar\0bage\n")).expect("garbage among the changes")),
        ("changes? [0-9]+( to [0-9]+)? (is|are) missing", &|| fs::write(&log, with(b"")).expect("a hole")),
        ("no usable metadata", &|| fs::write(&image, &whole[..whole.len() - 9]).expect("an image without its end")),
        ("no usable metadata", &|| fs::remove_file(&image).expect("the image")),
    ];
    for (number, (why, damage)) in damages.into_iter().enumerate() {
        for (file, content) in [(&image, &whole), (&log, &changes)] {
            fs::write(file, content).expect("the copy as it was");
        }
        damage();
        let (before, mark) = (cluster.files("m2")?, cluster.mark());
        if number == 0 {
            cluster.power_off("m1")?;
        } else {
            cluster.start_ucarp("m2")?;
        }
        let begun = cluster.wait_for_log_since(mark, "m2", log_lines::PROMOTION_BEGUN, SOON)?;
        let failed = cluster.wait_for_log_since(mark, "m2", log_lines::NO_PLAN, SOON)?;
        assert!(regex_lite::Regex::new(why)?.is_match(&failed.text), "{why} in {}", failed.text);
        eprintln!("refused after {:?}: {}", failed.at - begun.at, failed.text);
        cluster.wait_for_log_since(mark, "m2", log_lines::UCARP_STOPPED, SOON)?;
        assert!(!cluster.holds_vip("m2") && cluster.daemon("m2", "ucarp").is_err());
        assert_eq!((cluster.master_pid("m2"), cluster.files("m2")?), (None, before), "{why}");
        cluster.wait_for_log_since(mark, "m2", log_lines::DEMOTION_ENDED, SOON)?;
    }
    // Made whole again, it serves.
    for (file, content) in [(&image, &whole), (&log, &changes)] {
        fs::write(file, content).expect("the copy as it was");
    }
    cluster.start_ucarp("m2")?;
    cluster.wait_for_serving("m2", SOON)?;
    nothing_lost(&cluster, &load)
}

/// After a cold start the machine that served last stays away, and its last changes with it: they come back as files, not
/// as a second history.
#[test]
fn cold_start_without_the_last_master_keeps_what_only_it_knows() -> Result<()> {
    let cluster = Cluster::build().masters(2).start()?;
    let load = cluster.client().keep_writing()?;
    cluster.wait_for_metalogger_in_step("m2", SOON)?;
    let unheard = cluster.starve("m2")?;
    load.wait_for_progress(LAST_RETRY)?;
    load.wait_for_progress(LAST_RETRY)?;
    load.stop()?;
    cluster.power_off("m2")?;
    let off = cluster.power_off("m1")?;
    cluster.feed("m2")?;
    let mark = cluster.mark();
    cluster.power_on("m2")?;
    cluster.wait_for_log_since(mark, "m2", log_lines::SERVING, SOON)?;
    let data = cluster.data("m1")?;
    let own = fs::read(data.join("changelog.0.mfs")).expect("what m1 wrote last");
    cluster.power_on("m1")?;
    cluster.wait_for_metalogger_in_step("m1", SOON)?;
    assert_eq!(cluster.serving(), ["m2"]);
    assert_eq!(fs::read(data.join("changelog.0.mfs")).expect("it is still there"), own, "for an administrator");
    let plan = cluster.must("m1", &["mfs-promote", "--dry-run"])?;
    assert!(plan.contains(log_lines::NEW_HISTORY), "the history that is served now: {plan}");
    crate::nothing_lost_but(&cluster, &load, &[unheard..=off]).map(drop)
}
