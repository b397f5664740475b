//! The archive of a real image and its logs, beside `tar cvaf X.tlz`, and what a client feels of it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use failover::archive;
use failover::cancel::Cancel;
use failover::config::Config;
use failover::folder::Folder;
use lab::{Cluster, Moment, log_lines};

use crate::engine::peak_memory;
use crate::inputs;
use crate::page::{Goal, Section, cell, row, shown, table};
use crate::stats::Summary;
use crate::{Result, Setup};

/// How long the client is watched without an archive being written.
const CALM: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn section(setup: &Setup) -> Result<Section> {
    let (inodes, changes) = if setup.quick { (200_000, 100_000) } else { (1_000_000, 100_000) };
    let place = Place::make(inodes, changes)?;
    let mut ours = Vec::new();
    let shell = place.tar()?;
    for _ in 0..setup.runs.min(3) {
        ours.push(place.archive()?);
    }
    let time = Summary::of(ours.iter().map(|run| run.seconds));
    let memory = ours.iter().map(|run| run.memory).reduce(f64::max);
    let size = ours.first().map(|run| run.megabytes);
    let [calm, busy] = latencies(&place)?;
    let rows = [
        row(["", "seconds", "MB"]),
        vec!["the files".to_owned(), String::new(), format!("{:.1}", place.megabytes)],
        vec!["`tar cvaf X.tlz`".to_owned(), format!("{:.2}", shell.seconds), format!("{:.1}", shell.megabytes)],
        vec![
            "ours, read back and compared".to_owned(),
            cell(time),
            size.map_or_else(String::new, |size| format!("{size:.1}")),
        ],
    ];
    let latency = [
        row(["client's metadata operations, milliseconds", "median", "99 of 100 within"]),
        vec!["nothing beside it".to_owned(), shown(calm.map(|one| one.0)), shown(calm.map(|one| one.1))],
        vec!["while the archive is written".to_owned(), shown(busy.map(|one| one.0)), shown(busy.map(|one| one.1))],
    ];
    let goals = vec![
        Goal::at_least("archive, speed to `tar cvaf X.tlz`", 15.0, "×", time.map(|time| shell.seconds / time.median)),
        Goal::at_most("archive, size to `tar cvaf X.tlz`", 1.35, "×", size.map(|size| size / shell.megabytes)),
        Goal::at_most("archive, memory", 64.0, "MB", memory),
        Goal::at_most(
            "archive, the client's median latency to that without",
            1.1,
            "×",
            calm.zip(busy).map(|(calm, busy)| busy.0 / calm.0),
        ),
    ];
    let text = format!("{}\n{}{EXPLANATION}", table(&rows), table(&latency));
    Ok(Section { title: "Archive", text, goals, pictures: Vec::new() })
}

/// The other half of [`Place::archive`]: prints seconds and megabytes of memory.
pub(crate) fn inside(words: &[String]) -> Result<()> {
    let [aside, backup] = words else { return Err("archive ASIDE BACKUP".into()) };
    let (aside, backup) = (Folder::open(Path::new(aside))?, Folder::open(Path::new(backup))?);
    let config = Config::fallback();
    let begin = Instant::now();
    archive::write(&aside, &backup, "metabak.1", config.archive_format, config.archive_level, &Cancel::new())?;
    println!("{} {}", begin.elapsed().as_secs_f64(), peak_memory()?);
    Ok(())
}

struct Taken {
    seconds: f64,
    megabytes: f64,
    /// Of ours alone.
    memory: f64,
}

/// A folder with files to archive; it goes away with this.
struct Place {
    folder: PathBuf,
    megabytes: f64,
}

impl Place {
    fn make(inodes: u64, changes: u64) -> Result<Self> {
        let folder = PathBuf::from(format!("/var/tmp/moosefs-bench-archive.{}", std::process::id()));
        for name in ["aside", "bak"] {
            fs::create_dir_all(folder.join(name))?;
        }
        let mut place = Self { folder, megabytes: 0.0 };
        for path in inputs::input(inodes, changes)?.put(&place.aside())? {
            place.megabytes += megabytes(&path)?;
        }
        Ok(place)
    }

    fn aside(&self) -> PathBuf {
        self.folder.join("aside")
    }

    /// The shell hooks' own line.
    fn tar(&self) -> Result<Taken> {
        let archive = self.folder.join("bak/metabak.0.tlz");
        let begin = Instant::now();
        let status = Command::new("sh")
            .args(["-c", "exec tar cvaf \"$1\" \"$2\"/* > /dev/null 2>&1", "tar"])
            .args([&archive, &self.aside()])
            .status()?;
        let seconds = begin.elapsed().as_secs_f64();
        if !status.success() {
            return Err(format!("tar: {status}").into());
        }
        Ok(Taken { seconds, megabytes: megabytes(&archive)?, memory: 0.0 })
    }

    fn archive(&self) -> Result<Taken> {
        let archive = self.folder.join("bak/metabak.1.tar.xz");
        let _ = fs::remove_file(&archive);
        let mut command = Command::new(std::env::current_exe()?);
        let output = command.args(["--alone", "archive"]).args([self.aside(), self.folder.join("bak")]).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let numbers = text.split_whitespace().map(str::parse).collect::<std::result::Result<Vec<f64>, _>>()?;
        let [seconds, memory] = numbers[..] else {
            return Err(format!("no archive: {}", String::from_utf8_lossy(&output.stderr)).into());
        };
        Ok(Taken { seconds, megabytes: megabytes(&archive)?, memory })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The client's latency in milliseconds, median and all but one in a hundred: with nothing beside it, and while
/// mfs-promote on the serving machine archives these files.
fn latencies(place: &Place) -> Result<[Option<(f64, f64)>; 2]> {
    let cluster = Cluster::build().unjudged().masters(1).start()?;
    cluster.wait_for_log("m1", log_lines::PROMOTION_ENDED, PATIENCE)?;
    let load = cluster.client().keep_writing()?;
    let (begin, aside) = (Moment::now(), cluster.data("m1")?.join("mfs-promote/1/aside"));
    std::thread::sleep(CALM);
    let calm = begin..Moment::now();
    fs::create_dir_all(&aside)?;
    for entry in fs::read_dir(place.aside())?.flatten() {
        fs::copy(entry.path(), aside.join(entry.file_name()))?;
    }
    nix::unistd::sync();
    let mark = cluster.mark();
    // Any run archives what is left; this one finds that the master is serving already.
    let begin = Moment::now();
    cluster.restart_ucarp("m1")?;
    cluster.wait_for_log_since(mark, "m1", log_lines::ARCHIVED, PATIENCE)?;
    let busy = begin..Moment::now();
    let [metadata, _] = load.lines()?;
    let of = |span: std::ops::Range<Moment>| {
        let lines = metadata.iter().filter(|line| line.errno.is_none() && span.contains(&line.start));
        let mut times: Vec<f64> = lines.map(|line| line.end.seconds_since(line.start) * 1e3).collect();
        times.sort_by(f64::total_cmp);
        Some((*times.get(times.len() / 2)?, *times.get(times.len() * 99 / 100)?))
    };
    Ok([of(calm), of(busy)])
}

fn megabytes(path: &Path) -> Result<f64> {
    Ok(inputs::float(fs::metadata(path)?.size()) / 1e6)
}

const EXPLANATION: &str = "
The image and the change log of a real master. Ours is written, flushed, read back and compared byte by byte; tar's is only
written. For the client's latency mfs-promote on the serving machine archives the same files.
";
