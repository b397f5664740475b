//! What the verbs that change nothing print: `--dry-run`, `--status`, `--check-config`.

mod config;
mod dry_run;
mod json;
mod status;

use std::error::Error;
use std::fmt;
use std::io::Write as _;
use std::path::Path;

use crate::machine::state::{self, Journal, Phase, State};
use crate::sys::folder::Folder;
use crate::sys::logging::chain;
use crate::sys::text::when;

pub(crate) use config::check_config;
pub(crate) use dry_run::dry_run;
pub(crate) use status::status;

use crate::machine::commit;
use crate::machine::recover::Outlook;

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Prints a text in one go; a reader that went away is no error.
pub(crate) fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// What an interrupted run has left, and what the next promotion or demotion does about it.
pub(crate) enum Interrupted {
    /// It is described in the journal.
    Known(Journal, Outlook),
    /// It was moving files, and its journal is lost or cannot be read.
    Unknown {
        /// Why there is none to be read.
        why: String,
        /// The folders of such runs, by when they began.
        runs: Vec<u64>,
    },
}

impl Interrupted {
    /// Looks for one; changes nothing.
    pub(crate) fn look(data: &Folder) -> Result<Option<Self>> {
        let why = match open_state()?.map(|state| state.journal()).transpose() {
            Ok(Some(Some(journal))) => {
                // That of another data folder is judged there.
                let outlook = match Folder::open(&journal.data_path) {
                    Ok(folder) => Outlook::of(&folder, &journal)?,
                    Err(_) => Outlook::of(data, &journal)?,
                };
                return Ok(Some(Self::Known(journal, outlook)));
            }
            Ok(_) => "its journal is lost".to_owned(),
            Err(e @ state::Error::Damaged { .. }) => chain(&e),
            Err(e) => return Err(e.into()),
        };
        let runs = commit::lost_runs(data)?;
        let damaged = why.contains("damaged");
        Ok((damaged || !runs.is_empty()).then_some(Self::Unknown { why, runs }))
    }

    /// The data folder as the next promotion will see it when it plans. A journal of another data folder changes nothing.
    pub(crate) fn seen_by_next(&self, data: Folder) -> Result<Folder> {
        Ok(match self {
            Self::Known(journal, Outlook::Back { .. }) if journal.phase != Phase::Stopping => {
                commit::as_rolled_back(data, journal)?
            }
            Self::Known(..) => data,
            Self::Unknown { runs, .. } => runs.iter().try_fold(data, |data, run| commit::as_taken_back(data, *run))?,
        })
    }
}

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (journal, outlook) = match self {
            Self::Known(journal, outlook) => (journal, outlook),
            Self::Unknown { why, runs } => {
                let begun: Vec<_> = runs.iter().map(|run| when(*run)).collect();
                write!(f, "{why}; ")?;
                return match begun.as_slice() {
                    [] => write!(f, "no files are half moved, and the next promotion or demotion puts it away"),
                    begun => write!(
                        f,
                        "the run of {} was moving files, and the next promotion or demotion moves them back",
                        begun.join(" and ")
                    ),
                };
            }
        };
        let at = match journal.phase {
            Phase::Stopping => "before it moved any file",
            Phase::Moving => "while it moved files",
            Phase::Starting => "when its files were in place",
        };
        write!(f, "the run of {} was interrupted {at}; the next promotion or demotion ", when(journal.run))?;
        match outlook {
            Outlook::MasterRuns => write!(f, "keeps its master, which runs, and archives what was set aside"),
            Outlook::Keep => write!(f, "keeps what its master has written, and archives what was set aside"),
            Outlook::Back { .. } => {
                let start = if journal.metalogger_ran { " and starts the metalogger" } else { "" };
                write!(f, "moves back what was set aside (up to {} files){start}", journal.set_aside.len())
            }
        }
    }
}

/// The state folder if there is one: a verb that changes nothing makes none.
pub(crate) fn open_state() -> std::result::Result<Option<State>, state::Error> {
    if Path::new(state::FOLDER).exists() { State::open().map(Some) } else { Ok(None) }
}
