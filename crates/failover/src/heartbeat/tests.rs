//! Two machines in network namespaces, joined by a cable.

use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread::sleep;

use nix::sched::{CloneFlags, unshare};

use super::*;
use crate::ucarp::Password;

const HERE: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 11);
const THERE: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 12);
const VIP: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 99);

fn must(words: &str) {
    let mut parts = words.split(' ');
    let status = Command::new(parts.next().unwrap()).args(parts).status().unwrap();
    assert!(status.success(), "{words}");
}

/// A child that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn options(password: &str) -> Options {
    Options { vhid: 10, vip: Some(VIP), password: Some(Password::Visible(password.to_owned())), ..Options::default() }
}

fn vip(address: Ipv4Addr) -> VirtualIp {
    VirtualIp { interface: "eth0".to_owned(), address }
}

fn statement(version: u64) -> Statement {
    Statement { role: Role::Serving, version: Some(Version(version)), metaid: 7, forked_at: None, answers: true }
}

#[test]
fn of_two_runs_of_a_machine_the_one_that_is_promoted_counts() {
    let begun = Instant::now();
    let says = |role, milliseconds| Heard {
        statement: Statement { role, ..statement(1) },
        received: begun + Duration::from_millis(milliseconds),
    };
    let wins = says(Role::Promoting, 0);
    assert!(wins.outlasts(&says(Role::StandingBy, 40)));
    assert!(!wins.outlasts(&says(Role::StandingBy, 250)), "it has not come again");
    for role in [Role::Promoting, Role::Serving, Role::Demoting, Role::Stopping] {
        assert!(!wins.outlasts(&says(role, 40)), "{role:?}");
        assert!(!says(role, 0).outlasts(&says(Role::StandingBy, 40)) || role == Role::Promoting, "{role:?}");
    }
}

/// This thread is one machine; the other one is another thread in a namespace of its own.
struct Pair {
    far: Running,
}

impl Pair {
    fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNET).expect("these tests run as root");
        let far = Command::new("unshare").args(["-n", "sleep", "300"]).stdout(Stdio::null()).spawn().unwrap();
        let far = Running(far);
        let own = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        while std::fs::read_link(format!("/proc/{}/ns/net", far.0.id())).is_ok_and(|there| there == own) {
            sleep(Duration::from_millis(5));
        }
        let pid = far.0.id();
        must("ip link add eth0 type veth peer name far");
        must(&format!("ip link set far netns {pid} name eth0"));
        must("ip addr add 172.16.0.11/16 dev eth0");
        must("ip link set eth0 up");
        must(&format!("nsenter -t {pid} -n ip addr add 172.16.0.12/16 dev eth0"));
        must(&format!("nsenter -t {pid} -n ip link set eth0 up"));
        Self { far }
    }

    /// Heartbeats of the other machine.
    fn there(&self, vip: VirtualIp, options: Options, statement: Statement) -> Heartbeats {
        let namespace = std::fs::File::open(format!("/proc/{}/ns/net", self.far.0.id())).unwrap();
        let (done, started) = mpsc::channel();
        std::thread::spawn(move || {
            nix::sched::setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            done.send(Heartbeats::start(&vip, &options, statement)).unwrap();
        });
        started.recv().unwrap()
    }
}

impl Pair {
    /// The other machine sends these datagrams, one after the other.
    fn play(&self, tape: Vec<Vec<u8>>) -> std::thread::JoinHandle<()> {
        let namespace = std::fs::File::open(format!("/proc/{}/ns/net", self.far.0.id())).unwrap();
        std::thread::spawn(move || {
            nix::sched::setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            let sender = sender(THERE).unwrap();
            for payload in tape {
                sender.send_to(&payload, (options("secret").group, PORT)).unwrap();
                sleep(Duration::from_millis(50));
            }
        })
    }
}

fn hears(heartbeats: &Heartbeats, other: Ipv4Addr, within: Duration) -> Option<Statement> {
    let begun = Instant::now();
    while begun.elapsed() < within {
        if let Some(heard) = heartbeats.heard(Duration::from_millis(500)).get(&other) {
            return Some(heard.statement.clone());
        }
        heartbeats.wait(Duration::from_millis(20), Cancel::never());
    }
    None
}

const SOON: Duration = Duration::from_secs(10);
const LONG_ENOUGH: Duration = Duration::from_millis(1500);

#[test]
fn two_machines_of_a_group_hear_each_other_until_the_cable_is_cut_one_way() {
    let pair = Pair::new();
    // A firewall on the machine does not matter.
    must("nft add table ip filter");
    must("nft add chain ip filter input { type filter hook input priority 0 ; policy drop ; }");
    let here = Heartbeats::start(&vip(VIP), &options("secret"), statement(1));
    let there = pair.there(vip(VIP), options("secret"), statement(2));
    assert_eq!(hears(&here, THERE, SOON), Some(statement(2)));
    assert_eq!(hears(&there, HERE, SOON), Some(statement(1)));
    here.say(|statement| statement.version = Some(Version(5)));
    let begun = Instant::now();
    while hears(&there, HERE, SOON) != Some(statement(5)) {
        assert!(begun.elapsed() < SOON);
    }
    let proof = here.last_proof().unwrap();
    assert!(proof.elapsed() < SOON);
    // What is sent there does not arrive; what comes from there does, and no longer repeats our numbers.
    must("nft add table ip out");
    must("nft add chain ip out output { type filter hook output priority 0 ; policy drop ; }");
    sleep(ECHO + Duration::from_secs(1));
    let proof = here.last_proof().unwrap();
    sleep(Duration::from_secs(1));
    assert_eq!(here.last_proof(), Some(proof), "this machine is not heard");
    assert!(here.heard(Duration::from_millis(500)).is_empty() && there.heard(Duration::from_millis(500)).is_empty());
    must("nft delete table ip out");
    assert_eq!(hears(&here, THERE, SOON), Some(statement(2)), "one round trip after the network is back");
}

