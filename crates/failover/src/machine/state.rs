//! The state folder: the records of the last runs, and what this machine remembers from one run to the next.
//!
//! It belongs to root alone, so its contents can be trusted, unlike anything in the data folder.

mod memory;

use std::ffi::{OsStr, OsString};
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::machine::json_file;
use crate::machine::outcome::{Outcome, RunKind, StepName};
use crate::metadata::Version;
use crate::sys::folder::{self, Folder};
use crate::sys::process::Identity;

pub(crate) use memory::{Freshness, Isolation, Memory, Served};

/// Where the state folder is.
pub(crate) const FOLDER: &str = "/var/lib/moosefs-ucarp";
/// How many records are kept.
const KEPT_RECORDS: usize = 50;
const HAND_OVER: &str = "hand-over.json";
const MEMORY: &str = "memory.json";
const FRESHNESS: &str = "freshness.json";

/// Why the state folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It cannot be made.
    #[error("cannot make {}", path.display())]
    Make {
        /// The state folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Somebody but root may write what root is to believe.
    #[error("{} can be written by others than root; run: chown root {0} && chmod 700 {0}", path.display())]
    Unsafe {
        /// The state folder.
        path: PathBuf,
    },
    /// A file in it cannot be opened or renamed.
    #[error(transparent)]
    Folder(#[from] folder::Error),
    /// A file in it cannot be read or written.
    #[error(transparent)]
    File(#[from] json_file::Error),
}

/// The record of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Start in unix seconds.
    pub(crate) started: i64,
    /// What the run was for.
    pub(crate) kind: RunKind,
    /// The virtual IP, where one was involved.
    pub(crate) vip: Option<String>,
    /// How it ended.
    pub(crate) outcome: Outcome,
    /// The version of the metadata that is served, or was planned.
    pub(crate) version: Option<Version>,
    /// How many changes were replayed on top of the image.
    pub(crate) changes: Option<u64>,
    /// What was set aside.
    pub(crate) set_aside: Vec<String>,
    /// The archive made of it.
    pub(crate) archive: Option<String>,
    /// The steps in order.
    pub(crate) steps: Vec<Step>,
    /// From the first step to the end, in milliseconds.
    pub(crate) total_ms: u64,
    /// Why it failed, as a chain.
    pub(crate) error: Option<String>,
}

impl Record {
    /// Of a run that begins now, and has failed until it says otherwise.
    pub(crate) fn new(kind: RunKind, vip: Option<Ipv4Addr>) -> Self {
        Self {
            started: chrono::Utc::now().timestamp(),
            kind,
            vip: vip.map(|vip| vip.to_string()),
            outcome: Outcome::Failed,
            version: None,
            changes: None,
            set_aside: Vec::new(),
            archive: None,
            steps: Vec::new(),
            total_ms: 0,
            error: None,
        }
    }
}

/// One step of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Step {
    /// Its name.
    pub(crate) name: StepName,
    /// How long it took, in milliseconds.
    pub(crate) ms: u64,
}

/// The open state folder.
#[derive(Debug)]
pub(crate) struct State {
    folder: Folder,
}

impl State {
    /// Opens the state folder of this machine, making it if need be.
    pub(crate) fn open() -> Result<Self, Error> {
        Self::open_at(Path::new(FOLDER))
    }

    /// Opens the state folder of this machine if there is one: a verb that changes nothing makes none.
    pub(crate) fn open_existing() -> Result<Option<Self>, Error> {
        if Path::new(FOLDER).exists() { Self::open().map(Some) } else { Ok(None) }
    }

