//! One promotion or demotion of an instance at a time on a machine; the last one asked for decides.
//!
//! A hook asks by writing a [`Ticket`], which takes the place of any earlier one: the order of the writes is the order
//! of the calls. The background work that carries the newest ticket tells the run that holds the lock to roll back and end,
//! and takes it; work whose ticket was replaced gives up. So of any number of calls the last one acts, and never two
//! at once.

mod ticket;

use std::fmt;
use std::fs::File;
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};

use crate::instance::Instance;
use crate::machine::outcome::RunKind;
use crate::sys::cancel::{Cancel, Cancelled};
use crate::sys::folder::{self, Folder};
use crate::sys::json_file;
use crate::sys::logging::chain;
use crate::sys::process::Identity;
use crate::sys::progress::Patience;
use crate::sys::text::human;
use crate::timing;
use crate::ucarp::Ucarp;

pub(crate) use ticket::Ticket;

const LOCK: &str = "lock";
const TICKET: &str = "ticket";
/// The mutex of the hooks.
const HOOK_MUTEX: &str = "hook";
/// Held by a rehearsal, in the same form as the lock.
const REHEARSAL: &str = "rehearsal";
/// How often a waiting run looks whether the lock is free.
const STEP: Duration = Duration::from_millis(20);
/// What failed, on which object, and why.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A system call failed.
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
    /// The lock's folder cannot be opened.
    #[error(transparent)]
    Folder(#[from] folder::Error),
    /// Another user could write into the folder.
    #[error("{path} can be written by others than root (owner {owner}, mode {mode:o}); remove it")]
    Unsafe {
        /// The folder.
        path: String,
        /// Its owner's id.
        owner: u32,
        /// Its permissions.
        mode: u32,
    },
    /// A later call decides.
    #[error("superseded by a later call")]
    Superseded,
    /// Another run goes on.
    #[error("a {kind} has been running for {} (pid {pid})", human(*since))]
    Busy {
        /// Its process.
        pid: u32,
        /// What it does.
        kind: RunKind,
        /// For how long.
        since: Duration,
    },
    /// The work was told to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// Text that should be a ticket is not.
    #[error("{text:?} is not a ticket")]
    NotATicket {
        /// The text.
        text: String,
    },
}

/// The file with the last ucarp that called a hook for this address.
fn ucarp_of(vip: Ipv4Addr) -> String {
    format!("ucarp-{vip}.json")
}

/// Who holds the lock: the line in the lock file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Holder {
    identity: Identity,
    kind: RunKind,
    /// Nanoseconds since boot.
    since: u64,
}

impl Holder {
    fn held_for(&self) -> Duration {
        since_boot().saturating_sub(Duration::from_nanos(self.since))
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let identity = words.next()?.parse().ok()?;
        let Ticket { kind, issued: since, .. } = words.next()?.parse().ok()?;
        Some(Self { identity, kind, since })
    }
}

/// A run at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AtWork {
    /// Its process.
    pub(crate) pid: u32,
    /// What it does.
    pub(crate) kind: RunKind,
    /// For how long.
    pub(crate) since: Duration,
}

/// The folder with the lock and the newest ticket.
#[derive(Debug, Clone)]
pub(crate) struct Locks {
    folder: Arc<Folder>,
}

impl Locks {
    /// Those of an instance of this machine.
    pub(crate) fn of(instance: &Instance) -> Result<Self, Error> {
        if instance.name().is_some() {
            Self::open(&Instance::default().run_folder())?;
        }
        Self::open(&instance.run_folder())
    }

