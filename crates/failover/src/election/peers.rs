//! Is a master alive on another machine, and what does it know?
//!
//! | it is | then |
//! |---|---|
//! | at a later version than what lies here | the copy here gets a moment to follow; else it has history that is missing here: we yield |
//! | at the same version | it is stepping down: we wait until it stops |
//! | at an earlier version | a leftover: it is not on the virtual IP, so nobody is served by it |
//! | of another file system | none of ours |
//! | mute | it hangs or is stopping: we wait for a moment |
//!
//! The version is compared with what lies here before the epoch jump: whatever was promoted since is far above it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use crate::machine::config::Config;
use crate::machine::memory::Memory;
use crate::metadata::{Plan, plan};
use crate::moosefs::{self, Info, Presence};
use crate::sys::address::{self, Interface};
use crate::sys::arp::Probe;
use crate::sys::cancel::Cancel;

use super::{Checks, Error, PAUSE};
use crate::demotion;
use crate::machine::memory;
use crate::sys::text::human;

/// One of two attempts to connect. A living machine answers within a millisecond.
const CONNECTING: Duration = Duration::from_millis(400);
/// And of the two attempts to a machine that is there and did not answer.
const CONNECTING_AGAIN: Duration = Duration::from_millis(1500);
/// For the answer of one that accepts.
const ANSWERING: Duration = Duration::from_secs(1);
/// A master that accepts and does not answer for so long hangs, and serves nobody.
const MUTE_PATIENCE: Duration = Duration::from_secs(3);
/// A metalogger writes once a second what a master tells it that is stopping. Longer behind is not following.
const FLUSH: Duration = Duration::from_secs(2);
/// A rival's ucarp may have a larger skew than ours: at most a second in the dead time and one in the interval.
const OTHER_SKEW: Duration = Duration::from_secs(2);
/// Between two questions to the same machine.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// What is known of one rival.
struct Rival {
    since: Instant,
    /// Whether it was seen at our own version.
    equal: bool,
    /// `None` while it is being asked.
    verdict: Option<String>,
}

/// Asks every rival until none stands in the way and the election has settled; says what was seen.
pub(super) fn before_serving(guards: &Checks<'_>, plan: &Plan, own: &[Ipv4Addr]) -> Result<String, Error> {
    let (answers, answered) = mpsc::channel();
    let mut rivals: BTreeMap<Ipv4Addr, Rival> = BTreeMap::new();
    loop {
        for address in guards.candidates(own) {
            rivals.entry(address).or_insert_with(|| {
                ask(guards, address, Duration::ZERO, &answers);
                Rival { since: Instant::now(), equal: false, verdict: None }
            });
        }
        while let Ok((address, presence)) = answered.recv_timeout(PAUSE) {
            let Some(rival) = rivals.get_mut(&address) else { continue };
            rival.verdict = judge(guards, plan, address, rival, presence)?;
            if rival.verdict.is_none() {
                ask(guards, address, ASK_AGAIN, &answers);
            }
        }
        guards.cancel.check()?;
        if guards.scene.settled_for().is_some() {
            if rivals.values().all(|rival| rival.verdict.is_some()) {
                return Ok(summary(&rivals));
            }
            guards.still_here()?;
        }
    }
}

fn ask(guards: &Checks<'_>, address: Ipv4Addr, after: Duration, answers: &Sender<(Ipv4Addr, Presence)>) {
    let (at, answers) = (SocketAddrV4::new(address, guards.target.config.client_port), answers.clone());
    let interface = guards.interface.clone();
    thread::spawn(move || {
        thread::sleep(after);
        // Nobody listens any more if the promotion was given up.
        let _ = answers.send((address, look(&interface, at)));
    });
}

/// Looks for a master at `at`. Where a network has just come back, the kernel asks for a hardware address only once in a
/// second, so a machine can be silent to TCP for as long: it is asked on the link too, and again if it is there.
fn look(interface: &Interface, at: SocketAddrV4) -> Presence {
    let presence = thread::scope(|scope| {
        let on_link = scope.spawn(|| is_on_link(interface, *at.ip()));
        let presence = moosefs::look(at, CONNECTING, ANSWERING);
        let there = on_link.join().unwrap_or(false);
        (presence != Presence::Silent || !there).then_some(presence)
    });
    presence.unwrap_or_else(|| moosefs::look(at, CONNECTING_AGAIN, ANSWERING))
}

fn is_on_link(interface: &Interface, address: Ipv4Addr) -> bool {
    let Ok(probe) = Probe::open(&interface.name, interface.index, address) else { return false };
    let answers = |_| matches!(probe.ask(CONNECTING, &Cancel::new()), Ok(Some(_)));
    (0..2).any(answers)
}

