//! Other processes, each named by its id and its start time, so that a reused id is never taken for the old one.

use std::ffi::OsString;
use std::fmt::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::str::FromStr;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::{Error, io};
use crate::sys::cancel::{Cancel, Cancelled, timeout};
use crate::sys::progress::{Allowance, Patience};
use crate::sys::text::human;

/// How long a process may take to vanish after KILL before it counts as stuck in the kernel.
const AFTER_KILL: Duration = Duration::from_secs(5);
/// Between two looks at the progress of a process that is stopping.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// So many frames of a kernel stack are shown.
const FRAMES: usize = 6;

/// What `/proc/PID/stat` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stat {
    /// The program's name, cut to 15 bytes by the kernel; it may hold any character.
    pub(crate) comm: String,
    /// `R`, `S`, `D`, `Z` …
    pub(crate) state: char,
    /// The parent's process id.
    pub(crate) parent: u32,
    /// The process group.
    pub(crate) group: u32,
    /// Processor time it has had, in clock ticks.
    pub(crate) ticks: u64,
    /// Start time in clock ticks since boot.
    pub(crate) start: u64,
}

impl Stat {
    /// Reads the text of a `stat` file. The name stands in parentheses and may hold parentheses and spaces itself,
    /// so it ends at the last one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let open = text.find('(')?;
        let close = text.rfind(')')?;
        let comm = text.get(open + 1..close)?.to_owned();
        // The first field after the name is the third of the file.
        let fields: Vec<&str> = text.get(close + 1..)?.split_ascii_whitespace().collect();
        Some(Self {
            comm,
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            group: fields.get(2)?.parse().ok()?,
            ticks: fields.get(11)?.parse::<u64>().ok()?.saturating_add(fields.get(12)?.parse().ok()?),
            start: fields.get(19)?.parse().ok()?,
        })
    }

    /// The state of process `pid`; `None` if there is none.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let bytes = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
        Self::parse(&String::from_utf8_lossy(&bytes))
    }

    /// Whether it has ended and only waits to be collected by its parent.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }
}

/// The ids of all processes.
pub(crate) fn all() -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// The processes of the program `name` in this network, without those that one of them has forked.
pub(crate) fn in_this_network(name: &str) -> Vec<Identity> {
    let found: Vec<_> = all_in_this_network(name).collect();
    let forked = |stat: &Stat| found.iter().any(|(pid, _)| *pid == stat.parent);
    let found = found.iter().filter(|(_, stat)| !forked(stat));
    found.map(|(pid, stat)| Identity { pid: *pid, start: stat.start }).collect()
}

/// The processes of the program `name` in this network, and those that they have forked.
fn all_in_this_network(name: &str) -> impl Iterator<Item = (u32, Stat)> {
    let network = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/net")).ok();
    let here = network("thread-self");
    let named = all().into_iter().filter_map(|pid| Some((pid, Stat::of(pid)?)));
    let named = named.filter(move |(_, stat)| stat.comm == name && !stat.has_ended());
    named.filter(move |(pid, _)| network(&pid.to_string()) == here)
}

/// The words of the command line of a process; none if it has ended.
pub(crate) fn words(identity: Identity) -> Vec<OsString> {
    let line = std::fs::read(format!("/proc/{}/cmdline", identity.pid)).unwrap_or_default();
    // What was read is of this process only if it is still there.
    let line = if identity.is_alive() { line } else { Vec::new() };
    line.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_vec())).collect()
}

/// The processes that a process has forked and that still run.
pub(crate) fn forked_by(parent: Identity) -> Vec<Identity> {
    let named = all().into_iter().filter_map(|pid| Some((pid, Stat::of(pid)?)));
    let found = named.filter(|(_, stat)| stat.parent == parent.pid && !stat.has_ended());
    let found: Vec<_> = found.map(|(pid, stat)| Identity { pid, start: stat.start }).collect();
    if parent.is_alive() { found } else { Vec::new() }
}

/// How much memory a process has that is not shared with files, in bytes; 0 if it has ended.
pub(crate) fn memory_of(identity: Identity) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", identity.pid)).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kilobytes = line.and_then(|value| value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kilobytes.filter(|_| identity.is_alive()).unwrap_or_default().saturating_mul(1024)
}

