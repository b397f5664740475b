//! What a power cut of the master costs the clients, in the cluster that the README tells to build: with defaults beside the shell
//! hooks, and with the settings that we recommend.

use std::thread;

use lab::Hooks;

use crate::Result;
use crate::Setup;
use crate::breakdown;
use crate::page::{Goal, Row, Section, ratio, row, shown, spread, table};
use crate::power_cut::{self, Operations, PowerCut, STEPS, Settings};
use crate::stats::Summary;

type Measure = fn(&PowerCut) -> Option<f64>;

const MEASURES: [(&str, Measure); 5] = [
    ("detection", |run| run.detection),
    ("takeover", |run| run.takeover),
    ("from the master's first answer to that of the last client", PowerCut::heard_again),
    ("client without metadata operations", |run| Some(run.metadata)),
    ("client without writes", |run| Some(run.writes)),
];
const TAKEOVER: Measure = MEASURES[1].1;
const HEARD_AGAIN: Measure = MEASURES[2].1;
const METADATA: Measure = MEASURES[3].1;
const WRITES: Measure = MEASURES[4].1;

const SIDES: [&str; 3] = ["ours", "shell hooks", "ours / shell"];

pub(crate) fn section(setup: &Setup) -> Result<Section> {
    let (our_runs, shell_runs) = side_by_side(setup, Settings::Defaults)?;
    let [metadata, writes] = [METADATA, WRITES].map(|measure| summary(&our_runs, measure));
    let to_shell = |measure| ratio(summary(&our_runs, measure), summary(&shell_runs, measure));
    let median = |summary: Option<Summary>| summary.map(|summary| summary.median);
    let nine = |summary: Option<Summary>| summary.map(|summary| summary.nine_in_ten);
    let goals = vec![
        Goal::at_most("takeover, tiny tree", 2.0, "s", median(summary(&our_runs, TAKEOVER)))
            .remark("most of it is the settle time"),
        Goal::at_most("client without metadata operations, defaults", 5.2, "s", median(metadata)),
        Goal::at_most("the same, nine of ten cuts", 6.0, "s", nine(metadata)),
        Goal::at_most("client without writes, defaults", 8.0, "s", median(writes))
            .remark("chunkservers try every 5 s, at a phase of their own"),
        Goal::at_most("from the master's first answer to that of the last client, nine of ten cuts", 0.2, "s", {
            nine(summary(&our_runs, HEARD_AGAIN))
        }),
        Goal::at_most(
            "client without metadata operations, defaults, to the shell hooks",
            0.65,
            "×",
            to_shell(METADATA),
        ),
        Goal::at_most("client without writes, defaults, to the shell hooks", 0.75, "×", to_shell(WRITES)),
    ];
    let mut text = format!("{}\n", table(&times(SIDES, &our_runs, &shell_runs)));
    text += "The clients' operations, all runs together. A run lasts until 3 s after all programs work again, so that a longer\n\
             outage has more of them:\n\n";
    text += &table(&operations(&our_runs, &shell_runs));
    text += "\nThe steps of our promotions:\n\n";
    text += &table(&steps(&our_runs));
    text += EXPLANATION;
    let (picture, parts) = breakdown::draw(&our_runs)?;
    text += &parts;
    Ok(Section { title: "Power cut of the master under load", text, goals, pictures: vec![("outage.svg", picture)] })
}

pub(crate) fn recommended(setup: &Setup) -> Result<Section> {
    let (runs, shell_runs) = side_by_side(setup, Settings::Recommended)?;
    let [metadata, writes] = [METADATA, WRITES].map(|measure| summary(&runs, measure));
    let goals = vec![
        Goal::at_most(
            "client without metadata operations, recommended settings",
            3.5,
            "s",
            metadata.map(|all| all.median),
        ),
        Goal::at_most("the same, nine of ten cuts", 4.5, "s", metadata.map(|all| all.nine_in_ten)),
        Goal::at_most(
            "client without writes, recommended settings, nine of ten cuts",
            5.0,
            "s",
            writes.map(|all| all.nine_in_ten),
        ),
    ];
    let caught = runs.iter().filter(|run| run.caught).count();
    let spared = Summary::of(runs.iter().filter(|run| !run.caught).map(|run| run.writes));
    let text = format!(
        "{}\n{}{RECOMMENDED}\nIn {caught} of the {} runs the cut came between the master's log line of a write and its answer. In the others\n\
         *client without writes* was {} s.\n",
        table(&times(SIDES, &runs, &shell_runs)),
        table(&operations(&runs, &shell_runs)),
        runs.len(),
        spread(spared)
    );
    Ok(Section { title: "The same with the recommended settings", text, goals, pictures: Vec::new() })
}

