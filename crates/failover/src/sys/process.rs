//! Child processes with deadlines, and other processes by identity.
//!
//! Children are started by absolute path, without a shell, with a clean environment and no descriptor but the
//! standard three, within a fixed time. [`run`] always comes back: a child that is late, or not wanted any more, is ended with its whole
//! process group, and a daemon that a child leaves behind is not waited for.

mod identity;

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, MemfdFlags, OFlags, SealFlags};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

pub(crate) use identity::{
    Identity, Stat, Stopped, all, describe, forked_by, in_this_network, kill, memory_of, own_threads, runs_of_waiting,
    stop, words,
};

use crate::sys::cancel::{Cancel, Cancelled};
use crate::sys::folder::Owner;
use crate::sys::progress::{Allowance, Patience};
use crate::sys::text::human;
use identity::wait_readable;

/// How much of a child's output is kept: its end.
const OUTPUT_KEPT: u64 = 64 * 1024;
/// How often the rest of it is forgotten.
const FORGET_EVERY: Duration = Duration::from_millis(250);
/// How long a process group has after TERM.
const GROUP_PATIENCE: Duration = Duration::from_secs(2);
/// How long a child may take to vanish after KILL; one that hangs in the kernel is left behind.
const AFTER_KILL: Duration = Duration::from_secs(2);
/// How long the start of a child may take, until its program runs. It takes a millisecond, and longer on a busy disk. A hook
/// that waits for it is back before another machine is MASTER.
pub(crate) const SPAWN: Duration = Duration::from_secs(2);
/// Where programs are looked for, in this order.
const FOLDERS: [&str; 6] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/sbin", "/usr/local/bin"];
/// What children get as their PATH.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin";

/// What failed, on which process, and why.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The program could not be started.
    #[error("cannot start {}", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The kernel does not start it: the disk with the program does not answer.
    #[error("{} has not been started for {}: does the disk that it is on answer?", program.display(), human(*after))]
    DoesNotStart {
        /// The program.
        program: PathBuf,
        /// How long it was waited for.
        after: Duration,
    },
    /// The program is nowhere to be found.
    #[error("{name} is not installed, neither beside this program nor in {}", FOLDERS.join(", "))]
    NotInstalled {
        /// Its name.
        name: String,
    },
    /// The program was not done in time and has been ended.
    #[error("{} was not done after {} ({state}) and was ended", program.display(), human(*after))]
    Deadline {
        /// The program.
        program: PathBuf,
        /// The time it had.
        after: Duration,
        /// What it was doing.
        state: String,
    },
    /// The program ended with a failure.
    #[error("{} failed ({status}): {}", program.display(), last_line(output))]
    Failed {
        /// The program.
        program: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it printed.
        output: String,
    },
    /// The work was told to stop; the program has been ended.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// A process hangs in the kernel.
    #[error("process {pid} does not end on KILL ({state})")]
    Unkillable {
        /// The process.
        pid: u32,
        /// What it is doing.
        state: String,
    },
    /// A process cannot be watched or signalled.
    #[error("cannot {operation} {object}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The object it was tried on.
        object: String,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
    /// Text that should name a process does not.
    #[error("{text:?} is not PID@START")]
    NotAnIdentity {
        /// The text.
        text: String,
    },
}

/// A child that has ended.
#[derive(Debug, Clone)]
pub(crate) struct Finished {
    /// The program.
    pub(crate) program: PathBuf,
    /// How it ended.
    pub(crate) status: ExitStatus,
    /// The last 64 KiB of what it printed, standard output and standard error together.
    pub(crate) output: String,
    /// How long it ran.
    pub(crate) took: Duration,
}

impl Finished {
    /// Itself if the program succeeded, else [`Error::Failed`].
    pub(crate) fn success(self) -> Result<Self, Error> {
        if self.status.success() {
            return Ok(self);
        }
        Err(Error::Failed { program: self.program, status: self.status, output: self.output })
    }
}

