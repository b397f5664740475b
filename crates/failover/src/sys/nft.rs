//! A lease that the kernel keeps: the answers of a server leave this machine only while the lease is open, and it ends by
//! itself. Made over netlink: it needs no program on the machine.
//!
//! In nft's language:
//!
//! ```text
//! table ip moosefs-ucarp-VIP {
//!     set lease { type inet_service; flags timeout; }
//!     chain held {
//!         type filter hook output priority 0;
//!         ip saddr VIP ip daddr != 127.0.0.0/8 tcp flags != rst,ack / rst,ack tcp sport PORT tcp sport != @lease drop
//!     }
//! }
//! ```
//!
//! No clock of a process counts. A process can be stopped at any moment, for any time, and then goes on with what it was about
//! to do. So the kernel refuses what would let answers leave and comes too late: [`Lease::renew`] once the lease has ended,
//! and [`Lease::open`] once the permit for it has. A permit is an element of the same set.
//!
//! The lease is open while the port is in the set. The table belongs to no process, so nothing opens when all of them are
//! killed. A reset with ACK refuses a new connection: it passes, because a client that hears nothing tries again later than
//! one that is refused. A reset without it answers a segment of a connection, and is held back like an answer. What is sent
//! to a loopback address passes: this program asks the master from there. Numbers are those of
//! `linux/netfilter/nf_tables.h` and `nfnetlink.h`. Linux 4.10 or later.

pub(crate) mod apart;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use netlink_packet_core::{DefaultNla, NLA_F_NESTED, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE};
use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::errno::Errno;

use crate::sys::netlink::{self, Connection, bytes, messages, request};
use crate::sys::packet::{ACK, RST, TCP};

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NEW_TABLE: u16 = NFNL_SUBSYS_NFTABLES << 8;
const GET_TABLE: u16 = NEW_TABLE | 1;
const DELETE_TABLE: u16 = NEW_TABLE | 2;
const NEW_CHAIN: u16 = NEW_TABLE | 3;
const NEW_RULE: u16 = NEW_TABLE | 6;
const DELETE_RULE: u16 = NEW_TABLE | 8;
const NEW_SET: u16 = NEW_TABLE | 9;
const NEW_ELEMENT: u16 = NEW_TABLE | 0x0c;
const GET_ELEMENT: u16 = NEW_TABLE | 0x0d;
const DELETE_ELEMENT: u16 = NEW_TABLE | 0x0e;
const NFPROTO_IPV4: u8 = 2;
const LOCAL_OUT: u32 = 3;
const ACCEPT: u32 = 1;
const DROP: u32 = 0;
const CHAIN: &str = "held";
const SET: &str = "lease";
/// Elements of the set have a timeout.
const TIMEOUT: u32 = 0x10;
/// nft's name for a port (`inet_service`), and its length.
const PORT_TYPE: u32 = 13;
const PORT_LENGTH: u32 = 2;
/// Where an expression loads from.
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
/// The register that all expressions use, and that of the verdict.
const REGISTER: u32 = 1;
const VERDICT: u32 = 0;
/// The network of loopback addresses: their first byte.
const LOOPBACK: u8 = 127;
/// Comparisons.
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
/// A lookup that goes on if the value is not in the set.
const INVERTED: u32 = 1;
/// As many ports are permits of processes: each has its own, so that one that was paused does not use that of another.
const PERMITS: u32 = 1024;
/// How long the kernel may take to answer.
const ANSWER: Duration = Duration::from_millis(500);

/// The lease of a server.
#[derive(Debug, Clone)]
pub(crate) struct Lease {
    server: SocketAddrV4,
    table: String,
}

/// How a change ended that must be in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Renewed {
    /// It is done.
    Yes,
    /// The lease, or the permit, had ended. Nothing was changed.
    Lapsed,
    /// Another program has removed the table, so nothing is held back.
    Gone,
}

/// How a lease is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// There is no table: nothing is held back.
    None,
    /// Answers leave.
    Open,
    /// Answers are held.
    Closed,
}

impl Lease {
    /// The lease of the server on this address and port.
    pub(crate) fn on(address: Ipv4Addr, port: u16) -> Self {
        Self { server: SocketAddrV4::new(address, port), table: format!("moosefs-ucarp-{address}") }
    }

    /// Makes the table, closed. One that is here stays as it is, open or closed.
    pub(crate) fn install(&self) -> nix::Result<()> {
        match change(&self.requests()) {
            Ok(()) => Ok(()),
            // Something else of this name: it is replaced.
            Err(Errno::EEXIST | Errno::EINVAL | Errno::EOPNOTSUPP | Errno::EBUSY) => {
                // The first request makes sure that there is one to delete.
                let [table, ..] = self.requests();
                change(&[&[table, self.deletion()], &self.requests()[..]].concat())
            }
            Err(e) => Err(e),
        }
    }

