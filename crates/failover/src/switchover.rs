//! `--switchover`: another machine takes over from this one, as planned.
//!
//! The master gets TERM first: it needs four seconds and more to stop (3.0.117), in which it serves on. At once ucarp steps
//! down too, and removes the address: from then on clients wait, and the metaloggers have all that was acknowledged, since
//! the master sends them a change together with the answer. The other machines take ucarp's silence for a death, and
//! meanwhile the master stores its metadata. The demotion that ucarp calls does the rest here; a mark in the state folder
//! says that it need not wait. If no machine takes over, ucarp here wins again, and that promotion finds the newest
//! metadata of all.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use crate::instance::Instance;
use crate::machine::config::Config;
use crate::machine::lock::Locks;
use crate::machine::outcome::{Outcome, RunKind, StepName};
use crate::machine::run::Run;
use crate::machine::state;
use crate::machine::{self, Machine};
use crate::moosefs::workarounds::tcp_resets::ClientListener;
use crate::moosefs::{self, Daemon};
use crate::sys::address;
use crate::sys::cancel::{Cancel, Cancelled};
use crate::sys::logging::chain;
use crate::sys::process::{self, Identity};
use crate::sys::text::human;
use crate::ucarp::{self, Ucarp};
use crate::vip::VirtualIp;

