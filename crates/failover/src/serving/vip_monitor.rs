//! The virtual IP of a serving machine, kept where it is.
//!
//! A program that removes it besides our hooks (a restart of networkd, `ip addr flush`) does not know what depends on it, and
//! neither ucarp nor MooseFS notice. It is restored rather than given up: the master and the clients' connections live on,
//! while a failover would block them for seconds. Not at once, for a flush goes on until no address is left. If it is removed
//! again and again, that is meant: then this machine steps down.
//!
//! A ucarp that was killed leaves the address here, and nothing moves it any more. If it is not started again at once, the
//! address is released before another machine can have won it. Later would be too late: from the moment another machine
//! has the address, its metalogger receives nothing of the changes that are acknowledged here. A machine that advertises it
//! then finds a master that knows no more than itself, and that stops. If none does, there is no standby, and the address
//! is restored: this machine serves on alone. The first machine that advertises after that is answered in the same way, but
//! with patience: one that finds that it lacks changes steps down, and the address is restored again.
//!
//! An address that is gone while answers are held (this machine was paused for longer than the address lives, or the
//! kernel has no packet filter) comes back when the lease does, see [`keeper`](super::keeper).

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::keeper::Keeper;
use super::{Failure, Serving};
use crate::group::leaving::{Leaving, Others};
use crate::heartbeat::Role;
use crate::machine::call::Call;
use crate::machine::outcome::RunKind;
use crate::machine::step_down::end_stopped_ucarp;
use crate::moosefs::workarounds::drain::{self, Left};
use crate::sys::address::{Changes, Removed};
use crate::sys::logging::chain;
use crate::sys::process::Stat;
use crate::timing;
use crate::ucarp::{OtherMasters, Ucarp};

/// More removals of the address than this within [`WINDOW`] are no accident.
const MOST_REMOVALS: usize = 3;
const WINDOW: Duration = Duration::from_secs(60);
/// `ip addr flush` repeats until no address is left: it must find none.
const FLUSH: Duration = Duration::from_millis(250);
const POLL: Duration = Duration::from_millis(100);

