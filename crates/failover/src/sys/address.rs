//! The virtual IP on an interface: looked up, added and removed through rtnetlink.
//!
//! Adding and removing can be repeated without harm, and the end of one address never takes another with it.
//! IPv4 only, as ucarp itself.
//!
//! An address can have a lifetime. The kernel counts in seconds, looks once in a second at most, and takes a quarter of a
//! second for nothing (`check_lifetime` in `net/ipv4/devinet.c`): the address goes between 0.25 s before the end of its
//! lifetime and 1.25 s after it. Seen were 0.0 to 0.4 s after it.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd as _;
use std::time::Duration;

use netlink_packet_core::{
    DefaultNla, Emitable as _, NLA_F_NESTED, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL,
    NLM_F_REPLACE, NlasIterator, Parseable as _,
};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeader, AddressHeaderFlags, AddressMessage, CacheInfo,
};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::errno::Errno;
use nix::libc::{RTM_DELADDR, RTM_GETADDR, RTM_NEWADDR, RTM_SETLINK, RTNLGRP_IPV4_IFADDR};
use nix::poll::{PollFd, PollFlags, poll};

use crate::sys::cancel::{Cancel, timeout};
use crate::sys::netlink::{self, Connection, bytes, errno, messages, request};

/// A lifetime without an end (`INFINITY_LIFE_TIME` in the kernel).
const FOR_EVER: u32 = u32::MAX;

/// Attributes of a link (`linux/if_link.h`, `linux/ip.h`).
const IFLA_AF_SPEC: u16 = 26;
const AF_INET: u16 = 2;
const IFLA_INET_CONF: u16 = 1;
const PROMOTE_SECONDARIES: u16 = 20;

