//! The client protocol of a master, as far as it is used here: INFO, and the list of its metaloggers. A question and an
//! answer on one TCP connection.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use super::conversation::Conversation;
use super::{Error, Release};
use crate::metadata::Version;
use crate::sys::cancel::Cancel;

/// The answer of a running master to INFO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Info {
    /// Its release.
    pub(crate) release: Release,
    /// The version of its metadata: the number of its next change. Not in the answer of 1.x, and not known where the answer
    /// has another form than that of any known release.
    pub(crate) metadata_version: Option<Version>,
    /// The id of its file system. Only in the answer of 4.x.
    pub(crate) metaid: Option<u64>,
}

impl Info {
    /// Whether this is the answer of a release that came later than this program, or that was never published: a master that
    /// is alive and cannot be compared with any other.
    pub(crate) fn is_of_unknown_release(&self) -> bool {
        self.metadata_version.is_none() && self.release.restores_itself()
    }
}

const CLTOMA_INFO: u32 = 510;
const MATOCL_INFO: u32 = 511;
const CLTOMA_MLOG_LIST: u32 = 522;
const MATOCL_MLOG_LIST: u32 = 523;

/// The question for INFO, under way: it can be waited for again and again, and a master that is busy answers it when it has
/// time.
///
/// Question: u32 type 510, u32 length 0. Answer: u32 type 511, u32 length, body; all numbers are big-endian
/// (`mfsmaster/matoclserv.c`).
#[derive(Debug)]
pub(crate) struct Question {
    conversation: Conversation,
    address: SocketAddrV4,
}

impl Question {
    /// Asks the master at `address`, and waits for nothing.
    pub(crate) fn ask(address: SocketAddrV4) -> Result<Self, Error> {
        let conversation = begin(address, CLTOMA_INFO).map_err(|source| Error::NoAnswer { address, source })?;
        Ok(Self { conversation, address })
    }

    /// Waits for the answer, until `end` at most.
    pub(crate) fn answer(&mut self, end: Instant, cancel: &Cancel) -> Result<Option<Info>, Error> {
        let address = self.address;
        let body = self.conversation.hear(MATOCL_INFO, end, cancel);
        let Some(body) = body.map_err(|source| Error::NoAnswer { address, source })? else { return Ok(None) };
        parse_info(&body).map(Some).ok_or(Error::Foreign { address, length: body.len() })
    }

    /// What is said of a question that is not answered yet.
    pub(crate) fn unanswered(&self) -> Error {
        Error::NoAnswer { address: self.address, source: io::ErrorKind::TimedOut.into() }
    }
}

/// Asks the master at `address` for its INFO, within `patience`.
pub(crate) fn info(address: SocketAddrV4, patience: Duration) -> Result<Info, Error> {
    let end = Instant::now() + patience;
    let mut question = Question::ask(address)?;
    question.answer(end, Cancel::never())?.ok_or_else(|| question.unanswered())
}

/// The state of an address where a master may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MasterAt {
    /// Nothing answers: there is no such machine, no path to it, or a firewall.
    Silent,
    /// The machine answers, and no master listens on it.
    NoMaster,
    /// A program listens and does not answer as a master does: a master that hangs, is busy or is stopping.
    Unresponsive,
    /// A master.
    Answers(Info),
}

/// Looks for a master at `address`. Two attempts to connect, each within `connecting`, so that one lost packet does not
/// count as death; then `answering` for the answer.
pub(crate) fn find_master(address: SocketAddrV4, connecting: Duration, answering: Duration) -> MasterAt {
    let cancel = Cancel::never();
    for _ in 0..2 {
        let end = Instant::now() + connecting;
        let asked = begin(address, CLTOMA_INFO)
            .and_then(|mut conversation| Ok(conversation.sent(end, cancel)?.then_some(conversation)));
        match asked {
            Ok(Some(conversation)) => {
                let answer = Question { conversation, address }.answer(Instant::now() + answering, cancel);
                return answer.ok().flatten().map_or(MasterAt::Unresponsive, MasterAt::Answers);
            }
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => return MasterAt::NoMaster,
            // It accepted the connection, and has closed it.
            Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {
                return MasterAt::Unresponsive;
            }
            Ok(None) | Err(_) => (),
        }
    }
    MasterAt::Silent
}

