//! The journal of a run: the files that it is about to move. It lies in the folder of the run, beside the files it
//! describes.

use std::ffi::OsStr;

use serde::{Deserialize, Serialize};

use crate::sys::folder::Folder;
use crate::sys::json_file::{self, Error};

const NAME: &str = "journal.json";

/// The work that a promotion has begun. It is written before the metalogger is stopped and before the first rename. It
/// is removed when a master serves, or when every file is back in its place and the metalogger runs again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Journal {
    /// How far the run has come.
    pub(crate) phase: Phase,
    /// Names in the data folder that are moved aside. For people: bytes that are no UTF-8 are replaced.
    pub(crate) set_aside: Vec<String>,
    /// Files that are moved in.
    pub(crate) staged: Vec<StagedFile>,
    /// Whether the metalogger ran before.
    pub(crate) metalogger_ran: bool,
}

/// How far a run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    /// The metalogger is being stopped, and the stage completed. No file was moved.
    Stopping,
    /// Files are being moved, in or back. No master can have started on them.
    Moving,
    /// The files are in place. A master may have started, served and written.
    Starting,
}

/// A staged file. Its inode number tells it from another file of the same name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StagedFile {
    /// Its name.
    pub(crate) name: String,
    /// Its inode number.
    pub(crate) inode: u64,
    /// Its size in bytes when it was staged.
    pub(crate) size: u64,
}

impl Journal {
    /// The journal in the folder of a run, if it has one.
    pub(crate) fn read(run: &Folder) -> Result<Option<Self>, Error> {
        json_file::read(run, OsStr::new(NAME))
    }

    /// Writes the journal into the folder of its run, through to the disk.
    pub(crate) fn write(&self, run: &Folder) -> Result<(), Error> {
        json_file::write(run, OsStr::new(NAME), self)
    }

    /// Removes the journal from the folder of its run, through to the disk.
    pub(crate) fn remove(run: &Folder) -> Result<(), Error> {
        json_file::remove(run, OsStr::new(NAME))
    }

    /// Whether the folder of a run has a journal, readable or not.
    pub(crate) fn exists(run: &Folder) -> Result<bool, Error> {
        Ok(run.status(OsStr::new(NAME))?.is_some())
    }
}
