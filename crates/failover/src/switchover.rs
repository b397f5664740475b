//! `--hand-over`: this machine serves, and another one is to.
//!
//! The master is told to stop first: that takes it four seconds and more (3.0.117), in which it serves on. At once ucarp
//! steps back too, and takes the address away: from then on clients wait, and the metaloggers have all that was
//! acknowledged, since the master sends them a change in the same moment as the answer. The other machines take ucarp's
//! silence for death, and meanwhile the master stores its metadata. What becomes of this machine is the work of the
//! demotion that ucarp calls; it is told by a mark in the state folder that it need not wait. If nobody takes over, ucarp
//! here wins again, and that promotion finds the newest metadata of all.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use crate::machine::config::Config;
use crate::machine::lock::{Locks, Role};
use crate::machine::state;
use crate::moosefs::workarounds::tcp_resets::ClientListener;
use crate::moosefs::{self, Daemon};
use crate::sys::address::{self, Interface};
use crate::sys::cancel::Cancel;
use crate::sys::logging::chain;
use crate::sys::process;
use crate::ucarp::carp::Listener;
use crate::ucarp::{self, Ucarp};

use crate::machine::run::Run;
use crate::machine::{self, Machine};
use crate::report::Result;
use crate::sys::text::human;

/// Between two questions.
const ASK_EVERY: Duration = Duration::from_millis(20);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(1);
/// Added to three of ucarp's dead times: what another machine may take to load the metadata.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why nothing was handed over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// There is none.
    #[error("no ucarp runs here for that address, so this machine serves nobody; run it on the one that serves")]
    NoUcarp,
    /// No ucarp, or several.
    #[error("{found} ucarp run here: say which by --interface and --vip")]
    WhichUcarp {
        /// How many.
        found: usize,
    },
    /// Not the serving machine.
    #[error("this machine does not serve on {vip}: {why}; run it on the one that does")]
    NotServing {
        /// The virtual IP.
        vip: Ipv4Addr,
        /// What is missing.
        why: String,
    },
    /// ucarp would take the address back.
    #[error("ucarp here was started with -P and would take the address back at once; start it without")]
    Preempts,
    /// Nobody to hand over to.
    #[error(
        "no metalogger of another machine is connected to this master, so nobody could take over without a loss; start \
         mfsmetalogger on a standby and look at mfs-promote --dry-run there"
    )]
    NoStandby,
    /// Nobody took over.
    #[error("no other machine took over within {}; ucarp here wins the address again by itself", human(*after))]
    NobodyCame {
        /// How long they were given.
        after: Duration,
    },
    /// Nobody took over, and this machine did.
    #[error(
        "no other machine took over: {vip} is back here, and this machine serves again; see the logs of the others"
    )]
    CameBack {
        /// The virtual IP.
        vip: Ipv4Addr,
    },
    /// The daemons.
    #[error(transparent)]
    MooseFs(#[from] moosefs::Error),
    /// The master could not be told.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// ucarp could not be told.
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
    Cancelled(#[from] crate::sys::cancel::Cancelled),
}

/// Hands over, and reports who took over and how long clients were blocked.
pub(crate) fn hand_over(config: Config, address: Option<(&str, Ipv4Addr)>, cancel: &Cancel) -> Result<bool> {
    let caller = find_ucarp(address)?;
    let vip = caller.options.vip.ok_or(Failure::NoUcarp)?;
    let name = caller.options.interface.clone().or(address.map(|(name, _)| name.to_owned()));
    let interface = address::interface(&name.ok_or(Failure::NoUcarp)?)?;
    let lock = Locks::system()?.acquire_if_free(Role::Demotion)?;
    let target = Machine::open(config)?;
    let mut run = Run::new("hand-over", Some(vip));
    let work = Switchover { target: &target, interface: &interface, vip, caller: &caller, cancel };
    let stopping = work.check(&mut run).and_then(|()| work.stop_master(&mut run));
    // The demotion that ucarp is about to call has its turn now.
    drop(lock);
    let begun = stopping.and_then(|()| work.step_back(&mut run));
    if begun.is_err() {
        // What ucarp does next, it does for reasons of its own.
        target.state.take_switchover(caller.identity())?;
    }
    let handed_over = begun.and_then(|begun| work.watch(begun, &mut run));
    let outcome = match &handed_over {
        Ok(()) => "handed over",
        Err(failure) => {
            run.record.error = Some(chain(failure));
            "not handed over"
        }
    };
    run.end(outcome, Some(&target.state));
    handed_over?;
    Ok(true)
}

/// The ucarp at this address; without one, the only one of this machine.
fn find_ucarp(address: Option<(&str, Ipv4Addr)>) -> std::result::Result<Ucarp, Failure> {
    if let Some((name, vip)) = address {
        return Ucarp::find(name, vip).ok_or(Failure::NoUcarp);
    }
    let mut all = Ucarp::all();
    match all.len() {
        0 => Err(Failure::NoUcarp),
        1 => Ok(all.remove(0)),
        found => Err(Failure::WhichUcarp { found }),
    }
}

struct Switchover<'a> {
    target: &'a Machine,
    interface: &'a Interface,
    vip: Ipv4Addr,
    caller: &'a Ucarp,
    cancel: &'a Cancel,
}