/// How much work all processes of the program `name` in this network have done: a byte that was read or written is 1, a
/// hundredth of a second of processor time is 100 KiB, and so is a wait for a disk that has ended.
pub(crate) fn work_of(name: &str) -> u64 {
    const STEP: u64 = 100 * 1024;
    all_in_this_network(name).fold(0, |sum, (pid, stat)| {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let bytes = numbers(&read("io"), &["rchar", "wchar", "read_bytes", "write_bytes"]);
        // One that waits for a disk again and again: the disk answers.
        let waits = if stat.state == 'D' { numbers(&read("status"), &["voluntary_ctxt_switches"]) } else { 0 };
        let steps = stat.ticks.saturating_add(waits).saturating_mul(STEP);
        sum.wrapping_add(bytes).wrapping_add(steps)
    })
}

impl Patience {
    /// From now on, for the work of all processes of the program `name` in this network.
    pub(crate) fn with(name: &str, allowance: Allowance) -> Self {
        Self::with_since(name, allowance, Instant::now())
    }

    /// As [`Patience::with`], counted from `begun`.
    pub(crate) fn with_since(name: &str, allowance: Allowance, begun: Instant) -> Self {
        let name = name.to_owned();
        Self::new(allowance, begun, move || work_of(&name))
    }
}

/// The ids of the threads of this process.
pub(crate) fn own_threads() -> impl Iterator<Item = u32> {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    threads.filter_map(|thread| thread.file_name().to_str()?.parse().ok())
}

/// How many times the processor was given to a thread that waits in the kernel now, where no signal ends the wait: `None` if it
/// does something else. As long as the number stays the same, it has not run.
pub(crate) fn runs_of_waiting(thread: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/self/task/{thread}/status")).ok()?;
    runs_if_waiting(&status)
}

fn runs_if_waiting(status: &str) -> Option<u64> {
    let waits =
        status.lines().any(|line| line.strip_prefix("State:").is_some_and(|state| state.trim().starts_with('D')));
    waits.then(|| numbers(status, &["voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"]))
}

/// The sum of what stands behind these names in a file of `/proc`.
fn numbers(text: &str, names: &[&str]) -> u64 {
    let lines = text.lines().filter_map(|line| line.split_once(':')).filter(|(name, _)| names.contains(name));
    lines.filter_map(|(_, value)| value.trim().parse::<u64>().ok()).fold(0, u64::wrapping_add)
}

/// One process, for good: ids are used again, but not with the same start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    /// Process id.
    pub(crate) pid: u32,
    /// Start time in clock ticks since boot.
    pub(crate) start: u64,
}

impl Identity {
    /// The process that has the id `pid` now; `None` if there is none, or if it has ended.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let stat = Stat::of(pid).filter(|stat| !stat.has_ended())?;
        Some(Self { pid, start: stat.start })
    }

    /// This process.
    pub(crate) fn current() -> Option<Self> {
        Self::of(std::process::id())
    }

    /// Whether it still runs: the same id and the same start time.
    pub(crate) fn is_alive(&self) -> bool {
        Self::of(self.pid) == Some(*self)
    }

    /// A hold on the process: from here on its id cannot mean another one. `None` if it has ended.
    pub(crate) fn open(&self) -> Result<Option<Handle>, Error> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else {
            return Ok(None);
        };
        let fd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(fd) => fd,
            Err(Errno::SRCH | Errno::INVAL) => return Ok(None),
            Err(e) => return Err(io("open process", self, e)),
        };
        // The descriptor first, the start time after it: what is checked is what is held.
        let handle = Handle { fd, identity: *self };
        Ok(self.is_alive().then_some(handle))
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.pid, self.start)
    }
}

impl FromStr for Identity {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        text.split_once('@')
            .and_then(|(pid, start)| Some(Self { pid: pid.parse().ok()?, start: start.parse().ok()? }))
            .ok_or_else(|| Error::NotAnIdentity { text: text.to_owned() })
    }
}

/// A hold on a process.
#[derive(Debug)]
pub(crate) struct Handle {
    fd: OwnedFd,
    identity: Identity,
}

impl Handle {
    /// Sends `signal`; nothing happens if the process has ended meanwhile.
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), Error> {
        match pidfd_send_signal(&self.fd, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(e) => Err(io("signal process", &self.identity, e)),
        }
    }

    /// Waits until the process has ended, for `patience` at most. Says whether it has.
    pub(crate) fn wait(&self, patience: Duration) -> bool {
        wait_readable(&self.fd, patience, None) == Ok(true)
    }

    fn kill(&self) -> Result<Stopped, Error> {
        self.signal(Signal::KILL)?;
        if self.wait(AFTER_KILL) {
            return Ok(Stopped::Killed);
        }
        let pid = self.identity.pid;
        Err(Error::Unkillable { pid, state: describe(pid) })
    }
}

