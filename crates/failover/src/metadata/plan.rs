//! The plan: one image, one contiguous run of changes, the version it must end at, and the files to set aside.
//!
//! Pure: a function of the inventory. Within a lineage the complete image with the highest version is the best base:
//! a lower one whose run gets that far only goes on as this one does. `ml` wins over `own`, unless `own` is the same
//! history and reaches further. Changes that no plan of the lineage reaches are a [`Refusal`], not a footnote, unless
//! the administrator allows their loss for this one run: then each is named in a note.

use std::ffi::OsString;
use std::fmt;

use super::Lineage;
use super::changelog::{Damage, Kind, Segment};
use super::image::Image;
use super::inventory::{ImageFile, Inventory, LogFile, Overlap, Role, Span, What};
use super::names::shown;
use super::note::{Choice, Note, Refusal};

mod loss;

use loss::{lost, nothing_lost};

/// What a plan starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base {
    /// A complete image.
    Image {
        /// Its file name.
        name: OsString,
        /// `MFSM 2.0`, `MFSM 1.5`.
        signature: [u8; 8],
        /// The version in its header.
        version: u64,
        /// The metaid in its header, 0 if none.
        metaid: u64,
    },
    /// An empty file system, version 1; the run begins with change 1.
    New,
}

/// Whether changes that cannot be served may be left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// No: they are a [`Refusal`].
    Refuse,
    /// Yes, by word of the administrator (`--allow-data-loss`): they are [`Note::Lost`].
    Allow,
}

/// A stretch of changes to take from one log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The change log.
    pub file: OsString,
    /// Byte offset in it from which the stretch is contiguous (at or before its first change).
    pub offset: u64,
    /// First change to take.
    pub first: u64,
    /// Last change to take.
    pub last: u64,
    /// About how many bytes they have.
    pub bytes: u64,
}

/// What a promotion is going to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Whose files.
    pub lineage: Lineage,
    /// What it starts from.
    pub base: Base,
    /// The file system's identity; 0 if none is assigned (always so before 2.0).
    pub metaid: u64,
    /// Version of the base: id of the first change that is needed.
    pub base_version: u64,
    /// Size of the base in bytes.
    pub image_bytes: u64,
    /// The changes, contiguous from `base_version` on.
    pub runs: Vec<Run>,
    /// Version of a master that has replayed them: last change + 1, or `base_version` without any.
    pub end_version: u64,
    /// When the last change was made, in Unix seconds of the old master's clock.
    pub last_change_time: Option<u64>,
    /// How many changes are replayed.
    pub changes: u64,
    /// What was decided, cut and left out.
    pub notes: Vec<Note>,
    /// Regular files to move out of the data folder, sorted: everything that looks like metadata, used or not.
    pub set_aside: Vec<OsString>,
}

/// The best that one lineage has.
struct Candidate {
    base: Base,
    version: u64,
    bytes: u64,
    runs: Vec<Run>,
    /// One behind the last change.
    end: u64,
    last_change: Option<u64>,
    /// Unix seconds of the last change, or of the image where there is none.
    time: u64,
}

impl Plan {
    /// About how many bytes the staged change log has when all ids are raised by `jump`.
    pub fn log_bytes(&self, jump: u64) -> u64 {
        let digits = |id: u64| u64::from(id.checked_ilog10().unwrap_or_default());
        let longer = digits(self.end_version.saturating_add(jump)) - digits(self.base_version);
        self.runs.iter().map(|run| run.bytes).sum::<u64>() + longer * self.changes
    }

    /// How many versions beyond the end the files go that are left behind: other machines may have followed them.
    pub fn lost_versions(&self) -> u64 {
        let last = self.notes.iter().filter_map(|note| match note {
            Note::Lost { changes: Some((_, last)), .. } => Some(*last),
            _ => None,
        });
        last.max().map_or(0, |last| (last + 1).saturating_sub(self.end_version))
    }
}

