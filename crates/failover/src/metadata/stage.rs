//! The stage: the clean set that a plan writes, `metadata.mfs.back` and one merged `changelog.0.mfs`.
//!
//! Under these names the started master at once has a dump and a log that metaloggers can download. The files were
//! judged a while ago and belong to another user, so all of them are judged again: the staged set is exactly what the
//! plan says, or an error. A failed step leaves its half-written file in the stage folder, which the caller made and
//! removes.

mod blocks;
mod growing;
mod writer;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::sync::mpsc;

use rustix::fs::Mode;

use super::changelog;
use super::chunks::Chunks;
use super::image::{self, Image};
use super::plan::{Base, Plan};
use super::{EpochJump, Version};
use crate::sys::cancel::{Cancel, Cancelled};
use crate::sys::folder::{self, Folder, Owner};
use crate::sys::text::{bytes, shown};
use blocks::Blocks;
pub(crate) use growing::{Growing, Stale, Tail};
use writer::Writer;

/// Name of the staged image.
pub(crate) const IMAGE: &str = "metadata.mfs.back";
/// Name of the staged change log.
pub(crate) const LOG: &str = "changelog.0.mfs";

const MODE: u32 = 0o640;
const BLOCK: usize = 1024 * 1024;
/// Bytes between two flushes while more is written.
const BETWEEN_FLUSHES: u64 = 32 * 1024 * 1024;
/// Bytes between two looks at the room on the disk.
const BETWEEN_LOOKS: u64 = 4 * 1024 * 1024;
/// Lines between two looks at the cancel flag: a few milliseconds.
const LINES_BETWEEN_CHECKS: u64 = 4096;

