//! Which of the two lineages a plan serves, or why none can be chosen.

use std::ffi::OsString;

use super::{Candidate, Loss};
use crate::metadata::image::Image;
use crate::metadata::inventory::{Inventory, Origin, Overlap};
use crate::metadata::note::{Choice, Note, Refusal};
use crate::metadata::{Lineage, Version};

pub(super) type Chosen<'a> = (Lineage, &'a Candidate, Choice, Option<Note>);

/// The lineage to serve, why, and which part of the other one is left out.
pub(super) fn choose<'a>(
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
    match inventory.overlap {
        Overlap::Fork { at } => ml_with(Choice::OwnForked { at, own_time: own.time, ml_time: ml.time }, left_out(at)),
        _ if own.end <= ml.end => {
            ml_with(Choice::MlReachesFurther { own: own.own_end }, left_out(ml.end.next_change()))
        }
        _ if own.end > own.own_end => Ok((Lineage::Own, own, own_alone(own), None)),
        _ if one_history => Ok((Lineage::Own, own, Choice::OwnReachesFurther { ml: ml.end }, None)),
        _ if own.time < ml.time => ml_with(Choice::OwnOlder { own: own.end }, left_out(ml.end.next_change())),
        // A file's date is no proof of that: a copy has a new one.
        _ if !ends_in_a_log(inventory, own) => Err(Refusal::Unrelated { own: own.end, ml: ml.end }),
        _ => Ok((Lineage::Own, own, Choice::OwnReachesFurther { ml: ml.end }, None)),
    }
}

/// Without an image of the metalogger that goes as far.
fn own_alone(own: &Candidate) -> Choice {
    if own.end > own.own_end { Choice::OwnContinued { own: own.own_end } } else { Choice::OnlyOwn }
}

/// Whether a log of this machine's own says when the last change before the end was made.
fn ends_in_a_log(inventory: &Inventory, own: &Candidate) -> bool {
    inventory.spans(Lineage::Own).iter().any(|span| Version::after(span.last) == own.end)
}

/// No kept image is of a higher version than the one that replaced it: one history only goes up.
pub(super) fn no_step_back(inventory: &Inventory, lineage: Lineage) -> Result<(), Refusal> {
    let highest = |origin: Origin| {
        let images = inventory.images.iter().filter(|i| i.lineage == lineage && i.origin == origin);
        let versions = images.filter_map(|file| file.base_version().map(|version| (version, &file.name)));
        versions.max_by_key(|(version, _)| *version)
    };
    match (highest(Origin::Current), highest(Origin::Previous)) {
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
        let of_own = i64::try_from(i.modified).is_ok_and(|modified| inventory.served.contains(&modified));
        i.lineage == Lineage::Ml && cut && i.modified > own.time && !of_own
    });
    let log = inventory.spans(Lineage::Ml).into_iter().find(|span| {
        let later = inventory.segment(span).last_time > own.time;
        !own.end.has(span.last)
            || match inventory.overlap {
                Overlap::Fork { .. } => true,
                Overlap::None => later,
                Overlap::Agree { .. } | Overlap::Image { .. } => false,
            }
    });
    let log = log.map(|span| inventory.logs[span.log].name.clone());
    image.map(|i| i.name.clone()).or(log)
}
