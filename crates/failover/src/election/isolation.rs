//! Is this machine cut off? A chunkserver that the metadata names, a peer or one of `PING_NODES` has to answer.
//!
//! Chunkservers on this machine itself prove nothing. If the metadata names no others and nothing is configured, there
//! is no evidence either way, and a lone machine must be able to serve.
//!
//! If a machine was silent at first and answers then, the network has just come back, and this machine won only because
//! ucarp could hear no other. A machine that served meanwhile has stepped down by now, perhaps before anything of it was
//! heard here. So this election does not count: this machine steps down once, and it is held again.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use crate::machine::config::PingNodes;
use crate::metadata::{Plan, chunkservers};
use crate::sys::cancel::Cancel;
use crate::sys::probe;
use crate::timing;

use super::{Election, Failure};

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(100);
/// The most of a large cluster that are asked at once, and that are named in the log.
const MOST_ASKED: usize = 32;
const MOST_NAMED: usize = 4;

/// The machines that may prove that this one is not cut off.
#[derive(Debug, Clone, Default)]
pub(crate) struct PingTargets {
    /// Chunkservers on other machines.
    pub(crate) chunkservers: BTreeSet<SocketAddrV4>,
    /// Where masters of other machines would listen: a refusal is an answer.
    pub(crate) peers: BTreeSet<SocketAddrV4>,
    /// `PING_NODES`.
    pub(crate) configured: Vec<Ipv4Addr>,
}

impl PingTargets {
    /// Whether silence would mean anything. A peer's does not: it may be the machine that has just died.
    pub(crate) fn any(&self) -> bool {
        !self.chunkservers.is_empty() || !self.configured.is_empty()
    }

    /// How many machines are asked, besides the masters of peers.
    pub(crate) fn machines(&self) -> usize {
        let all = self.chunkservers.iter().map(SocketAddrV4::ip).chain(&self.configured);
        all.collect::<BTreeSet<_>>().len()
    }

    /// Whether one answers within [`timing::PING`]. The one that answered last is asked first, and alone if it answers.
    pub(crate) fn answers(&self, last: &mut Option<SocketAddrV4>) -> bool {
        *last = probe::first_port(*last, timing::PING).or_else(|| probe::first_port(self.ports(), timing::PING));
        last.is_some() || probe::first_echo(self.configured.clone(), timing::PING).is_some()
    }

    fn ports(&self) -> Vec<SocketAddrV4> {
        self.chunkservers.iter().take(MOST_ASKED).chain(&self.peers).copied().collect()
    }

    /// The first that answers within [`timing::PING`], and in words where.
    pub(crate) fn first_answer(&self) -> Option<(Ipv4Addr, String)> {
        let ports = self.ports();
        let configured = self.configured.clone();
        let echo = std::thread::Builder::new().spawn(move || probe::first_echo(configured, timing::PING));
        let port = probe::first_port(ports, timing::PING).map(|address| (*address.ip(), address.to_string()));
        port.or_else(|| echo.ok()?.join().ok().flatten().map(|address| (address, address.to_string())))
    }

    /// All that [`PingTargets::first_answer`] asks.
    fn asked(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.ports().into_iter().map(|address| *address.ip()).chain(self.configured.clone())
    }

    /// What is asked, in words.
    pub(crate) fn named(&self) -> String {
        let all = self.chunkservers.iter().map(ToString::to_string);
        let all: Vec<_> = all.chain(self.configured.iter().map(ToString::to_string)).collect();
        let more = all.len().saturating_sub(MOST_NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        all[..all.len().min(MOST_NAMED)].join(", ") + &more
    }
}

/// Waits until something beyond this machine answers, and says which.
pub(super) fn check(
    election: &Election<'_>,
    plan: &Plan,
    own: &[Ipv4Addr],
    cancel: &Cancel,
) -> Result<String, Failure> {
    let machine = election.machine;
    let PingNodes::Any(configured) = &machine.config.ping_nodes else {
        return Ok("the network was not checked (PING_NODES = none)".to_owned());
    };
    let port = machine.config.client_port;
    let elsewhere = |known: BTreeSet<SocketAddrV4>| known.into_iter().filter(|at| !own.contains(at.ip())).collect();
    let data = &machine.data;
    let in_image = chunkservers::in_image(data, plan)?;
    let mut known = PingTargets {
        chunkservers: elsewhere(in_image.clone()),
        peers: election.group.views().into_keys().map(|address| SocketAddrV4::new(address, port)).collect(),
        configured: configured.clone(),
    };
    let begun = Instant::now();
    // The image is read first: reading all changes of a day takes seconds, and is seldom needed.
    let mut changes_read = false;
    let mut silent = BTreeSet::new();
    loop {
        match known.first_answer() {
            Some((node, _)) if silent.contains(&node) => return Err(Failure::WonWhileIsolated { node }),
            Some((_, at)) => return Ok(format!("{at} answers")),
            None => silent.extend(known.asked()),
        }
        if !changes_read {
            known.chunkservers = elsewhere(chunkservers::after_changes(data, plan, in_image.clone(), cancel)?);
            changes_read = true;
        } else if !known.any() {
            return Ok("no other machine is known that could prove a working network".to_owned());
        } else if begun.elapsed() > timing::ISOLATED {
            return Err(Failure::Isolated { asked: known.named(), after: begun.elapsed() });
        }
        election.require_vip()?;
        cancel.sleep(PAUSE)?;
    }
}
