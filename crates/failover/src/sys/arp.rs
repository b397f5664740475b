//! Asking the link whether another machine answers for an address (RFC 5227: ARP probes with sender 0.0.0.0, which
//! change no neighbour table).
//!
//! The kernel of the machine that has the address answers, even if its ucarp is dead or its programs are stopped. This
//! machine's kernel answers too, on each of its other interfaces in the same network: those answers are ignored. Closing
//! a packet socket takes some 10 ms: no hook opens one.

use std::fmt;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{LinkAddr, MsgFlags, bind, recvfrom, send};
use socket2::{Domain, Protocol, Socket, Type};

use crate::sys::cancel::{Cancel, timeout};
use crate::sys::packet::{ETH_P_ARP, link_address};

/// Ethernet, IPv4, lengths 6 and 4.
const KIND: [u8; 6] = [0, 1, 8, 0, 6, 4];
const REQUEST: [u8; 2] = [0, 1];
/// Packets that are read before the caller looks at the time.
const MOST_AT_ONCE: usize = 64;
/// Ethernet header and ARP packet.
const LENGTH: usize = 14 + 28;

/// A failed operation, with its interface and the kernel's answer.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {interface}")]
pub(crate) struct Error {
    /// The operation, followed by a preposition.
    pub(crate) operation: &'static str,
    /// The interface's name.
    pub(crate) interface: String,
    /// The kernel's answer.
    #[source]
    pub(crate) source: std::io::Error,
}

/// A hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Mac(pub(crate) [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0.map(|byte| format!("{byte:02x}"));
        f.write_str(&bytes.join(":"))
    }
}

/// Probes for one address on one interface.
#[derive(Debug)]
pub(crate) struct Probe {
    socket: Socket,
    link: LinkAddr,
    own: Vec<Mac>,
    address: Ipv4Addr,
    interface: String,
}

impl Probe {
    /// Opens a probe for `address` on the interface `name` with the number `index`; sends nothing yet.
    pub(crate) fn open(name: &str, index: u32, address: Ipv4Addr) -> Result<Self, Error> {
        let failed = |source| Error { operation: "send ARP probes on", interface: name.to_owned(), source };
        let protocol = Protocol::from(i32::from(ETH_P_ARP.to_be()));
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol)).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        let link = link_address(index).map_err(|e| failed(e.into()))?;
        let own = own_macs().map_err(|e| failed(e.into()))?;
        bind(socket.as_raw_fd(), &link).map_err(|e| failed(e.into()))?;
        Ok(Self { socket, link, own, address, interface: name.to_owned() })
    }

    /// Asks once, and returns the first answer within `wait` of a hardware address that is not one of this machine's.
    pub(crate) fn ask(&self, wait: Duration, cancel: &Cancel) -> Result<Option<Mac>, Error> {
        let failed =
            |e: Errno| Error { operation: "send ARP probes on", interface: self.interface.clone(), source: e.into() };
        let asker = Mac(self.link.addr().ok_or_else(|| failed(Errno::EADDRNOTAVAIL))?);
        match send(self.socket.as_raw_fd(), &request(asker, Ipv4Addr::UNSPECIFIED, self.address), MsgFlags::empty()) {
            // Without a link no machine can answer.
            Ok(_) | Err(Errno::ENETDOWN) => (),
            Err(e) => return Err(failed(e)),
        }
        let end = Instant::now() + wait;
        loop {
            if cancel.is_set() {
                return Ok(None);
            }
            match self.take() {
                Ok(Some(mac)) => return Ok(Some(mac)),
                Ok(None) => (),
                Err(e) => return Err(failed(e)),
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let mut fds =
                [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN), PollFd::new(cancel.as_fd(), PollFlags::POLLIN)];
            // Interrupted or early: the loop looks again.
            let _ = poll(&mut fds, timeout(left));
        }
    }

    /// The last machine that said it has the address, in an answer or an announcement, since this was opened or last
    /// called.
    pub(crate) fn last_holder(&self) -> Result<Option<Mac>, Error> {
        let failed =
            |e: Errno| Error { operation: "receive ARP on", interface: self.interface.clone(), source: e.into() };
        let mut last = None;
        // Announcements may arrive faster than they are read.
        for _ in 0..MOST_AT_ONCE {
            match self.take().map_err(failed)? {
                Some(mac) => last = Some(mac),
                None => break,
            }
        }
        Ok(last)
    }

    /// Announces to all machines that this interface has the address now (a gratuitous request, as ucarp sends it).
    pub(crate) fn announce(&self) -> Result<(), Error> {
        let failed = |e: Errno| Error {
            operation: "announce an address on",
            interface: self.interface.clone(),
            source: e.into(),
        };
        let own = Mac(self.link.addr().ok_or_else(|| failed(Errno::EADDRNOTAVAIL))?);
        let frame = request(own, self.address, self.address);
        send(self.socket.as_raw_fd(), &frame, MsgFlags::empty()).map(drop).map_err(failed)
    }

    /// The sender of the next answer or announcement that has arrived already, among the next packets.
    fn take(&self) -> nix::Result<Option<Mac>> {
        let mut buffer = [0; 128];
        for _ in 0..MOST_AT_ONCE {
            match recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut buffer) {
                Ok((length, from)) => {
                    // Before it was bound, the socket received packets of other interfaces too.
                    let here = from.is_some_and(|from| from.ifindex() == self.link.ifindex());
                    let holder = holder(&buffer[..length], self.address).filter(|mac| here && !self.own.contains(mac));
                    if holder.is_some() {
                        return Ok(holder);
                    }
                }
                Err(Errno::EAGAIN) => return Ok(None),
                Err(Errno::EINTR | Errno::ENETDOWN) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(None)
    }
}

