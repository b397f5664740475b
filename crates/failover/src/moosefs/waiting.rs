//! A master that has loaded a set and waits: the master of a hot standby.
//!
//! It holds the lock of a master and serves nobody. It bears a mark in its environment, which never changes, and waits as long as
//! a file in `DATA_PATH/mfs-promote/hot` has the same mark as its name. Who removes that file says that it serves from now on.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

use super::{Daemon, Error};
use crate::sys::folder::{self, Folder};
use crate::sys::process::{self, Identity};

/// The folder of all that `mfs-promote` keeps in a data folder.
pub(crate) const ROOT: &str = "mfs-promote";
/// The folder of the hot standby in it.
pub(crate) const FOLDER: &str = "hot";
/// How a mark begins.
pub(crate) const MARK: &str = "waits.";
/// The variable with the mark.
pub(crate) const VARIABLE: &str = "MFS_PROMOTE_WAITS";

/// The master that waits on the data folder, if there is one.
pub(crate) fn master(data: &Folder) -> Result<Option<Identity>, Error> {
    let found = super::locked_by(data, Daemon::Master)?;
    Ok(found.filter(|process| is_waiting(data, *process)))
}

/// Whether `process`, which holds the lock of a master, waits.
pub(super) fn is_waiting(data: &Folder, process: Identity) -> bool {
    let mark = mark_of(process.pid);
    process.is_alive() && mark.is_some_and(|mark| marks(data).is_ok_and(|marks| marks.contains(&mark)))
}

/// All processes that wait on the data folder, or belong to one that does or is about to: also before it has the lock. Its writer
/// has written its title over its environment.
pub(crate) fn marked(data: &Folder) -> Result<Vec<Identity>, folder::Error> {
    let marks = marks(data)?;
    if marks.is_empty() {
        return Ok(Vec::new());
    }
    let found = process::all().into_iter().filter_map(Identity::of);
    let mut found: Vec<Identity> =
        found.filter(|process| mark_of(process.pid).is_some_and(|mark| marks.contains(&mark))).collect();
    let mut forked: Vec<Identity> = found.iter().flat_map(|process| process::forked_by(*process)).collect();
    forked.retain(|process| !found.contains(process));
    found.extend(forked);
    Ok(found)
}

/// Whether a master was a waiting one when it was started.
pub(super) fn has_waited(master: Identity) -> bool {
    mark_of(master.pid).is_some() && master.is_alive()
}

/// The mark in the environment of a process.
fn mark_of(pid: u32) -> Option<OsString> {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    environment.split(|byte| *byte == 0).find_map(|variable| {
        let value = variable.strip_prefix(VARIABLE.as_bytes())?.strip_prefix(b"=")?;
        Some(OsStr::from_bytes(value).to_owned())
    })
}

/// The marks of masters that wait.
fn marks(data: &Folder) -> Result<Vec<OsString>, folder::Error> {
    let open = |folder: &Folder, name: &str| match folder.subfolder(name.as_ref()) {
        Ok(found) => Ok(Some(found).filter(|found| found.is_ours().unwrap_or(false))),
        Err(e) if e.is_not_found() => Ok(None),
        Err(e) => Err(e),
    };
    let Some(root) = open(data, ROOT)? else { return Ok(Vec::new()) };
    let Some(folder) = open(&root, FOLDER)? else { return Ok(Vec::new()) };
    let names = folder.names()?;
    Ok(names.into_iter().filter(|name| name.as_bytes().starts_with(MARK.as_bytes())).collect())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::path::Path;

    use super::*;

    /// A process that holds the lock of a master on the folder, with a mark.
    fn master(data: &Path, mark: &str) -> std::process::Child {
        std::fs::write(data.join(".mfsmaster.lock"), "").unwrap();
        let code = "import fcntl,subprocess,sys,time; f=open(sys.argv[1],'r+'); fcntl.lockf(f,fcntl.LOCK_EX); \
                    subprocess.Popen(['/bin/sleep', '60'], env={}); print(flush=True); time.sleep(60)";
        let mut holder = std::process::Command::new("python3")
            .args(["-c", code])
            .arg(data.join(".mfsmaster.lock"))
            .env(VARIABLE, mark)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        holder.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        holder
    }

    #[test]
    fn a_master_waits_as_long_as_its_mark_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let data = Folder::open(dir.path()).unwrap();
        let hot = dir.path().join(ROOT).join(FOLDER);
        std::fs::create_dir_all(&hot).unwrap();
        std::fs::write(hot.join("waits.1"), "").unwrap();
        let mut process = master(dir.path(), "waits.1");
        let identity = Identity::of(process.id()).unwrap();
        assert_eq!(super::master(&data).unwrap(), Some(identity));
        assert_eq!(crate::moosefs::running(&data, Daemon::Master).unwrap(), None, "it serves nobody");
        // Also what it has started, without a mark.
        let all = marked(&data).unwrap();
        assert!(all[0] == identity && all.len() == 2, "{all:?}");

        std::fs::rename(hot.join("waits.1"), hot.join("waits.2")).unwrap();
        assert_eq!(super::master(&data).unwrap(), None, "the mark of another one");
        assert_eq!(crate::moosefs::running(&data, Daemon::Master).unwrap(), Some(identity));
        assert_eq!(marked(&data).unwrap(), []);
        assert!(has_waited(identity));

        // A folder that the user of the daemons has made says nothing.
        std::fs::rename(hot.join("waits.2"), hot.join("waits.1")).unwrap();
        std::os::unix::fs::chown(&hot, Some(65_534), None).unwrap();
        assert_eq!(super::master(&data).unwrap(), None);
        for one in all {
            process::kill(one).unwrap();
        }
        process.wait().unwrap();
    }
}