/// How a child is run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RunOptions<'a> {
    /// The time it has.
    pub(crate) time: Allowance,
    /// The program whose progress counts, if it is not this one itself.
    pub(crate) works: Option<&'a str>,
    /// How long its process group has after TERM; zero for KILL at once, where nothing of it is worth an orderly end.
    pub(crate) patience: Duration,
    /// One that is late is killed, and not waited for: it may hang in the kernel.
    pub(crate) leave: bool,
    /// Whom it runs as, if not as we do.
    pub(crate) user: Option<Owner>,
    /// What its environment holds besides PATH and LANG.
    pub(crate) environment: &'a [(&'a str, String)],
}

impl RunOptions<'_> {
    /// As we are, with a deadline, and ended in order.
    pub(crate) fn within(deadline: Duration) -> Self {
        Self {
            time: Allowance::fixed(deadline),
            works: None,
            patience: GROUP_PATIENCE,
            leave: false,
            user: None,
            environment: &[],
        }
    }
}

/// Runs `program` to its end and collects what it prints.
///
/// After `deadline`, or when told to stop, it is ended with its whole process group: TERM, and 2 s later KILL.
pub(crate) fn run<S: AsRef<OsStr>>(
    program: &Path,
    args: &[S],
    deadline: Duration,
    cancel: &Cancel,
) -> Result<Finished, Error> {
    run_with(program, args, RunOptions::within(deadline), cancel)
}

/// As [`run`], in the manner asked for.
pub(crate) fn run_with<S: AsRef<OsStr>>(
    program: &Path,
    args: &[S],
    manner: RunOptions<'_>,
    cancel: &Cancel,
) -> Result<Finished, Error> {
    cancel.check()?;
    let start = Instant::now();
    let output = Output::new()?;
    let mut command = command(program, args)?;
    command.stdout(output.writer()?).stderr(output.writer()?).process_group(0);
    command.envs(manner.environment.iter().map(|(name, value)| (name, value)));
    if let Some(user) = manner.user {
        // Ours when we are root: no supplementary groups come along.
        command.gid(user.gid).uid(user.uid);
    }
    let mut child = spawn(program, command, SPAWN.min(manner.time.most))?;
    log::debug!("started {} as process {}", program.display(), child.id());
    // Ours and not collected yet, so the id cannot mean another process.
    let ended = pidfd_open(Pid::from_child(&child), PidfdFlags::empty());
    let ended = ended.map_err(|e| io("watch process", &child.id(), e))?;
    let itself = program.file_name().unwrap_or_default().to_string_lossy();
    let patience = Patience::with(manner.works.unwrap_or(&itself), manner.time);
    let outcome = wait_for(&ended, patience, &output, cancel);
    if outcome == Ok(true) {
        let status = child.wait().map_err(|e| io("collect process", &child.id(), e))?;
        return Ok(Finished { program: program.to_owned(), status, output: output.close(), took: start.elapsed() });
    }
    let (state, after) = (describe(child.id()), start.elapsed().min(manner.time.most));
    log::warn!("ending {} after {}: {state}", program.display(), human(start.elapsed()));
    if manner.leave {
        let _ = child.kill();
    } else {
        end_group(&mut child, &ended, manner.patience);
    }
    log::debug!("{} had printed: {}", program.display(), output.close());
    outcome?;
    Err(Error::Deadline { program: program.to_owned(), after, state })
}

/// Waits for the end of a child, and meanwhile forgets all but the end of what it prints.
fn wait_for(ended: &OwnedFd, mut patience: Patience, output: &Output, cancel: &Cancel) -> Result<bool, Cancelled> {
    loop {
        let left = patience.left();
        if wait_readable(ended, left.min(FORGET_EVERY), Some(cancel))? {
            return Ok(true);
        }
        if left.is_zero() {
            return Ok(false);
        }
        output.forget();
    }
}

