//! Without this, no MooseFS 1.x machine can be promoted: its master replays no change logs when it starts.
//!
//! `mfsmetarestore` merges a staged image and its change log into one image. It runs as the user of the daemons, in a
//! folder that no other user can enter. Its exit code is not trusted: it is 0 on a full disk, and for logs that the
//! tool skipped. The image counts if it is complete and of exactly the planned version.

use std::ffi::OsStr;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use crate::metadata::{Image, Plan, Version, image, stage};
use crate::moosefs::{CLEAN_STOP_IMAGE, find_program};
use crate::sys::cancel::Cancel;
use crate::sys::folder::{self, Folder, Owner};
use crate::sys::process::{self, RunOptions};
use crate::sys::progress::Allowance;
use rustix::fs::Mode;

/// The program. From 2.0 on, a script of that name does nothing.
const PROGRAM: &str = "mfsmetarestore";
/// The mode of the master's own files.
const MODE: u32 = 0o640;

/// Why there is no image to serve.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It is not installed.
    #[error("there is no program {PROGRAM}; install it from the package of the MooseFS 1.x master")]
    Missing,
    /// It failed.
    #[error("{PROGRAM} cannot merge the image with its change log")]
    Failed(#[source] process::Error),
    /// A file in its folder.
    #[error(transparent)]
    Folder(#[from] folder::Error),
    /// One of its files cannot be read or written.
    #[error("cannot {operation} a file of {PROGRAM}")]
    Io {
        /// `read`, `write` …
        operation: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// It wrote another image than planned.
    #[error("the image that {PROGRAM} wrote is not version {planned}, but {found}; its last line of output: {said}")]
    Differs {
        /// The image that it wrote.
        found: Image,
        /// The planned version.
        planned: Version,
        /// The last line of its output.
        said: String,
    },
    /// Another process has put another file in place of the image.
    #[error("the image that {PROGRAM} wrote was replaced by a file of another user")]
    Exchanged,
}

/// An error if it is not installed.
pub(crate) fn check_installed() -> Result<(), Error> {
    find_program(PROGRAM).map(drop).ok_or(Error::Missing)
}

/// Merges the staged set in `folder`, which is the folder of `user`, into `metadata.mfs` there. Returns how long it
/// took.
pub(crate) fn restore(
    folder: &Folder,
    plan: &Plan,
    user: Owner,
    time: Allowance,
    cancel: &Cancel,
) -> Result<Duration, Error> {
    let program = find_program(PROGRAM).ok_or(Error::Missing)?;
    if plan.changes == 1 {
        prepend_known_change(folder, plan, user)?;
    }
    let path = |name: &str| folder.path().join(name).into_os_string();
    let arguments = [
        OsStr::new("-m").into(),
        path(stage::IMAGE),
        OsStr::new("-o").into(),
        path(CLEAN_STOP_IMAGE),
        path(stage::LOG),
    ];
    let options = RunOptions { user: Some(user), time, patience: Duration::ZERO, ..RunOptions::within(time.most) };
    let finished = process::run_with(&program, &arguments, options, cancel).and_then(process::Finished::success);
    let finished = finished.map_err(Error::Failed)?;
    // From here on no other user can exchange the file that is checked.
    folder.give_away(Owner { uid: 0, gid: 0 })?;
    let mut file = folder.read(CLEAN_STOP_IMAGE.as_ref())?;
    let status = file.metadata().map_err(failed("examine"))?;
    if status.uid() != user.uid || status.nlink() != 1 {
        return Err(Error::Exchanged);
    }
    match image::read(&mut file).map_err(failed("read"))? {
        Image::Complete { version, .. } if version == plan.end_version => (),
        found => {
            let said = finished.output.trim_end().lines().next_back().unwrap_or("none").to_owned();
            return Err(Error::Differs { found, planned: plan.end_version, said });
        }
    }
    rustix::fs::fchmod(&file, Mode::from_raw_mode(MODE)).map_err(|e| failed("set the mode of")(e.into()))?;
    file.sync_all().map_err(failed("flush"))?;
    Ok(finished.took)
}

/// Adds a change that the image has already before the only change of the log: 1.6.27 takes a log of one line for an
/// empty one (`mfsmetarestore/main.c`, `changelog_checkname`). The tool skips changes below the image's version.
fn prepend_known_change(folder: &Folder, plan: &Plan, user: Owner) -> Result<(), Error> {
    let name = OsStr::new(stage::LOG);
    let mut line = String::new();
    folder.read(name)?.read_to_string(&mut line).map_err(failed("read"))?;
    folder.remove(name)?;
    let mut file = folder.create(name, 0o600)?;
    let before = plan.base_version.last_change();
    file.write_all(format!("{before}: 0|ACCESS(1)\n{line}").as_bytes()).map_err(failed("write"))?;
    Ok(folder.give(&file, name, user)?)
}

fn failed(operation: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io { operation, source }
}
