//! The other machines of this group, as one run sees them: what each says of itself, and what its master answers.
//!
//! | source | what it tells |
//! |---|---|
//! | signed advertisements of ucarp | that the machine is MASTER |
//! | signed heartbeats of our runs | its role, and how far its metadata goes |
//! | INFO on the machine's own address | whether a master runs there, and how far its metadata goes |
//!
//! Asked are `PEERS` and the machines of which something signed was heard, in this run or lately. All of them are asked from
//! the moment on in which a run begins, and for as long as it lasts: a machine that was heard once is not forgotten because
//! it is silent when somebody has the time to ask.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::heartbeat::{Heard, Heartbeats, Role, Statement};
use crate::machine::config::Config;
use crate::machine::last_heard::{LastHeard, Signs};
use crate::machine::memory::{self, Memory};
use crate::machine::state::State;
use crate::metadata::Version;
use crate::moosefs::{self, MasterAt};
use crate::sys::address;
use crate::sys::arp::Probe;
use crate::sys::cancel::{Cancel, Cancelled};
use crate::sys::tcp::Connected;
use crate::timing;
use crate::ucarp::Options;
use crate::vip::VirtualIp;

pub(crate) mod leaving;

/// How thoroughly other machines are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asking {
    /// Ten times in a second, and by ARP where they are silent to TCP: somebody waits for the answer. See
    /// [`Group::ask_calmly`].
    Eagerly,
    /// Not at all: what they say of themselves is enough.
    Never,
}

/// What is known of another machine.
#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    /// Its last heartbeat.
    pub(crate) heartbeat: Option<Heard>,
    /// When it advertised last.
    pub(crate) advertised: Option<Instant>,
    /// What was found on its own address last.
    pub(crate) asked: Option<Asked>,
    /// The furthest version that clients may have been answered there, as far as it was told during this run, and the
    /// metaid.
    pub(crate) best: Option<(Version, u64)>,
    /// Whether it has sent heartbeats, now or lately: then its master answers clients only under a lease.
    pub(crate) leased: bool,
    /// Whether an administrator has named it.
    pub(crate) configured: bool,
}

/// An answer, or that there was none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    /// When the question was begun.
    pub(crate) begun: Instant,
    /// What was found.
    pub(crate) found: MasterAt,
}

impl View {
    /// Its heartbeat, if it still comes.
    pub(crate) fn statement(&self, now: Instant) -> Option<&Statement> {
        let fresh = |heard: &&Heard| now.saturating_duration_since(heard.received) < timing::HEARTBEAT_LOST;
        self.heartbeat.as_ref().filter(fresh).map(|heard| &heard.statement)
    }

    /// Whether a ucarp there says that it is MASTER, or a run of ours is at work.
    pub(crate) fn is_attended(&self, now: Instant, options: &Options) -> bool {
        self.statement(now).is_some() || self.advertises(now, options)
    }

    /// Whether its ucarp says that it is MASTER: not two advertisements are missing.
    pub(crate) fn advertises(&self, now: Instant, options: &Options) -> bool {
        let interval = options.interval() + timing::OTHER_SKEW;
        self.advertised.is_some_and(|last| now.saturating_duration_since(last) < interval * 2)
    }

    /// When it last said that it answers clients: a heartbeat says so or denies it; without one, an advertisement counts.
    pub(crate) fn last_answer(&self, now: Instant) -> Option<Instant> {
        match self.statement(now) {
            Some(statement) => statement.answers.then_some(now),
            None => self.advertised,
        }
    }

    /// When it last said that it serves, or that it is MASTER.
    pub(crate) fn last_claim(&self, now: Instant) -> Option<Instant> {
        let serves = self.statement(now).is_some_and(|statement| statement.role == Role::Serving);
        self.advertised.max(serves.then_some(now))
    }

    /// How far the history of its master goes: what clients may have been answered. A machine that has left the virtual IP
    /// says where that was; the master itself goes on to count that clients and chunkservers have left it.
    pub(crate) fn history(&self, now: Instant) -> Option<Version> {
        match self.statement(now) {
            Some(Statement { role, version: Some(left), .. }) if role.has_left() => Some(*left),
            _ => match self.asked?.found {
                MasterAt::Answers(info) => info.metadata_version,
                _ => None,
            },
        }
    }

    /// Takes in what is told now. Where it left the virtual IP counts even if its master has told more: before the machine
    /// was heard to have left, the master may have counted that clients had left it.
    fn note_best(&mut self, now: Instant) {
        let Some(version) = self.history(now) else { return };
        let left = self.statement(now).is_some_and(|said| said.role.has_left());
        if left || self.best.is_none_or(|(best, _)| version.reaches_further_than(best)) {
            self.best = Some((version, self.metaid(now).unwrap_or(0)));
        }
    }

