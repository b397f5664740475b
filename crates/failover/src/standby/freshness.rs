//! Does the copy here have all that is served? Compared with the serving master, and noted for the check before a promotion
//! ([`staleness`](crate::election)).
//!
//! A metalogger writes to its disk once a second. So the master is asked first, and the copy gets a moment to reach the
//! version that it told. A master that does not answer any more after that has died meanwhile: then the comparison proves
//! nothing, and must not make this machine step down in the election that follows.

use std::time::{Duration, Instant};

use crate::machine::Machine;
use crate::machine::memory::{self, Freshness};
use crate::metadata::Version;
use crate::metadata::inventory::end_of_copy;
use crate::moosefs;
use crate::sys::cancel::Cancel;
use crate::sys::logging::chain;
use crate::timing;
use crate::vip::VirtualIp;

/// How long a master may take to answer.
const ANSWER: Duration = Duration::from_secs(2);
/// Between two looks at the copy.
const POLL: Duration = Duration::from_millis(200);

/// The last comparison, for the log: only a change is worth a line.
#[derive(Debug, Default)]
pub(super) struct Watch {
    stale: bool,
}

impl Watch {
    /// Compares once, notes the result, and returns how far the copy goes.
    pub(super) fn look(&mut self, machine: &Machine, vip: &VirtualIp, cancel: &Cancel) -> Option<Version> {
        let (compared, reached) = compare(machine, vip, cancel)?;
        let Freshness { served, in_sync, compared: at, .. } = compared;
        let stale = in_sync != Some(at);
        if stale && !self.stale {
            log::warn!(
                "the copy here is stale: the master on {vip} serves version {served}; if it dies now, changes are lost. \
                 mfs-promote --check tells more"
            );
        }
        if !stale && self.stale {
            log::info!("the copy here is in sync again, at version {served}");
        }
        self.stale = stale;
        if let Err(e) = memory::note_freshness(&machine.state, &compared) {
            log::warn!("cannot record the served version: {}", chain(&e));
        }
        Some(reached)
    }
}

/// What a comparison found; `None` if no master answers that tells its version, or the copy's end cannot be read.
fn compare(machine: &Machine, vip: &VirtualIp, cancel: &Cancel) -> Option<(Freshness, Version)> {
    let master = vip.port(machine.config.client_port);
    let info = moosefs::info(master, ANSWER).ok()?;
    let served = info.metadata_version?;
    let end = Instant::now() + timing::METALOGGER_FLUSH + POLL;
    let reached = loop {
        let reached = end_of_copy(&machine.data)?;
        if reached.behind(served).is_none() || Instant::now() >= end {
            break reached;
        }
        cancel.sleep(POLL).ok()?;
    };
    if reached.behind(served).is_some() {
        moosefs::info(master, ANSWER).ok()?;
    }
    let now = chrono::Utc::now().timestamp();
    let before = memory::freshness(&machine.state).ok().flatten().filter(|noted| noted.in_sync != Some(now));
    Some((Freshness::compared(now, reached, served, info.metaid, before.as_ref()), reached))
}
