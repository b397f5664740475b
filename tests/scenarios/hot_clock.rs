//! The wall clock of machines with hot standbys: set ahead and back while one waits, and set ahead again and again, as if days
//! passed.
//!
//! The clock is that of the host, so it is another one for the programs of a machine only: all of them, by a library that they
//! load before their own. Their monotonic clock is as it is.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lab::random::variable;
use lab::{Builder, Cluster, LAST_RETRY, Moment, Result, log_lines};

use crate::hot::{builder, hot_cluster, wait_until_hot_and_whole};
use crate::{SOON, nothing_lost};

const CLOCK: &str = include_str!("hot_clock/clock.c");
const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
/// ucarp advertises once in a second.
const ADVERTISED: Duration = Duration::from_secs(2);

/// Masters with a wall clock of their own.
fn with_clocks(builder: Builder) -> Builder {
    let folder = tempfile::tempdir().expect("a folder");
    let (source, library) = (folder.path().join("clock.c"), folder.path().join("clock.so"));
    fs::write(&source, CLOCK).expect("the source");
    let mut compiler = Command::new("gcc");
    compiler.args(["-O2", "-shared", "-fPIC", "-o"]).arg(&library).arg(&source);
    assert!(compiler.status().expect("gcc").success());
    let library = fs::read(&library).expect("the library");
    ["m1", "m2"].into_iter().fold(builder, |builder, machine| {
        builder
            .file_on(machine, "/var/lib/lab/clock", ahead(0), 0o644)
            .file_on(machine, "/usr/lib/clock.so", library.clone(), 0o755)
            .file_on(machine, "/etc/ld.so.preload", "/usr/lib/clock.so\n", 0o644)
    })
}

fn ahead(seconds: i64) -> String {
    format!("{seconds:+011}\n")
}

/// The wall clock of a machine from now on, in seconds ahead of the host's.
fn set(cluster: &Cluster, machine: &str, seconds: i64) -> Result<()> {
    let write = format!("printf %s '{}' 1<> /var/lib/lab/clock", ahead(seconds));
    cluster.must(machine, &["sh", "-c", &write]).map(drop)
}

/// The clients' sessions outlive it with their open files: an operation that failed would be a finding.
#[test]
fn a_clock_that_is_set_while_it_waits_costs_no_session() -> Result<()> {
    let (cluster, load) = hot_cluster(with_clocks(builder()))?;
    let mut serving = "m1";
    for hours in [5, -3] {
        let next = if serving == "m1" { "m2" } else { "m1" };
        set(&cluster, next, hours * HOUR)?;
        // ucarp counts by the wall clock from the last advertisement that it heard.
        sleep(ADVERTISED);
        load.wait_for_progress(LAST_RETRY)?;
        let mark = cluster.mark();
        cluster.power_off(serving)?;
        cluster.wait_for_log_since(mark, next, log_lines::LET_GO, SOON)?;
        cluster.wait_for_serving(next, SOON)?;
        load.wait_for_progress(LAST_RETRY)?;
        let mark = cluster.mark();
        cluster.power_on(serving)?;
        cluster.wait_for_log_since(mark, serving, log_lines::HOT, SOON)?;
        serving = next;
    }
    nothing_lost(&cluster, &load)
}

/// Days unless `LAB_DAYS` says otherwise.
const DAYS: u64 = 2;
/// Old logs and images that a metalogger keeps.
const KEPT: usize = 3;
/// Two histories of one number are so far apart at least.
const EPOCH: u64 = 1_000_000_000_000;
/// The clock is set again if nothing has come of it.
const AGAIN: Duration = Duration::from_secs(6);
/// When a metalogger downloads the image, in seconds after midnight.
const DOWNLOADS_AT: i64 = 630;

