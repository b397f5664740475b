//! `--check`: is this machine ready to take over, and would it be in time?
//!
//! Looks and asks, and notes what it found for the guards ([`freshness`]); changes nothing else. Every question has a name, an answer in words and a level; the worst level is the
//! answer of all, and the exit code that monitoring knows. People, programs, Nagios and Prometheus get the same answers.

mod copy;
mod forms;
mod freshness;
mod machine;
mod settings;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::ExitCode;
use std::time::Duration;

use crate::machine::config::Config;
use crate::machine::state::State;
use crate::metadata::Version;
use crate::moosefs::services::Services;
use crate::moosefs::{self, Daemon, Info};
use crate::sys::folder::Folder;
use crate::sys::logging::chain;
use crate::ucarp::Ucarp;

use crate::cli::Promote;
use crate::report::{self, Result};

pub(crate) use settings::note as note_settings;

/// The exit code if nothing could be found out.
pub(crate) const UNKNOWN: u8 = 3;
/// How long a master may take to answer.
const ANSWER: Duration = Duration::from_secs(2);

/// How good an answer is. In the order of what the worst of several is; the numbers are those of Nagios plugins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    /// As it should be.
    Ok,
    /// It would work, but something should be seen to.
    Warning,
    /// Could not be found out.
    Unknown,
    /// This machine cannot take over, or data would be lost.
    Critical,
}

impl Level {
    fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Critical => 2,
            Self::Unknown => UNKNOWN,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Critical => "critical",
            Self::Unknown => "unknown",
        }
    }
}

/// One question and its answer.
#[derive(Debug, Clone)]
struct Finding {
    name: &'static str,
    level: Level,
    text: String,
}

impl Finding {
    fn new(name: &'static str, level: Level, text: impl Into<String>) -> Self {
        Self { name, level, text: text.into() }
    }

    /// For what should have been looked at and could not.
    fn unknown(name: &'static str, error: &dyn std::error::Error) -> Self {
        Self::new(name, Level::Unknown, chain(error))
    }
}

/// What this machine is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Serving,
    Standby,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Standby => "standby",
        }
    }
}

/// What can be counted, for graphs; `None` is what could not be found out or has no meaning here.
#[derive(Debug, Default)]
struct Numbers {
    /// The version that the serving master has.
    master_version: Option<Version>,
    /// The version that a promotion here would end at.
    copy_version: Option<Version>,
    /// Changes that the copy lacks.
    lag: Option<u64>,
    /// When the copy was last in step, as far as checks saw it, Unix seconds.
    in_sync: Option<i64>,
    /// Changes that a promotion would replay.
    replay: Option<u64>,
    /// Age of the image, in seconds.
    image_age: Option<u64>,
    /// Bytes that a promotion needs, and that are free.
    space: Option<(u64, u64)>,
    /// From the death of the master to serving, as far as it can be foreseen, in seconds.
    takeover: Option<f64>,
    /// When it was last rehearsed with success, Unix seconds.
    rehearsed: Option<i64>,
    /// Machines whose metaloggers follow this master.
    followers: Option<u64>,
}

/// All answers.
struct Report {
    role: Role,
    findings: Vec<Finding>,
    numbers: Numbers,
    /// Fingerprints of the files that all machines should have alike.
    settings: Vec<(&'static str, String)>,
}

impl Report {
    fn level(&self) -> Level {
        self.findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok)
    }
}

/// What is looked at.
struct Subject {
    config: Config,
    data: Folder,
    services: Services,
    /// `None` if no run ever was.
    state: Option<State>,
    ucarp: machine::Found,
    vip: Option<Ipv4Addr>,
    /// The master's process here.
    master: Option<u32>,
    metalogger: Option<u32>,
}

/// Looks at everything and prints it in the form that was asked for.
pub(crate) fn check(args: &Promote) -> ExitCode {
    let report = match Subject::find(args).map(Subject::examine) {
        Ok(report) => report,
        Err(e) => Report {
            role: Role::Standby,
            findings: vec![Finding::new("set-up", Level::Critical, chain(e.as_ref()))],
            numbers: Numbers::default(),
            settings: Vec::new(),
        },
    };
    match &args.prometheus {
        Some(path) => {
            if let Err(e) = forms::write_prometheus(&report, path) {
                log::error!("{}", chain(&e));
                return ExitCode::from(Level::Unknown.code());
            }
        }
        None if args.nagios => report::print(&forms::nagios(&report)),
        None if args.json => report::print(&forms::json(&report)),
        None => report::print(&forms::text(&report)),
    }
    ExitCode::from(report.level().code())
}

impl Subject {
    fn find(args: &Promote) -> Result<Self> {
        let ucarp = machine::find_ucarp(args.interface.as_deref().zip(args.vip));
        let xparam = ucarp.caller().and_then(|caller| caller.options.xparam.clone());
        let config = match &args.config {
            Some(path) => Config::load(path)?,
            None => Config::for_xparam(xparam.as_deref())?,
        };
        let data = Folder::open(&config.data_path)?;
        Ok(Self {
            vip: args.vip.or_else(|| ucarp.caller().and_then(|caller| caller.options.vip)),
            ucarp,
            services: Services::find(&config)?,
            state: report::open_state()?,
            master: moosefs::running(&data, Daemon::Master)?.map(|daemon| daemon.pid),
            metalogger: moosefs::running(&data, Daemon::Metalogger)?.map(|daemon| daemon.pid),
            config,
            data,
        })
    }

    fn examine(self) -> Report {
        let role = if self.master.is_some() { Role::Serving } else { Role::Standby };
        let mut numbers = Numbers::default();
        let mut findings = self.machine();
        match role {
            Role::Serving => findings.extend(self.serving(&mut numbers)),
            Role::Standby => findings.extend(self.standby(&mut numbers)),
        }
        findings.extend(self.history(&mut numbers));
        if role == Role::Standby {
            findings.push(self.time(&mut numbers));
        }
        let (settings, finding) = settings::compare(&self.config, self.state.as_ref());
        findings.push(finding);
        Report { role, findings, numbers, settings }
    }

    fn caller(&self) -> Option<&Ucarp> {
        self.ucarp.caller()
    }

    /// Asks the master that clients use.
    fn serving_master(&self) -> std::result::Result<Info, moosefs::Error> {
        moosefs::info(self.serving_address(), ANSWER)
    }

    fn serving_address(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.vip.unwrap_or(Ipv4Addr::LOCALHOST), self.config.client_port)
    }
}
