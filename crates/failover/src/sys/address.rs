//! The virtual IP on an interface: looked up, added and removed through rtnetlink.
//!
//! Adding and removing can be repeated without harm, and removing one address never takes another with it.
//! IPv4 only, as ucarp itself. Three kinds of message, so the bytes are written and read here by hand.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, connect, recv, send, socket,
};

use crate::sys::cancel::{Cancel, timeout};
use crate::sys::netlink::{self, NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST, NLMSG_ERROR, messages};

/// What failed, on which object, and why.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// There is no such interface.
    #[error("no interface {name}")]
    NoInterface {
        /// The name as given.
        name: String,
    },
    /// An address cannot be added.
    #[error("cannot add {vip}/{prefix} to {interface}")]
    Add {
        /// The address.
        vip: Ipv4Addr,
        /// Its prefix length.
        prefix: u8,
        /// The interface's name.
        interface: String,
        /// The kernel's answer.
        #[source]
        source: Errno,
    },
    /// An address cannot be removed.
    #[error("cannot remove {vip} from {interface}")]
    Remove {
        /// The address.
        vip: Ipv4Addr,
        /// The interface's name.
        interface: String,
        /// The kernel's answer.
        #[source]
        source: Errno,
    },
    /// Changes cannot be heard of.
    #[error("cannot watch the addresses of this machine")]
    Watch(#[source] Errno),
    /// The addresses cannot be read.
    #[error("cannot list the addresses of {object}")]
    List {
        /// The interface's name, or "this machine".
        object: String,
        /// The kernel's answer.
        #[source]
        source: Errno,
    },
}

impl Error {
    /// Whether the interface is not there (any more).
    pub(crate) fn is_no_interface(&self) -> bool {
        match self {
            Self::NoInterface { .. } => true,
            Self::Add { source, .. } | Self::Remove { source, .. } | Self::List { source, .. } => {
                *source == Errno::ENODEV
            }
            Self::Watch(_) => false,
        }
    }
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Interface {
    /// Its name.
    pub(crate) name: String,
    /// The kernel's number for it.
    pub(crate) index: u32,
}

/// An address on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    /// The address.
    pub(crate) address: Ipv4Addr,
    /// Its prefix length.
    pub(crate) prefix: u8,
    /// Whether another address of the same network was there first.
    pub(crate) secondary: bool,
}

impl Held {
    /// Whether `other` lies in this address's network.
    pub(crate) fn contains(&self, other: Ipv4Addr) -> bool {
        let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
        (u32::from(self.address) ^ u32::from(other)) & mask == 0
    }
}

/// What [`add`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Added {
    /// The address is new.
    Added,
    /// The interface had it, with whatever prefix; nothing was changed.
    AlreadyThere,
}

/// What [`remove`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removed {
    /// The address is gone now.
    Removed,
    /// The interface did not have it.
    NotThere,
}

/// The interface `name`.
pub(crate) fn interface(name: &str) -> Result<Interface, Error> {
    match nix::net::if_::if_nametoindex(name) {
        Ok(index) => Ok(Interface { name: name.to_owned(), index }),
        Err(_) => Err(Error::NoInterface { name: name.to_owned() }),
    }
}

/// The addresses of `interface`.
pub(crate) fn list(interface: &Interface) -> Result<Vec<Held>, Error> {
    Netlink::open().and_then(|netlink| netlink.list(interface)).map_err(cannot_list(interface))
}

fn cannot_list(interface: &Interface) -> impl Fn(Errno) -> Error {
    |source| Error::List { object: interface.name.clone(), source }
}

/// Whether `interface` has the address `vip`.
pub(crate) fn holds(interface: &Interface, vip: Ipv4Addr) -> Result<bool, Error> {
    Ok(list(interface)?.iter().any(|held| held.address == vip))
}

/// Every address of this machine, to tell its own messages from a rival's.
pub(crate) fn own_addresses() -> Result<Vec<Ipv4Addr>, Error> {
    let all = Netlink::open().and_then(|netlink| netlink.dump());
    let all = all.map_err(|source| Error::List { object: "this machine".to_owned(), source })?;
    Ok(all.into_iter().map(|(_, held)| held.address).collect())
}

