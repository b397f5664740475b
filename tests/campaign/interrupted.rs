//! What `--status` and `--dry-run` report of an interrupted run, how the next run recovers, and that no run touches its files
//! when the journal is damaged or lost.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use lab::Result;
use lab::log_lines;
use lab::trace::Fault;

use crate::test_machine::{Operation, Standby, TestMachine, promotion};

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
fn an_interrupted_run_is_reported_and_recovered_and_left_alone_without_its_journal() -> Result<()> {
    let machines = lab::SingleMachines::reserve()?;
    let test = TestMachine::start(&machines, Standby::Cold)?;
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
            let machine = test.machine();
            let journal = machine.journal().expect("a journal");
            let whole = fs::read(&journal).expect("a journal");
            damage(&journal);
            let left = files(&machine.data());
            let status = machine.must(&["mfs-promote", "--status"])?;
            assert!(status.contains(said), "{status}");
            let (would, dry_run) = machine.run(&["mfs-promote", "--dry-run"])?;
            assert!(!would && dry_run.contains(said), "{dry_run}");
            if said != log_lines::INTERRUPTED_MOVING {
                for refused in [&["mfs-promote", "--demote"][..], &promotion()] {
                    machine.address(true)?;
                    let (succeeded, output) = machine.run(refused)?;
                    assert!(!succeeded && output.contains(said), "{output}");
                }
                machine.address(false)?;
                fs::write(&journal, &whole).expect("a journal");
            }
            assert_eq!(files(&machine.data()), left, "only reported");
            let (_, demotion) = machine.run(&["mfs-promote", "--demote"])?;
            let mut after = files(&machine.data());
            after.retain(|name, _| before.contains_key(name));
            assert!(after == before, "{said}: {:?}\n{demotion}", after.keys());
            assert!(!machine.data().join("mfs-promote").exists(), "{said}: {demotion}");
        }
    }
    Ok(())
}
