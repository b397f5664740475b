//! The MooseFS daemons: which of them run, the answers of a master, starts and stops, and the workarounds.
//!
//! The exit codes of MooseFS prove little, and so do the files of a running daemon. So the kernel is asked which
//! process holds the daemon's lock, and the master is asked on its client port.

use std::ffi::OsStr;
use std::fmt::{self, Display};
use std::fs::File;
use std::io;
use std::net::SocketAddrV4;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use crate::sys::cancel::Cancel;
use crate::sys::folder::{self, Folder};
use crate::sys::process::{self, Identity};

pub(crate) use chunkservers::chunkservers;
pub(crate) use info::{Info, MasterAt, Question, find_master, info, metaloggers};
pub(crate) use release::Release;

pub(crate) mod cfg;
mod chunkservers;
mod conversation;
mod info;
pub(crate) mod release;
pub(crate) mod services;
pub(crate) mod waiting;
pub(crate) mod workarounds;

/// The image of a clean stop: a master that wrote it has served. For MooseFS 1.x it is also the staged image.
pub(crate) const CLEAN_STOP_IMAGE: &str = "metadata.mfs";

/// The master's own configuration file, where nothing else is said.
pub(crate) const MASTER_CFG: &str = "/etc/mfs/mfsmaster.cfg";
/// How long `mfsmaster -v` may take.
const SAYS_RELEASE: Duration = Duration::from_secs(10);
/// Where MooseFS's programs are besides the folders of all programs: built from source with a prefix of its own.
const PREFIXES: [&str; 6] = [
    "/usr/local/mfs/sbin",
    "/usr/local/mfs/bin",
    "/usr/local/moosefs/sbin",
    "/opt/mfs/sbin",
    "/opt/moosefs/sbin",
    "/opt/moosefs/bin",
];

/// The path of MooseFS's program `name`, if it is installed.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    process::find_program(name).or_else(|| process::find_program_in(&PREFIXES, name))
}

/// The release of the installed master.
pub(crate) fn installed_release(cancel: &Cancel) -> Result<Release, Error> {
    let program = find_program(Daemon::Master.program()).ok_or(Error::NotInstalled)?;
    let finished = process::run(&program, &["-v"], SAYS_RELEASE, cancel).map_err(Error::AskRelease)?;
    Release::parse(&finished.output)
}

/// The state of a daemon cannot be found out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The daemon's lock file cannot be opened.
    #[error("cannot find out whether {daemon} runs")]
    LockFile {
        /// The daemon.
        daemon: Daemon,
        /// The cause.
        #[source]
        source: folder::Error,
    },
    /// The kernel did not say which process holds the lock.
    #[error("cannot find out which process holds the lock of {daemon}")]
    Lock {
        /// The daemon.
        daemon: Daemon,
        /// The cause.
        #[source]
        source: nix::Error,
    },
    /// No answer in time.
    #[error("no master answers on {address}")]
    NoAnswer {
        /// The address that was asked.
        address: SocketAddrV4,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The answer is none that a master gives.
    #[error("the program that listens on {address} is no MooseFS master: it sent an answer of {length} bytes")]
    Foreign {
        /// The address that was asked.
        address: SocketAddrV4,
        /// Length of the answer's body.
        length: usize,
    },
    /// The master does not admit this machine as a client.
    #[error("the master on {address} refuses this machine as a client (status {status}); admit it in mfsexports.cfg")]
    Refused {
        /// The address that was asked.
        address: SocketAddrV4,
        /// `MFS_ERROR_*` in `mfscommon/MFSCommunication.h`.
        status: u8,
    },
    /// There is no such program.
    #[error("there is no program mfsmaster; install the package of the MooseFS master")]
    NotInstalled,
    /// `mfsmaster -v` failed.
    #[error("cannot find out the release of mfsmaster")]
    AskRelease(#[source] process::Error),
    /// `mfsmaster -v` printed something else.
    #[error("no release of MooseFS in the output of mfsmaster -v: {0:?}")]
    Release(String),
}

/// The daemons of a machine that can become the master.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Daemon {
    /// `mfsmaster`
    Master,
    /// `mfsmetalogger`
    Metalogger,
    /// `mfscgiserv`
    Cgiserv,
}

