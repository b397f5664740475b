//! A single machine on its switch, without ucarp. Tests run programs in it, trace their system calls, and put the same files
//! back before each run.

use std::fs;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::Error;
use crate::Result;
use crate::VIP;
use crate::error::file;
use crate::events::EventLog;
use crate::hooks::Hooks;
use crate::log_lines::JOURNAL;
use crate::machine::{Machine, Role};
use crate::moosefs::DATA;
use crate::process::{self, Daemon, pid_of};
use crate::root::{self, Release};
use crate::switch::Switch;
use crate::trace::{Fault, Seen, Traced};
use crate::work::{HostLock, WorkFolder};

/// The state folder of our programs.
const STATE: &str = "/var/lib/moosefs-ucarp";
/// Where the lock is.
const RUN: &str = "/run/moosefs-ucarp";
const SOON: Duration = Duration::from_secs(30);
/// A traced program that takes longer is stuck.
const STUCK: Duration = Duration::from_secs(300);

/// Starts single machines. Holds this host's lock as long as it or one of them lives.
#[derive(Debug)]
pub struct SingleMachines {
    lock: Arc<HostLock>,
}

impl SingleMachines {
    /// Waits for the clusters on this host to end.
    pub fn reserve() -> Result<Self> {
        Ok(Self { lock: Arc::new(HostLock::take()?) })
    }

    /// A new machine with our programs, on; `files` are written into its `/etc/mfs`. It runs this release, or what this host
    /// has installed.
    pub fn start(&self, release: Option<Release>, files: &[(&str, &str)]) -> Result<SingleMachine> {
        self.start_with(&Hooks::ours()?, release, files)
    }

    /// The same with other programs.
    pub fn start_with(
        &self,
        programs: &Hooks,
        release: Option<Release>,
        files: &[(&str, &str)],
    ) -> Result<SingleMachine> {
        let work = WorkFolder::create()?;
        let events = EventLog::new(work.path());
        let address = Ipv4Addr::new(172, 16, 0, 11);
        let lower = release.map_or_else(|| Ok(PathBuf::from("/")), |release| root::root(release, work.path()))?;
        let machine = Machine::new("m1", address, Role::Master(0), &lower, work.path(), &events)?;
        machine.install("/etc/hosts", format!("127.0.0.1 localhost\n{VIP} mfsmaster\n").as_bytes(), 0o644)?;
        for (name, content) in files {
            machine.install(&format!("/etc/mfs/{name}"), content.as_bytes(), 0o644)?;
        }
        programs.install([&machine].into_iter())?;
        let switch = Switch::start(work.path())?;
        machine.boot(&switch)?;
        Ok(SingleMachine { machine, events, _switch: switch, work, _lock: Arc::clone(&self.lock) })
    }
}

/// A machine without ucarp, with our programs.
#[derive(Debug)]
pub struct SingleMachine {
    machine: Machine,
    events: Arc<EventLog>,
    _switch: Switch,
    work: WorkFolder,
    _lock: Arc<HostLock>,
}

/// How a traced program ended.
#[derive(Debug)]
pub struct TracedRun {
    /// What it did.
    pub seen: Seen,
    /// What it printed.
    pub output: String,
    /// Whether it had to be killed because it did not end.
    pub stuck: bool,
}

impl SingleMachine {
    /// A folder for anything.
    pub fn folder(&self) -> &Path {
        self.work.path()
    }

    /// A folder of its disk, as seen from the host.
    pub fn disk(&self, path: &str) -> PathBuf {
        self.machine.disk(path)
    }

    /// The data folder.
    pub fn data(&self) -> PathBuf {
        self.machine.disk(DATA)
    }

    /// The folder of the lock, where what is known of a running machine lies.
    pub fn run_folder(&self) -> Result<PathBuf> {
        Ok(self.machine.root()?.join(RUN.trim_start_matches('/')))
    }

    /// All that its programs have logged so far.
    pub fn log(&self) -> String {
        let texts: Vec<_> = self.events.since(0).into_iter().map(|event| event.text).collect();
        texts.join("\n")
    }

    /// The state folder.
    pub fn state(&self) -> PathBuf {
        self.machine.disk(STATE)
    }