    /// From now on it may be [opened](Self::open), for so long. What it is to be opened for must be found out after this.
    pub(crate) fn permit(&self, time: Duration) -> nix::Result<()> {
        let permit = self.permit_key();
        change(&[self.with(permit, time), self.without(permit), self.with(permit, time)])
    }

    /// Prolongs the permit, if it has not ended.
    pub(crate) fn prolong_permit(&self, time: Duration) -> nix::Result<Renewed> {
        let permit = self.permit_key();
        self.in_time(&[self.without(permit), self.with(permit, time)])
    }

    /// Opens it for so long, open or not, if that is permitted. The permit is used up.
    pub(crate) fn open(&self, time: Duration) -> nix::Result<Renewed> {
        let (permit, port) = (self.permit_key(), self.server.port());
        // What is in the set keeps its time unless it is deleted, and what is not cannot be deleted.
        self.in_time(&[self.without(permit), self.with(port, time), self.without(port), self.with(port, time)])
    }

    /// Prolongs it, if it is open.
    pub(crate) fn renew(&self, time: Duration) -> nix::Result<Renewed> {
        let port = self.server.port();
        self.in_time(&[self.without(port), self.with(port, time)])
    }

    /// Makes changes of which the first deletes an element that must be there: the kernel makes all or none.
    fn in_time(&self, requests: &[Vec<u8>]) -> nix::Result<Renewed> {
        match change(requests) {
            Ok(()) => Ok(Renewed::Yes),
            Err(Errno::ENOENT) if self.exists()? => Ok(Renewed::Lapsed),
            Err(Errno::ENOENT) => Ok(Renewed::Gone),
            Err(e) => Err(e),
        }
    }

    /// Closes it now. Nothing that was permitted before opens it again.
    pub(crate) fn close(&self) -> nix::Result<()> {
        let all = [text(1, &self.table), text(2, SET)].concat();
        gone_is_done(change(&[message(DELETE_ELEMENT, 0, &all)]))
    }

    /// Removes the table: nothing is held back any more.
    pub(crate) fn remove(&self) -> nix::Result<()> {
        gone_is_done(change(&[self.deletion()]))
    }

    fn deletion(&self) -> Vec<u8> {
        message(DELETE_TABLE, 0, &text(1, &self.table))
    }

    /// How it is now.
    pub(crate) fn state(&self) -> nix::Result<State> {
        if !self.exists()? {
            return Ok(State::None);
        }
        match ask(&self.element(GET_ELEMENT, self.server.port(), &[])) {
            Ok(()) => Ok(State::Open),
            Err(Errno::ENOENT) => Ok(State::Closed),
            Err(e) => Err(e),
        }
    }

