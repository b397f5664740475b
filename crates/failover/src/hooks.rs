//! The two hooks of ucarp.
//!
//! ucarp waits for a hook and advertises nothing meanwhile, so a hook moves the address, starts `mfs-promote` in the
//! background and returns, in milliseconds. `vip-up` leaves no address behind that nothing would serve on. `vip-down` needs
//! no configuration, goes on past every error and reports them all; some 30 ms on the machine that serves.

use std::error::Error;
use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::cli::{HookWords, VipDown, VipUp};
use crate::machine::config::{self, Config};
use crate::machine::lock::{Locks, Role, Ticket};
use crate::moosefs::workarounds::drain;
use crate::sys::address::{self, Added, Removed};
use crate::sys::logging::{self, chain};
use crate::sys::{cancel, process, systemd};
use crate::ucarp::Ucarp;

/// Adds the virtual address and starts the promotion.
pub(crate) fn vip_up(parsed: Result<VipUp, clap::Error>) -> ExitCode {
    begin("vip-up");
    let caller = Ucarp::parent().ok();
    let words = match parsed {
        Ok(VipUp { words }) => words,
        Err(error) => {
            if let Some(caller) = caller.filter(|_| error.use_stderr()) {
                log_usage(&error);
                stop_ucarp(&caller);
            }
            error.exit();
        }
    };
    if let Err(error) = add_and_promote(&words, caller.as_ref()) {
        log::error!("{}", chain(&*error));
        if let Some(caller) = &caller {
            step_down(&words, caller);
        }
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Removes the virtual address and starts the demotion.
pub(crate) fn vip_down(parsed: Result<VipDown, clap::Error>) -> ExitCode {
    begin("vip-down");
    let words = match parsed {
        Ok(VipDown { words }) => words,
        Err(error) => {
            if error.use_stderr() {
                log_usage(&error);
            }
            error.exit();
        }
    };
    if !process::is_root() {
        log::error!("vip-down must run as root: it changes addresses");
        return ExitCode::FAILURE;
    }
    let mut failed = false;
    let mut report = |error: &dyn Error| {
        log::error!("{}", chain(error));
        failed = true;
    };
    let locks = Locks::system().inspect_err(|error| report(error)).ok();
    let turn = locks.as_ref().and_then(Locks::turn);
    // The address first: another machine may have it already.
    if let Err(error) = remove(&words) {
        report(&error);
    }
    // Without a ticket mfs-promote asks for one itself.
    let ticket = locks.and_then(|locks| locks.request(Role::Demotion).inspect_err(|error| report(error)).ok());
    drop(turn);
    let file = words.xparam.as_deref().map(config::path_for_xparam);
    let file = file.and_then(|file| file.inspect_err(|error| report(error)).ok());
    if let Err(error) = launch_demotion(&words, ticket, file) {
        report(&error);
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// ucarp leaves descriptors open by mistake, and a service manager may end the rest of ucarp's unit at any moment.
fn begin(name: &str) {
    process::close_inherited();
    cancel::block_signals();
    if std::io::stderr().is_terminal() {
        logging::to_stderr(name, 0);
    } else {
        logging::to_syslog(name);
    }
}

fn log_usage(error: &clap::Error) {
    error.to_string().lines().filter(|line| !line.is_empty()).for_each(|line| log::error!("{line}"));
}

fn add_and_promote(words: &HookWords, caller: Option<&Ucarp>) -> Result<(), Box<dyn Error>> {
    if !process::is_root() {
        return Err("vip-up must run as root: it changes addresses".into());
    }
    let config = Config::for_xparam(words.xparam.as_deref())?;
    let interface = address::interface(&words.interface)?;
    let locks = Locks::system()?;
    let turn = locks.turn();
    let added = address::add(&interface, words.vip, config.prefix_length)?;
    let started = launch_promotion(&locks, words, caller);
    drop(turn);
    match started {
        Ok(pid) => {
            let done = if added == Added::Added { "added to" } else { "was on" };
            log::info!("{} {done} {}; promotion started (process {pid})", words.vip, words.interface);
            Ok(())
        }
        Err(error) => {
            if added == Added::Added {
                address::remove(&interface, words.vip)?;
            }
            Err(error)
        }
    }
}

/// Starts the promotion. From the ticket on, any earlier promotion or demotion gives way to it.
fn launch_promotion(locks: &Locks, words: &HookWords, caller: Option<&Ucarp>) -> Result<u32, Box<dyn Error>> {
    let program = process::find_beside("mfs-promote")?;
    let ticket = locks.request(Role::Promotion)?;
    let mut arguments: Vec<OsString> = vec![
        format!("--interface={}", words.interface).into(),
        format!("--vip={}", words.vip).into(),
        format!("--ticket={ticket}").into(),
    ];
    arguments.extend(caller.map(|caller| format!("--hook={caller}").into()));
    if let Some(name) = &words.xparam {
        let mut word = OsString::from("--config=");
        word.push(config::path_for_xparam(name)?);
        arguments.push(word);
    }
    Ok(process::launch(&program, &arguments)?)
}

/// Gives the address up for another machine. It must not stay, whoever added it: ucarp without -z leaves it there.
fn step_down(words: &HookWords, caller: &Ucarp) {
    let removed =
        address::interface(&words.interface).and_then(|interface| address::remove(&interface, words.vip)).map(|_| ());
    if let Err(error) = removed.or_else(|e| if e.is_no_interface() { Ok(()) } else { Err(e) }) {
        log::error!("{}", chain(&error));
    }
    stop_ucarp(caller);
}

/// Tells ucarp to end. It does so when this program has returned, so there is nothing to wait for.
fn stop_ucarp(caller: &Ucarp) {
    // Its unit might start it again, and again.
    if let Err(error) = systemd::stop_unit_of(caller.pid) {
        log::warn!("ucarp's unit may start it again: {}", chain(&error));
    }
    match caller.terminate() {
        Ok(()) => log::error!(
            "cannot serve here; stopping ucarp (pid {}) so that another machine can take over. Fix the error above, then \
             start ucarp again",
            caller.pid
        ),
        Err(error) => log::error!("{}", chain(&error)),
    }
}

fn remove(words: &HookWords) -> Result<(), address::Error> {
    // mfs-promote reports what is wrong with it.
    let config = Config::for_xparam(words.xparam.as_deref()).unwrap_or_else(|_| Config::fallback());
    let removed = address::interface(&words.interface)
        .and_then(|interface| drain::remove_address(&interface, words.vip, config.client_host, config.client_port));
    match removed {
        Ok(Removed::Removed) => log::info!("{} removed from {}", words.vip, words.interface),
        Ok(Removed::NotThere) => log::info!("{} was not on {}", words.vip, words.interface),
        Err(error) if error.is_no_interface() => {
            log::info!("{} is gone, and {} with it", words.interface, words.vip);
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Starts the demotion. A running promotion gives way to it.
fn launch_demotion(words: &HookWords, ticket: Option<Ticket>, file: Option<PathBuf>) -> Result<(), process::Error> {
    let mut arguments: Vec<OsString> = vec![
        "--demote".into(),
        format!("--interface={}", words.interface).into(),
        format!("--vip={}", words.vip).into(),
    ];
    arguments.extend(ticket.map(|ticket| format!("--ticket={ticket}").into()));
    arguments.extend(Ucarp::parent().ok().map(|caller| format!("--hook={caller}").into()));
    if let Some(file) = file {
        let mut word = OsString::from("--config=");
        word.push(file);
        arguments.push(word);
    }
    let pid = process::launch(&process::find_beside("mfs-promote")?, &arguments)?;
    log::info!("demotion started (process {pid})");
    Ok(())
}
