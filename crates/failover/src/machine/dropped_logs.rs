//! Keeps the change logs that a metalogger drops.
//!
//! At the first change that it hears of a new history a metalogger removes all its change logs, and it has a new image only when
//! it has connected again and downloaded it (`masterconn_metachanges_log` in `mfsmetalogger/masterconn.c`). If the new master
//! dies within that time, the copy here would be an old image and nothing since. So while this machine stands by, each log has a
//! second name in `DATA_PATH/mfs-promote/logs`: its inode's number. A log that has no other name any more was dropped. If it
//! holds changes behind the image of now, it comes back into the data folder, under a number that no metalogger uses; the
//! metalogger has rotated the other ones away, or an administrator has removed them. A log that came back is set aside, and archived, as soon as an image has all of it.
//!
//! Where the file system has no hard links, nothing is kept.

use std::ffi::{OsStr, OsString};

use rustix::fs::{FileType, Stat};

use crate::machine::commit;
use crate::metadata::inventory::ends_of_log;
use crate::metadata::names::{self, DROPPED_LOGS};
use crate::metadata::{Version, image};
use crate::sys::folder::{self, Folder};

/// Below the folder of all runs.
const FOLDER: &str = "logs";
/// The metalogger's image.
const IMAGE: &str = "metadata_ml.mfs.back";

/// A metalogger drops its logs one after the other, in milliseconds; more on a busy disk. In seconds.
const DROPS_WITHIN: u64 = 2;

/// Why a log could not be kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A file or folder.
    #[error(transparent)]
    Folder(#[from] folder::Error),
    /// The folder of all runs.
    #[error(transparent)]
    Commit(#[from] commit::Error),
}

/// Who has removed the logs that are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removed {
    /// The metalogger, which runs, or has run until this run stopped it.
    ByMetalogger,
    /// An administrator: they do not come back.
    ByHand,
}

impl Removed {
    /// While the metalogger runs, or not.
    pub(crate) fn while_metalogger(runs: bool) -> Self {
        if runs { Self::ByMetalogger } else { Self::ByHand }
    }
}

/// Gives each log of the metalogger's a second name, and brings back those that it has dropped. To be called more often than a
/// metalogger connects again. Says whether logs are set aside now that an image has all of.
pub(crate) fn keep(data: &Folder, removed: Removed) -> Result<bool, Error> {
    bring_back(data, removed)?;
    let folder = match commit::open_beside(data, FOLDER)? {
        Some(folder) => folder,
        None => commit::make_root(data)?.make_subfolder(FOLDER.as_ref(), 0o700)?,
    };
    for name in data.names()?.iter().filter(|name| names::is_of_metalogger(name)) {
        let may_have_two = |status: &Stat| is_file(status) && data.is_of_writer(status);
        let Some(status) = data.status(name)?.filter(may_have_two) else { continue };
        let second = number(&status);
        if folder.status(&second)?.is_none() {
            match data.link(name, &folder, &second) {
                // Rotated meanwhile, or linked already under another name: the next look sees it.
                Err(e) if e.is_not_found() || e.is_there() => (),
                linked => linked?,
            }
        }
    }
    set_aside(data)
}

/// A log that is gone, with changes behind the image.
struct Gone {
    /// Its first and its last change, if these can be read.
    changes: Option<(u64, u64)>,
    /// When it was written to, in Unix seconds and nanoseconds.
    written: (i64, i64),
    /// When it lost its name, in Unix seconds.
    removed: i64,
    second: OsString,
}

/// Brings back the logs that the metalogger has dropped, if changes behind its image are in them.
pub(crate) fn bring_back(data: &Folder, removed: Removed) -> Result<(), Error> {
    let Some(folder) = commit::open_beside(data, FOLDER)? else { return Ok(()) };
    let mut gone = gone(data, &folder)?;
    if removed == Removed::ByHand || one_is_left(data, &gone)? {
        // The metalogger may be about to remove the other ones.
        let now = chrono::Utc::now().timestamp();
        gone.retain(|log| removed == Removed::ByHand || now.abs_diff(log.removed) > DROPS_WITHIN);
        return gone.iter().try_for_each(|log| remove(&folder, &log.second));
    }
    // The newest one gets the lowest number, as in a rotation. The kernel's clock for files ticks some hundred times a second.
    gone.sort_by_key(|log| (log.written, log.changes));
    let brought: Vec<u64> = data.names()?.iter().filter_map(|name| names::dropped_log(name)).collect();
    let mut number = brought.into_iter().min().unwrap_or(DROPPED_LOGS.end);
    for Gone { changes, second, .. } in gone {
        number -= 1;
        if !DROPPED_LOGS.contains(&number) {
            return Ok(());
        }
        let name = names::name_of_dropped_log(number);
        match folder.rename(&second, data, &name) {
            Err(e) if e.is_not_found() => (),
            renamed => {
                renamed?;
                let what =
                    changes.map_or_else(String::new, |(first, last)| format!(" of the changes {first} to {last}"));
                log::warn!(
                    "the metalogger has dropped its log{what}, as it does when it lacks changes, and has no later image yet; it \
                     is kept as {}",
                    name.to_string_lossy()
                );
            }
        }
    }
    Ok(data.sync()?)
}

