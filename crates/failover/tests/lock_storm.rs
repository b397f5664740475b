//! Many processes that want the same lock.
//!
//! A program of its own, not a set of `#[test]`s: the contenders are this program again, and a contender must block
//! signals before any thread is started, which the test harness does not allow.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use failover::machine::lock::{Error, Locks, Role, Ticket};
use failover::sys::cancel::Cancel;

const LONG: Duration = Duration::from_secs(60);

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    if let [_, word, folder, ticket] = arguments.as_slice() {
        if word == "contend" {
            return contend(Path::new(folder), &ticket.parse().unwrap());
        }
    }
    println!("\nrunning 2 tests");
    in_a_storm_the_last_call_acts_and_never_two_at_once();
    println!("test in_a_storm_the_last_call_acts_and_never_two_at_once ... ok");
    the_lock_of_a_killed_run_is_free();
    println!("test the_lock_of_a_killed_run_is_free ... ok");
    println!("\ntest result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n");
}

/// What a background run does: takes the lock with the ticket it was given, works until it is done or told to end, and
/// writes down when it began and ended.
fn contend(folder: &Path, ticket: &Ticket) {
    let cancel = Cancel::on_signals().unwrap();
    let log = |word: &str| {
        let mut log = std::fs::OpenOptions::new();
        let mut log = log.append(true).create(true).open(folder.join("log")).unwrap();
        log.write_all(format!("{word} {ticket}\n").as_bytes()).unwrap();
    };
    match Locks::open(folder).unwrap().acquire(ticket, LONG, &cancel) {
        Ok(lock) => {
            log("begin");
            let work = cancel.sleep(Duration::from_secs(2));
            // Rolling back takes its time, and nobody may begin before it is done.
            std::thread::sleep(Duration::from_millis(30));
            let done = work.is_ok() && !lock.superseded();
            log(if done { "done" } else { "undone" });
        }
        Err(Error::Superseded | Error::Cancelled(_)) => {}
        Err(e) => log(&format!("failed: {e}")),
    }
}

fn start(folder: &Path, ticket: &Ticket) -> Child {
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new(program);
    command.arg("contend").arg(folder).arg(ticket.to_string());
    command.spawn().unwrap()
}

fn in_a_storm_the_last_call_acts_and_never_two_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("run");
    let mut last = None;
    let mut children = Vec::new();
    for n in 0..60_u64 {
        let role = if n % 2 == 0 { Role::Promotion } else { Role::Demotion };
        let ticket = Locks::open(&folder).unwrap().request(role).unwrap();
        children.push(start(&folder, &ticket));
        last = Some(ticket);
        // From all at once to one after the other.
        std::thread::sleep(Duration::from_millis(n * 2));
    }
    for child in &mut children {
        let status = child.wait().unwrap();
        assert!(status.success(), "{status}");
    }
    let log = std::fs::read_to_string(folder.join("log")).unwrap();
    let lines: Vec<_> = log.lines().map(|line| line.split_once(' ').unwrap()).collect();
    for pair in lines.chunks(2) {
        assert!(pair.len() == 2 && pair[0].0 == "begin" && pair[1].1 == pair[0].1, "{log}");
    }
    let done: Vec<_> = lines.iter().filter(|(word, _)| *word == "done").collect();
    assert_eq!(done.len(), 1, "{log}");
    assert_eq!(done[0].1, last.unwrap().to_string(), "{log}");
}

fn the_lock_of_a_killed_run_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let locks = || Locks::open(dir.path()).unwrap();
    let ticket = locks().request(Role::Promotion).unwrap();
    let mut child = start(dir.path(), &ticket);
    while !dir.path().join("log").exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    locks().acquire_if_free(Role::Demotion).unwrap();
}
