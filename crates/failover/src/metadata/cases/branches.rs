//! Two histories in one folder: files of a former master, other file systems, masters that went on in isolation.

use super::case::{Case, Ours, Situation, foreign};
use super::history::{BASE, History};
use crate::metadata::version::EPOCH;

/// The valid history: the first 120 changes are common, the others were made ten minutes after the failover.
fn valid() -> History {
    History::real(167).branch(120, "live", 600, 167)
}

/// The changes of the old master after change 120, which no client relies on.
fn dead() -> History {
    History::real(200)
}

/// The metalogger's whole set of the valid history.
fn ml() -> Situation {
    Situation::new(&valid()).image("metadata_ml.mfs.back", BASE).log("changelog_ml.0.mfs", BASE..167)
}

/// The same image as one of a machine that was promoted.
fn later_epoch(mut image: Vec<u8>, version: u64) -> Vec<u8> {
    image[8..16].copy_from_slice(&(EPOCH + version).to_be_bytes());
    image
}

/// A machine that was promoted at 120, with a clock that is so many seconds ahead, and the metalogger's whole set of the valid history.
fn promoted_alone(ahead: u64) -> Situation {
    let dead = History::real(167).branch(120, "dead", ahead, 190);
    let situation = ml().stray(&dead).file("metadata.mfs.back", later_epoch(dead.image(120), 120));
    situation.file("changelog.0.mfs", dead.numbered(120..190, EPOCH))
}

/// A cold start with the own image of a later dump, and nothing older.
fn newer_image() -> Situation {
    let situation = Situation::new(&History::real(167)).image("metadata_ml.mfs.back", BASE);
    let situation = situation.log("changelog_ml.0.mfs", BASE..120);
    situation.image("metadata.mfs.back", 120).log("changelog.0.mfs", 120..167)
}

