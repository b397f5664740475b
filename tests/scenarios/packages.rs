//! The packages: what is in them, and machines of Debian 12 and 13 set up by them as the README says, through a power cut, an
//! upgrade while they serve, and removal. And the README itself: its commands, run as they stand by a new administrator.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use lab::{Booted, LAST_RETRY, Moment, Release, Result, Site, VIP, debian_package, log_lines};

use crate::SOON;
use crate::booted::{
    DEBIAN, MASTER, METALOGGER, Packaging, STARTED, UCARP, WAITED, configure, install_package, prepare,
    serves_from_its_units,
};

/// What a command prints that must succeed and be silent on standard error.
pub(crate) fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{printed}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    printed
}

/// A new file system on this machine, and ucarp beside its master: the README's steps on the first one.
fn first_master(machine: &Booted) -> Result<()> {
    machine.must(&["install", "-o", "mfs", "-g", "mfs", "-m", "640", "/dev/null", "/var/lib/mfs/metadata.mfs"])?;
    machine.must(&["sh", "-c", "printf 'MFSM NEW' > /var/lib/mfs/metadata.mfs"])?;
    machine.must(&["systemctl", "start", MASTER])?;
    machine.expect("the new file system to be served", SOON, || machine.serves(machine.address).ok())?;
    // A clean stop gives it an image that metaloggers can fetch.
    machine.must(&["systemctl", "restart", MASTER])?;
    machine.expect("the image to be served", SOON, || machine.serves(machine.address).ok())?;
    machine.must(&["systemctl", "enable", "--now", UCARP])?;
    machine.wait_for_log(0, log_lines::PROMOTION_ENDED, SOON)?;
    assert!(machine.holds(VIP));
    Ok(())
}

/// Everything but data, logs, caches and what packaging tools remember, and what is started at boot.
fn traces(machine: &Booted) -> Result<String> {
    let find = "find / -xdev \\( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp -o -path /root \
                -o -path /var/tmp -o -path /var/log -o -path /var/cache -o -path /var/lib/mfs -o -path /var/lib/dpkg -o -path /var/lib/apt \
                -o -path /var/lib/systemd \\) -prune -o -print | sort";
    let enabled = ["systemctl", "list-unit-files", "--no-legend", "--state=enabled"];
    Ok(machine.must(&["sh", "-c", find])? + "\n" + &machine.must(&enabled)?)
}

/// Two machines with a writing client and a chunkserver. The first loses its power, the second takes over, and has all that
/// was acknowledged. Then it is upgraded while it serves, and what was installed is removed.
fn lifetime(first: Release, second: Release) -> Result<()> {
    let site = Site::start()?;
    let (m1, m2) = thread::scope(|scope| {
        let other = scope.spawn(|| site.boot(2, second));
        (site.boot(1, first), other.join().expect("booting does not panic"))
    });
    let (m1, m2) = (m1?, m2?);
    for machine in [&m1, &m2] {
        prepare(machine)?;
    }
    let before = traces(&m2)?;
    for machine in [&m1, &m2] {
        install_package(machine)?;
        configure(machine)?;
    }
    first_master(&m1)?;
    let _chunkserver = site.chunkserver(first)?;
    m2.must(&["systemctl", "enable", "--now", UCARP])?;
    let load = site.client(first)?.keep_writing()?;
    m2.expect("the copy to be whole and in step", SOON, || in_step(&m2).then_some(()))?;
    let command = ready(&m2, second)?;

    checked_regularly(&m2)?;

    let cut = m1.power_off()?;
    let crash = cut..=Moment::now();
    m2.wait_for_log(0, log_lines::SERVING, SOON)?;
    load.wait_for_progress(LAST_RETRY)?;
    eprintln!("power cut: the client waited {:?}", load.outage(cut)?);
    serves_from_its_units(&m2, command)?;
    let verdict = load.verify(&[crash])?;
    eprintln!("{} operations acknowledged, cut in two: {:?}", verdict.acknowledged, verdict.cut_off);
    assert_eq!((verdict.lost, verdict.failed), (Vec::new(), Vec::new()));
    eprintln!("{}", m2.must(&["mfs-promote", "--status"])?);

    upgraded_in_service(&m2)?;
    removed(&m2, &before)
}

/// The command line of the master with which a standby will serve: a standby of a release that can be hot is, without being
/// told.
fn ready(standby: &Booted, release: Release) -> Result<&'static str> {
    if release == Release::Debian12 {
        return Ok(STARTED);
    }
    standby.expect("it to be hot", SOON, || {
        let said = standby.run(&["mfs-promote", "--check"]).ok()?.stdout;
        String::from_utf8_lossy(&said).contains("hot since").then_some(WAITED)
    })
}

