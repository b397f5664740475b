//! Advertisements that were heard before.
//!
//! ucarp takes a recorded advertisement for a new one: the number in it is signed and never looked at. We look: a number that
//! was heard from a machine before counts for nothing. A ucarp that has heard no other one draws a random number for each
//! advertisement; one that has heard another counts on from that one's. So all numbers of the last hour are kept. They
//! outlive a run: in a file of the instance, written once in a second at most.
//!
//! A ucarp that counts on from a lower number than its own repeats itself for a while, and then its advertisements count for
//! nothing. The machine is heard by its heartbeats then, and asked for its master.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::sys::folder::Folder;
use crate::sys::json_file;
use crate::sys::logging::chain;

const FILE: &str = "heard.json";
/// The most numbers of a machine, an hour's, and the most machines.
const MOST: usize = 4096;
const MOST_MACHINES: usize = 16;
const WRITE_EVERY: Duration = Duration::from_secs(1);

/// The numbers of each machine, the latest last.
type Numbers = BTreeMap<Ipv4Addr, VecDeque<u64>>;

/// What was heard so far.
#[derive(Debug, Default)]
pub(super) struct Heard {
    numbers: Numbers,
    /// `None`: it is forgotten with this value.
    folder: Option<Folder>,
    written: Option<Instant>,
}

impl Heard {
    /// What earlier runs have heard, from the folder at `path`. To be called before the socket is opened: what arrives from
    /// then on is new.
    pub(super) fn load(path: &Path) -> Self {
        if !path.exists() {
            return Self::default();
        }
        let folder = Folder::open(path).inspect_err(|e| log::debug!("{}", chain(e))).ok();
        let numbers = folder.as_ref().and_then(read).unwrap_or_default();
        Self { numbers, folder, written: None }
    }

    /// Whether this number of a machine is new; notes it.
    pub(super) fn is_new(&mut self, source: Ipv4Addr, number: u64) -> bool {
        let new = note(&mut self.numbers, source, number);
        if new && self.written.is_none_or(|last| last.elapsed() >= WRITE_EVERY) {
            self.write();
        }
        new
    }

    fn write(&mut self) {
        let Some(folder) = &self.folder else { return };
        // Another listener of this machine may have heard more.
        for (source, heard) in read(folder).unwrap_or_default() {
            for number in heard {
                note(&mut self.numbers, source, number);
            }
        }
        if let Err(e) = json_file::write(folder, OsStr::new(FILE), &self.numbers) {
            log::debug!("{}", chain(&e));
        }
        self.written = Some(Instant::now());
    }
}

fn read(folder: &Folder) -> Option<Numbers> {
    json_file::read(folder, OsStr::new(FILE)).inspect_err(|e| log::debug!("{}", chain(e))).ok().flatten()
}

fn note(numbers: &mut Numbers, source: Ipv4Addr, number: u64) -> bool {
    if !numbers.contains_key(&source) && numbers.len() >= MOST_MACHINES {
        numbers.pop_first();
    }
    let heard = numbers.entry(source).or_default();
    let new = !heard.contains(&number);
    if new {
        heard.push_back(number);
        heard.drain(..heard.len().saturating_sub(MOST));
    }
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    const M1: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const M2: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

    #[test]
    fn what_was_heard_before_is_not_new_whoever_sends_it_again() {
        let mut heard = Heard::default();
        for number in [7, 0x0123_4567_89ab_cdef, 8] {
            assert!(heard.is_new(M1, number) && !heard.is_new(M1, number));
        }
        assert!(!heard.is_new(M1, 7));
        assert!(heard.is_new(M2, 7), "every machine has its own");
    }

    #[test]
    fn it_is_known_to_the_next_run() {
        let dir = tempfile::tempdir().unwrap();
        let open = || {
            let folder = Folder::open(dir.path()).unwrap();
            Heard { numbers: read(&folder).unwrap_or_default(), folder: Some(folder), written: None }
        };
        let (mut first, mut second) = (open(), open());
        assert!(first.is_new(M1, 100) && second.is_new(M2, 7));
        let mut next = open();
        assert!(!next.is_new(M1, 100) && !next.is_new(M2, 7) && next.is_new(M1, 101));
        std::fs::write(dir.path().join(FILE), "{").unwrap();
        assert!(open().is_new(M1, 1), "a damaged file is nothing");
    }

    #[test]
    fn a_flood_of_machines_and_numbers_stays_small() {
        let mut heard = Heard::default();
        for number in 0..10_000_u32 {
            assert!(heard.is_new(M2, number.into()));
            heard.is_new((number % 100).into(), 1);
        }
        assert!(heard.numbers.len() <= MOST_MACHINES && heard.numbers.values().all(|heard| heard.len() <= MOST));
    }
}
