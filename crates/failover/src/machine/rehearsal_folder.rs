//! The folder of a rehearsal: `DATA_PATH/mfs-rehearsal/restore`.
//!
//! It lies in the data folder so that the rehearsal meets the same disk, and apart from the folders of promotions
//! because all in it is a copy and nothing is ever archived. The outer folder belongs to root alone, so no other user
//! can exchange the inner one, which is given to the user of the daemons once the set is staged. The configuration lies
//! where only root can write, because `mfsmaster` reads it as root.

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::instance::Instance;
use crate::machine::config::Config;
use crate::machine::lock::{self, Locks};
use crate::moosefs::{self, Daemon};
use crate::sys::folder::{self, Folder, Owner};
use crate::sys::process;

const ROOT: &str = "mfs-rehearsal";
const RESTORE: &str = "restore";
const CONFIG: &str = "rehearsal.cfg";
/// How a rehearsal's lines are marked in the system log.
const IDENT: &str = "mfs-rehearsal";

/// Why the folder cannot be made or removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A file or folder.
    #[error(transparent)]
    Folder(#[from] folder::Error),
    /// The folder of the lock.
    #[error(transparent)]
    Lock(#[from] lock::Error),
    /// Whether a restore still runs is not known.
    #[error(transparent)]
    MooseFs(#[from] moosefs::Error),
    /// A restore that does not end.
    #[error("cannot kill the restore of an earlier rehearsal")]
    Process(#[from] process::Error),
    /// Another user made the folder.
    #[error("{} belongs to another user, so no rehearsal made it; move it away", .0.display())]
    Foreign(PathBuf),
    /// The path leads to another folder.
    #[error("{} was exchanged for another folder during the rehearsal; find out which program did that", .0.display())]
    Exchanged(PathBuf),
    /// The configuration cannot be written.
    #[error("cannot write {}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

/// A new rehearsal folder.
#[derive(Debug)]
pub(crate) struct RehearsalFolder {
    /// Where the set is staged and restored.
    pub(crate) restore: Folder,
}

impl RehearsalFolder {
    /// Makes the folder; the caller has removed that of an earlier rehearsal.
    pub(crate) fn create(data: &Folder) -> Result<Self, Error> {
        let root = data.make_subfolder(ROOT.as_ref(), 0o700)?;
        // The user of the daemons passes through, and sees and changes nothing in it.
        root.let_through()?;
        Ok(Self { restore: root.make_subfolder(RESTORE.as_ref(), 0o700)? })
    }

    /// Gives the staged set to the user of the daemons, writes the configuration of the restore, and returns its path.
    pub(crate) fn give_to_daemon_user(&self, data: &Folder, config: &Config, owner: Owner) -> Result<PathBuf, Error> {
        self.restore.give_away(owner)?;
        // A restore on a data folder in use ends its master, so make sure that the path still leads to the folder we
        // made.
        let by_path = Folder::open(self.restore.path())?;
        if identity(&by_path)? != identity(&self.restore)? || identity(&by_path)? == identity(data)? {
            return Err(Error::Exchanged(self.restore.path().to_owned()));
        }
        let path = config_file(&config.instance);
        let mut file = std::fs::OpenOptions::new();
        file.write(true).create(true).truncate(true).mode(0o600);
        let text = configuration(config, self.restore.path());
        let written = file.open(&path).and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|source| Error::Config { path: path.clone(), source })?;
        Ok(path)
    }
}

/// The configuration of the `mfsmaster` that restores. By default it would raise its own priority and protect itself
/// from the OOM killer; only the daemons at work may do that.
fn configuration(config: &Config, data_path: &Path) -> String {
    let mut text = format!("WORKING_USER = {}\n", config.working_user);
    if let Some(group) = &config.working_group {
        let _ = writeln!(text, "WORKING_GROUP = {group}");
    }
    let path = data_path.display();
    let _ = write!(text, "DATA_PATH = {path}\nSYSLOG_IDENT = {IDENT}\nDISABLE_OOM_KILLER = 0\nNICE_LEVEL = 19\n");
    text
}

/// Removes the folder of an earlier rehearsal, unless one runs. Says whether nothing is left.
pub(crate) fn sweep(data: &Folder, instance: &Instance) -> Result<bool, Error> {
    if !exists(data)? {
        return Ok(true);
    }
    let Some(_no_rehearsal) = Locks::of(instance)?.no_rehearsal()? else { return Ok(false) };
    remove(data, instance)?;
    Ok(true)
}

/// The configuration of the `mfsmaster` that restores.
fn config_file(instance: &Instance) -> PathBuf {
    instance.run_folder().join(CONFIG)
}

/// Whether the folder is there.
fn exists(data: &Folder) -> Result<bool, Error> {
    Ok(data.status(ROOT.as_ref())?.is_some())
}

/// Kills a restore that still works in the folder, and removes it with all files in it. The caller holds the right to
/// rehearse.
pub(crate) fn remove(data: &Folder, instance: &Instance) -> Result<(), Error> {
    let config = config_file(instance);
    match std::fs::remove_file(&config) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::Config { path: config, source });
        }
        _ => (),
    }
    if !exists(data)? {
        return Ok(());
    }
    let root = data.subfolder(ROOT.as_ref())?;
    if !root.is_ours()? {
        return Err(Error::Foreign(root.path().to_owned()));
    }
    if root.status(RESTORE.as_ref())?.is_some() {
        let restore = root.subfolder(RESTORE.as_ref())?;
        end_restore(data, &restore)?;
        for name in restore.names()? {
            restore.remove(&name)?;
        }
        root.remove_subfolder(RESTORE.as_ref())?;
    }
    Ok(data.remove_subfolder(ROOT.as_ref())?)
}