/// Whether a promotion here would lack nothing.
pub(crate) fn in_step(machine: &Booted) -> bool {
    let Ok(check) = machine.run(&["mfs-promote", "--check", "--json"]) else { return false };
    let check: serde_json::Value = serde_json::from_slice(&check.stdout).unwrap_or_default();
    let dry_run = || machine.run(&["mfs-promote", "--dry-run"]).is_ok_and(|run| run.status.success());
    check["lag"] == 0 && dry_run()
}

/// The timer's check says that this standby is ready: to the log, and to the node exporter where there is one.
fn checked_regularly(machine: &Booted) -> Result<()> {
    for question in ["is-active", "is-enabled"] {
        machine.must(&["systemctl", question, "moosefs-ucarp-check.timer"])?;
    }
    machine.must(&["systemctl", "start", "moosefs-ucarp-check"])?;
    eprintln!("{}", machine.must(&["journalctl", "--quiet", "--output=cat", "--unit", "moosefs-ucarp-check"])?);
    machine.must(&["mkdir", "-p", "/var/lib/prometheus/node-exporter"])?;
    machine.must(&["systemctl", "start", "moosefs-ucarp-check"])?;
    let metrics = machine.must(&["cat", "/var/lib/prometheus/node-exporter/moosefs-ucarp.prom"])?;
    assert!(metrics.contains("mfs_promote_"), "{metrics}");
    machine.must(&["rm", "-r", "/var/lib/prometheus"]).map(drop)
}

fn upgraded_in_service(machine: &Booted) -> Result<()> {
    let pids = || Ok([machine.property(MASTER, "MainPID")?, machine.property(UCARP, "MainPID")?]);
    let before: Result<[String; 2]> = pids();
    let before = before?;
    install_package(machine)?;
    assert_eq!(pids()?, before);
    assert!(machine.holds(VIP));
    machine.serves(VIP).map(drop)
}

