//! Restarts the metalogger of a machine that stands by.
//!
//! No other run works at the same time: a promotion that begins meanwhile waits, and stops what was started. A run that is
//! killed between the stop and the start leaves a mark, and the one after it begins again.

use std::ffi::OsStr;

use crate::machine::lock::{self, Locks, Request};
use crate::machine::outcome::RunKind;
use crate::machine::{self, Machine};
use crate::moosefs::Daemon;
use crate::sys::logging::chain;

/// In the state folder, from before the stop until after the start.
const MARK: &str = "metalogger-restart.json";

/// The metalogger was not restarted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Whether another run works is not known.
    #[error(transparent)]
    Lock(#[from] lock::Error),
    /// It does not stop, or does not start.
    #[error(transparent)]
    Machine(#[from] machine::Error),
}

/// Restarts the metalogger, unless another run works or the role of this one is over. Says whether it did; `why` is called
/// before.
pub(crate) fn restart_metalogger(machine: &Machine, request: &Request, why: impl FnOnce()) -> Result<bool, Error> {
    // This run was a demotion.
    let lock = match Locks::of(&machine.config.instance)?.acquire_if_free(RunKind::Demotion) {
        Err(lock::Error::Busy { .. } | lock::Error::Superseded) => return Ok(false),
        lock => lock?,
    };
    if request.superseded() {
        lock.release();
        return Ok(false);
    }
    why();
    let done = stop_and_start(machine);
    lock.release();
    Ok(done.map(|()| true)?)
}

fn stop_and_start(machine: &Machine) -> Result<(), machine::Error> {
    if let Err(e) = machine.state.write(OsStr::new(MARK), &()) {
        log::warn!("if this run is killed now, the metalogger does not run afterwards: {}", chain(&e));
    }
    machine.stop(Daemon::Metalogger)?;
    machine.start_metalogger()?;
    if let Err(e) = machine.state.remove(OsStr::new(MARK)) {
        log::warn!("the metalogger is restarted once more by the next run: {}", chain(&e));
    }
    Ok(())
}

/// Restarts it if a run was killed while it did so.
pub(crate) fn finish(machine: &Machine, request: &Request) {
    if !matches!(machine.state.read::<()>(OsStr::new(MARK)), Ok(Some(()))) {
        return;
    }
    let why = || log::info!("a run was killed while it restarted the metalogger; restarting it");
    if let Err(e) = restart_metalogger(machine, request, why) {
        log::error!("cannot restart the metalogger: {}", chain(&e));
    }
}
