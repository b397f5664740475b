//! The form of a heartbeat on the wire. Numbers are big-endian.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | `MFHB` |
//! | 1 | form, 1 |
//! | 1 | vhid |
//! | 1 | role |
//! | 1 | flags: 1 clients are answered, 2 a version is told, 4 a fork is told |
//! | 4 | virtual IP |
//! | 8, 8 | the sender's run (a random number), and the number of the heartbeat in it |
//! | 8, 8, 8 | version, metaid, fork |
//! | 1 | how many echoes follow |
//! | 20 each | echo: address, run, number |
//! | 20 | signature of all before it and the sender's address |

use std::net::Ipv4Addr;

use super::{MOST, Role, Statement};
use crate::metadata::Version;
use crate::ucarp::secret::{SIGNATURE, Secret};

const MAGIC: &[u8; 4] = b"MFHB";
const FORM: u8 = 1;
const HEAD: usize = 53;
const ECHO: usize = 20;
const ANSWERS: u8 = 1;
const VERSION: u8 = 2;
const FORK: u8 = 4;
const ROLES: [Role; 5] = [Role::StandingBy, Role::Promoting, Role::Serving, Role::Demoting, Role::Stopping];

/// The last number that was heard of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Echo {
    pub(super) address: Ipv4Addr,
    pub(super) nonce: u64,
    pub(super) number: u64,
}

/// One heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Datagram {
    pub(super) vhid: u8,
    pub(super) vip: Ipv4Addr,
    pub(super) nonce: u64,
    pub(super) number: u64,
    pub(super) statement: Statement,
    /// At most [`MOST`].
    pub(super) echoes: Vec<Echo>,
}

impl Datagram {
    /// The bytes, signed for a sender with this address.
    pub(super) fn write(&self, secret: &Secret, sender: Ipv4Addr) -> Vec<u8> {
        let Statement { role, version, metaid, forked_at, answers } = &self.statement;
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let flags = flag(*answers, ANSWERS) | flag(version.is_some(), VERSION) | flag(forked_at.is_some(), FORK);
        let role =
            ROLES.iter().position(|known| known == role).and_then(|at| u8::try_from(at).ok()).unwrap_or_default();
        let echoes = &self.echoes[..self.echoes.len().min(MOST)];
        let mut bytes = Vec::with_capacity(HEAD + echoes.len() * ECHO + SIGNATURE);
        bytes.extend(MAGIC);
        bytes.extend([FORM, self.vhid, role, flags]);
        bytes.extend(self.vip.octets());
        let of = |version: &Option<Version>| version.map_or(0, |version| version.0);
        for number in [self.nonce, self.number, of(version), *metaid, of(forked_at)] {
            bytes.extend(number.to_be_bytes());
        }
        bytes.push(u8::try_from(echoes.len()).unwrap_or_default());
        for echo in echoes {
            bytes.extend(echo.address.octets());
            bytes.extend(echo.nonce.to_be_bytes());
            bytes.extend(echo.number.to_be_bytes());
        }
        let signature = secret.sign(&[&bytes, &sender.octets()]);
        bytes.extend(signature);
        bytes
    }

    /// Reads what a machine with this address sent; `None` if it is no heartbeat of this form, or not signed by this group.
    pub(super) fn read(bytes: &[u8], secret: &Secret, sender: Ipv4Addr) -> Option<Self> {
        let (signed, signature) = bytes.split_at_checked(bytes.len().checked_sub(SIGNATURE)?)?;
        let (head, echoes) = signed.split_first_chunk::<HEAD>()?;
        let number = |at: usize| head.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
        let count = usize::from(head[HEAD - 1]);
        if &head[..4] != MAGIC || head[4] != FORM || echoes.len() != count * ECHO || count > MOST {
            return None;
        }
        if !secret.verifies(&[signed, &sender.octets()], signature) {
            return None;
        }
        let told = |flag: u8, number: u64| (head[7] & flag != 0).then_some(Version(number));
        Some(Self {
            vhid: head[5],
            vip: address(&head[8..12])?,
            nonce: number(12)?,
            number: number(20)?,
            statement: Statement {
                role: *ROLES.get(usize::from(head[6]))?,
                version: told(VERSION, number(28)?),
                metaid: number(36)?,
                forked_at: told(FORK, number(44)?),
                answers: head[7] & ANSWERS != 0,
            },
            echoes: echoes.chunks_exact(ECHO).filter_map(echo).collect(),
        })
    }
}

fn echo(bytes: &[u8]) -> Option<Echo> {
    let number = |at: usize| bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
    Some(Echo { address: address(&bytes[..4])?, nonce: number(4)?, number: number(12)? })
}

pub(super) fn address(bytes: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(bytes).ok().map(Ipv4Addr::from)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SENDER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

    fn secret(password: &str) -> Secret {
        Secret::new(password.as_bytes()).unwrap()
    }

    proptest! {
        #[test]
        fn a_heartbeat_arrives_as_it_was_sent_and_only_so(
            vhid: u8, vip: u32, nonce: u64, number: u64, role in 0..5_usize, version: Option<u64>, fork: Option<u64>,
            metaid: u64, answers: bool, echoes in proptest::collection::vec((any::<u32>(), any::<u64>(), any::<u64>()), 0..=MOST),
            damage in any::<(usize, u8)>(),
        ) {
            let statement = Statement {
                role: ROLES[role], version: version.map(Version), metaid, forked_at: fork.map(Version), answers,
            };
            let echoes = echoes.into_iter().map(|(a, nonce, number)| Echo { address: a.into(), nonce, number }).collect();
            let sent = Datagram { vhid, vip: vip.into(), nonce, number, statement, echoes };
            let mut bytes = sent.write(&secret("group"), SENDER);
            prop_assert_eq!(Datagram::read(&bytes, &secret("group"), SENDER), Some(sent));
            prop_assert_eq!(Datagram::read(&bytes, &secret("other"), SENDER), None);
            prop_assert_eq!(Datagram::read(&bytes, &secret("group"), Ipv4Addr::new(10, 0, 0, 2)), None);
            prop_assert_eq!(Datagram::read(&bytes[..bytes.len() - 1], &secret("group"), SENDER), None);
            let (at, with) = (damage.0 % bytes.len(), damage.1.max(1));
            bytes[at] ^= with;
            prop_assert_eq!(Datagram::read(&bytes, &secret("group"), SENDER), None);
        }

        #[test]
        fn no_datagram_makes_it_panic(bytes: Vec<u8>) {
            let _ = Datagram::read(&bytes, &secret("group"), SENDER);
        }
    }
}