    /// Runs a command to its end, whatever its exit status. Says whether it succeeded, and what it printed.
    pub fn run(&self, line: &[&str]) -> Result<(bool, String)> {
        let output = self.machine.run(line, STUCK)?;
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        Ok((output.status.success(), text))
    }

    /// Runs a command that must succeed, and returns what it printed on standard output.
    pub fn must(&self, line: &[&str]) -> Result<String> {
        self.machine.must(line, SOON)
    }

    /// Leaves a command running in the background.
    pub fn leave_running(&self, line: &[&str]) -> Result<()> {
        let shell = ["sh", "-c", "\"$@\" > /dev/null 2>&1 &", "sh"];
        self.machine.must(&[&shell, line].concat(), SOON).map(drop)
    }

    /// Whether a daemon runs.
    pub fn runs(&self, program: &str) -> bool {
        self.machine.daemon(program).is_some()
    }

    /// All processes of a program.
    pub fn processes(&self, program: &str) -> Vec<Daemon> {
        let mut all = self.machine.processes();
        all.retain(|process| process.name == program);
        all
    }

    /// Whether a program listens on this port.
    pub fn listens(&self, port: u16) -> bool {
        const LISTEN: &str = "0A";
        let init = self.machine.init().map_or(0, Pid::as_raw);
        let table = fs::read_to_string(format!("/proc/{init}/net/tcp")).unwrap_or_default();
        let port = format!(":{port:04X}");
        table.lines().any(|line| {
            let mut words = line.split_whitespace().skip(1);
            words.next().is_some_and(|local| local.ends_with(&port)) && words.nth(1) == Some(LISTEN)
        })
    }

    /// Ends everything that runs in it, at once.
    pub fn kill_all(&self) -> Result<()> {
        let init = self.machine.init()?;
        let all = || {
            // The first process waits with a `sleep`.
            Daemon::all_in(init).into_iter().filter(|one| one.pid != init.as_raw() && one.name != "sleep")
        };
        let gone = process::poll(SOON, || {
            // One that ended meanwhile is as good.
            all().for_each(|one| drop(one.signal(Signal::SIGKILL)));
            all().next().is_none().then_some(())
        });
        gone.ok_or_else(|| Error::Expired {
            what: "everything in a machine to end".to_owned(),
            within: SOON,
            recent: String::new(),
        })
    }

    /// Ends everything, and puts `data` and `state` in place of the data folder and the state folder.
    pub fn reset(&self, data: &Path, state: Option<&Path>) -> Result<()> {
        self.kill_all()?;
        for (to, from) in [(self.data(), Some(data)), (self.state(), state)] {
            for entry in fs::read_dir(&to).map_err(file("list", &to))?.flatten() {
                let path = entry.path();
                let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
                removed.map_err(file("remove", &path))?;
            }
            if let Some(from) = from {
                copy(from, &to, self.folder())?;
            }
        }
        self.renumber()?;
        self.empty_run_folder()
    }

    /// What lies in memory does not outlive a machine.
    fn empty_run_folder(&self) -> Result<()> {
        let run = self.run_folder()?;
        if run.exists() {
            fs::remove_dir_all(&run).map_err(file("remove", &run))?;
        }
        Ok(())
    }

    /// The journal of an interrupted run, if there is one.
    pub fn journal(&self) -> Option<PathBuf> {
        let runs = fs::read_dir(self.data().join("mfs-promote")).ok()?;
        runs.flatten().map(|run| run.path().join(JOURNAL)).find(|journal| journal.exists())
    }

    /// The journal knows staged files by their numbers on the disk, and copies have others.
    fn renumber(&self) -> Result<()> {
        use std::os::unix::fs::MetadataExt;
        let Some(path) = self.journal() else { return Ok(()) };
        let text = fs::read(&path).map_err(file("read", &path))?;
        let damaged = |e: serde_json::Error| Error::Programs(format!("{}: {e}", path.display()));
        let mut journal: serde_json::Value = serde_json::from_slice(&text).map_err(damaged)?;
        let stage = path.with_file_name("stage");
        for staged in journal["staged"].as_array_mut().into_iter().flatten() {
            let name = staged["name"].as_str().unwrap_or_default().to_owned();
            let places = [stage.join(&name), self.data().join(&name)];
            if let Some(status) = places.iter().find_map(|place| fs::metadata(place).ok()) {
                staged["inode"] = status.ino().into();
            }
        }
        let text = serde_json::to_vec(&journal).map_err(damaged)?;
        fs::write(&path, text).map_err(file("write", &path))
    }

