//! The work folder of a cluster, the lock that keeps clusters from overlapping, and the sweep of what dead tests left.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::Error;
use crate::Result;
use crate::error::{file, system};

/// How long a cluster waits for another one on this host to end.
const PATIENCE: Duration = Duration::from_secs(30 * 60);

/// Where work folders are: `LAB_WORK`, or a folder on the real disk (`/tmp` may be memory, where fsync proves nothing).
pub(crate) fn base() -> PathBuf {
    std::env::var_os("LAB_WORK").map_or_else(|| PathBuf::from("/var/tmp/moosefs-lab"), PathBuf::from)
}

/// One cluster's folder; removed at the end unless `LAB_KEEP` is set.
#[derive(Debug)]
pub(crate) struct WorkFolder {
    path: PathBuf,
}

impl WorkFolder {
    /// Makes a folder named after this process, and removes those of processes that are gone.
    pub(crate) fn create() -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let base = base();
        fs::create_dir_all(&base).map_err(file("create", &base))?;
        sweep_folder(&base)?;
        let pid = std::process::id();
        let started = start_time(pid).unwrap_or_default();
        let path = base.join(format!("{pid}.{started}.{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir(&path).map_err(file("create", &path))?;
        Ok(Self { path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for WorkFolder {
    fn drop(&mut self) {
        if std::env::var_os("LAB_KEEP").is_none() {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Removes what processes left that were killed in the middle of a cluster; every cluster's start does so too.
pub fn sweep() -> Result<()> {
    let base = base();
    if base.exists() { sweep_folder(&base) } else { Ok(()) }
}

/// Removes the folders of processes that are gone.
fn sweep_folder(base: &Path) -> Result<()> {
    for entry in fs::read_dir(base).map_err(file("list", base))?.flatten() {
        if is_left_over(&entry.file_name().to_string_lossy()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    Ok(())
}

/// Whether this is the name of a work folder, `PID.START.NUMBER`, whose process is gone.
pub(crate) fn is_left_over(name: &str) -> bool {
    let mut parts = name.split('.').map(str::parse::<u64>);
    let (Some(Ok(pid)), Some(Ok(started)), Some(Ok(_))) = (parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    u32::try_from(pid).ok().and_then(start_time) != Some(started)
}

/// When a process started, in clock ticks since boot: together with the pid it identifies a process.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// Held while a cluster runs. `LAB_CLUSTERS` (1) of them run on this host at a time: more would disturb each
/// other's timing.
#[derive(Debug)]
pub(crate) struct HostLock {
    _file: Flock<File>,
}

impl HostLock {
    pub(crate) fn take() -> Result<Self> {
        let base = base();
        fs::create_dir_all(&base).map_err(file("create", &base))?;
        let most = std::env::var("LAB_CLUSTERS").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
        let places: Vec<PathBuf> = (1..=most).map(|number: u8| base.join(format!("lock.{number}"))).collect();
        let mut reported = false;
        let taken = crate::process::poll(PATIENCE, || {
            let taken = places.iter().find_map(|place| Self::try_take(place).transpose());
            if taken.is_none() && !std::mem::replace(&mut reported, true) {
                eprintln!("waiting for {} to end", holders(&places));
            }
            taken
        });
        taken.unwrap_or_else(|| {
            let what = format!("{} to end ({})", holders(&places), base.display());
            Err(Error::Expired { what, within: PATIENCE, recent: String::new() })
        })
    }

    fn try_take(place: &Path) -> Result<Option<Self>> {
        let open = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(place);
        match Flock::lock(open.map_err(file("open", place))?, FlockArg::LockExclusiveNonblock) {
            Ok(mut file) => {
                let _ = file.set_len(0);
                let _ = file.rewind();
                let _ = write!(file, "{}", std::process::id());
                Ok(Some(Self { _file: file }))
            }
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => Err(system(format!("lock {}", place.display()))(errno)),
        }
    }
}

fn holders(places: &[PathBuf]) -> String {
    let pids: Vec<_> = places.iter().map(|place| fs::read_to_string(place).unwrap_or_default()).collect();
    format!("the clusters of processes {}", pids.join(", "))
}
