//! One power cut of the master under load: how long until another machine serves, and what it cost the client.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::thread;
use std::time::Duration;

use lab::{Cluster, Error, Hooks, LAST_RETRY, Moment, Result, Verdict, Workload};
use regex_lite::Regex;

/// The steps of a promotion that end before the master serves, as `mfs-promote` logs them.
pub(crate) const PHASES: [&str; 6] = ["settle", "metalogger", "stage", "commit", "start", "prove"];
/// What does not happen within this does not happen.
const PATIENCE: Duration = Duration::from_secs(60);
/// The client's life before the cut, and after it works again: a second stall would count.
const ORDINARY: Duration = Duration::from_secs(3);

/// What one power cut was like, as far as it went well. Times in seconds.
#[derive(Default)]
pub(crate) struct PowerCut {
    /// From the power cut to ucarp's "Switching to state: MASTER".
    pub(crate) detection: Option<f64>,
    /// From there to the first answer on 9421 through the address.
    pub(crate) takeover: Option<f64>,
    /// Whether both of the client's loops went on.
    pub(crate) resumed: bool,
    /// The client's longest wait for a metadata operation: until we gave up, where it did not go on.
    pub(crate) metadata: f64,
    /// The same for a write.
    pub(crate) writes: f64,
    /// `None` if it could not be checked.
    pub(crate) operations: Option<Operations>,
    /// Milliseconds of each of the [`PHASES`] that was logged.
    pub(crate) phases: BTreeMap<&'static str, f64>,
}

/// What became of the client's operations.
#[derive(Clone, Copy, Default)]
pub(crate) struct Operations {
    pub(crate) acknowledged: usize,
    /// Cut in two by the power cut: lost though acknowledged milliseconds before it, or failed in flight.
    pub(crate) cut_off: usize,
    /// Lost though a metalogger should have had them.
    pub(crate) lost: usize,
    /// Returned an error, so not acknowledged.
    pub(crate) failed: usize,
}

/// Cuts the power of a fresh cluster's master.
pub(crate) fn measure(hooks: &Hooks) -> Result<PowerCut> {
    // Neither machine is preferred, and only one is left: nobody argues about who takes over.
    let cluster = Cluster::build().unjudged().masters(2).skew("m1", 0).skew("m2", 0).hooks(hooks.clone()).start()?;
    let load = cluster.client().keep_writing()?;
    cluster.wait_for_metalogger_in_step("m2", PATIENCE)?;
    thread::sleep(ORDINARY + part_of_a_second());
    let mark = cluster.mark();
    let off = cluster.power_off("m1")?;
    let mut run = PowerCut::default();
    match run.follow(&cluster, &load, mark, off) {
        Ok(()) => run.resumed = true,
        Err(error) => eprintln!("  the client was not served again: {error}"),
    }
    // Before the check, which ends the load.
    let outage = load.outage(off)?;
    (run.metadata, run.writes) = (outage.metadata.as_secs_f64(), outage.writes.as_secs_f64());
    match load.verify(&cluster.crashes()) {
        Ok(verdict) => run.operations = Some(Operations::of(&verdict)),
        Err(error) => eprintln!("  the client's operations cannot be checked: {error}"),
    }
    let lines = cluster.events().since(mark);
    run.phases = phases(lines.iter().filter(|line| line.machine == "m2").map(|line| line.text.as_str()))?;
    Ok(run)
}

/// ucarp advertises once a second, so the moment within that second decides how soon the others notice. It must not
/// depend on how long the hooks of one kind took to start.
fn part_of_a_second() -> Duration {
    Duration::from_nanos(RandomState::new().hash_one(()) % 1_000_000_000)
}

impl PowerCut {
    /// Waits for each step of the takeover and notes when it came, until the client has worked for a while again.
    fn follow(&mut self, cluster: &Cluster, load: &Workload, mark: usize, off: Moment) -> Result<()> {
        let master = cluster.wait_for_log_since(mark, "m2", "^ucarp.*Switching to state: MASTER", PATIENCE)?;
        self.detection = Some(master.at.seconds_since(off));
        let taken = cluster.wait_for_serving("m2", PATIENCE)?;
        self.takeover = Some(taken.at.seconds_since(master.at));
        load.wait_for_progress(LAST_RETRY)?;
        thread::sleep(ORDINARY);
        Ok(())
    }
}

impl Operations {
    fn of(verdict: &Verdict) -> Self {
        Self {
            acknowledged: verdict.acknowledged,
            cut_off: verdict.cut_off.len(),
            lost: verdict.lost.len(),
            failed: verdict.failed.len(),
        }
    }
}

/// The times that `mfs-promote` logged, in milliseconds. A step may come again after the master serves (the metalogger
/// is started then); the first one counts.
fn phases<'a>(lines: impl Iterator<Item = &'a str>) -> Result<BTreeMap<&'static str, f64>> {
    let form = Regex::new(r"^mfs-promote\[\d+\]: ([a-z]+): .*\(([0-9.]+) (ms|s)\)$").map_err(Error::from)?;
    let mut phases = BTreeMap::new();
    for found in lines.filter_map(|line| form.captures(line)) {
        let (Some(name), Ok(number)) = (PHASES.iter().find(|name| **name == &found[1]), found[2].parse::<f64>()) else {
            continue;
        };
        phases.entry(*name).or_insert(if &found[3] == "s" { number * 1e3 } else { number });
    }
    Ok(phases)
}

impl fmt::Display for PowerCut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |time: Option<f64>| time.map_or("never".to_owned(), |time| format!("{time:.2} s"));
        let more = if self.resumed { "" } else { " and more" };
        write!(
            f,
            "detection {}, takeover {}, client without metadata operations {:.2} s, writes {:.2} s{more}; ",
            shown(self.detection),
            shown(self.takeover),
            self.metadata,
            self.writes
        )?;
        match &self.operations {
            Some(Operations { acknowledged, cut_off, lost, .. }) => {
                write!(f, "lost {lost} of {acknowledged}, and {cut_off} of the last moment")
            }
            None => f.write_str("losses unknown"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_time_of_each_step_counts() {
        let lines = [
            "mfs-promote[7]: prepare: 2 files (3 ms)",
            "mfs-promote[7]: settle: no rival heard for 1.25 s; 172.16.0.99 is ours (1.26 s)",
            "mfs-promote[7]: metalogger: stopped (103 ms)",
            "mfs-promote[7]: metalogger: started; it copies from this master now (9 ms)",
            "mfs-promote[7]: serving on 172.16.0.99 1.40 s after the call of vip-up",
        ];
        let found = phases(lines.into_iter()).unwrap();
        assert_eq!(found, BTreeMap::from([("settle", 1260.0), ("metalogger", 103.0)]));
    }
}