    /// The id of its file system, where it is told.
    pub(crate) fn metaid(&self, now: Instant) -> Option<u64> {
        let told = match self.asked.map(|asked| asked.found) {
            Some(MasterAt::Answers(info)) => info.metaid,
            _ => None,
        };
        let said = || self.statement(now).map(|statement| statement.metaid);
        told.or_else(said).filter(|metaid| *metaid != 0)
    }

    /// Whether it is known to serve another file system than the one with this id.
    pub(crate) fn is_foreign(&self, metaid: u64, now: Instant) -> bool {
        metaid != 0 && self.metaid(now).is_some_and(|other| other != metaid)
    }
}

/// The other machines of the group. It ends with the value.
#[derive(Debug)]
pub(crate) struct Group {
    shared: Arc<Shared>,
    heartbeats: Option<Heartbeats>,
    /// The id of the file system here, once it is known.
    metaid: AtomicU64,
    options: Options,
    thread: Option<JoinHandle<()>>,
    since: Instant,
}

#[derive(Debug)]
struct Shared {
    vip: VirtualIp,
    port: u16,
    own: Vec<Ipv4Addr>,
    asks: bool,
    eagerly: AtomicBool,
    end: Cancel,
    views: Mutex<BTreeMap<Ipv4Addr, View>>,
}

impl Group {
    /// Listens and asks from now on, and says `statement` of this machine. Without a ucarp nothing is said and nobody is
    /// heard: then only `PEERS` and remembered machines are asked.
    pub(crate) fn join(
        config: &Config,
        memory: &Memory,
        vip: &VirtualIp,
        options: Option<&Options>,
        statement: Statement,
        asking: Asking,
    ) -> Self {
        let own = address::own_addresses().unwrap_or_default();
        let shared = Arc::new(Shared {
            vip: vip.clone(),
            port: config.client_port,
            own,
            asks: asking != Asking::Never,
            eagerly: AtomicBool::new(asking == Asking::Eagerly),
            end: Cancel::new(),
            views: Mutex::default(),
        });
        for address in &config.peers {
            shared.note(*address, |view| view.configured = true);
        }
        for known in memory.known() {
            shared.note(known.address, |view| view.leased = known.leased);
        }
        let metaid = AtomicU64::new(statement.metaid);
        let heartbeats = options.map(|options| Heartbeats::start(vip, options, statement));
        let thread = options.and_then(|options| {
            let (shared, options) = (Arc::clone(&shared), options.clone());
            let listen = thread::Builder::new().name("advertisements".to_owned());
            listen.spawn(move || shared.listen(&options)).inspect_err(|e| log::warn!("cannot listen: {e}")).ok()
        });
        let options = options.cloned().unwrap_or_default();
        Self { shared, heartbeats, metaid, options, thread, since: Instant::now() }
    }

    /// For how long heartbeats have been sent and received; `None` if that is impossible.
    pub(crate) fn hears_for(&self) -> Option<Duration> {
        self.heartbeats.as_ref().filter(|heartbeats| heartbeats.work()).map(|_| self.since.elapsed())
    }

    /// Leaves the group, and says when each machine was heard last.
    pub(crate) fn leave(mut self) -> LastHeard {
        let heartbeats = self.heartbeats.take().map(Heartbeats::end).unwrap_or_default();
        let since = self.since;
        let mut machines: BTreeMap<_, _> = heartbeats
            .into_iter()
            .map(|(address, heard)| (address, Signs { heartbeat: Some(heard.received), advertisement: None }))
            .collect();
        for (address, view) in self.shared.views().iter() {
            if view.advertised.is_some() {
                machines.entry(*address).or_default().advertisement = view.advertised;
            }
        }
        LastHeard { since, machines }
    }

    /// Asks each of them once more at once, without waiting for the answer to the question before.
    pub(crate) fn ask_now(&self) {
        let addresses: Vec<_> = self.shared.views().keys().copied().collect();
        for address in addresses {
            self.shared.start_asking(address, Shared::ask);
        }
    }

    /// What is known of each of them now.
    pub(crate) fn views(&self) -> BTreeMap<Ipv4Addr, View> {
        let heard = self.heartbeats.as_ref().map(|heartbeats| heartbeats.heard(timing::HEARTBEAT_LOST));
        for (address, heard) in heard.unwrap_or_default() {
            self.shared.note(address, |view| {
                (view.heartbeat, view.leased) = (Some(heard), true);
                view.note_best(Instant::now());
            });
        }
        self.shared.views().clone()
    }