    /// The ones in the folder at `path`, which is made if it is absent.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        match rustix::fs::mkdir(path, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(io("make folder", path.display(), e)),
        }
        let folder = Folder::open(path)?;
        let status = rustix::fs::fstat(&folder).map_err(|e| io("look at", path.display(), e))?;
        if status.st_uid != rustix::process::geteuid().as_raw() || status.st_mode & 0o022 != 0 {
            return Err(Error::Unsafe {
                path: path.display().to_string(),
                owner: status.st_uid,
                mode: status.st_mode & 0o7777,
            });
        }
        Ok(Self { folder: Arc::new(folder) })
    }

    /// Keeps the ucarp that called a hook for `vip`: when it is gone, a hook that something else calls still knows its
    /// options.
    pub(crate) fn remember_ucarp(&self, vip: Ipv4Addr, ucarp: &Ucarp) {
        if let Err(e) = json_file::write(&self.folder, ucarp_of(vip).as_ref(), ucarp) {
            log::warn!("{}", chain(&e));
        }
    }

    /// The last ucarp that called a hook for `vip` since the machine was booted.
    pub(crate) fn last_ucarp(&self, vip: Ipv4Addr) -> Option<Ucarp> {
        let read = json_file::read(&self.folder, ucarp_of(vip).as_ref());
        read.inspect_err(|e| log::warn!("{}", chain(e))).ok().flatten()
    }

    /// Tries whether a call could be written here.
    pub(crate) fn try_write(&self) -> Result<(), Error> {
        Ok(self.folder.try_write(format!("trial.{}", std::process::id()).as_ref())?)
    }

    /// To be held by a hook from before it changes the address until its request is written. Hooks that two processes start
    /// at once would otherwise change the address in one order and ask in the other, and the address would stay where the
    /// last request is for a demotion.
    ///
    /// `None`, with a warning, if another hook holds it for too long or it cannot be taken: the address is more urgent then.
    pub(crate) fn hook_mutex(&self) -> Option<HookMutex> {
        match self.folder.lock(HOOK_MUTEX.as_ref(), timing::HOOK_MUTEX) {
            Ok(Some(file)) => return Some(HookMutex { _file: file }),
            Ok(None) => log::warn!(
                "another hook has held the mutex for more than {}; continuing without it",
                human(timing::HOOK_MUTEX)
            ),
            Err(e) => log::warn!("{}; continuing without the mutex of the hooks", chain(&e)),
        }
        None
    }

    /// Asks for `kind`: from here on this is the newest request. Takes no lock, so it never waits.
    pub(crate) fn ask(&self, kind: RunKind) -> Result<Ticket, Error> {
        let ticket = Ticket::new(kind);
        // Written aside and moved in whole: a reader finds the old one or the new one.
        let aside = format!("{TICKET}.{}.{}", ticket.pid, ticket.issued);
        let mut file = self.open_file(&aside, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)?;
        let written = file.write_all(ticket.to_string().as_bytes());
        let moved = written.map_err(|e| io("write", &aside, e)).and_then(|()| {
            rustix::fs::renameat(&*self.folder, &aside, &*self.folder, TICKET).map_err(|e| io("rename", &aside, e))
        });
        if moved.is_err() {
            let _ = self.folder.remove(aside.as_ref());
        }
        moved.map(|()| ticket)
    }

    /// The request that `ticket` stands for.
    pub(crate) fn request(self, ticket: Ticket) -> Request {
        Request { locks: self, ticket: Some(ticket) }
    }

    /// Takes the lock for `ticket`. A run that holds it is told to end, and waited for.
    ///
    /// [`Error::Superseded`] as soon as there is a newer ticket; [`Error::Busy`] after `patience`, which is asked for only if
    /// another run holds it.
    pub(crate) fn acquire<P: Into<Patience>>(
        self,
        ticket: &Ticket,
        patience: impl Fn() -> P,
        cancel: &Cancel,
    ) -> Result<Lock, Error> {
        let file = self.lock_file()?;
        let (mut told, mut waiting): (_, Option<Patience>) = (None, None);
        loop {
            if self.newest()?.is_some_and(|newest| newest != *ticket) {
                return Err(Error::Superseded);
            }
            if try_lock(&file)? {
                return self.hold(file, ticket.kind, Some(*ticket));
            }
            let holder = read_holder(&file);
            // Asked after the holder was read: if this ticket is the newest still, the holder's is an older one.
            if self.newest()?.is_some_and(|newest| newest != *ticket) {
                return Err(Error::Superseded);
            }
            let untold = holder.filter(|holder| told != Some(*holder));
            untold.iter().for_each(tell_to_end);
            told = untold.or(told);
            let patience = waiting.get_or_insert_with(|| patience().into());
            if let Some(Holder { kind, identity, .. }) = untold {
                let most = human(patience.allowance().most);
                log::info!("stopping the running {kind} (pid {}); waiting for it for {most} at most", identity.pid);
            }
            if patience.left().is_zero() {
                return Err(busy(holder));
            }
            cancel.sleep(STEP)?;
        }
    }

    /// Takes the lock if it is free, for a run by hand: it disturbs no other run, and a later hook still comes first.
    pub(crate) fn acquire_if_free(self, kind: RunKind) -> Result<Lock, Error> {
        let file = self.lock_file()?;
        if try_lock(&file)? {
            let newest = self.newest()?;
            self.hold(file, kind, newest)
        } else {
            Err(busy(read_holder(&file)))
        }
    }

    /// The promotion or demotion that is at work now.
    pub(crate) fn at_work(&self) -> Result<Option<AtWork>, Error> {
        let holder = read_holder(&self.lock_file()?).filter(|holder| holder.identity.is_alive());
        Ok(holder.map(|holder| AtWork { pid: holder.identity.pid, kind: holder.kind, since: holder.held_for() }))
    }

    /// Whether another process holds it.
    pub(crate) fn another_works(&self) -> bool {
        self.at_work().is_ok_and(|at_work| at_work.is_some_and(|at_work| at_work.pid != std::process::id()))
    }

    fn hold(self, file: File, kind: RunKind, ticket: Option<Ticket>) -> Result<Lock, Error> {
        write_holder(&file, kind)?;
        let lock = Lock { request: Request { locks: self, ticket }, file };
        if lock.superseded() {
            return Err(Error::Superseded);
        }
        if kind == RunKind::Promotion {
            lock.request.locks.end_rehearsal();
        }
        Ok(lock)
    }

    /// The right to rehearse, for one at a time. No promotion waits for it: the run that takes the lock for one tells the
    /// rehearsal to end, and goes on at once. [`Error::Busy`] while another rehearsal or a promotion runs.
    pub(crate) fn rehearse(&self) -> Result<Rehearsing, Error> {
        let Some(rehearsing) = self.no_rehearsal()? else {
            let file = self.open_file(REHEARSAL, OFlags::RDONLY)?;
            return Err(busy(read_holder(&file)));
        };
        write_holder(&rehearsing.file, RunKind::Rehearsal)?;
        // Written first, looked after: of a rehearsal and a promotion that begin together one sees the other.
        let holder = read_holder(&self.lock_file()?).filter(|holder| holder.identity.is_alive());
        match holder {
            Some(holder) if holder.kind == RunKind::Promotion => Err(busy(Some(holder))),
            _ => Ok(rehearsing),
        }
    }

    /// A hold on there being no rehearsal; `None` if one runs.
    pub(crate) fn no_rehearsal(&self) -> Result<Option<Rehearsing>, Error> {
        let file = self.open_file(REHEARSAL, OFlags::RDWR | OFlags::CREATE)?;
        Ok(try_lock(&file)?.then_some(Rehearsing { file }))
    }

    /// Tells a running rehearsal to end, and does not wait for that.
    fn end_rehearsal(&self) {
        let Ok(file) = self.open_file(REHEARSAL, OFlags::RDONLY) else { return };
        if let Some(holder) = read_holder(&file).filter(|holder| holder.identity.is_alive()) {
            log::info!("stopping the running rehearsal (pid {})", holder.identity.pid);
            tell_to_end(&holder);
        }
    }

    /// The newest ticket; none if there was no call since the machine started.
    fn newest(&self) -> Result<Option<Ticket>, Error> {
        let mut text = String::new();
        let read = match self.folder.read(TICKET.as_ref()) {
            Ok(mut file) => std::io::Read::read_to_string(&mut file, &mut text),
            Err(e) if e.is_not_found() => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        read.map_err(|e| io("read", TICKET, e))?;
        text.parse().map(Some)
    }

    fn lock_file(&self) -> Result<File, Error> {
        self.open_file(LOCK, OFlags::RDWR | OFlags::CREATE)
    }

    fn open_file(&self, name: &str, flags: OFlags) -> Result<File, Error> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let fd = rustix::fs::openat(&*self.folder, name, flags, mode).map_err(|e| io("open", name, e))?;
        Ok(File::from(fd))
    }
}