/// A failed operation, with its object and the kernel's answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// There is no such interface.
    #[error("no interface {name}")]
    NoInterface {
        /// The name as given.
        name: String,
    },
    /// The interface has no address but the virtual IP.
    #[error("{interface} has no address beside {vip}")]
    NoAddress {
        /// The interface's name.
        interface: String,
        /// The virtual IP.
        vip: Ipv4Addr,
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
    /// The lifetime of an address cannot be changed.
    #[error("cannot keep {vip} on {interface}")]
    Keep {
        /// The address.
        vip: Ipv4Addr,
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
    /// Changes of addresses cannot be watched.
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
    /// Whether there is no such interface, or not any more.
    pub(crate) fn is_no_interface(&self) -> bool {
        match self {
            Self::NoInterface { .. } => true,
            Self::Add { source, .. }
            | Self::Keep { source, .. }
            | Self::Remove { source, .. }
            | Self::List { source, .. } => *source == Errno::ENODEV,
            Self::NoAddress { .. } | Self::Watch(_) => false,
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
pub(crate) struct InterfaceAddress {
    /// The address.
    pub(crate) address: Ipv4Addr,
    /// Its prefix length.
    pub(crate) prefix: u8,
    /// Whether another address of the same network was there first.
    pub(crate) secondary: bool,
}

impl InterfaceAddress {
    /// Whether `other` lies in this address's network.
    pub(crate) fn contains(self, other: Ipv4Addr) -> bool {
        let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
        (u32::from(self.address) ^ u32::from(other)) & mask == 0
    }
}

/// What [`add`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Added {
    /// The address is new.
    Added,
    /// The interface had it, with this prefix or another. It has the new lifetime.
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
pub(crate) fn list(interface: &Interface) -> Result<Vec<InterfaceAddress>, Error> {
    Rtnetlink::open().and_then(|kernel| kernel.list(interface)).map_err(cannot_list(interface))
}

fn cannot_list(interface: &Interface) -> impl Fn(Errno) -> Error {
    |source| Error::List { object: interface.name.clone(), source }
}

/// Whether `interface` has the address `vip`.
pub(crate) fn holds(interface: &Interface, vip: Ipv4Addr) -> Result<bool, Error> {
    Ok(list(interface)?.iter().any(|entry| entry.address == vip))
}

/// Every address of this machine, with its interface.
pub(crate) fn all() -> Result<Vec<(Interface, InterfaceAddress)>, Error> {
    let failed = |source| Error::List { object: "this machine".to_owned(), source };
    let names = nix::net::if_::if_nameindex().map_err(failed)?;
    let all = Rtnetlink::open().and_then(|kernel| kernel.dump()).map_err(failed)?;
    let found = all.into_iter().filter_map(|(index, entry)| {
        let name = names.iter().find(|name| name.index() == index)?.name().to_string_lossy().into_owned();
        Some((Interface { name, index }, entry))
    });
    Ok(found.collect())
}

/// Every address of this machine, to tell its own messages from those of another machine.
pub(crate) fn own_addresses() -> Result<Vec<Ipv4Addr>, Error> {
    let all = Rtnetlink::open().and_then(|kernel| kernel.dump());
    let all = all.map_err(|source| Error::List { object: "this machine".to_owned(), source })?;
    Ok(all.into_iter().map(|(_, entry)| entry.address).collect())
}

/// The first address of the interface that is this machine's own, and not `vip`.
pub(crate) fn own_on(interface: &Interface, vip: Ipv4Addr) -> Result<Ipv4Addr, Error> {
    let own = list(interface)?.into_iter().map(|entry| entry.address).find(|address| *address != vip);
    own.ok_or_else(|| Error::NoAddress { interface: interface.name.clone(), vip })
}

/// The prefix length for `vip`: the configured one, else that of the narrowest own network it lies in, else 32.
fn prefix_for(own: &[InterfaceAddress], vip: Ipv4Addr, configured: Option<u8>) -> u8 {
    let networks = own.iter().filter(|entry| entry.address != vip && entry.contains(vip));
    configured.unwrap_or_else(|| networks.map(|entry| entry.prefix).max().unwrap_or(32))
}

/// Adds `vip` to `interface`; one that is there gets the new lifetime. Its prefix length is the configured one, else that of the narrowest own
/// network it lies in, else 32. The kernel removes it after `lifetime`, in whole seconds, unless it is [kept](keep).
pub(crate) fn add(
    interface: &Interface,
    vip: Ipv4Addr,
    configured: Option<u8>,
    lifetime: Option<Duration>,
) -> Result<Added, Error> {
    // One connection for both: ucarp waits for this.
    let kernel = Rtnetlink::open().map_err(cannot_list(interface))?;
    let own = kernel.list(interface).map_err(cannot_list(interface))?;
    if lifetime.is_some() {
        // It may be the first one when it expires: a restart of the network adds the others anew.
        kernel.promote_secondaries(interface);
    }
    if kernel.keep(interface, vip, &own, lifetime)? {
        return Ok(Added::AlreadyThere);
    }
    let prefix = prefix_for(&own, vip, configured);
    match kernel.change(Change::Add(lifetime), interface, vip, prefix) {
        Ok(()) => Ok(Added::Added),
        // Another process has added it meanwhile.
        Err(Errno::EEXIST) => Ok(Added::AlreadyThere),
        Err(source) => Err(Error::Add { vip, prefix, interface: interface.name.clone(), source }),
    }
}

/// Gives `vip` another lifetime from now on, or none. Says whether it is there: one that has expired is not added again.
pub(crate) fn keep(interface: &Interface, vip: Ipv4Addr, lifetime: Option<Duration>) -> Result<bool, Error> {
    let kernel = Rtnetlink::open().map_err(cannot_list(interface))?;
    let own = kernel.list(interface).map_err(cannot_list(interface))?;
    kernel.keep(interface, vip, &own, lifetime)
}

/// Removes `vip` from `interface`: every entry of it, with any prefix.
pub(crate) fn remove(interface: &Interface, vip: Ipv4Addr) -> Result<Removed, Error> {
    let kernel = Rtnetlink::open().map_err(cannot_list(interface))?;
    let before = kernel.list(interface).map_err(cannot_list(interface))?;
    let mut removed = Removed::NotThere;
    for entry in before.iter().filter(|entry| entry.address == vip) {
        if is_first_of_others(&before, *entry) {
            kernel.promote_secondaries(interface);
        }
        match kernel.change(Change::Remove, interface, vip, entry.prefix) {
            Ok(()) => removed = Removed::Removed,
            // Another process has removed it meanwhile.
            Err(Errno::EADDRNOTAVAIL) => {}
            Err(source) => return Err(Error::Remove { vip, interface: interface.name.clone(), source }),
        }
    }
    Ok(removed)
}

/// Whether the kernel may remove other addresses with this one: those of the same network that came after it.
fn is_first_of_others(own: &[InterfaceAddress], leaving: InterfaceAddress) -> bool {
    let follows = |other: &InterfaceAddress| other.secondary && other.prefix == leaving.prefix;
    !leaving.secondary && own.iter().any(|other| follows(other) && leaving.contains(other.address))
}

/// Notices every change of an IPv4 address on this machine, by any process.
#[derive(Debug)]
pub(crate) struct Changes(Socket);

impl Changes {
    /// Starts listening: no change from here on is missed.
    pub(crate) fn listen() -> Result<Self, Error> {
        let open = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.set_non_blocking(true)?;
            socket.bind_auto()?;
            socket.add_membership(RTNLGRP_IPV4_IFADDR)?;
            Ok(Self(socket))
        };
        open().map_err(|e| Error::Watch(errno(e)))
    }

    /// Waits for a change, for `time` at most, or until told to stop. It only says that a look is worth it: the caller then
    /// asks for the addresses.
    pub(crate) fn wait(&self, time: Duration, cancel: &Cancel) {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN), PollFd::new(cancel.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut fds, timeout(time));
        let mut buffer = [0; 4096];
        // An overflow (ENOBUFS) is a change too, and the look that follows sees it.
        while matches!(self.0.recv(&mut &mut buffer[..], 0), Ok(1..)) {}
    }
}

#[derive(Clone, Copy)]
enum Change {
    Add(Option<Duration>),
    Keep(Option<Duration>),
    Remove,
}

/// A connection to the kernel's table of addresses.
struct Rtnetlink(Connection);

impl Rtnetlink {
    fn open() -> nix::Result<Self> {
        Connection::open(NETLINK_ROUTE).map(Self)
    }

    /// The addresses of `interface`.
    fn list(&self, interface: &Interface) -> nix::Result<Vec<InterfaceAddress>> {
        let own = self.dump()?.into_iter().filter(|(index, _)| *index == interface.index);
        Ok(own.map(|(_, entry)| entry).collect())
    }

    /// Every IPv4 address of the machine, with the number of its interface.
    fn dump(&self) -> nix::Result<Vec<(u32, InterfaceAddress)>> {
        let all = AddressHeader { family: AddressFamily::Inet, ..AddressHeader::default() };
        loop {
            self.0.send(&request(RTM_GETADDR, NLM_F_DUMP, &bytes(&all)))?;
            if let Some(addresses) = read_dump(|| self.0.receive())? {
                return Ok(addresses);
            }
            // The table changed while it was read.
        }
    }

    fn change(&self, change: Change, interface: &Interface, vip: Ipv4Addr, prefix: u8) -> nix::Result<()> {
        let (kind, flags) = match change {
            Change::Add(_) => (RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL),
            Change::Keep(_) => (RTM_NEWADDR, NLM_F_REPLACE),
            Change::Remove => (RTM_DELADDR, 0),
        };
        let mut message = AddressMessage::default();
        message.header = AddressHeader {
            family: AddressFamily::Inet,
            prefix_len: prefix,
            index: interface.index,
            ..AddressHeader::default()
        };
        message.attributes = vec![AddressAttribute::Local(vip.into()), AddressAttribute::Address(vip.into())];
        if let Change::Keep(_) = change {
            // The kernel adds what it cannot replace, also when it is not told to create anything. It does not add an
            // address with this flag unless it is one of multicast, and does not look at the flag where the address is
            // there. So an address that has just gone is not brought back.
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Mcautojoin));
        }
        if let Change::Add(lifetime) | Change::Keep(lifetime) = change {
            message.attributes.push(AddressAttribute::CacheInfo(lifetime_of(lifetime)));
        }
        self.ask(&request(kind, flags | NLM_F_ACK, &bytes(&message)))
    }

    /// Gives each entry of `vip` among `own` another lifetime. Says whether one of them is there still.
    fn keep(
        &self,
        interface: &Interface,
        vip: Ipv4Addr,
        own: &[InterfaceAddress],
        lifetime: Option<Duration>,
    ) -> Result<bool, Error> {
        let mut there = false;
        for entry in own.iter().filter(|entry| entry.address == vip) {
            match self.change(Change::Keep(lifetime), interface, vip, entry.prefix) {
                Ok(()) => there = true,
                // It has gone meanwhile.
                Err(Errno::EINVAL) => {}
                Err(source) => return Err(Error::Keep { vip, interface: interface.name.clone(), source }),
            }
        }
        Ok(there)
    }

    /// Lets the second address of a network stay when the first one goes, on this interface from now on. The kernel would
    /// remove all of them with it. Most distributions set this themselves.
    ///
    /// The kernel is asked by netlink, because a service manager may have made /proc/sys read-only.
    fn promote_secondaries(&self, interface: &Interface) {
        let path = |name: &str| format!("/proc/sys/net/ipv4/conf/{name}/promote_secondaries");
        let is_on = |name: &str| std::fs::read_to_string(path(name)).is_ok_and(|value| value.trim() != "0");
        if is_on("all") || is_on(&interface.name) {
            return;
        }
        if let Err(e) = self.ask(&request(RTM_SETLINK, NLM_F_ACK, &promotion(interface.index))) {
            // The address changes even so: another machine may have it by now.
            log::warn!(
                "cannot set promote_secondaries of {} ({e}): other addresses may go with the virtual IP",
                interface.name
            );
        }
    }

    /// Sends a request, and waits for its result.
    fn ask(&self, request: &[u8]) -> nix::Result<()> {
        self.0.send(request)?;
        loop {
            if let Some(result) = messages(&self.0.receive()?).iter().find_map(netlink::result) {
                return result;
            }
        }
    }
}

