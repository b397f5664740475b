use super::*;
use crate::metadata::testing::{Data, image, line, lines, me};
use crate::metadata::version::EPOCH;
use proptest::prelude::*;
use std::os::unix::fs::MetadataExt;

const JUMP: u64 = EPOCH;

fn staged(data: &Data, jump: u64) -> (Data, Result<Written, Error>) {
    let (plan, stage, cancel) = (data.plan().unwrap(), Data::new(), Cancel::new());
    let folder = data.folder();
    let written = copy_image(&folder, &plan, &stage.folder(), me(), EpochJump(jump), &cancel)
        .and_then(|()| write_log(&folder, &plan, &stage.folder(), me(), EpochJump(jump), &cancel));
    (stage, written)
}

fn content(stage: &Data, name: &str) -> Vec<u8> {
    std::fs::read(stage.path(name)).unwrap()
}

fn simple() -> Data {
    Data::new()
        .image("metadata_ml.mfs.back", 10, 1)
        .log("changelog_ml_back.0.mfs", 1..=15, 0)
        .file("changelog_ml.0.mfs", lines(12..=20, 0) + "21: 17")
}

#[test]
fn a_staged_set() {
    let (stage, written) = staged(&simple(), 0);
    assert_eq!(content(&stage, IMAGE), image(10, 1));
    assert_eq!(String::from_utf8(content(&stage, LOG)).unwrap(), lines(10..=20, 0));
    assert_eq!(written.unwrap(), Written { served: Version(21), unlocked: 0 });
    for name in [IMAGE, LOG] {
        let status = std::fs::metadata(stage.path(name)).unwrap();
        assert_eq!((status.mode() & 0o7777, status.uid()), (0o640, me().uid));
    }
}

#[test]
fn a_stage_that_does_not_fit_leaves_room_for_the_daemons() {
    crate::sys::testing::small_disk(14, |disk| {
        let file = File::create(disk.join(LOG)).unwrap();
        let full = flushing(&file, LOG.as_ref(), |mut flush| {
            loop {
                (&file).write_all(&vec![0; BLOCK]).map_err(failed("write", LOG.as_ref()))?;
                flush.wrote(BLOCK as u64).map_err(failed("write", LOG.as_ref()))?;
            }
        });
        let full: Error = full.map(|(): ()| ()).unwrap_err();
        assert!(matches!(&full, Error::Io { source, .. } if source.raw_os_error().is_none()), "{full:?}");
        assert_eq!(file.metadata().unwrap().len(), 12 << 20);
    });
}

#[test]
fn a_jump_raises_the_version_and_every_id() {
    let (stage, written) = staged(&simple(), JUMP);
    assert_eq!(content(&stage, IMAGE), image(10 + JUMP, 1));
    let expected: String =
        (10..=20).map(|id| line(id, 0).replacen(&id.to_string(), &(id + JUMP).to_string(), 1)).collect();
    assert_eq!(String::from_utf8(content(&stage, LOG)).unwrap(), expected);
    assert!(written.is_ok());
}

#[test]
fn a_plan_without_changes_gives_an_empty_log() {
    let (stage, written) = staged(&Data::new().image("metadata_ml.mfs.back", 10, 1), JUMP);
    assert_eq!((written.unwrap().served, content(&stage, LOG)), (Version(10 + JUMP), vec![]));
}

#[test]
fn a_chunk_whose_writer_the_crash_cut_off_is_unlocked_behind_the_plan() {
    let written = "21: 2000000|WRITE(996,0,1,0):596\n";
    let log = lines(10..=20, 0) + written;
    let data = Data::new().image("metadata_ml.mfs.back", 10, 1).file("changelog_ml.0.mfs", &log);
    let (stage, written) = staged(&data, 0);
    assert_eq!(written.unwrap(), Written { served: Version(23), unlocked: 1 });
    assert_eq!(String::from_utf8(content(&stage, LOG)).unwrap(), log + "22: 2000000|UNLOCK(596)\n");
}

#[test]
fn real_sets() {
    for (set, first, last) in [("3.0.117-glued-ml", 67, 919), ("3.0.117-new-ml", 1, 65), ("1.6.19-ml", 302, 602)] {
        let (stage, written) = staged(&Data::real(set), 0);
        assert!(written.is_ok(), "{set}");
        let scan = changelog::scan(content(&stage, LOG).as_slice()).unwrap();
        assert_eq!((scan.first(), scan.last(), scan.segments.len()), (Some(first), Some(last), 1), "{set}");
    }
}

#[test]
fn what_cannot_be_renumbered_is_refused() {
    for set in ["3.0.117-new-ml", "1.6.19-ml"] {
        assert!(matches!(staged(&Data::real(set), JUMP).1, Err(Error::Jump { jump: EpochJump(JUMP) })), "{set}");
    }
    for jump in [u64::MAX, 1 << 63] {
        assert!(matches!(staged(&simple(), jump).1, Err(Error::Jump { .. })));
    }
}

