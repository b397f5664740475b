//! Why a promotion did not end serving.

use std::io;
use std::time::Duration;

use super::prepare;
use crate::machine::{self, commit, config, recover};
use crate::metadata::Version;
use crate::moosefs::{self, services};
use crate::policy::Why;
use crate::sys::cancel::Cancelled;
use crate::sys::text::human;
use crate::{election, machine::supervisor};

/// Why this machine does not serve.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The election went another way, or a check failed.
    #[error(transparent)]
    Election(#[from] election::Failure),
    /// The configuration.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// A part of the machine is missing.
    #[error(transparent)]
    Machine(#[from] machine::Error),
    /// The commit of an earlier run could not be ended.
    #[error("an earlier run was interrupted, and its work can neither be finished nor undone")]
    Recover(#[from] recover::Error),
    /// No plan, or it could not be staged.
    #[error(transparent)]
    Prepare(#[from] prepare::Error),
    /// Files could not be moved.
    #[error(transparent)]
    Commit(#[from] commit::Error),
    /// A daemon could not be started or stopped.
    #[error(transparent)]
    Service(#[from] services::Error),
    /// A daemon could not be looked at.
    #[error(transparent)]
    MooseFs(#[from] moosefs::Error),
    /// The master ended while it was starting.
    #[error("mfsmaster exited while it was starting; see its log")]
    Died,
    /// The master served and then ended.
    #[error("mfsmaster exited {} after it began to serve; see its log", human(*after))]
    DiedServing {
        /// How long it had served.
        after: Duration,
    },
    /// The master does not answer.
    #[error("mfsmaster is running but did not answer on port {port} within {}", human(*after))]
    Unresponsive {
        /// The client port.
        port: u16,
        /// How long it was asked.
        after: Duration,
        /// The last answer.
        #[source]
        source: moosefs::Error,
    },
    /// The packet filter would hold all answers back.
    #[error("cannot open the lease, so no client would be answered")]
    Lease(#[source] nix::Error),
    /// The master serves less than planned.
    #[error("mfsmaster serves version {served} instead of {planned}: it did not replay the staged change log")]
    Behind {
        /// What it says it serves.
        served: Version,
        /// What it has to serve.
        planned: Version,
    },
    /// The master serves more than it can have.
    #[error("mfsmaster serves version {served} instead of {planned}: it has loaded another image than the staged one")]
    Beyond {
        /// What it says it serves.
        served: Version,
        /// What it has to serve.
        planned: Version,
    },
    /// The master serves another file system.
    #[error("mfsmaster serves the file system with metaid {served:#x} instead of {planned:#x}")]
    Foreign {
        /// What it says it serves.
        served: u64,
        /// What it has to serve.
        planned: u64,
    },
    /// The runs of this call are killed.
    #[error(
        "killed {times} times, and no master serves here (limit {}); the kernel log tells of a lack of memory (dmesg)",
        supervisor::MOST_KILLS
    )]
    Killed {
        /// How many runs of the same call.
        times: u8,
    },
    /// Told to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl Failure {
    /// The row of the policy table.
    pub(crate) fn why(&self) -> Why {
        match self {
            Self::Election(failure) => failure.why(),
            Self::Cancelled(_) => Why::Interrupted,
            Self::Prepare(prepare::Error::Refused(refusal)) if refusal.others_have_more() => Why::StaleCopy,
            Self::Prepare(failure) if failure.may_pass() => Why::Passing,
            Self::Commit(failure) if is_passing(failure) => Why::Passing,
            Self::Recover(failure) if is_passing(failure) => Why::Passing,
            Self::Config(_)
            | Self::Machine(_)
            | Self::Recover(_)
            | Self::Prepare(_)
            | Self::Commit(_)
            | Self::Service(_)
            | Self::MooseFs(_)
            | Self::Died
            | Self::DiedServing { .. }
            | Self::Unresponsive { .. }
            | Self::Behind { .. }
            | Self::Beyond { .. }
            | Self::Foreign { .. }
            | Self::Lease(_)
            | Self::Killed { .. } => Why::CannotServe,
        }
    }
}

/// Whether a file failed for what may be gone in a moment: it was moved by the program that writes it, or the disk was full.
pub(crate) fn is_passing(failure: &(dyn std::error::Error + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(failure), |cause| cause.source());
    causes.any(|cause| {
        let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        matches!(kind, Some(io::ErrorKind::NotFound | io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::space;
    use crate::metadata::{Image, Refusal, chunkservers, stage};
    use crate::sys::{folder, json_file};

    #[test]
    fn a_machine_steps_down_for_files_of_which_another_one_has_more_and_stops_for_those_that_it_must_not_serve() {
        let why = |refusal: Refusal| Failure::from(prepare::Error::from(refusal)).why();
        assert_eq!(why(Refusal::Tail { file: "changelog_ml.0.mfs".into(), offset: 9, bytes: 4096 }), Why::StaleCopy);
        assert_eq!(why(Refusal::Unserved { end: Version(9) }), Why::StaleCopy);
        assert_eq!(why(Refusal::Unrelated { own: Version(9), ml: Version(5) }), Why::CannotServe);
    }

    #[test]
    fn a_machine_steps_down_once_for_what_may_be_gone_in_a_moment() {
        let io = |kind: io::ErrorKind| folder::Error::Io {
            operation: "open",
            path: "/var/lib/mfs/changelog_ml.1.mfs".into(),
            source: kind.into(),
        };
        let written = |kind: io::ErrorKind| json_file::Error::Io {
            operation: "write",
            path: "/var/lib/mfs/mfs-promote/7/journal.json".into(),
            source: kind.into(),
        };
        let prepared = |failure: prepare::Error| Failure::from(failure);
        let staged = |failure: stage::Error| prepared(failure.into());
        let name = || std::ffi::OsString::from("changelog_ml.0.mfs");
        let passing = [
            prepared(io(io::ErrorKind::NotFound).into()),
            prepared(space::Error::Full { needed: 9, free: 1, path: "/var/lib/mfs".into() }.into()),
            prepared(commit::Error::from(io(io::ErrorKind::StorageFull)).into()),
            staged(io(io::ErrorKind::NotFound).into()),
            staged(stage::Error::ImageChanged { file: name(), found: Image::New }),
            staged(stage::Error::LogChanged { file: name(), change: 9 }),
            staged(stage::Error::Io { operation: "write", file: name(), source: io::ErrorKind::StorageFull.into() }),
            commit::Error::from(io(io::ErrorKind::NotFound)).into(),
            commit::Error::from(written(io::ErrorKind::StorageFull)).into(),
            commit::Error::from(written(io::ErrorKind::QuotaExceeded)).into(),
            recover::Error::from(commit::Error::from(written(io::ErrorKind::StorageFull))).into(),
            election::Failure::from(chunkservers::Error::from(io(io::ErrorKind::NotFound))).into(),
            election::Failure::from(crate::sys::address::Error::NoInterface { name: "eth0".to_owned() }).into(),
        ];
        for failure in passing {
            assert_eq!(failure.why(), Why::Passing, "{failure:?}");
        }
        let lasting = [
            prepared(moosefs::Error::NotInstalled.into()),
            prepared(io(io::ErrorKind::PermissionDenied).into()),
            commit::Error::from(written(io::ErrorKind::ReadOnlyFilesystem)).into(),
            commit::Error::Foreign("/var/lib/mfs/mfs-promote".into()).into(),
        ];
        for failure in lasting {
            assert_eq!(failure.why(), Why::CannotServe, "{failure:?}");
        }
    }
}
