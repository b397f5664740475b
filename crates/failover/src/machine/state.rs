//! The state folder of an instance: the records of the last runs, and what this machine remembers from one run to the next.
//!
//! It belongs to root alone, so its contents can be trusted, unlike anything in the data folder.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::instance::Instance;
use crate::machine::lock::since_boot;
use crate::sys::folder::{self, Folder};
use crate::sys::json_file;
use crate::sys::logging::chain;
use crate::sys::process::Identity;
use crate::timing;

const SWITCHOVER: &str = "switchover.json";

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
    /// It could not be opened when the run began.
    #[error("there is no state folder")]
    Absent,
    /// Other users than root can write to it, so nothing in it can be believed.
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

/// A switchover that has begun: its ucarp is told to step down next.
#[derive(Debug, Serialize, Deserialize)]
struct Switchover {
    ucarp: String,
    /// The process that makes it and works until another machine serves, where there is one.
    by: Option<String>,
    /// When, since boot.
    at: Duration,
}

impl Switchover {
    /// Whether `ucarp`, which steps down at `now`, does so for this switchover. One that was killed before it told ucarp must
    /// not turn another step-down into a switchover: that would stop a healthy master.
    fn is_for(&self, ucarp: Identity, now: Duration) -> bool {
        let works = self.by.as_ref().is_none_or(|by| by.parse::<Identity>().is_ok_and(|by| by.is_alive()));
        works && self.ucarp == ucarp.to_string() && now.saturating_sub(self.at) <= timing::SWITCHOVER_MARK
    }
}

/// The open state folder.
#[derive(Debug)]
pub(crate) struct State {
    /// `None` on a machine that can make none: it remembers nothing.
    folder: Option<Folder>,
}

impl State {
    /// Opens the state folder of an instance of this machine, making it if need be.
    pub(crate) fn of(instance: &Instance) -> Result<Self, Error> {
        if instance.name().is_some() {
            Self::open_at(&Instance::default().state_folder())?;
        }
        Self::open_at(&instance.state_folder())
    }

    /// As [`State::of`], but a folder that cannot be made (a file system that is full or read-only) does not keep this
    /// machine from serving: without it nothing is remembered.
    pub(crate) fn of_if_possible(instance: &Instance) -> Result<Self, Error> {
        Self::or_none(Self::of(instance))
    }

    fn or_none(opened: Result<Self, Error>) -> Result<Self, Error> {
        match opened {
            Err(e @ Error::Make { .. }) => {
                log::warn!("{}; going on without it, and the checks before serving know less", chain(&e));
                Ok(Self { folder: None })
            }
            opened => opened,
        }
    }

    /// Opens the state folder of an instance if there is one: a verb that changes nothing makes none.
    pub(crate) fn existing(instance: &Instance) -> Result<Option<Self>, Error> {
        if instance.state_folder().exists() { Self::of(instance).map(Some) } else { Ok(None) }
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
        Ok(Self { folder: Some(folder) })
    }

    fn folder(&self) -> Result<&Folder, Error> {
        self.folder.as_ref().ok_or(Error::Absent)
    }

    /// Tries whether it can be written to.
    pub(crate) fn try_write(&self) -> Result<(), Error> {
        let name = format!(".trial.{}", std::process::id());
        Ok(self.folder()?.try_write(name.as_ref())?)
    }

    /// Notes that the ucarp `identity` is about to step down for a switchover, which counts as long as `by` works, if it is
    /// named.
    pub(crate) fn note_switchover(&self, identity: Identity, by: Option<Identity>) -> Result<(), Error> {
        let by = by.map(|by| by.to_string());
        self.write(OsStr::new(SWITCHOVER), &Switchover { ucarp: identity.to_string(), by, at: since_boot() })
    }

    /// Whether the ucarp `identity` steps down for a switchover. Answers yes only once, and only for a moment.
    pub(crate) fn take_switchover(&self, identity: Identity) -> Result<bool, Error> {
        let noted: Result<Option<Switchover>, Error> = self.read(OsStr::new(SWITCHOVER));
        if !matches!(noted, Ok(None)) {
            self.remove(OsStr::new(SWITCHOVER))?;
        }
        Ok(noted?.is_some_and(|noted| noted.is_for(identity, since_boot())))
    }

