//! The two ends of a change log, without reading all of it.
//!
//! Change logs of two days can be tens of gigabytes; only those that reach the best image are ever needed.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use super::changelog::{Lines, Segment, parse};

/// Enough for the last line of almost every log; where it is not, the log is read as a whole.
const TAIL: u64 = 16 * 1024;
/// `0: 0|A()` and a newline.
const SHORTEST_LINE: u64 = 9;

/// The stretch from the first to the last whole line, if both are good and can belong to one; leaves `file` at 0.
pub(super) fn peek(file: &mut File) -> io::Result<Option<Segment>> {
    let found = ends(file);
    file.seek(SeekFrom::Start(0))?;
    found
}

fn ends(file: &mut File) -> io::Result<Option<Segment>> {
    let size = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(size.saturating_sub(TAIL)))?;
    let mut tail = Vec::new();
    file.take(TAIL).read_to_end(&mut tail)?;
    let Some(end) = tail.iter().rposition(|b| *b == b'\n') else {
        return Ok(None);
    };
    let start = tail[..end].iter().rposition(|b| *b == b'\n').map_or(0, |before| before + 1);
    let Some(last) = parse(&tail[start..end]) else {
        return Ok(None);
    };
    file.seek(SeekFrom::Start(0))?;
    let mut lines = Lines::new(file, 0);
    let raw = lines.next()?;
    let Some(first) = raw.filter(|raw| raw.ended).and_then(|raw| parse(raw.text)) else {
        return Ok(None);
    };
    // Ids that step back, or more of them than the file has room for, are for the full scan to judge.
    let fits = last.id >= first.id && last.id - first.id < size / SHORTEST_LINE;
    Ok(fits.then_some(Segment {
        first: first.id,
        last: last.id,
        first_time: first.time,
        last_time: last.time,
        start: 0,
        end: size - tail.len() as u64 + end as u64 + 1,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::testing::{Data, lines};

    fn peeked(text: impl AsRef<[u8]>) -> Option<(u64, u64, u64)> {
        let data = Data::new().file("log", text);
        let found = peek(&mut File::open(data.path("log")).unwrap()).unwrap();
        found.map(|s| (s.first, s.last, s.end))
    }

    #[test]
    fn both_ends_or_none() {
        for (what, text, last) in [
            ("one line", lines(5..=5, 0), Some(5)),
            ("short", lines(5..=20, 0), Some(20)),
            ("longer than the tail", lines(5..=3000, 0), Some(3000)),
            ("empty", String::new(), None),
            ("no newline", "5: 17|A()".into(), None),
            ("bad first line", "\n".to_owned() + &lines(5..=9, 0), None),
            ("bad last line", lines(5..=9, 0) + "\n", None),
            ("step back", lines(5..=9, 0) + &lines(2..=3, 0), None),
            ("a hole too large", lines([5, 9999], 0), None),
        ] {
            let expected = last.map(|last| (5, last, text.len() as u64));
            assert_eq!(peeked(&text), expected, "{what}");
            let torn = peeked(text.clone() + "12: 17");
            assert_eq!(torn, expected, "{what}, torn");
        }
    }
}