/// What it took to stop a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// It had ended before.
    AlreadyGone,
    /// TERM was enough.
    OnTerm,
    /// KILL ended it.
    Killed,
}

/// Ends a process that need not be a child: TERM, and KILL if it is still there when `patience` is over.
pub(crate) fn stop(identity: Identity, patience: impl Into<Patience>) -> Result<Stopped, Error> {
    let Some(process) = identity.open()? else {
        return Ok(Stopped::AlreadyGone);
    };
    process.signal(Signal::TERM)?;
    let (begun, mut patience) = (Instant::now(), patience.into());
    loop {
        let left = patience.left();
        if process.wait(left.min(LOOK_EVERY)) {
            return Ok(Stopped::OnTerm);
        }
        if left.is_zero() {
            break;
        }
    }
    log::warn!(
        "process {} ignored TERM for {}; sending KILL. It is {}",
        identity.pid,
        human(begun.elapsed()),
        describe(identity.pid)
    );
    process.kill()
}

/// Kills a process that need not be a child: it does nothing more, not even what it does on TERM.
pub(crate) fn kill(identity: Identity) -> Result<Stopped, Error> {
    identity.open()?.map_or(Ok(Stopped::AlreadyGone), |process| process.kill())
}

/// What process `pid` is doing, for a diagnostic: its state, how much of the processor it has had, and where in the
/// kernel it waits.
pub(crate) fn describe(pid: u32) -> String {
    let Some(stat) = Stat::of(pid) else {
        return "gone".to_owned();
    };
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let mut text = format!("{} {pid} state {}", stat.comm, stat.state);
    let _ = write!(text, ", {:.1} s of processor time", from_ticks(stat.ticks).as_secs_f64());
    let channel = read("wchan");
    if !["", "0"].contains(&channel.trim()) {
        let _ = write!(text, ", waiting in {}", channel.trim());
    }
    // The number of the system call that it is in.
    if let Some(call) = read("syscall").split_whitespace().next().filter(|call| *call != "running") {
        let _ = write!(text, ", system call {call}");
    }
    let stack = read("stack");
    let frames = stack.lines().filter_map(|line| line.split_whitespace().nth(1)?.split('+').next());
    let frames: Vec<&str> = frames.take(FRAMES).collect();
    if !frames.is_empty() {
        let _ = write!(text, ", kernel stack {}", frames.join(" < "));
    }
    text
}

