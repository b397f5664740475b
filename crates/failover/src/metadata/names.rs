//! The file names that `MooseFS` uses in its data folder, and the meaning of each.
//!
//! As in 1.6.19 to 4.59. Names are taken apart here only.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use super::Lineage;

/// How an image came to be, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// `metadata.mfs`, `metadata.mfs.back`, `metadata_ml.mfs.back`: the one in use.
    Current,
    /// `….back.N`: an older one that was kept, the N-th before the one in use.
    Previous(u32),
    /// `metadata_ml.tmp`: a download, most likely incomplete.
    Download,
    /// `.back.tmp` (1.6.19 keeps the only good image there during a dump), `.emergency`, `.XXXXXX` (pushed aside by
    /// `mfsmaster -a`): a complete one counts by its version, as for `mfsmaster` itself.
    Rescue,
}

impl Origin {
    /// The order in which a metalogger's images were downloaded, the newest first: it renames a download when it is
    /// complete, and the one that it replaces.
    pub(super) fn age(self) -> u32 {
        match self {
            Self::Download => 0,
            Self::Current => 1,
            Self::Previous(number) => number.saturating_add(2),
            Self::Rescue => u32::MAX,
        }
    }
}

/// The meaning of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    Image { lineage: Lineage, origin: Origin },
    Log { lineage: Lineage, rank: u32 },
    Sessions,
    Checksums,
    Temporary,
    Template,
    Foreign,
}

/// Ranks of `changelog_ml_back.N.mfs` start here: they are copies fetched once, behind the stream in precedence.
pub(super) const FETCHED: u32 = 100_000;

/// Under which name the image of a hot standby lies in the data folder while it is loaded.
pub(crate) const LOADED_IMAGE: &str = "metadata.mfs-promote";
/// Numbers of the change logs that such a master is to read: no log is ever rotated so often.
pub(crate) const FED_LOGS: std::ops::Range<u64> = 970_000_000..970_000_064;

/// The name of a change log that a hot standby reads.
pub(crate) fn fed_log(number: u64) -> OsString {
    format!("changelog.{number}.mfs").into()
}

/// Whether `name` is one that a hot standby has for some milliseconds while it is started: no metadata of its own.
pub(crate) fn is_of_standby(name: &[u8]) -> bool {
    let digits = name.strip_prefix(b"changelog.").and_then(|rest| rest.strip_suffix(b".mfs"));
    let number = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    // Written as a number is: no sign, no leading zero.
    let is_fed = |number| FED_LOGS.contains(&number) && fed_log(number).as_bytes() == name;
    name == LOADED_IMAGE.as_bytes() || number.is_some_and(is_fed)
}

/// Numbers of the metalogger's change logs that it has dropped and that were brought back: it rotates its own to 10000 at most
/// (`BACK_LOGS`).
pub(crate) const DROPPED_LOGS: std::ops::Range<u64> = 10_001..20_001;

/// The name of such a log.
pub(crate) fn name_of_dropped_log(number: u64) -> OsString {
    format!("changelog_ml.{number}.mfs").into()
}

/// The number of such a log.
pub(crate) fn dropped_log(name: &OsStr) -> Option<u64> {
    stream_of_metalogger(name).filter(|rank| DROPPED_LOGS.contains(rank))
}

/// Whether it is a log that the metalogger writes to, or has rotated.
pub(crate) fn is_of_metalogger(name: &OsStr) -> bool {
    stream_of_metalogger(name).is_some_and(|rank| rank < DROPPED_LOGS.start)
}

fn stream_of_metalogger(name: &OsStr) -> Option<u64> {
    log(name).filter(|(lineage, rank)| *lineage == Lineage::Ml && *rank < FETCHED).map(|(_, rank)| rank.into())
}

/// What `name` stands for; `None` if it is nothing of ours (lock files, charts, anything else).
pub(super) fn classify(name: &[u8]) -> Option<Name> {
    if is_of_standby(name) {
        return None;
    }
    if let Some(rest) = name.strip_prefix(b"metadata") {
        return Some(metadata(rest));
    }
    if let Some(rest) = name.strip_prefix(b"changelog") {
        return changelog(rest);
    }
    name.starts_with(b"sessions").then_some(Name::Sessions)
}

fn metadata(rest: &[u8]) -> Name {
    use Origin::{Current, Download, Previous, Rescue};
    let image = |lineage, origin| Name::Image { lineage, origin };
    match rest {
        b".mfs" | b".mfs.back" => image(Lineage::Own, Current),
        b".mfs.back.tmp" | b".mfs.emergency" => image(Lineage::Own, Rescue),
        b".mfs.empty" => Name::Template,
        b".crc" => Name::Checksums,
        b"_download.tmp" => Name::Temporary,
        b"_ml.mfs.back" => image(Lineage::Ml, Current),
        b"_ml.tmp" => image(Lineage::Ml, Download),
        _ => {
            let kept = |prefix: &[u8]| rest.strip_prefix(prefix).and_then(|rest| number(rest, 4)).map(Previous);
            if let Some(previous) = kept(b".mfs.back.") {
                image(Lineage::Own, previous)
            } else if let Some(previous) = kept(b"_ml.mfs.back.") {
                image(Lineage::Ml, previous)
            } else if rest.strip_prefix(b".mfs.").is_some_and(is_random) {
                image(Lineage::Own, Rescue)
            } else {
                // `mfsmaster -a` takes any name that begins with "metadata" for an image, so it is never "not ours".
                Name::Foreign
            }
        }
    }
}

