//! The renames of a commit: done, undone at every point, and kept when the master has written.

use std::collections::BTreeMap;
use std::path::Path;

use rustix::io::Errno;

use super::*;
use crate::sys::testing::refusing;

const RUN: u64 = 1_795_000_000;

/// A data folder with an old set in it.
struct Place {
    dir: tempfile::TempDir,
    data: Folder,
}

const OLD: [&str; 3] = ["metadata_ml.mfs.back", "changelog_ml.0.mfs", "metadata.mfs.back"];

fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    for name in OLD {
        std::fs::write(dir.path().join(name), format!("old {name}")).unwrap();
    }
    let data = Folder::open(dir.path()).unwrap();
    Place { dir, data }
}

/// The same, with a run that has staged a set.
fn staged() -> (Place, RunFolder) {
    let place = place();
    let folder = place.stage(RUN, "staged");
    (place, folder)
}

/// The same, after the commit of that run.
fn committed() -> Place {
    let (place, folder) = staged();
    folder.commit(&place.data, &OLD.map(OsString::from), true).unwrap();
    place
}

impl Place {
    fn stage(&self, id: u64, text: &str) -> RunFolder {
        let folder = RunFolder::create(&self.data, id).unwrap();
        for name in [stage::IMAGE, stage::LOG] {
            std::fs::write(folder.stage.path().join(name), format!("{text} {name}")).unwrap();
        }
        folder
    }

    /// The only unfinished run, as the next run finds it.
    fn run(&self) -> Unfinished {
        let mut runs = unfinished(&self.data).unwrap();
        assert_eq!(runs.len(), 1);
        runs.remove(0)
    }

    /// Ends the unfinished run as the next run does.
    fn recover(&self) -> Recovery {
        let run = self.run();
        let recovery = run.recovery(&self.data).unwrap();
        if recovery == Recovery::RollBack {
            run.roll_back(&self.data).unwrap();
        }
        run.finish().unwrap();
        sweep(&self.data).unwrap();
        recovery
    }

    /// Writes the journal again with another phase in it.
    fn set_phase(&self, phase: Phase) {
        let run = self.run();
        Journal { phase, ..run.journal }.write(&run.run).unwrap();
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
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
    Config::salvage(None)
}

#[test]
fn a_commit_sets_the_old_files_aside_and_moves_the_staged_ones_in() {
    let place = committed();
    let files = place.files();
    assert_eq!(files["metadata.mfs.back"], "staged metadata.mfs.back");
    assert_eq!(files["changelog.0.mfs"], "staged changelog.0.mfs");
    for name in OLD {
        assert_eq!(files[&format!("mfs-promote/1795000000/aside/{name}")], format!("old {name}"));
    }
    assert_eq!(files.len(), 6, "and the journal");
    let run = place.run();
    assert_eq!((run.id(), run.journal().phase), (RUN, Phase::Starting));
    assert_eq!(run.journal().set_aside, OLD);
}

#[test]
fn a_commit_is_undone_to_the_last_file() {
    let place = committed();
    assert_eq!(place.recover(), Recovery::RollBack);
    assert_eq!(place.files(), old_set());
    assert!(!place.path("mfs-promote").exists() && !place.path("bak").exists());
}

#[test]
fn the_note_of_a_stopped_metalogger_is_found() {
    let (place, folder) = staged();
    folder.note_stop().unwrap();
    let run = place.run();
    assert!(run.journal().phase == Phase::Stopping && run.journal().metalogger_ran);
    assert_eq!(place.recover(), Recovery::RollBack);
    assert_eq!(place.files(), old_set());
    assert!(!place.path("mfs-promote").exists());
}

/// The renames of a commit, in order: from, to.
fn renames(place: &Place) -> Vec<(std::path::PathBuf, std::path::PathBuf)> {
    let aside = place.path("mfs-promote/1795000000/aside");
    let stage = place.path("mfs-promote/1795000000/stage");
    let out = OLD.iter().map(|name| (place.path(name), aside.join(name)));
    out.chain([stage::LOG, stage::IMAGE].map(|name| (stage.join(name), place.path(name)))).collect()
}

/// A run that was killed between two of the renames of a commit.
fn killed_after(done: usize) -> Place {
    let place = committed();
    // Undo the last renames by hand, newest first.
    for (from, to) in renames(&place).split_off(done).into_iter().rev() {
        std::fs::rename(to, from).unwrap();
    }
    place.set_phase(Phase::Moving);
    place
}

#[test]
fn a_run_killed_between_any_two_renames_is_undone() {
    for done in 0..=5 {
        let place = killed_after(done);
        assert_eq!(place.recover(), Recovery::RollBack, "{done} renames");
        assert_eq!(place.files(), old_set(), "{done} renames");
        assert!(!place.path("mfs-promote").exists(), "{done} renames");
    }
}

#[test]
fn whatever_part_of_the_renames_a_power_cut_leaves_is_undone() {
    // They are flushed together and reach the disk in any order, but two files never have one name.
    let (original, image) = (1 << 2, 1 << 4);
    for survived in (0..1 << 5).filter(|survived| survived & image == 0 || survived & original != 0) {
        let place = committed();
        for (number, (from, to)) in renames(&place).into_iter().enumerate().rev() {
            if survived & (1 << number) == 0 {
                std::fs::rename(to, from).unwrap();
            }
        }
        place.set_phase(Phase::Moving);
        assert_eq!(place.recover(), Recovery::RollBack, "{survived:05b}");
        assert_eq!(place.files(), old_set(), "{survived:05b}");
    }
}

/// Where a file is whose move was begun: a file system without a rename that never replaces gives it a second name first.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Moved {
    No,
    Half,
    Yes,
}

