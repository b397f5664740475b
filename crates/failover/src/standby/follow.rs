//! Makes the metalogger here follow the machine that serves.
//!
//! The master at the virtual IP tells which metaloggers are connected to it. If it does not name this machine although the
//! kernel has a connection from here to it, then that connection leads to a master that is gone: it is ended, and the
//! metalogger connects again. So after a takeover the metalogger is made to follow as soon as the new master answers, and
//! one that follows is left alone. See [`silent_death`] for why MooseFS does not notice by itself.
//!
//! One that is connected and receives nothing, although the master goes on, gets the same remedy after a while. One that is
//! not connected for a while is woken by a signal. One that receives changes and leaves a hole before them is restarted, see
//! [`incomplete`](super::incomplete).

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::machine::config::Config;
use crate::machine::lock::Request;
use crate::machine::{Machine, followers};
use crate::metadata::Version;
use crate::metadata::inventory::end_of_copy;
use crate::moosefs::workarounds::old_master::Downloads;
use crate::moosefs::workarounds::silent_death;
use crate::moosefs::{self, Daemon};
use crate::sys::address;
use crate::sys::logging::chain;
use crate::sys::tcp::{self, Outgoing};
use crate::sys::text::human;
use crate::vip::VirtualIp;

use super::incomplete::{self, Incomplete};
use super::unchanged::Unchanged;

/// How long a master may take to answer.
const ANSWER: Duration = Duration::from_secs(1);
/// Between two questions, when nothing has changed lately.
const CALM: Duration = Duration::from_secs(10);
/// After a change the master is asked at each look for this long.
const CHANGED_LATELY: Duration = Duration::from_secs(60);
/// A connection that the master has not named for this long is none of its own: one that is new is named within
/// milliseconds.
const UNNAMED: Duration = Duration::from_millis(1500);
/// A metalogger connects again within `MASTER_RECONNECTION_DELAY`, 5 s by default.
const RECONNECTED: Duration = Duration::from_secs(15);
/// A metalogger that receives nothing for this long, while the master goes on, does not follow. A master of 4.x makes a
/// change every half minute, and one of 3.x gets one soon after a metalogger has connected.
const RECEIVES_NOTHING: Duration = Duration::from_secs(60);
/// Between two attempts after one that has not helped.
const TRY_AGAIN: Duration = Duration::from_secs(300);

/// The metalogger here, and the machine that it should follow.
pub(super) struct Follow {
    /// The machine that serves, as far as is known.
    server: Option<Ipv4Addr>,
    connections: Connections,
    progress: Progress,
    incomplete: Incomplete,
    ask_at: Instant,
    eager_until: Instant,
    away: Option<Away>,
    /// Not before this time after one that has not helped.
    next_attempt: Instant,
}

