//! `--init`: sets this machine up as one of those that can be the master, once, and as often as it is asked to.
//!
//! [`mod@facts`] finds out what is here, [`mod@plan`] decides what has to change, and nothing is changed before all of it was shown
//! and agreed to. What is right already stays as it is. No master that runs is touched, and no ucarp that runs is restarted.

mod facts;
mod files;
mod plan;

use std::error::Error;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::time::Duration;

use crate::check;
use crate::machine::config::Config;
use crate::moosefs;
use crate::sys::cancel::Cancel;
use crate::sys::terminal::{self, Style, print};
use crate::sys::{process, tcp};
use crate::timing;
use crate::ucarp::{Options, OtherMasters, Password as UcarpPassword};
use crate::vip::VirtualIp;
use facts::{Facts, Password};
use plan::{Around, Chosen, Command, Plan};

/// How long a unit may take to start.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long a master may take to answer.
const ANSWER: Duration = Duration::from_secs(2);
/// What the unit of ucarp runs.
const UCARP_SERVICE: &str = "/usr/libexec/moosefs-ucarp/ucarp-service";
/// So many advertisements of a MASTER are waited for.
const ADVERTISEMENTS: u32 = 3;
/// One probe can be lost.
const ARP_PROBES: u32 = 3;
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
    let plan = plan::plan(&chosen, &request, &facts, &look_around(&chosen, &facts)?)?;
    print(&shown(&chosen, &facts, &plan));
    if !plan.is_empty() {
        if !agreed(&request) {
            print("nothing was changed; --yes does it\n");
            return Ok(false);
        }
        if !request.agreed {
            still_so(&request, &plan)?;
        }
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

/// Looks around on the network. A ucarp that is started beside one that advertises stands by. A master that answers at the address
/// proves nothing, whatever has put it there: a ucarp that hears nobody takes the address.
fn look_around(chosen: &Chosen, facts: &Facts) -> Result<Around, Box<dyn Error>> {
    if facts.ucarp.runs {
        return Ok(Around { follows: true, ..Around::default() });
    }
    let vip = VirtualIp { interface: chosen.interface.clone(), address: chosen.vip };
    let arp = vip.arp()?;
    let mut has_vip = None;
    for _ in 0..ARP_PROBES {
        has_vip = has_vip.or(arp.ask(timing::ARP_ANSWER, Cancel::never())?);
    }
    let own = |address: Ipv4Addr| facts.addresses.iter().any(|(_, entry)| entry.address == address);
    let serves = facts.resolved.filter(|named| *named != chosen.vip && !named.is_loopback() && !own(*named));
    Ok(Around {
        advertises: advertiser(&vip, chosen, facts)?,
        has_vip: has_vip.map(|mac| mac.to_string()),
        serves: serves.filter(|named| moosefs::info(SocketAddrV4::new(*named, facts.ports[0]), ANSWER).is_ok()),
        follows: !tcp::outgoing_to(SocketAddrV4::new(chosen.vip, facts.ports[1])).is_empty(),
    })
}

/// Another machine that advertises the address now, with the password that is here.
fn advertiser(vip: &VirtualIp, chosen: &Chosen, facts: &Facts) -> Result<Option<Ipv4Addr>, Box<dyn Error>> {
    if facts.password != Password::Good {
        return Ok(None);
    }
    let given = files::parsed(&files::value(&facts.values, "OPTIONS").unwrap_or_default());
    let password = Some(UcarpPassword::File(facts.password_file.clone()));
    let options = Options { vhid: chosen.vhid, vip: Some(chosen.vip), password, ..given };
    let mut others = OtherMasters::listen(&vip.interface, chosen.vip, &options)?;
    Ok(others.wait(options.interval() * ADVERTISEMENTS, Cancel::never())?)
}

fn agreed(request: &Request) -> bool {
    request.agreed
        || terminal::ask("Do this? [y/N] ").is_some_and(|answer| ["y", "yes"].contains(&answer.to_lowercase().as_str()))
}

/// Much can happen while a question waits for its answer.
fn still_so(request: &Request, plan: &Plan) -> Result<(), Box<dyn Error>> {
    let facts = Facts::gather()?;
    let chosen = Chosen::of(request, &facts)?;
    let now = plan::plan(&chosen, request, &facts, &look_around(&chosen, &facts)?)?;
    let files = |plan: &Plan| plan.edits.iter().map(|edit| edit.path.clone()).collect::<Vec<_>>();
    if now.commands == plan.commands && now.notes == plan.notes && files(&now) == files(plan) {
        return Ok(());
    }
    Err("this machine or its group has changed since that was shown, so nothing was done: run it again".into())
}

/// What was found, and everything that will be written and run.
fn shown(chosen: &Chosen, facts: &Facts, plan: &Plan) -> String {
    let role = match facts.master {
        Some(pid) => format!("the master runs here (pid {pid}); a healthy one is left alone"),
        None => "no master runs here: it will stand by".to_owned(),
    };
    let style = Style::of_stdout();
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
        let _ = writeln!(text, "{:<36}# {}", command.to_string(), command.why);
    }
    for note in &plan.notes {
        let _ = writeln!(text, "{}", style.fitted(&format!("note: {note}"), 0));
    }
    text.push('\n');
    text
}

