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
    tcp::connected_from_elsewhere(vip, &[config.client_port, config.chunkserver_port, config.metalogger_port], &own)
}

/// Keeps what the serving machine has told.
pub(crate) fn keep(instance: &Instance, told: &[Connected]) {
    let kept = Folder::open(&instance.run_folder()).map_err(json_file::Error::from);
    if let Err(e) = kept.and_then(|folder| json_file::write(&folder, OsStr::new(FILE), &told)) {
        log::debug!("cannot keep who is connected to the serving machine: {}", chain(&e));
    }
}

/// The ends that were connected to the machine that served, and are not connected to this one.
pub(crate) fn lost(config: &Config, vip: Ipv4Addr) -> Vec<Connected> {
    let told = read(&config.instance).unwrap_or_else(|e| {
        log::debug!("cannot read who was connected to the machine that served: {}", chain(&e));
        Vec::new()
    });
    let (own, here) = (address::own_addresses().unwrap_or_default(), to_master(config, vip));
    told.into_iter().filter(|one| !own.contains(one.end.ip()) && here.binary_search(one).is_err()).collect()
}

fn read(instance: &Instance) -> Result<Vec<Connected>, json_file::Error> {
    let folder = Folder::open(&instance.run_folder())?;
    Ok(json_file::read(&folder, OsStr::new(FILE))?.unwrap_or_default())
}
