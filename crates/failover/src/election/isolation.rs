//! Is this machine cut off? A chunkserver that the metadata names, a peer, one of `PING_NODES` or the gateway has to answer.
//!
//! Chunkservers on this machine itself prove nothing. If the metadata names no others and nothing is configured, there
//! is no evidence either way, and a lone machine must be able to serve. A gateway can only prove: its silence means nothing,
//! because many networks have none that is needed.
//!
//! If a machine was silent at first and answers then, the network has just come back, and this machine won only because
//! ucarp could hear no other. A machine that served meanwhile has stepped down by now, perhaps before anything of it was
//! heard here. So this election does not count: this machine steps down once, and it is held again.
//!
//! [`outlook`] asks the same before it matters, for `--check`, `--dry-run` and `--rehearse`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::machine::config::{Config, PingNodes};
use crate::machine::memory::Memory;
use crate::metadata::{Plan, chunkservers};
use crate::sys::cancel::Cancel;
use crate::sys::folder::Folder;
use crate::sys::route::{Gateway, gateways};
use crate::sys::{address, probe};
use crate::timing;
use crate::vip::VirtualIp;

use super::{Election, Failure};

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(100);
/// The most chunkservers of a large cluster that are asked at once, and that are named in the log.
const MOST_ASKED: usize = 32;
const MOST_NAMED: usize = 4;
/// What asks has the time of an attempt, and this to say so.
const MARGIN: Duration = Duration::from_millis(100);

/// The machines that may prove that this one is not cut off.
#[derive(Debug, Clone, Default)]
pub(crate) struct PingTargets {
    /// Chunkservers on other machines.
    pub(crate) chunkservers: BTreeSet<SocketAddrV4>,
    /// Those of them that are connected now: they are asked in each round, before others.
    pub(crate) connected: BTreeSet<SocketAddrV4>,
    /// Where masters of other machines would listen: a refusal is an answer.
    pub(crate) peers: BTreeSet<SocketAddrV4>,
    /// `PING_NODES`.
    pub(crate) configured: Vec<Ipv4Addr>,
    /// The routers of the default routes.
    pub(crate) gateways: Vec<Gateway>,
    /// How many chunkservers were asked: the next ones are asked in the next round.
    asked: usize,
}

/// One attempt.
struct Round {
    asked: Vec<Ipv4Addr>,
    /// The first that answered, and in words what.
    answer: Option<(Ipv4Addr, String)>,
}

impl PingTargets {
    /// Whether silence would mean anything. A peer's does not: it may be the machine that has just died.
    pub(crate) fn any(&self) -> bool {
        !self.chunkservers.is_empty() || !self.configured.is_empty()
    }

    /// How many machines are asked, besides the masters of peers and gateways.
    pub(crate) fn machines(&self) -> usize {
        let all = self.chunkservers.iter().map(SocketAddrV4::ip).chain(&self.configured);
        all.collect::<BTreeSet<_>>().len()
    }

    /// Whether one answers within [`timing::PING`]. The one that answered last is asked first, and alone if it answers.
    pub(crate) fn answers(&mut self, last: &mut Option<SocketAddrV4>) -> bool {
        if last.is_some_and(|last| probe::first_port([last], timing::PING).is_some()) {
            return true;
        }
        let ports = self.next_ports();
        *last = probe::first_port(ports, timing::PING);
        last.is_some()
            || probe::first_echo(self.configured.clone(), timing::PING).is_some()
            || self.gateways.iter().any(is_on_link)
    }

    /// Asks some of them, and other chunkservers the next time. Returns at the first answer, or after [`timing::PING`].
    fn ask(&mut self) -> Round {
        let ports = self.next_ports();
        let configured = self.configured.clone();
        let asked = ports.iter().map(|address| *address.ip()).chain(configured.clone());
        let asked = asked.chain(self.gateways.iter().map(|gateway| gateway.address)).collect();
        let (found, first) = mpsc::channel();
        let spawn = |ask: Box<dyn FnOnce() -> Option<(Ipv4Addr, String)> + Send>| {
            let found = found.clone();
            let asking = thread::Builder::new().name("network".to_owned()).spawn(move || {
                if let Some(answer) = ask() {
                    // Another one was quicker: the receiver is gone.
                    let _ = found.send(answer);
                }
            });
            if let Err(e) = asking {
                log::warn!("cannot start a thread that asks other machines: {e}");
            }
        };
        spawn(Box::new(move || probe::first_port(ports, timing::PING).map(|at| (*at.ip(), at.to_string()))));
        spawn(Box::new(move || probe::first_echo(configured, timing::PING).map(|at| (at, at.to_string()))));
        for gateway in self.gateways.clone() {
            spawn(Box::new(move || {
                is_on_link(&gateway).then(|| (gateway.address, format!("the gateway {}", gateway.address)))
            }));
        }
        drop(found);
        Round { asked, answer: first.recv_timeout(timing::PING + MARGIN * 2).ok() }
    }