/// The hardware addresses of this machine's interfaces.
fn own_macs() -> nix::Result<Vec<Mac>> {
    let links = getifaddrs()?.filter_map(|entry| entry.address?.as_link_addr()?.addr());
    Ok(links.map(Mac).collect())
}

/// The frame "who has `address`?" to all machines, from `sender`, which is 0.0.0.0 in a probe.
fn request(own: Mac, sender: Ipv4Addr, address: Ipv4Addr) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(own.0);
    frame.extend(ETH_P_ARP.to_be_bytes());
    frame.extend(KIND);
    frame.extend(REQUEST);
    frame.extend(own.0);
    frame.extend(sender.octets());
    frame.extend([0; 6]);
    frame.extend(address.octets());
    frame
}

/// The sender of a frame, request or answer, that says it has `address`.
fn holder(frame: &[u8], address: Ipv4Addr) -> Option<Mac> {
    let (_, packet) = frame.first_chunk::<LENGTH>()?.split_at(14);
    let says = packet[..6] == KIND && packet[14..18] == address.octets();
    says.then(|| Mac(packet[8..14].try_into().expect("six of 28 bytes")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sched::{CloneFlags, unshare};
    use proptest::prelude::*;
    use std::process::Command;

    const VIP: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 99);
    const PATIENCE: Duration = Duration::from_secs(10);

    fn must(words: &str) {
        let mut parts = words.split(' ');
        let status = Command::new(parts.next().unwrap()).args(parts).status().unwrap();
        assert!(status.success(), "{words}");
    }

    #[test]
    fn only_another_machine_with_the_address_answers() {
        unshare(CloneFlags::CLONE_NEWNET).expect("these tests run as root");
        let mut far = Command::new("unshare").args(["-n", "sleep", "300"]).spawn().unwrap();
        let here = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        while std::fs::read_link(format!("/proc/{}/ns/net", far.id())).is_ok_and(|there| there == here) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let (pid, inside) = (far.id(), format!("nsenter -t {} -n ", far.id()));
        must(&format!("ip link add eth0 type veth peer name eth0 address 02:00:00:00:00:0c netns {pid}"));
        must("ip link set eth0 up");
        must("ip addr add 172.16.0.99/16 dev eth0");
        must(&format!("{inside}ip link set eth0 up"));
        must(&format!("{inside}ip addr add 172.16.0.12/16 dev eth0"));
        let index = nix::net::if_::if_nametoindex("eth0").unwrap();
        let cancel = Cancel::new();
        let probe = Probe::open("eth0", index, VIP).unwrap();
        assert_eq!(probe.ask(Duration::from_millis(300), &cancel).unwrap(), None, "only this machine has it");
        must(&format!("{inside}ip addr add 172.16.0.99/16 dev eth0"));
        let answer = probe.ask(PATIENCE, &cancel).unwrap();
        far.kill().unwrap();
        far.wait().unwrap();
        assert_eq!(answer.map(|mac| mac.to_string()).as_deref(), Some("02:00:00:00:00:0c"));
    }

    #[test]
    fn a_second_interface_of_this_machine_in_the_same_network_is_no_other_machine() {
        unshare(CloneFlags::CLONE_NEWNET).expect("these tests run as root");
        must("ip link add eth0 type veth peer name eth1");
        must("ip link set eth0 up");
        must("ip link set eth1 up");
        must("ip addr add 172.16.0.11/16 dev eth1");
        must("ip addr add 172.16.0.99/16 dev eth0");
        let index = nix::net::if_::if_nametoindex("eth0").unwrap();
        // A probe that does not know its own addresses, to see that the kernel does answer through eth1.
        let seen = Probe { own: Vec::new(), ..Probe::open("eth0", index, VIP).unwrap() };
        let answer = seen.ask(PATIENCE, &Cancel::new()).unwrap();
        assert!(answer.is_some(), "eth1 answers for what eth0 has");
        let probe = Probe::open("eth0", index, VIP).unwrap();
        assert_eq!(probe.ask(Duration::from_millis(300), &Cancel::new()).unwrap(), None);
    }

    proptest! {
        #[test]
        fn no_frame_makes_it_panic(bytes: Vec<u8>) {
            let _ = holder(&bytes, VIP);
        }
    }

    #[test]
    fn a_probe_does_not_announce_its_sender_and_an_answer_does() {
        let own = Mac([2, 0, 0, 0, 0, 11]);
        let frame = request(own, Ipv4Addr::UNSPECIFIED, VIP);
        assert_eq!((frame.len(), holder(&frame, VIP)), (LENGTH, None));
        let frame = request(own, VIP, VIP);
        assert_eq!(holder(&frame, VIP), Some(own));
        assert_eq!(holder(&frame[..LENGTH - 1], VIP), None);
    }
}
