//! The machines that can prove that this one is heard.

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::election::isolation::PingTargets;
use crate::group::Group;
use crate::machine::config::{Config, PingNodes};
use crate::sys::{address, tcp};

/// The port that is asked of a machine that was connected: a chunkserver accepts, any other machine refuses, which is an
/// answer too.
const ASKED_PORT: u16 = 9422;
/// Fewer machines than this may just have died.
const ENOUGH: usize = 2;

/// All that were ever connected here, `PING_NODES`, and the other machines of the group.
pub(super) struct Targets<'a> {
    config: &'a Config,
    known: PingTargets,
    last: Option<SocketAddrV4>,
}

impl<'a> Targets<'a> {
    pub(super) fn new(config: &'a Config) -> Self {
        Self { config, known: PingTargets::default(), last: None }
    }

    /// Whether one of them answers, or too few are known for their silence to mean anything.
    pub(super) fn hear(&mut self, group: &Group) -> bool {
        self.refresh(group);
        self.known.machines() < ENOUGH || self.known.answers(&mut self.last)
    }

    /// Machines that can be asked now. One that was connected once stays known when it is not any more.
    fn refresh(&mut self, group: &Group) {
        let Ok(own) = address::own_addresses() else { return };
        let PingNodes::Any(configured) = &self.config.ping_nodes else { return };
        let ports = [self.config.chunkserver_port, self.config.client_port];
        let connected = ports.into_iter().flat_map(tcp::connected_to);
        let elsewhere = connected.filter(|address: &Ipv4Addr| !own.contains(address) && !address.is_loopback());
        self.known.chunkservers.extend(elsewhere.map(|address| SocketAddrV4::new(address, ASKED_PORT)));
        let masters = group.views().into_keys();
        self.known.peers = masters.map(|peer| SocketAddrV4::new(peer, self.config.client_port)).collect();
        self.known.configured.clone_from(configured);
    }
}
