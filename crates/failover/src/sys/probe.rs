//! Whether this machine reaches another one.
//!
//! Any answer proves a path through the network: a port that refuses is as good as one that accepts, and so is a message
//! that a firewall or a router rejects the attempt. The kernel of this machine says by itself that a machine is unreachable
//! when nothing has answered on the link; that is none. Silence alone proves nothing: the caller decides what follows from it.

use std::fmt::Display;
use std::io::{self, Read as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::sys::address;
use crate::sys::packet::{TCP, checksum};

const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;
/// ICMP: what was sent does not arrive there, in the words of the machine that says so. It quotes what was sent.
const UNREACHABLE: u8 = 3;

/// Asks all of them at once, and returns the first about which something answers within `patience`: the port accepts or
/// refuses, or a firewall rejects. Attempts that are still running end by themselves.
pub(crate) fn first_port(
    addresses: impl IntoIterator<Item = SocketAddrV4>,
    patience: Duration,
) -> Option<SocketAddrV4> {
    let addresses: Vec<_> = addresses.into_iter().collect();
    let rejections = Rejections::listen().inspect_err(|e| log::debug!("cannot listen for rejections: {e}")).ok();
    let (found, first) = mpsc::channel();
    let asked = addresses.clone();
    ask_into(&found, addresses, move |address| port(*address, patience));
    if let Some(rejections) = rejections.filter(|_| !asked.is_empty()) {
        let listening = thread::Builder::new().name("rejections".to_owned()).spawn(move || {
            if let Some(address) = rejections.first_of(&asked, patience) {
                let _ = found.send(address);
            }
        });
        if let Err(e) = listening {
            log::warn!("cannot start a thread that listens for rejections: {e}");
        }
    }
    first.recv_timeout(patience + Duration::from_millis(100)).ok()
}

/// Asks all of them at once, and returns those that accept or refuse a connection within `patience`.
pub(crate) fn ports(addresses: impl IntoIterator<Item = SocketAddrV4>, patience: Duration) -> Vec<SocketAddrV4> {
    let answers = ask(addresses, move |address| port(*address, patience));
    answers.into_iter().collect()
}

/// Asks all of them at once, and returns the first that answers to an ICMP echo request within `patience`. Needs root.
pub(crate) fn first_echo(addresses: impl IntoIterator<Item = Ipv4Addr>, patience: Duration) -> Option<Ipv4Addr> {
    first(addresses, patience, move |address| match echo(*address, patience) {
        Ok(answered) => answered,
        Err(e) => {
            log::debug!("cannot send an ICMP echo request to {address}: {e}");
            false
        }
    })
}

fn first<T: Copy + Display + Send + 'static>(
    addresses: impl IntoIterator<Item = T>,
    patience: Duration,
    answers: impl Fn(&T) -> bool + Clone + Send + 'static,
) -> Option<T> {
    // Ends early when the last attempt has ended without an answer.
    ask(addresses, answers).recv_timeout(patience + Duration::from_millis(100)).ok()
}

/// Asks all of them at once. Those that answer arrive as they do, and the list ends with the last attempt.
fn ask<T: Copy + Display + Send + 'static>(
    addresses: impl IntoIterator<Item = T>,
    answers: impl Fn(&T) -> bool + Clone + Send + 'static,
) -> mpsc::Receiver<T> {
    let (found, first) = mpsc::channel();
    ask_into(&found, addresses, answers);
    first
}

fn ask_into<T: Copy + Display + Send + 'static>(
    found: &mpsc::Sender<T>,
    addresses: impl IntoIterator<Item = T>,
    answers: impl Fn(&T) -> bool + Clone + Send + 'static,
) {
    for address in addresses {
        let (found, answers) = (found.clone(), answers.clone());
        let asking = thread::Builder::new().name("probe".to_owned()).spawn(move || {
            if answers(&address) {
                // This fails if another machine was quicker: the receiver is gone.
                let _ = found.send(address);
            }
        });
        if let Err(e) = asking {
            log::warn!("cannot start a thread to ask {address}, which counts as no answer: {e}");
        }
    }
}

fn port(address: SocketAddrV4, patience: Duration) -> bool {
    match TcpStream::connect_timeout(&SocketAddr::V4(address), patience) {
        Ok(_) => true,
        Err(e) => matches!(e.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset),
    }
}

/// What other machines say about attempts that they reject.
struct Rejections {
    socket: Socket,
    own: Vec<Ipv4Addr>,
}

impl Rejections {
    /// From now on. Needs root.
    fn listen() -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
        let own = address::own_addresses().map_err(io::Error::other)?;
        Ok(Self { socket, own })
    }

    /// The first of `asked` that an attempt to connect to is rejected within `patience`.
    fn first_of(&self, asked: &[SocketAddrV4], patience: Duration) -> Option<SocketAddrV4> {
        let end = Instant::now() + patience;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            self.socket.set_read_timeout(Some(left)).ok()?;
            let mut buffer = [0; 576];
            let length = match (&self.socket).read(&mut buffer) {
                Ok(length) => length,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return None,
            };
            if let Some(rejected) = rejected(&buffer[..length], &self.own).filter(|rejected| asked.contains(rejected)) {
                return Some(rejected);
            }
        }
    }
}

