//! How long something may take whose work is not known beforehand: as long as it makes progress, and never longer than a
//! bound.
//!
//! The work of a process is what the kernel counts for it: processor time, and bytes that it reads and writes. A process
//! that waits for a disk makes progress whenever the disk answers. One that hangs does none of that. A process that has only
//! a timer left wakes up now and then, so very little work counts as none.

use std::fmt;
use std::time::{Duration, Instant};

/// So much work is progress: a tenth of a second of processor time, or so many bytes.
pub(crate) const LEAST: u64 = 1024 * 1024;
/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// After a longer pause than this between two looks, this process or the whole machine was paused.
const PAUSED: Duration = Duration::from_secs(5);

/// How long something may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allowance {
    /// Without any progress.
    pub(crate) still: Duration,
    /// At most, however steady its progress is.
    pub(crate) most: Duration,
}

impl Allowance {
    /// This time, whatever its progress.
    pub(crate) fn fixed(time: Duration) -> Self {
        Self { still: time, most: time }
    }
}

/// An allowance that is being used.
pub(crate) struct Patience {
    allowance: Allowance,
    begun: Instant,
    /// When progress was seen last.
    moved: Instant,
    looked: Instant,
    /// The work that was done by then.
    done: u64,
    /// How much work is done by now.
    work: Box<dyn FnMut() -> u64 + Send>,
}

impl fmt::Debug for Patience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Patience")
            .field("allowance", &self.allowance)
            .field("moved", &self.moved)
            .finish_non_exhaustive()
    }
}

impl Patience {
    /// Counted from `begun`. `work` tells how much work is done, a number that changes as it goes on.
    pub(crate) fn new(allowance: Allowance, begun: Instant, mut work: impl FnMut() -> u64 + Send + 'static) -> Self {
        let done = if allowance.still < allowance.most { work() } else { 0 };
        Self { allowance, begun, moved: begun, looked: begun, done, work: Box::new(work) }
    }

    pub(crate) fn allowance(&self) -> Allowance {
        self.allowance
    }

    /// How long it is patient still, if no progress is seen from now on. Zero once it is over.
    pub(crate) fn left(&mut self) -> Duration {
        self.left_at(Instant::now())
    }

    fn left_at(&mut self, now: Instant) -> Duration {
        let Allowance { still, most } = self.allowance;
        let pause = now.saturating_duration_since(self.looked);
        if still < most && pause >= LOOK_EVERY.min(still / 8) {
            let done = (self.work)();
            if done.abs_diff(self.done) >= LEAST {
                (self.done, self.moved) = (done, now);
            } else if pause > PAUSED {
                // Nothing could work meanwhile.
                self.moved += pause;
            }
            self.looked = now;
        }
        (self.begun + most).min(self.moved + still).saturating_duration_since(now)
    }
}

impl From<Duration> for Patience {
    /// From now on, whatever the progress.
    fn from(time: Duration) -> Self {
        Self::new(Allowance::fixed(time), Instant::now(), || 0)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Looks once in a second, from the first second on. Before each look the work of that second is done. Returns the
    /// second in which the patience is over.
    fn over_after(allowance: Allowance, mut work: impl FnMut(u64) -> u64) -> u64 {
        let (done, begun) = (Arc::new(AtomicU64::new(7)), Instant::now());
        let counter = Arc::clone(&done);
        let mut patience = Patience::new(allowance, begun, move || counter.load(Ordering::Relaxed));
        (1..10_000)
            .find(|second| {
                done.fetch_add(work(*second), Ordering::Relaxed);
                patience.left_at(begun + SECOND * u32::try_from(*second).unwrap()).is_zero()
            })
            .unwrap()
    }

    #[test]
    fn what_makes_progress_goes_on_up_to_the_bound_and_what_stands_still_does_not() {
        let allowance = Allowance { still: SECOND * 60, most: SECOND * 3600 };
        assert_eq!(over_after(allowance, |_| 0), 60, "a disk that does not answer");
        // 3 MB/s, as the slowest disks do.
        assert_eq!(over_after(allowance, |_| 3_000_000), 3600);
        assert_eq!(over_after(allowance, |second| if second < 1000 { 3_000_000 } else { 0 }), 999 + 60);
        // Once in 50 s is enough, if it is something.
        assert_eq!(over_after(allowance, |second| if second % 50 == 0 { LEAST } else { 0 }), 3600);
        // A thread with a timer.
        assert_eq!(over_after(allowance, |_| 1000), 60);
        assert_eq!(over_after(allowance, |_| LEAST / 30), 3600, "small steps add up");
        assert_eq!(over_after(Allowance::fixed(SECOND * 9), |_| u64::from(u32::MAX)), 9);
    }

    #[test]
    fn a_pause_of_the_machine_is_no_standstill() {
        let begun = Instant::now();
        let mut patience = Patience::new(Allowance { still: SECOND * 60, most: SECOND * 3600 }, begun, || 0);
        assert_eq!(patience.left_at(begun + SECOND), SECOND * 59);
        assert_eq!(patience.left_at(begun + SECOND * 301), SECOND * 59, "all was paused for 300 s");
        assert_eq!(patience.left_at(begun + SECOND * 302), SECOND * 58);
        assert!(patience.left_at(begun + SECOND * 4000).is_zero());
    }
}
