//! The campaign: `mfs-promote` killed, cut off from power, or refused by the disk at every system call that changes
//! something, through whole promotions, demotions, archives, roll-backs and rehearsals, with real MooseFS.
//!
//! After each: all metadata of before is still there, compared by content: in the data folder, set aside, or in an archive;
//! and the next run serves the planned version and leaves nothing behind. Needs root and x86-64.
//!
//! Two minutes' worth of it, drawn by a seed; `LAB_CAMPAIGN=SECONDS` takes another time, `LAB_CAMPAIGN=all` plays all.

#[path = "../scenarios/dice.rs"]
#[allow(dead_code)] // The scenarios use all of it.
mod dice;
mod interrupted;
mod scene;
mod verdict;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dice::Dice;
use lab::trace::{Call, Fault};
use lab::{Hall, Result};

use crate::scene::{Scene, Stage};
use crate::verdict::Verdict;

/// How many seconds the drawn form goes on.
const DRAWN: u64 = 120;
/// The drawn form draws so many at least, however slow the machine is.
const FEWEST: usize = 24;

/// After so many points a line says how far it is.
const PROGRESS: usize = 100;

/// One point of the campaign.
#[derive(Clone, Copy, Debug)]
struct Point {
    scene: Scene,
    fault: Fault,
    /// The number of the call.
    number: usize,
}

#[test]
fn whatever_ends_a_run_nothing_is_lost_and_the_next_one_serves() -> Result<()> {
    let all = std::env::var("LAB_CAMPAIGN").is_ok_and(|form| form == "all");
    let time = if all { Duration::MAX } else { Duration::from_secs(dice::variable("LAB_CAMPAIGN").unwrap_or(DRAWN)) };
    let workers = dice::variable("LAB_WORKERS").unwrap_or(8);
    let begun = Instant::now();
    let hall = Hall::open()?;
    let mut first = Stage::build(&hall)?;
    let scenes = first.rehearse_scenes()?;
    for (scene, calls) in &scenes {
        eprintln!("{scene}: {} calls that change something", calls.len());
    }
    let mut points: Vec<Point> = scenes.iter().flat_map(|(scene, calls)| points(*scene, calls)).collect();
    let seed = dice::seed();
    eprintln!("{} points; LAB_SEED={seed} plays them in this order again", points.len());
    shuffle(&mut points, &mut Dice::new(seed));
    let (next, verdicts) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let drawing = Instant::now();
    let work = |stage: &Stage| -> Result<()> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let enough = number >= FEWEST && drawing.elapsed() > time;
            if number % PROGRESS == 0 {
                eprintln!("{number} played in {} s", drawing.elapsed().as_secs());
            }
            let Some(point) = points.get(number).filter(|_| !enough) else { return Ok(()) };
            let verdict = stage.play(point.scene, point.fault, point.number)?;
            if let Verdict::Lost(_) | Verdict::Stuck(_) = &verdict {
                eprintln!("{} {:?} {}: {verdict:?}", point.scene, point.fault, point.number);
            }
            verdicts.lock().expect("no worker panics").push((*point, verdict));
        }
    };
    std::thread::scope(|scope| {
        let mut others = Vec::new();
        for _ in 1..workers {
            let stage = Stage::like(&hall, &first)?;
            others.push(scope.spawn(move || work(&stage)));
        }
        let mine = work(&first);
        others.into_iter().map(|other| other.join().expect("no worker panics")).fold(mine, Result::and)
    })?;
    let verdicts = verdicts.into_inner().expect("no worker panics");
    eprintln!("{}", figures(&verdicts, begun.elapsed()));
    let bad = |verdict: &Verdict| matches!(verdict, Verdict::Lost(_) | Verdict::Stuck(_));
    assert!(!verdicts.iter().any(|(_, verdict)| bad(verdict)), "see above");
    Ok(())
}

fn points(scene: Scene, calls: &[Call]) -> Vec<Point> {
    let fits = |fault: Fault| calls.iter().enumerate().filter(move |(_, call)| fault.applies_to(call.kind));
    let at = |fault| fits(fault).map(move |(number, _)| Point { scene, fault, number });
    Fault::ALL.into_iter().flat_map(at).collect()
}

fn shuffle(points: &mut [Point], dice: &mut Dice) {
    for last in (1..points.len()).rev() {
        let other = usize::try_from(dice.below(last as u64 + 1)).unwrap_or_default();
        points.swap(last, other);
    }
}

/// The table of what was done and what came of it.
fn figures(verdicts: &[(Point, Verdict)], took: Duration) -> String {
    let mut rows: BTreeMap<(Scene, Fault), [usize; 3]> = BTreeMap::new();
    let mut total = [0; 3];
    for (point, verdict) in verdicts {
        let row = rows.entry((point.scene, point.fault)).or_default();
        let add = match verdict {
            // Threads run in another order each time; the call never came.
            Verdict::NotStruck => continue,
            Verdict::Well => [1, 0, 0],
            Verdict::Lost(_) => [1, 1, 0],
            Verdict::Stuck(_) => [1, 0, 1],
        };
        for (index, one) in add.into_iter().enumerate() {
            row[index] += one;
            total[index] += one;
        }
    }
    let mut text = format!("{:30} {:14} {:>6} {:>6} {:>6}\n", "run", "fault", "points", "lost", "stuck");
    for ((scene, fault), [points, lost, stuck]) in rows {
        let (scene, fault) = (scene.to_string(), format!("{fault:?}"));
        let _ = writeln!(text, "{scene:30} {fault:14} {points:6} {lost:6} {stuck:6}");
    }
    let [points, lost, stuck] = total;
    text + &format!("{:45} {points:6} {lost:6} {stuck:6}   in {} s", "all", took.as_secs())
}
