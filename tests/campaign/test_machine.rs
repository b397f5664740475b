//! The operations of the campaign, the machine that they run on, and the files that each starts from.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use lab::trace::{Call, Fault};
use lab::{Release, Result, SingleMachine, SingleMachines, TracedRun, VIP, log_lines};

use crate::hot;
use crate::verdict::{Originals, Verdict};

/// A standby that served once: the metalogger's copy (recorded from 3.0.117, torn in its last line), and older files of
/// its own of the same history.
const COPY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/failover/testdata/3.0.117-torn-ml");
const OWN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/failover/testdata/3.0.117-master");
/// The number of changes in the own files: fewer than in the copy, so that serving them would be a loss.
const OWN_CHANGES: usize = 300;
/// An epoch.
const JUMP: u64 = 1_000_000_000_000;
/// A master makes at most this many changes by itself soon after its start.
const OF_ITS_OWN: u64 = 100;
/// The switch answers for the rest of the world.
const OURS: &str = "SERVICE_MANAGER = own\nSETTLE_MARGIN = 0.05\nPING_NODES = 172.16.0.1\n";

/// What the machines of a campaign are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standby {
    /// With the MooseFS of this host: the master is started when it is needed.
    Cold,
    /// With one whose master can wait, and `STANDBY = hot`.
    Hot,
}

impl Standby {
    fn operations(self) -> &'static [Operation] {
        match self {
            Self::Cold => &[
                Operation::Promotion,
                Operation::Demotion,
                Operation::RollBackOfMoving,
                Operation::RollBackOfStarting,
                Operation::Rehearsal,
            ],
            Self::Hot => {
                &[Operation::HotPromotion, Operation::HotStandby, Operation::HotGoesOn, Operation::HotPromotionByHand]
            }
        }
    }

    fn machine(self, machines: &SingleMachines) -> Result<SingleMachine> {
        let (release, more) = match self {
            Self::Cold => (None, ""),
            Self::Hot => (Some(Release::Debian13), "STANDBY = hot\n"),
        };
        let files: [(&str, &str); 4] = [
            ("mfsmaster.cfg", ""),
            ("mfsmetalogger.cfg", "MASTER_RECONNECTION_DELAY = 1\n"),
            ("mfsexports.cfg", "* / rw,alldirs,admin,maproot=0:0\n"),
            ("mfspromote.cfg", &[OURS, more].concat()),
        ];
        machines.start(release, &files)
    }
}

/// A run into which faults are injected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operation {
    /// From the metalogger's copy to serving and the archive.
    Promotion,
    /// Of a serving master, with files set aside that are not archived yet.
    Demotion,
    /// A demotion that finds a promotion which was killed between its renames.
    RollBackOfMoving,
    /// A demotion that finds a promotion which was killed before its master started.
    RollBackOfStarting,
    /// A rehearsal.
    Rehearsal,
    /// A run that stands by loads a hot standby, feeds it, and ends it.
    HotStandby,
    /// Another run goes on with the hot standby of the run before.
    HotGoesOn,
    /// A promotion lets the hot standby go, and the run that stood by has ended.
    HotPromotion,
    /// The same, beside the run that stands by: it waits meanwhile.
    HotPromotionByHand,
}

impl Operation {
    /// The faults that are injected into it.
    pub(crate) fn faults(self) -> &'static [Fault] {
        match self {
            // A call that fails does the same as without a run beside it.
            Self::HotPromotionByHand => &[Fault::Kill, Fault::PowerCut],
            _ => &Fault::ALL,
        }
    }

    /// Where no master may serve at any moment.
    pub(crate) fn only_stands_by(self) -> bool {
        matches!(self, Self::HotStandby | Self::HotGoesOn)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Promotion => "promotion and archive",
            Self::Demotion => "demotion and archive",
            Self::RollBackOfMoving => "roll-back of half a commit",
            Self::RollBackOfStarting => "roll-back of a commit",
            Self::Rehearsal => "rehearsal",
            Self::HotStandby => "hot standby",
            Self::HotGoesOn => "hot standby of the run before",
            Self::HotPromotion => "hot promotion and archive",
            Self::HotPromotionByHand => "hot promotion by hand",
        })
    }
}

/// The version that the last promotion says it will serve.
fn planned(said: &str) -> Option<u64> {
    said.rsplit_once(log_lines::SERVED_AS)?.1.split_once(')')?.0.parse().ok()
}

pub(crate) fn promotion() -> Vec<&'static str> {
    vec!["mfs-promote", "--interface", "eth0", "--vip", "172.16.0.99"]
}

/// A machine, and the folders that the operations start from.
#[derive(Debug)]
pub(crate) struct TestMachine {
    machine: SingleMachine,
    standby: Standby,
    begin: PathBuf,
    originals: Originals,
    /// The version that a promotion without a fault serves first, by its own words: the master that serves it adds changes of
    /// its own, sooner or later.
    planned: u64,
    /// A master served in the last operation that must not.
    served: AtomicBool,
}

