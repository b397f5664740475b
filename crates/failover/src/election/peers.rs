//! Is a master alive on another machine, and what does it know?
//!
//! | the peer's master is | then |
//! |---|---|
//! | at a later version than the files here | the copy here gets a moment to follow; else the peer has history that is missing here, and this machine steps down |
//! | at the same version | it is stopping: we wait for that |
//! | at an earlier version | stale: it is not on the virtual IP, so it serves no client |
//! | of another file system | none of ours |
//! | silent although it accepts | it hangs or is stopping: we wait for a moment |
//!
//! The version is compared with the files here before the epoch jump: a history that was promoted since is far above it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use super::{Election, Failure, POLL};
use crate::machine::config::Config;
use crate::machine::memory::Memory;
use crate::metadata::inventory::end_of_copy;
use crate::metadata::{Plan, Version};
use crate::moosefs::{self, Info, MasterAt};
use crate::sys::address;
use crate::sys::arp::Probe;
use crate::sys::cancel::Cancel;
use crate::sys::text::human;
use crate::timing;
use crate::vip::VirtualIp;

/// Between two questions to the same peer.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// What is known of one peer.
struct Peer {
    since: Instant,
    /// Whether its master was seen at our own version.
    equal: bool,
    /// `None` while it is being asked.
    verdict: Option<String>,
}

/// Asks every peer until none stands in the way and the election has settled; says what was seen.
pub(super) fn check(
    election: &Election<'_>,
    plan: &Plan,
    own: &[Ipv4Addr],
    cancel: &Cancel,
) -> Result<String, Failure> {
    let (answers, answered) = mpsc::channel();
    let mut peers: BTreeMap<Ipv4Addr, Peer> = BTreeMap::new();
    loop {
        for address in election.candidates(own) {
            peers.entry(address).or_insert_with(|| {
                ask(election, address, Duration::ZERO, &answers);
                Peer { since: Instant::now(), equal: false, verdict: None }
            });
        }
        while let Ok((address, presence)) = answered.recv_timeout(POLL) {
            let Some(peer) = peers.get_mut(&address) else { continue };
            match judge(address, &Seen::of(peer, presence, election, plan))? {
                Judgement::AskAgain { equal } => {
                    if equal && !std::mem::replace(&mut peer.equal, true) {
                        log::info!(
                            "the master on {address} has the same version as this machine; waiting for it to stop"
                        );
                    }
                    ask(election, address, ASK_AGAIN, &answers);
                }
                Judgement::Passed { verdict, warning } => {
                    if let Some(warning) = warning {
                        log::warn!("{warning}");
                    }
                    peer.verdict = Some(verdict);
                }
            }
        }
        cancel.check()?;
        if election.settled_for().is_some() {
            if peers.values().all(|peer| peer.verdict.is_some()) {
                return Ok(summary(&peers));
            }
            election.require_vip()?;
        }
    }
}

fn ask(election: &Election<'_>, address: Ipv4Addr, after: Duration, answers: &Sender<(Ipv4Addr, MasterAt)>) {
    let (at, answers) = (SocketAddrV4::new(address, election.machine.config.client_port), answers.clone());
    let link = VirtualIp { interface: election.vip.interface.clone(), address };
    let asked = thread::Builder::new().name("peer".into()).spawn({
        let answers = answers.clone();
        move || {
            thread::sleep(after);
            // The receiver is gone if the promotion was given up.
            let _ = answers.send((address, find(&link, at)));
        }
    });
    if let Err(e) = asked {
        log::warn!("cannot ask {address}: {e}");
        let _ = answers.send((address, MasterAt::Unresponsive));
    }
}

/// Looks for a master at `at`. Where a network has just come back, the kernel asks for a hardware address only once in a
/// second, so a machine can be silent to TCP for as long: it is asked on the link too, and again if it is there.
fn find(link: &VirtualIp, at: SocketAddrV4) -> MasterAt {
    let presence = thread::scope(|scope| {
        let on_link = scope.spawn(|| is_on_link(link));
        let presence = moosefs::find_master(at, timing::PEER_CONNECT, timing::PEER_ANSWER);
        let there = on_link.join().unwrap_or(false);
        (presence != MasterAt::Silent || !there).then_some(presence)
    });
    presence.unwrap_or_else(|| moosefs::find_master(at, timing::PEER_CONNECT_AGAIN, timing::PEER_ANSWER))
}

fn is_on_link(link: &VirtualIp) -> bool {
    let Ok(probe) = link.arp() else { return false };
    let answers = |_| matches!(Probe::ask(&probe, timing::PEER_CONNECT, Cancel::never()), Ok(Some(_)));
    (0..2).any(answers)
}

