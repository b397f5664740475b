//! Receiving heartbeats, on a packet socket.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{LinkAddr, bind, recvfrom};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockFilter, SockRef, Socket, Type};

use super::PORT;
use crate::sys::address::Interface;
use crate::sys::cancel::{Cancel, timeout};
use crate::sys::packet::{
    ETH_P_IP, accept, index_by_ip_header, jump_if_equal, link_address, load_byte, load_indexed_half, reject,
};

/// UDP in an IP packet.
const UDP: u8 = 17;
/// Length of a UDP header.
const UDP_HEADER: usize = 8;

/// An open socket.
#[derive(Debug)]
pub(super) struct Receiver {
    packets: Socket,
    index: usize,
    group: Ipv4Addr,
    /// Keeps the interface in the group.
    _membership: UdpSocket,
}

impl Receiver {
    /// Listens on `interface` for datagrams to `group`.
    pub(super) fn open(interface: &Interface, group: Ipv4Addr) -> io::Result<Self> {
        let packets = Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(i32::from(ETH_P_IP.to_be()))))?;
        packets.attach_filter(&filter())?;
        packets.set_nonblocking(true)?;
        bind(packets.as_raw_fd(), &link_address(interface.index)?)?;
        let membership = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        let join = InterfaceIndexOrAddress::Index(interface.index);
        if let Err(e) = SockRef::from(&membership).join_multicast_v4_n(&group, &join) {
            log::debug!("cannot join {group} on {}: {e}", interface.name);
        }
        let index = usize::try_from(interface.index).unwrap_or_default();
        Ok(Self { packets, index, group, _membership: membership })
    }

    /// The next datagram and its sender; `None` when `wait` is over or `cancel` is set.
    pub(super) fn next(&self, wait: Duration, cancel: &Cancel) -> io::Result<Option<(Ipv4Addr, Vec<u8>)>> {
        let end = Instant::now() + wait;
        let mut buffer = [0; 2048];
        loop {
            match recvfrom::<LinkAddr>(self.packets.as_raw_fd(), &mut buffer) {
                Ok((length, from)) => {
                    let here = from.is_some_and(|from| from.ifindex() == self.index);
                    if let Some(found) = parse(&buffer[..length], self.group).filter(|_| here) {
                        return Ok(Some(found));
                    }
                }
                Err(Errno::EINTR | Errno::ENETDOWN) => (),
                Err(Errno::EAGAIN) => {
                    let left = end.saturating_duration_since(Instant::now());
                    if left.is_zero() || cancel.is_set() {
                        return Ok(None);
                    }
                    let mut fds = [
                        PollFd::new(self.packets.as_fd(), PollFlags::POLLIN),
                        PollFd::new(cancel.as_fd(), PollFlags::POLLIN),
                    ];
                    // Interrupted or early: the loop looks again.
                    let _ = poll(&mut fds, timeout(left));
                }
                Err(e) => return Err(e.into()),
            }
            // A flood must not keep this machine from sending.
            if Instant::now() >= end {
                return Ok(None);
            }
        }
    }
}

/// The payload of a datagram to the port and the group, and its sender. The checksum of UDP is not looked at: the payload is
/// signed.
fn parse(packet: &[u8], group: Ipv4Addr) -> Option<(Ipv4Addr, Vec<u8>)> {
    let ip: &[u8; 20] = packet.first_chunk()?;
    let (header, total) = (usize::from(ip[0] & 0x0f) * 4, usize::from(u16::from_be_bytes([ip[2], ip[3]])));
    // More fragments, or not the first one.
    let fragment = u16::from_be_bytes([ip[6], ip[7]]) & 0x3fff != 0;
    if ip[0] >> 4 != 4 || header < 20 || ip[8] != 255 || ip[9] != UDP || ip[16..] != group.octets() || fragment {
        return None;
    }
    let (udp, payload) = packet.get(header..total)?.split_first_chunk::<UDP_HEADER>()?;
    if u16::from_be_bytes([udp[2], udp[3]]) != PORT
        || usize::from(u16::from_be_bytes([udp[4], udp[5]])) != UDP_HEADER + payload.len()
    {
        return None;
    }
    Some((Ipv4Addr::new(ip[12], ip[13], ip[14], ip[15]), payload.to_vec()))
}

/// UDP to the port, in the kernel's filter language.
fn filter() -> [SockFilter; 7] {
    [
        load_byte(9),
        jump_if_equal(UDP.into(), 0, 4),
        index_by_ip_header(0),
        load_indexed_half(2),
        jump_if_equal(PORT.into(), 0, 1),
        accept(),
        reject(),
    ]
}