/// The lock, held. Dropping it releases it.
#[derive(Debug)]
pub(crate) struct Lock {
    request: Request,
    file: File,
}

impl Lock {
    /// The request that it was taken for.
    pub(crate) fn request(&self) -> &Request {
        &self.request
    }

    /// Whether a newer request has arrived: time to roll back and end.
    pub(crate) fn superseded(&self) -> bool {
        self.request.superseded()
    }

    /// Releases the lock, and keeps the request: the transition is over, and this process stays in its role.
    pub(crate) fn release(self) -> Request {
        // This process lives on and must not be taken for one at work.
        if let Err(e) = self.file.set_len(0) {
            log::warn!("cannot clear the lock file, which still names this process: {e}");
        }
        self.request
    }
}

/// A request's place in the order of requests; it outlives the lock.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    locks: Locks,
    /// The newest ticket when the lock was taken.
    ticket: Option<Ticket>,
}

impl Request {
    /// Whether a newer request has arrived. If that cannot be read, none has: TERM comes along with it.
    pub(crate) fn superseded(&self) -> bool {
        match self.locks.newest() {
            Ok(newest) => newest.is_some() && newest != self.ticket,
            Err(e) => {
                log::warn!("cannot read the newest request: {}", chain(&e));
                false
            }
        }
    }

