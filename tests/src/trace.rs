//! Traces one process, to kill it or to make it fail at any system call that changes something.
//!
//! ptrace rather than strace: calls are counted over all threads of the process in the order in which they are made,
//! children are left alone, and a short write is a real one: the kernel is given a smaller count. x86-64 only.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::Result;
use crate::error::system;

/// What happens at the chosen call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The process is killed instead of making the call; its children live on.
    Kill,
    /// Everything is killed instead, and what was written to files and not flushed is lost.
    PowerCut,
    /// The call fails: the disk is broken.
    Eio,
    /// The call fails: the disk is full.
    Enospc,
    /// Half of it is written.
    Short,
    /// Half of it is written, and then the disk is full.
    ShortThenFull,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Kill, Self::PowerCut, Self::Eio, Self::Enospc, Self::Short, Self::ShortThenFull];

    /// Whether it can happen at such a call.
    pub fn applies_to(self, kind: Kind) -> bool {
        match self {
            Self::Kill | Self::PowerCut => true,
            Self::Eio => kind != Kind::Process,
            Self::Enospc => matches!(kind, Kind::Write | Kind::Room),
            Self::Short | Self::ShortThenFull => kind == Kind::Write,
        }
    }
}

/// What a call changes, as far as it matters for what can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Writes into a file.
    Write,
    /// Needs room on the disk otherwise: makes a file or a folder, renames, flushes.
    Room,
    /// Changes files and needs no room.
    File,
    /// Processes, signals, addresses.
    Process,
}

/// A call that changes something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its name, and the file where that is known.
    pub what: String,
    /// Its kind.
    pub kind: Kind,
}

/// What was seen of a process.
#[derive(Debug, Default)]
pub struct Seen {
    /// The calls up to the fault, in order.
    pub calls: Vec<Call>,
    /// Whether the fault was injected.
    pub injected: bool,
    /// The files that were written and not flushed (device and inode).
    pub unflushed: BTreeSet<(u64, u64)>,
}

/// A traced process. The thread that attached it must call all of its methods.
#[derive(Debug)]
pub(crate) struct Traced {
    leader: Pid,
    fault: Option<(Fault, usize)>,
    threads: HashMap<Pid, Entered>,
    /// Whether the program is the one that is meant, and not the shell that starts it.
    begun: bool,
    /// After a short write: the file whose next write finds the disk full.
    full: Option<(u64, u64)>,
    /// How often something was to be made that was there.
    there: HashMap<String, usize>,
    seen: Seen,
}

/// A loop that looks around makes its folder and opens its lock each time: so often that counts.
const MADE_AGAIN: usize = 2;

/// A call that a thread is in.
#[derive(Debug, Default, Clone, Copy)]
enum Entered {
    #[default]
    No,
    Plain,
    Failing(Errno),
    Writing((u64, u64)),
    Flushing((u64, u64)),
}

impl Traced {
    /// Attaches to a shell that waits and then executes the program.
    pub(crate) fn attach(leader: Pid, fault: Option<(Fault, usize)>) -> Result<Self> {
        let options = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_EXITKILL;
        ptrace::seize(leader, options).map_err(system(format!("trace process {leader}")))?;
        ptrace::interrupt(leader).map_err(system(format!("stop process {leader}")))?;
        let (threads, there, seen) = (HashMap::new(), HashMap::new(), Seen::default());
        Ok(Self { leader, fault, threads, begun: false, full: None, there, seen })
    }

