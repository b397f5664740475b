//! Without this, systemd knows nothing of the master of a hot standby that serves: its unit looks inactive, and
//! `systemctl stop` does not reach it.
//!
//! The process is there before its unit is. So for one start a drop-in in `/run` makes the unit one of `Type=forking`, whose
//! command is this program: it runs in the control group of the unit, moves the master there, gives it the limits of the unit,
//! and names it in a pid file that root owns; systemd takes it for the main process. Then the drop-in goes, and the unit is as
//! it was.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Resource, getrlimit, prlimit};

use super::restore_dropin::{self, value_of};
use crate::sys::cancel::Cancel;
use crate::sys::process::{self, Identity};

/// How long the manager may take for each call.
const PATIENCE: Duration = Duration::from_secs(10);
/// The program that is started in the unit.
const PROGRAM: &str = "mfs-promote";
/// Where the control groups are.
const GROUPS: &str = "/sys/fs/cgroup";

/// Why a unit did not take over the master.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The drop-in.
    #[error(transparent)]
    Dropin(#[from] restore_dropin::Error),
    /// A program is missing or failed.
    #[error("cannot {operation} systemd unit {unit}")]
    Systemctl {
        /// `look at` or `start`
        operation: &'static str,
        /// The unit.
        unit: String,
        /// The cause.
        #[source]
        source: process::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// It has ended.
    #[error("the master has ended")]
    Gone,
}

/// Makes `master` the main process of `unit`; nothing happens where it is that already.
pub(crate) fn adopt(unit: &str, master: Identity, cancel: &Cancel) -> Result<(), Error> {
    let call = |operation, words: &[&str]| {
        let failed = |source| Error::Systemctl { operation, unit: unit.to_owned(), source };
        let systemctl = process::find_program("systemctl")
            .ok_or_else(|| failed(process::Error::NotInstalled { name: "systemctl".to_owned() }))?;
        let finished = process::run(&systemctl, words, PATIENCE, cancel).and_then(process::Finished::success);
        finished.map(|finished| finished.output).map_err(failed)
    };
    let main = call("look at", &["show", "--property=MainPID", "--", unit])?;
    if value_of(&main, "MainPID") == master.pid.to_string() {
        return Ok(());
    }
    let program = process::find_beside(PROGRAM);
    let program = program.map_err(|source| Error::Systemctl { operation: "start", unit: unit.to_owned(), source })?;
    restore_dropin::write(unit, &drop_in(unit, &program, master))?;
    let started = call("start", &["start", "--", unit]);
    let removed = restore_dropin::remove(unit);
    started?;
    Ok(removed?)
}

fn drop_in(unit: &str, program: &Path, master: Identity) -> String {
    let (program, file) = (program.display(), pid_file(unit));
    // What else the unit does before and after a start was not made for a master that runs.
    format!(
        "[Service]\nType=forking\nPIDFile={}\nExecCondition=\nExecStartPre=\nExecStartPost=\nExecStart=\n\
         ExecStart=+{program} --adopt {master} --pid-file {}\n",
        file.display(),
        file.display()
    )
    .replace('%', "%%")
}

/// Where only root can write.
fn pid_file(unit: &str) -> PathBuf {
    PathBuf::from(format!("/run/{PROGRAM}.{unit}.pid"))
}

/// The command of the unit: moves `master` to where this process is. Last, because the unit ends what is in it if its command
/// fails.
pub(crate) fn take_along(master: Identity, pid_file: &Path) -> Result<(), Error> {
    if !master.is_alive() {
        return Err(Error::Gone);
    }
    let write = |path: PathBuf, process: Identity| {
        std::fs::write(&path, format!("{}\n", process.pid)).map_err(|source| Error::Write { path, source })
    };
    write(pid_file.to_owned(), master)?;
    // The others it sets itself when it starts: open files, core, locked memory.
    let limits = [Resource::As, Resource::Cpu, Resource::Data, Resource::Fsize, Resource::Nproc, Resource::Stack];
    let pid = i32::try_from(master.pid).ok().and_then(Pid::from_raw);
    for limit in limits {
        if let Err(e) = prlimit(pid, limit, getrlimit(limit)) {
            log::warn!("cannot give mfsmaster the limits of its unit: {e}");
            break;
        }
    }
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let Some(folder) = groups.lines().find_map(folder_of) else { return Ok(()) };
    // First what it has forked: a TERM to that is a TERM to it.
    for process in process::forked_by(master) {
        write(folder.join("cgroup.procs"), process)?;
    }
    write(folder.join("cgroup.procs"), master)
}

/// The folder of a control group of systemd, from a line of `/proc/PID/cgroup`: in the hierarchy of version 2, or in its own.
fn folder_of(line: &str) -> Option<PathBuf> {
    let (hierarchy, path) = match (line.strip_prefix("0::"), line.split_once(":name=systemd:")) {
        (Some(path), _) => ("", path),
        (None, Some((_, path))) => ("systemd", path),
        (None, None) => return None,
    };
    let folder = Path::new(GROUPS).join(hierarchy).join(path.trim_start_matches('/'));
    folder.exists().then_some(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn for_one_start_the_unit_starts_our_program_which_names_the_master() {
        let master = Identity { pid: 7, start: 99 };
        let text = drop_in("moosefs-master@a%b", Path::new("/usr/bin/mfs-promote"), master);
        assert!(text.contains("\nExecStart=\nExecStart=+/usr/bin/mfs-promote --adopt 7@99 --pid-file /run/"), "{text}");
        assert!(text.contains("PIDFile=/run/mfs-promote.moosefs-master@a%%b.pid\n"), "{text}");
    }

    #[test]
    fn only_groups_of_systemd_are_entered() {
        assert_eq!(folder_of("4:memory:/user.slice"), None);
        assert_eq!(folder_of("0::/no-such.slice/x.service"), None);
    }
}
