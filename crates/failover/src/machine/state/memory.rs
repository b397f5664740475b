//! What the state folder says about earlier times.

use std::net::Ipv4Addr;
use std::ops::Range;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::metadata::Version;

/// What a machine remembers from one run to the next, for the guards.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Memory {
    /// Machines that were heard advertising the virtual IP, the one heard last behind the others.
    pub(crate) heard: Vec<Ipv4Addr>,
    /// When this machine was promoted or yielded, in unix seconds.
    pub(crate) turns: Vec<i64>,
    /// The isolation that this machine is in, or was in last.
    pub(crate) isolation: Option<Isolation>,
    /// When this machine last yielded because its copy was known to be behind, in unix seconds.
    pub(crate) yielded_behind: Option<i64>,
    /// When this machine served last.
    pub(crate) served: Option<Served>,
}

/// A time in which this machine served: what its metalogger began to download then came from itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Served {
    /// When it began to, in unix seconds.
    pub(crate) since: i64,
    /// The boot in which it served.
    pub(crate) boot: String,
    /// When it was told to stop, in unix seconds; without it, it has served until now or until that boot ended.
    pub(crate) until: Option<i64>,
}

/// What was found when the copy here was last compared with the serving master.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Freshness {
    /// When that was, in unix seconds.
    pub(crate) compared: i64,
    /// The version that the master served.
    pub(crate) served: Version,
    /// Its metaid, where it told it.
    pub(crate) metaid: Option<u64>,
    /// When the copy last had everything that was served, in unix seconds.
    pub(crate) in_sync: Option<i64>,
}

/// A time in which this machine won the address and could reach nobody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Isolation {
    /// When it won first, in unix seconds.
    pub(crate) since: i64,
    /// How often it won.
    pub(crate) times: u64,
    /// When the administrator was told last, in unix seconds.
    pub(crate) told: i64,
}

impl Memory {
    /// Machines beyond this number are forgotten, those heard longest ago first.
    pub(super) const MOST_HEARD: usize = 16;

    /// Notes that a machine was heard. Says whether that is news.
    pub(crate) fn hear(&mut self, address: Ipv4Addr) -> bool {
        if self.heard.last() == Some(&address) {
            return false;
        }
        self.heard.retain(|known| *known != address);
        self.heard.push(address);
        self.heard.drain(..self.heard.len().saturating_sub(Self::MOST_HEARD));
        true
    }

    /// Notes a machine that was not heard itself, but that others tell of: it goes before all that were. Says whether that
    /// is news; a full memory takes none.
    pub(crate) fn learn(&mut self, address: Ipv4Addr) -> bool {
        let news = !self.heard.contains(&address) && self.heard.len() < Self::MOST_HEARD;
        if news {
            self.heard.insert(0, address);
        }
        news
    }

    /// How many turns there were in the `window` before `now`; forgets those before it. Turns in the future are those
    /// of a clock that was set back: forgotten too.
    pub(crate) fn turns_within(&mut self, window: Duration, now: i64) -> usize {
        let window = i64::try_from(window.as_secs()).unwrap_or(i64::MAX);
        self.turns.retain(|turn| (0..=window).contains(&now.saturating_sub(*turn)));
        self.turns.len()
    }
}

impl Served {
    /// It serves from now on.
    pub(crate) fn now() -> Self {
        Self { since: now(), boot: boot(), until: None }
    }

    /// Whether it serves still, as far as is known.
    pub(crate) fn goes_on(&self) -> bool {
        self.until.is_none() && self.boot == boot()
    }

    /// It is told to stop, if it was not before.
    pub(crate) fn end(&mut self) {
        self.until.get_or_insert_with(|| if self.boot == boot() { now() } else { booted() });
    }

    /// The unix seconds in which it served.
    pub(crate) fn seconds(&self) -> Range<i64> {
        let open = if self.boot == boot() { i64::MAX } else { booted() };
        self.since..self.until.unwrap_or(open)
    }
}

fn now() -> i64 {
    chrono::Utc::now().timestamp()
}

/// When this machine was started, in unix seconds.
fn booted() -> i64 {
    now() - clock_gettime(ClockId::Boottime).tv_sec
}

/// A name for the time since then; empty, as no boot has it, where the kernel tells none.
fn boot() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_count_in_their_window_whatever_the_clock_does() {
        let mut memory = Memory { turns: vec![0, 400, 990, 1000, 5000], ..Memory::default() };
        assert_eq!(memory.turns_within(Duration::from_secs(600), 1000), 3);
        assert_eq!(memory.turns, [400, 990, 1000]);
    }

    #[test]
    fn a_machine_served_until_it_was_told_to_stop_or_lost_its_power() {
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
}
