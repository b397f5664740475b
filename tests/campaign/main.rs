//! The fault campaign: `mfs-promote` killed, cut off from power, or refused by the disk at every system call that changes
//! something, through whole promotions, demotions, archives, roll-backs and rehearsals, and through the life of a hot standby,
//! with real MooseFS.
//!
//! After each fault all earlier metadata is still there, compared by content: in the data folder, set aside, or in an
//! archive. The next run serves the planned version and leaves nothing behind. Needs root and x86-64.
//!
//! The normal form injects faults for two minutes, and for one with hot standbys, in an order that a seed repeats.
//! `LAB_CAMPAIGN=SECONDS` takes another time, `LAB_CAMPAIGN=all` injects every fault.

mod broken;
mod hot;
mod interrupted;
mod test_machine;
mod verdict;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lab::random;
use lab::trace::{Call, Fault};
use lab::{Result, SingleMachines};

use crate::test_machine::{Operation, Standby, TestMachine};
use crate::verdict::Verdict;

/// How many seconds the normal form takes.
const NORMAL: u64 = 120;
/// And that with hot standbys.
const NORMAL_HOT: u64 = 60;
/// The normal form tries at least this many faults, however slow the machine is.
const FEWEST: usize = 24;
/// After this many faults a line reports the progress.
const PROGRESS: usize = 100;
/// A fault is not injected when the run ends before its call: threads run in another order each time. If more than one in
/// this many is not injected, the campaign proves too little, and fails.
const NOT_INJECTED: usize = 10;

/// One fault at one call of one operation.
#[derive(Clone, Copy, Debug)]
struct Point {
    operation: Operation,
    fault: Fault,
    /// The number of the call.
    number: usize,
}

#[test]
fn after_any_fault_nothing_is_lost_and_the_next_run_serves() -> Result<()> {
    campaign(Standby::Cold, NORMAL)
}

#[test]
fn after_any_fault_no_second_master_is_left_of_a_hot_standby() -> Result<()> {
    campaign(Standby::Hot, NORMAL_HOT)
}

fn campaign(standby: Standby, normal: u64) -> Result<()> {
    let all = std::env::var("LAB_CAMPAIGN").is_ok_and(|form| form == "all");
    let time =
        if all { Duration::MAX } else { Duration::from_secs(random::variable("LAB_CAMPAIGN").unwrap_or(normal)) };
    let workers = random::variable("LAB_WORKERS").unwrap_or(8);
    let begun = Instant::now();
    let machines = SingleMachines::reserve()?;
    let mut first = TestMachine::start(&machines, standby)?;
    let operations = first.record_calls()?;
    for (operation, calls) in &operations {
        eprintln!("{operation}: {} calls that change something", calls.len());
    }
    let mut points: Vec<Point> = operations.iter().flat_map(|(operation, calls)| points(*operation, calls)).collect();
    eprintln!("{} faults to inject", points.len());
    random::rng().shuffle(&mut points);
    let (next, verdicts) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let injecting = Instant::now();
    let work = |machine: &TestMachine| -> Result<()> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let enough = number >= FEWEST && injecting.elapsed() > time;
            if number % PROGRESS == 0 {
                eprintln!("{number} faults in {} s", injecting.elapsed().as_secs());
            }
            let Some(point) = points.get(number).filter(|_| !enough) else { return Ok(()) };
            let verdict = machine.inject(point.operation, point.fault, point.number)?;
            if verdict.is_bad() {
                eprintln!("{} {:?} {}: {verdict:?}", point.operation, point.fault, point.number);
            }
            verdicts.lock().expect("no worker panics").push((*point, verdict));
        }
    };
    std::thread::scope(|scope| {
        let mut others = Vec::new();
        for _ in 1..workers {
            let machine = TestMachine::like(&machines, &first)?;
            others.push(scope.spawn(move || work(&machine)));
        }
        let mine = work(&first);
        others.into_iter().map(|other| other.join().expect("no worker panics")).fold(mine, Result::and)
    })?;
    let verdicts = verdicts.into_inner().expect("no worker panics");
    eprintln!("{}", figures(&verdicts, begun.elapsed()));
    assert!(!verdicts.iter().any(|(_, verdict)| verdict.is_bad()), "see above");
    let missed = verdicts.iter().filter(|(_, verdict)| matches!(verdict, Verdict::NotInjected)).count();
    assert!(
        missed * NOT_INJECTED <= verdicts.len(),
        "{missed} of {} faults were not injected: the run ended before the call",
        verdicts.len()
    );
    Ok(())
}

fn points(operation: Operation, calls: &[Call]) -> Vec<Point> {
    let fits = |fault: Fault| calls.iter().enumerate().filter(move |(_, call)| fault.applies_to(call.kind));
    let at = |fault| fits(fault).map(move |(number, _)| Point { operation, fault, number });
    operation.faults().iter().copied().flat_map(at).collect()
}

/// The table of the faults and their consequences.
fn figures(verdicts: &[(Point, Verdict)], took: Duration) -> String {
    let mut rows: BTreeMap<(Operation, Fault), [usize; 5]> = BTreeMap::new();
    let mut total = [0; 5];
    for (point, verdict) in verdicts {
        let row = rows.entry((point.operation, point.fault)).or_default();
        let add = match verdict {
            Verdict::NotInjected => [0, 1, 0, 0, 0],
            Verdict::Well => [1, 0, 0, 0, 0],
            Verdict::Lost(_) => [1, 0, 1, 0, 0],
            Verdict::Stuck(_) => [1, 0, 0, 1, 0],
            Verdict::Stray(_) => [1, 0, 0, 0, 1],
        };
        for (index, one) in add.into_iter().enumerate() {
            row[index] += one;
            total[index] += one;
        }
    }
    let cells = |numbers: [usize; 5]| numbers.map(|number| format!("{number:>14}")).concat();
    let head = ["injected", "not injected", "lost", "stuck", "stray master"].map(|name| format!("{name:>14}")).concat();
    let mut text = format!("{:30} {:14}{head}\n", "operation", "fault");
    for ((operation, fault), numbers) in rows {
        let (operation, fault) = (operation.to_string(), format!("{fault:?}"));
        let _ = writeln!(text, "{operation:30} {fault:14}{}", cells(numbers));
    }
    text + &format!("{:45}{}   in {} s", "all", cells(total), took.as_secs())
}
