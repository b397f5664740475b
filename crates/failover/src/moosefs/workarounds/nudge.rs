//! Without this, a standby whose metalogger missed a failover can serve the old history at the next one.
//!
//! A metalogger looks at the version of a change when it arrives, not at the master's version when it connects.
//! One that lacks changes keeps its old history until it receives a change of the new one. On a file system that no
//! program writes to, a second failover could come before that. So if metaloggers have connected and nothing has
//! changed since, this machine makes a change itself. A master of 4.x makes one every half minute, one of 3.x none.

mod session;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use crate::metadata::Version;
use crate::moosefs::{self, Info};
use crate::sys::address;
use crate::sys::logging::chain;

/// A master without a change for this long is idle.
const IDLE: Duration = Duration::from_secs(2);
/// How long the master may take to answer.
const ANSWER: Duration = Duration::from_secs(2);
/// The first major release that it was tried with.
const FROM: u16 = 3;

/// The metaloggers of other machines that are connected to the master here.
#[derive(Default)]
pub(crate) struct Nudge {
    polled: Option<Instant>,
    connected: BTreeSet<Ipv4Addr>,
    /// When one of them connected, and the version that was served then; none if there was a change since.
    unaware: Option<(Instant, Version)>,
}

impl Nudge {
    /// Makes a change if a metalogger connected and nothing changed since. `info` is the latest answer of the master at
    /// `address`; call this as often as there is one.
    pub(crate) fn nudge_if_idle(&mut self, address: SocketAddrV4, info: &Info) {
        let Some(version) = info.metadata_version.filter(|_| info.release.major >= FROM) else { return };
        if self.polled.is_some_and(|polled| polled.elapsed() < IDLE) {
            return;
        }
        self.polled = Some(Instant::now());
        let (Ok(own), Ok(mut others)) = (address::own_addresses(), moosefs::metaloggers(address, ANSWER)) else {
            return;
        };
        others.retain(|metalogger| !own.contains(metalogger));
        if self.is_due(others.into_iter().collect(), version, Instant::now()) {
            match session::open_and_close(address, info.release, ANSWER) {
                Ok(()) => log::info!(
                    "no changes since a metalogger connected: opened and closed a session, so that it notices the new \
                     history"
                ),
                Err(e) => log::warn!(
                    "no changes since a metalogger connected, and cannot make one: {}; a stale standby stays stale \
                     until a client changes something",
                    chain(&e)
                ),
            }
        }
    }

    /// Whether a metalogger has connected that was not connected before, and the version has not changed since.
    fn is_due(&mut self, connected: BTreeSet<Ipv4Addr>, version: Version, now: Instant) -> bool {
        if !connected.is_subset(&self.connected) {
            self.unaware = Some((now, version));
        }
        self.connected = connected;
        match self.unaware {
            Some((_, then)) if version > then => self.unaware = None,
            Some((since, _)) if now - since >= IDLE => {
                self.unaware = None;
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
    fn one_change_is_made_for_metaloggers_that_connect_to_an_idle_master() {
        let (mut nudge, start) = (Nudge::default(), Instant::now());
        let mut due = |connected: &[Ipv4Addr], version, seconds| {
            nudge.is_due(connected.iter().copied().collect(), Version(version), start + Duration::from_secs(seconds))
        };
        assert!(!due(&[], 7, 0) && !due(&[], 7, 10), "none is connected");
        assert!(!due(&[A], 7, 11) && !due(&[A], 7, 12));
        assert!(due(&[A], 7, 13) && !due(&[A], 8, 20), "once");
        assert!(!due(&[A, B], 8, 21) && !due(&[A, B], 9, 22) && !due(&[A, B], 9, 30), "a client made one");
        assert!(!due(&[A], 9, 31) && !due(&[A, B], 9, 32) && due(&[A, B], 9, 35), "it was away");
    }
}
