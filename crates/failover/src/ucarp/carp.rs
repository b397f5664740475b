//! CARP advertisements: who else says that it holds the virtual IP, and one that makes it step down.
//!
//! It listens where ucarp itself listens, on a packet socket: an ordinary raw socket hears nothing behind a firewall
//! that does not know protocol 112, or behind a strict reverse-path filter, and "no other MASTER" would be wrong there.
//! Packets of this machine's own ucarp are not heard; a switch that returns them makes them heard, so callers compare
//! sources with the machine's own addresses all the same. Closing a packet socket takes some 10 ms: no hook opens one.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{LinkAddr, bind, recvfrom};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockFilter, SockRef, Socket, Type};

use super::options::Options;
use super::secret::{self, SIGNATURE, Secret};
use crate::sys::address;
use crate::sys::cancel::{Cancel, timeout};
use crate::sys::packet::{
    ETH_P_IP, MOST_AT_ONCE, accept, checksum, jump_if_equal, link_address, load_byte, multicast_sender, reject,
};

/// CARP's IP protocol number; VRRP has the same.
const PROTOCOL: u8 = 112;
/// What is signed begins with these.
const VERSION: u8 = 2;
const ADVERTISEMENT: u8 = 1;
/// Every CARP packet is this long: header, counter, SHA-1.
const LENGTH: usize = 36;

/// What failed, on which interface, and why.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {interface}")]
pub(crate) struct Error {
    /// What was tried.
    pub(crate) operation: &'static str,
    /// The interface's name.
    pub(crate) interface: String,
    /// The kernel's answer.
    #[source]
    pub(crate) source: std::io::Error,
}

/// "I am MASTER", from one machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Advertisement {
    /// The sender's own address.
    pub(crate) source: Ipv4Addr,
    /// The virtual host it is about. The address itself is not in the packet.
    pub(crate) vhid: u8,
    /// 256ths of a second in the sender's interval.
    pub(crate) advskew: u8,
    /// Whole seconds in the sender's interval.
    pub(crate) advbase: u8,
    /// A number of this advertisement.
    counter: [u8; 8],
    signature: [u8; SIGNATURE],
}

impl Advertisement {
    /// Whether a machine of the group with this secret has signed it, for this virtual IP. How much it says of the sender's
    /// options is not signed.
    pub(crate) fn is_signed(&self, secret: &Secret, vip: Ipv4Addr) -> bool {
        secret.verifies(&[&[VERSION, ADVERTISEMENT, self.vhid], &vip.octets(), &self.counter], &self.signature)
    }

    /// The number of this advertisement.
    pub(crate) fn number(&self) -> u64 {
        u64::from_be_bytes(self.counter)
    }

    /// The time between the sender's advertisements.
    pub(crate) fn interval(self) -> Duration {
        Duration::from_secs(self.advbase.into()) + Duration::from_micros(u64::from(self.advskew) * 1_000_000 / 256)
    }
}

/// Reads an IP packet to `group`. `None` if ucarp would not take it for an advertisement either, or if it is VRRP, which
/// shares the protocol number and the group. The signature is checked by [`Advertisement::is_signed`].
pub(crate) fn parse(ip_packet: &[u8], group: Ipv4Addr) -> Option<Advertisement> {
    let header: &[u8; 20] = ip_packet.first_chunk()?;
    let header_length = usize::from(header[0] & 0x0f) * 4;
    let total_length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let is_first_hop = header[8] == 255;
    if header[0] >> 4 != 4
        || header_length < 20
        || header[9] != PROTOCOL
        || !is_first_hop
        || header[16..] != group.octets()
    {
        return None;
    }
    // The link may have padded the packet: its own length counts.
    let payload: &[u8; LENGTH] = ip_packet.get(header_length..total_length)?.try_into().ok()?;
    let [0x21, vhid, advskew, 7, 0, advbase, ..] = *payload else {
        return None;
    };
    let (counter, signature) = (payload[8..].first_chunk()?, payload.last_chunk()?);
    (checksum(payload) == 0).then(|| Advertisement {
        source: Ipv4Addr::new(header[12], header[13], header[14], header[15]),
        vhid,
        advskew,
        advbase,
        counter: *counter,
        signature: *signature,
    })
}

