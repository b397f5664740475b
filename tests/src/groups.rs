//! Control groups: machines that are booted with systemd have their own in every hierarchy that systemd uses, and plain ones
//! while they are frozen.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Error;
use crate::Result;
use crate::error::file;
use crate::process::poll;
use crate::work::is_left_over;

/// Where systemd's hierarchies are: version 2, or version 1 with 2 beside it; and how `/proc/self/cgroup` calls them.
const HIERARCHIES: [(&str, &str); 3] =
    [("/sys/fs/cgroup", ""), ("/sys/fs/cgroup/unified", ""), ("/sys/fs/cgroup/systemd", "name=systemd")];
/// How our groups are called: `moosefs-lab.PID.START.NUMBER.MACHINE`, as the work folder is.
const PREFIX: &str = "moosefs-lab.";
/// The dead leave a group one by one.
const PATIENCE: Duration = Duration::from_secs(60);

/// The groups of one machine; removed with this value, when everything in them has ended.
#[derive(Debug)]
pub(crate) struct Groups(Vec<PathBuf>);

impl Groups {
    /// Makes groups for a machine of the cluster with this work folder, and removes those of tests that are gone.
    pub(crate) fn create(work: &Path, machine: &str) -> Result<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").map_err(file("read", "/proc/self/cgroup"))?;
        let own = |key: &str| {
            own.lines().find_map(|line| line.split_once(':')?.1.strip_prefix(key)?.strip_prefix(':').map(str::to_owned))
        };
        let work = work.file_name().unwrap_or_default().to_string_lossy();
        let mut groups = Self(Vec::new());
        for (mount, key) in HIERARCHIES {
            let Some(own) = own(key).filter(|_| Path::new(mount).join("cgroup.procs").exists()) else { continue };
            let parent = Path::new(mount).join(own.trim_start_matches('/'));
            sweep(&parent);
            let group = parent.join(format!("{PREFIX}{work}.{machine}"));
            fs::create_dir(&group).map_err(file("create", &group))?;
            groups.0.push(group);
        }
        if groups.0.is_empty() {
            return Err(Error::Programs("this host has no control groups that systemd could use".to_owned()));
        }
        Ok(groups)
    }

    pub(crate) fn paths(&self) -> &[PathBuf] {
        &self.0
    }
}

impl Groups {
    /// Moves processes into the group; how many of them were not in it before.
    pub(crate) fn take_in(&self, processes: impl Iterator<Item = i32>) -> Result<usize> {
        let path = self.freezer()?.join("cgroup.procs");
        let within = fs::read_to_string(&path).map_err(file("read", &path))?;
        let within: Vec<&str> = within.lines().collect();
        let new: Vec<String> = processes.map(|id| id.to_string()).filter(|id| !within.contains(&id.as_str())).collect();
        // One that has ended meanwhile cannot be moved.
        for id in &new {
            let _ = fs::write(&path, id);
        }
        Ok(new.len())
    }

    /// Stops everything in the group, or lets it go on.
    pub(crate) fn freeze(&self, frozen: bool) -> Result<()> {
        let path = self.freezer()?.join("cgroup.freeze");
        fs::write(&path, if frozen { "1" } else { "0" }).map_err(file("write", &path))
    }

    /// Moves everything out of the group.
    pub(crate) fn empty(&self) -> Result<()> {
        let group = self.freezer()?;
        let (from, to) = (group.join("cgroup.procs"), group.with_file_name("cgroup.procs"));
        let within = fs::read_to_string(&from).map_err(file("read", &from))?;
        for id in within.lines() {
            let _ = fs::write(&to, id);
        }
        Ok(())
    }

    /// The group in the hierarchy that can freeze.
    fn freezer(&self) -> Result<&PathBuf> {
        let found = self.0.iter().find(|group| group.join("cgroup.freeze").exists());
        found.ok_or_else(|| Error::Programs("this host has no control groups of version 2".to_owned()))
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        for group in &self.0 {
            poll(PATIENCE, || remove(group).then_some(()));
        }
    }
}

/// Removes the groups of tests that were killed.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let work = name.strip_prefix(PREFIX).and_then(|name| name.rsplit_once('.')).map(|(work, _machine)| work);
        if work.is_some_and(is_left_over) {
            remove(&entry.path());
        }
    }
}

/// Removes a group and those in it; whether nothing is left.
fn remove(group: &Path) -> bool {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    fs::remove_dir(group).is_ok() || !group.exists()
}
