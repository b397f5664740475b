//! The state folder of an instance: the records of the last runs, and what this machine remembers from one run to the next.
//!
//! It belongs to root alone, so its contents can be trusted, unlike anything in the data folder.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::instance::Instance;
use crate::sys::folder::{self, Folder};
use crate::sys::json_file;
use crate::sys::logging::chain;
use crate::sys::process::Identity;

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

    /// Notes that the ucarp `identity` is about to step down for a switchover.
    pub(crate) fn note_switchover(&self, identity: Identity) -> Result<(), Error> {
        self.write(OsStr::new(SWITCHOVER), &identity.to_string())
    }

    /// Whether the ucarp `identity` steps down for a switchover. Answers yes only once.
    pub(crate) fn take_switchover(&self, identity: Identity) -> Result<bool, Error> {
        let noted: Option<String> = self.read(OsStr::new(SWITCHOVER))?;
        if noted.is_some() {
            self.remove(OsStr::new(SWITCHOVER))?;
        }
        Ok(noted.is_some_and(|noted| noted == identity.to_string()))
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
        state.note_switchover(identity).unwrap();
        assert!(state.take_switchover(identity).unwrap() && !state.take_switchover(identity).unwrap());
    }
}
