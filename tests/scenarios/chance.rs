//! Faults at random moments and for random times: whatever is injected and whenever, one machine serves in the end, and
//! nothing acknowledged is missing.
//!
//! `LAB_SEED` repeats a run, `LAB_SEEDS` is the number of runs (2 in the normal set).

use std::thread::sleep;
use std::time::Duration;

use lab::random::{Rng, pick, with_seeds};
use lab::{Cluster, LAST_RETRY, Moment, Pause, Result};
use nix::sys::signal::Signal;

use crate::{SOON, steady, wait_for_whole_copy};

/// Faults in one cluster.
const FAULTS: u32 = 2;
const MACHINES: [&str; 3] = ["m1", "m2", "m3"];

#[test]
fn faults_at_random_moments() -> Result<()> {
    with_seeds(2, |mut rng| {
        let skew = pick(&mut rng, &[0, 50, 100]);
        let cluster = Cluster::build().masters(3).chunkservers(2).skew("m1", skew).start()?;
        let load = cluster.client().keep_writing()?;
        for _ in 0..FAULTS {
            for machine in MACHINES {
                wait_for_whole_copy(&cluster, machine)?;
            }
            // On a busy host the watch may miss an answer, and sees no machine serve for a moment.
            let serving = cluster.expect("a machine to serve", SOON, || cluster.answering())?.by;
            let since = Moment::now();
            inject(&cluster, &mut rng, &serving)?;
            one_serves(&cluster)?;
            load.wait_for_progress(LAST_RETRY)?;
            eprintln!("{:?} serves, the client waited {:?}", cluster.serving(), load.outage(since)?);
        }
        let verdict = load.verify(&cluster.crashes())?;
        eprintln!("{} operations acknowledged, {} cut in two", verdict.acknowledged, verdict.cut_off.len());
        assert_eq!((verdict.lost, verdict.failed), (vec![], vec![]));
        Ok(())
    })
}

/// Injects one fault on the serving machine. It lasts up to twelve seconds, so that it ends in any phase of the failover.
fn inject(cluster: &Cluster, rng: &mut Rng, serving: &str) -> Result<()> {
    let faults = ["isolated", "cable", "frozen", "stopped", "power", "step down", "ucarp", "split", "ours killed"];
    let fault = pick(rng, &faults);
    let lasts = Duration::from_millis(rng.u64(500..=12_000));
    eprint!("{serving}: {fault} for {lasts:.1?}; ");
    match fault {
        "isolated" => {
            cluster.isolate(serving)?;
            sleep(lasts);
            cluster.heal(serving)?;
        }
        "cable" => {
            cluster.cut(serving)?;
            sleep(lasts);
            cluster.heal(serving)?;
        }
        "frozen" => {
            cluster.freeze(serving)?;
            sleep(lasts);
            cluster.thaw(serving)?;
        }
        "stopped" => {
            cluster.pause(serving, Pause::Signal)?;
            sleep(lasts);
            cluster.resume(serving)?;
        }
        "power" => {
            cluster.power_off(serving)?;
            sleep(lasts);
            cluster.power_on(serving)?;
        }
        // The client is on the side of the serving machine: what it is told there is the longer history.
        "split" => {
            let others: Vec<&str> = MACHINES.into_iter().filter(|machine| *machine != serving).chain(["cs2"]).collect();
            cluster.split(&[&[serving, "cs1", "c1"], &others])?;
            sleep(lasts);
            cluster.join()?;
        }
        "ours killed" => {
            cluster.kill_ours_and(serving, &["ucarp"])?;
            sleep(lasts);
            cluster.start_ucarp(serving)?;
        }
        "step down" => drop(cluster.kill(serving, "ucarp", Signal::SIGUSR2)?),
        _ => {
            cluster.stop_ucarp(serving)?;
            sleep(lasts);
            cluster.start_ucarp(serving)?;
        }
    }
    Ok(())
}

/// One machine serves, and no other one has the address. An administrator restarts each ucarp that has stopped: it may do
/// so long after the fault, when what the fault set off comes to its end.
fn one_serves(cluster: &Cluster) -> Result<()> {
    let mut first = Vec::new();
    steady(cluster, "one machine to serve", || {
        if let Some(machine) = MACHINES.into_iter().find(|machine| cluster.daemon(machine, "ucarp").is_err()) {
            eprint!("ucarp of {machine} had stopped; ");
            let _ = cluster.start_ucarp(machine);
            return false;
        }
        let holders = MACHINES.iter().filter(|machine| cluster.holds_vip(machine)).count();
        let before = std::mem::replace(&mut first, cluster.serving());
        first.len() == 1 && holders == 1 && first == before
    })
}
