//! What this machine remembers from one run to the next, for the checks before serving.
//!
//! A memory that cannot be read or written never keeps a machine from serving: the checks then know less, and a warning
//! says so. Several processes change it: a promotion or demotion under its lock, a serving run and a check without one.
//! So each change reads, edits and writes under a lock of its own, and no caller has to think of that.

use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use log::Level;
use serde::{Deserialize, Serialize};

use crate::machine::state::{Error, State};
use crate::metadata::{Inventory, Version, inventory};
use crate::sys::address;
use crate::sys::folder::Folder;
use crate::sys::logging::chain;
use crate::sys::text::human;

const MEMORY: &str = "memory.json";
const LOCK: &str = "memory.lock";
const FRESHNESS: &str = "freshness.json";

/// A change takes some milliseconds. The lock is not worth more of a promotion's time than this.
const LOCK_PATIENCE: Duration = Duration::from_millis(200);
/// Unix seconds after which a machine that was not heard is forgotten.
const KNOWN_FOR: i64 = 24 * 3600;
/// Unix seconds after which it is noted that a machine was heard again.
const NOTE_AGAIN: i64 = 600;
/// An isolation that goes on is logged once in this time; ucarp tries every few seconds.
const LOG_AGAIN: Duration = Duration::from_secs(600);

/// The last write has failed.
static IN_TROUBLE: AtomicBool = AtomicBool::new(false);

/// What a machine remembers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Memory {
    /// Other machines of the group that were heard, the one that was heard last behind the others.
    pub(crate) machines: Vec<Known>,
    /// When this machine was promoted or stepped down, in unix seconds.
    pub(crate) role_changes: Vec<i64>,
    /// The isolation that this machine is in.
    pub(crate) isolation: Option<Isolation>,
    /// When this machine last stepped down because its copy was known to be stale, in unix seconds.
    pub(crate) stepped_down_stale: Option<i64>,
    /// Whether this machine served, and has known of no other master since.
    pub(crate) served_last: bool,
    /// The highest epoch that this machine has served, or was about to.
    pub(crate) epoch: u64,
    /// Where the history that this machine served last left the one before it: the first version that it did not take over,
    /// before the epoch jump.
    pub(crate) forked_at: Option<Version>,
    /// Changes made here that are in no served history, the newest last.
    pub(crate) unserved: Vec<Unserved>,
}

/// Another machine of the group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Known {
    /// Its own address.
    pub(crate) address: Ipv4Addr,
    /// When something signed of it was heard last, in unix seconds.
    pub(crate) heard: i64,
    /// Whether it sends heartbeats: then its master answers clients only under a lease.
    pub(crate) leased: bool,
}

/// Changes that were made here and are in no served history: another machine was promoted beyond a cut, and has made more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unserved {
    /// The first of these changes.
    pub(crate) first: Version,
    /// The version after the last one.
    pub(crate) end: Version,
    /// Whether this machine began the epoch: then the other history has nothing of it.
    pub(crate) whole_epoch: bool,
    /// The machine that serves the other history.
    pub(crate) served_by: Ipv4Addr,
    /// When this was found, in unix seconds.
    pub(crate) noted: i64,
}

/// A time in which this machine won the virtual IP and could reach no other machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Isolation {
    /// When it won first, in unix seconds.
    pub(crate) since: i64,
    /// How often it won.
    pub(crate) times: u64,
    /// When this was logged last, in unix seconds.
    pub(crate) logged: i64,
}

/// The last comparison of the copy here with the serving master. Not a part of [`Memory`]: a check writes
/// it as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Freshness {
    /// When that was, in unix seconds.
    pub(crate) compared: i64,
    /// The version that the master served.
    pub(crate) served: Version,
    /// Its metaid, where the release tells it.
    pub(crate) metaid: Option<u64>,
    /// When the copy last had everything that was served, in unix seconds.
    pub(crate) in_sync: Option<i64>,
    /// What was served then.
    pub(crate) in_sync_version: Option<Version>,
}

impl Freshness {
    /// A comparison at `now` of a copy that ends at `copy` with a master that serves `served`, after the comparison `before`.
    pub(crate) fn compared(
        now: i64,
        copy: Version,
        served: Version,
        metaid: Option<u64>,
        before: Option<&Self>,
    ) -> Self {
        let (in_sync, in_sync_version) = if copy.behind(served).is_none() {
            (Some(now), Some(served))
        } else {
            before.map_or((None, None), |before| (before.in_sync, before.in_sync_version))
        };
        Self { compared: now, served, metaid, in_sync, in_sync_version }
    }
}

