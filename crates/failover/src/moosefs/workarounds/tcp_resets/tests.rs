//! In a network namespace, with real connections.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use proptest::prelude::*;

use super::*;

const CLIENT: &str = "172.16.0.51";
pub(crate) const VIP: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 99);
pub(crate) const PORT: u16 = 9421;
const SOON: Duration = Duration::from_secs(10);

fn must(words: &str) {
    let mut parts = words.split(' ');
    let output = Command::new(parts.next().unwrap()).args(parts).output().unwrap();
    assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
}

/// This thread's network: both ends of a cable, the far one with the client's address, and the server's number.
pub(crate) struct Net {
    far: std::process::Child,
}

impl Net {
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

/// A client whose server has vanished without a word: its side of the connection is dropped behind a filter.
fn orphan(net: &Net) -> TcpStream {
    let listener = TcpListener::bind((VIP, PORT)).unwrap();
    let client = net.connect(PORT);
    let (mut server, _) = listener.accept().unwrap();
    server.write_all(b"hello").unwrap();
    let mut hello = [0; 5];
    (&client).read_exact(&mut hello).unwrap();
    // What it sends when it is closed is lost, like the machine.
    net.must("nft add table ip lost");
    net.must("nft add chain ip lost input { type filter hook input priority 0 ; }");
    net.must("nft add rule ip lost input tcp sport 9421 drop");
    drop((server, listener));
    // Gone for good, with all that its kernel would send again.
    must("ss -K sport = 9421");
    net.must("nft delete table ip lost");
    client.set_read_timeout(Some(Duration::from_millis(400))).unwrap();
    client
}

/// What the client's next read gives.
fn read(mut client: &TcpStream) -> Option<ErrorKind> {
    client.read(&mut [0; 16]).err().map(|e| e.kind())
}

fn waits(client: &TcpStream) -> bool {
    matches!(read(client), Some(ErrorKind::WouldBlock | ErrorKind::TimedOut))
}

fn is_reset(client: &TcpStream) -> bool {
    client.set_read_timeout(Some(SOON)).unwrap();
    read(client) == Some(ErrorKind::ConnectionReset)
}

#[test]
fn a_client_is_reset_when_it_is_told_and_not_before() {
    let (net, index) = Net::new();
    let mut client = orphan(&net);
    let server = SocketAddrV4::new(VIP, PORT);
    let withheld = HeldResets::begin(index, server).unwrap();
    client.write_all(b"are you there?").unwrap();
    assert!(waits(&client), "no reset yet");
    // A refusal of a new connection is not held back.
    let begun = Instant::now();
    let pid = net.far.id();
    let refused = Command::new("nsenter")
        .args(["-t", &pid.to_string(), "-n", "bash", "-c", "echo > /dev/tcp/172.16.0.99/9421"])
        .output()
        .unwrap();
    assert!(!refused.status.success() && begun.elapsed() < SOON, "{refused:?}");

    assert_eq!(withheld.send().unwrap(), 1);
    assert!(is_reset(&client));
}

#[test]
fn without_a_word_the_kernel_resets_whoever_sends_next() {
    let (net, index) = Net::new();
    let mut client = orphan(&net);
    let withheld = HeldResets::begin(index, SocketAddrV4::new(VIP, PORT)).unwrap();
    client.write_all(b"are you there?").unwrap();
    assert!(waits(&client));
    drop(withheld);
    // Its kernel sends again, and again.
    assert!(is_reset(&client));
}

#[test]
fn a_client_that_is_connected_is_left_alone() {
    let (net, index) = Net::new();
    let withheld = HeldResets::begin(index, SocketAddrV4::new(VIP, PORT)).unwrap();
    // The master listens before it is known that it does.
    let listener = TcpListener::bind((VIP, PORT)).unwrap();
    let mut client = net.connect(PORT);
    let (mut server, _) = listener.accept().unwrap();
    client.write_all(b"hello").unwrap();
    server.read_exact(&mut [0; 5]).unwrap();
    assert_eq!(withheld.send().unwrap(), 0);
    client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(waits(&client), "not reset");
}

#[test]
fn what_is_for_another_machine_is_not_heard() {
    let (net, index) = Net::new();
    let client = orphan(&net);
    let ear = ClientListener::open(index, SocketAddrV4::new(VIP, PORT)).unwrap();
    must("ip link set eth0 promisc on");
    net.must("ip neigh replace 172.16.0.99 lladdr 02:00:00:00:00:77 dev eth0");
    (&client).write_all(b"are you there?").unwrap();
    assert!(waits(&client));
    assert_eq!(ear.reset_all().unwrap(), 0);
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
    let mut segment = reset(client, server, 1);
    segment[33] = ACK;
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
fn a_reset_is_what_the_kernel_would_send() {
    let (server, client) = (SocketAddrV4::new(VIP, PORT), SocketAddrV4::new(Ipv4Addr::new(172, 16, 0, 51), 40_000));
    let packet = reset(server, client, 7);
    let (header, segment) = packet.split_at(20);
    assert_eq!((&header[9..10], &header[12..]), (&[TCP][..], &[172, 16, 0, 99, 172, 16, 0, 51][..]));
    assert_eq!((&segment[..4], &segment[4..8]), (&[0x24, 0xcd, 0x9c, 0x40][..], &[0, 0, 0, 7][..]));
    let covered = [&[172, 16, 0, 99, 172, 16, 0, 51, 0, 6, 0, 20][..], segment].concat();
    assert_eq!(checksum(&covered), 0);
    assert_eq!(parse(&packet), None, "it has no ACK");
}

#[test]
fn a_machine_that_gave_the_address_up_resets_whoever_still_sends_to_it() {
    let (net, index) = Net::new();
    let mut client = orphan(&net);
    must("ip addr del 172.16.0.99/16 dev eth0");
    must("ip addr add 172.16.0.11/16 dev eth0");
    let ear = ClientListener::open(index, SocketAddrV4::new(VIP, PORT)).unwrap();
    client.write_all(b"are you there?").unwrap();
    assert!(waits(&client), "nobody answers");
    assert_eq!(ear.reset_all().unwrap(), 1);
    assert!(is_reset(&client));
}
