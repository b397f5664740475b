//! Ending what an interrupted run has begun: a run that was killed, or a machine that lost power.

use std::path::PathBuf;

use crate::machine::state::{self, Journal, Phase};
use crate::moosefs::{self, Daemon};
use crate::sys::folder::Folder;
use crate::sys::logging::chain;

use crate::machine::Machine;
use crate::machine::commit::{self, Undone, roll_back};
use crate::machine::outcome::StepName;
use crate::machine::run::Run;

/// Why it cannot be ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The journal.
    #[error(transparent)]
    State(#[from] state::Error),
    /// The files.
    #[error(transparent)]
    RunFolder(#[from] commit::Error),
    /// Whether a master runs.
    #[error(transparent)]
    MooseFs(#[from] moosefs::Error),
}

/// What the next run will do about an interrupted one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outlook {
    /// Its master runs, and goes on.
    MasterRuns,
    /// Its master has written, and runs no more: that history stays, what was set aside will be archived.
    Keep,
    /// So many files go back to where they were.
    Back {
        /// How many were to be set aside.
        files: usize,
    },
}

impl Outlook {
    /// For the run that `journal` describes, which worked in `data`.
    pub(crate) fn of(data: &Folder, journal: &Journal) -> Result<Self, Error> {
        if journal.phase == Phase::Starting && moosefs::running(data, Daemon::Master)?.is_some() {
            return Ok(Self::MasterRuns);
        }
        Ok(match commit::outlook(data, journal)? {
            Undone::Kept => Self::Keep,
            Undone::Back => Self::Back { files: journal.set_aside.len() },
        })
    }
}

/// Ends what an interrupted run has begun, if there is one: finished if its master runs or has written, else undone.
pub(crate) fn finish_interrupted(target: &Machine, run: &mut Run) -> Result<(), Error> {
    target.remove_restore_dropin();
    match target.state.journal() {
        Ok(Some(journal)) => end(target, run, &journal)?,
        Ok(None) => take_back_lost(target, run)?,
        Err(e @ state::Error::Damaged { .. }) => {
            let path = target.state.put_journal_away()?;
            log::error!("{}; it is {} now, and the files tell what was done", chain(&e), path.display());
            take_back_lost(target, run)?;
        }
        Err(e) => return Err(e.into()),
    }
    Ok(commit::sweep(&target.data)?)
}

fn end(target: &Machine, run: &mut Run, journal: &Journal) -> Result<(), Error> {
    let Some(elsewhere) = other_folder(target, journal)? else { return end_in(&target.data, target, run, journal) };
    match Folder::open(&elsewhere) {
        Ok(folder) => end_in(&folder, target, run, journal),
        Err(e) if e.is_not_found() => {
            let path = target.state.put_journal_away()?;
            log::error!(
                "run {} was interrupted in {}, which is gone: its journal is {} now",
                journal.run,
                elsewhere.display(),
                path.display()
            );
            Ok(())
        }
        Err(e) => Err(commit::Error::from(e).into()),
    }
}

/// The data folder of the interrupted run, if it is another one than ours, perhaps under the name it had before.
fn other_folder(target: &Machine, journal: &Journal) -> Result<Option<PathBuf>, Error> {
    let ours = journal.data_path == target.data.path() || commit::runs(&target.data)?.contains(&journal.run);
    Ok((!ours).then(|| journal.data_path.clone()))
}

/// The journal goes last: whoever is killed before leaves the rest to the next run.
fn end_in(data: &Folder, target: &Machine, run: &mut Run, journal: &Journal) -> Result<(), Error> {
    let outlook = Outlook::of(data, journal)?;
    let what = match outlook {
        Outlook::MasterRuns => "its master runs, and is kept",
        Outlook::Keep => "its master had written, so that history is kept",
        Outlook::Back { .. } => "every file is where it was",
    };
    if outlook != Outlook::MasterRuns {
        roll_back(data, journal)?;
        if journal.metalogger_ran && moosefs::running(data, Daemon::Metalogger)?.is_none() {
            if let Err(e) = target.start_metalogger() {
                log::error!("the metalogger cannot be started again: {}", chain(&e));
            }
        }
    }
    target.state.clear_journal()?;
    run.done(StepName::Recover, format_args!("run {} was interrupted: {what}", journal.run));
    Ok(())
}

/// A journal can be lost with the disk it is on: files in the stage and set aside at once tell that a run was moving them.
fn take_back_lost(target: &Machine, run: &mut Run) -> Result<(), Error> {
    if target.running(Daemon::Master)?.is_none() {
        let files = commit::take_back_lost(&target.data)?;
        if files > 0 {
            run.done(
                StepName::Recover,
                format_args!("a run was interrupted and left no journal: {files} files are where they were"),
            );
        }
    }
    Ok(())
}
