//! One rule of `nf_tables` that holds segments of a server back. It is made over netlink: it needs no program on the
//! machine. Its table is owned by the connection that made it (`NFT_TABLE_F_OWNER`, Linux 5.12), and vanishes with it.
//!
//! In nft's language: `table ip T { flags owner; chain held { type filter hook output priority 0; ip saddr VIP tcp sport
//! PORT drop; } }`, for resets with `tcp flags rst / rst,ack` before the `drop`. A reset without ACK answers a segment
//! of a connection and is held back; the refusal of a new connection has it, and passes. Numbers are those of
//! `linux/netfilter/nf_tables.h` and `nfnetlink.h`.

use std::net::SocketAddrV4;

use netlink_packet_core::{DefaultNla, NLA_F_NESTED, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE};
use netlink_sys::protocols::NETLINK_NETFILTER;

use crate::sys::netlink::{self, Connection, bytes, messages, request};
use crate::sys::packet::{ACK, RST, TCP};

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NEW_TABLE: u16 = NFNL_SUBSYS_NFTABLES << 8;
const NEW_CHAIN: u16 = NEW_TABLE | 3;
const NEW_RULE: u16 = NEW_TABLE | 6;
const NFPROTO_IPV4: u8 = 2;
const OWNER: u32 = 0x2;
const LOCAL_OUT: u32 = 3;
const ACCEPT: u32 = 1;
const DROP: u32 = 0;
const CHAIN: &str = "held";
/// Where an expression loads from.
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
/// The register that all expressions use, and that of the verdict.
const REGISTER: u32 = 1;
const VERDICT: u32 = 0;

/// Segments of a server that are held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Segments {
    /// Resets of connections.
    Resets,
    /// All.
    All,
}

/// Makes the rule. It holds until the connection is dropped.
pub(crate) fn hold_segments(segments: Segments, server: SocketAddrV4) -> nix::Result<Connection> {
    let kernel = Connection::open(NETLINK_NETFILTER)?;
    let requests = requests(&format!("moosefs-ucarp-{}", std::process::id()), segments, server);
    kernel.send(&[border(BATCH_BEGIN), requests.concat(), border(BATCH_END)].concat())?;
    let mut unanswered = requests.len();
    while unanswered > 0 {
        for result in messages(&kernel.receive()?).iter().filter_map(netlink::result) {
            result?;
            unanswered = unanswered.saturating_sub(1);
        }
    }
    Ok(kernel)
}

/// The requests between the two ends of the batch.
fn requests(table: &str, segments: Segments, server: SocketAddrV4) -> [Vec<u8>; 3] {
    [
        message(NEW_TABLE, NLM_F_CREATE, &[text(1, table), number(2, OWNER)].concat()),
        message(NEW_CHAIN, NLM_F_CREATE, &chain(table)),
        message(NEW_RULE, NLM_F_CREATE | NLM_F_APPEND, &rule(table, segments, server)),
    ]
}

fn chain(table: &str) -> Vec<u8> {
    let hook = [number(1, LOCAL_OUT), number(2, 0)].concat();
    [text(1, table), text(3, CHAIN), nested(4, &hook), number(5, ACCEPT), text(7, "filter")].concat()
}

fn rule(table: &str, segments: Segments, server: SocketAddrV4) -> Vec<u8> {
    let mut expressions = vec![
        load(NETWORK_HEADER, 9, 1),
        compare(&[TCP]),
        load(NETWORK_HEADER, 12, 4),
        compare(&server.ip().octets()),
        load(TRANSPORT_HEADER, 0, 2),
        compare(&server.port().to_be_bytes()),
    ];
    if segments == Segments::Resets {
        let masked = [number(1, REGISTER), number(2, REGISTER), number(3, 1), value(4, &[RST | ACK]), value(5, &[0])];
        expressions.push(load(TRANSPORT_HEADER, 13, 1));
        expressions.push(expression("bitwise", &masked.concat()));
        expressions.push(compare(&[RST]));
    }
    let verdict = nested(2, &nested(2, &number(1, DROP)));
    expressions.push(expression("immediate", &[number(1, VERDICT), verdict].concat()));
    [text(1, table), text(2, CHAIN), nested(4, &expressions.concat())].concat()
}

fn load(from: u32, offset: u32, length: u32) -> Vec<u8> {
    expression("payload", &[number(1, REGISTER), number(2, from), number(3, offset), number(4, length)].concat())
}

/// Ends the rule here, without a verdict, unless the register is equal.
fn compare(bytes: &[u8]) -> Vec<u8> {
    expression("cmp", &[number(1, REGISTER), number(2, 0), value(3, bytes)].concat())
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
