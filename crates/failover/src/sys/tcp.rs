//! The kernel's table of this machine's TCP connections.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NlasIterator};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::sys::netlink::{self, Connection as Netlink, messages, request};
use crate::sys::packet::TCP;

/// Numbers of `linux/sock_diag.h` and `linux/inet_diag.h`.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
/// The attribute with a `struct tcp_info`, and how it is asked for.
const INET_DIAG_INFO: u16 = 2;
const WITH_INFO: u8 = 1 << (INET_DIAG_INFO - 1);
const ONLY_ESTABLISHED: u32 = 1 << 1;
/// The length of `struct inet_diag_msg`, and where it has the bytes that are not acknowledged.
const DIAG: usize = 72;
const UNACKNOWLEDGED: usize = 60;
/// Where `struct tcp_info` has the milliseconds since data was sent last.
const LAST_DATA_SENT: usize = 44;
const AF_INET: u8 = 2;
const ALL_STATES: u32 = u32::MAX;
const ANY_COOKIE: [u8; 8] = [0xff; 8];
/// States of `/proc/net/tcp`.
const ESTABLISHED: &str = "01";
const SYN_SENT: &str = "02";

/// The machines with an established connection to a port of this one. A machine that was cut off is among them until the
/// kernel gives its connection up.
pub(crate) fn connected_to(port: u16) -> BTreeSet<Ipv4Addr> {
    ends_connected_to(port).into_iter().map(|end| *end.ip()).collect()
}

/// The same, each connection with the port of its other end.
pub(crate) fn ends_connected_to(port: u16) -> BTreeSet<SocketAddrV4> {
    let to_port = |connection: &Connection| connection.local.port() == port;
    connections().into_iter().filter(to_port).map(|connection| connection.remote).collect()
}

/// A connection to a server of this machine, as other machines are told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Connected {
    /// The server's port.
    pub(crate) port: u16,
    /// The other end.
    pub(crate) end: SocketAddrV4,
}

/// The established connections of other machines to these ports of `server`, in order.
pub(crate) fn connected_from_elsewhere(server: Ipv4Addr, ports: &[u16], own: &[Ipv4Addr]) -> Vec<Connected> {
    let is_wanted = |local: &SocketAddrV4| *local.ip() == server && ports.contains(&local.port());
    let all = connections().into_iter().filter(|Connection { local, .. }| is_wanted(local));
    let elsewhere = all.filter(|Connection { remote, .. }| !own.contains(remote.ip()) && !remote.ip().is_loopback());
    // A set: while others come and go the kernel can show one twice.
    let found: BTreeSet<_> = elsewhere.map(|one| Connected { port: one.local.port(), end: one.remote }).collect();
    found.into_iter().collect()
}

/// An established connection of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Connection {
    pub(crate) local: SocketAddrV4,
    pub(crate) remote: SocketAddrV4,
    /// Whether something was sent that the other end's kernel does not have yet.
    pub(crate) under_way: bool,
}

/// All established connections of this machine.
pub(crate) fn connections() -> Vec<Connection> {
    rows(|row| row.connection())
}

/// A connection that a program of this machine has to another end, or its attempt to connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Outgoing {
    pub(crate) local: SocketAddrV4,
    pub(crate) remote: SocketAddrV4,
    /// The number of its socket: a later connection with the same two ends has another one.
    inode: u64,
}

/// A machine that has acknowledged all that was sent to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Acknowledged {
    /// The machine.
    pub(crate) by: Ipv4Addr,
    /// How long ago the last of that was sent: it has been heard there since.
    pub(crate) sent: Duration,
}

/// The machines with established connections to these ports of this one that have acknowledged everything.
pub(crate) fn acknowledged(ports: &[u16]) -> nix::Result<Vec<Acknowledged>> {
    let kernel = Netlink::open(NETLINK_SOCK_DIAG)?;
    let all = [&[AF_INET, TCP, WITH_INFO, 0][..], &ONLY_ESTABLISHED.to_ne_bytes(), &[0; 48]].concat();
    kernel.send(&request(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, &all))?;
    let mut found = Vec::new();
    loop {
        let buffer = kernel.receive()?;
        for message in messages(&buffer) {
            if let Some(result) = netlink::result(&message) {
                return result.map(|()| found);
            }
            found.extend(read_acknowledged(message.payload(), ports));
        }
    }
}

