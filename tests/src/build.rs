//! A cluster in a few words, and how it comes up.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::Result;
use crate::VIP;
use crate::cluster::Cluster;
use crate::error::file;
use crate::events::EventLog;
use crate::hooks::{Hooks, own_program};
use crate::machine::{Machine, Role};
use crate::moosefs::{self, CHUNKS};
use crate::root::{self, Release};
use crate::switch::Switch;
use crate::watch::Watch;
use crate::work::{HostLock, WorkFolder};

/// Each step of a start must be done within this.
const STEP: Duration = Duration::from_secs(60);
/// How ucarp's skews differ between neighbours.
const SKEW_STEP: u8 = 50;

/// What the first master starts from.
#[derive(Clone, Debug)]
enum Beginning {
    /// A real, empty image, so that metaloggers get one at once.
    Image,
    /// The 8 bytes of a file system that never existed: the first hour of an installation.
    Fresh,
    /// The files of a folder.
    Files(PathBuf),
}

/// A cluster that is to be.
#[derive(Clone, Debug)]
#[must_use]
pub struct Builder {
    masters: u8,
    chunkservers: u8,
    clients: u8,
    hooks: Option<Hooks>,
    beginning: Beginning,
    skews: BTreeMap<String, u8>,
    settings: BTreeMap<String, BTreeMap<String, String>>,
    files: Vec<(Option<String>, String, Vec<u8>, u32)>,
    ucarp: Vec<String>,
    limits: BTreeMap<String, u32>,
    release: Option<Release>,
    judged: bool,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self {
            masters: 3,
            chunkservers: 1,
            clients: 1,
            hooks: None,
            beginning: Beginning::Image,
            skews: BTreeMap::new(),
            settings: BTreeMap::new(),
            files: Vec::new(),
            ucarp: Vec::new(),
            limits: BTreeMap::new(),
            release: None,
            judged: true,
        }
    }

    /// What happens in it is shown or measured, not judged: see [`Cluster::findings`].
    pub fn unjudged(mut self) -> Self {
        self.judged = false;
        self
    }

    /// Every machine runs this release of Debian and MooseFS, instead of what this host has installed.
    pub fn release(mut self, release: Release) -> Self {
        self.release = Some(release);
        self
    }

    /// This many machines with ucarp and a metalogger, `m1`, `m2` and so on; `m1` serves first.
    pub fn masters(mut self, number: u8) -> Self {
        self.masters = number;
        self
    }

    /// This many chunkservers, `cs1` and so on; one by default.
    pub fn chunkservers(mut self, number: u8) -> Self {
        self.chunkservers = number;
        self
    }

    /// This many clients, `c1` and so on; one by default.
    pub fn clients(mut self, number: u8) -> Self {
        self.clients = number;
        self
    }

    /// The hooks under test; by default our programs, built now.
    pub fn hooks(mut self, hooks: Hooks) -> Self {
        self.hooks = Some(hooks);
        self
    }

    /// The master begins with a new file system (`MFSM NEW`) instead of a real image.
    pub fn fresh(mut self) -> Self {
        self.beginning = Beginning::Fresh;
        self
    }

    /// The master begins with the files of a folder, which must hold a `metadata.mfs`.
    pub fn image(mut self, folder: impl Into<PathBuf>) -> Self {
        self.beginning = Beginning::Files(folder.into());
        self
    }

    /// ucarp's `advskew` of a machine; by default 0, 50, 100 and so on.
    pub fn skew(mut self, machine: &str, skew: u8) -> Self {
        self.skews.insert(machine.to_owned(), skew);
        self
    }

    /// A setting of `/etc/mfs/FILE.cfg` on every machine, as `("mfsmetalogger", "MASTER_RECONNECTION_DELAY", "1")`.
    pub fn setting(mut self, file: &str, key: &str, value: &str) -> Self {
        self.settings.entry(file.to_owned()).or_default().insert(key.to_owned(), value.to_owned());
        self
    }

    /// A file on every machine.
    pub fn file(mut self, path: &str, content: impl Into<Vec<u8>>, mode: u32) -> Self {
        self.files.push((None, path.to_owned(), content.into(), mode));
        self
    }

    /// A file on one machine.
    pub fn file_on(mut self, machine: &str, path: &str, content: impl Into<Vec<u8>>, mode: u32) -> Self {
        self.files.push((Some(machine.to_owned()), path.to_owned(), content.into(), mode));
        self
    }

    /// The data folder of a machine has a file system of its own with this many megabytes (the master's charts need 5).
    pub fn small_disk(mut self, machine: &str, megabytes: u32) -> Self {
        self.limits.insert(machine.to_owned(), megabytes);
        self
    }

    /// More options for ucarp, as `["-x", "NAME"]`.
    pub fn ucarp_options(mut self, options: &[&str]) -> Self {
        self.ucarp.extend(options.iter().map(ToString::to_string));
        self
    }

    /// Starts everything and waits until `m1` serves, the metaloggers are in step and the client has mounted.
    pub fn start(self) -> Result<Cluster> {
        let hooks = self.hooks.clone().map_or_else(Hooks::ours, Ok)?;
        let lock = HostLock::take()?;
        let work = WorkFolder::create()?;
        let events = EventLog::new(work.path());
        let machines = self.machines(&work, &events)?;
        self.install(&machines, &hooks)?;
        let switch = Switch::start(work.path())?;
        let watch = Watch::start(&machines, &switch, &events, self.judged)?;
        let judged = self.judged && matches!(hooks, Hooks::Ours { .. });
        let (ucarp, failed) = (self.ucarp.clone(), AtomicBool::new(false));
        let groups = Mutex::default();
        let cluster = Cluster { watch, machines, groups, switch, work, lock, events, hooks, ucarp, judged, failed };
        cluster.bring_up(STEP, !matches!(self.beginning, Beginning::Fresh))?;
        Ok(cluster)
    }

    /// All machines, still off.
    fn machines(&self, work: &WorkFolder, events: &Arc<EventLog>) -> Result<Vec<Arc<Machine>>> {
        let skew = |number: u8| {
            let chosen = self.skews.get(&format!("m{number}")).copied();
            chosen.unwrap_or((number - 1).saturating_mul(SKEW_STEP))
        };
        let masters = (1..=self.masters).map(|number| (format!("m{number}"), 10 + number, Role::Master(skew(number))));
        let chunkservers =
            (1..=self.chunkservers).map(|number| (format!("cs{number}"), 40 + number, Role::Chunkserver));
        let clients = (1..=self.clients).map(|number| (format!("c{number}"), 60 + number, Role::Client));
        let lower = match self.release {
            Some(release) => root::root(release, work.path())?,
            None => PathBuf::from("/"),
        };
        masters
            .chain(chunkservers)
            .chain(clients)
            .map(|(name, last, role)| {
                let address = Ipv4Addr::new(172, 16, 0, last);
                Machine::new(&name, address, role, &lower, work.path(), events).map(Arc::new)
            })
            .collect()
    }

    /// What lies on the machines before they start.
    fn install(&self, machines: &[Arc<Machine>], hooks: &Hooks) -> Result<()> {
        let mut hosts = format!("127.0.0.1 localhost\n{VIP} mfsmaster\n");
        for machine in machines {
            let _ = writeln!(hosts, "{} {}", machine.address, machine.name);
        }
        let workload = own_program("workload")?;
        let workload = fs::read(&workload).map_err(file("read", workload))?;
        for machine in machines {
            machine.install("/etc/hosts", hosts.as_bytes(), 0o644)?;
            machine.install("/etc/hostname", format!("{}\n", machine.name).as_bytes(), 0o644)?;
            machine.install("/etc/mfs/ucarp.pass", b"lab\n", 0o600)?;
            machine.install("/etc/mfs/mfsexports.cfg", b"* / rw,alldirs,admin,maproot=0:0\n", 0o644)?;
            machine.install("/etc/mfs/mfshdd.cfg", format!("{CHUNKS}\n").as_bytes(), 0o644)?;
            for name in ["mfsmaster", "mfsmetalogger", "mfschunkserver"] {
                let own = self.settings.get(name).into_iter().flatten();
                let text = own.fold(String::new(), |text, (key, value)| text + &format!("{key} = {value}\n"));
                machine.install(&format!("/etc/mfs/{name}.cfg"), text.as_bytes(), 0o644)?;
            }
            if machine.role == Role::Client {
                machine.install("/usr/bin/workload", &workload, 0o755)?;
            }
        }
        hooks.install(machines.iter().map(AsRef::as_ref).filter(|machine| matches!(machine.role, Role::Master(_))))?;
        for (only, path, content, mode) in &self.files {
            for machine in machines.iter().filter(|machine| only.as_ref().is_none_or(|name| *name == machine.name)) {
                machine.install(path, content, *mode)?;
            }
        }
        self.first_metadata(machines)?;
        for machine in machines {
            self.limits.get(&machine.name).map_or(Ok(()), |megabytes| machine.limit_data(*megabytes))?;
        }
        Ok(())
    }

    /// Puts the first metadata on the disk of `m1`.
    fn first_metadata(&self, machines: &[Arc<Machine>]) -> Result<()> {
        let Some(first) = machines.first() else { return Ok(()) };
        let data = first.disk(moosefs::DATA);
        let put = |name: &str, content: &[u8]| {
            let path = data.join(name);
            fs::write(&path, content).map_err(file("write", &path))?;
            first.give_to_mfs(&path)
        };
        match &self.beginning {
            Beginning::Image => put("metadata.mfs", moosefs::IMAGE),
            Beginning::Fresh => put("metadata.mfs", moosefs::NEW),
            Beginning::Files(folder) => {
                for entry in fs::read_dir(folder).map_err(file("list", folder))?.flatten() {
                    let content = fs::read(entry.path()).map_err(file("read", entry.path()))?;
                    put(&entry.file_name().to_string_lossy(), &content)?;
                }
                Ok(())
            }
        }
    }
}
