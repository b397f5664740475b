//! Why a machine that won an election must not serve.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::metadata::{Behind, Version, chunkservers};
use crate::policy::Why;
use crate::sys::address;
use crate::sys::arp::Mac;
use crate::sys::cancel::Cancelled;
use crate::sys::text::{human, when};
use crate::timing;
use crate::vip::VirtualIp;

/// Why this machine must not serve now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The address went away while we waited.
    #[error("{vip} is no longer on {}: another machine won", vip.interface)]
    Lost {
        /// The virtual IP.
        vip: VirtualIp,
    },
    /// Another machine goes on advertising.
    #[error("{other} still advertises as MASTER after {}; do both machines have the same ucarp options?", human(*after))]
    OtherMaster {
        /// Its own address.
        other: Ipv4Addr,
        /// How long we waited for it to step down.
        after: Duration,
    },
    /// A master with history that is missing here.
    #[error(
        "a master is alive on {peer} at version {version}, and the files here end at version {ours}: it has changes that \
         this machine lacks. The network is partitioned; the master is not dead"
    )]
    Newer {
        /// Its own address.
        peer: Ipv4Addr,
        /// What it serves.
        version: Version,
        /// What would be served here, before the epoch jump.
        ours: Version,
    },
    /// A master that cannot be compared, and goes on.
    #[error("a master is alive on {peer} and did not stop within {}; {why}", human(*after))]
    Alive {
        /// Its own address.
        peer: Ipv4Addr,
        /// How long we waited.
        after: Duration,
        /// Why that is not good enough.
        why: &'static str,
    },
    /// Nothing beyond this machine answers.
    #[error(
        "this machine is isolated: none of {asked} answered within {}. PING_NODES in mfspromote.cfg can name more machines \
         that prove a working network", human(*after)
    )]
    Isolated {
        /// What was asked.
        asked: String,
        /// For how long.
        after: Duration,
    },
    /// The network has just come back.
    #[error(
        "{node} was unreachable during the election and answers now: this machine won only because it was isolated, so it \
         steps down once"
    )]
    WonWhileIsolated {
        /// What answers now.
        node: Ipv4Addr,
    },
    /// Another machine has the address.
    #[error("duplicate address: another machine ({mac}) answers for {vip} on {}; find it and remove the address there", vip.interface)]
    Duplicate {
        /// Its hardware address.
        mac: Mac,
        /// The virtual IP.
        vip: VirtualIp,
    },
    /// A better copy may be elsewhere.
    #[error(
        "the copy here is stale: version {served} was served at {}, and the copy ends at version {ours} and {behind}; another \
         machine may have more", when(*compared)
    )]
    Stale {
        /// What was served when the copy was last compared.
        served: Version,
        /// When that was, in unix seconds.
        compared: u64,
        /// What would be served here, before the epoch jump.
        ours: Version,
        /// What it lacks.
        behind: Behind,
    },
    /// A copy that lacks too much.
    #[error(
        "{stale}. No better copy took over, but this one is not served without an administrator: it lacks more than {} \
         changes, is more than {} old, or is of another history. Start the machine that has more; if there is none, run mfs-promote \
         --allow-data-loss",
        timing::LAST_RESORT_CHANGES,
        human(timing::LAST_RESORT_AGE)
    )]
    TooStale {
        /// What it lacks.
        stale: Box<Self>,
    },
    /// What the metalogger had not written is gone.
    #[error(
        "mfsmetalogger did not stop and was killed, so changes that it had received may be missing from the copy; another \
         machine may have them"
    )]
    MetaloggerKilled,
    /// The address goes from machine to machine.
    #[error("flapping: {changes} role changes within {}; find the cause, then start ucarp again", human(*window))]
    Flapping {
        /// How often.
        changes: usize,
        /// In which time.
        window: Duration,
    },
    /// The addresses of this machine.
    #[error(transparent)]
    Address(#[from] address::Error),
    /// The chunkservers cannot be read from the metadata.
    #[error(transparent)]
    Chunkservers(#[from] chunkservers::Error),
    /// Told to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl Failure {
    /// The row of the policy table.
    pub(crate) fn why(&self) -> Why {
        match self {
            Self::Lost { .. } => Why::ElectionLost,
            Self::OtherMaster { .. } => Why::OtherMaster,
            Self::Newer { .. } => Why::NewerElsewhere,
            Self::Alive { .. } => Why::MasterElsewhere,
            Self::Isolated { .. } => Why::Isolated,
            Self::WonWhileIsolated { .. } => Why::WonWhileIsolated,
            Self::Duplicate { .. } => Why::DuplicateAddress,
            Self::Stale { .. } | Self::MetaloggerKilled => Why::StaleCopy,
            Self::TooStale { .. } => Why::TooStale,
            Self::Flapping { .. } => Why::Flapping,
            // An interface that is gone, a log that was rotated while it was read.
            Self::Address(_) | Self::Chunkservers(_) => Why::Passing,
            Self::Cancelled(_) => Why::Interrupted,
        }
    }
}
