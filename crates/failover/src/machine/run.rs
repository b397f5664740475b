//! One run, as the administrator reads it: a log line for each step with its duration, a summary, a record.

use std::fmt::{Arguments, Display};
use std::time::{Duration, Instant};

use crate::machine::record::{self, Record, Step};
use crate::machine::state::State;
use crate::moosefs::workarounds::tcp_resets;
use crate::sys::logging::chain;
use crate::sys::text::human;

/// A run in progress.
#[derive(Debug)]
pub(crate) struct Run {
    /// What will be kept of it.
    pub(crate) record: Record,
    start: Instant,
    last: Instant,
}

impl Run {
    /// Begins a run: whoever holds the lock says so, and with [`Run::end`] it is all in the log who worked when.
    pub(crate) fn new(role: &str, vip: Option<impl Display>) -> Self {
        log::info!("{role} begun");
        let now = Instant::now();
        Self {
            record: Record {
                started: chrono::Utc::now().timestamp(),
                role: role.to_owned(),
                vip: vip.map(|vip| vip.to_string()),
                outcome: String::new(),
                version: None,
                changes: None,
                set_aside: Vec::new(),
                archive: None,
                steps: Vec::new(),
                total_ms: 0,
                error: None,
            },
            start: now,
            last: now,
        }
    }

    /// The run's start in unix seconds: names its work folder and its archive.
    pub(crate) fn id(&self) -> u64 {
        u64::try_from(self.record.started).unwrap_or_default()
    }

    /// Ends the step that began when the one before it ended.
    pub(crate) fn done(&mut self, step: &str, what: Arguments<'_>) {
        let now = Instant::now();
        self.timed(step, now - self.last, what);
        self.last = now;
    }

    /// Notes a step whose time was taken elsewhere: it ran beside another one.
    pub(crate) fn timed(&mut self, step: &str, took: Duration, what: Arguments<'_>) {
        log::info!("{step}: {what} ({})", human(took));
        self.record.steps.push(Step { name: step.to_owned(), ms: millis(took) });
    }

    /// Ends the step in which clients were told that their connections are dead.
    pub(crate) fn reset(&mut self, clients: Result<usize, tcp_resets::Error>) {
        match clients {
            Ok(clients) => self.done("clients", format_args!("{clients} told to connect anew")),
            Err(e) => log::warn!("{}; clients will wait longer", chain(&e)),
        }
    }

    /// From the start of the run until now.
    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Logs the summary, keeps the record and returns it. One that cannot be kept changes nothing about the run.
    pub(crate) fn end(mut self, outcome: &str, state: Option<&State>) -> Record {
        outcome.clone_into(&mut self.record.outcome);
        self.record.total_ms = millis(self.elapsed());
        log::info!("{} {}", self.record.role, summary(&self.record));
        if let Some(Err(e)) = state.map(|state| record::keep(state, &self.record)) {
            log::warn!("no record of this run is kept: {}", chain(&e));
        }
        self.record
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

    #[test]
    fn the_summary_names_what_the_administrator_asks_first() {
        let mut run = Run::new("promotion", Some("172.16.0.99"));
        run.record.outcome = "serving".to_owned();
        run.record.version = Some(1_001_433);
        run.record.changes = Some(431);
        run.record.set_aside = vec!["metadata.mfs".to_owned()];
        run.record.total_ms = 1780;
        assert_eq!(
            summary(&run.record),
            "ended: serving, version 1001433, 431 changes replayed, 1 files set aside, 1.78 s in all"
        );
    }
}
