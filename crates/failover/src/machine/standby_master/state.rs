//! What the run that keeps a hot standby says of it.

use std::ffi::OsStr;

use serde::{Deserialize, Serialize};

use super::Error;
use crate::instance::Instance;
use crate::machine::config::{Config, StandbyMode};
use crate::metadata::Version;
use crate::moosefs::waiting;
use crate::sys::folder::Folder;
use crate::sys::json_file;

/// What is known of the hot standby of this machine.
const REPORT: &str = "hot.json";

/// What the run that keeps a hot standby says of it, for `--status` and `--check`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum HotState {
    /// It has loaded the copy and follows.
    Hot {
        /// Since when, in Unix seconds.
        since: i64,
        /// What it was fed by the last look.
        version: Version,
        /// How much memory it had by then, in bytes.
        memory: u64,
        /// How long it took to stage and load the copy, in milliseconds.
        load_ms: u64,
    },
    /// There is none.
    Cold {
        /// Why.
        why: String,
        /// What that means.
        kind: Cold,
    },
}

/// What it means that there is no hot standby.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Cold {
    /// It is tried again.
    ForNow,
    /// The release or the memory of this machine does not allow one, and `STANDBY` does not ask for it.
    NotHere,
    /// A change does not replay: then a promotion could not serve either.
    NotReplayed,
    /// A promotion from the copy would be refused.
    Refused,
}

impl HotState {
    /// What a machine that stands by has to say; `None` where it shall keep none.
    pub(crate) fn of(config: &Config, data: &Folder) -> Result<Option<Self>, Error> {
        if config.standby == StandbyMode::Cold {
            return Ok(None);
        }
        let cold = |why: &str| Self::Cold { why: why.to_owned(), kind: Cold::ForNow };
        Ok(Some(match Self::read(&config.instance)? {
            Some(Self::Hot { .. }) if waiting::master(data)?.is_none() => cold("the hot standby has ended"),
            Some(state) => state,
            None => cold("it is being loaded, or ucarp runs since before STANDBY was set: then restart ucarp"),
        }))
    }

    fn read(instance: &Instance) -> Result<Option<Self>, json_file::Error> {
        match Folder::open(&instance.run_folder()) {
            Ok(folder) => json_file::read(&folder, OsStr::new(REPORT)),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Makes it known, or that no run keeps one any more.
    pub(crate) fn tell(this: Option<&Self>, instance: &Instance) -> Result<(), json_file::Error> {
        let folder = Folder::open(&instance.run_folder())?;
        match this {
            Some(report) => json_file::write(&folder, OsStr::new(REPORT), report),
            None => json_file::remove(&folder, OsStr::new(REPORT)),
        }
    }
}
