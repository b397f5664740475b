//! The renames of a commit: done, undone at every point, and kept when the master has written.

use std::collections::BTreeMap;
use std::path::Path;

use super::*;

/// A data folder with an old set in it, a state folder, and a staged set.
struct Place {
    dir: tempfile::TempDir,
    data: Folder,
    state: State,
    work: RunFolder,
}

const OLD: [&str; 3] = ["metadata_ml.mfs.back", "changelog_ml.0.mfs", "metadata.mfs.back"];

fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("data")).unwrap();
    for name in OLD {
        std::fs::write(dir.path().join("data").join(name), format!("old {name}")).unwrap();
    }
    let data = Folder::open(&dir.path().join("data")).unwrap();
    let state = State::open_at(&dir.path().join("state")).unwrap();
    let work = RunFolder::create(&data, 1_795_000_000).unwrap();
    for name in [stage::IMAGE, stage::LOG] {
        std::fs::write(work.stage.path().join(name), format!("staged {name}")).unwrap();
    }
    Place { dir, data, state, work }
}

impl Place {
    fn commit(&self) -> Result<(), Error> {
        self.work.commit(&self.data, &self.state, &OLD.map(OsString::from), true)
    }

    fn journal(&self) -> Journal {
        self.state.journal().unwrap().expect("a journal")
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join("data").join(name)
    }

    /// Every file below the data folder that is no folder: name and content.
    fn files(&self) -> BTreeMap<String, String> {
        let root = self.path("");
        let mut files = BTreeMap::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
                if entry.path().is_dir() {
                    folders.push(entry.path());
                } else {
                    let name = entry.path().strip_prefix(&root).map(Path::to_owned).unwrap();
                    files.insert(name.to_str().unwrap().to_owned(), std::fs::read_to_string(entry.path()).unwrap());
                }
            }
        }
        files
    }
}

fn old_set() -> BTreeMap<String, String> {
    OLD.iter().map(|name| ((*name).to_owned(), format!("old {name}"))).collect()
}

fn config() -> Config {
    Config::fallback()
}

#[test]
fn a_commit_sets_the_old_files_aside_and_moves_the_staged_ones_in() {
    let place = place();
    place.commit().unwrap();
    let files = place.files();
    assert_eq!(files["metadata.mfs.back"], "staged metadata.mfs.back");
    assert_eq!(files["changelog.0.mfs"], "staged changelog.0.mfs");
    for name in OLD {
        assert_eq!(files[&format!("mfs-promote/1795000000/aside/{name}")], format!("old {name}"));
    }
    assert_eq!(files.len(), 5);
    assert_eq!(place.journal().phase, Phase::Starting);
}

#[test]
fn a_commit_is_undone_to_the_last_file() {
    let place = place();
    place.commit().unwrap();
    assert_eq!(roll_back(&place.data, &place.journal()).unwrap(), Undone::Back);
    assert_eq!(place.files(), old_set());
    assert!(!place.path("mfs-promote").exists() && !place.path("bak").exists());
}

/// The renames of a commit, in order: from, to.
fn renames(place: &Place) -> Vec<(std::path::PathBuf, std::path::PathBuf)> {
    let aside = place.path("mfs-promote/1795000000/aside");
    let stage = place.path("mfs-promote/1795000000/stage");
    let out = OLD.iter().map(|name| (place.path(name), aside.join(name)));
    out.chain([stage::LOG, stage::IMAGE].map(|name| (stage.join(name), place.path(name)))).collect()
}

/// What a run leaves that was killed between two of the renames of a commit.
fn killed_after(done: usize) -> Place {
    let place = place();
    place.commit().unwrap();
    let journal = Journal { phase: Phase::Moving, ..place.journal() };
    // Undo the last renames by hand, newest first.
    for (from, to) in renames(&place).split_off(done).into_iter().rev() {
        std::fs::rename(to, from).unwrap();
    }
    place.state.write_journal(&journal).unwrap();
    place
}

