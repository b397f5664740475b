use super::*;
use crate::metadata::Severity;
use crate::metadata::inventory::Other;
use crate::metadata::testing::{Data, image_with, line, lines};
use crate::metadata::version::EPOCH;
use proptest::prelude::*;

mod histories;
mod lineages;

const ML: &str = "metadata_ml.mfs.back";
const ML_LOG: &str = "changelog_ml.0.mfs";
const OWN: &str = "metadata.mfs.back";
const OWN_LOG: &str = "changelog.0.mfs";

fn warnings(plan: &Plan) -> Vec<String> {
    let notes = plan.notes.iter().filter(|n| n.severity() == Severity::Warning);
    notes.map(ToString::to_string).collect()
}

/// Lineage, base version, end version.
fn outline(data: &Data) -> Result<(Lineage, u64, u64), Refusal> {
    data.plan().map(|p| (p.lineage, p.base_version.0, p.end_version.0))
}

#[test]
fn real_sets() {
    for (set, lineage, base, end) in [
        ("3.0.117-torn-ml", Lineage::Ml, 67, 796),
        ("3.0.117-new-ml", Lineage::Ml, 1, 66),
        ("3.0.117-glued-ml", Lineage::Ml, 67, 920),
        ("3.0.117-master", Lineage::Own, 67, 818),
        ("1.6.19-ml", Lineage::Ml, 302, 603),
        ("1.6.19-master", Lineage::Own, 302, 603),
    ] {
        assert_eq!(outline(&Data::real(set)), Ok((lineage, base, end)), "{set}");
    }
    let metaid = Data::real("3.0.117-new-ml").plan().unwrap().metaid;
    assert_eq!(metaid, 0x6b03_6efa_c9f9_df1c, "from SETMETAID");
}

#[test]
fn the_highest_complete_image_is_the_base() {
    let data = Data::new()
        .image("metadata_ml.mfs.back.2", 5, 1)
        .image("metadata_ml.mfs.back.1", 9, 1)
        .file(ML, "MFSM 2.0 cut off")
        .log(ML_LOG, 3..=20, 0);
    let plan = data.plan().unwrap();
    assert_eq!((plan.base_version.0, plan.end_version.0, plan.changes), (9, 21, 12));
    assert!(plan.notes.iter().any(|n| matches!(n, Note::Incomplete { file, .. } if file == ML)));
    assert_eq!(plan.last_change_time, Some(1_000_020));
}

#[test]
fn an_image_alone_is_enough_and_old_logs_do_not_matter() {
    assert_eq!(outline(&Data::new().image(ML, 30, 1)), Ok((Lineage::Ml, 30, 30)));
    let damaged = lines(1..=9, 0) + "garbage\n" + &lines(15..=18, 0) + "19: 17";
    let plan = Data::new().image(ML, 30, 1).file(ML_LOG, damaged).plan().unwrap();
    assert_eq!((plan.end_version.0, plan.changes, plan.stretches.len(), plan.notes.len()), (30, 0, 0, 1));
}

#[test]
fn overlapping_logs_are_merged() {
    let data = Data::new()
        .image(ML, 10, 1)
        .log("changelog_ml.0.mfs", 31..=40, 0)
        .log("changelog_ml.1.mfs", 20..=30, 0)
        .log("changelog_ml_back.0.mfs", 8..=25, 0)
        .log("changelog_ml_back.1.mfs", 1..=12, 0);
    let plan = data.plan().unwrap();
    let stretches: Vec<_> = plan.stretches.iter().map(|r| (r.file.to_str().unwrap(), r.first, r.last)).collect();
    let expected =
        [("changelog_ml_back.0.mfs", 10, 25), ("changelog_ml.1.mfs", 26, 30), ("changelog_ml.0.mfs", 31, 40)];
    assert_eq!(stretches, expected);
    assert_eq!(warnings(&plan), [""; 0]);
}

#[test]
fn a_torn_last_line_is_cut_and_reported() {
    let torn = |log: &str| Data::new().image(ML, 10, 1).file(ML_LOG, lines(10..=20, 0) + log);
    let plan = torn("21: 1000").plan().unwrap();
    assert_eq!(plan.end_version.0, 21);
    let offset = lines(10..=20, 0).len();
    let text = format!("{ML_LOG}: torn last line of 8 bytes at byte {offset} not used; no other log has that change");
    assert_eq!(warnings(&plan), [text]);
    let bridged = torn("21: 1000").log("changelog_ml_back.0.mfs", 5..=25, 0).plan().unwrap();
    assert_eq!((bridged.end_version.0, warnings(&bridged).len()), (26, 0));
}