/// Makes the plan for what lies in the data folder.
pub fn make(inventory: &Inventory, loss: Loss) -> Result<Plan, Refusal> {
    nothing_in_the_way(inventory)?;
    one_file_system(inventory)?;
    let own = candidate(inventory, Lineage::Own);
    let ml = candidate(inventory, Lineage::Ml);
    let (lineage, chosen, choice, left_out) = choose(inventory, own.as_ref(), ml.as_ref(), loss)?;
    no_step_back(inventory, lineage)?;
    let metaid = metaid_of(inventory, chosen)?;
    let mut notes = vec![Note::Lineage(choice)];
    notes.extend(left_out);
    match loss {
        Loss::Refuse => nothing_lost(inventory, lineage, chosen.end)?,
        Loss::Allow => notes.extend(lost(inventory, lineage, chosen)),
    }
    notes.extend(log_notes(inventory, lineage, chosen));
    notes.extend(file_notes(inventory));
    Ok(Plan {
        lineage,
        base: chosen.base.clone(),
        metaid,
        base_version: chosen.version,
        image_bytes: chosen.bytes,
        runs: chosen.runs.clone(),
        end_version: chosen.end,
        last_change_time: chosen.last_change,
        changes: chosen.end - chosen.version,
        notes,
        set_aside: set_aside(inventory),
    })
}

fn nothing_in_the_way(inventory: &Inventory) -> Result<(), Refusal> {
    // Names the new master writes: a folder there makes it fail. Other folders it reads as bad images and passes over.
    let written = ["metadata.mfs", "metadata.mfs.back", "metadata.mfs.back.tmp", "changelog.0.mfs"];
    for other in &inventory.others {
        let in_the_way = match other.what {
            // Followed if a link, waited on for ever if a FIFO: mfsmaster opens every metadata* and changelog*.
            What::NotAFile => true,
            What::Folder => written.iter().any(|name| other.name == *name),
            _ => false,
        };
        if in_the_way {
            let file = other.name.clone();
            return Err(Refusal::InTheWay { file });
        }
    }
    Ok(())
}

fn one_file_system(inventory: &Inventory) -> Result<(), Refusal> {
    let mut known: Option<(&OsString, u64)> = None;
    for file in &inventory.images {
        let Image::Complete { metaid: second, .. } = file.image else {
            continue;
        };
        match known {
            _ if second == 0 || file.role == Role::Download => {}
            Some((first_file, first)) if first != second => {
                return Err(Refusal::Metaids {
                    first_file: first_file.clone(),
                    first,
                    second_file: file.name.clone(),
                    second,
                });
            }
            _ => known = Some((&file.name, second)),
        }
    }
    Ok(())
}

fn candidate(inventory: &Inventory, lineage: Lineage) -> Option<Candidate> {
    let spans = inventory.spans(lineage);
    let images = || inventory.images.iter().filter(|i| i.lineage == lineage);
    let best = images().filter_map(|file| match file.image {
        Image::Complete { version, .. } if file.role != Role::Download => Some((version, file)),
        _ => None,
    });
    // Of equal versions the first by name: `metadata.mfs` before its copies.
    if let Some((version, file)) = best.rev().max_by_key(|(version, _)| *version) {
        return Some(follow(inventory, &spans, file, version));
    }
    // `MFSM NEW` is a file system only together with its whole history; ids from 0 are those of 1.6.
    let has = |id: u64| spans.iter().any(|s| (s.first..=s.last).contains(&id));
    let new = images().find(|file| file.image == Image::New && matches!(file.role, Role::Current | Role::Download))?;
    (has(1) && !has(0)).then(|| follow(inventory, &spans, new, 1))
}

/// The longest contiguous run of changes from `version` on.
fn follow(inventory: &Inventory, spans: &[Span], file: &ImageFile, version: u64) -> Candidate {
    let mut runs = Vec::new();
    let (mut end, mut last_change) = (version, None);
    // All spans that hold an id hold the same change under it, so the longest one is as good as any.
    let next = |id: u64| {
        let holds = spans.iter().rev().filter(|s| (s.first..=s.last).contains(&id));
        holds.max_by_key(|s| s.last)
    };
    while let Some(span) = next(end) {
        let segment = inventory.segment(span);
        runs.push(Run {
            file: inventory.logs[span.log].name.clone(),
            offset: segment.start,
            first: end,
            last: span.last,
            bytes: share(segment, span.last - end + 1),
        });
        end = span.last + 1;
        last_change = Some(segment.last_time);
    }
    let base = match file.image {
        Image::Complete { signature, version, metaid } => {
            Base::Image { name: file.name.clone(), signature, version, metaid }
        }
        _ => Base::New,
    };
    let time = last_change.unwrap_or(file.modified);
    Candidate { base, version, bytes: file.size, runs, end, last_change, time }
}

/// About how many bytes so many changes of a segment have.
fn share(segment: &Segment, changes: u64) -> u64 {
    let all = u128::from(segment.last - segment.first + 1);
    let bytes = u128::from(segment.end - segment.start) * u128::from(changes);
    u64::try_from(bytes.div_ceil(all)).unwrap_or(u64::MAX)
}