#[test]
fn a_run_killed_between_any_two_renames_is_undone() {
    for done in 0..=5 {
        let place = killed_after(done);
        assert_eq!(roll_back(&place.data, &place.journal()).unwrap(), Undone::Back, "{done} renames");
        assert_eq!(place.files(), old_set(), "{done} renames");
        assert!(!place.path("mfs-promote").exists(), "{done} renames");
    }
}

#[test]
fn a_roll_back_killed_between_any_two_renames_is_finished_by_the_next() {
    for phase in [Phase::Moving, Phase::Starting] {
        for done in 0..=5 {
            let place = place();
            place.commit().unwrap();
            place.state.write_journal(&Journal { phase, ..place.journal() }).unwrap();
            // The staged files go back first.
            let mut back = renames(&place);
            back.rotate_left(OLD.len());
            for (from, to) in &back[..done] {
                std::fs::rename(to, from).unwrap();
            }
            assert_eq!(roll_back(&place.data, &place.journal()).unwrap(), Undone::Back, "{phase:?}, {done} renames");
            assert_eq!(place.files(), old_set(), "{phase:?}, {done} renames");
            assert_eq!(roll_back(&place.data, &place.journal()).unwrap(), Undone::Back, "once more");
            assert_eq!(place.files(), old_set(), "{phase:?}, {done} renames, once more");
        }
    }
}

#[test]
fn a_run_killed_between_any_two_renames_is_undone_though_its_journal_is_lost() {
    for done in 1..5 {
        let place = killed_after(done);
        place.state.clear_journal().unwrap();
        assert_eq!(take_back_lost(&place.data).unwrap(), done.min(OLD.len()), "{done} renames");
        sweep(&place.data).unwrap();
        let mut files = place.files();
        files.retain(|name, _| !name.ends_with(HALF));
        assert_eq!(files, old_set(), "{done} renames");
        archive_leftovers(&place.data, &config(), &Cancel::new()).unwrap();
        assert!(!place.path("mfs-promote").exists());
    }
    // All is moved, so it is what a promotion leaves that is not archived yet.
    let place = killed_after(5);
    place.state.clear_journal().unwrap();
    assert_eq!(take_back_lost(&place.data).unwrap(), 0);
}

#[test]
fn what_a_master_wrote_into_a_half_moved_set_is_kept() {
    let place = killed_after(4);
    std::fs::write(place.path(stage::LOG), "staged changelog.0.mfs and one more change").unwrap();
    assert_eq!(roll_back(&place.data, &place.journal()).unwrap(), Undone::Kept);
    let files = place.files();
    assert_eq!(files[stage::LOG], "staged changelog.0.mfs and one more change");
    assert_eq!(roll_back(&place.data, &place.journal()).unwrap(), Undone::Kept, "once more");
    assert_eq!(place.files(), files);
    assert_eq!(take_back_lost(&place.data).unwrap(), 0, "what is set aside stays there");
}

#[test]
fn what_the_master_wrote_is_kept_and_the_old_files_are_archived() {
    let writes: [fn(&Place); 3] = [
        |place| std::fs::write(place.path(stage::LOG), "staged changelog.0.mfs and one more change").unwrap(),
        |place| std::fs::write(place.path("metadata.mfs"), "a clean stop").unwrap(),
        |place| {
            std::fs::write(place.path("metadata.mfs.back.new"), "an hourly dump").unwrap();
            std::fs::rename(place.path("metadata.mfs.back.new"), place.path(stage::IMAGE)).unwrap();
        },
    ];
    for write in writes {
        let place = place();
        place.commit().unwrap();
        write(&place);
        let written = place.files();
        assert_eq!(roll_back(&place.data, &place.journal()).unwrap(), Undone::Kept);
        assert_eq!(place.files(), written, "nothing moved");
        let archives = archive_leftovers(&place.data, &config(), &Cancel::new()).unwrap();
        assert_eq!(archives, ["bak/metabak.1795000000.tar.xz"]);
        assert!(!place.path("mfs-promote").exists());
    }
}

