//! How quickly a hot standby follows, and what that costs, beside a master whose clients make changes as fast as they can.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::thread::sleep;
use std::time::{Duration, Instant};

use lab::{Cluster, Machine};
use serde_json::Value;

use super::{HOT, HotBed, RELEASE, input};
use crate::bed::PATIENCE;
use crate::inputs::{self, Input};
use crate::page::{Goal, cell, ratio, row, table};
use crate::sizes::peak_memory;
use crate::stats::Summary;
use crate::{Result, Setup};

/// The tree; the changes that the hot standby has loaded with it, and those that are fed at once.
const INODES: u64 = 200_000;
const LOADED: u64 = 1_000;
const FED: u64 = 900_000;
/// The changes that the clients of a master make.
const MADE: u64 = 100_000;
/// The changes for which costs are shown.
const UNIT: f64 = 100_000.0;
/// The ticks of a second in which Linux counts processor time.
const TICKS: f64 = 100.0;
/// Between two looks at the processor time.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// A master that has used no processor for this long is waiting.
const IDLE: Duration = Duration::from_millis(500);

/// Changes are counted in thousands.
const THOUSAND: f64 = 1000.0;

#[derive(Default)]
pub(super) struct Lag {
    /// Changes in a second, in thousands, that a hot standby replays, and that a master is made to make.
    follows: Vec<f64>,
    makes: Vec<f64>,
    /// Processor seconds for [`UNIT`] changes: of the waiting master, of mfs-promote, and of the master that serves.
    waiting: Vec<f64>,
    feeding: Vec<f64>,
    serving: Vec<f64>,
    /// The most memory that mfs-promote had, in MB.
    memory: f64,
}

pub(super) fn measure(setup: &Setup) -> Result<Lag> {
    let (input, runs, mut lag) = (input(INODES, LOADED)?, setup.runs.min(3), Lag::default());
    for _ in 0..runs {
        lag.full_load()?;
    }
    let bed = HotBed::new()?;
    for _ in 0..runs {
        lag.follow(&bed, &input)?;
    }
    println!("  thousand changes a second: follows {}, a master makes {}", shown(&lag.follows), shown(&lag.makes));
    Ok(lag)
}

fn shown(values: &[f64]) -> String {
    cell(Summary::of(values.iter().copied()))
}

impl Lag {
    /// Clients make changes as fast as they can.
    fn full_load(&mut self) -> Result<()> {
        let cluster = Cluster::build().unjudged().release(RELEASE).masters(1).chunkservers(0).start()?;
        let master = [cluster.daemon("m1", "mfsmaster")?.pid];
        let (version, time, begin) = (cluster.master_version("m1")?, processor_seconds(&master)?, Instant::now());
        inputs::make_changes(cluster.machine("c1")?, MADE)?;
        let took = begin.elapsed().as_secs_f64();
        let changes = inputs::float(cluster.master_version("m1")? - version);
        self.makes.push(changes / took / THOUSAND);
        self.serving.push((processor_seconds(&master)? - time) / changes * UNIT);
        Ok(())
    }

    /// Writes many changes into the log at once, as a metalogger would over some time, and waits until all are replayed.
    fn follow(&mut self, bed: &HotBed, input: &Input) -> Result<()> {
        bed.stand_by(HOT, input)?;
        let machine = bed.cluster().machine(HOT)?;
        let (master, ours) = ([bed.master(HOT)?.0], pids(machine, "mfs-promote"));
        let changes = input.next(FED)?;
        let end = last_version(&changes)? + 1;
        let before = [processor_seconds(&master)?, processor_seconds(&ours)?];
        let mut log = OpenOptions::new().append(true).open(machine.data()?.join("changelog_ml.0.mfs"))?;
        let begin = Instant::now();
        log.write_all(&changes)?;
        let took = wait_until_replayed(machine, &master, begin, end)?;
        let fed = inputs::float(FED);
        self.follows.push(fed / took / THOUSAND);
        self.waiting.push((processor_seconds(&master)? - before[0]) / fed * UNIT);
        self.feeding.push((processor_seconds(&ours)? - before[1]) / fed * UNIT);
        self.memory = self.memory.max(peak_memory(bed.cluster())?);
        Ok(())
    }

    pub(super) fn goal(&self) -> Goal {
        let [follows, makes] = [&self.follows, &self.makes].map(|values| Summary::of(values.iter().copied()));
        let what = "changes that a hot standby follows, to those that a master makes";
        Goal::at_least(what, 2.0, "×", ratio(follows, makes))
    }

    pub(super) fn text(&self) -> String {
        let rows = [
            row(["", "thousand changes a second", "processor seconds for 100,000 changes"]),
            vec!["a master that serves".to_owned(), shown(&self.makes), shown(&self.serving)],
            vec!["the waiting master".to_owned(), shown(&self.follows), shown(&self.waiting)],
            vec!["mfs-promote that feeds it".to_owned(), String::new(), shown(&self.feeding)],
        ];
        format!("{}{EXPLANATION}Most memory of mfs-promote (VmHWM): {:.1} MB.\n", table(&rows), self.memory)
    }
}

/// Waits until a hot standby has replayed all changes before version `end`, and returns how long that took, in seconds. By then
/// its master waits, so the last moment in which it used a processor was the end.
fn wait_until_replayed(machine: &Machine, master: &[i32], begin: Instant, end: u64) -> Result<f64> {
    let (mut last, mut at) = (processor_seconds(master)?, begin);
    while begin.elapsed() < PATIENCE {
        sleep(LOOK_EVERY);
        let now = processor_seconds(master)?;
        if now > last {
            (last, at) = (now, Instant::now());
        } else if at.elapsed() > IDLE && reached(machine)? >= end {
            return Ok((at - begin).as_secs_f64());
        }
    }
    Err(format!("the hot standby did not reach version {end}").into())
}

/// The version that the hot standby of a machine has.
fn reached(machine: &Machine) -> Result<u64> {
    let status: Value = serde_json::from_str(&machine.must(&["mfs-promote", "--status", "--json"], PATIENCE)?)?;
    let version = &status["hot_standby"]["hot"]["version"];
    version.as_u64().ok_or_else(|| format!("no hot standby: {}", status["hot_standby"]).into())
}

/// The version of the last change in a log.
fn last_version(log: &[u8]) -> Result<u64> {
    let last = std::str::from_utf8(log)?.lines().next_back().unwrap_or_default();
    Ok(last.split(':').next().unwrap_or_default().parse()?)
}

/// The processes of a machine with this name.
fn pids(machine: &Machine, name: &str) -> Vec<i32> {
    machine.processes().into_iter().filter(|process| process.name == name).map(|process| process.pid).collect()
}

/// The processor time that processes have used, in user mode and in the kernel.
fn processor_seconds(pids: &[i32]) -> Result<f64> {
    let mut ticks = 0;
    for pid in pids {
        let status = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let (_, fields) = status.rsplit_once(')').ok_or("a process without a name")?;
        let times = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
        ticks += times.sum::<std::result::Result<u64, _>>()?;
    }
    Ok(inputs::float(ticks) / TICKS)
}

const EXPLANATION: &str = "
A master that serves: three processes of a client make 100,000 directories and files, as fast as they are acknowledged, in an
empty tree. Counted are the changes of the master's version. The client and its mount share the processors with it. The waiting
master: a hot standby has loaded 200,000 inodes. Then 900,000 further changes of the same kind are written into the metalogger's
change log at once, and the measurement lasts until the waiting master has replayed the last of them and uses no processor any
more. Processor seconds are those in user mode and in the kernel.
";
