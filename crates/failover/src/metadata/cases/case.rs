//! The parts of a case.

use std::ops::Range;

use super::history::{History, METAID};
use super::master::{Content, Set};
use crate::metadata::Version;
use crate::metadata::inventory::Unserved;

/// One row of the page.
pub(super) struct Case {
    /// Its name.
    pub(super) name: &'static str,
    /// The files in the data folder, in words.
    pub(super) what: &'static str,
    /// The result that our plan must have.
    pub(super) ours: Ours,
    /// The folder; more than one for a family of cases that must all come out alike.
    pub(super) build: fn() -> Vec<Situation>,
}

/// The result that our plan must have. Where it serves, it must hold the whole valid history and nothing else.
pub(super) enum Ours {
    /// A plan without any warning.
    Serves,
    /// A plan with a warning that contains this.
    Warns(&'static str),
    /// A refusal that contains this.
    Refuses(&'static str),
}

/// A data folder, and what is known about it.
pub(super) struct Situation {
    /// The valid history as far as whole lines and images in this folder show it: a master must serve exactly this.
    pub(super) truth: History,
    /// Other histories with files in this folder: none of their changes may be served.
    pub(super) strays: Vec<History>,
    pub(super) set: Set,
    /// What the machine remembers of itself.
    pub(super) served_last: bool,
    pub(super) unserved: Option<Unserved>,
}

impl Situation {
    pub(super) fn new(truth: &History) -> Self {
        let set = Set::new().modified(truth.end_time());
        Self { truth: truth.clone(), strays: Vec::new(), set, served_last: false, unserved: None }
    }

    /// An image of the valid history.
    pub(super) fn image(self, name: &str, version: u64) -> Self {
        let bytes = self.truth.image(version);
        self.file(name, bytes)
    }

    /// A change log of the valid history.
    pub(super) fn log(self, name: &str, ids: Range<u64>) -> Self {
        let text = self.truth.log(ids);
        self.file(name, text)
    }

    /// An image of another history.
    pub(super) fn stray_image(self, name: &str, stray: &History, version: u64) -> Self {
        self.stray(stray).file(name, stray.image(version))
    }

    /// A change log of another history.
    pub(super) fn stray_log(self, name: &str, stray: &History, ids: Range<u64>) -> Self {
        self.stray(stray).file(name, stray.log(ids))
    }

    /// Names another history of which something is in a file.
    pub(super) fn stray(mut self, stray: &History) -> Self {
        self.strays.push(stray.clone());
        self
    }

    pub(super) fn file(mut self, name: &str, bytes: impl AsRef<[u8]>) -> Self {
        self.set = self.set.file(name, bytes);
        self
    }

    pub(super) fn with(mut self, name: &str, content: Content) -> Self {
        self.set = self.set.with(name, content);
        self
    }

    /// Unix seconds of the last modification of all files.
    pub(super) fn modified(mut self, time: u64) -> Self {
        self.set = self.set.modified(time);
        self
    }

    /// This machine remembers that it served last.
    pub(super) fn served_last(mut self) -> Self {
        self.served_last = true;
        self
    }

    /// This machine remembers that it lost the judgement after a split.
    pub(super) fn unserved(mut self, first: u64, last: u64) -> Self {
        self.unserved = Some(Unserved { first: Version(first), last: Version(last) });
        self
    }

    /// For a case that is no family.
    pub(super) fn alone(self) -> Vec<Self> {
        vec![self]
    }
}

/// The same image as one of another file system.
pub(super) fn foreign(mut image: Vec<u8>) -> Vec<u8> {
    image[16..24].copy_from_slice(&(METAID + 1).to_be_bytes());
    image
}