    /// Saves data folder and state folder below `to`, as `data` and `state`.
    pub fn save(&self, to: &Path) -> Result<()> {
        for (name, from) in [("data", self.data()), ("state", self.state())] {
            let to = to.join(name);
            fs::create_dir_all(&to).map_err(file("create", &to))?;
            copy(&from, &to, self.folder())?;
        }
        Ok(())
    }

    /// The virtual address comes or goes.
    pub fn address(&self, here: bool) -> Result<()> {
        let verb = if here { "replace" } else { "del" };
        let (done, said) = self.run(&["ip", "addr", verb, &format!("{VIP}/16"), "dev", "eth0"])?;
        if done || !here {
            return Ok(());
        }
        Err(Error::Programs(format!("cannot add the address: {said}")))
    }

    /// Traces a program. The fault is injected at the call of that number, or at the first later one that it applies to.
    pub fn trace(&self, line: &[&str], fault: Option<(Fault, usize)>) -> Result<TracedRun> {
        let waiting = ["sh", "-c", "read -r go; exec \"$@\"", "sh"];
        let mut command = self.machine.command(&[&waiting, line].concat())?;
        let path = self.folder().join("watched");
        let output = fs::File::create(&path).map_err(file("create", &path))?;
        command.stdin(Stdio::piped()).stderr(output.try_clone().map_err(file("share", &path))?).stdout(output);
        let mut child = process::spawn_for_life(command)?;
        let shell = process::poll(SOON, || child_named(pid_of(&child), "sh")).ok_or_else(|| Error::Expired {
            what: "a shell to wait".to_owned(),
            within: SOON,
            recent: String::new(),
        })?;
        let traced = Traced::attach(shell, fault)?;
        if let Some(mut go) = child.stdin.take() {
            go.write_all(b"\n").map_err(file("write", &path))?;
        }
        let (seen, stuck) = std::thread::scope(|scope| {
            let (ended, end) = channel::<()>();
            let watchdog = scope.spawn(move || {
                let stuck = end.recv_timeout(STUCK) == Err(RecvTimeoutError::Timeout);
                if stuck {
                    let _ = nix::sys::signal::kill(shell, Signal::SIGKILL);
                }
                stuck
            });
            let seen = traced.run(|| drop(self.kill_all()));
            drop(ended);
            (seen, watchdog.join().unwrap_or(true))
        });
        let _ = process::wait(&mut child, SOON);
        let seen = seen?;
        if seen.injected && fault.is_some_and(|(fault, _)| fault == Fault::PowerCut) {
            self.kill_all()?;
            self.lose(&seen)?;
            self.empty_run_folder()?;
        }
        let output = fs::read(&path).map_err(file("read", &path))?;
        Ok(TracedRun { seen, output: String::from_utf8_lossy(&output).into_owned(), stuck })
    }

    /// What was written and not flushed is gone after a power cut: the names are there, the content is not.
    fn lose(&self, seen: &Seen) -> Result<()> {
        use std::os::unix::fs::MetadataExt;
        let mut folders = vec![self.data(), self.state()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).map_err(file("list", &folder))?.flatten() {
                let (path, Ok(status)) = (entry.path(), entry.metadata()) else { continue };
                if status.is_dir() {
                    folders.push(path);
                } else if seen.unflushed.contains(&(status.dev(), status.ino())) {
                    fs::File::options()
                        .write(true)
                        .open(&path)
                        .and_then(|file| file.set_len(0))
                        .map_err(file("cut", &path))?;
                }
            }
        }
        Ok(())
    }
}

/// Copies what is in a folder, with owners and modes.
fn copy(from: &Path, to: &Path, scratch: &Path) -> Result<()> {
    let mut command = std::process::Command::new("cp");
    command.arg("-a").arg(from.join(".")).arg(to);
    process::must(command, scratch, SOON).map(drop)
}

fn child_named(parent: Pid, name: &str) -> Option<Pid> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    let child = children.split_whitespace().next()?.to_owned();
    let found = fs::read_to_string(format!("/proc/{child}/comm")).ok()?;
    (found.trim_end() == name).then(|| child.parse().ok().map(Pid::from_raw)).flatten()
}