impl Memory {
    /// Machines beyond this number are forgotten, those that were heard longest ago first.
    const MOST_MACHINES: usize = 16;
    /// The most entries of `unserved`.
    const MOST_UNSERVED: usize = 8;

    /// Remembers a machine of which something signed was heard. Says whether it is new.
    fn add_machine(&mut self, address: Ipv4Addr, leased: bool) -> bool {
        let position = self.machines.iter().position(|known| known.address == address);
        if position.is_some_and(|at| self.machines[at].is_fresh() && self.machines[at].leased >= leased) {
            return false;
        }
        let before = position.map(|at| self.machines.remove(at));
        let leased = leased || before.as_ref().is_some_and(|known| known.leased);
        self.machines.push(Known { address, heard: now(), leased });
        self.machines.drain(..self.machines.len().saturating_sub(Self::MOST_MACHINES));
        before.is_none()
    }

    /// The machines that were heard lately. An address that was not heard for a day may be another machine's by now.
    pub(crate) fn known(&self) -> impl Iterator<Item = &Known> {
        let oldest = now() - KNOWN_FOR;
        self.machines.iter().filter(move |known| known.heard >= oldest)
    }

    /// How many role changes there were in the `window` before `now`; forgets those before it. Role changes in the
    /// future are those of a clock that was set back: forgotten too.
    pub(crate) fn role_changes_within(&mut self, window: Duration, now: i64) -> usize {
        let window = i64::try_from(window.as_secs()).unwrap_or(i64::MAX);
        self.role_changes.retain(|change| (0..=window).contains(&now.saturating_sub(*change)));
        self.role_changes.len()
    }

    fn end_isolation(&mut self) {
        if let Some(isolation) = self.isolation.take() {
            let lasted = Duration::from_secs(u64::try_from(now() - isolation.since).unwrap_or_default());
            log::info!("no longer isolated ({}, stepped down {} times)", human(lasted), isolation.times);
        }
    }
}

impl Known {
    /// Whether it is too early to note that it was heard again: that is a write to the disk.
    fn is_fresh(&self) -> bool {
        (0..NOTE_AGAIN).contains(&(now() - self.heard))
    }
}

/// The memory; empty at first.
pub(crate) fn recall(state: &State) -> Memory {
    let memory = state.read(OsStr::new(MEMORY)).unwrap_or_else(|e| {
        log::warn!(
            "cannot read what this machine remembers ({MEMORY}); the checks before serving know less: {}",
            chain(&e)
        );
        None
    });
    memory.unwrap_or_default()
}

/// Changes the memory, one process after the other.
pub(crate) fn change(state: &State, edit: impl FnOnce(&mut Memory)) {
    change_within(state, LOCK_PATIENCE, edit);
}

fn change_within(state: &State, patience: Duration, edit: impl FnOnce(&mut Memory)) {
    let lock = state.lock(OsStr::new(LOCK), patience);
    match &lock {
        Ok(Some(_)) => (),
        Ok(None) => log::warn!("another run has locked {LOCK} for {}; going on without the lock", human(patience)),
        Err(e) => log::log!(trouble(), "cannot lock {LOCK}; going on without the lock: {}", chain(e)),
    }
    let before = recall(state);
    let mut memory = before.clone();
    edit(&mut memory);
    if memory != before {
        match state.write(OsStr::new(MEMORY), &memory) {
            Ok(()) => IN_TROUBLE.store(false, Ordering::Relaxed),
            Err(e) => {
                log::log!(trouble(), "cannot write {MEMORY}; the next run knows less: {}", chain(&e));
                IN_TROUBLE.store(true, Ordering::Relaxed);
            }
        }
    }
}

/// How loud it is told that nothing can be remembered: a serving machine tries every two seconds.
fn trouble() -> Level {
    if IN_TROUBLE.load(Ordering::Relaxed) { Level::Debug } else { Level::Warn }
}

