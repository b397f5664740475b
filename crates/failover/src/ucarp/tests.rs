//! Command lines as people write them, and a real ucarp.

use super::*;
use nix::sched::{CloneFlags, unshare};
use proptest::prelude::*;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

fn parse(line: &str) -> Options {
    Options::parse(&line.split(' ').collect::<Vec<_>>())
}

#[test]
fn the_howto_s_own_line() {
    let line = "ucarp -i eth0 -s 172.16.0.11 -v 10 -o /etc/mfs/ucarp.pass -a 172.16.0.99 -u /usr/bin/vip-up -d /usr/bin/vip-down -z";
    let expected = Options {
        vhid: 10,
        vip: Some(Ipv4Addr::new(172, 16, 0, 99)),
        interface: Some("eth0".to_owned()),
        shutdown_script: true,
        up_script: Some("/usr/bin/vip-up".to_owned()),
        down_script: Some("/usr/bin/vip-down".to_owned()),
        password: Some(Password::File("/etc/mfs/ucarp.pass".into())),
        ..Options::default()
    };
    assert_eq!(parse(line), expected);
    assert_eq!(expected.interval(), Duration::from_secs(1));
    assert_eq!(expected.dead_time(), Duration::from_secs(3));
}

#[test]
fn a_dead_master_is_looked_for_once_in_an_interval() {
    for (skew, milliseconds) in [(0, 3000), (50, 3585), (100, 4171), (255, 5988)] {
        let options = parse(&format!("ucarp -k {skew}"));
        assert_eq!(options.declares_dead().as_millis(), milliseconds, "skew {skew}");
    }
    assert_eq!(parse("ucarp -b 2 -r 2 -k 50").declares_dead().as_millis(), 4390);
}

#[test]
fn every_way_of_writing_the_same() {
    let expected = parse("ucarp -z -B -P -v 10 -b 2 -k 128 -r 4 -i eth0 -a 10.0.0.1 -x one");
    for line in [
        "ucarp -zBPv10 -b2 -k128 -r4 -ieth0 -a10.0.0.1 -xone",
        "ucarp -PBzv 10 -b 2 -k 128 -r 4 -i eth0 -a 10.0.0.1 -x one",
        "ucarp --shutdown --daemonize --preempt --vhid=10 --advbase=2 --advskew=128 --deadratio=4 \
         --interface=eth0 --addr=10.0.0.1 --xparam=one",
        "ucarp --sh --da --pr --vh 10 --advb 2 --advs 128 --dea 4 --in eth0 --ad 10.0.0.9 --addr 10.0.0.1 --x one",
        "ucarp -v 0xa -b 02 -k 0x80 -r 4x -i eth1 -i eth0 -a 10.0.0.1 -x one stray -zPB",
        "ucarp -zP -v 266 -b 2 -k 128 -r 4 -i eth0 -a 10.0.0.1 -x one -- -n",
        "ucarp -p -n -zP --pass --neutral -v10 -b2 -k128 -r4 -ieth0 -a10.0.0.1 -xone",
    ] {
        let read = parse(line);
        assert_eq!(read.has_visible_password(), line.contains("-p "), "{line}");
        assert_eq!(Options { password: None, ..read }, expected, "{line}");
    }
    for line in ["ucarp -Bn", "ucarp --neutral", "ucarp -i eth0 --neu"] {
        assert!(parse(line).neutral, "{line}");
    }
    assert_eq!(expected.interval(), Duration::from_millis(2500));
    assert_eq!(expected.dead_time(), Duration::from_millis(8500));
}

#[test]
fn another_group_and_no_options_at_all() {
    assert_eq!(parse("ucarp --mcast=224.0.0.20").group, Ipv4Addr::new(224, 0, 0, 20));
    assert_eq!(parse("ucarp"), Options::default());
    assert_eq!(parse("ucarp -v").vhid, 0);
    assert_eq!(Options::parse(&[""; 0]), Options::default());
}

#[test]
fn a_caller_that_is_not_ucarp_is_refused() {
    assert!(matches!(Ucarp::parent(), Err(Error::NotUcarp { .. })));
}

