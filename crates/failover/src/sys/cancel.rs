//! "Stop working": a signal turned into a flag that every wait looks at.
//!
//! A promotion that is told to stop must not die where it stands: it rolls back first. So TERM, INT and HUP do not end
//! the process; they set this flag, and every wait (for packets, children, time) ends early when it is set. Work that is
//! done side by side gets a [child](Cancel::child) of the flag: setting that ends the work and nothing else.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::EventfdFlags;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// The work was told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cancelled by a later call or a signal")]
pub(crate) struct Cancelled;

/// A flag that is set once, can be waited for, and is shared between threads.
#[derive(Debug, Clone)]
pub(crate) struct Cancel(Arc<Flag>);

#[derive(Debug)]
struct Flag {
    set: AtomicBool,
    signalled: AtomicBool,
    event: OwnedFd,
    children: Mutex<Vec<Weak<Flag>>>,
}

impl Flag {
    fn set(&self) {
        self.set.store(true, Ordering::SeqCst);
        // The counter cannot overflow in practice, and a full one is readable too.
        let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
        let children = std::mem::take(&mut *self.children.lock().unwrap_or_else(PoisonError::into_inner));
        children.iter().filter_map(Weak::upgrade).for_each(|child| child.set());
    }
}

impl Cancel {
    /// A flag that is not set.
    ///
    /// # Panics
    /// If the process has no descriptor left.
    pub(crate) fn new() -> Self {
        let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .expect("an eventfd needs one free descriptor");
        let (set, signalled) = (AtomicBool::new(false), AtomicBool::new(false));
        Self(Arc::new(Flag { set, signalled, event, children: Mutex::default() }))
    }

    /// The flag for work that is never cut short. All such work shares it.
    pub(crate) fn never() -> &'static Self {
        static NEVER: OnceLock<Cancel> = OnceLock::new();
        NEVER.get_or_init(Self::new)
    }

    /// A flag that is set together with this one, and can be set alone.
    pub(crate) fn child(&self) -> Self {
        let child = Self::new();
        self.0.children.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&child.0));
        // Looked at after the child is known: of two that happen at once, one sees the other.
        if self.is_set() {
            child.cancel();
        }
        child
    }

    /// A flag that TERM, INT and HUP set.
    ///
    /// They are caught, not blocked: a blocked signal stays blocked in every child, and a daemon started like that
    /// cannot be stopped by a signal any more. Signals that [`block_signals`] has kept back until now are dropped: they
    /// were meant for ucarp's whole unit, since nothing knows this process yet.
    pub(crate) fn on_signals() -> io::Result<Self> {
        let cancel = Self::new();
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
        let flag = cancel.clone();
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            for signal in signals.forever() {
                log::info!("{} received", signal_hook::low_level::signal_name(signal).unwrap_or("a signal"));
                flag.0.signalled.store(true, Ordering::SeqCst);
                flag.cancel();
            }
        })?;
        let blocked = ending_signals();
        let pending = SignalFd::with_flags(&blocked, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        while let Ok(Some(_)) = pending.read_signal() {}
        blocked.thread_unblock()?;
        Ok(cancel)
    }

    /// Sets the flag, and those of all children.
    pub(crate) fn cancel(&self) {
        self.0.set();
    }

    /// Whether the flag is set.
    pub(crate) fn is_set(&self) -> bool {
        self.0.set.load(Ordering::SeqCst)
    }

    /// Whether a signal set the flag, and not a part of this program.
    pub(crate) fn signalled(&self) -> bool {
        self.0.signalled.load(Ordering::SeqCst)
    }

    /// `Err(Cancelled)` once the flag is set: for use with `?` between steps.
    pub(crate) fn check(&self) -> Result<(), Cancelled> {
        if self.is_set() { Err(Cancelled) } else { Ok(()) }
    }

    /// Sleeps for `time`, or less if the flag is set meanwhile.
    pub(crate) fn sleep(&self, time: Duration) -> Result<(), Cancelled> {
        let end = Instant::now() + time;
        loop {
            self.check()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            let mut fds = [PollFd::new(self.as_fd(), PollFlags::POLLIN)];
            // Interrupted or early: the loop looks again.
            let _ = poll(&mut fds, timeout(left));
        }
    }
}

impl AsFd for Cancel {
    /// Readable once the flag is set: for waits on several descriptors.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.event.as_fd()
    }
}

/// Work that is done side by side: the first part that fails ends the others, and its error is the one that counts.
#[derive(Debug)]
pub(crate) struct Race<E> {
    cancel: Cancel,
    first: Mutex<Option<E>>,
}

impl<E> Race<E> {
    /// A race that ends early when `cancel` is set.
    pub(crate) fn new(cancel: &Cancel) -> Self {
        Self { cancel: cancel.child(), first: Mutex::new(None) }
    }

