//! One power cut of the master under load: how long until another machine serves, and what it cost the clients' programs.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::thread;
use std::time::Duration;

use lab::{Builder, Cluster, Error, Hooks, LAST_RETRY, Moment, Result, Verdict, Workload, log_lines};
use regex_lite::Regex;

/// The steps of a promotion that end before the master serves, as `mfs-promote` logs them.
pub(crate) const STEPS: [&str; 9] =
    ["prepare", "settle", "checks", "metalogger", "stage", "commit", "hot", "start", "prove"];
/// What does not happen within this does not happen.
const PATIENCE: Duration = Duration::from_secs(60);
/// The client's life before the cut, and after it works again: a second stall would count.
pub(crate) const ORDINARY: Duration = Duration::from_secs(3);

/// What one power cut was like, as far as it went well. Times in seconds.
#[derive(Default)]
pub(crate) struct PowerCut {
    /// From the power cut to ucarp's "Switching to state: MASTER".
    pub(crate) detection: Option<f64>,
    /// From there to the first answer on 9421 through the address.
    pub(crate) takeover: Option<f64>,
    /// Whether all programs went on.
    pub(crate) resumed: bool,
    /// The longest wait of a program for a metadata operation: until the measurement ended, where it did not continue.
    pub(crate) metadata: f64,
    /// The same for a write.
    pub(crate) writes: f64,
    /// Whether the cut caught a write between the master's log line and its answer (only our programs log it).
    pub(crate) caught: bool,
    /// `None` if it could not be checked.
    pub(crate) operations: Option<Operations>,
    /// The [`STEPS`] that were logged.
    pub(crate) steps: Vec<Step>,
    /// When `vip-up` was done, a chunkserver had registered, and operations of either kind were acknowledged to every program
    /// again: seconds from the power cut.
    pub(crate) hook: Option<f64>,
    pub(crate) registered: Option<f64>,
    pub(crate) back: [Option<f64>; 2],
}

/// A step of a promotion, in seconds from the power cut.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) begin: f64,
    pub(crate) end: f64,
}

/// With which settings of ucarp and MooseFS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settings {
    Defaults,
    Recommended,
}

/// A cluster to be. Neither of its two machines is preferred, and only one is left: there are no duplicate MASTERs.
pub(crate) fn two_machines(hooks: &Hooks) -> Builder {
    Cluster::build().unjudged().masters(2).skew("m1", 0).skew("m2", 0).hooks(hooks.clone())
}

/// What runs on each client of [`Settings::builder`], and how often in a second.
const PROGRAMS: [&str; 2] = ["one", "two"];
const RATE: u32 = 50;

impl Settings {
    /// A new cluster as the README has it: three machines with skews 0, 50 and 100, two chunkservers, two clients.
    pub(crate) fn builder(self, hooks: &Hooks) -> Builder {
        let build = Cluster::build().unjudged().masters(3).chunkservers(2).clients(2).hooks(hooks.clone());
        if self == Self::Defaults {
            return build;
        }
        let build = build
            .setting("mfschunkserver", "MASTER_RECONNECTION_DELAY", "1")
            .setting("mfsmetalogger", "MASTER_RECONNECTION_DELAY", "1")
            .setting("mfsmetalogger", "META_DOWNLOAD_FREQ", "1")
            .ucarp_options(&["-r", "2"])
            // With 125, both standbys become MASTER: see the part "alarms".
            .skew("m3", 175);
        // At their start: a connection keeps what it was made with.
        let settings = "net.ipv4.tcp_rto_max_ms = 1000\n";
        ["c1", "c2", "cs1", "cs2"]
            .into_iter()
            .fold(build, |build, name| build.file_on(name, "/etc/sysctl.d/lab.conf", settings, 0o644))
    }
}

/// The programs of all clients of such a cluster. Each works at a phase of its own.
pub(crate) fn programs(cluster: &Cluster) -> Result<Vec<Workload>> {
    let mut programs = Vec::new();
    for name in ["c1", "c2"] {
        let client = cluster.client_called(name)?;
        for program in PROGRAMS {
            programs.push(client.keep_writing_in(&format!("{name}-{program}"), RATE)?);
        }
    }
    Ok(programs)
}

/// What became of the operations of all programs.
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

/// Cuts the power of the master of a fresh cluster: m1 serves, and m2 is to take over.
pub(crate) fn measure(cluster: &Cluster, programs: &[Workload]) -> Result<PowerCut> {
    cluster.wait_for_metalogger_in_step("m2", PATIENCE)?;
    thread::sleep(ORDINARY + part_of_a_second());
    let mark = cluster.mark();
    let off = cluster.power_off("m1")?;
    let mut run = PowerCut::default();
    match run.follow(cluster, programs, mark, off) {
        Ok(()) => run.resumed = true,
        Err(error) => eprintln!("  a client was not served again: {error}"),
    }
    // Before the check, which ends the load.
    for program in programs {
        let outage = program.outage(off)?;
        run.metadata = run.metadata.max(outage.metadata.as_secs_f64());
        run.writes = run.writes.max(outage.writes.as_secs_f64());
    }
    let verdicts: Result<Vec<Verdict>> = programs.iter().map(|program| program.verify(&cluster.crashes())).collect();
    match verdicts {
        Ok(verdicts) => {
            // Nothing of this may happen, so all that is known of it is worth its room.
            for lost in verdicts.iter().flat_map(|verdict| &verdict.lost) {
                let [begun, acknowledged] = [lost.started, lost.acknowledged].map(|at| at.seconds_since(off));
                eprintln!("  lost: {} ({}), {begun:.3} to {acknowledged:.3} s from the cut", lost.name, lost.what);
            }
            run.operations = Some(Operations::of(&verdicts));
        }
        Err(error) => eprintln!("  the clients' operations cannot be checked: {error}"),
    }
    let lines = cluster.events().since(mark);
    let lines = lines.iter().filter(|line| line.machine == "m2");
    let lines: Vec<(f64, &str)> = lines.map(|line| (line.at.seconds_since(off), line.text.as_str())).collect();
    run.steps = steps(&lines)?;
    let when = |says: &str| lines.iter().find(|(_, text)| text.contains(says)).map(|(at, _)| *at);
    run.hook = when(log_lines::PROMOTION_STARTED);
    run.registered = when("register end");
    run.caught = when(log_lines::LOCKS_RELEASED).is_some();
    Ok(run)
}

