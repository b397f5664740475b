//! Is the copy here known to be stale? `--check`, and a machine that stands by, compare it with the serving master and note
//! which version that served. If the plan ends before it, changes that were served are missing here, and another machine
//! may have them. The same is true of a copy whose metalogger had to be killed.
//!
//! Such a machine steps down once: ucarp then pauses for longer than another machine needs to win. If none did, this copy
//! is the best there is (`IF_STALE`), and is served unless it lacks too much: going back by a day is not for a machine to
//! decide. Without a note, or with one of another file system, nothing is known and nothing is said against the copy.

use std::time::Duration;

use super::{Election, Failure};
use crate::machine::Machine;
use crate::machine::config::IfStale;
use crate::machine::memory::{self, Freshness};
use crate::machine::state::State;
use crate::metadata::{Behind, Note, Plan, Version};
use crate::sys::logging::chain;
use crate::timing;
use crate::ucarp::Options;

/// Fails for a copy that is known to be stale, unless this machine has stepped down for that just now.
pub(super) fn check(election: &Election<'_>, plan: &Plan) -> Result<String, Failure> {
    let fresh = |text: String| {
        if won_again(election) {
            // Its metalogger had to be killed, or its log had an end of unknown extent: nothing in the files says so now.
            log::warn!(
                "this machine stepped down because its copy may lack changes, and no better copy took over, so this one is \
                 served as a last resort"
            );
        }
        Ok(text)
    };
    let Some(noted) = noted(&election.machine.state, plan) else {
        return fresh("the copy was never compared with a serving master".to_owned());
    };
    let (served, ours) = (noted.served, plan.end_version);
    let Some(behind) = ours.behind(served) else {
        return fresh(format!("the copy has version {served}, served when it was last compared"));
    };
    if moved_on(&noted, behind) {
        return fresh(format!(
            "the copy follows a machine that was promoted after it was last compared; it had everything then, version {served}"
        ));
    }
    let compared = u64::try_from(noted.compared).unwrap_or_default();
    let bounded = is_bounded(behind, age(&noted, plan));
    decide(election, Failure::Stale { served, compared, ours, behind }, bounded)?;
    Ok("the copy is stale".to_owned())
}

/// Fails for a copy whose metalogger had to be killed when it was to write what it had received, unless this machine has
/// stepped down for that just now. It had at most a second of changes in its memory.
pub(super) fn metalogger_killed(election: &Election<'_>) -> Result<(), Failure> {
    decide(election, Failure::MetaloggerKilled, true)
}

/// What this machine does about a stale copy; `bounded`: it may be the last resort.
fn decide(election: &Election<'_>, failure: Failure, bounded: bool) -> Result<(), Failure> {
    let again = won_again(election);
    match election.machine.config.if_stale {
        IfStale::Serve => {
            log::warn!("{failure}; served nevertheless (IF_STALE = serve)");
            Ok(())
        }
        IfStale::LastResort if again && !bounded => Err(Failure::TooStale { stale: Box::new(failure) }),
        IfStale::LastResort if again => {
            log::warn!("{failure}; no better copy took over, so this one is served as a last resort");
            Ok(())
        }
        IfStale::LastResort | IfStale::Never => Err(failure),
    }
}

/// Whether this machine serves a copy that lacks the beginning of a later epoch, in which no other machine serves any more.
pub(crate) fn is_last_resort(machine: &Machine, options: &Options) -> bool {
    match machine.config.if_stale {
        IfStale::Serve => true,
        IfStale::LastResort => has_stepped_down(machine, options),
        IfStale::Never => false,
    }
}

/// Whether this machine has stepped down for a stale copy just now, and no other machine has won since.
fn won_again(election: &Election<'_>) -> bool {
    has_stepped_down(election.machine, election.options)
}

fn has_stepped_down(machine: &Machine, options: &Options) -> bool {
    let stepped_down = memory::recall(&machine.state).stepped_down_stale;
    let window = timing::SAME_ELECTION + 2 * options.dead_time();
    is_same_election(stepped_down, window, chrono::Utc::now().timestamp())
}

/// Whether this machine has stepped down for a stale copy in the election that it has won again at `now`, in unix seconds.
fn is_same_election(stepped_down: Option<i64>, window: Duration, now: i64) -> bool {
    let since = stepped_down.and_then(|then| u64::try_from(now.saturating_sub(then)).ok());
    since.is_some_and(|since| since <= window.as_secs())
}

/// Whether a copy that lacks as much, and was complete so long before the last comparison, may be a last resort.
fn is_bounded(behind: Behind, age: Option<Duration>) -> bool {
    behind.changes().is_some_and(|changes| changes <= timing::LAST_RESORT_CHANGES)
        && age.is_none_or(|age| age <= timing::LAST_RESORT_AGE)
}

