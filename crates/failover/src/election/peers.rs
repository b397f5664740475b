//! Is a master alive on another machine, and what does it know?
//!
//! | the other machine | then |
//! |---|---|
//! | serves: it says so, and that it answers clients | this machine waits for it to stop, and steps down if it does not |
//! | has a master whose history goes further than the files here | the copy here gets a moment to follow; else this machine steps down |
//! | has a master at the same version | it is about to stop: we wait for that |
//! | stops its master, or has said that it left the virtual IP at a version that is here too | it does not stand in the way |
//! | has a master with less, or of another file system | it does not stand in the way |
//! | accepts connections and does not answer | it gets the time that a clean stop takes if a run of ours says that it serves; else it hangs |
//! | has a master that nothing attends: no advertisement comes from there, and no heartbeat although there were some | its lease has ended, so it answers no client |
//!
//! Versions are compared as in [`Version::reaches_further_than`]: the files here before the epoch jump.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use super::{Election, Failure, POLL};
use crate::group::View;
use crate::heartbeat::Role;
use crate::metadata::inventory::end_of_copy;
use crate::metadata::{Plan, Version};
use crate::moosefs::MasterAt;
use crate::sys::cancel::Cancel;
use crate::sys::text::human;
use crate::timing;

/// Between two looks at how far the copy here goes.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Judges every peer until none stands in the way and the election has settled; says what was seen.
pub(super) fn check(election: &Election<'_>, plan: &Plan, cancel: &Cancel) -> Result<String, Failure> {
    let (begun, mut waits) = (Instant::now(), BTreeMap::<Ipv4Addr, Wait>::new());
    election.group.ask_now();
    let (mut ours, mut looked) = (reach(election, plan), Instant::now());
    loop {
        if looked.elapsed() > LOOK_AGAIN {
            (ours, looked) = (reach(election, plan), Instant::now());
        }
        election.group.say(|statement| (statement.version, statement.metaid) = (Some(ours), plan.metaid));
        let mut verdicts = BTreeMap::new();
        let views = election.group.views();
        for (address, view) in &views {
            let wait = waits.entry(*address).or_insert_with(Wait::begin);
            match judge(*address, &Seen::of(view, begun, wait, ours, election, plan))? {
                Judgement::AskAgain { equal } => wait.note_equal(equal, *address),
                Judgement::Passed { verdict, warning } => {
                    wait.warn(warning);
                    verdicts.insert(*address, verdict);
                }
            }
        }
        cancel.check()?;
        if election.settled_for().is_some() {
            if verdicts.len() == views.len() {
                return Ok(summary(&verdicts));
            }
            election.require_vip()?;
        }
        election.group.wait(POLL, cancel)?;
    }
}

/// Where the files here end now: a metalogger writes once a second what it has received.
fn reach(election: &Election<'_>, planned: &Plan) -> Version {
    end_of_copy(&election.machine.data).map_or(planned.end_version, |end| end.max(planned.end_version))
}

/// How long a peer has been judged, and what was logged about it.
struct Wait {
    since: Instant,
    /// Whether its master was seen at our own version.
    equal: bool,
    warned: Option<String>,
}

impl Wait {
    fn begin() -> Self {
        Self { since: Instant::now(), equal: false, warned: None }
    }

    fn note_equal(&mut self, equal: bool, address: Ipv4Addr) {
        if equal && !std::mem::replace(&mut self.equal, true) {
            log::info!("the master on {address} has the same version as this machine; waiting for it to stop");
        }
    }

    fn warn(&mut self, warning: Option<String>) {
        if let Some(warning) = warning.filter(|warning| self.warned.as_ref() != Some(warning)) {
            log::warn!("{warning}");
            self.warned = Some(warning);
        }
    }
}

/// All that the judgement of a peer depends on.
#[expect(clippy::struct_excessive_bools, reason = "each is seen by itself")]
struct Seen {
    /// `None` if it was not asked yet since a moment at which the network worked.
    found: Option<MasterAt>,
    /// How far its history goes.
    history: Option<Version>,
    /// How far it went at any time in this run.
    best: Option<Version>,
    /// What it says of itself now.
    role: Option<Role>,
    /// It says that it answers clients.
    answers_clients: bool,
    attended: bool,
    leased: bool,
    foreign: bool,
    /// Since it was judged first.
    waited: Duration,
    /// Whether its master was seen at our own version before.
    was_equal: bool,
    /// Where the files here end.
    ours: Version,
    /// A master that is told to stop has begun to within this.
    stops_within: Duration,
    /// How long a clean stop of a master with this image takes on an ordinary disk at most.
    stop_takes: Duration,
    /// Whether the address itself is asked for by ARP.
    arp_probe: bool,
}