#[test]
fn what_lies_behind_a_hole_is_never_dropped_silently() {
    let hole = lines(10..=20, 0) + &lines(25..=30, 0);
    let garbage = lines(10..=20, 0) + "garbage\n" + &lines(22..=30, 0);
    for (what, log, needed, first) in [
        ("hole", hole, 21, 25),
        ("garbage", garbage, 21, 22),
        ("log beginning above the base", lines(12..=30, 0), 10, 12),
    ] {
        let data = Data::new().image(ML, 10, 1).file(ML_LOG, log);
        match data.plan() {
            Err(Refusal::Hole { needed: n, first: f, last: 30, file, .. }) if file == ML_LOG => {
                assert_eq!((n, f), (needed, first), "{what}");
            }
            other => panic!("{what}: {other:?}"),
        }
        let bridged = data.log("changelog_ml_back.0.mfs", 5..=27, 0);
        let plan = bridged.plan().unwrap();
        assert_eq!((plan.end_version.0, warnings(&plan).len()), (31, 0), "{what}, bridged");
    }
}

#[test]
fn damage_with_nothing_behind_it_is_cut_and_reported() {
    let data = Data::new().image(ML, 10, 1).file(ML_LOG, lines(10..=20, 0) + "abc\n");
    let plan = data.plan().unwrap();
    assert_eq!((plan.end_version.0, warnings(&plan).len()), (21, 1));
    assert!(warnings(&plan)[0].contains("4 bytes of garbage"));
}

#[test]
fn an_end_of_unknown_extent_is_no_torn_line() {
    let ml = |tail: &str| Data::new().image(ML, 10, 1).file(ML_LOG, lines(10..=20, 0) + tail);
    let nuls = "\0".repeat(1 << 20);
    for (what, data) in [
        ("NULs", ml(&nuls)),
        ("a change far behind them", ml(&(nuls.clone() + &line(9000, 0)))),
        (
            "in the log before an empty one",
            ml("").file(ML_LOG, "").file("changelog_ml.1.mfs", lines(10..=20, 0) + &nuls),
        ),
        ("own files are used", Data::new().image(OWN, 10, 1).file(OWN_LOG, lines(10..=20, 0) + &nuls)),
        ("the copy of own files", ml(&nuls).image(OWN, 10, 1).log(OWN_LOG, 10..=25, 0)),
        ("a fetched log alone", ml("").file(ML_LOG, "").file("changelog_ml_back.0.mfs", lines(8..=20, 0) + &nuls)),
    ] {
        let refusal = data.plan().unwrap_err();
        assert!(matches!(refusal, Refusal::Tail { .. }), "{what}: {refusal}");
        assert!(refusal.others_have_more() && refusal.to_string().contains("--allow-data-loss"));
        let plan = data.lossy_plan().unwrap();
        assert!(warnings(&plan).iter().any(|warning| warning.contains("are no change log")), "{what}");
    }
    // The newer log goes on.
    let bridged = ml("").log(ML_LOG, 21..=30, 0).file("changelog_ml.1.mfs", lines(10..=20, 0) + &nuls);
    assert_eq!(outline(&bridged), Ok((Lineage::Ml, 10, 31)));
    // Lines of 1.x are shorter than those of later releases.
    let old = |bytes| {
        let data = Data::real("1.6.19-ml");
        let log = std::fs::read_to_string(data.path(ML_LOG)).unwrap();
        data.file(ML_LOG, log + "603: 1795|CREATE(1," + &"x".repeat(bytes))
    };
    assert!(old(9000).plan().is_ok());
    assert!(matches!(old(10_000).plan(), Err(Refusal::Tail { .. })));
    assert!(ml(&("21: 1795|SETXATTR(2,".to_owned() + &"x".repeat(10_000))).plan().is_ok());
}

