//! Which of the two lineages is served, and when one continues the other.

use super::*;
use crate::metadata::inventory::Unserved;
use crate::metadata::note::Choice;

#[test]
fn ml_or_own() {
    let both = |own: &str, ml: &str| {
        let data = Data::new().image(ML, 10, 1).image(OWN, 10, 1);
        data.file(OWN_LOG, own).file(ML_LOG, ml)
    };
    let apart = |own: (u64, u64), ml: (u64, u64)| {
        let (own_image, ml_image) = (own.0, ml.0);
        Data::new()
            .image(OWN, own_image, 1)
            .image(ML, ml_image, 1)
            .file(OWN_LOG, line(own_image, own.1))
            .file(ML_LOG, line(ml_image, ml.1))
    };
    let fork = lines(10..=14, 0) + &lines(15..=20, 1);
    for (what, data, expected, choice) in [
        (
            "own is the same and reaches further",
            both(&lines(10..=30, 0), &lines(10..=20, 0)),
            (Lineage::Own, 10, 31),
            Choice::OwnReachesFurther { ml: Version(21) },
        ),
        (
            "equal",
            both(&lines(10..=20, 0), &lines(10..=20, 0)),
            (Lineage::Ml, 10, 21),
            Choice::MlReachesFurther { own: Version(21) },
        ),
        ("own is another branch", both(&lines(10..=30, 0), &fork), (Lineage::Ml, 10, 21), Choice::OwnForked { at: 15 }),
        (
            "after an epoch jump",
            apart((50, 0), (2000, 1)),
            (Lineage::Ml, 2000, 2001),
            Choice::MlReachesFurther { own: Version(51) },
        ),
    ] {
        let plan = data.plan().unwrap();
        assert_eq!((plan.lineage, plan.base_version.0, plan.end_version.0), expected, "{what}");
        assert_eq!(plan.notes[0], Note::Lineage(choice), "{what}");
    }
    let left = both(&lines(10..=30, 0), &fork).plan().unwrap();
    let (lineage, first, last) = (Lineage::Own, 15, 30);
    assert!(left.notes.contains(&Note::LeftOut { lineage, first, last }));
}

/// Own files of a promotion that began epoch 1 at 40, and the metalogger's of epoch 0 up to 30; the later ones of `branch`.
fn of_two_epochs(own: u64, ml: u64) -> Data {
    let own = Data::new().image(OWN, EPOCH + 40, 1).log(OWN_LOG, EPOCH + 40..=EPOCH + 60, own);
    own.image(ML, 10, 1).log(ML_LOG, 10..=30, ml)
}

/// A plan with something that this machine remembers.
fn remembering(data: &Data, remember: impl Fn(&mut Inventory)) -> Result<Plan, Refusal> {
    let mut inventory = data.inventory();
    remember(&mut inventory);
    make(&inventory, Loss::Refuse)
}

#[test]
fn no_clock_decides_between_histories_that_nothing_ties_together() {
    for (own, ml) in [(0, 1), (1, 0)] {
        let data = of_two_epochs(own, ml);
        let refusal = data.plan().unwrap_err();
        assert!(matches!(refusal, Refusal::Unrelated { own: Version(own), ml: Version(31) } if own == EPOCH + 61));
        assert!(refusal.to_string().contains("mfs-promote --allow-data-loss serves the metalogger's copy"));
        let plan = data.lossy_plan().unwrap();
        assert_eq!((plan.lineage, plan.end_version.0, warnings(&plan).len()), (Lineage::Ml, 31, 2));
        assert_eq!(plan.jump(), EpochJump::epochs(2), "the branch that is left out has epoch 1");
        // The same in one epoch, with or without a log that says when the last change was made.
        let apart = Data::new().image(OWN, 50, 1).image(ML, 20, 1).log(ML_LOG, 20..=20, ml);
        assert!(matches!(apart.plan(), Err(Refusal::Unrelated { own: Version(50), ml: Version(21) })));
        assert!(matches!(apart.log(OWN_LOG, 50..=50, own).plan(), Err(Refusal::Unrelated { .. })));
    }
    // A later epoch was promoted later.
    let promoted = Data::new().image(OWN, 50, 1).log(OWN_LOG, 50..=50, 1).image(ML, EPOCH + 20, 1);
    assert_eq!(outline(&promoted), Ok((Lineage::Ml, EPOCH + 20, EPOCH + 20)));
}