/// The folder belongs to another user, and the metalogger may have run on: what changed after the plan is an error.
#[test]
fn files_that_changed_after_the_plan_are_an_error() {
    let plan = simple().plan().unwrap();
    let cancel = Cancel::new();
    let log = |data: &Data| write_log(&data.folder(), &plan, &Data::new().folder(), me(), EpochJump::NONE, &cancel);
    for (what, name, text) in [
        ("rotated", "changelog_ml.0.mfs", lines(21..=30, 0)),
        ("cut", "changelog_ml.0.mfs", lines(12..=17, 0)),
        ("torn earlier", "changelog_ml.0.mfs", lines(12..=19, 0) + line(20, 0).trim_end()),
        ("garbage", "changelog_ml_back.0.mfs", lines(1..=12, 0) + "\0\n" + &lines(13..=15, 0)),
    ] {
        assert!(matches!(log(&simple().file(name, text)), Err(Error::LogChanged { .. })), "{what}");
    }
    assert!(log(&simple().file("changelog_ml.0.mfs", lines(12..=50, 0))).is_ok(), "only longer");
    let image = |data: &Data| copy_image(&data.folder(), &plan, &Data::new().folder(), me(), EpochJump(JUMP), &cancel);
    assert!(matches!(image(&simple().image("metadata_ml.mfs.back", 11, 1)), Err(Error::ImageChanged { .. })));
    let gone = simple();
    std::fs::remove_file(gone.path("metadata_ml.mfs.back")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", gone.path("metadata_ml.mfs.back")).unwrap();
    assert!(matches!(image(&gone), Err(Error::Folder(folder::Error::NotAFile { .. }))));
}

#[test]
fn a_plan_with_a_gap_is_an_error() {
    let data = simple();
    let mut plan = data.plan().unwrap();
    plan.stretches.remove(0);
    let log = write_log(&data.folder(), &plan, &Data::new().folder(), me(), EpochJump::NONE, &Cancel::new());
    assert!(matches!(log, Err(Error::NotContiguous { expected: 10, .. })));
    plan.stretches.clear();
    let log = write_log(&data.folder(), &plan, &Data::new().folder(), me(), EpochJump::NONE, &Cancel::new());
    assert!(matches!(log, Err(Error::NotContiguous { expected: 10, found: 21 })));
}

#[test]
fn cancelling_ends_it() {
    let (data, cancel) = (simple(), Cancel::new());
    cancel.cancel();
    let plan = data.plan().unwrap();
    let log = write_log(&data.folder(), &plan, &Data::new().folder(), me(), EpochJump::NONE, &cancel);
    assert!(matches!(log, Err(Error::Cancelled(_))));
}

#[test]
fn nothing_is_overwritten() {
    let (data, stage) = (simple(), Data::new().file(IMAGE, "").file(LOG, ""));
    let (plan, cancel) = (data.plan().unwrap(), Cancel::new());
    assert!(copy_image(&data.folder(), &plan, &stage.folder(), me(), EpochJump::NONE, &cancel).is_err());
    assert!(write_log(&data.folder(), &plan, &stage.folder(), me(), EpochJump::NONE, &cancel).is_err());
}

proptest! {
    /// Split over rotated files with overlaps, a torn end, restarts: staged exactly once, in order.
    #[test]
    fn the_staged_log_is_exactly_contiguous(
        cuts in prop::collection::vec((1_u64..40, 0_u64..5), 1..6),
        base in 1_u64..30,
        torn in 0_usize..12,
        jump in prop::sample::select(vec![0, JUMP]),
    ) {
        let mut data = Data::new().image("metadata_ml.mfs.back", base, 1);
        let (mut next, count) = (1_u64, cuts.len());
        for (index, (length, back)) in cuts.into_iter().enumerate() {
            let first = next.saturating_sub(back).max(1);
            next += length;
            let tail = line(next, 0);
            data = data.file(&format!("changelog_ml.{}.mfs", count - index), lines(first..next, 0) + &tail[..torn]);
        }
        let end = next.max(base);
        let (stage, written) = staged(&data, jump);
        prop_assert_eq!(written.unwrap().unlocked, 0);
        let scan = changelog::scan(content(&stage, LOG).as_slice()).unwrap();
        prop_assert_eq!((scan.damage.len(), scan.torn), (0, None));
        if end > base {
            let found: Vec<_> = scan.segments.iter().map(|segment| (segment.first, segment.last)).collect();
            prop_assert_eq!(found, [(base + jump, end - 1 + jump)]);
        }
    }
}

#[test]
fn digits_are_counted_as_numbers_are() {
    for from in [0_u64, 8, 9, 98, 99, 1_099, 999_999] {
        let mut digits = from.to_string().into_bytes();
        for number in from + 1..from + 30 {
            writer::count_on(&mut digits);
            assert_eq!(digits, number.to_string().as_bytes());
        }
    }
}