    /// The options of the ucarp here. Those of other machines are like them.
    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    /// Nobody waits for answers any more: the others are asked twice in a second.
    pub(crate) fn ask_calmly(&self) {
        self.shared.eagerly.store(false, Ordering::Relaxed);
    }

    /// The id of the file system here; 0 if it is not known.
    pub(crate) fn metaid(&self) -> u64 {
        self.metaid.load(Ordering::Relaxed)
    }

    /// The file system here has this id; 0 is not known.
    pub(crate) fn set_metaid(&self, metaid: u64) {
        if metaid != 0 {
            self.metaid.store(metaid, Ordering::Relaxed);
            self.say(|statement| statement.metaid = metaid);
        }
    }

    /// Changes what this machine says of itself.
    pub(crate) fn say(&self, edit: impl FnOnce(&mut Statement)) {
        if let Some(heartbeats) = &self.heartbeats {
            heartbeats.say(edit);
        }
    }

    /// Tells the other machines who is connected to the master here.
    pub(crate) fn tell_connections(&self, connections: Vec<Connected>) {
        if let Some(heartbeats) = &self.heartbeats {
            heartbeats.tell(connections);
        }
    }

    /// Who is connected to the machine that serves, if it has told that since this was asked last.
    pub(crate) fn take_connections(&self) -> Option<Vec<Connected>> {
        self.heartbeats.as_ref()?.take_told()
    }

    /// The last moment at which another machine is known to have heard this one.
    pub(crate) fn last_proof(&self) -> Option<Instant> {
        self.heartbeats.as_ref()?.last_proof()
    }

    /// Waits until something new is heard, for `time` at most.
    pub(crate) fn wait(&self, time: Duration, cancel: &Cancel) -> Result<(), Cancelled> {
        match &self.heartbeats {
            Some(heartbeats) => {
                heartbeats.wait(time, cancel);
                cancel.check()
            }
            None => cancel.sleep(time),
        }
    }

    /// The machine that serves, or that is MASTER and is about to.
    pub(crate) fn server(&self) -> Option<Ipv4Addr> {
        let (views, now) = (self.views(), Instant::now());
        let answers = views.iter().find(|(_, view)| view.statement(now).is_some_and(|said| said.answers));
        let advertises = || views.iter().filter(|(_, view)| view.advertises(now, &self.options));
        let last = || advertises().max_by_key(|(_, view)| view.advertised);
        answers.or_else(last).map(|(address, _)| *address)
    }

    /// What the machine that answers clients says it serves: the version, and the metaid.
    pub(crate) fn served(&self) -> Option<(Version, u64)> {
        let (views, now) = (self.views(), Instant::now());
        let said = views.values().filter_map(|view| view.statement(now)).find(|said| said.answers)?;
        said.version.map(|version| (version, said.metaid))
    }

    /// Remembers what was heard of the other machines in this run.
    pub(crate) fn remember(&self, state: &State) {
        memory::remember(state, self.heard());
        let (views, now) = (self.views(), Instant::now());
        let versions = views.values().filter_map(|view| view.statement(now)?.version);
        if let Some(epoch) = versions.map(Version::epoch).max() {
            memory::heard_epoch(state, epoch);
        }
    }

    /// Whether another machine has said in this run that it serves, or that it is MASTER.
    pub(crate) fn another_claims(&self) -> bool {
        let now = Instant::now();
        self.views().values().any(|view| view.last_claim(now).is_some())
    }

