//! `mfspromote.cfg`, and the values that are read from MooseFS's own configuration files.
//!
//! Values that MooseFS's files have (data folder, user, ports) are read from there and never repeated in ours. Our file
//! is optional; an unknown key or a bad value in it is an error that names file and line. One table, [`KEYS`], has
//! every key of ours with its default and the values it takes; a new key is a row there, a field of [`Config`], and a
//! row in `docs/configuration.md`.

use std::fmt::{self, Display};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use crate::moosefs::cfg::{self, Document, Entry};
use crate::moosefs::services::{self, ServiceManager};

/// The folder of `mfspromote.cfg`, and of `mfspromote-NAME.cfg` for an XPARAM of NAME.
pub(crate) const FOLDER: &str = "/etc/mfs";

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A file cannot be used at all.
    #[error(transparent)]
    File(#[from] cfg::Error),
    /// A key that does not exist.
    #[error("{} line {line}: unknown key {key}; remove the line or use one of {}", path.display(), names(KEYS))]
    UnknownKey {
        /// The configuration file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// The key.
        key: String,
    },
    /// A value that its key does not take.
    #[error("{place}: {key} = {value:?} is not valid; set it to {takes}")]
    BadValue {
        /// Where the value was given.
        place: Origin,
        /// The key.
        key: &'static str,
        /// The value as written.
        value: String,
        /// The values that the key takes.
        takes: &'static str,
    },
    /// An XPARAM that cannot be part of a file name.
    #[error(
        "ucarp passed the XPARAM {0:?}, which cannot be part of a file name; start it with -x NAME for \
         {FOLDER}/mfspromote-NAME.cfg (letters, digits, '-', '_' and '.'), or without -x for {FOLDER}/mfspromote.cfg"
    )]
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

/// A key, as errors and `--check-config` show it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    /// The value without configuration; empty where that is none, or one that is found at run time.
    pub(crate) default: &'static str,
    /// The values it takes.
    pub(crate) takes: &'static str,
    /// Its meaning, on one line.
    pub(crate) help: &'static str,
}

const fn key(name: &'static str, default: &'static str, takes: &'static str, help: &'static str) -> Key {
    Key { name, default, takes, help }
}

const SECONDS: &str = "a number of seconds";
const NAME: &str = "a name";
const PATH: &str = "a full path";
const PORT: &str = "a port";
const ADDRESS: &str = "an IPv4 address or *";
const ADDRESSES: &str = "a list of IPv4 addresses";

/// The keys of `mfspromote.cfg`.
#[rustfmt::skip] // a table
pub(crate) const KEYS: &[Key] = &[
    key("PREFIX_LENGTH", "", "a prefix length from 1 to 32", "prefix length of the virtual IP"),
    key("SETTLE_MARGIN", "0.25", SECONDS, "how long to wait for another MASTER, besides one advertisement interval"),
    key("SERVICE_MANAGER", "auto", "one of auto, systemd, init, own", "how the daemons are started and stopped"),
    key("MASTER_SERVICE", "", NAME, "the master's unit or init script"),
    key("METALOGGER_SERVICE", "", NAME, "the metalogger's unit or init script"),
    key("CGISERV_SERVICE", "", NAME, "the CGI server's unit or init script"),
    key("MASTER_CFG", "/etc/mfs/mfsmaster.cfg", PATH, "the master's own configuration file"),
    key("METALOGGER_CFG", "/etc/mfs/mfsmetalogger.cfg", PATH, "the metalogger's own configuration file"),
    key("START_TIMEOUT", "60", SECONDS, "how long a start may take without progress"),
    key("STOP_TIMEOUT", "60", SECONDS, "how long a stop may take without progress"),
    key("ARCHIVE_FORMAT", "tar.xz", "one of tar.xz, tlz", "form of the archives of replaced files"),
    key("ARCHIVE_LEVEL", "0", "a level from 0 to 9", "xz level of the archives, 0 (fast) to 9 (small)"),
    key("NOTIFY", "", "the full path of a command, without arguments", "command that is run with the outcome of runs"),
    key("PEERS", "", ADDRESSES, "other machines that may run a master, besides those seen before"),
    key("PING_NODES", "", "a list of IPv4 addresses, or none", "machines that prove that the network works"),
    key("ARP_PROBE", "yes", "yes or no", "whether a duplicate of the virtual IP keeps this machine from serving"),
    key("FLAP_LIMIT", "8", "a number above 1", "role changes within FLAP_WINDOW that stop ucarp here"),
    key("FLAP_WINDOW", "600", SECONDS, "the time in which FLAP_LIMIT counts"),
    key("IF_STALE", "last-resort", "one of last-resort, never, serve", "whether a copy that lacks changes is served"),
];

