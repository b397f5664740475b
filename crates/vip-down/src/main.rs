//! What ucarp runs when this machine becomes BACKUP, and when ucarp starts: removes the virtual address, hands the rest
//! to `mfs-promote` in the background, and is back in milliseconds: some 30 on the machine that serves. It needs no
//! configuration, goes on past every error and reports them all.

mod args;

use std::error::Error;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use failover::address::{self, Removed};
use failover::config::Config;
use failover::leave::leave;
use failover::lock::{self, Locks, Role};
use failover::ucarp::Caller;
use failover::{cancel, config, logging, process};

use crate::args::Arguments;

fn main() -> ExitCode {
    process::leave_inherited();
    cancel::hold_back();
    if std::io::stderr().is_terminal() {
        logging::to_stderr("vip-down", 0);
    } else {
        logging::to_syslog("vip-down");
    }
    let arguments = Arguments::try_parse().unwrap_or_else(|error| {
        if error.use_stderr() {
            error.to_string().lines().filter(|line| !line.is_empty()).for_each(|line| log::error!("{line}"));
        }
        error.exit()
    });
    if !process::is_root() {
        log::error!("vip-down must run as root: it changes addresses");
        return ExitCode::FAILURE;
    }
    let mut failed = false;
    let mut report = |error: &dyn Error| {
        log::error!("{}", logging::chain(error));
        failed = true;
    };
    let locks = Locks::system().inspect_err(|error| report(error)).ok();
    let turn = locks.as_ref().and_then(Locks::turn);
    // The address first: another machine may have it already.
    if let Err(error) = remove(&arguments) {
        report(&error);
    }
    // Without a ticket mfs-promote asks for one itself.
    let ticket = locks.and_then(|locks| locks.request(Role::Demotion).inspect_err(|error| report(error)).ok());
    drop(turn);
    let file = arguments.xparam.as_deref().map(config::path_for_xparam);
    let file = file.and_then(|file| file.inspect_err(|error| report(error)).ok());
    if let Err(error) = hand_over(&arguments, ticket, file) {
        report(&error);
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn remove(arguments: &Arguments) -> Result<(), address::Error> {
    // mfs-promote reports what is wrong with it.
    let config = Config::for_xparam(arguments.xparam.as_deref()).unwrap_or_else(|_| Config::fallback());
    let removed = address::interface(&arguments.interface)
        .and_then(|interface| leave(&interface, arguments.vip, config.client_host, config.client_port));
    match removed {
        Ok(Removed::Removed) => log::info!("{} removed from {}", arguments.vip, arguments.interface),
        Ok(Removed::NotThere) => log::info!("{} was not on {}", arguments.vip, arguments.interface),
        Err(error) if error.is_no_interface() => {
            log::info!("{} is gone, and {} with it", arguments.interface, arguments.vip);
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Starts the demotion. A running promotion gives way to it.
fn hand_over(
    arguments: &Arguments,
    ticket: Option<lock::Ticket>,
    file: Option<std::path::PathBuf>,
) -> Result<(), process::Error> {
    let mut words: Vec<OsString> = vec![
        "--demote".into(),
        format!("--interface={}", arguments.interface).into(),
        format!("--vip={}", arguments.vip).into(),
    ];
    words.extend(ticket.map(|ticket| format!("--ticket={ticket}").into()));
    words.extend(Caller::parent().ok().map(|caller| format!("--hook={caller}").into()));
    if let Some(file) = file {
        let mut word = OsString::from("--config=");
        word.push(file);
        words.push(word);
    }
    let pid = process::launch(&process::find_beside("mfs-promote")?, &words)?;
    log::info!("demotion started (process {pid})");
    Ok(())
}
