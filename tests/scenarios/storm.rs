//! ucarp changes its state at any pace: runs are cancelled at every phase, never two are at work, the last call decides,
//! and nothing acknowledged is lost.

use std::collections::BTreeMap;
use std::thread::{scope, sleep};
use std::time::Duration;

use lab::random::{self, pick};
use lab::{Cluster, LAST_RETRY, Result, VIP, log_lines};
use nix::sys::signal::Signal;
use regex_lite::Regex;

use crate::{SOON, digest, nothing_lost};

/// What a promotion logs as it goes, in this order; no master was started before the last two of the first list.
const UNTOUCHED: &[&str] = &[
    log_lines::PROMOTION_BEGUN,
    log_lines::PREPARED,
    log_lines::SETTLE,
    log_lines::METALOGGER_STOPPED,
    log_lines::STAGED,
    log_lines::COMMITTED,
];
const STARTED: &[&str] = &[log_lines::MASTER_STARTED, log_lines::PROVED, log_lines::WATCHED, log_lines::SERVING];
/// And a demotion of a machine that serves.
const DEMOTION: &[&str] = &[
    log_lines::DEMOTION_BEGUN,
    log_lines::GRACE_BEGUN,
    log_lines::GRACE_OVER,
    log_lines::MASTER_STOPPED,
    log_lines::DEMOTED,
];
/// How many calls make a storm.
const CALLS: u64 = 200;

#[test]
fn ucarp_steps_down_in_each_phase_of_a_promotion() -> Result<()> {
    let (cluster, load) = m2_alone()?;
    let files = digest(&cluster, "m2")?;
    let mut mark = cluster.mark();
    cluster.start_ucarp("m2")?;
    for phase in UNTOUCHED.iter().chain(STARTED) {
        cluster.wait_for_log_since(mark, "m2", phase, SOON)?;
        mark = cluster.mark();
        cluster.kill("m2", "ucarp", Signal::SIGUSR2)?;
        cluster.wait_for_log_since(mark, "m2", log_lines::DEMOTION_STARTED, SOON)?;
        if STARTED.contains(phase) {
            // No other machine could serve, so the demotion would leave it running, and the next promotion find it.
            cluster.wait_for_log_since(mark, "m2", log_lines::GRACE_BEGUN, SOON)?;
            cluster.must("m2", &["mfsmaster", "stop"])?;
        }
        cluster.wait_for_log_since(mark, "m2", log_lines::DEMOTION_ENDED, SOON)?;
        mark = cluster.mark();
        if UNTOUCHED.contains(phase) {
            assert_eq!(cluster.master_pid("m2"), None, "{phase}");
            assert_eq!(digest(&cluster, "m2")?, files, "every file is where it was after {phase}");
            cluster.daemon("m2", "mfsmetalogger")?;
        }
    }
    cluster.wait_for_log_since(mark, "m2", log_lines::SERVING_OR_ALREADY, SOON)?;
    never_two_at_once(&cluster, "m2");
    rests(&cluster, Call::Up)?;
    nothing_lost(&cluster, &load)
}

#[test]
fn the_address_comes_back_in_each_phase_of_a_demotion() -> Result<()> {
    let (cluster, load) = m2_alone()?;
    call(&cluster, Call::Up)?;
    cluster.wait_for_log("m2", log_lines::SERVING, SOON)?;
    for phase in DEMOTION {
        let mark = cluster.mark();
        call(&cluster, Call::Down)?;
        cluster.wait_for_log_since(mark, "m2", phase, SOON)?;
        let mark = cluster.mark();
        call(&cluster, Call::Up)?;
        cluster.wait_for_log_since(mark, "m2", log_lines::SERVING_OR_ALREADY, SOON)?;
        assert_eq!(cluster.serving(), ["m2"], "{phase}");
    }
    never_two_at_once(&cluster, "m2");
    // Nobody stays after a hook that was run by hand: address and answers are for good.
    sleep(Duration::from_secs(15));
    assert!(cluster.holds_vip("m2") && cluster.answers("m2"), "m2 goes on to serve");
    nothing_lost(&cluster, &load)
}

#[test]
fn a_promotion_that_is_ended_by_a_signal_leaves_no_address_without_a_master() -> Result<()> {
    let cluster = Cluster::build().masters(3).start()?;
    let load = cluster.client().keep_writing()?;
    for standby in ["m2", "m3"] {
        cluster.wait_for_metalogger_in_step(standby, SOON)?;
    }
    cluster.power_off("m1")?;
    cluster.wait_for_log("m2", log_lines::METALOGGER_STOPPED, SOON)?;
    cluster.signal_run("m2", "promotion", Signal::SIGTERM)?;
    cluster.wait_for_log("m2", log_lines::STEPPED_DOWN, SOON)?;
    let taken = cluster.wait_for_serving_other_than("m1", SOON)?;
    cluster.wait_for_log(&taken.by, log_lines::SERVING, SOON)?;
    load.wait_for_progress(LAST_RETRY)?;
    nothing_lost(&cluster, &load)
}