/// Between two questions.
const ASK_EVERY: Duration = Duration::from_millis(20);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(1);
/// Added to three of ucarp's dead times: what another machine may take to load the metadata.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why no other machine serves.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// There is none.
    #[error("no ucarp runs here for that address, so this machine does not serve; run it on the one that does")]
    NoUcarp,
    /// No ucarp, or several.
    #[error("{found} ucarps run here; name one with --interface and --vip")]
    WhichUcarp {
        /// How many.
        found: usize,
    },
    /// Not the serving machine.
    #[error("this machine does not serve on {vip}: {why}; run it on the one that does")]
    NotServing {
        /// The virtual IP.
        vip: VirtualIp,
        /// What is missing.
        why: String,
    },
    /// ucarp would take the address back.
    #[error("ucarp here was started with -P and would take the address back at once; start it without")]
    Preempts,
    /// No machine to switch over to.
    #[error(
        "no metalogger of another machine is connected to this master, so no machine could take over without a loss; start \
         mfsmetalogger on a standby and look at mfs-promote --dry-run there"
    )]
    NoStandby,
    /// No machine took over.
    #[error("no other machine took over within {}; ucarp here wins the address again by itself", human(*after))]
    NoneTookOver {
        /// How long they were given.
        after: Duration,
    },
    /// No machine took over, and this one did again.
    #[error(
        "no other machine took over: {vip} is back here, and this machine serves again; see the logs of the other machines"
    )]
    CameBack {
        /// The virtual IP.
        vip: VirtualIp,
    },
    /// The daemons.
    #[error(transparent)]
    MooseFs(#[from] moosefs::Error),
    /// The master could not be signalled.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// ucarp could not be signalled.
    #[error(transparent)]
    Ucarp(#[from] ucarp::Error),
    /// The mark could not be made.
    #[error(transparent)]
    State(#[from] state::Error),
    /// Addresses.
    #[error(transparent)]
    Address(#[from] address::Error),
    /// The data folder.
    #[error(transparent)]
    Machine(#[from] machine::Error),
    /// Told to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// Switches over, and reports which machine took over and how long clients were blocked.
pub(crate) fn switch_over(config: Config, vip: Option<&VirtualIp>, cancel: &Cancel) -> Result<bool, Box<dyn Error>> {
    let (vip, ucarp) = find_ucarp(vip, &config.instance)?;
    let lock = Locks::of(&config.instance)?.acquire_if_free(RunKind::Demotion)?;
    let machine = Machine::open(config)?;
    let mut run = Run::begin(RunKind::Switchover, Some(vip.address));
    let work = Switchover { machine: &machine, vip: &vip, ucarp: &ucarp, cancel };
    let stopping = work.check(&mut run).and_then(|()| work.stop_master(&mut run));
    // The demotion that ucarp is about to call needs it now.
    drop(lock);
    let begun = stopping.and_then(|()| work.step_down(&mut run));
    if begun.is_err() {
        // If ucarp steps down next, it does so for another reason.
        if let Err(e) = machine.state.take_switchover(ucarp.identity()) {
            log::warn!("{}", chain(&e));
        }
    }
    let switched = begun.and_then(|begun| work.watch(begun, &mut run));
    run.record.outcome = match &switched {
        Ok(()) => Outcome::SwitchedOver,
        Err(failure) => {
            run.record.error = Some(chain(failure));
            Outcome::NotSwitchedOver
        }
    };
    run.end(Some(&machine.state));
    switched?;
    Ok(true)
}

/// The ucarp at this address; without one, the only one of the instance.
fn find_ucarp(vip: Option<&VirtualIp>, instance: &Instance) -> Result<(VirtualIp, Ucarp), Failure> {
    if let Some(vip) = vip {
        let ucarp = Ucarp::find(&vip.interface, vip.address);
        let ucarp = ucarp.filter(|ucarp| ucarp.options.xparam.as_deref() == instance.name()).ok_or(Failure::NoUcarp)?;
        return Ok((vip.clone(), ucarp));
    }
    let mut all = Ucarp::all_of(instance);
    let ucarp = match all.len() {
        0 => return Err(Failure::NoUcarp),
        1 => all.remove(0),
        found => return Err(Failure::WhichUcarp { found }),
    };
    let (interface, address) = ucarp.options.interface.clone().zip(ucarp.options.vip).ok_or(Failure::NoUcarp)?;
    Ok((VirtualIp { interface, address }, ucarp))
}

struct Switchover<'a> {
    machine: &'a Machine,
    vip: &'a VirtualIp,
    ucarp: &'a Ucarp,
    cancel: &'a Cancel,
}

impl Switchover<'_> {
    /// Changes nothing.
    fn check(&self, run: &mut Run) -> Result<(), Failure> {
        let not_serving = |why: String| Failure::NotServing { vip: self.vip.clone(), why };
        if !self.vip.holds()? {
            return Err(not_serving(format!("the address is not on {}", self.vip.interface)));
        }
        if self.machine.running(Daemon::Master)?.is_none() {
            return Err(not_serving("no mfsmaster runs".to_owned()));
        }
        let info = self.machine.ask_master()?;
        run.record.version = info.metadata_version;
        if self.ucarp.options.preempt {
            return Err(Failure::Preempts);
        }
        let own = address::own_addresses()?;
        let mut others = moosefs::metaloggers(self.port(), ANSWER)?;
        others.retain(|address| !own.contains(address));
        if others.is_empty() {
            return Err(Failure::NoStandby);
        }
        let names: Vec<_> = others.iter().map(ToString::to_string).collect();
        run.done(StepName::Check, format_args!("this machine serves; metaloggers connected from {}", names.join(", ")));
        Ok(())
    }

    /// Sends TERM to the master. It serves on for seconds, until it has stored its metadata or the address goes.
    fn stop_master(&self, run: &mut Run) -> Result<(), Failure> {
        self.cancel.check()?;
        let pid = self.machine.running(Daemon::Master)?;
        let master = pid.map(|identity| identity.open()).transpose()?.flatten();
        self.machine.state.note_switchover(self.ucarp.identity(), Identity::current())?;
        if let Some(master) = master {
            master.signal(rustix::process::Signal::TERM)?;
        }
        run.done(StepName::Stop, format_args!("mfsmaster is stopping"));
        Ok(())
    }

    /// Makes ucarp step down, which removes the address. Answers when.
    fn step_down(&self, run: &mut Run) -> Result<Instant, Failure> {
        let begun = Instant::now();
        self.ucarp.step_down()?;
        run.done(StepName::Ucarp, format_args!("ucarp (pid {}) steps down", self.ucarp.pid));
        Ok(begun)
    }

    /// Waits until another machine serves.
    fn watch(&self, begun: Instant, run: &mut Run) -> Result<(), Failure> {
        let mut others = self.vip.other_masters(&self.ucarp.options);
        let (mut gone, mut clients) = (false, None);
        let patience = self.ucarp.options.dead_time() * 3 + PATIENCE;
        while begun.elapsed() < patience {
            others.catch_up(self.cancel);
            let here = self.vip.holds()?;
            if !here && !gone {
                gone = true;
                // Until they know better, they send to this machine.
                clients = ClientListener::open_if_possible(self.vip, self.machine.config.client_port);
            }
            if gone && here {
                return Err(Failure::CameBack { vip: self.vip.clone() });
            }
            // Only now is it certain that an answer comes from elsewhere.
            if gone && moosefs::info(self.port(), ANSWER).is_ok() {
                let reset = clients.map(ClientListener::reset_all);
                self.report(begun, others.last_heard(), run);
                if let Some(reset) = &reset {
                    // The machine that serves probes those that are silent.
                    run.clients_reset(reset, None);
                }
                return Ok(());
            }
            self.cancel.sleep(ASK_EVERY)?;
        }
        Err(Failure::NoneTookOver { after: patience })
    }

    fn report(&self, begun: Instant, winner: Option<Ipv4Addr>, run: &mut Run) {
        let blocked = human(begun.elapsed());
        let which = winner.map_or_else(|| "another machine".to_owned(), |winner| winner.to_string());
        run.done(StepName::Serve, format_args!("{which} serves on {}; no master answered for {blocked}", self.vip));
    }

    fn port(&self) -> SocketAddrV4 {
        self.vip.port(self.machine.config.client_port)
    }
}