/// The clock of both masters is shortly before this time, and passes it, until the metalogger of m2 has another file of this
/// name. MooseFS does nothing of what a clock leaves out that is set.
fn pass(cluster: &Cluster, time: i64, name: &str) -> Result<()> {
    const SHORTLY: i64 = 2;
    let path = cluster.data("m2")?.join(name);
    let number = || fs::metadata(&path).ok().map(|status| status.ino());
    let before = number();
    let (mut passed, mut tried) = (Ok(()), Moment(0));
    let is_new = || {
        // On a busy host it may have been set too late.
        if Moment::now() - tried > AGAIN {
            let host = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
            let ahead = time - SHORTLY - i64::try_from(host).expect("seconds");
            passed = ["m1", "m2"].into_iter().try_for_each(|machine| set(cluster, machine, ahead));
            tried = Moment::now();
        }
        number().filter(|now| Some(*now) != before).map(drop)
    };
    cluster.expect(&format!("another {name}"), SOON, is_new).and(passed)
}

/// What a week brings, in fast motion: the master begins a new log at the hour and has the metalogger do so, and once in a day
/// that downloads the image.
#[test]
fn days_of_new_logs_and_new_images_leave_it_hot_and_the_disk_bounded() -> Result<()> {
    let kept = KEPT.to_string();
    let builder = with_clocks(builder()).setting("mfsmetalogger", "BACK_LOGS", &kept);
    let (cluster, load) = hot_cluster(builder.setting("mfsmetalogger", "BACK_META_KEEP_PREVIOUS", &kept))?;
    let today = cluster.must("m2", &["date", "+%s"])?.trim().parse::<i64>().expect("a number") / DAY * DAY;
    for day in 1..=i64::try_from(variable("LAB_DAYS").unwrap_or(DAYS)).expect("days") {
        let midnight = today + day * DAY;
        pass(&cluster, midnight, "changelog_ml.0.mfs")?;
        pass(&cluster, midnight + DOWNLOADS_AT, "metadata_ml.mfs.back")?;
        wait_until_hot_and_whole(&cluster, "m2")?;
        // It goes on in the next log, and is not loaded again for that.
        let waiting = cluster.master_pid("m2");
        pass(&cluster, midnight + 2 * HOUR, "changelog_ml.0.mfs")?;
        wait_until_hot_and_whole(&cluster, "m2")?;
        assert_eq!(cluster.master_pid("m2"), waiting);
        let names = cluster.files("m2")?;
        let number = |prefix: &str| names.iter().filter(|name| name.starts_with(prefix)).count();
        assert!(number("changelog_ml") <= 2 * (KEPT + 2) && number("metadata_ml") <= KEPT + 2, "{names:?}");
        assert_eq!(number("mfs-promote/hot/"), 6, "a folder, image, log, record, feed and mark: {names:?}");
        let seconds = fs::read_dir(cluster.data("m2")?.join(log_lines::SECOND_NAMES)).expect("the folder").count();
        assert!(seconds <= 2 * (KEPT + 2), "{seconds} second names");
        let [image, loaded] = ["", log_lines::HOT_FOLDER].map(|folder| image_version(&cluster, folder));
        assert!(loaded > image && (loaded - image) % EPOCH == 0, "{loaded} was made from an older image than {image}");
    }
    let mark = cluster.mark();
    cluster.power_off("m1")?;
    cluster.wait_for_log_since(mark, "m2", log_lines::LET_GO, SOON)?;
    cluster.wait_for_serving("m2", SOON)?;
    load.wait_for_progress(LAST_RETRY)?;
    nothing_lost(&cluster, &load)
}

/// The version of an image on m2: the metalogger's, or the one that the hot standby was made from.
fn image_version(cluster: &Cluster, folder: &str) -> u64 {
    let name = if folder.is_empty() { "metadata_ml.mfs.back" } else { "metadata.mfs.back" };
    let image = cluster.data("m2").map(|data| fs::read(data.join(folder).join(name)).expect("an image"));
    u64::from_be_bytes(image.expect("m2")[8..16].try_into().expect("eight bytes"))
}
