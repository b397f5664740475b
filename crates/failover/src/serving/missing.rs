//! Who has not come since the takeover: metaloggers that copied from the master before, and chunkservers that the metadata
//! names.
//!
//! The metalogger of a standby is looked after by the run there. What stays away is named once, when everybody had the time
//! to connect; and it is said when all are there.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use crate::machine::followers;
use crate::machine::state::State;
use crate::moosefs::{self, Release};
use crate::sys::text::{count, human};
use crate::sys::{address, probe};
use crate::timing;

/// How long the master may take to answer.
const ANSWER: Duration = Duration::from_secs(1);
/// Between two looks in the first time, and later.
const SOON: Duration = Duration::from_secs(2);
const LATER: Duration = Duration::from_secs(10);
/// By then everybody should be connected: `MASTER_RECONNECTION_DELAY` is 5 s by default, timeouts are 10 s.
const EXPECTED_WITHIN: Duration = Duration::from_secs(30);
/// The most machines that are named in the log.
const MOST_NAMED: usize = 8;

/// Who is connected to a master, and who is not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Followers {
    /// Other machines whose metaloggers are connected.
    pub(crate) metaloggers: BTreeSet<Ipv4Addr>,
    /// Other machines whose metaloggers were connected lately and are not now.
    pub(crate) metaloggers_missing: BTreeSet<Ipv4Addr>,
    /// Connected chunkservers.
    pub(crate) chunkservers: BTreeSet<SocketAddrV4>,
    /// Chunkservers that are not connected, except those that an administrator has announced to be away.
    pub(crate) chunkservers_missing: BTreeSet<SocketAddrV4>,
}

impl Followers {
    /// Asks the master of this `release` at `master`, which is that of this machine.
    pub(crate) fn of(
        master: SocketAddrV4,
        release: Release,
        state: Option<&State>,
        patience: Duration,
    ) -> Result<Self, moosefs::Error> {
        let own = address::own_addresses().unwrap_or_default();
        let mut metaloggers: BTreeSet<_> = moosefs::metaloggers(master, patience)?.into_iter().collect();
        metaloggers.retain(|machine| !own.contains(machine));
        let mut expected = state.map(followers::expected).unwrap_or_default();
        expected.retain(|machine| !own.contains(machine) && !metaloggers.contains(machine));
        let all = moosefs::chunkservers(master, release, patience)?;
        let missing = all.iter().filter(|one| !one.connected && !one.maintenance).map(|one| one.address);
        Ok(Self {
            metaloggers,
            metaloggers_missing: expected,
            chunkservers: all.iter().filter(|one| one.connected).map(|one| one.address).collect(),
            chunkservers_missing: missing.collect(),
        })
    }
}

/// Looks who comes, from the takeover on.
pub(super) struct Watch {
    begun: Instant,
    look_at: Instant,
    /// Who was connected at some time since: a metalogger connects twice if it has to download everything.
    came: Came,
    reported: Reported,
}

#[derive(Debug, Default)]
struct Came {
    metaloggers: BTreeSet<Ipv4Addr>,
    chunkservers: BTreeSet<SocketAddrV4>,
}

/// What was said so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reported {
    Nothing,
    Missing,
    Complete,
}

impl Watch {
    pub(super) fn new(now: Instant) -> Self {
        Self { begun: now, look_at: now + SOON, came: Came::default(), reported: Reported::Nothing }
    }

    /// Looks, if it is time. `master` is that of this machine, and of this `release`.
    pub(super) fn look(&mut self, master: SocketAddrV4, release: Release, state: &State) {
        let now = Instant::now();
        if now < self.look_at {
            return;
        }
        let calm = self.reported != Reported::Nothing;
        self.look_at = now + if calm { LATER } else { SOON };
        let Ok(followers) = Followers::of(master, release, Some(state), ANSWER) else { return };
        followers::note(state, followers.metaloggers.iter().copied());
        let missing = self.came.missing(followers);
        match self.next(missing.is_empty(), now) {
            Some(Reported::Complete) if !self.came.is_empty() => log::info!(
                "all are connected {} after the takeover: {}, and the metaloggers of {}",
                human(self.begun.elapsed()),
                count(self.came.chunkservers.len(), "chunkserver"),
                count(self.came.metaloggers.len(), "other machine")
            ),
            Some(Reported::Missing) => log::warn!(
                "not connected {} after the takeover: {}; where the machine answers, restart the daemon",
                human(self.begun.elapsed()),
                missing.named(master.port())
            ),
            _ => (),
        }
    }

    /// What is to be said now.
    fn next(&mut self, complete: bool, now: Instant) -> Option<Reported> {
        let next = match self.reported {
            Reported::Nothing | Reported::Missing if complete => Reported::Complete,
            Reported::Nothing if now - self.begun >= EXPECTED_WITHIN => Reported::Missing,
            _ => return None,
        };
        self.reported = next;
        Some(next)
    }
}