#[test]
fn a_history_that_lost_the_judgement_after_a_split_is_not_served() {
    let unserved = Unserved { first: Version(EPOCH + 45), last: Version(EPOCH + 60) };
    let remember = |inventory: &mut Inventory| inventory.unserved = Some(unserved);
    let plan = remembering(&of_two_epochs(0, 0), remember).unwrap();
    let left = Note::LeftOut { lineage: Lineage::Own, first: EPOCH + 45, last: EPOCH + 60 };
    assert_eq!((plan.lineage, plan.end_version.0), (Lineage::Ml, 31));
    assert_eq!(plan.notes[0], Note::Lineage(Choice::OwnUnserved { own: Version(EPOCH + 61) }));
    assert!(plan.notes.contains(&left), "{:?}", plan.notes);
    assert_eq!(plan.jump(), EpochJump::epochs(2));
    // Here the other side lost: its history was downloaded while the network healed.
    let other = Data::new().image(OWN, 10, 1).log(OWN_LOG, 10..=90, 0).image(ML, EPOCH + 40, 1);
    let other = other.log(ML_LOG, EPOCH + 40..=EPOCH + 60, 1);
    let plan = remembering(&other, remember).unwrap();
    assert_eq!((plan.lineage, plan.end_version.0), (Lineage::Own, 91));
    assert_eq!(plan.notes[0], Note::Lineage(Choice::MlUnserved { ml: Version(EPOCH + 61) }));
    assert_eq!(other.plan().unwrap().lineage, Lineage::Ml, "without that, the later epoch");
    // Nothing else is here, or not complete.
    let own = || Data::new().image(OWN, EPOCH + 40, 1).log(OWN_LOG, EPOCH + 40..=EPOCH + 60, 0);
    for data in [own(), own().file("metadata_ml.tmp", ""), own().log(ML_LOG, 10..=30, 0)] {
        assert!(matches!(remembering(&data, remember), Err(Refusal::Unserved { end }) if end.0 == EPOCH + 61));
    }
    let ml = Data::new().image(ML, EPOCH + 40, 1).log(ML_LOG, EPOCH + 40..=EPOCH + 60, 0);
    assert!(matches!(remembering(&ml, remember), Err(Refusal::Unserved { .. })));
    // What came before the fork, or a later epoch, is not it.
    for data in [Data::new().image(OWN, EPOCH + 45, 1), Data::new().image(OWN, 2 * EPOCH + 50, 1)] {
        assert!(remembering(&data, remember).is_ok());
    }
}

#[test]
fn after_a_split_the_metalogger_goes_back_to_the_epoch_in_which_more_was_made() {
    // It followed the machine that was promoted at 40 in epoch 1 up to 60, then again the one that had gone on to 300.
    let kept = |position| Data::new().image("metadata_ml.mfs.back.1", EPOCH + position, 1);
    let back = |position| kept(position).image(ML, 250, 1).log(ML_LOG, 250..=299, 0);
    let plan = back(50).plan().unwrap();
    assert_eq!((plan.base_version.0, plan.end_version.0, plan.jump()), (250, 300, EpochJump::epochs(2)));
    // The images are those of the last full hour.
    let early = Data::new().image("metadata_ml.mfs.back.1", EPOCH + 30, 1).image(ML, 30, 1).log(ML_LOG, 30..=299, 0);
    assert_eq!(early.plan().unwrap().end_version.0, 300);
    // A log of the other epoch: fetched before, or written by a metalogger that was started since.
    let fetched = back(50).log("changelog_ml_back.0.mfs", EPOCH + 50..=EPOCH + 60, 1);
    let earlier = back(50).log("changelog_ml.1.mfs", EPOCH + 50..=EPOCH + 60, 1);
    let left = Note::LeftOut { lineage: Lineage::Ml, first: EPOCH + 50, last: EPOCH + 60 };
    for data in [fetched, earlier] {
        let plan = data.plan().unwrap();
        assert_eq!((plan.end_version.0, plan.notes.contains(&left)), (300, true), "{:?}", plan.notes);
    }
    // The newest changes are of the later epoch: the metalogger has gone on to the machine that was promoted.
    let later = back(50).file(ML_LOG, lines(250..=299, 0) + &lines(EPOCH + 50..=EPOCH + 60, 1));
    assert!(matches!(later.plan(), Err(Refusal::Unfollowed { end: Version(300), .. })));
    // Less was made in the epoch that it went back to: an old master took over by mistake.
    assert!(matches!(back(301).plan(), Err(Refusal::StepBack { .. })));
    let further = back(50).log("changelog_ml_back.0.mfs", EPOCH + 250..=EPOCH + 300, 1);
    assert!(matches!(further.plan(), Err(Refusal::Unfollowed { .. })));
    // It had begun to go back.
    let mut cut = crate::metadata::testing::image(250, 1);
    cut.truncate(cut.len() - 5);
    let begun = Data::new().image(ML, EPOCH + 50, 1).file("metadata_ml.tmp", &cut);
    assert!(matches!(begun.plan(), Err(Refusal::OtherMaster { version: Version(250), .. })));
    assert_eq!(losses(&begun.lossy_plan().unwrap()), [(None, "metadata_ml.tmp")]);
    // The other way round, the kept image is older.
    let kept = Data::new().image(ML, EPOCH + 50, 1).file("metadata_ml.mfs.back.1", cut);
    assert_eq!(outline(&kept), Ok((Lineage::Ml, EPOCH + 50, EPOCH + 50)));
}