impl Switchover<'_> {
    /// Changes nothing.
    fn check(&self, run: &mut Run) -> std::result::Result<(), Failure> {
        let not_serving = |why: String| Failure::NotServing { vip: self.vip, why };
        if !address::holds(self.interface, self.vip)? {
            return Err(not_serving(format!("the address is not on {}", self.interface.name)));
        }
        if self.target.running(Daemon::Master)?.is_none() {
            return Err(not_serving("no mfsmaster runs".to_owned()));
        }
        let info = self.target.ask_master()?;
        run.record.version = info.metadata_version;
        if self.caller.options.preempt {
            return Err(Failure::Preempts);
        }
        let own = address::own_addresses()?;
        let mut others = moosefs::metaloggers(self.port(), ANSWER)?;
        others.retain(|address| !own.contains(address));
        if others.is_empty() {
            return Err(Failure::NoStandby);
        }
        let names: Vec<_> = others.iter().map(ToString::to_string).collect();
        run.done("check", format_args!("this machine serves; metaloggers connected from {}", names.join(", ")));
        Ok(())
    }

    /// Tells the master to stop. It serves on for seconds, until it has stored its metadata or the address goes.
    fn stop_master(&self, run: &mut Run) -> std::result::Result<(), Failure> {
        self.cancel.check()?;
        let pid = self.target.running(Daemon::Master)?;
        let master = pid.map(|identity| identity.open()).transpose()?.flatten();
        self.target.state.note_switchover(self.caller.identity())?;
        if let Some(master) = master {
            master.signal(rustix::process::Signal::TERM)?;
        }
        run.done("stop", format_args!("mfsmaster told to stop"));
        Ok(())
    }

    /// Makes ucarp step back, which takes the address away. Answers when.
    fn step_back(&self, run: &mut Run) -> std::result::Result<Instant, Failure> {
        let begun = Instant::now();
        self.caller.step_back()?;
        run.done("ucarp", format_args!("pid {} told to step back", self.caller.pid));
        Ok(begun)
    }

    /// Waits until another machine serves.
    fn watch(&self, begun: Instant, run: &mut Run) -> std::result::Result<(), Failure> {
        let own = address::own_addresses()?;
        let ear = Listener::open(&self.interface.name, self.interface.index, self.caller.options.group).ok();
        let (mut winner, mut gone, mut clients) = (None, false, None);
        let patience = self.caller.options.dead_time() * 3 + PATIENCE;
        while begun.elapsed() < patience {
            let heard = ear.as_ref().and_then(|ear| ear.next(Duration::ZERO, self.cancel).ok().flatten());
            let rival = heard.filter(|ad| ad.vhid == self.caller.options.vhid && !own.contains(&ad.source));
            winner = rival.map(|ad| ad.source).or(winner);
            let here = address::holds(self.interface, self.vip)?;
            if !here && !gone {
                gone = true;
                // Until they know better, they send to this machine.
                let ear = ClientListener::open(self.interface.index, self.port());
                clients = ear.inspect_err(|e| log::warn!("{}; clients will wait longer", chain(e))).ok();
            }
            if gone && here {
                return Err(Failure::CameBack { vip: self.vip });
            }
            // Only now is it certain that an answer comes from elsewhere.
            if gone && moosefs::info(self.port(), ANSWER).is_ok() {
                let reset = clients.map(ClientListener::reset_all);
                self.report(begun, winner, run);
                if let Some(reset) = reset {
                    run.reset(reset);
                }
                return Ok(());
            }
            self.cancel.sleep(ASK_EVERY)?;
        }
        Err(Failure::NobodyCame { after: patience })
    }

    fn report(&self, begun: Instant, winner: Option<Ipv4Addr>, run: &mut Run) {
        let blocked = human(begun.elapsed());
        let who = winner.map_or_else(|| "another machine".to_owned(), |winner| winner.to_string());
        run.done("serve", format_args!("{who} serves on {}; no master answered for {blocked}", self.vip));
    }

    fn port(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.vip, self.target.config.client_port)
    }
}
