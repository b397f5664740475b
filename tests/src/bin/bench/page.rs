//! The results as Markdown tables, which are also what the terminal shows, and the page around them.

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use crate::Measured;
use crate::power_cut::{Operations, PHASES, PowerCut};
use crate::stats::Summary;

type Row = Vec<String>;

/// The tables.
pub(crate) fn results(measured: &Measured) -> String {
    let mut text = String::from("## Power cut of the master under load\n\n");
    text += &table(&takeover_times(measured));
    text += "\n## The client's operations, all runs together\n\n";
    text += &table(&operations(measured));
    text += "\n## The steps of our promotions\n\n";
    text += &table(&phases(&measured.ours));
    text += "\n## vip-up alone\n\n";
    text += &table(&hook_times(measured));
    text
}

fn takeover_times(measured: &Measured) -> Vec<Row> {
    type Measure = fn(&PowerCut) -> Option<f64>;
    const MEASURES: [(&str, Measure); 4] = [
        ("detection", |run| run.detection),
        ("takeover", |run| run.takeover),
        ("client without metadata operations", |run| Some(run.metadata)),
        ("client without writes", |run| Some(run.writes)),
    ];
    let mut rows = vec![head("seconds: median (least to most)", measured.shell.is_some())];
    if measured.shell.is_some() {
        rows[0].push("ours / shell".to_owned());
    }
    for (name, measure) in MEASURES {
        let sum = |runs: &[PowerCut]| Summary::of(runs.iter().filter_map(measure));
        let ours = sum(&measured.ours);
        let mut row = vec![name.to_owned(), cell(ours)];
        if let Some(shell) = measured.shell.as_deref().map(sum) {
            row.extend([cell(shell), ratio(ours, shell)]);
        }
        rows.push(row);
    }
    rows
}

fn operations(measured: &Measured) -> Vec<Row> {
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
    let sides: Vec<&[PowerCut]> =
        [Some(&measured.ours), measured.shell.as_ref()].into_iter().flatten().map(Vec::as_slice).collect();
    let mut rows = vec![head("", measured.shell.is_some())];
    for (name, holds) in RUNS {
        let cell = |runs: &&[PowerCut]| format!("{} of {}", runs.iter().filter(holds).count(), runs.len());
        rows.push(std::iter::once(name.to_owned()).chain(sides.iter().map(cell)).collect());
    }
    for (name, count) in COUNTS {
        let sum =
            |runs: &&[PowerCut]| -> usize { runs.iter().filter_map(|run| run.operations.as_ref()).map(count).sum() };
        rows.push(std::iter::once(name.to_owned()).chain(sides.iter().map(|runs| sum(runs).to_string())).collect());
    }
    rows
}

fn phases(runs: &[PowerCut]) -> Vec<Row> {
    let mut rows = vec![["step", "milliseconds: median (least to most)"].map(str::to_owned).to_vec()];
    for name in PHASES {
        let summary = Summary::of(runs.iter().filter_map(|run| run.phases.get(name).copied()));
        let cell =
            summary.map_or_else(none, |Summary { median, min, max }| format!("{median:.0} ({min:.0} to {max:.0})"));
        rows.push(vec![name.to_owned(), cell]);
    }
    rows
}

fn hook_times(measured: &Measured) -> Vec<Row> {
    let times = &measured.hook;
    let shell = Summary::of(times.shell.iter().copied());
    let mut rows = vec![["hook", "milliseconds: median (least to most)"].map(str::to_owned).to_vec()];
    for (name, times) in [
        ("ours, the promotion ends at once", &times.short),
        ("ours, the promotion goes on", &times.long),
        ("shell", &times.shell),
    ] {
        let Some(summary) = Summary::of(times.iter().copied()) else { continue };
        rows.push(vec![name.to_owned(), cell(Some(summary))]);
        if shell.is_some() {
            rows.last_mut().into_iter().for_each(|row| row.push(ratio(Some(summary), shell)));
        }
    }
    if shell.is_some() {
        rows[0].push("to the shell hook".to_owned());
    }
    rows
}

fn head(first: &str, shell: bool) -> Row {
    [first, "ours"].into_iter().chain(shell.then_some("shell hooks")).map(str::to_owned).collect()
}

fn cell(summary: Option<Summary>) -> String {
    summary.map_or_else(none, |Summary { median, min, max }| format!("{median:.2} ({min:.2} to {max:.2})"))
}

fn ratio(ours: Option<Summary>, shell: Option<Summary>) -> String {
    ours.zip(shell).map_or_else(none, |(ours, shell)| format!("{:.2}", ours.median / shell.median))
}

