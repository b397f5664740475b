//! Without this, clients wait up to two seconds longer: they reconnect before the master listens, and then pause.
//!
//! The clients of a dead master keep sending to the virtual IP. Once the address is here, this machine's kernel answers
//! each of them with a TCP RST, because it does not know their connections. They reconnect, are refused while no master
//! listens, and pause: mfsmount tries every two seconds, and the request of a program is repeated 0.3, 0.9, 1.8, 3.0,
//! 4.5 s and so on after that RST (`mfsclient/mastercomm.c`). So the RST must not be sent before the master listens.
//!
//! The closed [lease](crate::sys::nft) holds it back. Meanwhile this process records which clients send, and once the
//! master serves and the lease is open it sends each of them a RST. If the election is lost it sends none: a connection
//! whose segments reached this machine by mistake continues. In a switchover, the machine that gives the address up
//! records the clients that still send to it, and resets them when the other machine serves. The lease there is closed by
//! then, so these RSTs have ACK too, as that of a server that ends a connection; the kernel's own have not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd};
use std::thread::JoinHandle;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, bind, recv};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use crate::sys::cancel::Cancel;
use crate::sys::logging::chain;
use crate::sys::packet::{ACK, Position, RST, TCP, TCP_HEADER, segment, segment_sender};
use crate::sys::packet::{
    ETH_P_IP, MOST_AT_ONCE, accept, index_by_ip_header, jump_if_bits, jump_if_equal, link_address, load_byte,
    load_indexed_byte, load_indexed_half, load_word, reject,
};
use crate::sys::tcp;
use crate::vip::VirtualIp;

/// Where the filter finds whether a packet is for this machine (`SKF_AD_OFF + SKF_AD_PKTTYPE` in `linux/filter.h`).
const PACKET_TYPE: u32 = 0xffff_f004;
/// It is for this machine (`PACKET_HOST` in `linux/if_packet.h`).
const PACKET_HOST: u32 = 0;
/// A segment with this flag belongs to no connection that is lost.
const SYN: u8 = 0x02;
/// The client has sent all: this counts as one byte.
const FIN: u8 = 0x01;
/// Clients beyond this number are left to the kernel, which resets them when they send again.
const MOST: usize = 100_000;

/// Clients cannot be recorded or reset.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation}")]
pub(crate) struct Error {
    /// `listen to clients`, `send TCP RSTs` …
    operation: &'static str,
    /// The kernel's answer.
    #[source]
    source: std::io::Error,
}

fn failed<E: Into<std::io::Error>>(operation: &'static str) -> impl FnOnce(E) -> Error {
    move |source| Error { operation, source: source.into() }
}

/// Each client that sent something for a lost connection, and where that is, as a server has it that has received everything:
/// its sequence number is the one that the client expects next, at which it accepts a RST (RFC 5961).
type Heard = BTreeMap<SocketAddrV4, Position>;
/// Clients by their ends of the connections.
pub(crate) type Clients = BTreeSet<SocketAddrV4>;

/// Records the clients that send to a server of which this machine does not know the connections.
#[derive(Debug)]
pub(crate) struct ClientListener {
    server: SocketAddrV4,
    end: Cancel,
    thread: Option<JoinHandle<Heard>>,
}

impl ClientListener {
    /// As [`ClientListener::open`], on the interface of the virtual IP; `None` if that cannot be done, and a warning says so.
    pub(crate) fn open_if_possible(vip: &VirtualIp, port: u16) -> Option<Self> {
        let interface = vip.find_interface().inspect_err(|e| log::warn!("{}", chain(e))).ok()?;
        let listener = Self::open(interface.index, vip.port(port));
        listener.inspect_err(|e| log::warn!("{}; clients will reconnect more slowly", chain(e))).ok()
    }

