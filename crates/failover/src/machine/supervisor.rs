//! A run that a hook has started must not leave the address with no master behind it, not even if it is killed.
//!
//! Nothing waits for such a run, and ucarp calls no hook again while it is content. So the run starts a second process, its
//! supervisor, which only reads from a pipe. A run that ends by itself says so there. If the pipe ends without that, the run
//! was killed, by hand or for want of memory, or has panicked: the supervisor does the work of the same call again, with a
//! supervisor of its own. The place in the order of calls is the same, so if a later call has come, that one goes on
//! instead. After the third kill within a minute each the run has no supervisor, and where no master answers by then it gives up
//! ([`Failure::Killed`](crate::promotion::Failure::Killed)).
//!
//! A transient service of systemd could restart the run too. It would be a second mechanism, since machines without systemd
//! need this one anyway, and a hook would return before the manager has accepted it.

use std::fs::File;
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::pipe::{PipeFlags, pipe_with};

use crate::machine::call::Call;
use crate::sys::logging::chain;
use crate::sys::process;

/// Give up after this many kills of the same call.
pub(crate) const MOST_KILLS: u8 = 3;
/// A run that worked for longer than this before it was killed begins a new count.
const LONG: Duration = Duration::from_secs(60);
/// What a run that ends by itself writes.
const DONE: &[u8] = b"done";
/// The name of a supervisor in lists of processes until it takes over: `pkill mfs-promote` must not end it.
const WAITING: &std::ffi::CStr = c"mfs-supervisor";

/// The process that takes over if this one is killed; copies stand for the same one.
#[derive(Debug, Clone)]
pub(crate) struct Supervisor(Option<Arc<File>>);

impl Supervisor {
    /// Starts one for this run of `call`, if it has a place in the order of calls. Without one the run works as well.
    pub(crate) fn start(call: &Call) -> Self {
        if call.ticket.is_none() || call.killed >= MOST_KILLS {
            return Self(None);
        }
        let started = launch(&Call { killed: call.killed + 1, ..call.clone() });
        let started =
            started.inspect_err(|e| log::warn!("no supervisor, so this run is not restarted if it is killed: {e}"));
        let supervisor = Self(started.ok().map(Arc::new));
        supervisor.write(format!("{} ", std::process::id()).as_bytes());
        supervisor
    }

    /// None, for runs by hand.
    pub(crate) fn none() -> Self {
        Self(None)
    }

    /// Tells it that this run ends by itself.
    pub(crate) fn dismiss(&self) {
        self.write(DONE);
    }

    fn write(&self, text: &[u8]) {
        if let Some(Err(e)) = self.0.as_ref().map(|pipe| (&**pipe).write_all(text)) {
            log::debug!("the supervisor is gone: {e}");
        }
    }
}

/// Starts the supervisor of a run, and returns the end of the pipe that it reads from.
fn launch(call: &Call) -> Result<File, String> {
    let (input, output) = pipe_with(PipeFlags::CLOEXEC).map_err(|e| e.to_string())?;
    let pid = call.launch_reading(input).map_err(|e: process::Error| chain(&e))?;
    log::debug!("process {pid} takes over if this one is killed");
    Ok(File::from(output))
}

/// In the supervisor of a run: waits until that has ended, and returns the call to be done again if it was killed.
pub(crate) fn to_be_done_again(call: &Call) -> Option<Call> {
    let _ = rustix::thread::set_name(WAITING);
    let (begun, mut said) = (Instant::now(), Vec::new());
    if let Err(e) = std::io::stdin().read_to_end(&mut said) {
        log::error!("cannot read from the supervised run: {e}");
        return None;
    }
    if said.ends_with(DONE) {
        return None;
    }
    let _ = rustix::thread::set_name(c"mfs-promote");
    log::error!("{} (pid {}) was killed; restarting it", call.kind, String::from_utf8_lossy(said.trim_ascii()));
    let killed = if begun.elapsed() > LONG { 1 } else { call.killed };
    Some(Call { killed, ..call.clone() })
}
