//! In a network namespace, with real connections.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use proptest::prelude::*;

use super::*;
use crate::sys::nft::Lease;
use crate::sys::packet::checksum;

const CLIENT: &str = "172.16.0.51";
pub(crate) const VIP: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 99);
pub(crate) const PORT: u16 = 9421;
const SOON: Duration = Duration::from_secs(10);

fn must(words: &str) {
    let mut parts = words.split(' ');
    let output = Command::new(parts.next().unwrap()).args(parts).output().unwrap();
    assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A network of this thread's own: a cable whose far end has the client's address.
pub(crate) struct Net {
    far: std::process::Child,
}

impl Net {
    /// The network, and the number of this end's interface.
    pub(crate) fn new() -> (Self, u32) {
        unshare(CloneFlags::CLONE_NEWNET).expect("these tests run as root");
        let far = Command::new("unshare").args(["-n", "sleep", "300"]).spawn().unwrap();
        let here = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        while std::fs::read_link(format!("/proc/{}/ns/net", far.id())).is_ok_and(|there| there == here) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let net = Self { far };
        must(&format!("ip link add eth0 type veth peer name eth0 netns {}", net.far.id()));
        must("ip link set eth0 up");
        must("ip addr add 172.16.0.99/16 dev eth0");
        net.must("ip link set eth0 up");
        net.must(&format!("ip addr add {CLIENT}/16 dev eth0"));
        (net, nix::net::if_::if_nametoindex("eth0").unwrap())
    }

    fn must(&self, words: &str) {
        must(&format!("nsenter -t {} -n {words}", self.far.id()));
    }

    /// A connection from the client's side.
    pub(crate) fn connect(&self, port: u16) -> TcpStream {
        let pid = self.far.id();
        std::thread::spawn(move || {
            let namespace = std::fs::File::open(format!("/proc/{pid}/ns/net")).unwrap();
            nix::sched::setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            TcpStream::connect((VIP, port)).unwrap()
        })
        .join()
        .unwrap()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        self.far.kill().unwrap();
        self.far.wait().unwrap();
    }
}

/// A client whose server has vanished without closing its connection.
pub(crate) fn orphan(net: &Net) -> TcpStream {
    let listener = TcpListener::bind((VIP, PORT)).unwrap();
    let client = net.connect(PORT);
    let (mut server, _) = listener.accept().unwrap();
    server.write_all(b"hello").unwrap();
    let mut hello = [0; 5];
    (&client).read_exact(&mut hello).unwrap();
    // Segments that the server sends when it is closed are lost, as when its machine dies.
    net.must("nft add table ip lost");
    net.must("nft add chain ip lost input { type filter hook input priority 0 ; }");
    net.must("nft add rule ip lost input tcp sport 9421 drop");
    drop((server, listener));
    // The server's kernel must not send them again.
    must("ss -K sport = 9421");
    net.must("nft delete table ip lost");
    client.set_read_timeout(Some(Duration::from_millis(400))).unwrap();
    client
}

/// The error of the client's next read.
fn read(mut client: &TcpStream) -> Option<ErrorKind> {
    client.read(&mut [0; 16]).err().map(|e| e.kind())
}

pub(crate) fn waits(client: &TcpStream) -> bool {
    matches!(read(client), Some(ErrorKind::WouldBlock | ErrorKind::TimedOut))
}

pub(crate) fn is_reset(client: &TcpStream) -> bool {
    client.set_read_timeout(Some(SOON)).unwrap();
    read(client) == Some(ErrorKind::ConnectionReset)
}

/// The lease is closed, and clients are recorded.
fn closed(index: u32, server: SocketAddrV4) -> (Lease, ClientListener) {
    let lease = Lease::on(*server.ip(), server.port());
    lease.install().unwrap();
    (lease, ClientListener::open(index, server).unwrap())
}

fn open(lease: &Lease) {
    lease.permit(SOON).unwrap();
    lease.open(SOON).unwrap();
}

#[test]
fn a_client_is_reset_on_request_and_not_before() {
    let (net, index) = Net::new();
    let mut client = orphan(&net);
    let server = SocketAddrV4::new(VIP, PORT);
    let (lease, clients) = closed(index, server);
    client.write_all(b"are you there?").unwrap();
    assert!(waits(&client), "no reset yet");
    // The RST that refuses a new connection is not held back.
    let begun = Instant::now();
    let pid = net.far.id();
    let refused = Command::new("nsenter")
        .args(["-t", &pid.to_string(), "-n", "bash", "-c", "echo > /dev/tcp/172.16.0.99/9421"])
        .output()
        .unwrap();
    assert!(!refused.status.success() && begun.elapsed() < SOON, "{refused:?}");

    open(&lease);
    assert_eq!(clients.reset_all().unwrap().len(), 1);
    assert!(is_reset(&client));
}

#[test]
fn dropped_unsent_the_kernel_resets_clients_that_send_again() {
    let (net, index) = Net::new();
    let mut client = orphan(&net);
    let (lease, clients) = closed(index, SocketAddrV4::new(VIP, PORT));
    client.write_all(b"are you there?").unwrap();
    assert!(waits(&client));
    drop(clients);
    open(&lease);
    // The client's kernel repeats its segments.
    assert!(is_reset(&client));
}

#[test]
fn a_client_that_is_connected_is_left_alone() {
    let (net, index) = Net::new();
    let (lease, clients) = closed(index, SocketAddrV4::new(VIP, PORT));
    open(&lease);
    // The master listens before this program knows it.
    let listener = TcpListener::bind((VIP, PORT)).unwrap();
    let mut client = net.connect(PORT);
    let (mut server, _) = listener.accept().unwrap();
    client.write_all(b"hello").unwrap();
    server.read_exact(&mut [0; 5]).unwrap();
    assert_eq!(clients.reset_all().unwrap().len(), 0);
    client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(waits(&client), "not reset");
}

#[test]
fn packets_for_another_machine_are_not_recorded() {
    let (net, index) = Net::new();
    let client = orphan(&net);
    let listener = ClientListener::open(index, SocketAddrV4::new(VIP, PORT)).unwrap();
    must("ip link set eth0 promisc on");
    net.must("ip neigh replace 172.16.0.99 lladdr 02:00:00:00:00:77 dev eth0");
    (&client).write_all(b"are you there?").unwrap();
    assert!(waits(&client));
    assert_eq!(listener.reset_all().unwrap().len(), 0);
}

proptest! {
    #[test]
    fn no_packet_makes_it_panic(bytes: Vec<u8>) {
        let _ = parse(&bytes);
    }
}

#[test]
fn the_filter_lets_segments_of_connections_to_the_server_through() {
    let server = SocketAddrV4::new(VIP, PORT);
    let client = SocketAddrV4::new(CLIENT.parse().unwrap(), 40_000);
    let passes = |packet: &[u8]| crate::sys::packet::tests::passes(&wanted(server), packet);
    // A segment to the server, and one with an option in its IP header.
    let segment = segment(client, server, ACK, Position { sequence: 1, acknowledged: 1 });
    assert!(passes(&segment));
    let mut longer = [&segment[..20], &[0; 4], &segment[20..]].concat();
    longer[0] = 0x46;
    assert!(passes(&longer));
    // Protocol, address, port, and the flags of a new connection and of a reset.
    for (at, value) in [(9, 17), (19, 98), (23, 0xce), (33, SYN), (33, RST | ACK)] {
        let mut other = segment.clone();
        other[at] = value;
        assert!(!passes(&other), "byte {at}");
    }
    assert!(!passes(&segment[..33]), "cut short");
}

#[test]
fn a_reset_is_one_that_the_client_accepts() {
    let (server, client) = (SocketAddrV4::new(VIP, PORT), SocketAddrV4::new(Ipv4Addr::new(172, 16, 0, 51), 40_000));
    let packet = segment(server, client, RST | ACK, Position { sequence: 7, acknowledged: 9 });
    let (header, segment) = packet.split_at(20);
    assert_eq!((&header[9..10], &header[12..]), (&[TCP][..], &[172, 16, 0, 99, 172, 16, 0, 51][..]));
    let numbers = [0x24, 0xcd, 0x9c, 0x40, 0, 0, 0, 7, 0, 0, 0, 9, 0x50, RST | ACK];
    assert_eq!(&segment[..14], numbers);
    let covered = [&[172, 16, 0, 99, 172, 16, 0, 51, 0, 6, 0, 20][..], segment].concat();
    assert_eq!(checksum(&covered), 0);
}

#[test]
fn a_position_is_read_from_a_segment_of_the_client() {
    let (server, client) = (SocketAddrV4::new(VIP, PORT), SocketAddrV4::new(Ipv4Addr::new(172, 16, 0, 51), 40_000));
    // With 100 bytes of content, of which the headers are enough.
    let mut packet = segment(client, server, ACK, Position { sequence: u32::MAX - 49, acknowledged: 7 });
    packet[2..4].copy_from_slice(&140_u16.to_be_bytes());
    for (flags, acknowledged) in [(ACK, 50), (ACK | FIN, 51)] {
        packet[33] = flags;
        assert_eq!(parse(&packet), Some((client, Position { sequence: 7, acknowledged })));
    }
    packet[33] = RST;
    assert_eq!(parse(&packet), None, "it has no ACK");
}

#[test]
fn clients_that_send_to_an_address_given_up_are_reset() {
    let (net, index) = Net::new();
    let mut client = orphan(&net);
    must("ip addr del 172.16.0.99/16 dev eth0");
    must("ip addr add 172.16.0.11/16 dev eth0");
    // The lease was closed before the address went.
    let (_, listener) = closed(index, SocketAddrV4::new(VIP, PORT));
    client.write_all(b"are you there?").unwrap();
    assert!(waits(&client), "no RST yet");
    assert_eq!(listener.reset_all().unwrap().len(), 1);
    assert!(is_reset(&client));
}
