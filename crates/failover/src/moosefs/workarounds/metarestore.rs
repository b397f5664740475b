//! MooseFS 1.x: `mfsmetarestore` makes one image of a staged image and its log, because that master loads no logs.
//!
//! It runs as the user of the daemons in a folder of that user that nobody else enters, and is not believed: it ends with
//! 0 on a full disk, and passes over logs it does not like. What it wrote counts if it is a complete image of exactly
//! the planned version.

use std::ffi::OsStr;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use crate::metadata::{Image, Plan, Version, image, stage};
use crate::sys::cancel::Cancel;
use crate::sys::folder::{self, Folder, Owner};
use crate::sys::process::{self, RunOptions};
use rustix::fs::Mode;

use crate::machine::commit::CLEAN_STOP_IMAGE;

/// The program. From 2.0 on there is a script of that name that does nothing.
const PROGRAM: &str = "mfsmetarestore";
/// As the master's own files.
const MODE: u32 = 0o640;

/// Why there is no image to serve.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It is not installed.
    #[error("there is no program {PROGRAM}; it comes with the package of the MooseFS 1.x master")]
    Missing,
    /// It failed.
    #[error("{PROGRAM} failed, so would the start of a master")]
    Failed(#[source] process::Error),
    /// A file of its folder.
    #[error(transparent)]
    Folder(#[from] folder::Error),
    /// What it wrote cannot be looked at.
    #[error("cannot {operation} what {PROGRAM} works with")]
    Io {
        /// `read`, `write` …
        operation: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What it wrote is another thing.
    #[error("{PROGRAM} wrote {found} where version {planned} was planned; it says: {said}")]
    Differs {
        /// What it is.
        found: Image,
        /// What it should be.
        planned: Version,
        /// The end of what it printed.
        said: String,
    },
    /// Somebody has put another file in its place.
    #[error("what {PROGRAM} wrote was exchanged for a file of another user")]
    Exchanged,
}

/// Whether it is installed.
pub(crate) fn check_installed() -> Result<(), Error> {
    process::find_program(PROGRAM).map(drop).ok_or(Error::Missing)
}

/// Makes `metadata.mfs` in `folder`, which belongs to `user`, out of the staged set in it, and says how long that took.
pub(crate) fn restore(
    folder: &Folder,
    plan: &Plan,
    user: Owner,
    deadline: Duration,
    cancel: &Cancel,
) -> Result<Duration, Error> {
    let program = process::find_program(PROGRAM).ok_or(Error::Missing)?;
    if plan.changes == 1 {
        lead_in(folder, plan, user)?;
    }
    let path = |name: &str| folder.path().join(name).into_os_string();
    let arguments = [
        OsStr::new("-m").into(),
        path(stage::IMAGE),
        OsStr::new("-o").into(),
        path(CLEAN_STOP_IMAGE),
        path(stage::LOG),
    ];
    let manner = RunOptions { user: Some(user), patience: Duration::ZERO, ..RunOptions::within(deadline) };
    let finished = process::run_with(&program, &arguments, manner, cancel).and_then(process::Finished::success);
    let finished = finished.map_err(Error::Failed)?;
    // From here on nobody exchanges what is looked at.
    folder.give_away(Owner { uid: 0, gid: 0 })?;
    let mut file = folder.read(CLEAN_STOP_IMAGE.as_ref())?;
    let status = file.metadata().map_err(failed("look at"))?;
    if status.uid() != user.uid || status.nlink() != 1 {
        return Err(Error::Exchanged);
    }
    match image::read(&mut file).map_err(failed("read"))? {
        Image::Complete { version, .. } if version == plan.end_version => (),
        found => {
            let said = finished.output.trim_end().lines().next_back().unwrap_or("nothing").to_owned();
            return Err(Error::Differs { found, planned: plan.end_version, said });
        }
    }
    rustix::fs::fchmod(&file, Mode::from_raw_mode(MODE)).map_err(|e| failed("set the mode of")(e.into()))?;
    file.sync_all().map_err(failed("flush"))?;
    Ok(finished.took)
}

/// Puts a change before the only one of the log that the image holds already: 1.6.27 takes a log of one line for one
/// without any (`mfsmetarestore/main.c`, `changelog_checkname`). Ids below the image's version are passed over.
fn lead_in(folder: &Folder, plan: &Plan, user: Owner) -> Result<(), Error> {
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
