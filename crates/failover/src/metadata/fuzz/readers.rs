//! The two readers, each given damaged real files: images and change logs.

use std::io::{self, Cursor, Read};

use fastrand::Rng;

use super::damage::{damage, pick};
use crate::metadata::changelog::{self, LIMIT, Scan};
use crate::metadata::{Image, image};

/// The real files.
pub(super) struct Readers {
    images: Vec<Vec<u8>>,
    logs: Vec<Vec<u8>>,
}

impl Readers {
    pub(super) fn new() -> Self {
        let (mut images, mut logs) = (Vec::new(), Vec::new());
        for set in super::testdata().read_dir().unwrap() {
            for file in set.unwrap().path().read_dir().unwrap() {
                let file = file.unwrap();
                let bytes = std::fs::read(file.path()).unwrap();
                let image = file.file_name().to_string_lossy().starts_with("metadata");
                if image { &mut images } else { &mut logs }.push(bytes);
            }
        }
        // The order of a folder is not the same everywhere, and an execution must be.
        images.sort();
        logs.sort();
        Self { images, logs }
    }

    pub(super) fn execute(&self, rng: &mut Rng, number: u64) {
        if number % 3 == 0 {
            check_image(&damaged(rng, &self.images));
        } else {
            let (from, other) = (pick(rng, &self.logs), pick(rng, &self.logs));
            let mut bytes = part(rng, from);
            damage(rng, &mut bytes, other);
            check_log(&bytes, rng);
        }
    }
}

fn damaged(rng: &mut Rng, from: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = pick(rng, from).clone();
    let other = pick(rng, from);
    damage(rng, &mut bytes, other);
    bytes
}

/// A few kilobytes of whole lines of a log: what is quick to read is read often.
fn part(rng: &mut Rng, log: &[u8]) -> Vec<u8> {
    let after = |at: usize| log[at..].iter().position(|b| *b == b'\n').map_or(log.len(), |found| at + found + 1);
    let start = if rng.bool() { 0 } else { after(rng.usize(..=log.len())) };
    let end = after((start + rng.usize(..4000)).min(log.len()));
    log[start..end].to_vec()
}

fn check_image(bytes: &[u8]) {
    let image = image::read(&mut Cursor::new(bytes)).expect("memory can be read");
    assert!(!image.to_string().contains(char::is_control), "{image}");
    match image {
        Image::New => assert_eq!(bytes, image::NEW),
        Image::Complete { signature, version, metaid } => {
            assert!(bytes.len() >= 40 && bytes[..8] == signature && version.0 < LIMIT);
            if &signature == image::FORMAT_2_0 {
                assert_eq!(bytes[8..16], version.0.to_be_bytes());
                assert_eq!(bytes[16..24], metaid.to_be_bytes());
            }
        }
        Image::Incomplete { .. } => {}
    }
}

fn check_log(bytes: &[u8], rng: &mut Rng) {
    let scan = changelog::scan(bytes).expect("memory can be read");
    check_scan(&scan, bytes);
    if rng.usize(..16) == 0 {
        // However the bytes come in, the result is the same.
        let slow = Slow { bytes, step: 1 + rng.usize(..7) };
        assert_eq!(changelog::scan(slow).unwrap(), scan);
    }
}

fn check_scan(scan: &Scan, bytes: &[u8]) {
    let mut behind = 0;
    let mut lines = 0;
    for segment in &scan.segments {
        assert!(behind <= segment.start && segment.start < segment.end, "{segment:?}");
        assert!(segment.end <= bytes.len() as u64 && segment.first <= segment.last && segment.last < LIMIT);
        let range = usize::try_from(segment.start).unwrap()..usize::try_from(segment.end).unwrap();
        let text = bytes[range].strip_suffix(b"\n").expect("a segment ends with a line");
        let mut next = segment.first;
        for line in text.split(|b| *b == b'\n') {
            assert_eq!(changelog::parse(line).expect("a good line").id, next, "{segment:?}");
            next += 1;
        }
        assert_eq!(next, segment.last + 1);
        behind = segment.end;
        lines += segment.last - segment.first + 1;
    }
    assert_eq!(lines, scan.lines);
    assert!(scan.damage.iter().all(|d| d.offset + d.bytes <= bytes.len() as u64), "{:?}", scan.damage);
    assert!(scan.damage.is_sorted_by_key(|d| d.offset), "{:?}", scan.damage);
    if let Some(torn) = scan.torn {
        let offset = usize::try_from(torn.offset).unwrap();
        assert_eq!(torn.offset + torn.bytes, bytes.len() as u64);
        assert!(!bytes[offset..].contains(&b'\n') && torn.bytes > 0);
    }
}

/// Gives a few bytes at a time.
struct Slow<'a> {
    bytes: &'a [u8],
    step: usize,
}

impl Read for Slow<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let step = self.step.min(into.len());
        self.bytes.read(&mut into[..step])
    }
}

/// Logs larger than the memory that may be used: one line without end, no line at all, lines that are none.
pub(super) fn endless_inputs() {
    const SIZE: u64 = 2 * super::MOST_MEMORY;
    for byte in [0, b'9', b'('] {
        let scan = changelog::scan(io::repeat(byte).take(SIZE)).unwrap();
        assert_eq!(scan.damage.iter().map(|damage| damage.bytes).collect::<Vec<_>>(), [SIZE]);
    }
    let head = b"1: 2|A(".as_slice();
    let tail = b")\n1: 2|A()\n".as_slice();
    let scan = changelog::scan(head.chain(io::repeat(b'x').take(SIZE)).chain(tail)).unwrap();
    assert_eq!((scan.lines, scan.damage.len()), (1, 1));
    let scan = changelog::scan(io::repeat(b'\n').take(1 << 20)).unwrap();
    assert_eq!((scan.lines, scan.damage.len()), (0, 1));
    let peak = super::peak_memory();
    assert!(peak < super::MOST_MEMORY, "{peak} bytes of memory");
}
