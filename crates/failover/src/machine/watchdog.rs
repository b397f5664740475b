//! A bound on the time that each step of some work may take.
//!
//! Every wait has a deadline, every child too. This is for what has none: a disk that does not answer any more, which no
//! signal ends, or a folder that takes hours to read. A step is cancelled that hangs, or that takes longer than any step can;
//! if it does not stop even then, the owner of the work is called, who ends this process. The next run then recovers, as if
//! this one had been killed.
//!
//! A step hangs if a thread of this process waits in the kernel for a disk, and has not run once for
//! [`HUNG`](timing::HUNG): as the kernel itself finds tasks that hang. How large the files are does not matter: a thread that
//! reads, writes or flushes on a slow disk runs again with every answer of the disk.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::machine::outcome::StepName;
use crate::sys::cancel::Cancel;
use crate::sys::process;

use crate::sys::text::human;
use crate::timing;

/// What is being done, and until when it may take.
#[derive(Debug)]
struct Step {
    name: StepName,
    begun: Instant,
    until: Instant,
    /// It was cancelled, and has until then to stop.
    cancelled: bool,
    over: bool,
}

/// Between two looks at the threads.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// After a longer pause between two looks this process, or the machine, was paused.
const PAUSED: Duration = Duration::from_secs(5);

/// Watches a promotion until it is dropped.
#[derive(Debug)]
pub(crate) struct Watchdog(Arc<(Mutex<Step>, Condvar)>);

impl Watchdog {
    /// Begins with a step that may take `time`. `on_timeout` is called with the name of the step that does not end.
    pub(crate) fn watch(
        name: StepName,
        time: Duration,
        cancel: &Cancel,
        on_timeout: impl FnOnce(StepName) + Send + 'static,
    ) -> Self {
        let mut waiting = Waiting::default();
        Self::watch_with(name, time, cancel, move |now| waiting.hung(waiting_threads(), now), on_timeout)
    }

    /// `hung` is asked once in a second whether a thread hangs.
    fn watch_with(
        name: StepName,
        time: Duration,
        cancel: &Cancel,
        mut hung: impl FnMut(Instant) -> bool + Send + 'static,
        on_timeout: impl FnOnce(StepName) + Send + 'static,
    ) -> Self {
        let now = Instant::now();
        let step = Step { name, begun: now, until: now + time, cancelled: false, over: false };
        let shared = Arc::new((Mutex::new(step), Condvar::new()));
        let (watched, cancel) = (Arc::clone(&shared), cancel.clone());
        let watching = std::thread::Builder::new().spawn(move || {
            while let Some(late) = wait(&watched, &mut hung) {
                if !cancel.is_set() {
                    log::error!("{late}; cancelling it. {}", threads());
                    cancel.cancel();
                    extend(&watched, timing::CANCEL_GRACE);
                    continue;
                }
                log::error!("{late}, and does not stop. {}", threads());
                return on_timeout(lock(&watched.0).name);
            }
        });
        if let Err(e) = watching {
            log::warn!("no thread for the time limits of this run, so a step that hangs is not cancelled: {e}");
        }
        Self(shared)
    }

    /// The next step begins, and may take `time`.
    pub(crate) fn allow(&self, name: StepName, time: Duration) {
        let now = Instant::now();
        let mut step = lock(&self.0.0);
        (step.name, step.begun, step.until, step.cancelled) = (name, now, now + time, false);
        self.0.1.notify_all();
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        lock(&self.0.0).over = true;
        self.0.1.notify_all();
    }
}

/// Waits until a step is late or hangs, and says so in words; `None` when all is over.
fn wait((step, changed): &(Mutex<Step>, Condvar), hung: &mut impl FnMut(Instant) -> bool) -> Option<String> {
    let mut step = lock(step);
    loop {
        if step.over {
            return None;
        }
        let left = step.until.saturating_duration_since(Instant::now());
        let lasted = format!("step \"{}\" has taken {}", step.name, human(step.begun.elapsed()));
        if left.is_zero() {
            return Some(lasted);
        }
        if hung(Instant::now()) && !step.cancelled {
            return Some(format!("{lasted}, and a disk has not answered for {}", human(timing::HUNG)));
        }
        step = changed.wait_timeout(step, left.min(LOOK_EVERY)).unwrap_or_else(PoisonError::into_inner).0;
    }
}

fn extend((step, _): &(Mutex<Step>, Condvar), time: Duration) {
    let mut step = lock(step);
    (step.until, step.cancelled) = (Instant::now() + time, true);
}

