//! Machines without systemd: sysvinit and OpenRC boot them, with Debian's boot scripts of MooseFS and the package's of ucarp, set up
//! as docs/set-up-by-hand.md says.

use std::fs;
use std::thread;

use lab::{Booted, LAST_RETRY, Moment, Release, Result, Site, VIP, debian_package, log_lines};
use serde_json::Value;

use crate::SOON;
use crate::booted::{PACKAGE, configure};
use crate::packages::in_step;

const PAGE: &str = include_str!("../../docs/set-up-by-hand.md");

/// The block of commands behind the paragraph about machines without systemd that begins with these words.
fn commands(heading: &str) -> String {
    let (_, section) = PAGE.split_once("\n## Without systemd\n").expect("the section");
    let (_, rest) = section.split_once(&format!("\n**{heading}**")).expect("the paragraph");
    let lines = rest.lines().skip_while(|line| !line.starts_with("    "));
    lines.map_while(|line| line.strip_prefix("    ")).fold(String::new(), |text, line| text + line + "\n")
}

/// What `--status` knows of a machine.
fn status(machine: &Booted) -> Option<Value> {
    let said = machine.run(&["mfs-promote", "--status", "--json"]).ok()?;
    serde_json::from_slice(&said.stdout).ok()
}

/// How the runs of a kind have ended, in the words of `--status`.
fn outcomes(machine: &Booted, kind: &str) -> Vec<String> {
    let status = status(machine).unwrap_or_default();
    let runs = status["runs"].as_array().into_iter().flatten().filter(|run| run["kind"] == kind);
    runs.filter_map(|run| Some(run["outcome"].as_str()?.to_owned())).collect()
}

/// A machine with MooseFS, this package and its values, but for what starts them.
fn prepared(site: &Site, number: u8, openrc: bool) -> Result<Booted> {
    let mut machine = site.boot_without_systemd(number)?;
    if openrc {
        machine.must(&["apt-get", "install", "--assume-yes", "openrc"])?;
        // As its package says: what has booted this machine cannot shut it down any more.
        machine.power_off()?;
        drop(machine);
        machine = site.boot_without_systemd(number)?;
        machine.must(&["test", "-d", "/run/openrc/started"])?;
    }
    machine.install("/etc/mfs/mfsmaster.cfg", b"", 0o644)?;
    machine.install("/etc/mfs/mfsmetalogger.cfg", b"MASTER_RECONNECTION_DELAY = 1\n", 0o644)?;
    machine.install("/etc/mfs/mfsexports.cfg", b"* / rw,alldirs,admin,maproot=0:0\n", 0o644)?;
    machine.install("/etc/mfs/ucarp.pass", b"lab\n", 0o600)?;
    let package = fs::read(debian_package()?).expect("the package that was built");
    machine.install(PACKAGE, &package, 0o644)?;
    machine.must(&["apt-get", "install", "--assume-yes", "--no-install-recommends", PACKAGE])?;
    configure(&machine)?;
    if number > 1 {
        machine.must(&["sed", "-i", "s/^OPTIONS=.*/OPTIONS=\"-k 50\"/", "/etc/default/moosefs-ucarp"])?;
    }
    Ok(machine)
}

/// Runs the commands of the page as they stand.
fn type_in(machine: &Booted, heading: &str) -> Result<()> {
    let commands = commands(heading);
    eprintln!("{}# {commands}", machine.name);
    eprintln!("{}", machine.must(&["sh", "-exc", &commands])?);
    Ok(())
}

/// Waits until this machine would lack nothing that the master has.
fn stands_by(machine: &Booted) -> Result<()> {
    machine.expect("a standby that is ready", SOON, || in_step(machine).then_some(()))
}

fn serves(machine: &Booted) -> Result<()> {
    machine.expect("a promotion that has ended", SOON, || {
        let promoted = outcomes(machine, "promotion").last().is_some_and(|outcome| outcome.ends_with("serving"));
        (promoted && machine.holds(VIP) && machine.serves(VIP).is_ok()).then_some(())
    })
}

