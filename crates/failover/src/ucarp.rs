//! The ucarp that called us: which process it is, how it was started, and making it step back or end.
//!
//! It is known by id and start time and only ever signalled through a descriptor that was checked against both, so no other
//! process can be hit. A hook passes all of it on to the run that it starts, because ucarp may be gone a moment later.

use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use crate::instance::Instance;
use crate::sys::process::{self, Identity, Stat, Stopped};

pub(crate) mod carp;
mod options;
mod others;
mod replay;
pub(crate) mod secret;

pub(crate) use options::{Options, Password};
pub(crate) use others::{OtherMasters, strangers};

/// So many processes may be between ucarp and its hook.
const MOST_BETWEEN: usize = 8;
/// The program's name.
const UCARP: &str = "ucarp";

/// What failed, on which process, and why.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// We were not started by ucarp.
    #[error("the caller (process {pid}, {comm:?}) is not ucarp")]
    NotUcarp {
        /// The parent's id.
        pid: u32,
        /// The parent's name.
        comm: String,
    },
    /// The ucarp is not there any more.
    #[error("ucarp (process {pid}) is gone")]
    Gone {
        /// Its id.
        pid: u32,
    },
    /// A signal could not be sent, or had no effect.
    #[error("cannot {operation} ucarp (pid {pid})")]
    Signal {
        /// `stop` …
        operation: &'static str,
        /// Its id.
        pid: u32,
        /// Why.
        #[source]
        source: process::Error,
    },
}

/// A running ucarp.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ucarp {
    /// Process id.
    pub(crate) pid: u32,
    /// Start time in clock ticks since boot.
    pub(crate) start: u64,
    /// How it was started.
    pub(crate) options: Options,
}

impl Ucarp {
    /// The ucarp that started this program, itself or by a script that waits for it.
    pub(crate) fn parent() -> Result<Self, Error> {
        let pid = std::os::unix::process::parent_id();
        let caller = Self::at_or_above(pid)?;
        // A parent that ended while it was looked at has been replaced; its id may be another process already.
        if std::os::unix::process::parent_id() == pid { Ok(caller) } else { Err(Error::Gone { pid }) }
    }

    /// The ucarp that serves `vip` on `interface`, for runs by hand; one in a container with a network of its own does
    /// not count. Of several, the one that runs longest: the others are its children on their way to be a hook.
    pub(crate) fn find(interface: &str, vip: Ipv4Addr) -> Option<Self> {
        let serves = |caller: &Self| {
            let named = caller.options.interface.as_deref();
            caller.options.vip == Some(vip) && named.is_none_or(|name| name == interface)
        };
        in_this_network().filter(serves).min_by_key(|caller| (caller.start, caller.pid))
    }

    /// Whether it was started with a hook of ours.
    pub(crate) fn calls_our_hooks(&self) -> bool {
        let is = |hook: &Option<String>, name: &str| hook.as_ref().is_some_and(|hook| Path::new(hook).ends_with(name));
        is(&self.options.up_script, "vip-up") || is(&self.options.down_script, "vip-down")
    }

    /// Those of an instance, as [`Ucarp::all`].
    pub(crate) fn all_of(instance: &Instance) -> Vec<Self> {
        let mut all = Self::all();
        all.retain(|ucarp| ucarp.options.xparam.as_deref() == instance.name());
        all
    }

    /// All that run in this network, but for those on their way to be a hook.
    pub(crate) fn all() -> Vec<Self> {
        let mut all: Vec<Self> = in_this_network().collect();
        let pids: Vec<u32> = all.iter().map(|caller| caller.pid).collect();
        all.retain(|caller| Stat::of(caller.pid).is_some_and(|stat| !pids.contains(&stat.parent)));
        all
    }

    /// The process `pid`, or the nearest above it, that is ucarp.
    fn at_or_above(pid: u32) -> Result<Self, Error> {
        let mut ancestors = std::iter::successors(Some(pid), |pid| Some(Stat::of(*pid)?.parent)).take(MOST_BETWEEN);
        ancestors.find_map(|pid| Self::of(pid).ok()).map_or_else(|| Self::of(pid), Ok)
    }

    fn of(pid: u32) -> Result<Self, Error> {
        let stat = Stat::of(pid).filter(|stat| !stat.has_ended());
        let stat = stat.ok_or(Error::Gone { pid })?;
        if !is_ucarp(pid, &stat.comm) {
            return Err(Error::NotUcarp { pid, comm: stat.comm });
        }
        // It holds the password if that was given with -p: never to be logged.
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).map_err(|_| Error::Gone { pid })?;
        let words: Vec<&OsStr> = line.split(|byte| *byte == 0).map(OsStr::from_bytes).collect();
        let mut options = Options::parse(&words);
        if let Some(Password::File(file)) = &mut options.password {
            // One that went to the background is in the root folder by now.
            let folder = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
            *file = folder.join(&*file);
        }
        Ok(Self { pid, start: stat.start, options })
    }

    /// Which process it is.
    pub(crate) fn identity(&self) -> Identity {
        Identity { pid: self.pid, start: self.start }
    }

    /// Whether it still runs: the same id and the same start time.
    pub(crate) fn is_alive(&self) -> bool {
        self.identity().is_alive()
    }

    /// USR2: a MASTER becomes BACKUP, runs `vip-down` and listens again after 3 s; a BACKUP does nothing.
    pub(crate) fn step_down(&self) -> Result<(), Error> {
        self.signal("signal", Signal::USR2)
    }

    /// TERM, without waiting for the end. For hooks, for which ucarp waits.
    pub(crate) fn terminate(&self) -> Result<(), Error> {
        self.signal("stop", Signal::TERM)
    }

    /// TERM, and KILL if it is still there after `patience` (it ignores TERM while its link is down). It runs `vip-down`
    /// only on TERM and with `-z`, so the caller removes the address.
    pub(crate) fn stop(&self, patience: Duration) -> Result<Stopped, Error> {
        process::stop(self.identity(), patience).map_err(|e| self.failed("stop", e))
    }

    fn signal(&self, operation: &'static str, signal: Signal) -> Result<(), Error> {
        let process = self.identity().open().map_err(|e| self.failed(operation, e))?;
        let process = process.ok_or(Error::Gone { pid: self.pid })?;
        process.signal(signal).map_err(|e| self.failed(operation, e))
    }

    fn failed(&self, operation: &'static str, source: process::Error) -> Error {
        Error::Signal { operation, pid: self.pid, source }
    }
}

/// Every ucarp that is not in a container with a network of its own.
fn in_this_network() -> impl Iterator<Item = Ucarp> {
    let network = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/net")).ok();
    let here = network("thread-self");
    let all = process::all().into_iter().filter_map(|pid| Ucarp::of(pid).ok());
    all.filter(move |caller| network(&caller.pid.to_string()) == here)
}

/// By the name the kernel shows, or by its file: an upgrade leaves the file's name as `ucarp (deleted)`.
fn is_ucarp(pid: u32, comm: &str) -> bool {
    let file = || std::fs::read_link(format!("/proc/{pid}/exe")).ok();
    let named =
        |path: std::path::PathBuf| path.file_name().is_some_and(|name| name == UCARP || name == "ucarp (deleted)");
    comm == UCARP || file().is_some_and(named)
}

#[cfg(test)]
mod tests;
