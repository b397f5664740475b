//! Change logs: `VERSION: TIME|OP(arguments)[:result]\n`, versions contiguous, +1 each.
//!
//! Reads a log once, in constant memory, and says which stretches of it are good ([`Segment`]), what separates them
//! ([`Damage`]) and what a crash left at its end ([`Torn`]). Judges lines by their shape alone: arguments differ
//! between the generations. Names in them are %-escaped (`mfsmaster/changelog.c`), so no control byte and no
//! unbalanced parenthesis is ever right. This tells a torn line to which a restarted metalogger has
//! appended from a whole one.

mod line;

use std::fmt;
use std::io::{self, Read};
use std::ops::Range;

use memchr::memchr;

pub(crate) use line::{Line, parse};

/// The longest line that is taken, newline included, in bytes (2.0 to 4.59 write no longer ones).
pub(crate) const MAX_LINE: usize = 200_000;
/// The longest line of 1.x.
pub(crate) const MAX_LINE_1: u64 = 10_000;
/// Versions and change ids are below this, so that adding to them never overflows.
pub(crate) const LIMIT: u64 = 1 << 63;
/// A log with more breaks than this is not read to its end.
const MAX_SEGMENTS: usize = 64;
const BLOCK: usize = 256 * 1024;

/// A stretch of contiguous good lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Id of its first change.
    pub(crate) first: u64,
    /// Id of its last change.
    pub(crate) last: u64,
    /// Unix seconds of its first change.
    pub(crate) first_time: u64,
    /// Unix seconds of its last change.
    pub(crate) last_time: u64,
    /// Byte offset of its first line.
    pub(crate) start: u64,
    /// Byte offset behind its last line.
    pub(crate) end: u64,
}

/// What is wrong at one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Damage {
    /// Byte offset of the place.
    pub(crate) offset: u64,
    /// How many bytes cannot be used.
    pub(crate) bytes: u64,
    /// What it is.
    pub(crate) kind: Kind,
}

/// Kinds of [`Damage`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Lines that are no changes.
    Garbage,
    /// A torn line to which a restarted daemon has appended; the appended line is used.
    Glued,
    /// Ids jump forward: normal after a restart of the metalogger, as long as other logs have the missing changes.
    Hole {
        /// The id that should have come.
        expected: u64,
        /// The id that came.
        found: u64,
    },
    /// Ids step back: another history begins, or lines were written twice.
    StepBack {
        /// The id that should have come.
        expected: u64,
        /// The id that came.
        found: u64,
    },
    /// Behind the last change, something that is not one torn line: NULs, as a power cut leaves them, or more than a line can
    /// have. How many changes stood there is unknown.
    Tail,
    /// Too many breaks: not read on from here.
    GivenUp,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { offset, bytes, kind } = self;
        match kind {
            Kind::Garbage => write!(f, "{bytes} bytes of garbage at byte {offset}"),
            Kind::Glued => write!(f, "a torn line of {bytes} bytes at byte {offset}, with a whole line appended to it"),
            Kind::Hole { expected, found } => {
                write!(f, "change {found} instead of {expected} at byte {offset}")
            }
            Kind::StepBack { expected, found } => {
                write!(f, "a step back to change {found} instead of {expected} at byte {offset}")
            }
            Kind::Tail => write!(f, "{bytes} bytes at byte {offset}, behind the last change, are no change log"),
            Kind::GivenUp => write!(f, "too many breaks, not read beyond byte {offset}"),
        }
    }
}

/// A last line without its newline: left by a crash, and normal in a copy of a log that is being written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Torn {
    /// Byte offset behind the last newline.
    pub(crate) offset: u64,
    /// Its length in bytes.
    pub(crate) bytes: u64,
}

/// A `SETMETAID(id)` line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SetMetaid {
    /// Id of the change.
    pub(crate) change: u64,
    /// The file system's identity from there on.
    pub(crate) metaid: u64,
}

/// What one change log holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Scan {
    /// The good stretches, in file order.
    pub(crate) segments: Vec<Segment>,
    /// How many good lines there are.
    pub(crate) lines: u64,
    /// What separates the segments, or follows the last one, in file order.
    pub(crate) damage: Vec<Damage>,
    /// The torn last line.
    pub(crate) torn: Option<Torn>,
    /// The last `SETMETAID` seen.
    pub(crate) metaid: Option<SetMetaid>,
}

impl Scan {
    /// The lowest id in the log.
    pub(crate) fn first(&self) -> Option<u64> {
        self.segments.iter().map(|s| s.first).min()
    }

    /// The highest id in the log.
    pub(crate) fn last(&self) -> Option<u64> {
        self.segments.iter().map(|s| s.last).max()
    }

    /// Unix seconds of the last good line in file order.
    pub(crate) fn last_time(&self) -> Option<u64> {
        self.segments.last().map(|s| s.last_time)
    }
}

/// One line as it lies in the file.
pub(super) struct Raw<'a> {
    /// Byte offset of its first byte.
    pub(super) offset: u64,
    /// Its length in bytes, newline included.
    pub(super) bytes: u64,
    /// The line without its newline; empty if it is longer than [`MAX_LINE`].
    pub(super) text: &'a [u8],
    /// Whether its newline is there.
    pub(super) ended: bool,
}