/// Starts `program` in the background, with an input, and returns at once. It has no terminal and no output, and the
/// caller's session; a program that must outlive its caller's session calls setsid(2) itself.
pub(crate) fn launch_reading<S: AsRef<OsStr>>(
    program: &Path,
    args: &[S],
    input: impl Into<Stdio>,
) -> Result<u32, Error> {
    let mut command = command(program, args)?;
    command.stdin(input);
    launch(program, command)
}

/// As [`launch_reading`], without an input and with an environment besides PATH and LANG.
pub(crate) fn launch_with<S: AsRef<OsStr>>(
    program: &Path,
    args: &[S],
    environment: &[(&str, String)],
) -> Result<u32, Error> {
    let mut command = command(program, args)?;
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    launch(program, command)
}

fn launch(program: &Path, mut command: Command) -> Result<u32, Error> {
    command.stdout(Stdio::null()).stderr(Stdio::null());
    Ok(spawn(program, command, SPAWN)?.id())
}

/// Starts a child. The kernel reads its program first, from a disk that may not answer.
fn spawn(program: &Path, mut command: Command, time: Duration) -> Result<Child, Error> {
    start_within(program, time, move || command.spawn())
}

/// A child that `start` starts too late is killed: nobody knows of it.
fn start_within(
    program: &Path,
    time: Duration,
    start: impl FnOnce() -> std::io::Result<Child> + Send + 'static,
) -> Result<Child, Error> {
    let (done, started) = std::sync::mpsc::channel();
    let starting = std::thread::Builder::new().spawn(move || {
        if let Err(std::sync::mpsc::SendError(Ok(mut child))) = done.send(start()) {
            let _ = child.kill();
            let _ = child.wait();
        }
    });
    starting.map_err(|e| not_started(program, e))?;
    match started.recv_timeout(time) {
        Ok(child) => child.map_err(|e| not_started(program, e)),
        Err(_) => Err(Error::DoesNotStart { program: program.to_owned(), after: time }),
    }
}

/// Whether this process may do what only root may.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The path of the program `name`, if it is installed.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    find_program_in(&FOLDERS, name)
}

/// The path of the program `name` in the first of these folders that has it.
pub(crate) fn find_program_in(folders: &[&str], name: &str) -> Option<PathBuf> {
    folders.iter().map(|folder| Path::new(folder).join(name)).find(|path| is_executable(path))
}

/// The path of the program `name` of ours: beside this one, else where programs are.
pub(crate) fn find_beside(name: &str) -> Result<PathBuf, Error> {
    let beside = std::env::current_exe().ok().map(|exe| exe.with_file_name(name));
    let found = beside.filter(|path| is_executable(path)).or_else(|| find_program(name));
    found.ok_or_else(|| Error::NotInstalled { name: name.to_owned() })
}

/// Closes every descriptor but the standard three, which a caller left open by mistake (ucarp does) and which would
/// otherwise stay open in every child; and leaves the caller's working folder. Call it first thing, before anything is
/// opened.
pub(crate) fn close_inherited() {
    // There is always a root.
    let _ = std::env::set_current_dir("/");
    // Collected first: the listing is itself a descriptor, closed again before the loop.
    let open: Vec<i32> = match std::fs::read_dir("/proc/self/fd") {
        Ok(entries) => entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect(),
        Err(_) => return,
    };
    for fd in open.into_iter().filter(|fd| *fd > 2) {
        // The listing's own descriptor is gone already: an error means there is nothing to close.
        let _ = nix::unistd::close(fd);
    }
}

fn command<S: AsRef<OsStr>>(program: &Path, args: &[S]) -> Result<Command, Error> {
    if !program.is_absolute() {
        let source = std::io::Error::new(std::io::ErrorKind::InvalidInput, "not an absolute path");
        return Err(not_started(program, source));
    }
    let mut command = Command::new(program);
    command.args(args).env_clear().env("PATH", PATH).env("LANG", "C").stdin(Stdio::null());
    if std::env::current_dir().map_or(true, |folder| folder != Path::new("/")) {
        // Where there is none to change, a child is made without copying this process: for hooks that counts.
        command.current_dir("/");
    }
    Ok(command)
}

