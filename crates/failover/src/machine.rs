//! This machine: its configuration, data folder, daemons and state, opened once and passed to every step; and all that it
//! keeps from one run to the next.

pub(crate) mod archive;
pub(crate) mod call;
pub(crate) mod commit;
pub(crate) mod config;
pub(crate) mod followers;
pub(crate) mod journal;
pub(crate) mod lock;
pub(crate) mod master;
pub(crate) mod memory;
pub(crate) mod notify;
pub(crate) mod outcome;
pub(crate) mod record;
pub(crate) mod recover;
pub(crate) mod rehearsal_folder;
pub(crate) mod run;
pub(crate) mod space;
pub(crate) mod state;
pub(crate) mod step_down;
pub(crate) mod supervisor;
pub(crate) mod watchdog;

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::machine::config::Config;
use crate::machine::state::State;
use crate::moosefs::services::{self, Services};
use crate::moosefs::{self, Daemon, Info};
use crate::sys::cancel::Cancel;
use crate::sys::folder::{self, Folder, Owner};
use crate::sys::logging::chain;
use crate::sys::process::{self, Identity, Stopped};
use crate::sys::progress::{Allowance, Patience};
use crate::timing;
use rustix::fs::Stat;

/// How long a running master may take to answer before it counts as hung.
const ANSWER: Duration = Duration::from_secs(2);
/// A metalogger that has not ended within this hangs: it only flushes its logs.
const METALOGGER_STOP: Duration = Duration::from_secs(10);

