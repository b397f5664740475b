//! A bound on the time that each step of some work may take.
//!
//! Every wait has a deadline, every child too. This is for what has none: a disk that does not answer any more, which no
//! signal ends, or a folder that takes hours to read. A step that takes longer than any step can is cancelled; if it does
//! not stop even then, the owner of the work is called, who ends this process. The next run then recovers, as if this one
//! had been killed.

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
    over: bool,
}

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
        let now = Instant::now();
        let shared = Arc::new((Mutex::new(Step { name, begun: now, until: now + time, over: false }), Condvar::new()));
        let (watched, cancel) = (Arc::clone(&shared), cancel.clone());
        let watching = std::thread::Builder::new().spawn(move || {
            while let Some(late) = wait(&watched) {
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
        (step.name, step.begun, step.until) = (name, now, now + time);
        self.0.1.notify_all();
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        lock(&self.0.0).over = true;
        self.0.1.notify_all();
    }
}

/// Waits until a step is late, and says so in words; `None` when all is over.
fn wait((step, changed): &(Mutex<Step>, Condvar)) -> Option<String> {
    let mut step = lock(step);
    loop {
        if step.over {
            return None;
        }
        let left = step.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Some(format!("step \"{}\" has taken {}", step.name, human(step.begun.elapsed())));
        }
        step = changed.wait_timeout(step, left).unwrap_or_else(PoisonError::into_inner).0;
    }
}

fn extend((step, _): &(Mutex<Step>, Condvar), time: Duration) {
    lock(step).until = Instant::now() + time;
}

fn lock(step: &Mutex<Step>) -> MutexGuard<'_, Step> {
    step.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What each thread of this process does.
fn threads() -> String {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let tasks = tasks.filter_map(|task| task.file_name().to_str()?.parse().ok());
    tasks.map(process::describe).collect::<Vec<_>>().join("; ")
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
}