#[test]
fn the_own_files_of_an_ordinary_failover_and_back_need_no_memory() {
    // This machine served to 50, of which 45 reached the one that was promoted; that one made changes up to 80.
    let own = || Data::new().image(OWN, 10, 1).log(OWN_LOG, 10..=50, 0);
    let back = own().image(ML, EPOCH + 10, 1).log(ML_LOG, EPOCH + 46..=EPOCH + 80, 1);
    let back = back.log("changelog_ml_back.0.mfs", EPOCH + 10..=EPOCH + 60, 1);
    assert_eq!(outline(&back), Ok((Lineage::Ml, EPOCH + 10, EPOCH + 81)));
    assert_eq!(back.plan().unwrap().jump(), EpochJump::epochs(1));
}

#[test]
fn the_machine_that_served_last_knows_whom_its_metalogger_copied_from() {
    // The metalogger was stopped for days.
    let data = || Data::new().image(OWN, 500, 1).log(OWN_LOG, 450..=520, 0).image(ML, 10, 1).log(ML_LOG, 10..=30, 0);
    assert!(matches!(data().plan(), Err(Refusal::Unrelated { .. })));
    let remember = |inventory: &mut Inventory| inventory.served_last = true;
    let plan = remembering(&data(), remember).unwrap();
    assert_eq!((plan.lineage, plan.end_version.0, warnings(&plan).len()), (Lineage::Own, 521, 0));
    assert_eq!(plan.notes[0], Note::Lineage(Choice::OwnServedLast { ml: Version(31) }));
    // A master of another epoch is another machine, heard of or not.
    assert!(matches!(remembering(&of_two_epochs(0, 0), remember), Err(Refusal::Unrelated { .. })));
}

#[test]
fn the_lineages_do_not_fill_each_others_holes_without_a_proof() {
    let hole = lines(10..=20, 0) + &lines(25..=30, 0);
    let ml = || Data::new().image(ML, 10, 1).file(ML_LOG, &hole);
    let (needed, first, last) = (21, 25, 30);
    match ml().log(OWN_LOG, 1..=27, 0).plan() {
        Err(Refusal::Hole { needed: n, first: f, last: l, .. }) => assert_eq!((n, f, l), (needed, first, last)),
        other => panic!("{other:?}"),
    }
    // Own files that reach further than the hole, but nothing shows that what lies behind it continues them.
    match ml().image(OWN, 5, 1).log(OWN_LOG, 1..=22, 0).plan() {
        Err(Refusal::MlHasMore { own: Version(23), last: 30, file }) => assert_eq!(file, ML_LOG),
        other => panic!("{other:?}"),
    }
    // A base of its own and all that `ml` has makes it the better copy.
    assert_eq!(outline(&ml().image(OWN, 5, 1).log(OWN_LOG, 1..=30, 0)), Ok((Lineage::Own, 5, 31)));
}

