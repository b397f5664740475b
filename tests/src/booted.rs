//! A machine booted with systemd: Debian's own units of MooseFS, and a unit of ucarp, under a real manager.
//!
//! Needs debootstrap and systemd-nspawn, and a host whose control groups can be written (not an unprivileged
//! container). nspawn runs in a pid namespace of its own, so that all ends with it.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::time::Duration;

use nix::unistd::Pid;

use crate::error::file;
use crate::hooks::built_programs;
use crate::process::{self, pid_of, poll, spawn_for_life, unshare};
use crate::root::{self, Release};
use crate::work::{HostLock, WorkFolder};
use crate::{Error, Result, moosefs, network};

/// The shell script that starts nspawn.
const SCRIPT: &str = include_str!("booted.sh");
/// Up to the end of the boot, and for every command.
const PATIENCE: Duration = Duration::from_secs(60);
const ANSWER: Duration = Duration::from_secs(2);

/// A booted machine, with our programs in `/usr/bin`. Its interface is `eth0` with the address 172.16.0.11; beyond it
/// is 172.16.0.1, which has nothing to say.
#[derive(Debug)]
pub struct Booted {
    shell: Child,
    /// The machine's systemd, by its id on this host.
    manager: Pid,
    work: WorkFolder,
    _lock: HostLock,
}

impl Booted {
    /// Boots a machine.
    pub fn start() -> Result<Self> {
        let programs = built_programs()?;
        let lock = HostLock::take()?;
        let work = WorkFolder::create()?;
        let root = root::root(Release::Debian12, work.path())?;
        let console = console(&work);
        let mut command =
            unshare(&["--net", "--mount", "--pid", "--uts", "--fork", "--kill-child", "bash", "-c", SCRIPT]);
        command.arg("booted").arg(&root).arg("moosefs-lab").current_dir("/").stdin(Stdio::null());
        command.stdout(fs::File::create(&console).map_err(file("create", &console))?);
        let shell = spawn_for_life(command)?;
        // From here on a failure ends what was started.
        let mut machine = Self { shell, manager: Pid::from_raw(0), work, _lock: lock };
        let manager = machine.expect("systemd to be started", PATIENCE, || manager_below(pid_of(&machine.shell)))?;
        machine.manager = manager;
        machine.expect("the machine to be booted", PATIENCE, || {
            let state = machine.run(&["systemctl", "is-system-running"]).ok()?;
            let state = String::from_utf8_lossy(&state.stdout).into_owned();
            ["running", "degraded"].contains(&state.trim()).then_some(())
        })?;
        for name in ["vip-up", "vip-down", "mfs-promote"] {
            let program = programs.join(name);
            let content = fs::read(&program).map_err(file("read", &program))?;
            machine.install(&format!("/usr/bin/{name}"), &content, 0o755)?;
        }
        Ok(machine)
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
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LANG", "C");
        process::run(command, self.work.path(), PATIENCE)
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
        let asked = network::inside(self.manager, || moosefs::info(network::client_port(address), ANSWER, ANSWER))?;
        asked.map_err(|source| Error::System { what: format!("ask the master at {address}"), source })
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

    /// Waits for something; at the deadline the error shows the end of the machine's journal.
    pub fn expect<T>(&self, what: &str, within: Duration, condition: impl FnMut() -> Option<T>) -> Result<T> {
        poll(within, condition).ok_or_else(|| Error::Expired { what: what.to_owned(), within, recent: self.recent() })
    }

    fn recent(&self) -> String {
        let console = fs::read_to_string(console(&self.work)).unwrap_or_default();
        let journal = self.run(&["journalctl", "--no-pager", "--output=short-precise", "--lines=100"]);
        let journal = journal.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        format!("{console}\n{journal}")
    }
}

impl Drop for Booted {
    fn drop(&mut self) {
        // The kernel ends all that is in the pid namespace with its first process.
        let _ = self.shell.kill();
        let _ = self.shell.wait();
        let console = fs::read_to_string(console(&self.work)).unwrap_or_default();
        for group in console.lines().filter_map(|line| line.strip_prefix("group ")) {
            // The dead leave it one by one.
            poll(PATIENCE, || remove_group(Path::new(group)).then_some(()));
        }
    }
}

fn console(work: &WorkFolder) -> PathBuf {
    work.path().join("console")
}

/// The systemd that nspawn has started, which is the only child of the only child of `shell`.
fn manager_below(shell: Pid) -> Option<Pid> {
    let child = |pid: Pid| {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        children.split_whitespace().next()?.parse().ok().map(Pid::from_raw)
    };
    let manager = child(child(shell)?)?;
    let name = fs::read_to_string(format!("/proc/{manager}/comm")).ok()?;
    (name.trim() == "systemd").then_some(manager)
}

/// Removes a control group and those in it; whether nothing is left.
fn remove_group(group: &Path) -> bool {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_group(&entry.path());
        }
    }
    fs::remove_dir(group).is_ok() || !group.exists()
}
