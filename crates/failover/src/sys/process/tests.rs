//! Real children: late ones, deaf ones, loud ones, and ones that leave a daemon behind.

use super::*;

const LONG: Duration = Duration::from_secs(60);

fn sh(script: &str, deadline: Duration, cancel: &Cancel) -> Result<Finished, Error> {
    run(Path::new("/bin/sh"), &["-c", script], deadline, cancel)
}

/// Whether the process whose id was written to `path` has ended.
fn has_ended(path: &Path) -> bool {
    let pid = std::fs::read_to_string(path).unwrap().trim().parse().unwrap();
    Stat::of(pid).is_none_or(|stat| stat.has_ended())
}

#[test]
fn the_end_of_both_outputs_is_kept() {
    let script = "yes | head -c 1000000; echo out; echo err >&2; exit 3";
    let finished = sh(script, LONG, &Cancel::new()).unwrap();
    assert_eq!(finished.status.code(), Some(3));
    assert_eq!(finished.output.len(), 64 * 1024);
    assert!(finished.output.ends_with("out\nerr\n"));
    let error = finished.success().unwrap_err().to_string();
    assert_eq!(error, "/bin/sh failed (exit status: 3): err");
}

#[test]
fn a_child_that_prints_without_end_takes_no_memory_without_end() {
    let cancel = Cancel::new();
    let flag = cancel.clone();
    let runner = std::thread::spawn(move || sh("exec yes", LONG, &flag));
    let memory = || -> u64 {
        let blocks = |entry: std::fs::DirEntry| {
            let name = std::fs::read_link(entry.path()).ok()?;
            let ours = name.to_string_lossy().contains("memfd:output");
            ours.then(|| std::fs::metadata(entry.path()).map(|m| (m.len(), std::os::unix::fs::MetadataExt::blocks(&m))))
                .and_then(Result::ok)
        };
        let entries = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        let printed: Vec<(u64, u64)> = entries.filter_map(blocks).collect();
        // Much was printed, and little of it is kept.
        let much = printed.iter().filter(|(size, _)| *size > 64 << 20);
        much.map(|(size, blocks)| size.saturating_sub(blocks * 512)).max().unwrap_or_default()
    };
    while memory() < 32 << 20 {
        std::thread::sleep(Duration::from_millis(10));
    }
    cancel.cancel();
    assert!(matches!(runner.join().unwrap(), Err(Error::Cancelled(_))));
}

#[test]
fn the_environment_is_clean_and_the_path_absolute() {
    let finished = run(Path::new("/usr/bin/env"), &[""; 0], LONG, &Cancel::new()).unwrap();
    let names: Vec<_> = finished.output.lines().map(|line| line.split('=').next()).collect();
    assert_eq!(names, [Some("LANG"), Some("PATH")]);
    let manner = RunOptions { environment: &[("FACT", "of 2 lines\nX=1".to_owned())], ..RunOptions::within(LONG) };
    let finished = run_with(Path::new("/bin/sh"), &["-c", "echo \"$FACT\""], manner, &Cancel::new()).unwrap();
    assert_eq!(finished.output, "of 2 lines\nX=1\n");
    let relative = run(Path::new("env"), &[""; 0], LONG, &Cancel::new());
    assert!(matches!(relative, Err(Error::Spawn { .. })));
}

#[test]
fn a_daemon_left_behind_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let pid = dir.path().join("pid");
    let script = format!(
        "setsid sh -c 'echo $$ > {0}.new; mv {0}.new {0}; exec sleep 60' & \
         while [ ! -e {0} ]; do sleep 0.01; done; echo started",
        pid.display()
    );
    let finished = sh(&script, LONG, &Cancel::new()).unwrap();
    assert!(finished.took < Duration::from_secs(30));
    assert_eq!(finished.output, "started\n");
    assert!(!has_ended(&pid), "the daemon must live on");
    let daemon = std::fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
    stop(Identity::of(daemon).unwrap(), LONG).unwrap();
}

#[test]
fn a_deadline_ends_the_whole_group() {
    let dir = tempfile::tempdir().unwrap();
    let (child, grandchild) = (dir.path().join("child"), dir.path().join("grandchild"));
    let script = format!(
        "echo $$ > {}; sh -c \"trap '' TERM; echo \\$\\$ > {}; while :; do sleep 1; done\" & wait",
        child.display(),
        grandchild.display()
    );
    let start = Instant::now();
    let error = sh(&script, Duration::from_secs(1), &Cancel::new()).unwrap_err();
    assert!(matches!(error, Error::Deadline { .. }), "{error}");
    assert!(error.to_string().contains("state S"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(20));
    assert!(has_ended(&child) && has_ended(&grandchild));
}

#[test]
fn cancelling_ends_a_child_at_once() {
    let cancel = Cancel::new();
    let flag = cancel.clone();
    let start = Instant::now();
    let runner = std::thread::spawn(move || sh("sleep 60", LONG, &flag));
    std::thread::sleep(Duration::from_millis(200));
    cancel.cancel();
    assert!(matches!(runner.join().unwrap(), Err(Error::Cancelled(_))));
    assert!(start.elapsed() < Duration::from_secs(20));
}

#[test]
fn programs_are_found_by_name() {
    assert_eq!(find_program("sleep"), Some(PathBuf::from("/usr/bin/sleep")));
    assert_eq!(find_program("no-such-program"), None);
    let error = find_beside("no-such-program").unwrap_err().to_string();
    assert!(error.starts_with("no-such-program is not installed"), "{error}");
}

#[test]
fn a_child_can_be_another_user_and_be_killed_at_once() {
    let manner = RunOptions { user: Some(Owner { uid: 65_534, gid: 65_534 }), ..RunOptions::within(LONG) };
    let id = run_with(Path::new("/usr/bin/id"), &["-u"], manner, &Cancel::new()).unwrap();
    assert_eq!(id.output, "65534\n");
    let groups = run_with(Path::new("/usr/bin/id"), &["-G"], manner, &Cancel::new()).unwrap();
    assert_eq!(groups.output, "65534\n", "no group of root's comes along");
    let deaf = ["-c", "trap '' TERM; sleep 600 & wait"];
    let manner = RunOptions { patience: Duration::ZERO, ..RunOptions::within(Duration::from_millis(300)) };
    assert!(matches!(run_with(Path::new("/bin/sh"), &deaf, manner, &Cancel::new()), Err(Error::Deadline { .. })));
}

#[test]
fn a_start_that_hangs_is_given_up_and_a_child_that_comes_late_is_killed() {
    let (late, child) = std::sync::mpsc::channel();
    let begun = Instant::now();
    let start = move || {
        // As the kernel does that reads a program from a disk that does not answer.
        std::thread::sleep(Duration::from_millis(300));
        let child = Command::new("/bin/sleep").arg("60").spawn()?;
        late.send(Identity::of(child.id()).unwrap()).unwrap();
        Ok(child)
    };
    let error = start_within(Path::new("/bin/sleep"), Duration::from_millis(50), start).unwrap_err();
    assert!(matches!(error, Error::DoesNotStart { .. }) && begun.elapsed() < Duration::from_millis(290), "{error}");
    let child = child.recv().unwrap();
    while child.is_alive() {
        assert!(begun.elapsed() < LONG);
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_child_that_is_left_behind_is_not_waited_for() {
    let begun = Instant::now();
    let manner = RunOptions { leave: true, ..RunOptions::within(Duration::from_millis(100)) };
    let error = run_with(Path::new("/bin/sleep"), &["60"], manner, &Cancel::new()).unwrap_err();
    assert!(matches!(error, Error::Deadline { .. }), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}
