//! Many processes that want the same lock.

use super::*;
use std::process::{Child, Command};

const LONG: Duration = Duration::from_secs(60);
/// Tells [`contender`] that it is wanted, and for which folder.
const FOLDER_FOR_CONTENDER: &str = "LOCK_TEST_FOLDER";

fn locks(path: &Path) -> Locks {
    Locks::open(path).unwrap()
}

/// What a background run does: takes the lock with the ticket it was given, works until it is told to end or is done,
/// and writes down when it began and ended. Not a test by itself: [`contend`] starts it as a process.
#[test]
fn contender() {
    let Some(folder) = std::env::var_os(FOLDER_FOR_CONTENDER) else { return };
    let ticket: Ticket = std::env::var("LOCK_TEST_TICKET").unwrap().parse().unwrap();
    let cancel = Cancel::on_signals().unwrap();
    let folder = Path::new(&folder);
    let log = |word: &str| {
        let mut log = std::fs::OpenOptions::new().append(true).create(true).open(folder.join("log")).unwrap();
        log.write_all(format!("{word} {ticket}\n").as_bytes()).unwrap();
    };
    match locks(folder).acquire(&ticket, LONG, &cancel) {
        Ok(lock) => {
            log("begin");
            let ended = cancel.sleep(Duration::from_secs(3));
            // Rolling back takes its time, and nobody may begin before it is done.
            std::thread::sleep(Duration::from_millis(50));
            log(if ended.is_ok() && !lock.superseded() { "done" } else { "undone" });
        }
        Err(Error::Superseded | Error::Cancelled(_)) => {}
        Err(e) => log(&format!("failed: {e}")),
    }
}

fn contend(folder: &Path, ticket: &Ticket) -> Child {
    Command::new(std::env::current_exe().unwrap())
        // One thread: the main one, so that signals are blocked before any other is started.
        .args(["--exact", "lock::tests::contender", "--nocapture", "--test-threads=1"])
        .env(FOLDER_FOR_CONTENDER, folder)
        .env("LOCK_TEST_TICKET", ticket.to_string())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn in_a_storm_the_last_call_acts_and_never_two_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("run");
    let mut last = None;
    let mut children = Vec::new();
    for n in 0..30_u64 {
        let role = if n % 2 == 0 { Role::Promotion } else { Role::Demotion };
        let ticket = locks(&folder).request(role).unwrap();
        children.push(contend(&folder, &ticket));
        last = Some(ticket);
        // From all at once to one after the other.
        std::thread::sleep(Duration::from_millis(n * 3));
    }
    for child in &mut children {
        let status = child.wait().unwrap();
        assert!(status.success(), "{status}");
    }
    let log = std::fs::read_to_string(folder.join("log")).unwrap();
    let lines: Vec<_> = log.lines().map(|line| line.split_once(' ').unwrap()).collect();
    for pair in lines.chunks(2) {
        assert!(pair[0].0 == "begin" && pair.len() == 2 && pair[1].1 == pair[0].1, "{log}");
    }
    let done: Vec<_> = lines.iter().filter(|(word, _)| *word == "done").collect();
    assert_eq!(done.len(), 1, "{log}");
    assert_eq!(done[0].1, last.unwrap().to_string(), "{log}");
}

#[test]
fn an_older_ticket_gives_up_and_disturbs_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("run");
    let older = locks(&folder).request(Role::Demotion).unwrap();
    let newer = locks(&folder).request(Role::Promotion).unwrap();
    let lock = locks(&folder).acquire(&newer, LONG, &Cancel::new()).unwrap();
    let late = locks(&folder).acquire(&older, LONG, &Cancel::new());
    assert!(matches!(late, Err(Error::Superseded)));
    assert!(!lock.superseded());
    locks(&folder).request(Role::Demotion).unwrap();
    assert!(lock.superseded());
}

#[test]
fn a_run_by_hand_waits_for_nobody_and_gives_way_to_a_hook() {
    let dir = tempfile::tempdir().unwrap();
    let by_hand = locks(dir.path()).acquire_if_free(Role::Promotion).unwrap();
    assert!(!by_hand.superseded());
    let second = locks(dir.path()).acquire_if_free(Role::Demotion).unwrap_err();
    assert!(matches!(second, Error::Busy { pid, role: Role::Promotion, .. } if pid == std::process::id()), "{second}");
    assert!(second.to_string().starts_with("a promotion has been running for 0 s"));
    locks(dir.path()).request(Role::Demotion).unwrap();
    assert!(by_hand.superseded());
    drop(by_hand);
    let after = locks(dir.path()).acquire_if_free(Role::Promotion).unwrap();
    assert!(!after.superseded(), "the ticket that was there before is no reason to end");
}

#[test]
fn a_holder_that_does_not_end_is_named_after_the_patience() {
    let dir = tempfile::tempdir().unwrap();
    let locks = || locks(dir.path());
    let mut deaf = Command::new("/bin/sh")
        .args(["-c", "trap '' TERM; echo; exec sleep 60"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Read::read_exact(deaf.stdout.as_mut().unwrap(), &mut [0]).unwrap();
    // The lock is held here in the name of another process.
    let held = locks().acquire_if_free(Role::Promotion).unwrap();
    let identity = Identity::of(deaf.id()).unwrap();
    std::fs::write(dir.path().join(LOCK), format!("{identity} {}\n", Ticket::new(Role::Promotion))).unwrap();
    let ticket = locks().request(Role::Demotion).unwrap();
    let busy = locks().acquire(&ticket, Duration::from_millis(100), &Cancel::new());
    assert!(matches!(busy, Err(Error::Busy { pid, .. }) if pid == deaf.id()));
    drop(held);
    deaf.kill().unwrap();
    deaf.wait().unwrap();
}

#[test]
fn the_lock_of_a_killed_run_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let ticket = locks(dir.path()).request(Role::Promotion).unwrap();
    let mut child = contend(dir.path(), &ticket);
    while !dir.path().join("log").exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    locks(dir.path()).acquire_if_free(Role::Demotion).unwrap();
}

#[test]
fn a_folder_that_others_can_write_is_refused() {
    use std::os::unix::fs::PermissionsExt;

    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(Locks::open(dir.path()), Err(Error::Unsafe { .. })));
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::chown(dir.path(), Some(65534), None).expect("these tests run as root");
    assert!(matches!(Locks::open(dir.path()), Err(Error::Unsafe { .. })));
}

#[test]
fn a_ticket_survives_as_one_word() {
    let ticket = Ticket::new(Role::Demotion);
    assert_eq!(ticket.to_string().parse::<Ticket>().unwrap(), ticket);
    for wrong in ["", "promotion", "promotion-1", "promotion-1-2-3", "other-1-2", "demotion-x-2"] {
        assert!(wrong.parse::<Ticket>().is_err(), "{wrong}");
    }
}
