//! A won election, and what must be certain before this machine serves on it.
//!
//! ucarp says only that it heard no other MASTER. So two things happen side by side: the election [settles](settle), and
//! the checks are made: this machine is not cut off ([`isolation`]), no master that knows more is alive elsewhere
//! ([`peers`]), the copy here is not known to be stale ([`staleness`]), and no other machine has the address
//! ([`duplicate`]). [`flapping`] comes before all of them. An ordinary takeover does not take longer for the checks.
//!
//! Their order matters: a peer's silence counts only if it was asked after something beyond this machine had answered.
//! Otherwise a machine whose network comes back in between would take the silence of the time before for a death.
//!
//! To add a check: a file here with one function, a line in [`Election::check`], a variant of [`Failure`] with its
//! [`Why`](crate::policy::Why), and the places that `docs/overview.md` names at its end.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::group::Group;
use crate::machine::Machine;
use crate::metadata::{Loss, Plan};
use crate::sys::address;
use crate::sys::cancel::{Cancel, Race};
use crate::sys::logging::chain;
use crate::ucarp::{Options, OtherMasters};
use crate::vip::VirtualIp;

mod duplicate;
mod failure;
pub(crate) mod flapping;
pub(crate) mod isolation;
pub(crate) mod peers;
mod settle;
mod staleness;

pub(crate) use failure::Failure;
pub(crate) use staleness::is_last_resort;

/// Between two looks at what another part of the election has found out.
const POLL: Duration = Duration::from_millis(10);

/// An election that this machine has won, as far as ucarp knows.
pub(crate) struct Election<'a> {
    machine: &'a Machine,
    vip: &'a VirtualIp,
    /// The options of our own ucarp. Those of other machines are like them.
    options: &'a Options,
    loss: Loss,
    /// The other machines, asked since this run began.
    group: &'a Group,
    seen: Mutex<Seen>,
}

/// What the parts of the election tell each other while they work.
#[derive(Debug, Default)]
struct Seen {
    other_masters: BTreeSet<Ipv4Addr>,
    settled: Option<Instant>,
}

/// How the checks passed.
pub(crate) struct Checked(pub(crate) String);

impl<'a> Election<'a> {
    /// The election that the ucarp with these options has won.
    pub(crate) fn new(
        machine: &'a Machine,
        vip: &'a VirtualIp,
        options: &'a Options,
        loss: Loss,
        group: &'a Group,
    ) -> Self {
        Self { machine, vip, options, loss, group, seen: Mutex::default() }
    }

    /// Waits until `others` has heard no other MASTER for long enough, and says how it knows.
    pub(crate) fn settle(&self, others: OtherMasters, cancel: &Cancel) -> Result<String, Failure> {
        let settled = settle::wait(self, others, cancel)?;
        self.seen(|seen| seen.settled = Some(Instant::now()));
        Ok(settled)
    }

    /// Makes the checks for what `plan` would serve; ends when all are passed and the election has settled.
    pub(crate) fn check(&self, plan: &Plan, cancel: &Cancel) -> Result<Checked, Failure> {
        let own = address::own_addresses()?;
        let race = Race::new(cancel);
        let (asked, duplicate) = std::thread::scope(|scope| {
            let duplicate = scope.spawn(|| race.run(|cancel| duplicate::check(self, cancel)));
            let asked = race.run(|cancel| {
                let reached = self.unless_waived(isolation::check(self, plan, &own, cancel))?;
                let peers = self.unless_waived(peers::check(self, plan, cancel))?;
                let fresh = self.unless_waived(staleness::check(self, plan))?;
                Ok(format!("{reached}; {peers}; {fresh}"))
            });
            // A panic ends the process.
            (asked, duplicate.join().unwrap_or_default())
        });
        match (race.first_error(), asked, duplicate) {
            (Some(failure), ..) => Err(failure),
            (None, asked, duplicate) => {
                let passed: Vec<_> = asked.into_iter().chain(duplicate).collect();
                Ok(Checked(passed.join("; ")))
            }
        }
    }

    /// Fails if another machine may have what a metalogger had not written when it was killed at its stop.
    pub(crate) fn metalogger_killed(&self) -> Result<(), Failure> {
        self.unless_waived(staleness::metalogger_killed(self).map(|()| String::new())).map(drop)
    }

    /// With `--allow-data-loss` a check that is about lost changes only warns.
    fn unless_waived(&self, result: Result<String, Failure>) -> Result<String, Failure> {
        match result {
            Err(e) if self.loss == Loss::Allow && e.why().policy().waivable => {
                log::warn!("check overridden by --allow-data-loss: {}", chain(&e));
                Ok("overridden by --allow-data-loss".to_owned())
            }
            result => result,
        }
    }

    /// Fails if the address went away: another machine won.
    fn require_vip(&self) -> Result<(), Failure> {
        if self.vip.holds()? { Ok(()) } else { Err(Failure::Lost { vip: self.vip.clone() }) }
    }

    fn note_master(&self, other: Ipv4Addr) {
        self.seen(|seen| seen.other_masters.insert(other));
    }

    /// The other MASTERs heard so far.
    pub(crate) fn other_masters(&self) -> BTreeSet<Ipv4Addr> {
        self.seen(|seen| seen.other_masters.clone())
    }

    /// How long ago the election settled.
    fn settled_for(&self) -> Option<Duration> {
        self.seen(|seen| seen.settled.map(|since| since.elapsed()))
    }

    fn seen<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