/// ucarp advertises once a second, so the moment within that second decides how soon the others notice. It must not
/// depend on how long the hooks of one kind took to start.
pub(crate) fn part_of_a_second() -> Duration {
    Duration::from_nanos(RandomState::new().hash_one(()) % 1_000_000_000)
}

impl PowerCut {
    /// Waits for each step of the takeover and notes when it came, until all programs have worked for a while again.
    fn follow(&mut self, cluster: &Cluster, programs: &[Workload], mark: usize, off: Moment) -> Result<()> {
        let master = cluster.wait_for_log_since(mark, "m2", log_lines::UCARP_MASTER, PATIENCE)?;
        self.detection = Some(master.at.seconds_since(off));
        let taken = cluster.wait_for_serving("m2", PATIENCE)?;
        self.takeover = Some(taken.at.seconds_since(master.at));
        programs.iter().try_for_each(|program| program.wait_for_progress(LAST_RETRY))?;
        thread::sleep(ORDINARY);
        let mut last = [Some(taken.at); 2];
        for program in programs {
            for (last, lines) in last.iter_mut().zip(program.lines()?) {
                let acknowledged = lines.iter().filter(|line| line.errno.is_none()).map(|line| line.end);
                let first = acknowledged.filter(|end| *end > taken.at).min();
                *last = last.zip(first).map(|(last, first)| last.max(first));
            }
        }
        self.back = last.map(|back| back.map(|back| back.seconds_since(off)));
        Ok(())
    }

    /// How long after the master's first answer every program had a metadata operation acknowledged.
    pub(crate) fn heard_again(&self) -> Option<f64> {
        Some(self.back[0]? - self.detection? - self.takeover?)
    }
}

impl Operations {
    fn of(verdicts: &[Verdict]) -> Self {
        let sum = |count: fn(&Verdict) -> usize| verdicts.iter().map(count).sum();
        Self {
            acknowledged: sum(|verdict| verdict.acknowledged),
            cut_off: sum(|verdict| verdict.cut_off.len()),
            lost: sum(|verdict| verdict.lost.len()),
            failed: sum(|verdict| verdict.failed.len()),
        }
    }
}

/// The steps that `mfs-promote` logged, given the log's lines with their times. A step may come again after the master
/// serves (the metalogger is started then); the first one counts.
pub(crate) fn steps(lines: &[(f64, &str)]) -> Result<Vec<Step>> {
    let form = Regex::new(log_lines::STEP).map_err(Error::from)?;
    let mut steps: Vec<Step> = Vec::new();
    for (end, (name, took)) in lines.iter().filter_map(|(at, text)| Some((*at, step(&form, text)?))) {
        let Some(name) = STEPS.into_iter().find(|known| *known == name) else { continue };
        if steps.iter().all(|step| step.name != name) {
            steps.push(Step { name, begin: end - took, end });
        }
    }
    Ok(steps)
}

/// The name of the step that a line is about, and how many seconds it took.
fn step<'a>(form: &Regex, line: &'a str) -> Option<(&'a str, f64)> {
    let found = form.captures(line)?;
    let number: f64 = found[2].parse().ok()?;
    Some((found.get(1)?.as_str(), if &found[3] == "s" { number } else { number / 1e3 }))
}

/// How many seconds the step took that a line is about.
pub(crate) fn step_seconds(line: &str) -> Result<f64> {
    let form = Regex::new(log_lines::STEP).map_err(Error::from)?;
    Ok(step(&form, line).ok_or_else(|| Error::LogLine(line.to_owned()))?.1)
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
        if self.caught {
            f.write_str("a write was cut in two; ")?;
        }
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
            (2.0, "mfs-promote[7]: settle: no rival heard for 1.25 s; 172.16.0.99 is ours (1.26 s)"),
            (2.5, "mfs-promote[7]: metalogger: stopped (500 ms)"),
            (3.0, "mfs-promote[7]: metalogger: started; it copies from this master now (9 ms)"),
            (4.0, "mfs-promote[7]: serving on 172.16.0.99 1.40 s after the call of vip-up"),
        ];
        let step = |name, begin, end| Step { name, begin, end };
        assert_eq!(steps(&lines).unwrap(), [step("settle", 0.74, 2.0), step("metalogger", 2.0, 2.5)]);
    }
}
