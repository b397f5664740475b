//! Changes of a lease in a process of their own, for a hook that ucarp waits for.
//!
//! The kernel makes the changes of all programs one after the other, and nothing ends the wait for another one: a large rule
//! set, or a module that is loaded from a disk that does not answer. A thread that waits there keeps its whole process from
//! ending, and ucarp would wait with it. So a hook starts its own program once more, which makes the change, and leaves it
//! behind when it is late.

use std::process::ExitCode;
use std::time::Duration;

use std::path::Path;

use super::Lease;
use crate::sys::cancel::Cancel;
use crate::sys::process::{self, RunOptions};

/// This program, also after it was replaced by another release.
const ITSELF: &str = "/proc/self/exe";
/// The first word of such a process.
const LEASE: &str = "--lease";

/// A change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// The table is made, closed; one that is here stays as it is.
    Install,
    /// The table is made if need be, and closed.
    Close,
}

impl Change {
    fn word(self) -> &'static str {
        match self {
            Self::Install => "install",
            Self::Close => "close",
        }
    }
}

impl Lease {
    /// Makes the change in a process of its own, which has this `time`. For a program that begins with [`asked`].
    pub(crate) fn change_apart(&self, change: Change, time: Duration) -> Result<(), process::Error> {
        let words = [LEASE, change.word(), &self.server.to_string()];
        let manner = RunOptions { leave: true, ..RunOptions::within(time) };
        process::run_with(Path::new(ITSELF), &words, manner, Cancel::never())?.success().map(drop)
    }
}

/// In such a process: makes the change. `None` in any other.
pub(crate) fn asked() -> Option<ExitCode> {
    let words: Vec<_> = std::env::args().skip(1).collect();
    let [lease, change, server] = words.as_slice() else { return None };
    let server: std::net::SocketAddrV4 = server.parse().ok().filter(|_| lease == LEASE)?;
    let change = [Change::Install, Change::Close].into_iter().find(|known| known.word() == change)?;
    let lease = Lease::on(*server.ip(), server.port());
    let done = lease.install().and_then(|()| if change == Change::Close { lease.close() } else { Ok(()) });
    Some(match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            println!("{e}");
            ExitCode::FAILURE
        }
    })
}
