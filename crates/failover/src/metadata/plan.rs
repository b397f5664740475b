//! The plan: one image, one contiguous sequence of changes, the version it must end at, and the files to set aside.
//!
//! Pure: a function of the inventory. Within a lineage the complete image with the highest version is the best base: if
//! the changes behind a lower one reach that version, both go on alike. `ml` wins over `own`, unless `own` is the same
//! history and reaches further. Changes that no plan of the lineage reaches are a [`Refusal`], not a footnote, unless
//! the administrator allows their loss for this one run: then each is named in a note.

use std::ffi::OsString;

use super::changelog::{Damage, Kind, LIMIT, Segment};
use super::image::{self, Image};
use super::inventory::{ImageFile, Inventory, LogFile, Origin, Overlap, Span, What};
use super::note::{Note, Refusal};
use super::{EpochJump, Lineage, Version};

mod choice;
mod gap;
mod loss;

pub(crate) use gap::{Gap, gap_in_copy};

use choice::{choose, no_step_back};
use loss::{left_behind, lost, nothing_lost};

/// What a plan starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Base {
    /// A complete image.
    Image {
        /// Its file name.
        name: OsString,
        /// `MFSM 2.0`, `MFSM 1.5`.
        signature: [u8; 8],
        /// The version in its header.
        version: Version,
        /// The metaid in its header, 0 if none.
        metaid: u64,
    },
    /// An empty file system, version 1; the first change is number 1.
    New,
}

impl Base {
    /// Whether promotions of this history begin epochs: only the header of this format can be renumbered.
    fn has_epochs(&self) -> bool {
        matches!(self, Self::Image { signature, .. } if signature == image::FORMAT_2_0)
    }
}

/// Whether changes that cannot be served may be left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// No: they are a [`Refusal`].
    Refuse,
    /// No, but for the beginning of a later epoch of which the metalogger has no image ([`Refusal::Unfollowed`]): no other machine
    /// has taken over with it.
    LastResort,
    /// Yes, the administrator allows it (`--allow-data-loss`): they are [`Note::Lost`].
    Allow,
}

/// A stretch of changes to take from one log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stretch {
    /// The change log.
    pub(crate) file: OsString,
    /// Byte offset in it from which the stretch is contiguous (at or before its first change).
    pub(crate) offset: u64,
    /// First change to take.
    pub(crate) first: u64,
    /// Last change to take.
    pub(crate) last: u64,
    /// About how many bytes they have.
    pub(crate) bytes: u64,
}

/// The metadata that a promotion is going to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Whose files.
    pub(crate) lineage: Lineage,
    /// What it starts from.
    pub(crate) base: Base,
    /// The file system's identity; 0 if none is assigned (always so before 2.0).
    pub(crate) metaid: u64,
    /// Version of the base.
    pub(crate) base_version: Version,
    /// Size of the base in bytes.
    pub(crate) image_bytes: u64,
    /// The changes, contiguous from `base_version` on.
    pub(crate) stretches: Vec<Stretch>,
    /// Version of a master that has replayed them: `base_version` without any.
    pub(crate) end_version: Version,
    /// When the last change was made, in Unix seconds of the old master's clock.
    pub(crate) last_change_time: Option<u64>,
    /// How many changes are replayed.
    pub(crate) changes: u64,
    /// What was decided, cut and left out.
    pub(crate) notes: Vec<Note>,
    /// The epoch that a promotion begins.
    pub(crate) epoch: u64,
    /// Regular files to move out of the data folder, sorted: everything that looks like metadata, used or not.
    pub(crate) set_aside: Vec<OsString>,
}

/// The best that one lineage has.
struct Candidate {
    base: Base,
    version: Version,
    bytes: u64,
    stretches: Vec<Stretch>,
    end: Version,
    /// Where this machine's own files end, if the metalogger's go on from there.
    own_end: Version,
    last_change: Option<u64>,
}

/// Changes that follow one another.
struct Followed {
    stretches: Vec<Stretch>,
    end: Version,
    /// Unix seconds of the last change.
    last_change: Option<u64>,
}

