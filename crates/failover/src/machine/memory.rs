//! What this machine remembers from one run to the next, for the checks before serving.
//!
//! A memory that cannot be read or written never keeps a machine from serving: the checks then know less, and a warning
//! says so. Several processes change it: a promotion or demotion under its lock, a serving run and a check without one.
//! So each change reads, edits and writes under a lock of its own, and no caller has to think of that.

use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::ops::Range;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::machine::state::{Error, State};
use crate::metadata::{Inventory, Version, inventory};
use crate::sys::folder::Folder;
use crate::sys::logging::chain;
use crate::sys::text::human;

const MEMORY: &str = "memory.json";
const LOCK: &str = "memory.lock";
const FRESHNESS: &str = "freshness.json";

/// A change takes some milliseconds. The lock is not worth more of a promotion's time than this.
const LOCK_PATIENCE: Duration = Duration::from_millis(200);
/// An isolation that goes on is logged once in this time; ucarp tries every few seconds.
const LOG_AGAIN: Duration = Duration::from_secs(600);

/// What a machine remembers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Memory {
    /// Machines that may run a master, the one that advertised last behind the others.
    pub(crate) peers: Vec<Ipv4Addr>,
    /// When this machine was promoted or stepped down, in unix seconds.
    pub(crate) role_changes: Vec<i64>,
    /// The isolation that this machine is in.
    pub(crate) isolation: Option<Isolation>,
    /// When this machine last stepped down because its copy was known to be stale, in unix seconds.
    pub(crate) stepped_down_stale: Option<i64>,
    /// When this machine served last.
    pub(crate) served: Option<Served>,
}

/// A time in which this machine served: the files that its metalogger began to download then came from itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Served {
    /// When it began to, in unix seconds.
    pub(crate) since: i64,
    /// The boot in which it served.
    pub(crate) boot: String,
    /// When it began to stop, in unix seconds. Without this, it has served until now or until that boot ended.
    pub(crate) until: Option<i64>,
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
}

impl Memory {
    /// Machines beyond this number are forgotten, those that advertised longest ago first.
    const MOST_PEERS: usize = 16;

    /// Remembers a machine that advertises as MASTER. Says whether it is new, or not the last one that did.
    fn add_master(&mut self, address: Ipv4Addr) -> bool {
        if self.peers.last() == Some(&address) {
            return false;
        }
        self.peers.retain(|known| *known != address);
        self.peers.push(address);
        self.peers.drain(..self.peers.len().saturating_sub(Self::MOST_PEERS));
        true
    }

