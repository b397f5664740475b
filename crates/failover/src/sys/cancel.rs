//! "Stop what you do": a signal turned into a value that every wait looks at.
//!
//! A promotion that is told to stop must not die where it stands: it rolls back first. So TERM and INT do not end
//! the process; they set this flag, and every wait (for packets, children, time) ends early when it is set.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::EventfdFlags;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// The work was told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cancelled by a later call or a signal")]
pub(crate) struct Cancelled;

/// A flag that can be set once, waited for, and shared between threads.
#[derive(Debug, Clone)]
pub(crate) struct Cancel {
    set: Arc<AtomicBool>,
    signalled: Arc<AtomicBool>,
    event: Arc<OwnedFd>,
}

impl Cancel {
    /// A flag that nobody has set.
    ///
    /// # Panics
    /// If the kernel has no descriptor left.
    pub(crate) fn new() -> Self {
        let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .expect("an eventfd needs one free descriptor");
        Self { set: Arc::default(), signalled: Arc::default(), event: Arc::new(event) }
    }

    /// A flag that TERM and INT set.
    ///
    /// They are caught, not blocked: a blocked signal stays blocked in every child, and a daemon started like that
    /// can never be told to stop. What [`hold_back`] held back until now is dropped: it was meant for ucarp's whole
    /// unit, since nobody knows this process yet.
    ///
    /// # Errors
    /// If no handler can be set.
    pub(crate) fn on_signals() -> io::Result<Self> {
        let cancel = Self::new();
        let mut signals = Signals::new([SIGTERM, SIGINT])?;
        let flag = cancel.clone();
        std::thread::spawn(move || {
            for signal in signals.forever() {
                log::info!("signal {signal} received");
                flag.signalled.store(true, Ordering::SeqCst);
                flag.cancel();
            }
        });
        let held_back = ending_signals();
        let pending = SignalFd::with_flags(&held_back, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        while let Ok(Some(_)) = pending.read_signal() {}
        held_back.thread_unblock()?;
        Ok(cancel)
    }

    /// Sets the flag.
    pub(crate) fn cancel(&self) {
        self.set.store(true, Ordering::SeqCst);
        // The counter cannot overflow in practice; a full one is readable too.
        let _ = rustix::io::write(&*self.event, &1_u64.to_ne_bytes());
    }

    /// Whether the flag is set.
    pub(crate) fn is_set(&self) -> bool {
        self.set.load(Ordering::SeqCst)
    }

    /// Whether it was a signal that set the flag, and no part of this program.
    pub(crate) fn signalled(&self) -> bool {
        self.signalled.load(Ordering::SeqCst)
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

/// Holds TERM and INT back, in this process and in the children it starts from here on, until a child calls
/// [`Cancel::on_signals`]. For the hooks, first thing: they are over in milliseconds.
///
/// When ucarp ends, a service manager ends everything else in ucarp's unit at once: the hook that has to take the
/// address away, and the demotion it has started a moment ago.
pub(crate) fn block_signals() {
    // Cannot fail with these signals, and an address is to be moved in any case.
    let _ = ending_signals().thread_block();
}

fn ending_signals() -> SigSet {
    [Signal::SIGTERM, Signal::SIGINT].into_iter().collect()
}

impl Default for Cancel {
    fn default() -> Self {
        Self::new()
    }
}

impl AsFd for Cancel {
    /// Readable once the flag is set: for waits on several descriptors.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

/// `time` for poll(2): whole milliseconds, rounded up so that a wait never spins.
pub(crate) fn timeout(time: Duration) -> PollTimeout {
    PollTimeout::try_from(time + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX)
}

#[cfg(test)]
mod tests {
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
}
