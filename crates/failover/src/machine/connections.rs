//! Who is connected to the master that serves, for the moment at which another machine takes over.
//!
//! The machine that serves tells it to the others. Those that stand by keep the newest list in the folder of runs, where the run that
//! is promoted finds it ([`silent_clients`](crate::moosefs::workarounds::silent_clients)). An old list does no harm, and after a
//! boot there is none.

use std::ffi::OsStr;
use std::net::Ipv4Addr;

use crate::instance::Instance;
use crate::machine::config::Config;
use crate::sys::address;
use crate::sys::folder::Folder;
use crate::sys::json_file;
use crate::sys::logging::chain;
use crate::sys::tcp::{self, Connected};

const FILE: &str = "connections.json";

/// The connections of other machines to the master here, through the virtual IP.
pub(crate) fn to_master(config: &Config, vip: Ipv4Addr) -> Vec<Connected> {
    // Without them this machine's own are among the others, which does no harm.
    let own = address::own_addresses().unwrap_or_default();
    tcp::connected_from_elsewhere(vip, &ports(config), &own)
}

/// Of a master.
fn ports(config: &Config) -> [u16; 3] {
    [config.client_port, config.chunkserver_port, config.metalogger_port]
}

/// Keeps what the serving machine has told.
pub(crate) fn keep(instance: &Instance, told: &[Connected]) {
    let kept = Folder::open(&instance.run_folder()).map_err(json_file::Error::from);
    if let Err(e) = kept.and_then(|folder| json_file::write(&folder, OsStr::new(FILE), &told)) {
        log::debug!("cannot keep who is connected to the serving machine: {}", chain(&e));
    }
}

/// The ends that were connected to the machine that served.
pub(crate) fn lost(config: &Config) -> Vec<Connected> {
    let told = read(&config.instance).unwrap_or_else(|e| {
        log::debug!("cannot read who was connected to the machine that served: {}", chain(&e));
        Vec::new()
    });
    let own = address::own_addresses().unwrap_or_default();
    told.into_iter().filter(|one| is_client(*one, &ports(config), &own)).collect()
}

/// Whether another machine can have this connection to a master. The list comes from the network.
fn is_client(one: Connected, ports: &[u16], own: &[Ipv4Addr]) -> bool {
    let (address, port) = (one.end.ip(), one.end.port());
    let is_one =
        !(address.is_loopback() || address.is_multicast() || address.is_broadcast() || address.is_unspecified());
    is_one && port != 0 && ports.contains(&one.port) && !own.contains(address)
}

fn read(instance: &Instance) -> Result<Vec<Connected>, json_file::Error> {
    let folder = Folder::open(&instance.run_folder())?;
    Ok(json_file::read(&folder, OsStr::new(FILE))?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_sent_to_who_cannot_be_a_client_of_this_master() {
        let own = [Ipv4Addr::new(10, 0, 0, 9)];
        let is = |port: u16, end: &str| is_client(Connected { port, end: end.parse().unwrap() }, &[9421, 9420], &own);
        assert!(is(9421, "10.0.0.1:40000") && is(9420, "192.168.7.1:1"));
        assert!(!is(22, "10.0.0.1:40000"), "another service");
        for end in ["10.0.0.1:0", "10.0.0.9:4", "127.0.0.1:4", "224.0.0.18:4", "255.255.255.255:4", "0.0.0.0:4"] {
            assert!(!is(9421, end), "{end}");
        }
    }
}
