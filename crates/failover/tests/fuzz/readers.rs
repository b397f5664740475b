//! The three readers, each fed with damaged real files: images, change logs, configuration files.

use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};

use failover::machine::config::{self, Config};
use failover::metadata::changelog::{self, LIMIT, Scan};
use failover::metadata::{Image, image};

use crate::mutate::{Rng, mutate};

const OURS: &str = "# ours\nPREFIX_LENGTH = 24\nSETTLE_MARGIN = 0.5\nEPOCH_JUMP = 1000000\nSERVICE_MANAGER = own\n\
    MASTER_SERVICE = moosefs-master\nSTART_TIMEOUT = 60\nSTOP_TIMEOUT = 1e3\nARCHIVE_FORMAT = tlz\nARCHIVE_LEVEL = 9\n";
const MASTER: &str = "WORKING_USER = mfs\nWORKING_GROUP = mfs\nDATA_PATH = /var/lib/mfs\n# MATOCL_LISTEN_PORT = 1\n\
    MATOCL_LISTEN_HOST = *\nMATOCL_LISTEN_PORT = 9421\n";
const METALOGGER: &str = "DATA_PATH = /var/lib/mfs\nBACK_LOGS = 50\n";

/// The real files, and a folder for the configuration.
pub(crate) struct Readers {
    images: Vec<Vec<u8>>,
    logs: Vec<Vec<u8>>,
    paths: [PathBuf; 3],
}

impl Readers {
    pub(crate) fn new(dir: &Path) -> Self {
        let (mut images, mut logs) = (Vec::new(), Vec::new());
        for set in crate::testdata().read_dir().unwrap() {
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
        let paths = ["ours.cfg", "master.cfg", "metalogger.cfg"].map(|name| dir.join(name));
        Self { images, logs, paths }
    }

    pub(crate) fn execute(&self, rng: &mut Rng, number: u64) {
        match number % 4 {
            0 => check_image(&damaged(rng, &self.images)),
            1 | 2 => {
                let (from, other) = (rng.pick(&self.logs), rng.pick(&self.logs));
                let mut bytes = part(rng, from);
                mutate(rng, &mut bytes, other);
                check_log(&bytes, rng);
            }
            _ => self.config(rng),
        }
    }

    fn config(&self, rng: &mut Rng) {
        let [ours, master, metalogger] = &self.paths;
        let places = format!("MASTER_CFG = {}\nMETALOGGER_CFG = {}\n", master.display(), metalogger.display());
        let which = rng.below(3);
        for (index, (path, text)) in [(ours, OURS), (master, MASTER), (metalogger, METALOGGER)].into_iter().enumerate()
        {
            let mut bytes = text.as_bytes().to_vec();
            if index == which || rng.below(4) == 0 {
                mutate(rng, &mut bytes, MASTER.as_bytes());
            }
            if index == 0 {
                // Never damaged, and last: a changed path could name any file of this machine.
                bytes.push(b'\n');
                bytes.extend(places.as_bytes());
            }
            std::fs::write(path, bytes).unwrap();
        }
        check_config(Config::load(ours));
    }
}

fn damaged(rng: &mut Rng, from: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = rng.pick(from).clone();
    let other = rng.pick(from);
    mutate(rng, &mut bytes, other);
    bytes
}

/// A few kilobytes of whole lines of a log: what is quick to read is read often.
fn part(rng: &mut Rng, log: &[u8]) -> Vec<u8> {
    let after = |at: usize| log[at..].iter().position(|b| *b == b'\n').map_or(log.len(), |found| at + found + 1);
    let start = if rng.below(2) == 0 { 0 } else { after(rng.below(log.len() + 1)) };
    let end = after((start + rng.below(4000)).min(log.len()));
    log[start..end].to_vec()
}

fn check_image(bytes: &[u8]) {
    let image = image::read(&mut Cursor::new(bytes)).expect("memory can be read");
    assert!(!image.to_string().contains(char::is_control), "{image}");
    match image {
        Image::New => assert_eq!(bytes, image::NEW),
        Image::Complete { signature, version, metaid } => {
            assert!(bytes.len() >= 40 && bytes[..8] == signature && version < LIMIT);
            if &signature == image::FORMAT_2_0 {
                assert_eq!(bytes[8..16], version.to_be_bytes());
                assert_eq!(bytes[16..24], metaid.to_be_bytes());
            }
        }
        Image::Incomplete { .. } => {}
    }
}

fn check_log(bytes: &[u8], rng: &mut Rng) {
    let scan = changelog::scan(bytes).expect("memory can be read");
    check_scan(&scan, bytes);
    if rng.below(16) == 0 {
        // However the bytes come in, the result is the same.
        let slow = Slow { bytes, step: 1 + rng.below(7) };
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

fn check_config(loaded: Result<Config, config::Error>) {
    match loaded {
        Ok(config) => {
            assert!(config.data_path.is_absolute() && config.archive_level <= 9);
            assert!(config.prefix_length.is_none_or(|length| (1..=32).contains(&length)));
            assert!(config::KEYS.iter().all(|key| config.in_force.iter().any(|setting| setting.key == *key)));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
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
pub(crate) fn endless_inputs() {
    const SIZE: u64 = 2 * crate::MOST_MEMORY;
    for byte in [0, b'9', b'('] {
        let scan = changelog::scan(io::repeat(byte).take(SIZE)).unwrap();
        assert_eq!(scan.torn.map(|torn| torn.bytes), Some(SIZE));
    }
    let head = b"1: 2|A(".as_slice();
    let tail = b")\n1: 2|A()\n".as_slice();
    let scan = changelog::scan(head.chain(io::repeat(b'x').take(SIZE)).chain(tail)).unwrap();
    assert_eq!((scan.lines, scan.damage.len()), (1, 1));
    let scan = changelog::scan(io::repeat(b'\n').take(1 << 20)).unwrap();
    assert_eq!((scan.lines, scan.damage.len()), (0, 1));
    let peak = crate::peak_memory();
    assert!(peak < crate::MOST_MEMORY, "{peak} bytes of memory");
}
