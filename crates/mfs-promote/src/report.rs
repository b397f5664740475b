//! What the verbs that change nothing print: `--dry-run`, `--status`, `--check-config`.

mod config;
mod dry_run;
mod json;
mod status;
mod style;

use std::error::Error;
use std::ffi::OsStr;
use std::io::Write as _;
use std::path::Path;

use failover::logging::when;
use failover::state::{self, Journal, State};

pub(crate) use config::check_config;
pub(crate) use dry_run::dry_run;
pub(crate) use status::status;
pub(crate) use style::Style;

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Prints a text in one go; a reader that went away is no error.
pub(crate) fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

pub(crate) fn describe_journal(journal: &Journal) -> String {
    format!(
        "the run of {} was interrupted ({:?}, {} files set aside); the next promotion or demotion ends it",
        when(journal.run),
        journal.phase,
        journal.set_aside.len()
    )
}

/// The state folder if there is one: a verb that changes nothing makes none.
pub(crate) fn open_state() -> std::result::Result<Option<State>, state::Error> {
    if Path::new(state::FOLDER).exists() { State::open().map(Some) } else { Ok(None) }
}

/// A file name as text: what is no text in it, or would break a line, is escaped.
fn shown(name: &OsStr) -> String {
    name.to_string_lossy().escape_debug().to_string()
}

/// Appends rows of equal columns, indented; the first row is the heading.
fn table<const N: usize>(text: &mut String, rows: &[[String; N]]) {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..N).map(width).collect();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(format!("  {}", cells.collect::<Vec<_>>().join("  ")).trim_end());
        text.push('\n');
    }
}

/// `53.1 MB`
pub(crate) fn bytes(count: u64) -> String {
    #[allow(clippy::cast_precision_loss)] // three digits are shown
    let count = count as f64;
    match count {
        c if c >= 1e9 => format!("{:.1} GB", c / 1e9),
        c if c >= 1e6 => format!("{:.1} MB", c / 1e6),
        c if c >= 1e3 => format!("{:.1} kB", c / 1e3),
        c => format!("{c} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align_and_end_without_blanks() {
        let mut text = String::new();
        table(&mut text, &[["a", "file"].map(str::to_owned), ["long", "x"].map(str::to_owned)]);
        assert_eq!(text, "  a     file\n  long  x\n");
    }

    #[test]
    fn sizes_and_times_read_well() {
        assert_eq!([bytes(8), bytes(2900), bytes(53_100_000)], ["8 B", "2.9 kB", "53.1 MB"]);
        assert_eq!(when(1_795_380_000), "2026-11-22 20:40:00 UTC");
    }
}