/// `struct inet_diag_msg`: family, state, timer, retransmissions, the socket as in [`naming`], then u32 of the timer, of the
/// bytes to be read and of those not acknowledged, user and inode; attributes follow. Ports and addresses are big-endian.
fn read_acknowledged(message: &[u8], ports: &[u16]) -> Option<Acknowledged> {
    let port = u16::from_be_bytes(message.get(4..6)?.try_into().ok()?);
    let by: [u8; 4] = message.get(24..28)?.try_into().ok()?;
    let waits = message.get(UNACKNOWLEDGED..UNACKNOWLEDGED + 4)?.iter().any(|byte| *byte != 0);
    if waits || !ports.contains(&port) {
        return None;
    }
    let info =
        NlasIterator::new(message.get(DIAG..)?).flatten().find(|attribute| attribute.kind() == INET_DIAG_INFO)?;
    let sent: [u8; 4] = info.value().get(LAST_DATA_SENT..LAST_DATA_SENT + 4)?.try_into().ok()?;
    Some(Acknowledged { by: by.into(), sent: Duration::from_millis(u32::from_ne_bytes(sent).into()) })
}

/// The connections of this machine to `remote`, and the attempts.
pub(crate) fn outgoing_to(remote: SocketAddrV4) -> BTreeSet<Outgoing> {
    // A set: while others come and go the kernel can show one twice.
    rows(|row| row.outgoing().filter(|outgoing| outgoing.remote == remote)).into_iter().collect()
}

/// Ends a connection, as `ss -K` does: the program that has it gets an error at once, and the other end a reset. Needs a
/// kernel with `CONFIG_INET_DIAG_DESTROY`.
pub(crate) fn end(connection: &Outgoing) -> nix::Result<()> {
    let kernel = Netlink::open(NETLINK_SOCK_DIAG)?;
    kernel.send(&request(SOCK_DESTROY, NLM_F_ACK, &naming(connection)))?;
    loop {
        if let Some(result) = messages(&kernel.receive()?).iter().find_map(netlink::result) {
            // It has ended meanwhile.
            return result.or_else(|e| if e == Errno::ENOENT { Ok(()) } else { Err(e) });
        }
    }
}

/// `struct inet_diag_req_v2`: family, protocol, two unused bytes, u32 of the states that are meant, then the socket: two ports,
/// two addresses of 16 bytes, u32 of the interface, the cookie.
fn naming(connection: &Outgoing) -> Vec<u8> {
    let address = |end: SocketAddrV4| [&end.ip().octets()[..], &[0; 12]].concat();
    let Outgoing { local, remote, .. } = *connection;
    [
        &[AF_INET, TCP, 0, 0][..],
        &ALL_STATES.to_ne_bytes(),
        &local.port().to_be_bytes(),
        &remote.port().to_be_bytes(),
        &address(local),
        &address(remote),
        &[0; 4],
        &ANY_COOKIE,
    ]
    .concat()
}

/// What `read` makes of the rows of the table.
fn rows<T>(read: impl Fn(Row<'_>) -> Option<T>) -> Vec<T> {
    let table = std::fs::read_to_string("/proc/thread-self/net/tcp").unwrap_or_default();
    table.lines().filter_map(Row::parse).filter_map(read).collect()
}

/// A row of the kernel's table.
struct Row<'a> {
    local: SocketAddrV4,
    remote: SocketAddrV4,
    state: &'a str,
    queues: &'a str,
    inode: u64,
}