    /// Whether each of them was asked.
    fn all_asked(&self) -> bool {
        self.asked >= self.chunkservers.len()
    }

    /// The next chunkservers, and all peers.
    fn next_ports(&mut self) -> Vec<SocketAddrV4> {
        let next = |all: &BTreeSet<SocketAddrV4>| -> Vec<_> {
            let all = spread(all);
            let from = self.asked % all.len().max(1);
            all.iter().cycle().skip(from).take(all.len().min(MOST_ASKED)).copied().collect()
        };
        let ports =
            next(&self.connected).into_iter().chain(next(&self.chunkservers)).chain(self.peers.clone()).collect();
        self.asked = self.asked.saturating_add(MOST_ASKED);
        ports
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

/// The chunkservers, one of each network after the other: those of a rack that lost its power often have addresses side by side.
fn spread(chunkservers: &BTreeSet<SocketAddrV4>) -> Vec<SocketAddrV4> {
    let mut networks = BTreeMap::<_, Vec<_>>::new();
    for address in chunkservers {
        let [a, b, c, _] = address.ip().octets();
        networks.entry([a, b, c]).or_default().push(*address);
    }
    let longest = networks.values().map(Vec::len).max().unwrap_or_default();
    (0..longest).flat_map(|place| networks.values().filter_map(move |network| network.get(place).copied())).collect()
}

/// Whether a gateway is there: it answers ARP, whatever its firewall does.
fn is_on_link(gateway: &Gateway) -> bool {
    let gateway = VirtualIp { interface: gateway.interface.clone(), address: gateway.address };
    gateway.arp().is_ok_and(|probe| matches!(probe.ask(timing::PING, Cancel::never()), Ok(Some(_))))
}

/// What would prove the network if another machine of the group died.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outlook {
    /// A promotion would not ask, or not insist.
    Unasked,
    /// This answers, whichever machine of the group dies.
    Proved(String),
    /// A promotion would be refused.
    Unproved(Unproved),
}

/// Why a promotion would be refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unproved {
    /// Only the machine that would be dead.
    #[error(
        "if {0} dies, no other machine proves that the network of this one works, and no promotion is made: every \
         chunkserver that answers is there, and no gateway answers. Set PING_NODES in mfspromote.cfg to a machine that is \
         always on and answers to ping: a router, a switch, a client"
    )]
    OnlyOne(Ipv4Addr),
    /// Nothing at all.
    #[error(
        "none of {0} answers, so no promotion would be made now: this machine is isolated, or these machines are gone. Set \
         PING_NODES in mfspromote.cfg to machines that are always on and answer to ping"
    )]
    Nothing(String),
}

impl Outlook {
    /// The reason for which a promotion would be refused.
    pub(crate) fn unproved(self) -> Option<Unproved> {
        match self {
            Self::Unproved(why) => Some(why),
            Self::Unasked | Self::Proved(_) => None,
        }
    }

    /// What follows where these machines answer, of which `group` can be the master; `asked` in words.
    fn of(answering: &BTreeSet<Ipv4Addr>, group: &BTreeSet<Ipv4Addr>, asked: impl FnOnce() -> String) -> Self {
        let mut theirs = answering.iter().filter(|address| group.contains(address));
        match (answering.iter().find(|address| !group.contains(address)), theirs.next(), theirs.next()) {
            (Some(other), ..) => Self::Proved(other.to_string()),
            // One of them can die.
            (None, Some(one), Some(other)) => Self::Proved(format!("{one}, {other}")),
            (None, Some(one), None) => Self::Unproved(Unproved::OnlyOne(*one)),
            (None, None, _) => Self::Unproved(Unproved::Nothing(asked())),
        }
    }
}