fn undo_move(from: &Path, to: &Path, moved: Moved) {
    match moved {
        Moved::Yes => (),
        Moved::Half => std::fs::hard_link(to, from).unwrap(),
        Moved::No => std::fs::rename(to, from).unwrap(),
    }
}

#[test]
fn whatever_part_of_the_links_and_unlinks_a_power_cut_leaves_is_undone() {
    let state =
        |number: u32, index: u32| [Moved::No, Moved::Half, Moved::Yes][(number / 3_u32.pow(index) % 3) as usize];
    for number in 0..3_u32.pow(5) {
        let states: Vec<_> = (0..5).map(|index| state(number, index)).collect();
        // Two files never have one name.
        let (original, image) = (states[2], states[4]);
        if original != Moved::Yes && image != Moved::No {
            continue;
        }
        let place = committed();
        for ((from, to), moved) in renames(&place).iter().zip(&states).rev() {
            undo_move(from, to, *moved);
        }
        place.set_phase(Phase::Moving);
        assert_eq!(place.recover(), Recovery::RollBack, "{states:?}");
        assert_eq!(place.files(), old_set(), "{states:?}");
        assert!(!place.path("mfs-promote").exists(), "{states:?}");
    }
}

#[test]
fn a_roll_back_killed_between_a_link_and_its_unlink_is_finished_by_the_next() {
    for phase in [Phase::Moving, Phase::Starting] {
        for half in 0..5 {
            let place = committed();
            place.set_phase(phase);
            let mut back = renames(&place);
            back.rotate_left(OLD.len());
            for (from, to) in &back[..half] {
                std::fs::rename(to, from).unwrap();
            }
            std::fs::hard_link(&back[half].1, &back[half].0).unwrap();
            assert_eq!(place.recover(), Recovery::RollBack, "{phase:?}, {half} moves");
            assert_eq!(place.files(), old_set(), "{phase:?}, {half} moves");
        }
    }
}