/// The prefix length for `vip`: the configured one, else that of the narrowest own network it lies in, else 32.
fn prefix_for(held: &[Held], vip: Ipv4Addr, configured: Option<u8>) -> u8 {
    let networks = held.iter().filter(|held| held.address != vip && held.contains(vip));
    configured.unwrap_or_else(|| networks.map(|held| held.prefix).max().unwrap_or(32))
}

/// Adds `vip` to `interface`, unless it is there. Its prefix length is the configured one, else that of the narrowest own
/// network it lies in, else 32.
pub(crate) fn add(interface: &Interface, vip: Ipv4Addr, configured: Option<u8>) -> Result<Added, Error> {
    // One connection for both: ucarp waits for this.
    let netlink = Netlink::open().map_err(cannot_list(interface))?;
    let held = netlink.list(interface).map_err(cannot_list(interface))?;
    if held.iter().any(|held| held.address == vip) {
        return Ok(Added::AlreadyThere);
    }
    let prefix = prefix_for(&held, vip, configured);
    match netlink.change(Change::Add, interface, vip, prefix) {
        Ok(()) => Ok(Added::Added),
        // Somebody was quicker.
        Err(Errno::EEXIST) => Ok(Added::AlreadyThere),
        Err(source) => Err(Error::Add { vip, prefix, interface: interface.name.clone(), source }),
    }
}

/// Removes `vip` from `interface`, whatever its prefix, and as often as it is there.
pub(crate) fn remove(interface: &Interface, vip: Ipv4Addr) -> Result<Removed, Error> {
    let failed = |source| Error::Remove { vip, interface: interface.name.clone(), source };
    let before = list(interface)?;
    let mut removed = Removed::NotThere;
    let netlink = Netlink::open().map_err(failed)?;
    for entry in before.iter().filter(|held| held.address == vip) {
        let kept = Promotion::ensure(interface, &before, *entry);
        let result = netlink.change(Change::Remove, interface, vip, entry.prefix);
        drop(kept);
        match result {
            Ok(()) => removed = Removed::Removed,
            // Gone meanwhile, by another hand: what was wanted.
            Err(Errno::EADDRNOTAVAIL) => {}
            Err(source) => return Err(failed(source)),
        }
    }
    Ok(removed)
}

/// Keeps the other addresses of a network while its first one is removed.
///
/// The kernel removes them along with it, unless `promote_secondaries` is set. Most distributions set it; where it is
/// not, it is set for the moment.
struct Promotion(Option<String>);

impl Promotion {
    fn ensure(interface: &Interface, held: &[Held], going: Held) -> Self {
        let others =
            held.iter().any(|other| other.secondary && other.prefix == going.prefix && going.contains(other.address));
        let path = |name: &str| format!("/proc/sys/net/ipv4/conf/{name}/promote_secondaries");
        let is_on = |name: &str| std::fs::read_to_string(path(name)).is_ok_and(|value| value.trim() != "0");
        if going.secondary || !others || is_on("all") || is_on(&interface.name) {
            return Self(None);
        }
        let path = path(&interface.name);
        match std::fs::write(&path, "1") {
            Ok(()) => Self(Some(path)),
            Err(e) => {
                // The address must go whatever it costs: another machine may hold it by now.
                log::warn!("cannot write {path} ({e}): other addresses may go along with {}", going.address);
                Self(None)
            }
        }
    }
}

impl Drop for Promotion {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = std::fs::write(path, "0");
        }
    }
}

/// Hears of every change of an IPv4 address on this machine, whoever makes it.
#[derive(Debug)]
pub(crate) struct Changes(OwnedFd);

impl Changes {
    /// Starts listening: no change from here on is missed.
    pub(crate) fn listen() -> Result<Self, Error> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute);
        let fd = fd.map_err(Error::Watch)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, RTMGRP_IPV4_IFADDR)).map_err(Error::Watch)?;
        Ok(Self(fd))
    }

    /// Waits for a change, for `time` at most, or until told to stop. What there is now is to be asked: this says only
    /// that it is worth a look.
    pub(crate) fn wait(&self, time: Duration, cancel: &Cancel) {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN), PollFd::new(cancel.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut fds, timeout(time));
        let mut buffer = [0; 4096];
        // An overflow (ENOBUFS) is a change too, and ends with the look that follows.
        while matches!(recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()), Ok(1..)) {}
    }
}

