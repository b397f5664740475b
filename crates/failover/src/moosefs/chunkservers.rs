//! The chunkservers of a file system, and which of them are connected, as its master tells it.
//!
//! The answer has an entry for each: flags and 24 bits of its release, its address, from 4.26 on the address that the
//! asking client should use, then its port; the length of an entry grew with the releases
//! (`mfscommon/MFSCommunication.h`, `MATOCL_CSERV_LIST`).

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use super::info::ask;
use super::{Error, Release};

const CLTOMA_CSERV_LIST: u32 = 500;
const MATOCL_CSERV_LIST: u32 = 501;
const DISCONNECTED: u8 = 1;
const MAINTENANCE: u8 = 2;

/// A chunkserver that the metadata names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chunkserver {
    /// Where it listens.
    pub(crate) address: SocketAddrV4,
    /// Whether it is connected to the master.
    pub(crate) connected: bool,
    /// Whether an administrator has announced that it may be away.
    pub(crate) maintenance: bool,
}

/// Asks the master of this `release` at `address`, within `patience`. Releases before 2.0 are not asked: none.
pub(crate) fn chunkservers(
    address: SocketAddrV4,
    release: Release,
    patience: Duration,
) -> Result<Vec<Chunkserver>, Error> {
    let Some(entry) = Entry::of(release) else { return Ok(Vec::new()) };
    let body = ask(address, [CLTOMA_CSERV_LIST, MATOCL_CSERV_LIST], patience)?;
    entry.read(&body).ok_or(Error::Foreign { address, length: body.len() })
}

/// The form of an entry.
struct Entry {
    length: usize,
    port_at: usize,
}

impl Entry {
    fn of(release: Release) -> Option<Self> {
        let since = |major, minor, patch| release >= Release { major, minor, patch };
        match () {
            () if since(4, 26, 0) => Some(Self { length: 73, port_at: 12 }),
            () if since(3, 0, 38) => Some(Self { length: 69, port_at: 8 }),
            () if since(2, 1, 0) => Some(Self { length: 68, port_at: 8 }),
            () if since(2, 0, 0) => Some(Self { length: 64, port_at: 8 }),
            () => None,
        }
    }

    fn read(&self, body: &[u8]) -> Option<Vec<Chunkserver>> {
        if body.len() % self.length != 0 {
            return None;
        }
        let read = |entry: &[u8]| {
            let address = Ipv4Addr::new(entry[4], entry[5], entry[6], entry[7]);
            let port = u16::from_be_bytes([entry[self.port_at], entry[self.port_at + 1]]);
            Chunkserver {
                address: SocketAddrV4::new(address, port),
                connected: entry[0] & DISCONNECTED == 0,
                maintenance: entry[0] & MAINTENANCE != 0,
            }
        };
        Some(body.chunks_exact(self.length).map(read).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_each_release_is_read() {
        let forms = [
            ((2, 0, 91), 64, 8),
            ((3, 0, 30), 68, 8),
            ((3, 0, 117), 69, 8),
            ((4, 57, 5), 73, 12),
            ((4, 59, 2), 73, 12),
        ];
        for ((major, minor, patch), length, port_at) in forms {
            let entry = |flags: u8, last: u8| {
                let mut entry = vec![0; length];
                entry[0] = flags;
                entry[4..8].copy_from_slice(&[10, 0, 0, last]);
                entry[port_at..port_at + 2].copy_from_slice(&9422_u16.to_be_bytes());
                entry
            };
            let body = [entry(0, 1), entry(DISCONNECTED, 2), entry(DISCONNECTED | MAINTENANCE, 3)].concat();
            let form = Entry::of(Release { major, minor, patch }).unwrap();
            let found = form.read(&body).unwrap();
            let shown: Vec<_> =
                found.iter().map(|one| (one.address.to_string(), one.connected, one.maintenance)).collect();
            let expected = [("10.0.0.1", true, false), ("10.0.0.2", false, false), ("10.0.0.3", false, true)];
            assert_eq!(
                shown,
                expected.map(|(ip, connected, away)| (format!("{ip}:9422"), connected, away)),
                "{length}"
            );
            assert_eq!(form.read(&body[1..]), None);
            assert_eq!(form.read(&[]), Some(Vec::new()));
        }
        assert!(Entry::of(Release { major: 1, minor: 6, patch: 27 }).is_none());
    }
}
