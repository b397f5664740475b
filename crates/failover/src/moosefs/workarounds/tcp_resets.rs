//! Resets, held back until there is something to connect to.
//!
//! The clients of a master that died go on sending to the virtual address. As soon as it is here, this machine's kernel
//! answers each of them with a reset, since it knows nothing of their connections; they connect anew, are refused while no
//! master listens yet, and wait: mfsmount tries every two seconds, and what a program wanted is tried after 0.3, 0.9, 1.8,
//! 3.0, 4.5 s and so on from that reset (`mfsclient/mastercomm.c`). So the reset must not come before the master listens.
//!
//! A rule in a table of the kernel's packet filter keeps it back. The table is owned by a socket of this process and
//! vanishes with it, however it ends. What arrives meanwhile is listened to, and once the master serves each client gets
//! the very reset that the kernel would have sent. Where the election is lost, none is sent: a connection that came here
//! astray goes on. A machine that hands over listens, too, for what clients send to it before they know better.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd};
use std::thread::JoinHandle;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, bind, recv};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use crate::sys::cancel::Cancel;
use crate::sys::netlink::Connection;
use crate::sys::nft::{Segments, hold_segments};
use crate::sys::packet::{
    ACK, ETH_P_IP, RST, TCP, accept, checksum, index_by_ip_header, jump_if_bits, jump_if_equal, link_address,
    load_byte, load_indexed_byte, load_indexed_half, load_word, reject,
};
use crate::sys::tcp;

/// Where the filter finds for whom a packet is (`SKF_AD_OFF + SKF_AD_PKTTYPE` in `linux/filter.h`).
const PACKET_TYPE: u32 = 0xffff_f004;
/// For this machine (`PACKET_HOST` in `linux/if_packet.h`).
const PACKET_HOST: u32 = 0;
/// The bit of a segment's flags that the filter does not need.
const SYN: u8 = 0x02;
/// Length of a TCP header without options.
const HEADER: usize = 20;
/// Clients beyond this number are reset by the kernel, when they send again.
const MOST: usize = 100_000;

/// What failed, and why.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation}")]
pub(crate) struct Error {
    /// What was tried.
    operation: &'static str,
    /// The kernel's answer.
    #[source]
    source: std::io::Error,
}

fn failed<E: Into<std::io::Error>>(operation: &'static str) -> impl FnOnce(E) -> Error {
    move |source| Error { operation, source: source.into() }
}

/// Each client that sent something for a connection that is not here, with the place in the stream where it takes a reset.
type Clients = BTreeMap<SocketAddrV4, u32>;

/// Listens for clients whose connections are not here any more.
#[derive(Debug)]
pub(crate) struct ClientListener {
    server: SocketAddrV4,
    over: Cancel,
    heard: Option<JoinHandle<Clients>>,
}

impl ClientListener {
    /// Listens on the interface with the number `index` from now on, for what is sent to `server`.
    pub(crate) fn open(index: u32, server: SocketAddrV4) -> Result<Self, Error> {
        let ear = listen(index, server).map_err(failed("listen to clients"))?;
        let over = Cancel::new();
        let until = over.clone();
        let heard = std::thread::spawn(move || hear(&ear, &until));
        Ok(Self { server, over, heard: Some(heard) })
    }

    /// Resets everybody who was heard, and returns how many that were. For when they can connect anew.
    pub(crate) fn reset_all(mut self) -> Result<usize, Error> {
        let clients = self.stop();
        let sender = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP)).map_err(failed("send resets"))?;
        // The address may be elsewhere.
        sender.set_header_included_v4(true).map_err(failed("send resets"))?;
        // Whoever was refused and has connected since sends to the same port.
        let connected = tcp::ends_connected_to(self.server.port());
        let lost = || clients.iter().filter(|(client, _)| !connected.contains(client));
        for (client, place) in lost() {
            let packet = reset(self.server, *client, *place);
            if let Err(e) = sender.send_to(&packet, &SocketAddrV4::new(*client.ip(), 0).into()) {
                log::debug!("no reset to {client}: {e}");
            }
        }
        Ok(lost().count())
    }

    /// Listens no more, and returns who was heard.
    fn stop(&mut self) -> Clients {
        self.over.cancel();
        self.heard.take().and_then(|heard| heard.join().ok()).unwrap_or_default()
    }
}

