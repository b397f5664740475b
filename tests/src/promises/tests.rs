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
    let found = trace(TAKEOVER).judge();
    assert!(found.broken.is_empty(), "{found}");
    assert_eq!((found.runs, found.overlap, found.hook), (1, Duration::ZERO, Duration::ZERO));
    assert_eq!(found.unserved, Duration::from_millis(1500));
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
fn two_that_serve_are_seen_although_one_serves_at_the_end() {
    let both = "
        0.0 m1 lab: holds the address
        0.0 m1 lab: listens on 9421
        5.0 m2 lab: holds the address
        5.0 m2 lab: listens on 9421
        7.5 m1 lab: does not hold the address any more
        60.0 m2 lab: done";
    assert!(broken(&trace(both)).contains("two machines served for 2.5s from 5.000"));
    let shorter = both.replace("7.5", "6.5");
    let found = trace(&shorter).judge();
    assert!(found.broken.is_empty() && found.overlap == Duration::from_millis(1500), "{found}");
    // Clients reach one of the two: its time is bounded, too.
    let parted = both.replace("5.0 m2 lab: holds", "4.0 m1 lab: isolated beyond its link\n 5.0 m2 lab: holds");
    let found = trace(&parted).judge();
    assert!(found.broken.is_empty() && found.split == Duration::from_millis(2500), "{found}");
    assert!(broken(&trace(&parted.replace("7.5", "12.0"))).contains("parted by a cut"));
    // And it counts as joined again from the moment it is healed.
    let healed = parted.replace("7.5", "5.1 m1 lab: network whole again\n 7.5");
    assert!(broken(&trace(&healed)).contains("two machines served for 2.4s"));
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
    assert!(broken(&trace(&long)).contains("m2: the promotion of process 21 has not ended after"));
    let next = endless.replace("30.0 m2 lab: done", "30.0 m2 mfs-promote[22]: demotion begun");
    assert!(broken(&trace(&next)).contains("m2: a promotion began while another run had not ended"));
    let killed = next.replace("30.0 m2", "29.0 m2 lab: SIGKILL to mfs-promote\n 30.0 m2");
    assert!(trace(&killed).judge().broken.is_empty());
}

#[test]
fn an_address_that_nobody_serves_on_is_seen() {
    let idle = TAKEOVER.replace("14.5 m2 lab: listens on 9421", "");
    assert!(trace(&idle).judge().broken.is_empty());
    assert!(broken(&trace(&idle.replace("30.0 m2", "59.0 m2"))).starts_with("m2 held the address for 46s from 13.000"));
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