impl<'a> Row<'a> {
    /// `N: LOCAL REMOTE STATE TX:RX TIMER RETRANSMITS UID TIMEOUT INODE …`. An end is `0B0010AC:24CC`: the address in the
    /// machine's byte order, the port as a plain number.
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let mut end = || {
            let (address, port) = fields.next()?.split_once(':')?;
            let address = u32::from_str_radix(address, 16).ok()?.to_ne_bytes();
            Some(SocketAddrV4::new(address.into(), u16::from_str_radix(port, 16).ok()?))
        };
        let (local, remote) = (end()?, end()?);
        Some(Self { local, remote, state: fields.next()?, queues: fields.next()?, inode: fields.nth(4)?.parse().ok()? })
    }

    fn connection(&self) -> Option<Connection> {
        let Self { local, remote, .. } = *self;
        let under_way = !self.queues.starts_with("00000000:");
        (self.state == ESTABLISHED).then_some(Connection { local, remote, under_way })
    }

    fn outgoing(&self) -> Option<Outgoing> {
        let Self { local, remote, inode, .. } = *self;
        [ESTABLISHED, SYN_SENT].contains(&self.state).then_some(Outgoing { local, remote, inode })
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use socket2::{Domain, Socket, Type};

    use super::*;

    #[test]
    fn connected_machines_are_read_from_the_kernel() {
        let listener = std::net::TcpListener::bind("127.0.0.3:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert!(connected_to(address.port()).is_empty());
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        client.bind(&SocketAddr::from(([127, 0, 0, 2], 0)).into()).unwrap();
        client.connect(&address.into()).unwrap();
        assert_eq!(connected_to(address.port()), [Ipv4Addr::new(127, 0, 0, 2)].into());
        for none in ["  sl  local_address rem_address   st tx_queue rx_queue tr tm->when", " garbage", ""] {
            assert!(Row::parse(none).is_none());
        }
    }

    #[test]
    fn what_was_acknowledged_is_read_from_the_kernel() {
        use std::io::Write as _;

        let listener = std::net::TcpListener::bind("127.0.0.5:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        client.bind(&SocketAddr::from(([127, 0, 0, 6], 0)).into()).unwrap();
        client.connect(&listener.local_addr().unwrap().into()).unwrap();
        let mut here = listener.accept().unwrap().0;
        let by = Ipv4Addr::new(127, 0, 0, 6);
        let found = || acknowledged(&[port]).unwrap().into_iter().find(|found| found.by == by);
        std::thread::sleep(Duration::from_millis(300));
        here.write_all(b"x").unwrap();
        std::thread::sleep(Duration::from_millis(20));
        let sent = found().expect("the kernel here has it").sent;
        assert!((20..250).contains(&sent.as_millis()), "{sent:?}");
        assert_eq!(acknowledged(&[port ^ 1]).unwrap(), []);
        // More than the other end takes.
        here.set_nonblocking(true).unwrap();
        while here.write(&[0; 4096]).is_ok() {}
        assert_eq!(found(), None);
    }

    #[test]
    fn unacknowledged_data_is_read_from_the_kernel() {
        let line = |state: &str, queue: &str| {
            format!("   0: 630010AC:24CB 0C0010AC:B0D2 {state} {queue}:00000000 00:00000000 00000000     0        0 1")
        };
        let [local, remote] =
            [(99, 9419), (12, 45_266)].map(|(last, port)| SocketAddrV4::new(Ipv4Addr::new(172, 16, 0, last), port));
        for (queue, under_way) in [("0000002A", true), ("00000000", false)] {
            let row = line("01", queue);
            assert_eq!(Row::parse(&row).unwrap().connection(), Some(Connection { local, remote, under_way }));
        }
        assert_eq!(Row::parse(&line("06", "0000002A")).unwrap().connection(), None);
    }

    #[test]
    fn a_connection_is_ended_and_no_other_one() {
        use std::io::{ErrorKind, Read as _};
        use std::net::{TcpListener, TcpStream};

        let listener = TcpListener::bind("127.0.0.4:0").unwrap();
        let SocketAddr::V4(address) = listener.local_addr().unwrap() else { unreachable!() };
        let [mut stale, mut other] = [(); 2].map(|()| TcpStream::connect(address).unwrap());
        let mut theirs = [(); 2].map(|()| listener.accept().unwrap().0);
        let found = outgoing_to(address);
        assert_eq!(found.len(), 2);
        let SocketAddr::V4(local) = stale.local_addr().unwrap() else { unreachable!() };
        let stale_one = found.into_iter().find(|outgoing| outgoing.local == local).unwrap();
        end(&stale_one).unwrap();
        assert_eq!(stale.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionAborted);
        assert_eq!(theirs[0].read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        other.set_read_timeout(Some(std::time::Duration::from_millis(50))).unwrap();
        assert_eq!(other.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        let left: Vec<_> = outgoing_to(address).iter().map(|outgoing| outgoing.local.port()).collect();
        assert_eq!(left, [other.local_addr().unwrap().port()]);
        end(&stale_one).unwrap();
    }
}
