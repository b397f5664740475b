//! `mfspromote.cfg` and MooseFS's own configuration files.
//!
//! All of them are lines of `KEY = VALUE` (`mfscommon/cfg.c` of MooseFS): `#` in the first column starts a comment,
//! blanks around key and value are dropped, there are no inline comments, the last definition wins. What MooseFS's
//! files say already (data folder, user, ports) is read from there and never repeated in ours. Ours is optional; in
//! it an unknown key or a bad value is an error that names file and line.

use std::fmt::{self, Display};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

mod document;

use document::Document;

/// Where `mfspromote.cfg` is, and `mfspromote-NAME.cfg` for an XPARAM of NAME.
pub(crate) const FOLDER: &str = "/etc/mfs";

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The file is there but cannot be read, or was asked for and is not there.
    #[error("cannot read {}", path.display())]
    Read {
        /// The configuration file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Somebody but root may change what a program running as root obeys.
    #[error("{} can be written by others than root; run: chown root {0} && chmod go-w {0}", path.display())]
    Unsafe {
        /// The configuration file.
        path: PathBuf,
    },
    /// A line that is neither a comment nor `KEY = VALUE`.
    #[error("{} line {line}: not of the form KEY = VALUE: {text:?}", path.display())]
    Syntax {
        /// The configuration file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// The line.
        text: String,
    },
    /// A key that does not exist.
    #[error("{} line {line}: unknown key {key}; the keys are {}", path.display(), KEYS.join(", "))]
    UnknownKey {
        /// The configuration file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// The key.
        key: String,
    },
    /// A value that its key does not take.
    #[error("{place}: {key} = {value:?} is not {wanted}")]
    BadValue {
        /// Where the value was given.
        place: Origin,
        /// The key.
        key: String,
        /// The value as written.
        value: String,
        /// What the key takes.
        wanted: &'static str,
    },
    /// An XPARAM that cannot be part of a file name.
    #[error("the XPARAM {0:?} is not a plain word, so it names no file {FOLDER}/mfspromote-NAME.cfg")]
    BadName(String),
    /// The two daemons keep their files in different folders.
    #[error(
        "mfsmaster keeps its metadata in {}, mfsmetalogger in {}; set the same DATA_PATH in {} and {}",
        master.display(), metalogger.display(), master_cfg.display(), metalogger_cfg.display()
    )]
    TwoFolders {
        /// `DATA_PATH` of the master.
        master: PathBuf,
        /// `DATA_PATH` of the metalogger.
        metalogger: PathBuf,
        /// The master's configuration file.
        master_cfg: PathBuf,
        /// The metalogger's configuration file.
        metalogger_cfg: PathBuf,
    },
}

/// The keys of `mfspromote.cfg`.
pub(crate) const KEYS: &[&str] = &[
    "PREFIX_LENGTH",
    "SETTLE_MARGIN",
    "EPOCH_JUMP",
    "SERVICE_MANAGER",
    "MASTER_SERVICE",
    "METALOGGER_SERVICE",
    "CGISERV_SERVICE",
    "MASTER_CFG",
    "METALOGGER_CFG",
    "START_TIMEOUT",
    "STOP_TIMEOUT",
    "ARCHIVE_FORMAT",
    "ARCHIVE_LEVEL",
    "NOTIFY",
    "PEERS",
    "PING_NODES",
    "ARP_PROBE",
    "FLAP_LIMIT",
    "FLAP_WINDOW",
    "IF_STALE",
];

/// Who starts and stops the daemons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServiceManager {
    /// Found out at run time: systemd, else init scripts, else the daemons' own commands.
    Auto,
    /// `systemctl`.
    Systemd,
    /// `service`, on init scripts.
    Init,
    /// `mfsmaster start` and the like.
    Own,
}

/// How the archive of what was set aside is named and packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ArchiveFormat {
    /// `metabak.<unix time>.tar.xz`
    TarXz,
    /// `metabak.<unix time>.tlz`, as `tar cvaf` names and packs it (lzma).
    Tlz,
}

/// What must be reachable beyond this machine before it serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PingNodes {
    /// One of the chunkservers that the metadata names, or one of these addresses.
    Any(Vec<Ipv4Addr>),
    /// Nothing: the guard is off.
    Off,
}

/// What a machine does whose copy is known to lack changes that were served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IfStale {
    /// Yields once, so that a better machine can win, and serves if it wins again.
    LastResort,
    /// Yields every time.
    Never,
    /// Serves: the guard is off.
    Serve,
}

