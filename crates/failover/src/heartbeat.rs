//! Heartbeats: what the runs of one group say to each other about their machines, twenty times a second.
//!
//! A heartbeat is a UDP datagram to ucarp's group on [`PORT`], with the hop limit 255, signed with ucarp's password. It says
//! what its sender does and how far its metadata goes ([`Statement`]), carries a number of its own, and repeats the last
//! number that came from each other machine. It is believed if it repeats a number that this process has sent in the last
//! [`ECHO`]: so it was made for this process, a moment ago, by a machine that heard this one. A recorded one is nothing.
//!
//! The machine that serves tells the others who is connected to it, too, in datagrams of their own ([`connections`]). Such a
//! list is believed if it comes from a run whose heartbeats are, and if that run serves.
//!
//! It is received on a packet socket, as ucarp receives advertisements: a firewall on the machine does not matter.

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::{Protocol, Type};

use crate::metadata::Version;
use crate::sys::address;
use crate::sys::cancel::Cancel;
use crate::sys::logging::chain;
use crate::sys::packet::multicast_sender;
use crate::sys::tcp::Connected;
use crate::timing;
use crate::ucarp::Options;
use crate::ucarp::secret::{self, Secret};
use crate::vip::VirtualIp;

mod connections;
mod datagram;
mod receive;

use connections::{Part, Parts};
use datagram::{Datagram, Echo};
use receive::Receiver;

/// The UDP port. Nothing listens on it: see [`receive`].
const PORT: u16 = 9429;
/// Between two heartbeats.
const PAUSE: Duration = Duration::from_millis(50);
/// A number that was sent longer ago than this proves nothing.
const ECHO: Duration = Duration::from_secs(2);
/// A machine that was not heard for this long is answered at once when it is heard again.
const RETURNED: Duration = Duration::from_millis(300);
/// So many datagrams of a list of connections are sent with a heartbeat.
const PARTS: usize = 16;
/// The most machines of a group.
const MOST: usize = 16;

/// What a run does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// It waits for an election.
    StandingBy,
    /// It becomes the master.
    Promoting,
    /// It is the master.
    Serving,
    /// It has left the virtual IP, and waits for another machine to show that it lacks nothing.
    Demoting,
    /// Its master is being stopped.
    Stopping,
}

impl Role {
    /// Whether the machine has left the virtual IP.
    pub(crate) fn has_left(self) -> bool {
        matches!(self, Self::Demoting | Self::Stopping)
    }
}

/// What a run says of its machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Statement {
    /// What it does.
    pub(crate) role: Role,
    /// How far its metadata goes: where the files end or what the master serves; where it left the virtual IP.
    pub(crate) version: Option<Version>,
    /// The id of its file system; 0 if it is not known.
    pub(crate) metaid: u64,
    /// Where the history that it serves left the one before it, before the epoch jump.
    pub(crate) forked_at: Option<Version>,
    /// Whether its lease is open: clients are answered.
    pub(crate) answers: bool,
}

/// A believed heartbeat.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    /// What it says.
    pub(crate) statement: Statement,
    /// When it came.
    pub(crate) received: Instant,
}

impl Heard {
    /// Whether the run that said this still does, and `next` came from the one that stood by: it needs a moment to see that its
    /// machine has won.
    fn outlasts(&self, next: &Self) -> bool {
        let wins = self.statement.role == Role::Promoting && next.statement.role == Role::StandingBy;
        wins && next.received.saturating_duration_since(self.received) < timing::HEARTBEAT_NOW
    }
}

