//! The list of connections that the serving machine tells: its form on the wire, and its parts put together. Numbers are
//! big-endian.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | `MFCL` |
//! | 1 | form, 1 |
//! | 1 | vhid |
//! | 4 | virtual IP |
//! | 8, 8 | the sender's run, as in its heartbeats, and the number of the list in it |
//! | 2, 2 | which part this is, from 0 on, and how many there are |
//! | 8 each | connection: the server's port, the other end's address and port |
//! | 20 | signature of all before it and the sender's address |

use std::net::{Ipv4Addr, SocketAddrV4};

use super::datagram::address;
use crate::sys::tcp::Connected;
use crate::ucarp::secret::{SIGNATURE, Secret};

const MAGIC: &[u8; 4] = b"MFCL";
const FORM: u8 = 1;
const HEAD: usize = 30;
const CONNECTION: usize = 8;
/// Connections in one part: it fits into an Ethernet frame.
const IN_PART: usize = 170;
/// The most connections that are told: 600 parts.
const MOST: usize = 102_000;

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) vhid: u8,
    pub(super) vip: Ipv4Addr,
    pub(super) nonce: u64,
    pub(super) list: u64,
    number: u16,
    of: u16,
    connections: Vec<Connected>,
}

impl Part {
    /// The parts of a list. An empty list has one, too.
    pub(super) fn of(vhid: u8, vip: Ipv4Addr, nonce: u64, list: u64, connections: &[Connected]) -> Vec<Self> {
        let connections = &connections[..connections.len().min(MOST)];
        let mut chunks: Vec<&[Connected]> = connections.chunks(IN_PART).collect();
        if chunks.is_empty() {
            chunks.push(&[]);
        }
        let of = u16::try_from(chunks.len()).unwrap_or(u16::MAX);
        let numbered = (0..of).zip(chunks);
        numbered.map(|(number, some)| Self { vhid, vip, nonce, list, number, of, connections: some.to_vec() }).collect()
    }

    /// The bytes, signed for a sender with this address.
    pub(super) fn write(&self, secret: &Secret, sender: Ipv4Addr) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD + self.connections.len() * CONNECTION + SIGNATURE);
        bytes.extend(MAGIC);
        bytes.extend([FORM, self.vhid]);
        bytes.extend(self.vip.octets());
        bytes.extend(self.nonce.to_be_bytes());
        bytes.extend(self.list.to_be_bytes());
        bytes.extend(self.number.to_be_bytes());
        bytes.extend(self.of.to_be_bytes());
        for Connected { port, end } in &self.connections {
            bytes.extend(port.to_be_bytes());
            bytes.extend(end.ip().octets());
            bytes.extend(end.port().to_be_bytes());
        }
        let signature = secret.sign(&[&bytes, &sender.octets()]);
        bytes.extend(signature);
        bytes
    }

    /// Reads what a machine with this address sent; `None` if it is no part of this form, or not signed by this group.
    pub(super) fn read(bytes: &[u8], secret: &Secret, sender: Ipv4Addr) -> Option<Self> {
        let (signed, signature) = bytes.split_at_checked(bytes.len().checked_sub(SIGNATURE)?)?;
        let (head, connections) = signed.split_first_chunk::<HEAD>()?;
        let short = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        let long = |at: usize| head.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
        let (number, of) = (short(26), short(28));
        let whole = connections.len() % CONNECTION == 0 && connections.len() <= IN_PART * CONNECTION;
        if &head[..4] != MAGIC || head[4] != FORM || !whole || number >= of || usize::from(of) * IN_PART > MOST {
            return None;
        }
        if !secret.verifies(&[signed, &sender.octets()], signature) {
            return None;
        }
        Some(Self {
            vhid: head[5],
            vip: address(&head[6..10])?,
            nonce: long(10)?,
            list: long(18)?,
            number,
            of,
            connections: connections.chunks_exact(CONNECTION).filter_map(connection).collect(),
        })
    }
}

fn connection(bytes: &[u8]) -> Option<Connected> {
    let port = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    Some(Connected { port: port(0), end: SocketAddrV4::new(address(&bytes[2..6])?, port(6)) })
}