#[test]
fn a_log_that_cannot_be_read_is_never_passed_over() {
    let garbage = lines(10..=20, 0).replace('\n', "\r\n");
    let twice = (10..=90).map(|id| lines([id, id], 0)).collect::<String>();
    for (what, log) in [("no line in it", &garbage), ("given up", &twice)] {
        let unread = |plan| matches!(plan, Err(Refusal::Unread { file, .. }) if file == ML_LOG);
        assert!(unread(Data::new().image(ML, 10, 1).file(ML_LOG, log).plan()), "{what}");
        let own = Data::new().image(OWN, 10, 1).log(OWN_LOG, 10..=30, 0).image(ML, 10, 1).file(ML_LOG, log);
        assert!(unread(own.plan()), "{what}, own used");
    }
    // Newer logs go on without a hole: whatever it was, it is not needed.
    let data = Data::new().image(ML, 10, 1).log(ML_LOG, 10..=20, 0).file("changelog_ml.1.mfs", garbage);
    assert_eq!(data.plan().unwrap().end_version.0, 21);
}

#[test]
fn a_log_whose_bytes_cannot_be_read_is_never_passed_over() {
    let with = |data: Data, name: &str| {
        let mut inventory = data.inventory();
        inventory.others.push(Other { name: name.into(), what: What::Unreadable("Input/output error".to_owned()) });
        make(&inventory, Loss::Refuse)
    };
    let data = || Data::new().image(ML, 10, 1).log("changelog_ml.1.mfs", 10..=20, 0);
    let unreadable = |plan| matches!(plan, Err(Refusal::Unreadable { .. }));
    assert!(unreadable(with(data(), ML_LOG)));
    assert!(unreadable(with(data().file(ML_LOG, "").image(OWN, 10, 1).log(OWN_LOG, 10..=30, 0), "changelog_ml.0.mfs")));
    // Newer logs go on without a hole, or nobody needs it: the own logs where the metalogger's are used, an old image.
    for name in ["changelog_ml.2.mfs", "changelog_ml_back.0.mfs", OWN_LOG, "metadata_ml.mfs.back.3"] {
        assert_eq!(with(data(), name).unwrap().end_version.0, 21, "{name}");
    }
}

#[test]
fn an_empty_file_system_needs_its_first_change() {
    let logs = |ids: std::ops::RangeInclusive<u64>| lines(ids, 0);
    for (what, image, log, expected) in [
        ("ml tmp", "metadata_ml.tmp", logs(1..=9), Some(10)),
        ("own", "metadata.mfs", logs(1..=9), Some(10)),
        ("own back", OWN, logs(1..=9), Some(10)),
        ("no log", "metadata_ml.tmp", String::new(), None),
        ("log from 2", "metadata_ml.tmp", logs(2..=9), None),
        ("log of 1.6", "metadata_ml.tmp", logs(0..=9), None),
        ("template", "metadata.mfs.empty", logs(1..=9), None),
        ("kept copy", "metadata.mfs.back.1", logs(1..=9), None),
    ] {
        let log_name = if image.contains("_ml") { ML_LOG } else { OWN_LOG };
        let data = Data::new().file(image, "MFSM NEW").file(log_name, log);
        let plan = data.plan();
        assert_eq!(plan.as_ref().ok().map(|p| p.end_version.0), expected, "{what}: {plan:?}");
        assert!(plan.is_err_and(|e| matches!(e, Refusal::Nothing { .. })) == expected.is_none());
    }
}

#[test]
fn a_whole_download_that_was_not_renamed_any_more_is_a_base() {
    assert_eq!(outline(&Data::new().image("metadata_ml.tmp", 10, 1)), Ok((Lineage::Ml, 10, 10)));
    // The metalogger has dropped its logs for it; an older image is no reason to lose what is in it.
    let data = Data::new().image(ML, 10, 1).image("metadata_ml.tmp", 200, 1).log("changelog_ml_back.0.mfs", 5..=20, 0);
    assert_eq!(outline(&data), Ok((Lineage::Ml, 200, 200)));
    let data = Data::new().image(ML, 10, 1).log(ML_LOG, 10..=30, 0).image("metadata_ml.tmp", 20, 1);
    assert_eq!(outline(&data), Ok((Lineage::Ml, 20, 31)));
    let foreign = Data::new().image(ML, 10, 1).image("metadata_ml.tmp", 20, 2);
    assert!(matches!(foreign.plan(), Err(Refusal::Metaids { .. })));
    // The end of 1.x also lies in the middle of an image.
    let mut old = b"MFSM 1.5".to_vec();
    old.resize(64, 0);
    old[19] = 200;
    let old = Data::new().file("metadata_ml.tmp", &old);
    assert_eq!(outline(&old), Err(Refusal::Nothing { images: 1, logs: 0 }));
    // What is no base does not decide which logs are read.
    let data = old.image(ML, 10, 1).file(ML_LOG, lines(10..=20, 0) + "garbage\n" + &lines(21..=30, 0));
    assert_eq!(outline(&data), Ok((Lineage::Ml, 10, 31)));
}

