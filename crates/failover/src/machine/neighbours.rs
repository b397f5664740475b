//! The ucarps of this machine that call our hooks, and which of them may.
//!
//! An instance has one virtual IP, one data folder and one master. A second ucarp that names another address for the same
//! instance, the same address, or the data folder of another instance would stop the master that the first one serves with.
//! So it is refused: its hooks touch nothing that serves, and `vip-up` ends it.
//!
//! Which one was first is kept from the first call of its hook on, for as long as its ucarp lives: in a file of all
//! instances. A ucarp that is not in it was started before the hooks knew of this; the one that holds its address, or runs
//! longer, was first.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::{self, Display};
use std::fs::File;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::instance::{BadName, Instance};
use crate::machine::config::Config;
use crate::machine::lock::Locks;
use crate::machine::record;
use crate::machine::state::State;
use crate::moosefs::Daemon;
use crate::moosefs::services::{Control, Services};
use crate::sys::folder::{Folder, lead_to_one};
use crate::sys::json_file;
use crate::sys::logging::chain;
use crate::sys::process::{self, Identity, Stat};
use crate::timing;
use crate::ucarp::Ucarp;
use crate::vip::VirtualIp;

/// In the folder of the instance without a name.
const FILE: &str = "ucarps.json";
const LOCK: &str = "ucarps";
/// A ucarp that is started again may overlap with the one that ends for so long.
const RESTART: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(20);

/// Why a ucarp is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Conflict {
    /// The other one moves the same address.
    #[error("{vip} is moved by another ucarp of this machine already (process {other}, {theirs}): end one of the two")]
    SameAddress {
        /// Its process.
        other: u32,
        /// Its instance.
        theirs: Instance,
        /// The address.
        vip: VirtualIp,
    },
    /// The other one moves another address, for the same instance.
    #[error(
        "another ucarp of this machine (process {other}) moves {theirs} for {instance}, and one file system has one virtual \
         IP: end the ucarp for {vip}, or start it with -x NAME for a file system of its own in \
         /etc/mfs/mfspromote-NAME.cfg"
    )]
    SecondAddress {
        /// Its process.
        other: u32,
        /// Its address.
        theirs: VirtualIp,
        /// The instance of both.
        instance: Instance,
        /// The refused address.
        vip: VirtualIp,
    },
    /// Two instances have something that only one master can have.
    #[error(
        "{instance} has {shared} as {theirs} has, whose ucarp runs here (process {other}): {}",
        remedy(shared, instance)
    )]
    Shared {
        /// What it is.
        shared: Shared,
        /// Its process.
        other: u32,
        /// The other instance.
        theirs: Instance,
        /// The refused instance.
        instance: Instance,
    },
}

impl Conflict {
    /// Whether the refused address is that of the other ucarp: it must stay.
    pub(crate) fn is_same_address(&self) -> bool {
        matches!(self, Self::SameAddress { .. })
    }
}

/// What two instances must not share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shared {
    /// The data folder.
    Folder(PathBuf),
    /// The port for clients.
    Port(u16),
    /// A unit or an init script, with the key that names it.
    Service(&'static str, Control),
}

impl Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => write!(f, "the same DATA_PATH {}", path.display()),
            Self::Port(port) => write!(f, "the same MATOCL_LISTEN_PORT {port}"),
            Self::Service(_, control) => write!(f, "the same {control}"),
        }
    }
}

/// What to change.
fn remedy(shared: &Shared, instance: &Instance) -> String {
    let file = instance.file();
    let file = file.display();
    match shared {
        Shared::Folder(_) => format!("set another one in the files that MASTER_CFG and METALOGGER_CFG of {file} name"),
        Shared::Port(_) => format!("set another one in the file that MASTER_CFG of {file} names"),
        Shared::Service(key, _) => format!("set {key} in {file} to one of its own"),
    }
}

/// Why it is not known which instance is meant.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unclear {
    /// The XPARAM of the ucarp is no name.
    #[error(transparent)]
    BadName(#[from] BadName),
    /// Several.
    #[error("ucarps of several instances run here: {}; choose one with -x NAME", list(.0))]
    Several(Vec<Instance>),
}

fn list(instances: &[Instance]) -> String {
    instances.iter().filter_map(Instance::name).collect::<Vec<_>>().join(", ")
}

/// What a ucarp moves, and for which master.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    instance: Instance,
    vip: VirtualIp,
    /// `None` if the configuration cannot be used.
    master: Option<Master>,
}

/// What only one master can have.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Master {
    data_path: PathBuf,
    clients: SocketAddrV4,
    /// The units or scripts of its daemons, with the keys that name them.
    services: Vec<(&'static str, Control)>,
}