/// Writes the files, has the unit's own script look at its values, then runs the commands, in order.
fn carry_out(plan: &Plan, cancel: &Cancel) -> Result<(), Box<dyn Error>> {
    for edit in &plan.edits {
        edit.write()?;
    }
    if plan.is_empty() {
        return Ok(());
    }
    process::run(Path::new(UCARP_SERVICE), &["check"], PATIENCE, cancel).and_then(process::Finished::success)?;
    for (at, command) in plan.commands.iter().enumerate() {
        print(&format!("{command}\n"));
        run(command, cancel).inspect_err(|_| {
            let left: Vec<_> = plan.commands[at..].iter().map(ToString::to_string).collect();
            print(&format!("not done: {}\nput that right, and run mfs-promote --init again\n", left.join("; ")));
        })?;
    }
    print("\n");
    Ok(())
}

fn run(Command { program, words, .. }: &Command, cancel: &Cancel) -> Result<(), Box<dyn Error>> {
    let program = process::find_program(program).ok_or_else(|| format!("there is no program {program}"))?;
    process::run(&program, words, PATIENCE, cancel).and_then(process::Finished::success)?;
    Ok(())
}

/// What no command on this machine can do.
fn left_to_do(chosen: &Chosen, facts: &Facts, plan: &Plan) -> String {
    let Chosen { vip, skew, .. } = chosen;
    let (name, next, style) = (&facts.name, plan::next_skew(*skew), Style::of_stdout());
    let mut text = "left to do\n".to_owned();
    if facts.master.is_some() {
        let on_new = "on a new machine that can be the master, after this package (each with a --skew of its own, 50 from those \
                      of the others; where root must not use ssh, copy these files in your own way):";
        let _ = writeln!(text, "  {}\n    {}", style.fitted(on_new, 2), next_machine(chosen, facts, next));
    }
    if !plan.is_empty() {
        let on_chunkservers = format!(
            "on each chunkserver, one after the other: \"{vip} {name}\" in /etc/hosts, MASTER_RECONNECTION_DELAY = 1 in \
             mfschunkserver.cfg, then restart it"
        );
        let on_clients = format!("on each client: \"{vip} {name}\" in /etc/hosts, then mount it anew");
        for line in [on_chunkservers, on_clients] {
            let _ = writeln!(text, "  {}", style.fitted(&line, 2));
        }
    }
    text.push('\n');
    if text.lines().count() > 2 { text } else { String::new() }
}

/// One line for the next machine: it copies what must be the same there, and sets it up.
fn next_machine(chosen: &Chosen, facts: &Facts, skew: u8) -> String {
    let same: Vec<_> = facts.same_everywhere().iter().map(|path| path.display().to_string()).collect();
    let same: Vec<_> = same.iter().map(|path| path.trim_start_matches('/')).collect();
    let Chosen { vip, vhid, address, .. } = chosen;
    format!(
        "ssh root@{address} tar -C / -chf - {} | tar -C / -xf - && mfs-promote --init --vip {vip} --vhid {vhid} --skew {skew}",
        same.join(" ")
    )
}
