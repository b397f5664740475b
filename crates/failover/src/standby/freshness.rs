//! Does the copy here have all that is served? Compared with the serving master, and noted for the check before a promotion
//! ([`staleness`](crate::election)).
//!
//! A metalogger writes to its disk once a second. So the master is asked first, and the copy gets a moment to reach the
//! version that it told. A master that does not answer any more after that has died meanwhile: then the comparison proves
//! nothing, and must not make this machine step down in the election that follows.

use std::time::{Duration, Instant};

use crate::machine::Machine;
use crate::machine::memory::{self, Freshness};
use crate::machine::state::State;
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

/// What was found last.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// For the log: only a change is worth a line.
    stale: bool,
    /// The epoch that was served.
    epoch: Option<u64>,
}

impl Watch {
    /// Takes in what the serving machine says of itself. Where the copy lacked changes at the last comparison, another epoch is
    /// noted at once: that machine may die before the next one, and what was lacking then says nothing about a copy of the new
    /// epoch. Nothing is said against a copy that was never compared, and one that was in sync has moved on
    /// ([`staleness`](crate::election)).
    pub(super) fn hear(&mut self, state: &State, served: Version, metaid: u64) {
        if self.epoch.replace(served.epoch()) == Some(served.epoch()) {
            return;
        }
        let noted = memory::freshness(state).ok().flatten();
        let lacked = |noted: &Freshness| noted.in_sync != Some(noted.compared);
        if noted.is_some_and(|noted| lacked(&noted) && noted.served.epoch() != served.epoch()) {
            memory::saw_version(state, served, metaid);
        }
    }

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
        (self.stale, self.epoch) = (stale, Some(served.epoch()));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::EpochJump;

    #[test]
    fn a_machine_that_serves_a_new_epoch_is_believed_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open_at(&dir.path().join("state")).unwrap();
        let noted = || memory::freshness(&state).unwrap();
        Watch::default().hear(&state, Version(4), 7);
        assert_eq!(noted(), None, "a copy that was never compared");
        let (lagged, second) = (Version(508), Version(5404) + EpochJump::epochs(1));
        memory::note_freshness(&state, &Freshness::compared(100, lagged, Version(675), Some(7), None)).unwrap();
        let mut watch = Watch::default();
        watch.hear(&state, Version(700), 7);
        assert_eq!(noted().unwrap().served, Version(675), "the comparison says more");
        watch.hear(&state, second, 7);
        let noted = noted().unwrap();
        assert_eq!((noted.served, noted.metaid, noted.in_sync), (second, Some(7), None));
        assert_eq!(second.with_changes(9).behind(noted.served), None, "a copy that has followed is not stale");
        let in_sync = Freshness::compared(200, lagged, lagged, Some(7), None);
        memory::note_freshness(&state, &in_sync).unwrap();
        Watch::default().hear(&state, second, 7);
        assert_eq!(memory::freshness(&state).unwrap(), Some(in_sync), "it has moved on");
    }
}