impl Daemon {
    /// The name of its program.
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::Master => "mfsmaster",
            Self::Metalogger => "mfsmetalogger",
            Self::Cgiserv => "mfscgiserv",
        }
    }
}

impl Display for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.program())
    }
}

/// The process of `daemon` that works on the data folder, if one runs there. A master that [waits](waiting) to serve is none.
pub(crate) fn running(data: &Folder, daemon: Daemon) -> Result<Option<Identity>, Error> {
    let found = locked_by(data, daemon)?;
    Ok(found.filter(|process| daemon != Daemon::Master || !waiting::is_waiting(data, *process)))
}

/// The process that holds the lock of `daemon` on the data folder.
///
/// Master and metalogger hold a POSIX write lock on `.mfsmaster.lock` and `.mfsmetalogger.lock`
/// (`mfscommon/main.c`, `mylock`). The kernel drops it when the process ends, so it is never stale.
fn locked_by(data: &Folder, daemon: Daemon) -> Result<Option<Identity>, Error> {
    let name = format!(".{daemon}.lock");
    let file = match data.read(OsStr::new(&name)) {
        Ok(file) => file,
        Err(e) if e.is_not_found() => return Ok(None),
        Err(source) => return Err(Error::LockFile { daemon, source }),
    };
    // Between the two calls the holder may end and its id may be used again; the user of the daemons could arrange
    // that. A process that still holds the lock after its identity was read is the one with that identity.
    for _ in 0..3 {
        let Some(pid) = holder(&file, daemon)? else { return Ok(None) };
        let identity = Identity::of(pid);
        if identity.is_some() && holder(&file, daemon)? == Some(pid) {
            return Ok(identity);
        }
    }
    Err(Error::Lock { daemon, source: nix::Error::EAGAIN })
}

/// The configuration file that the master `pid` was started with; `None` if that cannot be told.
pub(crate) fn configuration_of(pid: u32) -> Option<PathBuf> {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words: Vec<_> = line.split(|byte| *byte == 0).map(OsStr::from_bytes).collect();
    configuration_in(&words)
}

/// The value of the last `-c` among the words of a command line, as getopt reads it.
fn configuration_in(words: &[&OsStr]) -> Option<PathBuf> {
    let mut path = PathBuf::from(MASTER_CFG);
    let mut words = words.iter().skip(1).map(|word| word.as_bytes());
    while let Some(word) = words.next() {
        let Some(cluster) = word.strip_prefix(b"-").filter(|_| word != b"--") else { continue };
        let Some(at) = cluster.iter().position(|letter| b"ct".contains(letter)) else { continue };
        let attached = &cluster[at + 1..];
        let value = if attached.is_empty() { words.next()? } else { attached };
        if cluster[at] == b'c' {
            path = PathBuf::from(OsStr::from_bytes(value));
        }
    }
    // Relative to a folder that it has left since.
    path.is_absolute().then_some(path)
}

/// The id of the process that holds the write lock on `file`.
fn holder(file: &File, daemon: Daemon) -> Result<Option<u32>, Error> {
    #[allow(clippy::cast_possible_truncation)] // libc declares constants and fields of different widths
    let mut lock = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(file, FcntlArg::F_GETLK(&mut lock)).map_err(|source| Error::Lock { daemon, source })?;
    let free = libc::c_int::from(lock.l_type) == libc::F_UNLCK;
    Ok(if free { None } else { u32::try_from(lock.l_pid).ok().filter(|pid| *pid > 0) })
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn the_holder_of_the_lock_is_the_running_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let data = Folder::open(dir.path()).unwrap();
        assert_eq!(running(&data, Daemon::Master).unwrap(), None);
        std::fs::write(dir.path().join(".mfsmaster.lock"), "").unwrap();
        assert_eq!(running(&data, Daemon::Master).unwrap(), None);
        let code = "import fcntl,sys,time; f=open(sys.argv[1],'r+'); fcntl.lockf(f,fcntl.LOCK_EX); print(flush=True); \
                    time.sleep(60)";
        let mut holder = std::process::Command::new("python3")
            .args(["-c", code])
            .arg(dir.path().join(".mfsmaster.lock"))
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        holder.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        assert_eq!(running(&data, Daemon::Master).unwrap(), Identity::of(holder.id()));
        holder.kill().unwrap();
        holder.wait().unwrap();
        assert_eq!(running(&data, Daemon::Master).unwrap(), None);
    }
}
