//! The MooseFS daemons as they show themselves: who runs, which release, and what a running master answers.
//!
//! Exit codes of MooseFS prove little and files of a running daemon less. What is asked here is asked of the
//! kernel (who holds the daemon's lock) and of the master itself (INFO on its client port).

use std::ffi::OsStr;
use std::fmt::{self, Display};
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use crate::metadata::Version;
use crate::sys::folder::{self, Folder};
use crate::sys::process::Identity;

pub(crate) use release::Release;

pub(crate) mod release;
pub(crate) mod services;
pub(crate) mod workarounds;

/// Why a daemon could not be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The lock file could not be opened.
    #[error("cannot find out whether {daemon} runs")]
    LockFile {
        /// The daemon.
        daemon: Daemon,
        /// The cause.
        #[source]
        source: folder::Error,
    },
    /// The kernel did not say who holds the lock.
    #[error("cannot find out who holds the lock of {daemon}")]
    Lock {
        /// The daemon.
        daemon: Daemon,
        /// The cause.
        #[source]
        source: nix::Error,
    },
    /// The master did not answer.
    #[error("no answer from a master on {address}")]
    NoAnswer {
        /// Where it was asked.
        address: SocketAddrV4,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Something answered that is not a master we know.
    #[error("what answers on {address} is no MooseFS master: reply of {length} bytes")]
    Foreign {
        /// Where it was asked.
        address: SocketAddrV4,
        /// Length of the reply's body.
        length: usize,
    },
    /// The master does not let this machine in.
    #[error("the master on {address} refuses this machine (status {status}): see its mfsexports.cfg")]
    Refused {
        /// Where it was asked.
        address: SocketAddrV4,
        /// The master's word (`MFS_ERROR_*` in `mfscommon/MFSCommunication.h`).
        status: u8,
    },
    /// `mfsmaster -v` printed something else.
    #[error("cannot read a version out of {0:?}")]
    Version(String),
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

/// The process that holds the lock of `daemon` on the data folder, if one runs there.
///
/// Master and metalogger hold a POSIX write lock on `.mfsmaster.lock` and `.mfsmetalogger.lock`
/// (`mfscommon/main.c`, `mylock`). The kernel drops it when they die, so it never lies.
pub(crate) fn running(data: &Folder, daemon: Daemon) -> Result<Option<Identity>, Error> {
    let name = format!(".{daemon}.lock");
    let file = match data.read(OsStr::new(&name)) {
        Ok(file) => file,
        Err(e) if e.is_not_found() => return Ok(None),
        Err(source) => return Err(Error::LockFile { daemon, source }),
    };
    // Between two answers the holder may have ended, and its id may be another process's by now: the folder belongs to
    // somebody who could see to that. A holder that is still there when its identity is known is that process.
    for _ in 0..3 {
        let Some(pid) = holder(&file, daemon)? else { return Ok(None) };
        let identity = Identity::of(pid);
        if identity.is_some() && holder(&file, daemon)? == Some(pid) {
            return Ok(identity);
        }
    }
    Err(Error::Lock { daemon, source: nix::Error::EAGAIN })
}

/// Who holds the write lock on `file`.
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

/// What a running master says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Info {
    /// Its release.
    pub(crate) release: Release,
    /// The version of its metadata: its last change is the one before. Not told by 1.6.
    pub(crate) metadata_version: Option<Version>,
    /// The id of its file system. Told by 4.x only.
    pub(crate) metaid: Option<u64>,
}

const CLTOMA_INFO: u32 = 510;
const MATOCL_INFO: u32 = 511;
const CLTOMA_MLOG_LIST: u32 = 522;
const MATOCL_MLOG_LIST: u32 = 523;
/// Longer than any reply known; what is longer is no master.
const MAX_BODY: usize = 65_536;

