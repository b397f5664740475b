use super::*;
use crate::metadata::testing::{Data, lines};
use std::os::unix::fs::symlink;

fn what(inventory: &Inventory, name: &str) -> Option<What> {
    inventory.others.iter().find(|o| o.name == name).map(|o| o.what.clone())
}

#[test]
fn real_sets() {
    let taken = Data::real("3.0.117-torn-ml").inventory();
    assert_eq!(taken.images.len(), 1);
    let logs: Vec<_> = taken.logs.iter().map(|l| (l.scan.first(), l.scan.last(), l.scan.torn.is_some())).collect();
    assert_eq!(logs, [(Some(2), Some(795), true), (Some(1), Some(66), false), (None, None, false)]);
    assert_eq!((taken.overlap, taken.conflicts), (Overlap::None, vec![]));

    let taken = Data::real("1.6.19-ml").inventory();
    assert_eq!((taken.logs[0].scan.first(), taken.logs[0].scan.last()), (Some(0), Some(602)));
    assert_eq!(what(&taken, "sessions_ml.mfs"), Some(What::Sessions));

    let taken = Data::real("3.0.117-master").inventory();
    assert_eq!(what(&taken, "metadata.crc"), Some(What::Checksums));
    assert_eq!(taken.images[1].image, Image::New);
}

#[test]
fn odd_things_are_listed_and_never_followed() {
    let data = Data::new().file("target", "MFSM NEW").file("metadata.mfs.empty", "MFSM NEW");
    symlink("target", data.path("metadata_ml.mfs.back")).unwrap();
    symlink("/nonexistent", data.path("changelog.0.mfs")).unwrap();
    std::fs::create_dir(data.path("metadata.mfs")).unwrap();
    std::fs::create_dir(data.path("metadata_old")).unwrap();
    nix::unistd::mkfifo(&data.path("changelog_ml.0.mfs"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let data = data.file("metadata_before_upgrade", "x").file("unrelated", "").file(".mfsmaster.lock", "1");
    let taken = data.inventory();
    assert_eq!((taken.images.len(), taken.logs.len(), taken.others.len()), (0, 0, 7));
    for (name, expected) in [
        ("metadata_ml.mfs.back", What::NotAFile("is not a regular file")),
        ("changelog.0.mfs", What::NotAFile("is not a regular file")),
        ("changelog_ml.0.mfs", What::NotAFile("is not a regular file")),
        ("metadata.mfs", What::Folder),
        ("metadata_old", What::Folder),
        ("metadata.mfs.empty", What::Template),
        ("metadata_before_upgrade", What::Foreign),
    ] {
        assert_eq!(what(&taken, name), Some(expected), "{name}");
    }
}

#[test]
fn logs_are_in_order_of_precedence() {
    let data = ["changelog.1.mfs", "changelog_ml_back.0.mfs", "changelog_ml.10.mfs", "changelog_ml.2.mfs"];
    let data = data.into_iter().fold(Data::new(), |data, name| data.file(name, ""));
    let names: Vec<_> = data.inventory().logs.into_iter().map(|l| l.name).collect();
    let expected = ["changelog_ml.2.mfs", "changelog_ml.10.mfs", "changelog_ml_back.0.mfs", "changelog.1.mfs"];
    assert_eq!(names, expected);
}

#[test]
fn own_and_ml_are_compared_where_they_overlap() {
    let overlap = |own: String, ml: String| {
        let data = Data::new().file("changelog.0.mfs", own).file("changelog_ml.0.mfs", ml);
        data.inventory().overlap
    };
    let forked = lines(1..=14, 0) + &lines(15..=30, 1);
    for (what, own, ml, expected) in [
        ("apart", lines(1..=9, 0), lines(10..=20, 0), Overlap::None),
        ("nothing", lines(1..=9, 0), String::new(), Overlap::None),
        ("agree", lines(1..=25, 0), lines(10..=20, 0), Overlap::Agree { from: 10, to: 20 }),
        ("fork", lines(1..=25, 0), forked, Overlap::Fork { at: 15 }),
        ("fork at once", lines(1..=25, 0), lines(20..=30, 1), Overlap::Fork { at: 20 }),
    ] {
        assert_eq!(overlap(own, ml), expected, "{what}");
    }
}

/// The survivor of a failover: what it recorded of the dead master's tail is the older branch, whatever its name.
#[test]
fn of_two_branches_in_one_lineage_the_later_made_is_kept() {
    let taken = Data::new()
        .image("metadata_ml.mfs.back", 5, 1)
        .file("changelog_ml.0.mfs", lines(1..=20, 0) + &lines(26..=30, 1))
        .file("changelog_ml_back.0.mfs", lines(1..=14, 0) + &lines(15..=25, 1))
        .inventory();
    let spans: Vec<_> = taken.spans(Lineage::Ml).iter().map(|s| (s.log, s.first, s.last)).collect();
    assert_eq!(spans, [(0, 26, 30), (0, 1, 14), (1, 1, 25)]);
    assert_eq!(taken.conflicts.iter().map(|c| c.at).collect::<Vec<_>>(), [15]);
}

#[test]
fn a_contradiction_below_the_best_image_does_not_matter() {
    let taken = Data::new()
        .image("metadata_ml.mfs.back", 50, 1)
        .log("changelog_ml.1.mfs", 1..=20, 0)
        .log("changelog_ml_back.0.mfs", 1..=20, 1)
        .inventory();
    assert_eq!(taken.conflicts, []);
}

#[test]
fn logs_below_every_possible_base_are_not_read() {
    let scanned = |data: &Data| {
        let logs = data.inventory().logs.into_iter().filter(|log| log.scanned);
        logs.map(|log| log.name.into_string().unwrap()).collect::<Vec<_>>()
    };
    let ml = || {
        Data::new().image("metadata_ml.mfs.back", 30, 1).log("changelog_ml.0.mfs", 25..=40, 0).log(
            "changelog_ml.1.mfs",
            10..=24,
            0,
        )
    };
    assert_eq!(scanned(&ml()), ["changelog_ml.0.mfs"]);
    let reaches = Data::new().image("metadata_ml.mfs.back", 30, 1).log("changelog_ml.0.mfs", 25..=30, 0);
    assert_eq!(scanned(&reaches).len(), 1, "it ends with the first change that is needed");
    // Own files from before an epoch jump, or any others that end below.
    let own = |data: Data, last| data.image("metadata.mfs.back", 5, 1).log("changelog.0.mfs", 5..=last, 0);
    assert_eq!(scanned(&own(ml(), 29)), ["changelog_ml.0.mfs"]);
    // Own files that reach further have to be compared.
    assert_eq!(scanned(&own(ml(), 30)).len(), 3);
    assert_eq!(scanned(&own(Data::new().log("changelog_ml.1.mfs", 10..=24, 0), 9)).len(), 2, "no ml image");
}