impl Master {
    fn of(config: &Config) -> Self {
        let services = Services::find(&config.services).ok();
        let control = |(key, daemon)| {
            let control = services.as_ref()?.control(daemon).filter(|control| !matches!(control, Control::Own(_)))?;
            Some((key, control.clone()))
        };
        let named = [("MASTER_SERVICE", Daemon::Master), ("METALOGGER_SERVICE", Daemon::Metalogger)];
        Self {
            data_path: config.data_path.clone(),
            clients: SocketAddrV4::new(config.client_host, config.client_port),
            services: named.into_iter().filter_map(control).collect(),
        }
    }

    /// What both have.
    fn shared(&self, other: &Self) -> Option<Shared> {
        if is_same_folder(&self.data_path, &other.data_path) {
            return Some(Shared::Folder(self.data_path.clone()));
        }
        let hosts = [self.clients.ip(), other.clients.ip()];
        let meet = hosts[0] == hosts[1] || hosts.iter().any(|host| host.is_unspecified());
        if self.clients.port() == other.clients.port() && meet {
            return Some(Shared::Port(self.clients.port()));
        }
        let (key, control) = self.services.iter().find(|mine| other.services.contains(mine))?;
        Some(Shared::Service(key, control.clone()))
    }
}

/// By their paths, and by what these lead to if the disk tells that in time.
fn is_same_folder(one: &Path, other: &Path) -> bool {
    let (one, other) = (one.to_owned(), other.to_owned());
    one == other || process::within(timing::HOOK_LEASE, move || lead_to_one(&one, &other)).unwrap_or_default()
}

impl Claim {
    /// What `vip` means for an instance with this configuration.
    pub(crate) fn of(instance: Instance, vip: VirtualIp, config: Option<&Config>) -> Self {
        Self { instance, vip, master: config.map(Master::of) }
    }

    /// That of a running ucarp; `None` if it cannot be one of ours.
    fn of_ucarp(ucarp: &Ucarp) -> Option<Self> {
        let vip =
            VirtualIp { interface: ucarp.options.interface.clone().unwrap_or_default(), address: ucarp.options.vip? };
        let instance = Instance::of_xparam(ucarp.options.xparam.as_deref()).ok()?;
        let config = Config::of(&instance).ok().or_else(|| Config::salvage_for(instance.named_file().as_deref()));
        Some(Self::of(instance, vip, config.as_ref()))
    }

    fn conflict(&self, other: u32, theirs: &Self) -> Option<Conflict> {
        let (instance, vip) = (self.instance.clone(), self.vip.clone());
        if vip.address == theirs.vip.address {
            return Some(Conflict::SameAddress { other, theirs: theirs.instance.clone(), vip });
        }
        if instance == theirs.instance {
            return Some(Conflict::SecondAddress { other, theirs: theirs.vip.clone(), instance, vip });
        }
        let (mine, master) = self.master.as_ref().zip(theirs.master.as_ref())?;
        Some(Conflict::Shared { shared: mine.shared(master)?, other, theirs: theirs.instance.clone(), instance })
    }
}

/// Another ucarp of this machine that calls our hooks.
#[derive(Debug)]
struct Neighbour {
    process: Identity,
    claim: Claim,
    /// Whether its address is here.
    holds: bool,
}

/// Which ucarps were admitted, and which refused.
type Verdicts = BTreeMap<String, bool>;

/// Whether the hooks of a ucarp may work. A hook that was not called by a ucarp may do what that of the same address may.
pub(crate) fn admit(claim: &Claim, caller: Option<&Ucarp>) -> Result<(), Conflict> {
    let (me, begun) = (caller.map(Ucarp::identity), Instant::now());
    loop {
        let register = Register::open();
        let verdicts = register.as_ref().map(Register::read).unwrap_or_default();
        if me.is_some_and(|me| verdicts.get(&me.to_string()) == Some(&true)) {
            return Ok(());
        }
        let verdict = decide(claim, me, &neighbours(me), &verdicts);
        if matches!(&verdict, Err(Conflict::SameAddress { theirs, .. }) if *theirs == claim.instance)
            && begun.elapsed() < RESTART
        {
            drop(register);
            std::thread::sleep(POLL);
            continue;
        }
        if let Some((register, me)) = register.zip(me) {
            register.note(verdicts, me, verdict.is_ok());
        }
        return verdict;
    }
}

/// What keeps the ucarp of an instance and another one from working on one machine, whichever of the two was first.
pub(crate) fn conflict(config: &Config) -> Option<Conflict> {
    let mut all = neighbours(None);
    let own = all.iter().position(|one| one.claim.instance == config.instance)?;
    let own = all.remove(own);
    all.iter().find_map(|other| own.claim.conflict(other.process.pid, &other.claim))
}