#[test]
fn an_image_that_is_half_moved_back_is_none_that_a_master_has_left() {
    let (place, folder) = staged();
    std::fs::write(place.path(CLEAN_STOP_IMAGE), "old metadata.mfs").unwrap();
    let mut set_aside = OLD.map(OsString::from).to_vec();
    set_aside.push(CLEAN_STOP_IMAGE.into());
    folder.commit(&place.data, &set_aside, true).unwrap();
    let aside = place.path("mfs-promote/1795000000/aside").join(CLEAN_STOP_IMAGE);
    std::fs::hard_link(aside, place.path(CLEAN_STOP_IMAGE)).unwrap();
    assert_eq!(place.recover(), Recovery::RollBack);
    assert_eq!(place.files()[CLEAN_STOP_IMAGE], "old metadata.mfs");
    assert!(!place.path("mfs-promote").exists());
}

#[test]
fn a_commit_is_done_undone_and_archived_where_the_file_system_cannot_rename_without_replacing() {
    for errno in [Errno::INVAL, Errno::NOSYS, Errno::OPNOTSUPP] {
        refusing(&[(nix::libc::SYS_renameat2, errno)], || {
            let place = committed();
            assert_eq!(place.files()["metadata.mfs.back"], "staged metadata.mfs.back");
            assert_eq!(place.recover(), Recovery::RollBack);
            assert_eq!(place.files(), old_set());
            let second = place.stage(RUN + 1, "staged");
            second.commit(&place.data, &OLD.map(OsString::from), true).unwrap().finish().unwrap();
            let archives = archive_leftovers(&place.data, &config(), &Cancel::new()).unwrap();
            assert_eq!(archives, ["bak/metabak.1795000001.tar.xz"]);
            assert_eq!(std::fs::read_dir(place.path(BACKUP)).unwrap().count(), 1);
            assert!(!place.path("mfs-promote").exists());
            try_moves(&place.data).unwrap();
        });
    }
}

#[test]
fn a_file_system_that_cannot_move_files_safely_is_refused_before_anything_is_touched() {
    for errno in [Errno::PERM, Errno::OPNOTSUPP] {
        refusing(&[(nix::libc::SYS_renameat2, Errno::INVAL), (nix::libc::SYS_linkat, errno)], || {
            let place = place();
            let none = |error: Error| matches!(error, Error::Folder(folder::Error::NoSafeRename { .. }));
            assert!(none(try_moves(&place.data).unwrap_err()));
            assert_eq!(place.files(), old_set());
            assert_eq!(place.data.names().unwrap().len(), OLD.len());
            assert!(none(RunFolder::create(&place.data, RUN).unwrap_err()));
            sweep(&place.data).unwrap();
            assert_eq!(place.data.names().unwrap().len(), OLD.len());
        });
    }
}

#[test]
fn what_a_trial_leaves_that_was_killed_is_swept() {
    let place = place();
    let trial = |what: &str| place.path(&format!("{TRIAL}{what}.7"));
    std::fs::write(trial("file"), "").unwrap();
    std::fs::create_dir(trial("folder")).unwrap();
    std::fs::write(trial("folder").join("file"), "").unwrap();
    // None of ours: it is left alone, and nothing fails.
    std::fs::create_dir(trial("theirs")).unwrap();
    std::fs::create_dir(trial("theirs").join("folder")).unwrap();
    std::os::unix::fs::chown(trial("theirs"), Some(65_534), None).unwrap();
    sweep(&place.data).unwrap();
    assert!(!trial("file").exists() && !trial("folder").exists() && trial("theirs").exists());
}