    /// Does one part of the work; `None` if it failed or was ended.
    pub(crate) fn run<T>(&self, part: impl FnOnce(&Cancel) -> Result<T, E>) -> Option<T> {
        match part(&self.cancel) {
            Ok(done) => Some(done),
            Err(error) => {
                self.first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                self.cancel.cancel();
                None
            }
        }
    }

    /// The error of the part that failed first, if one did.
    pub(crate) fn first_error(self) -> Option<E> {
        self.first.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Blocks TERM, INT and HUP, in this process and in the children that it starts from here on, until a child calls
/// [`Cancel::on_signals`]. For the hooks, first thing: they are over in milliseconds.
///
/// When ucarp ends, a service manager ends everything else in ucarp's unit at once: the hook that has to remove the
/// address, and the demotion that it has started a moment ago.
pub(crate) fn block_signals() {
    // Cannot fail with these signals, and an address is to be moved in any case.
    let _ = ending_signals().thread_block();
}

/// Ends [`block_signals`], for a child that must end when it is told to.
pub(crate) fn unblock_signals() {
    let _ = ending_signals().thread_unblock();
}

fn ending_signals() -> SigSet {
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect()
}

/// `time` for poll(2): whole milliseconds, rounded up so that a wait never spins.
pub(crate) fn timeout(time: Duration) -> PollTimeout {
    PollTimeout::try_from(time + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use nix::sys::signal::kill;
    use nix::unistd::Pid;

    use super::*;

    #[test]
    fn a_sleep_ends_when_the_flag_is_set() {
        let cancel = Cancel::new();
        let other = cancel.clone();
        let start = Instant::now();
        let sleeper = std::thread::spawn(move || other.sleep(Duration::from_secs(60)));
        cancel.cancel();
        assert_eq!(sleeper.join().unwrap(), Err(Cancelled));
        assert!(start.elapsed() < Duration::from_secs(30));
        assert_eq!(cancel.check(), Err(Cancelled));
    }

    #[test]
    fn a_child_ends_with_its_parent_and_not_the_other_way_round() {
        let parent = Cancel::new();
        let (first, second) = (parent.child(), parent.child());
        first.cancel();
        assert!(first.is_set() && !second.is_set() && !parent.is_set());
        parent.cancel();
        assert!(second.is_set() && parent.child().is_set(), "also one that comes later");
    }

    #[test]
    fn the_first_failure_of_a_race_counts_and_ends_the_others() {
        let cancel = Cancel::new();
        let race = Race::new(&cancel);
        std::thread::scope(|scope| {
            let patient = scope.spawn(|| race.run(|cancel| cancel.sleep(Duration::from_secs(60)).map_err(|_| "ended")));
            assert_eq!(race.run(|_| Ok(7)), Some(7));
            assert_eq!(race.run(|_| Err::<(), _>("failed")), None);
            assert_eq!(patient.join().unwrap(), None);
        });
        assert_eq!(race.first_error(), Some("failed"));
        assert!(!cancel.is_set(), "what comes after the race goes on");
    }

    #[test]
    fn signals_before_while_and_after_a_background_run_takes_over_from_a_hook() {
        // Signals concern a whole process: the test's own, whose threads all have them blocked from the start.
        let test = std::env::current_exe().unwrap();
        let child = std::thread::spawn(move || {
            block_signals();
            let name = "sys::cancel::tests::in_a_process_of_its_own";
            Command::new(test).args(["--exact", name, "--ignored", "--nocapture"]).output().unwrap()
        });
        let output = child.join().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
    }

    #[test]
    #[ignore = "run by the test above, in a process of its own"]
    fn in_a_process_of_its_own() {
        for signal in [Signal::SIGTERM, Signal::SIGHUP] {
            kill(Pid::this(), signal).unwrap();
        }
        assert_eq!(of_a_child("SigBlk") & ENDING, ENDING, "what a hook starts is as safe as the hook");

        let cancel = Cancel::on_signals().unwrap();
        assert!(!cancel.is_set(), "what came before was not meant for this run");
        assert_eq!(of_a_child("SigBlk") & ENDING, 0, "a daemon that no signal can stop");
        assert_eq!(of_a_child("SigIgn") & ENDING, 0, "a daemon that no signal can stop");

        // As a terminal that is closed: an administrator's promotion is rolled back and does not die where it stands.
        kill(Pid::this(), Signal::SIGHUP).unwrap();
        assert!(cancel.sleep(Duration::from_secs(60)).is_err(), "a signal ends a wait");
        assert!(cancel.signalled());
    }

    const ENDING: u64 = 1 << (Signal::SIGTERM as u64 - 1) | 1 << (Signal::SIGHUP as u64 - 1);

    /// A set of signals as a child has it.
    fn of_a_child(set: &str) -> u64 {
        let output = Command::new("grep").args([set, "/proc/self/status"]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        u64::from_str_radix(text.split_whitespace().nth(1).unwrap(), 16).unwrap()
    }
}
