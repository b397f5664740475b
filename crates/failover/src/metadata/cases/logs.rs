//! Change logs that are missing, overlap or are out of order.

use std::ops::Range;

use super::case::{Case, Ours, Situation};
use super::history::{BASE, History};
use crate::metadata::version::EPOCH;

/// The metalogger's image and logs of the valid history that ends at 167.
fn ml(logs: &[(&str, Range<u64>)]) -> Situation {
    let situation = Situation::new(&History::real(167)).image("metadata_ml.mfs.back", BASE);
    logs.iter().fold(situation, |situation, (name, ids)| situation.log(name, ids.clone()))
}

/// The same with one log of these bytes.
fn one(log: impl AsRef<[u8]>) -> Situation {
    ml(&[]).file("changelog_ml.0.mfs", log)
}

pub(super) const CASES: &[Case] = &[
    Case {
        name: "one whole log",
        what: "image and log of a metalogger that was stopped in good order",
        ours: Ours::Serves,
        build: || ml(&[("changelog_ml.0.mfs", BASE..167)]).alone(),
    },
    Case {
        name: "six rotated logs",
        what: "`changelog_ml.0.mfs` to `.5`",
        ours: Ours::Serves,
        build: || {
            ml(&[
                ("changelog_ml.0.mfs", 150..167),
                ("changelog_ml.1.mfs", 130..150),
                ("changelog_ml.2.mfs", 129..130),
                ("changelog_ml.3.mfs", 100..129),
                ("changelog_ml.4.mfs", 60..100),
                ("changelog_ml.5.mfs", 2..60),
            ])
            .alone()
        },
    },
    Case {
        name: "logs with swapped names",
        what: "`changelog_ml.1.mfs` is newer than `changelog_ml.0.mfs`",
        ours: Ours::Serves,
        build: || ml(&[("changelog_ml.1.mfs", 120..167), ("changelog_ml.0.mfs", BASE..120)]).alone(),
    },
    Case {
        name: "overlapping fetched logs",
        what: "`changelog_ml_back.0.mfs` and `.1` hold some of the changes a second time",
        ours: Ours::Serves,
        build: || {
            ml(&[
                ("changelog_ml.0.mfs", 90..167),
                ("changelog_ml_back.0.mfs", 80..130),
                ("changelog_ml_back.1.mfs", 2..100),
            ])
            .alone()
        },
    },
    Case {
        name: "a log is missing",
        what: "of three rotated logs the middle one, with 111 to 120, is gone",
        ours: Ours::Refuses("changes 111 to 120 are missing"),
        build: || ml(&[("changelog_ml.2.mfs", BASE..111), ("changelog_ml.0.mfs", 121..167)]).alone(),
    },
    Case {
        name: "the first changes are missing",
        what: "image of version 67, the logs begin with 71",
        ours: Ours::Refuses("changes 67 to 70 are missing"),
        build: || ml(&[("changelog_ml.0.mfs", 71..167)]).alone(),
    },
    Case {
        name: "the newest log begins too late",
        what: "an empty rotated log, and a newest one that begins far behind the image",
        ours: Ours::Refuses("changes 67 to 149 are missing"),
        build: || ml(&[("changelog_ml.1.mfs", 67..67), ("changelog_ml.0.mfs", 150..167)]).alone(),
    },
    Case {
        name: "a hole inside a log",
        what: "lines 111 to 120 are gone from the log",
        ours: Ours::Refuses("changes 111 to 120 are missing"),
        build: || {
            let truth = History::real(167);
            one(truth.log(BASE..111) + &truth.log(121..167)).alone()
        },
    },
    Case {
        name: "a hole inside a log, bridged",
        what: "the same, and the log fetched from the master has them",
        ours: Ours::Serves,
        build: || {
            let truth = History::real(167);
            let log = truth.log(BASE..111) + &truth.log(121..167);
            one(log).log("changelog_ml_back.0.mfs", 105..125).alone()
        },
    },
    Case {
        name: "an epoch jump",
        what: "another machine was promoted, and its image is not here",
        ours: Ours::Refuses("another machine was promoted since, up to version 1000000000167"),
        build: || {
            let truth = History::real(167);
            one(truth.log(BASE..150) + &truth.numbered(150..167, EPOCH)).alone()
        },
    },
    Case {
        name: "a line twice",
        what: "line 120 is in the log two times",
        ours: Ours::Serves,
        build: || {
            let truth = History::real(167);
            one(truth.log(BASE..121) + &truth.log(120..167)).alone()
        },
    },
    Case {
        name: "every line twice",
        what: "all lines are in the log two times",
        ours: Ours::Refuses("too many breaks"),
        build: || {
            let truth = History::real(167);
            one((BASE..167).map(|id| truth.line(id) + &truth.line(id)).collect::<String>()).alone()
        },
    },
    Case {
        name: "a stretch twice",
        what: "the log goes up to 150, steps back and goes on from 131",
        ours: Ours::Serves,
        build: || {
            let truth = History::real(167);
            one(truth.log(BASE..151) + &truth.log(131..167)).alone()
        },
    },
    Case {
        name: "empty logs",
        what: "a good image, and logs without any line: nothing has happened since",
        ours: Ours::Serves,
        build: || {
            let situation = Situation::new(&History::real(BASE)).image("metadata_ml.mfs.back", BASE);
            let situation = situation.file("changelog_ml.0.mfs", "").file("changelog_ml_back.0.mfs", "");
            situation.file("changelog_ml_back.1.mfs", "").alone()
        },
    },
    Case {
        name: "one change",
        what: "a good image, and a log of one line",
        ours: Ours::Serves,
        build: || {
            let situation = Situation::new(&History::real(BASE + 1)).image("metadata_ml.mfs.back", BASE);
            situation.log("changelog_ml.0.mfs", BASE..BASE + 1).alone()
        },
    },
    Case {
        name: "only old logs",
        what: "image of version 167, logs that end before it",
        ours: Ours::Serves,
        build: || {
            let situation = Situation::new(&History::real(167)).image("metadata_ml.mfs.back", 167);
            situation.log("changelog_ml.0.mfs", 100..167).log("changelog_ml.1.mfs", 2..100).alone()
        },
    },
    Case {
        name: "a change 0",
        what: "the log begins with a line of id 0, as a new file system of 1.6 does",
        ours: Ours::Serves,
        build: || {
            let log = "0: 1795387130|SESSION():1\n".to_owned() + &History::real(167).log(1..167);
            one(log).alone()
        },
    },
];