impl Follow {
    /// At the beginning of the role.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            server: None,
            connections: Connections::default(),
            progress: Progress::default(),
            incomplete: Incomplete::new(now),
            ask_at: now,
            eager_until: now + CHANGED_LATELY,
            away: None,
            next_attempt: now,
        }
    }

    /// Takes in the own address of the machine that serves or is about to. Says whether it is another one than before.
    pub(super) fn note_server(&mut self, server: Option<Ipv4Addr>) -> bool {
        let Some(server) = server.filter(|server| self.server != Some(*server)) else { return false };
        // At the beginning of the role nothing has changed yet.
        if self.server.replace(server).is_some() {
            let now = Instant::now();
            self.connections.server_changed(now);
            (self.ask_at, self.eager_until, self.next_attempt) = (now, now + CHANGED_LATELY, now);
        }
        true
    }

    /// Looks after the metalogger. To be called twice in a second.
    pub(super) fn look(&mut self, machine: &Machine, vip: &VirtualIp, request: &Request) {
        let now = Instant::now();
        self.connections.note(tcp::outgoing_to(vip.port(machine.config.metalogger_port)), now);
        if now < self.ask_at {
            return;
        }
        let master = vip.port(machine.config.client_port);
        let (Ok(own), Ok(named)) = (address::own_addresses(), moosefs::metaloggers(master, ANSWER)) else { return };
        let (named, others): (Vec<_>, Vec<_>) = named.into_iter().partition(|named| own.contains(named));
        // The metalogger of the serving machine itself connects from the virtual IP.
        followers::note(&machine.state, others.into_iter().filter(|other| *other != vip.address));
        match self.connections.judge(named.len(), Instant::now()) {
            Judgement::Follows => {
                self.follows();
                self.ask_at = now + CALM;
                let served = moosefs::info(master, ANSWER).ok().and_then(|info| info.metadata_version);
                if let Some(served) = served {
                    self.end_if_nothing_comes(machine, vip, served);
                    self.incomplete.look(machine, vip, request, &self.connections.all(), served);
                }
            }
            Judgement::Stale(stale) if now >= self.next_attempt => {
                let server = self.server();
                self.end(machine, &stale, &format!("it leads to a master that is gone, and {server} serves now"));
            }
            Judgement::Stale(_) | Judgement::Unclear => {
                self.wait_for_connection(machine);
                self.ask_at = if now < self.eager_until { now } else { now + CALM };
            }
        }
    }

    fn server(&self) -> String {
        self.server.map_or_else(|| "another machine".to_owned(), |server| server.to_string())
    }

    fn follows(&mut self) {
        if let Some(away) = self.away.take().filter(|away| away.remedy != Remedy::None) {
            let (server, after) = (self.server(), human(away.since.elapsed()));
            log::info!("the metalogger here is connected to {server} now, {after} after its connection was lost");
        }
    }

    /// One that was told to read its configuration again closes its connection only when something wakes it, and then
    /// waits for that for ever.
    fn wait_for_connection(&mut self, machine: &Machine) {
        if !self.connections.now.is_empty() {
            return;
        }
        let Some(metalogger) = machine.running(Daemon::Metalogger).ok().flatten() else {
            self.away = None;
            return;
        };
        let server = self.server();
        let away = self.away.get_or_insert_with(|| Away::since(Instant::now()));
        let absent = human(away.since.elapsed());
        match (away.remedy, away.since.elapsed()) {
            (Remedy::None | Remedy::Ended, passed) if passed > RECONNECTED => {
                away.remedy = Remedy::Signalled;
                match silent_death::wake(metalogger) {
                    Ok(()) => log::warn!(
                        "the metalogger here has not been connected to {server} for {absent}, so it was sent HUP"
                    ),
                    Err(e) => log::error!("the metalogger here is not connected to {server}: {}", chain(&e)),
                }
            }
            (Remedy::Signalled, passed) if passed > RECONNECTED * 2 => {
                away.remedy = Remedy::Reported;
                log::error!(
                    "the metalogger here has not been connected to {server} for {absent}: this machine receives no changes; \
                     see the log of mfsmetalogger, and restart it"
                );
            }
            _ => (),
        }
    }

    fn end_if_nothing_comes(&mut self, machine: &Machine, vip: &VirtualIp, served: Version) {
        let Some(reached) = end_of_copy(&machine.data) else { return };
        let now = Instant::now();
        let stuck = self.progress.is_stuck(served, State { reached, downloads: Downloads::of(&machine.data) }, now);
        if !stuck || now < self.next_attempt {
            return;
        }
        // The newest change log alone does not show all that the copy has.
        if incomplete::plan_copy(machine).is_some_and(|copy| copy.is_ok_and(|end| end >= served)) {
            return;
        }
        self.progress = Progress::default();
        let why = format!(
            "the master on {vip} is at version {served}, the copy here ends at {reached}, and nothing has come for {}",
            human(RECEIVES_NOTHING)
        );
        self.end(machine, &self.connections.all(), &why);
    }

    /// Ends connections, so that the metalogger connects again.
    fn end(&mut self, machine: &Machine, connections: &[Outgoing], why: &str) {
        let metalogger = machine.running(Daemon::Metalogger).ok().flatten();
        for connection in connections {
            match silent_death::end_connection(connection, metalogger) {
                Ok(()) => log::warn!("ended the connection of the metalogger here to {}: {why}", connection.remote),
                Err(e) => {
                    log::error!("the metalogger here does not follow: {why}; {}; restart mfsmetalogger", chain(&e));
                }
            }
        }
        let now = Instant::now();
        // A new connection gets its time, one that fails as well is not ended again and again.
        let ended_before = self.away.as_ref().is_some_and(|away| away.remedy != Remedy::None);
        self.next_attempt = if ended_before { now + TRY_AGAIN } else { now };
        let away = self.away.get_or_insert_with(|| Away::since(now));
        if away.remedy == Remedy::None {
            away.remedy = Remedy::Ended;
        }
        (self.ask_at, self.eager_until) = (now, now + CHANGED_LATELY);
    }
}

