//! The records of the last runs, for `--status` and `--check`.

use std::ffi::OsString;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::machine::outcome::{Outcome, RunKind, StepName};
use crate::machine::state::{Error, State};
use crate::metadata::Version;

/// How many records are kept.
const KEPT: usize = 50;

/// The record of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Start in unix seconds.
    pub(crate) started: i64,
    /// What the run was for.
    pub(crate) kind: RunKind,
    /// The virtual IP, where one was involved.
    pub(crate) vip: Option<String>,
    /// How it ended.
    pub(crate) outcome: Outcome,
    /// The version of the metadata that is served, or was planned.
    pub(crate) version: Option<Version>,
    /// How many changes were replayed on top of the image.
    pub(crate) changes: Option<u64>,
    /// The files that were set aside.
    pub(crate) set_aside: Vec<String>,
    /// The archive made of it.
    pub(crate) archive: Option<String>,
    /// The steps in order.
    pub(crate) steps: Vec<Step>,
    /// From the first step to the end, in milliseconds.
    pub(crate) total_ms: u64,
    /// Why it failed, as a chain.
    pub(crate) error: Option<String>,
}

impl Record {
    /// Of a run that begins now, and has failed until it says otherwise.
    pub(crate) fn new(kind: RunKind, vip: Option<Ipv4Addr>) -> Self {
        Self {
            started: chrono::Utc::now().timestamp(),
            kind,
            vip: vip.map(|vip| vip.to_string()),
            outcome: Outcome::Failed,
            version: None,
            changes: None,
            set_aside: Vec::new(),
            archive: None,
            steps: Vec::new(),
            total_ms: 0,
            error: None,
        }
    }
}

/// One step of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Step {
    /// Its name.
    pub(crate) name: StepName,
    /// How long it took, in milliseconds.
    pub(crate) ms: u64,
}

/// Keeps the record of a run, and removes the oldest ones.
pub(crate) fn keep(state: &State, record: &Record) -> Result<(), Error> {
    let names = names(state)?;
    let mut stem = record.started;
    // Of two runs within a second, the later one takes the next free second.
    while names.contains(&name(stem)) {
        stem += 1;
    }
    state.write(&name(stem), record)?;
    for name in names.iter().take((names.len() + 1).saturating_sub(KEPT)) {
        state.remove(name)?;
    }
    Ok(())
}

/// The records, oldest first; damaged ones are left out.
pub(crate) fn all(state: &State) -> Result<Vec<Record>, Error> {
    Ok(names(state)?.iter().filter_map(|name| state.read(name).ok().flatten()).collect())
}

/// Whether there is one.
pub(crate) fn has_any(state: &State) -> bool {
    names(state).is_ok_and(|names| !names.is_empty())
}

/// The files of records, oldest first.
fn names(state: &State) -> Result<Vec<OsString>, Error> {
    let is_record = |name: &OsString| {
        let name = name.to_string_lossy();
        name.strip_prefix("run.").and_then(|rest| rest.strip_suffix(".json")).is_some()
    };
    Ok(state.names()?.into_iter().filter(is_record).collect())
}

/// Sorts by time as text: wide enough for any unix second.
fn name(started: i64) -> OsString {
    OsString::from(format!("run.{started:012}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(started: i64) -> Record {
        Record {
            started,
            kind: RunKind::Promotion,
            vip: Some("172.16.0.99".into()),
            outcome: Outcome::Serving,
            version: Some(Version(7)),
            changes: Some(3),
            set_aside: vec!["metadata.mfs".into()],
            archive: None,
            steps: vec![Step { name: StepName::Settle, ms: 1250 }],
            total_ms: 1700,
            error: None,
        }
    }

    #[test]
    fn the_newest_records_are_kept_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open_at(&dir.path().join("state")).unwrap();
        let last = i64::try_from(KEPT).unwrap() + 2;
        for started in 0..=last {
            keep(&state, &record(started)).unwrap();
        }
        let records = all(&state).unwrap();
        assert_eq!((records.len(), &records[0]), (KEPT, &record(3)));
        keep(&state, &record(last)).unwrap();
        assert_eq!(all(&state).unwrap()[KEPT - 2..], [record(last), record(last)], "two within a second");
        // One that another version wrote, with words that this one does not know.
        let other = serde_json::to_string(&record(99)).unwrap().replace("serving", "dancing");
        std::fs::write(dir.path().join("state").join(name(99)), other).unwrap();
        assert_eq!(all(&state).unwrap().len(), KEPT, "it is left out");
    }
}