/// Waits until `fd` is readable (`true`) or `patience` is over (`false`).
pub(super) fn wait_readable(fd: &OwnedFd, patience: Duration, cancel: Option<&Cancel>) -> Result<bool, Cancelled> {
    use std::os::fd::AsFd;

    let end = Instant::now() + patience;
    loop {
        let mut fds = vec![PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
        fds.extend(cancel.map(|cancel| PollFd::new(cancel.as_fd(), PollFlags::POLLIN)));
        let left = end.saturating_duration_since(Instant::now());
        // Interrupted or early: the loop looks again.
        let _ = poll(&mut fds, timeout(left));
        if fds[0].any() == Some(true) {
            return Ok(true);
        }
        if let Some(cancel) = cancel {
            cancel.check()?;
        }
        if left.is_zero() {
            return Ok(false);
        }
    }
}

fn from_ticks(ticks: u64) -> Duration {
    Duration::from_millis(ticks.saturating_mul(1000) / rustix::param::clock_ticks_per_second().max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::progress::LEAST;
    use proptest::prelude::*;
    use std::process::Command;

    #[test]
    fn this_process_is_alive() {
        let me = Identity::current().unwrap();
        assert!(me.is_alive());
        assert_eq!(me.to_string().parse::<Identity>().unwrap(), me);
    }

    #[test]
    fn another_start_time_is_another_process() {
        let mut child = Command::new("/bin/sleep").arg("60").spawn().unwrap();
        let identity = Identity::of(child.id()).unwrap();
        let other = Identity { start: identity.start + 1, ..identity };
        assert_eq!(stop(other, Duration::ZERO).unwrap(), Stopped::AlreadyGone);
        assert!(identity.is_alive(), "a reused id must never be hit");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn term_ends_a_process_and_kill_one_that_ignores_it() {
        let mut plain = Command::new("/bin/sleep").arg("60").spawn().unwrap();
        let patience = Duration::from_secs(20);
        let identity = Identity::of(plain.id()).unwrap();
        assert_eq!(stop(identity, patience).unwrap(), Stopped::OnTerm);
        assert!(!identity.is_alive(), "a zombie is not alive");
        plain.wait().unwrap();

        let script = "trap '' TERM; echo; exec sleep 60";
        let mut deaf =
            Command::new("/bin/sh").args(["-c", script]).stdout(std::process::Stdio::piped()).spawn().unwrap();
        std::io::Read::read_exact(deaf.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        let identity = Identity::of(deaf.id()).unwrap();
        assert_eq!(stop(identity, Duration::from_millis(100)).unwrap(), Stopped::Killed);
        deaf.wait().unwrap();
    }

    #[test]
    fn a_killed_process_does_nothing_more() {
        let dir = tempfile::tempdir().unwrap();
        let written = dir.path().join("written");
        let script = format!("trap 'echo stored > {}; exit' TERM; echo; sleep 60 & wait", written.display());
        let mut orderly =
            Command::new("/bin/sh").args(["-c", &script]).stdout(std::process::Stdio::piped()).spawn().unwrap();
        std::io::Read::read_exact(orderly.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        let identity = Identity::of(orderly.id()).unwrap();
        assert_eq!(kill(identity).unwrap(), Stopped::Killed);
        orderly.wait().unwrap();
        assert!(!written.exists(), "it was told to end in order");
        assert_eq!(kill(identity).unwrap(), Stopped::AlreadyGone);
    }

    #[test]
    fn what_a_process_does_is_said() {
        let mut busy = Command::new("/bin/sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        let busy_for = || Stat::of(busy.id()).unwrap().ticks;
        while busy_for() < 5 {
            std::thread::sleep(Duration::from_millis(10));
        }
        let text = describe(busy.id());
        assert!(text.starts_with(&format!("sh {} state R, 0.", busy.id())), "{text}");
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(i32::try_from(busy.id()).unwrap()),
            nix::sys::signal::SIGSTOP,
        )
        .unwrap();
        while Stat::of(busy.id()).unwrap().state != 'T' {
            std::thread::sleep(Duration::from_millis(10));
        }
        let text = describe(busy.id());
        assert!(text.contains(" state T, ") && text.contains("waiting in do_signal_stop"), "{text}");
        let patience = Duration::from_millis(50);
        assert_eq!(stop(Identity::of(busy.id()).unwrap(), patience).unwrap(), Stopped::Killed);
        busy.wait().unwrap();
        assert_eq!(describe(u32::MAX), "gone");
    }

    #[test]
    fn a_thread_that_waits_for_a_disk_is_told_by_its_state() {
        let status = |state: &str| {
            format!("Name:\tx D\nState:\t{state}\nvoluntary_ctxt_switches:\t17\nnonvoluntary_ctxt_switches:\t25\n")
        };
        assert_eq!(runs_if_waiting(&status("D (disk sleep)")), Some(42));
        assert_eq!(runs_if_waiting(&status("S (sleeping)")), None);
        assert_eq!(runs_if_waiting(""), None);
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_work_of_a_process_is_seen() {
        let name = "a-busy-program";
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join(name);
        std::fs::copy("/bin/sh", &program).unwrap();
        let run = |script: &str| std::process::Command::new(&program).args(["-c", script]).spawn().unwrap();
        let mut busy = run("while :; do :; done");
        let (begun, before) = (Instant::now(), work_of(name));
        while work_of(name) - before < LEAST {
            assert!(begun.elapsed() < SECOND * 60, "no work seen");
            std::thread::sleep(SECOND / 50);
        }
        busy.kill().unwrap();
        busy.wait().unwrap();

        let mut still = run("kill -STOP $$");
        while Stat::of(still.id()).unwrap().state != 'T' {
            std::thread::sleep(SECOND / 50);
        }
        let mut patience = Patience::with(name, Allowance { still: SECOND / 2, most: SECOND * 60 });
        let begun = Instant::now();
        while !patience.left().is_zero() {
            std::thread::sleep(SECOND / 50);
        }
        assert!(begun.elapsed() < SECOND * 30, "{:?}", begun.elapsed());
        still.kill().unwrap();
        still.wait().unwrap();
    }

    proptest! {
        #[test]
        fn any_program_name_is_read(comm in "[ -~]{0,15}", pid: u32, parent: u32, group: u32, start: u64) {
            let text = format!("{pid} ({comm}) S {parent} {group} 0 0 0 0 0 0 0 0 4 3 0 0 0 0 0 0 {start} 0 0\n");
            let stat = Stat::parse(&text).unwrap();
            prop_assert_eq!(stat, Stat { comm, state: 'S', parent, group, ticks: 7, start });
        }

        #[test]
        fn garbage_is_refused_without_a_panic(text: String) {
            let _ = Stat::parse(&text);
        }
    }
}
