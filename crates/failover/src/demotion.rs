//! The transition to a standby. [`demote`] is the entry point, [`Demotion::steps`] the order of the work.
//!
//! The hook has removed the address already, so the master answers no client. ucarp does not say why it called the hook: it
//! was restarted beside a healthy master, and the address comes back after ucarp's dead time; or another machine won. So the
//! master is stopped when another machine *shows* that it lacks nothing: its run says how far its files go, or its master
//! answers. A machine that lacks something finds that out as well, and steps down; then the address comes back here. If ucarp
//! has ended and no other machine is heard within the grace, this one was told to leave, and the master is stopped.
//!
//! If the other machine was promoted beyond a cut, changes that were made here since may be in no served history. They are
//! named in the log and in `--status`, and stay on this machine.
//!
//! A master that must stop does so whatever else is broken on this machine.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::group::leaving::{Leaving, Others};
use crate::group::{Asking, Group};
use crate::heartbeat::{Role, Statement};
use crate::instance::Instance;
use crate::machine::call::{Call, Origin};
use crate::machine::config::Config;
use crate::machine::lock::{self, Lock, Locks, Request};
use crate::machine::memory::Memory;
use crate::machine::notify::{self, Event};
use crate::machine::outcome::{Outcome, RunKind, StepName};
use crate::machine::run::Run;
use crate::machine::state::State;
use crate::machine::{self, Machine, commit, memory, recover, stop_master_of_broken_machine};
use crate::moosefs::{self, Daemon, Info};
use crate::policy::Why;
use crate::standby::Standby;
use crate::sys::cancel::{Cancel, Cancelled};
use crate::sys::logging::chain;
use crate::sys::nft::Lease;
use crate::sys::text::human;
use crate::timing;
use crate::ucarp::{Options, Ucarp};

/// Pause between two looks for the address.
const POLL: Duration = Duration::from_millis(100);

