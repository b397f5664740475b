use super::*;
use crate::metadata::testing::{line, lines};
use proptest::prelude::*;

fn scanned(text: impl AsRef<[u8]>) -> Scan {
    scan(text.as_ref()).unwrap()
}

fn ranges(scan: &Scan) -> Vec<(u64, u64)> {
    scan.segments.iter().map(|s| (s.first, s.last)).collect()
}

fn kinds(scan: &Scan) -> Vec<Kind> {
    scan.damage.iter().map(|d| d.kind).collect()
}

#[test]
fn real_lines() {
    for (text, id, time) in [
        ("0: 1795380099|SESSION():1", 0, 1_795_380_099),
        ("1: 1795380117|CREATE(1,f1,f,420,0,0,0):2", 1, 1_795_380_117),
        ("4: 9|TRASH_RECOVER(5,1,x,0,1,2,3):(a/b)", 4, 9),
        ("5: 9|SCSET(a,1,1,d,0,0,C(1:2:3),K(1:2:3),A(1:2:3:4),T(1:2:3:4),2,(0:0:0),1,2,e):7", 5, 9),
        ("6: 9|SNAPSHOT(1,2,3,n,0):1,2,3,4", 6, 9),
        ("7: 9|IDLE()", 7, 9),
        ("8: 9|SESADD(#9276,1,0,0000,0,0,999,999,1,9,0,4294967295,0x00000000,2130706433,/tmp/m nt|:):1", 8, 9),
    ] {
        let line = parse(text.as_bytes()).unwrap_or_else(|| panic!("{text}"));
        assert_eq!((line.id, line.time), (id, time), "{text}");
        assert_eq!(line.change, text.split_once(": ").unwrap().1.as_bytes());
    }
}

#[test]
fn lines_that_are_none() {
    for text in [
        "",
        "7",
        "7:",
        "7: ",
        "7: 9",
        "7: 9|",
        "7: 9|CREA",
        "7: 9|CREATE(1,2",
        "7: 9|CREATE(1,2))",
        "7: 9|CREATE)",
        "7: 9|create(1)",
        "7: |CREATE(1)",
        "7 9|CREATE(1)",
        "-7: 9|CREATE(1)",
        "07: 9|CREATE(1)",
        " 7: 9|CREATE(1)",
        "7: 9|CREATE(1)\r",
        "7: 9|CREATE(1)x",
        "7: 9|CREATE(1):2x",
        "7: 9|CREATE(1\0)",
        "18446744073709551615: 9|CREATE(1)",
        "99999999999999999999999: 9|CREATE(1)",
    ] {
        assert_eq!(parse(text.as_bytes()), None, "{text:?}");
    }
}

/// Wherever a metalogger was killed in a line, what it appends after its restart is found, and nothing else.
#[test]
fn a_line_cut_anywhere_and_written_on() {
    let whole = "796: 1795387285|SCSET(a,1,C(1:2:3),K(1:2:3),x):(p,q)";
    for cut in 1..=whole.len() {
        let scan = scanned(lines(790..=795, 0) + &whole[..cut] + &lines(869..=875, 0));
        assert_eq!((ranges(&scan), scan.lines), (vec![(790, 795), (869, 875)], 13), "{cut}");
        let (offset, bytes, kind) = (lines(790..=795, 0).len() as u64, cut as u64, Kind::Glued);
        assert_eq!(scan.damage, [Damage { offset, bytes, kind }]);
        assert_eq!(scan.segments[1].start, offset + bytes);
    }
}

#[test]
fn a_whole_log() {
    let text = lines(5..=20, 0);
    let scan = scanned(&text);
    assert_eq!((scan.first(), scan.last(), scan.lines), (Some(5), Some(20), 16));
    assert_eq!((scan.last_time(), scan.segments[0].end), (Some(1_000_020), text.len() as u64));
    assert_eq!((scan.torn, scan.damage), (None, vec![]));
    assert_eq!(scanned(""), Scan::default());
}

#[test]
fn every_torn_tail() {
    let (good, tail) = (lines(5..=20, 0), line(21, 0));
    for cut in 1..tail.len() {
        let scan = scanned(format!("{good}{}", &tail[..cut]));
        let (offset, bytes) = (good.len() as u64, cut as u64);
        assert_eq!(scan.torn, Some(Torn { offset, bytes }));
        assert_eq!((scan.last(), scan.damage.len()), (Some(20), 0));
    }
    assert_eq!(scanned("12: 1795").segments, vec![]);
}

#[test]
fn a_tail_that_is_more_than_one_torn_line_has_an_unknown_extent() {
    let good = lines(5..=20, 0);
    let long = "21: 1795|SETXATTR(2,user.x,".to_owned() + &"x".repeat(MAX_LINE);
    for (what, tail, ended) in [
        ("NULs", "\0".repeat(30), false),
        ("NULs and a newline", "\0".repeat(30) + "\n", true),
        ("a line cut off, and NULs", "21: 17\0\0".to_owned(), false),
        ("NULs, and a change far behind", "\0".repeat(30) + &line(400, 0), true),
        ("another file's content", "\u{1}\u{2}".to_owned(), false),
        ("more than a line", long.clone(), false),
        ("more than a line, and its end", long + "\n", true),
    ] {
        let scan = scanned(good.clone() + &tail);
        let (offset, bytes) = (good.len() as u64, tail.len() as u64);
        assert_eq!(scan.damage, [Damage { offset, bytes, kind: Kind::Tail }], "{what}");
        assert_eq!((scan.torn, scan.last(), ended), (None, Some(20), tail.ends_with('\n')), "{what}");
    }
    // Behind it the log goes on, and the numbers say what is missing.
    let scan = scanned(good + &"\0".repeat(30) + "\n" + &lines(23..=25, 0));
    assert_eq!(scan.damage[0].kind, Kind::Garbage);
}

