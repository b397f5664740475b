//! Machines that are booted, with systemd or without, and plain ones beside them, on one switch.

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::Result;
use crate::VIP;
use crate::booted::Booted;
use crate::cluster::COMMAND;
use crate::error::file;
use crate::events::EventLog;
use crate::hooks::own_program;
use crate::load::Client;
use crate::locked;
use crate::machine::{Machine, Role};
use crate::moosefs::{CHUNKS, MOUNT};
use crate::network;
use crate::root::{self, Release};
use crate::switch::Switch;
use crate::work::{HostLock, WorkFolder};

/// How long a question to a master may take.
pub(crate) const ANSWER: Duration = Duration::from_secs(2);

/// A switch with nothing on it yet; 172.16.0.1 is its own address. It ends with the last of its machines.
#[derive(Clone, Debug)]
pub struct Site(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    /// Whose cables are in the switch, with their addresses: everybody's `/etc/hosts`.
    names: Mutex<Vec<(String, Ipv4Addr)>>,
    events: Arc<EventLog>,
    switch: Switch,
    work: WorkFolder,
    _lock: HostLock,
}

impl Site {
    /// Lays the switch.
    pub fn start() -> Result<Self> {
        let lock = HostLock::take()?;
        let work = WorkFolder::create()?;
        let events = EventLog::new(work.path());
        let switch = Switch::start(work.path())?;
        Ok(Self(Arc::new(Parts { names: Mutex::default(), events, switch, work, _lock: lock })))
    }

    /// Boots a machine called `mNUMBER`, at 172.16.0.10 and its number. Nothing of ours is on it.
    pub fn boot(&self, number: u8, release: Release) -> Result<Booted> {
        let (name, address) = self.name("m", 10, number);
        Booted::boot(self.clone(), &name, address, release)
    }

    /// Boots a machine of Debian 13 as [`Site::boot`] does, but with sysvinit in the place of systemd, or with OpenRC once that is
    /// installed on it. What it writes is there again when it is booted again, after the value for the last boot is gone.
    pub fn boot_without_systemd(&self, number: u8) -> Result<Booted> {
        let (name, address) = self.name("m", 10, number);
        Booted::boot_without_systemd(self.clone(), &name, address)
    }

    /// Starts a plain machine with a chunkserver, at 172.16.0.41.
    pub fn chunkserver(&self, release: Release) -> Result<Arc<Machine>> {
        let machine = self.plain("cs", 40, Role::Chunkserver, release)?;
        machine.must(&["mfschunkserver", "start"], COMMAND)?;
        Ok(machine)
    }

    /// Starts a plain machine that has mounted the file system, at 172.16.0.61. A master must serve.
    pub fn client(&self, release: Release) -> Result<Client> {
        let machine = self.plain("c", 60, Role::Client, release)?;
        machine.must(&["mfsmount", MOUNT, "-H", "mfsmaster"], COMMAND)?;
        Ok(Client { machine, events: Arc::clone(&self.0.events) })
    }

    fn plain(&self, kind: &str, base: u8, role: Role, release: Release) -> Result<Arc<Machine>> {
        let (name, address) = self.name(kind, base, 1);
        let lower = root::root(release, self.scratch())?;
        let machine = Machine::new(&name, address, role, &lower, self.scratch(), &self.0.events)?;
        machine.install("/etc/hosts", self.hosts().as_bytes(), 0o644)?;
        machine.install("/etc/mfs/mfshdd.cfg", format!("{CHUNKS}\n").as_bytes(), 0o644)?;
        machine.install("/etc/mfs/mfschunkserver.cfg", b"MASTER_RECONNECTION_DELAY = 1\n", 0o644)?;
        let workload = own_program("workload")?;
        machine.install("/usr/bin/workload", &fs::read(&workload).map_err(file("read", &workload))?, 0o755)?;
        machine.boot(&self.0.switch)?;
        Ok(Arc::new(machine))
    }

    fn name(&self, kind: &str, base: u8, number: u8) -> (String, Ipv4Addr) {
        let named = (format!("{kind}{number}"), Ipv4Addr::new(172, 16, 0, base + number));
        let mut known = locked(&self.0.names);
        if !known.contains(&named) {
            known.push(named.clone());
        }
        named
    }

    /// What every machine's `/etc/hosts` says.
    pub(crate) fn hosts(&self) -> String {
        let hosts = format!("127.0.0.1 localhost\n{VIP} mfsmaster\n");
        locked(&self.0.names).iter().fold(hosts, |mut hosts, (name, address)| {
            let _ = writeln!(hosts, "{address} {name}");
            hosts
        })
    }

    /// The plain machines' log; a booted machine has its journal.
    pub(crate) fn events(&self) -> &EventLog {
        &self.0.events
    }

    pub(crate) fn switch(&self) -> &Switch {
        &self.0.switch
    }

    pub(crate) fn scratch(&self) -> &std::path::Path {
        self.0.work.path()
    }

    /// Asks from the switch for the version of the master behind an address.
    pub fn serves(&self, address: Ipv4Addr) -> Result<u64> {
        network::master_version(self.0.switch.pid(), address, ANSWER)
    }
}