#[test]
fn a_roll_back_killed_between_any_two_renames_is_finished_by_the_next() {
    for phase in [Phase::Moving, Phase::Starting] {
        for done in 0..=5 {
            let place = committed();
            place.set_phase(phase);
            // The staged files go back first.
            let mut back = renames(&place);
            back.rotate_left(OLD.len());
            for (from, to) in &back[..done] {
                std::fs::rename(to, from).unwrap();
            }
            let run = place.run();
            assert_eq!(run.recovery(&place.data).unwrap(), Recovery::RollBack, "{phase:?}, {done} renames");
            run.roll_back(&place.data).unwrap();
            let mut files = place.files();
            files.retain(|name, _| !name.starts_with("mfs-promote"));
            assert_eq!(files, old_set(), "{phase:?}, {done} renames");
            // Killed before the journal was removed.
            assert_eq!(place.recover(), Recovery::RollBack, "once more");
            assert_eq!(place.files(), old_set(), "{phase:?}, {done} renames, once more");
        }
    }
}

#[test]
fn a_half_moved_set_without_a_usable_journal_is_an_error_and_stays_as_it_is() {
    for done in 1..5 {
        let damages: [fn(&Path); 3] = [
            |journal| std::fs::remove_file(journal).unwrap(),
            |journal| std::fs::write(journal, "").unwrap(),
            |journal| std::fs::write(journal, "{\"phase\": \"mo").unwrap(),
        ];
        for damage in damages {
            let place = killed_after(done);
            damage(&place.path("mfs-promote/1795000000/journal.json"));
            let files = place.files();
            let error = unfinished(&place.data).unwrap_err();
            assert!(matches!(error, Error::NoJournal { run: RUN, .. } | Error::BadJournal { run: RUN, .. }), "{error}");
            assert!(error.to_string().contains("mfs-promote/1795000000/aside"), "{error}");
            assert_eq!(place.files(), files);
        }
    }
}

#[test]
fn a_whole_set_in_place_is_kept_though_its_journal_is_lost() {
    let place = killed_after(5);
    std::fs::remove_file(place.path("mfs-promote/1795000000/journal.json")).unwrap();
    assert!(unfinished(&place.data).unwrap().is_empty());
    assert_eq!(archive_leftovers(&place.data, &config(), &Cancel::new()).unwrap().len(), 1);
}

#[test]
fn of_several_unfinished_runs_the_newest_is_undone_first() {
    let place = committed();
    let names = [stage::IMAGE, stage::LOG].map(OsString::from);
    let second = place.stage(RUN + 1, "second");
    let before: BTreeMap<_, _> = place.files().into_iter().filter(|(name, _)| !name.contains("1795000001")).collect();
    second.commit(&place.data, &names, false).unwrap();
    let runs = unfinished(&place.data).unwrap();
    assert_eq!(runs.iter().map(Unfinished::id).collect::<Vec<_>>(), [RUN + 1, RUN]);
    for (run, after) in runs.into_iter().zip([Some(before), None]) {
        assert_eq!(run.recovery(&place.data).unwrap(), Recovery::RollBack);
        run.roll_back(&place.data).unwrap();
        run.finish().unwrap();
        if let Some(after) = after {
            assert_eq!(place.files(), after);
        }
    }
    sweep(&place.data).unwrap();
    assert_eq!(place.files(), old_set());
}

#[test]
fn files_set_aside_by_an_unfinished_run_are_neither_archived_nor_swept() {
    let place = committed();
    let files = place.files();
    assert!(archive_leftovers(&place.data, &config(), &Cancel::new()).unwrap().is_empty());
    sweep(&place.data).unwrap();
    assert_eq!(place.files(), files);
}

#[test]
fn a_name_that_is_no_text_goes_back_too() {
    use std::os::unix::ffi::OsStrExt as _;
    let (place, folder) = staged();
    // As text they would be one name.
    let names = [&b"metadata\xff.mfs"[..], b"metadata\xfe.mfs"].map(OsStr::from_bytes);
    let text = |name: &OsStr| std::fs::read(place.dir.path().join(name)).ok();
    let mut set_aside = OLD.map(OsString::from).to_vec();
    for name in names {
        std::fs::write(place.dir.path().join(name), name.as_bytes()).unwrap();
        set_aside.push(name.to_owned());
    }
    folder.commit(&place.data, &set_aside, true).unwrap();
    assert_eq!(names.map(text), [None, None]);
    assert_eq!(place.recover(), Recovery::RollBack);
    assert_eq!(names.map(text), names.map(|name| Some(name.as_bytes().to_vec())));
    assert!(!place.path("mfs-promote").exists());
}