/// The metalogger does not follow.
struct Away {
    since: Instant,
    remedy: Remedy,
}

impl Away {
    fn since(since: Instant) -> Self {
        Self { since, remedy: Remedy::None }
    }
}

/// What was done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Remedy {
    None,
    /// Its connection was ended.
    Ended,
    /// It was sent HUP.
    Signalled,
    /// An administrator was asked to restart it.
    Reported,
}

/// Whether the metalogger here is connected to the master at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MetaloggerConnection {
    /// That master says so.
    Follows,
    /// That master says that it is not, and yet there is a connection: to a master that is gone.
    Stale,
    /// There is no connection.
    None,
}

impl MetaloggerConnection {
    /// Asks the master at the virtual IP `server`. Takes some seconds if it is not connected.
    pub(crate) fn to(config: &Config, server: Ipv4Addr) -> Result<Self, moosefs::Error> {
        let [master, metaloggers] =
            [config.client_port, config.metalogger_port].map(|port| SocketAddrV4::new(server, port));
        let end = Instant::now() + UNNAMED * 2;
        loop {
            let own = address::own_addresses().unwrap_or_default();
            let named = moosefs::metaloggers(master, ANSWER)?.iter().any(|named| own.contains(named));
            let found = match tcp::outgoing_to(metaloggers).is_empty() {
                _ if named => return Ok(Self::Follows),
                true => Self::None,
                false => Self::Stale,
            };
            if Instant::now() >= end {
                return Ok(found);
            }
            sleep(UNNAMED / 3);
        }
    }
}

/// What the connections of the metalogger are.
#[derive(Debug, PartialEq, Eq)]
enum Judgement {
    /// The master at the virtual IP has them.
    Follows,
    /// It does not have these.
    Stale(Vec<Outgoing>),
    /// There is none, or it has just been made.
    Unclear,
}

/// The connections from here to the virtual IP that a metalogger has.
#[derive(Debug, Default)]
struct Connections {
    now: BTreeMap<Outgoing, Seen>,
    /// When another machine began to serve.
    server_changed: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    first: Instant,
    /// Since when the master does not name it.
    unnamed: Option<Instant>,
}

impl Connections {
    fn note(&mut self, found: impl IntoIterator<Item = Outgoing>, now: Instant) {
        let before = std::mem::take(&mut self.now);
        let seen = |one: &Outgoing| before.get(one).copied().unwrap_or(Seen { first: now, unnamed: None });
        self.now = found.into_iter().map(|one| (one, seen(&one))).collect();
    }

    fn server_changed(&mut self, now: Instant) {
        self.server_changed = Some(now);
    }

    fn all(&self) -> Vec<Outgoing> {
        self.now.keys().copied().collect()
    }

    /// The master names this machine `named` times.
    fn judge(&mut self, named: usize, now: Instant) -> Judgement {
        // One that is not configured to use the virtual IP has no connection to it.
        if named > 0 && named >= self.now.len() {
            self.now.values_mut().for_each(|seen| seen.unnamed = None);
            return Judgement::Follows;
        }
        let is_old = |seen: &Seen| self.server_changed.is_some_and(|changed| seen.first < changed);
        let is_unnamed = |seen: &Seen| named == 0 && seen.unnamed.is_some_and(|since| now - since >= UNNAMED);
        let stale = self.now.iter().filter(|(_, seen)| is_old(seen) || is_unnamed(seen));
        let stale: Vec<_> = stale.map(|(connection, _)| *connection).collect();
        for seen in self.now.values_mut() {
            seen.unnamed.get_or_insert(now);
        }
        if stale.is_empty() { Judgement::Unclear } else { Judgement::Stale(stale) }
    }
}