/// Asks the master at `address` for its INFO, within `patience`.
///
/// Request: u32 type 510, u32 length 0. Reply: u32 type 511, u32 length, body; all numbers big-endian
/// (`mfsmaster/matoclserv.c`; the layouts by length are listed in `mfscommon/MFSCommunication.h`).
pub(crate) fn info(address: SocketAddrV4, patience: Duration) -> Result<Info, Error> {
    let body =
        ask(address, [CLTOMA_INFO, MATOCL_INFO], patience).map_err(|source| Error::NoAnswer { address, source })?;
    parse_info(&body).ok_or(Error::Foreign { address, length: body.len() })
}

/// What a machine lets see of a master on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    /// Nothing answers: no such machine, no path to it, or a firewall.
    Silent,
    /// The machine is there and no master listens on it.
    Absent,
    /// Something listens and does not answer as a master does: a master that hangs or is stopping.
    Mute,
    /// A master.
    Master(Info),
}

/// Looks for a master at `address`: two attempts to connect, each within `connecting`, so that one lost packet is not
/// taken for death; then `answering` for the answer.
pub(crate) fn look(address: SocketAddrV4, connecting: Duration, answering: Duration) -> Presence {
    for _ in 0..2 {
        match TcpStream::connect_timeout(&SocketAddr::V4(address), connecting) {
            Ok(mut stream) => {
                let end = Instant::now() + answering;
                let info =
                    converse(&mut stream, [CLTOMA_INFO, MATOCL_INFO], &[], end).ok().and_then(|body| parse_info(&body));
                return info.map_or(Presence::Mute, Presence::Master);
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset) => {
                return Presence::Absent;
            }
            Err(_) => (),
        }
    }
    Presence::Silent
}

/// The addresses that metaloggers are connected to the master at `address` from.
///
/// The reply has eight bytes for each: u16 and two u8 of its release, four of its address (`mfscli -SML` reads it so).
pub(crate) fn metaloggers(address: SocketAddrV4, patience: Duration) -> Result<Vec<Ipv4Addr>, Error> {
    let asked = ask(address, [CLTOMA_MLOG_LIST, MATOCL_MLOG_LIST], patience);
    let body = asked.map_err(|source| Error::NoAnswer { address, source })?;
    if body.len() % 8 != 0 {
        return Err(Error::Foreign { address, length: body.len() });
    }
    Ok(body.chunks_exact(8).map(|entry| Ipv4Addr::new(entry[4], entry[5], entry[6], entry[7])).collect())
}

/// Asks a question without content, and returns the body of the answer.
fn ask(address: SocketAddrV4, [question, answer]: [u32; 2], patience: Duration) -> io::Result<Vec<u8>> {
    let end = Instant::now() + patience;
    let mut stream = TcpStream::connect_timeout(&SocketAddr::V4(address), patience)?;
    converse(&mut stream, [question, answer], &[], end)
}