type Chosen<'a> = (Lineage, &'a Candidate, Choice, Option<Note>);

fn choose<'a>(
    inventory: &Inventory,
    own: Option<&'a Candidate>,
    ml: Option<&'a Candidate>,
    loss: Loss,
) -> Result<Chosen<'a>, Refusal> {
    let (own, ml) = match (own, ml) {
        (None, None) => {
            return Err(Refusal::Nothing { images: inventory.images.len(), logs: inventory.logs.len() });
        }
        (None, Some(ml)) => return Ok((Lineage::Ml, ml, Choice::OnlyMl, None)),
        (Some(own), None) => {
            return match later_history(inventory, own) {
                Some(file) if loss == Loss::Refuse => Err(Refusal::MlUnusable { own: own.end, file }),
                _ => Ok((Lineage::Own, own, Choice::OnlyOwn, None)),
            };
        }
        (Some(own), Some(ml)) => (own, ml),
    };
    let left_out = |first: u64| {
        let last = inventory.spans(Lineage::Own).iter().map(|s| s.last).max();
        let last = last.unwrap_or(0).max(own.end.saturating_sub(1));
        (last >= first).then_some(Note::LeftOut { lineage: Lineage::Own, first, last })
    };
    let ml_with = |choice, note| Ok((Lineage::Ml, ml, choice, note));
    match inventory.overlap {
        Overlap::Fork { at } => ml_with(Choice::OwnForked { at, own_time: own.time, ml_time: ml.time }, left_out(at)),
        _ if own.end <= ml.end => ml_with(Choice::MlReachesFurther { own: own.end }, left_out(ml.end)),
        Overlap::None if own.time < ml.time => ml_with(Choice::OwnOlder { own: own.end }, left_out(ml.end)),
        // A file's date is no proof of that: a copy has a new one.
        Overlap::None if !ends_in_a_log(inventory, own) => Err(Refusal::Unrelated { own: own.end, ml: ml.end }),
        _ => Ok((Lineage::Own, own, Choice::OwnReachesFurther { ml: ml.end }, None)),
    }
}

/// Whether a log of this machine's own says when the last change before the end was made.
fn ends_in_a_log(inventory: &Inventory, own: &Candidate) -> bool {
    inventory.spans(Lineage::Own).iter().any(|span| span.last + 1 == own.end)
}

/// No kept image is of a higher version than the one that replaced it: one history only goes up.
fn no_step_back(inventory: &Inventory, lineage: Lineage) -> Result<(), Refusal> {
    let highest = |role: Role| {
        let images = inventory.images.iter().filter(|i| i.lineage == lineage && i.role == role);
        let versions = images.filter_map(|file| match file.image {
            Image::Complete { version, .. } => Some((version, &file.name)),
            _ => None,
        });
        versions.max_by_key(|(version, _)| *version)
    };
    match (highest(Role::Current), highest(Role::Previous)) {
        (Some((current, newer)), Some((previous, older))) if previous > current => {
            Err(Refusal::StepBack { newer: newer.clone(), current, older: older.clone(), previous })
        }
        _ => Ok(()),
    }
}

/// A file of the metalogger that shows a later or another history than `own`, though it is no base itself.
fn later_history(inventory: &Inventory, own: &Candidate) -> Option<OsString> {
    let image = inventory.images.iter().find(|i| {
        let cut = matches!(i.image, Image::Incomplete { .. });
        i.lineage == Lineage::Ml && cut && i.modified > own.time
    });
    let log = inventory.spans(Lineage::Ml).into_iter().find(|span| {
        let later = inventory.segment(span).last_time > own.time;
        span.last >= own.end
            || match inventory.overlap {
                Overlap::Fork { .. } => true,
                Overlap::None => later,
                Overlap::Agree { .. } => false,
            }
    });
    let log = log.map(|span| inventory.logs[span.log].name.clone());
    image.map(|i| i.name.clone()).or(log)
}

/// The metaid of the base, else the one its changes assign; both must be the same.
fn metaid_of(inventory: &Inventory, chosen: &Candidate) -> Result<u64, Refusal> {
    let (mut known, mut from) = match &chosen.base {
        Base::Image { name, metaid, .. } => (*metaid, name.clone()),
        Base::New => (0, OsString::new()),
    };
    for run in &chosen.runs {
        let log = inventory.logs.iter().find(|log| log.name == run.file);
        let Some(set) = log.and_then(|log| log.scan.metaid) else {
            continue;
        };
        if !(run.first..=run.last).contains(&set.change) {
            continue;
        }
        if known != 0 && known != set.metaid {
            return Err(Refusal::Metaids {
                first_file: from,
                first: known,
                second_file: run.file.clone(),
                second: set.metaid,
            });
        }
        (known, from) = (set.metaid, run.file.clone());
    }
    Ok(known)
}