/// The addresses of the metaloggers that are connected to the master at `address`.
///
/// The answer has eight bytes for each: u16 and two u8 of its release, four of its address (as `mfscli -SML` reads it).
pub(crate) fn metaloggers(address: SocketAddrV4, patience: Duration) -> Result<Vec<Ipv4Addr>, Error> {
    let body = ask(address, [CLTOMA_MLOG_LIST, MATOCL_MLOG_LIST], patience)?;
    if body.len() % 8 != 0 {
        return Err(Error::Foreign { address, length: body.len() });
    }
    Ok(body.chunks_exact(8).map(|entry| Ipv4Addr::new(entry[4], entry[5], entry[6], entry[7])).collect())
}

/// Asks a question without content, and returns the body of the answer, all within `patience`.
pub(super) fn ask(address: SocketAddrV4, [question, answer]: [u32; 2], patience: Duration) -> Result<Vec<u8>, Error> {
    let end = Instant::now() + patience;
    let heard = begin(address, question).and_then(|mut conversation| conversation.hear(answer, end, Cancel::never()));
    let body = heard.and_then(|body| body.ok_or_else(|| io::ErrorKind::TimedOut.into()));
    body.map_err(|source| Error::NoAnswer { address, source })
}

/// Connects, and asks a question without content.
fn begin(address: SocketAddrV4, question: u32) -> io::Result<Conversation> {
    let mut conversation = Conversation::begin_here(address)?;
    conversation.say(question, &[])?;
    Ok(conversation)
}

/// A form of the answer to INFO: a form is known by its length.
struct Form {
    length: usize,
    /// Where the version of the metadata is.
    version_at: Option<usize>,
    /// Where the id of the file system is.
    metaid_at: Option<usize>,
}

/// A form with neither, as all of 1.x have it.
const fn old(length: usize) -> Form {
    Form { length, version_at: None, metaid_at: None }
}

const fn form(length: usize, version_at: usize, metaid_at: Option<usize>) -> Form {
    Form { length, version_at: Some(version_at), metaid_at }
}

/// Every form there is, with the releases that have it: by `matoclserv_info` of every public tag from v2.0.60 to v4.59.2, and
/// for releases without a tag by the comments of `mfscommon/MFSCommunication.h`.
const FORMS: [Form; 11] = [
    // 1.6.19
    old(68),
    // 1.6.27
    old(76),
    // No tag; below 2.0.
    old(101),
    // v2.0.60 to v3.0.31
    form(121, 113, None),
    // v3.0.32 to v3.0.101: and the checksum of the exports at the end
    form(129, 113, None),
    // v3.0.103 to v3.0.105: and the free space
    form(137, 121, None),
    // v3.0.107 to v3.0.118: and the time at the end
    form(149, 121, None),
    // No tag; from 4.4.0, 4.10.0 and 4.17.0 on.
    form(173, 113, Some(129)),
    form(181, 121, Some(137)),
    form(193, 121, Some(137)),
    // v4.56.5 to v4.59.2
    form(205, 125, Some(141)),
];

