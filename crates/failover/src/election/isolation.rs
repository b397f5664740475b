//! Is this machine cut off? A chunkserver that the metadata names, a peer or one of `PING_NODES` has to answer.
//!
//! Chunkservers on this machine itself prove nothing. If the metadata names no others and nothing is configured, there
//! is no evidence either way, and a lone machine must be able to serve.
//!
//! If one was silent at first and answers then, the network has just come back, and the address was won in the dark: ucarp
//! heard nobody because it could hear nobody. Whoever served meanwhile has stepped back by now, perhaps without a word
//! that was heard here. So that election does not count, and is held again.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use crate::machine::config::PingNodes;
use crate::metadata::{Plan, chunkservers};
use crate::sys::probe;

use super::{Checks, Error};

/// How long silence is not believed. An answer takes a millisecond; a switch may need a moment after a power cut.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_millis(400);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(100);
/// So many of a large cluster are asked at once, and so many are named in the log.
const MOST_ASKED: usize = 32;
const MOST_NAMED: usize = 4;

/// Who may prove that this machine is not cut off.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    /// Chunkservers on other machines.
    pub(crate) chunkservers: BTreeSet<SocketAddrV4>,
    /// Where masters of other machines would listen: a refusal is an answer.
    pub(crate) peers: BTreeSet<SocketAddrV4>,
    /// `PING_NODES`.
    pub(crate) configured: Vec<Ipv4Addr>,
}

impl Known {
    /// Whether silence would mean anything. A peer's does not: it may be the machine that has just died.
    pub(crate) fn any(&self) -> bool {
        !self.chunkservers.is_empty() || !self.configured.is_empty()
    }

    /// How many machines besides peers' masters are asked.
    pub(crate) fn machines(&self) -> usize {
        let all = self.chunkservers.iter().map(SocketAddrV4::ip).chain(&self.configured);
        all.collect::<BTreeSet<_>>().len()
    }

    /// Whether anybody answers within [`ATTEMPT`]. Whoever answered last is asked first, and nobody else if it answers.
    pub(crate) fn answers(&self, last: &mut Option<SocketAddrV4>) -> bool {
        *last = probe::first_port(*last, ATTEMPT).or_else(|| probe::first_port(self.ports(), ATTEMPT));
        last.is_some() || probe::first_echo(self.configured.clone(), ATTEMPT).is_some()
    }

    fn ports(&self) -> Vec<SocketAddrV4> {
        self.chunkservers.iter().take(MOST_ASKED).chain(&self.peers).copied().collect()
    }

    /// The first that answers within [`ATTEMPT`], and in words where.
    pub(crate) fn first_answer(&self) -> Option<(Ipv4Addr, String)> {
        let ports = self.ports();
        let configured = self.configured.clone();
        let echo = std::thread::spawn(move || probe::first_echo(configured, ATTEMPT));
        let port = probe::first_port(ports, ATTEMPT).map(|address| (*address.ip(), address.to_string()));
        port.or_else(|| echo.join().ok().flatten().map(|address| (address, address.to_string())))
    }

    /// Whom [`Known::first_answer`] asks.
    fn asked(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.ports().into_iter().map(|address| *address.ip()).chain(self.configured.clone())
    }

    /// Who is asked, in words.
    pub(crate) fn named(&self) -> String {
        let all = self.chunkservers.iter().map(ToString::to_string);
        let all: Vec<_> = all.chain(self.configured.iter().map(ToString::to_string)).collect();
        let more = all.len().saturating_sub(MOST_NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        all[..all.len().min(MOST_NAMED)].join(", ") + &more
    }
}

/// Waits until somebody beyond this machine answers, and says who.
pub(super) fn before_serving(guards: &Checks<'_>, plan: &Plan, own: &[Ipv4Addr]) -> Result<String, Error> {
    let PingNodes::Any(configured) = &guards.target.config.ping_nodes else {
        return Ok("nobody was asked whether the network works (PING_NODES = none)".to_owned());
    };
    let port = guards.target.config.client_port;
    let elsewhere = |known: BTreeSet<SocketAddrV4>| known.into_iter().filter(|at| !own.contains(at.ip())).collect();
    let data = &guards.target.data;
    let in_image = chunkservers::in_image(data, plan)?;
    let mut known = Known {
        chunkservers: elsewhere(in_image.clone()),
        peers: guards.candidates(own).into_iter().map(|address| SocketAddrV4::new(address, port)).collect(),
        configured: configured.clone(),
    };
    let begun = Instant::now();
    // The image is asked first: reading all changes of a day takes seconds, and is seldom needed.
    let mut changes_read = false;
    let mut silent = BTreeSet::new();
    loop {
        match known.first_answer() {
            Some((witness, _)) if silent.contains(&witness) => return Err(Error::WonIsolated { witness }),
            Some((_, at)) => return Ok(format!("{at} answers")),
            None => silent.extend(known.asked()),
        }
        if !changes_read {
            known.chunkservers = elsewhere(chunkservers::after_changes(data, plan, in_image.clone(), guards.cancel)?);
            changes_read = true;
        } else if !known.any() {
            return Ok("nobody is known who could prove a working network".to_owned());
        } else if begun.elapsed() > PATIENCE {
            return Err(Error::Isolated { asked: known.named(), after: begun.elapsed() });
        }
        guards.still_here()?;
        guards.cancel.sleep(PAUSE)?;
    }
}
