//! A test machine: mount, pid, uts and network namespaces with an overlay root of their own, and a disk that survives.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Error;
use crate::Result;
use crate::error::{file, system};
use crate::events::{EventLog, Syslog};
use crate::locked;
use crate::moosefs::{CHUNKS, DATA};
use crate::process::{self, Daemon};
use crate::switch::Switch;

/// The shell script that process 1 of a machine runs.
const SCRIPT: &str = include_str!("machine.sh");
/// The folders of a machine that survive a power cut.
const DISK: &[&str] = &[DATA, CHUNKS, "/var/lib/moosefs-ucarp", "/var/lib/lab"];
/// A machine must be up, or down, within this.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a machine is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// ucarp, a metalogger, and sometimes the master; with its ucarp skew.
    Master(u8),
    /// A chunkserver.
    Chunkserver,
    /// A client that mounts the file system.
    Client,
}

/// A test machine, on or off.
#[derive(Debug)]
pub struct Machine {
    /// Its name, which is also its host name.
    pub name: String,
    /// Its own address.
    pub address: Ipv4Addr,
    /// What it is for.
    pub role: Role,
    folder: PathBuf,
    /// What its root is an overlay of.
    lower: PathBuf,
    events: Arc<EventLog>,
    power: Mutex<Option<Power>>,
    _syslog: Syslog,
}

/// What exists of a machine while it is on.
#[derive(Debug)]
struct Power {
    shell: Child,
    init: Pid,
}

impl Machine {
    /// Makes the folders of a machine under `work`; it is still off.
    pub(crate) fn new(
        name: &str,
        address: Ipv4Addr,
        role: Role,
        lower: &Path,
        work: &Path,
        events: &Arc<EventLog>,
    ) -> Result<Self> {
        let folder = work.join(name);
        for path in DISK {
            let path = folder.join(format!("disk{path}"));
            fs::create_dir_all(&path).map_err(file("create", &path))?;
        }
        let files = folder.join("files");
        fs::create_dir_all(&files).map_err(file("create", &files))?;
        let syslog = Syslog::listen(&folder.join("log.socket"), name, events)?;
        let (name, events, power) = (name.to_owned(), Arc::clone(events), Mutex::new(None));
        let lower = lower.to_owned();
        let machine = Self { name, address, role, folder, lower, events, power, _syslog: syslog };
        for path in [DATA, CHUNKS] {
            machine.give_to_mfs(&machine.disk(path))?;
        }
        Ok(machine)
    }

    /// Makes the user of MooseFS the owner of a file on the disk.
    pub fn give_to_mfs(&self, path: &Path) -> Result<()> {
        let (user, group) = mfs_user(&self.lower)?;
        chown(path, Some(user), Some(group)).map_err(file("hand over", path))
    }

    /// Writes a file that the machine finds under `path` from its next start on.
    pub(crate) fn install(&self, path: &str, content: &[u8], mode: u32) -> Result<()> {
        let path = self.folder.join("files").join(path.trim_start_matches('/'));
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(file("create", parent))?;
        }
        fs::write(&path, content).map_err(file("write", &path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(file("set the mode of", &path))
    }

    /// Puts the data folder, with what is in it, on a file system of its own with this many megabytes.
    pub(crate) fn limit_data(&self, megabytes: u32) -> Result<()> {
        let (user, group) = mfs_user(&self.lower)?;
        let mut command = Command::new("mkfs.ext4");
        command
            .args(["-q", "-m", "0", "-E", &format!("root_owner={user}:{group}"), "-d"])
            .arg(self.disk(DATA))
            .arg(self.image())
            .arg(format!("{megabytes}M"));
        process::must(command, &self.folder, PATIENCE).map(drop)
    }

    fn image(&self) -> PathBuf {
        self.folder.join("disk.img")
    }

    /// The data folder, as seen from the host; one of limited size is there only while the machine is on.
    pub fn data(&self) -> Result<PathBuf> {
        if self.image().exists() {
            return Ok(self.root()?.join(DATA.trim_start_matches('/')));
        }
        Ok(self.disk(DATA))
    }

    /// A folder of the machine's disk, as seen from the host; valid whether it is on or off.
    pub fn disk(&self, path: &str) -> PathBuf {
        self.folder.join("disk").join(path.trim_start_matches('/'))
    }

    /// The machine's root, as seen from the host, while it is on.
    pub fn root(&self) -> Result<PathBuf> {
        Ok(PathBuf::from(format!("/proc/{}/root", self.init()?)))
    }

    /// Process 1 of the machine, by its id on this host.
    pub(crate) fn init(&self) -> Result<Pid> {
        let power = locked(&self.power);
        power.as_ref().map(|power| power.init).ok_or_else(|| Error::Off(self.name.clone()))
    }

    /// Whether the machine is on.
    pub fn is_on(&self) -> bool {
        locked(&self.power).is_some()
    }

    /// Starts the namespaces and connects the cable. Nothing runs in it yet.
    pub(crate) fn boot(&self, switch: &Switch) -> Result<()> {
        if self.is_on() {
            return Err(Error::On(self.name.clone()));
        }
        let (mut shell, ready) = self.start_init()?;
        let Ok(init) = ready.recv_timeout(PATIENCE) else {
            let _ = shell.kill();
            let _ = shell.wait();
            let console = fs::read_to_string(self.folder.join("console")).unwrap_or_default();
            self.events.note(&self.name, &format!("console: {console}"));
            return Err(Error::NotUp { name: self.name.clone(), recent: self.events.recent() });
        };
        *locked(&self.power) = Some(Power { shell, init });
        switch.connect(&self.name, init, self.address)?;
        self.events.note(&self.name, "lab: power on");
        Ok(())
    }

    /// Process 1 of a new machine, and where its id on this host will arrive.
    fn start_init(&self) -> Result<(Child, Receiver<Pid>)> {
        let script = self.folder.join("machine.sh");
        fs::write(&script, SCRIPT).map_err(file("write", &script))?;
        let mut command = process::unshare(&["--net", "--mount", "--pid", "--uts", "--fork", "--kill-child", "bash"]);
        command.arg(script).arg(&self.name).arg(&self.folder).arg(&self.lower).args(DISK);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).current_dir("/");
        let console = self.folder.join("console");
        command.stderr(fs::File::create(&console).map_err(file("create", &console))?);
        let mut shell = process::spawn_for_life(command)?;
        let (sender, ready) = channel();
        let (name, events, output) = (self.name.clone(), Arc::clone(&self.events), shell.stdout.take());
        thread::spawn(move || {
            for line in output.into_iter().flat_map(|pipe| BufReader::new(pipe).lines().map_while(std::io::Result::ok))
            {
                match line.strip_prefix("ready ").and_then(|pid| pid.parse().ok()) {
                    Some(pid) => drop(sender.send(Pid::from_raw(pid))),
                    None => drop(events.note(&name, &format!("console: {line}"))),
                }
            }
        });
        Ok((shell, ready))
    }

