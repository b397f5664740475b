//! Torn, overwritten and damaged lines.

use super::case::{Case, Ours, Situation};
use super::history::{BASE, History};

/// The metalogger's image, and one log of it with these bytes.
fn ml(truth: &History, log: impl AsRef<[u8]>) -> Situation {
    Situation::new(truth).image("metadata_ml.mfs.back", BASE).file("changelog_ml.0.mfs", log)
}

/// The first `bytes` of the line of change `id`.
fn part(truth: &History, id: u64, bytes: usize) -> String {
    truth.line(id)[..bytes].to_owned()
}

fn nuls(count: usize) -> String {
    "\0".repeat(count)
}

pub(super) const CASES: &[Case] = &[
    Case {
        name: "torn last line",
        what: "the metalogger's log ends within a line; one folder for every byte that the line can be cut at",
        ours: Ours::Warns("torn last line of"),
        build: || {
            let (whole, truth) = (History::real(167), History::real(166));
            let cuts = 1..whole.line(166).len();
            cuts.map(|cut| ml(&truth, truth.log(BASE..166) + &part(&whole, 166, cut))).collect()
        },
    },
    Case {
        name: "torn, but whole elsewhere",
        what: "the last line is torn, the log fetched from the master has it whole",
        ours: Ours::Serves,
        build: || {
            let truth = History::real(167);
            let log = truth.log(BASE..166) + &part(&truth, 166, 20);
            ml(&truth, log).log("changelog_ml_back.0.mfs", 100..167).alone()
        },
    },
    Case {
        name: "torn line in a rotated log",
        what: "`changelog_ml.1.mfs` ends within line 120, `changelog_ml.0.mfs` begins with 121",
        ours: Ours::Refuses("change 120 is missing"),
        build: || {
            let truth = History::real(167);
            let rotated = truth.log(BASE..120) + &part(&truth, 120, 20);
            ml(&truth, truth.log(121..167)).file("changelog_ml.1.mfs", rotated).alone()
        },
    },
    Case {
        name: "rotated without a final newline",
        what: "`changelog_ml.1.mfs` ends with all of line 120 but its newline, the next log begins with 121",
        ours: Ours::Refuses("change 120 is missing"),
        build: || {
            let truth = History::real(167);
            let rotated = truth.log(BASE..121);
            ml(&truth, truth.log(121..167)).file("changelog_ml.1.mfs", rotated.trim_end()).alone()
        },
    },
    Case {
        name: "a master's own torn log",
        what: "only a crashed master's own files; its log ends within a line",
        ours: Ours::Warns("torn last line of"),
        build: || {
            let (whole, truth) = (History::real(167), History::real(166));
            let log = truth.log(BASE..166) + &part(&whole, 166, 30);
            Situation::new(&truth).image("metadata.mfs.back", BASE).file("changelog.0.mfs", log).alone()
        },
    },
    Case {
        name: "written on behind a torn line",
        what: "a restarted metalogger has appended the whole line 150 to its torn beginning, and went on",
        ours: Ours::Serves,
        build: || {
            let truth = History::real(167);
            let log = truth.log(BASE..150) + &part(&truth, 150, 12) + &truth.log(150..167);
            ml(&truth, log).alone()
        },
    },
    Case {
        name: "the same, and nothing behind it",
        what: "the line appended to a torn one is the last of the log",
        ours: Ours::Serves,
        build: || {
            let truth = History::real(167);
            let log = truth.log(BASE..166) + &part(&truth, 166, 12) + &truth.line(166);
            ml(&truth, log).alone()
        },
    },
    Case {
        name: "written on behind two digits",
        what: "of the torn line 150 only `15` is left: the log goes on with `15150: …`",
        ours: Ours::Serves,
        build: || {
            let truth = History::real(167);
            let log = truth.log(BASE..150) + "15" + &truth.log(150..167);
            ml(&truth, log).alone()
        },
    },
    Case {
        name: "two digits, and nothing behind it",
        what: "the log ends with `16166: …`: is it 166 behind a torn `16`, or 16166 behind a hole?",
        ours: Ours::Refuses("changes 166 to 16165 are missing"),
        build: || {
            let truth = History::real(167);
            let log = truth.log(BASE..166) + "16" + &truth.line(166);
            ml(&truth, log).alone()
        },
    },
    Case {
        name: "written on without the torn change",
        what: "behind the torn line 150 the log goes on with 151",
        ours: Ours::Refuses("change 150 is missing"),
        build: || {
            let truth = History::real(167);
            let log = truth.log(BASE..150) + &part(&truth, 150, 12) + &truth.log(151..167);
            ml(&truth, log).alone()
        },
    },
    Case {
        name: "NULs at the end",
        what: "a power cut has left 4,096 NUL bytes behind the last line",
        ours: Ours::Refuses("how many changes stood there is unknown"),
        build: || {
            let truth = History::real(167);
            ml(&truth, truth.log(BASE..167) + &nuls(4096)).alone()
        },
    },
    Case {
        name: "NULs at the end, and the next log",
        what: "the same in `changelog_ml.1.mfs`; `changelog_ml.0.mfs` goes on with the next change",
        ours: Ours::Serves,
        build: || {
            let truth = History::real(167);
            let rotated = truth.log(BASE..150) + &nuls(4096);
            ml(&truth, truth.log(150..167)).file("changelog_ml.1.mfs", rotated).alone()
        },
    },
    Case {
        name: "an end longer than a line",
        what: "the last line is cut off after 200,000 bytes: no line of MooseFS is as long",
        ours: Ours::Refuses("how many changes stood there is unknown"),
        build: || {
            let truth = History::real(167);
            ml(&truth, truth.log(BASE..167) + "167: 1795387290|CREATE(1," + &"x".repeat(200_000)).alone()
        },
    },
    Case {
        name: "NULs, and written on behind them",
        what: "as above, and the restarted metalogger has gone on behind the NULs",
        ours: Ours::Serves,
        build: || {
            let truth = History::real(167);
            ml(&truth, truth.log(BASE..150) + &nuls(100) + &truth.log(150..167)).alone()
        },
    },
    Case {
        name: "NULs in the middle",
        what: "lines 100 to 109 are NUL bytes",
        ours: Ours::Refuses("changes 100 to 109 are missing"),
        build: || {
            let truth = History::real(167);
            let lost = truth.log(100..110).len();
            ml(&truth, truth.log(BASE..100) + &nuls(lost) + &truth.log(110..167)).alone()
        },
    },
    Case {
        name: "NULs in the middle, whole elsewhere",
        what: "lines 100 to 109 are NUL bytes, the log fetched from the master has them",
        ours: Ours::Serves,
        build: || {
            let truth = History::real(167);
            let lost = truth.log(100..110).len();
            let log = truth.log(BASE..100) + &nuls(lost) + &truth.log(110..167);
            ml(&truth, log).log("changelog_ml_back.0.mfs", BASE..140).alone()
        },
    },
    Case {
        name: "a log of NULs",
        what: "all of `changelog_ml.0.mfs` is NUL bytes, `changelog_ml.1.mfs` is whole",
        ours: Ours::Refuses("how many changes stood there is unknown"),
        build: || {
            let truth = History::real(121);
            ml(&truth, nuls(3000)).log("changelog_ml.1.mfs", BASE..121).alone()
        },
    },
    Case {
        name: "garbage in the middle",
        what: "line 110 has become something else",
        ours: Ours::Refuses("change 110 is missing"),
        build: || {
            let truth = History::real(167);
            ml(&truth, truth.log(BASE..110) + "%!PS-Adobe-3.0\n" + &truth.log(111..167)).alone()
        },
    },
    Case {
        name: "a blank line in the middle",
        what: "an empty line between 110 and 111, all changes are there",
        ours: Ours::Serves,
        build: || {
            let truth = History::real(167);
            ml(&truth, truth.log(BASE..111) + "\n" + &truth.log(111..167)).alone()
        },
    },
    Case {
        name: "a remark at the end",
        what: "a line `# copied by hand` was added to the log",
        ours: Ours::Warns("17 bytes of garbage"),
        build: || {
            let truth = History::real(167);
            ml(&truth, truth.log(BASE..167) + "# copied by hand\n").alone()
        },
    },
    Case {
        name: "DOS line ends",
        what: "the log came through a program that ends lines with CR LF",
        ours: Ours::Refuses("cannot be read as a change log"),
        build: || {
            let truth = History::real(167);
            ml(&truth, truth.log(BASE..167).replace('\n', "\r\n")).alone()
        },
    },
    Case {
        name: "one wrong bit in an id",
        what: "line 110 says 910",
        ours: Ours::Refuses("change 110 is missing"),
        build: || {
            let truth = History::real(167);
            ml(&truth, truth.log(BASE..167).replace("\n110: ", "\n910: ")).alone()
        },
    },
    Case {
        name: "a huge id",
        what: "line 110 says 18446744073709551615",
        ours: Ours::Refuses("change 110 is missing"),
        build: || {
            let truth = History::real(167);
            ml(&truth, truth.log(BASE..167).replace("\n110: ", "\n18446744073709551615: ")).alone()
        },
    },
    Case {
        name: "a line of 150,000 bytes",
        what: "a large extended attribute was set; MooseFS allows that",
        ours: Ours::Serves,
        build: || {
            let value = "%00".repeat(50_000);
            let truth = History::real(166).then(&format!("SETXATTR(2,user.x,{value},0)"));
            ml(&truth, truth.log(BASE..167)).alone()
        },
    },
    Case {
        name: "a line of 250,000 bytes",
        what: "line 110 is longer than any that MooseFS writes",
        ours: Ours::Refuses("change 110 is missing"),
        build: || {
            let truth = History::real(167);
            let long = format!("110: 1795387281|A({})\n", "x".repeat(250_000));
            ml(&truth, truth.log(BASE..110) + &long + &truth.log(111..167)).alone()
        },
    },
];
