//! Metaloggers that come to an idle master.
//!
//! One of 3.x that lacks changes goes on with its old history until it sees a change of the new one; in a file system that
//! nobody writes to, a second failover could serve the old one before that. So if metaloggers have come and nothing was
//! changed since, this machine makes a change. A master of 4.x makes one itself every half minute.

mod session;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use crate::metadata::Version;
use crate::moosefs::{self, Info};
use crate::sys::address;
use crate::sys::logging::chain;

/// How long a master has to make a change by itself before it counts as idle.
const IDLE: Duration = Duration::from_secs(2);
const ANSWER: Duration = Duration::from_secs(2);
/// The generation that needs it.
const GENERATION: u16 = 3;

/// Who has come, and what was served then.
#[derive(Default)]
pub(crate) struct Newcomers {
    looked: Option<Instant>,
    known: BTreeSet<Ipv4Addr>,
    came: Option<(Instant, Version)>,
}

impl Newcomers {
    /// Looks, if the last look is long enough ago: `info` is what the master at `address` has just said.
    pub(crate) fn look(&mut self, address: SocketAddrV4, info: &Info) {
        let Some(version) = info.metadata_version.filter(|_| info.release.major == GENERATION) else { return };
        if self.looked.is_some_and(|looked| looked.elapsed() < IDLE) {
            return;
        }
        self.looked = Some(Instant::now());
        let (Ok(own), Ok(mut here)) = (address::own_addresses(), moosefs::metaloggers(address, ANSWER)) else { return };
        here.retain(|metalogger| !own.contains(metalogger));
        if self.is_due(here.into_iter().collect(), version, Instant::now()) {
            match session::make(address, info.release, ANSWER) {
                Ok(()) => log::info!(
                    "nothing was changed since metaloggers came: made a change, so that they see which history is served"
                ),
                Err(e) => log::warn!(
                    "nothing was changed since metaloggers came, and no change could be made: {}; until somebody \
                     changes something, a standby that lacks changes goes on lacking them",
                    chain(&e)
                ),
            }
        }
    }

    /// Whether somebody has come who was not here before, and the version has stayed since for long enough.
    fn is_due(&mut self, here: BTreeSet<Ipv4Addr>, version: Version, now: Instant) -> bool {
        if !here.is_subset(&self.known) {
            self.came = Some((now, version));
        }
        self.known = here;
        match self.came {
            Some((_, then)) if version > then => self.came = None,
            Some((since, _)) if now - since >= IDLE => {
                self.came = None;
                return true;
            }
            _ => (),
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

    #[test]
    fn a_change_is_made_once_for_those_who_came_to_an_idle_master() {
        let (mut newcomers, begun) = (Newcomers::default(), Instant::now());
        let mut due = |here: &[Ipv4Addr], version, seconds| {
            newcomers.is_due(here.iter().copied().collect(), Version(version), begun + Duration::from_secs(seconds))
        };
        assert!(!due(&[], 7, 0) && !due(&[], 7, 10), "nobody is there");
        assert!(!due(&[A], 7, 11) && !due(&[A], 7, 12));
        assert!(due(&[A], 7, 13) && !due(&[A], 8, 20), "once");
        assert!(!due(&[A, B], 8, 21) && !due(&[A, B], 9, 22) && !due(&[A, B], 9, 30), "somebody else made one");
        assert!(!due(&[A], 9, 31) && !due(&[A, B], 9, 32) && due(&[A, B], 9, 35), "it was away");
    }
}