#[test]
fn a_cut_image_of_a_later_version_is_a_refusal_and_not_a_footnote() {
    let cut = |version| crate::metadata::testing::image(version, 1)[..30].to_vec();
    for (what, name) in [("a download", "metadata_ml.tmp"), ("a lost disk block", ML)] {
        let data = |version| {
            let data = Data::new().image("metadata_ml.mfs.back.1", 10, 1).log(ML_LOG, 10..=20, 0);
            data.file(name, cut(version))
        };
        assert_eq!(outline(&data(21)), Ok((Lineage::Ml, 10, 21)), "{what}: the logs have all of it");
        assert!(
            matches!(data(22).plan(), Err(Refusal::Cut { version: Version(22), end: Version(21), .. })),
            "{what}: one change"
        );
        let later = data(23);
        match later.plan() {
            Err(Refusal::Cut { file, version: Version(23), end: Version(21), .. }) => assert_eq!(file, name, "{what}"),
            other => panic!("{what}: {other:?}"),
        }
        let lossy = later.lossy_plan().unwrap();
        assert_eq!(losses(&lossy), vec![(Some((21, 22)), name)], "{what}");
    }
    // The own files are served only if the metalogger has not begun to fetch more.
    let own =
        |version| Data::new().image(OWN, 10, 1).log(OWN_LOG, 10..=20, 1_000_000).file("metadata_ml.tmp", cut(version));
    assert_eq!(outline(&own(21)), Ok((Lineage::Own, 10, 21)));
    assert!(matches!(own(500).plan(), Err(Refusal::Cut { version: Version(500), end: Version(21), .. })));
    // Not the other way round: an own dump that was cut off says nothing about what the metalogger heard.
    let ml = Data::new().image(ML, 10, 1).log(ML_LOG, 10..=20, 0).file("metadata.mfs.back.tmp", cut(500));
    assert_eq!(outline(&ml), Ok((Lineage::Ml, 10, 21)));
}

#[test]
fn an_image_without_any_log_is_told_to_stand_alone() {
    let alone = Data::new().image(ML, 10, 1).log("changelog_ml_back.0.mfs", 1..=15, 0).plan().unwrap();
    assert_eq!(alone.end_version.0, 16);
    assert!(warnings(&alone)[0].contains("stands alone, without a change log"));
    for (what, data) in [
        ("a log", Data::new().image(ML, 10, 1).log(ML_LOG, 10..=15, 0)),
        ("an empty log", Data::new().image(ML, 10, 1).file(ML_LOG, "")),
        ("an older log", Data::new().image(ML, 10, 1).log("changelog_ml.1.mfs", 5..=9, 0)),
    ] {
        assert_eq!(warnings(&data.plan().unwrap()), [""; 0], "{what}");
    }
}

#[test]
fn an_image_saved_in_need_counts() {
    let data = Data::new().image(OWN, 5, 1).image("metadata.mfs.emergency", 9, 1);
    assert_eq!(outline(&data), Ok((Lineage::Own, 9, 9)));
}

#[test]
fn two_file_systems_never_mix() {
    let data = Data::new().image(ML, 10, 1).image("metadata.mfs.back.3", 4, 2);
    assert!(matches!(data.plan(), Err(Refusal::Metaids { first: 2, second: 1, .. })));
    let data = Data::new().image(ML, 10, 1).image(OWN, 4, 0);
    assert_eq!(data.plan().unwrap().metaid, 1);
    let set = |at: u64| lines(8..at, 0) + &format!("{at}: 17|SETMETAID(7)\n") + &lines(at + 1..=20, 0);
    let data = Data::new().image(ML, 10, 1).file(ML_LOG, set(15));
    assert!(matches!(data.plan(), Err(Refusal::Metaids { first: 1, second: 7, .. })));
    assert_eq!(Data::new().image(ML, 10, 0).file(ML_LOG, set(15)).plan().unwrap().metaid, 7);
    assert_eq!(Data::new().image(ML, 10, 1).file(ML_LOG, set(9)).plan().unwrap().metaid, 1, "below the base");
}

