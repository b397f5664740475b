//! What the administrator reads about a plan: notes beside a plan, and refusals in place of one.

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
        /// The log that is used.
        kept: OsString,
        /// The log that is not used from there on.
        dead: OsString,
        /// The last change there.
        last: u64,
    },
    /// The metalogger's image, without a log of what came after it.
    Unlogged {
        /// The image.
        file: OsString,
        /// When it was downloaded, Unix seconds.
        modified: u64,
    },
    /// An incomplete image.
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
    /// An image of a history that lost the judgement after a split.
    OtherHistory {
        /// The image.
        file: OsString,
        /// Its version.
        version: Version,
    },
    /// Changes that are not served because the administrator allowed it (`--allow-data-loss`).
    Lost {
        /// Where the plan ends.
        end: Version,
        /// First and last change in the file; none are known of an incomplete image.
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
    },
    /// The metalogger's copy: this machine remembers that `own` is in no served history.
    OwnUnserved {
        /// End version of `own`.
        own: Version,
    },
    /// The metalogger's copy because loss is allowed: nothing ties it to `own`, which has a higher version.
    Unrelated {
        /// End version of `own`.
        own: Version,
    },
    /// This machine's own files: the same history, and further than the metalogger's copy.
    OwnReachesFurther {
        /// End version of `ml`.
        ml: Version,
    },
    /// This machine's own files: it remembers that it served last, so the metalogger copied from it.
    OwnServedLast {
        /// End version of `ml`.
        ml: Version,
    },
    /// This machine's own files: it remembers that `ml` is in no served history.
    MlUnserved {
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
            Self::Lineage(choice) => !matches!(
                choice,
                Choice::OnlyOwn | Choice::OwnUnserved { .. } | Choice::MlUnserved { .. } | Choice::Unrelated { .. }
            ),
            Self::Torn { bridged, .. } | Self::Damage { bridged, .. } => *bridged,
            Self::Conflict { .. }
            | Self::Unreadable { .. }
            | Self::Unlogged { .. }
            | Self::LeftOut { .. }
            | Self::OtherHistory { .. }
            | Self::Lost { .. } => false,
            Self::Incomplete { .. } => true,
        };
        if info { Severity::Info } else { Severity::Warning }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let others = |bridged: &bool| if *bridged { "another log has" } else { "no other log has" };
        match self {
            Self::Lineage(choice) => choice.fmt(f),
            Self::Torn { file, torn: Torn { offset, bytes }, bridged } => {
                let (file, others) = (shown(file), others(bridged));
                write!(f, "{file}: torn last line of {bytes} bytes at byte {offset} not used; {others} that change")
            }
            Self::Damage { file, damage, bridged } => {
                write!(f, "{}: {damage}; {} the changes there", shown(file), others(bridged))
            }
            Self::Conflict { at, kept, dead, last } => {
                let (kept, dead, changes) = (shown(kept), shown(dead), Changes(*at, *last));
                let differ = if at == last { "differs" } else { "differ" };
                write!(f, "{dead}: {changes} {differ} from those in {kept}, which is newer; not used")
            }
            Self::Unlogged { file, modified } => write!(
                f,
                "{} of {} stands alone, without a change log: nothing has changed since then, or all changes since \
                 then are missing",
                shown(file),
                when(*modified)
            ),
            Self::Incomplete { file, flaw } => write!(f, "{}: not used, {flaw}", shown(file)),
            Self::Unreadable { file, why } => write!(f, "{}: not used, cannot be read: {why}", shown(file)),
            Self::LeftOut { lineage, first, last } => {
                let changes = Changes(*first, *last);
                write!(f, "{changes} of the {lineage} files {} set aside, not used", changes.are())
            }
            Self::OtherHistory { file, version } => write!(
                f,
                "{} has version {version} of a history that is not served: after a split, more changes were made in the one \
                 that is used",
                shown(file)
            ),
            Self::Lost { end, changes: Some((first, last)), file } => {
                let changes = Changes(*first, *last);
                write!(f, "lost: {changes} of {} {} not served: ", shown(file), changes.are())?;
                if *first > end.next_change() {
                    f.write_str(&missing(end.next_change(), first - 1))
                } else {
                    write!(f, "the served history ends at version {end}")
                }
            }
            Self::Lost { end, changes: None, file } => write!(
                f,
                "lost: {} is incomplete, but shows that another master served after version {end}",
                shown(file)
            ),
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
            Self::OwnForked { at } => write!(
                f,
                "using the metalogger's copy; from change {at} on, this machine's own files are another history"
            ),
            Self::OwnUnserved { own } => write!(
                f,
                "using the metalogger's copy; this machine's own files end at version {own}, in a history that is not \
                 served: after a split, another master had made more changes"
            ),
            Self::Unrelated { own } => write!(
                f,
                "data loss allowed: using the metalogger's copy; this machine's own files end at version {own}, and \
                 nothing shows that they are one history with it"
            ),
            Self::OwnServedLast { ml } => write!(
                f,
                "using this machine's own files; it served last, and its metalogger had copied from it up to version {ml}"
            ),
            Self::MlUnserved { ml } => write!(
                f,
                "using this machine's own files; the metalogger's copy ends at version {ml}, in a history that is not \
                 served: after a split, this master had made more changes"
            ),
            Self::OwnReachesFurther { ml } => {
                write!(f, "using this machine's own files; the metalogger's copy ends earlier, at version {ml}")
            }
            Self::OwnContinued { own } => write!(
                f,
                "using this machine's own files up to version {own}, and from there on the metalogger's logs, which \
                 are the same history"
            ),
            Self::OnlyOwn => {
                f.write_str("using this machine's own files; the metalogger has no usable copy to compare them with")
            }
        }
    }
}

