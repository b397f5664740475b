//! What a machine that leaves the virtual IP says to the others, and sees of them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Group, View};
use crate::heartbeat::{Role, Statement};
use crate::machine::{Machine, memory};
use crate::metadata::{EPOCH, Version};
use crate::sys::cancel::{Cancel, Cancelled};
use crate::sys::text::count;
use crate::timing;
use crate::ucarp::Options;

/// A machine that leaves the virtual IP.
pub(crate) struct Leaving {
    group: Arc<Group>,
    /// Where its history ended for clients; `None` where the release does not tell it.
    left: Option<Version>,
    begun: Instant,
}

/// What is seen of the other machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Others {
    /// One of them has everything that this machine has answered.
    LacksNothing {
        /// Its own address.
        other: Ipv4Addr,
        /// How it shows that.
        shown: Shown,
    },
    /// One of them wants to serve, and lacks something, or has not said what it has.
    Heard {
        /// Its own address.
        other: Ipv4Addr,
        /// When it was heard last.
        at: Instant,
        /// What it says that it has.
        version: Option<Version>,
    },
    /// None wants to serve.
    None,
}

/// How a machine shows that it lacks nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    /// The run that promotes it says how far the files go.
    Files(Version),
    /// Its master answers.
    Master(Version),
    /// It goes on advertising, where no release tells a version.
    Advertising,
}

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Files(version) => write!(f, "is being promoted with version {version}"),
            Self::Master(version) => write!(f, "serves version {version}"),
            Self::Advertising => f.write_str("goes on advertising"),
        }
    }
}

/// Changes of this machine that are in no served history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unserved {
    first: Version,
    end: Version,
    served_by: Ipv4Addr,
}

impl Leaving {
    /// Says from now on that this machine has left the virtual IP, when its metadata had this version.
    pub(crate) fn begin(group: Arc<Group>, left: Option<Version>) -> Self {
        group.say(|statement| (statement.role, statement.version, statement.answers) = (Role::Demoting, left, false));
        Self { group, left, begun: Instant::now() }
    }

    /// The master here stops, whatever comes.
    pub(crate) fn say_stopping(&self) {
        self.group.say(|statement| statement.role = Role::Stopping);
    }

    /// Waits until something new is heard, for `time` at most.
    pub(crate) fn wait(&self, time: Duration, cancel: &Cancel) -> Result<(), Cancelled> {
        self.group.wait(time, cancel)
    }

    /// What the others show now.
    pub(crate) fn look(&self) -> Others {
        let left = Left { at: self.left, begun: self.begun, metaid: self.group.metaid() };
        left.look(&self.group.views(), self.group.options(), Instant::now())
    }

    fn view(&self, other: Ipv4Addr) -> Option<View> {
        self.group.views().remove(&other)
    }

    pub(crate) fn log_waiting(&self, other: Ipv4Addr, version: Option<Version>) {
        match (version, self.left) {
            (Some(version), Some(left)) if left.reaches_further_than(version) => log::warn!(
                "{other} wants to serve, with version {version}, and the master here has version {left}: waiting for {other} \
                 to step down"
            ),
            _ => log::info!("{other} wants to serve: waiting until it shows what it has"),
        }
    }

    /// What was made here and is not in the history that `other` serves. The history here left the one before it at
    /// `forked_at`. What `other` said last counts; if it was not heard yet, that is waited for.
    pub(crate) fn unserved(&self, other: Ipv4Addr, forked_at: Option<Version>, cancel: &Cancel) -> Option<Unserved> {
        let (begun, mut view) = (Instant::now(), self.view(other)?);
        while view.heartbeat.is_none() && begun.elapsed() < timing::HEARTBEAT_LOST * 2 {
            self.wait(timing::HEARTBEAT_LOST, cancel).ok()?;
            view = self.view(other)?;
        }
        // A machine that serves may have lost the virtual IP for a moment.
        let statement = &view.heartbeat.as_ref()?.statement;
        if statement.role == Role::Promoting {
            return None;
        }
        let version = view.history(Instant::now()).or(statement.version)?;
        let served = Served { version, forked_at: statement.forked_at };
        between(served, self.left?, forked_at).map(|(first, end)| Unserved { first, end, served_by: other })
    }
}

