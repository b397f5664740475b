//! An interrupted run in plain words.

use serde::Serialize;

use crate::machine::commit::Recovery;
use crate::machine::journal::{Journal, Phase};
use crate::machine::recover::{self, Interrupted};
use crate::sys::logging::chain;
use crate::sys::text::{count, when};

/// An interrupted run, for programs.
#[derive(Debug, Serialize)]
pub(super) struct InterruptedRun {
    /// `None`, as the next two, if its journal is unusable.
    started: Option<u64>,
    phase: Option<Phase>,
    /// How many files it set aside.
    set_aside: Option<usize>,
    /// What the next run does about it.
    pub(super) text: String,
}

impl From<&Interrupted> for InterruptedRun {
    fn from(interrupted: &Interrupted) -> Self {
        let journal = interrupted.run.journal();
        Self {
            started: Some(interrupted.run.id()),
            phase: Some(journal.phase),
            set_aside: Some(journal.set_aside.len()),
            text: describe(interrupted),
        }
    }
}

impl InterruptedRun {
    /// One that no run can end.
    pub(super) fn unusable(error: &recover::Error) -> Self {
        Self { started: None, phase: None, set_aside: None, text: chain(error) }
    }
}

/// When it was interrupted, and what the next run does about it.
pub(crate) fn describe(interrupted: &Interrupted) -> String {
    in_words(interrupted.run.id(), interrupted.run.journal(), interrupted.recovery)
}

fn in_words(started: u64, journal: &Journal, recovery: Recovery) -> String {
    let at = match journal.phase {
        Phase::Stopping => "before it moved any file",
        Phase::Moving => "while moving files",
        Phase::Starting => "after its files were in place",
    };
    let next = match recovery {
        Recovery::KeepRunning => "keeps its master, which is running, and archives the old files".to_owned(),
        Recovery::Keep => "keeps the changes that its master wrote, and archives the old files".to_owned(),
        Recovery::RollBack => {
            let start = if journal.metalogger_ran { " and starts the metalogger" } else { "" };
            format!("first moves back up to {}{start}", count(journal.set_aside.len(), "file"))
        }
    };
    format!("the run of {} was interrupted {at}; the next promotion or demotion {next}", when(started))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupted_run_says_what_the_next_one_does() {
        let journal =
            |phase| Journal { phase, set_aside: vec!["metadata.mfs".into()], staged: Vec::new(), metalogger_ran: true };
        let said = |phase, recovery| in_words(1_795_380_000, &journal(phase), recovery);
        let at = "the run of 2026-11-22 20:40:00 UTC was interrupted";
        assert_eq!(
            said(Phase::Moving, Recovery::RollBack),
            format!(
                "{at} while moving files; the next promotion or demotion first moves back up to 1 file and starts the \
                 metalogger"
            )
        );
        assert_eq!(
            said(Phase::Starting, Recovery::KeepRunning),
            format!(
                "{at} after its files were in place; the next promotion or demotion keeps its master, which is running, and \
                 archives the old files"
            )
        );
    }
}
