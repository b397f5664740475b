//! The role of a machine that serves: it goes on asking whether it still may serve, and still does.
//!
//! When the serving machine itself is cut off, nothing tells it: its ucarp stays MASTER, and no hook is called. Beyond the
//! cut another machine is promoted; when the network is back ucarp may prefer this one, and clients would get an old file
//! system. Nor does ucarp look at the master: one that has died would leave the address with no master behind it. So the run
//! that was promoted stays, without the lock, and looks around twice in a second:
//!
//! | it sees | then |
//! |---|---|
//! | all chunkservers and clients that were ever connected here, `PING_NODES` and the known peers silent for as long as another machine needs to be promoted | it steps down; at least two machines must be known for that, or the death of a standby that is also the only other chunkserver would end the service |
//! | a master of another machine at a later version | it steps down at once |
//! | the master here gone, or without an answer for longer than a start may take | it steps down |
//! | metaloggers that connect to an idle master | it makes a change, see [`nudge`](crate::moosefs::workarounds::nudge) |
//! | machines whose metaloggers copy from here | it remembers them as peers |
//! | the address gone, or ucarp gone | see [`vip_monitor`] |
//! | another machine that announces the address | see [`reannounce`] |
//!
//! The role ends with the next call of a hook, or when this machine steps down.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use log::Level;

use crate::election;
use crate::election::isolation::PingTargets;
use crate::election::peers;
use crate::machine::call::Call;
use crate::machine::config::PingNodes;
use crate::machine::lock::Request;
use crate::machine::memory::Memory;
use crate::machine::notify;
use crate::machine::record::Record;
use crate::machine::step_down::step_down;
use crate::machine::{Machine, memory};
use crate::moosefs::workarounds::nudge::Nudge;
use crate::moosefs::{Daemon, Info};
use crate::sys::address;
use crate::sys::cancel::Cancel;
use crate::sys::logging::chain;
use crate::sys::tcp;
use crate::timing;
use crate::ucarp::Ucarp;
use crate::vip::VirtualIp;

mod failure;
mod reannounce;
mod vip_monitor;

use failure::Failure;
use reannounce::Reannounce;

/// Between two questions to the master which metaloggers copy from it.
const STANDBYS_EVERY: Duration = Duration::from_secs(2);
/// The port that is asked of a machine that was connected: a chunkserver accepts, any other machine refuses, which is an
/// answer too.
const ASKED_PORT: u16 = 9422;
/// Fewer machines than this may just have died.
const ENOUGH: usize = 2;

/// A machine that serves.
pub(crate) struct Serving<'a> {
    call: &'a Call,
    machine: &'a Machine,
    vip: VirtualIp,
    /// `None` for a promotion by hand without a ucarp: then there is no election to take part in.
    ucarp: Option<&'a Ucarp>,
    request: Request,
    cancel: &'a Cancel,
    /// Set once the role is over, by the part that ends it.
    over: AtomicBool,
}

impl<'a> Serving<'a> {
    /// After the promotion that `call` asked for.
    pub(crate) fn of(call: &'a Call, machine: &'a Machine, request: Request, cancel: &'a Cancel) -> Self {
        let (vip, ucarp) = (call.virtual_ip(), call.ucarp.as_ref());
        Self { call, machine, vip, ucarp, request, cancel, over: AtomicBool::new(false) }
    }

