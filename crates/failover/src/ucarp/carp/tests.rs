//! Real advertisements of a real ucarp, from one network namespace to another.

use super::*;
use crate::sys::testing::own_run;
use crate::ucarp::options::Password;
use nix::sched::{CloneFlags, unshare};
use proptest::prelude::*;
use std::process::{Child, Command, Stdio};

const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);

/// An advertisement for host 10, of `-b 1 -k 20`, as it was captured.
pub(crate) fn packet() -> Vec<u8> {
    let mut packet = vec![0x45, 0x10, 0, 56, 0x12, 0x34, 0x40, 0, 255, 112, 0, 0, 172, 16, 0, 12, 224, 0, 0, 18];
    packet.extend([0x21, 10, 20, 7, 0, 1, 0, 0]);
    packet.extend([7; 28]);
    let sum = checksum(&packet[20..]);
    packet[26..28].copy_from_slice(&sum.to_be_bytes());
    packet
}

#[test]
fn an_advertisement_is_read() {
    let expected = Advertisement {
        source: Ipv4Addr::new(172, 16, 0, 12),
        vhid: 10,
        advskew: 20,
        advbase: 1,
        counter: [7; 8],
        signature: [7; 20],
    };
    let mut padded = packet();
    padded.extend([0; 6]);
    assert_eq!(parse(&packet(), GROUP), Some(expected));
    assert_eq!(parse(&padded, GROUP), Some(expected));
    assert_eq!(expected.interval(), Duration::from_micros(1_078_125));
}

#[test]
fn what_ucarp_refuses_is_refused() {
    // Release, protocol, hop limit, CARP version, key length, checksum, destination; and cut short.
    for (at, value) in [(0, 0x55), (9, 17), (8, 254), (20, 0x31), (23, 3), (40, 8), (19, 19)] {
        let mut packet = packet();
        packet[at] = value;
        assert_eq!(parse(&packet, GROUP), None, "byte {at}");
    }
    assert_eq!(parse(&packet()[..55], GROUP), None);
}

#[test]
fn the_filter_lets_only_the_protocol_through() {
    use crate::sys::packet::tests::passes;
    let mut other = packet();
    assert!(passes(&filter(), &other));
    other[9] = 6;
    assert!(!passes(&filter(), &other));
}

proptest! {
    #[test]
    fn no_packet_makes_it_panic(bytes: Vec<u8>, at in 0..56_usize, value: u8) {
        let _ = parse(&bytes, GROUP);
        let mut nearly = packet();
        nearly[at] = value;
        let _ = parse(&nearly, GROUP);
    }
}

/// What a machine of the group with this password sends.
pub(crate) fn advertisement(source: Ipv4Addr, vhid: u8, vip: Ipv4Addr, password: &str, counter: u64) -> Advertisement {
    let counter = counter.to_be_bytes();
    let secret = Secret::new(password.as_bytes()).unwrap();
    let signature = secret.sign(&[&[VERSION, ADVERTISEMENT, vhid], &vip.octets(), &counter]);
    Advertisement { source, vhid, advskew: 0, advbase: 1, counter, signature }
}

