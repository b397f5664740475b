//! Whether anything beyond this machine can be reached.
//!
//! An answer proves a path through the network, whatever it says: a port that refuses is as good as one that accepts.
//! Silence proves nothing by itself; what to make of it is the caller's care.

use std::collections::BTreeSet;
use std::io::{self, Read as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;

/// Asks all of them at once, and returns the first that answers to a connection attempt within `patience`: accepting
/// or refusing. The attempts that are still under way end by themselves.
pub fn first_port(addresses: impl IntoIterator<Item = SocketAddrV4>, patience: Duration) -> Option<SocketAddrV4> {
    first(addresses, patience, move |address| port(*address, patience))
}

/// Asks all of them at once, and returns the first that answers to an ICMP echo request within `patience`. Needs root.
pub fn first_echo(addresses: impl IntoIterator<Item = Ipv4Addr>, patience: Duration) -> Option<Ipv4Addr> {
    first(addresses, patience, move |address| match echo(*address, patience) {
        Ok(answered) => answered,
        Err(e) => {
            log::debug!("no echo request to {address}: {e}");
            false
        }
    })
}

/// The machines that are connected to a port of this one: the kernel's table, established connections only. A machine that
/// was cut off stays in it until its silence has been noticed.
pub fn connected_to(port: u16) -> BTreeSet<Ipv4Addr> {
    ends_connected_to(port).into_iter().map(|end| *end.ip()).collect()
}

/// The same, each connection with the port of its other end.
pub(crate) fn ends_connected_to(port: u16) -> BTreeSet<SocketAddrV4> {
    let to_port = |connection: &Connection| connection.local.port() == port;
    connections().into_iter().filter(to_port).map(|connection| connection.remote).collect()
}

/// An established connection of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Connection {
    pub(crate) local: SocketAddrV4,
    pub(crate) remote: SocketAddrV4,
    /// Whether something was sent that the other end's kernel does not have yet.
    pub(crate) under_way: bool,
}

/// All of them.
pub(crate) fn connections() -> Vec<Connection> {
    let table = std::fs::read_to_string("/proc/thread-self/net/tcp").unwrap_or_default();
    table.lines().filter_map(parse).collect()
}

/// `N: LOCAL REMOTE STATE TX:RX …`, with addresses as `0B0010AC:24CC`: the address as the machine's own number, ports and
/// lengths not.
fn parse(line: &str) -> Option<Connection> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let mut end = || {
        let (address, port) = fields.next()?.split_once(':')?;
        let address = u32::from_str_radix(address, 16).ok()?.to_ne_bytes();
        Some(SocketAddrV4::new(address.into(), u16::from_str_radix(port, 16).ok()?))
    };
    let (local, remote) = (end()?, end()?);
    let established = fields.next()? == "01";
    let under_way = !fields.next()?.starts_with("00000000:");
    established.then_some(Connection { local, remote, under_way })
}

fn first<T: Copy + Send + 'static>(
    addresses: impl IntoIterator<Item = T>,
    patience: Duration,
    answers: impl Fn(&T) -> bool + Clone + Send + 'static,
) -> Option<T> {
    let (found, first) = mpsc::channel();
    for address in addresses {
        let (found, answers) = (found.clone(), answers.clone());
        thread::spawn(move || {
            if answers(&address) {
                // Nobody waits any more if another one was quicker.
                let _ = found.send(address);
            }
        });
    }
    drop(found);
    // Ends early when the last attempt has ended without an answer.
    first.recv_timeout(patience + Duration::from_millis(100)).ok()
}

fn port(address: SocketAddrV4, patience: Duration) -> bool {
    match TcpStream::connect_timeout(&SocketAddr::V4(address), patience) {
        Ok(_) => true,
        Err(e) => matches!(e.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset),
    }
}

/// RFC 792. A raw socket gets every reply of the machine: this one's carries its own identifier.
fn echo(address: Ipv4Addr, patience: Duration) -> io::Result<bool> {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
    let id = std::process::id().to_le_bytes();
    // The address as the payload: two requests of this process to different machines are told apart.
    let mut request = vec![ECHO_REQUEST, 0, 0, 0, id[0], id[1], 0, 1];
    request.extend(address.octets());
    let sum = crate::carp::checksum(&request).to_be_bytes();
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
        // A network of its own without any route: nobody is there.
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("these tests run as root");
        assert!(!port(open, PATIENCE));
    }

    #[test]
    fn an_echo_comes_back_from_a_machine_that_is_there() {
        assert_eq!(first_echo([Ipv4Addr::LOCALHOST], PATIENCE), Some(Ipv4Addr::LOCALHOST));
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("these tests run as root");
        assert!(echo(Ipv4Addr::new(192, 0, 2, 1), PATIENCE).is_err());
    }

    #[test]
    fn who_is_connected_is_read_from_the_kernel() {
        let listener = std::net::TcpListener::bind("127.0.0.3:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert!(connected_to(address.port()).is_empty());
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        client.bind(&SocketAddr::from(([127, 0, 0, 2], 0)).into()).unwrap();
        client.connect(&address.into()).unwrap();
        assert_eq!(connected_to(address.port()), [Ipv4Addr::new(127, 0, 0, 2)].into());
        for none in ["  sl  local_address rem_address   st tx_queue rx_queue tr tm->when", " garbage", ""] {
            assert_eq!(parse(none), None);
        }
    }

    #[test]
    fn what_is_under_way_is_read_from_the_kernel() {
        let line = |state: &str, queue: &str| {
            format!("   0: 630010AC:24CB 0C0010AC:B0D2 {state} {queue}:00000000 00:00000000 00000000     0        0 1")
        };
        let [local, remote] =
            [(99, 9419), (12, 45_266)].map(|(last, port)| SocketAddrV4::new(Ipv4Addr::new(172, 16, 0, last), port));
        for (queue, under_way) in [("0000002A", true), ("00000000", false)] {
            assert_eq!(parse(&line("01", queue)), Some(Connection { local, remote, under_way }));
        }
        assert_eq!(parse(&line("06", "0000002A")), None);
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