/// The logs that are gone. Those that were rotated away are given up.
fn gone(data: &Folder, folder: &Folder) -> Result<Vec<Gone>, Error> {
    let mut gone = Vec::new();
    for second in folder.names()? {
        let Some(status) = folder.status(&second)?.filter(|status| status.st_nlink == 1) else { continue };
        // Between two names of the image nothing is known.
        let Some(image) = Image::of(data)? else { continue };
        if !is_file(&status) || status.st_size == 0 || image.has(folder, &second, &status) {
            remove(folder, &second)?;
        } else {
            let changes = ends_of_log(folder, &second).map(|ends| (ends.first, ends.last));
            let written = (status.st_mtime, i64::try_from(status.st_mtime_nsec).unwrap_or_default());
            gone.push(Gone { changes, written, removed: status.st_ctime, second });
        }
    }
    Ok(gone)
}

/// Whether a log of the same epoch is in the data folder: the metalogger drops all of them, an administrator replaces one.
fn one_is_left(data: &Folder, gone: &[Gone]) -> Result<bool, Error> {
    let epoch = |change: u64| Version(change).epoch();
    let is_left = |name: &OsString| {
        let left = ends_of_log(data, name).map(|ends| epoch(ends.last));
        left.is_some() && gone.iter().any(|log| log.changes.map(|(_, last)| epoch(last)) == left)
    };
    Ok(!gone.is_empty() && data.names()?.iter().filter(|name| names::is_of_metalogger(name)).any(is_left))
}

/// Gives up the second names: the logs are about to be set aside.
pub(crate) fn forget(data: &Folder) -> Result<(), Error> {
    Ok(commit::remove_beside(data, FOLDER)?)
}

/// Sets aside the logs that came back, once the image has all of what is in them.
fn set_aside(data: &Folder) -> Result<bool, Error> {
    let mut brought: Vec<OsString> = data.names()?;
    brought.retain(|name| names::dropped_log(name).is_some());
    let Some(image) = Image::of(data)?.filter(|_| !brought.is_empty()) else { return Ok(false) };
    let has = |name: &OsString| -> Result<bool, Error> {
        Ok(data.status(name)?.filter(is_file).is_some_and(|status| image.has(data, name, &status)))
    };
    let had: Result<Vec<bool>, Error> = brought.iter().map(has).collect();
    let mut had = had?.into_iter();
    brought.retain(|_| had.next().unwrap_or_default());
    if brought.is_empty() {
        return Ok(false);
    }
    commit::set_aside(data, u64::try_from(chrono::Utc::now().timestamp()).unwrap_or_default(), &brought)?;
    log::info!("the metalogger has a new image, so {} logs that it had dropped are set aside", brought.len());
    Ok(true)
}

fn remove(folder: &Folder, name: &OsStr) -> Result<(), Error> {
    match folder.remove(name) {
        Err(e) if !e.is_not_found() => Err(e.into()),
        _ => Ok(()),
    }
}

/// The metalogger's image.
struct Image {
    version: Version,
    /// When it was downloaded, in Unix seconds.
    written: i64,
}

impl Image {
    /// `None` if it is not there, or not complete.
    fn of(data: &Folder) -> Result<Option<Self>, Error> {
        let name = OsStr::new(IMAGE);
        let Some(status) = data.status(name)? else { return Ok(None) };
        let image = data.read(name).ok().and_then(|mut file| image::read(&mut file).ok());
        Ok(image.and_then(|image| match image {
            image::Image::Complete { version, .. } => Some(Self { version, written: status.st_mtime }),
            _ => None,
        }))
    }

    /// Whether it makes a log needless: it has the changes, or it is a later one of another epoch. Where the changes cannot be
    /// read, the later one counts.
    fn has(&self, folder: &Folder, log: &OsStr, status: &Stat) -> bool {
        let later = self.written > status.st_mtime;
        match ends_of_log(folder, log) {
            Some(ends) if Version(ends.last).epoch() <= self.version.epoch() => self.version.has(ends.last),
            _ => later,
        }
    }
}

fn is_file(status: &Stat) -> bool {
    FileType::from_raw_mode(status.st_mode) == FileType::RegularFile
}