impl Unserved {
    /// Says it where the changes are, and remembers it.
    pub(crate) fn report(self, machine: &Machine) {
        let Self { first, end, served_by } = self;
        log::error!(
            "not in the served history: versions {first} to {} ({}) of this machine. {served_by} serves a history that parted \
             from it before them and has made more since; they stay on this machine, in {}",
            end.last_change(),
            count(usize::try_from(end.changes_since(first)).unwrap_or(usize::MAX), "change"),
            machine.config.data_path.display()
        );
        memory::unserved(&machine.state, first, end, served_by);
    }
}

/// Where and when the virtual IP was left.
#[derive(Debug, Clone, Copy)]
struct Left {
    at: Option<Version>,
    begun: Instant,
    metaid: u64,
}

impl Left {
    fn look(self, views: &BTreeMap<Ipv4Addr, View>, options: &Options, now: Instant) -> Others {
        let ours = || views.iter().filter(|(_, view)| !view.is_foreign(self.metaid, now));
        let shows = |(other, view): (&Ipv4Addr, &View)| {
            self.shown(view, options, now).map(|shown| Others::LacksNothing { other: *other, shown })
        };
        let heard = |(other, view): (&Ipv4Addr, &View)| {
            let promoted = promoting(view, now);
            let at = view.last_claim(now).max(promoted.map(|_| now)).filter(|at| *at >= self.begun)?;
            let version = promoted.and_then(|statement| statement.version).or(view.history(now));
            Some(Others::Heard { other: *other, at, version })
        };
        let last = |others: &Others| match others {
            Others::Heard { at, .. } => Some(*at),
            _ => None,
        };
        ours().find_map(shows).or_else(|| ours().filter_map(heard).max_by_key(last)).unwrap_or(Others::None)
    }

    fn shown(self, view: &View, options: &Options, now: Instant) -> Option<Shown> {
        let Some(left) = self.at else {
            // Nothing can be compared.
            let goes_on = view.advertised.is_some_and(|last| last > self.begun + timing::OTHER_DECIDES);
            return goes_on.then_some(Shown::Advertising);
        };
        let lacks_nothing = |version: &Version| !left.reaches_further_than(*version);
        if let Some(version) = promoting(view, now).and_then(|statement| statement.version).filter(lacks_nothing) {
            return Some(Shown::Files(version));
        }
        let serves = view.is_attended(now, options) && !leaves(view, now);
        view.history(now).filter(|_| serves).filter(lacks_nothing).map(Shown::Master)
    }
}

/// What another machine serves.
#[derive(Debug, Clone, Copy)]
struct Served {
    version: Version,
    /// Where that history left the one before it.
    forked_at: Option<Version>,
}

/// The first change of a history that went on to `left` which is not in the one that is served, and `left`. That history left
/// the one before it at `forked_at`, and each machine knows that of its own.
fn between(served: Served, left: Version, forked_at: Option<Version>) -> Option<(Version, Version)> {
    let (ours, theirs) = (left.epoch(), served.version.epoch());
    let began = |fork: Version| (fork, Version(ours * EPOCH + fork.position()));
    let (fork, first) = match (forked_at, served.forked_at) {
        // This machine was promoted from the history that is served, or that one from the history here.
        (Some(fork), _) if ours > theirs && fork.epoch() == theirs => began(fork),
        (_, Some(fork)) if ours < theirs && fork.epoch() == ours => began(fork),
        // Both were promoted from one history, in two parts of the network.
        (Some(fork), Some(other)) if ours != theirs && fork.epoch() == other.epoch() => began(fork),
        // A third history lies between.
        _ => return None,
    };
    (left.position() > fork.position()).then_some((first, left))
}

fn promoting(view: &View, now: Instant) -> Option<&Statement> {
    view.statement(now).filter(|statement| statement.role == Role::Promoting)
}