/// Everything in force, checked.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// Prefix length of the VIP; without one that of the interface's own network.
    pub(crate) prefix_length: Option<u8>,
    /// What the settle time adds to one advertisement interval without a rival.
    pub(crate) settle_margin: Duration,
    /// Added to the version of a promoted history so that every metalogger downloads it afresh; 0 is off.
    pub(crate) epoch_jump: u64,
    /// Who starts and stops the daemons.
    pub(crate) service_manager: ServiceManager,
    /// Name of the master's unit or init script, where it is not one of the known ones.
    pub(crate) master_service: Option<String>,
    /// Name of the metalogger's unit or init script.
    pub(crate) metalogger_service: Option<String>,
    /// Name of the CGI server's unit or init script.
    pub(crate) cgiserv_service: Option<String>,
    /// The master's own configuration file.
    pub(crate) master_cfg: PathBuf,
    /// The metalogger's own configuration file.
    pub(crate) metalogger_cfg: PathBuf,
    /// How long a start may take, besides the time to load the image.
    pub(crate) start_timeout: Duration,
    /// How long a stop may take, besides the time to store the image.
    pub(crate) stop_timeout: Duration,
    /// Name and packing of the archive.
    pub(crate) archive_format: ArchiveFormat,
    /// xz level, 0 (fast) to 9 (small).
    pub(crate) archive_level: u32,
    /// The command that is told how runs end.
    pub(crate) notify: Option<PathBuf>,
    /// Real addresses of the machines that may run a master, besides those heard advertising.
    pub(crate) peers: Vec<Ipv4Addr>,
    /// What must be reachable before this machine serves.
    pub(crate) ping_nodes: PingNodes,
    /// Whether another machine that answers for the VIP keeps this one from serving.
    pub(crate) arp_probe: bool,
    /// How many promotions and yields within [`Config::flap_window`] are too many.
    pub(crate) flap_limit: usize,
    /// See [`Config::flap_limit`].
    pub(crate) flap_window: Duration,
    /// What this machine does if its copy is known to be behind.
    pub(crate) if_stale: IfStale,
    /// The folder of images and change logs; from MooseFS's own file.
    pub(crate) data_path: PathBuf,
    /// The user the daemons run as; from MooseFS's own file.
    pub(crate) working_user: String,
    /// The group the daemons run as; from MooseFS's own file, else the user's own.
    pub(crate) working_group: Option<String>,
    /// Where the master listens for clients (0.0.0.0: on every address); from MooseFS's own file.
    pub(crate) client_host: Ipv4Addr,
    /// The port the master listens on for clients; from MooseFS's own file.
    pub(crate) client_port: u16,
    /// The name under which this machine's metalogger looks for the master; from MooseFS's own file.
    pub(crate) master_host: String,
    /// The port the master listens on for chunkservers; from MooseFS's own file.
    pub(crate) chunkserver_port: u16,
    /// Every value with the place it came from, in the order of [`KEYS`] and then MooseFS's.
    pub(crate) in_force: Vec<Setting>,
}

/// One value in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    /// The key.
    pub(crate) key: String,
    /// The value as text.
    pub(crate) value: String,
    /// Where it came from.
    pub(crate) origin: Origin,
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Nothing was configured.
    Default,
    /// A line of a file.
    File {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
    },
}

impl Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{} line {line}", path.display()),
        }
    }
}

impl Config {
    /// The configuration for an XPARAM of ucarp: `mfspromote-NAME.cfg`, or `mfspromote.cfg` without one.
    pub(crate) fn for_xparam(xparam: Option<&str>) -> Result<Self, Error> {
        match xparam {
            None => Self::optional(&Path::new(FOLDER).join("mfspromote.cfg")),
            Some(name) => Self::load(&path_for_xparam(name)?),
        }
    }

    /// The configuration in the file at `path`, which must exist.
    pub(crate) fn load(path: &Path) -> Result<Self, Error> {
        Self::from_document(&Document::load(path)?)
    }

    /// What is in force where `mfspromote.cfg` is missing or cannot be used: defaults, with MooseFS's own files as
    /// far as they can be read. A demotion works with this when it has to.
    ///
    /// # Panics
    /// Never: the defaults are valid values.
    pub(crate) fn fallback() -> Self {
        let nothing = Document::default();
        Self::from_document(&nothing)
            .or_else(|_| Self::assemble(&nothing, &nothing, &nothing))
            .expect("the defaults are valid")
    }