/// The kernel's bit for the group that is told of IPv4 addresses.
const RTMGRP_IPV4_IFADDR: u32 = 0x10;
const NLMSG_DONE: u16 = 3;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_DUMP: u16 = 0x300;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_F_SECONDARY: u8 = 1;
const AF_INET: u8 = 2;
/// Length of `struct ifaddrmsg`.
const ADDRESS_HEADER: usize = 8;

#[derive(Clone, Copy)]
enum Change {
    Add,
    Remove,
}

/// A connection to the kernel. One request at a time, so every answer belongs to the last request.
struct Netlink(OwnedFd);

impl Netlink {
    fn open() -> nix::Result<Self> {
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
        // Connected to the kernel: no other process can answer in its place.
        connect(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(Self(fd))
    }

    /// The addresses of `interface`.
    fn list(&self, interface: &Interface) -> nix::Result<Vec<Held>> {
        let own = self.dump()?.into_iter().filter(|(index, _)| *index == interface.index);
        Ok(own.map(|(_, held)| held).collect())
    }

    /// Every IPv4 address of the machine, with the number of its interface.
    fn dump(&self) -> nix::Result<Vec<(u32, Held)>> {
        loop {
            self.request(RTM_GETADDR, NLM_F_DUMP, &address_header(0, 0))?;
            if let Some(addresses) = self.read_dump()? {
                return Ok(addresses);
            }
            // The table changed while it was read.
        }
    }

    /// `None` if the answer is not consistent.
    fn read_dump(&self) -> nix::Result<Option<Vec<(u32, Held)>>> {
        let mut found = Vec::new();
        let mut consistent = true;
        loop {
            for message in messages(&netlink::receive(&self.0)?) {
                consistent &= message.flags & NLM_F_DUMP_INTR == 0;
                match message.kind {
                    NLMSG_DONE => return Ok(consistent.then_some(found)),
                    NLMSG_ERROR => message.error()?,
                    RTM_NEWADDR => found.extend(read_address(message.payload)),
                    _ => {}
                }
            }
        }
    }

    fn change(&self, change: Change, interface: &Interface, vip: Ipv4Addr, prefix: u8) -> nix::Result<()> {
        let (kind, flags) = match change {
            Change::Add => (RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL),
            Change::Remove => (RTM_DELADDR, 0),
        };
        let mut payload = address_header(prefix, interface.index);
        for attribute in [IFA_LOCAL, IFA_ADDRESS] {
            payload.extend(8_u16.to_ne_bytes());
            payload.extend(attribute.to_ne_bytes());
            payload.extend(vip.octets());
        }
        self.request(kind, flags | NLM_F_ACK, &payload)?;
        loop {
            for message in messages(&netlink::receive(&self.0)?) {
                if message.kind == NLMSG_ERROR {
                    return message.error();
                }
            }
        }
    }

    fn request(&self, kind: u16, flags: u16, payload: &[u8]) -> nix::Result<()> {
        let message = netlink::frame(kind, flags | NLM_F_REQUEST, payload);
        send(self.0.as_raw_fd(), &message, MsgFlags::empty()).map(|_| ())
    }
}

/// A `struct ifaddrmsg`.
fn address_header(prefix: u8, index: u32) -> Vec<u8> {
    let mut header = vec![AF_INET, prefix, 0, 0];
    header.extend(index.to_ne_bytes());
    header
}

/// The interface number and the address in the payload of an `RTM_NEWADDR`.
fn read_address(payload: &[u8]) -> Option<(u32, Held)> {
    let [family, prefix, flags, _scope] = *payload.first_chunk()?;
    let index = u32::from_ne_bytes(*payload.get(4..)?.first_chunk()?);
    let mut rest = payload.get(ADDRESS_HEADER..)?;
    let (mut local, mut remote) = (None, None);
    while let Some(length) = rest.first_chunk().map(|bytes| usize::from(u16::from_ne_bytes(*bytes))) {
        let Some(value) = rest.get(4..length) else { break };
        let kind = u16::from_ne_bytes(*rest.get(2..)?.first_chunk()?);
        match kind {
            IFA_LOCAL => local = value.first_chunk::<4>().copied(),
            IFA_ADDRESS => remote = value.first_chunk::<4>().copied(),
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    let held = Held {
        // On a point-to-point link the other one is the peer's.
        address: local.or(remote)?.into(),
        prefix,
        secondary: flags & IFA_F_SECONDARY != 0,
    };
    (family == AF_INET).then_some((index, held))
}

#[cfg(test)]
mod tests;
