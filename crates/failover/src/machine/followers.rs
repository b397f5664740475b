//! The metaloggers that copied from a serving master lately: after a takeover they are expected again.
//!
//! Only messages depend on them. A machine is on the list because a master said that its metalogger was connected.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::net::Ipv4Addr;

use crate::machine::state::State;
use crate::sys::logging::chain;

const FILE: &str = "metaloggers.json";
/// In seconds: one that was not seen for longer is not expected any more.
const EXPECTED: i64 = 24 * 3600;
/// In seconds: how old the note of a metalogger that is still connected may become.
const NOTE_AGAIN: i64 = 600;
/// No cluster has more; the list comes from another machine.
const MOST: usize = 64;

/// When each was last seen, in unix seconds.
type Seen = BTreeMap<Ipv4Addr, i64>;

/// Notes that the metaloggers of these machines are connected to the serving master.
pub(crate) fn note(state: &State, connected: impl IntoIterator<Item = Ipv4Addr>) {
    let (now, mut seen) = (chrono::Utc::now().timestamp(), read(state));
    if add(&mut seen, connected, now) {
        if let Err(e) = state.write(OsStr::new(FILE), &seen) {
            log::warn!("cannot write {FILE}: {}", chain(&e));
        }
    }
}

/// The machines whose metaloggers were connected lately.
pub(crate) fn expected(state: &State) -> BTreeSet<Ipv4Addr> {
    let now = chrono::Utc::now().timestamp();
    read(state).into_iter().filter(|(_, at)| (0..EXPECTED).contains(&(now - at))).map(|(machine, _)| machine).collect()
}

fn read(state: &State) -> Seen {
    state.read(OsStr::new(FILE)).ok().flatten().unwrap_or_default()
}

/// Whether anything has changed that is worth a write.
fn add(seen: &mut Seen, connected: impl IntoIterator<Item = Ipv4Addr>, now: i64) -> bool {
    let mut changed = false;
    for machine in connected {
        let noted = seen.get(&machine).is_some_and(|at| (0..NOTE_AGAIN).contains(&(now - at)));
        if !noted && (seen.contains_key(&machine) || seen.len() < MOST) {
            seen.insert(machine, now);
            changed = true;
        }
    }
    if changed {
        seen.retain(|_, at| (0..EXPECTED).contains(&(now - *at)));
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

    #[test]
    fn a_metalogger_is_expected_for_a_day_and_noted_seldom() {
        let mut seen = Seen::new();
        assert!(add(&mut seen, [A, B], 1000));
        assert!(!add(&mut seen, [A], 1599) && add(&mut seen, [A], 1600));
        assert!(add(&mut seen, [A], 1000 + EXPECTED));
        assert_eq!(seen.keys().copied().collect::<Vec<_>>(), [A], "B was not seen for a day");
        assert!(add(&mut seen, [A], 500), "the clock was set back");
        assert!(!add(&mut seen, [], 500));
    }

    #[test]
    fn what_is_noted_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open_at(&dir.path().join("state")).unwrap();
        assert!(expected(&state).is_empty());
        note(&state, [A, B]);
        assert_eq!(expected(&state), [A, B].into());
    }
}
