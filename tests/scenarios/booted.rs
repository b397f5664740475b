//! One machine under a real systemd, with the package installed: Debian's own units of MooseFS, and ours.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use lab::{Booted, Release, Result, Site, VIP, debian_package, log_lines};

use crate::SOON;

pub(crate) const MASTER: &str = "moosefs-master.service";
pub(crate) const METALOGGER: &str = "moosefs-metalogger.service";
pub(crate) const UCARP: &str = "moosefs-ucarp.service";
/// Where the package is put.
pub(crate) const PACKAGE: &str = "/root/moosefs-ucarp.deb";
/// The command line of a master that a promotion started, and of one that waited for it as hot standby.
pub(crate) const STARTED: &str = "/usr/sbin/mfsmaster -a -c /etc/mfs/mfsmaster.cfg -f start";
pub(crate) const WAITED: &str = "/usr/sbin/mfsmaster -c /etc/mfs/mfsmaster.cfg -a start";
const DROPINS: &str = "/run/systemd/system/moosefs-master.service.d";

/// How MooseFS is packaged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packaging {
    /// Makes a machine of the lab, which has Debian's packages, one that has these.
    pub(crate) install: fn(&Booted) -> Result<()>,
    /// The unit of the web interface.
    pub(crate) web_interface: &'static str,
    /// How the master's unit starts it.
    pub(crate) start: &'static str,
}

/// Of Debian 12 and 13.
pub(crate) const DEBIAN: Packaging = Packaging {
    install: |_| Ok(()),
    web_interface: "moosefs-cgiserv.service",
    start: "/usr/sbin/mfsmaster -c ${CFGFILE} -f start",
};

/// The README's steps on a machine, but for the package and ucarp.
pub(crate) fn prepare(machine: &Booted) -> Result<()> {
    machine.must(&["systemctl", "disable", MASTER])?;
    machine.install("/etc/mfs/mfsmaster.cfg", b"", 0o644)?;
    machine.install("/etc/mfs/mfsmetalogger.cfg", b"MASTER_RECONNECTION_DELAY = 1\n", 0o644)?;
    machine.install("/etc/mfs/mfsexports.cfg", b"* / rw,alldirs,admin,maproot=0:0\n", 0o644)?;
    machine.install("/etc/mfs/ucarp.pass", b"lab\n", 0o600)?;
    machine.must(&["systemctl", "enable", "--now", METALOGGER]).map(drop)
}

/// The README's step of the package: from a local file, by apt.
pub(crate) fn install_package(machine: &Booted) -> Result<()> {
    let package = fs::read(debian_package()?).expect("the package that was built");
    machine.install(PACKAGE, &package, 0o644)?;
    machine.must(&["apt-get", "install", "-y", "--reinstall", PACKAGE]).map(drop)
}

/// The README's step of ucarp, but for its start.
pub(crate) fn configure(machine: &Booted) -> Result<()> {
    let address = machine.address;
    for (name, value) in
        [("INTERFACE", "eth0"), ("ADDRESS", &address.to_string()), ("VIP", &VIP.to_string()), ("VHID", "10")]
    {
        machine.must(&["sed", "-i", &format!("s/^{name}=.*/{name}={value}/"), "/etc/default/moosefs-ucarp"])?;
    }
    Ok(())
}

/// A machine whose metalogger has a copy, and whose ucarp is not running yet.
fn standby() -> Result<Booted> {
    standby_with(Release::Debian12)
}

fn standby_with(release: Release) -> Result<Booted> {
    let machine = Site::start()?.boot(1, release)?;
    let copy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/failover/testdata/3.0.117-torn-ml");
    for entry in fs::read_dir(copy).expect("the copy of a metalogger").flatten() {
        let content = fs::read(entry.path()).expect("a file of the copy");
        machine.install(&format!("/var/lib/mfs/{}", entry.file_name().to_string_lossy()), &content, 0o640)?;
    }
    machine.must(&["chown", "-R", "mfs:mfs", "/var/lib/mfs"])?;
    prepare(&machine)?;
    install_package(&machine)?;
    configure(&machine)?;
    Ok(machine)
}

