//! A serving machine goes on asking whether it still may serve, and still does.
//!
//! When the serving machine itself is cut off, nobody tells it: its ucarp stays MASTER, and no hook is called. Beyond the
//! cut another machine is promoted; when the network is back ucarp may prefer this one, and clients would get yesterday's
//! file system. Nor does ucarp look at the master: one that has died would leave the address with nobody behind it. So the
//! run that ended serving stays, holds no lock, and looks twice in a second:
//!
//! - All chunkservers and clients that were ever connected to this master, `PING_NODES` and the machines heard are silent
//!   for as long as another machine needs to be promoted: it steps back. At least two machines must be known for that, or
//!   the death of a standby that is also the only other chunkserver would end the service.
//! - A master is alive elsewhere at a later version: it steps back at once.
//! - The master here has ended, or answers nobody for longer than a start of it may take: it steps back.
//! - Metaloggers come to an idle master: see [`crate::moosefs::workarounds::nudge`].
//! - Machines whose metaloggers have come may be masters later: their addresses are remembered.
//! - The address is taken away, or ucarp is gone: see [`vip_monitor`].
//! - Another machine announces the address: see [`reannounce`].
//!
//! It ends with the next call of a hook.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::machine::config::PingNodes;
use crate::machine::lock::Place;
use crate::moosefs::{Daemon, Info};
use crate::sys::address::{self, Interface};
use crate::sys::cancel::Cancel;
use crate::sys::logging::chain;
use crate::sys::tcp;
use crate::ucarp::Ucarp;

use crate::election;
use crate::election::isolation::Known;
use crate::election::peers;
use crate::machine::Machine;
use crate::machine::memory;
use crate::machine::step_down::{self, StepDown};
use crate::moosefs::workarounds::nudge::Newcomers;
use crate::sys::text::human;

mod reannounce;
mod vip_monitor;

use reannounce::Claims;

const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Between two questions to the master which metaloggers have come.
const LEARN_EVERY: Duration = Duration::from_secs(2);
/// A master that is started again is back within this: it takes its lock before it loads.
const RESTART: Duration = Duration::from_secs(3);
/// What is asked of a machine that was connected: a chunkserver accepts, any other machine refuses, which is an answer too.
const ASKED_PORT: u16 = 9422;
/// Whoever was reached within this, and has looked around within this, knows how things stand.
const AWAKE: Duration = Duration::from_secs(2);
/// Fewer machines than this may just have died.
const ENOUGH: usize = 2;

/// Why a serving machine steps back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Reason {
    /// It may not serve any more.
    #[error(transparent)]
    Guard(#[from] election::Error),
    /// It does not serve any more.
    #[error("mfsmaster has ended, and none runs here since {}; its own log lines say why", human(*.0))]
    Ended(Duration),
    /// Nor does it if its master hangs.
    #[error("mfsmaster runs, but has answered nobody for {}", human(*.0))]
    Mute(Duration),
    /// Somebody fights for the address.
    #[error("{vip} was taken off {interface} {times} times within {}: find out by whom", human(*within))]
    TakenAway {
        /// The virtual IP.
        vip: Ipv4Addr,
        /// Where it was.
        interface: String,
        /// How often.
        times: usize,
        /// In which time.
        within: Duration,
    },
    /// It is gone for good.
    #[error("{0} was taken away and cannot be put back")]
    Gone(Ipv4Addr, #[source] address::Error),
}

/// What is watched over.
pub(crate) struct Monitor<'a> {
    pub(crate) target: &'a Machine,
    pub(crate) interface: &'a Interface,
    pub(crate) vip: Ipv4Addr,
    pub(crate) caller: &'a Ucarp,
    /// The configuration file that was named by the hook.
    pub(crate) config: Option<&'a Path>,
    /// The place of the call that this run belongs to.
    pub(crate) place: Place,
    pub(crate) cancel: &'a Cancel,
    /// Set once the watch is over: by whichever of its parts ended it.
    pub(crate) over: AtomicBool,
}

