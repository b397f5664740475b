//! What `--status` and `--dry-run` report of an interrupted run, and how the next run recovers when the journal is damaged,
//! lost, or belongs to another data folder.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use lab::Result;
use lab::log_lines::{self, JOURNAL};
use lab::trace::Fault;

use crate::test_machine::{Operation, TestMachine};

/// What `--status` reports, and what is done to the journal before.
type Damage = (&'static str, fn(&Path));

/// Every file in a folder, not below it.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(folder).expect("a folder").flatten().filter(|entry| entry.path().is_file());
    let read =
        |entry: fs::DirEntry| (entry.file_name().to_string_lossy().into(), fs::read(entry.path()).expect("a file"));
    files.map(read).filter(|(name, _): &(String, _)| !name.starts_with('.')).collect()
}

#[test]
fn an_interrupted_run_is_reported_and_recovered_whatever_happened_to_its_journal() -> Result<()> {
    let machines = lab::SingleMachines::reserve()?;
    let test = TestMachine::start(&machines)?;
    let before = files(&test.standby());
    let calls = test.run(Operation::Promotion, None)?.seen.calls;
    let number = |what: &str| calls.iter().position(|call| call.what.starts_with(what)).expect(what);
    // Half of the files are set aside; all of them are, and half of the staged ones moved in.
    let last = calls.iter().rposition(|call| call.what == "rename metadata.mfs.back to metadata.mfs.back");
    for killed_at in [number("rename changelog_ml_back.0.mfs to"), last.expect("a staged image")] {
        let damages: [Damage; 4] = [
            (log_lines::INTERRUPTED_MOVING, |_| ()),
            (log_lines::JOURNAL_DAMAGED, |journal| fs::write(journal, "").expect("a journal")),
            (log_lines::JOURNAL_DAMAGED, |journal| fs::write(journal, "{\"run\": 17").expect("a journal")),
            (log_lines::JOURNAL_LOST, |journal| fs::remove_file(journal).expect("a journal")),
        ];
        for (said, damage) in damages {
            test.run(Operation::Promotion, Some((Fault::Kill, killed_at)))?;
            damage(&test.machine().state().join(JOURNAL));
            let left = files(&test.machine().data());
            let status = test.machine().must(&["mfs-promote", "--status"])?;
            assert!(status.contains(said), "{status}");
            let (would, dry_run) = test.machine().run(&["mfs-promote", "--dry-run"])?;
            // Its plan is that of the files as they will be.
            assert!(would && dry_run.contains(log_lines::PLANNED_796), "{said}: {dry_run}");
            assert!(dry_run.contains(said), "{dry_run}");
            assert_eq!(files(&test.machine().data()), left, "only reported");
            let (_, demotion) = test.machine().run(&["mfs-promote", "--demote"])?;
            let mut after = files(&test.machine().data());
            after.retain(|name, _| before.contains_key(name));
            assert!(after == before, "{said}: {:?}\n{demotion}", after.keys());
            assert!(!test.machine().data().join("mfs-promote").exists(), "{said}: {demotion}");
        }
    }
    journal_of_another_folder(&test, &before, last.expect("a staged image"))
}

/// Two file systems on one machine, each with its own configuration, share one journal.
fn journal_of_another_folder(test: &TestMachine, before: &BTreeMap<String, Vec<u8>>, killed_at: usize) -> Result<()> {
    test.run(Operation::Promotion, Some((Fault::Kill, killed_at)))?;
    let machine = test.machine();
    // On the same disk, as a rename leaves them.
    machine.must(&["sh", "-c", "cd /var/lib/mfs && mkdir .other && mv * .other"])?;
    machine.must(&["sed", "-i", "s#/var/lib/mfs#/var/lib/mfs/.other#", "/var/lib/moosefs-ucarp/journal.json"])?;
    let (done, said) = machine.run(&["mfs-promote", "--demote"])?;
    assert!(done, "{said}");
    let there = machine.must(&["ls", "/var/lib/mfs/.other"])?;
    let names: Vec<&str> = there.lines().collect();
    assert_eq!(names, before.keys().map(String::as_str).collect::<Vec<_>>(), "{said}");
    assert!(!machine.state().join(JOURNAL).exists(), "{said}");
    Ok(())
}

#[test]
fn a_run_that_cannot_take_its_lock_removes_the_address() -> Result<()> {
    let machines = lab::SingleMachines::reserve()?;
    let test = TestMachine::start(&machines)?;
    let machine = test.machine();
    machine.address(true)?;
    machine.must(&["install", "-d", "-m", "777", "/run/moosefs-ucarp"])?;
    // As a hook calls it.
    let (done, _) =
        machine.run(&["mfs-promote", "--interface", "eth0", "--vip", "172.16.0.99", "--ticket", "promotion-1-1"])?;
    let addresses = machine.must(&["ip", "addr", "show", "dev", "eth0"])?;
    assert!(!done && !addresses.contains("172.16.0.99"), "{addresses}");
    Ok(())
}