/// Where a segment was sent that an IP packet with an ICMP message of another machine says was rejected. What this machine
/// tells itself comes from one of its `own` addresses.
fn rejected(packet: &[u8], own: &[Ipv4Addr]) -> Option<SocketAddrV4> {
    let source: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let message = packet.get(header..)?;
    let quoted = message.get(8..)?;
    let (quoted_header, protocol) = (usize::from(quoted.first()? & 0x0f) * 4, *quoted.get(9)?);
    let target: [u8; 4] = quoted.get(16..20)?.try_into().ok()?;
    let port: [u8; 2] = quoted.get(quoted_header + 2..quoted_header + 4)?.try_into().ok()?;
    let source = Ipv4Addr::from(source);
    let from_elsewhere = !source.is_loopback() && !own.contains(&source);
    let is_rejection = message.first() == Some(&UNREACHABLE) && protocol == TCP && from_elsewhere;
    is_rejection.then(|| SocketAddrV4::new(target.into(), u16::from_be_bytes(port)))
}

/// Asks by an ICMP echo request (RFC 792). A raw socket receives all replies to this machine: the identifier tells
/// which is the reply to this process.
fn echo(address: Ipv4Addr, patience: Duration) -> io::Result<bool> {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
    let id = std::process::id().to_le_bytes();
    // The address as the payload tells apart the replies to requests of this process to several machines.
    let mut request = vec![ECHO_REQUEST, 0, 0, 0, id[0], id[1], 0, 1];
    request.extend(address.octets());
    let sum = checksum(&request).to_be_bytes();
    request[2..4].copy_from_slice(&sum);
    socket.connect(&SocketAddr::from((address, 0)).into())?;
    socket.send(&request)?;
    let end = Instant::now() + patience;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        socket.set_read_timeout(Some(left))?;
        let mut buffer = [0; 256];
        let length = match (&socket).read(&mut buffer) {
            Ok(length) => length,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => return Ok(false),
            Err(e) => return Err(e),
        };
        if is_reply(&buffer[..length], &request) {
            return Ok(true);
        }
    }
}

/// Whether an IP packet is the answer to this request: the same but for type and checksum.
fn is_reply(packet: &[u8], request: &[u8]) -> bool {
    let header = packet.first().map_or(0, |first| usize::from(first & 0x0f) * 4);
    let Some(reply) = packet.get(header..) else { return false };
    reply.first() == Some(&ECHO_REPLY) && reply.get(4..request.len()) == request.get(4..)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    #[test]
    fn a_port_that_refuses_is_an_answer_and_silence_is_none() {
        crate::sys::testing::own_loopback();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let SocketAddr::V4(open) = listener.local_addr().unwrap() else { unreachable!() };
        assert_eq!(first_port([open], PATIENCE), Some(open));
        drop(listener);
        assert_eq!(first_port([open], PATIENCE), Some(open), "refused");
        assert_eq!(first_port([], PATIENCE), None);
        assert_eq!(ports([open], PATIENCE), [open]);
        let nowhere = SocketAddrV4::new(Ipv4Addr::BROADCAST, 9);
        assert_eq!(ports([nowhere, open], PATIENCE), [open]);
        // A network of its own without any route.
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("these tests run as root");
        assert!(!port(open, PATIENCE));
    }

    #[test]
    fn a_machine_that_is_there_returns_an_echo() {
        assert_eq!(first_echo([Ipv4Addr::LOCALHOST], PATIENCE), Some(Ipv4Addr::LOCALHOST));
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("these tests run as root");
        assert!(echo(Ipv4Addr::new(192, 0, 2, 1), PATIENCE).is_err());
    }

    #[test]
    fn a_rejection_by_another_machine_is_an_answer_and_what_this_one_says_itself_is_none() {
        let own = [Ipv4Addr::new(10, 0, 0, 1)];
        let packet = |source: [u8; 4], kind: u8, protocol: u8| {
            let ip = |protocol: u8, source: [u8; 4], target: [u8; 4]| {
                let mut header = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0];
                header.extend(source);
                header.extend(target);
                header
            };
            let mut packet = ip(1, source, [10, 0, 0, 1]);
            packet.extend([kind, 10, 0, 0, 0, 0, 0, 0]);
            packet.extend(ip(protocol, [10, 0, 0, 1], [10, 0, 0, 9]));
            packet.extend([0x9c, 0x40, 0x24, 0xce, 0, 0, 0, 0]);
            packet
        };
        let target = Some(SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 9), 9422));
        assert_eq!(rejected(&packet([10, 0, 0, 9], UNREACHABLE, TCP), &own), target, "the machine itself");
        assert_eq!(rejected(&packet([10, 0, 0, 254], UNREACHABLE, TCP), &own), target, "a router before it");
        for none in [
            packet([10, 0, 0, 1], UNREACHABLE, TCP),
            packet([127, 0, 0, 1], UNREACHABLE, TCP),
            packet([10, 0, 0, 9], 11, TCP),
            packet([10, 0, 0, 9], UNREACHABLE, 17),
            packet([10, 0, 0, 9], UNREACHABLE, TCP)[..50].to_vec(),
            vec![0x4f],
            Vec::new(),
        ] {
            assert_eq!(rejected(&none, &own), None, "{none:?}");
        }
    }

    #[test]
    fn only_the_own_reply_counts() {
        let request = [8, 0, 1, 2, 7, 7, 0, 1, 10, 0, 0, 1];
        let packet = |kind: u8, id: u8| {
            let mut packet = vec![0x45; 20];
            packet.extend([kind, 0, 9, 9, id, 7, 0, 1, 10, 0, 0, 1]);
            packet
        };
        assert!(is_reply(&packet(0, 7), &request));
        for other in [packet(8, 7), packet(0, 6), packet(3, 7), packet(0, 7)[..30].to_vec(), vec![], vec![0x4f]] {
            assert!(!is_reply(&other, &request), "{other:?}");
        }
    }
}
