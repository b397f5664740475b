//! A chain of failovers at random: clean stops, kills, power cuts and resets, with metaloggers that lag between and during
//! them and machines that stay away, under a client that writes on. Nothing acknowledged is lost but what the loss window
//! of a crash allows, and that is counted and named.
//!
//! `LAB_SEED` repeats a chain, `LAB_CHAIN` is its length, `LAB_RELEASE=13` runs it on Debian 13, and `LAB_RELEASE=14` on
//! Debian unstable. The same with hot standbys, on Debian 13.

use std::thread::sleep;

use lab::random::{self, Rng, pick, variable};
use lab::{Cluster, LAST_RETRY, Moment, Release, Result, Workload, log_lines};
use nix::sys::signal::Signal;

use crate::{SOON, nothing_lost, wait_for_whole_copy};

/// Failovers unless `LAB_CHAIN` says otherwise.
const LENGTH: u64 = 4;

#[test]
fn chain_of_failovers() -> Result<()> {
    let length = variable("LAB_CHAIN").unwrap_or(LENGTH);
    let release = match variable("LAB_RELEASE") {
        None => None,
        Some(12) => Some(Release::Debian12),
        Some(13) => Some(Release::Debian13),
        Some(14) => Some(Release::DebianUnstable),
        Some(other) => panic!("LAB_RELEASE={other} is none of 12, 13 and 14 (unstable)"),
    };
    go(release, length, "cold")
}

#[test]
fn chain_of_failovers_with_hot_standbys() -> Result<()> {
    go(Some(Release::Debian13), variable("LAB_CHAIN").unwrap_or(LENGTH), "hot")
}

fn go(release: Option<Release>, length: u64, standby: &str) -> Result<()> {
    eprintln!("{release:?}, {standby} standbys, LAB_CHAIN={length}");
    let mut chain = Chain::start(random::rng(), release, standby)?;
    for number in 1..=length {
        eprint!("{number}: ");
        chain.failover()?;
    }
    nothing_lost(&chain.cluster, &chain.load)
}

/// How a machine stops being the master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// An administrator stops mfsmaster, then ucarp.
    Stop,
    /// mfsmaster is killed, and ucarp is stopped because of that.
    KillMaster,
    /// Everything is killed, a promotion that is not at its end too; the unit of ucarp takes the address away.
    KillAll,
    /// The machine loses its power.
    PowerCut,
    /// The same, and it boots at once, with the newest history of all.
    Reset,
}

const FAULTS: &[Fault] =
    &[Fault::Stop, Fault::KillMaster, Fault::KillAll, Fault::PowerCut, Fault::PowerCut, Fault::Reset];

/// A running chain.
struct Chain {
    cluster: Cluster,
    load: Workload,
    rng: Rng,
    /// All machines, the one that ucarp prefers first.
    order: Vec<String>,
    serving: String,
    /// Where the log ended when the machine before it fell.
    fallen_at: usize,
    /// The machine that fell and has not come back, and how it fell.
    away: Option<(String, Fault)>,
}

impl Chain {
    fn start(mut rng: Rng, release: Option<Release>, standby: &str) -> Result<Self> {
        let mut order: Vec<String> = ["m1", "m2", "m3"].map(str::to_owned).to_vec();
        order.swap(0, rng.usize(..3));
        let standby = format!("STANDBY = {standby}\n");
        let mut builder = Cluster::build().masters(3).file("/etc/mfs/mfspromote.cfg", standby, 0o644);
        for (place, machine) in (0_u8..).zip(&order) {
            builder = builder.skew(machine, place * 50);
        }
        for daemon in ["mfsmetalogger", "mfschunkserver"] {
            builder = builder.setting(daemon, "MASTER_RECONNECTION_DELAY", "1");
        }
        let cluster = release.map_or(builder.clone(), |release| builder.release(release)).start()?;
        let load = cluster.client().keep_writing()?;
        Ok(Self { cluster, load, rng, order, serving: "m1".to_owned(), fallen_at: 0, away: None })
    }

    /// The machines that could take over, the preferred one first.
    fn standbys(&self) -> Vec<String> {
        let away = self.away.as_ref().map(|(machine, _)| machine);
        self.order.iter().filter(|machine| **machine != self.serving && Some(*machine) != away).cloned().collect()
    }

