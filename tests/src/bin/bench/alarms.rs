//! What ucarp's options cost and save: how soon a dead master is noticed, whether the order of takeover is kept, and how often a
//! living one is declared dead. Real ucarp with hooks that do nothing, in many groups of three machines at once.

use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lab::{Cluster, Hooks};

use crate::page::{Row, Section, row, spread, table};
use crate::power_cut::part_of_a_second;
use crate::stats::Summary;
use crate::{Result, Setup};

const MACHINES: [&str; 3] = ["m1", "m2", "m3"];

/// Options of ucarp, and the skews of the three machines.
struct Options {
    advbase: u8,
    deadratio: u8,
    skews: [u8; 3],
    remark: &'static str,
}

const OPTIONS: [Options; 9] = [
    Options { advbase: 1, deadratio: 3, skews: [0, 50, 100], remark: "ucarp's own `-b` and `-r`" },
    Options { advbase: 1, deadratio: 3, skews: [0, 50, 175], remark: "" },
    Options { advbase: 1, deadratio: 3, skews: [0, 20, 40], remark: "" },
    Options { advbase: 1, deadratio: 2, skews: [0, 50, 100], remark: "" },
    Options { advbase: 1, deadratio: 2, skews: [0, 50, 175], remark: "recommended" },
    Options { advbase: 1, deadratio: 1, skews: [0, 50, 175], remark: "" },
    Options { advbase: 1, deadratio: 4, skews: [0, 50, 175], remark: "" },
    Options { advbase: 1, deadratio: 5, skews: [0, 50, 175], remark: "" },
    Options { advbase: 2, deadratio: 2, skews: [0, 50, 175], remark: "" },
];

/// How many of 100 advertisements the switch drops.
const LOSSES: [u8; 4] = [0, 1, 5, 10];
/// Groups with the same options and losses.
const GROUPS: u8 = 3;
/// What a run adds to the time in which false alarms are counted: the default of five makes an hour.
const RUN: Duration = Duration::from_secs(720);
/// For how long the first machine is paused, in milliseconds.
const PAUSES: [u64; 6] = [1000, 1500, 2000, 2500, 3000, 4000];
/// How often it is paused for each time, and cut.
const TRIES: usize = 10;
/// Until all groups have the first machine as their only MASTER again.
const SETTLED: Duration = Duration::from_secs(12);
/// Between two looks at the load average.
const MINUTE: Duration = Duration::from_secs(60);

/// Where `vip-up` notes its calls on each machine: a line has the time and the interface.
const CALLED: &str = "/run/vip-up.called";
const VIP_UP: &str = "/usr/local/sbin/note-vip-up";

/// One ucarp on each machine, on a network of its own.
struct Group {
    interface: String,
    options: usize,
    loss: u8,
}

/// A call of `vip-up`.
struct Call {
    at: f64,
    machine: &'static str,
}

/// By group.
type Calls = BTreeMap<String, Vec<Call>>;
/// How many false alarms, by the number of [`OPTIONS`] and the loss.
type Alarms = BTreeMap<(usize, u8), u32>;

pub(crate) fn section(setup: &Setup) -> Result<Section> {
    let groups = groups();
    let script = format!("#!/bin/sh\necho \"$(date +%s.%N) $1\" >> {CALLED}\n");
    let build = Cluster::build().unjudged().masters(3).chunkservers(0).hooks(Hooks::AddressOnly);
    let build = MACHINES.iter().fold(build, |build, name| build.file_on(name, VIP_UP, script.clone(), 0o755));
    let cluster = build.start()?;
    start(&cluster, &groups)?;

    let tries = if setup.quick { 1 } else { TRIES };
    let elections = elect(&cluster, &groups, tries)?;
    let mut pauses = Vec::new();
    for length in PAUSES {
        pauses.push(pause(&cluster, &groups, Duration::from_millis(length), tries)?);
    }
    let time = if setup.quick { RUN / 12 } else { RUN * setup.runs };
    let (alarms, load) = count(&cluster, &groups, time)?;

    let mut rows = vec![row(["options, skews", "dead master noticed after", "two MASTERs at once"])];
    for (options, (noticed, together)) in OPTIONS.iter().zip(&elections) {
        let both = format!("{together} of {}", noticed.len());
        rows.push(vec![options.to_string(), spread(Summary::of(noticed.iter().copied())), both]);
    }
    let pauses = by_options(
        "pause of the first machine",
        PAUSES.map(|length| format!("{:.1} s", Duration::from_millis(length).as_secs_f64())),
        |options| {
            pauses.iter().map(|alarms| format!("{} of {}", alarms[options], tries * usize::from(GROUPS))).collect()
        },
    );
    let losses = by_options("advertisements lost", LOSSES.map(|loss| format!("{loss} %")), |options| {
        LOSSES.iter().map(|loss| rate(alarms[&(options, *loss)], time)).collect()
    });
    let mut text = [rows, pauses, losses].map(|rows| table(&rows)).join("\n");
    text += &explanation(tries, time, Summary::of(load));
    Ok(Section { title: "ucarp's options: detection and false alarms", text, ..Section::default() })
}