/// Power cuts with our hooks, and with the shell hooks if there are any.
fn side_by_side(setup: &Setup, settings: Settings) -> Result<(Vec<PowerCut>, Vec<PowerCut>)> {
    let ours = Hooks::ours()?;
    let shell = setup.shell.clone().map(|folder| Hooks::Shell { folder });
    let (mut our_runs, mut shell_runs) = (Vec::new(), Vec::new());
    for _ in 0..setup.runs {
        // At the same time: what disturbs the one disturbs the other.
        let (ours, shell) = thread::scope(|scope| {
            let shell = shell.as_ref().map(|shell| scope.spawn(|| power_cut("shell", shell, settings)));
            let ours = power_cut("ours", &ours, settings);
            (ours, shell.map(|shell| shell.join().expect("a measurement does not panic")))
        });
        our_runs.push(ours?);
        shell_runs.extend(shell.transpose()?);
    }
    Ok((our_runs, shell_runs))
}

/// One power cut, and a line about it.
fn power_cut(name: &str, hooks: &Hooks, settings: Settings) -> lab::Result<PowerCut> {
    let cluster = settings.builder(hooks).start()?;
    let programs = power_cut::programs(&cluster)?;
    let done = power_cut::measure(&cluster, &programs)?;
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
        rows.push(vec![name.to_owned(), spread(one), spread(other), shown(ratio(one, other))]);
    }
    rows
}

fn operations(ours: &[PowerCut], shell: &[PowerCut]) -> Vec<Row> {
    type Count = fn(&Operations) -> usize;
    const COUNTS: [(&str, Count); 4] = [
        ("acknowledged", |operations| operations.acknowledged),
        ("interrupted by the cut (within 100 ms of it)", |operations| operations.cut_off),
        ("lost otherwise", |operations| operations.lost),
        ("returned an error", |operations| operations.failed),
    ];
    type Holds = fn(&&PowerCut) -> bool;
    const RUNS: [(&str, Holds); 2] = [
        ("runs in which all programs continued", |run| run.resumed),
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
            |Summary { median, min, max, .. }| format!("{median:.0} ({min:.0} to {max:.0})"),
        );
        rows.push(vec![name.to_owned(), cell]);
    }
    rows
}

const EXPLANATION: &str = "
Seconds: the median, what nine of ten cuts do not exceed, and the worst. The last column has the ratio of the medians.

A power cut: a fresh cluster as the README has it, with three machines (`advskew` 0, 50 and 100), two chunkservers and two
clients, a tiny tree, MooseFS's defaults and ucarp's (`advbase` 1, `deadratio` 3). On each client two programs make up to 50 metadata
operations and 50 writes a second each. The first machine serves and is cut. Clusters with our hooks and with the shell hooks run at the
same time.

- detection: from the cut to ucarp's line \"Switching to state: MASTER\". The hooks have no part in it. The cut comes at a random
  moment of the second between two advertisements, so this time and the clients' vary by a second.
- takeover: from that line to the first answer on port 9421 through the virtual IP, asked every 10 to 30 ms.
- from the master's first answer to that of the last client: until each of the four programs has a metadata operation acknowledged.
- client without ...: the longest wait of any of the four programs for an acknowledgement, from the cut until 3 s after all of them work
  again.
- lost: acknowledged, and not there when the file system is mounted again at the end. MooseFS acknowledges before it
  replicates, so what was acknowledged within 100 ms of the cut may have existed on the lost machine only; it is counted apart.
- Where a client did not continue within three minutes of the takeover, its waits count as long as we watched: they are longer.
- The steps are the times that mfs-promote logs. prepare and checks run beside settle; their times are counted as it logs them.
";

const RECOMMENDED: &str = "
As above, with `MASTER_RECONNECTION_DELAY = 1` on chunkservers and metaloggers, `META_DOWNLOAD_FREQ = 1`, ucarp's `-r 2`, and
`net.ipv4.tcp_rto_max_ms = 1000` (Linux 6.15 and later) on clients and chunkservers. The skews are 0, 50 and 175.
For writes the chunkservers have to reconnect too; they try every second.
";