/// What fails where an advertisement is sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// The interface, or this machine's own address.
    #[error(transparent)]
    Address(#[from] address::Error),
    /// The password.
    #[error(transparent)]
    Secret(#[from] secret::Error),
    /// The socket.
    #[error(transparent)]
    Carp(#[from] Error),
}

/// Sends one advertisement that a MASTER of this group prefers to its own, whatever its `-b` and `-k`: an interval of zero
/// (`packethandler` in ucarp's `carp.c`). Within a second it becomes BACKUP and calls `vip-down`, and the next election begins.
pub(crate) fn send_preferred(interface: &str, vip: Ipv4Addr, options: &Options) -> Result<(), SendError> {
    let secret = Secret::of(options)?;
    let interface = address::interface(interface)?;
    let own = address::own_on(&interface, vip)?;
    let packet = preferred(options.vhid, vip, &secret, fastrand::u64(..));
    let protocol = Protocol::from(i32::from(PROTOCOL));
    let sent = multicast_sender(Type::RAW, protocol, own)
        .and_then(|socket| socket.send_to(&packet, &SocketAddrV4::new(options.group, 0).into()));
    sent.map_err(|source| error("send an advertisement on", &interface.name, source))?;
    Ok(())
}

fn preferred(vhid: u8, vip: Ipv4Addr, secret: &Secret, number: u64) -> [u8; LENGTH] {
    let mut packet = [0; LENGTH];
    packet[..4].copy_from_slice(&[VERSION << 4 | ADVERTISEMENT, vhid, 0, 7]);
    let counter = number.to_be_bytes();
    packet[8..16].copy_from_slice(&counter);
    let signature = secret.sign(&[&[VERSION, ADVERTISEMENT, vhid], &vip.octets(), &counter]);
    packet[16..].copy_from_slice(&signature);
    let sum = checksum(&packet);
    packet[6..8].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// An open ear on one interface.
#[derive(Debug)]
pub(crate) struct Listener {
    packets: Socket,
    index: usize,
    group: Ipv4Addr,
    interface: String,
    /// Keeps the interface in the group even when ucarp is not there.
    _membership: UdpSocket,
}

impl Listener {
    /// Starts listening on the interface `name` with the number `index` for advertisements to `group`.
    /// What arrives from here on is kept until [`Listener::next`] asks for it.
    pub(crate) fn open(name: &str, index: u32, group: Ipv4Addr) -> Result<Self, Error> {
        let failed = |source| error("listen for advertisements on", name, source);
        let protocol = Protocol::from(i32::from(ETH_P_IP.to_be()));
        let packets = Socket::new(Domain::PACKET, Type::DGRAM, Some(protocol)).map_err(failed)?;
        packets.attach_filter(&filter()).map_err(failed)?;
        packets.set_nonblocking(true).map_err(failed)?;
        let address = link_address(index).map_err(|e| failed(e.into()))?;
        bind(packets.as_raw_fd(), &address).map_err(|e| failed(e.into()))?;
        let membership = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(failed)?;
        if let Err(e) = SockRef::from(&membership).join_multicast_v4_n(&group, &InterfaceIndexOrAddress::Index(index)) {
            // Not a multicast group, perhaps, or no link: the packet socket hears what ucarp hears all the same.
            log::debug!("cannot join {group} on {name}: {e}");
        }
        Ok(Self {
            packets,
            index: usize::try_from(index).unwrap_or_default(),
            group,
            interface: name.to_owned(),
            _membership: membership,
        })
    }

    /// The next advertisement; `None` when `wait` is over or the work was told to stop.
    pub(crate) fn next(&self, wait: Duration, cancel: &Cancel) -> Result<Option<Advertisement>, Error> {
        let end = Instant::now() + wait;
        loop {
            if cancel.is_set() {
                return Ok(None);
            }
            if let Some(found) = self.take()? {
                return Ok(Some(found));
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let mut fds =
                [PollFd::new(self.packets.as_fd(), PollFlags::POLLIN), PollFd::new(cancel.as_fd(), PollFlags::POLLIN)];
            // Interrupted or early: the loop looks again.
            let _ = poll(&mut fds, timeout(left));
        }
    }

    /// The next advertisement that has arrived already, among the next packets: others may arrive faster than they are read,
    /// and the caller looks at the time.
    fn take(&self) -> Result<Option<Advertisement>, Error> {
        let mut buffer = [0; 2048];
        for _ in 0..MOST_AT_ONCE {
            match recvfrom::<LinkAddr>(self.packets.as_raw_fd(), &mut buffer) {
                Ok((length, from)) => {
                    // Between opening and binding, packets of other interfaces were let in too.
                    let here = from.is_some_and(|from| from.ifindex() == self.index);
                    let found = parse(&buffer[..length], self.group).filter(|_| here);
                    if found.is_some() {
                        return Ok(found);
                    }
                }
                Err(Errno::EAGAIN) => return Ok(None),
                // The interface went down: said once, then silence until it is up again.
                Err(Errno::EINTR | Errno::ENETDOWN) => {}
                Err(e) => return Err(error("receive advertisements on", &self.interface, e.into())),
            }
        }
        Ok(None)
    }
}

/// Only IP packets of [`PROTOCOL`], in the kernel's filter language.
fn filter() -> [SockFilter; 4] {
    [load_byte(9), jump_if_equal(PROTOCOL.into(), 0, 1), accept(), reject()]
}

fn error(operation: &'static str, interface: &str, source: std::io::Error) -> Error {
    Error { operation, interface: interface.to_owned(), source }
}

#[cfg(test)]
pub(super) mod tests;