/// Remembers machines of which something signed was heard: address, and whether it sends heartbeats. A machine that hears
/// others is not isolated.
pub(crate) fn remember(state: &State, heard: impl IntoIterator<Item = (Ipv4Addr, bool)>) {
    let mut heard = heard.into_iter().peekable();
    if heard.peek().is_none() {
        return;
    }
    change(state, |memory| {
        for (address, leased) in heard {
            if memory.add_machine(address, leased) {
                log::info!("{address} is in this group; it will be asked before the next promotion");
            }
        }
        memory.end_isolation();
    });
}

/// Notes that this machine was promoted, or stepped down for a reason that can repeat without end.
pub(crate) fn role_changed(state: &State) {
    change(state, |memory| {
        memory.role_changes.push(now());
        memory.end_isolation();
    });
}

/// Notes that this machine steps down because its copy is known to be stale.
pub(crate) fn stepped_down_stale(state: &State) {
    role_changed(state);
    change(state, |memory| memory.stepped_down_stale = Some(now()));
}

/// Notes an epoch that another machine has served: a promotion here begins a later one.
pub(crate) fn heard_epoch(state: &State, epoch: u64) {
    change(state, |memory| memory.epoch = memory.epoch.max(epoch));
}

/// Notes that another machine is the master.
pub(crate) fn another_serves(state: &State) {
    change(state, |memory| memory.served_last = false);
}

/// Notes that this machine was promoted with a history that left the one before it at this version.
pub(crate) fn forked(state: &State, at: Version) {
    change(state, |memory| memory.forked_at = Some(at));
}

/// Notes changes of this machine that are in no served history.
pub(crate) fn unserved(state: &State, first: Version, end: Version, served_by: Ipv4Addr) {
    change(state, |memory| {
        memory.unserved.retain(|known| known.end != end);
        let whole_epoch = memory.forked_at.is_some_and(|fork| fork.epoch() < end.epoch());
        memory.unserved.push(Unserved { first, end, whole_epoch, served_by, noted: now() });
        memory.unserved.drain(..memory.unserved.len().saturating_sub(Memory::MOST_UNSERVED));
    });
}

/// Notes that this machine serves. To be called before its metalogger copies from it.
pub(crate) fn serving(state: &State) {
    change(state, |memory| memory.served_last = true);
}

/// Notes the version that a master here is going to serve. To be called before it starts: then metaloggers follow it.
pub(crate) fn epoch_begins(state: &State, served: Version) {
    change(state, |memory| memory.epoch = memory.epoch.max(served.epoch()));
}

/// The inventory of the data folder, with what is remembered about it.
pub(crate) fn inventory(data: &Folder, state: Option<&State>) -> Result<Inventory, inventory::Error> {
    let mut inventory = inventory::take(data)?;
    if let Some(state) = state {
        let Planning { served_last, epoch, rank, unserved } = planning(state);
        (inventory.served_last, inventory.remembered_epoch) = (served_last, epoch);
        (inventory.rank, inventory.unserved) = (rank, unserved);
    }
    Ok(inventory)
}

/// What a plan takes from the memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Planning {
    served_last: bool,
    epoch: u64,
    rank: u64,
    unserved: Option<inventory::Unserved>,
}

impl Planning {
    /// Whether a plan that began `epoch` with what was remembered `before` would be the same with this: an epoch that the files
    /// told of already changes nothing.
    pub(crate) fn changes_nothing(&self, before: &Self, epoch: u64) -> bool {
        let Self { served_last, epoch: remembered, rank, unserved } = self;
        (served_last, rank, unserved) == (&before.served_last, &before.rank, &before.unserved)
            && remembered.saturating_add(1).saturating_add(*rank) <= epoch
    }
}

/// What a plan takes from the memory.
pub(crate) fn planning(state: &State) -> Planning {
    let memory = recall(state);
    // One that cannot be read is reported by the check of the copy.
    let compared = freshness(state).ok().flatten().map_or(0, |noted| noted.served.epoch());
    let known: Vec<Ipv4Addr> = memory.known().map(|known| known.address).collect();
    Planning {
        served_last: memory.served_last,
        epoch: memory.epoch.max(compared),
        rank: rank(&address::own_addresses().unwrap_or_default(), &known),
        unserved: memory.unserved.last().map(|unserved| inventory::Unserved {
            first: if unserved.whole_epoch { unserved.end.epoch_began() } else { unserved.first },
            last: unserved.end,
        }),
    }
}