fn none() -> String {
    "none".to_owned()
}

/// A Markdown table that can also be read as it is.
fn table(rows: &[Row]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(text, "| {cell:width$} ");
        }
        text += "|\n";
        if number == 0 {
            for width in &widths {
                let _ = write!(text, "|{}", "-".repeat(width + 2));
            }
            text += "|\n";
        }
    }
    text
}

/// The whole page: what was measured, on what, how, and what to make of it.
pub(crate) fn page(measured: &Measured, results: &str) -> Result<String, Box<dyn Error>> {
    let version = |package: &str| output("dpkg-query", &["--show", "--showformat", "${Version}", package]);
    let cpus = std::thread::available_parallelism()?;
    let facts = [
        ("command", format!("`{}`", command_line(std::env::args()))),
        ("date", output("date", &["--utc", "+%Y-%m-%d"])?),
        ("kernel", fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned()),
        ("CPUs", cpus.to_string()),
        ("ucarp", version("ucarp")?),
        ("MooseFS", version("moosefs-master")?),
        ("power cuts", format!("{} with each kind of hooks", measured.ours.len())),
        ("calls of vip-up", format!("{} of each kind", measured.hook.short.len())),
    ];
    let mut text = String::from("# Benchmarks\n\nWritten by `scripts/bench`.\n\n");
    let rows = facts.map(|(name, fact)| vec![name.to_owned(), fact]);
    text += &table(&[&[vec![String::new(); 2]], rows.as_slice()].concat());
    text +=
        "\nThe machine is shared with others and carries the whole cluster alone: ratios matter more than seconds.\n";
    if measured.shell.is_some() {
        text += "The shell hooks are the howto's, in the folder DIR. Both kinds took turns.\n";
    }
    Ok(format!("{text}\n{results}\n{EXPLANATION}"))
}

/// What the numbers mean, and what they leave out.
const EXPLANATION: &str = "\
## How it was measured

A power cut: a fresh cluster with two masters' machines, a chunkserver and a client, a tiny tree, MooseFS's defaults and
ucarp's (`advbase` 1, `deadratio` 3), `advskew` 0 on both machines, so that no argument about who takes over distorts the
times. The client makes up to 200 metadata operations and 200 writes a second.

- detection: from the cut to ucarp's line \"Switching to state: MASTER\". The hooks have no part in it; the cut comes at any
  moment of the second between two advertisements, which alone scatters it by a second, and with it the client's times.
- takeover: from that line to the first answer on port 9421 through the virtual address, asked every 10 to 30 ms.
- client without ...: the longest wait for an acknowledgement from the cut until 3 s after the client works again.
- lost: acknowledged, and not there when the file system is mounted anew at the end. MooseFS acknowledges before it
  replicates, so what was acknowledged within 100 ms of the cut may have existed on the lost machine only; it is counted apart.
- Where the client did not go on within three minutes of the takeover, its waits count as long as we watched: they are longer.
- The steps are the times that mfs-promote logs. stage is what is left of it after settle: most of it runs beside settle.

vip-up alone: from its start until it is collected, in a network namespace with a veth pair. The address is really added
each time and removed again untimed; what follows in the background (mfs-promote, `setup.sh`) is a stand-in, and the
hook's caller is the benchmark, not ucarp. ucarp is silent towards its rivals for as long as this takes.
";

/// The command line as anybody would type it; where the other hooks lie is this machine's business.
fn command_line(words: impl Iterator<Item = String>) -> String {
    let mut line = String::from("scripts/bench");
    let mut is_folder = false;
    for word in words.skip(1) {
        let shown = match word.split_once('=') {
            _ if is_folder => "DIR",
            Some(("--shell-hooks", _)) => "--shell-hooks=DIR",
            _ => &word,
        };
        is_folder = word == "--shell-hooks";
        let _ = write!(line, " {shown}");
    }
    line
}

fn output(program: &str, words: &[&str]) -> Result<String, Box<dyn Error>> {
    let output = Command::new(program).args(words).output()?;
    if !output.status.success() {
        return Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folder_of_the_other_hooks_is_not_named() {
        let shown = |line: &str| command_line(line.split(' ').map(str::to_owned));
        assert_eq!(shown("x --shell-hooks /some/where --runs 2"), "scripts/bench --shell-hooks DIR --runs 2");
        assert_eq!(shown("x --shell-hooks=/some/where"), "scripts/bench --shell-hooks=DIR");
    }
}
