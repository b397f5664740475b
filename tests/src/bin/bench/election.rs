//! How long after a machine became MASTER a rival may still appear: many elections of real ucarp at once, with nothing to
//! promote, heard on the switch. The default of `SETTLE_MARGIN` comes from here.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use failover::sys::cancel::Cancel;
use failover::ucarp::carp::Listener;
use lab::{Cluster, Hooks};

use crate::Result;
use crate::Setup;
use crate::page::{Goal, Section, row, table};
use crate::plot;

/// Elections at once.
const GROUPS: u8 = 40;
/// The first group's number; the cluster's own is 10.
const FIRST: u8 = 20;
/// One advertisement interval, all skews aside.
const INTERVAL: f64 = 1.0;
/// The default of `SETTLE_MARGIN`.
const MARGIN: f64 = 0.25;

/// Who takes part: the skews of the machines that time out together, and whether the machine is busy.
struct Scene {
    name: &'static str,
    skews: &'static [u8],
    busy: bool,
}

const SCENES: [Scene; 6] = [
    Scene { name: "two, equal", skews: &[0, 0], busy: false },
    Scene { name: "three, equal", skews: &[0, 0, 0], busy: false },
    Scene { name: "three, skews 0 1 2", skews: &[0, 1, 2], busy: false },
    Scene { name: "three, skews 0 50 100", skews: &[0, 50, 100], busy: false },
    Scene { name: "two, equal, four busy loops", skews: &[0, 0], busy: true },
    Scene { name: "three, equal, four busy loops", skews: &[0, 0, 0], busy: true },
];

/// What was heard of one election: seconds from the winner's first advertisement to the first one of each rival.
#[derive(Default)]
struct Heard {
    elections: usize,
    duels: usize,
    rivals: Vec<f64>,
}

pub(crate) fn section(setup: &Setup) -> Result<Section> {
    let cluster = Cluster::build().unjudged().masters(4).chunkservers(0).hooks(Hooks::AddressOnly).start()?;
    let mut rows =
        vec![row(["standbys that time out together", "elections", "with a rival", "rival after (s): median", "most"])];
    let mut all = Vec::new();
    let mut bars = Vec::new();
    for scene in SCENES.iter().take(if setup.quick { 2 } else { SCENES.len() }) {
        let mut heard = Heard::default();
        elect(&cluster, scene, &mut heard)?;
        heard.rivals.sort_by(f64::total_cmp);
        let shown = |value: Option<&f64>| value.map_or_else(|| "none".to_owned(), |value| format!("{value:.3}"));
        println!(
            "  {}: {} of {} with a rival, last after {}",
            scene.name,
            heard.duels,
            heard.elections,
            shown(heard.rivals.last())
        );
        rows.push(vec![
            scene.name.to_owned(),
            heard.elections.to_string(),
            heard.duels.to_string(),
            shown(heard.rivals.get(heard.rivals.len() / 2)),
            shown(heard.rivals.last()),
        ]);
        all.extend_from_slice(&heard.rivals);
        bars.push((scene.name, heard.rivals));
    }
    let last = all.iter().copied().reduce(f64::max);
    let goal =
        Goal::at_most("latest rival after the first advertisement, to the settle time", INTERVAL + MARGIN, "s", last);
    let idle: Vec<f64> = bars.iter().filter(|(name, _)| !name.contains("busy")).flat_map(|bar| bar.1.clone()).collect();
    let busy: Vec<f64> = bars.iter().filter(|(name, _)| name.contains("busy")).flat_map(|bar| bar.1.clone()).collect();
    let picture = plot::histogram(
        "When a rival appears",
        "seconds from the first advertisement of the new MASTER to a rival's first",
        0.05,
        (INTERVAL + MARGIN, "settle time"),
        &[("idle machine", idle), ("busy machine", busy)],
    )?;
    let text = format!("{}{EXPLANATION}", table(&rows));
    Ok(Section { title: "The settle time", text, goals: vec![goal], pictures: vec![("elections.svg", picture)] })
}