/// Why a demotion failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// An interrupted promotion.
    #[error("an earlier run was interrupted, and its work can neither be finished nor undone")]
    Recover(#[from] recover::Error),
    /// Whether a master runs.
    #[error(transparent)]
    MooseFs(#[from] moosefs::Error),
    /// The daemons, or a part of the machine.
    #[error(transparent)]
    Machine(#[from] machine::Error),
    /// A signal, or a later call.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// How a demotion succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Demoted {
    /// No master was running.
    NothingToDo,
    /// The address came back: the master is still needed.
    Kept,
    /// The master is stopped.
    Stopped,
}

/// How the wait of a demotion ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The address is back: the master is needed here.
    VipIsBack,
    /// This machine has everything.
    LacksNothing(Ipv4Addr),
    /// No other machine wants to serve.
    Alone,
}

/// Stops the master, unless the address comes back within the grace, and stays as a standby. `call` is that of a hook; an
/// administrator names a configuration at most. Returns true if it succeeded, or if a later call has taken over.
pub(crate) fn demote(call: Option<&Call>, config: Option<&Path>, cancel: &Cancel) -> bool {
    let Some(config) = load_config(call, config) else { return false };
    let lock = match take_lock(call, &config.instance, cancel) {
        Ok(lock) => lock,
        Err(lock::Error::Superseded) => {
            log::info!("demotion skipped: superseded by a later call");
            return true;
        }
        Err(e) => {
            log::error!("{}", chain(&e));
            return false;
        }
    };
    let mut run = Run::begin(RunKind::Demotion, call.map(|call| call.vip));
    let request = lock.as_ref().map(Lock::request);
    let mut demotion = Demotion { call, config: &config, request, cancel, run: &mut run };
    let (machine, demoted) = match Machine::open(config.clone()) {
        Ok(machine) => {
            let demoted = demotion.steps(&machine);
            (Some(machine), demoted)
        }
        Err(why) => {
            if let Err(e) = demotion.stop_without_machine() {
                log::error!("cannot stop mfsmaster: {}", chain(&e));
            }
            (None, Err(why.into()))
        }
    };
    let event = note(&mut run, &demoted, request);
    let interface = call.map(|call| call.interface.as_str());
    let notified = event.map(|event| notify::tell(&config, event, interface, &run.record, run.elapsed()));
    let Some(machine) = machine else {
        run.end(State::of(&config.instance).ok().as_ref());
        drop(lock);
        drop(notified);
        return false;
    };
    if demoted.is_ok() {
        commit::archive_all(&machine, &mut run, cancel);
    }
    // The demotions of a standby that is cut off and tries again and again are no news.
    let isolated = memory::recall(&machine.state).isolation.is_some();
    let news = !(isolated && run.record.outcome == Outcome::NothingToDemote);
    run.end(news.then_some(&machine.state));
    let request = lock.map(Lock::release);
    drop(notified);
    if let (Some(call), Some(request)) = (call, request) {
        Standby::of(call, &machine, request, cancel).stay();
    }
    demoted.is_ok()
}

/// The configuration, or what can be read of it where it cannot be used. `None` if nothing says which master is meant: to stop
/// that of another instance would be worse than to stop none.
fn load_config(call: Option<&Call>, file: Option<&Path>) -> Option<Config> {
    let file = call.map_or(file, |call| call.config.as_deref());
    let loaded = file.map_or_else(|| Config::of(&Instance::default()), Config::load);
    loaded.map_or_else(
        |e| {
            let known = Config::salvage_for(file);
            match &known {
                Some(_) => log::error!("going on with what can be read of the configuration: {}", chain(&e)),
                None => log::error!("no master is stopped, because it is not known which one: {}", chain(&e)),
            }
            known
        },
        Some,
    )
}

/// Takes the lock. A hook's demotion goes on without it where its files are broken: the master must stop.
fn take_lock(call: Option<&Call>, instance: &Instance, cancel: &Cancel) -> Result<Option<Lock>, lock::Error> {
    let Some(call) = call else {
        return Locks::of(instance)?.acquire_if_free(RunKind::Demotion).map(Some);
    };
    match call.take_lock(Origin::Hook, cancel) {
        Ok(lock) => Ok(Some(lock)),
        Err(e @ (lock::Error::Superseded | lock::Error::Busy { .. } | lock::Error::Cancelled(_))) => Err(e),
        Err(e) => {
            log::error!("{}; demoting without the lock", chain(&e));
            Ok(None)
        }
    }
}

/// Puts the outcome into the record, logs a failure, and returns the event for `NOTIFY`.
fn note(run: &mut Run, demoted: &Result<Demoted, Failure>, request: Option<&Request>) -> Option<Event> {
    let (outcome, event) = match demoted {
        Ok(Demoted::NothingToDo) => (Outcome::NothingToDemote, None),
        Ok(Demoted::Kept) => (Outcome::MasterKept, None),
        Ok(Demoted::Stopped) => (Outcome::Demoted, Some(Event::Demotion)),
        Err(Failure::Cancelled(_)) if request.is_some_and(Request::superseded) => (Outcome::Superseded, None),
        Err(failure) => {
            log::error!("demotion failed: {}", chain(failure));
            run.record.error = Some(chain(failure));
            (Outcome::Failed, Some(Why::DemotionFailed.policy().event))
        }
    };
    run.record.outcome = outcome;
    event
}

/// A demotion in progress.
struct Demotion<'a> {
    call: Option<&'a Call>,
    config: &'a Config,
    /// `None` where the lock's files are broken.
    request: Option<&'a Request>,
    cancel: &'a Cancel,
    run: &'a mut Run,
}

