//! The change-log engine alone: scan, merge, renumber and write a gigabyte, beside `cat` of the same files.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use failover::metadata::{Loss, inventory, plan, stage};
use failover::sys::cancel::Cancel;
use failover::sys::folder::{Folder, Owner};

use crate::Result;
use crate::Setup;
use crate::inputs;
use crate::page::{Goal, Section, cell, row, table};
use crate::stats::Summary;

/// Bytes of change logs, and of a quick run.
const FULL: u64 = 1_000_000_000;
const QUICK: u64 = 200_000_000;
/// Changes in each file; as many as this are in two files each time, so that there is something to merge.
const ROTATED: u64 = 2_000_000;
const OVERLAP: u64 = 100_000;
const JUMP: u64 = 1_000_000;

/// What one run of the engine took, in seconds, and its most memory in MB.
struct Taken {
    scan: f64,
    write: f64,
    memory: f64,
}

pub(crate) fn section(setup: &Setup) -> Result<Section> {
    let place = Place::make(if setup.quick { QUICK } else { FULL })?;
    let (mut cat, mut ours) = (Vec::new(), Vec::new());
    place.cat()?;
    for _ in 0..setup.runs.min(3) {
        cat.push(place.cat()?);
        ours.push(place.engine()?);
    }
    let megabytes = inputs::float(place.bytes) / 1e6;
    let all = Summary::of(ours.iter().map(|run| run.scan + run.write));
    let cat = Summary::of(cat);
    let speed = |summary: Option<Summary>| summary.map_or_else(String::new, |s| format!("{:.0}", megabytes / s.median));
    let scan = Summary::of(ours.iter().map(|run| run.scan));
    let write = Summary::of(ours.iter().map(|run| run.write));
    let rows = [
        row(["", "seconds", "MB/s"]),
        vec!["`cat` into a file, flushed".to_owned(), cell(cat), speed(cat)],
        vec!["ours".to_owned(), cell(all), speed(all)],
        vec!["… scan and plan".to_owned(), cell(scan), speed(scan)],
        vec!["… merge, renumber, write, flush".to_owned(), cell(write), speed(write)],
    ];
    let memory = ours.iter().map(|run| run.memory).reduce(f64::max);
    let goals = vec![
        Goal::at_least(
            "change-log engine, speed to `cat`",
            0.5,
            "×",
            cat.zip(all).map(|(cat, all)| cat.median / all.median),
        ),
        Goal::at_most("change-log engine, memory", 32.0, "MB", memory),
    ];
    let text = format!(
        "{}\n{megabytes:.0} MB of change logs of a real master, repeated with new ids, in files of two million changes that overlap by\n\
         a hundred thousand, and an image. All of it is in the page cache. Both write to the same disk and flush. Most memory\n\
         (VmHWM): {:.1} MB.\n",
        table(&rows),
        memory.unwrap_or_default()
    );
    Ok(Section { title: "Change-log engine", text, goals, pictures: Vec::new() })
}

/// The other half of [`Place::engine`]: prints seconds, seconds, and kilobytes.
pub(crate) fn inside(words: &[String]) -> Result<()> {
    let [data, staged] = words else { return Err("engine DATA STAGE".into()) };
    let (data, staged) = (Folder::open(Path::new(data))?, Folder::open(Path::new(staged))?);
    let owner = Owner::named("root", None).ok_or("no root")?;
    let begin = Instant::now();
    let plan = plan::make(&inventory::take(&data)?, Loss::Refuse)?;
    let scan = begin.elapsed().as_secs_f64();
    let begin = Instant::now();
    stage::write_log(&data, &plan, &staged, owner, JUMP, &Cancel::new())?;
    println!("{scan} {} {}", begin.elapsed().as_secs_f64(), peak_memory()?);
    Ok(())
}

/// The most memory that this process had resident, in MB.
pub(crate) fn peak_memory() -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let peak =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse::<f64>().ok());
    Ok(peak.ok_or("the kernel tells no VmHWM")? / 1024.0)
}

/// A folder with change logs; it goes away with this.
struct Place {
    folder: PathBuf,
    bytes: u64,
}

impl Place {
    fn make(wanted: u64) -> Result<Self> {
        let folder = PathBuf::from(format!("/var/tmp/moosefs-bench.{}", std::process::id()));
        for name in ["data", "stage"] {
            fs::create_dir_all(folder.join(name))?;
        }
        let mut place = Self { folder, bytes: 0 };
        place.bytes = fill(&place.data(), wanted)?;
        Ok(place)
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn stage(&self) -> PathBuf {
        self.folder.join("stage")
    }

    /// The logs in the order of their names, into one file.
    fn cat(&self) -> Result<f64> {
        let script = "cat \"$1\"/changelog* > \"$2\"/all && sync \"$2\"/all";
        let begin = Instant::now();
        let status = Command::new("sh").args(["-ec", script, "cat"]).args([self.data(), self.stage()]).status()?;
        let took = begin.elapsed().as_secs_f64();
        fs::remove_file(self.stage().join("all"))?;
        if status.success() { Ok(took) } else { Err("cat failed".into()) }
    }

    fn engine(&self) -> Result<Taken> {
        let mut command = Command::new(std::env::current_exe()?);
        let output = command.args(["--alone", "engine"]).args([self.data(), self.stage()]).output()?;
        fs::remove_file(self.stage().join(stage::LOG))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let numbers = text.split_whitespace().map(str::parse).collect::<std::result::Result<Vec<f64>, _>>()?;
        let [scan, write, memory] = numbers[..] else {
            return Err(format!("the engine failed: {}", String::from_utf8_lossy(&output.stderr)).into());
        };
        Ok(Taken { scan, write, memory })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Writes the change logs, newest first by name, and returns their bytes.
fn fill(data: &Path, wanted: u64) -> Result<u64> {
    let input = inputs::input(200_000, 1_000_000)?;
    let [image, log] = input.files();
    fs::copy(image, data.join("metadata_ml.mfs.back"))?;
    let first = inputs::version(&data.join("metadata_ml.mfs.back"))?;
    let lines = BufReader::new(File::open(log)?).split(b'\n').collect::<std::io::Result<Vec<_>>>()?;
    let changes: Vec<&[u8]> = lines.iter().filter_map(|line| line.splitn(2, |byte| *byte == b' ').nth(1)).collect();
    let line = changes.iter().map(|change| change.len() as u64 + 12).sum::<u64>() / changes.len() as u64;
    let files = (wanted / line).div_ceil(ROTATED).max(2);
    let mut bytes = 0;
    for file in 0..files {
        let name = format!("changelog_ml.{}.mfs", files - 1 - file);
        let mut out = BufWriter::new(File::create(data.join(OsStr::new(&name)))?);
        let from = (file * ROTATED).saturating_sub(OVERLAP);
        for number in from..(file + 1) * ROTATED {
            let change = changes[usize::try_from(number)? % changes.len()];
            write!(out, "{}: ", first + number)?;
            out.write_all(change)?;
            out.write_all(b"\n")?;
        }
        out.flush()?;
        bytes += out.get_ref().metadata()?.len();
    }
    nix::unistd::sync();
    Ok(bytes)
}