    /// Traces it to its end; `cut` cuts the power of its machine.
    pub(crate) fn run(mut self, cut: impl Fn()) -> Result<Seen> {
        let any = Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD);
        loop {
            let (pid, signal) = match waitpid(None, any) {
                Ok(WaitStatus::PtraceSyscall(pid)) => {
                    self.syscall(pid, &cut);
                    (pid, None)
                }
                Ok(WaitStatus::PtraceEvent(pid, _, libc::PTRACE_EVENT_EXEC)) => {
                    self.begun = true;
                    self.threads.insert(pid, Entered::Plain);
                    (pid, None)
                }
                Ok(WaitStatus::PtraceEvent(pid, ..)) => (pid, None),
                Ok(WaitStatus::Stopped(pid, signal)) => (pid, Some(signal)),
                Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)) if pid == self.leader => {
                    return Ok(self.seen);
                }
                Ok(_) | Err(Errno::EINTR) => continue,
                // The last of its threads was collected by its parent.
                Err(Errno::ECHILD) => return Ok(self.seen),
                Err(errno) => return Err(system("wait for the traced process")(errno)),
            };
            // One that was killed meanwhile is gone, and says so next.
            let _ = ptrace::syscall(pid, signal);
        }
    }

    fn syscall(&mut self, thread: Pid, cut: &impl Fn()) {
        match self.threads.insert(thread, Entered::No).unwrap_or_default() {
            Entered::No => {
                let entered = if self.begun { self.enter(thread, cut) } else { Entered::Plain };
                self.threads.insert(thread, entered);
            }
            Entered::Plain => (),
            Entered::Failing(errno) => {
                if let Ok(mut registers) = ptrace::getregs(thread) {
                    registers.rax = u64::from((errno as u32).wrapping_neg()) | (u64::from(u32::MAX) << 32);
                    let _ = ptrace::setregs(thread, registers);
                }
            }
            Entered::Writing(file) => {
                self.seen.unflushed.insert(file);
            }
            Entered::Flushing(file) => {
                self.seen.unflushed.remove(&file);
            }
        }
    }

    /// A thread is about to make a call.
    fn enter(&mut self, thread: Pid, cut: &impl Fn()) -> Entered {
        let Ok(mut registers) = ptrace::getregs(thread) else { return Entered::Plain };
        let Some(Looked { call, file }) = look(thread, &registers) else { return Entered::Plain };
        let kind = call.kind;
        if is_there(thread, &registers) {
            let times = self.there.entry(call.what.clone()).or_default();
            *times += 1;
            if *times > MADE_AGAIN {
                return Entered::Plain;
            }
        }
        let flushing = call.what.starts_with("fsync") || call.what.starts_with("fdatasync");
        self.seen.calls.push(call);
        let mut fault = None;
        if let Some((wanted, number)) = self.fault {
            if !self.seen.injected && self.seen.calls.len() > number && wanted.applies_to(kind) {
                self.seen.injected = true;
                fault = Some(wanted);
            }
        }
        if self.full.is_some() && self.full == file && kind == Kind::Write {
            self.full = None;
            fault = Some(Fault::Enospc);
        }
        match fault {
            Some(Fault::Kill) => drop(kill(self.leader, Signal::SIGKILL)),
            Some(Fault::PowerCut) => cut(),
            Some(Fault::Eio | Fault::Enospc) => {
                // No such call: the kernel makes none.
                registers.orig_rax = u64::MAX;
                let _ = ptrace::setregs(thread, registers);
                return Entered::Failing(if fault == Some(Fault::Eio) { Errno::EIO } else { Errno::ENOSPC });
            }
            Some(Fault::Short | Fault::ShortThenFull) => {
                registers.rdx = (registers.rdx / 2).max(1);
                let _ = ptrace::setregs(thread, registers);
                self.full = file.filter(|_| fault == Some(Fault::ShortThenFull));
            }
            None => (),
        }
        match file {
            Some(file) if flushing => Entered::Flushing(file),
            Some(file) if kind == Kind::Write => Entered::Writing(file),
            _ => Entered::Plain,
        }
    }
}

struct Looked {
    call: Call,
    file: Option<(u64, u64)>,
}

/// Whether a call changes something, and what.
fn look(thread: Pid, registers: &libc::user_regs_struct) -> Option<Looked> {
    const FICLONE: u64 = 0x4004_9409;
    let (first, second, third, fourth) = (registers.rdi, registers.rsi, registers.rdx, registers.r10);
    let call = |what: String, kind| Some(Looked { call: Call { what, kind }, file: None });
    let named = |name: &str, at, kind| call(format!("{name} {}", text(thread, at)), kind);
    let on_file = |name: &str, kind| {
        let (path, file) = opened(thread, first)?;
        Some(Looked { call: Call { what: format!("{name} {path}"), kind }, file: Some(file) })
    };
    match i64::try_from(registers.orig_rax).ok()? {
        libc::SYS_write if is_named_fifo(thread, first) => call("write to a FIFO".to_owned(), Kind::Process),
        // The standard descriptors are for the administrator.
        libc::SYS_write | libc::SYS_pwrite64 if first > 2 && third > 0 => on_file("write", Kind::Write),
        libc::SYS_writev if first > 2 => on_file("writev", Kind::File),
        libc::SYS_copy_file_range => call("copy_file_range".to_owned(), Kind::Room),
        libc::SYS_openat if third & (libc::O_CREAT as u64) != 0 => named("create", second, Kind::Room),
        libc::SYS_openat if third & (libc::O_TMPFILE as u64) == libc::O_TMPFILE as u64 => {
            named("tmpfile", second, Kind::Room)
        }
        libc::SYS_mkdir => named("mkdir", first, Kind::Room),
        libc::SYS_mkdirat => named("mkdirat", second, Kind::Room),
        libc::SYS_rename => named("rename", first, Kind::Room),
        libc::SYS_renameat | libc::SYS_renameat2 => {
            call(format!("rename {} to {}", text(thread, second), text(thread, fourth)), Kind::Room)
        }
        libc::SYS_unlink | libc::SYS_rmdir => named("unlink", first, Kind::File),
        libc::SYS_unlinkat => named("unlinkat", second, Kind::File),
        libc::SYS_fsync => on_file("fsync", Kind::Room),
        libc::SYS_fdatasync => on_file("fdatasync", Kind::Room),
        libc::SYS_ftruncate => on_file("ftruncate", Kind::File),
        libc::SYS_fchown => on_file("fchown", Kind::File),
        libc::SYS_fchmod => on_file("fchmod", Kind::File),
        libc::SYS_ioctl if second & 0xffff_ffff == FICLONE => on_file("clone", Kind::Room),
        libc::SYS_kill | libc::SYS_pidfd_send_signal if second != 0 => call(format!("signal {second}"), Kind::Process),
        libc::SYS_vfork | libc::SYS_fork => call("start a child".to_owned(), Kind::Process),
        libc::SYS_clone if first & (libc::CLONE_THREAD as u64) == 0 => call("start a child".to_owned(), Kind::Process),
        libc::SYS_clone3 if word(thread, first)? & (libc::CLONE_THREAD as u64) == 0 => {
            call("start a child".to_owned(), Kind::Process)
        }
        libc::SYS_sendto => match u16::try_from(word(thread, second + 4)? & 0xffff).ok()? {
            // Of the kernel's messages about addresses those that change one.
            message @ (libc::RTM_NEWADDR | libc::RTM_DELADDR) if is_netlink(thread, first) => {
                call(format!("address message {message}"), Kind::Process)
            }
            _ => None,
        },
        _ => None,
    }
}