/// A table with a row for each of [`OPTIONS`].
fn by_options<const N: usize>(corner: &str, head: [String; N], cells: impl Fn(usize) -> Vec<String>) -> Vec<Row> {
    let mut rows = vec![std::iter::once(corner.to_owned()).chain(head).collect()];
    for (number, options) in OPTIONS.iter().enumerate() {
        rows.push(std::iter::once(options.to_string()).chain(cells(number)).collect());
    }
    rows
}

fn groups() -> Vec<Group> {
    let mut groups = Vec::new();
    for options in 0..OPTIONS.len() {
        for loss in LOSSES {
            for _ in 0..GROUPS {
                groups.push(Group { interface: format!("g{}", groups.len()), options, loss });
            }
        }
    }
    groups
}

/// Lays the cables, drops some of the advertisements, and starts all ucarps: those of the first machine first, and each at a
/// moment of its own, because ucarp reads what has arrived once a second.
fn start(cluster: &Cluster, groups: &[Group]) -> Result<()> {
    for group in groups {
        for name in MACHINES {
            cluster.further_cable(name, &group.interface)?;
        }
        if group.loss > 0 {
            let Group { interface, loss, .. } = group;
            cluster.on_switch(&format!(
                "nft add table bridge loss
                 nft add chain bridge loss forward '{{ type filter hook forward priority 0; }}'
                 nft add rule bridge loss forward iifname {{ v-m1-{interface}, v-m2-{interface}, \
                 v-m3-{interface} }} numgen random mod 100 \\< {loss} drop"
            ))?;
        }
    }
    for (machine, name) in MACHINES.iter().enumerate() {
        for (number, group) in groups.iter().enumerate() {
            let Options { advbase, deadratio, skews, .. } = &OPTIONS[group.options];
            let (interface, address, skew) =
                (&group.interface, format!("10.0.{number}.{}", machine + 1), skews[machine]);
            thread::sleep(part_of_a_second() / 5);
            let script = format!(
                "ip addr add {address}/24 dev {interface}
                 ucarp -B -z -i {interface} -s {address} -v 10 -o /etc/mfs/ucarp.pass -a 10.0.{number}.99 -u {VIP_UP} \
                 -d /bin/true -b {advbase} -r {deadratio} -k {skew}"
            );
            cluster.must(name, &["sh", "-ec", &script])?;
        }
    }
    // The first machine has to win in all of them.
    thread::sleep(SETTLED);
    Ok(())
}

/// The calls of `vip-up` since the last time this was asked, by group.
fn calls(cluster: &Cluster) -> Result<Calls> {
    let mut calls = Calls::new();
    for machine in MACHINES {
        let text = cluster.must(machine, &["sh", "-c", &format!("touch {CALLED}; cat {CALLED}; : > {CALLED}")])?;
        for line in text.lines() {
            let (at, interface) = line.split_once(' ').ok_or("a call of vip-up without its interface")?;
            calls.entry(interface.to_owned()).or_default().push(Call { at: at.parse()?, machine });
        }
    }
    Ok(calls)
}

/// Cuts the first machine off, in all groups at once: for each of [`OPTIONS`], how many seconds later another one became
/// MASTER, and how often two did. Only groups that lose nothing else are counted.
fn elect(cluster: &Cluster, groups: &[Group], tries: usize) -> Result<Vec<(Vec<f64>, usize)>> {
    let mut found: Vec<(Vec<f64>, usize)> = OPTIONS.iter().map(|_| (Vec::new(), 0)).collect();
    for _ in 0..tries {
        thread::sleep(part_of_a_second());
        calls(cluster)?;
        let cut = now();
        cluster.on_switch(
            "nft add table bridge cut
             nft add chain bridge cut forward '{ type filter hook forward priority 0; }'
             nft add rule bridge cut forward iifname 'v-m1-*' drop",
        )?;
        thread::sleep(SETTLED);
        let calls = calls(cluster)?;
        cluster.on_switch("nft delete table bridge cut")?;
        thread::sleep(SETTLED);
        for group in groups.iter().filter(|group| group.loss == 0) {
            let Some(called) = calls.get(&group.interface) else { continue };
            let first = called.iter().map(|call| call.at).fold(f64::INFINITY, f64::min);
            let (noticed, together) = &mut found[group.options];
            noticed.push(first - cut);
            *together += usize::from(called.iter().any(|call| call.machine != called[0].machine));
        }
    }
    for (options, (noticed, together)) in OPTIONS.iter().zip(&found) {
        let spread = spread(Summary::of(noticed.iter().copied()));
        println!("  {options}: noticed after {spread} s, two MASTERs in {together} of {}", noticed.len());
    }
    Ok(found)
}