fn number(status: &Stat) -> OsString {
    status.st_ino.to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::PathBuf;

    use crate::metadata::EpochJump;

    struct Data {
        dir: tempfile::TempDir,
        data: Folder,
    }

    impl Data {
        /// With an image of version 10, and two logs behind it.
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let data = Folder::open(dir.path()).unwrap();
            let this = Self { dir, data };
            this.image(Version(10));
            this.log("changelog_ml.1.mfs", 5..=14);
            this.log("changelog_ml.0.mfs", 15..=20);
            this
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn image(&self, version: Version) {
            let mut image = b"MFSM 2.0".to_vec();
            for number in [version.0, 7] {
                image.extend_from_slice(&number.to_be_bytes());
            }
            image.extend_from_slice(b"[MFS EOF MARKER]");
            fs::write(self.path(IMAGE), image).unwrap();
        }

        fn log(&self, name: &str, changes: std::ops::RangeInclusive<u64>) {
            fs::write(self.path(name), lines(changes)).unwrap();
        }

        fn logs(&self) -> Vec<String> {
            let mut names: Vec<_> =
                self.data.names().unwrap().iter().map(|n| n.to_string_lossy().into_owned()).collect();
            names.retain(|name| name.starts_with("changelog"));
            names.sort();
            names
        }
    }

    fn lines(changes: std::ops::RangeInclusive<u64>) -> String {
        changes.map(|change| format!("{change}: 17|OP()\n")).collect::<Vec<_>>().concat()
    }

    #[test]
    fn what_the_metalogger_drops_comes_back_until_an_image_has_it() {
        let this = Data::new();
        assert!(!keep(&this.data, Removed::ByMetalogger).unwrap());
        // It goes on writing, and then hears of another history.
        fs::write(this.path("changelog_ml.0.mfs"), lines(15..=30)).unwrap();
        for log in this.logs() {
            fs::remove_file(this.path(&log)).unwrap();
        }
        assert!(!keep(&this.data, Removed::ByMetalogger).unwrap());
        assert_eq!(this.logs(), ["changelog_ml.19999.mfs", "changelog_ml.20000.mfs"]);
        assert_eq!(fs::read_to_string(this.path("changelog_ml.19999.mfs")).unwrap(), lines(15..=30), "the newest");
        // It follows the new history, and has no image of it yet.
        let next = EpochJump::epochs(1).0;
        this.log("changelog_ml.0.mfs", next + 31..=next + 33);
        assert!(!keep(&this.data, Removed::ByMetalogger).unwrap());
        assert_eq!(this.logs().len(), 3);
        this.image(Version(31) + EpochJump::epochs(1));
        assert!(keep(&this.data, Removed::ByMetalogger).unwrap(), "they can be archived");
        assert_eq!(this.logs(), ["changelog_ml.0.mfs"]);
        assert_eq!(commit::runs(&this.data).unwrap().len(), 1);
    }

    #[test]
    fn of_logs_that_were_written_in_one_second_the_newest_gets_the_lowest_number() {
        use std::time::{Duration, SystemTime};

        let second = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        for [earlier, later] in [[3, 600], [3, 3]].map(|times| times.map(Duration::from_millis)) {
            // Whichever of them has the lower inode number.
            for names in [["changelog_ml.0.mfs", "changelog_ml.1.mfs"], ["changelog_ml.1.mfs", "changelog_ml.0.mfs"]] {
                let this = Data::new();
                for (name, changes, written) in [(names[0], 5..=14, earlier), (names[1], 15..=20, later)] {
                    this.log(name, changes);
                    fs::File::open(this.path(name)).unwrap().set_modified(second + written).unwrap();
                }
                keep(&this.data, Removed::ByMetalogger).unwrap();
                for log in this.logs() {
                    fs::remove_file(this.path(&log)).unwrap();
                }
                keep(&this.data, Removed::ByMetalogger).unwrap();
                let [newest, older] = ["changelog_ml.19999.mfs", "changelog_ml.20000.mfs"].map(|name| this.path(name));
                assert_eq!(fs::read_to_string(newest).unwrap(), lines(15..=20), "{names:?}, {earlier:?}, {later:?}");
                assert_eq!(fs::read_to_string(older).unwrap(), lines(5..=14), "{names:?}, {earlier:?}, {later:?}");
            }
        }
    }

    #[test]
    fn what_an_administrator_removes_does_not_come_back() {
        // One of them, or by an editor, ...
        let this = Data::new();
        keep(&this.data, Removed::ByMetalogger).unwrap();
        fs::remove_file(this.path("changelog_ml.1.mfs")).unwrap();
        keep(&this.data, Removed::ByMetalogger).unwrap();
        assert_eq!(this.logs(), ["changelog_ml.0.mfs"]);
        fs::remove_file(this.path("changelog_ml.0.mfs")).unwrap();
        this.log("changelog_ml.0.mfs", 15..=18);
        keep(&this.data, Removed::ByMetalogger).unwrap();
        assert_eq!(this.logs(), ["changelog_ml.0.mfs"]);
        // ... or all of them without a metalogger.
        fs::remove_file(this.path("changelog_ml.0.mfs")).unwrap();
        keep(&this.data, Removed::ByHand).unwrap();
        keep(&this.data, Removed::ByMetalogger).unwrap();
        assert_eq!(this.logs(), [""; 0]);
    }

    #[test]
    fn a_metalogger_that_is_about_to_drop_the_others_loses_nothing() {
        let this = Data::new();
        keep(&this.data, Removed::ByMetalogger).unwrap();
        fs::remove_file(this.path("changelog_ml.0.mfs")).unwrap();
        keep(&this.data, Removed::ByMetalogger).unwrap();
        fs::remove_file(this.path("changelog_ml.1.mfs")).unwrap();
        keep(&this.data, Removed::ByMetalogger).unwrap();
        assert_eq!(this.logs(), ["changelog_ml.19999.mfs", "changelog_ml.20000.mfs"]);
    }

    #[test]
    fn a_log_that_cannot_be_judged_comes_back_and_goes_with_a_later_image() {
        let this = Data::new();
        fs::remove_file(this.path("changelog_ml.1.mfs")).unwrap();
        // Two epochs, as after a restart.
        let next = EpochJump::epochs(1).0;
        let both = lines(15..=20) + &lines(next + 21..=next + 22);
        fs::write(this.path("changelog_ml.0.mfs"), &both).unwrap();
        keep(&this.data, Removed::ByMetalogger).unwrap();
        fs::remove_file(this.path("changelog_ml.0.mfs")).unwrap();
        assert!(!keep(&this.data, Removed::ByMetalogger).unwrap());
        assert_eq!(this.logs(), ["changelog_ml.20000.mfs"]);
        let old = fs::File::open(this.path("changelog_ml.20000.mfs")).unwrap();
        old.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        this.image(Version(30));
        assert!(keep(&this.data, Removed::ByMetalogger).unwrap());
        assert_eq!(this.logs(), [""; 0]);
    }

    #[test]
    fn what_is_no_file_is_never_set_aside() {
        let this = Data::new();
        std::os::unix::fs::symlink("/etc/passwd", this.path("changelog_ml.15000.mfs")).unwrap();
        fs::create_dir(this.path("changelog_ml.15001.mfs")).unwrap();
        assert!(!keep(&this.data, Removed::ByMetalogger).unwrap());
        assert_eq!(commit::runs(&this.data).unwrap(), [0; 0]);
    }

    #[test]
    fn what_is_rotated_away_does_not_come_back() {
        let this = Data::new();
        keep(&this.data, Removed::ByMetalogger).unwrap();
        this.image(Version(15));
        fs::remove_file(this.path("changelog_ml.1.mfs")).unwrap();
        fs::rename(this.path("changelog_ml.0.mfs"), this.path("changelog_ml.1.mfs")).unwrap();
        keep(&this.data, Removed::ByMetalogger).unwrap();
        assert_eq!(this.logs(), ["changelog_ml.1.mfs"]);
        assert_eq!(commit::open_beside(&this.data, FOLDER).unwrap().unwrap().names().unwrap().len(), 1);
    }

    #[test]
    fn after_they_are_given_up_nothing_is_left_of_them() {
        let this = Data::new();
        keep(&this.data, Removed::ByMetalogger).unwrap();
        forget(&this.data).unwrap();
        assert_eq!(this.data.names().unwrap().len(), 3);
        fs::remove_file(this.path("changelog_ml.0.mfs")).unwrap();
        bring_back(&this.data, Removed::ByMetalogger).unwrap();
        assert_eq!(this.logs(), ["changelog_ml.1.mfs"]);
    }

    #[test]
    fn a_log_of_another_user_keeps_its_only_name() {
        use std::os::unix::fs::MetadataExt as _;
        let this = Data::new();
        std::os::unix::fs::chown(this.path("changelog_ml.0.mfs"), Some(65_534), None).unwrap();
        keep(&this.data, Removed::ByMetalogger).unwrap();
        assert_eq!(fs::metadata(this.path("changelog_ml.0.mfs")).unwrap().nlink(), 1);
        assert!(this.data.read("changelog_ml.0.mfs".as_ref()).is_ok());
    }

    #[test]
    fn a_link_in_the_place_of_a_log_is_not_kept() {
        let this = Data::new();
        fs::write(this.path("elsewhere"), "1: 17|OP()\n").unwrap();
        fs::remove_file(this.path("changelog_ml.0.mfs")).unwrap();
        std::os::unix::fs::symlink("elsewhere", this.path("changelog_ml.0.mfs")).unwrap();
        keep(&this.data, Removed::ByMetalogger).unwrap();
        assert_eq!(commit::open_beside(&this.data, FOLDER).unwrap().unwrap().names().unwrap().len(), 1);
    }
}
