//! Versions of the metadata: how far a history goes.

use std::fmt;
use std::ops::Add;

use serde::{Deserialize, Serialize};

/// All changes with a number below this one are in; the next change gets this number. A change itself is a `u64`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Version(pub(crate) u64);

impl Version {
    /// An empty file system.
    pub(crate) const NEW: Self = Self(1);

    /// The version that ends with `change`.
    pub(crate) fn after(change: u64) -> Self {
        Self(change.saturating_add(1))
    }

    /// The first change that is not in it.
    pub(crate) fn next_change(self) -> u64 {
        self.0
    }

    /// The last change that is in it.
    pub(crate) fn last_change(self) -> u64 {
        self.0.saturating_sub(1)
    }

    /// Whether `change` is in it.
    pub(crate) fn has(self, change: u64) -> bool {
        change < self.0
    }

    /// How many changes it has that `earlier` lacks; 0 if `earlier` goes as far.
    pub(crate) fn changes_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The version after `count` more changes.
    pub(crate) fn with_changes(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// By how much a promotion raises the version and the number of every change: two histories then share no number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EpochJump(pub(crate) u64);

impl EpochJump {
    pub(crate) const NONE: Self = Self(0);
}

impl fmt::Display for EpochJump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Saturates: a version beyond the highest one is refused where the set is staged.
impl Add<EpochJump> for Version {
    type Output = Self;

    fn add(self, jump: EpochJump) -> Self {
        self.with_changes(jump.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_stands_between_two_changes() {
        let version = Version::after(7);
        assert_eq!((version, version.last_change(), version.next_change()), (Version(8), 7, 8));
        assert!(version.has(7) && !version.has(8));
        assert_eq!((Version(12).changes_since(version), version.changes_since(Version(12))), (4, 0));
        assert_eq!((version + EpochJump(100)).with_changes(2), Version(110));
        assert_eq!(Version(3) + EpochJump(u64::MAX), Version(u64::MAX));
    }

    #[test]
    fn it_is_a_plain_number_in_text_and_json() {
        assert_eq!(format!("{:>4}", Version(67)), "  67");
        assert_eq!(serde_json::to_string(&Version(67)).unwrap(), "67");
        assert_eq!(serde_json::from_str::<Option<Version>>("67").unwrap(), Some(Version(67)));
    }
}