/// Starts ucarp and waits until the promotion has ended with success; `before` promotions have ended before.
fn promoted(machine: &Booted, before: usize) -> Result<()> {
    machine.must(&["systemctl", "start", UCARP])?;
    machine.wait_for_log(before, log_lines::SERVING, SOON)?;
    assert!(machine.holds(VIP));
    assert!(machine.serves(VIP)? > 1_000_000_000_000);
    Ok(())
}

impl Packaging {
    /// Everything is in its own unit, and the next start of the master will be a plain one.
    pub(crate) fn serves(self, machine: &Booted, command: &str) -> Result<()> {
        let pid = machine.property(MASTER, "MainPID")?;
        let line = machine.must(&["cat", &format!("/proc/{pid}/cmdline")])?.replace('\0', " ");
        assert_eq!(line.trim(), command);
        for (unit, process) in [(MASTER, "mfsmaster"), (METALOGGER, "mfsmetalogger")] {
            machine.wait_for_unit(unit, "active", SOON)?;
            let pid = machine.property(unit, "MainPID")?;
            assert!(machine.processes(process).contains(&pid));
            let group = machine.must(&["cat", &format!("/proc/{pid}/cgroup")])?;
            assert!(group.contains(&format!("/system.slice/{unit}")), "{group}");
        }
        machine.wait_for_unit(self.web_interface, "active", SOON)?;
        self.master_is_plain(machine)
    }

    fn master_is_plain(self, machine: &Booted) -> Result<()> {
        assert!(!machine.path(DROPINS).exists());
        assert_eq!(machine.property(MASTER, "DropInPaths")?, "");
        assert_eq!(machine.property(MASTER, "NeedDaemonReload")?, "no");
        let command = machine.property(MASTER, "ExecStart")?;
        assert!(command.contains(&format!("argv[]={} ;", self.start)), "{command}");
        Ok(())
    }
}

/// See [`Packaging::serves`].
pub(crate) fn serves_from_its_units(machine: &Booted, command: &str) -> Result<()> {
    DEBIAN.serves(machine, command)
}

fn master_is_plain(machine: &Booted) -> Result<()> {
    DEBIAN.master_is_plain(machine)
}

/// Stops ucarp's unit while a demotion begins in it.
fn stop_ucarp(machine: &Booted) -> Result<()> {
    machine.must(&["systemctl", "stop", UCARP])?;
    // The unit did not wait for the demotion, which is in its grace now, in a scope of its own.
    machine.wait_for_unit(UCARP, "inactive", SOON)?;
    assert!(!machine.holds(VIP));
    // ucarp called vip-down, then the unit did: the later demotion overtakes the earlier one.
    machine.expect("one demotion to outlive the stop of ucarp's unit, in a scope of its own", SOON, || {
        let running = machine.processes("mfs-promote");
        let [demotion] = &running[..] else { return None };
        let group = machine.must(&["cat", &format!("/proc/{demotion}/cgroup")]).ok()?;
        group.contains(&format!("/system.slice/mfs-promote-{demotion}.scope")).then_some(())
    })?;
    Ok(())
}

/// The master ended, how is its unit's `Result`; this machine copies again.
fn demoted(machine: &Booted, result: &str) -> Result<()> {
    assert_eq!(machine.processes("mfsmaster"), Vec::<String>::new());
    assert_eq!(machine.property(MASTER, "Result")?, result);
    machine.wait_for_unit(METALOGGER, "active", SOON)?;
    machine.expect("no scope to be left", SOON, || {
        let scopes = machine.must(&["systemctl", "list-units", "--all", "--plain", "--no-legend", "mfs-promote*"]);
        scopes.ok()?.is_empty().then_some(())
    })
}