    fn exists(&self) -> nix::Result<bool> {
        match ask(&message(GET_TABLE, 0, &text(1, &self.table))) {
            Ok(()) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// The requests that make the table. The rule takes the place of any that was there.
    fn requests(&self) -> [Vec<u8>; 5] {
        let hook = [number(1, LOCAL_OUT), number(2, 0)].concat();
        let chain =
            [text(1, &self.table), text(3, CHAIN), nested(4, &hook), number(5, ACCEPT), text(7, "filter")].concat();
        let set = [
            text(1, &self.table),
            text(2, SET),
            number(3, TIMEOUT),
            number(4, PORT_TYPE),
            number(5, PORT_LENGTH),
            number(10, 1),
        ];
        [
            message(NEW_TABLE, NLM_F_CREATE, &text(1, &self.table)),
            message(NEW_CHAIN, NLM_F_CREATE, &chain),
            message(NEW_SET, NLM_F_CREATE, &set.concat()),
            message(DELETE_RULE, 0, &[text(1, &self.table), text(2, CHAIN)].concat()),
            message(NEW_RULE, NLM_F_CREATE | NLM_F_APPEND, &self.rule()),
        ]
    }

    fn rule(&self) -> Vec<u8> {
        let reset_and_ack =
            [number(1, REGISTER), number(2, REGISTER), number(3, 1), value(4, &[RST | ACK]), value(5, &[0])];
        let lookup = [text(1, SET), number(2, REGISTER), number(5, INVERTED)];
        let verdict = nested(2, &nested(2, &number(1, DROP)));
        let expressions = [
            load(NETWORK_HEADER, 9, 1),
            compare(EQUAL, &[TCP]),
            load(NETWORK_HEADER, 12, 4),
            compare(EQUAL, &self.server.ip().octets()),
            load(NETWORK_HEADER, 16, 1),
            compare(NOT_EQUAL, &[LOOPBACK]),
            load(TRANSPORT_HEADER, 13, 1),
            expression("bitwise", &reset_and_ack.concat()),
            compare(NOT_EQUAL, &[RST | ACK]),
            load(TRANSPORT_HEADER, 0, 2),
            compare(EQUAL, &self.server.port().to_be_bytes()),
            expression("lookup", &lookup.concat()),
            expression("immediate", &[number(1, VERDICT), verdict].concat()),
        ];
        [text(1, &self.table), text(2, CHAIN), nested(4, &expressions.concat())].concat()
    }

    /// The element that is the permit of this process. It is not the port of the server.
    fn permit_key(&self) -> u16 {
        let key = u16::try_from(std::process::id() % PERMITS).unwrap_or_default();
        if key == self.server.port() { u16::MAX } else { key }
    }

    fn with(&self, port: u16, time: Duration) -> Vec<u8> {
        let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.element(NEW_ELEMENT, port, &attribute(4, &milliseconds.to_be_bytes()))
    }

    fn without(&self, port: u16) -> Vec<u8> {
        self.element(DELETE_ELEMENT, port, &[])
    }

    /// A request about an element of the set.
    fn element(&self, kind: u16, port: u16, timeout: &[u8]) -> Vec<u8> {
        let element = nested(1, &[&value(1, &port.to_be_bytes())[..], timeout].concat());
        let flags = if kind == NEW_ELEMENT { NLM_F_CREATE } else { 0 };
        message(kind, flags, &[text(1, &self.table), text(2, SET), nested(3, &element)].concat())
    }
}

fn gone_is_done(result: nix::Result<()>) -> nix::Result<()> {
    match result {
        Err(Errno::ENOENT) => Ok(()),
        result => result,
    }
}

/// Makes the changes, all or none.
fn change(requests: &[Vec<u8>]) -> nix::Result<()> {
    let kernel = connect()?;
    kernel.send(&[border(BATCH_BEGIN), requests.concat(), border(BATCH_END)].concat())?;
    let mut unanswered = requests.len();
    while unanswered > 0 {
        for result in messages(&kernel.receive()?).iter().filter_map(netlink::result) {
            result?;
            unanswered = unanswered.saturating_sub(1);
        }
    }
    Ok(())
}

/// Asks for something, and says whether it is there.
fn ask(question: &[u8]) -> nix::Result<()> {
    let kernel = connect()?;
    kernel.send(question)?;
    loop {
        if let Some(result) = messages(&kernel.receive()?).iter().find_map(netlink::result) {
            return result;
        }
    }
}

fn connect() -> nix::Result<Connection> {
    let kernel = Connection::open(NETLINK_NETFILTER)?;
    kernel.answer_within(ANSWER)?;
    Ok(kernel)
}

fn load(from: u32, offset: u32, length: u32) -> Vec<u8> {
    expression("payload", &[number(1, REGISTER), number(2, from), number(3, offset), number(4, length)].concat())
}

/// Ends the rule here, without a verdict, unless the comparison holds.
fn compare(how: u32, bytes: &[u8]) -> Vec<u8> {
    expression("cmp", &[number(1, REGISTER), number(2, how), value(3, bytes)].concat())
}

fn expression(name: &str, data: &[u8]) -> Vec<u8> {
    nested(1, &[text(1, name), nested(2, data)].concat())
}

fn value(kind: u16, bytes: &[u8]) -> Vec<u8> {
    nested(kind, &attribute(1, bytes))
}

fn nested(kind: u16, attributes: &[u8]) -> Vec<u8> {
    attribute(kind | NLA_F_NESTED, attributes)
}

fn number(kind: u16, number: u32) -> Vec<u8> {
    attribute(kind, &number.to_be_bytes())
}

fn text(kind: u16, text: &str) -> Vec<u8> {
    attribute(kind, &[text.as_bytes(), &[0]].concat())
}

fn attribute(kind: u16, content: &[u8]) -> Vec<u8> {
    bytes(&DefaultNla::new(kind, content.to_vec()))
}

fn message(kind: u16, flags: u16, attributes: &[u8]) -> Vec<u8> {
    request(kind, flags | NLM_F_ACK, &[&[NFPROTO_IPV4, 0, 0, 0], attributes].concat())
}

/// The begin or the end of a batch.
fn border(kind: u16) -> Vec<u8> {
    let [high, low] = NFNL_SUBSYS_NFTABLES.to_be_bytes();
    request(kind, 0, &[0, 0, high, low])
}

#[cfg(test)]
mod tests;
