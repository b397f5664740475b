//! The change that a [`Nudge`](super::Nudge) makes: it opens a session of a client and closes it again.
//!
//! That is the smallest change in the client protocol: `SESADD`, and `SESDISCONNECTED` when it is closed. No file is
//! touched, and the master drops the session within two minutes. `mfsexports.cfg` must admit this machine to `/`.

use std::io;
use std::net::SocketAddrV4;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::moosefs::conversation::Conversation;
use crate::moosefs::{Error, Release};
use crate::sys::cancel::Cancel;

const CLTOMA_FUSE_REGISTER: u32 = 400;
const MATOCL_FUSE_REGISTER: u32 = 401;
/// Begins each registration (`FUSE_REGISTER_BLOB_ACL` in `mfscommon/MFSCommunication.h`).
const REGISTRATION: &[u8] = b"DjI1GAQDULI5d2YjA26ypc3ovkhjvhciTQVx3CS4nYgtBoUcsljiVpsErJENHaw0";
const NEW_SESSION: u8 = 2;
const CLOSE_SESSION: u8 = 6;
/// `mfscli -SSE` and the web interface show this as the mount point.
const INFO: &[u8] = b"mfs-promote";
/// The session's number in the answer, after the release. A refusal is a status of one byte.
const ID: Range<usize> = 4..8;

/// Opens a session with the master at `address`, of 3.x or 4.x, and closes it again, within `patience`.
///
/// # Errors
/// [`Error::Refused`] if the exports do not admit this machine, [`Error::NoAnswer`] without an answer.
pub(super) fn open_and_close(address: SocketAddrV4, release: Release, patience: Duration) -> Result<(), Error> {
    let opened = session(address, release, patience).map_err(|source| Error::NoAnswer { address, source })?;
    match opened.as_slice() {
        [status] => Err(Error::Refused { address, status: *status }),
        _ => Ok(()),
    }
}

/// The answer to the opening. The session is closed if there is one.
fn session(address: SocketAddrV4, release: Release, patience: Duration) -> io::Result<Vec<u8>> {
    let end = Instant::now() + patience;
    let mut conversation = Conversation::begin(address)?;
    let mut register = |kind: u8, content: &[u8]| {
        conversation.say(CLTOMA_FUSE_REGISTER, &[REGISTRATION, &[kind], content].concat())?;
        let answer = conversation.hear(MATOCL_FUSE_REGISTER, end, Cancel::never())?;
        answer.ok_or_else(|| io::Error::from(io::ErrorKind::TimedOut))
    };
    let opened = register(NEW_SESSION, &opening(release))?;
    if let Some(id) = opened.get(ID) {
        register(CLOSE_SESSION, id)?;
    }
    Ok(opened)
}

/// u32 release, u32 length and text of the info, u32 length and path with a zero byte at its end, u32 session (0: new).
fn opening(release: Release) -> Vec<u8> {
    let path: &[u8] = b"/\0";
    let length = |text: &[u8]| u32::try_from(text.len()).expect("short texts").to_be_bytes();
    [&release.to_wire(), &length(INFO)[..], INFO, &length(path), path, &0_u32.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{SocketAddr, TcpListener};

    use super::*;

    const RELEASE: Release = Release { major: 3, minor: 0, patch: 117 };

    /// A master that gives these answers, and the requests that it received.
    fn master(answers: Vec<Vec<u8>>) -> (SocketAddrV4, std::thread::JoinHandle<Vec<Vec<u8>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let SocketAddr::V4(address) = listener.local_addr().unwrap() else { unreachable!() };
        let serve = move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = Vec::new();
            for answer in answers {
                let mut head = [0; 8];
                stream.read_exact(&mut head).unwrap();
                assert_eq!(head[..4], CLTOMA_FUSE_REGISTER.to_be_bytes());
                let mut body = vec![0; u32::from_be_bytes(head[4..].try_into().unwrap()) as usize];
                stream.read_exact(&mut body).unwrap();
                asked.push(body);
                let length = u32::try_from(answer.len()).unwrap().to_be_bytes();
                stream.write_all(&[&MATOCL_FUSE_REGISTER.to_be_bytes()[..], &length, &answer].concat()).unwrap();
            }
            asked
        };
        (address, std::thread::spawn(serve))
    }

    #[test]
    fn a_session_is_closed_by_its_number() {
        let mut opened = vec![0; 49];
        opened[ID].copy_from_slice(&[0, 0, 0, 7]);
        let (address, asked) = master(vec![opened, vec![0]]);
        open_and_close(address, RELEASE, Duration::from_secs(10)).unwrap();
        let asked = asked.join().unwrap();
        assert_eq!(asked[0].len(), 77 + INFO.len() + 2 + 4, "the length that a 3.x master reads as a new session");
        assert_eq!(asked[0][64..69], [NEW_SESSION, 0, 3, 0, 234]);
        assert_eq!(asked[1][64..], [CLOSE_SESSION, 0, 0, 0, 7]);
    }

    #[test]
    fn a_refusal_names_the_status() {
        let (address, asked) = master(vec![vec![4]]);
        let refused = open_and_close(address, RELEASE, Duration::from_secs(10));
        assert!(matches!(refused, Err(Error::Refused { status: 4, .. })), "{refused:?}");
        assert_eq!(asked.join().unwrap().len(), 1);
    }
}
