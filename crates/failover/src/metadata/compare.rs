//! Where two change logs hold the same ids: is it the same history?

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use super::changelog::{Lines, Segment, parse};
use crate::sys::folder::{self, Folder};

/// How much of two images is compared at a time.
const BLOCK: u64 = 256 * 1024;

/// One segment of one log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Side<'a> {
    pub(super) name: &'a OsStr,
    pub(super) segment: &'a Segment,
}

/// The result of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compared {
    /// The same changes, all of them.
    Same,
    /// The first id under which they differ.
    Different(u64),
    /// A side no longer holds what its scan found: the metalogger has rotated it.
    Unknown,
}

/// Compares the changes `from..=to`, which both sides hold, line by line.
pub(super) fn compare(folder: &Folder, a: Side<'_>, b: Side<'_>, from: u64, to: u64) -> io::Result<Compared> {
    if from > to {
        return Ok(Compared::Same);
    }
    let (Some(mut a), Some(mut b)) = (Changes::open(folder, a)?, Changes::open(folder, b)?) else {
        return Ok(Compared::Unknown);
    };
    for id in from..=to {
        let (Some(left), Some(right)) = (a.find(id)?, b.find(id)?) else {
            return Ok(Compared::Unknown);
        };
        if left != right {
            return Ok(Compared::Different(id));
        }
    }
    Ok(Compared::Same)
}

/// Whether two files hold the same bytes.
pub(super) fn same_content(folder: &Folder, a: &OsStr, b: &OsStr) -> Result<bool, folder::Error> {
    let failed = |source| folder::Error::Io { operation: "read", path: folder.path().join(a), source };
    let mut files = [folder.read(a)?, folder.read(b)?];
    let mut blocks = [Vec::new(), Vec::new()];
    loop {
        for (file, block) in files.iter_mut().zip(&mut blocks) {
            block.clear();
            file.take(BLOCK).read_to_end(block).map_err(failed)?;
        }
        match &blocks {
            [left, right] if left != right => return Ok(false),
            [left, _] if left.is_empty() => return Ok(true),
            _ => (),
        }
    }
}

struct Changes {
    lines: Lines<io::Take<File>>,
}

impl Changes {
    fn open(folder: &Folder, side: Side<'_>) -> io::Result<Option<Self>> {
        let mut file = match folder.read(side.name) {
            Ok(file) => file,
            Err(folder::Error::Io { source, .. }) if source.kind() != io::ErrorKind::NotFound => return Err(source),
            Err(_) => return Ok(None),
        };
        let (start, end) = (side.segment.start, side.segment.end);
        file.seek(SeekFrom::Start(start))?;
        Ok(Some(Self { lines: Lines::new(file.take(end.saturating_sub(start)), start) }))
    }

    /// Reads on to the change `id`.
    fn find(&mut self, id: u64) -> io::Result<Option<&[u8]>> {
        loop {
            // Parsed twice because a borrow cannot be returned out of a loop that goes on using the reader.
            let found = match self.lines.next()? {
                Some(raw) if raw.ended => parse(raw.text).map(|line| line.id),
                _ => None,
            };
            match found {
                Some(found) if found == id => return Ok(self.lines.last_change()),
                Some(found) if found < id => {}
                _ => return Ok(None),
            }
        }
    }
}
