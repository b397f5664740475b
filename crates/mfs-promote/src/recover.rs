//! Ending what an interrupted run has begun: a run that was killed, or a machine that lost power.

use failover::moosefs::{self, Daemon};
use failover::state;

use crate::run::Run;
use crate::target::{self, Target};
use crate::work::{self, Undone, roll_back};

/// Why it cannot be ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The journal.
    #[error(transparent)]
    State(#[from] state::Error),
    /// The files.
    #[error(transparent)]
    Work(#[from] work::Error),
    /// Whether a master runs.
    #[error(transparent)]
    MooseFs(#[from] moosefs::Error),
    /// The metalogger.
    #[error(transparent)]
    Target(#[from] target::Error),
}

/// Ends the commit of an interrupted run, if there is one: finished if its master runs, else undone.
pub(crate) fn finish_interrupted(target: &Target, run: &mut Run) -> Result<(), Error> {
    target.plain_again();
    let Some(journal) = target.state.journal()? else { return Ok(()) };
    if journal.phase == state::Phase::Starting && target.running(Daemon::Master)?.is_some() {
        target.state.clear_journal()?;
        run.done("recover", format_args!("run {} was interrupted after its master had started; kept", journal.run));
        return Ok(());
    }
    let what = match roll_back(&target.data, &target.state, &journal)? {
        Undone::Back => "every file is where it was",
        Undone::Kept => "its master had written, so that history is kept",
    };
    if journal.metalogger_ran && target.running(Daemon::Metalogger)?.is_none() {
        target.start_metalogger()?;
    }
    run.done("recover", format_args!("run {} was interrupted: {what}", journal.run));
    Ok(())
}
