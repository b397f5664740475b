//! The ways in which files break.

use fastrand::Rng;

/// One of them.
pub(super) fn pick<'a, T>(rng: &mut Rng, from: &'a [T]) -> &'a T {
    &from[rng.usize(..from.len())]
}

/// A range of at most `longest` inside `length`.
fn range(rng: &mut Rng, length: usize, longest: usize) -> std::ops::Range<usize> {
    let start = rng.usize(..=length);
    start..(start + rng.usize(..=longest)).min(length)
}

/// Numbers at which counters, offsets and additions go wrong.
const HUGE: &[u64] = &[0, 1, u64::MAX, u64::MAX - 1, 1 << 63, (1 << 63) - 1, (1 << 63) - 2, 1 << 32, (1 << 32) - 1];
const HUGE_TEXT: &[&str] = &[
    "0",
    "00",
    "-1",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "99999999999999999999999999",
    "1e308",
    "nan",
];
/// What the formats give a meaning to.
const WORDS: &[&str] =
    &["\n", ": ", "|", "(", ")", ":", "=", "#", "SETMETAID(", "MFSM 2.0", "MFSM NEW", "\r\n", "\u{e9}"];

/// Breaks `bytes` in one to four places; `other` is spliced in.
pub(super) fn damage(rng: &mut Rng, bytes: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..=rng.usize(..4) {
        once(rng, bytes, other);
    }
}

fn once(rng: &mut Rng, bytes: &mut Vec<u8>, other: &[u8]) {
    let length = bytes.len();
    let at = rng.usize(..=length);
    match rng.usize(..12) {
        0 | 1 if length > 0 => bytes[at.min(length - 1)] ^= 1 << rng.usize(..8),
        2 => bytes.truncate(at),
        3 => drop(bytes.drain(range(rng, length, 200))),
        4 => repeat(bytes, at, range(rng, length, 400)),
        5 => insert(bytes, at, &other[range(rng, other.len(), 400)]),
        6 => {
            let nuls = vec![0; rng.usize(..5000)];
            insert(bytes, at, &nuls);
        }
        7 => {
            let range = range(rng, length, 300);
            bytes[range].fill(0);
        }
        8 if at + 8 <= length => bytes[at..at + 8].copy_from_slice(&pick(rng, HUGE).to_be_bytes()),
        9 => number(rng, bytes, at),
        10 => insert(bytes, at, pick(rng, WORDS).as_bytes()),
        11 => lines(rng, bytes, at),
        _ => {}
    }
}

fn insert(bytes: &mut Vec<u8>, at: usize, what: &[u8]) {
    bytes.splice(at..at, what.iter().copied());
}

fn repeat(bytes: &mut Vec<u8>, at: usize, range: std::ops::Range<usize>) {
    let copy = bytes[range].to_vec();
    insert(bytes, at, &copy);
}

/// Replaces the first number at or behind `at` by another one.
fn number(rng: &mut Rng, bytes: &mut Vec<u8>, at: usize) {
    let Some(start) = bytes[at..].iter().position(u8::is_ascii_digit).map(|found| at + found) else {
        return;
    };
    let digits = bytes[start..].iter().take_while(|b| b.is_ascii_digit()).count();
    let near = std::str::from_utf8(&bytes[start..start + digits]).ok().and_then(|n| n.parse::<u64>().ok());
    let new = match near {
        Some(near) if rng.bool() => near.wrapping_add(rng.usize(..20) as u64).wrapping_sub(10).to_string(),
        _ => (*pick(rng, HUGE_TEXT)).to_owned(),
    };
    bytes.splice(start..start + digits, new.into_bytes());
}

/// Drops, repeats or ends a stretch of whole lines around `at`, as rotations and restarts do.
fn lines(rng: &mut Rng, bytes: &mut Vec<u8>, at: usize) {
    let start = bytes[..at].iter().rposition(|b| *b == b'\n').map_or(0, |found| found + 1);
    let count = rng.usize(..8);
    let ends = bytes[start..].iter().enumerate().filter(|(_, b)| **b == b'\n');
    let end = ends.map(|(found, _)| start + found + 1).nth(count).unwrap_or(bytes.len());
    match rng.usize(..3) {
        0 => drop(bytes.drain(start..end)),
        1 => repeat(bytes, start, start..end),
        _ => bytes.truncate(end),
    }
}