/// How many of the `known` machines come before this one in the order of addresses. Of its `own` addresses, the one nearest
/// to theirs counts.
fn rank(own: &[Ipv4Addr], known: &[Ipv4Addr]) -> u64 {
    let nearest = known.iter().min().and_then(|first| {
        let distance = |address: &&Ipv4Addr| address.to_bits() ^ first.to_bits();
        own.iter().filter(|address| !address.is_loopback()).min_by_key(distance)
    });
    nearest.map_or(0, |own| known.iter().filter(|known| *known < own).count() as u64)
}

/// The last comparison with a serving master, if there was one.
pub(crate) fn freshness(state: &State) -> Result<Option<Freshness>, Error> {
    state.read(OsStr::new(FRESHNESS))
}

/// Notes a comparison with the serving master.
pub(crate) fn note_freshness(state: &State, freshness: &Freshness) -> Result<(), Error> {
    state.write(OsStr::new(FRESHNESS), freshness)
}

/// Notes that a master of another machine has a history that goes this far, and that changes of it are missing here.
pub(crate) fn saw_version(state: &State, served: Version, metaid: u64) {
    let before = freshness(state).ok().flatten().unwrap_or_default();
    let metaid = Some(metaid).filter(|metaid| *metaid != 0);
    let seen = Freshness { compared: now(), served, metaid, ..before };
    if let Err(e) = note_freshness(state, &seen) {
        log::warn!("cannot record which version another machine has: {}", chain(&e));
    }
}

/// Forgets the comparisons: this machine serves, so its own metadata is the newest.
pub(crate) fn forget_freshness(state: &State) {
    if let Err(e) = state.remove(OsStr::new(FRESHNESS)) {
        log::warn!("cannot remove {FRESHNESS}; it stays until the next --check: {}", chain(&e));
    }
}

/// Notes that this machine won the virtual IP and is isolated. Says whether that is to be logged now: the first time,
/// and then rarely.
pub(crate) fn isolated(state: &State) -> bool {
    let now = now();
    let mut log = true;
    change(state, |memory| {
        let isolation = memory.isolation.get_or_insert(Isolation { since: now, times: 0, logged: 0 });
        isolation.times += 1;
        let pause = i64::try_from(LOG_AGAIN.as_secs()).unwrap_or(i64::MAX);
        log = !(0..pause).contains(&(now - isolation.logged));
        if log {
            isolation.logged = now;
            if isolation.times > 1 {
                let lasted = Duration::from_secs(u64::try_from(now - isolation.since).unwrap_or_default());
                log::warn!("still isolated after {} (stepped down {} times)", human(lasted), isolation.times);
            }
        }
    });
    log
}