/// Keys of earlier releases that mean nothing any more, with the reason. A file that has one can still be used.
const RETIRED: &[(&str, &str)] = &[("EPOCH_JUMP", "the step of the versions is fixed")];

/// The keys that are read from MooseFS's files.
#[rustfmt::skip] // a table
const MOOSEFS_KEYS: &[Key] = &[
    key("DATA_PATH", "/var/lib/mfs", PATH, "folder of images and change logs"),
    key("WORKING_USER", "mfs", "a user name", "user of the daemons"),
    key("WORKING_GROUP", "", "a group name", "group of the daemons"),
    key("MATOCL_LISTEN_HOST", "*", ADDRESS, "address on which the master listens for clients"),
    key("MATOCU_LISTEN_HOST", "*", ADDRESS, "address on which the master listens for clients"),
    key("MATOCL_LISTEN_PORT", "9421", PORT, "port on which the master listens for clients"),
    key("MATOCU_LISTEN_PORT", "9421", PORT, "port on which the master listens for clients"),
    key("MASTER_HOST", "mfsmaster", "a name or an address", "where the metalogger looks for the master"),
    key("MATOCS_LISTEN_PORT", "9420", PORT, "port on which the master listens for chunkservers"),
    key("MATOML_LISTEN_PORT", "9419", PORT, "port on which the master listens for metaloggers"),
];

fn names(keys: &[Key]) -> String {
    keys.iter().map(|key| key.name).collect::<Vec<_>>().join(", ")
}

/// How the archive of replaced files is named and packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ArchiveFormat {
    /// `metabak.<unix time>.tar.xz`
    TarXz,
    /// `metabak.<unix time>.tlz`, as `tar cvaf` names and packs it (lzma).
    Tlz,
}

/// Machines of which one must answer before this machine serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PingNodes {
    /// One of the chunkservers that the metadata names, or one of these addresses.
    Any(Vec<Ipv4Addr>),
    /// Nothing: the check is off.
    Off,
}

/// The choice of a machine whose copy is known to lack changes that were served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IfStale {
    /// It steps down once, so that a machine with a better copy can win, and serves if it wins again.
    LastResort,
    /// It steps down every time.
    Never,
    /// It serves: the check is off.
    Serve,
}

