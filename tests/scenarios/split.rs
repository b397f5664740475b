//! The network falls apart into two halves with a chunkserver in each, so that a machine of each half may serve. When it is
//! whole again, the history with more changes since the fork is served, whichever machine was promoted last, and the other
//! machine says what only it has.

use std::ops::RangeInclusive;
use std::time::Duration;

use lab::oplog::Line;
use lab::{Cluster, LAST_RETRY, Moment, Result, Workload, log_lines};
use regex_lite::Regex;

use crate::{SOON, nothing_lost_but, steady, wait_for_whole_copy};

/// A client may go on with what it remembers of a history that is gone for so long after the end of a split.
const REMEMBERED: Duration = Duration::from_secs(5);

/// It takes a moment until a split has begun everywhere.
const AT_THE_SAME_TIME: Duration = Duration::from_secs(1);

/// Both halves: m1 and cs1 in the one, m2 and cs2 in the other one.
fn halves() -> lab::Builder {
    Cluster::build().masters(2).chunkservers(2)
}

/// A split that has ended.
struct Ended {
    /// When it began, and when the network was whole again.
    times: RangeInclusive<Moment>,
    /// The version that the master on m2 had then, if one answered there.
    promoted: Option<u64>,
}

/// The network is split for this long. The first group has the client that the lab asks for who answers.
fn split(cluster: &Cluster, groups: [&[&str]; 2], seconds: u64) -> Result<Ended> {
    wait_for_whole_copy(cluster, "m2")?;
    let begun = cluster.split(&groups)?;
    std::thread::sleep(Duration::from_secs(seconds));
    let both = [cluster.answers("m1"), cluster.answers("m2")];
    let promoted = cluster.master_version("m2").ok().filter(|_| both[1]);
    eprintln!("split for {seconds} s: m1 answers {}, m2 answers {}", both[0], both[1]);
    assert!(seconds < 15 || both == [true; 2], "each half has a machine that serves");
    Ok(Ended { times: begun..=cluster.join()?, promoted })
}

/// One machine serves, and its master was not touched; the other one is a standby with a whole copy.
fn wins(cluster: &Cluster, winner: &str, pid: Option<i32>) -> Result<()> {
    let loser = if winner == "m1" { "m2" } else { "m1" };
    steady(cluster, &format!("{winner} alone to serve"), || {
        cluster.serving() == [winner] && !cluster.holds_vip(loser) && cluster.answers(winner)
    })?;
    assert_eq!(cluster.master_pid(winner), pid, "its master was not touched");
    cluster
        .expect(&format!("{loser} to have no master"), SOON, || cluster.master_pid(loser).is_none().then_some(()))?;
    wait_for_whole_copy(cluster, loser)
}

/// The loser says what only it has, in its log and in `--status`. How many changes that is.
fn named(cluster: &Cluster, mark: usize, loser: &str, winner: &str) -> Result<u64> {
    let said = cluster.wait_for_log_since(mark, loser, log_lines::NOT_SERVED_NUMBERS, SOON)?.text;
    let address = cluster.machine(winner)?.address.to_string();
    assert!(said.contains(&address), "it names the machine that serves: {said}");
    let numbers = Regex::new(log_lines::NOT_SERVED_NUMBERS)?;
    let numbers = numbers.captures(&said).expect("it was found by this");
    let number = |index: usize| numbers[index].parse::<u64>().expect("digits");
    assert_eq!(number(3), number(2) + 1 - number(1), "{said}");
    let status = cluster.must(loser, &["mfs-promote", "--status"])?;
    assert!(status.contains(log_lines::STATUS_NOT_SERVED), "{status}");
    Ok(number(3))
}

/// All is there that a client of the winning half has written, but for the one write that was under way when the network fell
/// apart: the other half may have given its chunk the same version, see `docs/limits.md`.
fn nothing_lost_in_the_winning_half(cluster: &Cluster, load: &Workload, ended: &Ended) -> Result<()> {
    let mut verdict = load.verify(&cluster.crashes())?;
    let begun = *ended.times.start();
    verdict.lost.retain(|lost| lost.started - begun > AT_THE_SAME_TIME || lost.acknowledged < begun);
    assert_eq!((verdict.lost, verdict.failed), (vec![], vec![]));
    assert_eq!(cluster.findings().overlap(), Duration::ZERO, "{:?}", cluster.overlaps());
    Ok(())
}

/// How many operations were acknowledged in a time.
fn acknowledged(load: &Workload, times: &RangeInclusive<Moment>) -> Result<usize> {
    let lines = load.lines()?.concat();
    let within = |line: &&Line| times.contains(&line.start) && times.contains(&line.end);
    Ok(lines.iter().filter(|line| line.errno.is_none()).filter(within).count())
}

