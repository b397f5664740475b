//! The settle time: wait until it is certain that this machine won.
//!
//! Machines that time out together all become MASTER, for up to a second; the losers then step down. A MASTER advertises
//! the moment it becomes one, so silence for one interval and a margin means that there is none.
//!
//! Heartbeats come twenty times as often. Where they say of each other machine of the group that it is in nobody's way, that is
//! waited for instead: see [`gone_or_standing_by`].

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use super::{Election, Failure};
use crate::group::View;
use crate::heartbeat::Role;
use crate::machine::last_heard::{LastHeard, Signs};
use crate::sys::cancel::Cancel;
use crate::sys::text::human;
use crate::timing;
use crate::ucarp::OtherMasters;

/// How long a vanished address may go unnoticed.
const POLL: Duration = Duration::from_millis(50);
/// How it is known sooner.
const OUT_OF_THE_WAY: &str = "by their heartbeats all other machines stand by or were silent before";
/// What arrived in this time before the wait is all kept: it counts.
const HEAD_START: Duration = Duration::from_millis(500);

/// Waits until `others` has received none for an interval and a margin, or heartbeats say the same sooner, and the address is
/// still here. Says how it knows. What has arrived since it was opened counts.
pub(super) fn wait(election: &Election<'_>, mut others: OtherMasters, cancel: &Cancel) -> Result<String, Failure> {
    let options = election.options;
    let silence = timing::settle(options.dead(), options.interval(), election.machine.config.settle_margin);
    let patience = options.dead_time() * timing::SETTLE_DEAD_TIMES;
    let bound = Instant::now() + patience;
    // Packets that nobody takes are lost some time.
    let is_short = others.since().elapsed() < HEAD_START;
    let mut quiet_since = if is_short { others.since() } else { Instant::now() };
    let (instance, begun) = (&election.machine.config.instance, others.since());
    let (mut known, mut before) = (None, None);
    while others.can_be_heard() {
        election.require_vip()?;
        before = before.or_else(|| LastHeard::take(instance, begun));
        let left = (quiet_since + silence).saturating_duration_since(Instant::now());
        let Some(other) = others.wait(left.min(POLL), cancel)? else {
            if left.is_zero() && others.can_be_heard() {
                return Ok(in_words(known, silence));
            }
            let sooner = || before.as_ref().is_some_and(|before| are_out_of_the_way(election, before));
            if quiet_since.elapsed() >= timing::SETTLE_LEAST && sooner() {
                return Ok(format!("{}; {OUT_OF_THE_WAY}", in_words(known, quiet_since.elapsed())));
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

/// Whether each other machine of the group is known to be gone or to stand by, and this one has listened for long enough.
fn are_out_of_the_way(election: &Election<'_>, before: &LastHeard) -> bool {
    let (views, now) = (election.group.views(), Instant::now());
    let silent = timing::silent(election.options.dead(), election.machine.config.settle_margin);
    let is = |(address, view): (&Ipv4Addr, &View)| {
        let signs = before.machines.get(address).copied().unwrap_or_default();
        gone_or_standing_by(view, signs, before.since, silent, now)
    };
    election.group.hears_for().is_some_and(|heard| heard >= timing::SETTLE_LEAST)
        && !views.is_empty()
        && views.iter().all(is)
}

/// Whether a machine that sends heartbeats says now that it answers no client and does not want to, or has been `silent` for so
/// long that its lease has ended. `before` is what the run heard that stood by here, and listened from `since` on.
///
/// Only the last heartbeat shows for how long: of one that advertised after it, some were lost.
fn gone_or_standing_by(view: &View, before: Signs, since: Instant, silent: Duration, now: Instant) -> bool {
    let age = |moment: Instant| now.saturating_duration_since(moment);
    if let Some(heard) = &view.heartbeat {
        let said = &heard.statement;
        let in_the_way = said.answers || matches!(said.role, Role::Serving | Role::Promoting);
        return !in_the_way && age(heard.received) < timing::HEARTBEAT_NOW;
    }
    let heartbeats_were_lost = match (before.heartbeat, before.advertisement) {
        (heartbeat, Some(advertisement)) => {
            heartbeat.is_none_or(|heartbeat| heartbeat + timing::HEARTBEAT_NOW < advertisement)
        }
        (_, None) => false,
    };
    let last = before.heartbeat.unwrap_or(since);
    view.leased && view.advertised.is_none() && !heartbeats_were_lost && age(last) >= silent
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heartbeat::{Heard, Statement};

    const SILENT: Duration = Duration::from_millis(3500);

    /// A machine of the group, in milliseconds before now.
    #[derive(Clone, Copy, Default)]
    struct Machine {
        says: Option<(Role, bool, u64)>,
        advertised: Option<u64>,
        heartbeat_before: Option<u64>,
        advertised_before: Option<u64>,
        unknown_to_heartbeats: bool,
    }

    impl Machine {
        /// Judged by an election here, after a run that had stood by for so many milliseconds.
        fn is_out_of_the_way(self, stood_by_for: u64) -> bool {
            let now = Instant::now() + Duration::from_secs(3600);
            let ago = |milliseconds| now.checked_sub(Duration::from_millis(milliseconds)).unwrap();
            let heartbeat = self.says.map(|(role, answers, milliseconds)| {
                let statement = Statement { role, version: None, metaid: 0, forked_at: None, answers };
                Heard { statement, received: ago(milliseconds) }
            });
            let (advertised, leased) = (self.advertised.map(ago), !self.unknown_to_heartbeats);
            let view = View { heartbeat, advertised, leased, ..View::default() };
            let heartbeat = self.heartbeat_before.map(ago);
            let signs = Signs { heartbeat, advertisement: self.advertised_before.map(ago) };
            gone_or_standing_by(&view, signs, ago(stood_by_for), SILENT, now)
        }
    }

    #[test]
    fn a_machine_that_is_heard_must_say_now_that_it_does_not_serve() {
        let says = |role, answers, ago| Machine { says: Some((role, answers, ago)), ..Machine::default() };
        for role in [Role::StandingBy, Role::Demoting, Role::Stopping] {
            assert!(says(role, false, 50).is_out_of_the_way(9000), "{role:?}");
            assert!(!says(role, true, 50).is_out_of_the_way(9000), "{role:?}: its lease is open");
            assert!(!says(role, false, 300).is_out_of_the_way(9000), "{role:?}: it may have won since");
        }
        for role in [Role::Promoting, Role::Serving] {
            assert!(!says(role, false, 50).is_out_of_the_way(9000), "{role:?}");
        }
    }

    #[test]
    fn a_machine_that_is_not_heard_must_have_been_silent_for_longer_than_its_lease() {
        let died = |heartbeat, advertisement| Machine {
            heartbeat_before: Some(heartbeat),
            advertised_before: Some(advertisement),
            ..Machine::default()
        };
        assert!(died(3500, 4200).is_out_of_the_way(9000));
        assert!(!died(3499, 4200).is_out_of_the_way(9000));
        assert!(!died(5000, 4200).is_out_of_the_way(9000), "its heartbeats did not come, so its end is not known");
        assert!(died(4300, 4200).is_out_of_the_way(9000), "sent between two heartbeats");
        let advertises = Machine { advertised: Some(100), ..died(9000, 9000) };
        assert!(!advertises.is_out_of_the_way(9000));
    }

    #[test]
    fn a_machine_that_is_off_is_known_by_the_silence_of_a_whole_run() {
        let off = Machine::default();
        assert!(off.is_out_of_the_way(3500) && !off.is_out_of_the_way(3499));
        let only_ucarp = Machine { unknown_to_heartbeats: true, ..off };
        assert!(!only_ucarp.is_out_of_the_way(9000), "it would send none if it lived");
        let only_advertised = Machine { advertised_before: Some(4000), ..off };
        assert!(!only_advertised.is_out_of_the_way(9000), "something keeps its heartbeats from here");
    }
}
