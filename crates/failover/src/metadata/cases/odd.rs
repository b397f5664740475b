//! Names that are no files, and files that are no metadata.

use super::case::{Case, Ours, Situation, foreign};
use super::history::{BASE, History};
use super::master::Content;

/// The metalogger's whole set.
fn ml() -> Situation {
    let situation = Situation::new(&History::real(167)).image("metadata_ml.mfs.back", BASE);
    situation.log("changelog_ml.0.mfs", BASE..167)
}

/// What happened in another history from change 120 on.
fn dead() -> History {
    History::real(167).branch(120, "dead", 0, 200)
}

pub(super) const CASES: &[Case] = &[
    Case {
        name: "a log that is a link",
        what: "`changelog.0.mfs` leads to the log of another history that ends at 199",
        ours: Ours::Refuses("changelog.0.mfs is not a regular file"),
        build: || {
            let log = dead().log(BASE..200).into_bytes();
            ml().stray(&dead()).with("changelog.0.mfs", Content::Link(log)).alone()
        },
    },
    Case {
        name: "an image that is a link",
        what: "`metadata.mfs.back` leads to the image of another history at 190",
        ours: Ours::Refuses("metadata.mfs.back is not a regular file"),
        build: || ml().stray(&dead()).with("metadata.mfs.back", Content::Link(dead().image(190))).alone(),
    },
    Case {
        name: "a FIFO",
        what: "`metadata_ml.mfs.back.2` is a FIFO without a writer",
        ours: Ours::Refuses("metadata_ml.mfs.back.2 is not a regular file"),
        build: || ml().with("metadata_ml.mfs.back.2", Content::Fifo).alone(),
    },
    Case {
        name: "a folder that is not in the way",
        what: "`metadata_ml.mfs.back.1` is a folder",
        ours: Ours::Serves,
        build: || ml().with("metadata_ml.mfs.back.1", Content::Folder).alone(),
    },
    Case {
        name: "a folder where the master writes",
        what: "`metadata.mfs` is a folder",
        ours: Ours::Refuses("metadata.mfs is a folder"),
        build: || ml().with("metadata.mfs", Content::Folder).alone(),
    },
    Case {
        name: "a copy made by hand",
        what: "`metadata.mfs.back.old` is an image of another history at 190",
        ours: Ours::Serves,
        build: || ml().stray_image("metadata.mfs.back.old", &dead(), 190).alone(),
    },
    Case {
        name: "a copy of another file system made by hand",
        what: "`metadata-of-the-test-cluster` is an image with another metaid",
        ours: Ours::Serves,
        build: || ml().file("metadata-of-the-test-cluster", foreign(History::real(167).image(BASE))).alone(),
    },
    Case {
        name: "a log put away by hand",
        what: "`changelog.0.mfs.old` is a log of another history",
        ours: Ours::Serves,
        build: || ml().stray_log("changelog.0.mfs.old", &dead(), BASE..200).alone(),
    },
];