impl TestMachine {
    /// The first one makes the folders.
    pub(crate) fn start(machines: &SingleMachines, standby: Standby) -> Result<Self> {
        assert_eq!(VIP.to_string(), "172.16.0.99");
        let machine = standby.machine(machines)?;
        let begin = machine.folder().join("begin");
        let data = begin.join("standby/data");
        fs::create_dir_all(&data).expect("a new folder");
        for folder in [OWN, COPY] {
            for entry in fs::read_dir(folder).expect("recorded files").flatten() {
                fs::copy(entry.path(), data.join(entry.file_name())).expect("a copy");
            }
        }
        let log = fs::read_to_string(data.join("changelog.0.mfs")).expect("the own log");
        let cut: String = log.split_inclusive('\n').take(OWN_CHANGES).collect();
        fs::write(data.join("changelog.0.mfs"), cut).expect("a shorter log");
        let mut originals = Originals::of(&data);
        if standby == Standby::Hot {
            let recorded = fs::read_to_string(data.join("changelog_ml.0.mfs")).expect("the metalogger's log");
            originals.replace(&recorded, hot::whole_log(&recorded));
        }
        let new = Self { machine, standby, begin, originals, planned: 0, served: AtomicBool::new(false) };
        // As the daemons would have left them.
        new.machine.reset(&data, None)?;
        new.machine.must(&["chown", "-R", "mfs:mfs", "/var/lib/mfs"])?;
        new.machine.save(&new.begin.join("standby"))?;
        Ok(new)
    }

    /// Its machine.
    pub(crate) fn machine(&self) -> &SingleMachine {
        &self.machine
    }

    /// The files that a promotion starts from.
    pub(crate) fn standby(&self) -> PathBuf {
        self.begin.join("standby/data")
    }

    /// Another machine with the same folders.
    pub(crate) fn like(machines: &SingleMachines, first: &Self) -> Result<Self> {
        let (begin, originals, planned) = (first.begin.clone(), first.originals.clone(), first.planned);
        let standby = first.standby;
        Ok(Self {
            machine: standby.machine(machines)?,
            standby,
            begin,
            originals,
            planned,
            served: AtomicBool::new(false),
        })
    }

    /// Runs each operation without a fault, saves the files that later ones start from, and returns the calls of each.
    pub(crate) fn record_calls(&mut self) -> Result<Vec<(Operation, Vec<Call>)>> {
        let mut all = Vec::new();
        for &operation in self.standby.operations() {
            let TracedRun { seen, output, .. } = self.run(operation, None)?;
            if matches!(operation, Operation::Promotion | Operation::HotPromotion) {
                // A run by hand says it on the terminal, that of a hook to syslog.
                let said = [self.machine.log().as_str(), &output].concat();
                self.planned = planned(&said).unwrap_or_else(|| panic!("no version is planned:\n{said}"));
                assert!(self.planned > JUMP, "{}", self.planned);
            }
            if operation == Operation::Promotion {
                let calls = &seen.calls;
                let of = |what: &str, from: usize| {
                    let found = calls[from..].iter().position(|call| call.what.starts_with(what));
                    from + found.unwrap_or_else(|| panic!("a call {what} in {calls:#?}"))
                };
                let staged = of("rename metadata.mfs.back to metadata.mfs.back", of("rename changelog.0.mfs to", 0));
                let started = of("start a child", staged);
                let serving = of("create .metabak", started);
                for (name, number) in [("moving", staged), ("starting", started), ("serving", serving)] {
                    self.run(operation, Some((Fault::Kill, number)))?;
                    self.machine.kill_all()?;
                    self.machine.save(&self.begin.join(name))?;
                }
            }
            let verdict = self.judge(operation)?;
            assert!(!self.served.load(Ordering::Relaxed), "{operation} without a fault: a master serves");
            assert!(matches!(verdict, Verdict::Well), "{operation} without a fault: {verdict:?}\n{output}");
            all.push((operation, seen.calls));
        }
        Ok(all)
    }

    /// Injects one fault, and judges what came of it.
    pub(crate) fn inject(&self, operation: Operation, fault: Fault, number: usize) -> Result<Verdict> {
        let TracedRun { seen, output, stuck } = self.run(operation, Some((fault, number)))?;
        let at = || seen.calls.last().map(|call| call.what.clone()).unwrap_or_default();
        let verdict = match self.judge(operation)? {
            _ if self.served.load(Ordering::Relaxed) => {
                Verdict::Stray("a master served while this machine stood by".to_owned())
            }
            _ if stuck => Verdict::Stuck("it did not end".to_owned()),
            Verdict::Well if !seen.injected => Verdict::NotInjected,
            verdict => verdict,
        };
        Ok(verdict.explained(|| format!("last call: {}\n{output}", at())))
    }

