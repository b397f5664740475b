//! Whether a machine answers clients: a client of its own for each machine that may serve, which asks that machine alone,
//! whoever else has the address.
//!
//! The client is a port of the switch, in a network namespace of its own, where the virtual address leads to one hardware
//! address for good. It asks INFO every 20 ms on one connection. Where an answer is missing, it opens another one, since a
//! connection that was silent for a while sends its next packet late. It cannot be told from any other client, but says
//! nothing that it was not asked for: the machine finds it in its neighbour table, and no port of it answers.

use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{io, mem};

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Pid, gettid};
use socket2::{Domain, Socket, Type};

use crate::clock::Moment;
use crate::error::system;
use crate::moosefs::{Answers, question};
use crate::network::client_port;
use crate::switch::Switch;
use crate::{Error, Result, VIP, locked};

/// How often the machine is asked.
const INTERVAL: Duration = Duration::from_millis(20);
/// How long a connection may take to be there.
const CONNECTING: Duration = Duration::from_millis(20);
/// A connection that has answered before is given up after so long without an answer: its next packet may come late.
const SILENT: Duration = Duration::from_millis(100);
/// One that has not answered yet: the master may be busy, and would have many of them waiting.
const NEW: Duration = Duration::from_millis(500);
/// How long it may take to plug a probe in.
const PLUGGED: Duration = Duration::from_secs(20);

/// A question that a machine answered: at some moment between the two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The machine.
    pub by: String,
    /// When the question was sent.
    pub sent: Moment,
    /// When the answer was here.
    pub received: Moment,
}

/// All replies so far.
pub(crate) type Replies = Arc<Mutex<Vec<Reply>>>;

/// Starts the probe of a machine. It ends when `stop` is set, and its network with it.
pub(crate) fn start(
    (name, address): (&str, Ipv4Addr),
    switch: &Switch,
    replies: &Replies,
    stop: &Arc<AtomicBool>,
) -> Result<JoinHandle<()>> {
    let (where_it_is, told) = channel();
    let (plug, plugged) = channel::<()>();
    let (name_of_it, replies, stop) = (name.to_owned(), Arc::clone(replies), Arc::clone(stop));
    let thread = thread::spawn(move || {
        if alone(&where_it_is).is_some() && plugged.recv_timeout(PLUGGED).is_ok() {
            ask(&name_of_it, address, &replies, &stop);
        }
    });
    let failed =
        || Error::System { what: format!("the probe of {name}"), source: io::Error::other("it did not start") };
    let thread_id = told.recv_timeout(PLUGGED).map_err(|_| failed())?;
    let thread_id = thread_id.map_err(system(format!("give the probe of {name} a network")))?;
    switch.connect_probe(name, thread_id, address)?;
    plug.send(()).map_err(|_| failed())?;
    Ok(thread)
}

/// Gives the calling thread a network of its own, and tells its id.
fn alone(tell: &Sender<nix::Result<Pid>>) -> Option<()> {
    let done = unshare(CloneFlags::CLONE_NEWNET).map(|()| gettid());
    tell.send(done).ok().filter(|()| done.is_ok())
}

/// Asks until it is told to stop.
fn ask(name: &str, address: Ipv4Addr, replies: &Mutex<Vec<Reply>>, stop: &AtomicBool) {
    let own = Switch::probe_address(address);
    let mut port = 10_000;
    let mut line: Option<Line> = None;
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        if line.as_ref().is_some_and(Line::is_silent) {
            line = None;
        }
        if line.is_none() {
            line = Line::open(SocketAddrV4::new(own, port)).ok();
            // Until one is there, all tries are the same one for the machine, which keeps at most one that is half open.
            port = if line.is_some() { next(port) } else { port };
        }
        if let Some(open) = &mut line {
            match open.ask() {
                Ok(Some((sent, received))) => locked(replies).push(Reply { by: name.to_owned(), sent, received }),
                Ok(None) => (),
                Err(_) => line = None,
            }
        }
        thread::sleep(INTERVAL.saturating_sub(began.elapsed()));
    }
}

fn next(port: u16) -> u16 {
    if port < 60_000 { port + 1 } else { 10_000 }
}

/// A connection to the machine.
#[derive(Debug)]
struct Line {
    stream: TcpStream,
    answers: Answers,
    /// When the question was sent that is not answered yet.
    asked: Option<(Moment, Instant)>,
    has_answered: bool,
}

impl Line {
    fn open(from: SocketAddrV4) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        // A machine without the address that forwards packets would pass it on to one that has it.
        socket.set_ttl_v4(1)?;
        // Nothing of a connection that was given up must come again later.
        socket.set_linger(Some(Duration::ZERO))?;
        socket.set_tcp_nodelay(true)?;
        socket.bind(&from.into())?;
        socket.connect_timeout(&client_port(VIP).into(), CONNECTING)?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(INTERVAL))?;
        Ok(Self { stream, answers: Answers::default(), asked: None, has_answered: false })
    }

    fn is_silent(&self) -> bool {
        let patience = if self.has_answered { SILENT } else { NEW };
        self.asked.is_some_and(|(_, since)| since.elapsed() > patience)
    }

    /// Asks, unless an answer is still to come, and waits for it for one interval.
    fn ask(&mut self) -> io::Result<Option<(Moment, Moment)>> {
        if self.asked.is_none() {
            self.asked = Some((Moment::now(), Instant::now()));
            io::Write::write_all(&mut self.stream, &question())?;
        }
        let until = Instant::now() + INTERVAL;
        while Instant::now() < until {
            match self.answers.read_from(&mut self.stream) {
                Ok(true) => {
                    self.has_answered = true;
                    return Ok(mem::take(&mut self.asked).map(|(sent, _)| (sent, Moment::now())));
                }
                Ok(false) => (),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}