#[test]
fn what_a_master_wrote_into_a_half_moved_set_is_kept() {
    let place = killed_after(4);
    std::fs::write(place.path(stage::LOG), "staged changelog.0.mfs and one more change").unwrap();
    assert_eq!(place.run().recovery(&place.data).unwrap(), Recovery::Keep);
    assert_eq!(place.recover(), Recovery::Keep);
    let files = place.files();
    assert_eq!(files[stage::LOG], "staged changelog.0.mfs and one more change");
    assert!(unfinished(&place.data).unwrap().is_empty(), "what is set aside stays there");
    assert_eq!(place.files().keys().filter(|name| name.contains("/aside/")).count(), OLD.len());
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
        let place = committed();
        write(&place);
        let mut written = place.files();
        assert_eq!(place.recover(), Recovery::Keep);
        written.retain(|name, _| !name.ends_with("journal.json"));
        assert_eq!(place.files(), written, "nothing moved");
        let archives = archive_leftovers(&place.data, &config(), &Cancel::new()).unwrap();
        assert_eq!(archives, ["bak/metabak.1795000000.tar.xz"]);
        assert!(!place.path("mfs-promote").exists());
    }
}

#[test]
fn a_run_that_lost_its_power_while_it_ended_is_kept() {
    // Its master serves and has made no change yet; the stage is removed, and the journal is not.
    let place = committed();
    std::fs::remove_dir_all(place.path("mfs-promote/1795000000/stage")).unwrap();
    assert_eq!(place.run().recovery(&place.data).unwrap(), Recovery::Keep);
    let before = place.files();
    assert_eq!(place.recover(), Recovery::Keep);
    let mut kept = before;
    kept.retain(|name, _| !name.ends_with("journal.json"));
    assert_eq!(place.files(), kept, "nothing moved");
}

#[test]
fn a_file_that_appeared_meanwhile_is_not_replaced() {
    let place = committed();
    std::fs::write(place.path("changelog_ml.0.mfs"), "newer").unwrap();
    assert_eq!(place.recover(), Recovery::RollBack);
    let files = place.files();
    assert_eq!(files["changelog_ml.0.mfs"], "newer");
    assert_eq!(files["mfs-promote/1795000000/aside/changelog_ml.0.mfs"], "old changelog_ml.0.mfs");
    assert_eq!(archive_leftovers(&place.data, &config(), &Cancel::new()).unwrap().len(), 1);
}

#[test]
fn a_file_that_cannot_be_set_aside_ends_in_a_roll_back_that_restores_all() {
    let (place, folder) = staged();
    std::fs::remove_file(place.path(OLD[2])).unwrap();
    assert!(folder.commit(&place.data, &OLD.map(OsString::from), true).is_err());
    assert_eq!(place.recover(), Recovery::RollBack);
    let mut expected = old_set();
    expected.remove(OLD[2]);
    assert_eq!(place.files(), expected);
}

#[test]
fn a_stage_without_a_commit_is_discarded() {
    let (place, folder) = staged();
    folder.discard(&place.data).unwrap();
    assert_eq!(runs(&place.data).unwrap(), Vec::<u64>::new());
    assert_eq!(place.data.names().unwrap().len(), OLD.len());
}

#[test]
fn what_a_run_leaves_that_was_killed_before_its_first_rename_is_swept() {
    let (place, folder) = staged();
    // While it wrote its journal.
    std::fs::write(folder.run.path().join(".journal.json"), "{").unwrap();
    sweep(&place.data).unwrap();
    assert_eq!(place.data.names().unwrap().len(), OLD.len());
    // Before it removed the folder of all runs.
    place.data.make_subfolder(ROOT.as_ref(), 0o700).unwrap();
    sweep(&place.data).unwrap();
    assert_eq!(place.data.names().unwrap().len(), OLD.len());
}

