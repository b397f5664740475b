//! What a plan tells the administrator: notes beside a plan, and refusals in place of one.

use std::ffi::OsString;
use std::fmt;

use super::changelog::{Damage, Torn};
use super::image::Flaw;
use super::{Lineage, Version};
use crate::sys::text::shown;
use crate::sys::text::when;

/// How much a [`Note`] matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    /// As expected.
    Info,
    /// Something is lost, left out or out of order.
    Warning,
}

/// Something the plan has decided or left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Note {
    /// Why this lineage is used.
    Lineage(Choice),
    /// A torn last line was cut.
    Torn {
        /// The change log.
        file: OsString,
        /// What was cut.
        torn: Torn,
        /// Whether another log has the change that was torn.
        bridged: bool,
    },
    /// A damaged place in a log.
    Damage {
        /// The change log.
        file: OsString,
        /// The place.
        damage: Damage,
        /// Whether the plan holds all changes around it.
        bridged: bool,
    },
    /// Two logs of one lineage hold different changes under the same id.
    Conflict {
        /// The first such id.
        at: u64,
        /// The log that is believed.
        kept: OsString,
        /// The log that is not used from there on.
        dead: OsString,
        /// The last change there.
        last: u64,
    },
    /// The metalogger's image, and no log of what it has heard since.
    Unlogged {
        /// The image.
        file: OsString,
        /// When it was downloaded, Unix seconds.
        modified: u64,
    },
    /// An image that is not whole.
    Incomplete {
        /// The image.
        file: OsString,
        /// What is wrong with it.
        flaw: Flaw,
    },
    /// A file that cannot be read.
    Unreadable {
        /// The file.
        file: OsString,
        /// Why.
        why: String,
    },
    /// Changes of the other lineage that are set aside.
    LeftOut {
        /// The other lineage.
        lineage: Lineage,
        /// First change above this plan's end.
        first: u64,
        /// Last one.
        last: u64,
    },
    /// Something that only the administrator's word (`--allow-data-loss`) lets this plan leave behind.
    Lost {
        /// Where the plan ends.
        end: Version,
        /// First and last change in the file; none are known of an image that is not whole.
        changes: Option<(u64, u64)>,
        /// The file that is set aside.
        file: OsString,
    },
}

/// Why a lineage is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The metalogger's copy, there is no other.
    OnlyMl,
    /// The metalogger's copy, which reaches at least as far.
    MlReachesFurther {
        /// End version of `own`.
        own: Version,
    },
    /// The metalogger's copy: `own` is another branch.
    OwnForked {
        /// The first different change.
        at: u64,
        /// When the last change of `own` was made, Unix seconds.
        own_time: u64,
        /// When the last change of `ml` was made.
        ml_time: u64,
    },
    /// The metalogger's copy: nothing shows that `own`, though higher, continues it.
    OwnOlder {
        /// End version of `own`.
        own: Version,
    },
    /// This machine's own files: the same history, and further than the metalogger's copy.
    OwnReachesFurther {
        /// End version of `ml`.
        ml: Version,
    },
    /// This machine's own files, and from there on the metalogger's logs: the same history.
    OwnContinued {
        /// Where the own files end.
        own: Version,
    },
    /// This machine's own files: the metalogger has nothing that could be used.
    OnlyOwn,
}

