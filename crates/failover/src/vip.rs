//! The virtual IP: an address on an interface, and what can be done to it on this machine.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use crate::sys::address::{self, Added, Interface, Removed};
use crate::sys::arp::{self, Probe};
use crate::sys::logging::chain;
use crate::ucarp::{Options, OtherMasters};

/// The virtual IP of this machine. The interface is known by its name: it can go and come back under another number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VirtualIp {
    /// The interface's name.
    pub(crate) interface: String,
    /// The address.
    pub(crate) address: Ipv4Addr,
}

impl fmt::Display for VirtualIp {
    /// The address alone, as most messages need it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

impl VirtualIp {
    /// The interface as it is now.
    pub(crate) fn find_interface(&self) -> Result<Interface, address::Error> {
        address::interface(&self.interface)
    }

    /// Whether the address is on the interface.
    pub(crate) fn holds(&self) -> Result<bool, address::Error> {
        address::holds(&self.find_interface()?, self.address)
    }

    /// Adds the address with the configured prefix length, or that of the interface's own network. The kernel removes it after
    /// `lifetime` unless it is [kept](Self::keep).
    pub(crate) fn add(&self, prefix: Option<u8>, lifetime: Option<Duration>) -> Result<Added, address::Error> {
        address::add(&self.find_interface()?, self.address, prefix, lifetime)
    }

    /// Gives the address another lifetime from now on, or none. Says whether it is here.
    pub(crate) fn keep(&self, lifetime: Option<Duration>) -> Result<bool, address::Error> {
        address::keep(&self.find_interface()?, self.address, lifetime)
    }

    /// Removes the address. Without its interface it is not there.
    pub(crate) fn remove(&self) -> Result<Removed, address::Error> {
        match self.find_interface().and_then(|interface| address::remove(&interface, self.address)) {
            Err(e) if e.is_no_interface() => Ok(Removed::NotThere),
            removed => removed,
        }
    }

    /// A socket for ARP about the address.
    pub(crate) fn arp(&self) -> Result<Probe, ArpError> {
        let interface = self.find_interface()?;
        Ok(Probe::open(&interface.name, interface.index, self.address)?)
    }

    /// Announces the address on the link: a machine that asked for it in vain need not ask again.
    pub(crate) fn announce(&self) {
        if let Err(e) = self.arp().and_then(|arp| Ok(arp.announce()?)) {
            log::warn!("{}", chain(&e));
        }
    }

    /// Listens for other machines that advertise the address.
    pub(crate) fn other_masters(&self, options: &Options) -> OtherMasters {
        OtherMasters::listen_if_possible(&self.interface, self.address, options)
    }

    /// A port of the master that serves on the address.
    pub(crate) fn port(&self, port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(self.address, port)
    }
}

/// Why ARP cannot be used for the address.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArpError {
    /// The interface.
    #[error(transparent)]
    Address(#[from] address::Error),
    /// The socket.
    #[error(transparent)]
    Arp(#[from] arp::Error),
}
