//! Images that are missing, cut off, damaged or of doubtful origin.

use super::case::{Case, Ours, Situation};
use super::history::{BASE, History};

const ML: &str = "metadata_ml.mfs.back";
const NEW: &str = "MFSM NEW";

/// The whole log of the metalogger from its image of version 67 on, without that image.
fn log() -> Situation {
    Situation::new(&History::real(167)).log("changelog_ml.0.mfs", BASE..167)
}

/// The first half of an image of `version`.
fn half(version: u64) -> Vec<u8> {
    let mut image = History::real(167).image(version);
    image.truncate(image.len() / 2);
    image
}

pub(super) const CASES: &[Case] = &[
    Case {
        name: "no image",
        what: "change logs of the metalogger, and nothing they could start from",
        ours: Ours::Refuses("no usable metadata"),
        build: || log().alone(),
    },
    Case {
        name: "image cut off, older one bridged",
        what: "half of `metadata_ml.mfs.back`, a whole `.back.1`, and all logs since that one",
        ours: Ours::Serves,
        build: || log().file(ML, half(130)).image("metadata_ml.mfs.back.1", BASE).alone(),
    },
    Case {
        name: "image cut off, older one not bridged",
        what: "the same, but the logs begin behind the older image",
        ours: Ours::Refuses("changes 67 to 129 are missing"),
        build: || {
            let situation = Situation::new(&History::real(167)).file(ML, half(130));
            situation.image("metadata_ml.mfs.back.1", BASE).log("changelog_ml.0.mfs", 130..167).alone()
        },
    },
    Case {
        name: "image cut off, no other",
        what: "half of `metadata_ml.mfs.back` and all logs",
        ours: Ours::Refuses("no usable metadata"),
        build: || log().file(ML, half(BASE)).alone(),
    },
    Case {
        name: "newest image not yet needed",
        what: "only `.back.1` and the logs: the newer image is gone",
        ours: Ours::Serves,
        build: || log().image("metadata_ml.mfs.back.1", BASE).alone(),
    },
    Case {
        name: "image with a wrong length inside",
        what: "the length of a section is wrong, the end marker is right; `.back.1` and all logs are there",
        ours: Ours::Serves,
        build: || {
            let mut image = History::real(167).image(130);
            image[24 + 8 + 4] = 1;
            log().file(ML, image).image("metadata_ml.mfs.back.1", BASE).alone()
        },
    },
    Case {
        name: "image with an impossible version",
        what: "the version in the header is 18446744073709551615; `.back.1` and all logs are there",
        ours: Ours::Serves,
        build: || {
            let mut image = History::real(167).image(130);
            image[8..16].fill(0xff);
            log().file(ML, image).image("metadata_ml.mfs.back.1", BASE).alone()
        },
    },
    Case {
        name: "bytes behind the image",
        what: "NUL bytes behind the end marker; `.back.1` and all logs are there",
        ours: Ours::Serves,
        build: || {
            let mut image = History::real(167).image(130);
            image.extend([0; 512]);
            log().file(ML, image).image("metadata_ml.mfs.back.1", BASE).alone()
        },
    },
    Case {
        name: "a download cut off",
        what: "a good set, and half of an image in `metadata_ml.tmp`",
        ours: Ours::Serves,
        build: || log().image(ML, BASE).file("metadata_ml.tmp", half(130)).alone(),
    },
    Case {
        name: "a download that was not renamed any more",
        what: "the only image is `metadata_ml.tmp`; it is whole",
        ours: Ours::Serves,
        build: || log().image("metadata_ml.tmp", BASE).alone(),
    },
    Case {
        name: "logs dropped, the download whole",
        what: "the metalogger has dropped its logs to download 167, which is whole; `metadata_ml.mfs.back` is of 67",
        ours: Ours::Warns("metadata_ml.tmp of"),
        build: || Situation::new(&History::real(167)).image(ML, BASE).image("metadata_ml.tmp", 167).alone(),
    },
    Case {
        name: "logs dropped, the download cut off",
        what: "the same, but the master died when half of `metadata_ml.tmp` was here",
        ours: Ours::Refuses("changes 67 to 166 would be lost"),
        build: || Situation::new(&History::real(167)).image(ML, BASE).file("metadata_ml.tmp", half(167)).alone(),
    },
    Case {
        name: "image cut off, the logs behind it gone",
        what: "half of an image of 167, a whole `.back.1`, and logs that end at 129",
        ours: Ours::Refuses("changes 130 to 166 would be lost"),
        build: || {
            let situation =
                Situation::new(&History::real(167)).file(ML, half(167)).image("metadata_ml.mfs.back.1", BASE);
            situation.log("changelog_ml.0.mfs", BASE..130).alone()
        },
    },
    Case {
        name: "`MFSM NEW` beside a good set",
        what: "the download of an empty file system was left in `metadata_ml.tmp`",
        ours: Ours::Serves,
        build: || log().image(ML, BASE).file("metadata_ml.tmp", NEW).alone(),
    },
    Case {
        name: "`MFSM NEW` alone",
        what: "nothing but the 8 bytes `MFSM NEW` in `metadata_ml.tmp`, of a file system that is at 167",
        ours: Ours::Refuses("no usable metadata"),
        build: || Situation::new(&History::real(167)).file("metadata_ml.tmp", NEW).alone(),
    },
    Case {
        name: "`metadata.mfs.empty` alone",
        what: "the template that the package installs, and nothing else, of a file system that is at 167",
        ours: Ours::Refuses("no usable metadata"),
        build: || Situation::new(&History::real(167)).file("metadata.mfs.empty", NEW).alone(),
    },
    Case {
        name: "`metadata.mfs.empty`, logs without an image",
        what: "the template, and logs of the metalogger that begin with 67",
        ours: Ours::Refuses("no usable metadata"),
        build: || log().file("metadata.mfs.empty", NEW).alone(),
    },
    Case {
        name: "`metadata.mfs.empty` beside a good set",
        what: "the template, and the metalogger's image and log",
        ours: Ours::Serves,
        build: || log().image(ML, BASE).file("metadata.mfs.empty", NEW).alone(),
    },
    Case {
        name: "`MFSM NEW` with all changes",
        what: "a file system so young that there is no dump: `MFSM NEW`, and logs from change 1 on",
        ours: Ours::Serves,
        build: || {
            let situation = Situation::new(&History::real(BASE)).file("metadata_ml.tmp", NEW);
            situation.log("changelog_ml.0.mfs", 2..BASE).log("changelog_ml_back.0.mfs", 1..2).alone()
        },
    },
    Case {
        name: "`MFSM NEW` without change 1",
        what: "`MFSM NEW`, and a log that begins with change 2",
        ours: Ours::Refuses("no usable metadata"),
        build: || {
            let situation = Situation::new(&History::real(BASE)).file("metadata_ml.tmp", NEW);
            situation.log("changelog_ml.0.mfs", 2..BASE).alone()
        },
    },
    Case {
        name: "`MFSM NEW` as `metadata.mfs`",
        what: "a master was installed here but never started; the metalogger's set is good",
        ours: Ours::Serves,
        build: || log().image(ML, BASE).file("metadata.mfs", NEW).alone(),
    },
    Case {
        name: "emergency image",
        what: "a master with a full disk has saved version 167 as `metadata.mfs.emergency`; its dump is of 67",
        ours: Ours::Warns("this machine's own files"),
        build: || {
            let situation = Situation::new(&History::real(167)).image("metadata.mfs.back", BASE);
            situation.image("metadata.mfs.emergency", 167).alone()
        },
    },
    Case {
        name: "a crash during the dump",
        what: "a master's old dump of 67 with all logs, and half of the new one in `metadata.mfs.back.tmp`",
        ours: Ours::Warns("this machine's own files"),
        build: || {
            let situation = Situation::new(&History::real(167)).image("metadata.mfs.back", BASE);
            let situation = situation.file("metadata.mfs.back.tmp", half(150));
            situation.log("changelog.0.mfs", 100..167).log("changelog.1.mfs", 2..100).alone()
        },
    },
    Case {
        name: "stopped in good order",
        what: "a master's own `metadata.mfs` of 167, its dump of 67 and its logs",
        ours: Ours::Warns("this machine's own files"),
        build: || {
            let situation = Situation::new(&History::real(167)).image("metadata.mfs", 167);
            situation.image("metadata.mfs.back", BASE).log("changelog.0.mfs", BASE..167).alone()
        },
    },
];
