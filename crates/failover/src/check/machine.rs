//! ucarp as it runs, the name of the master, what starts at boot, and what earlier runs left.

use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs as _};
use std::path::Path;
use std::time::Duration;

use crate::machine::config;
use crate::machine::record::{self, Record};
use crate::moosefs::Daemon;
use crate::sys::text::when;
use crate::ucarp::{Options, Ucarp};

use super::{Finding, Level, Numbers, Subject};
use crate::machine::commit;
use crate::report::Interrupted;
use crate::sys::text::human;

/// How long daemons wait before they try to reach the master again, in seconds.
const RECONNECTION: &str = "MASTER_RECONNECTION_DELAY";
const DEFAULT_RECONNECTION: u64 = 5;

/// The ucarp that calls our hooks.
pub(super) enum Found {
    One(Ucarp),
    /// None, or more than one and nobody says which: how many run at all.
    Not {
        running: usize,
    },
}

impl Found {
    pub(super) fn caller(&self) -> Option<&Ucarp> {
        match self {
            Self::One(caller) => Some(caller),
            Self::Not { .. } => None,
        }
    }
}

/// The ucarp of this interface and address, or the only one that calls our hooks.
pub(super) fn find_ucarp(address: Option<(&str, Ipv4Addr)>) -> Found {
    let all = Ucarp::all();
    if let Some((name, vip)) = address {
        return Ucarp::find(name, vip).map_or(Found::Not { running: all.len() }, Found::One);
    }
    let mut ours = all.iter().filter(|caller| calls(caller.options.up_script.as_deref(), "vip-up"));
    match (ours.next(), ours.next()) {
        (Some(one), None) => Found::One(one.clone()),
        _ => Found::Not { running: all.len() },
    }
}

/// Whether a hook is the program of this name.
fn calls(hook: Option<&str>, program: &str) -> bool {
    hook.map(Path::new).is_some_and(|path| path.file_name() == Some(program.as_ref()) && path.is_file())
}

impl Subject {
    /// What is the same question whether this machine serves or not.
    pub(super) fn machine(&self) -> Vec<Finding> {
        let mut findings = match &self.ucarp {
            Found::One(caller) => ucarp(caller),
            Found::Not { running } => vec![no_ucarp(*running)],
        };
        findings.push(self.name());
        findings.push(self.reconnection());
        findings.extend(self.boot());
        findings
    }

    /// Clients and chunkservers look for the master by name, and this machine's metalogger does.
    fn name(&self) -> Finding {
        let host = &self.config.master_host;
        let Some(vip) = self.vip else {
            return Finding::new("name", Level::Unknown, "without a ucarp it is not known what the virtual IP is");
        };
        let addresses = match (host.as_str(), self.config.client_port).to_socket_addrs() {
            Ok(addresses) => addresses.map(|address| address.ip()).collect::<Vec<_>>(),
            Err(e) => {
                let text = format!("{host} cannot be resolved ({e}): the metalogger here finds no master");
                return Finding::new("name", Level::Critical, text);
            }
        };
        match addresses.first() {
            Some(IpAddr::V4(first)) if *first == vip => Finding::new("name", Level::Ok, format!("{host} is {vip}")),
            Some(first) => {
                let text =
                    format!("{host} is {first}, not {vip}: put \"{vip} {host}\" into /etc/hosts on every machine");
                Finding::new("name", Level::Critical, text)
            }
            None => Finding::new("name", Level::Critical, format!("{host} has no address")),
        }
    }

    /// Advice: after a failover clients wait for the chunkservers, and those for their next attempt.
    fn reconnection(&self) -> Finding {
        let beside = |file: &str| self.config.metalogger_cfg.with_file_name(file);
        let files = [self.config.metalogger_cfg.clone(), beside("mfschunkserver.cfg")];
        let mut slow = Vec::new();
        // Without a file of its own a metalogger runs on defaults; a chunkserver need not be here.
        for path in files.iter().filter(|path| **path == self.config.metalogger_cfg || path.exists()) {
            let delay = config::value_in(path, RECONNECTION).and_then(|text| text.parse().ok());
            if delay.unwrap_or(DEFAULT_RECONNECTION) > 1 {
                slow.push(path.display().to_string());
            }
        }
        let text = if slow.is_empty() {
            format!("every second here; {RECONNECTION} = 1 belongs into mfschunkserver.cfg of every chunkserver, too")
        } else {
            format!(
                "a failover is shorter with {RECONNECTION} = 1 in {}, and in mfschunkserver.cfg of every chunkserver",
                slow.join(", ")
            )
        };
        Finding::new("reconnect", Level::Ok, text)
    }

    fn boot(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut wrong = |daemon, wanted: bool, why: &str| {
            if self.services.starts_at_boot(daemon) == wanted {
                return;
            }
            let control = self.services.control(daemon);
            let name = control.map_or_else(|| daemon.to_string(), ToString::to_string);
            let command = control.and_then(|control| control.at_boot(wanted));
            let command = command.map_or_else(String::new, |command| format!("; run: {command}"));
            let starts = if wanted { "does not start" } else { "starts" };
            findings.push(Finding::new("boot", Level::Warning, format!("{name} {starts} at boot: {why}{command}")));
        };
        wrong(Daemon::Master, false, "with whatever history lies here, but ucarp decides who is master");
        wrong(Daemon::Metalogger, true, "after a reboot this machine has no copy until somebody starts it");
        if findings.is_empty() {
            findings.push(Finding::new("boot", Level::Ok, "starts the metalogger, not the master"));
        }
        findings
    }