/// Pauses the ucarp of the first machine, in all groups at once: for each of [`OPTIONS`], how often another one became MASTER.
fn pause(cluster: &Cluster, groups: &[Group], length: Duration, tries: usize) -> Result<Vec<usize>> {
    let mut alarms = vec![0; OPTIONS.len()];
    for _ in 0..tries {
        thread::sleep(part_of_a_second());
        calls(cluster)?;
        let line = format!("kill -STOP $(pidof ucarp); sleep {}; kill -CONT $(pidof ucarp)", length.as_secs_f64());
        cluster.must("m1", &["sh", "-ec", &line])?;
        thread::sleep(SETTLED);
        let calls = calls(cluster)?;
        for group in groups.iter().filter(|group| group.loss == 0) {
            alarms[group.options] += usize::from(calls.contains_key(&group.interface));
        }
    }
    println!("  paused for {:.1} s: {alarms:?} false alarms", length.as_secs_f64());
    Ok(alarms)
}

/// Counts false alarms beside whatever else runs on this machine, and says how busy it was: the load
/// averages of each minute.
fn count(cluster: &Cluster, groups: &[Group], time: Duration) -> Result<(Alarms, Vec<f64>)> {
    calls(cluster)?;
    let (end, mut load) = (Instant::now() + time, Vec::new());
    while Instant::now() < end {
        thread::sleep(MINUTE.min(end.saturating_duration_since(Instant::now())));
        let text = fs::read_to_string("/proc/loadavg")?;
        load.push(text.split(' ').next().unwrap_or_default().parse()?);
    }
    let calls = calls(cluster)?;
    let mut alarms = Alarms::new();
    for group in groups {
        let count = calls.get(&group.interface).map_or(0, Vec::len);
        *alarms.entry((group.options, group.loss)).or_default() += u32::try_from(count)?;
    }
    for ((options, loss), count) in &alarms {
        println!("  {}, {loss} % lost: {count} false alarms", OPTIONS[*options]);
    }
    Ok((alarms, load))
}

/// How many false alarms a single group has in an hour.
fn rate(count: u32, time: Duration) -> String {
    let hours = time.as_secs_f64() / 3600.0 * f64::from(GROUPS);
    format!("{:.1}", f64::from(count) / hours)
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

impl std::fmt::Display for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { advbase, deadratio, skews: [one, two, three], remark } = self;
        write!(f, "`-b {advbase} -r {deadratio}`, {one} {two} {three}")?;
        if remark.is_empty() { Ok(()) } else { write!(f, " ({remark})") }
    }
}

fn explanation(tries: usize, time: Duration, load: Option<Summary>) -> String {
    format!(
        "
Real ucarp in groups of three machines, each group on a network of its own, with hooks that do nothing. Each of these options has
{GROUPS} groups with each share of losses, all at the same time.

- dead master noticed after: seconds from the moment in which the switch drops all that the first machine sends until a standby
  calls `vip-up`: median, what nine of ten do not exceed, worst. {tries} cuts, at random moments.
- two MASTERs at once: the third machine became MASTER, too, because its ucarp had not yet read the advertisement of the second
  one. The address moves twice then, and an election can take an interval longer.
- pause of the first machine: its ucarp is stopped for so long, as a machine is that is moved to another host or stores its memory in
  a snapshot. How often of {tries} pauses of {GROUPS} groups another machine became MASTER.
- advertisements lost: on the switch, at random. False alarms of one group per hour, counted for {} minutes, while the machine did
  other work beside all groups: load averages of {} on {} processors (median, nine of ten, most).

A false alarm is a call of `vip-up` beside a living MASTER. mfs-promote then hears that master, serves nothing, and the machine
steps down: clients may wait for seconds, nothing is lost.
",
        time.as_secs() / 60,
        spread(load),
        thread::available_parallelism().map_or(0, usize::from)
    )
}