/// Torn, damaged and contradicting places that concern changes the plan needs.
fn log_notes(inventory: &Inventory, lineage: Lineage, chosen: &Candidate) -> Vec<Note> {
    let mut notes = Vec::new();
    for log in inventory.logs.iter().filter(|log| log.lineage == lineage) {
        notes.extend(damage_notes(log, chosen));
        let Some(torn) = log.scan.torn else { continue };
        // The torn change is the one behind the last segment; of a log with nothing else it is not known.
        let change = log.scan.segments.last().map(|s| s.last + 1);
        if change.is_none_or(|id| id >= chosen.version) {
            notes.push(Note::Torn { file: log.name.clone(), torn, bridged: change.is_some_and(|id| id < chosen.end) });
        }
    }
    for conflict in &inventory.conflicts {
        let (kept, dead) = (&inventory.logs[conflict.kept.0], &inventory.logs[conflict.dead.0]);
        let last = dead.scan.segments[conflict.dead.1].last;
        if kept.lineage == lineage && last >= chosen.version {
            notes.push(Note::Conflict { at: conflict.at, kept: kept.name.clone(), dead: dead.name.clone(), last });
        }
    }
    notes
}

fn damage_notes(log: &LogFile, chosen: &Candidate) -> Vec<Note> {
    let segments = &log.scan.segments;
    let note = |damage: &Damage| {
        let before = segments.iter().rev().find(|s| s.end <= damage.offset);
        let after = segments.iter().find(|s| s.start >= damage.offset);
        let relevant = after.or(before).is_none_or(|s: &Segment| s.last + 1 >= chosen.version);
        let bridged = match (after, before) {
            _ if damage.kind == Kind::GivenUp => false,
            (Some(after), _) => after.first <= chosen.end,
            (None, Some(before)) => before.last + 1 < chosen.end,
            (None, None) => false,
        };
        relevant.then(|| Note::Damage { file: log.name.clone(), damage: *damage, bridged })
    };
    log.scan.damage.iter().filter_map(note).collect()
}

fn file_notes(inventory: &Inventory) -> Vec<Note> {
    let mut notes = Vec::new();
    for image in &inventory.images {
        if let Image::Incomplete { reason } = image.image {
            notes.push(Note::Incomplete { file: image.name.clone(), flaw: reason });
        }
    }
    for other in &inventory.others {
        if let What::Unreadable(why) = &other.what {
            notes.push(Note::Unreadable { file: other.name.clone(), why: why.clone() });
        }
    }
    notes
}

fn set_aside(inventory: &Inventory) -> Vec<OsString> {
    let others = inventory.others.iter().filter(|other| match other.what {
        What::Sessions | What::Checksums | What::Temporary | What::Foreign | What::Unreadable(_) => true,
        What::Template | What::Folder | What::NotAFile => false,
    });
    let names = others.map(|other| &other.name);
    let names = names.chain(inventory.images.iter().map(|image| &image.name));
    let mut names: Vec<OsString> = names.chain(inventory.logs.iter().map(|log| &log.name)).cloned().collect();
    names.sort();
    names
}

impl fmt::Display for Plan {
    /// A few short lines, for `--dry-run`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.base {
            Base::Image { name, version, .. } => writeln!(f, "base: {}, version {version}", shown(name))?,
            Base::New => writeln!(f, "base: a new file system, version 1")?,
        }
        writeln!(f, "lineage: {}, metaid {:#x}", self.lineage, self.metaid)?;
        for run in &self.runs {
            writeln!(f, "changes: {} to {} from {}", run.first, run.last, shown(&run.file))?;
        }
        writeln!(f, "end: version {}, {} changes", self.end_version, self.changes)?;
        write!(f, "size: image of {} bytes, change log of about {} bytes", self.image_bytes, self.log_bytes(0))?;
        for note in &self.notes {
            write!(f, "\n{}: {note}", format!("{:?}", note.severity()).to_lowercase())?;
        }
        for name in &self.set_aside {
            write!(f, "\nset aside: {}", shown(name))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
