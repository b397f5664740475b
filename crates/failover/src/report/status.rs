//! `--status`: what runs here, and the last runs.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::time::Duration;

use crate::machine::config::Config;
use crate::machine::lock::{self, AtWork, Locks};
use crate::machine::record::{self, Record};
use crate::moosefs::{self, Daemon, Info};
use crate::sys::address;
use crate::sys::folder::Folder;
use crate::sys::logging::chain;
use crate::ucarp::{Options, Ucarp};
use serde::Serialize;

use super::{Interrupted, Result, json, open_state, print};
use crate::machine::commit;
use crate::sys::text::human;
use crate::sys::text::{table, when};

/// How many runs the table shows.
const SHOWN_RUNS: usize = 10;
/// The steps that have a column of their own.
const STEPS: [&str; 7] = ["settle", "metalogger", "stage", "commit", "start", "prove", "archive"];

/// Everything that is shown.
pub(super) struct Status {
    pub(super) data_path: std::path::PathBuf,
    pub(super) master: Option<u32>,
    /// What the running master says.
    pub(super) answer: Option<std::result::Result<Info, String>>,
    pub(super) metalogger: Option<u32>,
    pub(super) elections: Vec<Election>,
    pub(super) not_archived: usize,
    pub(super) at_work: Option<AtWork>,
    /// The interrupted runs, or why they cannot be ended.
    pub(super) interrupted: std::result::Result<Vec<Interrupted>, String>,
    /// `None` if no run ever was.
    pub(super) records: Option<Vec<Record>>,
}

/// A ucarp that runs here.
#[derive(Debug, Serialize)]
pub(super) struct Election {
    pub(super) pid: u32,
    pub(super) vip: Option<Ipv4Addr>,
    pub(super) interface: Option<String>,
    /// Whether the virtual IP is here; `None` if that is not known.
    pub(super) held: Option<bool>,
}

impl Election {
    fn of(caller: Ucarp) -> Self {
        let Options { vip, interface, .. } = caller.options;
        let held = interface.as_deref().zip(vip).and_then(|(name, vip)| {
            let interface = address::interface(name).ok()?;
            address::holds(&interface, vip).ok()
        });
        Self { pid: caller.pid, vip, interface, held }
    }

    fn describe(&self) -> String {
        let vip = self.vip.map_or_else(|| "the address".to_owned(), |vip| vip.to_string());
        let interface = self.interface.as_deref().unwrap_or("its interface");
        let held = match self.held {
            Some(true) => format!("{vip} is on {interface}"),
            Some(false) => format!("{vip} is not on {interface}"),
            None => format!("whether {vip} is on {interface} is not known"),
        };
        format!("runs, pid {}, {held}", self.pid)
    }
}

/// Prints what runs here, and the last runs.
pub(crate) fn status(config: &Config, json: bool) -> Result<bool> {
    let status = Status::gather(config)?;
    print(&if json { json::status(&status)? } else { status.render()? });
    Ok(true)
}

impl Status {
    fn gather(config: &Config) -> Result<Self> {
        let data = Folder::open(&config.data_path)?;
        let master = moosefs::running(&data, Daemon::Master)?.map(|daemon| daemon.pid);
        let state = open_state()?;
        let at_work = if Path::new(lock::FOLDER).exists() { Locks::system()?.at_work()? } else { None };
        Ok(Self {
            data_path: data.path().to_owned(),
            master,
            answer: master.map(|_| ask(config)),
            metalogger: moosefs::running(&data, Daemon::Metalogger)?.map(|daemon| daemon.pid),
            elections: Ucarp::all().into_iter().map(Election::of).collect(),
            not_archived: commit::runs(&data)?.len(),
            at_work,
            interrupted: match at_work {
                Some(_) => Ok(Vec::new()),
                None => Interrupted::look(&data).map_err(|e| chain(&e)),
            },
            records: state.as_ref().map(record::all).transpose()?,
        })
    }

    fn render(&self) -> Result<String> {
        let mut text = String::new();
        for (daemon, pid) in [(Daemon::Master, self.master), (Daemon::Metalogger, self.metalogger)] {
            let says = if daemon == Daemon::Master { self.answer.as_ref().map(said) } else { None };
            let state = match pid {
                Some(pid) => format!("runs, pid {pid}{}", says.unwrap_or_default()),
                None => "does not run".to_owned(),
            };
            writeln!(text, "{:14} {state}", daemon.program())?;
        }
        for election in &self.elections {
            writeln!(text, "{:14} {}", "ucarp", election.describe())?;
        }
        if self.elections.is_empty() {
            writeln!(text, "{:14} does not run: this machine takes part in no election; start it", "ucarp")?;
        }
        if let Some(AtWork { pid, role, since }) = self.at_work {
            writeln!(text, "{:14} a {role} for {}, pid {pid}", "at work", human(since))?;
        }
        if self.not_archived > 0 {
            let folder = self.data_path.display();
            writeln!(text, "{:14} {} runs in {folder}/mfs-promote", "not archived", self.not_archived)?;
        }
        match &self.interrupted {
            Ok(runs) => runs.iter().try_for_each(|run| writeln!(text, "{:14} {run}", "interrupted"))?,
            Err(why) => writeln!(text, "{:14} {why}", "interrupted")?,
        }
        let Some(records) = &self.records else { return Ok(text + "\nno run yet\n") };
        text.push('\n');
        let mut rows = vec![heading()];
        let shown = &records[records.len().saturating_sub(SHOWN_RUNS)..];
        rows.extend(shown.iter().map(record_row));
        table(&mut text, &rows);
        if let Some(error) = shown.last().and_then(|last| last.error.as_ref()) {
            writeln!(text, "\nthe last run ended with: {error}")?;
        }
        Ok(text)
    }
}

fn ask(config: &Config) -> std::result::Result<Info, String> {
    let host = if config.client_host.is_unspecified() { Ipv4Addr::LOCALHOST } else { config.client_host };
    moosefs::info(SocketAddrV4::new(host, config.client_port), Duration::from_secs(2)).map_err(|e| chain(&e))
}

fn said(answer: &std::result::Result<Info, String>) -> String {
    match answer {
        Ok(info) => {
            let version = info.metadata_version.map(|version| format!(", serves version {version}"));
            format!(", MooseFS {}{}", info.release, version.unwrap_or_default())
        }
        Err(e) => format!(", but: {e}"),
    }
}

fn heading() -> [String; 6 + STEPS.len()] {
    row(["started (UTC)", "run", "outcome", "version", "changes"].map(str::to_owned), STEPS.map(str::to_owned), "total")
}

/// A run, with how long each of its steps took; a step that comes twice counts as it came first.
fn record_row(record: &Record) -> [String; 6 + STEPS.len()] {
    let number = |number: Option<u64>| number.map_or_else(String::new, |number| number.to_string());
    let time = |ms: u64| human(Duration::from_millis(ms));
    let took = |name: &str| record.steps.iter().find(|step| step.name == name);
    row(
        [
            when(u64::try_from(record.started).unwrap_or_default()).trim_end_matches(" UTC").to_owned(),
            record.role.clone(),
            record.outcome.clone(),
            number(record.version),
            number(record.changes),
        ],
        STEPS.map(|name| took(name).map_or_else(String::new, |step| time(step.ms))),
        &time(record.total_ms),
    )
}

fn row(what: [String; 5], steps: [String; STEPS.len()], total: &str) -> [String; 6 + STEPS.len()] {
    let mut cells = what.into_iter().chain(steps).chain([total.to_owned()]);
    std::array::from_fn(|_| cells.next().unwrap_or_default())
}
