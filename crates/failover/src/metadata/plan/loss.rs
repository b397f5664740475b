//! Changes that a plan leaves behind: a [`Refusal`], or a note for each file where the administrator allows it.

use super::choice::{may_be_later, superseded, unserved};
use super::{Base, Candidate, Loss};
use crate::metadata::changelog::{Kind, MAX_LINE_1};
use crate::metadata::image::{Flaw, Image};
use crate::metadata::inventory::{ImageFile, Inventory, LogFile, Overlap, Span, What};
use crate::metadata::names;
use crate::metadata::note::{Note, Refusal};
use crate::metadata::{Lineage, Version};
use crate::timing;

/// No log holds changes that a plan which ends at `end` leaves behind.
pub(super) fn nothing_lost(
    inventory: &Inventory,
    lineage: Lineage,
    chosen: &Candidate,
    loss: Loss,
) -> Result<(), Refusal> {
    let end = chosen.end;
    no_contradiction(inventory, lineage, chosen)?;
    nothing_beyond(inventory, lineage, end, loss)?;
    nothing_unread(inventory, lineage, chosen)?;
    if let Some((file, flaw, version)) = later_cut(inventory, lineage, chosen) {
        let file = file.name.clone();
        if !begins_later(version, end) {
            return Err(if version > end {
                Refusal::Cut { file, flaw, version, end }
            } else {
                Refusal::OtherMaster { file, flaw, version, end }
            });
        }
        if loss == Loss::Refuse {
            return Err(Refusal::Unfollowed { file, version, end });
        }
    }
    if lineage == Lineage::Own { ml_has_no_more(inventory, end) } else { Ok(()) }
}

/// Changes that a plan leaves behind because the administrator allows it: one note for each file.
pub(super) fn lost(inventory: &Inventory, lineage: Lineage, chosen: &Candidate) -> Vec<Note> {
    let end = chosen.end;
    let mut notes: Vec<Note> = Vec::new();
    let spans = inventory.spans(lineage).into_iter().map(|span| (end.next_change(), span));
    // Beside own files, all that the metalogger has of another history is lost, also below the end.
    let others = if lineage == Lineage::Own { inventory.spans(Lineage::Ml) } else { Vec::new() };
    let from = match inventory.overlap {
        Overlap::Agree { .. } | Overlap::Image { .. } => end.next_change(),
        Overlap::Fork { at } => at.min(end.next_change()),
        Overlap::None if inventory.served_last => end.next_change(),
        Overlap::None => 0,
    };
    let others = others.into_iter().map(|span| (from, span));
    for (from, span) in spans.chain(others).filter(|(from, span)| span.last >= *from) {
        let file = inventory.logs[span.log].name.clone();
        notes.push(Note::Lost { end, changes: Some((span.first.max(from), span.last)), file });
    }
    if lineage == Lineage::Own {
        // Beside those of the plan's own logs.
        let copies = inventory.logs.iter().filter(|log| log.lineage == Lineage::Ml);
        let tail = |log: &LogFile| log.scan.damage.iter().find(|damage| damage.kind == Kind::Tail).copied();
        let tails = copies.filter_map(|log| Some((log.name.clone(), tail(log)?)));
        notes.extend(tails.map(|(file, damage)| Note::Damage { file, damage, bridged: false }));
    }
    let known = later_cut(inventory, lineage, chosen);
    if let Some((file, _, version)) = known {
        let changes = (version > end).then(|| (end.next_change(), version.last_change()));
        notes.push(Note::Lost { end, changes, file: file.name.clone() });
    } else if lineage == Lineage::Own {
        let images = inventory.images.iter().filter(|image| may_be_later(inventory, image, chosen));
        notes.extend(images.map(|i| Note::Lost { end, changes: None, file: i.name.clone() }));
    }
    notes
}

/// The incomplete image with the highest version in its header of those that show a later history: a download that was cut
/// off, or a failed disk. Its version is above the plan's end; or it was downloaded after the base and is of an earlier epoch: the
/// metalogger has gone on to another master, whose history was the one to stay after a split.
fn later_cut<'a>(
    inventory: &'a Inventory,
    lineage: Lineage,
    chosen: &Candidate,
) -> Option<(&'a ImageFile, Flaw, Version)> {
    let base = match &chosen.base {
        Base::Image { name, .. } => inventory.images.iter().find(|image| image.name == *name),
        Base::New => None,
    };
    let since = |file: &ImageFile| {
        file.lineage == Lineage::Ml
            && base.is_none_or(|base| base.lineage == Lineage::Own || file.origin.age() < base.origin.age())
    };
    let later = |file: &ImageFile, version: Version| {
        let end = chosen.end;
        if since(file) {
            (version > end || version.epoch() < end.epoch()) && !unserved(inventory, version, end)
        } else {
            version > end && !superseded(inventory, version, end)
        }
    };
    let images = inventory.images.iter().filter(|i| i.lineage == lineage || i.lineage == Lineage::Ml);
    let cut = images.filter_map(|file| match file.image {
        Image::Incomplete { reason, header: Some(header) } => Some((file, reason, header.version)),
        _ => None,
    });
    cut.filter(|(file, _, version)| later(file, *version)).max_by_key(|(_, _, version)| *version)
}