#[test]
fn a_kept_image_above_its_successor_shows_two_histories() {
    let data = || Data::new().image(ML, 30, 1).log(ML_LOG, 30..=40, 1);
    let stale = data().image("metadata_ml.mfs.back.1", 50, 1);
    assert!(matches!(stale.plan(), Err(Refusal::StepBack { current: Version(30), previous: Version(50), .. })));
    assert_eq!(data().image("metadata_ml.mfs.back.1", 30, 1).plan().unwrap().end_version.0, 41);
    // Of the lineage that is not used it does not matter.
    let own = data().image(OWN, 10, 1).image("metadata.mfs.back.1", 20, 1);
    assert_eq!(own.plan().unwrap().end_version.0, 41);
}

#[test]
fn a_dead_branch_inside_one_lineage_is_left_and_named() {
    let data = Data::new()
        .image(ML, 5, 1)
        .file(ML_LOG, lines(1..=20, 0) + &lines(26..=30, 1))
        .file("changelog_ml_back.0.mfs", lines(1..=14, 0) + &lines(15..=25, 1));
    let plan = data.plan().unwrap();
    assert_eq!(plan.end_version.0, 31);
    let text =
        format!("{ML_LOG}: changes 15 to 20 differ from those in changelog_ml_back.0.mfs, which is newer; not used");
    assert_eq!(warnings(&plan), [text]);
}

#[test]
fn what_mfsmaster_would_run_into_is_refused() {
    let good = || Data::new().image(ML, 5, 1);
    let data = good();
    std::os::unix::fs::symlink(ML, data.path("metadata_link")).unwrap();
    assert!(matches!(data.plan(), Err(Refusal::InTheWay { .. })));
    for (name, fine) in [("metadata.mfs", false), ("changelog.0.mfs", false), ("metadata_old", true)] {
        let data = good();
        std::fs::create_dir(data.path(name)).unwrap();
        assert_eq!(data.plan().is_ok(), fine, "{name}");
    }
}

#[test]
fn everything_that_looks_like_metadata_is_set_aside() {
    let names = [
        "changelog.7.mfs",
        "changelog_ml.0.mfs",
        "changelog_ml.tmp",
        "metadata.crc",
        "metadata.mfs.abc123",
        "metadata_before_upgrade",
        "metadata_ml.mfs.back",
        "sessions_ml.mfs",
    ];
    let kept = ["metadata.mfs.empty", ".mfsmaster.lock", ".mfsmetalogger.lock", "stats.mfs", "notes.txt"];
    let data = names.iter().chain(&kept).fold(Data::new(), |data, name| data.file(name, ""));
    assert_eq!(data.image(ML, 5, 1).plan().unwrap().set_aside, names);
}

/// A piece of the history 1..=60 as one file holds it.
fn piece() -> impl Strategy<Value = (u64, u64, usize)> {
    (1_u64..60, 0_u64..30, 0_usize..12).prop_map(|(first, length, torn)| (first, (first + length).min(60), torn))
}

/// What the notes of a plan say is lost: changes and file.
fn losses(plan: &Plan) -> Vec<(Option<(u64, u64)>, &str)> {
    let lost = plan.notes.iter().filter_map(|note| match note {
        Note::Lost { changes, file, .. } => Some((*changes, file.to_str().unwrap())),
        _ => None,
    });
    lost.collect()
}

#[test]
fn what_an_allowed_loss_costs_is_named_with_its_numbers() {
    let hole = lines(10..=20, 0) + &lines(25..=30, 0);
    let data = Data::new().image(ML, 10, 1).file(ML_LOG, hole).log("changelog_ml.1.mfs", 40..=45, 0);
    assert!(matches!(data.plan(), Err(Refusal::Hole { .. })));
    let plan = data.lossy_plan().unwrap();
    assert_eq!((plan.end_version.0, plan.changes), (21, 11));
    assert_eq!(losses(&plan), [(Some((25, 30)), ML_LOG), (Some((40, 45)), "changelog_ml.1.mfs")]);
    let text = "lost: changes 25 to 30 of changelog_ml.0.mfs are not served: changes 21 to 24 are missing";
    assert!(warnings(&plan).contains(&text.to_owned()), "{:?}", warnings(&plan));
    assert!(plan.set_aside.contains(&ML_LOG.into()), "the archive has them");
}

