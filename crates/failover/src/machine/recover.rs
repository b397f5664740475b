//! Ends what a run has begun that was killed, lost power, or failed just now.
//!
//! The files decide how, see [`Recovery`]. The journal goes last, when the metalogger runs again: if a
//! recovery is killed before, the next run goes on with it.

use crate::machine::Machine;
use crate::machine::commit::{self, Recovery, Unfinished};
use crate::machine::journal::Phase;
use crate::machine::outcome::StepName;
use crate::machine::run::Run;
use crate::machine::standby_master;
use crate::moosefs::{self, Daemon};
use crate::sys::folder::Folder;
use crate::sys::logging::chain;
use crate::sys::text::when;

/// Why an interrupted run cannot be ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Its files, its journal, or whether its master runs.
    #[error(transparent)]
    Commit(#[from] commit::Error),
    /// Whether the metalogger runs.
    #[error(transparent)]
    MooseFs(#[from] moosefs::Error),
    /// A master that waits cannot be ended.
    #[error(transparent)]
    Standby(#[from] standby_master::Error),
}

/// An interrupted run, and how it must be ended.
#[derive(Debug)]
pub(crate) struct Interrupted {
    /// The run.
    pub(crate) run: Unfinished,
    /// How the next promotion or demotion ends it.
    pub(crate) recovery: Recovery,
}

impl Interrupted {
    /// Whether files are moved back before anything else is done.
    pub(crate) fn moves_files(&self) -> bool {
        self.recovery == Recovery::RollBack && self.run.journal().phase != Phase::Stopping
    }
}

/// The interrupted runs in the data folder, in the order in which they must be ended. Changes nothing.
///
/// Where the history of a newer run is kept, older runs are not rolled back over it: their files are archived.
pub(crate) fn interrupted(data: &Folder) -> Result<Vec<Interrupted>, Error> {
    let mut found: Vec<Interrupted> = Vec::new();
    for run in commit::unfinished(data)? {
        let kept = found.iter().any(|newer| newer.recovery != Recovery::RollBack);
        let recovery = if kept { Recovery::Keep } else { run.recovery(data)? };
        found.push(Interrupted { run, recovery });
    }
    Ok(found)
}

/// Ends the runs that were interrupted: finished if their master runs or has written, else undone. Removes the stages
/// of runs that were killed before they moved files.
///
/// A promotion that fails is undone by the same call: it kills the master that it started, and its own journal says the
/// rest.
pub(crate) fn finish_interrupted(machine: &Machine, run: &mut Run) -> Result<(), Error> {
    machine.remove_restore_dropin();
    if !commit::unfinished(&machine.data)?.is_empty() {
        // It has loaded what that run was about to serve, and may just have been let go.
        standby_master::end(machine)?;
    }
    for Interrupted { run: unfinished, recovery } in interrupted(&machine.data)? {
        let id = unfinished.id();
        let moved = match recovery {
            Recovery::RollBack => unfinished.roll_back(&machine.data),
            Recovery::Keep | Recovery::KeepRunning => Ok(()),
        };
        // Also if the files cannot be moved: with it this machine gets a copy again.
        if recovery != Recovery::KeepRunning && unfinished.journal().metalogger_ran {
            start_metalogger(machine)?;
        }
        moved?;
        unfinished.finish()?;
        let end = match recovery {
            Recovery::KeepRunning => "its master runs, and is kept",
            Recovery::Keep => "its master had written, so that history is kept",
            Recovery::RollBack => "every file is where it was",
        };
        if id == run.id() {
            run.done(StepName::RollBack, format_args!("{end}"));
        } else {
            run.done(StepName::Recover, format_args!("the run of {} was interrupted: {end}", when(id)));
        }
    }
    if let Err(e) = standby_master::recover(machine) {
        log::error!("cannot end the hot standby of a run that was killed: {}", chain(&e));
    }
    Ok(commit::sweep(&machine.data)?)
}

fn start_metalogger(machine: &Machine) -> Result<(), Error> {
    if machine.running(Daemon::Metalogger)?.is_none() {
        match machine.start_metalogger() {
            Ok(()) => log::info!("the metalogger runs again"),
            Err(e) => log::error!("cannot start the metalogger again; start it by hand: {}", chain(&e)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;

    #[test]
    fn no_older_run_is_rolled_back_over_a_history_that_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let data = Folder::open(dir.path()).unwrap();
        std::fs::write(dir.path().join("changelog.0.mfs"), "old").unwrap();
        for id in [1, 2] {
            let folder = commit::RunFolder::create(&data, id).unwrap();
            std::fs::write(folder.stage.path().join("changelog.0.mfs"), format!("staged {id}")).unwrap();
            folder.commit(&data, &[OsString::from("changelog.0.mfs")], true).unwrap();
        }
        let recoveries =
            || interrupted(&data).unwrap().iter().map(|found| (found.run.id(), found.recovery)).collect::<Vec<_>>();
        assert_eq!(recoveries()[0], (2, Recovery::RollBack));
        std::fs::write(dir.path().join("changelog.0.mfs"), "staged 2, and a change").unwrap();
        assert_eq!(recoveries(), [(2, Recovery::Keep), (1, Recovery::Keep)]);
    }
}