#[test]
fn the_metaloggers_logs_continue_the_own_files_where_they_show_that_it_is_one_history() {
    let hole = lines(10..=20, 0) + &lines(25..=30, 0);
    let own = |ml: &str| Data::new().image(OWN, 5, 1).log(OWN_LOG, 1..=27, 0).file(ML_LOG, ml);
    for (what, data) in [
        ("no image of the metalogger", own(&lines(25..=30, 0))),
        ("a hole before", own(&hole).image(ML, 10, 1)),
        ("a torn line behind", own(&(lines(25..=30, 0) + "31: 1"))),
    ] {
        let plan = data.plan().unwrap();
        let stretches: Vec<_> = plan.stretches.iter().map(|r| (r.file.to_str().unwrap(), r.first, r.last)).collect();
        assert_eq!(stretches, [(OWN_LOG, 5, 27), (ML_LOG, 28, 30)], "{what}");
        assert_eq!((plan.lineage, plan.end_version.0, plan.last_change_time), (Lineage::Own, 31, Some(1_000_030)));
        assert_eq!(plan.notes[0], Note::Lineage(Choice::OwnContinued { own: Version(28) }), "{what}");
        let torn = plan.notes.iter().any(|note| matches!(note, Note::Torn { file, .. } if file == ML_LOG));
        assert_eq!(torn, what == "a torn line behind");
    }
    for (what, ml) in [
        ("no change in common", lines(28..=30, 0)),
        ("not the last change in common", lines(25..=26, 0) + &lines(28..=30, 0)),
        ("the last change is another one", lines(27..=27, 1) + &lines(28..=30, 0)),
        ("an earlier change is another one", lines(25..=25, 1) + &lines(26..=30, 0)),
    ] {
        assert!(matches!(own(&ml).plan(), Err(Refusal::MlUnusable { own: Version(28), .. })), "{what}");
    }
    assert!(matches!(
        own(&(lines(25..=27, 0) + &lines(29..=30, 0))).plan(),
        Err(Refusal::MlUnusable { own: Version(28), .. })
    ));
    // The metalogger's own copy goes as far: it is the one to use.
    assert_eq!(outline(&own(&lines(25..=30, 0)).image(ML, 26, 1)), Ok((Lineage::Ml, 26, 31)));
}

#[test]
fn what_was_common_long_ago_does_not_make_one_history() {
    // Both have the same old logs, but where they end they have nothing in common.
    let data = |own: u64, ml: u64| {
        let data = Data::new().log("changelog.1.mfs", 1..=5, 0).log("changelog_ml.1.mfs", 1..=5, 0);
        let data = data.image(OWN, 50, 1).log(OWN_LOG, 50..=60, own);
        data.image(ML, 20, 1).log(ML_LOG, 20..=30, ml)
    };
    assert!(matches!(data(0, 0).inventory().overlap, Overlap::Agree { from: 1, to: 5 }));
    for (own, ml) in [(0, 1), (1, 0)] {
        assert!(matches!(data(own, ml).plan(), Err(Refusal::Unrelated { own: Version(61), ml: Version(31) })));
    }
    // The last change of the metalogger is one of the own ones.
    let data = data(0, 1).log("changelog.2.mfs", 20..=40, 1);
    assert_eq!(data.plan().unwrap().lineage, Lineage::Own);
}

#[test]
fn own_alone_is_used_only_if_ml_shows_nothing_later() {
    let own = || Data::new().image(OWN, 10, 1).log(OWN_LOG, 10..=20, 0);
    let plan = own().plan().unwrap();
    assert_eq!((plan.lineage, warnings(&plan).len()), (Lineage::Own, 1));
    assert_eq!(outline(&own().file("metadata_ml.tmp", "MFSM NEW").file(ML_LOG, "")), Ok((Lineage::Own, 10, 21)));
    assert_eq!(outline(&own().log(ML_LOG, 12..=18, 0)), Ok((Lineage::Own, 10, 21)));
    for (what, data) in [
        ("later changes", own().log(ML_LOG, 21..=25, 0)),
        ("another branch", own().log(ML_LOG, 12..=18, 1)),
        ("lower and later", own().log(ML_LOG, 2..=5, 1)),
        ("a later image, cut off", own().file(ML, "MFSM 2.0")),
    ] {
        assert!(matches!(data.plan(), Err(Refusal::MlUnusable { own: Version(21), .. })), "{what}");
    }
}