/// The content of a request that sets `promote_secondaries` of the interface with this number.
fn promotion(index: u32) -> Vec<u8> {
    let setting = DefaultNla::new(PROMOTE_SECONDARIES, 1_u32.to_ne_bytes().to_vec());
    let nested = |kind, content: &DefaultNla| DefaultNla::new(kind | NLA_F_NESTED, bytes(content));
    let ipv4 = nested(AF_INET, &nested(IFLA_INET_CONF, &setting));
    // A `struct ifinfomsg` with nothing but the number.
    let header = [[0; 4], index.to_ne_bytes(), [0; 4], [0; 4]].concat();
    [header, bytes(&nested(IFLA_AF_SPEC, &ipv4))].concat()
}

/// The kernel's form of a lifetime: whole seconds, at least one.
fn lifetime_of(lifetime: Option<Duration>) -> CacheInfo {
    let seconds = lifetime.map_or(FOR_EVER, |time| u32::try_from(time.as_secs().max(1)).unwrap_or(FOR_EVER));
    let mut info = CacheInfo::default();
    (info.ifa_preferred, info.ifa_valid) = (seconds, seconds);
    info
}

/// Reads a dump to its end. `None` if it is not consistent.
fn read_dump(mut receive: impl FnMut() -> nix::Result<Vec<u8>>) -> nix::Result<Option<Vec<(u32, InterfaceAddress)>>> {
    let mut found = Vec::new();
    let mut consistent = true;
    loop {
        for message in messages(&receive()?) {
            consistent &= message.flags() & NLM_F_DUMP_INTR == 0;
            if let Some(result) = netlink::result(&message) {
                return result.map(|()| consistent.then_some(found));
            }
            if message.message_type() == RTM_NEWADDR {
                found.extend(read_address(message.payload()));
            }
        }
    }
}

/// The interface number and the address in the payload of an `RTM_NEWADDR`.
fn read_address(payload: &[u8]) -> Option<(u32, InterfaceAddress)> {
    let header = AddressHeader::parse(payload).ok()?;
    let (mut local, mut remote) = (None, None);
    // One by one: an attribute that cannot be read, such as a label that is not UTF-8, does not hide the address.
    for attribute in NlasIterator::new(payload.get(header.buffer_len()..)?).map_while(Result::ok) {
        match AddressAttribute::parse(&attribute) {
            Ok(AddressAttribute::Local(IpAddr::V4(address))) => local = Some(address),
            Ok(AddressAttribute::Address(IpAddr::V4(address))) => remote = Some(address),
            _ => {}
        }
    }
    let entry = InterfaceAddress {
        // On a point-to-point link the other one is that of the far end.
        address: local.or(remote)?,
        prefix: header.prefix_len,
        secondary: header.flags.contains(AddressHeaderFlags::Secondary),
    };
    (header.family == AddressFamily::Inet).then_some((header.index, entry))
}

#[cfg(test)]
mod tests;