/// All values in force, checked.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// Prefix length of the VIP; without one that of the interface's own network.
    pub(crate) prefix_length: Option<u8>,
    /// The settle time is one advertisement interval without another MASTER, and this.
    pub(crate) settle_margin: Duration,
    /// How the daemons are started and stopped.
    pub(crate) services: services::Settings,
    /// The metalogger's own configuration file.
    pub(crate) metalogger_cfg: PathBuf,
    /// Name and packing of the archive.
    pub(crate) archive_format: ArchiveFormat,
    /// xz level, 0 (fast) to 9 (small).
    pub(crate) archive_level: u32,
    /// The command that is run with the outcome of runs.
    pub(crate) notify: Option<PathBuf>,
    /// Real addresses of the machines that may run a master, besides those that advertised the VIP.
    pub(crate) peers: Vec<Ipv4Addr>,
    /// Machines of which one must answer before this machine serves.
    pub(crate) ping_nodes: PingNodes,
    /// Whether another machine that answers ARP for the VIP keeps this one from serving.
    pub(crate) arp_probe: bool,
    /// How many role changes within [`Config::flap_window`] are too many.
    pub(crate) flap_limit: usize,
    /// See [`Config::flap_limit`].
    pub(crate) flap_window: Duration,
    /// The choice of this machine if its copy is known to be stale.
    pub(crate) if_stale: IfStale,
    /// The folder of images and change logs; from MooseFS's own file.
    pub(crate) data_path: PathBuf,
    /// The user of the daemons; from MooseFS's own file.
    pub(crate) working_user: String,
    /// The group of the daemons; from MooseFS's own file, else the user's own.
    pub(crate) working_group: Option<String>,
    /// Where the master listens for clients (0.0.0.0: on every address); from MooseFS's own file.
    pub(crate) client_host: Ipv4Addr,
    /// The port on which the master listens for clients; from MooseFS's own file.
    pub(crate) client_port: u16,
    /// The name under which this machine's metalogger looks for the master; from MooseFS's own file.
    pub(crate) master_host: String,
    /// The port on which the master listens for chunkservers; from MooseFS's own file.
    pub(crate) chunkserver_port: u16,
    /// The port on which the master listens for metaloggers; from MooseFS's own file.
    pub(crate) metalogger_port: u16,
    /// Every value with the place it came from, in the order of [`KEYS`] and then MooseFS's.
    pub(crate) in_force: Vec<Setting>,
}