/// Reads the body of an answer. One of an unknown form is a master's all the same: its release is at the beginning of every
/// form. `None` if not even that is there.
fn parse_info(body: &[u8]) -> Option<Info> {
    let release = Release::from_wire(body.get(..4)?.try_into().ok()?);
    if release.major == 0 {
        return None;
    }
    // 1.x tells neither.
    let form = FORMS.iter().find(|form| form.length == body.len()).filter(|_| release.restores_itself());
    let number = |at: usize| body.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes);
    Some(Info {
        release,
        metadata_version: form.and_then(|form| form.version_at).and_then(number).map(Version),
        metaid: form.and_then(|form| form.metaid_at).and_then(number),
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::SocketAddr;

    use proptest::prelude::*;

    use super::*;

    const VERSION: u64 = 4013;
    const METAID: u64 = 0x6b03_734d_3887_29e6;

    /// A field of the answer: its length, or one of the two that are read.
    #[derive(Clone, Copy)]
    enum Field {
        Other(usize),
        MetaVersion,
        MetaId,
    }
    use Field::{MetaId, MetaVersion, Other};

    /// The answer of a release, built field by field, as its master does.
    fn body(release: [u8; 4], fields: &[&[Field]]) -> Vec<u8> {
        let mut body = release.to_vec();
        for field in fields.concat() {
            match field {
                Other(length) => body.extend(vec![0xff; length]),
                MetaVersion => body.extend(VERSION.to_be_bytes()),
                MetaId => body.extend(METAID.to_be_bytes()),
            }
        }
        body
    }

    /// The answer of one release.
    struct Answer {
        release: &'static str,
        body: Vec<u8>,
        length: usize,
        /// Whether it has the version and the metaid.
        told: [bool; 2],
    }

    /// By `matoclserv_info` of the first and the last tag that have the form.
    fn answers() -> Vec<Answer> {
        const MEMORY: Field = Other(8);
        const PROCESSOR: Field = Other(16);
        const TOTAL_AND_AVAILABLE: Field = Other(16);
        const FREE: Field = Other(8);
        // Trash and reserved: space and nodes each. All nodes, folders, files.
        const NODES: Field = Other(12 + 12 + 12);
        // Time, duration, status of the last store.
        const STORED: Field = Other(4 + 4 + 1);
        // State, next state, stable, synchronous, leader, time of the change.
        const STATE: Field = Other(4 + 4 + 4);
        const EXPORTS: Field = Other(8);
        const STORED_VERSION: Field = Other(8 + 4);
        const CLOCK: Field = Other(8 + 4);
        let chunks = |counts: usize| Other(4 * counts);
        let old = [TOTAL_AND_AVAILABLE, NODES, chunks(3)];
        let before_3_0_103 = [MEMORY, PROCESSOR, TOTAL_AND_AVAILABLE, NODES, chunks(3), STORED];
        let since_3_0_103 = [MEMORY, PROCESSOR, TOTAL_AND_AVAILABLE, FREE, NODES, chunks(3), STORED];
        let since_4_26 = [MEMORY, PROCESSOR, TOTAL_AND_AVAILABLE, FREE, NODES, chunks(4), STORED];
        let id = [EXPORTS, MetaId, STORED_VERSION];
        let version = [STATE, MetaVersion];
        let (none, one, both) = ([false, false], [true, false], [true, true]);
        let answer = |release, wire, fields: &[&[Field]], length, told| {
            let body = body(wire, fields);
            Answer { release, body, length, told }
        };
        vec![
            answer("1.6.19", [0, 1, 6, 19], &[&old], 68, none),
            answer("1.6.27", [0, 1, 6, 27], &[&[MEMORY], &old], 76, none),
            answer("1.7.30", [0, 1, 7, 30], &[&before_3_0_103], 101, none),
            answer("2.0.60", [0, 2, 0, 120], &[&before_3_0_103, &version], 121, one),
            answer("3.0.31", [0, 3, 0, 62], &[&before_3_0_103, &version], 121, one),
            answer("3.0.32", [0, 3, 0, 64], &[&before_3_0_103, &version, &[EXPORTS]], 129, one),
            answer("3.0.101", [0, 3, 0, 202], &[&before_3_0_103, &version, &[EXPORTS]], 129, one),
            answer("3.0.103", [0, 3, 0, 206], &[&since_3_0_103, &version, &[EXPORTS]], 137, one),
            answer("3.0.105", [0, 3, 0, 210], &[&since_3_0_103, &version, &[EXPORTS]], 137, one),
            answer("3.0.107", [0, 3, 0, 214], &[&since_3_0_103, &version, &[EXPORTS, CLOCK]], 149, one),
            answer("3.0.118", [0, 3, 0, 236], &[&since_3_0_103, &version, &[EXPORTS, CLOCK]], 149, one),
            answer("4.4.0", [0, 4, 4, 0], &[&before_3_0_103, &version, &id, &[Other(24)]], 173, both),
            answer("4.10.0", [0, 4, 10, 0], &[&since_3_0_103, &version, &id, &[Other(24)]], 181, both),
            answer("4.17.0", [0, 4, 17, 0], &[&since_3_0_103, &version, &id, &[Other(24), CLOCK]], 193, both),
            answer("4.56.5", [0, 4, 56, 10], &[&since_4_26, &version, &id, &[Other(32), CLOCK]], 205, both),
            answer("4.59.2", [0, 4, 59, 4], &[&since_4_26, &version, &id, &[Other(32), CLOCK]], 205, both),
        ]
    }

    #[test]
    fn the_answer_of_every_release_is_read() {
        for Answer { release, body, length, told: [version, metaid] } in answers() {
            assert_eq!(body.len(), length, "{release}");
            let info = parse_info(&body).unwrap();
            assert_eq!(info.release.to_string(), release);
            assert_eq!(info.metadata_version, version.then_some(Version(VERSION)), "{release}");
            assert_eq!(info.metaid, metaid.then_some(METAID), "{release}");
            assert!(!info.is_of_unknown_release(), "{release}");
        }
        let lengths: std::collections::BTreeSet<_> = answers().iter().map(|answer| answer.length).collect();
        assert_eq!(lengths, FORMS.iter().map(|form| form.length).collect(), "a form without a test");
    }

    #[test]
    fn an_answer_of_another_form_is_that_of_a_living_master_that_cannot_be_compared() {
        for Answer { release, body, length, told: [since_2_0, _] } in answers() {
            for other in [4, length - 1, length + 2, 250, MOST] {
                let mut body = body.clone();
                body.resize(other, 0xff);
                let info = parse_info(&body).unwrap();
                assert_eq!(info.release.to_string(), release);
                assert_eq!((info.metadata_version, info.metaid), (None, None), "{release} with {other} bytes");
                assert_eq!(info.is_of_unknown_release(), since_2_0, "{release} with {other} bytes");
            }
            assert_eq!(parse_info(&body[..3]), None);
        }
        let future = parse_info(&[&[0, 5, 1, 8][..], &[0; 300]].concat()).unwrap();
        assert!(future.is_of_unknown_release() && future.release.to_string() == "5.1.4");
        assert_eq!(parse_info(&[0; 149]), None, "no release");
    }

    /// The longest body that is read at all.
    const MOST: usize = 65_536;

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
    fn a_master_that_listens_on_the_virtual_ip_alone_is_asked_under_a_closed_lease() {
        use std::process::Command;
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("these tests run as root");
        for words in ["link set lo up", "link add eth0 type veth peer name far", "addr add 172.16.0.99/16 dev eth0"] {
            assert!(Command::new("ip").args(words.split(' ')).status().unwrap().success());
        }
        let address = SocketAddrV4::new(Ipv4Addr::new(172, 16, 0, 99), 9421);
        crate::sys::nft::Lease::on(*address.ip(), address.port()).install().unwrap();
        let listener = std::net::TcpListener::bind(address).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_exact(&mut [0; 8]).unwrap();
            let mut reply = vec![0, 0, 1, 0xff, 0, 0, 0, 68, 0, 1, 6, 27];
            reply.resize(8 + 68, 0);
            stream.write_all(&reply).unwrap();
        });
        assert_eq!(info(address, Duration::from_secs(10)).unwrap().release.to_string(), "1.6.27");
    }

    #[test]
    fn a_listener_that_never_answers_is_no_answer() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let SocketAddr::V4(address) = listener.local_addr().unwrap() else { unreachable!() };
        assert!(matches!(info(address, Duration::from_millis(50)), Err(Error::NoAnswer { .. })));
    }

    #[test]
    fn a_peer_that_drips_is_given_up_at_the_deadline() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let SocketAddr::V4(address) = listener.local_addr().unwrap() else { unreachable!() };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                std::thread::spawn(move || {
                    let mut stream = stream.unwrap();
                    while stream.write_all(&[0]).is_ok() {
                        std::thread::sleep(Duration::from_millis(200));
                    }
                });
            }
        });
        let time = Duration::from_millis(700);
        let begun = Instant::now();
        assert_eq!(find_master(address, time, time), MasterAt::Unresponsive);
        assert!(matches!(info(address, time), Err(Error::NoAnswer { .. })));
        assert!(matches!(metaloggers(address, time), Err(Error::NoAnswer { .. })));
        let took = begun.elapsed();
        assert!(took >= time * 3 && took < time * 5, "{took:?}");
    }

    #[test]
    fn a_hung_master_a_machine_without_one_and_a_silent_machine_differ() {
        crate::sys::testing::own_loopback();
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