/// What `presence` means; `None`: ask again.
fn judge(
    guards: &Checks<'_>,
    plan: &Plan,
    address: Ipv4Addr,
    rival: &mut Rival,
    presence: Presence,
) -> Result<Option<String>, Error> {
    let info = match presence {
        Presence::Silent => return Ok(Some("is silent".to_owned())),
        Presence::Absent => return Ok(Some("runs no master".to_owned())),
        Presence::Mute if rival.equal => return Ok(Some("is stopping its master".to_owned())),
        Presence::Mute if rival.since.elapsed() < MUTE_PATIENCE => return Ok(None),
        Presence::Mute => {
            log::warn!("the master on {address} accepts connections and answers nothing: it hangs, and is passed over");
            return Ok(Some("runs a master that hangs".to_owned()));
        }
        Presence::Master(info) => info,
    };
    if is_foreign(&info, plan.metaid) {
        log::warn!("the master on {address} serves another file system, and is passed over");
        return Ok(Some("serves another file system".to_owned()));
    }
    let ours = match info.metadata_version {
        Some(version) if version > plan.end_version => reaches(guards, plan),
        _ => plan.end_version,
    };
    let waited = rival.since.elapsed();
    let bound = demotion::grace(guards.options) + OTHER_SKEW;
    match info.metadata_version {
        Some(version) if version > ours && waited < FLUSH => Ok(None),
        Some(version) if version > ours => Err(Error::Newer { rival: address, version, ours }),
        Some(version) if version < ours => {
            log::warn!(
                "a master is alive on {address} at version {version}, what lies here goes to {ours}: \
                 a leftover without the address; stop it there"
            );
            Ok(Some(format!("runs a leftover master of version {version}")))
        }
        _ if waited < bound => {
            if !std::mem::replace(&mut rival.equal, true) {
                log::info!("a master is alive on {address} and knows what is known here; waiting for it to stop");
            }
            Ok(None)
        }
        None => Err(Error::Alive { rival: address, after: waited, why: "it does not tell its version" }),
        Some(_) if !guards.target.config.arp_probe => Err(Error::Alive {
            rival: address,
            after: waited,
            why: "whether it has the address was not asked (ARP_PROBE)",
        }),
        Some(version) => {
            log::warn!(
                "the master on {address} does not stop within {}; it is at version {version} like this machine \
                 and does not have the address: a leftover; stop it there",
                human(waited)
            );
            Ok(Some("runs a leftover master that knows no more".to_owned()))
        }
    }
}

/// Where what lies here ends now: while the master on another machine stops, the metalogger here goes on copying from it.
fn reaches(guards: &Checks<'_>, planned: &Plan) -> u64 {
    let now = memory::inventory(&guards.target.data, Some(&guards.target.state))
        .ok()
        .and_then(|known| plan::make(&known, guards.loss).ok());
    now.map_or(planned.end_version, |now| now.end_version.max(planned.end_version))
}

/// Where a master of another machine may live: `PEERS` and whoever was heard ever, none of this machine's own.
pub(crate) fn addresses(config: &Config, memory: &Memory) -> Result<BTreeSet<Ipv4Addr>, address::Error> {
    let own = address::own_addresses()?;
    let known = config.peers.iter().chain(&memory.peers).copied();
    Ok(known.filter(|address| !own.contains(address)).collect())
}

/// Other machines whose metaloggers copy from the master at `vip`, if one answers there.
pub(crate) fn copying_from(vip: Ipv4Addr, port: u16) -> Vec<Ipv4Addr> {
    let own = address::own_addresses().unwrap_or_default();
    let mut others = moosefs::metaloggers(SocketAddrV4::new(vip, port), ANSWERING).unwrap_or_default();
    others.retain(|machine| !own.contains(machine));
    others
}

/// Asks all of `addresses` once, and returns the first that is alive with a later version than `ours`. Takes as long as
/// two attempts to connect where one of them is silent.
pub(crate) fn newer_than(
    addresses: &BTreeSet<Ipv4Addr>,
    port: u16,
    ours: u64,
    metaid: Option<u64>,
) -> Option<(Ipv4Addr, u64)> {
    let (answers, answered) = mpsc::channel();
    for address in addresses.iter().copied() {
        let answers = answers.clone();
        thread::spawn(move || {
            let presence = moosefs::look(SocketAddrV4::new(address, port), CONNECTING, ANSWERING);
            let _ = answers.send((address, presence));
        });
    }
    drop(answers);
    answered.into_iter().find_map(|(address, presence)| match presence {
        Presence::Master(info) if !is_foreign(&info, metaid.unwrap_or_default()) => {
            info.metadata_version.filter(|version| *version > ours).map(|version| (address, version))
        }
        _ => None,
    })
}

/// Only where both are told.
fn is_foreign(info: &Info, metaid: u64) -> bool {
    metaid != 0 && info.metaid.is_some_and(|other| other != 0 && other != metaid)
}

fn summary(rivals: &BTreeMap<Ipv4Addr, Rival>) -> String {
    if rivals.is_empty() {
        return "no rival is known".to_owned();
    }
    let seen = rivals.iter().map(|(address, rival)| format!("{address} {}", rival.verdict.as_deref().unwrap_or("?")));
    seen.collect::<Vec<_>>().join(", ")
}
