//! What a power cut of the master costs the clients: with defaults beside the shell hooks, and with the settings that we
//! recommend.

use lab::Hooks;

use crate::Result;
use crate::Setup;
use crate::breakdown;
use crate::page::{Goal, Row, Section, cell, ratio, row, shown, table};
use crate::power_cut::{self, Operations, PowerCut, STEPS, Settings};
use crate::stats::Summary;

type Measure = fn(&PowerCut) -> Option<f64>;

const MEASURES: [(&str, Measure); 4] = [
    ("detection", |run| run.detection),
    ("takeover", |run| run.takeover),
    ("client without metadata operations", |run| Some(run.metadata)),
    ("client without writes", |run| Some(run.writes)),
];

const SIDES: [&str; 3] = ["ours", "shell hooks", "ours / shell"];

pub(crate) fn section(setup: &Setup) -> Result<Section> {
    let ours = Hooks::ours()?;
    let shell = setup.shell.clone().map(|folder| Hooks::Shell { folder });
    let (mut our_runs, mut shell_runs) = (Vec::new(), Vec::new());
    for _ in 0..setup.runs {
        our_runs.push(power_cut("ours", &ours, Settings::Defaults)?);
        if let Some(shell) = &shell {
            shell_runs.push(power_cut("shell", shell, Settings::Defaults)?);
        }
    }
    let [takeover, metadata, writes] = [1, 2, 3].map(|which| {
        let [ours, shell] = [&our_runs, &shell_runs].map(|runs| summary(runs, MEASURES[which].1));
        (ours.map(|ours| ours.median), ratio(ours, shell))
    });
    let goals = vec![
        Goal::at_most("takeover, tiny tree", 1.8, "s", takeover.0).remark("1.25 s of it are the settle time"),
        Goal::at_most("takeover, tiny tree, to the shell hooks", 0.35, "×", takeover.1),
        Goal::at_most("client without metadata operations, defaults, to the shell hooks", 0.65, "×", metadata.1),
        Goal::at_most("client without writes, defaults, to the shell hooks", 0.75, "×", writes.1)
            .remark("chunkservers try every 5 s, at a phase of their own"),
    ];
    let mut text = format!("{}\n", table(&times(SIDES, &our_runs, &shell_runs)));
    text += "The client's operations, all runs together:\n\n";
    text += &table(&operations(&our_runs, &shell_runs));
    text += "\nThe steps of our promotions:\n\n";
    text += &table(&steps(&our_runs));
    text += EXPLANATION;
    let (picture, parts) = breakdown::draw(&our_runs)?;
    text += &parts;
    Ok(Section { title: "Power cut of the master under load", text, goals, pictures: vec![("outage.svg", picture)] })
}

pub(crate) fn recommended(setup: &Setup) -> Result<Section> {
    let ours = Hooks::ours()?;
    let mut runs = Vec::new();
    for _ in 0..setup.runs {
        runs.push(power_cut("ours", &ours, Settings::Recommended)?);
    }
    let median = |which: usize| summary(&runs, MEASURES[which].1).map(|summary| summary.median);
    let goals = vec![
        Goal::at_most("client without metadata operations, recommended settings", 5.0, "s", median(2)),
        Goal::at_most("client without writes, recommended settings", 5.0, "s", median(3))
            .remark("a write that the cut catches waits some 10 s more, see below"),
    ];
    let caught = runs.iter().filter(|run| run.caught).count();
    let spared = Summary::of(runs.iter().filter(|run| !run.caught).map(|run| run.writes));
    let text = format!(
        "{}{RECOMMENDED}\nIn {caught} of {} runs the cut caught a write between the master's log line and its answer. Its chunk is\n\
         locked for nobody then: with ours for some 10 s (with the shell hooks for 130). Without writes in the other runs: {} s.\n",
        table(&times(SIDES, &runs, &[])),
        runs.len(),
        cell(spared)
    );
    Ok(Section { title: "The same with the recommended settings", text, goals, pictures: Vec::new() })
}

/// One power cut, and a line about it.
fn power_cut(name: &str, hooks: &Hooks, settings: Settings) -> Result<PowerCut> {
    let done = power_cut::measure(&settings.cluster(hooks)?)?;
    println!("  {name:5}  {done}");
    Ok(done)
}

fn summary(runs: &[PowerCut], measure: Measure) -> Option<Summary> {
    Summary::of(runs.iter().filter_map(measure))
}

