//! The kernel's table of this machine's TCP connections.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};

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
    let table = std::fs::read_to_string("/proc/thread-self/net/tcp").unwrap_or_default();
    table.lines().filter_map(parse).collect()
}

/// `N: LOCAL REMOTE STATE TX:RX …`. An end is `0B0010AC:24CC`: the address in the machine's byte order, the port as a plain
/// number.
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
            assert_eq!(parse(none), None);
        }
    }

    #[test]
    fn unacknowledged_data_is_read_from_the_kernel() {
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
}
