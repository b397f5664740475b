//! This machine: its configuration, data folder, daemons and state, opened once and passed to every step; and all that it
//! keeps from one run to the next.

pub(crate) mod archive;
pub(crate) mod call;
pub(crate) mod commit;
pub(crate) mod config;
pub(crate) mod connections;
pub(crate) mod dropped_logs;
#[cfg(test)]
mod earlier;
pub(crate) mod followers;
pub(crate) mod journal;
pub(crate) mod last_heard;
pub(crate) mod lock;
pub(crate) mod master;
pub(crate) mod memory;
pub(crate) mod neighbours;
pub(crate) mod notify;
pub(crate) mod outcome;
pub(crate) mod record;
pub(crate) mod recover;
pub(crate) mod rehearsal_folder;
pub(crate) mod restart;
pub(crate) mod run;
pub(crate) mod space;
pub(crate) mod standby_master;
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
use crate::sys::folder::{self, Folder, Owner, lead_to_one};
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
    /// A configuration that does not say where it is.
    #[error("the data folder is not known, since its configuration cannot be read")]
    UnknownData,
    /// Several masters, and nothing that tells which one is meant.
    #[error(
        "several masters run here (process {}), and the configuration does not tell which one this address belonged to; stop \
         that one", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    )]
    Several(Vec<u32>),
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
    pub(crate) fn open(mut config: Config) -> Result<Self, Error> {
        if !config.knows_data_folder() {
            return Err(Error::UnknownData);
        }
        let data = Folder::open(&config.data_path).map_err(Error::Data)?;
        config.find_default_user(&data);
        let group = config.working_group.as_deref();
        let owner = Owner::named(&config.working_user, group).ok_or_else(|| Error::User {
            user: config.working_user.clone(),
            group: group.unwrap_or("of that user").to_owned(),
        })?;
        if !belongs_to(&data.own_status().map_err(Error::Data)?, owner) {
            return Err(Error::NotTheirs { path: config.data_path, user: config.working_user });
        }
        Ok(Self {
            data,
            owner,
            services: Services::find(&config.services)?,
            state: State::of_if_possible(&config.instance)?,
            config,
        })
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

/// Stops the master of a machine that cannot be opened as a [`Machine`]: with a configuration that cannot be read, a broken
/// state folder, a wrong owner, a service that does not exist. It is known by its lock in the data folder or, where that cannot
/// be opened, by its process. Says whether one ran.
pub(crate) fn stop_master_of_broken_machine(config: &Config) -> Result<bool, Error> {
    let folder = if config.knows_data_folder() {
        Folder::open(&config.data_path).map_err(Error::Data)
    } else {
        Err(Error::UnknownData)
    };
    let master = match folder {
        Ok(data) => moosefs::running(&data, Daemon::Master)?,
        // Whose it is, its name does not say.
        Err(e) if config.instance.name().is_some() || neighbours::has_others(&config.instance) => {
            return Err(e);
        }
        Err(e) => {
            log::error!("{}; looking for mfsmaster among the processes", chain(&e));
            only_master(config)?
        }
    };
    let Some(master) = master else { return Ok(false) };
    let time = config.services.stop_time(0);
    // The service of another file could be that of another master.
    let services = config.knows_master_cfg().then(|| Services::find(&config.services));
    let stopped = match services {
        Some(Ok(services)) => services.stop(Daemon::Master, master, time),
        failed => {
            let why = failed.and_then(Result::err).map(|e| format!("{}; ", chain(&e))).unwrap_or_default();
            log::error!("{why}sending TERM to mfsmaster (pid {})", master.pid);
            process::stop(master, Patience::with(Daemon::Master.program(), time)).map_err(|source| {
                services::Error::Command { verb: "stop", control: Daemon::Master.to_string(), source }
            })
        }
    };
    stopped?;
    Ok(true)
}

/// The master that runs with this configuration, or the only one if it is not known with which: a second one belongs to
/// another service.
fn only_master(config: &Config) -> Result<Option<Identity>, Error> {
    let is_ours = |master: &Identity| {
        let used = moosefs::configuration_of(master.pid).filter(|_| config.knows_master_cfg());
        used.is_none_or(|path| lead_to_one(&path, &config.services.master_cfg))
    };
    let masters = process::in_this_network(Daemon::Master.program());
    let found: Vec<_> = masters.into_iter().filter(is_ours).collect();
    match found.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(*one)),
        several => Err(Error::Several(several.iter().map(|master| master.pid).collect())),
    }
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
        let mut config = Config::salvage(None);
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
        let settings = Config::salvage(None).services;
        let minute = Duration::from_secs(60);
        // A day of changes beside a small image.
        let time = settings.start_time(1_000_000_000 + 6_000_000_000);
        assert_eq!((time.still, time.most), (minute, (minute + Duration::from_secs(700)) * 5));
        // 110 million objects that take 57 minutes to be stored.
        assert!(settings.stop_time(14_000_000_000).most > minute * 57);
    }

    #[test]
    fn of_several_masters_the_one_of_this_configuration_is_meant() {
        use nix::sched::{CloneFlags, unshare};

        unshare(CloneFlags::CLONE_NEWNET).expect("these tests run as root");
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("mfsmaster");
        std::fs::write(&program, "#!/bin/sh\nwhile :; do sleep 1; done\n").unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let start = |words: &[&str]| std::process::Command::new(&program).args(words).spawn().unwrap();
        let mut masters = [start(&["-uc", "/x/a.cfg", "start"]), start(&["-c/x/b.cfg", "-t", "-c", "start"])];
        let pids = masters.each_ref().map(std::process::Child::id);
        let mut config = Config::salvage(None);
        config.data_path.clear();
        let mut meant = |master_cfg: &str| {
            config.services.master_cfg = master_cfg.into();
            only_master(&config).map(|master| master.map(|master| master.pid))
        };
        assert_eq!(meant("/x/a.cfg").unwrap(), Some(pids[0]));
        assert_eq!(meant("/x/b.cfg").unwrap(), Some(pids[1]));
        assert_eq!(meant("/x/c.cfg").unwrap(), None, "theirs belong to other services");
        assert!(matches!(meant(""), Err(Error::Several(_))), "nothing tells which one");
        masters[1].kill().unwrap();
        masters[1].wait().unwrap();
        assert_eq!(meant("").unwrap(), Some(pids[0]));
        masters[0].kill().unwrap();
        masters[0].wait().unwrap();
        assert_eq!(meant("").unwrap(), None);
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