#[test]
fn a_storm_of_calls_ends_where_the_last_one_wants() -> Result<()> {
    let mut rng = random::rng();
    let (cluster, load) = m2_alone()?;
    for last in [Call::Down, Call::Up, Call::Down, Call::Up] {
        for _ in 1..CALLS / 4 {
            let one = pick(&mut rng, &[Call::Up, Call::Down]);
            if rng.u8(..8) == 0 {
                // Two at the same moment, as a dying ucarp and a new one make them.
                let other = pick(&mut rng, &[Call::Up, Call::Down]);
                scope(|scope| {
                    let other = scope.spawn(|| call(&cluster, other));
                    call(&cluster, one).and(other.join().expect("a call does not panic"))
                })?;
            } else {
                call(&cluster, one)?;
            }
            sleep(Duration::from_millis(match rng.u8(..10) {
                0..5 => rng.u64(..100),
                5..8 => rng.u64(..1500),
                _ => rng.u64(..6000),
            }));
        }
        call(&cluster, last)?;
        rests(&cluster, last)?;
    }
    load.wait_for_progress(LAST_RETRY)?;
    never_two_at_once(&cluster, "m2");
    cluster.wait_for_metalogger_in_step("m1", SOON)?;
    nothing_lost(&cluster, &load)
}

/// What ucarp can call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Up,
    Down,
}

/// Calls a hook on m2 with the arguments that ucarp gives.
pub(crate) fn call(cluster: &Cluster, call: Call) -> Result<()> {
    let hook = if call == Call::Up { "vip-up" } else { "vip-down" };
    cluster.must("m2", &[hook, "eth0", &VIP.to_string()]).map(drop)
}

/// A cluster whose m1 is a standby without ucarp, and a load. m2 has everything and its ucarp does not run, so that
/// only the test calls its hooks.
pub(crate) fn m2_alone() -> Result<(Cluster, lab::Workload)> {
    let cluster = Cluster::build().masters(2).setting("mfsmetalogger", "MASTER_RECONNECTION_DELAY", "1").start()?;
    let load = cluster.client().keep_writing()?;
    cluster.wait_for_metalogger_in_step("m2", SOON)?;
    cluster.stop_ucarp("m2")?;
    cluster.wait_for_log("m2", log_lines::DEMOTION_ENDED, SOON)?;
    let mark = cluster.mark();
    cluster.stop_ucarp("m1")?;
    cluster.wait_for_log_since(mark, "m1", log_lines::DEMOTED, SOON)?;
    Ok((cluster, load))
}

/// Everything has come to rest, and it is what the last call wanted.
fn rests(cluster: &Cluster, last: Call) -> Result<()> {
    let called = Regex::new(log_lines::RUN_STARTED)?;
    let events = cluster.events().since(0);
    let pid = events.iter().rev().filter(|event| event.machine == "m2").find_map(|event| called.captures(&event.text));
    let pid = pid.map(|found| found[1].to_owned()).expect("a hook was called");
    let ended = format!("^mfs-promote\\[{pid}\\]: ({}|{})", log_lines::PROMOTION_ENDED, log_lines::DEMOTION_ENDED);
    cluster.wait_for_log("m2", &ended, SOON)?;
    let state = |name| cluster.daemon("m2", name).is_ok();
    let wanted = || match last {
        Call::Up => cluster.serving() == ["m2"],
        Call::Down => !cluster.holds_vip("m2") && !state("mfsmaster") && !state("mfs-promote"),
    };
    cluster.expect(&format!("m2 to come to rest after {last:?}"), SOON, || wanted().then_some(()))?;
    assert!(state("mfsmetalogger"), "a second copy is kept in either case");
    let files = cluster.files("m2")?;
    assert!(!files.iter().any(|name| name.starts_with(log_lines::RUN_FOLDER)), "{files:?}");
    Ok(())
}

/// Each run says when it has the lock and when it has done its work; in between no other run may.
fn never_two_at_once(cluster: &Cluster, machine: &str) {
    let mut at_work = BTreeMap::new();
    let mut all = 0;
    for event in cluster.events().since(0).iter().filter(|event| event.machine == machine) {
        let Some((pid, text)) = event.text.strip_prefix("mfs-promote[").and_then(|text| text.split_once("]: ")) else {
            continue;
        };
        if text == log_lines::PROMOTION_BEGUN || text == log_lines::DEMOTION_BEGUN {
            all += 1;
            at_work.insert(pid.to_owned(), event.clone());
            assert!(at_work.len() == 1, "two at once: {at_work:?}");
        } else if text.starts_with(log_lines::PROMOTION_ENDED) || text.starts_with(log_lines::DEMOTION_ENDED) {
            assert!(at_work.remove(pid).is_some(), "{event:?} was not at work");
        }
    }
    eprintln!("{all} runs had the lock, one after the other");
    assert!(all > 0 && at_work.is_empty(), "{at_work:?}");
}
