//! How a takeover grows with the metadata: the same files taken over by our programs, by the shell hooks, and loaded once
//! by MooseFS alone.

use std::fs;

use lab::{Cluster, Hooks, log_lines};

use crate::Result;
use crate::Setup;
use crate::bed::{Bed, CONFIGURATION, Takeover};
use crate::inputs::{self, Input};
use crate::page::{Goal, Section, cell, ratio, row, shown, table};
use crate::plot::{self, Line};
use crate::stats::Summary;

/// `sleep 3` of the shell hooks.
const SHELL_SETTLE: f64 = 3.0;
/// Inodes and changes: what the goals are about, ...
const BIG: [(u64, u64); 2] = [(1_000_000, 100_000), (4_000_000, 100_000)];
/// ... and what the pictures need besides.
const SMALLER: [(u64, u64); 2] = [(10_000, 100_000), (200_000, 100_000)];
const CHANGES: [(u64, u64); 3] = [(200_000, 1_000), (200_000, 10_000), (200_000, 1_000_000)];

/// Seconds of each takeover of the same files.
#[derive(Default)]
struct Times {
    ours: Vec<f64>,
    /// Without the settle time.
    ours_work: Vec<f64>,
    shell: Vec<f64>,
    shell_work: Vec<f64>,
    /// `mfsmaster -a start`.
    alone: Vec<f64>,
    /// Most memory that mfs-promote had, in MB.
    memory: f64,
}

struct Measured {
    inodes: u64,
    changes: u64,
    times: Times,
}

pub(crate) fn section(setup: &Setup) -> Result<Section> {
    let points: Vec<(u64, u64, u32)> = if setup.quick {
        vec![(10_000, 10_000, 1), (1_000_000, 100_000, 1)]
    } else {
        let often = |(inodes, changes)| (inodes, changes, setup.runs.min(3));
        let once = |(inodes, changes)| (inodes, changes, 1);
        SMALLER.map(once).into_iter().chain(CHANGES.map(once)).chain(BIG.map(often)).collect()
    };
    // Before the machine is there: making them takes a cluster, too.
    let inputs =
        points.iter().map(|(inodes, changes, _)| inputs::input(None, *inodes, *changes)).collect::<Result<Vec<_>>>()?;
    let mut turns = Turns::new(setup)?;
    let mut measured = Vec::new();
    for ((inodes, changes, runs), input) in points.into_iter().zip(inputs) {
        let mut times = Times::default();
        for _ in 0..runs {
            turns.alone(&input, &mut times)?;
            turns.ours(&input, &mut times)?;
            turns.shell(&input, &mut times)?;
        }
        println!("  {inodes} inodes, {changes} changes: {}", line(&times));
        measured.push(Measured { inodes, changes, times });
    }
    Ok(Section {
        title: "Takeover of larger metadata",
        text: text(&measured),
        goals: goals(&measured),
        pictures: if setup.quick { Vec::new() } else { pictures(&measured)? },
    })
}

/// The machine, and the hooks that take turns on it.
struct Turns {
    bed: Bed,
    ours: Hooks,
    shell: Option<Hooks>,
}

impl Turns {
    fn new(setup: &Setup) -> Result<Self> {
        let ours = Hooks::ours()?;
        let shell = setup.shell.clone().map(|folder| Hooks::Shell { folder });
        let build = Cluster::build().masters(1).chunkservers(0).hooks(ours.clone());
        let bed = Bed::new(build.file(CONFIGURATION, format!("{} = 172.16.0.61\n", log_lines::PING_NODES), 0o644))?;
        Ok(Self { bed, ours, shell })
    }

    fn ours(&mut self, input: &Input, times: &mut Times) -> Result<()> {
        self.bed.cluster.change_hooks(self.ours.clone())?;
        let mark = self.bed.boot("m1", input)?;
        let takeover = self.bed.takeover("m1", mark)?;
        times.memory = times.memory.max(peak_memory(&self.bed.cluster)?);
        times.ours.push(takeover.whole);
        times.ours_work.push(takeover.without_settle()?);
        Ok(())
    }

    fn shell(&mut self, input: &Input, times: &mut Times) -> Result<()> {
        let Some(hooks) = self.shell.clone() else { return Ok(()) };
        self.bed.cluster.change_hooks(hooks)?;
        let mark = self.bed.boot("m1", input)?;
        let Takeover { whole, .. } = self.bed.takeover("m1", mark)?;
        times.shell.push(whole);
        times.shell_work.push(whole - SHELL_SETTLE);
        Ok(())
    }

    fn alone(&mut self, input: &Input, times: &mut Times) -> Result<()> {
        self.bed.cluster.change_hooks(self.ours.clone())?;
        times.alone.push(self.bed.alone("m1", input)?);
        Ok(())
    }
}