    /// The machines of which something signed was heard in this run, and whether they send heartbeats: to be remembered.
    fn heard(&self) -> Vec<(Ipv4Addr, bool)> {
        let views = self.views().into_iter();
        let heard = views.filter(|(_, view)| view.heartbeat.is_some() || view.advertised.is_some());
        heard.map(|(address, view)| (address, view.leased)).collect()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.shared.end.cancel();
        if let Some(thread) = self.thread.take() {
            // A panic ends the process.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn views(&self) -> MutexGuard<'_, BTreeMap<Ipv4Addr, View>> {
        self.views.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the view of a machine. One that is new is asked from now on.
    fn note(self: &Arc<Self>, address: Ipv4Addr, edit: impl FnOnce(&mut View)) {
        if self.own.contains(&address) || address == self.vip.address {
            return;
        }
        let mut views = self.views();
        let new = !views.contains_key(&address);
        edit(views.entry(address).or_default());
        drop(views);
        if new && self.asks {
            self.start_asking(address, Self::keep_asking);
        }
    }

    /// Nobody waits for the thread that asks: a question has its own deadline.
    fn start_asking(self: &Arc<Self>, address: Ipv4Addr, how: fn(&Arc<Self>, Ipv4Addr)) {
        let shared = Arc::clone(self);
        let asking = thread::Builder::new().name("peer".to_owned()).spawn(move || how(&shared, address));
        if let Err(e) = asking {
            log::warn!("cannot ask {address}: {e}");
        }
    }

    /// Takes in advertisements until the end.
    fn listen(self: &Arc<Self>, options: &Options) {
        let mut others = self.vip.other_masters(options);
        while let Ok(heard) = others.wait(Duration::from_secs(1), &self.end) {
            if let Some(address) = heard {
                self.note(address, |view| view.advertised = Some(Instant::now()));
            }
        }
    }

    /// Asks one machine until the end.
    fn keep_asking(self: &Arc<Self>, address: Ipv4Addr) {
        loop {
            self.ask(address);
            let pause = if self.asks_eagerly() { timing::ASK_AGAIN } else { timing::MONITOR };
            if self.end.sleep(pause).is_err() {
                return;
            }
        }
    }

    /// Asks one machine, and notes the answer unless a later question was answered before.
    fn ask(self: &Arc<Self>, address: Ipv4Addr) {
        let (at, begun) = (SocketAddrV4::new(address, self.port), Instant::now());
        let found = if self.asks_eagerly() {
            find(&VirtualIp { interface: self.vip.interface.clone(), address }, at)
        } else {
            moosefs::find_master(at, timing::PEER_CONNECT, timing::PEER_ANSWER)
        };
        if self.end.is_set() {
            return;
        }
        self.note(address, |view| {
            if view.asked.is_none_or(|asked| asked.begun < begun) {
                view.asked = Some(Asked { begun, found });
                view.note_best(Instant::now());
            }
        });
    }

    fn asks_eagerly(&self) -> bool {
        self.eagerly.load(Ordering::Relaxed)
    }
}

/// Looks for a master at `at`. Where a network has just come back, the kernel asks for a hardware address only once in a
/// second, so a machine can be silent to TCP for as long: it is asked on the link too, and again if it is there.
fn find(link: &VirtualIp, at: SocketAddrV4) -> MasterAt {
    let presence = thread::scope(|scope| {
        let on_link = scope.spawn(|| is_on_link(link));
        let presence = moosefs::find_master(at, timing::PEER_CONNECT, timing::PEER_ANSWER);
        let there = presence == MasterAt::Silent && on_link.join().unwrap_or(false);
        (presence != MasterAt::Silent || !there).then_some(presence)
    });
    presence.unwrap_or_else(|| moosefs::find_master(at, timing::PEER_CONNECT_AGAIN, timing::PEER_ANSWER))
}

/// Asks twice, beside the two attempts to connect.
fn is_on_link(link: &VirtualIp) -> bool {
    let Ok(probe) = link.arp() else { return false };
    let answers = |_| matches!(Probe::ask(&probe, timing::PEER_CONNECT, Cancel::never()), Ok(Some(_)));
    (0..2).any(answers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::moosefs::{Info, Release};

    fn answers(version: u64) -> Asked {
        let release = Release { major: 3, minor: 0, patch: 117 };
        let info = Info { release, metadata_version: Some(Version(version)), metaid: Some(7) };
        Asked { begun: Instant::now(), found: MasterAt::Answers(info) }
    }

    fn says(role: Role, version: u64) -> Heard {
        let statement = Statement { role, version: Some(Version(version)), metaid: 7, forked_at: None, answers: false };
        Heard { statement, received: Instant::now() }
    }

    #[test]
    fn a_master_that_counts_on_after_its_machine_left_has_answered_no_more() {
        let mut view = View { asked: Some(answers(521)), ..View::default() };
        view.note_best(Instant::now());
        assert_eq!(view.best, Some((Version(521), 7)));
        // INFO was answered before the first heartbeat came.
        view.heartbeat = Some(says(Role::Demoting, 520));
        view.note_best(Instant::now());
        assert_eq!(view.best, Some((Version(520), 7)));
    }

    #[test]
    fn the_furthest_version_that_was_told_stays_known() {
        let mut view = View { asked: Some(answers(521)), heartbeat: Some(says(Role::Serving, 521)), ..View::default() };
        view.note_best(Instant::now());
        view.asked = Some(answers(510));
        view.note_best(Instant::now());
        assert_eq!(view.best, Some((Version(521), 7)));
    }
}