fn leaves(view: &View, now: Instant) -> bool {
    view.statement(now).is_some_and(|statement| statement.role.has_left())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::Asked;
    use crate::heartbeat::Heard;
    use crate::moosefs::{Info, MasterAt, Release};

    const OTHER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
    const PROMOTED: u64 = 1_000_000_000_000;

    /// What a machine that was left at version 100 a minute ago sees of a machine.
    fn seen(left: Option<u64>, change: impl FnOnce(&mut View, Instant)) -> String {
        let start = Instant::now();
        let now = start + Duration::from_secs(60);
        let mut view = View::default();
        change(&mut view, now);
        let left = Left { at: left.map(Version), begun: start, metaid: 7 };
        match left.look(&[(OTHER, view)].into(), &Options::default(), now) {
            Others::LacksNothing { shown, .. } => shown.to_string(),
            Others::Heard { version, .. } => format!("heard, {:?}", version.map(|version| version.0)),
            Others::None => "none".to_owned(),
        }
    }

    fn says(role: Role, version: u64, metaid: u64) -> impl FnOnce(&mut View, Instant) {
        move |view, now| {
            let statement =
                Statement { role, version: Some(Version(version)), metaid, forked_at: None, answers: false };
            view.heartbeat = Some(Heard { statement, received: now });
        }
    }

    fn serves(version: u64, advertised_ms_ago: u64) -> impl FnOnce(&mut View, Instant) {
        move |view, now| {
            let release = Release { major: 3, minor: 0, patch: 117 };
            let info = Info { release, metadata_version: Some(Version(version)), metaid: None };
            view.asked = Some(Asked { begun: now, found: MasterAt::Answers(info) });
            view.advertised = now.checked_sub(Duration::from_millis(advertised_ms_ago));
        }
    }

    #[test]
    fn a_master_stops_for_a_machine_that_shows_that_it_lacks_nothing() {
        let left = Some(100);
        assert_eq!(seen(left, says(Role::Promoting, 100, 7)), "is being promoted with version 100");
        assert_eq!(seen(left, says(Role::Promoting, 99, 7)), "heard, Some(99)");
        assert_eq!(seen(left, says(Role::Promoting, 100, 8)), "none", "another file system");
        assert_eq!(seen(left, says(Role::StandingBy, 100, 7)), "none");
        assert_eq!(seen(left, says(Role::Stopping, 200, 7)), "none");
        assert_eq!(seen(left, serves(PROMOTED + 100, 500)), format!("serves version {}", PROMOTED + 100));
        // Promoted beyond a cut, and it has made less than was made here.
        assert_eq!(seen(left, serves(PROMOTED + 99, 500)), format!("heard, Some({})", PROMOTED + 99));
        assert_eq!(seen(left, serves(200, 50_000)), "heard, Some(200)", "no ucarp and no run of ours vouches for it");
        assert_eq!(seen(left, |_, _| ()), "none");
    }

    #[test]
    fn talking_shows_nothing_but_where_no_release_tells_a_version() {
        let talks = |view: &mut View, now: Instant| view.advertised = Some(now);
        assert_eq!(seen(Some(100), talks), "heard, None");
        assert_eq!(seen(None, talks), "goes on advertising");
    }

    #[test]
    fn what_was_made_here_since_the_fork_is_told_in_numbers() {
        let of = |version: u64, fork: Option<u64>, left: u64, own: Option<u64>| {
            let served = Served { version: Version(version), forked_at: fork.map(Version) };
            between(served, Version(left), own.map(Version)).map(|(first, end)| (first.0, end.0))
        };
        // The other machine was promoted at 100, and this one went on.
        assert_eq!(of(PROMOTED + 150, Some(100), 112, None), Some((100, 112)));
        assert_eq!(of(PROMOTED + 150, Some(100), 100, None), None);
        assert_eq!(of(PROMOTED + 150, Some(100), 90, None), None);
        assert_eq!(of(PROMOTED + 150, None, 112, None), None, "it does not say where");
        assert_eq!(of(2 * PROMOTED + 150, Some(PROMOTED + 100), 112, None), None, "another promotion lies between");
        // This one was promoted at 100, and the other one went on.
        assert_eq!(of(300, None, PROMOTED + 112, Some(100)), Some((PROMOTED + 100, PROMOTED + 112)));
        assert_eq!(of(300, None, PROMOTED + 100, Some(100)), None);
        assert_eq!(of(112, None, 112, Some(5)), None, "the same history");
        // Both were promoted at 100 or near it, in two parts of a network without the first one.
        let sibling = 2 * PROMOTED;
        assert_eq!(of(sibling + 150, Some(100), PROMOTED + 112, Some(101)), Some((PROMOTED + 101, PROMOTED + 112)));
        assert_eq!(of(PROMOTED + 150, Some(100), sibling + 112, Some(101)), Some((sibling + 101, sibling + 112)));
    }
}