    /// The names of all files, sorted.
    pub(super) fn names(&self) -> Result<Vec<OsString>, Error> {
        Ok(self.folder.as_ref().map_or(Ok(Vec::new()), Folder::names)?)
    }

    /// The value in the file `name`; `None` if there is no such file.
    pub(super) fn read<T: DeserializeOwned>(&self, name: &OsStr) -> Result<Option<T>, Error> {
        Ok(self.folder.as_ref().map_or(Ok(None), |folder| json_file::read(folder, name))?)
    }

    /// Writes a value to the file `name`, through to the disk.
    pub(super) fn write<T: Serialize>(&self, name: &OsStr, value: &T) -> Result<(), Error> {
        Ok(json_file::write(self.folder()?, name, value)?)
    }

    /// Removes the file `name`, if it is there.
    pub(super) fn remove(&self, name: &OsStr) -> Result<(), Error> {
        Ok(self.folder.as_ref().map_or(Ok(()), |folder| json_file::remove(folder, name))?)
    }

    /// Locks the file `name` for `patience` at most, see [`Folder::lock`].
    pub(super) fn lock(&self, name: &OsStr, patience: Duration) -> Result<Option<File>, Error> {
        Ok(self.folder()?.lock(name, patience)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_folder_others_can_write_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(State::open_at(dir.path()), Err(Error::Unsafe { .. })));
    }

    #[test]
    fn a_machine_that_can_make_no_folder_remembers_nothing_and_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        // Root can make a folder everywhere but below what is none.
        let state = State::or_none(State::open_at(&dir.path().join("absent/state"))).unwrap();
        let name = OsStr::new("value.json");
        assert_eq!((state.read::<u32>(name).unwrap(), state.names().unwrap().len()), (None, 0));
        assert!(state.write(name, &1).is_err() && state.try_write().is_err() && state.remove(name).is_ok());
        // One that others can write is believed as little as before.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(State::or_none(State::open_at(dir.path())), Err(Error::Unsafe { .. })));
    }

    #[test]
    fn a_switchover_is_noted_for_one_ucarp_and_one_call() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open_at(&dir.path().join("state")).unwrap();
        let identity = Identity::current().unwrap();
        assert!(!state.take_switchover(identity).unwrap());
        state.note_switchover(identity, Some(identity)).unwrap();
        assert!(state.take_switchover(identity).unwrap() && !state.take_switchover(identity).unwrap());
    }

    #[test]
    fn a_switchover_that_was_killed_or_is_long_ago_is_none() {
        let identity = Identity::current().unwrap();
        let mut other = std::process::Command::new("/bin/sleep").arg("60").spawn().unwrap();
        let by = Identity::of(other.id()).unwrap();
        let at = since_boot();
        let mark = Switchover { ucarp: identity.to_string(), by: Some(by.to_string()), at };
        let later = |seconds| at + Duration::from_secs(seconds);
        assert!(mark.is_for(identity, at) && mark.is_for(identity, later(1)));
        assert!(!mark.is_for(by, at), "another ucarp");
        assert!(!mark.is_for(identity, later(60)), "ucarp was not told, or steps down for another reason");
        other.kill().unwrap();
        other.wait().unwrap();
        assert!(!mark.is_for(identity, later(1)), "nobody makes the switchover any more");
        let mark = Switchover { by: None, ..mark };
        assert!(mark.is_for(identity, later(1)) && !mark.is_for(identity, later(60)));
        // One that cannot be read does not stay.
        let dir = tempfile::tempdir().unwrap();
        let state = State::open_at(&dir.path().join("state")).unwrap();
        std::fs::write(dir.path().join("state").join(SWITCHOVER), "\"7@8\"").unwrap();
        assert!(state.take_switchover(identity).is_err() && !state.take_switchover(identity).unwrap());
    }
}