/// Where the files here end now: while the master on another machine stops, the metalogger here goes on copying from it.
fn reach(election: &Election<'_>, planned: &Plan) -> Version {
    end_of_copy(&election.machine.data).map_or(planned.end_version, |end| end.max(planned.end_version))
}

/// All that the judgement of a peer depends on.
struct Seen {
    presence: MasterAt,
    /// Since it was asked first.
    waited: Duration,
    /// Whether its master was seen at our own version before.
    was_equal: bool,
    /// Of the plan; 0 if not known.
    metaid: u64,
    /// Where the files here end.
    ours: Version,
    /// A master that is told to stop has done so within this.
    stops_within: Duration,
    /// Whether the address itself is asked for by ARP.
    arp_probe: bool,
}

impl Seen {
    fn of(peer: &Peer, presence: MasterAt, election: &Election<'_>, plan: &Plan) -> Self {
        let options = election.options;
        Self {
            presence,
            waited: peer.since.elapsed(),
            was_equal: peer.equal,
            metaid: plan.metaid,
            ours: reach(election, plan),
            stops_within: options.dead_time() + options.interval() + timing::GRACE_MARGIN + 2 * timing::OTHER_SKEW,
            arp_probe: election.machine.config.arp_probe,
        }
    }
}

/// What is known of a peer now.
#[derive(Debug, PartialEq, Eq)]
enum Judgement {
    /// It may be different in a moment.
    AskAgain {
        /// Whether its master has our own version.
        equal: bool,
    },
    /// It does not stand in the way.
    Passed {
        /// Why, for the log line of the checks.
        verdict: String,
        /// What an administrator should see to.
        warning: Option<String>,
    },
}

/// Judges what was seen of the peer at `address`.
fn judge(address: Ipv4Addr, seen: &Seen) -> Result<Judgement, Failure> {
    let passed = |verdict: &str| Ok(Judgement::Passed { verdict: verdict.to_owned(), warning: None });
    let warned = |verdict: String, warning: String| Ok(Judgement::Passed { verdict, warning: Some(warning) });
    let info = match seen.presence {
        MasterAt::Silent => return passed("is silent"),
        MasterAt::NoMaster => return passed("runs no master"),
        MasterAt::Unresponsive if seen.was_equal => return passed("is stopping its master"),
        MasterAt::Unresponsive if seen.waited < timing::PEER_HUNG => return Ok(Judgement::AskAgain { equal: false }),
        MasterAt::Unresponsive => {
            let warning = format!("the master on {address} hangs (accepts connections, no reply); ignoring it");
            return warned("runs a master that hangs".to_owned(), warning);
        }
        MasterAt::Answers(info) => info,
    };
    if is_foreign(&info, seen.metaid) {
        let warning = format!("the master on {address} serves another file system; ignoring it");
        return warned("serves another file system".to_owned(), warning);
    }
    let ours = seen.ours;
    match info.metadata_version {
        Some(version) if version > ours && seen.waited < timing::METALOGGER_FLUSH => {
            Ok(Judgement::AskAgain { equal: false })
        }
        Some(version) if version > ours => Err(Failure::Newer { peer: address, version, ours }),
        Some(version) if version < ours => {
            let warning = format!(
                "stale master on {address} (version {version}, the files here end at {ours}) without the virtual IP; stop it \
                 there"
            );
            warned(format!("runs a stale master of version {version}"), warning)
        }
        _ if seen.waited < seen.stops_within => Ok(Judgement::AskAgain { equal: true }),
        None => Err(Failure::Alive { peer: address, after: seen.waited, why: "it does not tell its version" }),
        Some(_) if !seen.arp_probe => Err(Failure::Alive {
            peer: address,
            after: seen.waited,
            why: "ARP_PROBE = no, so it is not known whether it has the virtual IP",
        }),
        Some(version) => {
            let warning = format!(
                "the master on {address} did not stop within {}. It has version {version}, as this machine, and not the \
                 virtual IP; stop it there",
                human(seen.waited)
            );
            warned("runs a stale master that knows no more".to_owned(), warning)
        }
    }
}

/// Where a master of another machine may run: `PEERS` and the MASTERs heard ever, none of this machine's own addresses.
pub(crate) fn addresses(config: &Config, memory: &Memory) -> Result<BTreeSet<Ipv4Addr>, address::Error> {
    let own = address::own_addresses()?;
    let known = config.peers.iter().chain(&memory.peers).copied();
    Ok(known.filter(|address| !own.contains(address)).collect())
}

/// Other machines whose metaloggers copy from the master at `vip`, if one answers there.
pub(crate) fn copying_from(vip: &VirtualIp, port: u16) -> Vec<Ipv4Addr> {
    let own = address::own_addresses().unwrap_or_default();
    let mut others = moosefs::metaloggers(vip.port(port), timing::PEER_ANSWER).unwrap_or_default();
    others.retain(|machine| !own.contains(machine));
    others
}