/// A child that is ended with the test.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn start(words: &str) -> Running {
    let mut words = words.split(' ');
    let mut command = Command::new(words.next().unwrap());
    Running(command.args(words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

fn must(words: &str) {
    let mut parts = words.split(' ');
    let status = Command::new(parts.next().unwrap()).args(parts).status().unwrap();
    assert!(status.success(), "{words}");
}

/// This thread in a namespace with `eth0` 172.16.0.11, joined to that of the returned process with 172.16.0.12.
pub(crate) fn two_machines() -> Running {
    own_run();
    unshare(CloneFlags::CLONE_NEWNET).expect("these tests run as root");
    let far = start("unshare -n sleep 300");
    let here = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
    while std::fs::read_link(format!("/proc/{}/ns/net", far.0.id())).is_ok_and(|there| there == here) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = far.0.id();
    must("ip link add eth0 type veth peer name far");
    must(&format!("ip link set far netns {pid} name eth0"));
    must("ip addr add 172.16.0.11/16 dev eth0");
    must("ip link set eth0 up");
    must(&format!("nsenter -t {pid} -n ip addr add 172.16.0.12/16 dev eth0"));
    must(&format!("nsenter -t {pid} -n ip link set eth0 up"));
    far
}

fn listen() -> Listener {
    let index = nix::net::if_::if_nametoindex("eth0").unwrap();
    Listener::open("eth0", index, GROUP).unwrap()
}

pub(crate) const UCARP: &str = "ucarp -i eth0 -v 10 -p secret -a 172.16.0.99 -u /bin/true -d /bin/true -b 1 -k 20 -r 1";

/// Starts a ucarp over there and expects to hear it.
fn expect_the_other(far: &Running, more: &str) {
    let listener = listen();
    let _ucarp = start(&format!("nsenter -t {} -n {UCARP} -s 172.16.0.12{more}", far.0.id()));
    let heard = listener.next(Duration::from_secs(30), &Cancel::new()).unwrap().expect("an advertisement");
    let Advertisement { source, vhid, advskew, advbase, .. } = heard;
    assert_eq!((source, vhid, advskew, advbase), (Ipv4Addr::new(172, 16, 0, 12), 10, 20, 1), "ucarp{more}");
    let vip = Ipv4Addr::new(172, 16, 0, 99);
    let [ours, other] = ["secret", "other"].map(|password| Secret::new(password.as_bytes()).unwrap());
    assert!(heard.is_signed(&ours, vip) && !heard.is_signed(&other, vip), "a real ucarp's signature");
    assert!(!heard.is_signed(&ours, Ipv4Addr::new(172, 16, 0, 98)));
    let next = listener.next(Duration::from_secs(30), &Cancel::new()).unwrap().expect("another one");
    assert_ne!(next.number(), heard.number());
}

#[test]
fn the_other_machine_is_heard() {
    let far = two_machines();
    expect_the_other(&far, "");
    // Sent to everybody instead of the group.
    expect_the_other(&far, " -M");
}

#[test]
fn a_firewall_does_not_hide_a_rival() {
    let far = two_machines();
    must("nft add table ip filter");
    must("nft add chain ip filter input { type filter hook input priority 0 ; policy drop ; }");
    std::fs::write("/proc/sys/net/ipv4/conf/eth0/rp_filter", "1").unwrap();
    expect_the_other(&far, "");
}

#[test]
fn our_own_are_not_heard() {
    let _far = two_machines();
    let listener = listen();
    let dir = tempfile::tempdir().unwrap();
    let mut ucarp = Command::new("ucarp");
    // `touch eth0 172.16.0.99` shows when it is MASTER.
    ucarp.args(UCARP.split(' ').skip(1)).args(["-s", "172.16.0.11", "-u", "/usr/bin/touch"]);
    let ucarp = ucarp.current_dir(&dir).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let _ucarp = Running(ucarp);
    let end = Instant::now() + Duration::from_secs(30);
    while !dir.path().join("eth0").exists() {
        assert!(Instant::now() < end, "ucarp must become MASTER");
        std::thread::sleep(Duration::from_millis(10));
    }
    // Long enough for two more advertisements.
    let heard = listener.next(Duration::from_millis(2500), &Cancel::new()).unwrap();
    assert_eq!(heard, None);
}

#[test]
fn the_wait_ends_with_its_time_or_when_told() {
    let _far = two_machines();
    let listener = listen();
    let cancel = Cancel::new();
    assert_eq!(listener.next(Duration::ZERO, &cancel).unwrap(), None);
    must("ip link set eth0 down");
    assert_eq!(listener.next(Duration::from_millis(200), &cancel).unwrap(), None);
    let start = Instant::now();
    cancel.cancel();
    assert_eq!(listener.next(Duration::from_secs(60), &cancel).unwrap(), None);
    assert!(start.elapsed() < Duration::from_secs(30));
    assert!(Listener::open("eth7", 77, GROUP).is_err());
}

#[test]
fn a_flood_of_packets_that_are_no_advertisements_does_not_hide_the_time() {
    unshare(CloneFlags::CLONE_NEWNET).expect("these tests run as root");
    must("ip link set lo up");
    let listener = Listener::open("lo", nix::net::if_::if_nametoindex("lo").unwrap(), GROUP).unwrap();
    nix::sys::socket::setsockopt(&listener.packets, nix::sys::socket::sockopt::RcvBufForce, &8_000_000).unwrap();
    let flood = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(i32::from(PROTOCOL)))).unwrap();
    let here = std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into();
    let send = |number| {
        for _ in 0..number {
            flood.send_to(b"no advertisement", &here).unwrap();
        }
    };
    send(MOST_AT_ONCE + 1);
    assert_eq!(listener.take().unwrap(), None);
    let mut buffer = [0; 64];
    let left = || recvfrom::<LinkAddr>(listener.packets.as_raw_fd(), &mut buffer).is_ok();
    let left: Vec<_> = std::iter::repeat_with(left).take(2).collect();
    assert_eq!(left, [true, false], "one is left for the next time, after a look at the clock");
    // One that comes behind them is heard all the same.
    send(MOST_AT_ONCE * 2);
    flood.set_header_included_v4(true).unwrap();
    flood.send_to(&packet(), &here).unwrap();
    assert!(listener.next(Duration::from_secs(10), &Cancel::new()).unwrap().is_some());
}

#[test]
fn a_master_steps_down_for_an_advertisement_that_it_prefers() {
    let far = two_machines();
    let listener = listen();
    // It is preferred to any other machine, and waits for five seconds until it begins again.
    let _ucarp = start(&format!("nsenter -t {} -n {UCARP} -s 172.16.0.12 -k 0 -r 5", far.0.id()));
    let hears = |time| listener.next(Duration::from_millis(time), &Cancel::new()).unwrap();
    hears(30_000).expect("it is MASTER");
    hears(30_000).expect("it goes on");
    let vip = Ipv4Addr::new(172, 16, 0, 99);
    let password = |word: &str| Some(Password::Visible(word.to_owned()));
    let options = |word| Options { vhid: 10, password: password(word), ..Options::default() };
    send_preferred("eth0", vip, &options("other")).unwrap();
    hears(3000).expect("it believes nobody without the password");
    send_preferred("eth0", vip, &options("secret")).unwrap();
    // It looks once in a second. A MASTER is never silent for so long.
    let end = Instant::now() + Duration::from_secs(10);
    while hears(2500).is_some() {
        assert!(Instant::now() < end, "it is BACKUP");
    }
}
