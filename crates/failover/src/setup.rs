//! `--init`: sets this machine up as one of those that can be the master, once, and as often as it is asked to.
//!
//! [`mod@facts`] finds out what is here, [`mod@plan`] decides what has to change, and nothing is changed before all of it was shown
//! and agreed to. What is right already stays as it is. No master that runs is touched, and no ucarp that runs is restarted.

mod facts;
mod files;
mod plan;

use std::error::Error;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use crate::check;
use crate::machine::config::Config;
use crate::sys::cancel::Cancel;
use crate::sys::process;
use crate::sys::terminal::{self, print};
use crate::ucarp::{Options, OtherMasters, Password as UcarpPassword};
use facts::{Facts, Password};
use plan::{Chosen, Command, Plan};

/// How long a unit may take to start.
const PATIENCE: Duration = Duration::from_secs(90);
/// A MASTER advertises once in `advbase` seconds, which is 1.
const ADVERTISEMENT: Duration = Duration::from_millis(2500);
/// How long the first copy of small metadata takes, and longer.
const FIRST_COPY: Duration = Duration::from_secs(30);

/// What is asked for. What is not given stays as it is, or is found.
#[derive(Debug, Default)]
pub(crate) struct Request {
    /// The virtual IP.
    pub(crate) vip: Option<Ipv4Addr>,
    /// Its interface.
    pub(crate) interface: Option<String>,
    /// The virtual host id.
    pub(crate) vhid: Option<u8>,
    /// ucarp's advskew.
    pub(crate) skew: Option<u8>,
    /// Whether /etc/hosts is left alone.
    pub(crate) keep_hosts: bool,
    /// Whether it is done without a question.
    pub(crate) agreed: bool,
}

/// Sets this machine up; answers whether it is set up now, as `--check` sees it.
pub(crate) fn set_up(mut request: Request) -> Result<bool, Box<dyn Error>> {
    let facts = Facts::gather()?;
    ask_for_vip(&mut request, &facts);
    let chosen = Chosen::of(&request, &facts)?;
    let plan = plan::plan(&chosen, &request, &facts, heard(&chosen, &facts)?)?;
    print(&shown(&chosen, &facts, &plan));
    if !plan.is_empty() && !agreed(&request) {
        print("nothing was changed; --yes does it\n");
        return Ok(false);
    }
    // Not before the question: a signal ends the program there.
    let cancel = &Cancel::on_signals()?;
    carry_out(&plan, cancel)?;
    print(&left_to_do(&chosen, &facts, &plan));
    Ok(check::check_until_ready(|| Ok(Config::for_xparam(None)?), FIRST_COPY, cancel))
}

/// Asks for the virtual IP if it is not known and somebody is there to answer. An answer that is no address is none.
fn ask_for_vip(request: &mut Request, facts: &Facts) {
    if request.vip.is_some() || facts.configured_vip().is_some() || request.agreed {
        return;
    }
    let proposed = facts.resolved.map(|address| format!(" ({} resolves to {address})", facts.name)).unwrap_or_default();
    let answer = terminal::ask(&format!("virtual IP, a free address, the same on all machines{proposed}: "));
    request.vip = answer.and_then(|answer| answer.parse().ok());
}

/// Another machine that advertises the address now, with the password that is here: a ucarp that is started beside it stands by. A
/// master that answers at the address proves nothing, whatever has put it there: a ucarp that hears nobody takes the address.
fn heard(chosen: &Chosen, facts: &Facts) -> Result<Option<Ipv4Addr>, Box<dyn Error>> {
    if facts.ucarp.runs || facts.password != Password::Good {
        return Ok(None);
    }
    let password = Some(UcarpPassword::File(facts.password_file.clone()));
    let options = Options { vhid: chosen.vhid, vip: Some(chosen.vip), password, ..Options::default() };
    let mut others = OtherMasters::listen(&chosen.interface, chosen.vip, &options)?;
    Ok(others.wait(ADVERTISEMENT, Cancel::never())?)
}

fn agreed(request: &Request) -> bool {
    request.agreed
        || terminal::ask("Do this? [y/N] ").is_some_and(|answer| ["y", "yes"].contains(&answer.to_lowercase().as_str()))
}

/// What was found, and everything that will be written and run.
fn shown(chosen: &Chosen, facts: &Facts, plan: &Plan) -> String {
    let role = match facts.master {
        Some(pid) => format!("the MooseFS master runs here (pid {pid}), and is left alone"),
        None => "no master runs here: it will stand by".to_owned(),
    };
    let mut text = format!(
        "this machine: {role}\nvirtual IP {} on {} ({}), vhid {}, advskew {}\n\n",
        chosen.vip, chosen.interface, chosen.address, chosen.vhid, chosen.skew
    );
    if plan.is_empty() {
        text.push_str("everything is set up already, nothing to change\n\n");
        return text;
    }
    for edit in &plan.edits {
        let _ = writeln!(text, "{edit}");
    }
    for command in &plan.commands {
        let _ = writeln!(text, "{:<50}# {}", command.to_string(), command.why);
    }
    text.push('\n');
    text
}

/// Writes the files, then runs the commands, in order.
fn carry_out(plan: &Plan, cancel: &Cancel) -> Result<(), Box<dyn Error>> {
    for edit in &plan.edits {
        edit.write()?;
    }
    for command in &plan.commands {
        print(&format!("{command}\n"));
        let Command { program, words, .. } = command;
        let program = process::find_program(program).ok_or_else(|| format!("there is no program {program}"))?;
        process::run(&program, words, PATIENCE, cancel).and_then(process::Finished::success)?;
    }
    if !plan.commands.is_empty() {
        print("\n");
    }
    Ok(())
}

/// What no command on this machine can do.
fn left_to_do(chosen: &Chosen, facts: &Facts, plan: &Plan) -> String {
    let Chosen { vip, .. } = chosen;
    let name = &facts.name;
    let mut text = "left to do\n".to_owned();
    for note in &plan.notes {
        let _ = writeln!(text, "  here: {note}");
    }
    if facts.master.is_some() {
        let _ = writeln!(
            text,
            "  on the next machine that can be the master, after this package:\n    {}",
            next_machine(chosen, facts)
        );
    }
    let _ = writeln!(
        text,
        "  on each chunkserver: \"{vip} {name}\" in /etc/hosts, MASTER_RECONNECTION_DELAY = 1 in mfschunkserver.cfg, then \
         restart it\n  on each client: \"{vip} {name}\" in /etc/hosts, then mount it anew\n"
    );
    text
}

/// One line for the next machine: it copies what must be the same there, and sets it up.
fn next_machine(chosen: &Chosen, facts: &Facts) -> String {
    let same: Vec<_> = facts.same_everywhere().iter().map(|path| path.display().to_string()).collect();
    let same: Vec<_> = same.iter().map(|path| path.trim_start_matches('/')).collect();
    let Chosen { vip, vhid, skew, address, .. } = chosen;
    format!(
        "ssh root@{address} tar -C / -c {} | tar -C / -x && mfs-promote --init --vip {vip} --vhid {vhid} --skew {}",
        same.join(" "),
        plan::next_skew(*skew)
    )
}

/// Whether a path is there, whatever it is.
fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
