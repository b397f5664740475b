//! The kernel's reading of the lease, in a network namespace of its own.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::thread::sleep;
use std::time::Instant;

use nix::sched::{CloneFlags, unshare};

use super::*;

const VIP: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 99);
const PORT: u16 = 9421;
const TIME: Duration = Duration::from_millis(400);
const LONG: Duration = Duration::from_secs(600);

fn lease() -> Lease {
    unshare(CloneFlags::CLONE_NEWNET).expect("these tests run as root");
    for words in ["link set lo up", "addr add 172.16.0.99/32 dev lo"] {
        assert!(Command::new("ip").args(words.split(' ')).status().unwrap().success());
    }
    Lease::on(VIP, PORT)
}

/// The kernel's rules in nft's language, one line each.
fn ruleset() -> Vec<String> {
    let output = Command::new("nft").args(["list", "ruleset"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(|line| line.trim().to_owned()).collect()
}

#[test]
fn the_table_is_the_one_that_is_described_however_often_it_is_made() {
    let lease = lease();
    for _ in 0..3 {
        lease.install().unwrap();
    }
    let expected = [
        "table ip moosefs-ucarp-172.16.0.99 {",
        "set lease {",
        "type inet_service",
        "flags timeout",
        "}",
        "",
        "chain held {",
        "type filter hook output priority filter; policy accept;",
        "ip saddr 172.16.0.99 ip daddr != 127.0.0.0/8 tcp flags != rst,ack / rst,ack tcp sport 9421 tcp sport != @lease drop",
        "}",
        "}",
    ];
    assert_eq!(ruleset(), expected);
    lease.remove().unwrap();
    assert_eq!(ruleset(), [""; 0]);
    lease.remove().unwrap();
}

/// Opens it as a process does that is not paused.
fn open(lease: &Lease, time: Duration) {
    lease.permit(LONG).unwrap();
    assert_eq!(lease.open(time), Ok(Renewed::Yes));
}

fn flush_ruleset() {
    assert!(Command::new("nft").args(["flush", "ruleset"]).status().unwrap().success());
}

#[test]
fn a_lease_that_has_ended_is_not_prolonged() {
    let lease = lease();
    assert_eq!((lease.state(), lease.renew(TIME)), (Ok(State::None), Ok(Renewed::Gone)));
    lease.install().unwrap();
    assert_eq!((lease.state(), lease.renew(TIME)), (Ok(State::Closed), Ok(Renewed::Lapsed)));
    open(&lease, TIME);
    assert_eq!((lease.state(), lease.renew(TIME)), (Ok(State::Open), Ok(Renewed::Yes)));
    lease.install().unwrap();
    assert_eq!(lease.state(), Ok(State::Open), "another run of the same machine goes on with it");
    sleep(TIME * 2);
    assert_eq!((lease.state(), lease.renew(TIME)), (Ok(State::Closed), Ok(Renewed::Lapsed)));
    open(&lease, TIME);
    lease.close().unwrap();
    lease.close().unwrap();
    assert_eq!(lease.renew(TIME), Ok(Renewed::Lapsed));
    open(&lease, TIME);
    flush_ruleset();
    assert_eq!(lease.renew(TIME), Ok(Renewed::Gone));
}

#[test]
fn a_lease_is_opened_while_it_is_permitted_and_not_later() {
    let lease = lease();
    let soon = Duration::from_millis(1);
    lease.install().unwrap();
    assert_eq!((lease.open(TIME), lease.prolong_permit(TIME)), (Ok(Renewed::Lapsed), Ok(Renewed::Lapsed)));
    lease.permit(soon).unwrap();
    sleep(TIME);
    assert_eq!((lease.open(TIME), lease.prolong_permit(TIME)), (Ok(Renewed::Lapsed), Ok(Renewed::Lapsed)));
    assert_eq!(lease.state(), Ok(State::Closed), "it comes too late");
    lease.permit(soon).unwrap();
    lease.permit(LONG).unwrap();
    sleep(TIME);
    assert_eq!(lease.prolong_permit(LONG), Ok(Renewed::Yes), "the last one counts");
    assert_eq!((lease.open(TIME), lease.state()), (Ok(Renewed::Yes), Ok(State::Open)));
    assert_eq!(lease.open(TIME), Ok(Renewed::Lapsed), "it is used up");
    open(&lease, LONG);
    open(&lease, soon);
    sleep(TIME);
    assert_eq!(lease.state(), Ok(State::Closed), "the new time is shorter");
    lease.permit(LONG).unwrap();
    lease.close().unwrap();
    assert_eq!((lease.open(TIME), lease.state()), (Ok(Renewed::Lapsed), Ok(State::Closed)), "closed after the permit");
    flush_ruleset();
    assert_eq!((lease.open(TIME), lease.prolong_permit(TIME)), (Ok(Renewed::Gone), Ok(Renewed::Gone)));
    assert_eq!((lease.permit(TIME), lease.close(), lease.remove()), (Err(Errno::ENOENT), Ok(()), Ok(())));
}

#[test]
fn something_else_of_this_name_is_replaced() {
    let lease = lease();
    let table = "ip moosefs-ucarp-172.16.0.99";
    for other in [
        format!("add chain {table} held"),
        format!("add chain {table} held {{ type filter hook input priority 0; policy drop; }}"),
        format!("add set {table} lease {{ type ipv4_addr; }}"),
    ] {
        let script = format!("add table {table}; {other}");
        assert!(Command::new("nft").arg(script).status().unwrap().success(), "{other}");
        lease.install().unwrap();
        open(&lease, LONG);
        assert_eq!(lease.state(), Ok(State::Open), "{other}");
        lease.remove().unwrap();
    }
}

/// Whether a byte that is sent comes back.
fn is_answered(client: &mut TcpStream) -> bool {
    client.write_all(b"x").unwrap();
    let answer = client.read_exact(&mut [0]);
    assert!(answer.as_ref().is_ok_or(|e| matches!(e.kind(), ErrorKind::WouldBlock)), "{answer:?}");
    answer.is_ok()
}

trait OrCounts {
    fn is_ok_or(&self, counts: impl Fn(&std::io::Error) -> bool) -> bool;
}

impl OrCounts for Result<&(), &std::io::Error> {
    fn is_ok_or(&self, counts: impl Fn(&std::io::Error) -> bool) -> bool {
        self.map_or_else(counts, |()| true)
    }
}

#[test]
fn answers_leave_while_the_lease_is_open_and_connections_outlive_it() {
    let lease = lease();
    let server = TcpListener::bind((VIP, PORT)).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = server.accept().unwrap();
        stream.set_nodelay(true).unwrap();
        let mut byte = [0];
        while stream.read_exact(&mut byte).is_ok() {
            let _ = stream.write_all(&byte);
        }
    });
    lease.install().unwrap();
    open(&lease, TIME);
    let mut client = TcpStream::connect((VIP, PORT)).unwrap();
    client.set_nodelay(true).unwrap();
    client.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let begun = Instant::now();
    while begun.elapsed() < TIME * 3 {
        assert!(is_answered(&mut client));
        assert_eq!(lease.renew(TIME), Ok(Renewed::Yes));
    }
    let (renewed, mut last) = (Instant::now(), Instant::now());
    while renewed.elapsed() < TIME * 2 {
        if is_answered(&mut client) {
            last = Instant::now();
        }
    }
    let lasted = last - renewed;
    assert!(lasted > TIME / 2 && lasted < TIME + Duration::from_millis(60), "{lasted:?}");
    open(&lease, TIME * 20);
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert!(is_answered(&mut client), "the connection goes on");
}

#[test]
fn a_new_connection_that_nobody_takes_is_refused_and_a_lost_one_is_not_reset() {
    let lease = lease();
    lease.install().unwrap();
    let begun = Instant::now();
    let refused = TcpStream::connect_timeout(&SocketAddrV4::new(VIP, PORT).into(), Duration::from_secs(20));
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    assert!(begun.elapsed() < Duration::from_secs(1));
}