    /// Stays until the role is over, and does `meanwhile` beside it, from the first moment on. Steps down if this machine
    /// must not or cannot serve any more.
    pub(crate) fn stay(self, meanwhile: impl FnOnce() -> Record) {
        // A run by hand ends: the administrator waits for it.
        let Some(ucarp) = self.ucarp.filter(|_| self.call.ticket.is_some()) else {
            meanwhile();
            return;
        };
        let (failure, mut record) = thread::scope(|scope| {
            let vip = scope.spawn(|| self.keep_vip(ucarp));
            let look = scope.spawn(|| self.look_around(ucarp));
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

    fn look_around(&self, ucarp: &Ucarp) -> Option<Failure> {
        let (mut known, mut nudge) = (PingTargets::default(), Nudge::default());
        let (mut answered, mut last_answer) = (Instant::now(), None);
        let (mut remembered, mut health): (Option<Instant>, _) = (None, Health::new(Instant::now()));
        let mut reannounce = self.machine.config.arp_probe.then(|| Reannounce::listen(&self.vip));
        let mut looked = Instant::now();
        while self.is_on_duty() && self.cancel.sleep(timing::MONITOR).is_ok() {
            let peers = self.peers(&memory::recall(&self.machine.state));
            self.refresh(&mut known, &peers);
            if known.machines() < ENOUGH || known.answers(&mut last_answer) {
                answered = Instant::now();
            }
            let info = self.machine.ask_master().ok();
            if let Some(info) = &info {
                nudge.nudge_if_idle(self.vip.port(self.port()), info);
                if remembered.is_none_or(|last| last.elapsed() >= STANDBYS_EVERY) {
                    self.remember_standbys(&peers);
                    remembered = Some(Instant::now());
                }
            }
            let silent = answered.elapsed();
            let failure = if let Some(failure) = health.judge(info.is_some(), self.machine) {
                Some(failure)
            } else if silent > isolation_patience(ucarp) {
                Some(election::Failure::Isolated { asked: known.named(), after: silent }.into())
            } else {
                info.and_then(|info| self.newer_elsewhere(&peers, &info)).map(Failure::from)
            };
            if let Some(failure) = failure.filter(|_| self.is_on_duty()) {
                return Some(self.step_down(failure));
            }
            // Not after a pause of this machine: another one may have won meanwhile, and ucarp is about to say so.
            if silent < timing::AWAKE && looked.elapsed() < timing::AWAKE && self.holds_vip() {
                reannounce.iter_mut().for_each(Reannounce::answer);
            }
            looked = Instant::now();
        }
        None
    }

    /// Ends the role, then gives the address up: the VIP monitor must not restore it.
    fn step_down(&self, failure: Failure) -> Failure {
        self.over.store(true, Ordering::SeqCst);
        log::error!("stopped serving: {}", chain(&failure));
        let policy = failure.why().policy();
        if policy.counts {
            memory::role_changed(&self.machine.state);
        }
        if let Some(how) = policy.step_down {
            step_down(how, &self.vip, self.ucarp, Some(&self.request), Level::Warn);
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

    /// Machines that can be asked now. One that was connected once stays known when it is not any more.
    fn refresh(&self, known: &mut PingTargets, peers: &BTreeSet<Ipv4Addr>) {
        let Ok(own) = address::own_addresses() else { return };
        let PingNodes::Any(configured) = &self.machine.config.ping_nodes else { return };
        let ports = [self.machine.config.chunkserver_port, self.port()];
        let connected = ports.into_iter().flat_map(tcp::connected_to);
        let elsewhere = connected.filter(|address| !own.contains(address) && !address.is_loopback());
        known.chunkservers.extend(elsewhere.map(|address| SocketAddrV4::new(address, ASKED_PORT)));
        known.peers = peers.iter().map(|peer| SocketAddrV4::new(*peer, self.port())).collect();
        known.configured.clone_from(configured);
    }

    /// Remembers the machines whose metaloggers copy from here.
    fn remember_standbys(&self, known: &BTreeSet<Ipv4Addr>) {
        let mut others = peers::copying_from(&self.vip, self.port());
        others.retain(|machine| !known.contains(machine));
        if !others.is_empty() {
            memory::remember_standbys(&self.machine.state, others);
        }
    }

    fn newer_elsewhere(&self, peers: &BTreeSet<Ipv4Addr>, ours: &Info) -> Option<election::Failure> {
        let version = ours.metadata_version?;
        let (peer, newer) = peers::newer_than(peers, self.port(), version, ours.metaid)?;
        Some(election::Failure::Newer { peer, version: newer, ours: version })
    }

    fn peers(&self, memory: &Memory) -> BTreeSet<Ipv4Addr> {
        peers::addresses(&self.machine.config, memory).unwrap_or_default()
    }

    fn port(&self) -> u16 {
        self.machine.config.client_port
    }
}

/// After how much silence of all others a serving machine is cut off. Others wait for a dead time, then listen for an
/// interval and a margin: no promotion is quicker.
fn isolation_patience(ucarp: &Ucarp) -> Duration {
    ucarp.options.dead_time() + ucarp.options.interval() * 3 / 2
}

/// Since when the master here does not run, or does not answer.
struct Health {
    ran: Instant,
    answered: Instant,
}

impl Health {
    fn new(now: Instant) -> Self {
        Self { ran: now, answered: now }
    }

    /// What is wrong by now. The machine is looked at only if the master did not answer.
    fn judge(&mut self, answers: bool, machine: &Machine) -> Option<Failure> {
        let now = Instant::now();
        let runs = answers || !matches!(machine.running(Daemon::Master), Ok(None));
        self.ran = if runs { now } else { self.ran };
        if answers {
            self.answered = now;
            return None;
        }
        if self.ran.elapsed() > timing::RESTART {
            return Some(Failure::Exited(self.ran.elapsed()));
        }
        // It may have been started again, and be loading.
        let patience = machine.services.start_deadline(machine.image_size());
        (self.answered.elapsed() > patience).then(|| Failure::Unresponsive(self.answered.elapsed()))
    }
}