/// The most memory that mfs-promote on m1 had resident until now, in MB.
pub(crate) fn peak_memory(cluster: &Cluster) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{}/status", cluster.daemon("m1", "mfs-promote")?.pid))?;
    let peak: Option<f64> =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse().ok());
    Ok(peak.ok_or("the kernel shows no VmHWM")? / 1024.0)
}

fn sum(values: &[f64]) -> Option<Summary> {
    Summary::of(values.iter().copied())
}

fn line(times: &Times) -> String {
    let median = |values: &[f64]| shown(sum(values).map(|summary| summary.median));
    format!(
        "ours {} s, without settle {} s; shell {} s; alone {} s; {:.1} MB",
        median(&times.ours),
        median(&times.ours_work),
        median(&times.shell),
        median(&times.alone),
        times.memory
    )
}

fn text(measured: &[Measured]) -> String {
    let mut rows = vec![row([
        "inodes",
        "changes",
        "ours",
        "ours without settle time",
        "shell hooks",
        "`mfsmaster -a start`",
        "ours without settle / `-a start`",
        "MB",
    ])];
    for Measured { inodes, changes, times } in measured {
        rows.push(vec![
            inodes.to_string(),
            changes.to_string(),
            cell(sum(&times.ours)),
            cell(sum(&times.ours_work)),
            cell(sum(&times.shell)),
            cell(sum(&times.alone)),
            shown(ratio(sum(&times.ours_work), sum(&times.alone))),
            format!("{:.1}", times.memory),
        ]);
    }
    format!("Seconds.\n\n{}{EXPLANATION}", table(&rows))
}

fn goals(measured: &[Measured]) -> Vec<Goal> {
    let mut goals = Vec::new();
    for Measured { inodes, changes, times } in measured.iter().filter(|one| one.inodes >= 1_000_000) {
        let what = format!("takeover without settle time, {inodes} inodes, {changes} changes");
        let [alone, shell] = [&times.alone, &times.shell_work].map(|other| ratio(sum(&times.ours_work), sum(other)));
        goals.push(Goal::at_most(format!("{what}, to `mfsmaster -a start`"), 1.15, "×", alone));
        goals.push(Goal::at_most(format!("{what}, to the shell hooks without their 3 s"), 0.5, "×", shell));
    }
    let memory = measured.iter().map(|one| one.times.memory).reduce(f64::max);
    goals.push(
        Goal::at_most("memory of mfs-promote until it serves", 32.0, "MB", memory)
            .remark("VmHWM, the largest of all sizes"),
    );
    goals
}

fn pictures(measured: &[Measured]) -> Result<Vec<(&'static str, String)>> {
    let lines = |wanted: &dyn Fn(&Measured) -> bool, x: &dyn Fn(&Measured) -> u64| {
        let line = |name, of: &dyn Fn(&Times) -> &Vec<f64>| {
            let mut points: Vec<(f64, f64)> = measured
                .iter()
                .filter(|one| wanted(one))
                .filter_map(|one| Some((inputs::float(x(one)), sum(of(&one.times))?.median)))
                .collect();
            points.sort_by(|one, other| one.0.total_cmp(&other.0));
            Line { name, points }
        };
        vec![
            line("ours, without the settle time", &|times| &times.ours_work),
            line("shell hooks, without their 3 s", &|times| &times.shell_work),
            line("mfsmaster -a start", &|times| &times.alone),
        ]
    };
    let by_inodes = lines(&|one| one.changes == 100_000, &|one| one.inodes);
    let by_changes = lines(&|one| one.inodes == 200_000, &|one| one.changes);
    Ok(vec![
        ("takeover-inodes.svg", plot::growth("Takeover, 100,000 changes to replay", "inodes", "seconds", &by_inodes)?),
        (
            "takeover-changes.svg",
            plot::growth("Takeover, 200,000 inodes", "changes to replay", "seconds", &by_changes)?,
        ),
    ])
}

const EXPLANATION: &str = "
![takeover against inodes](takeover-inodes.svg)

![takeover against changes](takeover-changes.svg)

Files of a real master (trees of snapshots, changes made through a mount) lie in the data folder as a metalogger leaves them;
the machine boots, metalogger and ucarp start, no other machine advertises, and ucarp becomes MASTER. Then as above: from its line
to the first answer on 9421. Beside it one `mfsmaster -a start` of the same files, from the call to its end, which is when it
listens. The settle time is what mfs-promote logs; while it lasts, mfs-promote copies the image. The memory is the most that
mfs-promote had resident until then (VmHWM).
";
