//! The kernel, and nothing of MooseFS.

pub(crate) mod address;
pub(crate) mod arp;
pub(crate) mod cancel;
pub(crate) mod folder;
pub(crate) mod json_file;
pub(crate) mod logging;
pub(crate) mod memory;
pub(crate) mod netlink;
pub(crate) mod nft;
pub(crate) mod packet;
pub(crate) mod probe;
pub(crate) mod process;
pub(crate) mod progress;
pub(crate) mod route;
pub(crate) mod systemd;
pub(crate) mod tcp;
pub(crate) mod terminal;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod text;
pub(crate) mod trust;