/// Why no heartbeats are sent and received.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// The interface, or this machine's addresses.
    #[error(transparent)]
    Address(#[from] address::Error),
    /// The password.
    #[error(transparent)]
    Secret(#[from] secret::Error),
    /// A socket.
    #[error("cannot {operation} heartbeats on {interface}")]
    Socket {
        /// `send` or `receive`
        operation: &'static str,
        /// The interface's name.
        interface: String,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
}

/// Sends and receives until it is dropped.
#[derive(Debug)]
pub(crate) struct Heartbeats {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    end: Cancel,
    /// Set to send at once.
    news: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    statement: Statement,
    /// Wakes the thread, which waits for packets.
    say: Cancel,
    heard: BTreeMap<Ipv4Addr, Heard>,
    last_proof: Option<Instant>,
    /// Counts what was heard.
    count: u64,
    /// Connections that are to be told.
    tell: Option<Vec<Connected>>,
    /// Connections that were told and not taken yet.
    told: Option<Vec<Connected>>,
}

impl Heartbeats {
    /// Sends `statement` from now on, and listens. Where that is impossible nothing is sent and nobody is heard; a warning
    /// says so.
    pub(crate) fn start(vip: &VirtualIp, options: &Options, statement: Statement) -> Self {
        let state = State {
            statement,
            say: Cancel::new(),
            heard: BTreeMap::new(),
            last_proof: None,
            count: 0,
            tell: None,
            told: None,
        };
        let shared = Arc::new(Shared { end: Cancel::new(), news: Mutex::new(state), changed: Condvar::new() });
        let thread = Exchange::open(vip, options).and_then(|exchange| {
            let worker = Arc::clone(&shared);
            let spawned = std::thread::Builder::new().name("heartbeat".to_owned()).spawn(move || exchange.run(&worker));
            spawned.map_err(|source| Error::Socket { operation: "send", interface: vip.interface.clone(), source })
        });
        let thread = thread.inspect_err(|e| log::warn!("{}; going on without heartbeats", chain(e))).ok();
        Self { shared, thread }
    }

    /// Changes what is said, and says it at once.
    pub(crate) fn say(&self, edit: impl FnOnce(&mut Statement)) {
        let mut state = self.shared.state();
        let before = state.statement.clone();
        edit(&mut state.statement);
        if state.statement != before {
            state.say.cancel();
        }
    }

    /// Tells the others who is connected to the server here.
    pub(crate) fn tell(&self, connections: Vec<Connected>) {
        self.shared.state().tell = Some(connections);
    }

    /// Who is connected to the serving machine, if it has told that since this was asked last.
    pub(crate) fn take_told(&self) -> Option<Vec<Connected>> {
        self.shared.state().told.take()
    }

    /// The machines that were heard within this time.
    pub(crate) fn heard(&self, within: Duration) -> BTreeMap<Ipv4Addr, Heard> {
        let state = self.shared.state();
        let recent = state.heard.iter().filter(|(_, heard)| heard.received.elapsed() < within);
        recent.map(|(address, heard)| (*address, heard.clone())).collect()
    }

    /// Whether they can be sent and received.
    pub(crate) fn work(&self) -> bool {
        self.thread.is_some()
    }

    /// Sends and receives no more, and says what was heard last of each machine: it has no later proof from here.
    pub(crate) fn end(mut self) -> BTreeMap<Ipv4Addr, Heard> {
        self.stop();
        std::mem::take(&mut self.shared.state().heard)
    }

    fn stop(&mut self) {
        self.shared.end.cancel();
        self.shared.state().say.cancel();
        if let Some(thread) = self.thread.take() {
            // A panic ends the process.
            let _ = thread.join();
        }
    }

    /// The last moment at which another machine is known to have heard this one.
    pub(crate) fn last_proof(&self) -> Option<Instant> {
        self.shared.state().last_proof
    }

    /// Waits until something new is heard, for `time` at most.
    pub(crate) fn wait(&self, time: Duration, cancel: &Cancel) {
        if self.thread.is_none() {
            let _ = cancel.sleep(time);
            return;
        }
        let state = self.shared.state();
        let before = state.count;
        // Something is heard in each pause where there is another machine; a signal is seen within one.
        let slice = time.min(PAUSE);
        let end = Instant::now() + time;
        let mut state = state;
        while state.count == before && !cancel.is_set() && Instant::now() < end {
            let waited = self.shared.changed.wait_timeout(state, slice);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Heartbeats {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The two sockets, and what is known of the others' numbers.
struct Exchange {
    secret: Secret,
    vhid: u8,
    vip: Ipv4Addr,
    /// The address that this machine sends from.
    own: Ipv4Addr,
    all_own: Vec<Ipv4Addr>,
    group: SocketAddrV4,
    sender: UdpSocket,
    receiver: Receiver,
    nonce: u64,
    /// The numbers sent in the last [`ECHO`], and when.
    sent: BTreeMap<u64, Instant>,
    next: u64,
    /// The last number of each other machine, and when it came.
    others: BTreeMap<Ipv4Addr, (Echo, Instant)>,
    /// How many lists of connections were told, and what is to be sent of the last one.
    lists: u64,
    parts: VecDeque<Part>,
    /// The run of each other machine whose heartbeats are believed.
    believed: BTreeMap<Ipv4Addr, u64>,
    /// What came of the lists of machines that serve.
    gathered: BTreeMap<Ipv4Addr, Parts>,
}

impl Exchange {
    fn open(vip: &VirtualIp, options: &Options) -> Result<Self, Error> {
        let interface = vip.find_interface()?;
        let secret = Secret::of(options)?;
        let own = address::own_on(&interface, vip.address)?;
        let failed = |operation| {
            let interface = interface.name.clone();
            move |source| Error::Socket { operation, interface, source }
        };
        let receiver = Receiver::open(&interface, options.group).map_err(failed("receive"))?;
        let sender = sender(own).map_err(failed("send"))?;
        Ok(Self {
            secret,
            vhid: options.vhid,
            vip: vip.address,
            own,
            all_own: address::own_addresses()?,
            group: SocketAddrV4::new(options.group, PORT),
            sender,
            receiver,
            nonce: fastrand::u64(..),
            sent: BTreeMap::new(),
            next: 1,
            others: BTreeMap::new(),
            lists: 0,
            parts: VecDeque::new(),
            believed: BTreeMap::new(),
            gathered: BTreeMap::new(),
        })
    }

    fn run(mut self, shared: &Shared) {
        let mut send_at = Instant::now();
        while !shared.end.is_set() {
            let say = shared.state().say.clone();
            if Instant::now() >= send_at || say.is_set() {
                shared.state().say = Cancel::new();
                self.send(shared);
                self.tell(shared);
                send_at = Instant::now() + PAUSE;
                continue;
            }
            match self.receiver.next(send_at.saturating_duration_since(Instant::now()), &say) {
                Ok(Some((source, payload))) => {
                    if self.take(source, &payload, shared) {
                        send_at = Instant::now();
                    }
                }
                Ok(None) => (),
                Err(e) => {
                    log::debug!("cannot receive heartbeats: {e}");
                    let _ = shared.end.sleep(PAUSE);
                }
            }
        }
    }

    fn send(&mut self, shared: &Shared) {
        let now = Instant::now();
        self.sent.retain(|_, sent| now.saturating_duration_since(*sent) < ECHO);
        self.others.retain(|_, (_, came)| now.saturating_duration_since(*came) < ECHO);
        let others = &self.others;
        self.believed.retain(|other, _| others.contains_key(other));
        self.gathered.retain(|other, _| others.contains_key(other));
        let datagram = Datagram {
            vhid: self.vhid,
            vip: self.vip,
            nonce: self.nonce,
            number: self.next,
            statement: shared.state().statement.clone(),
            echoes: self.others.values().map(|(echo, _)| *echo).collect(),
        };
        self.sent.insert(self.next, now);
        self.next += 1;
        self.send_signed(&datagram.write(&self.secret, self.own));
    }

    fn send_signed(&self, bytes: &[u8]) {
        if let Err(e) = self.sender.send_to(bytes, self.group) {
            // The link is down, say.
            log::trace!("cannot send a heartbeat: {e}");
        }
    }

    /// Sends some of a list of connections. A newer one waits until it is complete.
    fn tell(&mut self, shared: &Shared) {
        if self.parts.is_empty() {
            let Some(connections) = shared.state().tell.take() else { return };
            self.lists += 1;
            self.parts = Part::of(self.vhid, self.vip, self.nonce, self.lists, &connections).into();
        }
        let some = self.parts.len().min(PARTS);
        for part in self.parts.drain(..some).collect::<Vec<_>>() {
            self.send_signed(&part.write(&self.secret, self.own));
        }
    }

    /// Takes in a part of a list of connections.
    fn gather(&mut self, source: Ipv4Addr, payload: &[u8], shared: &Shared) {
        let Some(part) = Part::read(payload, &self.secret, source) else { return };
        if (part.vhid, part.vip) != (self.vhid, self.vip) || self.believed.get(&source) != Some(&part.nonce) {
            return;
        }
        let mut state = shared.state();
        let serves = |heard: &Heard| heard.received.elapsed() < ECHO && heard.statement.role == Role::Serving;
        if state.heard.get(&source).is_some_and(serves) {
            if let Some(complete) = self.gathered.entry(source).or_default().take(part) {
                state.told = Some(complete);
            }
        }
    }

    /// Takes in a datagram. Says whether its sender should be answered at once: it does not know yet that it is heard.
    fn take(&mut self, source: Ipv4Addr, payload: &[u8], shared: &Shared) -> bool {
        if self.all_own.contains(&source) {
            return false;
        }
        let Some(datagram) = Datagram::read(payload, &self.secret, source) else {
            self.gather(source, payload, shared);
            return false;
        };
        if (datagram.vhid, datagram.vip) != (self.vhid, self.vip) {
            return false;
        }
        let now = Instant::now();
        let echo = Echo { address: source, nonce: datagram.nonce, number: datagram.number };
        let known = self.others.get(&source).is_some_and(|(_, came)| now.saturating_duration_since(*came) < RETURNED);
        if self.others.len() >= MOST && !self.others.contains_key(&source) {
            return false;
        }
        let ours = datagram.echoes.iter().find(|echo| echo.address == self.own && echo.nonce == self.nonce);
        let heard_us = ours.and_then(|echo| self.sent.get(&echo.number)).copied();
        let heard_us = heard_us.filter(|sent| now.saturating_duration_since(*sent) < ECHO);
        let last = self.others.get(&source).map(|(echo, _)| *echo);
        // A later datagram of the same run that came earlier.
        if last.is_some_and(|last| last.nonce == echo.nonce && last.number >= echo.number) {
            return false;
        }
        self.others.insert(source, (echo, now));
        if let Some(heard_us) = heard_us {
            self.believed.insert(source, datagram.nonce);
            let mut state = shared.state();
            let heard = Heard { statement: datagram.statement, received: now };
            if !state.heard.get(&source).is_some_and(|last| last.outlasts(&heard)) {
                state.heard.insert(source, heard);
            }
            state.last_proof = state.last_proof.max(Some(heard_us));
            state.count += 1;
            shared.changed.notify_all();
        }
        !known
    }
}

fn sender(own: Ipv4Addr) -> std::io::Result<UdpSocket> {
    let socket = multicast_sender(Type::DGRAM, Protocol::UDP, own)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests;
