//! Which of the two lineages is served, and when one continues the other.

use super::*;
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
        (
            "own is another branch",
            both(&lines(10..=30, 0), &fork),
            (Lineage::Ml, 10, 21),
            Choice::OwnForked { at: 15, own_time: 1_000_030, ml_time: 2_000_020 },
        ),
        (
            "nothing in common, own older",
            apart((50, 0), (20, 1)),
            (Lineage::Ml, 20, 21),
            Choice::OwnOlder { own: Version(51) },
        ),
        (
            "nothing in common, own younger",
            apart((50, 1), (20, 0)),
            (Lineage::Own, 50, 51),
            Choice::OwnReachesFurther { ml: Version(21) },
        ),
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

#[test]
fn a_files_date_does_not_make_an_own_image_the_later_history() {
    // The own image has just been written, long after the changes of the metalogger's log.
    let data = Data::new().image(OWN, 50, 1).image(ML, 10, 1).log(ML_LOG, 10..=20, 0);
    assert!(matches!(data.plan(), Err(Refusal::Unrelated { own: Version(50), ml: Version(21) })));
    // Its log says when its last change was made, and that is later.
    let data = data.log(OWN_LOG, 30..=49, 1);
    assert_eq!(data.plan().unwrap().end_version.0, 50);
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
    let older = data(0, 1).plan().unwrap();
    assert_eq!((older.lineage, &older.notes[0]), (Lineage::Ml, &Note::Lineage(Choice::OwnOlder { own: Version(61) })));
    assert_eq!(data(1, 0).plan().unwrap().lineage, Lineage::Own);
    // The last change of the metalogger is one of the own ones: the times do not matter.
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
fn a_download_from_oneself_is_no_later_history() {
    let data = Data::new().image(OWN, 10, 1).log(OWN_LOG, 10..=20, 0).file("metadata_ml.tmp", "");
    let mut inventory = data.inventory();
    let begun = i64::try_from(inventory.images.iter().find(|i| i.name == "metadata_ml.tmp").unwrap().modified).unwrap();
    assert!(matches!(make(&inventory, Loss::Refuse), Err(Refusal::MlUnusable { own: Version(21), .. })));
    // This machine served when its metalogger began it, and lost its power.
    inventory.served = begun - 3..begun + 1;
    assert_eq!(make(&inventory, Loss::Refuse).unwrap().end_version.0, 21);
    for not_then in [begun - 3..begun, begun + 1..begun + 3] {
        inventory.served = not_then;
        assert!(make(&inventory, Loss::Refuse).is_err());
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
