//! What a hot standby gains and costs: takeovers that do not wait for the metadata, how quickly it follows and with what, and
//! what a power cut costs a client, hot and cold.

mod cut;
mod lag;
mod takeover;

use std::fs;
use std::time::Duration;

use lab::{Cluster, Hooks, Release, log_lines};

use crate::bed::{Bed, CONFIGURATION, PATIENCE};
use crate::inputs::{self, Input};
use crate::page::Section;
use crate::power_cut::two_machines;
use crate::{Result, Setup};

/// Its master can wait in its replay.
const RELEASE: Release = Release::Debian13;
/// The machine that stands by hot, ...
const HOT: &str = "m1";
/// ... the one that stands by cold, ...
const COLD: &str = "m2";
/// ... and the one that has the address until its power is cut.
const HOLDER: &str = "cs1";
/// What ucarp alone has to do is done within this.
const SOON: Duration = Duration::from_secs(30);
/// `STANDBY` in the configuration.
const STANDBY_HOT: &str = "STANDBY = hot\n";
const STANDBY_COLD: &str = "STANDBY = cold\n";

pub(crate) fn section(setup: &Setup) -> Result<Section> {
    let takeovers = takeover::measure(setup)?;
    let lag = lag::measure(setup)?;
    let cuts = cut::measure(setup)?;
    let mut goals = takeovers.goals();
    goals.push(lag.goal());
    Ok(Section {
        title: "The hot standby",
        text: [takeovers.text(), lag.text(), cuts.text()].join("\n"),
        goals,
        pictures: if setup.quick { Vec::new() } else { vec![("takeover-hot.svg", takeovers.picture()?)] },
    })
}

/// What is measured with, of the release that is measured.
fn input(inodes: u64, changes: u64) -> Result<Input> {
    inputs::input(Some(RELEASE), inodes, changes)
}

/// Two machines of which one at a time stands by, hot or cold, while a third one has the address.
struct HotBed(Bed);

impl HotBed {
    fn new() -> Result<Self> {
        let common = format!("{} = 172.16.0.61\n", log_lines::PING_NODES);
        let build = two_machines(&Hooks::ours()?)
            .release(RELEASE)
            .file_on(HOT, CONFIGURATION, common.clone() + STANDBY_HOT, 0o644)
            .file_on(COLD, CONFIGURATION, common + STANDBY_COLD, 0o644);
        Bed::new(build).map(Self)
    }

    fn cluster(&self) -> &Cluster {
        &self.0.cluster
    }

    /// The machine stands by with these files, and knows the one that has the address. A hot one has loaded them.
    fn stand_by(&self, name: &str, input: &Input) -> Result<usize> {
        self.hold()?;
        let mark = self.0.boot(name, input)?;
        self.cluster().wait_for_log_since(mark, name, log_lines::CS1_REMEMBERED, PATIENCE)?;
        if name == HOT {
            self.cluster().wait_for_log_since(mark, name, log_lines::HOT, PATIENCE)?;
        }
        Ok(mark)
    }

    /// The third machine boots, and its ucarp becomes MASTER. It runs neither a master nor our programs.
    fn hold(&self) -> Result<()> {
        // The machine of the run before still serves.
        self.0.masters_off()?;
        let cluster = self.cluster();
        let holder = cluster.machine(HOLDER)?;
        if holder.is_on() {
            cluster.power_off(HOLDER)?;
        }
        let mark = cluster.mark();
        cluster.power_on(HOLDER)?;
        let (address, vip) = (holder.address.to_string(), lab::VIP.to_string());
        let mut line = vec!["ucarp", "-B", "-i", "eth0", "-s", &address, "-a", &vip, "-v", "10"];
        line.extend(["-o", "/etc/mfs/ucarp.pass", "-u", "/bin/true", "-d", "/bin/true", "-z", "-P"]);
        cluster.must(HOLDER, &line)?;
        cluster.wait_for_log_since(mark, HOLDER, log_lines::UCARP_MASTER, SOON)?;
        Ok(())
    }

    /// The process id and the resident memory, in MB, of the master that runs or waits on a machine: the one of its processes
    /// with the most memory.
    fn master(&self, name: &str) -> Result<(i32, f64)> {
        let all = self.cluster().machine(name)?.processes();
        let masters = all.iter().filter(|process| process.name == "mfsmaster");
        let sized = masters.filter_map(|process| Some((process.pid, resident(process.pid)?)));
        sized
            .max_by(|one, other| one.1.total_cmp(&other.1))
            .ok_or_else(|| format!("no mfsmaster runs on {name}").into())
    }
}

/// The resident memory of a process, in MB.
fn resident(pid: i32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? / 1024.0)
}
