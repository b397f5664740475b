//! The operations of the campaign, the machine that they run on, and the files that each starts from.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use lab::trace::{Call, Fault};
use lab::{Result, SingleMachine, SingleMachines, TracedRun, VIP};

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
const CONFIG: &[(&str, &str)] = &[
    ("mfsmaster.cfg", ""),
    ("mfsmetalogger.cfg", "MASTER_RECONNECTION_DELAY = 1\n"),
    ("mfsexports.cfg", "* / rw,alldirs,admin,maproot=0:0\n"),
    // The switch answers for the rest of the world.
    ("mfspromote.cfg", "SERVICE_MANAGER = own\nSETTLE_MARGIN = 0.05\nPING_NODES = 172.16.0.1\n"),
];

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
}

impl Operation {
    const ALL: [Self; 5] =
        [Self::Promotion, Self::Demotion, Self::RollBackOfMoving, Self::RollBackOfStarting, Self::Rehearsal];

    fn line(self) -> Vec<&'static str> {
        match self {
            Self::Promotion => promotion(),
            Self::Demotion | Self::RollBackOfMoving | Self::RollBackOfStarting => vec!["mfs-promote", "--demote"],
            Self::Rehearsal => vec!["mfs-promote", "--rehearse"],
        }
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
        })
    }
}

pub(crate) fn promotion() -> Vec<&'static str> {
    vec!["mfs-promote", "--interface", "eth0", "--vip", "172.16.0.99"]
}

/// A machine, and the folders that the operations start from.
#[derive(Debug)]
pub(crate) struct TestMachine {
    machine: SingleMachine,
    begin: PathBuf,
    originals: Originals,
    /// What the metalogger's copy ends at, with one epoch jump.
    planned: u64,
}

impl TestMachine {
    /// The first one makes the folders.
    pub(crate) fn start(machines: &SingleMachines) -> Result<Self> {
        assert_eq!(VIP.to_string(), "172.16.0.99");
        let machine = machines.start(CONFIG)?;
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
        let originals = Originals::of(&data);
        let new = Self { machine, begin, originals, planned: 0 };
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
        Ok(Self { machine: machines.start(CONFIG)?, begin, originals, planned })
    }

    /// Runs each operation without a fault, saves the files that later ones start from, and returns the calls of each.
    pub(crate) fn record_calls(&mut self) -> Result<Vec<(Operation, Vec<Call>)>> {
        let mut all = Vec::new();
        for operation in Operation::ALL {
            let TracedRun { seen, output, .. } = self.run(operation, None)?;
            if operation == Operation::Promotion {
                self.planned = self.served().unwrap_or_else(|why| panic!("{why}\n{output}"));
                assert!(self.planned > JUMP, "{}", self.planned);
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
            let verdict = self.judge()?;
            assert!(matches!(verdict, Verdict::Well), "{operation} without a fault: {verdict:?}\n{output}");
            all.push((operation, seen.calls));
        }
        Ok(all)
    }

    /// Injects one fault, and judges what came of it.
    pub(crate) fn inject(&self, operation: Operation, fault: Fault, number: usize) -> Result<Verdict> {
        let TracedRun { seen, output, stuck } = self.run(operation, Some((fault, number)))?;
        let at = seen.calls.last().map(|call| call.what.clone()).unwrap_or_default();
        let verdict = match self.judge()? {
            _ if stuck => Verdict::Stuck("it did not end".to_owned()),
            Verdict::Well if !seen.injected => Verdict::NotInjected,
            verdict => verdict,
        };
        Ok(match verdict {
            Verdict::Lost(why) => Verdict::Lost(format!("{why}\n  last call: {at}\n{output}")),
            Verdict::Stuck(why) => Verdict::Stuck(format!("{why}\n  last call: {at}\n{output}")),
            verdict => verdict,
        })
    }

    /// Puts everything in place for the operation, and runs it.
    pub(crate) fn run(&self, operation: Operation, fault: Option<(Fault, usize)>) -> Result<TracedRun> {
        let machine = &self.machine;
        let begin = self.begin.join(match operation {
            Operation::Promotion | Operation::Rehearsal => "standby",
            Operation::Demotion => "serving",
            Operation::RollBackOfMoving => "moving",
            Operation::RollBackOfStarting => "starting",
        });
        machine.reset(&begin.join("data"), Some(&begin.join("state")))?;
        match operation {
            Operation::Promotion | Operation::Rehearsal => drop(machine.must(&["mfsmetalogger", "start"])?),
            Operation::Demotion => drop(machine.must(&["mfsmaster", "-a", "start"])?),
            Operation::RollBackOfMoving | Operation::RollBackOfStarting => (),
        }
        machine.address(operation == Operation::Promotion)?;
        machine.trace(&operation.line(), fault)
    }

    /// All is there; and the next run serves it, perhaps promoted more than once, ends everything, and leaves all of it
    /// there.
    fn judge(&self) -> Result<Verdict> {
        let machine = &self.machine;
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
        Ok(self.is_clean().map_or_else(stuck, |()| Verdict::Well))
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
