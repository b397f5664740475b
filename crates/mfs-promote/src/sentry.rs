//! A serving machine goes on asking whether it still may serve.
//!
//! When the serving machine itself is cut off, nobody tells it: its ucarp stays MASTER, and no hook is called. Beyond the
//! cut another machine is promoted; when the network is back ucarp may prefer this one, and clients would get yesterday's
//! file system. So the run that ended serving stays, holds no lock, and looks twice in a second:
//!
//! - All chunkservers and clients that were ever connected to this master, `WITNESSES` and the machines heard are silent
//!   for as long as another machine needs to be promoted: it steps back. At least two machines must be known for that, or
//!   the death of a standby that is also the only other chunkserver would end the service.
//! - A master is alive elsewhere at a later version: it steps back at once.
//! - Metaloggers come to an idle master: see [`crate::newcomers`].
//! - Machines whose metaloggers have come may be masters later: their addresses are remembered.
//!
//! It ends with the next call of a hook, and when the address or the master is gone.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use failover::address::{self, Interface};
use failover::cancel::Cancel;
use failover::config::Witnesses;
use failover::lock::Place;
use failover::moosefs::{Daemon, Info};
use failover::reach;
use failover::ucarp::Caller;

use crate::guards::{self, memory, rivals, witnesses::Known};
use crate::newcomers::Newcomers;
use crate::stepdown::{self, StepDown};
use crate::target::Target;

const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Between two questions to the master which metaloggers have come.
const LEARN_EVERY: Duration = Duration::from_secs(2);
/// What is asked of a machine that was connected: a chunkserver accepts, any other machine refuses, which is an answer too.
const ASKED_PORT: u16 = 9422;
/// Fewer machines than this may just have died.
const ENOUGH: usize = 2;

/// What is watched over.
pub(crate) struct Sentry<'a> {
    pub(crate) target: &'a Target,
    pub(crate) interface: &'a Interface,
    pub(crate) vip: Ipv4Addr,
    pub(crate) caller: &'a Caller,
    /// The place of the call that this run belongs to.
    pub(crate) place: Place,
    pub(crate) cancel: &'a Cancel,
}

impl Sentry<'_> {
    /// Stays until the watch is over; steps down if this machine must not serve any more, and returns why.
    pub(crate) fn stand(self) -> Option<guards::Error> {
        let (mut known, mut newcomers) = (Known::default(), Newcomers::default());
        let (mut answered, mut witness) = (Instant::now(), None);
        let mut learnt: Option<Instant> = None;
        while self.cancel.sleep(LOOK_EVERY).is_ok() && self.is_on_duty() {
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
            let reason = if silent > self.patience() {
                Some(guards::Error::Isolated { asked: known.named(), after: silent })
            } else {
                info.and_then(|info| self.newer_elsewhere(&info))
            };
            let Some(reason) = reason.filter(|_| self.is_on_duty()) else { continue };
            log::error!("this machine serves no more: {reason}");
            stepdown::step_down(StepDown::Yield, &self.interface.name, self.vip, Some(self.caller), Some(&self.place));
            return Some(reason);
        }
        None
    }

    /// Others wait for a dead time, then listen for an interval and a bit: no promotion is quicker.
    fn patience(&self) -> Duration {
        self.caller.options.dead_time() + self.caller.options.interval() * 3 / 2
    }

    fn is_on_duty(&self) -> bool {
        !self.place.superseded()
            && self.caller.is_alive()
            && address::holds(self.interface, self.vip).unwrap_or(false)
            && matches!(self.target.running(Daemon::Master), Ok(Some(_)))
    }

    /// Who can be asked now. Whoever was connected once stays known when it is not any more.
    fn refresh(&self, known: &mut Known) {
        let Ok(own) = address::own_addresses() else { return };
        let Witnesses::Any(configured) = &self.target.config.witnesses else { return };
        let ports = [self.target.config.chunkserver_port, self.port()];
        let connected = ports.into_iter().flat_map(reach::connected_to);
        let elsewhere = connected.filter(|address| !own.contains(address) && !address.is_loopback());
        known.chunkservers.extend(elsewhere.map(|address| SocketAddrV4::new(address, ASKED_PORT)));
        known.peers = self.peers().into_iter().map(|peer| SocketAddrV4::new(peer, self.port())).collect();
        known.configured.clone_from(configured);
    }

    /// Remembers whose metaloggers have come. In turn with the hooks: what a later run remembers is not overwritten.
    fn learn(&self) {
        let known = self.peers();
        let mut others = rivals::copying_from(self.vip, self.port());
        others.retain(|machine| !known.contains(machine));
        if others.is_empty() {
            return;
        }
        let _turn = self.place.turn();
        if !self.place.superseded() {
            memory::learn(&self.target.state, others);
        }
    }

    fn newer_elsewhere(&self, ours: &Info) -> Option<guards::Error> {
        let version = ours.metadata_version?;
        let (rival, version, ours) = rivals::newer_than(&self.peers(), self.port(), version, ours.metaid)
            .map(|(rival, newer)| (rival, newer, version))?;
        Some(guards::Error::Newer { rival, version, ours })
    }

    fn peers(&self) -> BTreeSet<Ipv4Addr> {
        rivals::addresses(&self.target.config, &memory::recall(&self.target.state)).unwrap_or_default()
    }

    fn port(&self) -> u16 {
        self.target.config.client_port
    }
}