/// Asks now what a promotion of `plan` would ask. The machines of the group are `PEERS` and those in `memory`; the virtual IP
/// and this machine's own addresses prove nothing.
pub(crate) fn outlook(
    config: &Config,
    data: &Folder,
    plan: &Plan,
    memory: &Memory,
    vip: Option<Ipv4Addr>,
    cancel: &Cancel,
) -> Result<Outlook, chunkservers::Error> {
    let PingNodes::Any(configured) = &config.ping_nodes else { return Ok(Outlook::Unasked) };
    let mut own = address::own_addresses().unwrap_or_default();
    own.extend(vip);
    let group: BTreeSet<Ipv4Addr> =
        config.peers.iter().copied().chain(memory.known().map(|known| known.address)).collect();
    let known = chunkservers::after_changes(data, plan, chunkservers::in_image(data, plan)?, cancel)?;
    let mut targets = PingTargets {
        chunkservers: known.into_iter().filter(|at| !own.contains(at.ip())).collect(),
        peers: group.iter().map(|address| SocketAddrV4::new(*address, config.client_port)).collect(),
        configured: configured.clone(),
        gateways: gateways(),
        ..PingTargets::default()
    };
    if !targets.any() {
        return Ok(Outlook::Unasked);
    }
    let mut answering: BTreeSet<Ipv4Addr> =
        targets.gateways.iter().filter(|gateway| is_on_link(gateway)).map(|gateway| gateway.address).collect();
    answering.extend(probe::first_echo(targets.configured.clone(), timing::PING));
    loop {
        let ports = targets.next_ports();
        answering.extend(probe::ports(ports, timing::PING).iter().map(SocketAddrV4::ip));
        let outlook = Outlook::of(&answering, &group, || targets.named());
        if targets.all_asked() || matches!(outlook, Outlook::Proved(_)) {
            return Ok(outlook);
        }
        cancel.check()?;
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
        gateways: gateways(),
        ..PingTargets::default()
    };
    let begun = Instant::now();
    // The image is read first: reading all changes of a day takes seconds, and is seldom needed. One without any chunkserver is
    // of a file system that was made since.
    let mut changes_read = in_image.is_empty();
    if changes_read {
        known.chunkservers = elsewhere(chunkservers::after_changes(data, plan, BTreeSet::new(), cancel)?);
    }
    let mut silent = BTreeSet::new();
    loop {
        let Round { asked, answer } = known.ask();
        match answer {
            Some((node, _)) if silent.contains(&node) => return Err(Failure::WonWhileIsolated { node }),
            Some((_, at)) => return Ok(format!("{at} answers")),
            None => silent.extend(asked),
        }
        if !changes_read {
            known.chunkservers = elsewhere(chunkservers::after_changes(data, plan, in_image.clone(), cancel)?);
            (known.asked, changes_read) = (0, true);
        } else if !known.any() {
            return Ok("no other machine is known that could prove a working network".to_owned());
        } else if begun.elapsed() > timing::ISOLATED && known.all_asked() {
            return Err(Failure::Isolated { asked: known.named(), after: begun.elapsed() });
        }
        election.require_vip()?;
        cancel.sleep(PAUSE)?;
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use socket2::{Domain, Socket, Type};

    use super::*;

    fn at(network: u8, host: u8) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::new(10, 0, network, host), 9422)
    }

    #[test]
    fn all_are_asked_in_turn_and_those_of_one_network_not_first() {
        let chunkservers: BTreeSet<_> = (1..=40).map(|host| at(1, host)).chain([at(2, 7), at(3, 9)]).collect();
        let mut targets = PingTargets { chunkservers: chunkservers.clone(), ..PingTargets::default() };
        let first = targets.next_ports();
        assert_eq!((first.len(), targets.all_asked()), (MOST_ASKED, false));
        assert!(first.contains(&at(2, 7)) && first.contains(&at(3, 9)), "one of each network");
        let second = targets.next_ports();
        assert!(targets.all_asked());
        let both: BTreeSet<_> = first.into_iter().chain(second).collect();
        assert_eq!(both, chunkservers);
        assert!(PingTargets::default().next_ports().is_empty());
        let peers = BTreeSet::from([at(9, 1)]);
        assert_eq!(PingTargets { peers, ..PingTargets::default() }.next_ports(), [at(9, 1)]);
    }

    #[test]
    fn a_first_rack_without_power_hides_no_chunkserver() {
        let alive = std::net::TcpListener::bind("127.0.0.41:0").unwrap();
        let std::net::SocketAddr::V4(alive) = alive.local_addr().unwrap() else { unreachable!() };
        // A port whose queue is full answers nothing, at any loopback address.
        let full = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        full.bind(&std::net::SocketAddr::from(([0, 0, 0, 0], 0)).into()).unwrap();
        full.listen(0).unwrap();
        let port = full.local_addr().unwrap().as_socket().unwrap().port();
        let _waiting = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let dead = (1..=40).map(|host| SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, host), port));
        let mut targets = PingTargets { chunkservers: dead.chain([alive]).collect(), ..PingTargets::default() };
        assert_eq!(targets.ask().answer, None);
        let answered = targets.ask().answer;
        assert_eq!(answered.map(|(address, _)| address), Some(*alive.ip()));
    }

    #[test]
    fn one_machine_of_the_group_proves_nothing_about_its_own_death() {
        let [one, two, client]: [Ipv4Addr; 3] = [[10, 0, 0, 11], [10, 0, 0, 12], [10, 0, 0, 61]].map(Into::into);
        let group = BTreeSet::from([one, two]);
        let of = |answering: &[Ipv4Addr]| {
            Outlook::of(&answering.iter().copied().collect(), &group, || "10.0.0.11:9422".to_owned())
        };
        assert_eq!(of(&[one]), Outlook::Unproved(Unproved::OnlyOne(one)));
        assert!(matches!(of(&[one, client]), Outlook::Proved(_)));
        assert!(matches!(of(&[one, two]), Outlook::Proved(_)), "either of them can die");
        let Outlook::Unproved(nothing) = of(&[]) else { panic!("nothing answers") };
        assert!(nothing.to_string().contains("PING_NODES"));
    }
}
