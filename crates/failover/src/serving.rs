//! The role of a machine that serves: it goes on asking whether it still may serve, and still does.
//!
//! Nothing tells a serving machine that it is cut off: its ucarp stays MASTER, and no hook is called. Beyond the cut another
//! machine is promoted. Nor does ucarp look at the master: one that has died would leave the address with no master behind
//! it. So the run that was promoted stays, without the lock, and looks around:
//!
//! | it sees | then |
//! |---|---|
//! | no proof that this machine is heard, or another one that claims to serve | answers to clients are held, see [`keeper`] |
//! | a master of another machine whose history goes further | it steps down |
//! | the master here gone, or without an answer for longer than a start may take | it steps down |
//! | metaloggers that connect to an idle master | it makes a change, see [`nudge`](crate::moosefs::workarounds::nudge) |
//! | chunkservers and metaloggers that do not come | it names them, see [`missing`] |
//! | connections to the master | it tells the machines that stand by, see [`tell`] |
//! | other machines of the group | it remembers them: they are asked before the next promotion |
//! | the address gone, or ucarp gone | see [`vip_monitor`] |
//! | another machine that announces the address | see [`reannounce`] |
//!
//! The role ends with the next call of a hook, or when this machine steps down.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use log::Level;

use crate::election;
use crate::group::Group;
use crate::machine::call::Call;
use crate::machine::lock::Request;
use crate::machine::master::{Look, MasterWatch};
use crate::machine::notify;
use crate::machine::record::Record;
use crate::machine::step_down::step_down;
use crate::machine::{Machine, memory};
use crate::moosefs::workarounds::nudge::Nudge;
use crate::moosefs::{CLEAN_STOP_IMAGE, Info};
use crate::sys::cancel::Cancel;
use crate::sys::folder::Folder;
use crate::sys::logging::chain;
use crate::timing;
use crate::ucarp::Ucarp;
use crate::vip::VirtualIp;

mod failure;
pub(crate) mod keeper;
pub(crate) mod missing;
pub(crate) mod reannounce;
mod targets;
mod tell;
mod vip_monitor;

use failure::Failure;
use keeper::Keeper;
use reannounce::Reannounce;
use tell::Teller;

/// Between two notes of who was heard.
const REMEMBER_EVERY: Duration = Duration::from_secs(2);

/// A machine that serves.
pub(crate) struct Serving<'a> {
    call: &'a Call,
    machine: &'a Machine,
    vip: VirtualIp,
    /// `None` for a promotion by hand without a ucarp: then there is no election to take part in.
    ucarp: Option<&'a Ucarp>,
    request: Request,
    cancel: &'a Cancel,
    group: Arc<Group>,
    /// `None` for a run by hand, which ends.
    keeper: Option<Keeper>,
    /// Set once the role is over, by the part that ends it.
    over: AtomicBool,
}

impl<'a> Serving<'a> {
    /// After the promotion that `call` asked for.
    pub(crate) fn of(
        call: &'a Call,
        machine: &'a Machine,
        request: Request,
        cancel: &'a Cancel,
        group: Arc<Group>,
        keeper: Option<Keeper>,
    ) -> Self {
        let (vip, ucarp) = (call.virtual_ip(), call.ucarp.as_ref());
        Self { call, machine, vip, ucarp, request, cancel, group, keeper, over: AtomicBool::new(false) }
    }

    /// Stays until the role is over, and does `meanwhile` beside it, from the first moment on. Steps down if this machine
    /// must not or cannot serve any more.
    pub(crate) fn stay(self, meanwhile: impl FnOnce() -> Record) {
        // A run by hand ends: the administrator waits for it.
        let (Some(ucarp), Some(keeper)) = (self.ucarp, &self.keeper) else {
            meanwhile();
            return;
        };
        self.group.ask_calmly();
        let (failure, mut record) = thread::scope(|scope| {
            let vip = scope.spawn(|| self.keep_vip(ucarp, keeper));
            let look = scope.spawn(|| self.look_around(keeper));
            let record = meanwhile();
            // A panic ends the process.
            let [vip, look] = [vip, look].map(|part| part.join().unwrap_or_default());
            (look.or(vip), record)
        });
        if let Some(failure) = failure {
            record.error = Some(chain(&failure));
            let event = failure.why().policy().event;
            let took = Duration::from_millis(record.total_ms);
            drop(notify::tell(&self.machine.config, event, Some(&self.vip.interface), &record, took));
        }
    }

