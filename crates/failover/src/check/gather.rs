//! Finds out the facts: looks at this machine and asks the serving master.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::instance::Instance;
use crate::machine::commit;
use crate::machine::config::Config;
use crate::machine::loaded_size;
use crate::machine::lock::Locks;
use crate::machine::record;
use crate::machine::recover;
use crate::machine::standby_master::HotState;
use crate::machine::state::State;
use crate::moosefs::cfg;
use crate::moosefs::services::Services;
use crate::moosefs::{self, Daemon, Info};
use crate::report::describe_interrupted;
use crate::serving::missing::Followers;
use crate::standby::follow::MetaloggerConnection;
use crate::standby::stand_back::StandsBack;
use crate::sys::address;
use crate::sys::folder::Folder;
use crate::sys::logging::chain;
use crate::sys::nft::Lease;
use crate::sys::process;
use crate::sys::text::strtoul;
use crate::ucarp::{self, Options, Ucarp};
use crate::vip::VirtualIp;

use super::copy;
use super::facts::{
    BootFault, Duty, Facts, Folders, ForeignHook, History, Known, NameFacts, Serving, Standby, UcarpFacts,
};

/// How long other groups are listened for at most.
const MOST_LISTENED: Duration = Duration::from_secs(3);
/// How long a master may take to answer.
const ANSWER: Duration = Duration::from_secs(2);
/// How many seconds daemons wait before they try to reach the master again.
const RECONNECTION: &str = "MASTER_RECONNECTION_DELAY";
const DEFAULT_RECONNECTION: u64 = 5;

/// All facts; an error if not even the configuration, the data folder or the daemons can be found.
pub(super) fn gather(asked: Option<&VirtualIp>, config: &Config) -> Result<Facts, Box<dyn Error>> {
    let ucarp = ucarp(asked, &config.instance);
    let options = match &ucarp {
        UcarpFacts::One { options, .. } => options.clone(),
        _ => Options::default(),
    };
    let data = Folder::open(&config.data_path)?;
    let config = &mut config.clone();
    config.find_default_user(&data);
    let services = Services::find(&config.services)?;
    let state = State::existing(&config.instance)?;
    let vip = asked.map(|vip| vip.address).or(options.vip);
    let name = name(config);
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
        Duty::Standby(Box::new(standby(config, &data, state.as_ref(), server)?))
    };
    Ok(Facts {
        vip,
        server,
        listens: config.client_host,
        data_path: data.path().to_owned(),
        settle_margin: config.settle_margin,
        start,
        ucarp,
        stands_back: known(StandsBack::of(&config.instance)),
        name,
        slow_reconnect: slow_reconnect(config),
        boot: boot(&services),
        folders: folders(&config.instance, &data),
        duty,
        history: history(&data, state.as_ref()),
    })
}

fn known<T, E: Error>(result: Result<T, E>) -> Known<T> {
    result.map_err(|e| chain(&e))
}

/// The ucarp of this interface and address, or the only one of this instance that calls our hooks.
fn ucarp(asked: Option<&VirtualIp>, instance: &Instance) -> UcarpFacts {
    let all = Ucarp::all_of(instance);
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

/// Whether a hook is our program of this name, wherever it was copied to. Debian's ucarp brings a script of the same name, and a
/// wrapper is none of ours either: ucarp waits for it, and our program does not find its ucarp.
fn calls(hook: Option<&str>, program: &str) -> bool {
    let ours: Vec<_> = process::find_beside(program).ok().into_iter().chain(process::find_program(program)).collect();
    hook.is_some_and(|hook| ours.iter().any(|ours| is_copy(Path::new(hook), ours)))
}

/// Whether both are the same program, and no script.
fn is_copy(hook: &Path, ours: &Path) -> bool {
    let same_size = hook.metadata().is_ok_and(|hook| ours.metadata().is_ok_and(|ours| hook.len() == ours.len()));
    same_size
        && fs::read(hook).is_ok_and(|hook| !hook.starts_with(b"#!") && fs::read(ours).is_ok_and(|ours| hook == ours))
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
    let chunkserver = config.services.metalogger_cfg.with_file_name("mfschunkserver.cfg");
    let mut files = vec![config.services.metalogger_cfg.clone()];
    files.extend(Some(chunkserver).filter(|path| path.exists()));
    let delay = |path: &PathBuf| cfg::value_in(path, RECONNECTION).map(|text| strtoul(&text, 0).0);
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
    let copy =
        copy::look(config, data, state, *server.ip(), version.filter(|_| metalogger.is_some()), metalogger.is_some());
    let in_sync = copy::note_freshness(&config.instance, state, master.as_ref().ok(), copy.as_ref().ok());
    let connection = known(MetaloggerConnection::to(config, *server.ip()));
    let hot = known(HotState::of(config, data));
    let kept_for = kept_for(&config.services.metalogger_cfg);
    Ok(Standby { metalogger, connection, master, copy, hot, in_sync, kept_for })
}

/// How long the metalogger keeps an image after it was replaced, with the limits of `mfsmetalogger/masterconn.c`.
fn kept_for(metalogger_cfg: &Path) -> Duration {
    let number = |key, default| cfg::value_in(metalogger_cfg, key).map_or(default, |text| strtoul(&text, 0).0);
    let logs = number("BACK_LOGS", 50).clamp(5, 10_000);
    let (kept, hours) = (number("BACK_META_KEEP_PREVIOUS", 3).min(99), number("META_DOWNLOAD_FREQ", 24).min(logs / 2));
    Duration::from_secs(kept * hours * 3600)
}

/// Tries the calls that a run makes: what a full or read-only disk refuses is no surprise then.
fn folders(instance: &Instance, data: &Folder) -> Folders {
    Folders {
        moves: known(commit::try_moves(data)),
        calls: known(Locks::of(instance).and_then(|locks| locks.try_write())),
        memory: known(State::of(instance).and_then(|state| state.try_write())),
        archives: known(commit::try_archive(data)),
    }
}

fn history(data: &Folder, state: Option<&State>) -> History {
    History {
        interrupted: known(recover::interrupted(data)).map(|found| found.iter().map(describe_interrupted).collect()),
        not_archived: known(commit::runs(data)).map(|runs| runs.len()),
        no_room: commit::archive_room(data).ok().flatten().filter(|room| !room.fits()),
        records: known(state.map_or(Ok(Vec::new()), record::all)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    #[test]
    fn a_hook_is_known_by_what_it_is_and_not_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &[u8]| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            path
        };
        let ours = file("bin/vip-up", b"\x7fELF ours");
        let link = dir.path().join("up");
        symlink(&ours, &link).unwrap();
        for hook in [&ours, &link, &file("local/vip-up", b"\x7fELF ours")] {
            assert!(is_copy(hook, &ours), "{hook:?}");
        }
        let stock = file("ucarp/vip-up", b"#!/bin/sh\nexec /sbin/ifup $1:ucarp\n");
        let wrapper = file("wrapper/vip-up", b"#!/bin/sh\nsleep 10\nexec /usr/bin/vip-up \"$@\"\n");
        let other = file("other/vip-up", b"\x7fELF 1234");
        for hook in [&stock, &wrapper, &other, &dir.path().join("absent"), &dir.path().to_owned()] {
            assert!(!is_copy(hook, &ours), "{hook:?}");
        }
        assert!(!is_copy(&stock, &stock), "a script in the place of ours");
        assert!(!calls(Some("/usr/share/ucarp/vip-up"), "vip-up") && !calls(None, "vip-up"));
    }
}