/// Why there is no plan. Each text says what is wrong, with numbers, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// No base.
    #[error(
        "no usable metadata: no complete image (images: {images}), and no MFSM NEW with change 1 (change logs: \
         {logs}): start mfsmetalogger and wait for its first download, or copy the metadata of another machine"
    )]
    Nothing {
        /// Images looked at.
        images: usize,
        /// Change logs looked at.
        logs: usize,
    },
    /// Two file systems.
    #[error(
        "two file systems in one folder: {} has metaid {first:#x}, {} has metaid {second:#x}: move the files of the \
         wrong one away",
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
        "{}, so {} in {} would be lost{}: {REMEDY}",
        missing(*needed, first - 1), Changes(*first, *last), shown(file), cause(damage.as_ref())
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
        /// What breaks the log before that place.
        damage: Option<Damage>,
    },
    /// A log without readable lines: which changes would be lost is unknown.
    #[error(
        "{} cannot be read as a change log ({damage}), and its changes would be lost: copy it again from another \
         machine, or move it away to serve without them",
        shown(file)
    )]
    Unread {
        /// The log.
        file: OsString,
        /// What is wrong with it.
        damage: Damage,
    },
    /// A log with an end of unknown extent.
    #[error(
        "{} ends in {bytes} bytes at byte {offset} that are no change log, as a power cut leaves them; how many changes stood \
         there is unknown, and they would be lost: {REMEDY}",
        shown(file)
    )]
    Tail {
        /// The log.
        file: OsString,
        /// Byte offset behind the last change.
        offset: u64,
        /// How many bytes are behind it.
        bytes: u64,
    },
    /// A log whose bytes cannot be read.
    #[error(
        "{} cannot be read ({why}), and its changes would be lost: serve on a machine that has them (mfs-promote \
         --dry-run), or move the file away to serve without them",
        shown(file)
    )]
    Unreadable {
        /// The log.
        file: OsString,
        /// The kernel's answer.
        why: String,
    },
    /// An incomplete image shows that there was a later history.
    #[error(
        "{} is incomplete ({flaw}); its header says version {version}, but all other files end at version {end}, so {} \
         would be lost: {REMEDY}",
        shown(file), Changes(end.next_change(), version.last_change())
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
    /// The own files reach further than the metalogger's copy, but its logs hold later changes behind a hole.
    #[error(
        "this machine's own files end at version {own}; {} of the metalogger reaches change {last}, but changes before \
         it are missing, so {} would be lost: {REMEDY}",
        shown(file), Changes(own.next_change(), *last)
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
        "two histories: {} has version {current}, but the older {} has version {previous}, so a master with old \
         metadata served in between: move the files of the wrong history away",
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
    /// Own files of a higher version, and nothing that they have in common with the metalogger's copy.
    #[error(
        "this machine's own files end at version {own}, the metalogger's copy ends at version {ml}, and they have no \
         change in common that would show which history was served last: run mfs-promote --dry-run on the other machines \
         and serve on one that has it; mfs-promote --allow-data-loss serves the metalogger's copy; move metadata_ml* and \
         changelog_ml* away to serve the own files"
    )]
    Unrelated {
        /// Version of the own files.
        own: Version,
        /// End version of the metalogger's copy.
        ml: Version,
    },
    /// All that is here is in no served history.
    #[error(
        "the files here end at version {end}, in a history that is not served: after a split, another master had made more \
         changes, and none of them is here: start mfsmetalogger while that master runs; if none does, {REMEDY}"
    )]
    Unserved {
        /// Where it ends.
        end: Version,
    },
    /// Two logs of one lineage contradict each other, and nothing shows which is the later one.
    #[error(
        "two histories: {} and {} hold different changes from {at} on, and nothing shows which was served last: move the \
         wrong one away; mfs-promote --allow-data-loss uses {0}",
        shown(newer),
        shown(other)
    )]
    Contradiction {
        /// The first id under which they differ.
        at: u64,
        /// The one that is used if loss is allowed.
        newer: OsString,
        /// The other one.
        other: OsString,
    },
    /// An incomplete download that was begun after the base shows another history.
    #[error(
        "{} is incomplete ({flaw}); its header says version {version}, so another master served after the one whose copy ends \
         at version {end}, and its changes would be lost: {REMEDY}",
        shown(file)
    )]
    OtherMaster {
        /// The image.
        file: OsString,
        /// What is wrong with it.
        flaw: Flaw,
        /// What its header says.
        version: Version,
        /// Where the plan would end.
        end: Version,
    },
    /// The metalogger has heard of a later epoch, and has no image of it.
    #[error(
        "{} shows that another machine was promoted since, up to version {version} at least, and the metalogger has no image of \
         that yet, so what was served since version {end} would be lost: {REMEDY}",
        shown(file)
    )]
    Unfollowed {
        /// The log, or the download, that shows it.
        file: OsString,
        /// How far it goes.
        version: Version,
        /// Where the plan would end.
        end: Version,
    },
    /// The metalogger's files show a later history than this machine's own, but are no base.
    #[error(
        "only this machine's own files are complete (version {own}), but {} shows that another master served since, \
         and its changes would be lost: restart mfsmetalogger if a master runs; if none does, {REMEDY}",
        shown(file)
    )]
    MlUnusable {
        /// End version of the own files.
        own: Version,
        /// The metalogger's file that shows it.
        file: OsString,
    },
    /// A link, FIFO or folder that `mfsmaster` would open or write to.
    #[error("{} {what}, and mfsmaster would try to use it: move it away", shown(file))]
    InTheWay {
        /// The object.
        file: OsString,
        /// What it is: `is a folder` …
        what: &'static str,
    },
}

impl Refusal {
    /// Whether another machine most likely has what is missing here, and nothing is wrong that an administrator must put right
    /// before this one can serve: its metalogger gets it from the next master.
    pub(crate) fn others_have_more(&self) -> bool {
        matches!(self, Self::Tail { .. } | Self::Unserved { .. } | Self::OtherMaster { .. } | Self::Unfollowed { .. })
    }
}

/// What can be done about changes that would be lost.
const REMEDY: &str = "run mfs-promote --dry-run on the other machines and serve on one that has them; \
    mfs-promote --allow-data-loss serves without them";

/// From the first to the last change, in words.
#[derive(Clone, Copy)]
pub(super) struct Changes(pub(super) u64, pub(super) u64);

impl Changes {
    /// The verb for them.
    pub(super) fn are(self) -> &'static str {
        if self.0 == self.1 { "is" } else { "are" }
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self(first, last) if first == last => write!(f, "change {first}"),
            Self(first, last) => write!(f, "changes {first} to {last}"),
        }
    }
}

/// `changes 111 to 120 are missing`
pub(super) fn missing(first: u64, last: u64) -> String {
    let changes = Changes(first, last);
    format!("{changes} {} missing", changes.are())
}

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