impl Note {
    /// How much it matters.
    pub(crate) fn severity(&self) -> Severity {
        let info = match self {
            Self::Lineage(choice) => !matches!(choice, Choice::OnlyOwn | Choice::OwnOlder { .. }),
            Self::Torn { bridged, .. } | Self::Damage { bridged, .. } => *bridged,
            Self::Conflict { .. }
            | Self::Unreadable { .. }
            | Self::Unlogged { .. }
            | Self::LeftOut { .. }
            | Self::Lost { .. } => false,
            Self::Incomplete { .. } => true,
        };
        if info { Severity::Info } else { Severity::Warning }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let else_where = |bridged: &bool| {
            if *bridged { "another log has what is missing" } else { "no log has what is missing" }
        };
        match self {
            Self::Lineage(choice) => choice.fmt(f),
            Self::Torn { file, torn, bridged } => {
                let Torn { offset, bytes } = torn;
                let file = shown(file);
                write!(f, "{file}: torn last line cut, {bytes} bytes at byte {offset}; {}", else_where(bridged))
            }
            Self::Damage { file, damage, bridged } => {
                write!(f, "{}: {damage}; {}", shown(file), else_where(bridged))
            }
            Self::Conflict { at, kept, dead, last } => {
                let (kept, dead) = (shown(kept), shown(dead));
                write!(f, "{dead}: changes {at} to {last} are not those of {kept}, which is newer: not used")
            }
            Self::Unlogged { file, modified } => write!(
                f,
                "{} of {} stands alone: either nothing has changed since, or the metalogger has dropped its logs for a \
                 download that never came, and all changes since are missing",
                shown(file),
                when(*modified)
            ),
            Self::Incomplete { file, flaw } => write!(f, "{}: not used, {flaw}", shown(file)),
            Self::Unreadable { file, why } => write!(f, "{}: not used, cannot be read: {why}", shown(file)),
            Self::LeftOut { lineage, first, last } => {
                write!(f, "changes {first} to {last} of the {lineage} files are set aside, not used")
            }
            Self::Lost { end, changes: Some((first, last)), file } => {
                let file = shown(file);
                write!(f, "data loss allowed: changes {first} to {last} of {file} are not served: ")?;
                if *first > end.next_change() {
                    write!(f, "changes {end} to {} are missing", first - 1)
                } else {
                    write!(f, "they do not belong to what is served up to version {end}")
                }
            }
            Self::Lost { end, changes: None, file } => {
                let file = shown(file);
                write!(f, "data loss allowed: {file} shows another master since version {end}, and is not whole")
            }
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OnlyMl => f.write_str("using the metalogger's copy; this machine has no files of its own as master"),
            Self::MlReachesFurther { own } => {
                write!(f, "using the metalogger's copy; this machine's own files end at version {own}")
            }
            Self::OwnForked { at, own_time, ml_time } => write!(
                f,
                "using the metalogger's copy, whose last change is of {}; this machine's own files are a dead branch \
                 from change {at} on, with the last one of {}",
                when(*ml_time),
                when(*own_time)
            ),
            Self::OwnOlder { own } => write!(
                f,
                "using the metalogger's copy; this machine's own files end at version {own} but are older and share \
                 no change with it"
            ),
            Self::OwnReachesFurther { ml } => write!(
                f,
                "using this machine's own files as master: the same history, and the metalogger's copy ends at \
                 version {ml}"
            ),
            Self::OwnContinued { own } => write!(
                f,
                "using this machine's own files as master up to version {own}, and from there on the metalogger's logs, \
                 which are the same history"
            ),
            Self::OnlyOwn => f.write_str(
                "using this machine's own files as master; the metalogger has no usable copy to compare them with",
            ),
        }
    }
}