impl Drop for ClientListener {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Resets being held back. Dropping it lets the kernel send them again, to whoever sends from then on.
#[derive(Debug)]
pub(crate) struct HeldResets {
    ear: ClientListener,
    table: Connection,
}

impl HeldResets {
    /// Holds back the resets from `server`, which the interface with the number `index` has, from now on.
    pub(crate) fn begin(index: u32, server: SocketAddrV4) -> Result<Self, Error> {
        let ear = ClientListener::open(index, server)?;
        let table = hold_segments(Segments::Resets, server).map_err(failed("hold resets back"))?;
        Ok(Self { ear, table })
    }

    /// Resets everybody who sent something meanwhile, and returns how many that were.
    pub(crate) fn send(self) -> Result<usize, Error> {
        // The rule would hold these back, too.
        drop(self.table);
        self.ear.reset_all()
    }
}

fn listen(index: u32, server: SocketAddrV4) -> std::io::Result<Socket> {
    let ear = Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(i32::from(ETH_P_IP.to_be()))))?;
    ear.attach_filter(&wanted(server))?;
    ear.set_nonblocking(true)?;
    bind(ear.as_raw_fd(), &link_address(index)?)?;
    Ok(ear)
}

/// "It is for this machine, TCP to `server`, and belongs to a connection", in the kernel's filter language.
fn wanted(server: SocketAddrV4) -> [SockFilter; 13] {
    [
        // An interface may be told to hear what is for other machines, too.
        load_byte(PACKET_TYPE),
        jump_if_equal(PACKET_HOST, 0, 10),
        load_byte(9),
        jump_if_equal(TCP.into(), 0, 8),
        load_word(16),
        jump_if_equal(u32::from(*server.ip()), 0, 6),
        index_by_ip_header(0),
        load_indexed_half(2),
        jump_if_equal(server.port().into(), 0, 3),
        load_indexed_byte(13),
        jump_if_bits(u32::from(SYN | RST), 1, 0),
        accept(),
        reject(),
    ]
}

/// Listens until it is over.
fn hear(ear: &Socket, over: &Cancel) -> Clients {
    let mut clients = Clients::new();
    let mut buffer = [0; 128];
    loop {
        while let Ok(length) = recv(ear.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            if let Some((client, place)) = parse(&buffer[..length]).filter(|_| clients.len() < MOST) {
                clients.insert(client, place);
            }
        }
        if over.is_set() {
            return clients;
        }
        let mut fds = [PollFd::new(ear.as_fd(), PollFlags::POLLIN), PollFd::new(over.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut fds, PollTimeout::NONE);
    }
}

/// Who sent an IP packet with a TCP segment, and the next byte that it expects: there it takes a reset (RFC 5961).
fn parse(packet: &[u8]) -> Option<(SocketAddrV4, u32)> {
    let ip: &[u8; 20] = packet.first_chunk()?;
    let segment: &[u8; HEADER] = packet.get(usize::from(ip[0] & 0x0f) * 4..)?.first_chunk()?;
    let source = Ipv4Addr::new(ip[12], ip[13], ip[14], ip[15]);
    let port = u16::from_be_bytes([segment[0], segment[1]]);
    let expected = u32::from_be_bytes([segment[8], segment[9], segment[10], segment[11]]);
    (segment[13] & ACK != 0).then(|| (SocketAddrV4::new(source, port), expected))
}

/// The packet that resets a client's connection. The kernel fills the lengths and sums of the IP header in.
fn reset(server: SocketAddrV4, client: SocketAddrV4, place: u32) -> Vec<u8> {
    let [from, to] = [server, client].map(|end| end.ip().octets());
    let mut segment = [0; HEADER];
    segment[..2].copy_from_slice(&server.port().to_be_bytes());
    segment[2..4].copy_from_slice(&client.port().to_be_bytes());
    segment[4..8].copy_from_slice(&place.to_be_bytes());
    segment[12] = 5 << 4;
    segment[13] = RST;
    // The checksum covers the addresses, too.
    let sum = checksum(&[&from[..], &to, &[0, TCP, 0, 20], &segment].concat());
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    [&[0x45, 0, 0, 40, 0, 0, 0, 0, 64, TCP, 0, 0][..], &from, &to, &segment].concat()
}

#[cfg(test)]
pub(crate) mod tests;
