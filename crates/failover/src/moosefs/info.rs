//! The client protocol of a master, as far as it is used here: INFO, and the list of its metaloggers. A question and an
//! answer on one TCP connection.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

use super::{Error, Release};
use crate::metadata::Version;

/// The answer of a running master to INFO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Info {
    /// Its release.
    pub(crate) release: Release,
    /// The version of its metadata: the number of its next change. Not in the answer of 1.6.
    pub(crate) metadata_version: Option<Version>,
    /// The id of its file system. Only in the answer of 4.x.
    pub(crate) metaid: Option<u64>,
}

const CLTOMA_INFO: u32 = 510;
const MATOCL_INFO: u32 = 511;
const CLTOMA_MLOG_LIST: u32 = 522;
const MATOCL_MLOG_LIST: u32 = 523;
/// Longer than any known answer.
const MAX_BODY: usize = 65_536;

/// Asks the master at `address` for its INFO, within `patience`.
///
/// Question: u32 type 510, u32 length 0. Answer: u32 type 511, u32 length, body; all numbers are big-endian
/// (`mfsmaster/matoclserv.c`; the layouts by length are listed in `mfscommon/MFSCommunication.h`).
pub(crate) fn info(address: SocketAddrV4, patience: Duration) -> Result<Info, Error> {
    let body =
        ask(address, [CLTOMA_INFO, MATOCL_INFO], patience).map_err(|source| Error::NoAnswer { address, source })?;
    parse_info(&body).ok_or(Error::Foreign { address, length: body.len() })
}

/// The state of an address where a master may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MasterAt {
    /// Nothing answers: there is no such machine, no path to it, or a firewall.
    Silent,
    /// The machine answers, and no master listens on it.
    NoMaster,
    /// A program listens and does not answer as a master does: a master that hangs or is stopping.
    Unresponsive,
    /// A master.
    Answers(Info),
}

/// Looks for a master at `address`. Two attempts to connect, each within `connecting`, so that one lost packet does not
/// count as death; then `answering` for the answer.
pub(crate) fn find_master(address: SocketAddrV4, connecting: Duration, answering: Duration) -> MasterAt {
    for _ in 0..2 {
        match TcpStream::connect_timeout(&SocketAddr::V4(address), connecting) {
            Ok(mut stream) => {
                let end = Instant::now() + answering;
                let answer = converse(&mut stream, [CLTOMA_INFO, MATOCL_INFO], &[], end);
                let info = answer.ok().and_then(|body| parse_info(&body));
                return info.map_or(MasterAt::Unresponsive, MasterAt::Answers);
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset) => {
                return MasterAt::NoMaster;
            }
            Err(_) => (),
        }
    }
    MasterAt::Silent
}

/// The addresses of the metaloggers that are connected to the master at `address`.
///
/// The answer has eight bytes for each: u16 and two u8 of its release, four of its address (as `mfscli -SML` reads it).
pub(crate) fn metaloggers(address: SocketAddrV4, patience: Duration) -> Result<Vec<Ipv4Addr>, Error> {
    let answer = ask(address, [CLTOMA_MLOG_LIST, MATOCL_MLOG_LIST], patience);
    let body = answer.map_err(|source| Error::NoAnswer { address, source })?;
    if body.len() % 8 != 0 {
        return Err(Error::Foreign { address, length: body.len() });
    }
    Ok(body.chunks_exact(8).map(|entry| Ipv4Addr::new(entry[4], entry[5], entry[6], entry[7])).collect())
}

/// Connects, asks a question without content, and returns the body of the answer.
fn ask(address: SocketAddrV4, [question, answer]: [u32; 2], patience: Duration) -> io::Result<Vec<u8>> {
    let end = Instant::now() + patience;
    let mut stream = TcpStream::connect_timeout(&SocketAddr::V4(address), patience)?;
    converse(&mut stream, [question, answer], &[], end)
}

/// Sends a question on a connection to a master, and returns the body of the answer, which must be here by `end`.
pub(super) fn converse(
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
        // All else are keep-alives, one every second.
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
    fn the_answer_of_each_generation_is_read() {
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
    fn keep_alives_before_the_answer_are_skipped() {
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
    fn a_listener_that_never_answers_is_no_answer() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let SocketAddr::V4(address) = listener.local_addr().unwrap() else { unreachable!() };
        assert!(matches!(info(address, Duration::from_millis(50)), Err(Error::NoAnswer { .. })));
    }

    #[test]
    fn a_hung_master_a_machine_without_one_and_a_silent_machine_differ() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let SocketAddr::V4(address) = listener.local_addr().unwrap() else { unreachable!() };
        let find = || find_master(address, Duration::from_secs(5), Duration::from_millis(50));
        assert_eq!(find(), MasterAt::Unresponsive);
        drop(listener);
        assert_eq!(find(), MasterAt::NoMaster);
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("these tests run as root");
        assert_eq!(find(), MasterAt::Silent);
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_reader_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_info(&body);
        }
    }
}
