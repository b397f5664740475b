//! What is here: interfaces, files, units, daemons.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::instance::Instance;
use crate::machine::config::{self, Config};
use crate::machine::lock::{self, Locks};
use crate::moosefs::cfg;
use crate::moosefs::services::{self, Control, Services};
use crate::moosefs::{self, Daemon};
use crate::sys::address::{self, InterfaceAddress};
use crate::sys::cancel::Cancel;
use crate::sys::folder::{self, Folder};
use crate::sys::trust::changeable;
use crate::sys::{process, systemd};
use crate::ucarp::Ucarp;

use super::files;

/// The values of the unit [`UCARP_UNIT`], as the package installs them.
const VALUES_TEMPLATE: &str = include_str!("../../../../scripts/packaging/moosefs-ucarp.default");
/// Where they are.
pub(super) const VALUES: &str = "/etc/default/moosefs-ucarp";
pub(super) const HOSTS: &str = "/etc/hosts";
/// The unit that runs ucarp.
pub(super) const UCARP_UNIT: &str = "moosefs-ucarp";
/// How long systemd may take for an answer.
const ANSWER: Duration = Duration::from_secs(5);
/// ucarp takes no longer password.
const LONGEST_PASSWORD: usize = 19;

/// Why this machine cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// Units are all that it can switch.
    #[error(
        "mfs-promote --init switches systemd units, and systemd does not manage this machine, or {0} is none of its units; \
         docs/set-up-by-hand.md says what to do instead"
    )]
    NoUnit(String),
    /// A unit that nothing can start.
    #[error("the unit {0} is masked, so nothing can start it; run: systemctl unmask {0}")]
    Masked(String),
    /// A run is at work.
    #[error("a run of mfs-promote (process {0}) is at work; try again when it has ended (mfs-promote --status)")]
    Busy(u32),
    /// The locks of runs.
    #[error(transparent)]
    Locks(#[from] lock::Error),
    /// Our own unit is missing.
    #[error("there is no unit {UCARP_UNIT}: install the package moosefs-ucarp, which brings it")]
    NoPackage,
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// MooseFS's files, or ours.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// The data folder.
    #[error(transparent)]
    Data(#[from] folder::Error),
    /// The daemons.
    #[error(transparent)]
    Daemons(#[from] moosefs::Error),
    /// Their units.
    #[error(transparent)]
    Services(#[from] services::Error),
    /// The addresses.
    #[error(transparent)]
    Addresses(#[from] address::Error),
}

/// A daemon that a unit starts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Unit {
    /// The unit's name.
    pub(super) name: String,
    /// Whether it starts at boot.
    pub(super) at_boot: bool,
    /// Whether the daemon runs.
    pub(super) runs: bool,
}

/// The password that the machines share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Password {
    /// There is no file.
    Missing,
    /// One that ucarp takes.
    Good,
    /// A file that the unit refuses: why, and what to do.
    Bad(String),
}

/// What is here.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// The text of [`VALUES`].
    pub(super) values: String,
    /// Whether that file is there.
    pub(super) has_values: bool,
    /// The text of [`HOSTS`].
    pub(super) hosts: String,
    /// The addresses of all interfaces but the loopback, by the interface's name.
    pub(super) addresses: Vec<(String, InterfaceAddress)>,
    /// The name under which daemons here look for the master.
    pub(super) name: String,
    /// The file that can say another one.
    pub(super) metalogger_cfg: PathBuf,
    /// The names of this machine itself.
    pub(super) own_names: Vec<String>,
    /// The port on which masters listen for clients, and that for metaloggers.
    pub(super) ports: [u16; 2],
    /// What the name resolves to.
    pub(super) resolved: Option<Ipv4Addr>,
    /// The file with the password that the machines share.
    pub(super) password_file: PathBuf,
    /// What is in it.
    pub(super) password: Password,
    /// Files that the daemons' units need and that are not there.
    pub(super) missing: Vec<PathBuf>,
    /// The metalogger's configuration, if it is there and does not say how long to wait before it connects again. That of
    /// MooseFS's own packages has nothing but comments.
    pub(super) undelayed: Option<(PathBuf, String)>,
    /// The file that says which clients are let in, if it is not there.
    pub(super) missing_exports: Option<PathBuf>,
    /// The configuration that machines must have in common: the files that daemons and we read, there or not.
    pub(super) read_by_master: Vec<PathBuf>,
    /// The master that runs here.
    pub(super) master: Option<u32>,
    /// Its unit.
    pub(super) master_unit: Unit,
    /// The metalogger.
    pub(super) metalogger: Unit,
    /// ucarp.
    pub(super) ucarp: Unit,
    /// A ucarp of ours that the unit has not started.
    pub(super) other_ucarp: Option<u32>,
}

impl Facts {
    /// Looks at this machine.
    pub(super) fn gather() -> Result<Self, Error> {
        let config = Config::for_xparam(None)?;
        let services = Services::find(&config.services)?;
        let data = Folder::open(&config.data_path)?;
        let running = |daemon| moosefs::running(&data, daemon).map(|found| found.map(|process| process.pid));
        let unit = |daemon| match services.control(daemon) {
            Some(Control::Unit(name)) => Ok(name.clone()),
            _ => Err(Error::NoUnit(daemon.to_string())),
        };
        let master = running(Daemon::Master)?;
        let master_unit = Unit {
            name: unit(Daemon::Master)?,
            at_boot: services.starts_at_boot(Daemon::Master),
            runs: master.is_some(),
        };
        let metalogger = Unit {
            name: unit(Daemon::Metalogger)?,
            at_boot: services.starts_at_boot(Daemon::Metalogger),
            runs: running(Daemon::Metalogger)?.is_some(),
        };
        let ucarp = ucarp_unit()?;
        if let Some(masked) = [&master_unit, &metalogger, &ucarp].into_iter().find(|unit| is_masked(&unit.name)) {
            return Err(Error::Masked(masked.name.clone()));
        }
        if let Some(run) = Locks::of(&Instance::default())?.at_work()? {
            return Err(Error::Busy(run.pid));
        }
        let mut others = Ucarp::all_of(&Instance::default()).into_iter();
        let other_ucarp = others.find(|found| !ucarp.runs && found.calls_our_hooks()).map(|found| found.pid);
        let has_values = exists(VALUES.as_ref());
        let values = if has_values { read(VALUES)? } else { VALUES_TEMPLATE.to_owned() };
        let password_file = files::value(&values, "PASSWORD_FILE").unwrap_or_default();
        let password_file =
            PathBuf::from(if password_file.is_empty() { "/etc/mfs/ucarp.pass" } else { &password_file });
        // Its own file has no path here if it is not there yet.
        let others = config.read_by_master.iter().filter(|path| !path.as_os_str().is_empty());
        let own =
            [config.services.master_cfg.clone(), config.services.metalogger_cfg.clone(), Instance::default().file()];
        let mut read_by_master: Vec<_> = others.cloned().chain(own).collect();
        read_by_master.dedup();
        let usual = [&config.services.master_cfg, &config.services.metalogger_cfg];
        Ok(Self {
            has_values,
            hosts: read(HOSTS)?,
            addresses: addresses()?,
            resolved: resolve(&config.master_host),
            metalogger_cfg: config.services.metalogger_cfg.clone(),
            own_names: own_names(),
            ports: [config.client_port, config.metalogger_port],
            password: password(&password_file)?,
            undelayed: undelayed(&config::first_that_exists(&config.services.metalogger_cfg)),
            missing: usual.into_iter().filter(|path| is_missing(path)).cloned().collect(),
            missing_exports: config.read_by_master.first().filter(|path| is_missing(path)).cloned(),
            name: config.master_host,
            read_by_master,
            values,
            password_file,
            master,
            master_unit,
            metalogger,
            ucarp,
            other_ucarp,
        })
    }

    /// The virtual IP that ucarp's unit has already.
    pub(super) fn configured_vip(&self) -> Option<Ipv4Addr> {
        files::value(&self.values, "VIP")?.parse().ok()
    }

    /// The files that must be the same on all machines. Those that will be written count as there.
    pub(super) fn same_everywhere(&self) -> Vec<PathBuf> {
        let there = |path: &&PathBuf| exists(path) || self.missing.contains(path);
        let mut same: Vec<_> = self.read_by_master.iter().filter(there).cloned().collect();
        same.push(self.password_file.clone());
        same
    }
}

/// Whether a path is there, whatever it is.
fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

fn read(path: &str) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|source| Error::Read { path: path.into(), source })
}