#[test]
fn a_hook_that_a_script_runs_is_a_hook_of_ucarp() {
    let dir = tempfile::tempdir().unwrap();
    let (text, path) = (dir.path().join("new"), dir.path().join("ucarp"));
    // The kernel calls a script by its file's name.
    std::fs::write(&text, "#!/bin/sh\nsh -c 'sh -c \"echo \\$\\$; read line\"; :'; :\n").unwrap();
    let status = Command::new("install").args(["-m", "755"]).args([&text, &path]).status().unwrap();
    assert!(status.success());
    let mut child = Command::new(&path).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut hook = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut hook).unwrap();
    let hook: u32 = hook.trim().parse().unwrap();
    assert!(matches!(Ucarp::of(hook), Err(Error::NotUcarp { .. })));
    assert_ne!(Stat::of(hook).unwrap().parent, child.id());
    assert_eq!(Ucarp::at_or_above(hook).unwrap().pid, child.id());
    assert!(
        matches!(Ucarp::at_or_above(std::process::id()), Err(Error::NotUcarp { pid, .. }) if pid == std::process::id())
    );
    drop(child.stdin.take());
    child.wait().unwrap();
}

/// A child that is ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

/// A real ucarp for `vip` in a network namespace of its own, whose hooks write lines to `log`; back when it is MASTER.
fn ucarp(vip: &str, log: &std::path::Path) -> Running {
    unshare(CloneFlags::CLONE_NEWNET).expect("these tests run as root");
    ip("link add eth0 type veth peer name far");
    ip("addr add 172.16.0.11/16 dev eth0");
    ip("link set eth0 up");
    ip("link set far up");
    let hook = |name: &str| {
        let (text, path) = (log.with_extension("new"), log.with_file_name(name));
        std::fs::write(&text, format!("#!/bin/sh\necho {name} >> {}\n", log.display())).unwrap();
        // Copied by another process: one that this process has open for writing, however briefly, may be inherited by
        // another test's child at that moment, and cannot be run then.
        let status = Command::new("install").args(["-m", "755"]).args([&text, &path]).status().unwrap();
        assert!(status.success());
        path
    };
    let mut command = Command::new("/usr/sbin/ucarp");
    command.args(["-zr1", "-i", "eth0", "-s", "172.16.0.11", "-v", "10", "-p", "secret", "-a", vip]);
    command.arg("-u").arg(hook("up")).arg("-d").arg(hook("down"));
    let running = Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    wait_for(log, "down\nup\n");
    running
}

fn wait_for(log: &std::path::Path, expected: &str) {
    let end = Instant::now() + Duration::from_secs(30);
    while std::fs::read_to_string(log).unwrap_or_default() != expected {
        assert!(Instant::now() < end, "{:?}", std::fs::read_to_string(log));
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_real_ucarp_is_found_steps_down_and_is_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let running = ucarp("172.16.0.97", &log);
    let vip = Ipv4Addr::new(172, 16, 0, 97);
    assert_eq!(Ucarp::find("eth1", vip), None);
    let elsewhere = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        Ucarp::find("eth0", vip)
    });
    assert_eq!(elsewhere.join().unwrap(), None, "it serves another network");
    let found = Ucarp::find("eth0", vip).unwrap();
    assert_eq!(found.pid, running.0.id());
    assert!(found.is_alive());
    assert_eq!(found.options.dead_time(), Duration::from_secs(1));
    assert!(found.options.shutdown_script);
    found.step_down().unwrap();
    wait_for(&log, "down\nup\ndown\n");
    wait_for(&log, "down\nup\ndown\nup\n");
    assert_eq!(found.stop(Duration::from_secs(20)).unwrap(), Stopped::OnTerm);
    wait_for(&log, "down\nup\ndown\nup\ndown\n");
    assert!(!found.is_alive());
    assert_eq!(found.stop(Duration::ZERO).unwrap(), Stopped::AlreadyGone);
    assert!(matches!(found.step_down(), Err(Error::Gone { .. })));
    assert_eq!(Ucarp::find("eth0", vip), None);
}

#[test]
fn a_ucarp_without_a_link_ignores_term_and_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let _running = ucarp("172.16.0.98", &log);
    let found = Ucarp::find("eth0", Ipv4Addr::new(172, 16, 0, 98)).unwrap();
    ip("link set far down");
    wait_for(&log, "down\nup\ndown\n");
    assert_eq!(found.stop(Duration::from_millis(500)).unwrap(), Stopped::Killed);
    assert!(!found.is_alive());
}

proptest! {
    #[test]
    fn no_command_line_makes_it_panic(argv: Vec<String>) {
        let _ = Options::parse(&argv);
    }
}