impl Demotion<'_> {
    fn steps(&mut self, machine: &Machine) -> Result<Demoted, Failure> {
        // Its failure does not keep a master from being stopped.
        let recovered = recover::finish_interrupted(machine, self.run);
        let demoted = self.stop_master(machine)?;
        recovered?;
        Ok(demoted)
    }

    fn stop_master(&mut self, machine: &Machine) -> Result<Demoted, Failure> {
        if machine.running(Daemon::Master)?.is_none() {
            self.remove_lease();
            self.run.done(StepName::Check, format_args!("no master runs here"));
            return Ok(Demoted::NothingToDo);
        }
        let memory = memory::recall(&machine.state);
        let leaving = self.leave(&memory, machine.ask_master().ok().as_ref());
        let end = match &leaving {
            Some(leaving) if !self.is_switchover(machine) => self.wait_for_another(leaving)?,
            // An administrator's demotion waits for nothing.
            _ => End::Alone,
        };
        if end == End::VipIsBack {
            return Ok(Demoted::Kept);
        }
        if let Some(leaving) = &leaving {
            leaving.say_stopping();
        }
        machine.stop(Daemon::Master)?;
        self.run.done(StepName::Stop, format_args!("mfsmaster stopped"));
        self.remove_lease();
        if machine.running(Daemon::Metalogger)?.is_none() {
            machine.start_metalogger()?;
            self.run.done(StepName::Metalogger, format_args!("started"));
        }
        if let (Some(leaving), End::LacksNothing(other)) = (&leaving, end) {
            if let Some(unserved) = leaving.unserved(other, memory.forked_at, self.cancel) {
                unserved.report(machine);
            }
        }
        Ok(Demoted::Stopped)
    }

    /// No master can answer any more. A table that stayed would hold back the answers of one that an administrator starts.
    fn remove_lease(&self) {
        let Some(call) = self.call.filter(|_| !self.request.is_some_and(Request::superseded)) else { return };
        let mutex = self.request.and_then(Request::hook_mutex);
        if !self.request.is_some_and(Request::superseded) {
            if let Err(e) = Lease::on(call.vip, self.config.client_port).remove() {
                log::debug!("cannot remove the packet filter's table of the lease: {e}");
            }
        }
        drop(mutex);
    }

    /// Where the machine cannot be opened: only the master is stopped.
    fn stop_without_machine(&mut self) -> Result<Demoted, Failure> {
        if let Some(leaving) = self.leave(&Memory::default(), None) {
            if self.wait_for_another(&leaving)? == End::VipIsBack {
                return Ok(Demoted::Kept);
            }
        }
        if !stop_master_of_broken_machine(self.config)? {
            return Ok(Demoted::NothingToDo);
        }
        self.run.done(StepName::Stop, format_args!("mfsmaster stopped"));
        Ok(Demoted::Stopped)
    }

    /// Whether the ucarp that called steps down for a switchover.
    fn is_switchover(&self, machine: &Machine) -> bool {
        let ucarp = self.call.and_then(|call| call.ucarp.as_ref());
        let taken = ucarp.map(|ucarp| machine.state.take_switchover(ucarp.identity())).transpose();
        taken.unwrap_or_else(|e| {
            log::warn!("{}", chain(&e));
            None
        }) == Some(true)
    }

    /// Tells the others where this machine has left the virtual IP: at the version that the hook has seen, or what the master
    /// says now. An administrator's demotion tells and waits for nothing.
    fn leave(&self, memory: &Memory, info: Option<&Info>) -> Option<Leaving> {
        let call = self.call?;
        let left = call.left.or(info.and_then(|info| info.metadata_version));
        let metaid = info.and_then(|info| info.metaid).unwrap_or_default();
        let forked_at = memory.forked_at;
        let statement = Statement { role: Role::Demoting, version: left, metaid, forked_at, answers: false };
        let options = call.ucarp.as_ref().map(|ucarp| &ucarp.options);
        let group = Group::join(self.config, memory, &call.virtual_ip(), options, statement, Asking::Eagerly);
        Some(Leaving::begin(Arc::new(group), left))
    }

    /// Waits until another machine shows that it lacks nothing, or until no other one was heard for the grace.
    fn wait_for_another(&mut self, leaving: &Leaving) -> Result<End, Failure> {
        let Some(call) = self.call else { return Ok(End::Alone) };
        let options = call.ucarp.as_ref().map(|ucarp| ucarp.options.clone()).unwrap_or_default();
        let (vip, grace) = (call.virtual_ip(), grace(&options));
        log::info!("waiting {} before stopping the master, in case ucarp is only restarting", human(grace));
        let (mut end, mut lacking) = (Instant::now() + grace, None);
        loop {
            // An interface that is gone holds no address.
            if vip.holds().unwrap_or(false) || self.request.is_some_and(Request::superseded) {
                self.run.done(StepName::Grace, format_args!("{vip} is back; the master was not touched"));
                return Ok(End::VipIsBack);
            }
            leaving.wait(POLL, self.cancel)?;
            match leaving.look() {
                Others::LacksNothing { other, shown } => {
                    self.run.done(StepName::Grace, format_args!("{other} {shown}: it lacks nothing"));
                    return Ok(End::LacksNothing(other));
                }
                Others::Heard { other, at, version } => {
                    end = end.max(at + grace);
                    if lacking.replace(other) != Some(other) {
                        leaving.log_waiting(other, version);
                    }
                }
                Others::None => (),
            }
            // While ucarp lives, it is MASTER again soon, or another one is: a link that is down changes nothing.
            let ucarp_lives = call.ucarp.as_ref().is_some_and(Ucarp::is_alive);
            if Instant::now() >= end && !ucarp_lives {
                self.run.done(StepName::Grace, format_args!("{vip} did not come back, and no other machine is heard"));
                return Ok(End::Alone);
            }
        }
    }
}

/// How long a restarted ucarp takes at most to become MASTER again.
pub(crate) fn grace(options: &Options) -> Duration {
    options.dead_time() + options.interval() + timing::GRACE_MARGIN
}