    fn look_around(&self, keeper: &Keeper) -> Option<Failure> {
        let (mut nudge, mut master) = (Nudge::default(), MasterWatch::begin(self.machine));
        let mut remembered: Option<Instant> = None;
        let mut missing = missing::Watch::new(Instant::now());
        let mut reannounce = self.machine.config.arp_probe.then(|| Reannounce::listen(&self.vip));
        let (mut teller, mut looked) = (Teller::default(), Instant::now());
        while self.is_on_duty() && self.cancel.sleep(timing::MONITOR).is_ok() {
            let look = master.look(self.machine, self.cancel);
            let info = answer(&look);
            if let Some(info) = &info {
                let client_port = self.vip.port(self.machine.config.client_port);
                nudge.nudge_if_idle(client_port, info);
                missing.look(client_port, info.release, &self.machine.state);
            }
            if remembered.is_none_or(|last| last.elapsed() >= REMEMBER_EVERY) {
                self.group.remember(&self.machine.state);
                remembered = Some(Instant::now());
            }
            teller.look(&self.group, &self.machine.config, &self.vip);
            let failure = self.failure_of(&look).or_else(|| keeper.failure().map(Failure::from));
            if let Some(failure) = failure.filter(|_| self.is_on_duty()) {
                return Some(self.step_down(failure));
            }
            // Not after a pause of this machine: another one may have won meanwhile.
            if keeper.answers() && looked.elapsed() < timing::AWAKE && self.holds_vip() {
                reannounce.iter_mut().for_each(Reannounce::answer);
            }
            looked = Instant::now();
        }
        // Without this run nothing renews the lease.
        let told_to_end = self.cancel.check().err().filter(|_| !self.over.load(Ordering::SeqCst));
        let told_to_end = told_to_end.filter(|_| !self.request.superseded());
        told_to_end.map(|cancelled| self.step_down(election::Failure::from(cancelled).into()))
    }

    /// What is wrong with the master here by now.
    fn failure_of(&self, look: &Look) -> Option<Failure> {
        match look {
            Look::Absent(gone) if *gone > restart_time(&self.machine.data) => Some(Failure::Exited(*gone)),
            Look::Hangs(silence) => Some(Failure::Unresponsive(silence.lasted)),
            Look::Busy(silence) => {
                if silence.begins && self.is_on_duty() {
                    log::warn!("{silence}");
                }
                None
            }
            Look::Answers(_) | Look::Absent(_) => None,
        }
    }

    /// Ends the role, then gives the address up: the VIP monitor must not restore it.
    fn step_down(&self, failure: Failure) -> Failure {
        self.over.store(true, Ordering::SeqCst);
        if let Some(keeper) = &self.keeper {
            keeper.release();
        }
        log::error!("stopped serving: {}", chain(&failure));
        let policy = failure.why().policy();
        if policy.counts {
            memory::role_changed(&self.machine.state);
        }
        if let Some(how) = policy.step_down {
            let master = self.machine.config.own_master();
            step_down(how, &self.vip, self.ucarp, Some(&self.request), Some(master), Level::Warn);
        }
        failure
    }

    fn is_on_duty(&self) -> bool {
        !self.over.load(Ordering::SeqCst) && !self.cancel.is_set() && !self.request.superseded()
    }

    fn holds_vip(&self) -> bool {
        // What cannot be found out is not taken for a loss.
        self.vip.holds().unwrap_or(true)
    }
}

/// For how long a master that is gone may be started again. One that was stopped has left an image from which `mfsmaster start`
/// starts, as in a restart by an administrator; after a crash it refuses to. What cannot be found out is waited for.
fn restart_time(data: &Folder) -> Duration {
    match data.status(CLEAN_STOP_IMAGE.as_ref()) {
        Ok(None) => timing::RESTART_CRASHED,
        Ok(Some(_)) | Err(_) => timing::RESTART,
    }
}

/// What the master here answered.
fn answer(look: &Look) -> Option<Info> {
    match look {
        Look::Answers(info) => Some(*info),
        Look::Absent(_) | Look::Busy(_) | Look::Hangs(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_master_that_crashed_is_waited_for_less_long_than_one_that_was_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let data = Folder::open(dir.path()).unwrap();
        std::fs::write(dir.path().join("metadata.mfs.back"), "").unwrap();
        assert_eq!(restart_time(&data), timing::RESTART_CRASHED);
        std::fs::write(dir.path().join("metadata.mfs"), "").unwrap();
        assert_eq!(restart_time(&data), timing::RESTART);
    }
}
