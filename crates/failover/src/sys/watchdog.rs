//! A bound on the time in which this machine holds the address and serves nobody.
//!
//! Every wait of a promotion has a deadline, every child too. This is for what has none: a disk that does not answer any
//! more, which no signal ends, or a data folder that takes hours to read. A step that takes longer than any step can is
//! told to end; if even that does not happen, the address goes, ucarp ends, and this process with them. What it had begun
//! is ended by the next run, as if it had been killed.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::machine::config::Config;
use crate::sys::cancel::Cancel;
use crate::sys::process;

use crate::sys::text::human;

/// How long a step may take to end once it is told to.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// No step of a promotion takes this long, whatever the daemons do, besides the time for its image.
pub(crate) fn allowance(config: Option<&Config>) -> Duration {
    config.map_or(Duration::from_secs(180), |config| config.services.start_timeout * 2 + config.services.stop_timeout)
}

/// What is being done, and until when it may take.
#[derive(Debug)]
struct Step {
    name: &'static str,
    begun: Instant,
    until: Instant,
    over: bool,
}

/// Watches a promotion until it is dropped.
#[derive(Debug)]
pub(crate) struct Watchdog(Arc<(Mutex<Step>, Condvar)>);

impl Watchdog {
    /// Begins with a step that may take `time`. `bite` is called with the name of the step that does not end.
    pub(crate) fn watch(
        name: &'static str,
        time: Duration,
        cancel: &Cancel,
        bite: impl FnOnce(&'static str) + Send + 'static,
    ) -> Self {
        let now = Instant::now();
        let shared = Arc::new((Mutex::new(Step { name, begun: now, until: now + time, over: false }), Condvar::new()));
        let (watched, cancel) = (Arc::clone(&shared), cancel.clone());
        std::thread::spawn(move || {
            while let Some(late) = wait(&watched) {
                if !cancel.is_set() {
                    log::error!("{late}; told to end. {}", threads());
                    cancel.cancel();
                    extend(&watched, LAST_WORDS);
                    continue;
                }
                log::error!("{late}, and does not end. {}", threads());
                return bite(lock(&watched.0).name);
            }
        });
        Self(shared)
    }

    /// The next step begins, and may take `time`.
    pub(crate) fn allow(&self, name: &'static str, time: Duration) {
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
            return Some(format!("the step \"{}\" is not done after {}", step.name, human(step.begun.elapsed())));
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
    fn a_late_step_is_told_to_end_and_one_that_ends_is_not_bitten() {
        let (cancel, (bites, bitten)) = (Cancel::new(), mpsc::channel());
        let dog = Watchdog::watch("first", LONG, &cancel, move |step| bites.send(step).unwrap());
        dog.allow("second", SHORT);
        assert!(cancel.sleep(LONG).is_err(), "told to end");
        dog.allow("roll-back", LONG);
        drop(dog);
        assert!(bitten.recv().is_err(), "not bitten");
    }

    #[test]
    fn a_step_that_was_told_to_end_and_does_not_is_ended() {
        let (cancel, (bites, bitten)) = (Cancel::new(), mpsc::channel());
        // Somebody else has told it.
        cancel.cancel();
        let dog = Watchdog::watch("first", LONG, &cancel, move |step| bites.send(step).unwrap());
        dog.allow("second", SHORT);
        assert_eq!(bitten.recv(), Ok("second"));
        drop(dog);
    }
}
