//! How a takeover grows with the metadata: the same files taken over by our programs, by the shell hooks, and loaded once
//! by MooseFS alone.

use std::fs;
use std::time::{Duration, Instant};

use lab::{Cluster, Hooks, log_lines};

use crate::Result;
use crate::Setup;
use crate::inputs::{self, Input};
use crate::page::{Goal, Section, cell, ratio, row, shown, table};
use crate::plot::{self, Line};
use crate::power_cut::steps;
use crate::stats::Summary;

/// Image and log of four million inodes are loaded within this, twice.
const PATIENCE: Duration = Duration::from_secs(120);
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
        points.iter().map(|(inodes, changes, _)| inputs::input(*inodes, *changes)).collect::<Result<Vec<_>>>()?;
    let mut bed = Bed::new(setup)?;
    let mut measured = Vec::new();
    for ((inodes, changes, runs), input) in points.into_iter().zip(inputs) {
        let mut times = Times::default();
        for _ in 0..runs {
            bed.alone(&input, &mut times)?;
            bed.ours(&input, &mut times)?;
            bed.shell(&input, &mut times)?;
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

/// A machine that takes over whatever is put on its disk. Its master is dead, and a client's machine proves the network.
struct Bed {
    cluster: Cluster,
    ours: Hooks,
    shell: Option<Hooks>,
}

impl Bed {
    fn new(setup: &Setup) -> Result<Self> {
        let ours = Hooks::ours()?;
        let shell = setup.shell.clone().map(|folder| Hooks::Shell { folder });
        let cluster = Cluster::build()
            .unjudged()
            .masters(1)
            .chunkservers(0)
            .hooks(ours.clone())
            .file("/etc/mfs/mfspromote.cfg", format!("{} = 172.16.0.61\n", log_lines::PING_NODES), 0o644)
            .start()?;
        cluster.must("c1", &["umount", "-l", "/mnt/mfs"])?;
        Ok(Self { cluster, ours, shell })
    }

    /// The machine starts with these files, and nothing else of the runs before.
    fn boot(&mut self, input: &Input, hooks: Hooks) -> Result<usize> {
        self.cluster.power_off("m1")?;
        let machine = self.cluster.machine("m1")?;
        for folder in ["/var/lib/mfs", "/var/lib/moosefs-ucarp"] {
            let folder = machine.disk(folder);
            for entry in fs::read_dir(&folder)?.flatten() {
                let path = entry.path();
                if path.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
            }
        }
        for path in input.put(&machine.disk("/var/lib/mfs"))? {
            machine.give_to_mfs(&path)?;
        }
        // What is still to be written of it must not slow down what is measured.
        nix::unistd::sync();
        self.cluster.change_hooks(hooks)?;
        let mark = self.cluster.mark();
        self.cluster.power_on("m1")?;
        Ok(mark)
    }

    /// From ucarp's line to the first answer, and when that line came.
    fn takeover(&self, mark: usize) -> Result<(f64, lab::Moment)> {
        let master = self.cluster.wait_for_log_since(mark, "m1", log_lines::UCARP_MASTER, PATIENCE)?;
        let taken = self.cluster.wait_for_serving("m1", PATIENCE)?;
        Ok((taken.at.seconds_since(master.at), master.at))
    }

    fn ours(&mut self, input: &Input, times: &mut Times) -> Result<()> {
        let mark = self.boot(input, self.ours.clone())?;
        let (took, zero) = self.takeover(mark)?;
        times.memory = times.memory.max(peak_memory(&self.cluster)?);
        let lines = self.cluster.events().since(mark);
        let lines = lines.iter().filter(|line| line.machine == "m1");
        let lines: Vec<(f64, &str)> = lines.map(|line| (line.at.seconds_since(zero), line.text.as_str())).collect();
        let steps = steps(&lines)?;
        let settle = steps.iter().find(|step| step.name == "settle").ok_or("no settle time was logged")?;
        times.ours.push(took);
        times.ours_work.push(took - (settle.end - settle.begin));
        Ok(())
    }

    fn shell(&mut self, input: &Input, times: &mut Times) -> Result<()> {
        let Some(hooks) = self.shell.clone() else { return Ok(()) };
        let mark = self.boot(input, hooks)?;
        let (took, _) = self.takeover(mark)?;
        times.shell.push(took);
        times.shell_work.push(took - SHELL_SETTLE);
        Ok(())
    }

    fn alone(&mut self, input: &Input, times: &mut Times) -> Result<()> {
        let mark = self.boot(input, self.ours.clone())?;
        // Before that, a signal would end it without its hook.
        self.cluster.wait_for_log_since(mark, "m1", log_lines::UCARP_BACKUP, PATIENCE)?;
        self.cluster.stop_ucarp("m1")?;
        let machine = self.cluster.machine("m1")?;
        machine.must(&["mfsmetalogger", "stop"], PATIENCE)?;
        let begin = Instant::now();
        machine.must(&["mfsmaster", "-a", "start"], PATIENCE)?;
        times.alone.push(begin.elapsed().as_secs_f64());
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
