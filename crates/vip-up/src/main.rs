//! What ucarp runs when this machine becomes MASTER: adds the virtual address, hands the rest to `mfs-promote` in the
//! background, and is back in milliseconds, since ucarp says nothing to its rivals before.

mod args;

use std::error::Error;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use failover::address::{self, Added};
use failover::config::{self, Config};
use failover::lock::{Locks, Role};
use failover::ucarp::Caller;
use failover::{cancel, logging, process, service};

use crate::args::Arguments;

fn main() -> ExitCode {
    process::leave_inherited();
    cancel::hold_back();
    if std::io::stderr().is_terminal() {
        logging::to_stderr("vip-up", 0);
    } else {
        logging::to_syslog("vip-up");
    }
    let caller = Caller::parent().ok();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            if let Some(caller) = caller.filter(|_| error.use_stderr()) {
                error.to_string().lines().filter(|line| !line.is_empty()).for_each(|line| log::error!("{line}"));
                terminate(&caller);
            }
            error.exit();
        }
    };
    if let Err(error) = run(&arguments, caller.as_ref()) {
        log::error!("{}", logging::chain(&*error));
        if let Some(caller) = &caller {
            step_down(&arguments, caller);
        }
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn run(arguments: &Arguments, caller: Option<&Caller>) -> Result<(), Box<dyn Error>> {
    if !process::is_root() {
        return Err("vip-up must run as root: it changes addresses".into());
    }
    let config = Config::for_xparam(arguments.xparam.as_deref())?;
    let interface = address::interface(&arguments.interface)?;
    let locks = Locks::system()?;
    let turn = locks.turn();
    let added = address::add(&interface, arguments.vip, config.prefix_length)?;
    let started = hand_over(&locks, arguments, caller);
    drop(turn);
    match started {
        Ok(pid) => {
            let done = if added == Added::Added { "added to" } else { "was on" };
            log::info!("{} {done} {}; promotion started (process {pid})", arguments.vip, arguments.interface);
            Ok(())
        }
        Err(error) => {
            if added == Added::Added {
                address::remove(&interface, arguments.vip)?;
            }
            Err(error)
        }
    }
}

/// Starts the promotion. From the ticket on, any earlier promotion or demotion gives way to it.
fn hand_over(locks: &Locks, arguments: &Arguments, caller: Option<&Caller>) -> Result<u32, Box<dyn Error>> {
    let program = process::find_beside("mfs-promote")?;
    let ticket = locks.request(Role::Promotion)?;
    let mut words: Vec<OsString> = vec![
        format!("--interface={}", arguments.interface).into(),
        format!("--vip={}", arguments.vip).into(),
        format!("--ticket={ticket}").into(),
    ];
    words.extend(caller.map(|caller| format!("--hook={caller}").into()));
    if let Some(name) = &arguments.xparam {
        let mut word = OsString::from("--config=");
        word.push(config::path_for_xparam(name)?);
        words.push(word);
    }
    Ok(process::launch(&program, &words)?)
}

/// Gives the address up for another machine. It must not stay, whoever added it: ucarp without -z leaves it there.
fn step_down(arguments: &Arguments, caller: &Caller) {
    let removed = address::interface(&arguments.interface)
        .and_then(|interface| address::remove(&interface, arguments.vip))
        .map(|_| ());
    if let Err(error) = removed.or_else(|e| if e.is_no_interface() { Ok(()) } else { Err(e) }) {
        log::error!("{}", logging::chain(&error));
    }
    terminate(caller);
}

/// Tells ucarp to end. It does so when this program has returned, so there is nothing to wait for.
fn terminate(caller: &Caller) {
    // Its unit might start it again, and again.
    if let Err(error) = service::stop_unit_of(caller.pid) {
        log::warn!("ucarp's unit may start it again: {}", logging::chain(&error));
    }
    match caller.terminate() {
        Ok(()) => log::error!(
            "nothing would serve here: told ucarp (process {}) to end, so that another machine takes over. Put right what \
             is named above, then start ucarp again",
            caller.pid
        ),
        Err(error) => log::error!("{}", logging::chain(&error)),
    }
}
