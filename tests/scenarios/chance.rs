//! One blow after the other at moments that the dice choose: whatever it is and whenever it comes, one machine serves in
//! the end, and nothing acknowledged is missing.
//!
//! `LAB_SEED` repeats a run, `LAB_SEEDS` says how many there are (2 in the normal set).

use std::thread::sleep;
use std::time::Duration;

use lab::random::{Rng, pick, with_seeds};
use lab::{Cluster, LAST_RETRY, Moment, Result};
use nix::sys::signal::Signal;

use crate::{SOON, wait_for_whole_copy};

/// Blows to one cluster.
const BLOWS: u32 = 2;
const MACHINES: [&str; 3] = ["m1", "m2", "m3"];

#[test]
fn blows_at_random_moments() -> Result<()> {
    with_seeds(2, |mut rng| {
        let skew = pick(&mut rng, &[0, 50, 100]);
        let cluster = Cluster::build().masters(3).skew("m1", skew).start()?;
        let load = cluster.client().keep_writing()?;
        for _ in 0..BLOWS {
            for machine in MACHINES {
                wait_for_whole_copy(&cluster, machine)?;
            }
            let serving = cluster.answering().map(|taken| taken.by).expect("a machine serves");
            let struck = Moment::now();
            strike(&cluster, &mut rng, &serving)?;
            repair(&cluster)?;
            rests(&cluster)?;
            load.wait_for_progress(LAST_RETRY)?;
            eprintln!("{:?} serves, the client waited {:?}", cluster.serving(), load.outage(struck)?);
        }
        let verdict = load.verify(&cluster.crashes())?;
        eprintln!("{} operations acknowledged, {} cut in two", verdict.acknowledged, verdict.cut_off.len());
        assert_eq!((verdict.lost, verdict.failed), (vec![], vec![]));
        Ok(())
    })
}

/// Something happens to the serving machine, and ends after up to twelve seconds: at any moment of what it sets going.
fn strike(cluster: &Cluster, rng: &mut Rng, serving: &str) -> Result<()> {
    let blow = pick(rng, &["isolated", "cable", "frozen", "power", "yield", "ucarp"]);
    let lasts = Duration::from_millis(rng.u64(500..=12_000));
    eprint!("{serving}: {blow} for {lasts:.1?}; ");
    match blow {
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
        "power" => {
            cluster.power_off(serving)?;
            sleep(lasts);
            cluster.power_on(serving)?;
        }
        "yield" => drop(cluster.kill(serving, "ucarp", Signal::SIGUSR2)?),
        _ => {
            cluster.stop_ucarp(serving)?;
            sleep(lasts);
            cluster.start_ucarp(serving)?;
        }
    }
    Ok(())
}

/// Starts ucarp again where it has ended, as an administrator does.
fn repair(cluster: &Cluster) -> Result<()> {
    for machine in MACHINES {
        if cluster.daemon(machine, "ucarp").is_err() {
            eprint!("ucarp of {machine} had ended; ");
            cluster.start_ucarp(machine)?;
        }
    }
    Ok(())
}

/// For ten seconds, longer than any election lasts, the same machine serves and nobody else has the address.
fn rests(cluster: &Cluster) -> Result<()> {
    cluster.expect("one machine to go on serving", SOON * 2, || {
        let first = cluster.serving();
        let same = || {
            sleep(Duration::from_millis(200));
            let holders = MACHINES.iter().filter(|machine| cluster.holds_vip(machine)).count();
            first.len() == 1 && holders == 1 && cluster.serving() == first
        };
        (0..50).all(|_| same()).then_some(())
    })
}