/// The lines of a log, one at a time, in constant memory.
pub(super) struct Lines<R> {
    reader: R,
    /// The block that was read last; lines are borrowed from it.
    buffer: Vec<u8>,
    /// The part of `buffer` that is not given out yet.
    rest: Range<usize>,
    /// The line that was given out last, as a part of `buffer`.
    line: Range<usize>,
    /// Byte offset of `rest` in the file.
    offset: u64,
}

impl<R: Read> Lines<R> {
    /// Lines of `reader`, which stands at byte `offset` of its file.
    pub(super) fn new(reader: R, offset: u64) -> Self {
        Self { reader, buffer: vec![0; BLOCK.max(MAX_LINE)], rest: 0..0, line: 0..0, offset }
    }

    /// The next line; `None` at the end of the file.
    pub(super) fn next(&mut self) -> io::Result<Option<Raw<'_>>> {
        let (length, ended) = self.find_end()?;
        if length == 0 {
            return Ok(None);
        }
        self.line = self.rest.start..self.rest.start + length - usize::from(ended);
        self.rest.start += length;
        let (mut bytes, mut ended) = (length as u64, ended);
        if !ended && length == MAX_LINE {
            self.line = 0..0;
            ended = self.skip_line(&mut bytes)?;
        }
        let offset = self.offset;
        self.offset += bytes;
        Ok(Some(Raw { offset, bytes, text: &self.buffer[self.line.clone()], ended }))
    }

    /// The change in the line that [`Self::next`] gave last.
    pub(super) fn last_change(&self) -> Option<&[u8]> {
        parse(&self.buffer[self.line.clone()]).map(|line| line.change)
    }

    /// How long the next line is, newline included, up to [`MAX_LINE`], and whether its newline is there.
    fn find_end(&mut self) -> io::Result<(usize, bool)> {
        let mut searched = 0;
        loop {
            let rest = &self.buffer[self.rest.clone()];
            if let Some(found) = memchr(b'\n', &rest[searched..]) {
                // A newline beyond the limit may lie in the buffer, too.
                let length = searched + found + 1;
                return Ok(if length > MAX_LINE { (MAX_LINE, false) } else { (length, true) });
            }
            searched = rest.len();
            if searched >= MAX_LINE || !self.fill()? {
                return Ok((searched.min(MAX_LINE), false));
            }
        }
    }

    /// Reads more; false at the end of the file.
    fn fill(&mut self) -> io::Result<bool> {
        self.buffer.copy_within(self.rest.clone(), 0);
        self.rest = 0..self.rest.len();
        loop {
            match self.reader.read(&mut self.buffer[self.rest.end..]) {
                Ok(read) => {
                    self.rest.end += read;
                    return Ok(read > 0);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => (),
                Err(e) => return Err(e),
            }
        }
    }

    /// Passes over the rest of an overlong line and counts its bytes; says whether it has an end.
    fn skip_line(&mut self, bytes: &mut u64) -> io::Result<bool> {
        loop {
            let rest = &self.buffer[self.rest.clone()];
            let end = memchr(b'\n', rest);
            let length = end.map_or(rest.len(), |end| end + 1);
            self.rest.start += length;
            *bytes += length as u64;
            if end.is_some() || !self.fill()? {
                return Ok(end.is_some());
            }
        }
    }
}

/// Reads a whole log.
///
/// # Errors
/// Only if reading fails; wrong content is [`Damage`].
pub(crate) fn scan(reader: impl Read) -> io::Result<Scan> {
    let mut lines = Lines::new(reader, 0);
    let mut scanner = Scanner::default();
    while let Some(raw) = lines.next()? {
        if !raw.ended && !is_more_than_a_line(&raw) {
            scanner.scan.torn = Some(Torn { offset: raw.offset, bytes: raw.bytes });
        } else if let Some(line) = parse(raw.text) {
            if !scanner.accept(&raw, &line) {
                break;
            }
        } else {
            scanner.reject(&raw);
        }
    }
    Ok(scanner.finish())
}

/// Whether this cannot be the beginning of one line that was not written to its end.
fn is_more_than_a_line(raw: &Raw<'_>) -> bool {
    let control = |byte: &u8| *byte == 0 || (!raw.ended && byte.is_ascii_control());
    (raw.text.is_empty() && raw.bytes > 1) || raw.text.iter().any(control)
}

#[derive(Default)]
struct Scanner {
    scan: Scan,
    /// Bad lines since the last good one, and the text of the last of them.
    bad: Option<(Damage, Vec<u8>)>,
}

impl Scanner {
    fn reject(&mut self, raw: &Raw<'_>) {
        let (damage, text) = self.bad.get_or_insert_with(|| {
            let damage = Damage { offset: raw.offset, bytes: 0, kind: Kind::Garbage };
            (damage, Vec::new())
        });
        damage.bytes += raw.bytes;
        if is_more_than_a_line(raw) {
            damage.kind = Kind::Tail;
        }
        text.clear();
        text.extend_from_slice(raw.text);
    }