#[test]
fn two_runs_within_one_second_do_not_share_a_folder() {
    let (place, first) = staged();
    let second = RunFolder::create(&place.data, RUN).unwrap();
    assert_eq!((first.id, second.id), (RUN, RUN + 1));
}

#[test]
fn no_archive_is_made_where_another_user_could_exchange_it() {
    let place = committed();
    place.run().finish().unwrap();
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
fn an_archive_follows_a_link_that_root_has_made_to_a_folder_of_its_own() {
    use std::os::unix::fs::{PermissionsExt as _, lchown, symlink};
    let (place, elsewhere) = (committed(), tempfile::tempdir().unwrap());
    place.run().finish().unwrap();
    let link = |target: &Path| {
        let _ = std::fs::remove_file(place.path(BACKUP));
        symlink(target, place.path(BACKUP)).unwrap();
    };
    let archive = || archive_leftovers(&place.data, &config(), &Cancel::new());
    let why = |text: &str| {
        for refused in [archive().map(drop), try_archive(&place.data)] {
            let refused = refused.unwrap_err().to_string();
            assert!(refused.contains(text), "{refused}");
            assert!(archive_obstacle(&place.data).unwrap().contains(text), "{text}");
        }
    };
    link(&elsewhere.path().join("absent"));
    why("No such file");
    link(Path::new("../elsewhere"));
    why("which is no full path");
    link(elsewhere.path());
    lchown(place.path(BACKUP), Some(65_534), None).unwrap();
    why("user 65534 has made it");
    link(elsewhere.path());
    std::fs::set_permissions(elsewhere.path(), std::fs::Permissions::from_mode(0o770)).unwrap();
    why("others than root can change");
    std::fs::set_permissions(elsewhere.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    try_archive(&place.data).unwrap();
    assert_eq!(archive_obstacle(&place.data), None);
    assert_eq!(archive().unwrap(), ["bak/metabak.1795000000.tar.xz"]);
    let names: Vec<_> = std::fs::read_dir(elsewhere.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["metabak.1795000000.tar.xz"]);
}

#[test]
fn a_folder_of_runs_of_another_user_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join(ROOT)).unwrap();
    std::os::unix::fs::chown(dir.path().join(ROOT), Some(65534), Some(65534)).unwrap();
    let data = Folder::open(dir.path()).unwrap();
    assert!(matches!(RunFolder::create(&data, 1), Err(Error::Foreign(_))));
    assert!(matches!(unfinished(&data), Err(Error::Foreign(_))));
    std::fs::remove_dir(dir.path().join(ROOT)).unwrap();
    std::os::unix::fs::symlink("/tmp", dir.path().join(ROOT)).unwrap();
    for refused in [RunFolder::create(&data, 1).map(drop), try_moves(&data), sweep(&data)] {
        let refused = refused.unwrap_err().to_string();
        assert!(refused.ends_with("mfs-promote is not a folder but a link or a file; move it away"), "{refused}");
    }
}

#[test]
fn a_number_that_is_the_same_by_chance_moves_no_file_of_before() {
    use std::os::unix::fs::MetadataExt;
    // Killed before the last file was set aside; copied to another disk since, where numbers mean nothing.
    let place = killed_after(2);
    let Unfinished { mut journal, run, .. } = place.run();
    let original = std::fs::metadata(place.path("metadata.mfs.back")).unwrap();
    journal
        .staged
        .iter_mut()
        .filter(|file| file.name == "metadata.mfs.back")
        .for_each(|file| file.inode = original.ino());
    journal.write(&run).unwrap();
    assert_eq!(place.recover(), Recovery::RollBack);
    assert_eq!(place.files(), old_set());
}