fn lock(step: &Mutex<Step>) -> MutexGuard<'_, Step> {
    step.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What each thread of this process does.
fn threads() -> String {
    process::own_threads().map(process::describe).collect::<Vec<_>>().join("; ")
}

/// The threads of this process that wait in the kernel, each with the number of times that it has run.
fn waiting_threads() -> Vec<(u32, u64)> {
    process::own_threads().filter_map(|thread| Some((thread, process::runs_of_waiting(thread)?))).collect()
}

/// The threads that wait, since they were seen first after they had run.
#[derive(Debug, Default)]
struct Waiting {
    since: BTreeMap<(u32, u64), Instant>,
    looked: Option<Instant>,
}

impl Waiting {
    /// Whether one of those that wait at `now` has not run for too long.
    fn hung(&mut self, waiting: Vec<(u32, u64)>, now: Instant) -> bool {
        let before = std::mem::take(&mut self.since);
        let paused = self.looked.replace(now).is_some_and(|last| now.saturating_duration_since(last) > PAUSED);
        let since = |thread: (u32, u64)| before.get(&thread).copied().filter(|_| !paused).unwrap_or(now);
        self.since = waiting.into_iter().map(|thread| (thread, since(thread))).collect();
        self.since.values().any(|since| now.saturating_duration_since(*since) >= timing::HUNG)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    const SHORT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn a_late_step_is_cancelled_and_one_that_stops_then_is_no_timeout() {
        let (cancel, (timeouts, timed_out)) = (Cancel::new(), mpsc::channel());
        let watchdog = Watchdog::watch(StepName::Recover, LONG, &cancel, move |step| timeouts.send(step).unwrap());
        watchdog.allow(StepName::Stage, SHORT);
        assert!(cancel.sleep(LONG).is_err(), "cancelled");
        watchdog.allow(StepName::Commit, LONG);
        drop(watchdog);
        assert!(timed_out.recv().is_err(), "no timeout");
    }

    #[test]
    fn a_step_that_was_cancelled_and_does_not_stop_times_out() {
        let (cancel, (timeouts, timed_out)) = (Cancel::new(), mpsc::channel());
        // It was cancelled for another reason.
        cancel.cancel();
        let watchdog = Watchdog::watch(StepName::Recover, LONG, &cancel, move |step| timeouts.send(step).unwrap());
        watchdog.allow(StepName::Stage, SHORT);
        assert_eq!(timed_out.recv(), Ok(StepName::Stage));
        drop(watchdog);
    }

    #[test]
    fn a_step_that_hangs_is_cancelled_long_before_its_bound_and_may_stop_then() {
        let (cancel, (timeouts, timed_out)) = (Cancel::new(), mpsc::channel());
        let on_timeout = move |step| timeouts.send(step).unwrap();
        let watchdog = Watchdog::watch_with(StepName::Prepare, LONG, &cancel, |_| true, on_timeout);
        assert!(cancel.sleep(LONG).is_err(), "cancelled");
        assert!(timed_out.recv_timeout(SHORT).is_err(), "it has a grace to stop");
        drop(watchdog);
        assert!(timed_out.recv().is_err());
    }

    #[test]
    fn a_thread_hangs_that_waits_for_a_disk_and_has_not_run_for_a_minute_whatever_the_size_of_the_image() {
        let (mut waiting, begun) = (Waiting::default(), Instant::now());
        let mut hung_after = |seconds: std::ops::Range<u64>, threads: &dyn Fn(u64) -> Vec<(u32, u64)>| {
            seconds.into_iter().find(|second| waiting.hung(threads(*second), begun + Duration::from_secs(*second)))
        };
        // 3 MB/s for an hour: it waits most of the time, and runs with each answer.
        assert_eq!(hung_after(0..3600, &|second| vec![(7, second)]), None);
        assert_eq!(hung_after(3600..4000, &|second| vec![(7, 1), (8, second)]), Some(3660), "a disk that is dead");
        assert_eq!(hung_after(4000..4050, &|_| vec![(7, 1)]), None, "nobody looked for 340 s: all was paused");
        assert_eq!(hung_after(4050..4200, &|second| if second == 4055 { vec![] } else { vec![(7, 1)] }), Some(4116));
    }

    #[test]
    fn this_process_does_not_hang() {
        assert!(!Waiting::default().hung(waiting_threads(), Instant::now()));
        assert!(process::own_threads().count() > 0);
    }
}
