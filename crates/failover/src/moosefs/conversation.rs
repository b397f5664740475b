//! A conversation with a MooseFS daemon on one TCP connection: packets of a type, a length and a body.
//!
//! A time limit is one for all that is waited for, connecting too: the timeout of a socket begins again with each byte that
//! arrives, so another end that sends a byte now and then would keep this one busy for hours. What has arrived by then is
//! kept, and a later wait goes on from there: a daemon that is busy for half a minute answers the question that it was
//! asked at the beginning.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::AsFd as _;
use std::time::Instant;

use nix::libc::{EINPROGRESS, EINVAL};
use nix::poll::{PollFd, PollFlags, poll};
use socket2::{Domain, Socket, Type};

use crate::sys::cancel::{Cancel, timeout};

/// Longer than any known answer: the list of ten thousand chunkservers.
const MAX_BODY: usize = 1 << 20;
/// Type and length, each a big-endian number of four bytes.
const HEAD: usize = 8;

/// A conversation.
#[derive(Debug)]
pub(super) struct Conversation {
    stream: TcpStream,
    /// What was said and is not sent yet: all of it while there is no connection.
    unsent: Vec<u8>,
    /// What has arrived and was not asked for yet.
    received: Vec<u8>,
}

impl Conversation {
    /// Begins to connect to `address`, and does not wait for that.
    pub(super) fn begin(address: SocketAddrV4) -> io::Result<Self> {
        Self::connect(address, Socket::new(Domain::IPV4, Type::STREAM, None)?)
    }