/// Kills a restore that a killed rehearsal has left running.
fn end_restore(data: &Folder, restore: &Folder) -> Result<(), Error> {
    let Some(restore) = moosefs::running(restore, Daemon::Master)? else { return Ok(()) };
    // Never the master of this machine, even if the lock file there is a link to its own.
    if moosefs::running(data, Daemon::Master)? != Some(restore) {
        process::kill(restore)?;
    }
    Ok(())
}

fn identity(folder: &Folder) -> Result<(u64, u64), Error> {
    let status = folder.own_status()?;
    Ok((status.st_dev, status.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    fn data() -> (tempfile::TempDir, Folder) {
        let dir = tempfile::tempdir().unwrap();
        let data = Folder::open(dir.path()).unwrap();
        (dir, data)
    }

    #[test]
    fn only_the_inner_folder_is_given_away_and_all_of_it_goes() {
        let (dir, data) = data();
        std::fs::write(dir.path().join("metadata_ml.mfs.back"), "").unwrap();
        let folder = RehearsalFolder::create(&data).unwrap();
        folder.restore.give_away(Owner { uid: 7, gid: 7 }).unwrap();
        let status = |name: &str| std::fs::metadata(dir.path().join(name)).unwrap();
        assert_eq!((status(ROOT).uid(), status(ROOT).mode() & 0o777), (0, 0o711));
        assert_eq!((status("mfs-rehearsal/restore").uid(), status("mfs-rehearsal/restore").mode() & 0o777), (7, 0o700));
        std::fs::write(folder.restore.path().join("metadata.mfs"), "").unwrap();
        assert!(RehearsalFolder::create(&data).is_err(), "never two in one");
        remove(&data, &Instance::default()).unwrap();
        remove(&data, &Instance::default()).unwrap();
        assert_eq!(data.names().unwrap(), ["metadata_ml.mfs.back"]);
    }

    #[test]
    fn a_folder_of_another_user_is_left_alone() {
        let (dir, data) = data();
        std::fs::create_dir(dir.path().join(ROOT)).unwrap();
        std::fs::set_permissions(dir.path().join(ROOT), std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(remove(&data, &Instance::default()), Err(Error::Foreign(_))));
        std::fs::remove_dir(dir.path().join(ROOT)).unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join(ROOT)).unwrap();
        assert!(remove(&data, &Instance::default()).is_err());
    }

    #[test]
    fn a_restore_left_at_work_is_ended_and_a_master_at_work_is_not() {
        let (dir, data) = data();
        let folder = RehearsalFolder::create(&data).unwrap();
        let code = "import fcntl,sys,time; f=open(sys.argv[1],'w'); fcntl.lockf(f,fcntl.LOCK_EX); print(flush=True); time.sleep(600)";
        let hold = |folder: &Path| {
            let mut holder = std::process::Command::new("python3")
                .args(["-c", code])
                .arg(folder.join(".mfsmaster.lock"))
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut [0]).unwrap();
            holder
        };
        let mut restore = hold(folder.restore.path());
        // Collected here as init would collect an orphan.
        let collected = std::thread::spawn(move || restore.wait().unwrap());
        remove(&data, &Instance::default()).unwrap();
        assert!(!collected.join().unwrap().success());
        assert!(data.names().unwrap().is_empty());

        let mut master = hold(dir.path());
        let folder = RehearsalFolder::create(&data).unwrap();
        std::fs::hard_link(dir.path().join(".mfsmaster.lock"), folder.restore.path().join(".mfsmaster.lock")).unwrap();
        remove(&data, &Instance::default()).unwrap();
        assert!(master.try_wait().unwrap().is_none(), "the master at work is not a restore");
        master.kill().unwrap();
        master.wait().unwrap();
    }

    #[test]
    fn the_restore_gets_a_low_priority_and_no_privilege() {
        let text = configuration(&Config::salvage(None), Path::new("/x/mfs-rehearsal/restore"));
        assert!(text.starts_with("WORKING_USER = mfs\n"), "{text}");
        for line in ["DATA_PATH = /x/mfs-rehearsal/restore", "NICE_LEVEL = 19", "DISABLE_OOM_KILLER = 0"] {
            assert!(text.lines().any(|l| l == line), "{line} in {text}");
        }
    }
}