/// Ends a child and all of its process group, and collects it if that is possible.
fn end_group(child: &mut Child, ended: &OwnedFd, patience: Duration) {
    let group = Pid::from_child(child);
    // The child is not collected before the end, so its id stays the group's.
    let signal = |signal| {
        if let Err(e) = kill_process_group(group, signal) {
            log::debug!("cannot signal group {}: {e}", child.id());
        }
    };
    if !patience.is_zero() {
        signal(Signal::TERM);
        wait_for_members(child.id(), patience);
    }
    signal(Signal::KILL);
    wait_for_members(child.id(), AFTER_KILL);
    if wait_readable(ended, Duration::ZERO, None) == Ok(true) {
        let _ = child.wait();
    } else {
        log::error!("process {} does not end on KILL: {}", child.id(), describe(child.id()));
    }
}

/// Waits until nothing runs in `group`, for `patience` at most.
fn wait_for_members(group: u32, patience: Duration) {
    let end = Instant::now() + patience;
    while Instant::now() < end && has_members(group) {
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn has_members(group: u32) -> bool {
    identity::all().into_iter().filter_map(Stat::of).any(|stat| stat.group == group && !stat.has_ended())
}

/// Where a child's output goes: a file in memory. A pipe would block a child that prints much that is not read at once,
/// and break under a daemon that still holds it; this does neither.
struct Output(File);

impl Output {
    fn new() -> Result<Self, Error> {
        let failed = |e| io("create", &"a file in memory", e);
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = rustix::fs::memfd_create("output", flags).map_err(failed)?;
        rustix::fs::fcntl_setfl(&file, OFlags::APPEND).map_err(failed)?;
        Ok(Self(File::from(file)))
    }

    fn writer(&self) -> Result<Stdio, Error> {
        let copy = self.0.try_clone().map_err(|e| io("copy", &"a descriptor", e))?;
        Ok(Stdio::from(copy))
    }

    /// Gives the memory of all but the end of it back.
    fn forget(&self) {
        let size = self.0.metadata().map_or(0, |metadata| metadata.len());
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let old = size.saturating_sub(OUTPUT_KEPT);
        if let Err(e) = if old > 0 { rustix::fs::fallocate(&self.0, flags, 0, old) } else { Ok(()) } {
            log::debug!("{old} bytes of output stay in memory: {e}");
        }
    }

    /// The end of what was printed. Who still writes gets an error from now on instead of using memory for ever.
    fn close(self) -> String {
        let _ = rustix::fs::fcntl_add_seals(&self.0, SealFlags::GROW);
        let size = self.0.metadata().map_or(0, |metadata| metadata.len());
        let from = size.saturating_sub(OUTPUT_KEPT);
        let mut end = vec![0; usize::try_from(size - from).unwrap_or(0)];
        let read = self.0.read_at(&mut end, from).unwrap_or(0);
        String::from_utf8_lossy(&end[..read]).into_owned()
    }
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;

    std::fs::metadata(path).is_ok_and(|status| status.is_file() && status.permissions().mode() & 0o111 != 0)
}

fn last_line(output: &str) -> &str {
    output.trim_end().lines().next_back().unwrap_or("it printed nothing")
}

fn not_started(program: &Path, source: std::io::Error) -> Error {
    Error::Spawn { program: program.to_owned(), source }
}

fn io(operation: &'static str, object: &dyn ToString, source: impl Into<std::io::Error>) -> Error {
    Error::Io { operation, object: object.to_string(), source: source.into() }
}

/// Does something that may hang in the kernel, and waits for `patience` at most. What takes longer goes on by itself, and ends
/// with this process.
pub(crate) fn within<T: Send + 'static>(patience: Duration, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (done, result) = std::sync::mpsc::channel();
    let spawned = std::thread::Builder::new().spawn(move || drop(done.send(work())));
    spawned.ok()?;
    result.recv_timeout(patience).ok()
}

#[cfg(test)]
mod tests;