/// Spans of a lineage beyond `end` that hold another history, of which the newest files of the metalogger are not.
pub(super) fn left_behind(inventory: &Inventory, lineage: Lineage, end: Version) -> Vec<Span> {
    let spans = inventory.spans(lineage);
    // The metalogger drops its logs for a new history, but not those that it has fetched before, and not at its start.
    let newest = spans.iter().find(|span| inventory.logs[span.log].is_followed());
    let newest = newest.is_none_or(|span| end.has(span.last));
    spans.into_iter().filter(|span| newest && superseded(inventory, Version::after(span.last), end)).collect()
}

/// Where logs of the lineage contradict each other, it is known which one is the later.
fn no_contradiction(inventory: &Inventory, lineage: Lineage, chosen: &Candidate) -> Result<(), Refusal> {
    let uncertain = inventory.conflicts.iter().filter(|conflict| !conflict.certain);
    let mut named = uncertain.map(|c| (c.at, &inventory.logs[c.kept.0], &inventory.logs[c.dead.0]));
    match named.find(|(at, kept, _)| kept.lineage == lineage && !chosen.version.has(*at)) {
        Some((at, kept, dead)) => {
            Err(Refusal::Contradiction { at, newer: kept.name.clone(), other: dead.name.clone() })
        }
        None => Ok(()),
    }
}

/// Whether `version` is of a later epoch that had made few changes when it was there: the metalogger has heard of it, and could
/// not follow it any more.
fn begins_later(version: Version, end: Version) -> bool {
    version.epoch() > end.epoch() && version.position().saturating_sub(end.position()) <= timing::LAST_RESORT_CHANGES
}

/// No log of the lineage holds changes behind a hole at `end`.
pub(super) fn nothing_beyond(inventory: &Inventory, lineage: Lineage, end: Version, loss: Loss) -> Result<(), Refusal> {
    let behind = left_behind(inventory, lineage, end);
    let beyond = inventory.spans(lineage).into_iter().filter(|span| !end.has(span.last) && !behind.contains(span));
    let beyond: Vec<Span> = beyond.collect();
    let Some(first) = beyond.iter().min_by_key(|s| s.first) else {
        return Ok(());
    };
    let log = &inventory.logs[first.log];
    if beyond.iter().all(|span| begins_later(Version::after(span.last), end)) {
        let last = beyond.iter().map(|span| span.last).max().unwrap_or(first.last);
        let unfollowed = Refusal::Unfollowed { file: log.name.clone(), version: Version::after(last), end };
        return if loss == Loss::Refuse { Err(unfollowed) } else { Ok(()) };
    }
    let segment = inventory.segment(first);
    let previous = first.segment.checked_sub(1).map_or(0, |i| log.scan.segments[i].end);
    let damage = log.scan.damage.iter().find(|d| (previous..=segment.start).contains(&d.offset));
    Err(Refusal::Hole {
        needed: end.next_change(),
        first: first.first,
        last: beyond.iter().map(|s| s.last).max().unwrap_or(first.last),
        file: log.name.clone(),
        damage: damage.copied(),
    })
}

/// Every log that could hold more changes could be read to its end: none was given up, and the newest has lines, and behind them
/// no more than one that was torn.
fn nothing_unread(inventory: &Inventory, lineage: Lineage, chosen: &Candidate) -> Result<(), Refusal> {
    // The metalogger's files count even where the own ones are used: they must not know more.
    let logs = || inventory.logs.iter().filter(|log| log.lineage == lineage || log.lineage == Lineage::Ml);
    let newest = |lineage, rank| {
        let newer = logs().filter(|other| other.lineage == lineage && other.rank < rank);
        newer.map(|other| &other.scan.segments).all(Vec::is_empty)
    };
    for log in logs().filter(|log| log.scanned) {
        let file = log.name.clone();
        let unread = log.scan.damage.iter().find(|damage| match damage.kind {
            Kind::GivenUp => true,
            Kind::Garbage => log.scan.lines == 0 && newest(log.lineage, log.rank),
            _ => false,
        });
        if let Some(damage) = unread {
            return Err(Refusal::Unread { file, damage: *damage });
        }
        let tail = log.scan.damage.iter().find(|damage| damage.kind == Kind::Tail).map(|d| (d.offset, d.bytes));
        let torn = log.scan.torn.filter(|torn| !chosen.base.has_epochs() && torn.bytes >= MAX_LINE_1);
        if let Some((offset, bytes)) = tail.or(torn.map(|torn| (torn.offset, torn.bytes))) {
            // A newer log says by its numbers what is missing.
            if newest(log.lineage, log.rank) {
                return Err(Refusal::Tail { file, offset, bytes });
            }
        }
    }
    for other in &inventory.others {
        let (What::Unreadable(why), Some((log, rank))) = (&other.what, names::log(&other.name)) else { continue };
        if (log == lineage || log == Lineage::Ml) && newest(log, rank) {
            return Err(Refusal::Unreadable { file: other.name.clone(), why: why.clone() });
        }
    }
    Ok(())
}

/// The own files hold all that the metalogger's logs hold, also behind a hole.
fn ml_has_no_more(inventory: &Inventory, own: Version) -> Result<(), Refusal> {
    let spans = inventory.spans(Lineage::Ml).into_iter();
    let more = |span: &Span| !own.has(span.last) && !unserved(inventory, Version::after(span.last), own);
    match spans.filter(more).max_by_key(|s| s.last) {
        None => Ok(()),
        Some(Span { log, last, .. }) => Err(Refusal::MlHasMore { own, last, file: inventory.logs[log].name.clone() }),
    }
}