    /// Puts everything in place for the operation, and runs it.
    pub(crate) fn run(&self, operation: Operation, fault: Option<(Fault, usize)>) -> Result<TracedRun> {
        let machine = &self.machine;
        let begin = self.begin.join(match operation {
            Operation::Demotion => "serving",
            Operation::RollBackOfMoving => "moving",
            Operation::RollBackOfStarting => "starting",
            _ => "standby",
        });
        machine.reset(&begin.join("data"), Some(&begin.join("state")))?;
        match operation {
            Operation::Demotion => drop(machine.must(&["mfsmaster", "-a", "start"])?),
            Operation::RollBackOfMoving | Operation::RollBackOfStarting => (),
            _ => drop(machine.must(&["mfsmetalogger", "start"])?),
        }
        let line = match operation {
            Operation::Promotion => promotion(),
            Operation::Demotion | Operation::RollBackOfMoving | Operation::RollBackOfStarting => {
                vec!["mfs-promote", "--demote"]
            }
            Operation::Rehearsal => vec!["mfs-promote", "--rehearse"],
            hot => return hot::run(machine, hot, fault, &self.served),
        };
        machine.address(operation == Operation::Promotion)?;
        machine.trace(&line, fault)
    }

    /// All is there; and the next run serves it, perhaps promoted more than once, ends everything, and leaves all of it
    /// there.
    fn judge(&self, operation: Operation) -> Result<Verdict> {
        let machine = &self.machine;
        if self.standby == Standby::Hot {
            hot::complete_log(machine);
            if let Err(why) = self.only_known_masters(operation) {
                return Ok(Verdict::Stray(why));
            }
        }
        if let Some(lost) = self.lost("after the run") {
            return Ok(lost);
        }
        if let Err(why) = self.status_agrees() {
            return Ok(Verdict::Stuck(why));
        }
        machine.address(true)?;
        let (done, said) = machine.run(&promotion())?;
        if let Some(lost) = self.lost("after the next run") {
            return Ok(lost);
        }
        let stuck = |why| Verdict::Stuck(format!("{why}\n  the next run said:\n{said}"));
        let version = match self.served() {
            Ok(version) if done => version,
            Ok(_) => return Ok(stuck("it failed".to_owned())),
            Err(why) => return Ok(stuck(why)),
        };
        if version.checked_sub(self.planned).is_none_or(|more| more % JUMP > OF_ITS_OWN) {
            let planned = self.planned;
            return Ok(Verdict::Lost(format!("version {version} is served, {planned} was planned\n{said}")));
        }
        if let Err(why) = hot::one_master_serves(machine) {
            return Ok(Verdict::Stray(format!("{why} after the next run\n{said}")));
        }
        Ok(self.is_clean().map_or_else(stuck, |()| Verdict::Well))
    }

    /// No master is left that no run knows, and none serves or counts as serving where this machine stands by.
    pub(crate) fn only_known_masters(&self, operation: Operation) -> std::result::Result<(), String> {
        hot::masters_are_known(&self.machine)?;
        let master = self.ask(&["mfs-promote", "--status", "--json"])?["master"].take();
        if operation.only_stands_by() && !master.is_null() {
            return Err(format!("a master counts as serving: {master}"));
        }
        Ok(())
    }

    fn lost(&self, when: &str) -> Option<Verdict> {
        let missing = self.originals.missing(&self.machine);
        (!missing.is_empty()).then(|| Verdict::Lost(format!("{} {when}", missing.join(", "))))
    }

    /// `--status` reports an interrupted run exactly if a journal is there.
    fn status_agrees(&self) -> std::result::Result<(), String> {
        let journal = self.machine.journal().is_some();
        let status = self.ask(&["mfs-promote", "--status", "--json"])?;
        let reported = status["interrupted_runs"].as_array().is_some_and(|runs| !runs.is_empty());
        if journal == reported {
            Ok(())
        } else {
            Err(format!("a journal is there: {journal}, --status reports one: {reported}"))
        }
    }

    /// The version that is served now.
    fn served(&self) -> std::result::Result<u64, String> {
        let status = self.ask(&["mfs-promote", "--status", "--json"])?;
        status["master"]["version"].as_u64().ok_or_else(|| format!("no master answers: {status}"))
    }

    fn ask(&self, line: &[&str]) -> std::result::Result<serde_json::Value, String> {
        let said = self.machine.must(line).map_err(|e| e.to_string())?;
        serde_json::from_str(&said).map_err(|e| format!("{e}: {said}"))
    }

    /// Nothing is left of any run, and the metalogger runs.
    fn is_clean(&self) -> std::result::Result<(), String> {
        let left: Vec<PathBuf> = ["mfs-promote", "mfs-rehearsal"].map(|name| self.machine.data().join(name)).into();
        if let Some(left) = left.into_iter().find(|path: &PathBuf| Path::exists(path)) {
            return Err(format!("{} is left", left.display()));
        }
        if self.machine.runs("mfsmetalogger") { Ok(()) } else { Err("no metalogger runs".to_owned()) }
    }
}
