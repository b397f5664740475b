//! Is the copy here known to be stale? `--check`, and a machine that stands by, compare it with the serving master and note
//! which version that served. If the plan ends before it, changes that were served are missing here, and another machine
//! may have them.
//!
//! Such a machine steps down once: ucarp then pauses for longer than another machine needs to win. If none did, this copy
//! is the best there is (`IF_STALE`). Without a note, or with one of another file system, nothing is known and nothing is
//! said against the copy.

use std::time::Duration;

use super::{Election, Failure};
use crate::machine::config::IfStale;
use crate::machine::memory::{self, Freshness};
use crate::machine::state::State;
use crate::metadata::{Plan, Version};
use crate::sys::logging::chain;
use crate::timing;

/// Fails for a copy that is known to be stale, unless this machine has stepped down for that just now.
pub(super) fn check(election: &Election<'_>, plan: &Plan) -> Result<String, Failure> {
    let state = &election.machine.state;
    let Some(noted) = noted(state, plan) else {
        return Ok("the copy was never compared with a serving master".to_owned());
    };
    let window = timing::SAME_ELECTION + 2 * election.options.dead_time();
    let stepped_down = memory::recall(state).stepped_down_stale;
    let verdict = judge(&noted, plan.end_version, stepped_down, window, chrono::Utc::now().timestamp());
    match (verdict, election.machine.config.if_stale) {
        (Verdict::Fresh, _) => Ok(format!("the copy has version {}, served when it was last compared", noted.served)),
        (Verdict::Stale { again: true, failure }, IfStale::LastResort) => {
            log::warn!("{failure}; no better copy took over, so this one is served as a last resort");
            Ok("the copy is stale, and served as a last resort".to_owned())
        }
        (Verdict::Stale { failure, .. }, IfStale::Serve) => {
            log::warn!("{failure}; served nevertheless (IF_STALE = serve)");
            Ok("the copy is stale".to_owned())
        }
        (Verdict::Stale { failure, .. }, IfStale::LastResort | IfStale::Never) => Err(failure),
    }
}

/// What a comparison means for a copy.
enum Verdict {
    Fresh,
    Stale {
        /// Whether this machine has stepped down for it in the same election.
        again: bool,
        failure: Failure,
    },
}

/// Judges a copy that ends at `ours`, at `now` in unix seconds.
fn judge(noted: &Freshness, ours: Version, stepped_down: Option<i64>, window: Duration, now: i64) -> Verdict {
    if ours >= noted.served {
        return Verdict::Fresh;
    }
    let since = stepped_down.and_then(|then| u64::try_from(now.saturating_sub(then)).ok());
    let compared = u64::try_from(noted.compared).unwrap_or_default();
    Verdict::Stale {
        again: since.is_some_and(|since| since <= window.as_secs()),
        failure: Failure::Stale { served: noted.served, compared, ours },
    }
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

    #[test]
    fn a_stale_copy_steps_down_once_in_an_election() {
        let noted = Freshness { compared: 1000, served: Version(50), ..Freshness::default() };
        let window = Duration::from_secs(66);
        let again = |ours, stepped_down| match judge(&noted, Version(ours), stepped_down, window, 2000) {
            Verdict::Fresh => None,
            Verdict::Stale { again, .. } => Some(again),
        };
        assert_eq!((again(50, None), again(51, Some(1999))), (None, None));
        assert_eq!(again(49, None), Some(false), "the first time");
        assert_eq!((again(49, Some(1934)), again(49, Some(1933))), (Some(true), Some(false)), "another election");
        assert_eq!(again(49, Some(2001)), Some(false), "a clock that was set back proves nothing");
    }
}
