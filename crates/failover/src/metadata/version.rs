//! Versions of the metadata: how far a history goes, and how often it was promoted.

use std::cmp::Ordering;
use std::fmt;
use std::ops::Add;

use serde::{Deserialize, Serialize};

/// How many versions an epoch has. A promotion continues a history one epoch later, at the same position in it, so that two
/// histories share no number: a version is `epoch * EPOCH + position`.
///
/// Ten thousand changes in each second need three years for it; the highest version has room for nine million promotions.
/// Versions of clusters that were promoted with the smaller step of earlier releases are positions of epoch 0.
pub(crate) const EPOCH: u64 = 1_000_000_000_000;

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

    /// How often the history was promoted, each time in a later epoch.
    pub(crate) fn epoch(self) -> u64 {
        self.0 / EPOCH
    }

    /// The version at which its epoch began.
    pub(crate) fn epoch_began(self) -> Self {
        Self(self.epoch() * EPOCH)
    }

    /// How many changes were made in all epochs together: it goes on through promotions.
    pub(crate) fn position(self) -> u64 {
        self.0 % EPOCH
    }

    /// Whether more changes were made up to this version than up to `other`, of two histories that were one: since they
    /// parted, each has made what its position grew by, and they parted at one position. Neither a clock nor anything that
    /// a machine remembers is needed for that. With as many changes, the one that was promoted last is further.
    ///
    /// The plain order of versions is another question: of one history it says what is missing.
    pub(crate) fn reaches_further_than(self, other: Self) -> bool {
        (self.position(), self.epoch()) > (other.position(), other.epoch())
    }

    /// Whether `change` is in it.
    pub(crate) fn has(self, change: u64) -> bool {
        change < self.0
    }

    /// How many changes it has that `earlier` lacks; 0 if `earlier` goes as far.
    pub(crate) fn changes_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// What a copy that ends here lacks of a history that ends at `served`; `None` if it has all of it.
    pub(crate) fn behind(self, served: Self) -> Option<Behind> {
        let changes = served.position().saturating_sub(self.position());
        match self.epoch().cmp(&served.epoch()) {
            Ordering::Equal if self >= served => None,
            Ordering::Equal => Some(Behind::Changes(changes)),
            Ordering::Less => Some(Behind::EarlierEpoch(changes)),
            Ordering::Greater => Some(Behind::LaterEpoch),
        }
    }

    /// The version after `count` more changes.
    pub(crate) fn with_changes(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }
}

/// What a copy lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behind {
    /// So many changes of the same epoch.
    Changes(u64),
    /// A promotion since, and at least so many changes: it may have changes in their place that were lost with a master.
    EarlierEpoch(u64),
    /// It is of an epoch that is not served: after a split, another history was the one to stay.
    LaterEpoch,
}

impl Behind {
    /// How many changes it lacks, as far as the numbers tell.
    pub(crate) fn changes(self) -> Option<u64> {
        match self {
            Self::Changes(changes) | Self::EarlierEpoch(changes) => Some(changes),
            Self::LaterEpoch => None,
        }
    }
}

impl fmt::Display for Behind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changes(1) => f.write_str("lacks 1 change"),
            Self::Changes(changes) => write!(f, "lacks {changes} changes"),
            Self::EarlierEpoch(0) => f.write_str("is of an earlier epoch and lacks an unknown number of changes"),
            Self::EarlierEpoch(changes) => write!(f, "is of an earlier epoch and lacks at least {changes} changes"),
            Self::LaterEpoch => f.write_str("is of another history, which is not served"),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// By how much a promotion raises the version and the number of every change: whole epochs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EpochJump(pub(crate) u64);

impl EpochJump {
    pub(crate) const NONE: Self = Self(0);

    /// The jump from one epoch to the one so many epochs later.
    pub(crate) fn epochs(count: u64) -> Self {
        Self(count.saturating_mul(EPOCH))
    }

    /// How many epochs it goes on by.
    pub(crate) fn count(self) -> u64 {
        self.0 / EPOCH
    }
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
    fn of_two_histories_that_were_one_the_position_says_which_has_made_more() {
        let version = |epoch, position| Version(epoch * EPOCH + position);
        assert_eq!((version(3, 500).epoch(), version(3, 500).position()), (3, 500));
        let further = |a: Version, b: Version| (a.reaches_further_than(b), b.reaches_further_than(a));
        // Promoted at 100 and made 7 changes; the other one went on to 300.
        assert_eq!(further(version(1, 107), version(0, 300)), (false, true), "the promoted one made less");
        assert_eq!(further(version(1, 301), version(0, 300)), (true, false));
        assert_eq!(further(version(2, 300), version(0, 300)), (true, false), "the same number: promoted later");
        assert_eq!(further(version(1, 5), version(1, 5)), (false, false));
        // Versions of the step of a million stay positions.
        assert_eq!((Version(3_000_500).epoch(), Version(3_000_500).position()), (0, 3_000_500));
    }

    #[test]
    fn what_a_copy_lacks_is_counted_within_an_epoch_and_said_in_words_beyond() {
        let version = |epoch, position| Version(epoch * EPOCH + position);
        let behind = |copy: Version, served| copy.behind(served).map(|behind| behind.to_string());
        assert_eq!((behind(version(1, 7), version(1, 7)), behind(version(1, 8), version(1, 7))), (None, None));
        for (copy, served, expected) in [
            (version(1, 6), version(1, 7), "lacks 1 change"),
            (version(0, 100), version(1, 130), "is of an earlier epoch and lacks at least 30 changes"),
            (version(0, 100), version(2, 90), "is of an earlier epoch and lacks an unknown number of changes"),
            (version(2, 100), version(1, 130), "is of another history, which is not served"),
        ] {
            assert_eq!(behind(copy, served).unwrap(), expected);
        }
    }

    #[test]
    fn it_is_a_plain_number_in_text_and_json() {
        assert_eq!(format!("{:>4}", Version(67)), "  67");
        assert_eq!(serde_json::to_string(&Version(67)).unwrap(), "67");
        assert_eq!(serde_json::from_str::<Option<Version>>("67").unwrap(), Some(Version(67)));
    }
}