#[test]
fn promotion_and_demotion_go_through_the_units_and_outlive_ucarps() -> Result<()> {
    let machine = standby()?;
    promoted(&machine, 0)?;
    serves_from_its_units(&machine, STARTED)?;
    let stopped = machine.wait_for_log(0, log_lines::METALOGGER_STOPPED, SOON)?;
    assert!(stopped.ends_with(" ms)"), "a second of polling: {stopped}");

    stop_ucarp(&machine)?;
    machine.wait_for_log(0, log_lines::DEMOTED, SOON)?;
    demoted(&machine, "success")?;
    assert!(machine.path("/var/lib/mfs/metadata.mfs").exists(), "a clean stop stores the metadata");

    // Again with a unit that the manager keeps in memory, and with a master that hangs when it is to stop.
    machine.must(&["systemctl", "enable", MASTER])?;
    machine.install("/etc/mfs/mfspromote.cfg", b"STOP_TIMEOUT = 1\n", 0o644)?;
    promoted(&machine, 1)?;
    serves_from_its_units(&machine, STARTED)?;
    machine.must(&["kill", "-STOP", &machine.property(MASTER, "MainPID")?])?;
    stop_ucarp(&machine)?;
    machine.wait_for_log(1, log_lines::DEMOTED, SOON)?;
    demoted(&machine, "signal")?;
    eprintln!("{}", machine.log()?);
    master_is_plain(&machine)
}

#[test]
fn a_hot_standby_that_serves_is_the_master_of_its_unit() -> Result<()> {
    let machine = standby_with(Release::Debian13)?;
    promoted(&machine, 0)?;
    machine.wait_for_log(0, log_lines::LET_GO, SOON)?;
    machine.wait_for_unit(MASTER, "active", SOON)?;
    let pid = machine.property(MASTER, "MainPID")?;
    assert_eq!(machine.processes("mfsmaster").first(), Some(&pid));
    let group = machine.must(&["cat", &format!("/proc/{pid}/cgroup")])?;
    assert!(group.contains(&format!("/system.slice/{MASTER}")), "{group}");
    master_is_plain(&machine)?;
    machine.must(&["mfsmaster", "reload"])?;
    // It stores its metadata, as a clean stop does.
    machine.must(&["systemctl", "stop", MASTER])?;
    assert_eq!(machine.processes("mfsmaster"), Vec::<String>::new());
    assert!(machine.path("/var/lib/mfs/metadata.mfs").exists());
    Ok(())
}

#[test]
fn a_master_that_cannot_start_leaves_everything_as_it_was() -> Result<()> {
    let machine = standby()?;
    let names = || machine.must(&["ls", "/var/lib/mfs"]);
    let files = names()?;
    machine.install("/etc/mfs/mfsmaster.cfg", b"EXPORTS_FILENAME = /nowhere\n", 0o644)?;
    machine.must(&["systemctl", "start", UCARP])?;
    machine.wait_for_log(0, log_lines::UCARP_STOPPED, SOON)?;
    // ucarp was made to end, and its unit's end ended nothing of ours.
    machine.wait_for_unit(UCARP, "inactive", SOON)?;
    machine.wait_for_log(0, log_lines::NOTHING_TO_DEMOTE, SOON)?;
    let log = machine.log()?;
    assert!(log.contains(log_lines::ENDED_WHILE_STARTING), "{log}");
    assert!(log.contains(log_lines::ROLLED_BACK), "{log}");
    assert!(!machine.holds(VIP));
    machine.wait_for_unit(METALOGGER, "active", SOON)?;
    assert_eq!(names()?, files);
    master_is_plain(&machine)?;

    // Put right, it serves at the next start of ucarp, with nothing else to be done.
    machine.install("/etc/mfs/mfsmaster.cfg", b"", 0o644)?;
    promoted(&machine, 0)?;
    serves_from_its_units(&machine, STARTED)
}

#[test]
fn a_run_that_is_killed_while_the_unit_is_changed_is_cleaned_up_after() -> Result<()> {
    let machine = standby()?;
    machine.must(&["systemctl", "start", UCARP])?;
    machine.expect("the drop-in", SOON, || machine.path(DROPINS).exists().then_some(()))?;
    machine.must(&["pkill", "-KILL", "-x", "mfs-promote"])?;
    assert!(machine.path(DROPINS).exists(), "killed too late for this test");

    machine.wait_for_log(0, log_lines::KILLED_AND_RESTARTED, SOON)?;
    machine.wait_for_log(0, log_lines::PROMOTION_ENDED, SOON)?;
    assert!(machine.holds(VIP));
    assert!(machine.serves(Ipv4Addr::LOCALHOST)? > 1_000_000_000_000);
    serves_from_its_units(&machine, STARTED)
}

