//! Which of the two lineages a plan serves, or why none can be chosen.

use std::ffi::OsString;

use super::{Candidate, Loss};
use crate::metadata::image::Image;
use crate::metadata::inventory::{ImageFile, Inventory, Origin, Overlap};
use crate::metadata::note::{Choice, Note, Refusal};
use crate::metadata::{Lineage, Version};

pub(super) type Chosen<'a> = (Lineage, &'a Candidate, Choice, Option<Note>);

/// The lineage to serve, why, and which part of the other one is left out.
///
/// Contents decide: changes or an image that both have, numbers, and what this machine remembers of itself. Clocks do not: those of
/// two masters differ, and a copied file has a new date.
pub(super) fn choose<'a>(
    inventory: &Inventory,
    own: Option<&'a Candidate>,
    ml: Option<&'a Candidate>,
    loss: Loss,
) -> Result<Chosen<'a>, Refusal> {
    let is_unserved =
        |candidate: &&Candidate| inventory.unserved.is_some_and(|unserved| unserved.is(candidate.own_end));
    let (own, ml) = match (own, ml) {
        (None, None) => {
            return Err(Refusal::Nothing { images: inventory.images.len(), logs: inventory.logs.len() });
        }
        (own, ml) if loss != Loss::Allow && own.into_iter().chain(ml).all(|candidate| is_unserved(&candidate)) => {
            let end = own.into_iter().chain(ml).map(|candidate| candidate.end).max().unwrap_or_default();
            return Err(Refusal::Unserved { end });
        }
        (None, Some(ml)) => return Ok((Lineage::Ml, ml, Choice::OnlyMl, None)),
        (Some(own), None) => {
            return match later_history(inventory, own) {
                Some(file) if loss != Loss::Allow => Err(Refusal::MlUnusable { own: own.end, file }),
                _ => Ok((Lineage::Own, own, own_alone(own), None)),
            };
        }
        (Some(own), Some(ml)) => (own, ml),
    };
    let left_out = |first: u64| {
        let last = inventory.spans(Lineage::Own).iter().map(|s| s.last).max();
        let last = last.unwrap_or(0).max(own.own_end.last_change());
        (last >= first).then_some(Note::LeftOut { lineage: Lineage::Own, first, last })
    };
    // Common changes show one history only if they include the end of one of them: later ones may differ.
    let one_history = match inventory.overlap {
        Overlap::Agree { to, .. } => Version::after(to) >= ml.end,
        Overlap::Image { version } => version >= ml.end,
        Overlap::None | Overlap::Fork { .. } => false,
    };
    let ml_with = |choice, note| Ok((Lineage::Ml, ml, choice, note));
    let own_with = |choice| Ok((Lineage::Own, own, choice, None));
    if let (Some(branch), false) = (inventory.unserved, is_unserved(&own) && is_unserved(&ml)) {
        if is_unserved(&own) {
            return ml_with(Choice::OwnUnserved { own: own.own_end }, left_out(branch.first.next_change()));
        }
        if is_unserved(&ml) {
            return own_with(Choice::MlUnserved { ml: ml.end });
        }
    }
    match inventory.overlap {
        Overlap::Fork { at } => ml_with(Choice::OwnForked { at }, left_out(at)),
        _ if own.end <= ml.end => {
            ml_with(Choice::MlReachesFurther { own: own.own_end }, left_out(ml.end.next_change()))
        }
        _ if own.end > own.own_end => own_with(own_alone(own)),
        _ if one_history => own_with(Choice::OwnReachesFurther { ml: ml.end }),
        _ if inventory.served_last && own.end.epoch() == ml.end.epoch() => {
            own_with(Choice::OwnServedLast { ml: ml.end })
        }
        _ if loss == Loss::Allow => ml_with(Choice::Unrelated { own: own.end }, left_out(ml.end.next_change())),
        _ => Err(Refusal::Unrelated { own: own.end, ml: ml.end }),
    }
}

/// Without an image of the metalogger that goes as far.
fn own_alone(own: &Candidate) -> Choice {
    if own.end > own.own_end { Choice::OwnContinued { own: own.own_end } } else { Choice::OnlyOwn }
}

/// Of one history only the newest image is the furthest one: no image is of a higher version than one that was downloaded
/// after it. An image of a later epoch is not: after a split, the history of the epoch before may have been the one to stay,
/// because more changes were made in it.
pub(super) fn no_step_back(inventory: &Inventory, lineage: Lineage, end: Version) -> Result<(), Refusal> {
    let highest = |kept: bool| {
        let images = inventory.images.iter().filter(|i| i.lineage == lineage);
        let images = images.filter(|i| match i.origin {
            Origin::Current => !kept,
            Origin::Previous(_) => kept,
            Origin::Download | Origin::Rescue => false,
        });
        let versions = images.filter_map(|file| file.base_version().map(|version| (version, &file.name)));
        versions.max_by_key(|(version, _)| *version)
    };
    match (highest(false), highest(true)) {
        (Some((current, newer)), Some((previous, older)))
            if previous > current && !superseded(inventory, previous, end) =>
        {
            Err(Refusal::StepBack { newer: newer.clone(), current, older: older.clone(), previous })
        }
        _ => Ok(()),
    }
}

/// Whether this machine remembers that a history up to `other` is in no served one, and that up to `end` is not it.
pub(super) fn unserved(inventory: &Inventory, other: Version, end: Version) -> bool {
    inventory.unserved.is_some_and(|unserved| unserved.is(other) && !unserved.is(end))
}

/// Whether a history up to `other` lost the judgement after a split, if the metalogger has gone on from it to one that ends at
/// `end`: fewer changes were made in it, in a later epoch.
pub(super) fn superseded(inventory: &Inventory, other: Version, end: Version) -> bool {
    unserved(inventory, other, end) || (other.epoch() > end.epoch() && end.reaches_further_than(other))
}

/// A file of the metalogger that may be of another history than own files that end at `own`, though it is no base itself: nothing
/// shows that it is of the same.
fn later_history(inventory: &Inventory, own: &Candidate) -> Option<OsString> {
    let image = inventory.images.iter().find(|image| may_be_later(inventory, image, own));
    let log = inventory.spans(Lineage::Ml).into_iter().find(|span| {
        !own.end.has(span.last)
            || match inventory.overlap {
                Overlap::Fork { .. } => true,
                Overlap::None => !inventory.served_last,
                Overlap::Agree { .. } | Overlap::Image { .. } => false,
            }
    });
    let log = log.map(|span| inventory.logs[span.log].name.clone());
    image.map(|i| i.name.clone()).or(log)
}

/// Whether this is a download that was cut off, and nothing says that it is of the history of `own`. A header that names a version
/// beyond `own`, or of another epoch, is judged as such; an earlier one of the same epoch is of the same history.
pub(super) fn may_be_later(inventory: &Inventory, file: &ImageFile, own: &Candidate) -> bool {
    let Image::Incomplete { header, .. } = &file.image else { return false };
    let unknown = header.is_none_or(|header| !own.base.has_epochs() && header.version <= own.end);
    file.lineage == Lineage::Ml && unknown && !inventory.served_last
}
