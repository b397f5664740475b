//! When the run that stood by heard the other machines last, for the election after it.
//!
//! An election begins when ucarp has given the other machines up, so it cannot know itself for how long they have been silent.
//! The run that stood by writes that to the folder of runs as it ends. Times are since this machine was booted; what another
//! election or another boot has left is too old to be read.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::lock::since_boot;
use crate::instance::Instance;
use crate::sys::folder::Folder;
use crate::sys::json_file;
use crate::sys::logging::chain;

const FILE: &str = "last-heard.json";
/// A run that stood by ends when a hook has called, and not long before.
const BEFORE: Duration = Duration::from_secs(1);

/// What one machine was heard to say last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Signs {
    /// Its last believed heartbeat.
    pub(crate) heartbeat: Option<Instant>,
    /// Its last advertisement as MASTER.
    pub(crate) advertisement: Option<Instant>,
}

/// What was heard by a run, from a moment on until it ended.
#[derive(Debug, Clone)]
pub(crate) struct LastHeard {
    /// From when on it listened.
    pub(crate) since: Instant,
    /// The machines of which anything was heard.
    pub(crate) machines: BTreeMap<Ipv4Addr, Signs>,
}

/// The same in times since the boot.
#[derive(Serialize, Deserialize)]
struct Written {
    since: Duration,
    until: Duration,
    machines: BTreeMap<Ipv4Addr, [Option<Duration>; 2]>,
}

impl LastHeard {
    /// Leaves it to the election that has ended this run.
    pub(crate) fn leave(&self, instance: &Instance) {
        let left = Folder::open(&instance.run_folder()).map_err(json_file::Error::from);
        if let Err(e) = left.and_then(|folder| self.write(&folder)) {
            log::debug!("the next election cannot know how long others are silent: {}", chain(&e));
        }
    }

    fn write(&self, folder: &Folder) -> Result<(), json_file::Error> {
        let until = since_boot();
        // A time in which this machine slept makes a silence shorter here than it was.
        let at = |moment: Instant| until.saturating_sub(moment.elapsed());
        let signs = |signs: &Signs| [signs.heartbeat, signs.advertisement].map(|moment| moment.map(at));
        let machines = self.machines.iter().map(|(address, heard)| (*address, signs(heard))).collect();
        json_file::write(folder, OsStr::new(FILE), &Written { since: at(self.since), until, machines })
    }

    /// Takes what the run has left that ended for the election which began at `begun`; `None` as long as it has not ended. It is
    /// true for this election only.
    pub(crate) fn take(instance: &Instance, begun: Instant) -> Option<Self> {
        Self::take_from(&Folder::open(&instance.run_folder()).ok()?, begun)
    }

    /// What an election has not taken is true no more: this machine stands by again.
    pub(crate) fn forget(instance: &Instance) {
        let removed = Folder::open(&instance.run_folder()).map_err(json_file::Error::from);
        if let Err(e) = removed.and_then(|folder| json_file::remove(&folder, OsStr::new(FILE))) {
            log::debug!("{}", chain(&e));
        }
    }

    fn take_from(folder: &Folder, begun: Instant) -> Option<Self> {
        let written: Written = json_file::read(folder, OsStr::new(FILE)).ok()??;
        json_file::remove(folder, OsStr::new(FILE)).ok()?;
        let (now, here) = (since_boot(), Instant::now());
        let at = |moment: Duration| here.checked_sub(now.checked_sub(moment)?);
        let signs = |[heartbeat, advertisement]: [Option<Duration>; 2]| Signs {
            heartbeat: heartbeat.and_then(at),
            advertisement: advertisement.and_then(at),
        };
        let machines = written.machines.into_iter().map(|(address, heard)| (address, signs(heard))).collect();
        let in_time = at(written.until)? + BEFORE >= begun;
        Some(Self { since: at(written.since)?, machines }).filter(|_| in_time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_election_takes_what_the_run_before_it_has_left_and_nothing_older() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        assert!(LastHeard::take_from(&folder, Instant::now()).is_none(), "it has not ended");

        let ago = |milliseconds| Instant::now().checked_sub(Duration::from_millis(milliseconds)).unwrap();
        let peer = Ipv4Addr::new(10, 0, 0, 2);
        let signs = Signs { heartbeat: Some(ago(400)), advertisement: None };
        let heard = LastHeard { since: ago(900), machines: [(peer, signs)].into() };
        heard.write(&folder).unwrap();

        let begun = Instant::now();
        let read = LastHeard::take_from(&folder, begun).unwrap();
        let silent = read.machines[&peer].heartbeat.unwrap().elapsed();
        assert!((400..1400).contains(&silent.as_millis()), "{silent:?}");
        assert!((900..1900).contains(&read.since.elapsed().as_millis()));
        assert_eq!(read.machines[&peer].advertisement, None);
        assert!(LastHeard::take_from(&folder, begun).is_none(), "it is taken");

        heard.write(&folder).unwrap();
        let next_election = Instant::now() + BEFORE * 2;
        assert!(LastHeard::take_from(&folder, next_election).is_none(), "of an election before");
    }
}