pub(super) const CASES: &[Case] = &[
    Case {
        name: "own dead branch of the same length",
        what: "this machine was master until a failover at 120; the same ids stand for other changes in its own log",
        ours: Ours::Warns("of the own files are set aside"),
        build: || {
            ml().stray_image("metadata.mfs.back", &dead(), BASE)
                .stray_log("changelog.0.mfs", &dead(), BASE..167)
                .alone()
        },
    },
    Case {
        name: "own dead branch reaching further",
        what: "the same, and its own log goes up to 199",
        ours: Ours::Warns("changes 120 to 199 of the own files are set aside"),
        build: || {
            ml().stray_image("metadata.mfs.back", &dead(), BASE)
                .stray_log("changelog.0.mfs", &dead(), BASE..200)
                .alone()
        },
    },
    Case {
        name: "own dead branch, log only",
        what: "of its time as master only the log is left, up to 199; no own image",
        ours: Ours::Serves,
        build: || ml().stray_log("changelog.0.mfs", &dead(), 100..200).alone(),
    },
    Case {
        name: "own dead image",
        what: "of its time as master only the image is left, of version 190; its file is older than all changes, or was copied back \
               since",
        ours: Ours::Refuses("no change in common"),
        build: || {
            let set = || ml().stray_image("metadata.mfs.back", &dead(), 190);
            [dead().end_time(), valid().end_time() + 3600].map(|time| set().modified(time)).into()
        },
    },
    Case {
        name: "own older files, all of them earlier",
        what: "own files that end at 119, and the metalogger's image of 130 with its log",
        ours: Ours::Serves,
        build: || {
            let situation = Situation::new(&valid()).image("metadata_ml.mfs.back", 130);
            let situation = situation.log("changelog_ml.0.mfs", 130..167);
            situation.image("metadata.mfs.back", BASE).log("changelog.0.mfs", BASE..120).alone()
        },
    },
    Case {
        name: "own branch of an isolated promotion",
        what: "this machine was promoted at 120 while it was cut off, and remembers that another one had made more",
        ours: Ours::Warns("in a history that is not served"),
        build: || promoted_alone(0).unserved(EPOCH + 120, EPOCH + 190).alone(),
    },
    Case {
        name: "the same, not remembered",
        what: "it lost its power before it knew; its clock was behind that of the other one, or ahead",
        ours: Ours::Refuses("no change in common"),
        build: || vec![promoted_alone(0), promoted_alone(3600)],
    },
    Case {
        name: "the metalogger went to another epoch and back",
        what: "it followed a machine that was promoted at 120 while it was cut off, up to 124, and then the one that went on; its \
               log is of the first one up to 124, or of the second one alone",
        ours: Ours::Warns("a history that is not served"),
        build: || {
            let set = || {
                let situation = Situation::new(&valid()).image("metadata_ml.mfs.back", 130).stray(&dead());
                let situation = situation.file("metadata_ml.mfs.back.1", later_epoch(dead().image(124), 124));
                situation.log("changelog_ml.0.mfs", 130..167)
            };
            let older = set().file("changelog_ml.1.mfs", dead().numbered(120..125, EPOCH));
            vec![set(), older]
        },
    },
    Case {
        name: "cold start",
        what: "the last master itself: its own log goes on to 166, the metalogger's copy of the same ends at 149",
        ours: Ours::Serves,
        build: || {
            let situation = Situation::new(&History::real(167)).image("metadata_ml.mfs.back", BASE);
            let situation = situation.log("changelog_ml.0.mfs", BASE..150);
            situation.image("metadata.mfs.back", BASE).log("changelog.0.mfs", BASE..167).alone()
        },
    },
    Case {
        name: "cold start, newer image",
        what: "the same, with the own image of a later dump and nothing older; it remembers that it served last",
        ours: Ours::Serves,
        build: || newer_image().served_last().alone(),
    },
    Case {
        name: "the same, not remembered",
        what: "another master was seen since, or the state folder is lost",
        ours: Ours::Refuses("no change in common"),
        build: || newer_image().alone(),
    },
    Case {
        name: "cold start, but the metalogger has more",
        what: "own files end at 149; the metalogger's log has a hole from 130 to 139 and goes up to 166",
        ours: Ours::Serves,
        build: || {
            let truth = History::real(167);
            let log = truth.log(BASE..130) + &truth.log(140..167);
            let situation = Situation::new(&truth).image("metadata_ml.mfs.back", BASE).file("changelog_ml.0.mfs", log);
            situation.image("metadata.mfs.back", BASE).log("changelog.0.mfs", BASE..150).alone()
        },
    },
    Case {
        name: "the same, with nothing in common at the end",
        what: "own files end at 135; the metalogger's log has a hole from 130 to 139 and goes up to 166",
        ours: Ours::Refuses("reaches change 166"),
        build: || {
            let truth = History::real(167);
            let log = truth.log(BASE..130) + &truth.log(140..167);
            let situation = Situation::new(&truth).image("metadata_ml.mfs.back", BASE).file("changelog_ml.0.mfs", log);
            situation.image("metadata.mfs.back", BASE).log("changelog.0.mfs", BASE..136).alone()
        },
    },
    Case {
        name: "old logs in common",
        what: "both have the same logs up to 119; then this machine went on alone as a master, up to 189",
        ours: Ours::Refuses("no change in common"),
        build: || {
            let situation = ml().log("changelog_ml.1.mfs", 100..120).log("changelog.1.mfs", 100..120);
            let situation = situation.stray_image("metadata.mfs.back", &dead(), 180);
            situation.stray_log("changelog.0.mfs", &dead(), 180..190).alone()
        },
    },
    Case {
        name: "own image and log, the metalogger's later changes",
        what: "own files end at 129; the metalogger's log goes from 120 to 166, but it has no image",
        ours: Ours::Serves,
        build: || {
            let situation = Situation::new(&valid()).image("metadata.mfs.back", BASE);
            situation.log("changelog.0.mfs", BASE..130).log("changelog_ml.0.mfs", 120..167).alone()
        },
    },
    Case {
        name: "own image, the metalogger's changes",
        what: "an own image of 67 and the metalogger's log from 67 on, but no image of the metalogger",
        ours: Ours::Refuses("only this machine's own files are complete"),
        build: || {
            let situation = Situation::new(&valid()).image("metadata.mfs.back", BASE);
            situation.log("changelog_ml.0.mfs", BASE..167).alone()
        },
    },
    Case {
        name: "both the same",
        what: "own files and the metalogger's copy of them end alike",
        ours: Ours::Serves,
        build: || ml().image("metadata.mfs.back", BASE).log("changelog.0.mfs", BASE..167).alone(),
    },
    Case {
        name: "own image of another file system",
        what: "an own image with another metaid, and a good set of the metalogger",
        ours: Ours::Refuses("two file systems in one folder"),
        build: || ml().file("metadata.mfs.back", foreign(History::real(167).image(BASE))).alone(),
    },
    Case {
        name: "kept image of another file system",
        what: "`metadata_ml.mfs.back.1` has another metaid",
        ours: Ours::Refuses("two file systems in one folder"),
        build: || ml().file("metadata_ml.mfs.back.1", foreign(History::real(167).image(BASE))).alone(),
    },
    Case {
        name: "own logs of another file system",
        what: "logs of another master, without its image, with ids from 150 to 199",
        ours: Ours::Serves,
        build: || {
            let alien = History::real(167).branch(68, "alien", 0, 200);
            ml().stray_log("changelog.0.mfs", &alien, 150..200).alone()
        },
    },
    Case {
        name: "`MFSM NEW` and two metaids",
        what: "`MFSM NEW`, and logs that give the file system one metaid and then another",
        ours: Ours::Refuses("two file systems in one folder"),
        build: || {
            let truth = History::real(BASE);
            let more = "67: 1795387290|SETMETAID(7711129010397896477)\n".to_owned();
            let situation = Situation::new(&truth).file("metadata_ml.tmp", "MFSM NEW");
            situation.log("changelog_ml.1.mfs", 1..BASE).file("changelog_ml.0.mfs", more).alone()
        },
    },
    Case {
        name: "dead branch of the metalogger",
        what: "the metalogger has followed an old master up to 149, then the new one from 120 on",
        ours: Ours::Warns("differ from those in changelog_ml.0.mfs, which is newer"),
        build: || {
            let situation = Situation::new(&valid()).image("metadata_ml.mfs.back", BASE);
            let situation = situation.stray_log("changelog_ml.1.mfs", &dead(), BASE..150);
            situation.log("changelog_ml.0.mfs", 120..167).alone()
        },
    },
    Case {
        name: "the same, reaching further",
        what: "the old master's branch goes up to 199",
        ours: Ours::Warns("differ from those in changelog_ml.0.mfs, which is newer"),
        build: || {
            let situation = Situation::new(&valid()).image("metadata_ml.mfs.back", BASE);
            let situation = situation.stray_log("changelog_ml.1.mfs", &dead(), BASE..200);
            situation.log("changelog_ml.0.mfs", 120..167).alone()
        },
    },
    Case {
        name: "another history in one file",
        what: "the same in a single log, which steps back from 149 to 120 (the metalogger of 1.6.19)",
        ours: Ours::Warns("which is newer"),
        build: || {
            let situation = Situation::new(&valid()).image("metadata_ml.mfs.back", BASE).stray(&dead());
            situation.file("changelog_ml.0.mfs", dead().log(BASE..150) + &valid().log(120..167)).alone()
        },
    },
    Case {
        name: "two fetched logs of two histories",
        what: "`changelog_ml_back.0.mfs` and `.1` differ from 120 on, and no log says which was fetched later",
        ours: Ours::Refuses("nothing shows which was served last"),
        build: || {
            let situation = Situation::new(&valid()).image("metadata_ml.mfs.back", BASE);
            let situation = situation.stray_log("changelog_ml_back.1.mfs", &dead(), BASE..150);
            situation.log("changelog_ml_back.0.mfs", BASE..167).alone()
        },
    },
    Case {
        name: "the metalogger has stepped back",
        what: "a stale master took over at 120: the newest image is of 130, the one kept before it of 190",
        ours: Ours::Refuses("the older metadata_ml.mfs.back.1 has version 190"),
        build: || {
            let situation = Situation::new(&valid()).image("metadata_ml.mfs.back", 130);
            let situation = situation.stray_image("metadata_ml.mfs.back.1", &dead(), 190);
            situation.log("changelog_ml.0.mfs", 130..167).alone()
        },
    },
    Case {
        name: "image of the new master, log of the old one",
        what: "the metalogger's image of 130 is of the new master, a log of the old one goes up to 129",
        ours: Ours::Serves,
        build: || {
            let situation = Situation::new(&valid()).image("metadata_ml.mfs.back", 130);
            let situation = situation.stray_log("changelog_ml.1.mfs", &dead(), BASE..130);
            situation.log("changelog_ml.0.mfs", 130..167).alone()
        },
    },
];
