//! Takeovers of the same files, hot and cold, and `mfsmaster -a start` of them.

use std::fs;

use lab::log_lines;

use super::{COLD, HOLDER, HOT, HotBed, input};
use crate::inputs::{self, Input};
use crate::page::{Goal, cell, row, table};
use crate::plot::{self, Line};
use crate::stats::Summary;
use crate::{Result, Setup};

/// Numbers of inodes.
const SIZES: [u64; 4] = [10_000, 1_000_000, 4_000_000, 20_000_000];
const QUICK_SIZES: usize = 2;
const CHANGES: u64 = 100_000;

/// Seconds of takeovers.
#[derive(Default)]
struct Times {
    whole: Vec<f64>,
    /// Without the settle time.
    work: Vec<f64>,
    /// From the end of the checks on.
    rest: Vec<f64>,
}

/// What was measured of one size.
#[derive(Default)]
struct Size {
    inodes: u64,
    hot: Times,
    cold: Times,
    /// `mfsmaster -a start`.
    alone: Vec<f64>,
    /// MB of the image.
    image: f64,
    /// MB that the waiting master had resident, and another one that was just started.
    waiting: Vec<f64>,
    started: Vec<f64>,
}

pub(super) struct Takeovers(Vec<Size>);

pub(super) fn measure(setup: &Setup) -> Result<Takeovers> {
    let sizes = if setup.quick { &SIZES[..QUICK_SIZES] } else { &SIZES };
    // Before the machines are there: making them takes a cluster, too. The smaller ones are made with the largest.
    if let Some(largest) = sizes.last() {
        input(*largest, CHANGES)?;
    }
    let inputs = sizes.iter().map(|inodes| Ok((*inodes, input(*inodes, CHANGES)?))).collect::<Result<Vec<_>>>()?;
    let bed = HotBed::new()?;
    let mut measured = Vec::new();
    for (inodes, input) in inputs {
        let [image, _] = input.files();
        let image = inputs::float(fs::metadata(image)?.len()) / 1e6;
        let mut size = Size { inodes, image, ..Size::default() };
        for _ in 0..setup.runs.min(3) {
            size.started(&bed, &input)?;
            size.hot(&bed, &input)?;
            size.cold(&bed, &input)?;
        }
        println!("  {inodes} inodes: {}", size.row().join(", "));
        measured.push(size);
    }
    Ok(Takeovers(measured))
}

impl Size {
    fn started(&mut self, bed: &HotBed, input: &Input) -> Result<()> {
        bed.hold()?;
        self.alone.push(bed.0.alone(COLD, input)?);
        self.started.push(bed.master(COLD)?.1);
        Ok(())
    }

    fn hot(&mut self, bed: &HotBed, input: &Input) -> Result<()> {
        let mark = bed.stand_by(HOT, input)?;
        self.waiting.push(bed.master(HOT)?.1);
        self.hot.take_over(bed, HOT, mark)?;
        if bed.cluster().events().since(mark).iter().any(|line| line.text.contains(log_lines::LET_GO)) {
            Ok(())
        } else {
            Err("the takeover was a cold one".into())
        }
    }

    fn cold(&mut self, bed: &HotBed, input: &Input) -> Result<()> {
        let mark = bed.stand_by(COLD, input)?;
        self.cold.take_over(bed, COLD, mark)
    }

    fn row(&self) -> Vec<String> {
        let megabytes = |values: &[f64]| format!("{:.0}", sum(values).map_or(0.0, |summary| summary.median));
        let memory = [megabytes(&[self.image]), megabytes(&self.waiting), megabytes(&self.started)];
        let times = self.hot.cells().into_iter().chain(self.cold.cells()).chain([cell(sum(&self.alone))]);
        std::iter::once(self.inodes.to_string()).chain(times).chain(memory).collect()
    }
}

impl Times {
    /// The power of the machine with the address is cut, and this one takes over.
    fn take_over(&mut self, bed: &HotBed, name: &str, mark: usize) -> Result<()> {
        // In ordinary life a standby has been hot for hours, and nothing is left to be written.
        nix::unistd::sync();
        bed.cluster().power_off(HOLDER)?;
        let takeover = bed.0.takeover(name, mark)?;
        self.whole.push(takeover.whole);
        self.work.push(takeover.without_settle()?);
        self.rest.push(takeover.after_checks()?);
        Ok(())
    }

    fn cells(&self) -> [String; 3] {
        [&self.whole, &self.work, &self.rest].map(|times| cell(sum(times)))
    }
}

fn sum(values: &[f64]) -> Option<Summary> {
    Summary::of(values.iter().copied())
}

impl Takeovers {
    pub(super) fn text(&self) -> String {
        let mut rows = vec![row([
            "inodes",
            "hot",
            "… without settle time",
            "… after the checks",
            "cold",
            "… without settle time",
            "… after the checks",
            "`mfsmaster -a start`",
            "image, MB",
            "waiting master, MB",
            "started master, MB",
        ])];
        rows.extend(self.0.iter().map(Size::row));
        format!("Takeovers with {CHANGES} changes to replay, in seconds.\n\n{}{EXPLANATION}", table(&rows))
    }

    pub(super) fn goals(&self) -> Vec<Goal> {
        let median = |values: &[f64]| sum(values).map(|summary| summary.median);
        let milliseconds = |values: &[f64]| median(values).map(|seconds| seconds * 1e3);
        let mut goals: Vec<Goal> = Vec::new();
        for size in &self.0 {
            let what = format!("takeover without settle time, hot, {} inodes", size.inodes);
            goals.push(Goal::at_most(what, 100.0, "ms", milliseconds(&size.hot.work)));
        }
        let largest = self.0.iter().find(|size| size.inodes == SIZES[SIZES.len() - 1]);
        goals.push(
            Goal::at_most(
                "whole takeover, hot, 20 million inodes",
                1.5,
                "s",
                largest.and_then(|size| median(&size.hot.whole)),
            )
            .remark("most of it is the settle time"),
        );
        goals
    }

    pub(super) fn picture(&self) -> Result<String> {
        let line = |name, of: &dyn Fn(&Size) -> &Vec<f64>| {
            let points = self.0.iter().filter_map(|size| Some((inputs::float(size.inodes), sum(of(size))?.median)));
            Line { name, points: points.collect() }
        };
        let lines = [
            line("hot, without the settle time", &|size| &size.hot.work),
            line("cold, without the settle time", &|size| &size.cold.work),
            line("mfsmaster -a start", &|size| &size.alone),
        ];
        plot::growth("Takeover, hot and cold, 100,000 changes", "inodes", "seconds", &lines)
    }
}

const EXPLANATION: &str = "
![takeover against inodes, hot and cold](takeover-hot.svg)

All with MooseFS 4.57.5 (Debian 13), whose master also made the files. They lie in the data folder as a metalogger leaves them.
Another machine runs a ucarp that is MASTER, with hooks that do nothing. The machine that is measured boots and starts its
metalogger and ucarp, which becomes BACKUP. With `STANDBY = hot` the measurement then waits until mfs-promote logs that the copy
is loaded. Then the power of the other machine is cut. The times go from ucarp's line \"Switching to state: MASTER\" to the first
answer on 9421. The settle time is the one that mfs-promote logs. \"After the checks\" begins when the election has settled and all
checks have passed: they run side by side, and the question to a dead machine can take longer than the settle time. No master is
connected to the metalogger, so the copy does not grow meanwhile. The memory is the resident one (VmRSS), of the master that
waits, and of one that `mfsmaster -a start` has just started.
";
