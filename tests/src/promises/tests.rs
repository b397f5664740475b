use std::time::SystemTime;

use super::*;

/// `SECONDS MACHINE TEXT`, one per line.
fn trace(lines: &str) -> Trace {
    let event = |line: &str| {
        let mut words = line.trim().splitn(3, ' ');
        let seconds: f64 = words.next()?.parse().ok()?;
        let (machine, text) = (words.next()?.to_owned(), words.next()?.to_owned());
        Some(Event { at: at(seconds), wall: SystemTime::UNIX_EPOCH, machine, text })
    };
    let events: Vec<Event> = lines.lines().filter_map(event).collect();
    let end = events.last().map(|event| event.at);
    Trace { events, end, ..Trace::default() }
}

/// A machine answers each 20 ms from one moment to another one, 2 ms after it was asked.
fn replies(by: &str, from: f64, to: f64) -> Vec<Reply> {
    let (mut all, mut sent) = (Vec::new(), from);
    while sent + 0.002 <= to {
        all.push(Reply { by: by.to_owned(), sent: at(sent), received: at(sent + 0.002) });
        sent += 0.02;
    }
    all
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a few seconds
fn at(seconds: f64) -> Moment {
    Moment((seconds * 1e9) as u64)
}

fn answer(seconds: f64, by: &str, version: u64) -> Answer {
    Answer { at: at(seconds), by: by.to_owned(), version }
}

/// The one promise that a trace breaks.
fn broken(trace: &Trace) -> String {
    let found = trace.judge();
    assert_eq!(found.broken.len(), 1, "{found}");
    found.broken[0].clone()
}

const TAKEOVER: &str = "
    0.0 m1 lab: holds the address
    0.1 m1 lab: listens on 9421
    10.0 m1 lab: power off
    10.1 m1 lab: does not hold the address any more
    10.1 m1 lab: does not listen on 9421 any more
    13.0 m2 ucarp[9]: [WARNING] Spawning [/usr/bin/vip-up eth0 172.16.0.99]
    13.0 m2 lab: holds the address
    13.0 m2 vip-up[20]: 172.16.0.99 added to eth0; promotion started (process 21)
    13.1 m2 mfs-promote[21]: promotion begun
    14.2 m2 mfs-promote[21]: stage: ml, image metadata_ml.mfs.back of version 2 to version 90 (served as 1000090) (8 ms)
    14.5 m2 lab: listens on 9421
    18.0 m2 mfs-promote[21]: promotion ended: serving, version 1000090
    30.0 m2 lab: done";

#[test]
fn a_takeover_breaks_nothing() {
    let mut takeover = trace(TAKEOVER);
    takeover.replies = [replies("m1", 0.1, 10.0), replies("m2", 14.5, 30.0)].concat();
    let found = takeover.judge();
    assert!(found.broken.is_empty(), "{found}");
    assert_eq!((found.runs, found.overlap(), found.hook), (1, Duration::ZERO, Duration::ZERO));
    assert_eq!(found.unserved, Duration::from_millis(1502));
}

#[test]
fn a_hook_of_a_machine_without_power_is_no_hook() {
    let dying = TAKEOVER.replace(
        "    10.1 m1 lab: does not hold",
        "    10.0 m1 ucarp[8]: [WARNING] Spawning [/usr/bin/vip-down eth0 172.16.0.99]\n    10.1 m1 lab: does not hold",
    );
    assert!(trace(&dying).judge().broken.is_empty(), "{}", trace(&dying).judge());
    assert!(broken(&trace(&dying.replace("10.0 m1 lab: power off", "10.0 m1 lab: nothing"))).contains("said nothing"));
}

#[test]
fn two_that_answer_are_seen_however_short_it_is() {
    let both = |first: (f64, f64), second: (f64, f64)| Trace {
        replies: [replies("m1", first.0, first.1), replies("m2", second.0, second.1)].concat(),
        ..trace("0.0 m1 lab: power on\n 0.0 m2 lab: power on\n 60.0 lab lab: done")
    };
    // One after the other is as it should be.
    let found = both((0.0, 5.0), (5.01, 9.0)).judge();
    assert!(found.broken.is_empty() && found.overlap() == Duration::ZERO, "{found}");
    let seen = broken(&both((0.0, 7.5), (5.01, 60.0)));
    assert!(seen.starts_with("m1 and m2 both answered for 2.4") && seen.ends_with("from 5.010 on"), "{seen}");
    // A single answer between two of the other machine is enough, and the order does not matter.
    for (first, second) in [((0.0, 60.0), (5.011, 5.013)), ((5.011, 5.013), (0.0, 60.0))] {
        assert_eq!(both(first, second).judge().overlap(), Duration::from_millis(2));
    }
    // What was asked before the other one's last answer may have been answered before it.
    assert_eq!(both((0.0, 5.0), (4.981, 5.2)).judge().overlap(), Duration::ZERO);
    // Where the first one was silent in between, it may have come back.
    let mut back = both((0.0, 5.0), (5.01, 5.09));
    back.replies.extend(replies("m1", 5.1, 9.0));
    assert_eq!(back.judge().overlap(), Duration::ZERO);
}

#[test]
fn two_that_a_split_parts_are_counted_and_not_judged() {
    let split = "
        0.0 m1 lab: power on
        3.0 lab lab: split: m1 cs1 c1 m3 | m2 cs2
        8.0 lab lab: joined again
        60.0 lab lab: done";
    let both = |split: &str, to| Trace {
        replies: [replies("m1", 0.0, 60.0), replies("m2", 5.01, to)].concat(),
        ..trace(split)
    };
    let found = both(split, 7.5).judge();
    assert!(found.broken.is_empty() && found.together(Between::Split) > Duration::from_secs(2), "{found}");
    // When they are joined again they have half a second, and two on the same side of a split have nothing.
    let found = both(split, 8.4).judge();
    assert!(found.broken.is_empty() && found.together(Between::EndedSplit) > Duration::from_millis(300), "{found}");
    assert!(broken(&both(split, 8.7)).contains("both answered for"));
    assert!(
        broken(&both(&split.replace("m2 cs2", "m4 cs2").replace("m3", "m2"), 7.5)).contains("both answered for 2.4")
    );
    // Whoever is cut off in another way answers no probe.
    let isolated = split.replace("lab lab: split: m1 cs1 c1 m3 | m2 cs2", "m1 lab: isolated beyond its link");
    assert!(broken(&both(&isolated, 7.5)).contains("both answered for"));
}

#[test]
fn history_that_was_answered_with_must_be_in_the_plan() {
    let mut takeover = trace(&TAKEOVER.replace("10.0 m1", "12.9 m1").replace("10.1 m1", "12.95 m1"));
    // A short stint proves nothing: the metaloggers may not have followed yet.
    takeover.answers = vec![answer(0.2, "m1", 50), answer(9.0, "m1", 91)];
    assert!(takeover.judge().broken.is_empty());
    takeover.events.iter_mut().for_each(|event| event.at = Moment(event.at.0 + 100_000_000_000));
    takeover.end = None;
    takeover.answers.push(answer(112.0, "m1", 91));
    assert!(broken(&takeover).contains("promotes history up to 90, m1 had answered with 91"));
    // What was answered a moment before the crash may be lost; so may what the copy could not receive.
    // Unless the lab has seen to it.
    let mut fresh = trace(&format!("0.0 m2 lab: power on\n 0.3 lab lab: the cluster is up\n{TAKEOVER}"));
    fresh.answers = vec![answer(0.2, "m1", 50), answer(9.0, "m1", 91)];
    assert!(broken(&fresh).contains("promotes history up to 90"));
    takeover.answers = vec![answer(0.2, "m1", 50), answer(112.0, "m1", 90), answer(112.85, "m1", 91)];
    let found = takeover.judge();
    assert!(found.broken.is_empty() && found.compared == 1, "{found}");
    takeover.answers[1].version = 91;
    // What its machine has said to be in no served history is not dropped silently.
    let mut named = takeover.clone();
    let line = "1.0 m1 mfs-promote[7]: not in the served history: versions 90 to 90 (1), 172.16.0.12 serves";
    named.events.splice(0..0, trace(line).events);
    assert!(named.judge().broken.is_empty() && broken(&takeover).contains("had answered with 91"));
    let starved = "1.0 m2 lab: its metalogger receives nothing";
    takeover.events.splice(0..0, trace(starved).events);
    let found = takeover.judge();
    assert!(found.broken.is_empty() && found.compared == 0, "{found}");
}

#[test]
fn a_run_that_does_not_end_is_seen() {
    let endless = TAKEOVER.replace("18.0 m2 mfs-promote[21]: promotion ended: serving", "18.0 m2 mfs-promote[21]: hm");
    // It may still be at work.
    let mut unfinished = trace(&endless);
    unfinished.running = Some([("m2".to_owned(), "21".to_owned())].into());
    assert!(unfinished.judge().broken.is_empty());
    // Whatever its age, it is broken once its process is gone.
    unfinished.running = Some([("m1".to_owned(), "21".to_owned())].into());
    assert!(broken(&unfinished).contains("m2: the promotion of process 21 is gone and has not logged how it ended"));
    let ended = Trace { running: Some(BTreeSet::new()), ..trace(TAKEOVER) };
    assert!(ended.judge().broken.is_empty());
    let long = endless.replace("30.0 m2", "300.0 m2");
    let long = Trace { replies: replies("m2", 14.5, 300.0), ..trace(&long) };
    assert!(broken(&long).contains("m2: the promotion of process 21 has not ended after"));
    let next = endless.replace("30.0 m2 lab: done", "30.0 m2 mfs-promote[22]: demotion begun");
    assert!(broken(&trace(&next)).contains("m2: a promotion began while another run had not ended"));
    let begun = "30.0 m2 mfs-promote[22]: demotion begun";
    let unlocked = next.replace(begun, &format!("30.0 m2 mfs-promote[22]: no space{WITHOUT_LOCK}\n {begun}"));
    assert!(trace(&unlocked).judge().broken.is_empty(), "it stops the master whatever else is at work");
    let killed = next.replace("30.0 m2", "29.0 m2 lab: SIGKILL to mfs-promote\n 30.0 m2");
    assert!(trace(&killed).judge().broken.is_empty());
}

#[test]
fn an_address_without_answers_is_seen() {
    let until = |end: &str, replies| Trace { replies, ..trace(&TAKEOVER.replace("30.0 m2", end)) };
    assert!(until("30.0 m2", Vec::new()).judge().broken.is_empty());
    let silent = broken(&until("59.0 m2", Vec::new()));
    assert!(silent.starts_with("m2 held the address for 46s from 13.000 on, and answered nobody"), "{silent}");
    let answered = until("59.0 m2", replies("m2", 14.0, 20.0)).judge();
    assert!(answered.broken.is_empty() && answered.unserved > Duration::from_secs(38), "{answered}");
    // Another one's answers do not count, and nor does the time in which nobody could ask.
    assert!(broken(&until("59.0 m2", replies("m1", 14.0, 50.0))).contains("46s"));
    let cut = until(
        "20.0 m2 lab: isolated beyond its link\n 50.0 m2 lab: network whole again\n 59.0 m2",
        replies("m1", 0.1, 10.0),
    );
    assert_eq!(cut.judge().unserved, Duration::from_secs(9));
}

#[test]
fn a_hook_that_takes_its_time_is_seen() {
    let slow = TAKEOVER.replace("13.0 m2 vip-up", "14.1 m2 vip-up");
    assert!(broken(&trace(&slow)).contains("vip-up eth0 172.16.0.99 delayed ucarp for 1.1s"));
    let mute = TAKEOVER.replace("13.0 m2 vip-up[20]", "13.0 m2 vop-up[20]");
    assert!(broken(&trace(&mute)).contains("has said nothing"));
    // Another call of the same program, by hand, is another matter.
    let by_hand = TAKEOVER.replace("18.0 m2", "17.0 m2 vip-up[33]: 172.16.0.99 was on eth0\n 18.0 m2");
    assert!(trace(&by_hand).judge().broken.is_empty());
}