/// Why the run cannot begin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The data folder.
    #[error("no data folder. Is DATA_PATH in mfsmaster.cfg right?")]
    Data(#[source] folder::Error),
    /// The state folder.
    #[error(transparent)]
    State(#[from] state::Error),
    /// The daemons.
    #[error(transparent)]
    Service(#[from] services::Error),
    /// Whether a daemon runs.
    #[error(transparent)]
    MooseFs(#[from] moosefs::Error),
    /// Another user's folder.
    #[error(
        "{0} is not owned by WORKING_USER ({user}); is DATA_PATH in mfsmaster.cfg right? If it is, run: chown {user} {0}",
        path.display()
    )]
    NotTheirs {
        /// The data folder.
        path: std::path::PathBuf,
        /// `WORKING_USER`
        user: String,
    },
    /// The user the daemons run as.
    #[error("there is no user {user} or no group {group}; are WORKING_USER and WORKING_GROUP in mfsmaster.cfg right?")]
    User {
        /// `WORKING_USER`
        user: String,
        /// `WORKING_GROUP`
        group: String,
    },
}

/// This machine's data folder, daemons and state.
pub(crate) struct Machine {
    pub(crate) config: Config,
    pub(crate) data: Folder,
    pub(crate) owner: Owner,
    pub(crate) services: Services,
    pub(crate) state: State,
}

impl Machine {
    /// Opens the machine that `config` describes.
    pub(crate) fn open(config: Config) -> Result<Self, Error> {
        let group = config.working_group.as_deref();
        let owner = Owner::named(&config.working_user, group).ok_or_else(|| Error::User {
            user: config.working_user.clone(),
            group: group.unwrap_or("of that user").to_owned(),
        })?;
        let data = Folder::open(&config.data_path).map_err(Error::Data)?;
        if !belongs_to(&data.own_status().map_err(Error::Data)?, owner) {
            return Err(Error::NotTheirs { path: config.data_path, user: config.working_user });
        }
        Ok(Self { data, owner, services: Services::find(&config.services)?, state: State::open()?, config })
    }

    /// The process of `daemon` on this machine's data folder.
    pub(crate) fn running(&self, daemon: Daemon) -> Result<Option<Identity>, moosefs::Error> {
        moosefs::running(&self.data, daemon)
    }

    /// Asks the master on this machine once. Nothing follows from its silence: see [`master`].
    pub(crate) fn ask_master(&self) -> Result<Info, moosefs::Error> {
        moosefs::info(self.config.own_master(), ANSWER)
    }

    /// How long a start of the master may take with what is in the data folder.
    pub(crate) fn start_time(&self) -> Allowance {
        self.services.start_time(loaded_size(&self.data))
    }

    /// How long a clean stop of the master may take.
    pub(crate) fn stop_time(&self) -> Allowance {
        self.services.stop_time(image_size(&self.data))
    }

    /// Stops `daemon` if it runs and waits until it is gone. Says what it took.
    pub(crate) fn stop(&self, daemon: Daemon) -> Result<Stopped, Error> {
        let Some(identity) = self.running(daemon)? else { return Ok(Stopped::AlreadyGone) };
        let time = match daemon {
            // It has no metadata to store, and clients wait for this.
            Daemon::Metalogger => Allowance::fixed(METALOGGER_STOP.min(self.stop_time().most)),
            _ => self.stop_time(),
        };
        Ok(self.services.stop(daemon, identity, time)?)
    }

    /// Starts the metalogger and waits until it runs.
    pub(crate) fn start_metalogger(&self) -> Result<(), Error> {
        // Never cut short: it is the end of every roll-back.
        let cancel = Cancel::never();
        self.services.start(Daemon::Metalogger, cancel)?;
        let end = Instant::now() + ANSWER;
        while matches!(self.running(Daemon::Metalogger), Ok(None)) && Instant::now() < end {
            let _ = cancel.sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Ends what the start of a restoring master changed; see [`Services::remove_restore_dropin`].
    pub(crate) fn remove_restore_dropin(&self) {
        if let Err(e) = self.services.remove_restore_dropin() {
            log::error!("cannot remove the systemd drop-in, so mfsmaster would still start with -a: {}", chain(&e));
        }
    }
}

/// Stops the master of a machine that cannot be opened as a [`Machine`]: with a broken state folder, a wrong owner, a service
/// that does not exist. It is known by its lock in the data folder or, where that cannot be opened, by its name. Says whether
/// one ran.
pub(crate) fn stop_master_of_broken_machine(config: &Config) -> Result<bool, Error> {
    let master = match Folder::open(&config.data_path) {
        Ok(data) => moosefs::running(&data, Daemon::Master)?,
        Err(e) => {
            log::error!("{}; looking for mfsmaster by its name", chain(&e));
            process::oldest_in_this_network(Daemon::Master.program())
        }
    };
    let Some(master) = master else { return Ok(false) };
    let time = config.services.stop_time(0);
    let stopped = match Services::find(&config.services) {
        Ok(services) => services.stop(Daemon::Master, master, time),
        Err(e) => {
            log::error!("{}; sending TERM to mfsmaster (pid {})", chain(&e), master.pid);
            let patience = Patience::with(Daemon::Master.program(), time);
            process::stop(master, patience).map_err(|source| services::Error::Command {
                verb: "stop",
                control: Daemon::Master.to_string(),
                source,
            })
        }
    };
    stopped?;
    Ok(true)
}

/// How long a run waits for the one before it: as long as that one may take to store what is in the data folder, and a margin.
pub(crate) fn time_for_run_before(config: &Config) -> Allowance {
    let path = config.data_path.clone();
    // In a thread of its own: reading a folder on a disk that does not answer has no end.
    let (found, size) = mpsc::channel();
    let looking = thread::Builder::new().name("image size".into()).spawn(move || {
        let image = Folder::open(&path).map(|data| image_size(&data));
        // The receiver is gone if that took too long.
        let _ = found.send(image.unwrap_or_default());
    });
    let image = looking.ok().and_then(|_| size.recv_timeout(timing::IMAGE_SIZE).ok());
    let Allowance { still, most } = config.services.stop_time(image.unwrap_or_default());
    Allowance { still: still + timing::LOCK_MARGIN, most: most + timing::LOCK_MARGIN }
}

/// How much a master may have to load from the data folder `data`: the largest image and all change logs.
pub(crate) fn loaded_size(data: &Folder) -> u64 {
    sizes(data, "changelog").into_iter().fold(image_size(data), u64::saturating_add)
}

/// The size of the largest image in the data folder `data`.
fn image_size(data: &Folder) -> u64 {
    sizes(data, "metadata").into_iter().max().unwrap_or_default()
}

/// The sizes of the files whose names begin so.
fn sizes(data: &Folder, prefix: &str) -> Vec<u64> {
    let all = data.names().unwrap_or_default();
    let named = all.iter().filter(|name| name.to_string_lossy().starts_with(prefix));
    named.filter_map(|name| u64::try_from(data.status(name).ok().flatten()?.st_size).ok()).collect()
}

/// Whether a folder is `owner`'s to write, so that root does nothing there on behalf of others: a link in the path of the
/// data folder may be theirs, too, and lead anywhere.
fn belongs_to(folder: &Stat, owner: Owner) -> bool {
    folder.st_uid == owner.uid || (folder.st_gid == owner.gid && folder.st_mode & 0o020 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, chown};

    #[test]
    fn a_run_waits_for_the_one_before_it_as_long_as_the_image_takes_to_be_stored() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::fallback();
        config.data_path = dir.path().to_owned();
        (config.services.start_timeout, config.services.stop_timeout) = (Duration::ZERO, Duration::from_secs(60));
        let seconds = |still, most| Allowance { still: Duration::from_secs(still), most: Duration::from_secs(most) };
        assert_eq!(time_for_run_before(&config), seconds(120, 360));
        let image = std::fs::File::create(dir.path().join("metadata.mfs.back")).unwrap();
        image.set_len(50_000_000_000).unwrap();
        assert_eq!(time_for_run_before(&config), seconds(120, 25_360));
        config.data_path = "/nowhere".into();
        assert_eq!(time_for_run_before(&config), seconds(120, 360));
    }

    #[test]
    fn a_start_gets_time_for_the_image_and_for_the_changes() {
        let dir = tempfile::tempdir().unwrap();
        let data = Folder::open(dir.path()).unwrap();
        let sizes = [
            ("metadata.mfs.back", 7),
            ("metadata.mfs.back.1", 5),
            ("changelog.0.mfs", 100),
            ("changelog_ml.1.mfs", 20),
        ];
        for (name, size) in sizes {
            std::fs::File::create(dir.path().join(name)).unwrap().set_len(size).unwrap();
        }
        assert_eq!(loaded_size(&data), 127);
        let settings = Config::fallback().services;
        let minute = Duration::from_secs(60);
        // A day of changes beside a small image.
        let time = settings.start_time(1_000_000_000 + 6_000_000_000);
        assert_eq!((time.still, time.most), (minute, (minute + Duration::from_secs(700)) * 5));
        // 110 million objects that take 57 minutes to be stored.
        assert!(settings.stop_time(14_000_000_000).most > minute * 57);
    }

    #[test]
    fn a_folder_that_the_daemons_cannot_write_is_not_theirs() {
        let dir = tempfile::tempdir().unwrap();
        let theirs = |owner| belongs_to(&Folder::open(dir.path()).unwrap().own_status().unwrap(), owner);
        let owner = Owner { uid: 65_534, gid: 65_534 };
        assert!(!theirs(owner), "as a link to /etc would be");
        chown(dir.path(), None, Some(65_534)).unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o750)).unwrap();
        assert!(!theirs(owner));
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o770)).unwrap();
        assert!(theirs(owner));
        chown(dir.path(), Some(65_534), Some(0)).unwrap();
        assert!(theirs(owner));
    }
}
