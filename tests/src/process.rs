//! Processes: children that must not outlive the test, commands with a deadline, and what runs inside a machine.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};
use std::{io, thread};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::Error;
use crate::Result;
use crate::locked;

type Request = (Command, Sender<io::Result<Child>>);

/// Starts a child that the kernel kills when this process ends, however it ends.
///
/// The death signal is tied to the *thread* that started the child, so one thread that never ends starts them all.
pub(crate) fn spawn_for_life(mut command: Command) -> Result<Child> {
    static KEEPER: OnceLock<Mutex<Sender<Request>>> = OnceLock::new();
    let keeper = KEEPER.get_or_init(|| {
        let (requests, inbox) = channel::<Request>();
        thread::spawn(move || {
            for (mut command, answer) in inbox {
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(requests)
    });
    let program = line_of(&command);
    command.process_group(0);
    let (answer, result) = channel();
    let gone = |_| io::Error::other("the keeper thread is gone");
    let sent = locked(keeper).send((command, answer)).map_err(|_| io::Error::other("the keeper thread is gone"));
    let child = sent.and_then(|()| result.recv().map_err(gone)?);
    child.map_err(|source| Error::Spawn { program, source })
}

/// `setpriv --pdeathsig KILL unshare ARGS`: to be given to [`spawn_for_life`].
pub(crate) fn unshare(args: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "unshare"]).args(args);
    command
}

/// Runs a command to its end, or kills its process group at the deadline. What it prints goes through a file, so that a
/// daemon it leaves behind cannot hold us up.
pub(crate) fn run(mut command: Command, scratch: &Path, within: Duration) -> Result<Output> {
    static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let program = line_of(&command);
    let failed = |source| Error::Spawn { program: program.clone(), source };
    let (out, err) = (scratch.join(format!("run-{number}.out")), scratch.join(format!("run-{number}.err")));
    command.stdout(File::create(&out).map_err(failed)?).stderr(File::create(&err).map_err(failed)?);
    let mut child = command.process_group(0).spawn().map_err(failed)?;
    let status = wait(&mut child, within).map_err(failed)?;
    if status.is_none() {
        let _ = killpg(pid_of(&child), Signal::SIGKILL);
        let _ = child.wait();
    }
    let (stdout, stderr) = (fs::read(&out).map_err(failed)?, fs::read(&err).map_err(failed)?);
    let _ = fs::remove_file(out);
    let _ = fs::remove_file(err);
    match status {
        Some(status) => Ok(Output { status, stdout, stderr }),
        None => Err(Error::Command {
            command: program,
            outcome: format!("did not end within {within:?} and was killed"),
            output: String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned(),
            recent: String::new(),
        }),
    }
}

/// As [`run`], and a failure is an error.
pub(crate) fn must(command: Command, scratch: &Path, within: Duration) -> Result<String> {
    let program = line_of(&command);
    let output = run(command, scratch, within)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Error::Command {
        command: program,
        outcome: output.status.to_string(),
        output: String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
        recent: String::new(),
    })
}

/// Waits for a child, at most so long.
pub(crate) fn wait(child: &mut Child, within: Duration) -> io::Result<Option<std::process::ExitStatus>> {
    let deadline = Instant::now() + within;
    let mut pause = Duration::from_micros(500);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

/// Asks `condition` again and again until it gives something, at most so long.
pub(crate) fn poll<T>(within: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = condition() {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// The id of a child.
pub(crate) fn pid_of(child: &Child) -> Pid {
    // Process ids are far below 2^31.
    Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX))
}

fn line_of(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// A process inside a machine, by its id on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Daemon {
    /// Its id on this host; unique over restarts for all practical purposes.
    pub pid: i32,
    /// Its parent's id on this host.
    pub parent: i32,
    /// Its short name.
    pub name: String,
}

impl Daemon {
    /// Everything that runs in the pid namespace of `init`.
    pub(crate) fn all_in(init: Pid) -> Vec<Self> {
        let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let Some(home) = namespace(&init.to_string()) else {
            return Vec::new();
        };
        let Ok(entries) = fs::read_dir("/proc") else {
            return Vec::new();
        };
        entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
            .filter(|pid| namespace(pid).as_ref() == Some(&home))
            .filter_map(|pid| Self::read(&pid))
            .collect()
    }

    fn read(pid: &str) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (head, tail) = stat.rsplit_once(')')?;
        let name = head.split_once('(')?.1.to_owned();
        let mut fields = tail.split_whitespace();
        let state = fields.next()?;
        let parent = fields.next()?.parse().ok()?;
        (state != "Z").then_some(Self { pid: pid.parse().ok()?, parent, name })
    }

    /// Those whose parent is none of them.
    pub(crate) fn main_ones(all: &[Self]) -> impl Iterator<Item = &Self> {
        all.iter().filter(|one| all.iter().all(|other| other.pid != one.parent))
    }

    /// Whether its command line has this word.
    pub(crate) fn was_told(&self, word: &str) -> bool {
        self.words().iter().any(|given| given == word)
    }

    /// Whether a hook of ours has called it for this kind of work.
    pub(crate) fn is_called_for(&self, kind: &str) -> bool {
        let kind = format!("\"kind\":\"{kind}\"");
        self.words().iter().any(|given| given.starts_with("--call=") && given.contains(&kind))
    }

    /// Its command line.
    fn words(&self) -> Vec<String> {
        let line = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
    }

    /// A variable of the environment that it was started with.
    pub fn variable(&self, name: &str) -> Option<String> {
        let environment = fs::read(format!("/proc/{}/environ", self.pid)).ok()?;
        let mut variables = environment.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        variables.find_map(|variable| Some(variable.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
    }

    /// Whether a signal has stopped it.
    pub(crate) fn is_stopped(&self) -> bool {
        let status = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        status.rsplit_once(')').is_some_and(|(_, fields)| fields.trim_start().starts_with('T'))
    }

    /// Its id in its machine's pid namespace, as its log lines show it.
    pub(crate) fn inner_pid(&self) -> Option<String> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
        ids.split_whitespace().last().map(str::to_owned)
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.pid), signal)
            .map_err(crate::error::system(format!("signal {signal} to {} ({})", self.name, self.pid)))
    }
}