fn changelog(rest: &[u8]) -> Option<Name> {
    if rest == b"_ml.tmp" {
        return Some(Name::Temporary);
    }
    let (lineage, first, rest) = if let Some(rest) = rest.strip_prefix(b"_ml_back.") {
        (Lineage::Ml, FETCHED, rest)
    } else if let Some(rest) = rest.strip_prefix(b"_ml.") {
        (Lineage::Ml, 0, rest)
    } else {
        (Lineage::Own, 0, rest.strip_prefix(b".")?)
    };
    let number = rest.strip_suffix(b".mfs").and_then(|rest| number(rest, 5))?;
    Some(Name::Log { lineage, rank: first + number })
}

/// Lineage and rank, if it is the name of a change log.
pub(super) fn log(name: &OsStr) -> Option<(Lineage, u32)> {
    match classify(name.as_bytes()) {
        Some(Name::Log { lineage, rank }) => Some((lineage, rank)),
        _ => None,
    }
}

/// A number of at most so many digits. `BACK_LOGS` goes to 10000 for a metalogger, to 1000 for a master, and
/// `BACK_META_KEEP_PREVIOUS` to 99.
fn number(text: &[u8], most: usize) -> Option<u32> {
    let digits = (1..=most).contains(&text.len()) && text.iter().all(u8::is_ascii_digit);
    digits.then(|| std::str::from_utf8(text).ok()?.parse().ok()).flatten()
}

fn is_random(text: &[u8]) -> bool {
    text.len() == 6 && text.iter().all(u8::is_ascii_alphanumeric)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_names_of_a_hot_standby_are_passed_over() {
        for name in ["metadata.mfs-promote", "changelog.970000000.mfs", "changelog.970000063.mfs"] {
            assert!(is_of_standby(name.as_bytes()) && classify(name.as_bytes()).is_none(), "{name}");
        }
        for name in [
            "metadata.mfs-promote.1",
            "changelog.97.mfs",
            "changelog.970000064.mfs",
            "changelog.0970000000.mfs",
            "changelog.+970000000.mfs",
            "changelog_ml.970000000.mfs",
        ] {
            assert!(!is_of_standby(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn every_name_of_every_release() {
        let own = |origin| Some(Name::Image { lineage: Lineage::Own, origin });
        let ml = |origin| Some(Name::Image { lineage: Lineage::Ml, origin });
        let log = |lineage, rank| Some(Name::Log { lineage, rank });
        for (name, expected) in [
            ("metadata.mfs", own(Origin::Current)),
            ("metadata.mfs.back", own(Origin::Current)),
            ("metadata.mfs.back.12", own(Origin::Previous(12))),
            ("metadata.mfs.back.tmp", own(Origin::Rescue)),
            ("metadata.mfs.emergency", own(Origin::Rescue)),
            ("metadata.mfs.a1B2c3", own(Origin::Rescue)),
            ("metadata.mfs.empty", Some(Name::Template)),
            ("metadata.mfs.back.old", Some(Name::Foreign)),
            ("metadata.crc", Some(Name::Checksums)),
            ("metadata_ml.mfs.back", ml(Origin::Current)),
            ("metadata_ml.mfs.back.3", ml(Origin::Previous(3))),
            ("metadata_ml.tmp", ml(Origin::Download)),
            ("metadata_download.tmp", Some(Name::Temporary)),
            ("metadata2", Some(Name::Foreign)),
            ("changelog.0.mfs", log(Lineage::Own, 0)),
            ("changelog.50.mfs", log(Lineage::Own, 50)),
            ("changelog_ml.7.mfs", log(Lineage::Ml, 7)),
            ("changelog_ml.10000.mfs", log(Lineage::Ml, 10_000)),
            ("changelog_ml.100000.mfs", None),
            ("changelog_ml_back.1.mfs", log(Lineage::Ml, FETCHED + 1)),
            ("changelog_ml.tmp", Some(Name::Temporary)),
            ("changelog.mfs", None),
            ("changelog.0.mfs.old", None),
            ("changelog_ml.99999999999.mfs", None),
            ("sessions.mfs", Some(Name::Sessions)),
            ("sessions_ml.mfs", Some(Name::Sessions)),
            (".mfsmaster.lock", None),
            ("stats.mfs", None),
        ] {
            assert_eq!(classify(name.as_bytes()), expected, "{name}");
        }
    }
}