    fn optional(path: &Path) -> Result<Self, Error> {
        match Document::load(path) {
            Err(Error::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                Self::from_document(&Document::default())
            }
            document => Self::from_document(&document?),
        }
    }

    fn from_document(ours: &Document) -> Result<Self, Error> {
        ours.check_keys()?;
        let beside = |key: &str, default: &str| {
            let path = ours.get(key).map_or(Path::new(FOLDER).join(default), |entry| PathBuf::from(&entry.value));
            match Document::load_lenient(&path) {
                // /etc/mfs is empty on a fresh Debian installation: the daemons run on their defaults.
                Err(Error::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                    Ok(Document::default())
                }
                document => document,
            }
        };
        let master = beside("MASTER_CFG", "mfsmaster.cfg")?;
        let metalogger = beside("METALOGGER_CFG", "mfsmetalogger.cfg")?;
        Self::assemble(ours, &master, &metalogger)
    }

    fn assemble(ours: &Document, master: &Document, metalogger: &Document) -> Result<Self, Error> {
        let mut from = Collector::default();
        let seconds = "a number of seconds";
        let duration = |text: &str| text.parse().ok().and_then(|s: f64| Duration::try_from_secs_f64(s).ok());
        let name = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let path = |text: &str| text.starts_with('/').then(|| PathBuf::from(text));
        let config = Self {
            prefix_length: from.optional(ours, "PREFIX_LENGTH", "a prefix length from 1 to 32", |t| {
                t.parse().ok().filter(|length| (1..=32).contains(length))
            })?,
            settle_margin: from.value(ours, "SETTLE_MARGIN", "0.25", seconds, duration)?,
            epoch_jump: from.value(ours, "EPOCH_JUMP", "1000000", "a number of versions", |t| t.parse().ok())?,
            service_manager: from.value(
                ours,
                "SERVICE_MANAGER",
                "auto",
                "one of auto, systemd, init, own",
                service_manager,
            )?,
            master_service: from.optional(ours, "MASTER_SERVICE", "a name", name)?,
            metalogger_service: from.optional(ours, "METALOGGER_SERVICE", "a name", name)?,
            cgiserv_service: from.optional(ours, "CGISERV_SERVICE", "a name", name)?,
            master_cfg: from.value(ours, "MASTER_CFG", "/etc/mfs/mfsmaster.cfg", "a full path", path)?,
            metalogger_cfg: from.value(ours, "METALOGGER_CFG", "/etc/mfs/mfsmetalogger.cfg", "a full path", path)?,
            start_timeout: from.value(ours, "START_TIMEOUT", "60", seconds, duration)?,
            stop_timeout: from.value(ours, "STOP_TIMEOUT", "60", seconds, duration)?,
            archive_format: from.value(ours, "ARCHIVE_FORMAT", "tar.xz", "one of tar.xz, tlz", archive_format)?,
            archive_level: from.value(ours, "ARCHIVE_LEVEL", "0", "a level from 0 to 9", |t| {
                t.parse().ok().filter(|level| *level <= 9)
            })?,
            notify: from.optional(ours, "NOTIFY", "the full path of a command, without arguments", path)?,
            peers: from.value(ours, "PEERS", "", "a list of IPv4 addresses", addresses)?,
            ping_nodes: from.value(ours, "PING_NODES", "", "a list of IPv4 addresses, or none", |t| match t {
                "none" => Some(PingNodes::Off),
                list => addresses(list).map(PingNodes::Any),
            })?,
            arp_probe: from.value(ours, "ARP_PROBE", "yes", "yes or no", yes_or_no)?,
            flap_limit: from
                .value(ours, "FLAP_LIMIT", "8", "a number above 1", |t| t.parse().ok().filter(|limit| *limit > 1))?,
            flap_window: from.value(ours, "FLAP_WINDOW", "600", seconds, duration)?,
            if_stale: from.value(ours, "IF_STALE", "last-resort", "one of last-resort, never, serve", if_stale)?,
            data_path: from.value(master, "DATA_PATH", "/var/lib/mfs", "a full path", path)?,
            working_user: from.value(master, "WORKING_USER", "mfs", "a user name", |t| Some(t.to_owned()))?,
            working_group: from.optional(master, "WORKING_GROUP", "a group name", name)?,
            client_host: from.value(
                master,
                either(master, "MATOCL_LISTEN_HOST", "MATOCU_LISTEN_HOST"),
                "*",
                "an IPv4 address or *",
                |t| match t {
                    "*" => Some(Ipv4Addr::UNSPECIFIED),
                    _ => t.parse().ok(),
                },
            )?,
            client_port: from.value(
                master,
                either(master, "MATOCL_LISTEN_PORT", "MATOCU_LISTEN_PORT"),
                "9421",
                "a port",
                |t| t.parse().ok(),
            )?,
            master_host: from
                .value(metalogger, "MASTER_HOST", "mfsmaster", "a name or an address", |t| Some(t.to_owned()))?,
            chunkserver_port: from.value(master, "MATOCS_LISTEN_PORT", "9420", "a port", |t| t.parse().ok())?,
            in_force: from.settings,
        };
        let ml_path = metalogger.get("DATA_PATH").map_or(Path::new("/var/lib/mfs"), |entry| Path::new(&entry.value));
        if ml_path != config.data_path {
            return Err(Error::TwoFolders {
                master: config.data_path,
                metalogger: ml_path.to_owned(),
                master_cfg: config.master_cfg,
                metalogger_cfg: config.metalogger_cfg,
            });
        }
        Ok(config)
    }
}

