//! Scan and plan of a gigabyte of change logs: `mfs-promote --dry-run`, beside `cat` of the same files.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use lab::{SingleMachine, SingleMachines};
use nix::sys::resource::{UsageWho, getrusage};

use crate::inputs::{self, Input};
use crate::page::{Goal, Section, cell, row, table};
use crate::stats::Summary;
use crate::{Result, Setup};

/// Bytes of change logs, and of a quick run.
const FULL: u64 = 1_000_000_000;
const QUICK: u64 = 200_000_000;
/// Changes in each file; this many are in two files each time, so that there is something to merge.
const ROTATED: u64 = 2_000_000;
const OVERLAP: u64 = 100_000;
/// This program, in the machine.
const OWN: &str = "/var/lib/lab/bench";
const CAT: &str = "cat /var/lib/mfs/changelog* > /var/lib/lab/all && sync /var/lib/lab/all";

pub(crate) fn section(setup: &Setup) -> Result<Section> {
    // Before the machine is there: making the input takes a cluster, too.
    let input = inputs::input(None, 200_000, 1_000_000)?;
    let machine = SingleMachines::reserve()?.start(None, &[])?;
    let megabytes = inputs::float(fill(&input, &machine.data(), if setup.quick { QUICK } else { FULL })?) / 1e6;
    machine.must(&["chown", "-R", "mfs:mfs", "/var/lib/mfs"])?;
    fs::copy(std::env::current_exe()?, machine.disk(OWN))?;
    let (mut cat, mut ours) = (Vec::new(), Vec::new());
    alone(&machine, &["sh", "-c", CAT])?;
    for _ in 0..setup.runs.min(3) {
        machine.must(&["rm", "/var/lib/lab/all"])?;
        cat.push(alone(&machine, &["sh", "-c", CAT])?);
        ours.push(alone(&machine, &["mfs-promote", "--dry-run"])?);
    }
    let [cat, all] = [&cat, &ours].map(|runs| Summary::of(runs.iter().map(|run| run.seconds)));
    let memory = ours.iter().map(|run| run.memory).reduce(f64::max);
    let speed = |summary: Option<Summary>| summary.map_or_else(String::new, |s| format!("{:.0}", megabytes / s.median));
    let rows = [
        row(["", "seconds", "MB/s"]),
        vec!["`cat` into a file, flushed".to_owned(), cell(cat), speed(cat)],
        vec!["`mfs-promote --dry-run`".to_owned(), cell(all), speed(all)],
    ];
    let ratio = cat.zip(all).map(|(cat, all)| cat.median / all.median);
    let goals = vec![
        Goal::at_least("scan and plan of change logs, speed to `cat`", 0.5, "×", ratio),
        Goal::at_most("scan and plan of change logs, memory", 32.0, "MB", memory),
    ];
    let text = format!(
        "{}\n{megabytes:.0} MB of change logs of a real master, repeated with new ids, in files of two million changes that overlap by\n\
         a hundred thousand, and an image. All of it is in the page cache. `--dry-run` scans and plans; what a promotion then\n\
         writes is part of the takeovers above. Most memory (maxrss): {:.1} MB.\n",
        table(&rows),
        memory.unwrap_or_default()
    );
    Ok(Section { title: "Scan and plan", text, goals, pictures: Vec::new() })
}

struct Run {
    seconds: f64,
    /// In MB.
    memory: f64,
}

/// Runs a command in the machine under this program, which measures it.
fn alone(machine: &SingleMachine, line: &[&str]) -> Result<Run> {
    let said = machine.must(&[&[OWN, "--alone", "command"], line].concat())?;
    let numbers = said.split_whitespace().map(str::parse).collect::<std::result::Result<Vec<f64>, _>>()?;
    let [seconds, memory] = numbers[..] else { return Err(format!("{line:?} printed {said}").into()) };
    Ok(Run { seconds, memory })
}

/// The other half of [`alone`]: runs a command, and prints its seconds and its megabytes of memory.
pub(crate) fn inside(words: &[String]) -> Result<()> {
    let (program, words) = words.split_first().ok_or("no command")?;
    let begin = Instant::now();
    let status = Command::new(program).args(words).stdout(Stdio::null()).status()?;
    let seconds = begin.elapsed().as_secs_f64();
    if !status.success() {
        return Err(format!("{program}: {status}").into());
    }
    let kilobytes = u64::try_from(getrusage(UsageWho::RUSAGE_CHILDREN)?.max_rss())?;
    println!("{seconds} {}", inputs::float(kilobytes) / 1024.0);
    Ok(())
}

/// Writes the change logs, newest first by name, and returns their bytes.
fn fill(input: &Input, data: &Path, wanted: u64) -> Result<u64> {
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