/// One value in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    /// The key.
    pub(crate) key: &'static Key,
    /// The value as text.
    pub(crate) value: String,
    /// Where it came from.
    pub(crate) origin: Origin,
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// No file.
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
    /// Where the master of this machine is asked: where it listens on all addresses, on one that is never removed.
    pub(crate) fn own_master(&self) -> SocketAddrV4 {
        let host = if self.client_host.is_unspecified() { Ipv4Addr::LOCALHOST } else { self.client_host };
        SocketAddrV4::new(host, self.client_port)
    }

    /// The configuration for an XPARAM of ucarp: `mfspromote-NAME.cfg`, which must exist, or `mfspromote.cfg` without
    /// one.
    pub(crate) fn for_xparam(xparam: Option<&str>) -> Result<Self, Error> {
        match xparam {
            None => {
                Self::from_document(&load_if_there(&Path::new(FOLDER).join("mfspromote.cfg"), Document::load_strict)?)
            }
            Some(name) => Self::load(&path_for_xparam(name)?),
        }
    }

    /// The configuration in the file at `path`, which must exist.
    pub(crate) fn load(path: &Path) -> Result<Self, Error> {
        Self::from_document(&Document::load_strict(path)?)
    }

    /// The configuration of a machine where `mfspromote.cfg` is missing or cannot be used: the defaults, with MooseFS's
    /// own files where they can be read. A demotion works with this when it has to.
    ///
    /// # Panics
    /// Never: the defaults are valid values.
    pub(crate) fn fallback() -> Self {
        let nothing = Document::default();
        Self::from_document(&nothing)
            .or_else(|_| Self::assemble(&nothing, &nothing, &nothing))
            .expect("the defaults are valid")
    }

    fn from_document(ours: &Document) -> Result<Self, Error> {
        check_keys(ours)?;
        // /etc/mfs is empty on a fresh Debian installation: the daemons run on their defaults.
        let theirs = |name| {
            let path = ours.get(name).map_or(row(name).default, |entry| entry.value.as_str());
            load_if_there(Path::new(path), Document::load)
        };
        Self::assemble(ours, &theirs("MASTER_CFG")?, &theirs("METALOGGER_CFG")?)
    }

    fn assemble(ours: &Document, master: &Document, metalogger: &Document) -> Result<Self, Error> {
        let mut read = Reader::default();
        let client_host = given(master, "MATOCL_LISTEN_HOST", "MATOCU_LISTEN_HOST");
        let client_port = given(master, "MATOCL_LISTEN_PORT", "MATOCU_LISTEN_PORT");
        let config = Self {
            prefix_length: read.optional(ours, "PREFIX_LENGTH", |t| number(t).filter(|n| (1..=32).contains(n)))?,
            settle_margin: read.value(ours, "SETTLE_MARGIN", seconds)?,
            services: services::Settings {
                manager: read.value(ours, "SERVICE_MANAGER", |t| match t {
                    "auto" => Some(ServiceManager::Auto),
                    "systemd" => Some(ServiceManager::Systemd),
                    "init" => Some(ServiceManager::Init),
                    "own" => Some(ServiceManager::Own),
                    _ => None,
                })?,
                master: read.optional(ours, "MASTER_SERVICE", name)?,
                metalogger: read.optional(ours, "METALOGGER_SERVICE", name)?,
                cgiserv: read.optional(ours, "CGISERV_SERVICE", name)?,
                master_cfg: read.value(ours, "MASTER_CFG", path)?,
                start_timeout: read.value(ours, "START_TIMEOUT", seconds)?,
                stop_timeout: read.value(ours, "STOP_TIMEOUT", seconds)?,
            },
            metalogger_cfg: read.value(ours, "METALOGGER_CFG", path)?,
            archive_format: read.value(ours, "ARCHIVE_FORMAT", |t| match t {
                "tar.xz" => Some(ArchiveFormat::TarXz),
                "tlz" => Some(ArchiveFormat::Tlz),
                _ => None,
            })?,
            archive_level: read.value(ours, "ARCHIVE_LEVEL", |t| number(t).filter(|level| *level <= 9))?,
            notify: read.optional(ours, "NOTIFY", path)?,
            peers: read.value(ours, "PEERS", addresses)?,
            ping_nodes: read.value(ours, "PING_NODES", |t| match t {
                "none" => Some(PingNodes::Off),
                list => addresses(list).map(PingNodes::Any),
            })?,
            arp_probe: read.value(ours, "ARP_PROBE", |t| match t {
                "yes" => Some(true),
                "no" => Some(false),
                _ => None,
            })?,
            flap_limit: read.value(ours, "FLAP_LIMIT", |t| number(t).filter(|limit| *limit > 1))?,
            flap_window: read.value(ours, "FLAP_WINDOW", seconds)?,
            if_stale: read.value(ours, "IF_STALE", |t| match t {
                "last-resort" => Some(IfStale::LastResort),
                "never" => Some(IfStale::Never),
                "serve" => Some(IfStale::Serve),
                _ => None,
            })?,
            data_path: read.value(master, "DATA_PATH", path)?,
            working_user: read.value(master, "WORKING_USER", text)?,
            working_group: read.optional(master, "WORKING_GROUP", name)?,
            client_host: read.value(master, client_host, |t| match t {
                "*" => Some(Ipv4Addr::UNSPECIFIED),
                _ => t.parse().ok(),
            })?,
            client_port: read.value(master, client_port, number)?,
            master_host: read.value(metalogger, "MASTER_HOST", text)?,
            chunkserver_port: read.value(master, "MATOCS_LISTEN_PORT", number)?,
            metalogger_port: read.value(master, "MATOML_LISTEN_PORT", number)?,
            in_force: read.in_order(),
        };
        let data_path = |document: &Document| {
            let given = document.get("DATA_PATH").map(|entry| entry.value.as_str());
            PathBuf::from(given.unwrap_or(row("DATA_PATH").default))
        };
        let metalogger = data_path(metalogger);
        if metalogger != config.data_path {
            return Err(Error::TwoFolders {
                master: config.data_path,
                metalogger,
                master_cfg: config.services.master_cfg,
                metalogger_cfg: config.metalogger_cfg,
            });
        }
        Ok(config)
    }
}