#[test]
fn a_promotion_begins_the_epoch_after_every_one_that_is_known() {
    let epochs = |data: &Data| data.lossy_plan().unwrap().jump().0 / EPOCH;
    let in_epoch = |epoch: u64, position: u64| epoch * EPOCH + position;
    let ml = || Data::new().image(ML, 10, 1).log(ML_LOG, 10..=20, 0);
    assert_eq!((ml().plan().unwrap().end_version.0, epochs(&ml())), (21, 1));
    // A history of epoch 2, of which only changes behind a hole, a download that was cut off or own files are here.
    let hole = lines(10..=20, 0) + &lines(in_epoch(2, 30)..in_epoch(2, 40), 1);
    assert_eq!(epochs(&ml().file(ML_LOG, hole)), 3);
    let mut cut = crate::metadata::testing::image(in_epoch(2, 30), 1);
    cut.truncate(cut.len() - 5);
    assert_eq!(epochs(&ml().file("metadata_ml.tmp", cut)), 3);
    assert_eq!(epochs(&Data::new().image(ML, in_epoch(2, 30), 1).image(OWN, in_epoch(1, 30), 1)), 1, "from 2 to 3");
    // Remembered of another machine.
    let mut inventory = ml().inventory();
    inventory.remembered_epoch = 4;
    let plan = make(&inventory, Loss::Refuse).unwrap();
    assert_eq!(plan.end_version + plan.jump(), Version(in_epoch(5, 21)));
}

#[test]
fn versions_near_the_end_of_all_numbers_never_wrap() {
    use crate::metadata::changelog::LIMIT;
    use crate::metadata::stage::check_jump;

    for version in [LIMIT - 2, LIMIT - 1, LIMIT, u64::MAX - 1, u64::MAX] {
        let next = version.saturating_add(1);
        let log = format!("{version}: 1795000001|ACCESS(1)\n{next}: 1795000002|ACCESS(1)\n");
        let alone = Data::new().file(ML, "MFSM NEW").file(ML_LOG, log.clone());
        assert!(alone.plan().is_err());
        let data = Data::new().image(ML, version, 1).file(ML_LOG, log);
        let Ok(plan) = data.lossy_plan() else {
            assert!(version >= LIMIT, "{version}");
            continue;
        };
        assert!(version < LIMIT && plan.end_version.0 <= LIMIT && plan.log_bytes(plan.jump()) < 1000);
        assert!(check_jump(&plan, plan.jump()).is_err(), "{version}");
    }
    // One of an impossible version is nothing to go beyond.
    let mut inventory = Data::new().image(ML, 10, 1).log(ML_LOG, 10..=20, 0).inventory();
    for nonsense in [u64::MAX, Version(u64::MAX).epoch()] {
        inventory.remembered_epoch = nonsense;
        let plan = make(&inventory, Loss::Refuse).unwrap();
        assert_eq!((plan.jump(), check_jump(&plan, plan.jump()).is_ok()), (EpochJump::epochs(1), true));
    }
    inventory.rank = u64::MAX;
    let plan = make(&inventory, Loss::Refuse).unwrap();
    assert!(check_jump(&plan, plan.jump()).is_err());
}

#[test]
fn no_word_of_the_administrator_mixes_file_systems_or_makes_one_up() {
    let metaids = Data::new().image(ML, 10, 1).image("metadata.mfs.back.3", 4, 2);
    assert!(matches!(metaids.lossy_plan(), Err(Refusal::Metaids { .. })));
    let new = Data::new().file("metadata_ml.tmp", "MFSM NEW").log(ML_LOG, 2..=9, 0);
    assert!(matches!(new.lossy_plan(), Err(Refusal::Nothing { .. })));
    let link = Data::new().image(ML, 10, 1);
    std::os::unix::fs::symlink(ML, link.path("metadata_link")).unwrap();
    assert!(matches!(link.lossy_plan(), Err(Refusal::InTheWay { .. })));
}

