//! What each kind of interruption costs the clients, one table for all: in the cluster of the README, under load.

use std::thread;
use std::time::Duration;

use lab::{Cluster, Hooks, LAST_RETRY, Moment, Pause, Release, log_lines};
use nix::sys::signal::Signal;

use crate::Result;
use crate::Setup;
use crate::page::{Goal, Section, row, spread, table};
use crate::power_cut::{self, ORDINARY, Settings};
use crate::stats::Summary;

const PATIENCE: Duration = Duration::from_secs(60);
/// The image that a standby needs.
const IMAGE: &str = "/var/lib/mfs/metadata_ml.mfs.back";

/// A kind of interruption.
struct Case {
    name: &'static str,
    settings: Settings,
    release: Release,
    /// Before the load is measured.
    prepare: fn(&Cluster) -> lab::Result<()>,
    interrupt: fn(&Cluster) -> lab::Result<()>,
    /// The most that a client may be without metadata operations in the median, in seconds.
    goal: Option<f64>,
}

const ORDINARY_CASE: Case = Case {
    name: "power cut",
    settings: Settings::Defaults,
    release: Release::Debian12,
    prepare: |_| Ok(()),
    interrupt: |cluster| cluster.power_off("m1").map(drop),
    goal: Some(5.2),
};

const CASES: [Case; 9] = [
    ORDINARY_CASE,
    Case { name: "power cut, recommended settings", settings: Settings::Recommended, goal: Some(3.5), ..ORDINARY_CASE },
    Case {
        name: "power cut, hot standby (MooseFS 4.57.5)",
        release: Release::Debian13,
        prepare: |cluster| {
            cluster.expect("m2 to be hot", PATIENCE, || {
                let said = cluster.run("m2", &["mfs-promote", "--check"]).ok()?.stdout;
                String::from_utf8_lossy(&said).contains("hot since").then_some(())
            })
        },
        goal: None,
        ..ORDINARY_CASE
    },
    Case {
        name: "power cut, and the first standby cannot serve",
        prepare: |cluster| cluster.must("m2", &["rm", IMAGE]).map(drop),
        goal: None,
        ..ORDINARY_CASE
    },
    Case {
        name: "the master is killed",
        interrupt: |cluster| cluster.kill("m1", "mfsmaster", Signal::SIGKILL).map(drop),
        goal: None,
        ..ORDINARY_CASE
    },
    Case {
        name: "ucarp is restarted on the serving machine",
        interrupt: |cluster| cluster.restart_ucarp("m1"),
        goal: None,
        ..ORDINARY_CASE
    },
    Case {
        name: "a false alarm: the serving machine is paused for 3 s, recommended settings",
        settings: Settings::Recommended,
        interrupt: |cluster| {
            cluster.pause("m1", Pause::Group)?;
            thread::sleep(Duration::from_secs(3));
            cluster.resume("m1").map(drop)
        },
        goal: None,
        ..ORDINARY_CASE
    },
    Case { name: "switchover", interrupt: switch_over, goal: Some(6.5), ..ORDINARY_CASE },
    Case {
        name: "switchover, recommended settings",
        settings: Settings::Recommended,
        interrupt: switch_over,
        goal: Some(6.5),
        ..ORDINARY_CASE
    },
];

fn switch_over(cluster: &Cluster) -> lab::Result<()> {
    cluster.must("m1", &["mfs-promote", log_lines::SWITCHOVER]).map(drop)
}

pub(crate) fn section(setup: &Setup) -> Result<Section> {
    let ours = Hooks::ours()?;
    let mut rows = vec![row(["", "client without metadata operations", "client without writes", "lost"])];
    let mut goals = Vec::new();
    for case in &CASES {
        let (mut metadata, mut writes, mut lost) = (Vec::new(), Vec::new(), 0);
        for _ in 0..setup.runs {
            let cost = measure(&ours, case)?;
            println!(
                "  {}: metadata {:.2} s, writes {:.2} s, lost {}",
                case.name, cost.metadata, cost.writes, cost.lost
            );
            metadata.push(cost.metadata);
            writes.push(cost.writes);
            lost += cost.lost;
        }
        let [metadata, writes] = [metadata, writes].map(Summary::of);
        rows.push(vec![case.name.to_owned(), spread(metadata), spread(writes), lost.to_string()]);
        goals.extend(case.goal.map(|goal| {
            let what = format!("client without metadata operations, {}", case.name);
            Goal::at_most(what, goal, "s", metadata.map(|all| all.median))
        }));
    }
    let text = format!("{}{EXPLANATION}\n{} of each kind.\n", table(&rows), setup.runs);
    Ok(Section { title: "Every kind of interruption", text, goals, pictures: Vec::new() })
}

/// The longest wait of any program, in seconds, and what was lost though acknowledged before the last 100 ms.
struct Cost {
    metadata: f64,
    writes: f64,
    lost: usize,
}

fn measure(hooks: &Hooks, case: &Case) -> Result<Cost> {
    let cluster = case.settings.builder(hooks).release(case.release).start()?;
    let programs = power_cut::programs(&cluster)?;
    for standby in ["m2", "m3"] {
        cluster.wait_for_metalogger_in_step(standby, PATIENCE)?;
    }
    (case.prepare)(&cluster)?;
    thread::sleep(ORDINARY + power_cut::part_of_a_second());
    let since = Moment::now();
    (case.interrupt)(&cluster)?;
    programs.iter().try_for_each(|program| program.wait_for_progress(LAST_RETRY))?;
    thread::sleep(ORDINARY);
    let (mut metadata, mut writes) = (0.0, 0.0);
    for program in &programs {
        let outage = program.outage(since)?;
        metadata = f64::max(metadata, outage.metadata.as_secs_f64());
        writes = f64::max(writes, outage.writes.as_secs_f64());
    }
    let mut lost = 0;
    for program in &programs {
        lost += program.verify(&cluster.crashes())?.lost.len();
    }
    Ok(Cost { metadata, writes, lost })
}

const EXPLANATION: &str = "
Seconds: the median, what nine of ten do not exceed, and the worst. As in the section of power cuts: a fresh cluster each time, the longest
wait of any of four programs on two clients. A switchover and a restart of ucarp stop the master, and lose nothing. Where the first
standby cannot serve (its image is gone), it steps down, and the second one takes over.
";
