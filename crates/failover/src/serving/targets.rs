//! The machines that can prove that this one is heard.
//!
//! | what | is proof |
//! |---|---|
//! | an established connection to the master on which everything is acknowledged | of the moment at which the last of it was sent |
//! | a machine that was connected, a master of another machine, `PING_NODES`, the gateway | if it answers, of the moment at which it was asked |
//!
//! Where no other machine could serve, or fewer than two machines were connected, silence means nothing: these may just have
//! died. Machines that are not connected any more while others prove the network have left, and are forgotten.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use crate::election::isolation::PingTargets;
use crate::group::Group;
use crate::machine::config::{Config, PingNodes};
use crate::sys::route::gateways;
use crate::sys::{address, tcp};
use crate::timing;

/// The port that is asked of a machine that was connected: a chunkserver accepts, any other machine refuses, which is an
/// answer too.
const ASKED_PORT: u16 = 9422;
/// Fewer machines than this may just have died.
const ENOUGH: usize = 2;
/// A machine that is connected again within this time has not left.
const LEFT: Duration = Duration::from_secs(60);

/// All that were connected here lately, `PING_NODES`, the gateways, and the other machines of the group.
pub(super) struct Targets<'a> {
    config: &'a Config,
    known: PingTargets,
    /// When each of them was connected last.
    connected: BTreeMap<SocketAddrV4, Instant>,
    last: Option<SocketAddrV4>,
}

impl<'a> Targets<'a> {
    pub(super) fn new(config: &'a Config) -> Self {
        Self { config, known: PingTargets::default(), connected: BTreeMap::new(), last: None }
    }

    /// The newest moment at which this machine is known to have been heard; now where silence would mean nothing.
    pub(super) fn hear(&mut self, group: &Group) -> Option<Instant> {
        let now = Instant::now();
        let others = group.views();
        self.refresh(others.keys().copied(), now);
        if others.is_empty() || self.known.machines() < ENOUGH {
            return Some(now);
        }
        let acknowledged = self.acknowledged(now);
        let is_new = acknowledged.is_some_and(|at| now - at <= timing::LEASE_RENEWED);
        let heard = if is_new || !self.known.answers(&mut self.last) { acknowledged } else { Some(now) };
        if heard.is_some_and(|at| now - at < LEFT) {
            self.connected.retain(|_, last| now - *last < LEFT);
        }
        heard
    }

    /// When something was sent to a machine that has acknowledged everything.
    fn acknowledged(&self, now: Instant) -> Option<Instant> {
        let found = tcp::acknowledged(&self.ports()).inspect_err(|e| log::debug!("cannot ask for connections: {e}"));
        let elsewhere = |by: Ipv4Addr| self.known.connected.iter().any(|at| *at.ip() == by);
        let elsewhere = found.unwrap_or_default().into_iter().filter(|found| elsewhere(found.by));
        now.checked_sub(elsewhere.map(|found| found.sent).min()?)
    }

    /// Where clients and chunkservers connect to.
    fn ports(&self) -> [u16; 2] {
        [self.config.chunkserver_port, self.config.client_port]
    }

    /// Machines that can be asked now. One that was connected stays known for a while when it is not any more.
    fn refresh(&mut self, masters: impl Iterator<Item = Ipv4Addr>, now: Instant) {
        let Ok(own) = address::own_addresses() else { return };
        let PingNodes::Any(configured) = &self.config.ping_nodes else { return };
        let connected = self.ports().into_iter().flat_map(tcp::connected_to);
        let elsewhere = connected.filter(|address: &Ipv4Addr| !own.contains(address) && !address.is_loopback());
        self.known.connected = elsewhere.map(|address| SocketAddrV4::new(address, ASKED_PORT)).collect();
        self.connected.extend(self.known.connected.iter().map(|address| (*address, now)));
        self.known.chunkservers = self.connected.keys().copied().collect();
        self.known.peers = masters.map(|peer| SocketAddrV4::new(peer, self.config.client_port)).collect();
        self.known.configured.clone_from(configured);
        self.known.gateways = gateways();
    }
}
