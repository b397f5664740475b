//! Histories: the real changes of a real 3.0.117 master, and branches of them that the same master can replay.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use super::master::{Master, Set};

/// Version of the real image in `testdata`: the changes from this one on are in no image yet.
pub(super) const BASE: u64 = 67;
/// Its metaid.
pub(super) const METAID: u64 = 0x6b03_6efa_c9f9_df1c;

/// The real image.
const IMAGE: &[u8] = include_bytes!("../../../testdata/3.0.117-master/metadata.mfs.back");
/// Everything its master wrote, from change 1 on.
const CHANGES: &str = include_str!("../../../testdata/3.0.117-glued-ml/changelog_ml_back.0.mfs");
/// The first change that only makes a folder; so do the 700 behind it.
const FIRST_FREE: u64 = 68;

/// All changes of one file system from change 1 on.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct History {
    /// `TIME|OP(arguments)[:result]`, by id - 1.
    changes: Vec<String>,
}

impl History {
    /// What really happened, up to `version`.
    pub(super) fn real(version: u64) -> Self {
        let changes = CHANGES.lines().map(|line| line.split_once(": ").expect("an id").1.to_owned());
        Self { changes: changes.take(index(version)).collect() }
    }

    /// This history up to change `at`, then another one up to `version`: the same operations with other names, made
    /// `seconds` later.
    pub(super) fn branch(&self, at: u64, name: &str, seconds: u64, version: u64) -> Self {
        assert!(at >= FIRST_FREE);
        let mut branch = Self::real(version);
        branch.changes[..index(at)].clone_from_slice(&self.changes[..index(at)]);
        for (change, id) in branch.changes[index(at)..].iter_mut().zip(at..) {
            let (time, operation) = change.split_once('|').expect("a time");
            let time: u64 = time.parse().expect("a time");
            let old = name_in(operation).expect("a change that makes a folder");
            *change = format!("{}|{}", time + seconds, operation.replace(old, &format!("{name}{id}")));
        }
        branch
    }

    /// This history and one change more.
    pub(super) fn then(mut self, operation: &str) -> Self {
        let (time, _) = self.changes.last().expect("a change").split_once('|').expect("a time");
        self.changes.push(format!("{time}|{operation}"));
        self
    }

    /// One behind the last change.
    pub(super) fn version(&self) -> u64 {
        self.changes.len() as u64 + 1
    }

    /// Unix seconds of the last change.
    pub(super) fn end_time(&self) -> u64 {
        let (time, _) = self.changes.last().expect("a change").split_once('|').expect("a time");
        time.parse().expect("a time")
    }

    /// The change log of some of it.
    pub(super) fn log(&self, ids: Range<u64>) -> String {
        self.numbered(ids, 0)
    }

    /// The same with all ids raised, as a promotion does.
    pub(super) fn numbered(&self, ids: Range<u64>, raised: u64) -> String {
        ids.fold(String::new(), |log, id| log + &format!("{}: {}\n", id + raised, self.changes[index(id)]))
    }

    /// One line, with its newline.
    pub(super) fn line(&self, id: u64) -> String {
        self.log(id..id + 1)
    }

    /// The name of the folder that a change makes.
    pub(super) fn name(&self, id: u64) -> Option<&str> {
        let (_, operation) = self.changes[index(id)].split_once('|')?;
        name_in(operation)
    }

    /// The names of all folders it makes.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        (1..self.version()).filter_map(|id| self.name(id))
    }

    /// The image a master of this history has at `version`; the real master makes it, once.
    pub(super) fn image(&self, version: u64) -> Vec<u8> {
        type Made = HashMap<(History, u64), Arc<Mutex<Option<Vec<u8>>>>>;
        static MADE: Mutex<Option<Made>> = Mutex::new(None);
        if version == BASE {
            return IMAGE.to_vec();
        }
        let upto = Self { changes: self.changes[..index(version)].to_vec() };
        let slot = Arc::clone(MADE.lock().unwrap().get_or_insert_default().entry((upto, version)).or_default());
        let mut slot = slot.lock().unwrap();
        slot.get_or_insert_with(|| {
            let master = Master::new();
            let set = Set::new().file("metadata.mfs.back", IMAGE).file("changelog.0.mfs", self.log(BASE..version));
            set.write(&master.data(), false);
            let output = master.restore().expect("an image in time");
            assert!(output.success(), "{output:?}");
            master.restored_bytes().expect("an image")
        })
        .clone()
    }
}

fn index(id: u64) -> usize {
    usize::try_from(id - 1).expect("a small id")
}

/// The name in `CREATE(parent,NAME,…)`.
fn name_in(operation: &str) -> Option<&str> {
    operation.strip_prefix("CREATE(")?.split(',').nth(1)
}