/// Why there is no plan. Each text says what was found and what can be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// No base.
    #[error(
        "no usable metadata: no complete image, and no MFSM NEW with a change log from change 1 ({images} images and \
         {logs} change logs looked at); start mfsmetalogger here and wait for its first download, or copy the \
         metadata of another machine here"
    )]
    Nothing {
        /// Images looked at.
        images: usize,
        /// Change logs looked at.
        logs: usize,
    },
    /// Two file systems.
    #[error(
        "two file systems in one folder: {} is of metaid {first:#x}, {} of {second:#x}; move the files of the wrong \
         one away",
        shown(first_file),
        shown(second_file)
    )]
    Metaids {
        /// One file.
        first_file: OsString,
        /// Its metaid.
        first: u64,
        /// Another file.
        second_file: OsString,
        /// Its metaid.
        second: u64,
    },
    /// Changes that cannot be reached.
    #[error(
        "changes {needed} to {} are missing, changes {first} to {last} would be lost: {} has them from byte {offset} \
         on{}; {ELSEWHERE}; {WITHOUT}",
        first - 1, shown(file), cause(damage.as_ref())
    )]
    Hole {
        /// The first missing change.
        needed: u64,
        /// The first change behind the hole.
        first: u64,
        /// The last change behind it.
        last: u64,
        /// The log that holds `first`.
        file: OsString,
        /// Where in it, in bytes.
        offset: u64,
        /// What breaks the log before that place.
        damage: Option<Damage>,
    },
    /// A log that cannot be read as one, so nobody knows which changes would be lost.
    #[error(
        "{} cannot be read as a change log: {damage}; its changes would be lost: copy it from another machine again, \
         or move it away to go without them",
        shown(file)
    )]
    Unread {
        /// The log.
        file: OsString,
        /// What is wrong with it.
        damage: Damage,
    },
    /// A log whose bytes cannot be read.
    #[error(
        "{} cannot be read: {why}; no newer log goes on from it, so its changes would be lost; {ELSEWHERE}; or move it \
         away to go without them",
        shown(file)
    )]
    Unreadable {
        /// The log.
        file: OsString,
        /// The kernel's answer.
        why: String,
    },
    /// An image that is not whole shows that there was a later history.
    #[error(
        "{} is not whole ({flaw}), but it was to be version {version}, and all else here ends at version {end}: changes \
         {end} to {} would be lost; {ELSEWHERE}; {WITHOUT}",
        shown(file), version.last_change()
    )]
    Cut {
        /// The image.
        file: OsString,
        /// What is wrong with it.
        flaw: Flaw,
        /// What its header says.
        version: Version,
        /// Where the plan would end.
        end: Version,
    },
    /// The own files reach further than the metalogger's copy can, but its logs hold still later changes.
    #[error(
        "this machine's own files as master end at version {own}; the metalogger's copy has a hole before that, but \
         {} reaches to change {last}: changes {own} to {last} would be lost; {ELSEWHERE}; {WITHOUT}",
        shown(file)
    )]
    MlHasMore {
        /// End version of the own files.
        own: Version,
        /// The last change behind the hole.
        last: u64,
        /// The log that holds it.
        file: OsString,
    },
    /// A kept image of a higher version than the one that replaced it.
    #[error(
        "two histories: {} is of version {current}, and {}, though older, is of version {previous}: a master with old \
         metadata has taken over in between; move the files of the wrong history away",
        shown(newer),
        shown(older)
    )]
    StepBack {
        /// The image in use.
        newer: OsString,
        /// Its version.
        current: Version,
        /// The image kept from before.
        older: OsString,
        /// Its version.
        previous: Version,
    },
    /// A higher own image that nothing ties to the metalogger's copy.
    #[error(
        "this machine's own image as master is of version {own}, the metalogger's copy ends at version {ml}, and no \
         change log shows that they are one history; move the own metadata files away to use the metalogger's copy, \
         or the metadata_ml and changelog_ml files to use the own ones"
    )]
    Unrelated {
        /// Version of the own image.
        own: Version,
        /// End version of the metalogger's copy.
        ml: Version,
    },
    /// The metalogger's files show a later history than this machine's own, but are no base.
    #[error(
        "only this machine's own files as master are complete (version {own}), but {} shows that the metalogger has \
         seen another master since, whose changes would be lost; if a master runs, restart mfsmetalogger here: it \
         downloads the metadata again; if none does, run mfs-promote --dry-run on every other machine and serve on \
         one that has more; {WITHOUT}",
        shown(file)
    )]
    MlUnusable {
        /// End version of the own files.
        own: Version,
        /// The metalogger's file that shows it.
        file: OsString,
    },
    /// A link, FIFO or folder that `mfsmaster` would open or run into.
    #[error("{} {what}, and mfsmaster would open it or run into it; move it away", shown(file))]
    InTheWay {
        /// The object.
        file: OsString,
        /// What it is: `is a folder` …
        what: &'static str,
    },
}

/// Where what is missing here may be found, and how it gets here.
const ELSEWHERE: &str = "run mfs-promote --dry-run on every other machine: if one has them, serve there, or copy its \
    change logs here under free numbers (scp MACHINE:DATA_PATH/changelog_ml.0.mfs DATA_PATH/changelog_ml_back.90.mfs)";
/// How to go without, by hand.
const WITHOUT: &str = "to lose them for good, look with mfs-promote --dry-run --allow-data-loss, and where no machine \
    serves: ip address add ADDRESS dev NAME, mfs-promote --allow-data-loss --interface NAME --vip ADDRESS, then start \
    ucarp again";

fn cause(damage: Option<&Damage>) -> String {
    damage.map(|d| format!(" ({d})")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_cannot_write_a_line_of_its_own_into_the_log() {
        let note = Note::Unreadable { file: "metadata\n\u{1b}[2Jserving".into(), why: "no".to_owned() };
        assert!(!note.to_string().contains(char::is_control), "{note}");
    }
}
