//! The client's log: one line per operation, written after its answer came. Shared by `workload` and the lab.
//!
//! `ok START END VERB NAME [NAME]` or `failed START END VERB NAME ERRNO`, times in nanoseconds of `CLOCK_MONOTONIC`.

use std::fmt;
use std::str::FromStr;

use crate::Error;
use crate::Result;
use crate::clock::Moment;

/// The log of the loop of metadata operations, in the log folder.
pub const METADATA_LOG: &str = "metadata.log";
/// The log of the loop of writes.
pub const WRITES_LOG: &str = "writes.log";
/// The folder of the metadata loop on the mounted file system.
pub const METADATA_FOLDER: &str = "names";
/// The folder of the loop of writes.
pub const WRITES_FOLDER: &str = "data";

/// What a client asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// A new folder.
    Mkdir(String),
    /// A new, empty file.
    Create(String),
    /// A new name for a file.
    Rename(String, String),
    /// A new file with [`content`], flushed with fsync.
    Write(String),
}

impl Op {
    /// The name that it makes, or that it takes away.
    pub fn name(&self) -> &str {
        match self {
            Self::Mkdir(name) | Self::Create(name) | Self::Rename(name, _) | Self::Write(name) => name,
        }
    }
}

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Before the first system call.
    pub start: Moment,
    /// After the last answer.
    pub end: Moment,
    /// The operation.
    pub op: Op,
    /// The error number, where it failed: then it is not acknowledged.
    pub errno: Option<i32>,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.errno.is_some() { "failed" } else { "ok" };
        write!(f, "{word} {} {} ", self.start.0, self.end.0)?;
        match &self.op {
            Op::Mkdir(name) => write!(f, "mkdir {name}")?,
            Op::Create(name) => write!(f, "create {name}")?,
            Op::Rename(from, to) => write!(f, "rename {from} {to}")?,
            Op::Write(name) => write!(f, "write {name}")?,
        }
        self.errno.map_or(Ok(()), |errno| write!(f, " {errno}"))
    }
}

impl FromStr for Line {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        parse(text).ok_or_else(|| Error::LogLine(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<Line> {
    let mut words = text.split(' ');
    let failed = match words.next()? {
        "ok" => false,
        "failed" => true,
        _ => return None,
    };
    let mut moment = || words.next()?.parse().ok().map(Moment);
    let (start, end) = (moment()?, moment()?);
    let verb = words.next()?;
    let mut name = || words.next().map(str::to_owned);
    let op = match verb {
        "mkdir" => Op::Mkdir(name()?),
        "create" => Op::Create(name()?),
        "rename" => Op::Rename(name()?, name()?),
        "write" => Op::Write(name()?),
        _ => return None,
    };
    let errno = if failed { Some(words.next()?.parse().ok()?) } else { None };
    Some(Line { start, end, op, errno })
}

/// The whole lines of a log; a last line without its end was not acknowledged.
pub fn parse_log(text: &str) -> Result<Vec<Line>> {
    text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).map(str::parse).collect()
}

/// What a file of this name must hold: 64 bytes to 8 KiB that follow from the name.
pub fn content(name: &str) -> Vec<u8> {
    // FNV-1a, then xorshift: short, and different for names that differ in one digit.
    let start = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    let mut state = start | 1;
    let blocks = 8 + start % 1016;
    (0..blocks)
        .flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_survive_writing_and_reading() {
        let op = Op::Rename("names/1/f1".into(), "names/1/g1".into());
        for errno in [None, Some(5)] {
            let line = Line { start: Moment(1), end: Moment(2), op: op.clone(), errno };
            assert_eq!(line.to_string().parse::<Line>().unwrap(), line);
        }
    }

    #[test]
    fn torn_last_line_is_not_acknowledged() {
        let log = parse_log("ok 1 2 write data/w1\nok 3 4 write da").unwrap();
        assert_eq!(log.len(), 1);
    }

    #[test]
    fn content_follows_from_the_name() {
        assert_eq!(content("w1"), content("w1"));
        assert_ne!(content("w1"), content("w2"));
        assert!((64..=8192).contains(&content("w3").len()));
    }
}
