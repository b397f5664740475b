//! Does the address go from machine to machine? A machine with too many role changes in too short a time stops ucarp: a
//! round of machines that all fail ends, with an alarm on each.
//!
//! Step-downs of an isolated machine do not count: it stays a standby however long it is cut off.

use super::Failure;
use crate::machine::config::Config;
use crate::machine::memory;
use crate::machine::state::State;

/// Fails if the limit is reached.
pub(crate) fn check(config: &Config, state: &State) -> Result<(), Failure> {
    let now = chrono::Utc::now().timestamp();
    let changes = memory::recall(state).role_changes_within(config.flap_window, now);
    if changes >= config.flap_limit {
        return Err(Failure::Flapping { changes, window: config.flap_window });
    }
    Ok(())
}