#[test]
fn refusals_name_the_commands_that_come_next() {
    let data = Data::new().image(ML, 10, 1).log(ML_LOG, 12..=30, 0);
    let text = data.plan().unwrap_err().to_string();
    for command in ["mfs-promote --dry-run on the other machines", "mfs-promote --allow-data-loss"] {
        assert!(text.contains(command), "{command} in {text}");
    }
}

#[test]
fn the_size_of_the_staged_set() {
    let plan = Data::new().image(ML, 10, 1).log(ML_LOG, 1..=29, 0).plan().unwrap();
    assert_eq!(plan.image_bytes, crate::metadata::testing::image(10, 1).len() as u64);
    let (estimate, exact) = (plan.log_bytes(EpochJump::NONE), lines(10..=29, 0).len() as u64);
    assert!(estimate.abs_diff(exact) < exact / 10, "{estimate}, {exact}");
    assert_eq!(plan.log_bytes(EpochJump::epochs(1)), estimate + 20 * 11);
}

proptest! {
    /// However a history is cut up, torn and repeated: the plan ends where the ids that some file holds whole end,
    /// or refuses because there are more behind.
    #[test]
    fn the_end_is_the_longest_contiguous_run(
        version in 1_u64..60,
        pieces in prop::collection::vec(prop::collection::vec(piece(), 1..3), 0..6),
    ) {
        let mut data = Data::new().image(ML, version, 1);
        let mut held = std::collections::BTreeSet::new();
        for (number, mut file) in pieces.into_iter().enumerate() {
            // A log that ends lower than it has been is one of two histories, not a piece of one.
            file.sort_by_key(|piece| piece.1);
            // A single change before a step back can be the rest of a torn line: 1 and 5 before 6.
            if matches!(file[..], [(first, last, _), (next, ..)] if first == last && next <= first) {
                file.remove(0);
            }
            let mut text = String::new();
            for (index, (first, last, torn)) in file.iter().enumerate() {
                held.extend(*first..=*last);
                text += &lines(*first..=*last, 0);
                if index + 1 == file.len() {
                    text += &line(last + 1, 0)[..*torn];
                }
            }
            let name = if number % 3 == 2 { "changelog_ml_back" } else { "changelog_ml" };
            data = data.file(&format!("{name}.{number}.mfs"), text);
        }
        let end = (version..200).find(|id| !held.contains(id)).unwrap();
        let lossy = data.lossy_plan().unwrap();
        prop_assert_eq!(lossy.end_version.0, end);
        let named: std::collections::BTreeSet<u64> =
            losses(&lossy).iter().filter_map(|(changes, _)| *changes).flat_map(|(first, last)| first..=last).collect();
        prop_assert_eq!(named, held.iter().copied().filter(|id| *id > end).collect());
        match data.plan() {
            Ok(plan) => {
                prop_assert_eq!(&plan, &lossy, "nothing to lose: the same plan");
                prop_assert_eq!(plan.end_version.0, end);
                prop_assert!(held.iter().all(|id| *id < end));
            }
            Err(Refusal::Hole { needed, last, .. }) => {
                prop_assert_eq!(needed, end);
                prop_assert_eq!(Some(&last), held.last());
                prop_assert!(last > end);
            }
            Err(other) => prop_assert!(false, "{}", other),
        }
    }
}

#[test]
fn an_image_without_its_logs_is_not_more_than_the_files_it_came_from() {
    // Killed between a metalogger's download of the image and that of the logs, on the machine that serves.
    let data = || Data::new().image(OWN, 10, 1).log(OWN_LOG, 10..=20, 0);
    for name in [ML, "metadata_ml.tmp"] {
        let plan = data().image(name, 10, 1).plan().unwrap();
        assert_eq!((plan.lineage, plan.end_version.0), (Lineage::Own, 21), "{name}");
        assert_eq!(
            plan.notes[0],
            Note::Lineage(crate::metadata::note::Choice::OwnReachesFurther { ml: Version(10) }),
            "{name}"
        );
    }
    // Another image of that version is no proof of anything, and later than the changes.
    let plan = data().file(ML, image_with(10, *b"NODE", b"x")).plan();
    assert!(!matches!(plan, Ok(Plan { lineage: Lineage::Own, .. })), "{plan:?}");
}
