//! What a run leaves for the guards of the next one. A memory that cannot be read or kept never keeps a machine from
//! serving: the guards then know less, and say so.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::machine::state::{Isolation, Memory, Served, State};
use crate::metadata::{Inventory, inventory};
use crate::sys::folder::Folder;
use crate::sys::logging::chain;

/// The administrator is told of an isolation that goes on once in this time; ucarp tries every few seconds.
const TELL_AGAIN: Duration = Duration::from_secs(600);

/// What is remembered.
pub(crate) fn recall(state: &State) -> Memory {
    state.memory().unwrap_or_else(|e| {
        log::warn!("what this machine remembered of its rivals is not known: {}", chain(&e));
        Memory::default()
    })
}

/// Changes what is remembered.
pub(crate) fn change(state: &State, edit: impl FnOnce(&mut Memory)) {
    let before = recall(state);
    let mut memory = before.clone();
    edit(&mut memory);
    if memory != before {
        if let Err(e) = state.remember(&memory) {
            log::warn!("what was seen of other machines is not remembered: {}", chain(&e));
        }
    }
}

/// Notes rivals that were heard. Whoever hears one is not cut off any more.
pub(crate) fn hear(state: &State, rivals: impl IntoIterator<Item = Ipv4Addr>) {
    change(state, |memory| {
        for rival in rivals {
            if memory.hear(rival) {
                log::info!("{rival} advertises itself as the master; remembered as the address to ask for one");
            }
            end_isolation(memory);
        }
    });
}

/// Notes machines that may become masters because their metaloggers copy from the one that serves. Learnt before they are
/// needed: one that takes over while this machine is cut off is heard here too late.
pub(crate) fn learn(state: &State, metaloggers: impl IntoIterator<Item = Ipv4Addr>) {
    change(state, |memory| {
        for machine in metaloggers {
            if memory.learn(machine) {
                log::info!(
                    "the metalogger of {machine} copies from the master; remembered as the address to ask for one"
                );
            }
        }
    });
}

/// Notes that this machine serves, or yielded for a reason that can go round.
pub(crate) fn turn(state: &State) {
    change(state, |memory| {
        memory.turns.push(chrono::Utc::now().timestamp());
        end_isolation(memory);
    });
}

/// Notes that this machine yields because its copy is known to be behind.
pub(crate) fn yielded_behind(state: &State) {
    turn(state);
    change(state, |memory| memory.yielded_behind = Some(chrono::Utc::now().timestamp()));
}

/// Notes that this machine serves, before its metalogger copies from it.
pub(crate) fn serves(state: &State) {
    change(state, |memory| {
        if !memory.served.as_ref().is_some_and(Served::goes_on) {
            memory.served = Some(Served::now());
        }
    });
}

/// Notes that this machine is told to serve no more.
pub(crate) fn serves_no_more(state: &State) {
    change(state, |memory| memory.served.iter_mut().for_each(Served::end));
}

/// The inventory of the data folder, with what is remembered about it.
pub(crate) fn inventory(data: &Folder, state: Option<&State>) -> Result<Inventory, inventory::Error> {
    let mut inventory = inventory::take(data)?;
    let served = state.and_then(|state| recall(state).served);
    inventory.served = served.map_or(0..0, |served| served.seconds());
    Ok(inventory)
}

/// Forgets what was served elsewhere: this machine serves now.
pub(crate) fn forget_freshness(state: &State) {
    if let Err(e) = state.forget_freshness() {
        log::warn!("what was served elsewhere is not forgotten until the next check: {}", chain(&e));
    }
}

/// Notes that this machine won the address and is cut off. Says whether the administrator is to be told of it now: the
/// first time and then rarely.
pub(crate) fn isolated(state: &State) -> bool {
    let now = chrono::Utc::now().timestamp();
    let mut tell = true;
    change(state, |memory| {
        let isolation = memory.isolation.get_or_insert(Isolation { since: now, times: 0, told: 0 });
        isolation.times += 1;
        let patience = i64::try_from(TELL_AGAIN.as_secs()).unwrap_or(i64::MAX);
        tell = !(0..patience).contains(&(now - isolation.told));
        if tell {
            isolation.told = now;
            if isolation.times > 1 {
                log::warn!("isolated for {} s, yielded {} times in it", now - isolation.since, isolation.times);
            }
        }
    });
    tell
}

fn end_isolation(memory: &mut Memory) {
    if let Some(isolation) = memory.isolation.take() {
        let since = chrono::Utc::now().timestamp() - isolation.since;
        log::info!("no longer isolated; it was {} times that this machine yielded within {since} s", isolation.times);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_isolation_is_told_once_and_ends_when_somebody_is_heard() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open_at(&dir.path().join("state")).unwrap();
        assert!(isolated(&state));
        assert!(!isolated(&state) && !isolated(&state));
        assert_eq!(recall(&state).isolation.map(|isolation| isolation.times), Some(3));
        // Ten minutes later, and with a clock that was set back.
        for told in [-700, 700] {
            change(&state, |memory| memory.isolation.iter_mut().for_each(|isolation| isolation.told += told));
            assert!(isolated(&state), "{told}");
        }
        hear(&state, [Ipv4Addr::new(10, 0, 0, 1)]);
        assert_eq!(recall(&state).isolation, None);
        assert!(isolated(&state));
    }
}
