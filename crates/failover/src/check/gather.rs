//! Finds out the facts: looks at this machine and asks the serving master.

use std::collections::BTreeSet;
use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::machine::commit;
use crate::machine::config::Config;
use crate::machine::loaded_size;
use crate::machine::record;
use crate::machine::recover;
use crate::machine::state::State;
use crate::moosefs::cfg;
use crate::moosefs::services::Services;
use crate::moosefs::{self, Daemon, Info};
use crate::report::describe_interrupted;
use crate::serving::missing::Followers;
use crate::standby::follow::MetaloggerConnection;
use crate::sys::address;
use crate::sys::folder::Folder;
use crate::sys::logging::chain;
use crate::sys::nft::Lease;
use crate::ucarp::{self, Options, Ucarp};
use crate::vip::VirtualIp;

use super::copy;
use super::facts::{BootFault, Duty, Facts, ForeignHook, History, Known, NameFacts, Serving, Standby, UcarpFacts};

/// How long other groups are listened for at most.
const MOST_LISTENED: Duration = Duration::from_secs(3);
/// How long a master may take to answer.
const ANSWER: Duration = Duration::from_secs(2);
/// How many seconds daemons wait before they try to reach the master again.
const RECONNECTION: &str = "MASTER_RECONNECTION_DELAY";
const DEFAULT_RECONNECTION: u64 = 5;

/// All facts; an error if not even the configuration, the data folder or the daemons can be found.
pub(super) fn gather(asked: Option<&VirtualIp>, file: Option<&Path>) -> Result<Facts, Box<dyn Error>> {
    let ucarp = ucarp(asked);
    let options = match &ucarp {
        UcarpFacts::One { options, .. } => options.clone(),
        _ => Options::default(),
    };
    let config = match file {
        Some(path) => Config::load(path)?,
        None => Config::for_xparam(options.xparam.as_deref())?,
    };
    let data = Folder::open(&config.data_path)?;
    let services = Services::find(&config.services)?;
    let state = State::open_existing()?;
    let vip = asked.map(|vip| vip.address).or(options.vip);
    let name = name(&config);
    let master_runs = moosefs::running(&data, Daemon::Master)?.is_some();
    // A standby that does not know the virtual IP asks where its metalogger does.
    let named = name.addresses.iter().flatten().find_map(|address| match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    });
    let host = vip.or(named.filter(|_| !master_runs)).unwrap_or(Ipv4Addr::LOCALHOST);
    let server = SocketAddrV4::new(host, config.client_port);
    let start = services.start_time(loaded_size(&data));
    let duty = if master_runs {
        let interface = asked.map(|vip| vip.interface.as_str()).or(options.interface.as_deref());
        Duty::Serving(Box::new(serving(interface.zip(vip), server, start.still, state.as_ref())))
    } else {
        Duty::Standby(Box::new(standby(&config, &data, state.as_ref(), server)?))
    };
    Ok(Facts {
        vip,
        server,
        data_path: data.path().to_owned(),
        settle_margin: config.settle_margin,
        start,
        ucarp,
        name,
        slow_reconnect: slow_reconnect(&config),
        boot: boot(&services),
        duty,
        history: history(&data, state.as_ref()),
    })
}

fn known<T, E: Error>(result: Result<T, E>) -> Known<T> {
    result.map_err(|e| chain(&e))
}

/// The ucarp of this interface and address, or the only one that calls our hooks.
fn ucarp(asked: Option<&VirtualIp>) -> UcarpFacts {
    let all = Ucarp::all();
    let running = all.len();
    if running == 0 {
        return UcarpFacts::None;
    }
    let found = if let Some(vip) = asked {
        match Ucarp::find(&vip.interface, vip.address) {
            Some(found) => found,
            None => return UcarpFacts::OtherAddress { name: vip.interface.clone(), vip: vip.address, running },
        }
    } else {
        let calls_us = |ucarp: &Ucarp| calls(ucarp.options.up_script.as_deref(), "vip-up");
        let mut ours: Vec<_> = all.into_iter().filter(calls_us).collect();
        match (ours.pop(), ours.len()) {
            (Some(one), 0) => one,
            (one, others) => return UcarpFacts::Unclear { running, ours: others + usize::from(one.is_some()) },
        }
    };
    let hooks =
        [('u', found.options.up_script.as_deref(), "vip-up"), ('d', found.options.down_script.as_deref(), "vip-down")];
    let foreign = hooks.into_iter().filter(|(_, hook, program)| !calls(*hook, program));
    let foreign_hooks = foreign
        .map(|(letter, hook, program)| ForeignHook { letter, program, called: hook.map(str::to_owned) })
        .collect();
    let (name, vip) = (found.options.interface.as_deref(), found.options.vip);
    // One advertisement of each comes within its interval.
    let time = found.options.interval() * 6 / 5;
    let strangers = match name.zip(vip) {
        Some((name, vip)) => known(ucarp::strangers(name, vip, &found.options, time.min(MOST_LISTENED))),
        None => Ok(BTreeSet::new()),
    };
    UcarpFacts::One { pid: found.pid, options: found.options, foreign_hooks, strangers }
}

