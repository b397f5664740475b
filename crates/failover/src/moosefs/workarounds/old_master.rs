//! Without this, a metalogger whose connection ends at a bad moment keeps a copy in which changes are missing, and its machine
//! cannot take over until an administrator restarts it (all releases).
//!
//! A metalogger follows by three downloads and a stream: the image, the newest change log of the master, the one before that, and
//! each change from its connection on (`mfsmetalogger/masterconn.c`). The downloaded logs have the changes between the image and
//! the first one of the stream. Masters of before 1.6.18 ended the connection when they were asked for a log. So a metalogger
//! whose connection ends during such a download, for whatever reason, logs `old master detected` and asks for no log any more,
//! with no later image either. And one whose connection ends during any of the downloads, after a first change has come,
//! registers with the number of that change and downloads nothing until `META_DOWNLOAD_FREQ` has passed, 24 hours by default.
//!
//! A metalogger that is started knows of neither. It looks for its last change in `changelog_ml.0.back`, a name that no release
//! writes, so it begins with number 0 and downloads all three at once. It goes on to write behind what is in
//! `changelog_ml.0.mfs`, renames the image that it replaces (`BACK_META_KEEP_PREVIOUS`), and replaces the downloaded logs by
//! those of the serving master, as at each download. So a restart is enough, and no file has to be moved for it.

use std::ffi::OsStr;

use crate::sys::folder::Folder;

/// What a metalogger writes while it downloads.
const DOWNLOADS: [&str; 2] = ["metadata_ml.tmp", "changelog_ml.tmp"];
/// What such a download becomes.
const DOWNLOADED: [&str; 3] = ["metadata_ml.mfs.back", "changelog_ml_back.0.mfs", "changelog_ml_back.1.mfs"];

/// A file as far as it shows that it was written or replaced: its number, its size, and its time in seconds and nanoseconds.
type Mark = Option<(u64, i64, i64, u64)>;

/// What a metalogger downloads now: it changes as long as something arrives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Downloads([Mark; 2]);

impl Downloads {
    /// Those in the data folder.
    pub(crate) fn of(data: &Folder) -> Self {
        Self(DOWNLOADS.map(|name| mark(data, name)))
    }

    /// A change log of this size that is being downloaded.
    #[cfg(test)]
    pub(crate) fn of_log(size: i64) -> Self {
        Self([None, Some((1, size, 0, 0))])
    }
}

/// What it has downloaded last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Downloaded([Mark; 3]);

impl Downloaded {
    /// The files of the data folder.
    pub(crate) fn of(data: &Folder) -> Self {
        Self(DOWNLOADED.map(|name| mark(data, name)))
    }
}

fn mark(data: &Folder, name: &str) -> Mark {
    let status = data.status(OsStr::new(name)).ok().flatten()?;
    Some((status.st_ino, status.st_size, status.st_mtime, status.st_mtime_nsec))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_download_is_seen_to_go_on_and_to_be_done() {
        let dir = tempfile::tempdir().unwrap();
        let data = Folder::open(dir.path()).unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        let (none, before) = (Downloads::of(&data), Downloaded::of(&data));
        write("changelog_ml.tmp", "1");
        let first = Downloads::of(&data);
        write("changelog_ml.tmp", "12");
        let second = Downloads::of(&data);
        assert!(first != none && second != first && Downloads::of(&data) == second);
        assert_eq!(Downloaded::of(&data), before);
        std::fs::rename(dir.path().join("changelog_ml.tmp"), dir.path().join("changelog_ml_back.0.mfs")).unwrap();
        assert_eq!(Downloads::of(&data), none);
        assert_ne!(Downloaded::of(&data), before);
        write("changelog_ml.0.mfs", "3");
        assert_eq!(Downloads::of(&data), none, "the stream is none");
    }
}
