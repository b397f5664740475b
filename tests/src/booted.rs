//! A machine booted with systemd: Debian's own units of MooseFS and ours, under a real manager. Or with sysvinit or OpenRC, and
//! with Debian's own boot scripts.
//!
//! Needs debootstrap and systemd-nspawn, and a host whose control groups can be written (not an unprivileged
//! container). nspawn runs in a pid namespace of its own, so that all ends with it.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Error;
use crate::Result;
use crate::clock::Moment;
use crate::error::{file, system};
use crate::groups::Groups;
use crate::network;
use crate::process::{self, pid_of, poll, spawn_for_life, unshare};
use crate::root::{self, Release};
use crate::site::{ANSWER, Site};

/// The shell script that starts nspawn.
const SCRIPT: &str = include_str!("booted.sh");
/// Up to the end of the boot, and for every command.
const PATIENCE: Duration = Duration::from_secs(120);

/// A booted machine.
#[derive(Debug)]
pub struct Booted {
    /// Its name, which is also its host name.
    pub name: String,
    /// The address of its `eth0`.
    pub address: Ipv4Addr,
    shell: Child,
    /// The machine's systemd, or other process 1, by its id on this host.
    manager: Pid,
    // In the order in which they must end.
    _groups: Groups,
    site: Site,
}

impl Booted {
    /// Boots a machine with systemd, and with a cable in the site's switch.
    pub(crate) fn boot(site: Site, name: &str, address: Ipv4Addr, release: Release) -> Result<Self> {
        let root = root::root(release, site.scratch())?;
        let machine = Self::start(site, (name, address), &root, Path::new(""), "systemd")?;
        machine.expect("the machine to be booted", PATIENCE, || {
            let state = machine.run(&["systemctl", "is-system-running"]).ok()?;
            let state = String::from_utf8_lossy(&state.stdout).into_owned();
            ["running", "degraded"].contains(&state.trim()).then_some(())
        })?;
        machine.install("/etc/hosts", machine.site.hosts().as_bytes(), 0o644)?;
        Ok(machine)
    }

    /// Boots a machine with sysvinit's process 1, which runs the boot scripts of sysvinit or of OpenRC. Its disk is kept.
    pub(crate) fn boot_without_systemd(site: Site, name: &str, address: Ipv4Addr) -> Result<Self> {
        const BOOTED: &str = "runlevel | grep -q ' 2$' && ! pgrep -x 'rc|startpar|openrc'";
        let root = root::sysvinit(Release::Debian13, site.scratch())?;
        let disk = site.scratch().join(format!("{name}.disk"));
        let machine = Self::start(site, (name, address), &root, &disk, "init")?;
        machine.install("/etc/hosts", machine.site.hosts().as_bytes(), 0o644)?;
        machine.expect("the machine to be booted", PATIENCE, || machine.must(&["sh", "-c", BOOTED]).ok())?;
        Ok(machine)
    }

    /// Returns when process 1, which is called `manager`, runs and the cable is in.
    fn start(
        site: Site,
        (name, address): (&str, Ipv4Addr),
        root: &Path,
        disk: &Path,
        manager: &'static str,
    ) -> Result<Self> {
        let groups = Groups::create(site.scratch(), name)?;
        let console = console(&site, name);
        let mut command =
            unshare(&["--net", "--mount", "--pid", "--uts", "--fork", "--kill-child", "bash", "-c", SCRIPT]);
        command.arg("booted").arg(root).arg(name).arg(disk).args(groups.paths());
        command.current_dir("/").stdin(Stdio::null());
        command.stdout(fs::File::create(&console).map_err(file("create", &console))?);
        let shell = spawn_for_life(command)?;
        // From here on a failure ends what was started.
        let mut machine =
            Self { name: name.to_owned(), address, shell, manager: Pid::from_raw(0), _groups: groups, site };
        machine.manager =
            machine.expect("process 1 to be started", PATIENCE, || manager_below(pid_of(&machine.shell), manager))?;
        machine.site.switch().connect(&machine.name, machine.manager, address)?;
        Ok(machine)
    }

    /// An orderly shutdown by the machine's own boot scripts, up to its end.
    pub fn shut_down(mut self) -> Result<()> {
        self.run(&["poweroff"])?;
        let ended = process::wait(&mut self.shell, PATIENCE).map_err(file("wait for", &self.name))?;
        ended.map(drop).ok_or_else(|| Error::Expired {
            what: "the machine to be off".to_owned(),
            within: PATIENCE,
            recent: self.recent(),
        })
    }

    /// A power cut: the link goes down and everything in the machine ends at once. Nothing of it is left.
    pub fn power_off(&self) -> Result<Moment> {
        let at = Moment::now();
        self.site.switch().cable(&self.name, false)?;
        kill(self.manager, Signal::SIGKILL).map_err(system(format!("kill process 1 of {}", self.name)))?;
        Ok(at)
    }