impl Candidate {
    fn new(file: &ImageFile, version: Version, Followed { stretches, end, last_change }: Followed) -> Self {
        let base = match file.image {
            Image::Complete { signature, version, metaid } => {
                Base::Image { name: file.name.clone(), signature, version, metaid }
            }
            _ => Base::New,
        };
        Self { base, version, bytes: file.size, stretches, end, own_end: end, last_change }
    }
}

impl Plan {
    /// About how many bytes the staged change log has when all ids are raised by `jump`.
    pub(crate) fn log_bytes(&self, jump: EpochJump) -> u64 {
        let digits = |version: Version| u64::from(version.0.checked_ilog10().unwrap_or_default());
        let longer = digits(self.end_version + jump) - digits(self.base_version);
        self.stretches.iter().map(|stretch| stretch.bytes).sum::<u64>() + longer * self.changes
    }

    /// What a promotion raises all versions by. It begins an epoch after the highest one that this machine knows of: other
    /// machines may have followed histories of these, also ones that are left behind here, and must notice that this is
    /// another one. No number of changes that are left behind matters: an epoch has more.
    ///
    /// A new file system has no version to raise, and only images of the 2.0 format are known to bear it.
    pub(crate) fn jump(&self) -> EpochJump {
        if self.base.has_epochs() { EpochJump::epochs(self.epoch - self.end_version.epoch()) } else { EpochJump::NONE }
    }

    /// The version that a promotion serves: a jump to a later epoch ends with a change of its own. Chunks that have to be
    /// unlocked, which are not known before the logs are copied, come on top.
    pub(crate) fn served(&self) -> Version {
        let jump = self.jump();
        (self.end_version + jump).with_changes(u64::from(jump > EpochJump::NONE))
    }
}

/// Makes the plan for the files in the data folder.
pub(crate) fn make(inventory: &Inventory, loss: Loss) -> Result<Plan, Refusal> {
    nothing_in_the_way(inventory)?;
    one_file_system(inventory)?;
    let own = candidate(inventory, Lineage::Own).map(|own| continued(inventory, own));
    let ml = candidate(inventory, Lineage::Ml);
    let (lineage, chosen, choice, left_out) = choose(inventory, own.as_ref(), ml.as_ref(), loss)?;
    no_step_back(inventory, lineage, chosen.end)?;
    let metaid = metaid_of(inventory, chosen)?;
    let mut notes = vec![Note::Lineage(choice)];
    notes.extend(left_out);
    match (nothing_lost(inventory, lineage, chosen, Loss::Refuse), loss) {
        (Ok(()), Loss::Refuse | Loss::LastResort) => (),
        (Err(refusal), Loss::Refuse) => return Err(refusal),
        (Err(_), Loss::LastResort) => {
            nothing_lost(inventory, lineage, chosen, loss)?;
            notes.extend(lost(inventory, lineage, chosen));
        }
        (_, Loss::Allow) => notes.extend(lost(inventory, lineage, chosen)),
    }
    notes.extend(left_behind(inventory, lineage, chosen.end).into_iter().map(|span| Note::LeftOut {
        lineage,
        first: span.first,
        last: span.last,
    }));
    notes.extend(log_notes(inventory, lineage, chosen));
    notes.extend(unlogged(inventory, lineage, chosen));
    notes.extend(file_notes(inventory));
    notes.extend(other_histories(inventory, lineage, chosen.end));
    Ok(Plan {
        lineage,
        base: chosen.base.clone(),
        metaid,
        base_version: chosen.version,
        image_bytes: chosen.bytes,
        stretches: chosen.stretches.clone(),
        end_version: chosen.end,
        last_change_time: chosen.last_change,
        changes: chosen.end.changes_since(chosen.version),
        notes,
        // Not that of another machine which is promoted from the same copy at the same time, in another part of the network.
        epoch: known_epoch(inventory).max(chosen.end.epoch()).saturating_add(1).saturating_add(inventory.rank),
        set_aside: set_aside(inventory),
    })
}

/// The highest epoch that anything here tells of, used or not.
fn known_epoch(inventory: &Inventory) -> u64 {
    let images = inventory.images.iter().filter_map(|file| file.image.version());
    let logs = inventory.logs.iter().filter_map(|log| log.scan.last()).map(Version::after);
    let here = images.chain(logs).map(Version::epoch).max();
    let unserved = inventory.unserved.map_or(0, |unserved| unserved.last.epoch());
    // No master can serve a version beyond the limit: what remembers one remembers nonsense.
    let possible = |epoch: &u64| *epoch <= Version(LIMIT).epoch();
    [here, Some(inventory.remembered_epoch), Some(unserved)]
        .into_iter()
        .flatten()
        .filter(possible)
        .max()
        .unwrap_or_default()
}