/// Sends a question, and returns the body of its answer, which has to be there at `end`.
pub(crate) fn converse(
    stream: &mut TcpStream,
    [question, answer]: [u32; 2],
    content: &[u8],
    end: Instant,
) -> io::Result<Vec<u8>> {
    let left = || Some(end.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero());
    let length = u32::try_from(content.len()).map_err(io::Error::other)?;
    stream.set_write_timeout(Some(left().ok_or(io::ErrorKind::TimedOut)?))?;
    stream.write_all(&[&question.to_be_bytes(), &length.to_be_bytes(), content].concat())?;
    loop {
        stream.set_read_timeout(Some(left().ok_or(io::ErrorKind::TimedOut)?))?;
        let mut number = [0; 4];
        stream.read_exact(&mut number)?;
        let kind = u32::from_be_bytes(number);
        stream.read_exact(&mut number)?;
        let length = u32::from_be_bytes(number) as usize;
        if length > MAX_BODY {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        // Anything else is a keep-alive, sent every second.
        if kind == answer {
            return Ok(body);
        }
    }
}

fn parse_info(body: &[u8]) -> Option<Info> {
    let number = |at: usize| body.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes);
    let release = Release::from_wire(body.get(..4)?.try_into().ok()?);
    let (version_at, metaid_at) = match body.len() {
        68 | 76 => (None, None),
        121 => (Some(113), None),
        149 => (Some(121), None),
        205 => (Some(125), Some(141)),
        _ => return None,
    };
    Some(Info {
        release,
        metadata_version: version_at.and_then(number).map(Version),
        metaid: metaid_at.and_then(number),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn releases_are_read_from_what_the_daemons_print() {
        let v = |text: &str| Release::parse(text).unwrap().to_string();
        assert_eq!(v("version: 3.0.117-1 ; build: 1341\n"), "3.0.117");
        assert_eq!(v("version: 1.6.27\n"), "1.6.27");
        assert_eq!(v("version: 4.57.5-1 ; build: 1\n"), "4.57.5");
        assert!(Release::parse("mfsmaster: unknown option").is_err());
        assert!(Release::parse("version: 1.6.19").unwrap() < Release::AUTO_RESTORE);
    }

    #[test]
    fn the_reply_of_each_generation_is_read() {
        // (length, first four bytes, release, where the version is, where the metaid is)
        let forms = [
            (68, [0, 1, 6, 19], "1.6.19", None, None),
            (76, [0, 1, 6, 27], "1.6.27", None, None),
            (121, [0, 2, 0, 182], "2.0.91", Some(113), None),
            (149, [0, 3, 0, 234], "3.0.117", Some(121), None),
            (205, [0, 4, 57, 10], "4.57.5", Some(125), Some(141)),
        ];
        for (length, wire, release, version_at, metaid_at) in forms {
            let mut body = vec![0xff; length];
            body[..4].copy_from_slice(&wire);
            for (at, number) in [(version_at, 4013_u64), (metaid_at, 0x6b03_734d_3887_29e6)] {
                if let Some(at) = at {
                    body[at..at + 8].copy_from_slice(&number.to_be_bytes());
                }
            }
            let info = parse_info(&body).unwrap();
            assert_eq!(info.release.to_string(), release);
            assert_eq!(info.metadata_version, version_at.map(|_| Version(4013)), "{release}");
            assert_eq!(info.metaid, metaid_at.map(|_| 0x6b03_734d_3887_29e6), "{release}");
            assert_eq!(parse_info(&body[..length - 1]), None, "{release}, one byte short");
        }
    }

    #[test]
    fn keep_alives_before_the_reply_are_skipped() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let SocketAddr::V4(address) = listener.local_addr().unwrap() else { unreachable!() };
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 8];
            stream.read_exact(&mut request).unwrap();
            assert_eq!(request, [0, 0, 1, 0xfe, 0, 0, 0, 0]);
            let mut reply = vec![0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 0, 68, 0, 1, 6, 27];
            reply.resize(8 + 4 + 8 + 68, 0);
            stream.write_all(&reply).unwrap();
        });
        assert_eq!(info(address, Duration::from_secs(10)).unwrap().release.to_string(), "1.6.27");
        server.join().unwrap();
    }

    #[test]
    fn one_that_listens_and_never_answers_is_given_up() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let SocketAddr::V4(address) = listener.local_addr().unwrap() else { unreachable!() };
        assert!(matches!(info(address, Duration::from_millis(50)), Err(Error::NoAnswer { .. })));
    }

    #[test]
    fn a_master_is_told_from_one_that_hangs_and_from_none() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let SocketAddr::V4(address) = listener.local_addr().unwrap() else { unreachable!() };
        let look = || look(address, Duration::from_secs(5), Duration::from_millis(50));
        assert_eq!(look(), Presence::Mute);
        drop(listener);
        assert_eq!(look(), Presence::Absent);
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("these tests run as root");
        assert_eq!(look(), Presence::Silent);
    }

    #[test]
    fn a_lock_held_by_a_process_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let data = Folder::open(dir.path()).unwrap();
        assert_eq!(running(&data, Daemon::Master).unwrap(), None);
        std::fs::write(dir.path().join(".mfsmaster.lock"), "").unwrap();
        assert_eq!(running(&data, Daemon::Master).unwrap(), None);
        let code = "import fcntl,sys,time; f=open(sys.argv[1],'r+'); fcntl.lockf(f,fcntl.LOCK_EX); print(flush=True); time.sleep(60)";
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

    proptest! {
        #[test]
        fn no_reply_makes_the_reader_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_info(&body);
        }
    }
}