    /// Ends everything in the machine at once, as a power cut does. The caller has pulled the cable.
    pub(crate) fn end(&self) -> Result<()> {
        let Some(mut power) = locked(&self.power).take() else {
            return Ok(());
        };
        kill(power.init, Signal::SIGKILL).map_err(system(format!("kill process 1 of {}", self.name)))?;
        let ended = process::wait(&mut power.shell, PATIENCE).map_err(system(format!("wait for {}", self.name)))?;
        if ended.is_none() {
            let what = format!("the end of everything in {}", self.name);
            return Err(Error::Expired { what, within: PATIENCE, recent: self.events.recent() });
        }
        Ok(())
    }

    /// A command to be run in the machine.
    pub(crate) fn command<S: AsRef<std::ffi::OsStr>>(&self, line: &[S]) -> Result<Command> {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.init()?.to_string(), "-m", "-p", "-n", "-u", "-r", "-w"]).args(line);
        command
            .stdin(Stdio::null())
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("HOME", "/root").env("LANG", "C");
        Ok(command)
    }

    /// Runs a command in the machine to its end, whatever its exit status.
    pub fn run<S: AsRef<std::ffi::OsStr>>(&self, line: &[S], within: Duration) -> Result<Output> {
        process::run(self.command(line)?, &self.folder, within)
    }

    /// Runs a command in the machine that must succeed, and returns what it printed.
    pub fn must<S: AsRef<std::ffi::OsStr>>(&self, line: &[S], within: Duration) -> Result<String> {
        process::must(self.command(line)?, &self.folder, within).map_err(|error| match error {
            Error::Command { command, outcome, output, .. } => {
                Error::Command { command, outcome, output, recent: self.events.recent() }
            }
            other => other,
        })
    }

    /// Everything that runs in the machine.
    pub fn processes(&self) -> Vec<Daemon> {
        self.init().map(Daemon::all_in).unwrap_or_default()
    }

    /// The main process of a daemon: the one whose parent is another program. Of several it is one that process 1 is the parent
    /// of, not one that a run asks for its version. Of several of these it is the one started last: the run of a standby ends a
    /// moment after the promotion that supersedes it has begun.
    pub fn daemon(&self, program: &str) -> Option<Daemon> {
        let all: Vec<Daemon> = self.processes().into_iter().filter(|process| process.name == program).collect();
        let init = self.init().map(Pid::as_raw).ok();
        Daemon::main_ones(&all).max_by_key(|one| (Some(one.parent) == init, one.pid)).cloned()
    }
}

/// The ids of the user that MooseFS runs as in this root.
fn mfs_user(root: &Path) -> Result<(u32, u32)> {
    let path = root.join("etc/passwd");
    let users = fs::read_to_string(&path).map_err(file("read", &path))?;
    let ids = users.lines().find_map(|line| {
        let mut fields = line.strip_prefix("mfs:")?.split(':').skip(1);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    });
    ids.ok_or_else(|| Error::Programs(format!("{} has no user mfs: install the moosefs packages", path.display())))
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.end();
    }
}
