//! Many processes that want the same lock. The contenders are the test program again.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::*;

const LONG: Duration = Duration::from_secs(60);

/// What a background run does: takes the lock with the ticket it was given, works until it is done or told to end, and
/// writes down when it began and ended.
fn contend(folder: &Path, ticket: &Ticket) {
    let cancel = Cancel::on_signals().unwrap();
    let log = |word: &str| {
        let mut log = std::fs::OpenOptions::new();
        let mut log = log.append(true).create(true).open(folder.join("log")).unwrap();
        log.write_all(format!("{word} {ticket}\n").as_bytes()).unwrap();
    };
    match Locks::open(folder).unwrap().acquire(ticket, || LONG, &cancel) {
        Ok(lock) => {
            log("begin");
            let work = cancel.sleep(Duration::from_secs(2));
            // Rolling back takes its time, and no other run may begin before it is done.
            std::thread::sleep(Duration::from_millis(30));
            let done = work.is_ok() && !lock.superseded();
            log(if done { "done" } else { "undone" });
        }
        Err(Error::Superseded | Error::Cancelled(_)) => {}
        Err(e) => log(&format!("failed: {e}")),
    }
}

fn start(folder: &Path, ticket: &Ticket) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "machine::lock::storm::a_contender", "--ignored"]);
    command.env("STORM_FOLDER", folder).env("STORM_TICKET", ticket.to_string());
    command.stdout(Stdio::null()).spawn().unwrap()
}

#[test]
#[ignore = "run by the tests below, as a process of its own"]
fn a_contender() {
    let folder = std::env::var_os("STORM_FOLDER").expect("a contender has a folder");
    contend(Path::new(&folder), &std::env::var("STORM_TICKET").unwrap().parse().unwrap());
}

#[test]
fn in_a_storm_the_last_call_acts_and_never_two_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("run");
    let mut last = None;
    let mut children = Vec::new();
    for n in 0..60_u64 {
        let kind = if n % 2 == 0 { RunKind::Promotion } else { RunKind::Demotion };
        let ticket = Locks::open(&folder).unwrap().ask(kind).unwrap();
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

#[test]
fn the_lock_of_a_killed_run_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let locks = || Locks::open(dir.path()).unwrap();
    let ticket = locks().ask(RunKind::Promotion).unwrap();
    let mut child = start(dir.path(), &ticket);
    while !dir.path().join("log").exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    locks().acquire_if_free(RunKind::Demotion).unwrap();
}
