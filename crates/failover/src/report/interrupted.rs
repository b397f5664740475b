//! An interrupted run in plain words.

use serde::Serialize;

use crate::machine::interrupted::Interrupted;
use crate::machine::recover::Outlook;
use crate::machine::state::Phase;
use crate::sys::logging::chain;
use crate::sys::text::{count, when};

/// An interrupted run, for programs.
#[derive(Debug, Serialize)]
pub(super) struct InterruptedRun {
    pub(super) started: Option<u64>,
    pub(super) phase: Option<Phase>,
    /// How many files it set aside.
    pub(super) set_aside: Option<usize>,
    /// What the next run does about it.
    pub(super) text: String,
}

impl From<&Interrupted> for InterruptedRun {
    fn from(interrupted: &Interrupted) -> Self {
        let text = describe(interrupted);
        match interrupted {
            Interrupted::Known(journal, _) => Self {
                started: Some(journal.run),
                phase: Some(journal.phase),
                set_aside: Some(journal.set_aside.len()),
                text,
            },
            Interrupted::Unknown { runs, .. } => {
                Self { started: runs.first().copied(), phase: None, set_aside: None, text }
            }
        }
    }
}

/// When it was interrupted, and what the next run does about it.
pub(crate) fn describe(interrupted: &Interrupted) -> String {
    let (journal, outlook) = match interrupted {
        Interrupted::Known(journal, outlook) => (journal, outlook),
        Interrupted::Unknown { damaged, runs } => {
            let why = damaged.as_ref().map_or("the journal is missing".to_owned(), |e| chain(e));
            let started: Vec<_> = runs.iter().map(|run| when(*run)).collect();
            return if started.is_empty() {
                format!("{why}; no files are half moved; the next promotion or demotion moves the journal aside")
            } else {
                let started = started.join(" and ");
                format!(
                    "{why}; the run of {started} was interrupted while moving files; the next promotion or demotion moves them back"
                )
            };
        }
    };
    let at = match journal.phase {
        Phase::Stopping => "before it moved any file",
        Phase::Moving => "while moving files",
        Phase::Starting => "after its files were in place",
    };
    let next = match outlook {
        Outlook::MasterRuns => "keeps its master, which is running, and archives the old files".to_owned(),
        Outlook::Keep => "keeps the changes that its master wrote, and archives the old files".to_owned(),
        Outlook::Back { .. } => {
            let start = if journal.metalogger_ran { " and starts the metalogger" } else { "" };
            format!("moves back up to {}{start}", count(journal.set_aside.len(), "file"))
        }
    };
    format!("the run of {} was interrupted {at}; the next promotion or demotion {next}", when(journal.run))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::state::Journal;

    #[test]
    fn an_interrupted_run_says_what_the_next_one_does() {
        let journal = |phase| Journal {
            run: 1_795_380_000,
            data_path: "/var/lib/mfs".into(),
            phase,
            set_aside: vec!["metadata.mfs".into()],
            staged: Vec::new(),
            metalogger_ran: true,
        };
        let at = "the run of 2026-11-22 20:40:00 UTC was interrupted";
        for (interrupted, text) in [
            (
                Interrupted::Known(journal(Phase::Moving), Outlook::Back { files: 1 }),
                format!(
                    "{at} while moving files; the next promotion or demotion moves back up to 1 file and starts the metalogger"
                ),
            ),
            (
                Interrupted::Known(journal(Phase::Starting), Outlook::MasterRuns),
                format!(
                    "{at} after its files were in place; the next promotion or demotion keeps its master, which is running, and archives the old files"
                ),
            ),
            (
                Interrupted::Unknown { damaged: None, runs: vec![1_795_380_000] },
                format!(
                    "the journal is missing; {at} while moving files; the next promotion or demotion moves them back"
                ),
            ),
        ] {
            assert_eq!(describe(&interrupted), text);
        }
    }
}
