//! A machine that could not serve lets the others win first.
//!
//! It would win, fail, and step down: an outage twice as long as one that it takes no part in. ucarp takes its `advskew` only when
//! it is started. So where ucarp runs in the unit of this package, that is started again with the longest one (255), and with
//! that of the administrator as soon as this machine could serve. It still stands for election: where no other machine is
//! left, an old copy may be the best there is.
//!
//! The script that the unit starts looks for the note of it in the folder of runs.

use std::ffi::OsStr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::instance::Instance;
use crate::sys::folder::Folder;
use crate::sys::json_file;
use crate::sys::logging::chain;
use crate::sys::systemd;
use crate::ucarp::Ucarp;

/// As in `ucarp-service`.
const NOTE: &str = "stands-back.json";
/// Units of this package, by the beginning of their name.
const UNIT: &str = "moosefs-ucarp";
/// What lasts for less is no reason: a copy that is just being downloaded, for one.
const LASTS: Duration = Duration::from_secs(60);

/// Why this machine stands back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StandsBack {
    /// Since when, in Unix seconds.
    pub(crate) since: i64,
    /// Why it could not serve.
    pub(crate) why: String,
}

impl StandsBack {
    /// The note, if this machine stands back.
    pub(crate) fn of(instance: &Instance) -> Result<Option<Self>, json_file::Error> {
        match Folder::open(&instance.run_folder()) {
            Ok(folder) => json_file::read(&folder, OsStr::new(NOTE)),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    fn note(this: Option<&Self>, instance: &Instance) -> Result<(), json_file::Error> {
        let folder = Folder::open(&instance.run_folder())?;
        match this {
            Some(note) => json_file::write(&folder, OsStr::new(NOTE), note),
            None => json_file::remove(&folder, OsStr::new(NOTE)),
        }
    }
}

/// Watches whether this machine could serve.
#[derive(Debug)]
pub(super) struct Watch<'a> {
    instance: &'a Instance,
    ucarp: &'a Ucarp,
    unable_since: Option<Instant>,
}

/// What became of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Changed {
    No,
    /// From now on it stands back.
    StandsBack,
}

impl<'a> Watch<'a> {
    pub(super) fn new(instance: &'a Instance, ucarp: &'a Ucarp) -> Self {
        Self { instance, ucarp, unable_since: None }
    }

    /// This machine could serve.
    pub(super) fn able(&mut self) {
        self.unable_since = None;
        let changed = StandsBack::of(self.instance).and_then(|noted| match noted {
            Some(_) => StandsBack::note(None, self.instance).map(|()| true),
            None => Ok(false),
        });
        match changed {
            Ok(true) if self.restart() => log::info!("this machine could serve again, so it stands back no longer"),
            Ok(_) => (),
            Err(e) => log::warn!("{}", chain(&e)),
        }
    }

    /// This machine could not serve.
    pub(super) fn unable(&mut self, why: &str) -> Changed {
        let since = *self.unable_since.get_or_insert_with(Instant::now);
        if since.elapsed() < LASTS || !matches!(StandsBack::of(self.instance), Ok(None)) {
            return Changed::No;
        }
        let note = StandsBack { since: chrono::Utc::now().timestamp(), why: why.to_owned() };
        if let Err(e) = StandsBack::note(Some(&note), self.instance) {
            log::warn!("{}", chain(&e));
            return Changed::No;
        }
        if !self.restart() {
            return Changed::No;
        }
        log::warn!("this machine could not serve, so it stands back in elections (advskew 255): {why}");
        Changed::StandsBack
    }

    /// Starts ucarp again, if it runs in a unit of this package.
    fn restart(&self) -> bool {
        let restarted = systemd::unit_of(self.ucarp.pid).and_then(|unit| {
            let unit = unit.filter(|unit| unit.starts_with(UNIT));
            unit.map(|unit| systemd::restart(&unit)).transpose()
        });
        match restarted {
            Ok(restarted) => restarted.is_some(),
            Err(e) => {
                log::warn!("{}", chain(&e));
                false
            }
        }
    }
}