/// What a metalogger changes while it receives something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    /// Where its newest change log ends.
    reached: Version,
    downloads: Downloads,
}

/// Whether the metalogger receives something.
#[derive(Debug, Default)]
struct Progress {
    state: Unchanged<State>,
}

impl Progress {
    fn is_stuck(&mut self, served: Version, state: State, now: Instant) -> bool {
        if state.reached >= served {
            self.state.forget();
            return false;
        }
        self.state.lasted(state, now) >= RECEIVES_NOTHING
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{SocketAddr, TcpListener, TcpStream};

    /// A listener, and as many connections to it.
    fn connections<const N: usize>() -> (TcpListener, [TcpStream; N], Vec<Outgoing>) {
        let listener = TcpListener::bind("127.0.0.5:0").unwrap();
        let SocketAddr::V4(address) = listener.local_addr().unwrap() else { unreachable!() };
        let streams = [(); N].map(|()| TcpStream::connect(address).unwrap());
        (listener, streams, tcp::outgoing_to(address).into_iter().collect())
    }

    #[test]
    fn a_connection_that_is_older_than_the_takeover_is_stale_as_soon_as_the_new_master_does_not_name_it() {
        let (_listener, _streams, found) = connections::<1>();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut seen = Connections::default();
        assert_eq!(seen.judge(0, at(0)), Judgement::Unclear, "none is connected");
        assert_eq!(seen.judge(1, at(0)), Judgement::Follows, "to another address");
        seen.note(found.clone(), at(0));
        assert_eq!(seen.judge(1, at(1)), Judgement::Follows);
        seen.server_changed(at(9000));
        seen.note(found.clone(), at(9000));
        assert_eq!(seen.judge(0, at(9001)), Judgement::Stale(found.clone()));
        assert_eq!(seen.judge(1, at(9002)), Judgement::Follows, "the old master serves again");
    }

    #[test]
    fn a_connection_that_was_made_after_the_takeover_gets_a_moment_to_register() {
        let (_listener, _streams, found) = connections::<1>();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut seen = Connections::default();
        seen.server_changed(at(0));
        seen.note(found.clone(), at(1000));
        assert_eq!(seen.judge(0, at(1000)), Judgement::Unclear);
        assert_eq!(seen.judge(0, at(2499)), Judgement::Unclear);
        assert_eq!(seen.judge(1, at(2500)), Judgement::Follows);
        assert_eq!(seen.judge(0, at(3000)), Judgement::Unclear, "counted from here");
        assert_eq!(seen.judge(0, at(4500)), Judgement::Stale(found));
    }

    #[test]
    fn of_two_connections_the_old_one_is_stale() {
        let (_listener, _streams, found) = connections::<2>();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut seen = Connections::default();
        seen.note(found[..1].to_vec(), at(0));
        seen.server_changed(at(1000));
        seen.note(found.clone(), at(2000));
        assert_eq!(seen.judge(1, at(60_000)), Judgement::Stale(found[..1].to_vec()));
        assert_eq!(seen.judge(2, at(60_001)), Judgement::Follows);
    }

    #[test]
    fn a_metalogger_is_stuck_if_nothing_changes_while_the_master_is_ahead() {
        let (mut progress, start) = (Progress::default(), Instant::now());
        let mut stuck = |served, reached, download: Option<i64>, seconds| {
            let downloads = download.map_or_else(Downloads::default, Downloads::of_log);
            let state = State { reached: Version(reached), downloads };
            progress.is_stuck(Version(served), state, start + Duration::from_secs(seconds))
        };
        assert!(!stuck(10, 10, None, 0) && !stuck(10, 10, None, 600), "an idle master");
        assert!(!stuck(11, 10, None, 601) && !stuck(12, 10, None, 660) && stuck(13, 10, None, 661));
        assert!(!stuck(14, 12, None, 662) && !stuck(14, 12, None, 721), "a slow one");
        assert!(!stuck(14, 12, Some(1), 722) && !stuck(14, 12, Some(2), 781), "it downloads");
        assert!(stuck(14, 12, Some(2), 841) && !stuck(14, 14, Some(2), 842));
    }
}
