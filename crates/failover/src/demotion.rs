//! The transition to a standby. [`demote`] is the entry point, [`Demotion::steps`] the order of the work.
//!
//! The hook has removed the address already, so the master serves no client. ucarp does not say why it called the hook: it
//! was restarted beside a healthy master, and the address comes back after ucarp's dead time; or another machine won. The
//! grace waits for that, and listens. Another MASTER that advertises and falls silent has found that it lacks changes, and
//! the address comes back here a dead time after its last advertisement. One that goes on has found that it lacks none, and
//! waits for this master to stop.
//!
//! A master that must stop does so whatever else is broken on this machine.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::machine::call::{Call, Origin};
use crate::machine::config::Config;
use crate::machine::lock::{self, Lock, Locks, Request};
use crate::machine::notify::{self, Event};
use crate::machine::outcome::{Outcome, RunKind, StepName};
use crate::machine::run::Run;
use crate::machine::state::State;
use crate::machine::{self, Machine, commit, memory, recover, stop_master_of_broken_machine};
use crate::moosefs::{self, Daemon};
use crate::policy::Why;
use crate::standby::Standby;
use crate::sys::cancel::{Cancel, Cancelled};
use crate::sys::logging::chain;
use crate::sys::text::human;
use crate::timing;
use crate::ucarp::Options;

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

/// Stops the master, unless the address comes back within the grace, and stays as a standby. `call` is that of a hook; an
/// administrator names a configuration at most. Returns true if it succeeded, or if a later call has taken over.
pub(crate) fn demote(call: Option<&Call>, config: Option<&Path>, cancel: &Cancel) -> bool {
    let config = load_config(call, config);
    let lock = match take_lock(call, cancel) {
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
        run.end(State::open().ok().as_ref());
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

/// The configuration, or the defaults where it cannot be used.
fn load_config(call: Option<&Call>, file: Option<&Path>) -> Config {
    let file = call.map_or(file, |call| call.config.as_deref());
    file.map_or_else(|| Config::for_xparam(None), Config::load).unwrap_or_else(|e| {
        log::error!("going on with the defaults: {}", chain(&e));
        Config::fallback()
    })
}

/// Takes the lock. A hook's demotion goes on without it where its files are broken: the master must stop.
fn take_lock(call: Option<&Call>, cancel: &Cancel) -> Result<Option<Lock>, lock::Error> {
    let Some(call) = call else {
        return Locks::system()?.acquire_if_free(RunKind::Demotion).map(Some);
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
            memory::stopped_serving(&machine.state);
            self.run.done(StepName::Check, format_args!("no master runs here"));
            return Ok(Demoted::NothingToDo);
        }
        let grace = if self.is_switchover(machine) { Duration::ZERO } else { self.grace() };
        if self.vip_comes_back(grace)? {
            return Ok(Demoted::Kept);
        }
        memory::stopped_serving(&machine.state);
        machine.stop(Daemon::Master)?;
        self.run.done(StepName::Stop, format_args!("mfsmaster stopped"));
        if machine.running(Daemon::Metalogger)?.is_none() {
            machine.start_metalogger()?;
            self.run.done(StepName::Metalogger, format_args!("started"));
        }
        Ok(Demoted::Stopped)
    }

    /// Where the machine cannot be opened: only the master is stopped.
    fn stop_without_machine(&mut self) -> Result<Demoted, Failure> {
        if self.vip_comes_back(self.grace())? {
            return Ok(Demoted::Kept);
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

    /// How long ucarp takes at most to become MASTER again after its start: its dead time and one step of its polling. An
    /// administrator's demotion waits for nothing.
    fn grace(&self) -> Duration {
        self.call.map_or(Duration::ZERO, |_| grace(&self.options()))
    }

    fn options(&self) -> Options {
        self.call.and_then(|call| call.ucarp.as_ref()).map(|ucarp| ucarp.options.clone()).unwrap_or_default()
    }

    /// Waits for the address to come back, for `grace` and a little longer where another MASTER comes and goes.
    fn vip_comes_back(&mut self, grace: Duration) -> Result<bool, Failure> {
        let Some(call) = self.call else { return Ok(false) };
        let vip = call.virtual_ip();
        log::info!("waiting {} before stopping the master, in case ucarp is only restarting", human(grace));
        let begun = Instant::now();
        let mut others = vip.other_masters(&self.options());
        let mut end = begun + grace;
        loop {
            // An interface that is gone holds no address.
            if vip.holds().unwrap_or(false) || self.request.is_some_and(Request::superseded) {
                self.run.done(StepName::Grace, format_args!("{vip} is back; the master was not touched"));
                return Ok(true);
            }
            others.wait(POLL, self.cancel)?;
            if let Some(other) = others.advertising_for(timing::OTHER_DECIDES) {
                log::info!("{other} keeps advertising {vip}: it is waiting for this master to stop");
                break;
            }
            if Instant::now() < end {
                continue;
            }
            match others.silent_since(Instant::now()) {
                Some(last) if last + grace > end && begun.elapsed() < grace * timing::GRACES => {
                    log::info!("the other machine stopped advertising; waiting for {vip} to return");
                    end = last + grace;
                }
                _ => break,
            }
        }
        self.run.done(StepName::Grace, format_args!("{vip} did not come back"));
        Ok(false)
    }
}

/// How long a restarted ucarp takes at most to become MASTER again.
pub(crate) fn grace(options: &Options) -> Duration {
    options.dead_time() + options.interval() + timing::GRACE_MARGIN
}