#[test]
fn a_download_that_was_cut_off_shows_another_history_unless_it_is_known_to_be_of_this_one() {
    let own = || Data::new().image(OWN, EPOCH + 10, 1).log(OWN_LOG, EPOCH + 10..=EPOCH + 20, 0);
    let cut = |version| {
        let mut image = crate::metadata::testing::image(version, 1);
        image.truncate(image.len() - 5);
        image
    };
    let begun = own().file("metadata_ml.tmp", "");
    assert!(matches!(begun.plan(), Err(Refusal::MlUnusable { own: Version(own), .. }) if own == EPOCH + 21));
    // This machine served when its metalogger began it, and lost its power.
    let served_last = |inventory: &mut Inventory| inventory.served_last = true;
    assert_eq!(remembering(&begun, served_last).unwrap().end_version.0, EPOCH + 21);
    // Its header says an earlier version of the same epoch: no other machine has that.
    assert_eq!(outline(&own().file("metadata_ml.tmp", cut(EPOCH + 15))), Ok((Lineage::Own, EPOCH + 10, EPOCH + 21)));
    // A version of another epoch, earlier or not.
    assert!(matches!(own().file("metadata_ml.tmp", cut(400)).plan(), Err(Refusal::OtherMaster { .. })));
    assert!(matches!(own().file("metadata_ml.tmp", cut(2 * EPOCH)).plan(), Err(Refusal::Unfollowed { .. })));
}

#[test]
fn a_later_epoch_that_could_not_be_followed_is_left_behind_as_a_last_resort_only() {
    let as_last_resort = |data: &Data| make(&data.inventory(), Loss::LastResort);
    // The metalogger had dropped its logs, which were kept, and follows the next epoch.
    let kept = || Data::new().image(ML, 10, 1).log("changelog_ml.20000.mfs", 8..=20, 0);
    let follows = kept().log(ML_LOG, EPOCH + 23..=EPOCH + 30, 0);
    match follows.plan() {
        Err(Refusal::Unfollowed { file, version, end: Version(21) }) => {
            assert_eq!((file.to_str(), version.0), (Some(ML_LOG), EPOCH + 31));
        }
        other => panic!("{other:?}"),
    }
    let plan = as_last_resort(&follows).unwrap();
    assert_eq!((plan.end_version.0, plan.jump()), (21, EpochJump::epochs(2)));
    assert_eq!(losses(&plan), [(Some((EPOCH + 23, EPOCH + 30)), ML_LOG)]);
    // Its image is on the way.
    let mut cut = crate::metadata::testing::image(EPOCH + 21, 1);
    cut.truncate(cut.len() - 5);
    let downloads = kept().file("metadata_ml.tmp", cut);
    assert!(matches!(downloads.plan(), Err(Refusal::Unfollowed { .. })));
    assert_eq!(as_last_resort(&downloads).unwrap().end_version.0, 21);
    // Too much was made in it; or changes of the same epoch are missing.
    let far = kept().log(ML_LOG, EPOCH + 100_020..=EPOCH + 100_030, 0);
    let hole = kept().log(ML_LOG, 25..=30, 0);
    for data in [far, hole] {
        assert!(matches!(as_last_resort(&data), Err(Refusal::Hole { .. })));
    }
}

#[test]
fn own_files_are_served_over_the_metaloggers_only_if_loss_is_allowed() {
    let own = || Data::new().image(OWN, 10, 1).log(OWN_LOG, 10..=20, 0);
    let later = || Data::new().image(OWN, 10, 1).log(OWN_LOG, 10..=20, 1);
    for (what, data, lost) in [
        ("later changes", own().log(ML_LOG, 21..=25, 0), (Some((21, 25)), ML_LOG)),
        ("another branch", own().log(ML_LOG, 12..=18, 1), (Some((12, 18)), ML_LOG)),
        ("an older branch", later().log(ML_LOG, 12..=18, 0), (Some((12, 18)), ML_LOG)),
        ("lower and later", own().log(ML_LOG, 2..=5, 1), (Some((2, 5)), ML_LOG)),
        ("a later image, cut off", own().file(ML, "MFSM 2.0"), (None, ML)),
    ] {
        assert!(matches!(data.plan(), Err(Refusal::MlUnusable { own: Version(21), .. })), "{what}");
        let plan = data.lossy_plan().unwrap();
        assert_eq!((plan.lineage, plan.end_version.0, losses(&plan)), (Lineage::Own, 21, vec![lost]), "{what}");
    }
    let hole = lines(10..=20, 0) + &lines(25..=30, 0);
    let data = Data::new().image(ML, 10, 1).file(ML_LOG, hole).image(OWN, 5, 1).log(OWN_LOG, 1..=22, 0);
    assert!(matches!(data.plan(), Err(Refusal::MlHasMore { own: Version(23), last: 30, .. })));
    let plan = data.lossy_plan().unwrap();
    assert_eq!((plan.lineage, plan.end_version.0), (Lineage::Own, 23));
    assert_eq!(losses(&plan), [(Some((25, 30)), ML_LOG)]);
}
