//! Changes that a plan leaves behind: a [`Refusal`], or a note for each file where the administrator allows it.

use super::Candidate;
use crate::metadata::changelog::Kind;
use crate::metadata::image::{Flaw, Image};
use crate::metadata::inventory::{ImageFile, Inventory, Overlap, Span, What};
use crate::metadata::names;
use crate::metadata::note::{Note, Refusal};
use crate::metadata::{Lineage, Version};

/// No log holds changes that a plan which ends at `end` leaves behind.
pub(super) fn nothing_lost(inventory: &Inventory, lineage: Lineage, end: Version) -> Result<(), Refusal> {
    nothing_beyond(inventory, lineage, end)?;
    nothing_unread(inventory, lineage)?;
    if let Some((file, flaw, version)) = later_cut(inventory, lineage, end) {
        return Err(Refusal::Cut { file: file.name.clone(), flaw, version, end });
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
        Overlap::None => 0,
    };
    let later = |span: &Span| match inventory.overlap {
        Overlap::None => !end.has(span.last) || inventory.segment(span).last_time > chosen.time,
        Overlap::Agree { .. } | Overlap::Image { .. } | Overlap::Fork { .. } => true,
    };
    let others = others.into_iter().filter(later).map(|span| (from, span));
    for (from, span) in spans.chain(others).filter(|(from, span)| span.last >= *from) {
        let file = inventory.logs[span.log].name.clone();
        notes.push(Note::Lost { end, changes: Some((span.first.max(from), span.last)), file });
    }
    let cut = |i: &&ImageFile| {
        i.lineage == Lineage::Ml && i.modified > chosen.time && matches!(i.image, Image::Incomplete { .. })
    };
    let known = later_cut(inventory, lineage, end);
    if let Some((file, _, version)) = known {
        notes.push(Note::Lost {
            end,
            changes: Some((end.next_change(), version.last_change())),
            file: file.name.clone(),
        });
    } else if lineage == Lineage::Own {
        let images = inventory.images.iter().filter(cut);
        notes.extend(images.map(|i| Note::Lost { end, changes: None, file: i.name.clone() }));
    }
    notes
}

/// The incomplete image with the highest version above `end` in its header: a download that was cut off, or a failed
/// disk.
fn later_cut(inventory: &Inventory, lineage: Lineage, end: Version) -> Option<(&ImageFile, Flaw, Version)> {
    let images = inventory.images.iter().filter(|i| i.lineage == lineage || i.lineage == Lineage::Ml);
    let cut = images.filter_map(|file| match file.image {
        Image::Incomplete { reason, header: Some(header) } => Some((file, reason, header.version)),
        _ => None,
    });
    cut.filter(|(_, _, version)| *version > end).max_by_key(|(_, _, version)| *version)
}

/// No log of the lineage holds changes behind a hole at `end`.
fn nothing_beyond(inventory: &Inventory, lineage: Lineage, end: Version) -> Result<(), Refusal> {
    let beyond: Vec<Span> = inventory.spans(lineage).into_iter().filter(|s| !end.has(s.last)).collect();
    let Some(first) = beyond.iter().min_by_key(|s| s.first) else {
        return Ok(());
    };
    let log = &inventory.logs[first.log];
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

/// Every log that could hold more changes could be read: not one that was given up, nor a newest log without a line.
fn nothing_unread(inventory: &Inventory, lineage: Lineage) -> Result<(), Refusal> {
    // The metalogger's files count even where the own ones are used: they must not know more.
    let logs = || inventory.logs.iter().filter(|log| log.lineage == lineage || log.lineage == Lineage::Ml);
    let newest = |lineage, rank| {
        let newer = logs().filter(|other| other.lineage == lineage && other.rank < rank);
        newer.map(|other| &other.scan.segments).all(Vec::is_empty)
    };
    for log in logs().filter(|log| log.scanned) {
        let unread = log.scan.damage.iter().find(|damage| match damage.kind {
            Kind::GivenUp => true,
            Kind::Garbage => log.scan.lines == 0 && newest(log.lineage, log.rank),
            _ => false,
        });
        if let Some(damage) = unread {
            return Err(Refusal::Unread { file: log.name.clone(), damage: *damage });
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
    match spans.filter(|s| !own.has(s.last)).max_by_key(|s| s.last) {
        None => Ok(()),
        Some(Span { log, last, .. }) => Err(Refusal::MlHasMore { own, last, file: inventory.logs[log].name.clone() }),
    }
}