#[test]
fn many_changes_on_the_old_masters_side_and_none_on_the_promoted_one() -> Result<()> {
    let cluster = halves().masters(3).start()?;
    let load = cluster.client().keep_writing()?;
    let pid = cluster.master_pid("m1");
    let mut healed = Vec::new();
    for seconds in [5, 20, 45] {
        let mark = cluster.mark();
        wait_for_whole_copy(&cluster, "m3")?;
        let ended = split(&cluster, [&["m1", "cs1", "c1"], &["m2", "m3", "cs2"]], seconds)?;
        if ended.promoted.is_some() {
            // Whichever of them hears first, or the client could be answered by the one whose changes do not count.
            for machine in ["m1", "m2"] {
                cluster.wait_for_log_since(
                    mark,
                    machine,
                    "answers to clients are held: .* claims to serve too",
                    SOON,
                )?;
            }
        } else {
            // The promotion may end just then, and answer the client for a moment: see `docs/limits.md`.
            healed.push(*ended.times.end()..=*ended.times.end() + REMEMBERED);
        }
        wins(&cluster, "m1", pid)?;
        load.wait_for_progress(LAST_RETRY)?;
        wait_for_whole_copy(&cluster, "m3")?;
        let proved = cluster.events().since(mark).into_iter().rev().find_map(|event| {
            let by_m2 = event.machine == "m2" && event.text.contains(log_lines::PROVED);
            by_m2.then(|| served(&event.text)).flatten()
        });
        // A master makes changes of its own, as when a chunkserver has gone.
        if ended.promoted > proved {
            let number = named(&cluster, mark, "m2", "m1")?;
            eprintln!("m2 had served version {:?}, and names {number} changes", ended.promoted);
        }
    }
    nothing_lost_but(&cluster, &load, &healed).map(drop)
}

/// The version in the line of a proof.
fn served(text: &str) -> Option<u64> {
    text.split_once(log_lines::WITH_VERSION)?.1.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[test]
fn many_changes_on_the_promoted_side_and_none_on_the_old_masters() -> Result<()> {
    let cluster = halves().start()?;
    let load = cluster.client().keep_writing()?;
    let ended = split(&cluster, [&["m2", "cs2", "c1"], &["m1", "cs1"]], 25)?;
    wins(&cluster, "m2", cluster.master_pid("m2"))?;
    load.wait_for_progress(LAST_RETRY)?;
    nothing_lost_in_the_winning_half(&cluster, &load, &ended)
}

/// Two clients, one on each side, with these operations in a second.
fn changes_on_both_sides(rates: [u32; 2], winner: usize) -> Result<()> {
    let cluster = halves().clients(2).start()?;
    let loads = [
        cluster.client_called("c1")?.keep_writing_in("one", rates[0])?,
        cluster.client_called("c2")?.keep_writing_in("two", rates[1])?,
    ];
    let (machines, mark) = (["m1", "m2"], cluster.mark());
    let (wins_, loses) = (machines[winner], machines[1 - winner]);
    let ended = split(&cluster, [&["m1", "cs1", "c1"], &["m2", "cs2", "c2"]], 25)?;
    let pid = cluster.master_pid(wins_);
    let missing = acknowledged(&loads[1 - winner], &ended.times)?;
    wins(&cluster, wins_, pid)?;
    let number = named(&cluster, mark, loses, wins_)?;
    assert!(number >= missing as u64, "each operation is at least one change");
    eprintln!("{wins_} wins; {loses} had acknowledged {missing} operations in the split, and names {number} changes");
    for load in &loads {
        load.wait_for_progress(LAST_RETRY)?;
    }
    nothing_lost_in_the_winning_half(&cluster, &loads[winner], &ended)?;
    let times = [*ended.times.start()..=*ended.times.end() + REMEMBERED];
    let lost = nothing_lost_but(&cluster, &loads[1 - winner], &times)?;
    assert!(!lost.is_empty(), "{loses} alone had these");
    Ok(())
}

#[test]
fn changes_on_both_sides_and_more_on_the_old_masters() -> Result<()> {
    changes_on_both_sides([200, 20], 0)
}

#[test]
fn changes_on_both_sides_and_more_on_the_promoted_one() -> Result<()> {
    changes_on_both_sides([20, 200], 1)
}

/// Two machines that were promoted from the same copy: no metalogger may take the one history for the other.
#[test]
fn each_half_promotes_a_machine_after_the_old_master_has_died() -> Result<()> {
    let cluster = halves().masters(3).clients(2).start()?;
    let loads = [
        cluster.client_called("c1")?.keep_writing_in("one", 100)?,
        cluster.client_called("c2")?.keep_writing_in("two", 10)?,
    ];
    for standby in ["m2", "m3"] {
        wait_for_whole_copy(&cluster, standby)?;
    }
    cluster.power_off("m1")?;
    let (begun, mark) = (cluster.split(&[&["m2", "cs1", "c1"], &["m3", "cs2", "c2"]])?, cluster.mark());
    cluster.expect("a machine of each half to serve", SOON, || {
        (cluster.answers("m2") && cluster.answers("m3")).then_some(())
    })?;
    std::thread::sleep(Duration::from_secs(15));
    let ended = Ended { times: begun..=cluster.join()?, promoted: None };
    cluster.expect("m2 alone to serve", SOON, || {
        (cluster.serving() == ["m2"] && cluster.answers("m2") && cluster.master_pid("m3").is_none()).then_some(())
    })?;
    let number = named(&cluster, mark, "m3", "m2")?;
    eprintln!("m2 wins; m3 names {number} changes");
    wait_for_whole_copy(&cluster, "m3")?;
    loads[0].wait_for_progress(LAST_RETRY)?;
    wait_for_whole_copy(&cluster, "m3")?;
    cluster.power_off("m2")?;
    cluster.wait_for_serving("m3", SOON)?;
    loads[0].wait_for_progress(LAST_RETRY)?;
    nothing_lost_in_the_winning_half(&cluster, &loads[0], &ended)
}
