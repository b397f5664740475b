//! What the verbs that change nothing print: `--dry-run`, `--status`, `--check-config`.

mod config;
mod dry_run;
mod json;
mod status;

use std::error::Error;
use std::fmt;
use std::io::Write as _;
use std::path::Path;

use crate::machine::commit::Recovery;
use crate::machine::journal::Phase;
use crate::machine::recover;
use crate::machine::state::{self, State};
use crate::sys::folder::Folder;
use crate::sys::text::when;

pub(crate) use config::check_config;
pub(crate) use dry_run::dry_run;
pub(crate) use status::status;

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Prints a text in one go; a reader that went away is no error.
pub(crate) fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// A run that was interrupted, and what the next promotion or demotion does about it, in words.
pub(crate) struct Interrupted {
    /// When it started, in unix seconds.
    pub(crate) started: u64,
    pub(crate) phase: Phase,
    /// How many files it sets aside.
    pub(crate) set_aside: usize,
    recovery: Recovery,
    metalogger_ran: bool,
}

impl Interrupted {
    /// The interrupted runs, in the order in which they will be ended. Changes nothing.
    pub(crate) fn look(data: &Folder) -> std::result::Result<Vec<Self>, recover::Error> {
        let of = |recover::Interrupted { run, recovery }| Self {
            started: run.id(),
            phase: run.journal().phase,
            set_aside: run.journal().set_aside.len(),
            recovery,
            metalogger_ran: run.journal().metalogger_ran,
        };
        Ok(recover::interrupted(data)?.into_iter().map(of).collect())
    }

    /// Whether the next promotion or demotion moves files before it plans.
    pub(crate) fn moves_files(&self) -> bool {
        self.recovery == Recovery::RollBack && self.phase != Phase::Stopping
    }
}

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { started, phase, set_aside, recovery, metalogger_ran } = self;
        let at = match phase {
            Phase::Stopping => "before it moved any file",
            Phase::Moving => "while it moved files",
            Phase::Starting => "when its files were in place",
        };
        write!(f, "the run of {} was interrupted {at}; the next promotion or demotion ", when(*started))?;
        match recovery {
            Recovery::KeepRunning => write!(f, "keeps its master, which runs, and archives what was set aside"),
            Recovery::Keep => write!(f, "keeps what its master has written, and archives what was set aside"),
            Recovery::RollBack => {
                let start = if *metalogger_ran { " and starts the metalogger" } else { "" };
                write!(f, "first moves up to {set_aside} files back{start}")
            }
        }
    }
}

/// The state folder if there is one: a verb that changes nothing makes none.
pub(crate) fn open_state() -> std::result::Result<Option<State>, state::Error> {
    if Path::new(state::FOLDER).exists() { State::open().map(Some) } else { Ok(None) }
}