    /// As [`begin`](Self::begin), from the loopback address where `address` is one of this machine: a closed
    /// [lease](crate::sys::nft) does not hold back what is sent there. A client there would be one that nobody sees.
    pub(super) fn begin_here(address: SocketAddrV4) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0).into())?;
        match Self::connect(address, socket) {
            // There is no way from there to another machine.
            Err(e) if e.raw_os_error() == Some(EINVAL) => Self::begin(address),
            connected => connected,
        }
    }

    fn connect(address: SocketAddrV4, socket: Socket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        match socket.connect(&SocketAddr::V4(address).into()) {
            Err(e) if e.raw_os_error() != Some(EINPROGRESS) => Err(e),
            _ => Ok(Self { stream: socket.into(), unsent: Vec::new(), received: Vec::new() }),
        }
    }

    /// Says something, which is sent by the wait that follows.
    pub(super) fn say(&mut self, kind: u32, content: &[u8]) -> io::Result<()> {
        let length = u32::try_from(content.len()).map_err(io::Error::other)?;
        self.unsent.extend([&kind.to_be_bytes(), &length.to_be_bytes(), content].concat());
        Ok(())
    }

    /// Waits until all that was said is sent, so that there is a connection; false if that is not so by `end`.
    pub(super) fn sent(&mut self, end: Instant, cancel: &Cancel) -> io::Result<bool> {
        let sent = self.wait(end, cancel, |all| {
            all.send()?;
            Ok(all.unsent.is_empty().then_some(()))
        });
        Ok(sent?.is_some())
    }

    /// Waits for a packet of the type `kind`, and returns its body; `None` if there is none by `end`. All others are skipped:
    /// a daemon sends a keep-alive every second.
    pub(super) fn hear(&mut self, kind: u32, end: Instant, cancel: &Cancel) -> io::Result<Option<Vec<u8>>> {
        self.wait(end, cancel, |all| {
            all.send()?;
            all.receive()?;
            while let Some((found, body)) = all.next_packet()? {
                if found == kind {
                    return Ok(Some(body));
                }
            }
            Ok(None)
        })
    }

    /// Does one `step` after the other until one has a result, and looks at the time and at `cancel` after each.
    fn wait<T>(
        &mut self,
        end: Instant,
        cancel: &Cancel,
        mut step: impl FnMut(&mut Self) -> io::Result<Option<T>>,
    ) -> io::Result<Option<T>> {
        loop {
            if let Some(found) = step(self)? {
                return Ok(Some(found));
            }
            cancel.check().map_err(io::Error::other)?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let sending = if self.unsent.is_empty() { PollFlags::empty() } else { PollFlags::POLLOUT };
            let mut fds = [
                PollFd::new(self.stream.as_fd(), PollFlags::POLLIN | sending),
                PollFd::new(cancel.as_fd(), PollFlags::POLLIN),
            ];
            // Interrupted or early: the loop looks again.
            let _ = poll(&mut fds, timeout(left));
        }
    }

    /// Sends what can be sent without waiting.
    fn send(&mut self) -> io::Result<()> {
        if self.unsent.is_empty() {
            return Ok(());
        }
        let sent = without_waiting(self.stream.write(&self.unsent))?.unwrap_or_default();
        self.unsent.drain(..sent);
        Ok(())
    }

    /// Receives what has arrived, one buffer at most.
    fn receive(&mut self) -> io::Result<()> {
        if !self.unsent.is_empty() {
            return Ok(());
        }
        let mut buffer = [0; 4096];
        match without_waiting(self.stream.read(&mut buffer))? {
            Some(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Some(length) => {
                self.received.extend(&buffer[..length]);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// The next packet that has arrived whole.
    fn next_packet(&mut self) -> io::Result<Option<(u32, Vec<u8>)>> {
        let Some(head) = self.received.first_chunk::<HEAD>() else { return Ok(None) };
        let kind = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
        if length > MAX_BODY {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if self.received.len() < HEAD + length {
            return Ok(None);
        }
        let packet: Vec<u8> = self.received.drain(..HEAD + length).collect();
        Ok(Some((kind, packet[HEAD..].to_vec())))
    }
}

/// `None` if the kernel would have to wait.
fn without_waiting(done: io::Result<usize>) -> io::Result<Option<usize>> {
    match done {
        Ok(length) => Ok(Some(length)),
        Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;
    use std::time::Duration;

    use super::*;

    const ASK: u32 = 7;
    const ANSWER: u32 = 8;

    fn listener() -> (TcpListener, SocketAddrV4) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let SocketAddr::V4(address) = listener.local_addr().unwrap() else { unreachable!() };
        (listener, address)
    }

    fn after(ms: u64) -> Instant {
        Instant::now() + Duration::from_millis(ms)
    }

    fn packet(kind: u32, body: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes()[..], &u32::try_from(body.len()).unwrap().to_be_bytes(), body].concat()
    }

    /// Another end that sends these bytes, each after a pause, until the connection is closed.
    fn drip(listener: TcpListener, packets: impl Iterator<Item = Vec<u8>> + Send + 'static, pause: Duration) {
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            for packet in packets {
                thread::sleep(pause);
                if stream.write_all(&packet).is_err() {
                    return;
                }
            }
        });
    }

    #[test]
    fn another_end_that_drips_is_given_up_when_the_time_is_over() {
        let keep_alive = packet(0, &[0; 4]);
        // An answer that would take 20 s, and keep-alives for ever, slowly and as quickly as they can be sent.
        let answer = packet(ANSWER, &[0; 1000]).into_iter().map(|byte| vec![byte]).collect();
        let slow = Duration::from_millis(20);
        for (packets, pause) in [
            (answer, slow),
            (vec![keep_alive.clone(); 1000], slow),
            (vec![keep_alive.repeat(1000); 10_000], Duration::ZERO),
        ] {
            let (listener, address) = listener();
            drip(listener, packets.into_iter(), pause);
            let mut conversation = Conversation::begin(address).unwrap();
            conversation.say(ASK, &[]).unwrap();
            let begun = Instant::now();
            assert_eq!(conversation.hear(ANSWER, after(200), Cancel::never()).unwrap(), None);
            let took = begun.elapsed();
            assert!(took >= Duration::from_millis(200) && took < Duration::from_secs(2), "{took:?}");
        }
    }

    #[test]
    fn a_later_wait_goes_on_where_the_one_before_it_ended() {
        let (listener, address) = listener();
        let answer = packet(ANSWER, b"late").into_iter().map(|byte| vec![byte]);
        drip(listener, answer, Duration::from_millis(10));
        let mut conversation = Conversation::begin(address).unwrap();
        conversation.say(ASK, &[]).unwrap();
        let mut waits = 0;
        let body = loop {
            waits += 1;
            if let Some(body) = conversation.hear(ANSWER, after(15), Cancel::never()).unwrap() {
                break body;
            }
        };
        assert_eq!(body, b"late");
        assert!(waits > 2, "{waits}");
    }

    #[test]
    fn a_wait_ends_at_once_when_it_is_cancelled() {
        let (_listener, address) = listener();
        let mut conversation = Conversation::begin(address).unwrap();
        conversation.say(ASK, &[]).unwrap();
        let cancel = Cancel::new();
        let other = cancel.clone();
        let cancelling = thread::spawn(move || {
            thread::sleep(Duration::from_millis(20));
            other.cancel();
        });
        let begun = Instant::now();
        conversation.hear(ANSWER, after(60_000), &cancel).unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(30));
        cancelling.join().unwrap();
    }

    #[test]
    fn a_connection_that_is_refused_closed_or_that_nobody_answers_is_told_apart() {
        crate::sys::testing::own_loopback();
        let (listener, address) = listener();
        let ask = || {
            let mut conversation = Conversation::begin(address)?;
            conversation.say(ASK, &[])?;
            assert!(conversation.sent(after(10_000), Cancel::never())?, "connected");
            conversation.hear(ANSWER, after(10_000), Cancel::never())
        };
        let closing = thread::spawn({
            let listener = listener.try_clone().unwrap();
            move || drop(listener.accept().unwrap())
        });
        let closed = ask().unwrap_err().kind();
        assert!(matches!(closed, io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset), "{closed}");
        closing.join().unwrap();
        drop(listener);
        assert_eq!(ask().unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let too_long = [ANSWER.to_be_bytes(), [0xff; 4]].concat();
        let (listener, address) = self::listener();
        drip(listener, std::iter::once(too_long), Duration::ZERO);
        let mut conversation = Conversation::begin(address).unwrap();
        let wrong = conversation.hear(ANSWER, after(10_000), Cancel::never()).unwrap_err();
        assert_eq!(wrong.kind(), io::ErrorKind::InvalidData);
    }
}
