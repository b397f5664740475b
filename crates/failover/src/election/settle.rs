//! The settle time: wait until it is certain that this machine won.
//!
//! Machines that time out together all become MASTER, for up to a second; the losers then step down. A MASTER advertises
//! the moment it becomes one, so silence for one interval and a margin means that there is none.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use super::{Election, Failure};
use crate::sys::cancel::Cancel;
use crate::sys::text::human;
use crate::timing;
use crate::ucarp::OtherMasters;

/// How long a vanished address may go unnoticed.
const POLL: Duration = Duration::from_millis(100);
/// What arrived in this time before the wait is all kept: it counts.
const HEAD_START: Duration = Duration::from_millis(500);

/// Waits until `others` has received none for an interval and a margin, and the address is still here. Says how it knows. What has
/// arrived since it was opened counts.
pub(super) fn wait(election: &Election<'_>, mut others: OtherMasters, cancel: &Cancel) -> Result<String, Failure> {
    let options = election.options;
    let silence = timing::settle(options.dead(), options.interval(), election.machine.config.settle_margin);
    let patience = options.dead_time() * timing::SETTLE_DEAD_TIMES;
    let bound = Instant::now() + patience;
    // Packets that nobody takes are lost some time.
    let is_short = others.since().elapsed() < HEAD_START;
    let mut quiet_since = if is_short { others.since() } else { Instant::now() };
    let mut known = None;
    while others.can_be_heard() {
        election.require_vip()?;
        let left = (quiet_since + silence).saturating_duration_since(Instant::now());
        let Some(other) = others.wait(left.min(POLL), cancel)? else {
            if left.is_zero() && others.can_be_heard() {
                return Ok(in_words(known, silence));
            }
            continue;
        };
        election.note_master(other);
        if known.replace(other) != Some(other) {
            log::info!("{other} also advertises as MASTER; waiting for one side to step down");
        }
        quiet_since = Instant::now();
        if quiet_since > bound {
            return Err(Failure::OtherMaster { other, after: patience });
        }
    }
    wait_unheard(election, cancel)
}

fn in_words(known: Option<Ipv4Addr>, silence: Duration) -> String {
    match known {
        None => format!("no other MASTER for {}", human(silence)),
        Some(other) => format!("{other} stepped down"),
    }
}

/// Where advertisements cannot be received.
fn wait_unheard(election: &Election<'_>, cancel: &Cancel) -> Result<String, Failure> {
    log::warn!("waiting {} instead", human(timing::SETTLE_UNHEARD));
    let end = Instant::now() + timing::SETTLE_UNHEARD;
    while Instant::now() < end {
        election.require_vip()?;
        cancel.sleep(POLL)?;
    }
    election.require_vip()?;
    Ok("other MASTERs cannot be heard here".to_owned())
}