impl Seen {
    fn of(view: &View, begun: Instant, wait: &Wait, ours: Version, election: &Election<'_>, plan: &Plan) -> Self {
        let (options, now, machine) = (election.options, Instant::now(), election.machine);
        let statement = view.statement(now);
        let same = |(version, metaid): (Version, u64)| {
            (metaid == 0 || plan.metaid == 0 || metaid == plan.metaid).then_some(version)
        };
        Self {
            found: view.asked.filter(|asked| asked.begun >= begun).map(|asked| asked.found),
            history: view.history(now),
            best: view.best.and_then(same),
            role: statement.map(|statement| statement.role),
            answers_clients: statement.is_some_and(|statement| statement.answers),
            attended: view.is_attended(now, options),
            leased: view.leased,
            foreign: view.is_foreign(plan.metaid, now),
            waited: wait.since.elapsed(),
            was_equal: wait.equal,
            ours,
            stops_within: options.dead_time() + options.interval() + timing::GRACE_MARGIN + 2 * timing::OTHER_SKEW,
            stop_takes: machine.stop_time().most / timing::MOST_TIMES,
            arp_probe: machine.config.arp_probe,
        }
    }

    /// How its history stands against the files here.
    fn compare(&self) -> Standing {
        match self.history {
            _ if self.best.is_some_and(|best| best.reaches_further_than(self.ours)) => Standing::Further,
            None => Standing::Unknown,
            Some(theirs) if theirs.reaches_further_than(self.ours) => Standing::Further,
            Some(theirs) if self.ours.reaches_further_than(theirs) => Standing::Less,
            Some(_) => Standing::Equal,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Further,
    Equal,
    Less,
    Unknown,
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
    let warned =
        |verdict: &str, warning: String| Ok(Judgement::Passed { verdict: verdict.to_owned(), warning: Some(warning) });
    let again = |equal| Ok(Judgement::AskAgain { equal });
    let alive = |why| Err(Failure::Alive { peer: address, after: seen.waited, why });
    let Some(found) = seen.found else { return again(false) };
    if seen.foreign {
        return warned(
            "serves another file system",
            format!("the master on {address} serves another file system; ignoring it"),
        );
    }
    let standing = seen.compare();
    let theirs = seen.best.or(seen.history).unwrap_or_default();
    // Said, signed, in this second.
    if seen.role == Some(Role::Serving) && seen.answers_clients {
        return match standing {
            Standing::Further => Err(Failure::Newer { peer: address, version: theirs, ours: seen.ours }),
            _ if seen.waited < seen.stops_within => again(standing == Standing::Equal),
            _ => alive("it says that it serves"),
        };
    }
    // Whether it has given the virtual IP up is seen by ARP: see `duplicate`.
    let lapsed = seen.leased && !seen.attended && seen.arp_probe;
    if standing == Standing::Further {
        if lapsed {
            let text = format!(
                "the master on {address} goes on to version {theirs} with nothing of this group at work there: it has \
                 answered no client for some time; stop it there"
            );
            return warned("runs a master that answers no client", text);
        }
        if seen.waited < timing::METALOGGER_FLUSH {
            return again(false);
        }
        return Err(Failure::Newer { peer: address, version: theirs, ours: seen.ours });
    }
    match (found, standing) {
        (MasterAt::Silent, _) if seen.role.is_none() => passed("is silent"),
        (MasterAt::NoMaster, _) => passed("runs no master"),
        (_, Standing::Equal | Standing::Less) if seen.role == Some(Role::Stopping) => passed("is stopping its master"),
        (MasterAt::Silent | MasterAt::Unresponsive, _) => match seen.role {
            // The run there watches over it.
            Some(Role::Serving) if seen.waited < seen.stop_takes => again(false),
            Some(Role::Serving) => alive("its master does not answer"),
            _ if seen.was_equal => passed("is stopping its master"),
            _ if seen.waited < timing::PEER_HUNG => again(false),
            _ => {
                let text = format!("the master on {address} hangs (accepts connections, no reply); ignoring it");
                warned("runs a master that hangs", text)
            }
        },
        (MasterAt::Answers(_), Standing::Less) => {
            let text = format!(
                "stale master on {address} (version {theirs}, the files here end at {}) without the virtual IP; stop it \
                 there",
                seen.ours
            );
            warned(&format!("runs a stale master of version {theirs}"), text)
        }
        (MasterAt::Answers(_), _) if lapsed => {
            let text = format!("the master on {address} runs with nothing of this group at work there; stop it there");
            warned("runs a master that answers no client", text)
        }
        (MasterAt::Answers(_), Standing::Equal) if seen.waited < seen.stops_within => again(true),
        (MasterAt::Answers(_), _) if seen.waited < seen.stops_within => again(false),
        (MasterAt::Answers(_), Standing::Unknown) => alive("it does not tell its version"),
        (MasterAt::Answers(_), _) if seen.role.is_some() => alive("it is being demoted and does not stop"),
        (MasterAt::Answers(_), _) if !seen.arp_probe => {
            alive("ARP_PROBE = no, so it is not known whether it has the virtual IP")
        }
        (MasterAt::Answers(_), _) => {
            let text = format!(
                "the master on {address} did not stop within {}. It has version {theirs}, as this machine, and not the \
                 virtual IP; stop it there",
                human(seen.waited)
            );
            warned("runs a stale master that knows no more", text)
        }
    }
}

fn summary(verdicts: &BTreeMap<Ipv4Addr, String>) -> String {
    if verdicts.is_empty() {
        return "no peer is known".to_owned();
    }
    let seen = verdicts.iter().map(|(address, verdict)| format!("{address} {verdict}"));
    seen.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::moosefs::{Info, Release};
    use crate::policy::Why;

    const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
    const OURS: Version = Version(100);

    fn answers() -> MasterAt {
        let release = Release { major: 4, minor: 57, patch: 5 };
        MasterAt::Answers(Info { release, metadata_version: None, metaid: None })
    }

    /// In words: the verdict, `again` or `equal`, or the row of the policy table.
    fn judged(found: MasterAt, history: Option<u64>, waited_ms: u64, change: impl FnOnce(&mut Seen)) -> String {
        let history = history.map(Version);
        let mut seen = Seen {
            found: Some(found),
            history,
            best: history,
            role: None,
            answers_clients: false,
            attended: true,
            leased: true,
            foreign: false,
            waited: Duration::from_millis(waited_ms),
            was_equal: false,
            ours: OURS,
            stops_within: Duration::from_secs(8),
            stop_takes: Duration::from_secs(60),
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
        let table = [
            (MasterAt::Silent, None, 0, "is silent"),
            (MasterAt::NoMaster, None, 0, "runs no master"),
            (MasterAt::Unresponsive, None, 2999, "again"),
            (MasterAt::Unresponsive, None, 3000, "runs a master that hangs, warned"),
            (answers(), Some(101), 1999, "again"),
            (answers(), Some(101), 2000, "NewerElsewhere"),
            (answers(), Some(99), 0, "runs a stale master of version 99, warned"),
            (answers(), Some(100), 7999, "equal"),
            (answers(), Some(100), 8000, "runs a stale master that knows no more, warned"),
            (answers(), None, 7999, "again"),
            (answers(), None, 8000, "MasterElsewhere"),
        ];
        for (found, history, waited, expected) in table {
            assert_eq!(judged(found, history, waited, |_| ()), expected, "{found:?} {history:?} after {waited} ms");
        }
        assert_eq!(judged(MasterAt::Unresponsive, None, 0, |seen| seen.was_equal = true), "is stopping its master");
        assert_eq!(judged(answers(), Some(100), 8000, |seen| seen.arp_probe = false), "MasterElsewhere");
        let foreign = |seen: &mut Seen| seen.foreign = true;
        assert_eq!(judged(answers(), Some(999), 9000, foreign), "serves another file system, warned");
        assert_eq!(judged(MasterAt::Silent, None, 9000, |seen| seen.found = None), "again", "not asked since");
        assert!(Why::NewerElsewhere.policy().waivable);
    }

    #[test]
    fn a_machine_is_judged_by_what_it_says_of_itself() {
        let says = |role, answers_clients| {
            move |seen: &mut Seen| (seen.role, seen.answers_clients) = (Some(role), answers_clients)
        };
        // Its lease is open: no other one may begin to serve, whatever is in its copy.
        for (history, waited, expected) in
            [(101, 0, "NewerElsewhere"), (100, 7999, "equal"), (99, 7999, "again"), (99, 8000, "MasterElsewhere")]
        {
            assert_eq!(judged(answers(), Some(history), waited, says(Role::Serving, true)), expected);
        }
        assert_eq!(judged(answers(), Some(100), 0, says(Role::Stopping, false)), "is stopping its master");
        assert_eq!(judged(MasterAt::Unresponsive, Some(100), 0, says(Role::Stopping, false)), "is stopping its master");
        assert_eq!(judged(MasterAt::Unresponsive, Some(101), 2000, says(Role::Stopping, false)), "NewerElsewhere");
        for (waited, expected) in [(59_999, "again"), (60_000, "MasterElsewhere")] {
            let slow = judged(MasterAt::Unresponsive, None, waited, says(Role::Serving, false));
            assert_eq!(slow, expected, "slow is not dead, {waited}");
        }
    }

    #[test]
    fn what_a_machine_had_counts_also_when_it_is_silent_now() {
        assert_eq!(judged(MasterAt::Silent, None, 2000, |seen| seen.best = Some(Version(101))), "NewerElsewhere");
    }

    #[test]
    fn a_master_that_nothing_attends_answers_no_client_and_does_not_stand_in_the_way() {
        let left_alone = |seen: &mut Seen| seen.attended = false;
        for history in [100, 105] {
            let expected = "runs a master that answers no client, warned";
            assert_eq!(judged(answers(), Some(history), 0, left_alone), expected);
        }
        let without_leases = |seen: &mut Seen| (seen.attended, seen.leased) = (false, false);
        assert_eq!(judged(answers(), Some(105), 2000, without_leases), "NewerElsewhere");
    }
}
