//! The page: what was measured on what, each goal with what came of it, and a section for each part.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use crate::Result;
use crate::stats::Summary;

pub(crate) type Row = Vec<String>;

/// What one part of the benchmark has to say.
#[derive(Default)]
pub(crate) struct Section {
    pub(crate) title: &'static str,
    pub(crate) text: String,
    pub(crate) goals: Vec<Goal>,
    /// Pictures, as file name and SVG document; the text shows them.
    pub(crate) pictures: Vec<(&'static str, String)>,
}

/// One goal, and how far it was reached.
pub(crate) struct Goal {
    pub(crate) what: String,
    pub(crate) limit: f64,
    /// How limit and measure are written: `s`, `ms`, `×`, `MB`.
    pub(crate) unit: &'static str,
    /// `None` if it could not be measured.
    pub(crate) measured: Option<f64>,
    /// Whether more is better.
    pub(crate) at_least: bool,
    /// What one has to know to judge it.
    pub(crate) remark: &'static str,
}

impl Goal {
    /// A goal that is met by what is not above it.
    pub(crate) fn at_most(what: impl Into<String>, limit: f64, unit: &'static str, measured: Option<f64>) -> Self {
        Self { what: what.into(), limit, unit, measured, at_least: false, remark: "" }
    }

    /// A goal that is met by what is not below it.
    pub(crate) fn at_least(what: impl Into<String>, limit: f64, unit: &'static str, measured: Option<f64>) -> Self {
        Self { at_least: true, ..Self::at_most(what, limit, unit, measured) }
    }

    pub(crate) fn remark(self, remark: &'static str) -> Self {
        Self { remark, ..self }
    }

    fn row(&self) -> Row {
        let verdict = match self.measured {
            None => "not measured",
            // What is shown is rounded, and so is what is judged.
            Some(measured) => {
                let beyond = if self.at_least { self.limit - measured } else { measured - self.limit };
                if beyond < 0.005 { "met" } else { "short" }
            }
        };
        let measured =
            self.measured.map_or_else(|| "none".to_owned(), |measured| format!("{measured:.2} {}", self.unit));
        let side = if self.at_least { "at least" } else { "at most" };
        let limit = format!("{side} {} {}", self.limit, self.unit);
        vec![self.what.clone(), limit, measured, verdict.to_owned(), self.remark.to_owned()]
    }
}

/// `median (least to most)`
pub(crate) fn cell(summary: Option<Summary>) -> String {
    summary.map_or_else(none, |Summary { median, min, max, .. }| format!("{median:.2} ({min:.2} to {max:.2})"))
}

/// `median, nine in ten, worst`
pub(crate) fn spread(summary: Option<Summary>) -> String {
    summary.map_or_else(none, |Summary { median, nine_in_ten, max, .. }| {
        format!("{median:.2}, {nine_in_ten:.2}, {max:.2}")
    })
}

/// One median in terms of the other.
pub(crate) fn ratio(ours: Option<Summary>, other: Option<Summary>) -> Option<f64> {
    ours.zip(other).map(|(ours, other)| ours.median / other.median)
}

/// `0.55`
pub(crate) fn shown(number: Option<f64>) -> String {
    number.map_or_else(none, |number| format!("{number:.2}"))
}

fn none() -> String {
    "none".to_owned()
}

/// A row of cells.
pub(crate) fn row<const N: usize>(cells: [&str; N]) -> Row {
    cells.map(str::to_owned).to_vec()
}

/// A Markdown table that can also be read as it is.
pub(crate) fn table(rows: &[Row]) -> String {
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

/// The whole page.
pub(crate) fn page(sections: &[Section]) -> Result<String> {
    let version = |package: &str| output("dpkg-query", &["--show", "--showformat", "${Version}", package]);
    let memory = fs::read_to_string("/proc/meminfo")?;
    let memory = memory.lines().next().and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    let facts = [
        ("command", format!("`{}`", command_line(std::env::args()))),
        ("date", output("date", &["--utc", "+%Y-%m-%d"])?),
        ("kernel", fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned()),
        ("CPUs, memory", format!("{}, {} GB", std::thread::available_parallelism()?, memory.unwrap_or(0) >> 20)),
        ("ucarp", version("ucarp")?),
        ("MooseFS", version("moosefs-master")?),
    ];
    let mut text = String::from("# Benchmarks\n\nWritten by `scripts/bench`.\n\n");
    let rows = facts.map(|(name, fact)| vec![name.to_owned(), fact]);
    text += &table(&[&[vec![String::new(); 2]], rows.as_slice()].concat());
    text += "\nOne machine runs the whole cluster: ratios matter more than seconds. \"The shell hooks\" are those of the howto, in\n\
             the folder DIR. Where two things are compared, they were measured alternately or at the same time. Medians, with the\n\
             minimum and the maximum in brackets, where nothing else is said.\n";
    text += "\n## Goals\n\n";
    let head = row(["what", "goal", "measured", "", "remark"]);
    let goals = sections.iter().flat_map(|section| &section.goals).map(Goal::row);
    text += &table(&std::iter::once(head).chain(goals).collect::<Vec<_>>());
    for section in sections {
        let _ = write!(text, "\n## {}\n\n{}", section.title, section.text);
    }
    Ok(text)
}

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

fn output(program: &str, words: &[&str]) -> Result<String> {
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

    #[test]
    fn goals_are_judged_as_they_are_shown() {
        let verdict = |goal: Goal| goal.row()[3].clone();
        assert_eq!(verdict(Goal::at_most("x", 0.5, "×", Some(0.504))), "met");
        assert_eq!(verdict(Goal::at_most("x", 0.5, "×", Some(0.506))), "short");
        assert_eq!(verdict(Goal::at_least("x", 15.0, "×", Some(16.0))), "met");
        assert_eq!(verdict(Goal::at_least("x", 15.0, "×", Some(14.0))), "short");
        assert_eq!(verdict(Goal::at_most("x", 0.5, "×", None)), "not measured");
    }
}