impl Serving<'_> {
    /// Keeps the address until the role is over.
    pub(super) fn keep_vip(&self, ucarp: &Ucarp, keeper: &Keeper) -> Option<Failure> {
        let changes = Changes::listen().inspect_err(|e| log::warn!("{}; polling instead", chain(e))).ok();
        let mut removals: Vec<Instant> = Vec::new();
        let mut others = self.vip.other_masters(&ucarp.options);
        while self.is_on_duty() {
            if !works(ucarp) {
                return self.without_ucarp(ucarp, keeper, &mut removals);
            }
            if keeper.answers() && !self.holds_vip() && self.cancel.sleep(FLUSH).is_ok() && keeper.answers() {
                others.catch_up(self.cancel);
                if let Some(other) = others.advertising(Instant::now()).filter(|_| self.is_on_duty()) {
                    // Another machine has won, and the hook that removed the address died before it could ask for anything.
                    self.step_aside(ucarp, &format!("{other} advertises it"));
                    return None;
                }
                match self.restore(&mut removals) {
                    Ok(true) => {
                        log::error!("another program removed {} from {}; restored", self.vip, self.vip.interface);
                    }
                    Ok(false) => (),
                    Err(failure) => return Some(self.step_down(failure)),
                }
            }
            others.catch_up(self.cancel);
            match &changes {
                Some(changes) => changes.wait(timing::MONITOR, self.cancel),
                None => drop(self.cancel.sleep(timing::MONITOR)),
            }
        }
        None
    }

    /// Restores the address, unless a hook has removed it or is about to ask for something. Says whether it was missing.
    fn restore(&self, removals: &mut Vec<Instant>) -> Result<bool, Failure> {
        let mutex = self.request.hook_mutex();
        if !self.is_on_duty() || self.holds_vip() {
            return Ok(false);
        }
        removals.retain(|removal| removal.elapsed() < WINDOW);
        removals.push(Instant::now());
        if removals.len() > MOST_REMOVALS {
            return Err(Failure::Removed { vip: self.vip.clone(), times: removals.len(), within: WINDOW });
        }
        let added = self.vip.add(self.machine.config.prefix_length, Some(timing::VIP_LIFETIME));
        drop(mutex);
        added.map_err(|source| Failure::Gone { vip: self.vip.clone(), source })?;
        self.vip.announce();
        Ok(true)
    }

    /// Finds out whether another machine takes over, and serves on if none does.
    fn without_ucarp(&self, ucarp: &Ucarp, keeper: &Keeper, removals: &mut Vec<Instant>) -> Option<Failure> {
        let options = &ucarp.options;
        if ucarp.is_alive() {
            log::error!(
                "ucarp (pid {}) is stopped by a signal and manages {} no more; start it again",
                ucarp.pid,
                self.vip
            );
        } else {
            log::error!("ucarp (pid {}) exited without removing {}; start it again", ucarp.pid, self.vip);
        }
        let mut others = self.vip.other_masters(options);
        let restart =
            options.dead_time().saturating_sub(options.interval() + timing::MONITOR + timing::UCARP_RESTART_MARGIN);
        self.listen(&mut others, restart, |others| others.last_heard().is_some());
        while self.is_on_duty() {
            keeper.release();
            self.release();
            if !others.can_be_heard() {
                self.step_aside(ucarp, "it cannot be heard whether another machine advertises it");
                return None;
            }
            if let Some(other) = self.other_that_lacks_nothing(ucarp, &mut others) {
                self.step_aside(ucarp, &format!("{other} advertises it"));
                return None;
            }
            removals.clear();
            match self.restore(removals) {
                Ok(restored) => {
                    if restored {
                        log::error!("no other machine took over; continuing to serve {} without ucarp", self.vip);
                    }
                    keeper.restored();
                    self.group.say(|statement| statement.role = Role::Serving);
                }
                Err(failure) => return Some(self.step_down(failure)),
            }
            // Alone until another machine advertises again.
            let begun = Instant::now();
            self.listen(&mut others, Duration::MAX, |others| others.heard_since(begun).is_some());
        }
        None
    }

    /// Listens until something was heard that counts, for `time` at most.
    fn listen(&self, others: &mut OtherMasters, time: Duration, counts: impl Fn(&OtherMasters) -> bool) {
        let begun = Instant::now();
        while self.is_on_duty() && begun.elapsed() < time && !counts(others) {
            if others.wait(timing::MONITOR.min(time), self.cancel).is_err() {
                break;
            }
        }
    }

    /// The machine that wants to serve and shows that it lacks nothing; `None` if none does within the time in which one
    /// would, or if it has stepped down.
    fn other_that_lacks_nothing(&self, ucarp: &Ucarp, others: &mut OtherMasters) -> Option<Ipv4Addr> {
        let begun = Instant::now();
        let none_comes = ucarp.options.dead_time() + ucarp.options.interval() + timing::OTHER_SKEW;
        let left = self.machine.ask_master().ok().and_then(|info| info.metadata_version);
        let leaving = Leaving::begin(Arc::clone(&self.group), left);
        let mut heard = false;
        while self.is_on_duty() {
            if let Others::LacksNothing { other, .. } = leaving.look() {
                return Some(other);
            }
            let advertising = others.advertising(Instant::now()).is_some();
            heard |= advertising;
            // It has stepped down, or there is none.
            if !advertising && (heard || begun.elapsed() > none_comes) {
                return None;
            }
            others.wait(POLL, self.cancel).ok()?;
        }
        None
    }

    /// Removes the address for a while, if it is still this run that decides; no acknowledged change is lost.
    fn release(&self) {
        let mutex = self.request.hook_mutex();
        if self.is_on_duty() {
            match drain::remove_address(&self.vip, self.machine.config.own_master(), drain::close) {
                Ok(Left { removed: Removed::Removed, .. }) => {
                    log::warn!("{} removed from {}", self.vip, self.vip.interface);
                }
                Ok(_) => (),
                Err(e) => log::error!("{}", chain(&e)),
            }
        }
        drop(mutex);
    }

    /// Does the work of ucarp's hook: the master is stopped in the background. Without a grace, for the address is gone and
    /// no ucarp here would bring it back.
    fn step_aside(&self, ucarp: &Ucarp, why: &str) {
        let mutex = self.request.hook_mutex();
        if !self.is_on_duty() {
            return;
        }
        self.over.store(true, Ordering::SeqCst);
        log::error!("releasing {}: {why}, and no ucarp manages it here", self.vip);
        let ticket = self.request.ask(RunKind::Demotion).inspect_err(|e| log::warn!("{}", chain(e))).ok();
        drop(mutex);
        if let Err(e) = self.machine.state.note_switchover(ucarp.identity(), None) {
            log::warn!("the master will be stopped only after the full grace: {}", chain(&e));
        }
        let demotion = Call { kind: RunKind::Demotion, ticket, killed: 0, ..self.call.clone() };
        if let Err(e) = demotion.launch() {
            log::error!("the master here is not stopped: {}", chain(&e));
        }
        if ucarp.is_alive() && !works(ucarp) {
            end_stopped_ucarp(ucarp);
        }
    }
}

/// Whether ucarp is there, and not stopped by a signal: then it moves nothing either.
fn works(ucarp: &Ucarp) -> bool {
    ucarp.is_alive() && Stat::of(ucarp.pid).is_none_or(|stat| stat.state != 'T')
}
