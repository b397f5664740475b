//! What an earlier release has left on a machine is read: records, what it remembered, and the journal of a run that it began.
//! The files are recorded ones, see `tests/testdata/README.md`.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::machine::commit::{self, Recovery};
use crate::machine::journal::{Journal, Phase};
use crate::machine::memory;
use crate::machine::outcome::Outcome;
use crate::machine::record;
use crate::machine::recover;
use crate::machine::state::State;
use crate::sys::folder::Folder;

const RECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/testdata");
/// The last files without the number of a format, and those of the time before epochs counted promotions.
const RELEASES: [&str; 2] = ["upgrade-0.1.0", "upgrade-0.1.0-early"];

/// The data folder and the state folder of a machine.
struct Left {
    dir: tempfile::TempDir,
    data: Folder,
    state: State,
}

fn left(release: &str, name: &str) -> Left {
    let dir = tempfile::tempdir().unwrap();
    let packed = Path::new(RECORDED).join(release).join(name).with_extension("tar.xz");
    let packed = std::fs::File::open(&packed).unwrap_or_else(|e| panic!("{}: {e}", packed.display()));
    let mut archive = tar::Archive::new(xz2::read::XzDecoder::new(packed));
    archive.set_preserve_permissions(true);
    archive.unpack(dir.path()).unwrap();
    let data = Folder::open(&dir.path().join("data")).unwrap();
    let state = State::open_at(&dir.path().join("state")).unwrap();
    renumber(&dir.path().join("data"));
    Left { dir, data, state }
}

/// A journal knows staged files by their numbers on the disk, and unpacked ones have others.
fn renumber(data: &Path) {
    let Ok(runs) = std::fs::read_dir(data.join("mfs-promote")) else { return };
    for run in runs.flatten().map(|run| run.path()) {
        let path = run.join("journal.json");
        let mut journal: Journal = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        for file in &mut journal.staged {
            let staged = std::fs::metadata(run.join("stage").join(&file.name));
            file.inode = staged.or_else(|_| std::fs::metadata(data.join(&file.name))).unwrap().ino();
        }
        // As that release wrote it: without the number of a format.
        std::fs::write(&path, serde_json::to_vec(&journal).unwrap()).unwrap();
    }
}

/// Every file below a folder, but the locks of the daemons.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = walkdir::WalkDir::new(folder).into_iter().map(Result::unwrap);
    let files = entries.filter(|entry| entry.file_type().is_file());
    files
        .map(|entry| (entry.path().strip_prefix(folder).unwrap().to_owned(), std::fs::read(entry.path()).unwrap()))
        .filter(|(path, _)| !path.to_string_lossy().starts_with('.'))
        .collect()
}

#[test]
fn its_records_are_shown_and_go_on() {
    for release in RELEASES {
        let Left { dir: _dir, state, .. } = left(release, "ended");
        let records = record::all(&state).unwrap();
        let outcomes: Vec<_> = records.iter().map(|record| record.outcome).collect();
        assert_eq!(outcomes, [Outcome::Serving, Outcome::Demoted], "{release}");
        assert!(records[0].version.is_some() && records[0].archive.is_some() && !records[0].steps.is_empty());
        record::keep(&state, &records[1]).unwrap();
        assert_eq!(record::all(&state).unwrap().len(), 3, "{release}");
    }
}

#[test]
fn what_it_remembered_counts() {
    let Left { dir: _dir, data, state } = left("upgrade-0.1.0", "ended");
    let served = record::all(&state).unwrap()[0].version.unwrap();
    let memory = memory::recall(&state);
    assert!(memory.served_last && memory.forked_at.is_some() && !memory.role_changes.is_empty(), "{memory:?}");
    assert_eq!(memory.epoch, served.epoch());
    let inventory = memory::inventory(&data, Some(&state)).unwrap();
    assert!(inventory.served_last);
    assert_eq!(inventory.remembered_epoch, served.epoch());

    // A run of this release writes it anew, and forgets nothing.
    memory::heard_epoch(&state, served.epoch() + 1);
    let after = memory::recall(&state);
    assert_eq!(after, memory::Memory { epoch: served.epoch() + 1, ..memory });
}

#[test]
fn a_run_that_it_was_killed_in_is_undone_to_the_last_byte() {
    for release in RELEASES {
        let wanted = files(&left(release, "ended").dir.path().join("data"));
        for (name, phase) in [("moving", Phase::Moving), ("starting", Phase::Starting)] {
            let Left { dir, data, .. } = left(release, name);
            let mut found = recover::interrupted(&data).unwrap();
            assert_eq!(found.len(), 1, "{release} {name}");
            let recover::Interrupted { run, recovery } = found.remove(0);
            assert_eq!((run.journal().phase, recovery), (phase, Recovery::RollBack), "{release} {name}");
            run.roll_back(&data).unwrap();
            run.finish().unwrap();
            commit::sweep(&data).unwrap();
            // The archive of an earlier run is one of the files.
            let now = files(&dir.path().join("data"));
            assert!(now.keys().any(|path| path.starts_with("bak")), "{release} {name}");
            assert!(now == wanted, "{release} {name}: {:?} instead of {:?}", now.keys(), wanted.keys());
        }
    }
}