    /// Remembers a machine that has not advertised itself: before all that did. Says whether it is new; a full memory
    /// takes none.
    fn add_standby(&mut self, address: Ipv4Addr) -> bool {
        let new = !self.peers.contains(&address) && self.peers.len() < Self::MOST_PEERS;
        if new {
            self.peers.insert(0, address);
        }
        new
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

impl Served {
    /// It serves from now on.
    fn now() -> Self {
        Self { since: now(), boot: boot(), until: None }
    }

    /// Whether it still serves, as far as is known.
    fn goes_on(&self) -> bool {
        self.until.is_none() && self.boot == boot()
    }

    /// It begins to stop, if it did not before.
    fn end(&mut self) {
        self.until.get_or_insert_with(|| if self.boot == boot() { now() } else { booted() });
    }

    /// The unix seconds in which it served.
    fn seconds(&self) -> Range<i64> {
        let open = if self.boot == boot() { i64::MAX } else { booted() };
        self.since..self.until.unwrap_or(open)
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
        Err(e) => log::warn!("cannot lock {LOCK}; going on without the lock: {}", chain(e)),
    }
    let before = recall(state);
    let mut memory = before.clone();
    edit(&mut memory);
    if memory != before {
        if let Err(e) = state.write(OsStr::new(MEMORY), &memory) {
            log::warn!("cannot write {MEMORY}; the next run knows less: {}", chain(&e));
        }
    }
}

/// Remembers machines that advertise as MASTER. A machine that receives advertisements is not isolated.
pub(crate) fn remember_masters(state: &State, masters: impl IntoIterator<Item = Ipv4Addr>) {
    change(state, |memory| {
        for master in masters {
            if memory.add_master(master) {
                log::info!("{master} advertises as MASTER; will be queried before the next promotion");
            }
            memory.end_isolation();
        }
    });
}

/// Remembers machines that may become masters, because their metaloggers copy from this one. They are remembered before
/// they are needed: while this machine is isolated, one of them can take over, and its advertisements do not arrive
/// here.
pub(crate) fn remember_standbys(state: &State, standbys: impl IntoIterator<Item = Ipv4Addr>) {
    change(state, |memory| {
        for standby in standbys {
            if memory.add_standby(standby) {
                log::info!(
                    "the metalogger of {standby} copies from the master; will be queried before the next promotion"
                );
            }
        }
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

/// Notes that this machine serves. To be called before its metalogger copies from it.
pub(crate) fn serving(state: &State) {
    change(state, |memory| {
        if !memory.served.as_ref().is_some_and(Served::goes_on) {
            memory.served = Some(Served::now());
        }
    });
}

/// Notes that this machine stops serving.
pub(crate) fn stopped_serving(state: &State) {
    change(state, |memory| memory.served.iter_mut().for_each(Served::end));
}

/// The inventory of the data folder, with what is remembered about it.
pub(crate) fn inventory(data: &Folder, state: Option<&State>) -> Result<Inventory, inventory::Error> {
    let mut inventory = inventory::take(data)?;
    let served = state.and_then(|state| recall(state).served);
    inventory.served = served.map_or(0..0, |served| served.seconds());
    Ok(inventory)
}

/// The last comparison with a serving master, if there was one.
pub(crate) fn freshness(state: &State) -> Result<Option<Freshness>, Error> {
    state.read(OsStr::new(FRESHNESS))
}

/// Notes a comparison with the serving master.
pub(crate) fn note_freshness(state: &State, freshness: &Freshness) -> Result<(), Error> {
    state.write(OsStr::new(FRESHNESS), freshness)
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

/// When this machine was started, in unix seconds.
fn booted() -> i64 {
    now() - clock_gettime(ClockId::Boottime).tv_sec
}

/// A name for the time since then; empty, as no boot has it, where the kernel has none.
fn boot() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim_end().to_owned()
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
    fn the_machines_that_advertised_last_are_remembered() {
        let (_dir, state) = state();
        assert_eq!(recall(&state), Memory::default());
        let at = |last| Ipv4Addr::new(10, 0, 0, last);
        remember_masters(&state, [at(1), at(2), at(1), at(1)]);
        assert_eq!(recall(&state).peers, [at(2), at(1)]);
        remember_standbys(&state, [at(3), at(1)]);
        assert_eq!(recall(&state).peers, [at(3), at(2), at(1)]);
        remember_masters(&state, (4..30).map(at));
        let memory = recall(&state);
        assert_eq!((memory.peers.len(), memory.peers.last()), (Memory::MOST_PEERS, Some(&at(29))));
        remember_standbys(&state, [at(40)]);
        assert_eq!(recall(&state), memory, "one that did not advertise displaces none that did");
    }

    #[test]
    fn role_changes_count_in_their_window_whatever_the_clock_does() {
        let mut memory = Memory { role_changes: vec![0, 400, 990, 1000, 5000], ..Memory::default() };
        assert_eq!(memory.role_changes_within(Duration::from_secs(600), 1000), 3);
        assert_eq!(memory.role_changes, [400, 990, 1000]);
    }

    #[test]
    fn a_machine_served_until_it_began_to_stop_or_lost_its_power() {
        let mut served = Served::now();
        assert!(served.goes_on() && served.seconds().contains(&now()) && served.seconds().contains(&(now() + 1000)));
        assert!(!served.seconds().contains(&(now() - 1000)));
        served.end();
        assert!(!served.goes_on() && !served.seconds().contains(&(now() + 1)));
        // A power cut while it served; whatever was written since this boot is not its own.
        let mut served = Served { since: 1000, boot: "another".to_owned(), until: None };
        assert!(!served.goes_on() && served.seconds().contains(&1000) && !served.seconds().contains(&now()));
        served.end();
        assert!(!served.seconds().contains(&now()));
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
        remember_masters(&state, [Ipv4Addr::new(10, 0, 0, 1)]);
        assert_eq!(recall(&state).isolation, None);
        assert!(isolated(&state));
    }
}