#[test]
fn the_unit_restarts_ucarp_unless_our_program_stopped_it() -> Result<()> {
    let machine = standby()?;
    // As installed, without values: it says what is missing, and is not started again and again.
    machine.must(&["cp", "/etc/default/moosefs-ucarp", "/root/values"])?;
    machine.must(&["sed", "-i", "s/^VIP=.*/VIP=/", "/etc/default/moosefs-ucarp"])?;
    machine.must(&["systemctl", "start", UCARP])?;
    machine.wait_for_unit(UCARP, "failed", SOON)?;
    assert_eq!(machine.property(UCARP, "ExecMainStatus")?, "78");
    let said = machine.must(&["journalctl", "--quiet", "--output=cat", "--unit", UCARP])?;
    assert!(said.contains(log_lines::VIP_NOT_SET), "{said}");
    machine.must(&["cp", "/root/values", "/etc/default/moosefs-ucarp"])?;
    machine.must(&["chmod", "644", "/etc/mfs/ucarp.pass"])?;
    machine.must(&["systemctl", "start", UCARP])?;
    machine.wait_for_unit(UCARP, "failed", SOON)?;
    machine.must(&["systemctl", "reset-failed", UCARP])?;
    machine.install("/etc/mfs/ucarp.pass", b"a byte more than 19!\n", 0o600)?;
    machine.must(&["systemctl", "start", UCARP])?;
    machine.wait_for_unit(UCARP, "failed", SOON)?;
    assert_eq!(machine.property(UCARP, "ExecMainStatus")?, "78");
    let said = machine.must(&["journalctl", "--quiet", "--output=cat", "--unit", UCARP])?;
    assert!(said.contains(log_lines::PASSWORD_TOO_LONG), "{said}");
    // The longest one that ucarp takes.
    machine.install("/etc/mfs/ucarp.pass", b"nineteen bytes long\n", 0o600)?;

    promoted(&machine, 0)?;
    let (ucarp, master) = (machine.property(UCARP, "MainPID")?, machine.property(MASTER, "MainPID")?);
    assert!(
        !machine.must(&["cat", &format!("/proc/{ucarp}/cmdline")])?.contains("nineteen"),
        "the password is in argv"
    );
    // Killed, it calls no vip-down; the unit does, and starts it again soon enough for the healthy master.
    machine.must(&["kill", "-KILL", &ucarp])?;
    machine.wait_for_log(0, log_lines::ADDRESS_REMOVED, SOON)?;
    machine.wait_for_log(0, log_lines::ALREADY_SERVING, SOON)?;
    assert!(machine.holds(VIP));
    assert_eq!(machine.property(MASTER, "MainPID")?, master);

    // It ends well when its interface goes, and is there again when that is.
    machine.remove_interface()?;
    machine.expect("the unit to wait for the interface", SOON, || {
        let said = machine.must(&["journalctl", "--quiet", "--output=cat", "--unit", UCARP]).ok()?;
        said.contains(log_lines::WAITING_FOR_INTERFACE).then_some(())
    })?;
    machine.wait_for_log(0, log_lines::DEMOTED, SOON)?;
    assert_eq!(machine.property(UCARP, "ActiveState")?, "active");
    machine.add_interface()?;
    machine.wait_for_log(1, log_lines::SERVING, SOON)?;
    assert!(machine.holds(VIP));

    // One that cannot serve any more has resigned, and stays so.
    let master = machine.property(MASTER, "MainPID")?;
    machine.install("/etc/mfs/mfsmaster.cfg", b"EXPORTS_FILENAME = /nowhere\n", 0o644)?;
    machine.must(&["kill", "-KILL", &master])?;
    machine.must(&["systemctl", "restart", UCARP])?;
    machine.wait_for_log(0, log_lines::UCARP_STOPPED, SOON)?;
    machine.wait_for_unit(UCARP, "inactive", SOON)?;
    machine.wait_for_log(0, log_lines::UNIT_STOPPED, SOON)?;
    assert!(!machine.holds(VIP));
    eprintln!("{}", machine.must(&["sh", "-c", "systemctl status --no-pager moosefs-ucarp moosefs-master || :"])?);
    Ok(())
}

