//! `--status`: what runs here, and the last runs.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::machine::commit;
use crate::machine::config::Config;
use crate::machine::lock::{AtWork, Locks};
use crate::machine::memory::{self, Unserved};
use crate::machine::outcome::RunKind;
use crate::machine::record::{self, Record};
use crate::machine::recover;
use crate::machine::standby_master::HotState;
use crate::machine::state::State;
use crate::metadata::Version;
use crate::moosefs::{self, Daemon};
use crate::report::interrupted::InterruptedRun;
use crate::serving::missing::Followers;
use crate::sys::address;
use crate::sys::folder::Folder;
use crate::sys::logging::chain;
use crate::sys::nft::{Lease, State as LeaseState};
use crate::ucarp::{Options, Ucarp};

/// How long the master may take to answer.
const ANSWER: Duration = Duration::from_secs(2);

/// Everything that is shown.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    pub(super) data_path: PathBuf,
    pub(super) master: Option<Master>,
    pub(super) metalogger_pid: Option<u32>,
    /// On a machine that stands by and shall keep a hot one: what is known of it.
    pub(super) hot_standby: Option<HotState>,
    pub(super) ucarp: Vec<UcarpRow>,
    /// How many runs have files that are not archived yet.
    pub(super) not_archived: usize,
    /// What keeps the next run from archiving them.
    pub(super) archive_obstacle: Option<String>,
    pub(super) at_work: Option<RunAtWork>,
    /// Changes that were made here and are in no served history.
    pub(super) unserved: Vec<Unserved>,
    /// Runs that are not at work any more.
    pub(super) interrupted_runs: Vec<InterruptedRun>,
    /// The last runs, oldest first.
    pub(super) runs: Vec<Record>,
}

/// The master that runs here.
#[derive(Debug, Serialize)]
pub(super) struct Master {
    pub(super) pid: u32,
    pub(super) release: Option<String>,
    pub(super) version: Option<Version>,
    /// Why it does not answer.
    pub(super) error: Option<String>,
    /// Chunkservers of its metadata that are not connected.
    pub(super) chunkservers_missing: Vec<SocketAddrV4>,
    /// Machines whose metaloggers were connected within a day, and are not now.
    pub(super) metaloggers_missing: Vec<Ipv4Addr>,
}

/// A ucarp that runs here.
#[derive(Debug, Serialize)]
pub(super) struct UcarpRow {
    pub(super) pid: u32,
    pub(super) vip: Option<Ipv4Addr>,
    pub(super) interface: Option<String>,
    /// Whether the virtual IP is here; `None` if that cannot be found out.
    pub(super) held: Option<bool>,
    /// Whether the kernel holds back what the master sends to clients.
    pub(super) answers_held: bool,
}

/// A run in progress.
#[derive(Debug, Serialize)]
pub(super) struct RunAtWork {
    pub(super) pid: u32,
    pub(super) kind: RunKind,
    /// For how long.
    pub(super) ms: u64,
}

impl Status {
    pub(super) fn gather(config: &Config) -> Result<Self, Box<dyn Error>> {
        let data = Folder::open(&config.data_path)?;
        let state = State::existing(&config.instance)?;
        let at_work =
            if config.instance.run_folder().exists() { Locks::of(&config.instance)?.at_work()? } else { None };
        let interrupted_runs = match recover::interrupted(&data) {
            _ if at_work.is_some() => Vec::new(),
            Ok(found) => found.iter().map(InterruptedRun::from).collect(),
            Err(e) => vec![InterruptedRun::unusable(&e)],
        };
        let master = moosefs::running(&data, Daemon::Master)?;
        let ucarp = Ucarp::all_of(&config.instance);
        let stands_by = master.is_none() && at_work.is_none() && !ucarp.is_empty();
        Ok(Self {
            data_path: data.path().to_owned(),
            master: master.map(|daemon| Master::ask(config, state.as_ref(), daemon.pid)),
            metalogger_pid: moosefs::running(&data, Daemon::Metalogger)?.map(|daemon| daemon.pid),
            hot_standby: HotState::of(config, &data)?.filter(|_| stands_by),
            ucarp: ucarp.into_iter().map(|ucarp| UcarpRow::of(ucarp, config.client_port)).collect(),
            not_archived: commit::runs(&data)?.len(),
            archive_obstacle: commit::archive_obstacle(&data),
            at_work: at_work.map(RunAtWork::from),
            unserved: state.as_ref().map(|state| memory::recall(state).unserved).unwrap_or_default(),
            interrupted_runs,
            runs: state.as_ref().map(record::all).transpose()?.unwrap_or_default(),
        })
    }
}

impl Master {
    fn ask(config: &Config, state: Option<&State>, pid: u32) -> Self {
        let address = config.own_master();
        let (info, error) = match moosefs::info(address, ANSWER) {
            Ok(info) => (Some(info), None),
            Err(e) => (None, Some(chain(&e))),
        };
        let followers = info.and_then(|info| Followers::of(address, info.release, state, ANSWER).ok());
        let followers = followers.unwrap_or_default();
        Self {
            pid,
            release: info.map(|info| info.release.to_string()),
            version: info.and_then(|info| info.metadata_version),
            error,
            chunkservers_missing: followers.chunkservers_missing.into_iter().collect(),
            metaloggers_missing: followers.metaloggers_missing.into_iter().collect(),
        }
    }
}

impl UcarpRow {
    fn of(ucarp: Ucarp, client_port: u16) -> Self {
        let Options { vip, interface, .. } = ucarp.options;
        let held = interface.as_deref().zip(vip).and_then(|(name, vip)| {
            let interface = address::interface(name).ok()?;
            address::holds(&interface, vip).ok()
        });
        let closed = |vip| Lease::on(vip, client_port).state() == Ok(LeaseState::Closed);
        Self { pid: ucarp.pid, vip, interface, held, answers_held: held == Some(true) && vip.is_some_and(closed) }
    }
}

impl From<AtWork> for RunAtWork {
    fn from(AtWork { pid, kind, since }: AtWork) -> Self {
        Self { pid, kind, ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX) }
    }
}