/// How long before the last comparison the copy was complete, if that is known. It was, if it still has what was served when
/// it was in sync. Else it has lost its logs since, as a metalogger does when it hears of a new history: an image alone is as
/// old as its download.
fn age(noted: &Freshness, plan: &Plan) -> Option<Duration> {
    let still_has = |version: Version| plan.end_version.behind(version).is_none();
    let in_sync = noted.in_sync.filter(|_| noted.in_sync_version.is_some_and(still_has));
    let downloaded = || {
        plan.notes.iter().find_map(|note| match note {
            Note::Unlogged { modified, .. } => i64::try_from(*modified).ok(),
            _ => None,
        })
    };
    let last_change = || plan.last_change_time.and_then(|time| i64::try_from(time).ok());
    let then = in_sync.or_else(downloaded).or_else(last_change)?;
    u64::try_from(noted.compared.saturating_sub(then)).ok().map(Duration::from_secs)
}

/// Whether the copy is of an epoch that began after the last comparison, rather than of one that was not served: it was in sync
/// then, so it was of the served epoch.
fn moved_on(noted: &Freshness, behind: Behind) -> bool {
    behind == Behind::LaterEpoch && noted.in_sync == Some(noted.compared)
}

/// The last comparison, if it was with this file system.
fn noted(state: &State, plan: &Plan) -> Option<Freshness> {
    let noted = memory::freshness(state).unwrap_or_else(|e| {
        log::warn!("cannot tell whether the copy is stale: {}", chain(&e));
        None
    })?;
    let other = noted.metaid.is_some_and(|metaid| plan.metaid != 0 && metaid != plan.metaid);
    (!other).then_some(noted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::{Base, EpochJump, Lineage};

    fn plan(end: u64, last_change_time: Option<u64>, downloaded: Option<u64>) -> Plan {
        let unlogged = |modified| Note::Unlogged { file: "metadata_ml.mfs.back".into(), modified };
        Plan {
            lineage: Lineage::Ml,
            base: Base::New,
            metaid: 7,
            base_version: Version::NEW,
            image_bytes: 0,
            stretches: Vec::new(),
            end_version: Version(end),
            last_change_time,
            changes: 0,
            notes: downloaded.map(unlogged).into_iter().collect(),
            epoch: 1,
            set_aside: Vec::new(),
        }
    }

    #[test]
    fn a_stale_copy_steps_down_once_in_an_election() {
        let again = |stepped_down| is_same_election(stepped_down, Duration::from_secs(66), 2000);
        assert!(!again(None), "the first time");
        assert!(again(Some(1934)) && !again(Some(1933)), "another election");
        assert!(!again(Some(2001)), "a clock that was set back proves nothing");
    }

    #[test]
    fn the_last_resort_has_a_bound_in_changes_and_in_time() {
        let bounded = |behind, age| is_bounded(behind, Some(Duration::from_secs(age)));
        assert!(bounded(Behind::Changes(100_000), 600) && bounded(Behind::EarlierEpoch(100_000), 600));
        assert!(!bounded(Behind::Changes(100_001), 1) && !bounded(Behind::EarlierEpoch(100_001), 1));
        assert!(!bounded(Behind::Changes(1), 601), "of yesterday");
        assert!(!bounded(Behind::LaterEpoch, 1), "of another history");
        assert!(is_bounded(Behind::Changes(1), None));
    }

    #[test]
    fn a_copy_that_was_in_sync_and_is_of_a_later_epoch_now_has_moved_on() {
        let (first, second) = (Version(50), Version(60) + EpochJump::epochs(1));
        let before = Freshness::compared(100, first, first, None, None);
        let behind = |noted: &Freshness, copy: Version| copy.behind(noted.served).unwrap();
        assert!(
            moved_on(&before, behind(&before, second)),
            "another machine was promoted and has died before the next one"
        );
        let noted = Freshness::compared(130, second, first, None, Some(&before));
        assert!(!moved_on(&noted, behind(&noted, second)), "after a split the first history was served again");
        let lacks = Freshness::compared(100, first, Version(55), None, None);
        assert!(!moved_on(&lacks, behind(&lacks, first)));
    }

    #[test]
    fn a_copy_is_as_old_as_what_it_still_has() {
        let noted = Freshness {
            compared: 10_000,
            served: Version(50) + EpochJump::epochs(1),
            in_sync: Some(9_990),
            in_sync_version: Some(Version(40)),
            ..Freshness::default()
        };
        let old = |plan| age(&noted, &plan).map(|age| age.as_secs());
        assert_eq!(old(plan(40, Some(5_000), None)), Some(10), "idle since 5000, and in sync at 9990");
        assert_eq!(old(plan(39, Some(5_000), None)), Some(5_000), "it has lost changes that it had then");
        assert_eq!(old(plan(20, None, Some(1_000))), Some(9_000), "and has only an image of 1000");
        assert_eq!(old(plan(20, None, None)), None);
    }
}