#[test]
fn ucarp_outlives_an_interface_that_is_down_and_one_without_its_address() -> Result<()> {
    let machine = standby()?;
    promoted(&machine, 0)?;
    let said = || machine.must(&["journalctl", "--quiet", "--output=cat", "--unit", UCARP]);
    let waits = |times: usize| {
        machine.expect("the unit to wait for its interface", SOON, || {
            (said().ok()?.matches(log_lines::WAITING_FOR_INTERFACE).count() == times).then_some(())
        })
    };
    // Longer than ten starts in a row take, and than any limit of a start.
    machine.must(&["ip", "link", "set", "eth0", "down"])?;
    waits(1)?;
    sleep(Duration::from_secs(120));
    assert_eq!(machine.property(UCARP, "ActiveState")?, "active");
    assert_eq!(machine.processes("ucarp"), Vec::<String>::new());
    waits(1)?;
    machine.must(&["ip", "link", "set", "eth0", "up"])?;
    machine.wait_for_log(1, log_lines::SERVING, SOON)?;
    assert!(machine.holds(VIP));

    // The wait ends at once when the unit is stopped, and that is no failure.
    machine.must(&["systemctl", "stop", UCARP])?;
    machine.wait_for_log(1, log_lines::DEMOTED, SOON)?;
    let own = format!("{}/16", machine.address);
    machine.must(&["ip", "address", "del", &own, "dev", "eth0"])?;
    machine.must(&["systemctl", "start", UCARP])?;
    waits(2)?;
    let begun = Instant::now();
    machine.must(&["systemctl", "stop", UCARP])?;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(machine.property(UCARP, "ActiveState")?, "inactive");

    machine.must(&["systemctl", "start", UCARP])?;
    waits(3)?;
    machine.must(&["ip", "address", "add", &own, "dev", "eth0"])?;
    machine.wait_for_log(2, log_lines::SERVING, SOON)?;

    // What no interface can mend is a failure.
    machine.must(&["systemctl", "stop", UCARP])?;
    machine.must(&["sed", "-i", "s/^OPTIONS=.*/OPTIONS=--no-such-option/", "/etc/default/moosefs-ucarp"])?;
    machine.must(&["systemctl", "start", UCARP])?;
    machine.wait_for_unit(UCARP, "failed", SOON)?;
    assert_eq!(machine.property(UCARP, "ExecMainStatus")?, "78");
    assert!(said()?.contains("no-such-option"), "{}", said()?);
    Ok(())
}

/// The units of MooseFS's own packages, as they are for a `DATA_PATH` of /var/lib/mfs.
fn upstream_unit(daemon: &str) -> String {
    format!(
        "[Unit]\nDescription=MooseFS {daemon}\nWants=network-online.target\nAfter=network.target network-online.target\n\n\
         [Service]\nType=forking\nExecStart=/usr/sbin/{daemon} start\nExecStop=/usr/sbin/{daemon} stop\n\
         ExecReload=/usr/sbin/{daemon} reload\nPIDFile=/var/lib/mfs/.{daemon}.lock\nTimeoutStopSec=1800\n\
         TimeoutStartSec=1800\nRestart=no\n\n[Install]\nWantedBy=multi-user.target\n"
    )
}

