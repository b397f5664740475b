//! A machine that takes over whatever metadata is put on its disk.

use std::fs;
use std::time::{Duration, Instant};

use lab::{Builder, Cluster, log_lines};

use crate::Result;
use crate::inputs::Input;
use crate::power_cut::{Step, steps};

/// Image and log of twenty million inodes are copied and loaded within this, twice.
pub(crate) const PATIENCE: Duration = Duration::from_secs(600);

/// The configuration of mfs-promote.
pub(crate) const CONFIGURATION: &str = "/etc/mfs/mfspromote.cfg";

/// Machines of which one at a time boots and takes over. Their master is dead, and a client's machine proves the network.
pub(crate) struct Bed {
    pub(crate) cluster: Cluster,
}

/// A takeover, in seconds from ucarp's line.
pub(crate) struct Takeover {
    /// Until the first answer.
    pub(crate) whole: f64,
    /// Those of our programs.
    steps: Vec<Step>,
}

impl Takeover {
    fn step(&self, name: &str) -> Result<&Step> {
        self.steps.iter().find(|step| step.name == name).ok_or_else(|| format!("no step {name} was logged").into())
    }

    /// How long it took besides the settle time.
    pub(crate) fn without_settle(&self) -> Result<f64> {
        let settle = self.step("settle")?;
        Ok(self.whole - (settle.end - settle.begin))
    }

    /// How long it took after the election had settled and the checks had passed.
    pub(crate) fn after_checks(&self) -> Result<f64> {
        Ok(self.whole - self.step("settle")?.end.max(self.step("checks")?.end))
    }
}

impl Bed {
    /// Of the masters' machines of `build`, which has a client's machine.
    pub(crate) fn new(build: Builder) -> Result<Self> {
        let cluster = build.unjudged().start()?;
        cluster.must("c1", &["umount", "-l", "/mnt/mfs"])?;
        Ok(Self { cluster })
    }

    /// No machine is on that could take over.
    pub(crate) fn masters_off(&self) -> Result<()> {
        for machine in self.cluster.masters().filter(|machine| machine.is_on()) {
            self.cluster.power_off(&machine.name)?;
        }
        Ok(())
    }

    /// The machine starts with these files, and nothing else of the runs before. All others that could take over are off.
    pub(crate) fn boot(&self, name: &str, input: &Input) -> Result<usize> {
        self.masters_off()?;
        let machine = self.cluster.machine(name)?;
        for folder in ["/var/lib/mfs", "/var/lib/moosefs-ucarp"] {
            let folder = machine.disk(folder);
            for entry in fs::read_dir(&folder)?.flatten() {
                let path = entry.path();
                if path.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
            }
        }
        for path in input.put(&machine.disk("/var/lib/mfs"))? {
            machine.give_to_mfs(&path)?;
        }
        // What is still to be written of it must not slow down what is measured.
        nix::unistd::sync();
        let mark = self.cluster.mark();
        self.cluster.power_on(name)?;
        Ok(mark)
    }

    /// Waits until the machine has taken over.
    pub(crate) fn takeover(&self, name: &str, mark: usize) -> Result<Takeover> {
        let master = self.cluster.wait_for_log_since(mark, name, log_lines::UCARP_MASTER, PATIENCE)?;
        let taken = self.cluster.wait_for_serving(name, PATIENCE)?;
        let lines = self.cluster.events().since(mark);
        let lines = lines.iter().filter(|line| line.machine == name);
        let lines: Vec<(f64, &str)> =
            lines.map(|line| (line.at.seconds_since(master.at), line.text.as_str())).collect();
        Ok(Takeover { whole: taken.at.seconds_since(master.at), steps: steps(&lines)? })
    }

    /// The seconds of one `mfsmaster -a start` of these files.
    pub(crate) fn alone(&self, name: &str, input: &Input) -> Result<f64> {
        let mark = self.boot(name, input)?;
        // Before that, a signal would end it without its hook.
        self.cluster.wait_for_log_since(mark, name, log_lines::UCARP_BACKUP, PATIENCE)?;
        self.cluster.stop_ucarp(name)?;
        let machine = self.cluster.machine(name)?;
        machine.must(&["mfsmetalogger", "stop"], PATIENCE)?;
        let begin = Instant::now();
        machine.must(&["mfsmaster", "-a", "start"], PATIENCE)?;
        Ok(begin.elapsed().as_secs_f64())
    }
}