fn addresses() -> Result<Vec<(String, InterfaceAddress)>, Error> {
    let all = address::all()?.into_iter().filter(|(_, entry)| !entry.address.is_loopback());
    Ok(all.map(|(interface, entry)| (interface.name, entry)).collect())
}

fn resolve(name: &str) -> Option<Ipv4Addr> {
    (name, 0).to_socket_addrs().ok()?.find_map(|found| match found.ip() {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    })
}

/// This machine's names, of which none may be another machine's.
fn own_names() -> Vec<String> {
    let host = nix::unistd::gethostname().unwrap_or_default().to_string_lossy().to_lowercase();
    let short = host.split('.').next().unwrap_or_default().to_owned();
    vec![host, short, "localhost".to_owned(), "localhost.localdomain".to_owned()]
}

/// Whether a file is neither there nor in the folder above, where MooseFS looked of old and still does.
fn is_missing(path: &Path) -> bool {
    !exists(&config::first_that_exists(path))
}

/// The configuration at `path` with its text, if it is there and leaves [`files::DELAY`] to the default. One in an old encoding is
/// left alone.
fn undelayed(path: &Path) -> Option<(PathBuf, String)> {
    let text = fs::read_to_string(path).ok()?;
    cfg::value_in(path, files::DELAY).is_none().then(|| (path.to_owned(), text))
}