/// From the set-up through a power cut and an orderly shutdown of the machine that serves. Whatever is booted again takes part by
/// its boot scripts alone.
fn lifetime(heading: &str, openrc: bool) -> Result<()> {
    let site = Site::start()?;
    let (m1, m2) = thread::scope(|scope| {
        let other = scope.spawn(|| prepared(&site, 2, openrc));
        (prepared(&site, 1, openrc), other.join().expect("booting does not panic"))
    });
    let (m1, m2) = (m1?, m2?);
    m1.must(&["sh", "-ec", "cd /var/lib/mfs; printf 'MFSM NEW' > metadata.mfs; chown mfs:mfs metadata.mfs"])?;
    for verb in ["start", "restart"] {
        m1.must(&["service", "moosefs-master", verb])?;
        m1.expect("the new file system to be served", SOON, || m1.serves(m1.address).ok())?;
    }
    let refused = m1.run(&["mfs-promote", "--init", "--yes", "--vip", &VIP.to_string()])?;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("docs/set-up-by-hand.md"), "{refused:?}");
    type_in(&m1, heading)?;
    serves(&m1)?;
    let _chunkserver = site.chunkserver(Release::Debian13)?;
    type_in(&m2, heading)?;
    let load = site.client(Release::Debian13)?.keep_writing()?;
    load.wait_for_progress(LAST_RETRY)?;
    stands_by(&m2)?;
    let checked = String::from_utf8_lossy(&m2.run(&["mfs-promote", "--check"])?.stdout).into_owned();
    assert!(checked.contains(log_lines::CHECK_BOOT), "{checked}");

    let cut = m1.power_off()?;
    let crash = cut..=Moment::now();
    drop(m1);
    serves(&m2)?;
    load.wait_for_progress(LAST_RETRY)?;
    eprintln!("power cut: the client waited {:?}", load.outage(cut)?);

    let m1 = site.boot_without_systemd(1)?;
    let ucarp = |verb: &str| m1.run(&["service", "moosefs-ucarp", verb]).map(|run| run.status.code());
    assert_eq!(ucarp("status")?, Some(0));
    stands_by(&m1)?;
    assert!(!m1.holds(VIP));
    m1.must(&["pkill", "-KILL", "-x", "ucarp"])?;
    assert_eq!(ucarp("status")?, Some(3));
    assert_eq!(ucarp("restart")?, Some(0));
    assert_eq!(ucarp("status")?, Some(0));

    let ordered = Moment::now();
    m2.shut_down()?;
    serves(&m1)?;
    load.wait_for_progress(LAST_RETRY)?;
    eprintln!("shutdown: the client waited {:?}", load.outage(ordered)?);

    // The shutdown has waited for the demotion; what has nothing to demote is the ucarp of each boot.
    let m2 = site.boot_without_systemd(2)?;
    stands_by(&m2)?;
    eprintln!("{}", m2.must(&["mfs-promote", "--status"])?);
    let demotions = outcomes(&m2, "demotion");
    assert!(demotions.iter().any(|outcome| outcome == "demoted"), "{demotions:?}");
    assert!(!demotions.iter().any(|outcome| outcome == "failed"), "{demotions:?}");
    assert!(m1.holds(VIP) && !m2.holds(VIP));
    let verdict = load.verify(&[crash])?;
    eprintln!("{} operations acknowledged, cut in two: {:?}", verdict.acknowledged, verdict.cut_off);
    assert_eq!((verdict.lost, verdict.failed), (Vec::new(), Vec::new()));

    type_in(&m2, "To go back")?;
    m2.must(&["apt-get", "remove", "--assume-yes", "moosefs-ucarp"])?;
    for name in ["ucarp", "mfs-promote", "mfsmaster"] {
        m2.expect(&format!("no {name} to be left"), SOON, || m2.processes(name).is_empty().then_some(()))?;
    }
    m1.serves(VIP).map(drop)
}

#[test]
fn with_sysvinit_from_the_set_up_to_an_orderly_shutdown() -> Result<()> {
    lifetime("With sysvinit", false)
}

#[test]
fn with_openrc_from_the_set_up_to_an_orderly_shutdown() -> Result<()> {
    lifetime("With OpenRC", true)
}
