//! Is the copy here known to be behind? `--check` compares it with the serving master and notes what that served. If the
//! plan ends before that, changes that were served are missing here, and another machine may have them.
//!
//! Such a machine yields once: ucarp then pauses for longer than another one needs to win. If nobody did, this copy is the
//! best there is (`IF_STALE`). Without a note, or with one of another file system, nothing is known and nothing is said
//! against it.

use std::time::Duration;

use crate::machine::config::IfStale;
use crate::machine::memory::Freshness;
use crate::machine::state::State;
use crate::metadata::Plan;

use super::{Checks, Error};
use crate::machine::memory;

/// A yield for being behind is long ago after this time and twice ucarp's dead time: it was another election.
const SAME_ELECTION: Duration = Duration::from_secs(60);

/// Refuses a copy that is known to be behind, unless this machine has yielded for that just now.
pub(super) fn before_serving(guards: &Checks<'_>, plan: &Plan) -> Result<String, Error> {
    let state = &guards.target.state;
    let Some(noted) = noted(state, plan) else {
        return Ok("the copy was never compared with what is served (mfs-promote --check does it)".to_owned());
    };
    let Some(error) = behind(&noted, plan) else {
        return Ok(format!("the copy has the version {} that was served when it was last compared", noted.served));
    };
    let since =
        memory::recall(state).stepped_down_stale.map(|then| chrono::Utc::now().timestamp().saturating_sub(then));
    let window = SAME_ELECTION + 2 * guards.options.dead_time();
    let yielded = since.is_some_and(|since| u64::try_from(since).is_ok_and(|since| since <= window.as_secs()));
    match guards.target.config.if_stale {
        IfStale::LastResort if yielded => {
            log::warn!("{error}; this machine yielded and nobody better won, so it serves as the last resort");
            Ok("the copy is behind, and served as the last resort".to_owned())
        }
        IfStale::Serve => {
            log::warn!("{error}; it is served all the same (IF_STALE = serve)");
            Ok("the copy is behind".to_owned())
        }
        IfStale::LastResort | IfStale::Never => Err(error),
    }
}

/// The last comparison, if it was with this file system.
fn noted(state: &State, plan: &Plan) -> Option<Freshness> {
    let noted = memory::freshness(state).unwrap_or_else(|e| {
        log::warn!("whether the copy is behind is not known: {}", crate::sys::logging::chain(&e));
        None
    })?;
    let other = noted.metaid.is_some_and(|metaid| plan.metaid != 0 && metaid != plan.metaid);
    (!other).then_some(noted)
}

fn behind(noted: &Freshness, plan: &Plan) -> Option<Error> {
    (plan.end_version < noted.served).then(|| Error::Behind {
        served: noted.served,
        compared: u64::try_from(noted.compared).unwrap_or_default(),
        ours: plan.end_version,
    })
}