#[test]
fn every_break() {
    let at = lines(1..=3, 0).len() as u64;
    let after = |middle: &str, ids: &[u64]| scanned(lines(1..=3, 0) + middle + &lines(ids.iter().copied(), 0));
    for (what, scan, expected, kind) in [
        ("garbage", after("\u{1}\u{2}\n", &[4, 5]), vec![(1, 3), (4, 5)], Kind::Garbage),
        ("blank", after("\n", &[5]), vec![(1, 3), (5, 5)], Kind::Garbage),
        ("two bad lines", after("x\ny\n", &[]), vec![(1, 3)], Kind::Garbage),
        ("zeros", after(&("\0".repeat(300_000) + "\n"), &[6]), vec![(1, 3), (6, 6)], Kind::Garbage),
        ("hole", after("", &[6, 7]), vec![(1, 3), (6, 7)], Kind::Hole { expected: 4, found: 6 }),
        ("step back", after("", &[2, 3]), vec![(1, 3), (2, 3)], Kind::StepBack { expected: 4, found: 2 }),
        ("same again", after("", &[3]), vec![(1, 3), (3, 3)], Kind::StepBack { expected: 4, found: 3 }),
    ] {
        assert_eq!((ranges(&scan), kinds(&scan)), (expected, vec![kind]), "{what}");
        assert_eq!((scan.damage[0].offset, scan.segments[0].end), (at, at), "{what}");
    }
}

#[test]
fn a_line_may_be_long_but_not_longer() {
    let padding = "x".repeat(MAX_LINE - "4: 9|A()\n".len());
    let longest = format!("4: 9|A({padding})\n");
    assert_eq!(longest.len(), MAX_LINE);
    let scan = scanned(lines(1..=3, 0) + &longest + &line(5, 0));
    assert_eq!(ranges(&scan), [(1, 5)]);
    let longer = format!("4: 9|A(x{padding})\n");
    let scan = scanned(lines(1..=3, 0) + &longer + &line(5, 0));
    assert_eq!(ranges(&scan), [(1, 3), (5, 5)]);
    assert_eq!(scan.damage[0].bytes, longer.len() as u64);
}

#[test]
fn a_line_appended_to_a_torn_one_is_used() {
    let torn = &line(4, 0)[..12];
    let text = lines(1..=3, 0) + torn + &lines(9..=12, 0);
    let scan = scanned(&text);
    assert_eq!((ranges(&scan), scan.lines), (vec![(1, 3), (9, 12)], 7));
    let (offset, bytes) = (lines(1..=3, 0).len() as u64, 12);
    let kind = Kind::Glued;
    assert_eq!(scan.damage, [Damage { offset, bytes, kind }]);
    assert!(text.as_bytes()[usize::try_from(scan.segments[1].start).unwrap()..].starts_with(b"9: "));
    // With nothing behind it the id cannot be told: the digits may begin with some of the torn line.
    let scan = scanned(lines(1..=3, 0) + torn + &line(9, 0));
    assert_eq!((ranges(&scan), kinds(&scan)), (vec![(1, 3)], vec![Kind::Garbage]));
}

#[test]
fn the_last_line_appended_to_its_own_torn_beginning_is_used() {
    let whole = line(4, 0);
    for cut in 2..whole.len() {
        let before = lines(1..=3, 0) + &whole[..cut];
        let text = before.clone() + &whole;
        let scan = scanned(&text);
        assert_eq!((ranges(&scan), kinds(&scan), scan.lines), (vec![(1, 3), (4, 4)], vec![Kind::Glued], 4), "{cut}");
        let (start, end) = (scan.segments[1].start, scan.segments[1].end);
        assert_eq!((start, end), (before.len() as u64, text.len() as u64));
        // After an epoch jump the id ends in the same digits: not the change that was torn.
        let jumped = scanned(before + "200000" + &whole);
        assert_eq!(ranges(&jumped), [(1, 3)], "{cut}");
    }
}

#[test]
fn a_log_broken_all_over_is_given_up() {
    let scan = scanned(lines((0..500).map(|n| 2 * n), 0));
    assert_eq!(scan.segments.len(), MAX_SEGMENTS);
    assert_eq!(scan.damage.last().unwrap().kind, Kind::GivenUp);
}

#[test]
fn the_metaid_in_a_log() {
    let scan = scanned("1: 1795387130|SETMETAID(7711129010397896476)\n");
    let (change, metaid) = (1, 7_711_129_010_397_896_476);
    assert_eq!(scan.metaid, Some(SetMetaid { change, metaid }));
    let highest = scanned("1: 17|SETMETAID(18446744073709551615)\n");
    assert_eq!(highest.metaid.unwrap().metaid, u64::MAX);
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        scanned(bytes);
    }

    #[test]
    fn random_lines_never_panic(text in "([0-9: |A-Z()\n]{0,12}){0,60}") {
        let scan = scanned(&text);
        for s in &scan.segments {
            prop_assert!(s.first <= s.last && s.start < s.end && s.end <= text.len() as u64);
        }
    }

    /// One changed byte is found, or changes nothing but the text of one change.
    #[test]
    fn a_changed_byte_never_moves_an_id(at in 0_usize..200, byte: u8) {
        let mut bytes = lines(1..=30, 0).into_bytes();
        bytes[at] = byte;
        let scan = scanned(&bytes);
        for s in &scan.segments {
            let mut id = s.first;
            let text = &bytes[usize::try_from(s.start).unwrap()..usize::try_from(s.end).unwrap()];
            for line in text.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
                prop_assert_eq!(parse(line).unwrap().id, id);
                id += 1;
            }
            prop_assert_eq!(id, s.last + 1);
        }
    }
}