#[test]
fn upstreams_units_serve_from_a_data_folder_below_usr() -> Result<()> {
    let machine = standby()?;
    machine.must(&["systemctl", "stop", METALOGGER])?;
    // Where a build from source has it, behind a link.
    machine.must(&["mkdir", "-p", "/usr/local/mfs/var"])?;
    machine.must(&["mv", "/var/lib/mfs", "/usr/local/mfs/var/mfs"])?;
    machine.must(&["ln", "-s", "/usr/local/mfs/var", "/srv/mfs"])?;
    machine.install("/etc/mfs/mfsmaster.cfg", b"DATA_PATH = /srv/mfs/mfs\n", 0o644)?;
    let metalogger = b"DATA_PATH = /usr/local/mfs/var/mfs\nMASTER_RECONNECTION_DELAY = 1\n";
    machine.install("/etc/mfs/mfsmetalogger.cfg", metalogger, 0o644)?;
    machine.install(&format!("/etc/systemd/system/{MASTER}"), upstream_unit("mfsmaster").as_bytes(), 0o644)?;
    let unit = upstream_unit("mfsmetalogger").replace("/var/lib/mfs", "/usr/local/mfs/var/mfs");
    machine.install(&format!("/etc/systemd/system/{METALOGGER}"), unit.as_bytes(), 0o644)?;
    machine.must(&["systemctl", "daemon-reload"])?;
    machine.must(&["systemctl", "start", METALOGGER])?;

    promoted(&machine, 0)?;
    machine.wait_for_unit(MASTER, "active", SOON)?;
    let master = machine.property(MASTER, "MainPID")?;
    let line = machine.must(&["cat", &format!("/proc/{master}/cmdline")])?.replace('\0', " ");
    assert_eq!(line.trim(), "/usr/sbin/mfsmaster -a start");
    // A later start is a plain one, as the unit says.
    machine.expect("the drop-in to be removed", SOON, || (!machine.path(DROPINS).exists()).then_some(()))?;
    assert_eq!(machine.property(MASTER, "PIDFile")?, "/var/lib/mfs/.mfsmaster.lock");
    assert_eq!(machine.property(MASTER, "ActiveState")?, "active");
    assert_eq!(machine.property(MASTER, "MainPID")?, master);

    stop_ucarp(&machine)?;
    machine.wait_for_log(0, log_lines::DEMOTED, SOON)?;
    demoted(&machine, "success")?;
    assert!(machine.path("/usr/local/mfs/var/mfs/metadata.mfs").exists());

    // A name that does not exist is said, and nothing is served in another way.
    machine.install("/etc/mfs/mfspromote.cfg", b"MASTER_SERVICE = moosefs-mastr\n", 0o644)?;
    for verb in ["--check-config", "--check"] {
        let output = machine.run(&["mfs-promote", verb])?;
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(!output.status.success() && said.contains(log_lines::NO_SUCH_UNIT), "{verb}: {said}");
    }
    Ok(())
}

#[test]
fn debians_interfaces_file_starts_ucarp_and_stopping_it_leaves_the_network_alone() -> Result<()> {
    let machine = standby()?;
    let interfaces = format!(
        "auto lo\niface lo inet loopback\nauto eth0\niface eth0 inet static\n\
         address {}\nnetmask 255.255.0.0\nucarp-vid 10\nucarp-vip {VIP}\nucarp-password lab\n\
         ucarp-upscript /usr/bin/vip-up\nucarp-downscript /usr/bin/vip-down\n",
        machine.address
    );
    machine.install("/etc/network/interfaces", interfaces.as_bytes(), 0o644)?;
    machine.must(&["ip", "address", "flush", "dev", "eth0"])?;
    machine.install("/etc/mfs/mfsmaster.cfg", b"EXPORTS_FILENAME = /nowhere\n", 0o644)?;
    machine.must(&["systemctl", "restart", "networking"])?;
    machine.wait_for_log(0, log_lines::UCARP_STOPPED, SOON)?;
    machine.expect("ucarp to end", SOON, || machine.processes("ucarp").is_empty().then_some(()))?;
    assert_eq!(machine.property("networking", "ActiveState")?, "active");
    assert!(machine.holds(machine.address) && !machine.holds(VIP));

    machine.install("/etc/mfs/mfsmaster.cfg", b"", 0o644)?;
    machine.must(&["ifdown", "eth0"])?;
    machine.must(&["ifup", "eth0"])?;
    machine.wait_for_log(0, log_lines::SERVING, SOON)?;
    assert!(machine.serves(VIP)? > 1_000_000_000_000);
    serves_from_its_units(&machine, STARTED)?;

    // Without our hooks the address would stay.
    machine.must(&["systemctl", "stop", MASTER])?;
    let refused = machine.run(&["apt-get", "remove", "-y", "moosefs-ucarp"])?;
    let said = String::from_utf8_lossy(&[refused.stdout, refused.stderr].concat()).into_owned();
    assert!(!refused.status.success() && said.contains(log_lines::ANOTHER_UCARP), "{said}");
    Ok(())
}