/// Asks all of `addresses` once, and returns the first that has a later version than `ours`. Takes as long as two attempts
/// to connect where one of them is silent.
pub(crate) fn newer_than(
    addresses: &BTreeSet<Ipv4Addr>,
    port: u16,
    ours: Version,
    metaid: Option<u64>,
) -> Option<(Ipv4Addr, Version)> {
    let (answers, answered) = mpsc::channel();
    for address in addresses.iter().copied() {
        let answers = answers.clone();
        let asked = thread::Builder::new().name("peer".into()).spawn(move || {
            let at = SocketAddrV4::new(address, port);
            let _ = answers.send((address, moosefs::find_master(at, timing::PEER_CONNECT, timing::PEER_ANSWER)));
        });
        if let Err(e) = asked {
            log::warn!("cannot ask {address}: {e}");
        }
    }
    drop(answers);
    answered.into_iter().find_map(|(address, presence)| match presence {
        MasterAt::Answers(info) if !is_foreign(&info, metaid.unwrap_or_default()) => {
            info.metadata_version.filter(|version| *version > ours).map(|version| (address, version))
        }
        _ => None,
    })
}

/// Only where both are told.
fn is_foreign(info: &Info, metaid: u64) -> bool {
    metaid != 0 && info.metaid.is_some_and(|other| other != 0 && other != metaid)
}

fn summary(peers: &BTreeMap<Ipv4Addr, Peer>) -> String {
    if peers.is_empty() {
        return "no peer is known".to_owned();
    }
    let seen = peers.iter().map(|(address, peer)| format!("{address} {}", peer.verdict.as_deref().unwrap_or("?")));
    seen.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::moosefs::Release;
    use crate::policy::Why;

    const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
    const METAID: u64 = 7;

    fn master(version: Option<u64>, metaid: Option<u64>) -> MasterAt {
        let release = Release { major: 4, minor: 57, patch: 5 };
        MasterAt::Answers(Info { release, metadata_version: version.map(Version), metaid })
    }

    /// In words: the verdict, `again` or `equal`, or the row of the policy table.
    fn judged(presence: MasterAt, waited_ms: u64, change: impl FnOnce(&mut Seen)) -> String {
        let mut seen = Seen {
            presence,
            waited: Duration::from_millis(waited_ms),
            was_equal: false,
            metaid: METAID,
            ours: Version(100),
            stops_within: Duration::from_secs(8),
            arp_probe: true,
        };
        change(&mut seen);
        match judge(PEER, &seen) {
            Ok(Judgement::AskAgain { equal: true }) => "equal".to_owned(),
            Ok(Judgement::AskAgain { equal: false }) => "again".to_owned(),
            Ok(Judgement::Passed { verdict, warning }) => verdict + if warning.is_some() { ", warned" } else { "" },
            Err(failure) => format!("{:?}", failure.why()),
        }
    }

    #[test]
    fn each_peer_is_judged_by_what_it_shows() {
        let unchanged = |_: &mut Seen| ();
        let table = [
            (MasterAt::Silent, 0, "is silent"),
            (MasterAt::NoMaster, 0, "runs no master"),
            (MasterAt::Unresponsive, 2999, "again"),
            (MasterAt::Unresponsive, 3000, "runs a master that hangs, warned"),
            (master(Some(101), None), 1999, "again"),
            (master(Some(101), None), 2000, "NewerElsewhere"),
            (master(Some(99), None), 0, "runs a stale master of version 99, warned"),
            (master(Some(100), None), 7999, "equal"),
            (master(Some(100), None), 8000, "runs a stale master that knows no more, warned"),
            (master(None, None), 7999, "equal"),
            (master(None, None), 8000, "MasterElsewhere"),
            (master(Some(999), Some(METAID + 1)), 9000, "serves another file system, warned"),
            (master(Some(999), Some(METAID)), 9000, "NewerElsewhere"),
        ];
        for (presence, waited, expected) in table {
            assert_eq!(judged(presence, waited, unchanged), expected, "{presence:?} after {waited} ms");
        }
        assert_eq!(judged(MasterAt::Unresponsive, 0, |seen| seen.was_equal = true), "is stopping its master");
        assert_eq!(judged(master(Some(100), None), 8000, |seen| seen.arp_probe = false), "MasterElsewhere");
        assert_eq!(
            judged(master(Some(999), Some(9)), 9000, |seen| seen.metaid = 0),
            "NewerElsewhere",
            "cannot be told"
        );
        assert!(Why::NewerElsewhere.policy().waivable);
    }
}