/// So many elections at once, on the given scene.
fn elect(cluster: &Cluster, scene: &Scene, heard: &mut Heard) -> Result<()> {
    let standbys: Vec<(String, u8)> =
        scene.skews.iter().enumerate().map(|(index, skew)| (format!("m{}", index + 2), *skew)).collect();
    start(cluster, "m1", 0)?;
    std::thread::sleep(Duration::from_secs(4));
    for (machine, skew) in &standbys {
        start(cluster, machine, *skew)?;
    }
    std::thread::sleep(Duration::from_secs(2));
    let mut busy = Vec::new();
    for _ in 0..if scene.busy { 4 } else { 0 } {
        busy.push(Busy(Command::new("sh").args(["-c", "while :; do :; done"]).stdin(Stdio::null()).spawn()?));
    }
    let log = cluster.folder().join("heard");
    let listening = format!("exec '{}' --alone listen 10 > '{}'", std::env::current_exe()?.display(), log.display());
    std::thread::scope(|scope| -> Result<()> {
        let listener = scope.spawn(|| cluster.on_switch(&listening));
        std::thread::sleep(Duration::from_secs(1));
        cluster.isolate("m1")?;
        Ok(listener.join().map_err(|_| "the listener panicked")??)
    })?;
    drop(busy);
    for machine in ["m1", "m2", "m3", "m4"] {
        // All of the machine's own, in a process namespace of its own.
        cluster.run(machine, &["sh", "-c", "kill -KILL $(pidof ucarp)"])?;
    }
    cluster.heal("m1")?;
    count(&fs::read_to_string(log)?, heard)
}

/// Starts a ucarp for each group on a machine. Its hooks do nothing.
fn start(cluster: &Cluster, machine: &str, skew: u8) -> Result<()> {
    let address = cluster.machine(machine)?.address;
    let script = format!(
        "for group in $(seq {FIRST} {}); do ucarp -B -i eth0 -s {address} -v $group -o /etc/mfs/ucarp.pass \
         -a 172.16.1.$group -u /bin/true -d /bin/true -z -b 1 -r 3 -k {skew}; done",
        FIRST + GROUPS - 1
    );
    cluster.must(machine, &["sh", "-ec", &script])?;
    Ok(())
}

/// Reads what [`listen`] heard: the old master's last word in each group, then who became MASTER, and which rivals did.
fn count(text: &str, heard: &mut Heard) -> Result<()> {
    let old = Ipv4Addr::new(172, 16, 0, 11);
    let mut firsts: BTreeMap<u8, BTreeMap<Ipv4Addr, f64>> = BTreeMap::new();
    for line in text.lines() {
        let [at, group, source] = line.split(' ').collect::<Vec<_>>()[..] else { continue };
        let (at, group, source) = (at.parse::<f64>()?, group.parse()?, source.parse::<Ipv4Addr>()?);
        if source != old && (FIRST..FIRST + GROUPS).contains(&group) {
            firsts.entry(group).or_default().entry(source).or_insert(at);
        }
    }
    for firsts in firsts.values() {
        let mut times: Vec<f64> = firsts.values().copied().collect();
        times.sort_by(f64::total_cmp);
        heard.elections += 1;
        heard.duels += usize::from(times.len() > 1);
        heard.rivals.extend(times[1..].iter().map(|at| at - times[0]));
    }
    Ok(())
}

/// What runs on the switch: prints each advertisement for some seconds, as `SECONDS GROUP SOURCE`.
pub(crate) fn listen(words: &[String]) -> Result<()> {
    let seconds: u64 = words.first().ok_or("listen SECONDS")?.parse()?;
    let index = nix::net::if_::if_nametoindex("br0")?;
    let listener = Listener::open("br0", index, Ipv4Addr::new(224, 0, 0, 18))?;
    let (begin, cancel) = (Instant::now(), Cancel::new());
    while begin.elapsed() < Duration::from_secs(seconds) {
        if let Some(said) = listener.next(Duration::from_millis(100), &cancel)? {
            println!("{} {} {}", begin.elapsed().as_secs_f64(), said.vhid, said.source);
        }
    }
    Ok(())
}

/// A loop that keeps a processor busy until this goes away.
struct Busy(Child);

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const EXPLANATION: &str = "
![when a rival appears](elections.svg)

Forty groups of real ucarp at once (`advbase` 1, `deadratio` 3) on the same machines, each with its own address, hooks that do
nothing. The old master is cut off, the standbys time out together, and every advertisement is heard on the switch. A rival is
who advertises after the first one did. mfs-promote waits for one advertisement interval and `SETTLE_MARGIN` (0.25 s) of
silence from its own call on, and as long again after a rival's last word.
";