    /// What earlier runs left, and how they ended.
    pub(super) fn history(&self, numbers: &mut Numbers) -> Vec<Finding> {
        let Some(state) = &self.state else {
            return vec![Finding::new("runs", Level::Ok, "none yet"), never_rehearsed()];
        };
        let mut findings = self.unfinished();
        match record::all(state) {
            Ok(records) => {
                findings.extend(last_run(&records));
                findings.push(rehearsal(&records, numbers));
            }
            Err(e) => findings.push(Finding::unknown("runs", &e)),
        }
        findings
    }

    fn unfinished(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        match Interrupted::look(&self.data) {
            Ok(runs) => {
                findings.extend(runs.iter().map(|run| Finding::new("runs", Level::Warning, run.to_string())));
            }
            Err(e) => findings.push(Finding::unknown("runs", &e)),
        }
        match commit::runs(&self.data) {
            Ok(left) if !left.is_empty() => {
                let folder = self.data.path().join("mfs-promote");
                let text = format!("files of {} runs are not archived yet, in {}", left.len(), folder.display());
                findings.push(Finding::new("archive", Level::Warning, text));
            }
            Ok(_) => (),
            Err(e) => findings.push(Finding::unknown("archive", &e)),
        }
        findings
    }

    /// From the death of a master to serving here. What the restore takes is known from runs on this machine only.
    pub(super) fn time(&self, numbers: &mut Numbers) -> Finding {
        let options = self.caller().map(|caller| caller.options.clone()).unwrap_or_default();
        let (dead, settle) = (options.dead_time(), options.interval() + self.config.settle_margin);
        let records = self.state.as_ref().and_then(|state| record::all(state).ok()).unwrap_or_default();
        let Some((record, load)) = records.iter().rev().find_map(|record| Some((record, loading(record)?))) else {
            let text = "not known: nothing was ever rehearsed or promoted here; run mfs-promote --rehearse";
            return Finding::new("time", Level::Ok, text);
        };
        let takeover = dead + settle + load;
        numbers.takeover = Some(takeover.as_secs_f64());
        let text = format!(
            "a takeover takes about {}: {} until ucarp sees the death, {} to settle, {} to load (as in the {} of {})",
            human(takeover),
            human(dead),
            human(settle),
            human(load),
            record.role,
            when(u64::try_from(record.started).unwrap_or_default())
        );
        Finding::new("time", Level::Ok, text)
    }
}

fn no_ucarp(running: usize) -> Finding {
    let text = match running {
        0 => "no ucarp runs here: this machine never takes over; start it".to_owned(),
        n => format!("{n} ucarp run here, and not exactly one calls vip-up; name it: --interface NAME --vip ADDRESS"),
    };
    Finding::new("ucarp", Level::Critical, text)
}

/// How it was started.
fn ucarp(caller: &Ucarp) -> Vec<Finding> {
    let Options { vhid, advbase, deadratio, shutdown_script, visible_password, preempt, .. } = caller.options;
    let options = &caller.options;
    let mut findings = Vec::new();
    for (letter, hook, program) in
        [('u', options.up_script.as_deref(), "vip-up"), ('d', options.down_script.as_deref(), "vip-down")]
    {
        if !calls(hook, program) {
            let hook = hook.unwrap_or("nothing");
            let text = format!("calls {hook}, which is not {program}: start it with -{letter} /usr/bin/{program}");
            findings.push(Finding::new("ucarp", Level::Critical, text));
        }
    }
    let advice = [
        (!shutdown_script, "runs without -z: when it ends, the address stays behind"),
        (visible_password, "shows its password in the process list: give it in a file, with -o"),
        (preempt, "runs with -P: it takes the address from a healthy master, and clients wait for that"),
    ];
    let wrong = advice.iter().filter(|(wrong, _)| *wrong);
    findings.extend(wrong.map(|(_, text)| Finding::new("ucarp", Level::Warning, *text)));
    if findings.is_empty() {
        let text = format!(
            "process {}, vhid {vhid}, sees the death of a master after {} (advbase {advbase} x deadratio {deadratio})",
            caller.pid,
            human(caller.options.dead_time())
        );
        findings.push(Finding::new("ucarp", Level::Ok, text));
    }
    findings
}

/// A warning if the last promotion or demotion did not end well.
fn last_run(records: &[Record]) -> Option<Finding> {
    let last = records.iter().rev().find(|record| record.role != "rehearsal")?;
    let at = when(u64::try_from(last.started).unwrap_or_default());
    let text = format!("the last one, a {} at {at}, ended: {}", last.role, last.outcome);
    Some(match &last.error {
        Some(error) => Finding::new("runs", Level::Warning, format!("{text}: {error}")),
        None => Finding::new("runs", Level::Ok, text),
    })
}

fn rehearsal(records: &[Record], numbers: &mut Numbers) -> Finding {
    let Some(last) = records.iter().rev().find(|record| record.role == "rehearsal" && record.outcome != "cancelled")
    else {
        return never_rehearsed();
    };
    let at = when(u64::try_from(last.started).unwrap_or_default());
    if let Some(error) = &last.error {
        let text = format!("that of {at} failed: {error}; run mfs-promote --rehearse again");
        return Finding::new("rehearsal", Level::Warning, text);
    }
    numbers.rehearsed = Some(last.started);
    Finding::new("rehearsal", Level::Ok, format!("{at}, would serve"))
}

fn never_rehearsed() -> Finding {
    Finding::new("rehearsal", Level::Ok, "never, or longer ago than 50 runs; mfs-promote --rehearse does it")
}

/// What staging and loading took in a run that did both.
fn loading(record: &Record) -> Option<Duration> {
    let took = |name: &str| record.steps.iter().find(|step| step.name == name).map(|step| step.ms);
    let load = took("restore").or_else(|| Some(took("start")? + took("prove")?))?;
    Some(Duration::from_millis(load + took("stage").unwrap_or_default()))
}