    /// The mutex of the hooks, for background work that is about to change the address: the answer of
    /// [`Request::superseded`] stays true while it is held.
    pub(crate) fn hook_mutex(&self) -> Option<HookMutex> {
        self.locks.hook_mutex()
    }

    /// Asks for `kind` in the place of a hook: no ucarp is left that would call it.
    pub(crate) fn ask(&self, kind: RunKind) -> Result<Ticket, Error> {
        self.locks.ask(kind)
    }
}

/// The mutex of the hooks, held. Dropping it releases it.
#[derive(Debug)]
pub(crate) struct HookMutex {
    _file: File,
}

/// The right to rehearse, or the right to keep others from rehearsing. Dropping it releases it.
#[derive(Debug)]
pub(crate) struct Rehearsing {
    file: File,
}

fn try_lock(file: &File) -> Result<bool, Error> {
    match rustix::fs::flock(file.as_fd(), FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK | Errno::INTR) => Ok(false),
        Err(e) => Err(io("lock", LOCK, e)),
    }
}

/// Writes this process into a lock file that it holds.
fn write_holder(file: &File, kind: RunKind) -> Result<(), Error> {
    let identity = Identity::current().ok_or_else(|| {
        let source = std::io::Error::from(std::io::ErrorKind::NotFound);
        io("read", "/proc/self/stat", source)
    })?;
    // Where a ticket has the time of asking, this has the time of taking.
    let line = format!("{identity} {}\n", Ticket::new(kind));
    // Longer first, cut after: no moment without a holder in the file.
    file.write_all_at(line.as_bytes(), 0)
        .and_then(|()| file.set_len(line.len() as u64))
        .map_err(|e| io("write", LOCK, e))
}

fn read_holder(file: &File) -> Option<Holder> {
    let mut bytes = [0; 256];
    let length = file.read_at(&mut bytes, 0).ok()?;
    let text = std::str::from_utf8(&bytes[..length]).ok()?;
    Holder::parse(text.lines().next()?)
}

/// TERM to the holder, if it is still the process that took the lock. The wait for the lock shows whether it worked.
fn tell_to_end(holder: &Holder) {
    let told = holder.identity.open().and_then(|process| match process {
        Some(process) => process.signal(Signal::TERM),
        None => Ok(()),
    });
    if let Err(e) = told {
        log::warn!("{}", chain(&e));
    }
}

fn busy(holder: Option<Holder>) -> Error {
    // A holder that has not written its name yet has just begun.
    Error::Busy {
        pid: holder.map_or(0, |holder| holder.identity.pid),
        kind: holder.map_or(RunKind::Promotion, |holder| holder.kind),
        since: holder.map_or(Duration::ZERO, |holder| holder.held_for()),
    }
}

/// The time since this machine was booted.
pub(super) fn since_boot() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default()
}

fn io(operation: &'static str, object: impl fmt::Display, source: impl Into<std::io::Error>) -> Error {
    Error::Io { operation, object: object.to_string(), source: source.into() }
}

#[cfg(test)]
mod storm;
#[cfg(test)]
mod tests;