fn removed(machine: &Booted, before: &str) -> Result<()> {
    let master = machine.property(MASTER, "MainPID")?;
    let refused = machine.run(&["apt-get", "remove", "-y", "moosefs-ucarp"])?;
    let said = String::from_utf8_lossy(&[refused.stdout, refused.stderr].concat()).into_owned();
    assert!(!refused.status.success() && said.contains("the MooseFS master runs here"), "{said}");
    assert_eq!(machine.property(MASTER, "MainPID")?, master);
    assert!(machine.holds(VIP));

    machine.must(&["systemctl", "stop", UCARP])?;
    machine.wait_for_log(0, log_lines::DEMOTED, SOON)?;
    machine.must(&["apt-get", "purge", "-y", "moosefs-ucarp"])?;
    assert_eq!(machine.processes("ucarp"), Vec::<String>::new());
    machine.wait_for_unit(METALOGGER, "active", SOON)?;
    assert!(!machine.must(&["sh", "-c", "ls /var/lib/mfs/bak"])?.is_empty(), "the archive is data");
    let after = traces(machine)?;
    let only = |one: &str, other: &str| {
        let other: Vec<&str> = other.lines().collect();
        one.lines().filter(|line| !other.contains(line)).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!((only(before, &after), only(&after, before)), (Vec::new(), Vec::new()), "gone, and left");
    Ok(())
}

/// The blocks of commands in the README's quick start, in its order.
fn quick_start() -> Vec<String> {
    let rest = include_str!("../../README.md").split_once("\n## Quick start\n").expect("a quick start").1;
    let lines = rest.lines().take_while(|line| !line.starts_with("## "));
    let mut blocks = vec![String::new()];
    for line in lines {
        // The text of a list is indented by three.
        match line.strip_prefix("    ").zip(blocks.last_mut()) {
            Some((command, block)) => block.extend([command.trim(), "\n"]),
            None => blocks.push(String::new()),
        }
    }
    blocks.retain(|block| !block.is_empty());
    blocks
}

/// Runs a block as it stands, in the folder where the package is.
fn type_in(machine: &Booted, block: &str) -> Result<()> {
    let begun = Moment::now();
    machine.must(&["bash", "-ec", &format!("cd /root\n{block}")])?;
    eprintln!("{}# {block}({:?})", machine.name, Moment::now() - begun);
    Ok(())
}

/// Two machines that do everything, from the first line of the quick start to a service that has survived a power cut. What the
/// README leaves to MooseFS's own guide (exports, the folders of chunkservers) is done as that says, and nothing else.
/// Returns the machine that serves in the end.
pub(crate) fn as_the_readme_says(release: Release, packaging: Packaging) -> Result<Booted> {
    let site = Site::start()?;
    let both = set_up(&site, release, packaging)?;
    let steps = quick_start();
    let check = &steps[5];
    let client = site.client(release)?;
    let copied = || client.copies_of_a_new_file().ok().filter(|copies| *copies == both.len()).map(drop);
    both[0].expect("a new file to have a copy on each", SOON, copied)?;
    let load = client.keep_writing()?;
    for machine in &both {
        let well = || machine.must(&["bash", "-ec", check]).ok();
        eprintln!("{}", machine.expect("the check to find nothing wrong", SOON, well)?);
    }
    let command = ready(&both[1], release)?;

    let [m1, m2] = both;
    let cut = m1.power_off()?;
    let crash = cut..=Moment::now();
    m2.wait_for_log(0, log_lines::SERVING, SOON)?;
    load.wait_for_progress(LAST_RETRY)?;
    eprintln!("power cut: the client waited {:?}", load.outage(cut)?);
    packaging.serves(&m2, command)?;
    let verdict = load.verify(&[crash])?;
    eprintln!("{} operations acknowledged, cut in two: {:?}", verdict.acknowledged, verdict.cut_off);
    assert_eq!((verdict.lost, verdict.failed), (Vec::new(), Vec::new()));
    Ok(m2)
}

/// Two machines that do everything; the first one serves. Each was set up by one command, as the README says.
fn set_up(site: &Site, release: Release, packaging: Packaging) -> Result<[Booted; 2]> {
    let steps = quick_start();
    let [package, first, init, next, hosts, _check, ..] = &steps[..] else { panic!("{steps:#?}") };
    let (m1, m2) = thread::scope(|scope| {
        let other = scope.spawn(|| site.boot(2, release));
        (site.boot(1, release), other.join().expect("booting does not panic"))
    });
    let both = [m1?, m2?];
    for machine in &both {
        machine.must(&["ip", "route", "add", "default", "via", "172.16.0.1"])?;
        (packaging.install)(machine)?;
        let known = machine.must(&["cat", "/etc/hosts"])?;
        assert!(known.contains(hosts.trim()), "the lab's virtual IP is that of the README: {known}");
        machine.must(&["sed", "-i", "/mfsmaster/d", "/etc/hosts"])?;
        let built = std::fs::read(debian_package()?).expect("the package that was built");
        let name = package.trim().rsplit('/').next().expect("a file");
        machine.install(&format!("/root/{name}"), &built, 0o644)?;
        type_in(machine, &package.replace("apt install", "apt install -y"))?;
        for daemon in ["master", "metalogger", "chunkserver"] {
            assert_eq!(machine.processes(&format!("mfs{daemon}")), Vec::<String>::new(), "installing starts nothing");
        }
        machine.install("/etc/mfs/mfschunkserver.cfg", b"", 0o644)?;
        machine.install("/etc/mfs/mfshdd.cfg", b"/mnt/chunks\n", 0o644)?;
        machine.must(&["install", "-d", "-o", "mfs", "-g", "mfs", "/mnt/chunks"])?;
    }
    let [m1, m2] = &both;
    m1.install("/etc/mfs/mfsexports.cfg", b"* / rw,alldirs,admin,maproot=0:0\n", 0o644)?;
    type_in(m1, first)?;
    refuses_without_an_answer(m1, init)?;
    refuses_what_would_go_wrong(m1, m2)?;
    let line = initialised(m1, init)?;
    // Which files are there to be copied is up to the packages.
    assert_eq!(line.replace("etc/mfs/mfstopology.cfg ", ""), next.trim(), "the README shows the line that is printed");
    let (copied, rest) = line.split_once(" | ").expect("what is copied");
    let copy = copied.split_once(" tar ").expect("the files").1;
    // There is no ssh between the machines of the lab.
    let archive = m1.run(&["sh", "-c", &format!("tar {copy}")])?.stdout;
    m2.install("/root/copied.tar", &archive, 0o600)?;
    initialised(m2, &format!("cat /root/copied.tar | {rest}"))?;
    for machine in &both {
        machine.must(&["systemctl", "enable", "--now", "moosefs-chunkserver"])?;
    }
    m1.expect("both chunkservers to be registered", SOON, || {
        let said = m1.must(&["journalctl", "--quiet", "--output=cat", "-t", "mfsmaster"]).ok()?;
        let registered =
            |address: &str| said.lines().any(|line| line.contains("register end") && line.contains(address));
        both.iter().all(|machine| registered(&machine.address.to_string())).then_some(())
    })?;
    m1.expect("both chunkservers to be connected", SOON, || {
        let said = m1.run(&["mfs-promote", "--check"]).ok()?.stdout;
        String::from_utf8_lossy(&said).contains("2 connected, none is missing").then_some(())
    })?;
    Ok(both)
}

/// Everything is shown, and nothing is done.
fn refuses_without_an_answer(machine: &Booted, init: &str) -> Result<()> {
    let state = || {
        machine.must(&["sh", "-c", "cat /etc/hosts /etc/default/moosefs-ucarp; ls /etc/mfs; systemctl list-unit-files"])
    };
    let before = state()?;
    let asked = machine.run(&["sh", "-c", init])?;
    let said = String::from_utf8_lossy(&asked.stdout).into_owned();
    assert_eq!(asked.status.code(), Some(1), "{said}");
    for shown in
        ["  + VIP=172.16.0.99", "  + 172.16.0.99 mfsmaster", "systemctl start moosefs-ucarp", "nothing was changed"]
    {
        assert!(said.contains(shown), "{shown}: {said}");
    }
    assert_eq!(state()?, before);
    Ok(())
}

/// Each with its remedy, and before anything is changed: the unit would end at once, and an address would be there twice.
fn refuses_what_would_go_wrong(m1: &Booted, m2: &Booted) -> Result<()> {
    let refused = |vip: &str, said: &str| {
        let run = m1.run(&["mfs-promote", "--init", "--yes", "--vip", vip])?;
        let text = String::from_utf8_lossy(&run.stderr).into_owned();
        assert!(run.status.code() == Some(1) && text.contains(said), "{said}: {text}");
        m1.must(&["grep", "-x", "VIP=", "/etc/default/moosefs-ucarp"]).map(drop)
    };
    let m2_address = m2.address.to_string();
    refused(&m2_address, "another machine has 172.16.0.12 already")?;
    m1.install("/etc/mfs/ucarp.pass", b"lab\n", 0o644)?;
    refused("172.16.0.99", "run: chmod 600 /etc/mfs/ucarp.pass")?;
    m1.must(&["rm", "/etc/mfs/ucarp.pass"]).map(drop)
}

/// Sets a machine up, twice: the second time nothing has to be done. Returns the line for the next machine.
fn initialised(machine: &Booted, init: &str) -> Result<String> {
    let master = machine.processes("mfsmaster");
    let begun = Moment::now();
    let said = machine.must(&["bash", "-ec", &format!("{} --yes", init.trim())])?;
    eprintln!("{}# {init}\n{said}\n({:?})", machine.name, Moment::now() - begun);
    // One that stands by hot has another one now.
    let now = machine.processes("mfsmaster");
    assert!(master.iter().all(|pid| now.contains(pid)), "a master that runs is left alone: {master:?}, {now:?}");
    let password = machine.must(&["stat", "-c", "%a %U", "/etc/mfs/ucarp.pass"])?;
    assert_eq!(password, "600 root");
    let again = machine.must(&["mfs-promote", "--init"])?;
    assert!(again.contains("everything is set up already"), "{again}");
    let line = said.lines().map(str::trim).find(|line| line.starts_with("ssh "));
    Ok(line.unwrap_or_default().to_owned())
}

#[test]
fn a_standby_that_could_not_serve_stands_back_until_it_could() -> Result<()> {
    let site = Site::start()?;
    let [_m1, m2] = set_up(&site, Release::Debian12, DEBIAN)?;
    let image = "/var/lib/mfs/metadata_ml.mfs.back";
    m2.expect("an image on m2", SOON, || m2.must(&["test", "-s", image]).ok())?;
    // A metalogger that runs would be made to download it again.
    m2.must(&["systemctl", "stop", METALOGGER])?;
    m2.must(&["mv", image, "/root/image"])?;
    m2.must(&["systemctl", "restart", UCARP])?;
    m2.wait_for_log(0, log_lines::STANDS_BACK, SOON * 2)?;
    let skew = |wanted: bool| {
        let [ucarp] = &m2.processes("ucarp")[..] else { return None };
        let words = m2.must(&["cat", &format!("/proc/{ucarp}/cmdline")]).ok()?;
        (words.contains("--advskew=150") == wanted).then_some(())
    };
    m2.expect("ucarp with the longest skew", SOON, || skew(true))?;
    let checked = String::from_utf8_lossy(&m2.run(&["mfs-promote", "--check"])?.stdout).into_owned();
    assert!(checked.contains("WARNING   ucarp") && checked.contains("stands back since"), "{checked}");
    m2.must(&["mv", "/root/image", image])?;
    m2.must(&["systemctl", "start", METALOGGER])?;
    m2.wait_for_log(0, log_lines::STANDS_BACK_NO_LONGER, SOON * 2)?;
    m2.expect("ucarp with its own skew", SOON, || skew(false))?;
    Ok(())
}

#[test]
fn two_machines_that_do_everything_set_up_by_the_commands_of_the_readme() -> Result<()> {
    as_the_readme_says(Release::Debian12, DEBIAN).map(drop)
}

#[test]
fn the_same_two_machines_with_debian_13() -> Result<()> {
    as_the_readme_says(Release::Debian13, DEBIAN).map(drop)
}

/// Its web interface is another program, and has no configuration without an administrator.
const DEBIAN_UNSTABLE: Packaging = Packaging {
    install: |machine| machine.install("/etc/mfs/mfsgui.cfg", b"", 0o644),
    web_interface: "moosefs-gui.service",
    start: DEBIAN.start,
};

#[test]
fn the_same_two_machines_with_debian_unstable() -> Result<()> {
    as_the_readme_says(Release::DebianUnstable, DEBIAN_UNSTABLE).map(drop)
}

#[test]
fn debian_12_from_installation_to_removal() -> Result<()> {
    lifetime(Release::Debian12, Release::Debian12)
}

#[test]
fn debian_13_from_installation_to_removal() -> Result<()> {
    lifetime(Release::Debian13, Release::Debian13)
}

#[test]
fn a_standby_of_moosefs_4_takes_over_from_a_master_of_3() -> Result<()> {
    lifetime(Release::Debian12, Release::Debian13)
}

#[test]
fn programs_need_nothing_but_libc_and_lintian_is_silent() -> Result<()> {
    let package = debian_package()?;
    let needs = output(Command::new("dpkg-deb").args(["--field"]).arg(&package).arg("Depends"));
    assert!(
        needs.starts_with("libc6 (>= ")
            && needs.trim_end().ends_with("), iproute2, ucarp, moosefs-master, moosefs-metalogger"),
        "{needs}"
    );
    let tree = built("tree");
    // ucarp waits for the hooks, so they load nothing.
    for (program, needed) in [("vip-up", None), ("vip-down", None), ("mfs-promote", Some("libc.so.6"))] {
        let header = output(Command::new("readelf").arg("--dynamic").arg(tree.join("usr/bin").join(program)));
        let libraries = header.lines().filter(|line| line.contains("(NEEDED)"));
        let libraries: Vec<_> = libraries.filter_map(|line| line.split(['[', ']']).nth(1)).collect();
        assert_eq!(libraries, Vec::from_iter(needed), "{program}");
    }
    let said = output(Command::new("lintian").args(["--tag-display-limit=0", "--allow-root"]).arg(&package));
    assert_eq!(said, "");
    Ok(())
}

#[test]
fn the_other_formats_hold_the_same() -> Result<()> {
    let package = debian_package()?;
    let files = output(Command::new("dpkg-deb").arg("--contents").arg(&package));
    let of_rpm = output(Command::new("sh").arg("-c").arg("rpm -qlp \"$0\"/*.rpm").arg(built("")));
    for file in files.lines().filter(|line| !line.starts_with('d')).filter_map(|line| line.rsplit(" ./").next()) {
        // What each of them has in a place or a form of its own.
        if !["usr/share/zsh", "usr/share/lintian", "usr/share/doc"].iter().any(|own| file.starts_with(own)) {
            assert!(of_rpm.lines().any(|line| line.trim_start_matches('/') == file), "{file} is not in the rpm");
        }
    }
    // makepkg refuses to run as root.
    let srcinfo = "cp -r \"$0\" \"$1\" && chmod 755 \"$1/..\" && chown -R nobody \"$1\" && cd \"$1\" && \
                   HOME=$1 PACMAN=true setpriv --reuid=nobody --clear-groups makepkg --printsrcinfo";
    let scratch = output(Command::new("mktemp").args(["--directory"]));
    let scratch = scratch.trim();
    let said = output(Command::new("sh").args(["-c", srcinfo]).arg(built("arch")).arg(format!("{scratch}/arch")));
    std::fs::remove_dir_all(scratch).expect("the scratch folder");
    assert!(said.contains("pkgname = moosefs-ucarp"), "{said}");
    Ok(())
}

/// A folder or file that scripts/package has made.
fn built(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/package").join(name)
}
