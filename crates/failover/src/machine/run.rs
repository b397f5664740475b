//! One run, as the administrator reads it: a log line for each step with its duration, a summary, a record.
//!
//! A run that has begun also ends in the log, however it ends: one that is dropped without [`Run::end`] has failed.

use std::fmt::Arguments;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::machine::outcome::{RunKind, StepName};
use crate::machine::record::{self, Record, Step};
use crate::machine::state::State;
use crate::moosefs::workarounds::tcp_resets::{self, Clients};
use crate::sys::logging::chain;
use crate::sys::text::human;

/// A run in progress.
#[derive(Debug)]
pub(crate) struct Run {
    /// What will be kept of it.
    pub(crate) record: Record,
    start: Instant,
    last: Instant,
    over: bool,
}

impl Run {
    /// Begins a run: with its end it is all in the log which process worked when.
    pub(crate) fn begin(kind: RunKind, vip: Option<Ipv4Addr>) -> Self {
        log::info!("{kind} begun");
        Self::under_way(kind, vip)
    }

    /// For the end of a run whose own process does not get that far: its beginning is in the log already.
    pub(crate) fn under_way(kind: RunKind, vip: Option<Ipv4Addr>) -> Self {
        let now = Instant::now();
        Self { record: Record::new(kind, vip), start: now, last: now, over: false }
    }

    /// The run's start in unix seconds: names its run folder and its archive.
    pub(crate) fn id(&self) -> u64 {
        u64::try_from(self.record.started).unwrap_or_default()
    }

    /// Ends the step that began when the one before it ended.
    pub(crate) fn done(&mut self, step: StepName, what: Arguments<'_>) {
        let now = Instant::now();
        self.timed(step, now - self.last, what);
        self.last = now;
    }

    /// Notes a step that was timed elsewhere: it ran beside another one.
    pub(crate) fn timed(&mut self, step: StepName, took: Duration, what: Arguments<'_>) {
        log::info!("{step}: {what} ({})", human(took));
        self.record.steps.push(Step { name: step, ms: millis(took) });
    }

    /// Ends the step in which the connections of clients were reset, and `probed` of those that had sent nothing.
    pub(crate) fn clients_reset(&mut self, reset: &Result<Clients, tcp_resets::Error>, probed: Option<usize>) {
        match reset {
            Ok(clients) => {
                let (clients, probed) = (clients.len(), probed.map(|probed| format!("; silent ones probed: {probed}")));
                let probed = probed.unwrap_or_default();
                self.done(StepName::Clients, format_args!("stale connections ended by TCP RST: {clients}{probed}"));
            }
            Err(e) => log::warn!("{}; clients will reconnect more slowly", chain(e)),
        }
    }

    /// From the start of the run until now.
    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Logs the summary, keeps the record and returns it. A record that cannot be kept changes nothing about the run.
    pub(crate) fn end(mut self, state: Option<&State>) -> Record {
        self.log_end();
        if let Some(Err(e)) = state.map(|state| record::keep(state, &self.record)) {
            log::warn!("cannot keep the record of this run: {}", chain(&e));
        }
        self.record.clone()
    }

    fn log_end(&mut self) {
        self.over = true;
        self.record.total_ms = millis(self.elapsed());
        log::info!("{} {}", self.record.kind, summary(&self.record));
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if !self.over {
            self.log_end();
        }
    }
}

/// The one line that says how a run ended.
fn summary(record: &Record) -> String {
    let mut parts = vec![format!("ended: {}", record.outcome)];
    parts.extend(record.version.map(|version| format!("version {version}")));
    parts.extend(record.changes.map(|changes| format!("{changes} changes replayed")));
    if !record.set_aside.is_empty() {
        parts.push(format!("{} files set aside", record.set_aside.len()));
    }
    parts.extend(record.archive.iter().map(|archive| format!("archive {archive}")));
    parts.push(format!("{} in all", human(Duration::from_millis(record.total_ms))));
    parts.join(", ")
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::outcome::Outcome;
    use crate::metadata::Version;

    fn run() -> Run {
        Run::begin(RunKind::Promotion, Some(Ipv4Addr::new(172, 16, 0, 99)))
    }

    #[test]
    fn the_summary_names_what_the_administrator_asks_first() {
        let mut run = run();
        run.record.outcome = Outcome::Serving;
        run.record.version = Some(Version(1_001_433));
        run.record.changes = Some(431);
        run.record.set_aside = vec!["metadata.mfs".to_owned()];
        run.record.total_ms = 1780;
        assert_eq!(
            summary(&run.record),
            "ended: serving, version 1001433, 431 changes replayed, 1 files set aside, 1.78 s in all"
        );
    }

    #[test]
    fn a_run_is_kept_with_its_outcome() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open_at(&dir.path().join("state")).unwrap();
        let mut run = run();
        run.record.outcome = Outcome::SteppedDown;
        let kept = run.end(Some(&state));
        assert_eq!(record::all(&state).unwrap(), [kept]);
    }
}
