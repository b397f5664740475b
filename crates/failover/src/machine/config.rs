//! `mfspromote.cfg`, and the values that are read from MooseFS's own configuration files.
//!
//! Values that MooseFS's files have (data folder, user, ports) are read from there and never repeated in ours. Our file
//! is optional; an unknown key or a bad value in it is an error that names file and line. One table, [`KEYS`], has
//! every key of ours with its default and the values it takes; a new key is a row there, a field of [`Config`], and a
//! row in `docs/configuration.md`.
//!
//! What MooseFS takes as a value is taken here, and means the same: a user `#420`, a port that is the name of a service, a
//! host by its name. A demotion works with what can be read of broken files ([`Config::salvage`]), but never with another
//! data folder than they name.

use std::fmt::{self, Display};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use crate::instance::{BadName, Instance};
use crate::moosefs::MASTER_CFG;
use crate::moosefs::cfg::{self, Document, Entry};
use crate::moosefs::services::{self, ServiceManager};
use crate::sys::folder::{Folder, account, lead_to_one};
use crate::sys::logging::chain;
use crate::sys::process;
use crate::sys::text::strtoul;

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
    /// An XPARAM that names no instance.
    #[error(transparent)]
    BadName(#[from] BadName),
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
const PORT: &str = "a port from 1 to 65535, or the name of a TCP service in /etc/services";
const ADDRESS: &str = "an IPv4 address, a name that resolves to one, or *";
const USER: &str = "a user name, or # and the number of a user";
const ADDRESSES: &str = "a list of IPv4 addresses";

/// The user of the daemons where no file names one: that of the packages.
const DEFAULT_USER: &str = "mfs";
/// The same where MooseFS was built from source and its user not chosen.
const SOURCE_USER: &str = "nobody";
/// Names and ports of services.
const SERVICES: &str = "/etc/services";
/// How long the resolver may take for the name of a host.
const RESOLVE: Duration = Duration::from_secs(1);

/// The keys of `mfspromote.cfg`.
#[rustfmt::skip] // a table
pub(crate) const KEYS: &[Key] = &[
    key("PREFIX_LENGTH", "", "a prefix length from 1 to 32", "prefix length of the virtual IP"),
    key("SETTLE_MARGIN", "0.25", SECONDS, "how long to wait for another MASTER, besides one advertisement interval"),
    key("SERVICE_MANAGER", "auto", "one of auto, systemd, init, own", "how the daemons are started and stopped"),
    key("MASTER_SERVICE", "", NAME, "the master's unit or init script"),
    key("METALOGGER_SERVICE", "", NAME, "the metalogger's unit or init script"),
    key("CGISERV_SERVICE", "", NAME, "the CGI server's unit or init script"),
    key("MASTER_CFG", MASTER_CFG, PATH, "the master's own configuration file"),
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
    key("STANDBY", "auto", "one of auto, hot, cold", "whether a standby keeps a master that has loaded its copy"),
    key("IF_STALE", "last-resort", "one of last-resort, never, serve", "whether a copy that lacks changes is served"),
];

/// Keys of earlier releases that mean nothing any more, with the reason. A file that has one can still be used.
const RETIRED: &[(&str, &str)] = &[("EPOCH_JUMP", "the step of the versions is fixed")];

/// The keys that are read from MooseFS's files.
#[rustfmt::skip] // a table
const MOOSEFS_KEYS: &[Key] = &[
    key("DATA_PATH", "/var/lib/mfs", PATH, "folder of images and change logs"),
    key("WORKING_USER", DEFAULT_USER, USER, "user of the daemons"),
    key("WORKING_GROUP", "", "a group name, # and the number of a group, or nothing", "group of the daemons"),
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

/// Whether a machine keeps a master that has loaded its copy while it stands by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StandbyMode {
    /// Where the release and the memory allow it.
    Auto,
    /// It shall: where it cannot, that is worth a warning.
    Hot,
    /// No.
    Cold,
}

/// All values in force, checked.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// Whose configuration it is.
    pub(crate) instance: Instance,
    /// Prefix length of the VIP; without one that of the interface's own network.
    pub(crate) prefix_length: Option<u8>,
    /// The settle time is one advertisement interval without another MASTER, and this.
    pub(crate) settle_margin: Duration,
    /// How the daemons are started and stopped.
    pub(crate) services: services::Settings,
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
    /// Whether this machine keeps a master that has loaded its copy while it stands by.
    pub(crate) standby: StandbyMode,
    /// The choice of this machine if its copy is known to be stale.
    pub(crate) if_stale: IfStale,
    /// The folder of images and change logs; from MooseFS's own file. Empty if that file cannot be read: see
    /// [`Config::salvage`].
    pub(crate) data_path: PathBuf,
    /// The user of the daemons, by name or as `#420`; from MooseFS's own file.
    pub(crate) working_user: String,
    /// The group of the daemons, in the same forms; from MooseFS's own file, else the user's own.
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
    /// The files that a master reads when it starts, besides its metadata; from MooseFS's own file.
    pub(crate) read_by_master: Vec<PathBuf>,
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

    /// The configuration for an XPARAM of ucarp.
    pub(crate) fn for_xparam(xparam: Option<&str>) -> Result<Self, Error> {
        Self::of(&Instance::of_xparam(xparam)?)
    }

    /// The configuration of an instance: its file must exist if it has a name.
    pub(crate) fn of(instance: &Instance) -> Result<Self, Error> {
        Self::load_named(instance.named_file().as_deref())
    }

    /// The configuration in the file at `path`, which must exist.
    pub(crate) fn load(path: &Path) -> Result<Self, Error> {
        Self::load_named(Some(path))
    }

    fn load_named(path: Option<&Path>) -> Result<Self, Error> {
        let ours = ours(path, Document::load_strict)?;
        check_keys(&ours)?;
        let (master, metalogger) = (theirs(&ours, "MASTER_CFG")?, theirs(&ours, "METALOGGER_CFG")?);
        let config = Self::assemble(&ours, &master, &metalogger, &mut Reader::default())?;
        Ok(Self { instance: path.map(Instance::of_file).unwrap_or_default(), ..config })
    }

    /// What can be read of a configuration that cannot be used, as [`Config::salvage`]; `None` for an instance with a name of
    /// which the data folder is not known: any master that runs may be another instance's.
    pub(crate) fn salvage_for(path: Option<&Path>) -> Option<Self> {
        let config = Self::salvage(path);
        (config.instance.name().is_none() || config.knows_data_folder()).then_some(config)
    }

    /// What can be read of a configuration that cannot be used: each good value, and defaults for the others. A demotion
    /// works with this. Where a file cannot be read that names the data folder, or may name another file that does, or where
    /// the folder is no valid value, none is known: its path is empty, and nothing can be opened there.
    ///
    /// # Panics
    /// Never: the defaults are valid values.
    pub(crate) fn salvage(path: Option<&Path>) -> Self {
        let read = |name, document: Result<Document, cfg::Error>| match document {
            Ok(document) => (document, true),
            Err(e) => {
                log::debug!("{name}: {}", chain(&e));
                (Document::default(), false)
            }
        };
        let (ours, ours_is_known) = read("mfspromote.cfg", ours(path, Document::load));
        let (master, master_is_known) = read("MASTER_CFG", theirs(&ours, "MASTER_CFG"));
        let (metalogger, _) = read("METALOGGER_CFG", theirs(&ours, "METALOGGER_CFG"));
        let mut reader = Reader { salvages: true, ..Reader::default() };
        let mut config = Self::assemble(&ours, &master, &metalogger, &mut reader).expect("the defaults are valid");
        config.instance = path.map(Instance::of_file).unwrap_or_default();
        if !ours_is_known || reader.bad.contains(&"MASTER_CFG") {
            config.services.master_cfg = PathBuf::new();
        }
        if !config.knows_master_cfg() || !master_is_known || reader.bad.contains(&"DATA_PATH") {
            config.data_path = PathBuf::new();
        }
        config
    }

    /// Whether the files say which one is the master's own; see [`Config::salvage`].
    pub(crate) fn knows_master_cfg(&self) -> bool {
        !self.services.master_cfg.as_os_str().is_empty()
    }

    /// Without `WORKING_USER` the daemons run as the user that was compiled in, and their data folder shows which one.
    pub(crate) fn find_default_user(&mut self, data: &Folder) {
        let setting = self.in_force.iter().find(|setting| setting.key.name == "WORKING_USER");
        if setting.is_some_and(|setting| setting.origin == Origin::Default) {
            let uid = data.own_status().map(|status| status.st_uid).ok();
            if uid.is_some() && account(SOURCE_USER).map(|account| account.uid) == uid {
                SOURCE_USER.clone_into(&mut self.working_user);
            }
        }
    }

    /// Whether the files say where the data folder is; see [`Config::salvage`].
    pub(crate) fn knows_data_folder(&self) -> bool {
        !self.data_path.as_os_str().is_empty()
    }

    fn assemble(ours: &Document, master: &Document, metalogger: &Document, read: &mut Reader) -> Result<Self, Error> {
        let [client_host, client_port] = client_keys(master);
        let config = Self {
            instance: Instance::default(),
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
                metalogger_cfg: read.value(ours, "METALOGGER_CFG", path)?,
                start_timeout: read.value(ours, "START_TIMEOUT", seconds)?,
                stop_timeout: read.value(ours, "STOP_TIMEOUT", seconds)?,
            },
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
            standby: read.value(ours, "STANDBY", |t| match t {
                "auto" => Some(StandbyMode::Auto),
                "hot" => Some(StandbyMode::Hot),
                "cold" => Some(StandbyMode::Cold),
                _ => None,
            })?,
            if_stale: read.value(ours, "IF_STALE", |t| match t {
                "last-resort" => Some(IfStale::LastResort),
                "never" => Some(IfStale::Never),
                "serve" => Some(IfStale::Serve),
                _ => None,
            })?,
            data_path: read.value(master, "DATA_PATH", path)?,
            working_user: read.value(master, "WORKING_USER", name)?,
            working_group: read.optional(master, "WORKING_GROUP", text)?.filter(|group| !group.is_empty()),
            client_host: read.value(master, client_host, host)?,
            client_port: read.value(master, client_port, port)?,
            master_host: read.value(metalogger, "MASTER_HOST", text)?,
            chunkserver_port: read.value(master, "MATOCS_LISTEN_PORT", port)?,
            metalogger_port: read.value(master, "MATOML_LISTEN_PORT", port)?,
            read_by_master: read_by_master(master),
            in_force: read.in_order(),
        };
        let data_path = |document: &Document| {
            let given = document.get("DATA_PATH").map(|entry| entry.value.as_str());
            PathBuf::from(given.unwrap_or(row("DATA_PATH").default))
        };
        let metalogger = data_path(metalogger);
        if !read.salvages && !lead_to_one(&metalogger, &config.data_path) {
            return Err(Error::TwoFolders {
                master: config.data_path,
                metalogger,
                master_cfg: config.services.master_cfg,
                metalogger_cfg: config.services.metalogger_cfg,
            });
        }
        Ok(config)
    }
}