/// What the unit would say of the password file.
fn password(file: &Path) -> Result<Password, Error> {
    let text = match fs::read(file) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Password::Missing),
        Err(source) => return Err(Error::Read { path: file.to_owned(), source }),
    };
    let failed = |source| Error::Read { path: file.to_owned(), source };
    let status = fs::metadata(file).map_err(failed)?;
    if !status.is_file() || status.mode() & 0o077 != 0 {
        let file = file.display();
        return Ok(Password::Bad(format!("others than root can read {file}, or it is no file; run: chmod 600 {file}")));
    }
    if let Some(path) = changeable(file).map_err(failed)? {
        let path = path.display();
        return Ok(Password::Bad(format!(
            "others than root can change {path}; run: chown root {path} && chmod go-w {path}"
        )));
    }
    let length = text.split(|byte| *byte == b'\n').next().unwrap_or_default().len();
    let file = file.display();
    Ok(if (1..=LONGEST_PASSWORD).contains(&length) {
        Password::Good
    } else {
        Password::Bad(format!(
            "the password in {file} has {length} bytes, and ucarp takes 1 to {LONGEST_PASSWORD}; write another one, the same on all \
             machines"
        ))
    })
}

/// What systemctl answers to a question about a unit; `None` where it cannot be asked.
fn ask(question: &str, unit: &str) -> Option<process::Finished> {
    let systemctl = process::find_program("systemctl")?;
    process::run(&systemctl, &[question, unit], ANSWER, &Cancel::new()).ok()
}

fn is_masked(unit: &str) -> bool {
    ask("is-enabled", unit).is_some_and(|answer| answer.output.trim_start().starts_with("masked"))
}

fn ucarp_unit() -> Result<Unit, Error> {
    if !systemd::is_manager() {
        return Err(Error::NoUnit(UCARP_UNIT.to_owned()));
    }
    let says = |question| ask(question, UCARP_UNIT).is_some_and(|answer| answer.status.success());
    if !says("cat") {
        return Err(Error::NoPackage);
    }
    Ok(Unit { name: UCARP_UNIT.to_owned(), at_boot: says("is-enabled"), runs: says("is-active") })
}