impl Came {
    /// Takes in who is connected, and returns who was expected and has not come.
    fn missing(&mut self, followers: Followers) -> Missing {
        self.metaloggers.extend(followers.metaloggers);
        self.chunkservers.extend(followers.chunkservers);
        Missing {
            metaloggers: followers.metaloggers_missing.difference(&self.metaloggers).copied().collect(),
            chunkservers: followers.chunkservers_missing.difference(&self.chunkservers).copied().collect(),
        }
    }

    fn is_empty(&self) -> bool {
        self.metaloggers.is_empty() && self.chunkservers.is_empty()
    }
}

/// Who has not come.
#[derive(Debug, PartialEq, Eq)]
struct Missing {
    metaloggers: Vec<Ipv4Addr>,
    chunkservers: Vec<SocketAddrV4>,
}

impl Missing {
    fn is_empty(&self) -> bool {
        self.metaloggers.is_empty() && self.chunkservers.is_empty()
    }

    /// In words, with what answers to a connection: a machine with a metalogger is asked where a master would listen.
    fn named(&self, port: u16) -> String {
        let metaloggers = self.metaloggers.iter().take(MOST_NAMED).map(|machine| SocketAddrV4::new(*machine, port));
        let chunkservers = self.chunkservers.iter().take(MOST_NAMED).copied();
        self.in_words(&probe::ports(metaloggers.chain(chunkservers), timing::PING))
    }

    fn in_words(&self, answered: &[SocketAddrV4]) -> String {
        let state = |answers| if answers { "answers" } else { "does not answer" };
        let alive = |machine: &Ipv4Addr| answered.iter().any(|at| at.ip() == machine);
        let metaloggers = self.metaloggers.iter();
        let metaloggers = metaloggers.map(|machine| format!("the metalogger of {machine} ({})", state(alive(machine))));
        let chunkservers =
            self.chunkservers.iter().map(|at| format!("chunkserver {at} ({})", state(answered.contains(at))));
        let all: Vec<_> = metaloggers.chain(chunkservers).collect();
        let more = all.len().saturating_sub(MOST_NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        all[..all.len().min(MOST_NAMED)].join(", ") + &more
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_once_and_when_all_are_there() {
        let begun = Instant::now();
        let mut watch = Watch::new(begun);
        let mut next = |complete, seconds| watch.next(complete, begun + Duration::from_secs(seconds));
        assert_eq!(next(false, 2), None);
        assert_eq!(next(false, 29), None);
        assert_eq!(next(false, 30), Some(Reported::Missing));
        assert_eq!((next(false, 40), next(true, 50)), (None, Some(Reported::Complete)));
        assert_eq!((next(true, 60), next(false, 100)), (None, None), "the takeover is over");
        let mut watch = Watch::new(begun);
        assert_eq!(watch.next(true, begun + SOON), Some(Reported::Complete));
    }

    #[test]
    fn one_that_has_come_is_not_missing_when_it_connects_once_more() {
        let [a, b] = [1, 2].map(|last| Ipv4Addr::new(10, 0, 0, last));
        let [c, d] = [3, 4].map(|last| SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, last), 9422));
        let mut came = Came::default();
        let all = Followers {
            metaloggers: [a].into(),
            metaloggers_missing: [b].into(),
            chunkservers: [c].into(),
            chunkservers_missing: [d].into(),
        };
        assert_eq!(came.missing(all), Missing { metaloggers: vec![b], chunkservers: vec![d] });
        let none = Followers {
            metaloggers_missing: [a, b].into(),
            chunkservers_missing: [c, d].into(),
            ..Followers::default()
        };
        assert_eq!(came.missing(none), Missing { metaloggers: vec![b], chunkservers: vec![d] });
        let rest = Followers { metaloggers: [b].into(), chunkservers: [d].into(), ..Followers::default() };
        assert!(came.missing(rest).is_empty());
    }

    #[test]
    fn those_that_are_missing_are_named() {
        let at = |last| SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, last), 9422);
        let machine = Ipv4Addr::new(10, 0, 0, 9);
        let mut missing = Missing { metaloggers: vec![machine], chunkservers: vec![at(1), at(2)] };
        assert_eq!(
            missing.in_words(&[SocketAddrV4::new(machine, 9421), at(2)]),
            "the metalogger of 10.0.0.9 (answers), chunkserver 10.0.0.1:9422 (does not answer), chunkserver \
             10.0.0.2:9422 (answers)"
        );
        missing.chunkservers = (1..=20).map(at).collect();
        assert!(missing.in_words(&[]).ends_with(" and 13 more"));
    }
}