/// The measures of two kinds of runs, and their ratio.
pub(crate) fn times(columns: [&str; 3], one: &[PowerCut], other: &[PowerCut]) -> Vec<Row> {
    let [first, second, quotient] = columns;
    let mut rows = vec![row(["seconds", first, second, quotient])];
    for (name, measure) in MEASURES {
        let [one, other] = [one, other].map(|runs| summary(runs, measure));
        rows.push(vec![name.to_owned(), cell(one), cell(other), shown(ratio(one, other))]);
    }
    rows
}

fn operations(ours: &[PowerCut], shell: &[PowerCut]) -> Vec<Row> {
    type Count = fn(&Operations) -> usize;
    const COUNTS: [(&str, Count); 4] = [
        ("acknowledged", |operations| operations.acknowledged),
        ("cut in two by the power cut (within 100 ms of it)", |operations| operations.cut_off),
        ("lost otherwise", |operations| operations.lost),
        ("returned an error", |operations| operations.failed),
    ];
    type Holds = fn(&&PowerCut) -> bool;
    const RUNS: [(&str, Holds); 2] = [
        ("runs in which the client went on", |run| run.resumed),
        ("runs that could be checked for losses", |run| run.operations.is_some()),
    ];
    let sides = [ours, shell];
    let mut rows = vec![row(["", "ours", "shell hooks"])];
    for (name, holds) in RUNS {
        let cell = |runs: &[PowerCut]| format!("{} of {}", runs.iter().filter(holds).count(), runs.len());
        rows.push(std::iter::once(name.to_owned()).chain(sides.map(cell)).collect());
    }
    for (name, count) in COUNTS {
        let sum =
            |runs: &[PowerCut]| -> usize { runs.iter().filter_map(|run| run.operations.as_ref()).map(count).sum() };
        rows.push(std::iter::once(name.to_owned()).chain(sides.map(|runs| sum(runs).to_string())).collect());
    }
    rows
}

/// The steps of promotions.
pub(crate) fn steps(runs: &[PowerCut]) -> Vec<Row> {
    let mut rows = vec![row(["step", "milliseconds"])];
    for name in STEPS {
        let steps = runs.iter().filter_map(|run| run.steps.iter().find(|step| step.name == name));
        let summary = Summary::of(steps.map(|step| (step.end - step.begin) * 1e3));
        let cell = summary.map_or_else(
            || "none".to_owned(),
            |Summary { median, min, max }| format!("{median:.0} ({min:.0} to {max:.0})"),
        );
        rows.push(vec![name.to_owned(), cell]);
    }
    rows
}

const EXPLANATION: &str = "
A power cut: a fresh cluster with two masters' machines, a chunkserver and a client, a tiny tree, MooseFS's defaults and
ucarp's (`advbase` 1, `deadratio` 3), `advskew` 0 on both machines, so that no argument about who takes over distorts the
times. The client makes up to 200 metadata operations and 200 writes a second.

- detection: from the cut to ucarp's line \"Switching to state: MASTER\". The hooks have no part in it; the cut comes at any
  moment of the second between two advertisements, which alone scatters it by a second, and with it the client's times.
- takeover: from that line to the first answer on port 9421 through the virtual IP, asked every 10 to 30 ms.
- client without ...: the longest wait for an acknowledgement from the cut until 3 s after the client works again.
- lost: acknowledged, and not there when the file system is mounted anew at the end. MooseFS acknowledges before it
  replicates, so what was acknowledged within 100 ms of the cut may have existed on the lost machine only; it is counted apart.
- Where the client did not go on within three minutes of the takeover, its waits count as long as we watched: they are longer.
- The steps are the times that mfs-promote logs. prepare and checks run beside settle; their times are counted as it logs them.
";

const RECOMMENDED: &str = "
As above, with `MASTER_RECONNECTION_DELAY = 1` on chunkservers and metaloggers, `META_DOWNLOAD_FREQ = 1`, ucarp's `-r 2`, and
`net.ipv4.tcp_rto_max_ms = 1000` (Linux 6.15 and later) on clients and chunkservers. Each second: detection and takeover are
what the table says; 1.25 s of the takeover are the settle time, the rest is MooseFS loading a tiny tree; the client is reset
in the moment in which the master answers, and goes on; for writes the chunkserver has to come back too, which tries every
second.
";