    /// Opens the state folder at `path`, making it if need be.
    pub(crate) fn open_at(path: &Path) -> Result<Self, Error> {
        let made = std::fs::DirBuilder::new().mode(0o700).create(path);
        // A file in it must not vanish with the folder after a power cut.
        let flushed = made.and_then(|()| match path.parent() {
            Some(parent) => std::fs::File::open(parent)?.sync_all(),
            None => Ok(()),
        });
        match flushed {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Error::Make { path: path.to_owned(), source });
            }
            _ => (),
        }
        let folder = Folder::open(path)?;
        let status = folder.own_status()?;
        if status.st_uid != 0 || status.st_mode & 0o022 != 0 {
            return Err(Error::Unsafe { path: path.to_owned() });
        }
        Ok(Self { folder })
    }

    /// Notes that the ucarp `identity` is about to step back on purpose.
    pub(crate) fn begin_hand_over(&self, identity: Identity) -> Result<(), Error> {
        self.write(OsStr::new(HAND_OVER), &identity.to_string())
    }

    /// Whether the ucarp `identity` steps back on purpose. Answers yes only once.
    pub(crate) fn take_hand_over(&self, identity: Identity) -> Result<bool, Error> {
        let noted: Option<String> = self.read(OsStr::new(HAND_OVER))?;
        if noted.is_some() {
            self.folder.remove(OsStr::new(HAND_OVER))?;
        }
        Ok(noted.is_some_and(|noted| noted == identity.to_string()))
    }

    /// What this machine remembers; nothing at first.
    pub(crate) fn memory(&self) -> Result<Memory, Error> {
        Ok(self.read(OsStr::new(MEMORY))?.unwrap_or_default())
    }

    /// Remembers this. For whoever holds the lock.
    pub(crate) fn remember(&self, memory: &Memory) -> Result<(), Error> {
        self.write(OsStr::new(MEMORY), memory)
    }

    /// What the last comparison with a serving master found.
    pub(crate) fn freshness(&self) -> Result<Option<Freshness>, Error> {
        self.read(OsStr::new(FRESHNESS))
    }

    /// Notes a comparison with the serving master. Not part of [`Memory`]: who compares does not hold the lock.
    pub(crate) fn note_freshness(&self, freshness: &Freshness) -> Result<(), Error> {
        self.write(OsStr::new(FRESHNESS), freshness)
    }

    /// Forgets the comparisons: this machine serves, and what it serves is what there is.
    pub(crate) fn forget_freshness(&self) -> Result<(), Error> {
        match self.folder.remove(OsStr::new(FRESHNESS)) {
            Err(e) if !e.is_not_found() => Err(e.into()),
            _ => Ok(()),
        }
    }

    /// Keeps the record of a run, and drops the oldest ones.
    pub(crate) fn keep_record(&self, record: &Record) -> Result<(), Error> {
        let mut stem = record.started;
        // Two runs within a second: the later one counts on.
        while self.folder.status(&record_name(stem))?.is_some() {
            stem += 1;
        }
        self.write(&record_name(stem), record)?;
        let names = self.record_names()?;
        for name in names.iter().take(names.len().saturating_sub(KEPT_RECORDS)) {
            self.folder.remove(name)?;
        }
        Ok(())
    }

    /// The records kept, oldest first; damaged ones are left out.
    pub(crate) fn records(&self) -> Result<Vec<Record>, Error> {
        Ok(self.record_names()?.iter().filter_map(|name| self.read(name).ok().flatten()).collect())
    }

    fn record_names(&self) -> Result<Vec<OsString>, Error> {
        let is_record = |name: &OsString| {
            let name = name.to_string_lossy();
            name.strip_prefix("run.").and_then(|rest| rest.strip_suffix(".json")).is_some()
        };
        Ok(self.folder.names()?.into_iter().filter(is_record).collect())
    }

    fn read<T: DeserializeOwned>(&self, name: &OsStr) -> Result<Option<T>, Error> {
        Ok(json_file::read(&self.folder, name)?)
    }

    fn write<T: Serialize>(&self, name: &OsStr, value: &T) -> Result<(), Error> {
        Ok(json_file::write(&self.folder, name, value)?)
    }
}

/// Sorts by time as text: wide enough for any unix second.
fn record_name(started: i64) -> OsString {
    OsString::from(format!("run.{started:012}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(started: i64) -> Record {
        Record {
            started,
            kind: RunKind::Promotion,
            vip: Some("172.16.0.99".into()),
            outcome: Outcome::Serving,
            version: Some(Version(7)),
            changes: Some(3),
            set_aside: vec!["metadata.mfs".into()],
            archive: None,
            steps: vec![Step { name: StepName::Settle, ms: 1250 }],
            total_ms: 1700,
            error: None,
        }
    }

    #[test]
    fn the_newest_records_are_kept_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open_at(&dir.path().join("state")).unwrap();
        for started in 0..i64::try_from(KEPT_RECORDS).unwrap() + 3 {
            state.keep_record(&record(started)).unwrap();
        }
        let records = state.records().unwrap();
        assert_eq!(records.len(), KEPT_RECORDS);
        assert_eq!(records[0], record(3));
        // One that another version wrote, with words that this one does not know.
        let other = serde_json::to_string(&record(99)).unwrap().replace("serving", "dancing");
        std::fs::write(dir.path().join("state").join(record_name(99)), other).unwrap();
        assert_eq!(state.records().unwrap(), records, "it is left out");
    }

    #[test]
    fn the_machines_heard_last_are_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open_at(&dir.path().join("state")).unwrap();
        let mut memory = state.memory().unwrap();
        assert_eq!(memory, Memory::default());
        let at = |last| Ipv4Addr::new(10, 0, 0, last);
        assert!(memory.hear(at(1)) && memory.hear(at(2)) && memory.hear(at(1)) && !memory.hear(at(1)));
        assert_eq!(memory.heard, [at(2), at(1)]);
        assert!((3..30).all(|last| memory.hear(at(last))));
        assert_eq!((memory.heard.len(), memory.heard.last()), (Memory::MOST_HEARD, Some(&at(29))));
        assert!(!memory.learn(at(40)), "hearsay displaces nobody");
        let mut fresh = Memory { heard: vec![at(1)], ..Memory::default() };
        assert!(fresh.learn(at(2)) && !fresh.learn(at(1)));
        assert_eq!(fresh.heard, [at(2), at(1)]);
        state.remember(&memory).unwrap();
        assert_eq!(state.memory().unwrap(), memory);
    }

    #[test]
    fn a_folder_others_can_write_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(State::open_at(dir.path()), Err(Error::Unsafe { .. })));
    }
}