    /// The interface is gone, as when its driver is unloaded.
    pub fn remove_interface(&self) -> Result<()> {
        self.site.switch().remove(&self.name)
    }

    /// The interface is back, with its address.
    pub fn add_interface(&self) -> Result<()> {
        self.site.switch().connect(&self.name, self.manager, self.address)
    }

    /// A path in the machine, as seen from the host.
    pub fn path(&self, path: &str) -> PathBuf {
        Path::new(&format!("/proc/{}/root", self.manager)).join(path.trim_start_matches('/'))
    }

    /// Writes a file in the machine.
    pub fn install(&self, path: &str, content: &[u8], mode: u32) -> Result<()> {
        let path = self.path(path);
        fs::write(&path, content).map_err(file("write", &path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(file("set the mode of", &path))
    }

    /// Runs a command in the machine to its end, whatever its exit status.
    pub fn run(&self, line: &[&str]) -> Result<Output> {
        let mut command = std::process::Command::new("nsenter");
        command.args(["-t", &self.manager.to_string(), "--all"]).args(line).stdin(Stdio::null()).env_clear();
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LANG", "C").env("HOME", "/root");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        process::run(command, self.site.scratch(), PATIENCE)
    }

    /// Runs a command in the machine that must succeed, and returns what it printed, trimmed.
    pub fn must(&self, line: &[&str]) -> Result<String> {
        let output = self.run(line)?;
        let printed = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if output.status.success() {
            return Ok(printed);
        }
        Err(Error::Command {
            command: line.join(" "),
            outcome: output.status.to_string(),
            output: printed + &String::from_utf8_lossy(&output.stderr),
            recent: self.recent(),
        })
    }

    /// A property of a unit, as `systemctl show` prints it.
    pub fn property(&self, unit: &str, name: &str) -> Result<String> {
        self.must(&["systemctl", "show", "--value", "--property", name, unit])
    }

    /// Waits until a unit is `active`, `inactive` or `failed`.
    pub fn wait_for_unit(&self, unit: &str, state: &str, within: Duration) -> Result<()> {
        self.expect(&format!("{unit} to be {state}"), within, || {
            (self.property(unit, "ActiveState").ok()? == state).then_some(())
        })
    }

    /// Everything our programs have logged.
    pub fn log(&self) -> Result<String> {
        self.must(&["journalctl", "--quiet", "--output=cat", "-t", "mfs-promote", "-t", "vip-up", "-t", "vip-down"])
    }

    /// Waits until our programs have logged `text` more than `before` times, and returns that line.
    pub fn wait_for_log(&self, before: usize, text: &str, within: Duration) -> Result<String> {
        self.expect(&format!("the log line {text:?}"), within, || {
            self.log().ok()?.lines().filter(|line| line.contains(text)).nth(before).map(str::to_owned)
        })
    }

    /// The version of the master behind an address of the machine.
    pub fn serves(&self, address: Ipv4Addr) -> Result<u64> {
        network::master_version(self.manager, address, ANSWER)
    }

    /// Whether the machine has an address.
    pub fn holds(&self, address: Ipv4Addr) -> bool {
        network::holds(self.manager, address)
    }

    /// The ids in the machine of the processes with this name.
    pub fn processes(&self, name: &str) -> Vec<String> {
        let printed = self.run(&["pgrep", "-x", name]).map(|output| output.stdout).unwrap_or_default();
        String::from_utf8_lossy(&printed).split_whitespace().map(str::to_owned).collect()
    }

    /// Waits for something; at the deadline the error shows the end of the machine's journal, or of its syslog.
    pub fn expect<T>(&self, what: &str, within: Duration, condition: impl FnMut() -> Option<T>) -> Result<T> {
        poll(within, condition).ok_or_else(|| Error::Expired { what: what.to_owned(), within, recent: self.recent() })
    }

    fn recent(&self) -> String {
        const JOURNAL: &str = "journalctl --no-pager --output=short-precise --lines=100 || tail -n 100 /var/log/syslog";
        let console = fs::read_to_string(console(&self.site, &self.name)).unwrap_or_default();
        let journal = self.run(&["sh", "-c", JOURNAL]);
        let journal = journal.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        format!("{}: {console}\n{journal}\n{}", self.name, self.site.events().recent())
    }
}

impl Drop for Booted {
    fn drop(&mut self) {
        // The kernel ends all that is in the pid namespace with its first process.
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

fn console(site: &Site, name: &str) -> PathBuf {
    site.scratch().join(format!("{name}.console"))
}

/// The process that nspawn has started, which is the only child of the only child of `shell`, once it has this name.
fn manager_below(shell: Pid, manager: &str) -> Option<Pid> {
    let child = |pid: Pid| {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        children.split_whitespace().next()?.parse().ok().map(Pid::from_raw)
    };
    let found = child(child(shell)?)?;
    let name = fs::read_to_string(format!("/proc/{found}/comm")).ok()?;
    (name.trim() == manager).then_some(found)
}