    /// One failover, from copies in sync to a client that works again.
    fn failover(&mut self) -> Result<()> {
        self.wait_for_copies()?;
        self.lag_and_catch_up()?;
        self.wait_for_copies()?;
        let (fallen, fault) = (self.serving.clone(), pick(&mut self.rng, FAULTS));
        // A clean stop loses nothing only onto a copy in step, and one of two standbys has to be.
        let laggard = self.standbys().get(1).filter(|_| fault != Fault::Stop && self.rng.u8(..2) == 0).cloned();
        if let Some(laggard) = &laggard {
            self.cluster.starve(laggard)?;
            sleep(random::seconds(&mut self.rng, 4));
        }
        if matches!(fault, Fault::Stop | Fault::KillMaster) {
            // A young master that ends makes ucarp end by itself: another story.
            let served = log_lines::SERVING_OR_ALREADY;
            self.cluster.wait_for_log_since(self.fallen_at, &fallen, served, SOON)?;
        }
        self.fallen_at = self.cluster.mark();
        let since = self.inject(fault)?;
        let taken = || self.cluster.answering().filter(|taken| taken.at > since);
        let taken = self.cluster.expect("a machine to take over", SOON, taken)?;
        eprintln!(
            "{fault:?} of {fallen}{}; {} serves {:.1} s later",
            laggard.as_ref().map(|name| format!(", {name} lags")).unwrap_or_default(),
            taken.by,
            taken.at.seconds_since(since)
        );
        if let Some(laggard) = &laggard {
            assert_ne!(taken.by, *laggard, "a copy in step was there, on a machine that ucarp prefers");
            self.cluster.feed(laggard)?;
        }
        self.load.wait_for_progress(LAST_RETRY)?;
        self.serving = taken.by;
        assert_eq!(self.cluster.serving(), [self.serving.as_str()]);
        self.come_back(&fallen, fault)
    }

    /// Not only after a lag: a metalogger whose connection ends while it downloads is restarted by its standby, half a minute later.
    fn wait_for_copies(&self) -> Result<()> {
        self.standbys().iter().try_for_each(|standby| wait_for_whole_copy(&self.cluster, standby))
    }

    /// A metalogger receives nothing for some seconds, perhaps so long that it closes its connection, and has to catch up.
    fn lag_and_catch_up(&mut self) -> Result<()> {
        if self.rng.u8(..3) == 0 {
            let standbys = self.standbys();
            let laggard = pick(&mut self.rng, &standbys);
            let lag = random::seconds(&mut self.rng, 13);
            eprint!("{laggard} lags for {lag:.1?}; ");
            self.cluster.starve(&laggard)?;
            sleep(lag);
            self.cluster.feed(&laggard)?;
        }
        Ok(())
    }

    /// Ends the serving machine's time as the master. Since when.
    fn inject(&self, fault: Fault) -> Result<Moment> {
        let (cluster, name) = (&self.cluster, self.serving.as_str());
        match fault {
            Fault::Stop => {
                let since = Moment::now();
                cluster.must(name, &["mfsmaster", "stop"])?;
                cluster.stop_ucarp(name)?;
                Ok(since)
            }
            Fault::KillMaster => {
                let since = cluster.kill(name, "mfsmaster", Signal::SIGKILL)?;
                cluster.stop_ucarp(name)?;
                Ok(since)
            }
            Fault::KillAll => {
                let since = cluster.kill(name, "mfsmaster", Signal::SIGKILL)?;
                for program in ["mfsmetalogger", "ucarp", log_lines::SUPERVISOR, "mfs-promote"] {
                    if cluster.daemon(name, program).is_ok() {
                        cluster.kill(name, program, Signal::SIGKILL)?;
                    }
                }
                cluster.must(name, &["vip-down", "eth0", &lab::VIP.to_string()])?;
                Ok(since)
            }
            Fault::PowerCut => cluster.power_off(name),
            Fault::Reset => {
                let since = cluster.power_off(name)?;
                cluster.power_on(name)?;
                Ok(since)
            }
        }
    }

    /// The machine that was away comes back; the one that fell now does so, too, or stays away.
    fn come_back(&mut self, fallen: &str, fault: Fault) -> Result<()> {
        if let Some((machine, fault)) = self.away.take() {
            self.repair(&machine, fault)?;
        }
        if fault != Fault::Reset && self.rng.u8(..3) == 0 {
            eprintln!("   {fallen} stays away");
            self.away = Some((fallen.to_owned(), fault));
            return Ok(());
        }
        self.repair(fallen, fault)
    }

    /// Repairs what a fault did: a metalogger and ucarp run there again.
    fn repair(&self, machine: &str, fault: Fault) -> Result<()> {
        match fault {
            Fault::Stop | Fault::KillMaster => self.cluster.start_ucarp(machine),
            Fault::KillAll => {
                // The demotion that vip-down began may have started it.
                if self.cluster.daemon(machine, "mfsmetalogger").is_err() {
                    self.cluster.must(machine, &["mfsmetalogger", "start"])?;
                }
                self.cluster.start_ucarp(machine)
            }
            Fault::PowerCut => self.cluster.power_on(machine).map(drop),
            Fault::Reset => Ok(()),
        }
    }
}