/// A value in one of MooseFS's own files that decides nothing here; `None` where the file or the key is missing.
pub(crate) fn value_in(path: &Path, key: &str) -> Option<String> {
    Some(Document::load_lenient(path).ok()?.get(key)?.value.clone())
}

/// The file that an XPARAM of `name` stands for.
pub(crate) fn path_for_xparam(name: &str) -> Result<PathBuf, Error> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
        return Err(Error::BadName(name.to_owned()));
    }
    Ok(Path::new(FOLDER).join(format!("mfspromote-{name}.cfg")))
}

/// The key that is given, else the newer one: until 1.6.19 they begin with `MATOCU`.
fn either(master: &Document, key: &'static str, old: &'static str) -> &'static str {
    if master.get(key).is_none() && master.get(old).is_some() { old } else { key }
}

fn service_manager(text: &str) -> Option<ServiceManager> {
    Some(match text {
        "auto" => ServiceManager::Auto,
        "systemd" => ServiceManager::Systemd,
        "init" => ServiceManager::Init,
        "own" => ServiceManager::Own,
        _ => return None,
    })
}

/// Separated by commas, blanks, or both; the empty list is one.
fn addresses(text: &str) -> Option<Vec<Ipv4Addr>> {
    let words = text.split(|c: char| c == ',' || c.is_ascii_whitespace()).filter(|word| !word.is_empty());
    words.map(|word| word.parse().ok()).collect()
}

fn yes_or_no(text: &str) -> Option<bool> {
    match text {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

fn if_stale(text: &str) -> Option<IfStale> {
    Some(match text {
        "last-resort" => IfStale::LastResort,
        "never" => IfStale::Never,
        "serve" => IfStale::Serve,
        _ => return None,
    })
}

fn archive_format(text: &str) -> Option<ArchiveFormat> {
    Some(match text {
        "tar.xz" => ArchiveFormat::TarXz,
        "tlz" => ArchiveFormat::Tlz,
        _ => return None,
    })
}

/// Reads values out of documents and remembers where each came from.
#[derive(Default)]
struct Collector {
    settings: Vec<Setting>,
}

impl Collector {
    /// The value of `key` in `document`, else `default`, parsed.
    fn value<T>(
        &mut self,
        document: &Document,
        key: &str,
        default: &str,
        wanted: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<T, Error> {
        let (text, origin) = document.get(key).map_or((default, Origin::Default), |entry| {
            (entry.value.as_str(), Origin::File { path: document.path.clone(), line: entry.line })
        });
        let Some(value) = parse(text) else {
            return Err(Error::BadValue { place: origin, key: key.to_owned(), value: text.to_owned(), wanted });
        };
        self.settings.push(Setting { key: key.to_owned(), value: text.to_owned(), origin });
        Ok(value)
    }

    /// The value of `key` in `document`, parsed; `None` if it is not given.
    fn optional<T>(
        &mut self,
        document: &Document,
        key: &str,
        wanted: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        if document.get(key).is_some() {
            return self.value(document, key, "", wanted, parse).map(Some);
        }
        self.settings.push(Setting { key: key.to_owned(), value: String::new(), origin: Origin::Default });
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
