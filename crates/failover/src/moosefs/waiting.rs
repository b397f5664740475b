//! A master that has loaded a set and waits: the master of a hot standby.
//!
//! It holds the lock of a master and serves nobody. It bears a mark in its environment, which never changes, and waits as long as
//! a file in `DATA_PATH/mfs-promote/hot` has the same mark as its name. Who removes that file says that it serves from now on.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use super::{Daemon, Error};
use crate::sys::folder::Folder;
use crate::sys::process::Identity;

/// The folder of all that `mfs-promote` keeps in a data folder.
pub(crate) const ROOT: &str = "mfs-promote";
/// The folder of the hot standby in it.
pub(crate) const FOLDER: &str = "hot";
/// The variable with the mark.
pub(crate) const VARIABLE: &str = "MFS_PROMOTE_WAITS";

/// The master that waits on the data folder, if there is one.
pub(crate) fn master(data: &Folder) -> Result<Option<Identity>, Error> {
    let found = super::locked_by(data, Daemon::Master)?;
    Ok(found.filter(|process| is_waiting(data, *process)))
}

/// Whether `process`, which holds the lock of a master, waits.
pub(super) fn is_waiting(data: &Folder, process: Identity) -> bool {
    let environment = std::fs::read(format!("/proc/{}/environ", process.pid)).unwrap_or_default();
    let mark = environment.split(|byte| *byte == 0).find_map(|variable| {
        let value = variable.strip_prefix(VARIABLE.as_bytes())?.strip_prefix(b"=")?;
        Some(OsStr::from_bytes(value))
    });
    let has = |mark| {
        let folder = data.subfolder(ROOT.as_ref())?.subfolder(FOLDER.as_ref())?;
        folder.status(mark)
    };
    process.is_alive() && mark.is_some_and(|mark| matches!(has(mark), Ok(Some(_))))
}