/// The instance that an administrator means who does not name one: that of the ucarp for `vip`, else the one without a name
/// where it has records or a ucarp or no ucarp runs at all, else the only one.
pub(crate) fn instance_meant(vip: Option<&VirtualIp>) -> Result<Instance, Unclear> {
    if let Some(ucarp) = vip.and_then(|vip| Ucarp::find(&vip.interface, vip.address)) {
        return Ok(Instance::of_xparam(ucarp.options.xparam.as_deref())?);
    }
    let unnamed = Instance::default();
    // Its ucarp may have ended, which must not hide behind that of another one.
    let has_records = State::existing(&unnamed).ok().flatten().is_some_and(|state| record::has_any(&state));
    if has_records {
        return Ok(unnamed);
    }
    only(neighbours(None).into_iter().map(|other| other.claim.instance).collect())
}

fn only(mut running: Vec<Instance>) -> Result<Instance, Unclear> {
    running.sort();
    running.dedup();
    match running.len() {
        0 => Ok(Instance::default()),
        1 => Ok(running.remove(0)),
        // The one without a name sorts first.
        _ if running[0].name().is_none() => Ok(Instance::default()),
        _ => Err(Unclear::Several(running)),
    }
}

/// What keeps an administrator's run from working with this configuration: it is about the master of another instance.
pub(crate) fn intrusion(config: &Config) -> Option<Conflict> {
    let (mine, instance) = (Master::of(config), &config.instance);
    neighbours(None).into_iter().filter(|other| other.claim.instance != *instance).find_map(|other| {
        let shared = mine.shared(other.claim.master.as_ref()?)?;
        let (other, theirs) = (other.process.pid, other.claim.instance);
        Some(Conflict::Shared { shared, other, theirs, instance: instance.clone() })
    })
}

/// Whether ucarps of other instances run here.
pub(crate) fn has_others(instance: &Instance) -> bool {
    neighbours(None).iter().any(|other| other.claim.instance != *instance)
}

fn neighbours(me: Option<Identity>) -> Vec<Neighbour> {
    // One that a signal has stopped manages nothing any more, and a new one is started in its place.
    let works = |ucarp: &Ucarp| Stat::of(ucarp.pid).is_some_and(|stat| stat.state != 'T');
    let ours = Ucarp::all().into_iter().filter(|ucarp| Some(ucarp.identity()) != me && ucarp.calls_our_hooks());
    let ours = ours.filter(works);
    let neighbour = |ucarp: Ucarp| {
        let claim = Claim::of_ucarp(&ucarp)?;
        let holds = claim.vip.holds().unwrap_or_default();
        Some(Neighbour { process: ucarp.identity(), claim, holds })
    };
    ours.filter_map(neighbour).collect()
}

/// A hook without a ucarp works for the ucarp of its address, which may have ended.
fn is_own(claim: &Claim, me: Option<Identity>, other: &Neighbour) -> bool {
    me.is_none() && (&claim.instance, claim.vip.address) == (&other.claim.instance, other.claim.vip.address)
}

fn decide(claim: &Claim, me: Option<Identity>, others: &[Neighbour], verdicts: &Verdicts) -> Result<(), Conflict> {
    let was_first = |other: &&Neighbour| match verdicts.get(&other.process.to_string()) {
        Some(admitted) => *admitted,
        None => other.holds || me.is_some_and(|me| (other.process.start, other.process.pid) < (me.start, me.pid)),
    };
    let first = others.iter().filter(was_first).filter(|other| !is_own(claim, me, other));
    let conflicts = first.filter_map(|other| claim.conflict(other.process.pid, &other.claim));
    // Of several the one that says that the address must stay.
    conflicts.max_by_key(Conflict::is_same_address).map_or(Ok(()), Err)
}

/// The file with the verdicts, held: two ucarps that start at once get one verdict after the other.
#[derive(Debug)]
struct Register {
    folder: Folder,
    _lock: Option<File>,
}

impl Register {
    /// `None` if it cannot be used; the processes say who was first then.
    fn open() -> Option<Self> {
        // Makes the folder, and looks whether it is root's alone.
        Locks::of(&Instance::default()).inspect_err(|e| log::debug!("{}", chain(e))).ok()?;
        let folder =
            Folder::open(&Instance::default().run_folder()).inspect_err(|e| log::debug!("{}", chain(e))).ok()?;
        let lock = folder.lock(LOCK.as_ref(), timing::HOOK_MUTEX).inspect_err(|e| log::debug!("{}", chain(e))).ok()?;
        Some(Self { folder, _lock: lock })
    }

    fn read(&self) -> Verdicts {
        let read = json_file::read(&self.folder, OsStr::new(FILE));
        read.inspect_err(|e| log::warn!("{}", chain(e))).ok().flatten().unwrap_or_default()
    }

    /// Notes a verdict, and forgets those of ucarps that have ended.
    fn note(&self, mut verdicts: Verdicts, ucarp: Identity, admitted: bool) {
        verdicts.retain(|process, _| process.parse().is_ok_and(|process: Identity| process.is_alive()));
        verdicts.insert(ucarp.to_string(), admitted);
        if let Err(e) = json_file::write(&self.folder, OsStr::new(FILE), &verdicts) {
            log::warn!("{}", chain(&e));
        }
    }
}

#[cfg(test)]
mod tests;