    /// Listens from now on, on the interface with the number `index`, for segments to `server`.
    pub(crate) fn open(index: u32, server: SocketAddrV4) -> Result<Self, Error> {
        let failed = || failed("listen to clients");
        let socket = listen(index, server).map_err(failed())?;
        let end = Cancel::new();
        let until = end.clone();
        let thread = std::thread::Builder::new().name("clients".to_owned());
        let thread = thread.spawn(move || record(&socket, &until)).map_err(failed())?;
        Ok(Self { server, end, thread: Some(thread) })
    }

    /// Resets all recorded clients and returns which they were. Call it when they can reconnect.
    pub(crate) fn reset_all(mut self) -> Result<Clients, Error> {
        let failed = || failed("send TCP RSTs");
        let mut clients = self.stop();
        // The virtual IP may be on another machine by now.
        let sender = segment_sender().map_err(failed())?;
        // A client that was refused and has reconnected since was recorded too.
        let connected = tcp::ends_connected_to(self.server.port());
        clients.retain(|client, _| !connected.contains(client));
        for (client, position) in &clients {
            let packet = segment(self.server, *client, RST | ACK, *position);
            if let Err(e) = sender.send_to(&packet, &SocketAddrV4::new(*client.ip(), 0).into()) {
                log::debug!("cannot send a TCP RST to {client}: {e}");
            }
        }
        Ok(clients.into_keys().collect())
    }

    /// Stops listening and returns the recorded clients.
    fn stop(&mut self) -> Heard {
        self.end.cancel();
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }
}

impl Drop for ClientListener {
    fn drop(&mut self) {
        self.stop();
    }
}

fn listen(index: u32, server: SocketAddrV4) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(i32::from(ETH_P_IP.to_be()))))?;
    socket.attach_filter(&wanted(server))?;
    socket.set_nonblocking(true)?;
    bind(socket.as_raw_fd(), &link_address(index)?)?;
    Ok(socket)
}

/// "It is for this machine, TCP to `server`, and belongs to a connection", in the kernel's filter language.
fn wanted(server: SocketAddrV4) -> [SockFilter; 13] {
    [
        // A promiscuous interface receives packets for other machines too.
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

/// Records clients until `end`.
fn record(socket: &Socket, end: &Cancel) -> Heard {
    let mut clients = Heard::new();
    let mut buffer = [0; 128];
    loop {
        for _ in 0..MOST_AT_ONCE {
            let Ok(length) = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) else { break };
            if let Some((client, position)) = parse(&buffer[..length]).filter(|_| clients.len() < MOST) {
                clients.insert(client, position);
            }
        }
        if end.is_set() {
            return clients;
        }
        let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN), PollFd::new(end.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut fds, PollTimeout::NONE);
    }
}

/// The sender of an IP packet with a TCP segment, and where the connection is. Of the packet its headers are enough.
fn parse(packet: &[u8]) -> Option<(SocketAddrV4, Position)> {
    let ip: &[u8; 20] = packet.first_chunk()?;
    let options = usize::from(ip[0] & 0x0f) * 4;
    let segment: &[u8; TCP_HEADER] = packet.get(options..)?.first_chunk()?;
    let source = Ipv4Addr::new(ip[12], ip[13], ip[14], ip[15]);
    let port = u16::from_be_bytes([segment[0], segment[1]]);
    let number = |at: usize| u32::from_be_bytes([segment[at], segment[at + 1], segment[at + 2], segment[at + 3]]);
    let headers = options + usize::from(segment[12] >> 4) * 4;
    let content = usize::from(u16::from_be_bytes([ip[2], ip[3]])).saturating_sub(headers);
    let end = u32::try_from(content).unwrap_or_default() + u32::from(segment[13] & FIN);
    let position = Position { sequence: number(8), acknowledged: number(4).wrapping_add(end) };
    (segment[13] & ACK != 0).then(|| (SocketAddrV4::new(source, port), position))
}

#[cfg(test)]
pub(crate) mod tests;
