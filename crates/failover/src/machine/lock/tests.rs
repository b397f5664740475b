//! The rules, one by one; `storm` has them all at once.

use super::*;
use crate::ucarp::Options;
use std::process::Command;
use std::time::Instant;

const LONG: Duration = Duration::from_secs(60);
fn locks(path: &Path) -> Locks {
    Locks::open(path).unwrap()
}

#[test]
fn an_older_ticket_gives_up_and_disturbs_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("run");
    let older = locks(&folder).ask(RunKind::Demotion).unwrap();
    let newer = locks(&folder).ask(RunKind::Promotion).unwrap();
    let lock = locks(&folder).acquire(&newer, || LONG, &Cancel::new()).unwrap();
    let late = locks(&folder).acquire(&older, || LONG, &Cancel::new());
    assert!(matches!(late, Err(Error::Superseded)));
    assert!(!lock.superseded());
    locks(&folder).ask(RunKind::Demotion).unwrap();
    assert!(lock.superseded());
}

#[test]
fn the_options_of_a_ucarp_that_has_ended_are_known() {
    let dir = tempfile::tempdir().unwrap();
    let vips = [Ipv4Addr::new(172, 16, 0, 99), Ipv4Addr::new(172, 16, 0, 98)];
    let ucarps = [3, 5].map(|pid| Ucarp { pid, start: 7, options: Options { advbase: 4, ..Options::default() } });
    assert_eq!(locks(dir.path()).last_ucarp(vips[0]), None);
    for (vip, ucarp) in [(vips[0], &ucarps[1]), (vips[0], &ucarps[0]), (vips[1], &ucarps[1])] {
        locks(dir.path()).remember_ucarp(vip, ucarp);
    }
    for (vip, ucarp) in vips.into_iter().zip(ucarps) {
        assert_eq!(locks(dir.path()).last_ucarp(vip), Some(ucarp));
    }
    // A password may be among them.
    let status = dir.path().join("ucarp-172.16.0.99.json").metadata().unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&status) & 0o777, 0o600);
}

#[test]
fn a_run_by_hand_waits_for_nobody_and_gives_way_to_a_hook() {
    let dir = tempfile::tempdir().unwrap();
    let by_hand = locks(dir.path()).acquire_if_free(RunKind::Promotion).unwrap();
    assert!(!by_hand.superseded());
    let second = locks(dir.path()).acquire_if_free(RunKind::Demotion).unwrap_err();
    assert!(
        matches!(second, Error::Busy { pid, kind: RunKind::Promotion, .. } if pid == std::process::id()),
        "{second}"
    );
    assert!(second.to_string().starts_with("a promotion has been running for "));
    locks(dir.path()).ask(RunKind::Demotion).unwrap();
    assert!(by_hand.superseded());
    drop(by_hand);
    let after = locks(dir.path()).acquire_if_free(RunKind::Promotion).unwrap();
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
    let held = locks().acquire_if_free(RunKind::Promotion).unwrap();
    let identity = Identity::of(deaf.id()).unwrap();
    std::fs::write(dir.path().join(LOCK), format!("{identity} {}\n", Ticket::new(RunKind::Promotion))).unwrap();
    let ticket = locks().ask(RunKind::Demotion).unwrap();
    let busy = locks().acquire(&ticket, || Duration::from_millis(100), &Cancel::new());
    assert!(matches!(busy, Err(Error::Busy { pid, .. }) if pid == deaf.id()));
    drop(held);
    deaf.kill().unwrap();
    deaf.wait().unwrap();
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
    let ticket = Ticket::new(RunKind::Demotion);
    assert_eq!(ticket.to_string().parse::<Ticket>().unwrap(), ticket);
    for wrong in ["", "promotion", "promotion-1", "promotion-1-2-3", "other-1-2", "demotion-x-2"] {
        assert!(wrong.parse::<Ticket>().is_err(), "{wrong}");
    }
}

#[test]
fn one_rehearsal_at_a_time_and_none_beside_a_promotion() {
    let dir = tempfile::tempdir().unwrap();
    let first = locks(dir.path()).rehearse().unwrap();
    let second = locks(dir.path()).rehearse().unwrap_err();
    assert!(
        matches!(second, Error::Busy { pid, kind: RunKind::Rehearsal, .. } if pid == std::process::id()),
        "{second}"
    );
    assert!(locks(dir.path()).no_rehearsal().unwrap().is_none());
    drop(first);
    assert!(locks(dir.path()).no_rehearsal().unwrap().is_some());
    let dir = tempfile::tempdir().unwrap();
    let demotion = locks(dir.path()).acquire_if_free(RunKind::Demotion).unwrap();
    locks(dir.path()).rehearse().unwrap();
    drop(demotion);
    let dir = tempfile::tempdir().unwrap();
    let promotion = locks(dir.path()).acquire_if_free(RunKind::Promotion).unwrap();
    assert!(matches!(locks(dir.path()).rehearse(), Err(Error::Busy { kind: RunKind::Promotion, .. })));
    let at_work = locks(dir.path()).at_work().unwrap().unwrap();
    assert_eq!((at_work.pid, at_work.kind), (std::process::id(), RunKind::Promotion));
    // Its work is done, its process lives on.
    let _request = promotion.release();
    assert_eq!(locks(dir.path()).at_work().unwrap(), None);
    locks(dir.path()).rehearse().unwrap();
}

#[test]
fn a_promotion_tells_a_rehearsal_to_end_and_waits_for_nothing() {
    for kind in [RunKind::Promotion, RunKind::Demotion] {
        let dir = tempfile::tempdir().unwrap();
        // Ends by itself, and well, if it gets no signal.
        let mut child = Command::new("sleep").arg("10").spawn().unwrap();
        let line = format!("{} {}\n", Identity::of(child.id()).unwrap(), Ticket::new(RunKind::Rehearsal));
        std::fs::write(dir.path().join(REHEARSAL), line).unwrap();
        let ticket = locks(dir.path()).ask(kind).unwrap();
        let lock = locks(dir.path()).acquire(&ticket, || Duration::ZERO, &Cancel::new()).unwrap();
        if kind == RunKind::Promotion {
            assert!(!child.wait().unwrap().success(), "ended by TERM");
        } else {
            assert!(child.try_wait().unwrap().is_none(), "a demotion is no reason");
            child.kill().unwrap();
            child.wait().unwrap();
        }
        drop(lock);
    }
}

#[test]
fn hooks_exclude_each_other_and_a_stuck_one_is_passed() {
    let dir = tempfile::tempdir().unwrap();
    let first = locks(dir.path()).hook_mutex().unwrap();
    let begun = Instant::now();
    assert!(locks(dir.path()).hook_mutex().is_none(), "ucarp waits for a hook: it goes on");
    assert!(begun.elapsed() >= timing::HOOK_MUTEX);
    let second = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let mutex = locks(dir.path()).hook_mutex();
            locks(dir.path()).ask(RunKind::Demotion).unwrap();
            mutex
        });
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(locks(dir.path()).newest().unwrap(), None, "it waits");
        drop(first);
        waiting.join().unwrap()
    });
    assert!(second.is_some());
}
