//! Whether this machine reaches another one.
//!
//! Any answer proves a path through the network: a port that refuses is as good as one that accepts. Silence alone proves
//! nothing: the caller decides what follows from it.

use std::fmt::Display;
use std::io::{self, Read as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::sys::packet::checksum;

const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;

/// Asks all of them at once, and returns the first that accepts or refuses a connection within `patience`. Attempts that
/// are still running end by themselves.
pub(crate) fn first_port(
    addresses: impl IntoIterator<Item = SocketAddrV4>,
    patience: Duration,
) -> Option<SocketAddrV4> {
    first(addresses, patience, move |address| port(*address, patience))
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
    first
}

fn port(address: SocketAddrV4, patience: Duration) -> bool {
    match TcpStream::connect_timeout(&SocketAddr::V4(address), patience) {
        Ok(_) => true,
        Err(e) => matches!(e.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset),
    }
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
