//! A machine that could not serve lets the others win first.
//!
//! It would win, fail, and step down: an outage twice as long as one that it takes no part in. ucarp takes its `advskew` only when
//! it is started. So where ucarp runs in the unit of this package, that is started again with a long one, and with
//! that of the administrator as soon as this machine could serve. It still stands for election: where no other machine is
//! left, an old copy may be the best there is. A machine that serves keeps the skew that it has won with.
//!
//! The script that the unit starts looks for the note of it in the folder of runs.

use std::ffi::OsStr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::instance::Instance;
use crate::machine::lock::Request;
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

/// Longer than that of a machine that stands for election as its administrator wishes, and short enough for one that serves: its
/// advertisements come every 1.6 s then. As in `ucarp-service`.
const SKEW: u8 = 150;

/// Why it cannot be changed.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// The note.
    #[error(transparent)]
    Note(#[from] json_file::Error),
    /// The unit of ucarp.
    #[error(transparent)]
    Unit(#[from] systemd::Error),
}

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
    request: &'a Request,
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
    pub(super) fn new(instance: &'a Instance, ucarp: &'a Ucarp, request: &'a Request) -> Self {
        Self { instance, ucarp, request, unable_since: None }
    }

    /// Nothing keeps this machine from serving at the moment.
    pub(super) fn unknown(&mut self) {
        self.unable_since = None;
    }

    /// This machine could serve.
    pub(super) fn able(&mut self) {
        self.unknown();
        let done = StandsBack::of(self.instance).map_err(Error::from).and_then(|noted| match noted {
            Some(note) => self.change(Some(&note), None),
            None => Ok(false),
        });
        match done {
            Ok(true) => log::info!("this machine could serve again, so it stands back no longer"),
            Ok(false) => (),
            Err(e) => log::warn!("{}", chain(&e)),
        }
    }

    /// This machine could not serve.
    pub(super) fn unable(&mut self, why: &str) -> Changed {
        let since = *self.unable_since.get_or_insert_with(Instant::now);
        let stands = !matches!(StandsBack::of(self.instance), Ok(None)) || self.ucarp.options.advskew >= SKEW;
        if since.elapsed() < LASTS || stands {
            return Changed::No;
        }
        let note = StandsBack { since: chrono::Utc::now().timestamp(), why: why.to_owned() };
        match self.change(None, Some(&note)) {
            Ok(true) => {
                log::warn!("this machine could not serve, so it stands back in elections (advskew {SKEW}): {why}");
                Changed::StandsBack
            }
            Ok(false) => Changed::No,
            Err(e) => {
                log::warn!("{}", chain(&e));
                Changed::No
            }
        }
    }

    /// Changes the note and starts ucarp again, if it runs in a unit of this package. Where it is not started again, the note is
    /// that of `before`.
    fn change(&self, before: Option<&StandsBack>, after: Option<&StandsBack>) -> Result<bool, Error> {
        let unit = systemd::unit_of(self.ucarp.pid)?.filter(|unit| unit.starts_with(UNIT));
        // One that has just won is not started again.
        let Some(unit) = unit.filter(|_| !self.request.superseded()) else { return Ok(false) };
        StandsBack::note(after, self.instance)?;
        if let Err(e) = systemd::restart(&unit) {
            StandsBack::note(before, self.instance)?;
            return Err(e.into());
        }
        Ok(true)
    }
}