/// The configuration files that a master with this one reads, with itself.
fn read_by_master(master: &Document) -> Vec<PathBuf> {
    let others = [
        ("EXPORTS_FILENAME", "/etc/mfs/mfsexports.cfg"),
        ("TOPOLOGY_FILENAME", "/etc/mfs/mfstopology.cfg"),
        ("MULTILAN_IPMAP_FILENAME", "/etc/mfs/mfsipmap.cfg"),
    ];
    let named = others.iter().map(|(key, usual)| master.get(key).map_or(*usual, |entry| entry.value.as_str()));
    named.map(PathBuf::from).chain([master.path.clone()]).collect()
}

/// The file of ours at `path`, which must exist, or the one that need not.
fn ours(path: Option<&Path>, load: fn(&Path) -> Result<Document, cfg::Error>) -> Result<Document, cfg::Error> {
    path.map_or_else(|| load_if_there(&Instance::default().file(), load), load)
}

/// The file of theirs that the key `name` of ours stands for. One that is named must exist: a daemon does not start without it.
/// The usual one need not: /etc/mfs is empty on a fresh Debian installation, and the daemons run on their defaults.
fn theirs(ours: &Document, name: &str) -> Result<Document, cfg::Error> {
    let usual = Path::new(row(name).default);
    match ours.get(name).map(|entry| Path::new(&entry.value)).filter(|path| *path != usual) {
        Some(path) if path.is_absolute() => Document::load(path),
        // A bad value, which is reported where it is read.
        Some(_) => Ok(Document::default()),
        None => load_if_there(&first_that_exists(usual), Document::load),
    }
}