#[test]
fn another_password_another_group_and_another_address_are_not_heard() {
    let pair = Pair::new();
    let here = Heartbeats::start(&vip(VIP), &options("secret"), statement(1));
    let others = [
        (vip(VIP), options("other")),
        (vip(Ipv4Addr::new(172, 16, 0, 98)), options("secret")),
        (vip(VIP), Options { vhid: 11, ..options("secret") }),
    ];
    for (vip, options) in others {
        let there = pair.there(vip, options, statement(2));
        assert_eq!(hears(&here, THERE, LONG_ENOUGH), None);
        assert_eq!(there.last_proof(), None);
    }
}

#[test]
fn a_recorded_heartbeat_is_nothing() {
    let pair = Pair::new();
    let interface = vip(VIP).find_interface().unwrap();
    let recorder = Receiver::open(&interface, options("secret").group).unwrap();
    let here = Heartbeats::start(&vip(VIP), &options("secret"), statement(1));
    let there = pair.there(vip(VIP), options("secret"), statement(2));
    assert_eq!(hears(&here, THERE, SOON), Some(statement(2)));
    let mut tape = Vec::new();
    while tape.len() < 20 {
        tape.extend(recorder.next(SOON, Cancel::never()).unwrap().filter(|(source, _)| *source == THERE));
    }
    drop(there);
    sleep(ECHO);
    let played = pair.play(tape.into_iter().map(|(_, payload)| payload).collect());
    assert_eq!(hears(&here, THERE, LONG_ENOUGH), None);
    played.join().unwrap();
    assert_eq!(hears(&here, THERE, Duration::from_millis(100)), None);
}

#[test]
fn without_a_password_nothing_is_heard_and_nothing_breaks() {
    let _pair = Pair::new();
    let here = Heartbeats::start(&vip(VIP), &Options { password: None, ..options("") }, statement(1));
    here.say(|statement| statement.answers = false);
    here.wait(Duration::from_millis(10), Cancel::never());
    assert!(here.heard(SOON).is_empty() && here.last_proof().is_none());
}

fn told(heartbeats: &Heartbeats, within: Duration) -> Option<Vec<Connected>> {
    let begun = Instant::now();
    while begun.elapsed() < within {
        if let Some(told) = heartbeats.take_told() {
            return Some(told);
        }
        heartbeats.wait(Duration::from_millis(20), Cancel::never());
    }
    None
}

fn connections(count: u16) -> Vec<Connected> {
    (1..=count).map(|port| Connected { port: 9421, end: SocketAddrV4::new(THERE, port) }).collect()
}

#[test]
fn the_connections_of_the_machine_that_serves_are_told_and_of_no_other_one() {
    let pair = Pair::new();
    let here = Heartbeats::start(&vip(VIP), &options("secret"), statement(1));
    let there = pair.there(vip(VIP), options("secret"), statement(2));
    assert_eq!(hears(&here, THERE, SOON), Some(statement(2)));
    for count in [10_000, 0, 1] {
        there.tell(connections(count));
        assert_eq!(told(&here, SOON), Some(connections(count)));
        assert_eq!(here.take_told(), None, "once");
    }
    there.say(|statement| statement.role = Role::StandingBy);
    while hears(&here, THERE, SOON).expect("it goes on").role == Role::Serving {}
    there.tell(connections(3));
    assert_eq!(told(&here, LONG_ENOUGH), None);
    drop(there);
    let other = pair.there(vip(VIP), options("other"), statement(3));
    other.tell(connections(4));
    assert_eq!(told(&here, LONG_ENOUGH), None);
}

#[test]
fn a_recorded_list_is_nothing_for_another_run() {
    let pair = Pair::new();
    let interface = vip(VIP).find_interface().unwrap();
    let recorder = Receiver::open(&interface, options("secret").group).unwrap();
    let first = pair.there(vip(VIP), options("secret"), statement(2));
    first.tell(connections(1));
    let secret = Secret::of(&options("secret")).unwrap();
    let next = |is_wanted: &dyn Fn(&[u8]) -> bool| loop {
        let heard = recorder.next(SOON, Cancel::never()).unwrap().expect("it goes on").1;
        if is_wanted(&heard) {
            return heard;
        }
    };
    let list = next(&|heard| Part::read(heard, &secret, THERE).is_some());
    let heartbeat = next(&|heard| Datagram::read(heard, &secret, THERE).is_some());
    drop(first);
    let here = Heartbeats::start(&vip(VIP), &options("secret"), statement(1));
    let second = pair.there(vip(VIP), options("secret"), statement(2));
    assert_eq!(hears(&here, THERE, SOON), Some(statement(2)));
    // The heartbeat of the run before is signed, too.
    let played = pair.play([heartbeat, list].into_iter().cycle().take(10).collect());
    assert_eq!(told(&here, LONG_ENOUGH), None);
    played.join().unwrap();
    drop(second);
}
