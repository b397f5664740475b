//! How long after a machine became MASTER a rival may still appear: many elections of real ucarp at once, with nothing to
//! promote, heard on the switch. The default of `SETTLE_MARGIN` comes from here.

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Read as _};
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lab::{Cluster, Hooks};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};

use crate::page::{Goal, Section, row, table};
use crate::plot;
use crate::{Result, Setup};

/// Elections at once.
const GROUPS: u8 = 40;
/// The first group's number; the cluster's own is 10.
const FIRST: u8 = 20;
/// The protocol number of CARP.
const CARP: u8 = 112;
/// One advertisement interval, all skews aside.
const INTERVAL: f64 = 1.0;
/// The default of `SETTLE_MARGIN`.
const MARGIN: f64 = 0.25;

/// Who takes part: the skews of the machines that time out together, and whether the machine is busy.
struct Standbys {
    name: &'static str,
    skews: &'static [u8],
    busy: bool,
}

const STANDBYS: [Standbys; 6] = [
    Standbys { name: "two, equal", skews: &[0, 0], busy: false },
    Standbys { name: "three, equal", skews: &[0, 0, 0], busy: false },
    Standbys { name: "three, skews 0 1 2", skews: &[0, 1, 2], busy: false },
    Standbys { name: "three, skews 0 50 100", skews: &[0, 50, 100], busy: false },
    Standbys { name: "two, equal, four busy loops", skews: &[0, 0], busy: true },
    Standbys { name: "three, equal, four busy loops", skews: &[0, 0, 0], busy: true },
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
    for standbys in STANDBYS.iter().take(if setup.quick { 2 } else { STANDBYS.len() }) {
        let mut heard = Heard::default();
        elect(&cluster, standbys, &mut heard)?;
        heard.rivals.sort_by(f64::total_cmp);
        let shown = |value: Option<&f64>| value.map_or_else(|| "none".to_owned(), |value| format!("{value:.3}"));
        println!(
            "  {}: {} of {} with a rival, last after {}",
            standbys.name,
            heard.duels,
            heard.elections,
            shown(heard.rivals.last())
        );
        rows.push(vec![
            standbys.name.to_owned(),
            heard.elections.to_string(),
            heard.duels.to_string(),
            shown(heard.rivals.get(heard.rivals.len() / 2)),
            shown(heard.rivals.last()),
        ]);
        all.extend_from_slice(&heard.rivals);
        bars.push((standbys.name, heard.rivals));
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

/// One election in each group, among these standbys.
fn elect(cluster: &Cluster, among: &Standbys, heard: &mut Heard) -> Result<()> {
    let standbys: Vec<(String, u8)> =
        among.skews.iter().enumerate().map(|(index, skew)| (format!("m{}", index + 2), *skew)).collect();
    start(cluster, "m1", 0)?;
    std::thread::sleep(Duration::from_secs(4));
    for (machine, skew) in &standbys {
        start(cluster, machine, *skew)?;
    }
    std::thread::sleep(Duration::from_secs(2));
    let mut busy = Vec::new();
    for _ in 0..if among.busy { 4 } else { 0 } {
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
    let mut socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(i32::from(CARP))))?;
    socket.bind_device(Some(b"br0"))?;
    socket.join_multicast_v4_n(&Ipv4Addr::new(224, 0, 0, 18), &InterfaceIndexOrAddress::Index(index))?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let (begin, mut packet) = (Instant::now(), [0; 1500]);
    while begin.elapsed() < Duration::from_secs(seconds) {
        match socket.read(&mut packet) {
            Ok(length) => {
                let at = begin.elapsed().as_secs_f64();
                if let Some((group, source)) = advertisement(&packet[..length]) {
                    println!("{at} {group} {source}");
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => (),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The group and the source of an IPv4 packet that advertises a MASTER (CARP version 2, type 1).
fn advertisement(packet: &[u8]) -> Option<(u8, Ipv4Addr)> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let source: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
    let [0x21, group, ..] = packet.get(header..)? else { return None };
    (packet[9] == CARP).then(|| (*group, source.into()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_advertisements_are_counted() {
        let mut packet = [0; 56];
        (packet[0], packet[9]) = (0x45, CARP);
        packet[12..16].copy_from_slice(&[172, 16, 0, 12]);
        (packet[20], packet[21]) = (0x21, 20);
        assert_eq!(advertisement(&packet), Some((20, Ipv4Addr::new(172, 16, 0, 12))));
        assert_eq!(advertisement(&packet[..20]), None);
        assert_eq!(advertisement(&[]), None);
        packet[9] = 17;
        assert_eq!(advertisement(&packet), None);
    }
}