/// `/etc/mfs/x.cfg`, or `/etc/x.cfg` where only that is there: the place of old, in which MooseFS still looks.
pub(crate) fn first_that_exists(path: &Path) -> PathBuf {
    let of_old = path.parent().and_then(Path::parent).zip(path.file_name()).map(|(folder, name)| folder.join(name));
    let of_old = of_old.filter(|of_old| !path.exists() && of_old.exists());
    of_old.unwrap_or_else(|| path.to_owned())
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

/// The keys for where the master listens for clients. Until 1.6.19 they begin with `MATOCU`; these count if one is given and
/// no newer one is.
fn client_keys(master: &Document) -> [&'static str; 2] {
    let (new, old) = (["MATOCL_LISTEN_HOST", "MATOCL_LISTEN_PORT"], ["MATOCU_LISTEN_HOST", "MATOCU_LISTEN_PORT"]);
    let given = |keys: [&str; 2]| keys.iter().any(|key| master.get(key).is_some());
    if given(old) && !given(new) { old } else { new }
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

/// A port as getaddrinfo(3) takes it for a daemon: a number, of which it uses 16 bits, or the name of a TCP service.
fn port(text: &str) -> Option<u16> {
    let port = match strtoul(text, 10) {
        (number, "") => u16::try_from(number & 0xffff).ok().filter(|_| number != u64::MAX),
        _ => service(text, &std::fs::read_to_string(SERVICES).unwrap_or_default()),
    };
    // The daemon would take any free one.
    port.filter(|port| *port != 0 && !text.starts_with('*'))
}

/// The TCP port of the service `name` in a text like that of `/etc/services`.
fn service(name: &str, services: &str) -> Option<u16> {
    services.lines().find_map(|line| {
        let mut words = line.split('#').next()?.split_ascii_whitespace();
        let (first, port) = (words.next()?, words.next()?.strip_suffix("/tcp")?);
        if first == name || words.any(|alias| alias == name) { port.parse().ok() } else { None }
    })
}

/// The address on which a daemon listens that is told this host.
fn host(text: &str) -> Option<Ipv4Addr> {
    if text.starts_with('*') {
        return Some(Ipv4Addr::UNSPECIFIED);
    }
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let name = text.to_owned();
    let found = process::within(RESOLVE, move || (name.as_str(), 0).to_socket_addrs().ok());
    found??.find_map(|address| match address.ip() {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    })
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
    /// Whether a bad value is no error, but counts as not given.
    salvages: bool,
    /// The keys of such values.
    bad: Vec<&'static str>,
}

impl Reader {
    /// The value of the key `name` in `document`, else its default, parsed.
    fn value<T>(&mut self, document: &Document, name: &str, parse: impl Fn(&str) -> Option<T>) -> Result<T, Error> {
        Ok(self.optional(document, name, &parse)?.unwrap_or_else(|| parse(row(name).default).expect("a valid default")))
    }

    /// The same where there is no default: `None` if it is not given.
    fn optional<T>(
        &mut self,
        document: &Document,
        name: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let key = row(name);
        if let Some(entry) = document.get(name) {
            let (value, origin) = (entry.value.clone(), Origin::File { path: document.path.clone(), line: entry.line });
            if let Some(parsed) = parse(&value) {
                self.settings.push(Setting { key, value, origin });
                return Ok(Some(parsed));
            }
            let error = Error::BadValue { place: origin, key: key.name, value, takes: key.takes };
            if !self.salvages {
                return Err(error);
            }
            log::debug!("{error}");
            self.bad.push(key.name);
        }
        self.settings.push(Setting { key, value: key.default.to_owned(), origin: Origin::Default });
        Ok(None)
    }

    /// All that was read, in the order of the tables.
    fn in_order(&mut self) -> Vec<Setting> {
        self.settings.sort_by_key(|setting| place(setting.key.name).0);
        std::mem::take(&mut self.settings)
    }
}

#[cfg(test)]
mod tests;