/// Why a set could not be staged.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A file could not be opened or created.
    #[error(transparent)]
    Folder(#[from] folder::Error),
    /// Reading or writing failed.
    #[error("cannot {operation} {}", shown(file))]
    Io {
        /// `read`, `copy`, `write` …
        operation: &'static str,
        /// The file.
        file: OsString,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The image is no longer what the plan was made from.
    #[error("{} has changed since the plan was made; it is now: {found}", shown(file))]
    ImageChanged {
        /// The image.
        file: OsString,
        /// What it is now.
        found: Image,
    },
    /// A log no longer holds what the plan was made from.
    #[error("{} has changed since the plan was made: change {change} is gone", shown(file))]
    LogChanged {
        /// The log.
        file: OsString,
        /// The change that should have come.
        change: u64,
    },
    /// The plan's stretches are not contiguous from its base to its end.
    #[error("the plan has a gap: change {expected} is needed, the next stretch begins with {found}")]
    NotContiguous {
        /// The change that is needed.
        expected: u64,
        /// The change the next stretch begins with.
        found: u64,
    },
    /// A jump on a base whose header cannot be renumbered, or beyond the highest version.
    #[error("the version of this image cannot be raised by {jump}: there is no such version")]
    Jump {
        /// The jump.
        jump: EpochJump,
    },
    /// Told to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// Writes the plan's base to [`IMAGE`] in the folder `stage`, its version raised by `jump`.
///
/// Shares the blocks with the original where the file system can (reflink), else copies. The result is flushed,
/// belongs to `owner`, has mode 0640, and has been read back as a complete image of the right version.
pub(crate) fn copy_image(
    folder: &Folder,
    plan: &Plan,
    stage: &Folder,
    owner: Owner,
    jump: EpochJump,
    cancel: &Cancel,
) -> Result<(), Error> {
    check_jump(plan, jump)?;
    let name = OsStr::new(IMAGE);
    let mut staged = stage.create(name, 0o600)?;
    let expected = match &plan.base {
        Base::New => {
            staged.write_all(image::NEW).map_err(failed("write", name))?;
            Image::New
        }
        Base::Image { name: source, signature, version, metaid } => {
            let planned = |version: Version| Image::Complete { signature: *signature, version, metaid: *metaid };
            let mut original = folder.read(source)?;
            let found = image::read(&mut original).map_err(failed("read", source))?;
            if found != planned(*version) {
                let file = source.clone();
                return Err(Error::ImageChanged { file, found });
            }
            copy(&mut original, source, &staged, cancel)?;
            if jump > EpochJump::NONE {
                let raised = (*version + jump).0.to_be_bytes();
                let at = image::VERSION_OFFSET_2_0;
                staged.write_all_at(&raised, at).map_err(failed("write", name))?;
            }
            planned(*version + jump)
        }
    };
    let found = image::read(&mut staged).map_err(failed("read", name))?;
    if found != expected {
        let file = name.to_owned();
        return Err(Error::ImageChanged { file, found });
    }
    finish(stage, &staged, name, owner)
}

/// Copies a small file under another name: the client sessions of MooseFS 1.x. Flushed, of `owner`, mode 0640.
pub(crate) fn copy_file(
    from: &Folder,
    name: &OsStr,
    stage: &Folder,
    new_name: &OsStr,
    owner: Owner,
) -> Result<(), Error> {
    let original = from.read(name)?;
    let mut copy = stage.create(new_name, 0o600)?;
    let size = original.metadata().map_err(failed("look at", name))?.len();
    io::copy(&mut original.take(size), &mut copy).map_err(failed("copy", name))?;
    finish(stage, &copy, new_name, owner)
}

/// Writes the plan's changes to [`LOG`] in the folder `stage`: one contiguous log from the base's version to the
/// plan's end, then the changes of our own that end a history ([`chunks`](super::chunks)); all ids raised by `jump`, every
/// line ended. Flushed, of `owner`, mode 0640. Without changes: empty.
///
/// For a jump the image must be staged.
pub(crate) fn write_log(
    folder: &Folder,
    plan: &Plan,
    stage: &Folder,
    owner: Owner,
    jump: EpochJump,
    cancel: &Cancel,
) -> Result<Written, Error> {
    check_jump(plan, jump)?;
    let next_chunk = if jump > EpochJump::NONE { next_chunk(stage)? } else { None };
    let name = OsStr::new(LOG);
    let file = stage.create(name, 0o600)?;
    let written = flushing(&file, name, |mut flush| {
        let wrote = move |bytes| flush.wrote(bytes);
        Blocks::write(&file, wrote, failed("write", name), |out| {
            write_changes(folder, plan, next_chunk, out, jump, cancel)
        })
    })?;
    finish(stage, &file, name, owner)?;
    Ok(written)
}

/// What a log is that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Written {
    /// The version that a master which has loaded the set answers with.
    pub(crate) served: Version,
    /// How many chunks are unlocked whose writers were cut off.
    pub(crate) unlocked: u64,
}

/// The id of the next new chunk in the staged image, where that tells it.
fn next_chunk(stage: &Folder) -> Result<Option<u64>, Error> {
    let name = OsStr::new(IMAGE);
    image::next_chunk(&mut stage.read(name)?).map_err(failed("read", name))
}

fn write_changes(
    folder: &Folder,
    plan: &Plan,
    next_chunk: Option<u64>,
    out: &mut Blocks,
    jump: EpochJump,
    cancel: &Cancel,
) -> Result<Written, Error> {
    let mut writer = Writer::after(plan.base_version, jump, Chunks::of_image(next_chunk, jump.count()));
    writer.copy(folder, plan, plan.end_version, out, cancel)?;
    // Tried from 3.0 on. 1.x is left as it is.
    if !format_2_0(plan) && plan.base != Base::New {
        return Ok(Written { served: plan.end_version + jump, unlocked: 0 });
    }
    writer.end(out)
}

/// Only a 2.0 header can be renumbered without touching the rest, and a new file system has to begin with change 1.
pub(crate) fn check_jump(plan: &Plan, jump: EpochJump) -> Result<(), Error> {
    let reachable = (plan.end_version + jump).0 < changelog::LIMIT;
    if jump == EpochJump::NONE || (format_2_0(plan) && reachable) { Ok(()) } else { Err(Error::Jump { jump }) }
}

fn format_2_0(plan: &Plan) -> bool {
    matches!(&plan.base, Base::Image { signature, .. } if signature == image::FORMAT_2_0)
}

fn copy(original: &mut File, source: &OsStr, staged: &File, cancel: &Cancel) -> Result<(), Error> {
    if rustix::fs::ioctl_ficlone(staged, &*original).is_ok() {
        return Ok(());
    }
    // As long as it is now: it may grow without end.
    let size = original.seek(SeekFrom::End(0)).map_err(failed("read", source))?;
    original.seek(SeekFrom::Start(0)).map_err(failed("read", source))?;
    let mut original = original.take(size);
    let name = OsStr::new(IMAGE);
    flushing(staged, name, |mut flush| {
        let (mut block, mut to) = (vec![0; BLOCK], staged);
        loop {
            cancel.check()?;
            let length = match original.read(&mut block) {
                Ok(0) => return Ok(()),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(failed("read", source)(error)),
            };
            to.write_all(&block[..length]).map_err(failed("write", name))?;
            flush.wrote(length as u64).map_err(failed("write", name))?;
        }
    })
}

/// Asks for a flush now and then, and waits for the one before: what is written is never much ahead of the disk, so that no
/// single flush takes long on a slow one. Looks whether there is room for more.
struct Flush<'a> {
    file: &'a File,
    wanted: mpsc::SyncSender<()>,
    /// Since the last flush.
    bytes: u64,
    /// Since the last look.
    unseen: u64,
}