#[test]
fn a_file_that_appeared_meanwhile_is_not_replaced() {
    let place = place();
    place.commit().unwrap();
    std::fs::write(place.path("changelog_ml.0.mfs"), "newer").unwrap();
    assert_eq!(roll_back(&place.data, &place.journal()).unwrap(), Undone::Back);
    let files = place.files();
    assert_eq!(files["changelog_ml.0.mfs"], "newer");
    assert_eq!(files["mfs-promote/1795000000/aside/changelog_ml.0.mfs"], "old changelog_ml.0.mfs");
    assert_eq!(archive_leftovers(&place.data, &config(), &Cancel::new()).unwrap().len(), 1);
}

#[test]
fn a_file_that_cannot_be_set_aside_ends_in_a_roll_back_that_restores_all() {
    let place = place();
    std::fs::remove_file(place.path(OLD[2])).unwrap();
    assert!(place.commit().is_err());
    assert_eq!(roll_back(&place.data, &place.journal()).unwrap(), Undone::Back);
    let mut expected = old_set();
    expected.remove(OLD[2]);
    assert_eq!(place.files(), expected);
}

#[test]
fn a_stage_without_a_commit_is_discarded() {
    let Place { dir: _dir, data, work, .. } = place();
    work.discard(&data).unwrap();
    assert_eq!(runs(&data).unwrap(), Vec::<u64>::new());
    assert_eq!(data.names().unwrap().len(), OLD.len());
}

#[test]
fn the_folder_of_all_runs_goes_though_the_last_one_was_killed_before_it_removed_it() {
    let Place { dir: _dir, data, work, .. } = place();
    work.discard(&data).unwrap();
    data.make_subfolder(ROOT.as_ref(), 0o700).unwrap();
    sweep(&data).unwrap();
    assert_eq!(data.names().unwrap().len(), OLD.len());
}

#[test]
fn two_runs_within_one_second_do_not_share_a_folder() {
    let place = place();
    let second = RunFolder::create(&place.data, 1_795_000_000).unwrap();
    assert_eq!((place.work.id, second.id), (1_795_000_000, 1_795_000_001));
}

#[test]
fn no_archive_is_made_where_somebody_else_could_exchange_it() {
    let place = place();
    place.commit().unwrap();
    place.state.clear_journal().unwrap();
    std::fs::create_dir(place.path(BACKUP)).unwrap();
    std::os::unix::fs::chown(place.path(BACKUP), Some(65_534), None).unwrap();
    let archived = archive_leftovers(&place.data, &config(), &Cancel::new());
    assert!(matches!(archived, Err(Error::Unsafe(_))), "{archived:?}");
    assert_eq!(std::fs::read_dir(place.path(BACKUP)).unwrap().count(), 0);
    std::fs::remove_dir(place.path(BACKUP)).unwrap();
    std::os::unix::fs::symlink("/tmp", place.path(BACKUP)).unwrap();
    assert!(archive_leftovers(&place.data, &config(), &Cancel::new()).is_err());
    std::fs::remove_file(place.path(BACKUP)).unwrap();
    assert_eq!(archive_leftovers(&place.data, &config(), &Cancel::new()).unwrap().len(), 1);
}

#[test]
fn a_work_folder_of_another_user_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join(ROOT)).unwrap();
    std::os::unix::fs::chown(dir.path().join(ROOT), Some(65534), Some(65534)).unwrap();
    let data = Folder::open(dir.path()).unwrap();
    assert!(matches!(RunFolder::create(&data, 1), Err(Error::Foreign(_))));
    std::fs::remove_dir(dir.path().join(ROOT)).unwrap();
    std::os::unix::fs::symlink("/tmp", dir.path().join(ROOT)).unwrap();
    assert!(RunFolder::create(&data, 1).is_err());
}

#[test]
fn a_number_that_is_the_same_by_chance_moves_no_file_of_before() {
    use std::os::unix::fs::MetadataExt;
    // Killed before the last file was set aside; copied to another disk since, where numbers mean nothing.
    let place = killed_after(2);
    let mut journal = place.journal();
    let original = std::fs::metadata(place.path("metadata.mfs.back")).unwrap();
    journal
        .staged
        .iter_mut()
        .filter(|file| file.name == "metadata.mfs.back")
        .for_each(|file| file.inode = original.ino());
    assert_eq!(roll_back(&place.data, &journal).unwrap(), Undone::Back);
    assert_eq!(place.files(), old_set());
}
