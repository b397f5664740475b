//! Without this, a standby keeps the old history after a power cut, and the next failover serves it (MooseFS 4.58 and
//! later).
//!
//! From 4.58 on the main loop of the daemons looks after its connections only when `poll` reports something
//! (`mfscommon/main.c`); until 4.57 it did so a hundred times in a second. The keep-alive that a metalogger or a chunkserver
//! sends each second, and the timeouts after which it gives up a silent master or an attempt to connect, are part of that.
//! So when the machine of the master loses its power, a metalogger sends nothing and hears nothing. Its connection stays
//! established with a machine that does not exist any more, and it never looks for the new master.
//!
//! In the same way a metalogger that is told to read its configuration again (`mfsmetalogger reload`) marks its connection as
//! one to be closed, and then waits for ever for something to wake it: its copy ends there.
//!
//! So the connection of the metalogger here is ended by the kernel, and it connects again. Chunkservers need no help: they
//! report their load each second, and the machine that has the virtual IP now answers that with a reset. Metaloggers of older
//! releases notice by themselves within ten seconds; for them this is quicker.

use std::thread::sleep;
use std::time::Duration;

use nix::errno::Errno;
use rustix::process::Signal;

use crate::sys::logging::chain;
use crate::sys::process::{self, Identity};
use crate::sys::tcp::{self, Outgoing};

/// A connection could not be ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The kernel cannot do it, and no metalogger runs that could.
    #[error("cannot end the connection from {} to {}", connection.local, connection.remote)]
    Kernel {
        /// The connection.
        connection: Outgoing,
        /// The kernel's answer.
        #[source]
        source: Errno,
    },
    /// The kernel cannot do it, and the metalogger cannot be signalled.
    #[error("cannot signal mfsmetalogger")]
    Signal(#[from] process::Error),
}

/// Between two signals: the main loop goes round a hundred times in a second.
const NEXT_PASS: Duration = Duration::from_millis(100);

/// Ends a connection of the metalogger here, which then connects again: by the kernel, or where that cannot do it by a
/// signal.
pub(crate) fn end_connection(connection: &Outgoing, metalogger: Option<Identity>) -> Result<(), Error> {
    let Err(source) = tcp::end(connection) else { return Ok(()) };
    let error = Error::Kernel { connection: *connection, source };
    let Some(metalogger) = metalogger else { return Err(error) };
    log::debug!("{}; sending HUP to mfsmetalogger", chain(&error));
    wake(metalogger)
}

/// Makes the metalogger look after its connection, and connect again. HUP makes it read its configuration, and mark its
/// connection as one to be closed; another one wakes it to do that.
pub(crate) fn wake(metalogger: Identity) -> Result<(), Error> {
    let Some(process) = metalogger.open()? else { return Ok(()) };
    process.signal(Signal::HUP)?;
    sleep(NEXT_PASS);
    Ok(process.signal(Signal::HUP)?)
}