impl Flush<'_> {
    fn wrote(&mut self, bytes: u64) -> io::Result<()> {
        self.bytes += bytes;
        self.unseen += bytes;
        if self.bytes >= BETWEEN_FLUSHES {
            self.bytes = 0;
            // Without a receiver a flush has failed; that is reported at the end.
            let _ = self.wanted.send(());
        }
        if self.unseen >= BETWEEN_LOOKS {
            self.unseen = 0;
            require_room(self.file)?;
        }
        Ok(())
    }
}

/// The metalogger writes beside the stage. Root could go on in blocks that it cannot use.
fn require_room(file: &File) -> io::Result<()> {
    let status = rustix::fs::fstatvfs(file)?;
    let free = status.f_bavail.saturating_mul(status.f_frsize);
    if free >= BETWEEN_LOOKS {
        return Ok(());
    }
    let why = format!("only {} are left on the disk for the daemons; make room there", bytes(free));
    Err(io::Error::new(io::ErrorKind::StorageFull, why))
}

/// Writes to `file` while earlier bytes are flushed: at the end, little is left to wait for.
fn flushing<T>(file: &File, name: &OsStr, write: impl FnOnce(Flush<'_>) -> Result<T, Error>) -> Result<T, Error> {
    std::thread::scope(|scope| {
        let (wanted, asked) = mpsc::sync_channel(1);
        let behind = scope.spawn(|| asked.into_iter().try_for_each(|()| file.sync_data()));
        let written = write(Flush { file, wanted, bytes: 0, unseen: 0 });
        // A panic ends the whole process (panic = "abort").
        let flushed = behind.join().unwrap();
        flushed.map_err(failed("flush", name)).and(written)
    })
}

/// Owner, mode and flush: file first, then the folder that names it.
fn finish(stage: &Folder, file: &File, name: &OsStr, owner: Owner) -> Result<(), Error> {
    stage.give(file, name, owner)?;
    let mode = rustix::fs::fchmod(file, Mode::from_raw_mode(MODE));
    mode.map_err(|e| failed("change the mode of", name)(e.into()))?;
    file.sync_all().map_err(failed("flush", name))?;
    Ok(stage.sync()?)
}

/// For `map_err`: copies the name only where there is an error, this is used for every line.
fn failed(operation: &'static str, file: &OsStr) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io { operation, file: file.to_owned(), source }
}

#[cfg(test)]
mod tests;