/// Whether a hook is the program of this name.
fn calls(hook: Option<&str>, program: &str) -> bool {
    hook.map(Path::new).is_some_and(|path| path.file_name() == Some(program.as_ref()) && path.is_file())
}

/// Clients, chunkservers and the metalogger here find the master by this name.
fn name(config: &Config) -> NameFacts {
    let addresses = (config.master_host.as_str(), config.client_port).to_socket_addrs();
    NameFacts {
        host: config.master_host.clone(),
        addresses: known(addresses.map(|found| found.map(|address| address.ip()).collect())),
    }
}

/// Without a file of its own a metalogger runs on defaults; a chunkserver need not be here.
fn slow_reconnect(config: &Config) -> Vec<PathBuf> {
    let chunkserver = config.metalogger_cfg.with_file_name("mfschunkserver.cfg");
    let mut files = vec![config.metalogger_cfg.clone()];
    files.extend(Some(chunkserver).filter(|path| path.exists()));
    let delay = |path: &PathBuf| cfg::value_in(path, RECONNECTION).and_then(|text| text.parse().ok());
    files.retain(|path| delay(path).unwrap_or(DEFAULT_RECONNECTION) > 1);
    files
}

fn boot(services: &Services) -> Vec<BootFault> {
    let wrong = [(Daemon::Master, false), (Daemon::Metalogger, true)]
        .into_iter()
        .filter(|(daemon, wanted)| services.starts_at_boot(*daemon) != *wanted);
    wrong
        .map(|(daemon, wanted)| {
            let control = services.control(daemon);
            BootFault {
                daemon: control.map_or_else(|| daemon.to_string(), ToString::to_string),
                is_master: daemon == Daemon::Master,
                remedy: control.and_then(|control| control.at_boot(wanted)),
            }
        })
        .collect()
}

fn serving(
    address: Option<(&str, Ipv4Addr)>,
    server: SocketAddrV4,
    patience: Duration,
    state: Option<&State>,
) -> Serving {
    let is_here = |(name, vip): (&str, Ipv4Addr)| {
        let held = address::interface(name).and_then(|interface| address::holds(&interface, vip));
        (name.to_owned(), known(held))
    };
    let master = known(moosefs::info(server, ANSWER));
    let followers = |info: &Info| known(Followers::of(server, info.release, state, ANSWER));
    let followers = master.as_ref().map_err(String::clone).and_then(followers);
    let lease = known(Lease::on(*server.ip(), server.port()).state());
    Serving { address: address.map(is_here), lease, master, patience, followers }
}

fn standby(
    config: &Config,
    data: &Folder,
    state: Option<&State>,
    server: SocketAddrV4,
) -> Result<Standby, moosefs::Error> {
    let metalogger = moosefs::running(data, Daemon::Metalogger)?.map(|daemon| daemon.pid);
    let master = known(moosefs::info(server, ANSWER));
    let version = master.as_ref().ok().and_then(|info| info.metadata_version);
    // Without a metalogger nothing more will come.
    let copy = copy::look(config, data, state, version.filter(|_| metalogger.is_some()), metalogger.is_some());
    let in_sync = copy::note_freshness(state, master.as_ref().ok(), copy.as_ref().ok());
    let connection = known(MetaloggerConnection::to(config, *server.ip()));
    Ok(Standby { metalogger, connection, master, copy, in_sync })
}

fn history(data: &Folder, state: Option<&State>) -> History {
    History {
        interrupted: known(recover::interrupted(data)).map(|found| found.iter().map(describe_interrupted).collect()),
        not_archived: known(commit::runs(data)).map(|runs| runs.len()),
        records: known(state.map_or(Ok(Vec::new()), record::all)),
    }
}