/// The file that an XPARAM of `name` stands for.
pub(crate) fn path_for_xparam(name: &str) -> Result<PathBuf, Error> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
        return Err(Error::BadName(name.to_owned()));
    }
    Ok(Path::new(FOLDER).join(format!("mfspromote-{name}.cfg")))
}

/// Loads the file at `path`; a missing one is empty.
fn load_if_there(path: &Path, load: fn(&Path) -> Result<Document, cfg::Error>) -> Result<Document, cfg::Error> {
    load(path).or_else(|e| if e.is_missing() { Ok(Document::default()) } else { Err(e) })
}

fn check_keys(ours: &Document) -> Result<(), Error> {
    let retired = |entry: &Entry| RETIRED.iter().find(|(key, _)| *key == entry.key);
    for (entry, (key, why)) in ours.entries.iter().filter_map(|entry| Some((entry, retired(entry)?))) {
        log::warn!("{} line {}: {key} is ignored, {why}; remove the line", ours.path.display(), entry.line);
    }
    let known = |entry: &Entry| KEYS.iter().any(|key| key.name == entry.key) || retired(entry).is_some();
    match ours.entries.iter().find(|entry| !known(entry)) {
        Some(entry) => Err(Error::UnknownKey { path: ours.path.clone(), line: entry.line, key: entry.key.clone() }),
        None => Ok(()),
    }
}

/// The newer of two names of a key, unless only the old one is given: until 1.6.19 they begin with `MATOCU`.
fn given(master: &Document, key: &'static str, old: &'static str) -> &'static str {
    if master.get(key).is_none() && master.get(old).is_some() { old } else { key }
}

/// The row of the key `name`, and its place among all rows.
fn place(name: &str) -> (usize, &'static Key) {
    let mut rows = KEYS.iter().chain(MOOSEFS_KEYS).enumerate();
    rows.find(|(_, key)| key.name == name).expect("every key has a row")
}

fn row(name: &str) -> &'static Key {
    place(name).1
}

fn seconds(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.parse().ok()?).ok()
}

fn number<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

/// Any text: this program need not be stricter than MooseFS.
#[expect(clippy::unnecessary_wraps, reason = "as all that read a value")]
fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn name(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn path(text: &str) -> Option<PathBuf> {
    text.starts_with('/').then(|| PathBuf::from(text))
}

/// Separated by commas, blanks, or both; the empty list is one.
fn addresses(text: &str) -> Option<Vec<Ipv4Addr>> {
    let words = text.split(|c: char| c == ',' || c.is_ascii_whitespace()).filter(|word| !word.is_empty());
    words.map(number).collect()
}

/// Reads values out of documents and keeps where each came from.
#[derive(Default)]
struct Reader {
    settings: Vec<Setting>,
}

impl Reader {
    /// The value of the key `name` in `document`, else its default, parsed.
    fn value<T>(&mut self, document: &Document, name: &str, parse: impl Fn(&str) -> Option<T>) -> Result<T, Error> {
        let key = row(name);
        let (value, origin) = match document.get(name) {
            Some(entry) => (entry.value.clone(), Origin::File { path: document.path.clone(), line: entry.line }),
            None => (key.default.to_owned(), Origin::Default),
        };
        let Some(parsed) = parse(&value) else {
            return Err(Error::BadValue { place: origin, key: key.name, value, takes: key.takes });
        };
        self.settings.push(Setting { key, value, origin });
        Ok(parsed)
    }

    /// The same where there is no default: `None` if it is not given.
    fn optional<T>(
        &mut self,
        document: &Document,
        name: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let given = document.get(name).is_some();
        self.value(document, name, |text| if given { parse(text).map(Some) } else { Some(None) })
    }

    /// All that was read, in the order of the tables.
    fn in_order(mut self) -> Vec<Setting> {
        self.settings.sort_by_key(|setting| place(setting.key.name).0);
        self.settings
    }
}

#[cfg(test)]
mod tests;
