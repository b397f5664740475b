//! The two hooks of ucarp.
//!
//! ucarp waits for a hook and advertises nothing meanwhile, so a hook moves the address, starts `mfs-promote` in the
//! background and returns, in milliseconds. `vip-up` leaves no address behind that nothing would serve on. `vip-down` needs
//! no configuration, goes on past every error and reports them all; some 30 ms on the machine that serves.

use std::error::Error;
use std::io::IsTerminal as _;
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::time::Duration;

use crate::cli::{HookWords, VipDown, VipUp};
use crate::instance::Instance;
use crate::machine::call::{Call, end_promotions};
use crate::machine::config::Config;
use crate::machine::lock::{Locks, Ticket};
use crate::machine::neighbours::{self, Claim, Conflict};
use crate::machine::notify;
use crate::machine::outcome::RunKind;
use crate::machine::step_down::stop_calling_ucarp;
use crate::metadata::Version;
use crate::moosefs::workarounds::drain::{self, Left};
use crate::policy::Why;
use crate::sys::address::{Added, Removed};
use crate::sys::logging::{self, chain};
use crate::sys::nft::Lease;
use crate::sys::nft::apart::{self, Change};
use crate::sys::text::human;
use crate::sys::{cancel, process};
use crate::timing;
use crate::ucarp::Ucarp;
use crate::vip::VirtualIp;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Adds the virtual IP and starts the promotion. If nothing could be started that would serve on the address, it is
/// removed again and the calling ucarp stopped.
pub(crate) fn vip_up(parsed: std::result::Result<VipUp, clap::Error>) -> ExitCode {
    if let Some(done) = apart::asked() {
        return done;
    }
    begin("vip-up", parsed.as_ref().ok().map(|parsed| &parsed.words));
    let ucarp = Ucarp::parent().ok();
    let words = match parsed {
        Ok(VipUp { words }) => words,
        Err(error) => {
            if let Some(ucarp) = ucarp.filter(|_| error.use_stderr()) {
                log_usage(&error);
                stop_calling_ucarp(&ucarp);
            }
            error.exit();
        }
    };
    let config = Config::for_xparam(words.xparam.as_deref());
    let known = config.as_ref().ok().cloned();
    let admitted = neighbours::admit(&claim(&words, known.as_ref()), ucarp.as_ref());
    let keep_address = admitted.as_ref().is_err_and(Conflict::is_same_address);
    let promoted = config.map_err(Into::into).and_then(|config| {
        admitted?;
        add_and_promote(&words, &config, ucarp.as_ref())
    });
    if let Err(error) = promoted {
        let text = chain(&*error);
        log::error!("{text}");
        if let Some(ucarp) = &ucarp {
            if !keep_address {
                leave_address(&words);
            }
            give_up(&words, ucarp, known.as_ref(), text);
        }
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Removes the virtual IP and starts the demotion. Goes on past every error and reports them all.
pub(crate) fn vip_down(parsed: std::result::Result<VipDown, clap::Error>) -> ExitCode {
    if let Some(done) = apart::asked() {
        return done;
    }
    begin("vip-down", parsed.as_ref().ok().map(|parsed| &parsed.words));
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
    let config = Config::for_xparam(words.xparam.as_deref()).ok();
    let config = config.or_else(|| Config::salvage_for(instance(&words).named_file().as_deref()));
    let ucarp = Ucarp::parent().ok();
    if let Err(conflict) = neighbours::admit(&claim(&words, config.as_ref()), ucarp.as_ref()) {
        let named = Instance::of_xparam(words.xparam.as_deref());
        let why = named.map_or_else(|bad| chain(&bad), |_| chain(&conflict));
        log::error!("nothing is demoted: {why}");
        if !conflict.is_same_address() {
            leave_address(&words);
        }
        return ExitCode::FAILURE;
    }
    let mut failed = false;
    let mut report = |error: &dyn Error| {
        log::error!("{}", chain(error));
        failed = true;
    };
    let locks = Locks::of(&instance(&words)).inspect_err(|error| report(error)).ok();
    let mutex = locks.as_ref().and_then(Locks::hook_mutex);
    // The address first: another machine may have it already.
    let left = remove_address(&words, config.as_ref()).inspect_err(|error| report(&**error)).ok().flatten();
    let ucarp = caller(ucarp, locks.as_ref(), words.vip);
    // Without a ticket mfs-promote draws one itself.
    let ticket = locks.and_then(|locks| locks.ask(RunKind::Demotion).inspect_err(|error| report(error)).ok());
    if ticket.is_none() {
        // The run that serves would take the address for lost, and restore it.
        end_promotions(&virtual_ip(&words));
    }
    drop(mutex);
    if let Err(error) = Instance::of_xparam(words.xparam.as_deref()) {
        report(&error);
    }
    let call = Call { left, ..call(RunKind::Demotion, &words, ticket, ucarp) };
    match call.launch() {
        Ok(pid) => log::info!("demotion started (pid {pid})"),
        Err(error) => report(&error),
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// The ucarp that calls `vip-down`. If something else calls, as ucarp's unit does when ucarp has ended, it is the ucarp that
/// called last: its options tell how long it may take to come back, and who else is heard.
fn caller(parent: Option<Ucarp>, locks: Option<&Locks>, vip: Ipv4Addr) -> Option<Ucarp> {
    match parent {
        Some(ucarp) => {
            if let Some(locks) = locks {
                locks.remember_ucarp(vip, &ucarp);
            }
            Some(ucarp)
        }
        None => locks?.last_ucarp(vip).filter(|ucarp| !ucarp.is_alive()),
    }
}

/// ucarp leaves descriptors open by mistake, and a service manager may end the rest of ucarp's unit at any moment.
fn begin(name: &str, words: Option<&HookWords>) {
    process::close_inherited();
    cancel::block_signals();
    if std::io::stderr().is_terminal() {
        logging::to_stderr(name, 0);
    } else {
        logging::to_syslog(&words.map(instance).unwrap_or_default().ident(name), logging::HOOK_PATIENCE);
    }
}

fn log_usage(error: &clap::Error) {
    error.to_string().lines().filter(|line| !line.is_empty()).for_each(|line| log::error!("{line}"));
}

fn call(kind: RunKind, words: &HookWords, ticket: Option<Ticket>, ucarp: Option<Ucarp>) -> Call {
    let config = instance(words).named_file();
    Call { kind, interface: words.interface.clone(), vip: words.vip, config, ticket, ucarp, left: None, killed: 0 }
}

/// A name that cannot be one is that of no instance: what is asked for concerns the one without a name.
fn instance(words: &HookWords) -> Instance {
    Instance::of_xparam(words.xparam.as_deref()).unwrap_or_default()
}

fn claim(words: &HookWords, config: Option<&Config>) -> Claim {
    Claim::of(instance(words), virtual_ip(words), config)
}

fn virtual_ip(words: &HookWords) -> VirtualIp {
    VirtualIp { interface: words.interface.clone(), address: words.vip }
}

/// Adds the address and starts the promotion. From the ticket on, any earlier promotion or demotion gives way to it.
fn add_and_promote(words: &HookWords, config: &Config, ucarp: Option<&Ucarp>) -> Result<()> {
    if !process::is_root() {
        return Err("vip-up must run as root: it changes addresses".into());
    }
    let vip = virtual_ip(words);
    vip.find_interface()?;
    let (adding, prefix) = (vip.clone(), config.prefix_length);
    let locks = Locks::of(&config.instance)?;
    if let Some(ucarp) = ucarp {
        locks.remember_ucarp(words.vip, ucarp);
    }
    let mutex = locks.hook_mutex();
    // For a hook that was run by hand nothing would renew the lease.
    let lifetime = ucarp.map(|_| close_lease(&vip, config));
    let added = ask_kernel(move || adding.add(prefix, lifetime))??;
    let asked = locks.ask(RunKind::Promotion).map_err(Box::<dyn Error>::from);
    let started = asked.and_then(|ticket| Ok(call(RunKind::Promotion, words, Some(ticket), ucarp.cloned()).launch()?));
    drop(mutex);
    match started {
        Ok(pid) => {
            let done = if added == Added::Added { "added to" } else { "was on" };
            log::info!("{vip} {done} {}; promotion started (pid {pid})", vip.interface);
            Ok(())
        }
        Err(error) => {
            // One that starts when its disk answers again must not promote.
            if let Err(e) = locks.ask(RunKind::Demotion) {
                log::error!("{}", chain(&e));
            }
            if added == Added::Added {
                ask_kernel(move || vip.remove())??;
            }
            Err(error)
        }
    }
}

/// Asks the kernel for a change of the address. It answers at once, unless another one of its parts hangs.
fn ask_kernel<T: Send + 'static>(question: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    process::within(timing::HOOK_ADDRESS, question).ok_or_else(|| {
        let time = human(timing::HOOK_ADDRESS);
        format!("the kernel has not changed the address for {time}").into()
    })
}

/// The address must not stay where nothing serves on it, whatever added it: ucarp without -z leaves it there.
fn leave_address(words: &HookWords) {
    let vip = virtual_ip(words);
    if let Err(e) = ask_kernel(move || vip.remove()).and_then(|removed| Ok(removed?)) {
        log::error!("{}", chain(&*e));
    }
}

/// Leaves the address to another machine.
fn give_up(words: &HookWords, ucarp: &Ucarp, config: Option<&Config>, error: String) {
    stop_calling_ucarp(ucarp);
    if let Some(config) = config {
        let event = Why::CannotServe.policy().event;
        cancel::unblock_signals();
        notify::tell_without_waiting(config, event, &words.interface, words.vip, error);
    }
}

/// Returns the version of the metadata that clients know.
fn remove_address(words: &HookWords, config: Option<&Config>) -> Result<Option<Version>> {
    let vip = virtual_ip(words);
    let (leaving, master) = (vip.clone(), config.map(Config::own_master));
    let left = ask_kernel(move || match master {
        Some(master) => drain::remove_address(&leaving, master, close_apart),
        // Which master it is cannot be known; mfs-promote reports why.
        None => leaving.remove().map(|removed| Left { removed, version: None }),
    })?;
    match left {
        Ok(Left { removed: Removed::Removed, version }) => {
            log::info!("{vip} removed from {}", vip.interface);
            return Ok(version);
        }
        Ok(Left { removed: Removed::NotThere, .. }) => log::info!("{vip} was not on {}", vip.interface),
        Err(error) if error.is_no_interface() => log::info!("{} is gone, and {vip} with it", vip.interface),
        Err(error) => return Err(error.into()),
    }
    Ok(None)
}

fn close_apart(lease: &Lease) -> std::result::Result<(), String> {
    lease.change_apart(Change::Close, timing::HOOK_LEASE).map_err(|e| chain(&e))
}

/// Closes the lease before there is an address to answer on. Without it the address is the lease: it lives for two seconds,
/// unless a run prolongs it.
fn close_lease(vip: &VirtualIp, config: &Config) -> Duration {
    let lease = Lease::on(vip.address, config.client_port);
    match lease.change_apart(Change::Install, timing::HOOK_LEASE) {
        Ok(()) => return timing::VIP_LIFETIME,
        Err(e) => {
            log::warn!("cannot make the packet filter's table of the lease ({}); going on without it", chain(&e));
        }
    }
    timing::VIP_LIFETIME_ALONE
}