impl Monitor<'_> {
    /// Stays until the watch is over; steps down if this machine must not or cannot serve any more, and returns why.
    pub(crate) fn stand(self) -> Option<Reason> {
        std::thread::scope(|scope| {
            let keeper = scope.spawn(|| self.keep_address());
            let reason = self.ask();
            reason.or(keeper.join().expect("keeping the address does not panic"))
        })
    }

    fn ask(&self) -> Option<Reason> {
        let (mut known, mut newcomers) = (Known::default(), Newcomers::default());
        let (mut answered, mut witness) = (Instant::now(), None);
        let (mut learnt, mut health): (Option<Instant>, _) = (None, Health::new());
        let mut claims = self.target.config.arp_probe.then(|| Claims::listen(self.interface, self.vip));
        let mut looked = Instant::now();
        while self.is_on_duty() && self.cancel.sleep(LOOK_EVERY).is_ok() {
            self.refresh(&mut known);
            if known.machines() < ENOUGH || known.answers(&mut witness) {
                answered = Instant::now();
            }
            let info = self.target.ask_master().ok();
            if let Some(info) = &info {
                newcomers.look(SocketAddrV4::new(self.vip, self.port()), info);
                if learnt.is_none_or(|last| last.elapsed() >= LEARN_EVERY) {
                    self.learn();
                    learnt = Some(Instant::now());
                }
            }
            let silent = answered.elapsed();
            let reason = if let Some(reason) = health.look(self.target, info.is_some()) {
                Some(reason)
            } else if silent > self.patience() {
                Some(election::Error::Isolated { asked: known.named(), after: silent }.into())
            } else {
                info.and_then(|info| self.newer_elsewhere(&info)).map(Reason::from)
            };
            if let Some(reason) = reason.filter(|_| self.is_on_duty()) {
                return Some(self.step_back(reason));
            }
            // Not after a pause of this machine: another one may have won meanwhile, and ucarp is about to say so.
            if silent < AWAKE && looked.elapsed() < AWAKE && self.holds() {
                claims.iter_mut().for_each(Claims::answer);
            }
            looked = Instant::now();
        }
        None
    }

    /// Gives the address up, and ends the watch before that: nobody is to put it back.
    fn step_back(&self, reason: Reason) -> Reason {
        self.over.store(true, Ordering::SeqCst);
        log::error!("this machine serves no more: {}", chain(&reason));
        memory::role_changed(&self.target.state);
        step_down::step_down(StepDown::Yield, &self.interface.name, self.vip, Some(self.caller), Some(&self.place));
        reason
    }

    /// Others wait for a dead time, then listen for an interval and a bit: no promotion is quicker.
    fn patience(&self) -> Duration {
        self.caller.options.dead_time() + self.caller.options.interval() * 3 / 2
    }

    fn is_on_duty(&self) -> bool {
        !self.over.load(Ordering::SeqCst) && !self.cancel.is_set() && !self.place.superseded()
    }

    /// Who can be asked now. Whoever was connected once stays known when it is not any more.
    fn refresh(&self, known: &mut Known) {
        let Ok(own) = address::own_addresses() else { return };
        let PingNodes::Any(configured) = &self.target.config.ping_nodes else { return };
        let ports = [self.target.config.chunkserver_port, self.port()];
        let connected = ports.into_iter().flat_map(tcp::connected_to);
        let elsewhere = connected.filter(|address| !own.contains(address) && !address.is_loopback());
        known.chunkservers.extend(elsewhere.map(|address| SocketAddrV4::new(address, ASKED_PORT)));
        known.peers = self.peers().into_iter().map(|peer| SocketAddrV4::new(peer, self.port())).collect();
        known.configured.clone_from(configured);
    }

    /// Remembers whose metaloggers have come. In turn with the hooks: what a later run remembers is not overwritten.
    fn learn(&self) {
        let known = self.peers();
        let mut others = peers::copying_from(self.vip, self.port());
        others.retain(|machine| !known.contains(machine));
        if others.is_empty() {
            return;
        }
        let _turn = self.place.turn();
        if !self.place.superseded() {
            memory::remember_standbys(&self.target.state, others);
        }
    }

    fn newer_elsewhere(&self, ours: &Info) -> Option<election::Error> {
        let version = ours.metadata_version?;
        let (rival, version, ours) = peers::newer_than(&self.peers(), self.port(), version, ours.metaid)
            .map(|(rival, newer)| (rival, newer, version))?;
        Some(election::Error::Newer { rival, version, ours })
    }

    fn peers(&self) -> BTreeSet<Ipv4Addr> {
        peers::addresses(&self.target.config, &memory::recall(&self.target.state)).unwrap_or_default()
    }

    fn port(&self) -> u16 {
        self.target.config.client_port
    }
}

/// Since when the master here is not there, or says nothing.
struct Health {
    ran: Instant,
    answered: Instant,
}

impl Health {
    fn new() -> Self {
        Self { ran: Instant::now(), answered: Instant::now() }
    }

    /// What is wrong by now.
    fn look(&mut self, target: &Machine, answers: bool) -> Option<Reason> {
        let now = Instant::now();
        let runs = answers || !matches!(target.running(Daemon::Master), Ok(None));
        self.ran = if runs { now } else { self.ran };
        self.answered = if answers { now } else { self.answered };
        if self.ran.elapsed() > RESTART {
            return Some(Reason::Ended(self.ran.elapsed()));
        }
        // It may have been started again, and be loading.
        let patience = target.services.start_deadline(target.image_size());
        (self.answered.elapsed() > patience).then(|| Reason::Mute(self.answered.elapsed()))
    }
}
