//! Does the address go round and round? A machine that was promoted, or yielded, too often in too short a time resigns:
//! a round of machines that all fail ends, with an alarm on each.
//!
//! Yields of an isolated machine do not count. It is to go on as a standby however long it is cut off.

use crate::machine::config::Config;
use crate::machine::state::State;

use super::Error;
use crate::machine::memory;

/// Refuses if the limit is reached.
pub(crate) fn check(config: &Config, state: &State) -> Result<(), Error> {
    let now = chrono::Utc::now().timestamp();
    let turns = memory::recall(state).role_changes_within(config.flap_window, now);
    if turns >= config.flap_limit {
        return Err(Error::Flapping { turns, window: config.flap_window });
    }
    Ok(())
}
