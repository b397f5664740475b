//! Why a promotion did not end serving.

use std::time::Duration;

use crate::metadata::Version;
use crate::moosefs;
use crate::moosefs::services;
use crate::sys::cancel::Cancelled;

use crate::election;
use crate::election::settle;
use crate::machine;
use crate::machine::commit;
use crate::machine::recover;
use crate::promotion::prepare;
use crate::sys::text::human;

/// Why this machine does not serve. Everything is back in its place when this is returned.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The election went another way, or could not be watched.
    #[error(transparent)]
    Settle(#[from] settle::Error),
    /// It must not serve now.
    #[error(transparent)]
    Guard(#[from] election::Error),
    /// No plan, or it could not be staged.
    #[error(transparent)]
    Prepare(#[from] prepare::Error),
    /// Files could not be moved.
    #[error(transparent)]
    RunFolder(#[from] commit::Error),
    /// A daemon could not be started or stopped.
    #[error(transparent)]
    Service(#[from] services::Error),
    /// A daemon could not be looked at.
    #[error(transparent)]
    MooseFs(#[from] moosefs::Error),
    /// A part of the machine is missing.
    #[error(transparent)]
    Machine(#[from] machine::Error),
    /// The commit of an earlier run could not be ended.
    #[error("an earlier run was interrupted, and its work can neither be finished nor undone")]
    Recover(#[from] recover::Error),
    /// The master ended while it was starting.
    #[error("mfsmaster ended while it was starting; its own log lines say why")]
    Died,
    /// The master served and then ended.
    #[error("mfsmaster ended {} after it began to serve; its own log lines say why", human(*after))]
    DiedServing {
        /// How long it had served.
        after: Duration,
    },
    /// The master does not answer.
    #[error("mfsmaster runs but does not answer on port {port} after {}", human(*after))]
    Mute {
        /// The client port.
        port: u16,
        /// How long it was asked.
        after: Duration,
        /// The last answer.
        #[source]
        source: moosefs::Error,
    },
    /// The master serves less than planned.
    #[error(
        "mfsmaster serves version {}, planned was {planned}: it did not replay what was staged",
        served.map_or_else(|| "unknown".to_owned(), |served| served.to_string())
    )]
    Behind {
        /// What it says it serves.
        served: Option<Version>,
        /// What it has to serve.
        planned: Version,
    },
    /// The master serves another file system.
    #[error("mfsmaster serves the file system with metaid {served:#x}, planned was {planned:#x}")]
    Foreign {
        /// What it says it serves.
        served: u64,
        /// What it has to serve.
        planned: u64,
    },
    /// Something on this machine ends every run.
    #[error(
        "killed {times} times, and nothing serves here: find out by whom or what (dmesg tells of a lack of memory)"
    )]
    Killed {
        /// How many runs of the same call.
        times: u8,
    },
    /// Told to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}