/// The parts that came of the newest list of one machine.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// The run and the number of the list.
    of: (u64, u64),
    parts: Vec<Option<Vec<Connected>>>,
}

impl Parts {
    /// Takes in a part, and returns the list once it is complete. A part of an older list is nothing.
    pub(super) fn take(&mut self, part: Part) -> Option<Vec<Connected>> {
        let (nonce, list) = self.of;
        if nonce == part.nonce && list > part.list {
            return None;
        }
        if self.of != (part.nonce, part.list) {
            *self = Self { of: (part.nonce, part.list), parts: vec![None; part.of.into()] };
        }
        let place = self.parts.get_mut(usize::from(part.number))?;
        *place = Some(part.connections);
        let complete = self.parts.iter().all(Option::is_some);
        complete.then(|| std::mem::take(&mut self.parts).into_iter().flatten().flatten().collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SENDER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);

    fn secret(password: &str) -> Secret {
        Secret::new(password.as_bytes()).unwrap()
    }

    fn connections(count: usize) -> Vec<Connected> {
        let end = |at: usize| SocketAddrV4::new(u32::try_from(at).unwrap().into(), 40_000);
        (0..count).map(|at| Connected { port: 9421, end: end(at) }).collect()
    }

    proptest! {
        #[test]
        fn a_part_arrives_as_it_was_sent_and_only_so(
            vhid: u8, nonce: u64, list: u64, count in 0..IN_PART, damage in any::<(usize, u8)>(),
        ) {
            let [sent] = &Part::of(vhid, VIP, nonce, list, &connections(count))[..] else { unreachable!() };
            let mut bytes = sent.write(&secret("group"), SENDER);
            prop_assert!(bytes.len() <= 1472, "it fits into a frame");
            prop_assert_eq!(Part::read(&bytes, &secret("group"), SENDER), Some(sent.clone()));
            prop_assert_eq!(Part::read(&bytes, &secret("other"), SENDER), None);
            prop_assert_eq!(Part::read(&bytes, &secret("group"), Ipv4Addr::new(10, 0, 0, 2)), None);
            let (at, with) = (damage.0 % bytes.len(), damage.1.max(1));
            bytes[at] ^= with;
            prop_assert_eq!(Part::read(&bytes, &secret("group"), SENDER), None);
        }

        #[test]
        fn no_part_makes_it_panic(bytes: Vec<u8>) {
            let _ = Part::read(&bytes, &secret("group"), SENDER);
        }

        #[test]
        fn a_list_is_put_together_in_any_order(count in 0..2000_usize, seed: u64) {
            let all = connections(count);
            let mut parts = Part::of(10, VIP, 1, 1, &all);
            fastrand::Rng::with_seed(seed).shuffle(&mut parts);
            let mut gathered = Parts::default();
            let last = parts.pop().unwrap();
            for part in parts {
                prop_assert_eq!(gathered.take(part.clone()), None);
                prop_assert_eq!(gathered.take(part), None);
            }
            let mut found = gathered.take(last.clone()).unwrap();
            found.sort_unstable();
            prop_assert_eq!(found, all);
            prop_assert_eq!(gathered.take(last), None, "once");
        }
    }

    #[test]
    fn the_newest_list_counts_and_each_run_begins_anew() {
        let part = |nonce, list, count| Part::of(10, VIP, nonce, list, &connections(count)).remove(0);
        let mut parts = Parts::default();
        assert_eq!(parts.take(part(1, 2, 400)), None);
        assert_eq!(parts.take(part(1, 3, 3)), Some(connections(3)));
        assert_eq!(parts.take(part(1, 2, 2)), None, "an old one");
        assert_eq!(parts.take(part(2, 1, 1)), Some(connections(1)));
    }

    #[test]
    fn no_list_is_larger_than_is_told() {
        let parts = Part::of(10, VIP, 1, 1, &connections(MOST + 7));
        assert_eq!(parts.iter().map(|part| part.connections.len()).sum::<usize>(), MOST);
        let last = parts.last().unwrap().write(&secret("group"), SENDER);
        assert!(Part::read(&last, &secret("group"), SENDER).is_some());
    }
}