    /// Takes a good line in; false if there are too many breaks to go on.
    fn accept(&mut self, raw: &Raw<'_>, line: &Line<'_>) -> bool {
        let end = raw.offset + raw.bytes;
        if self.bad.is_none() {
            if let Some(segment) = self.scan.segments.last_mut().filter(|s| s.last + 1 == line.id) {
                segment.last = line.id;
                segment.last_time = line.time;
                segment.end = end;
                self.count(line);
                return true;
            }
        }
        if self.scan.segments.len() == MAX_SEGMENTS {
            self.scan.damage.push(Damage { offset: raw.offset, bytes: 0, kind: Kind::GivenUp });
            return false;
        }
        let glued = self.note_break(raw.offset, line.id);
        let mut segment = Segment {
            first: line.id,
            last: line.id,
            first_time: line.time,
            last_time: line.time,
            start: raw.offset,
            end,
        };
        if let Some((id, time, start)) = glued {
            segment.first = id;
            segment.first_time = time;
            segment.start = start;
            self.scan.lines += 1;
        }
        self.scan.segments.push(segment);
        self.count(line);
        true
    }

    /// Records why a new segment begins at `offset` with `id`. If the bad line before it ends in the whole line
    /// `id - 1`, that one's id, time and offset: a daemon has appended to a torn line.
    fn note_break(&mut self, offset: u64, id: u64) -> Option<(u64, u64, u64)> {
        if let Some((mut damage, text)) = self.bad.take() {
            let glued = glued(&text, id);
            // The next change says how many are missing.
            damage.kind = Kind::Garbage;
            if let Some((_, _, length)) = glued {
                damage.kind = Kind::Glued;
                damage.bytes -= length;
            }
            self.scan.damage.push(damage);
            return glued.map(|(id, time, length)| (id, time, offset - length));
        }
        let previous = *self.scan.segments.last()?;
        if let Some(damage) = torn_id(&previous, id) {
            // Not a change of its own: the id's first digits are all that is left of a torn line.
            self.scan.segments.pop();
            self.scan.lines -= 1;
            if matches!(self.scan.damage.last(), Some(d) if d.offset == previous.start) {
                self.scan.damage.pop();
            }
            self.scan.damage.push(damage);
            return Some((id - 1, previous.first_time, damage.offset + damage.bytes));
        }
        let (expected, found) = (previous.last + 1, id);
        let kind = if found > expected { Kind::Hole { expected, found } } else { Kind::StepBack { expected, found } };
        self.scan.damage.push(Damage { offset, bytes: 0, kind });
        None
    }

    fn count(&mut self, line: &Line<'_>) {
        self.scan.lines += 1;
        if let Some(id) = line.operation.strip_prefix(b"SETMETAID(") {
            self.scan.metaid = metaid(id).map(|metaid| SetMetaid { change: line.id, metaid });
        }
    }

    fn finish(mut self) -> Scan {
        let Some((mut damage, text)) = self.bad.take() else {
            return self.scan;
        };
        // Nothing follows that says which change a line appended to a torn one is, and digits in front of its id may
        // be the torn line's or its own: it has to be the next change, and the torn line the beginning of the same.
        let appended = self.scan.segments.last().and_then(|s| glued(&text, s.last + 2)).filter(|(_, _, length)| {
            let (torn, line) = text.split_at(text.len() + 1 - usize::try_from(*length).unwrap_or(0));
            line.starts_with(torn)
        });
        if let Some((id, time, length)) = appended {
            let end = damage.offset + damage.bytes;
            let segment = Segment { first: id, last: id, first_time: time, last_time: time, start: end - length, end };
            self.scan.segments.push(segment);
            self.scan.lines += 1;
            damage.kind = Kind::Glued;
            damage.bytes -= length;
        }
        self.scan.damage.push(damage);
        self.scan
    }
}

/// The id before `)`; unlike a version it may use all 64 bits.
fn metaid(text: &[u8]) -> Option<u64> {
    let end = text.iter().position(|b| *b == b')')?;
    std::str::from_utf8(&text[..end]).ok()?.parse().ok()
}

/// Whether the single line before the change `next` is change `next - 1` behind the first digits of a torn line's id.
fn torn_id(line: &Segment, next: u64) -> Option<Damage> {
    let (written, real) = (line.first.to_string(), next.checked_sub(1)?.to_string());
    let torn = written.strip_suffix(&real).filter(|torn| !torn.is_empty())?;
    (line.first == line.last).then_some(Damage { offset: line.start, bytes: torn.len() as u64, kind: Kind::Glued })
}

/// Whether `text` ends in the whole line of change `next - 1`: its id, its time, its length with the newline.
fn glued(text: &[u8], next: u64) -> Option<(u64, u64, u64)> {
    let id = next.checked_sub(1)?;
    let start = format!("{id}: ");
    let at = text.windows(start.len()).rposition(|w| w == start.as_bytes())?;
    let line = parse(&text[at..])?;
    Some((id, line.time, (text.len() - at) as u64 + 1))
}

#[cfg(test)]
mod tests;