/// Whether a call would make a file or a folder that is there.
fn is_there(thread: Pid, registers: &libc::user_regs_struct) -> bool {
    let made = [libc::SYS_openat, libc::SYS_mkdirat].map(|call| u64::try_from(call).unwrap_or_default());
    if !made.contains(&registers.orig_rax) {
        return false;
    }
    let name = text(thread, registers.rsi);
    let here = u64::from(u32::from_ne_bytes(libc::AT_FDCWD.to_ne_bytes()));
    let folder = match registers.rdi & 0xffff_ffff {
        _ if name.starts_with('/') => format!("/proc/{thread}/root"),
        folder if folder == here => format!("/proc/{thread}/cwd/"),
        folder => format!("/proc/{thread}/fd/{folder}/"),
    };
    fs::symlink_metadata(folder + &name).is_ok()
}

/// The path and the identity of an open file or folder on a disk.
fn opened(thread: Pid, descriptor: u64) -> Option<(String, (u64, u64))> {
    let link = format!("/proc/{thread}/fd/{}", i32::try_from(descriptor).ok()?);
    let path = fs::read_link(&link).ok()?.to_string_lossy().into_owned();
    let status = fs::metadata(&link).ok()?;
    let special = status.file_type().is_socket() || status.file_type().is_fifo() || status.file_type().is_char_device();
    let on_disk = !special && path.starts_with('/') && !path.starts_with("/memfd:") && !path.starts_with("/proc/");
    on_disk.then_some((path, (status.dev(), status.ino())))
}

/// Whether a descriptor is a FIFO with a name: who reads it acts on what is written.
fn is_named_fifo(thread: Pid, descriptor: u64) -> bool {
    let link = format!("/proc/{thread}/fd/{descriptor}");
    fs::read_link(&link).is_ok_and(|path| path.starts_with("/"))
        && fs::metadata(&link).is_ok_and(|status| status.file_type().is_fifo())
}

fn is_netlink(thread: Pid, descriptor: u64) -> bool {
    let inode = fs::read_link(format!("/proc/{thread}/fd/{descriptor}")).ok();
    let inode = inode.and_then(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()));
    let table = fs::read_to_string(format!("/proc/{thread}/net/netlink")).unwrap_or_default();
    inode.is_some_and(|inode| table.lines().any(|line| line.split_whitespace().next_back() == Some(&inode)))
}

fn word(thread: Pid, address: u64) -> Option<u64> {
    ptrace::read(thread, address as ptrace::AddressType).ok().map(|word| u64::from_ne_bytes(word.to_ne_bytes()))
}

/// The text at an address of the process, up to its end mark.
fn text(thread: Pid, address: u64) -> String {
    const LONGEST: u64 = 256;
    let mut bytes = Vec::new();
    for at in (0..LONGEST).step_by(8) {
        let Some(word) = word(thread, address + at) else { break };
        let word = word.to_ne_bytes();
        let end = word.iter().position(|byte| *byte == 0);
        bytes.extend_from_slice(&word[..end.unwrap_or(word.len())]);
        if end.is_some() {
            break;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