fn now() -> i64 {
    chrono::Utc::now().timestamp()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> (tempfile::TempDir, State) {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open_at(&dir.path().join("state")).unwrap();
        (dir, state)
    }

    #[test]
    fn an_epoch_that_the_files_told_of_changes_no_plan() {
        let before = Planning { served_last: false, epoch: 2, rank: 1, unserved: None };
        let now = |epoch, rank| Planning { epoch, rank, ..before.clone() };
        // The files are of epoch 4: the plan begins epoch 6.
        assert!(now(2, 1).changes_nothing(&before, 6) && now(4, 1).changes_nothing(&before, 6));
        assert!(!now(5, 1).changes_nothing(&before, 6), "an epoch that nothing here told of");
        assert!(!now(2, 0).changes_nothing(&before, 6), "another place in the group");
        assert!(!Planning { served_last: true, ..before.clone() }.changes_nothing(&before, 6));
    }

    #[test]
    fn no_two_machines_of_a_group_have_one_rank() {
        let group: [Ipv4Addr; 3] = [[10, 0, 0, 11], [10, 0, 0, 12], [10, 0, 0, 240]].map(Into::into);
        let storage = Ipv4Addr::new(192, 168, 0, 1);
        for (expected, one) in group.iter().enumerate() {
            let others: Vec<Ipv4Addr> = group.iter().filter(|other| *other != one).copied().collect();
            assert_eq!(rank(&[Ipv4Addr::LOCALHOST, storage, *one], &others), expected as u64);
        }
        assert_eq!((rank(&group[..1], &[]), rank(&[], &group)), (0, 0));
    }

    #[test]
    fn changes_that_several_runs_make_at_once_are_all_kept() {
        let (dir, _) = state();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    // As another process has it: with a descriptor of its own.
                    let state = State::open_at(&dir.path().join("state")).unwrap();
                    for _ in 0..100 {
                        change_within(&state, Duration::from_secs(600), |memory| memory.role_changes.push(now()));
                    }
                });
            }
        });
        let state = State::open_at(&dir.path().join("state")).unwrap();
        assert_eq!(recall(&state).role_changes.len(), 200);
    }

    #[test]
    fn a_lock_that_is_not_released_delays_a_change_and_does_not_prevent_it() {
        let (_dir, state) = state();
        let _held = state.lock(OsStr::new(LOCK), Duration::ZERO).unwrap().unwrap();
        role_changed(&state);
        assert_eq!(recall(&state).role_changes.len(), 1);
    }

    #[test]
    fn the_machines_that_were_heard_last_are_remembered_for_a_day() {
        let (_dir, state) = state();
        assert_eq!(recall(&state), Memory::default());
        let at = |last| Ipv4Addr::new(10, 0, 0, last);
        let known = || recall(&state).known().map(|known| (known.address, known.leased)).collect::<Vec<_>>();
        remember(&state, [(at(1), false), (at(2), true), (at(1), false)]);
        assert_eq!(known(), [(at(1), false), (at(2), true)]);
        remember(&state, [(at(1), true)]);
        assert_eq!(known(), [(at(2), true), (at(1), true)]);
        change(&state, |memory| memory.machines[0].heard -= KNOWN_FOR + 1);
        assert_eq!(known(), [(at(1), true)], "another machine may have its address by now");
        remember(&state, (4..30).map(|last| (at(last), false)));
        let memory = recall(&state);
        assert_eq!(memory.machines.len(), Memory::MOST_MACHINES);
        assert_eq!(memory.machines.last().map(|known| known.address), Some(at(29)));
    }

    #[test]
    fn an_epoch_that_was_served_here_or_seen_elsewhere_is_not_begun_again() {
        let (dir, state) = state();
        let data = Folder::open(dir.path()).unwrap();
        let remembered = || inventory(&data, Some(&state)).unwrap().remembered_epoch;
        let version = |epoch| Version::default() + crate::metadata::EpochJump::epochs(epoch);
        assert_eq!(remembered(), 0);
        epoch_begins(&state, version(2));
        epoch_begins(&state, version(1));
        assert_eq!(remembered(), 2);
        note_freshness(&state, &Freshness { served: version(3), ..Freshness::default() }).unwrap();
        assert_eq!(remembered(), 3);
    }

    #[test]
    fn role_changes_count_in_their_window_whatever_the_clock_does() {
        let mut memory = Memory { role_changes: vec![0, 400, 990, 1000, 5000], ..Memory::default() };
        assert_eq!(memory.role_changes_within(Duration::from_secs(600), 1000), 3);
        assert_eq!(memory.role_changes, [400, 990, 1000]);
    }

    #[test]
    fn a_machine_served_last_until_it_knows_of_another_master() {
        let (_dir, state) = state();
        assert!(!recall(&state).served_last);
        serving(&state);
        assert!(recall(&state).served_last);
        remember(&state, [(Ipv4Addr::new(10, 0, 0, 1), true)]);
        assert!(recall(&state).served_last);
        another_serves(&state);
        assert!(!recall(&state).served_last);
        serving(&state);
        assert!(recall(&state).served_last);
    }

    #[test]
    fn an_isolation_is_logged_once_and_ends_when_another_machine_advertises() {
        let (_dir, state) = state();
        assert!(isolated(&state));
        assert!(!isolated(&state) && !isolated(&state));
        assert_eq!(recall(&state).isolation.map(|isolation| isolation.times), Some(3));
        // Ten minutes later, and with a clock that was set back.
        for logged in [-700, 700] {
            change(&state, |memory| memory.isolation.iter_mut().for_each(|isolation| isolation.logged += logged));
            assert!(isolated(&state), "{logged}");
        }
        remember(&state, [(Ipv4Addr::new(10, 0, 0, 1), false)]);
        assert_eq!(recall(&state).isolation, None);
        assert!(isolated(&state));
    }
}
