//! Random histories: cut up, torn, repeated, and with another history in the same files.

use super::*;
use crate::metadata::inventory::Unserved;
use crate::metadata::stage;
use crate::metadata::testing::me;
use crate::sys::cancel::Cancel;
use crate::sys::folder::Folder;

/// No piece goes beyond this change.
const END: u64 = 60;

/// A piece of a history as a file holds it: first and last change, and how many bytes of the line behind them.
type Piece = (u64, u64, usize);

/// The valid history: another one than the dead branch from `fork` on, and written later.
fn valid(id: u64, fork: u64) -> String {
    line(id, u64::from(id >= fork))
}

/// One file of pieces, each a function of its ids; only the last one can be torn.
fn file(mut pieces: Vec<(Piece, bool)>, fork: u64) -> String {
    // A log that ends lower than it has been is one of two histories, not a piece of one.
    pieces.sort_by_key(|((_, last, _), _)| *last);
    let text = |id, dead| if dead { line(id, 0) } else { valid(id, fork) };
    let mut log = String::new();
    for ((first, last, _), dead) in &pieces {
        log.extend((*first..=*last).map(|id| text(id, *dead)));
    }
    if let Some(((_, last, torn), dead)) = pieces.last() {
        log += &text(last + 1, *dead)[..*torn];
    }
    log
}

/// Whether a piece can lie in one file with others: a dead one was written before them.
fn fits(pieces: &[(Piece, bool)], stray: (Piece, bool)) -> bool {
    let behind = |piece: &(Piece, bool)| !stray.1 || piece.1 || stray.0.1 < piece.0.1;
    pieces.iter().all(|piece| can_be_told_apart(*piece, stray) && behind(piece))
}

/// Not where a log goes on from one history to the other with the next number.
fn can_be_told_apart((a, a_dead): (Piece, bool), (b, b_dead): (Piece, bool)) -> bool {
    a_dead == b_dead || (a.1 + 1 != b.0 && b.1 + 1 != a.0)
}

fn staged(data: &Data, plan: &Plan) -> String {
    let dir = tempfile::tempdir().unwrap();
    let stage = Folder::open(dir.path()).unwrap();
    stage::write_log(&data.folder(), plan, &stage, me(), EpochJump::NONE, &Cancel::new()).unwrap();
    std::fs::read_to_string(dir.path().join(stage::LOG)).unwrap()
}

proptest! {
    /// However the valid history is cut up, torn and repeated, and whatever of a dead branch lies between its pieces or
    /// among the own files: what is staged is the valid history, all of it and nothing else.
    #[test]
    fn no_line_of_a_dead_branch_and_every_line_of_the_valid_history(
        version in 1_u64..50,
        fork in 2_u64..50,
        cuts in prop::collection::vec((0_u64..12, 0_u64..6), 1..8),
        strays in prop::collection::vec((piece(), any::<bool>(), 0_usize..8), 0..5),
        own in prop::collection::vec(piece(), 0..3),
        own_image in prop::option::of(1_u64..80),
        split in any::<bool>(),
    ) {
        // The valid history from the image on: pieces that overlap, each of the files holds one.
        let mut files: Vec<Vec<(Piece, bool)>> = Vec::new();
        let (mut end, mut torn) = (version, 5);
        for (length, back) in cuts {
            let first = end.saturating_sub(back).max(1);
            let last = (end + length).min(END);
            torn = (torn + 3) % 12;
            files.push(vec![((first, last, torn), false)]);
            end = last + 1;
        }
        // What goes beyond it would be a hole, or cannot be told apart where it begins exactly at its end. The dead branch
        // was written before anything of the valid history behind the fork.
        for ((first, last, torn), dead, at) in strays {
            let clash = first < end && last >= version.max(fork);
            if (dead && clash) || last < end {
                let stray = ((first, last, torn), dead);
                let at = if dead { 0 } else { at };
                match files.get_mut(at).filter(|pieces| fits(pieces, stray)) {
                    Some(pieces) => pieces.push(stray),
                    None => files.insert(if dead { 0 } else { files.len() }, vec![stray]),
                }
            }
        }
        prop_assume!(end > fork, "only then anything here is of the valid history and not of the dead branch");
        let count = files.len();
        let mut data = Data::new().image(ML, version, 1);
        for (number, pieces) in files.into_iter().enumerate() {
            // The newest has the lowest number.
            data = data.file(&format!("changelog_ml.{}.mfs", count - number), file(pieces, fork));
        }
        // This machine was promoted in a split, and lost the judgement.
        let raised = if split { EPOCH } else { 0 };
        for (number, (first, last, _)) in own.into_iter().enumerate() {
            data = data.log(&format!("changelog.{number}.mfs"), first + raised..=last + raised, 0);
        }
        if let Some(version) = own_image {
            data = data.image(OWN, version + raised, 1);
        }
        let mut inventory = data.inventory();
        inventory.unserved = split.then_some(Unserved { first: Version(raised), last: Version(raised + 80) });
        let plan = match make(&inventory, Loss::Refuse) {
            Ok(plan) => plan,
            // The own image goes further, and has no change in common.
            Err(Refusal::Unrelated { .. }) if !split => return Ok(()),
            Err(refusal) => return Err(TestCaseError::fail(refusal.to_string())),
        };
        prop_assert_eq!((plan.lineage, plan.end_version.0), (Lineage::Ml, end), "{:?}", plan);
        let expected: String = (version..end).map(|id| valid(id, fork)).collect();
        prop_assert_eq!(staged(&data, &plan), expected);
    }
}
