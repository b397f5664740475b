//! Writing the changes of a plan, renumbered, one after the other.

use std::ffi::OsStr;
use std::io::{self, Seek, SeekFrom};

use super::blocks::Blocks;
use super::{Error, LINES_BETWEEN_CHECKS, LOG, Written, failed};
use crate::metadata::changelog::{self, Line, Lines};
use crate::metadata::chunks::Chunks;
use crate::metadata::plan::{Plan, Stretch};
use crate::metadata::{EpochJump, Version};
use crate::sys::cancel::Cancel;
use crate::sys::folder::Folder;

/// Where the lines go.
pub(super) trait Sink {
    /// Appends what is in `parts`.
    fn put(&mut self, parts: &[&[u8]]) -> io::Result<()>;
}

impl Sink for Blocks {
    fn put(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        self.append(parts)
    }
}

impl Sink for Vec<u8> {
    fn put(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        for part in parts {
            self.extend_from_slice(part);
        }
        Ok(())
    }
}

/// A place in a history, with all that matters for its end.
#[derive(Debug)]
pub(super) struct Writer {
    /// The change to write next, by its id before the jump.
    next: u64,
    jump: EpochJump,
    /// The id of the line being written, in digits: counted on, which is quicker than printing each.
    digits: Vec<u8>,
    chunks: Chunks,
}

impl Writer {
    /// Behind what an image of `version` holds.
    pub(super) fn after(version: Version, jump: EpochJump, chunks: Chunks) -> Self {
        Self { next: version.next_change(), jump, digits: (version + jump).to_string().into_bytes(), chunks }
    }

    /// The version that is reached, before the jump.
    pub(super) fn version(&self) -> Version {
        Version(self.next)
    }

    /// Writes the changes of `plan` from here to version `end`.
    pub(super) fn copy(
        &mut self,
        folder: &Folder,
        plan: &Plan,
        end: Version,
        out: &mut impl Sink,
        cancel: &Cancel,
    ) -> Result<(), Error> {
        for stretch in plan.stretches.iter().filter(|stretch| end.has(stretch.first)) {
            let last = stretch.last.min(end.last_change());
            if last < self.next {
                continue;
            }
            if stretch.first > self.next {
                let (expected, found) = (self.next, stretch.first);
                return Err(Error::NotContiguous { expected, found });
            }
            self.copy_stretch(folder, stretch, last, out, cancel)?;
        }
        if self.version() == end {
            return Ok(());
        }
        let (expected, found) = (self.next, end.next_change());
        Err(Error::NotContiguous { expected, found })
    }

    fn copy_stretch(
        &mut self,
        folder: &Folder,
        stretch: &Stretch,
        last: u64,
        out: &mut impl Sink,
        cancel: &Cancel,
    ) -> Result<(), Error> {
        let mut file = folder.read(&stretch.file)?;
        let size = file.seek(SeekFrom::End(0)).map_err(failed("read", &stretch.file))?;
        file.seek(SeekFrom::Start(stretch.offset)).map_err(failed("read", &stretch.file))?;
        let mut lines = Lines::new(io::Read::take(file, size.saturating_sub(stretch.offset)), stretch.offset);
        let (first, mut count) = (self.next, 0_u64);
        while self.next <= last {
            if count % LINES_BETWEEN_CHECKS == 0 {
                cancel.check()?;
            }
            count += 1;
            let raw = lines.next().map_err(failed("read", &stretch.file))?;
            let line = raw.filter(|raw| raw.ended).and_then(|raw| changelog::parse(raw.text));
            match line {
                Some(line) if line.id == self.next => self.add(&line, out)?,
                // Changes below the base, or that another log has given already.
                Some(line) if line.id < first => {}
                _ => {
                    let (file, change) = (stretch.file.clone(), self.next);
                    return Err(Error::LogChanged { file, change });
                }
            }
        }
        Ok(())
    }

    /// Writes the next change.
    pub(super) fn add(&mut self, line: &Line<'_>, out: &mut impl Sink) -> Result<(), Error> {
        self.chunks.see(line);
        self.write(line.change, out)
    }

    /// Writes the changes of our own that end a history.
    pub(super) fn end(&mut self, out: &mut impl Sink) -> Result<Written, Error> {
        let ending = self.chunks.ending();
        for change in &ending.changes {
            self.write(change.as_bytes(), out)?;
        }
        Ok(Written { served: self.version() + self.jump, unlocked: ending.unlocked })
    }

    fn write(&mut self, change: &[u8], out: &mut impl Sink) -> Result<(), Error> {
        let put = out.put(&[&self.digits, b": ", change, b"\n"]);
        put.map_err(failed("write", OsStr::new(LOG)))?;
        self.next += 1;
        count_on(&mut self.digits);
        Ok(())
    }
}

/// Adds one to a number in digits.
pub(super) fn count_on(digits: &mut Vec<u8>) {
    for digit in digits.iter_mut().rev() {
        if *digit < b'9' {
            *digit += 1;
            return;
        }
        *digit = b'0';
    }
    digits.insert(0, b'1');
}