fn nothing_in_the_way(inventory: &Inventory) -> Result<(), Refusal> {
    // Names the new master writes: a folder there makes it fail. Other folders it reads as bad images and passes over.
    let written = ["metadata.mfs", "metadata.mfs.back", "metadata.mfs.back.tmp", "changelog.0.mfs"];
    for other in &inventory.others {
        let in_the_way = match other.what {
            // mfsmaster opens every metadata* and changelog*: it follows a link, and waits for ever on a FIFO.
            What::NotAFile(what) => Some(what),
            What::Folder if written.iter().any(|name| other.name == *name) => Some("is a folder"),
            _ => None,
        };
        if let Some(what) = in_the_way {
            let file = other.name.clone();
            return Err(Refusal::InTheWay { file, what });
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
            _ if second == 0 => {}
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
    if let Some((version, file)) = inventory.best_image(lineage) {
        return Some(Candidate::new(file, version, follow(inventory, &spans, version)));
    }
    // `MFSM NEW` is a file system only together with its whole history; ids from 0 are those of 1.6.
    let has = |id: u64| spans.iter().any(|s| (s.first..=s.last).contains(&id));
    let mut images = inventory.images.iter().filter(|image| image.lineage == lineage);
    let new =
        images.find(|file| file.image == Image::New && matches!(file.origin, Origin::Current | Origin::Download))?;
    let version = Version::NEW;
    (has(1) && !has(0)).then(|| Candidate::new(new, version, follow(inventory, &spans, version)))
}

/// The own files, continued by the metalogger's logs if these show that it is one history: they hold the last change of
/// the own files, and no common change differs.
fn continued(inventory: &Inventory, own: Candidate) -> Candidate {
    let same = matches!(inventory.overlap, Overlap::Agree { to, .. } if Version::after(to) == own.end);
    if !same {
        return own;
    }
    let (mut stretches, own_end) = (own.stretches, own.end);
    let rest = follow(inventory, &inventory.spans(Lineage::Ml), own_end);
    stretches.extend(rest.stretches);
    let last_change = rest.last_change.or(own.last_change);
    Candidate { stretches, end: rest.end, last_change, own_end, ..own }
}

/// The longest contiguous sequence of changes from `version` on.
fn follow(inventory: &Inventory, spans: &[Span], version: Version) -> Followed {
    let mut stretches = Vec::new();
    let (mut end, mut last_change) = (version, None);
    // All spans that hold an id hold the same change under it, so the longest one is as good as any.
    let next = |id: u64| {
        let holds = spans.iter().rev().filter(|s| (s.first..=s.last).contains(&id));
        holds.max_by_key(|s| s.last)
    };
    while let Some(span) = next(end.next_change()) {
        let segment = inventory.segment(span);
        stretches.push(Stretch {
            file: inventory.logs[span.log].name.clone(),
            offset: segment.start,
            first: end.next_change(),
            last: span.last,
            bytes: share(segment, Version::after(span.last).changes_since(end)),
        });
        end = Version::after(span.last);
        last_change = Some(segment.last_time);
    }
    Followed { stretches, end, last_change }
}

/// About how many bytes this number of changes of a segment has.
fn share(segment: &Segment, changes: u64) -> u64 {
    let all = u128::from(segment.last - segment.first + 1);
    let bytes = u128::from(segment.end - segment.start) * u128::from(changes);
    u64::try_from(bytes.div_ceil(all)).unwrap_or(u64::MAX)
}

/// The metaid of the base, else the one its changes assign; both must be the same.
fn metaid_of(inventory: &Inventory, chosen: &Candidate) -> Result<u64, Refusal> {
    let (mut known, mut from) = match &chosen.base {
        Base::Image { name, metaid, .. } => (*metaid, name.clone()),
        Base::New => (0, OsString::new()),
    };
    for stretch in &chosen.stretches {
        let log = inventory.logs.iter().find(|log| log.name == stretch.file);
        let Some(set) = log.and_then(|log| log.scan.metaid) else {
            continue;
        };
        if !(stretch.first..=stretch.last).contains(&set.change) {
            continue;
        }
        if known != 0 && known != set.metaid {
            return Err(Refusal::Metaids {
                first_file: from,
                first: known,
                second_file: stretch.file.clone(),
                second: set.metaid,
            });
        }
        (known, from) = (set.metaid, stretch.file.clone());
    }
    Ok(known)
}

/// Torn, damaged and contradicting places that concern changes the plan needs.
fn log_notes(inventory: &Inventory, lineage: Lineage, chosen: &Candidate) -> Vec<Note> {
    let mut notes = Vec::new();
    let used =
        |log: &&LogFile| log.lineage == lineage || chosen.stretches.iter().any(|stretch| stretch.file == log.name);
    for log in inventory.logs.iter().filter(used) {
        notes.extend(damage_notes(log, chosen));
        let Some(torn) = log.scan.torn else { continue };
        // The torn change is the one behind the last segment; of a log with nothing else it is not known.
        let change = log.scan.segments.last().map(|s| s.last + 1);
        if !change.is_some_and(|id| chosen.version.has(id)) {
            notes.push(Note::Torn {
                file: log.name.clone(),
                torn,
                bridged: change.is_some_and(|id| chosen.end.has(id)),
            });
        }
    }
    for conflict in &inventory.conflicts {
        let (kept, dead) = (&inventory.logs[conflict.kept.0], &inventory.logs[conflict.dead.0]);
        let last = dead.scan.segments[conflict.dead.1].last;
        if kept.lineage == lineage && !chosen.version.has(last) {
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
        let relevant = after.or(before).is_none_or(|s: &Segment| Version::after(s.last) >= chosen.version);
        let bridged = match (after, before) {
            _ if damage.kind == Kind::GivenUp => false,
            (Some(after), _) => after.first <= chosen.end.next_change(),
            (None, Some(before)) => Version::after(before.last) < chosen.end,
            (None, None) => false,
        };
        relevant.then(|| Note::Damage { file: log.name.clone(), damage: *damage, bridged })
    };
    log.scan.damage.iter().filter_map(note).collect()
}

/// A note that the metalogger's image stands alone. The metalogger drops its logs before it downloads the image of
/// another master; until the download is complete, it has an old image only.
fn unlogged(inventory: &Inventory, lineage: Lineage, chosen: &Candidate) -> Option<Note> {
    let Base::Image { name, .. } = &chosen.base else { return None };
    // A log of a later epoch is none of what came after it.
    let epoch = chosen.end.epoch();
    let of_it = |log: &LogFile| log.scan.last().is_none_or(|last| Version::after(last).epoch() == epoch);
    let followed = inventory.logs.iter().any(|log| log.lineage == Lineage::Ml && !log.fetched() && of_it(log));
    let image = inventory.images.iter().find(|image| image.name == *name)?;
    let alone = lineage == Lineage::Ml && !followed;
    alone.then(|| Note::Unlogged { file: name.clone(), modified: image.modified })
}

fn file_notes(inventory: &Inventory) -> Vec<Note> {
    let mut notes = Vec::new();
    for image in &inventory.images {
        if let Image::Incomplete { reason, .. } = image.image {
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

fn other_histories(inventory: &Inventory, lineage: Lineage, end: Version) -> impl Iterator<Item = Note> {
    let images = inventory.images.iter().filter(move |image| image.lineage == lineage);
    let versions = images.filter_map(|image| Some((image, image.base_version()?)));
    let others = versions.filter(move |(_, version)| choice::superseded(inventory, *version, end));
    others.map(|(image, version)| Note::OtherHistory { file: image.name.clone(), version })
}

fn set_aside(inventory: &Inventory) -> Vec<OsString> {
    let others = inventory.others.iter().filter(|other| match other.what {
        What::Sessions | What::Checksums | What::Temporary | What::Foreign | What::Unreadable(_) => true,
        What::Template | What::Folder | What::NotAFile(_) => false,
    });
    let names = others.map(|other| &other.name);
    let names = names.chain(inventory.images.iter().map(|image| &image.name));
    let mut names: Vec<OsString> = names.chain(inventory.logs.iter().map(|log| &log.name)).cloned().collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests;
