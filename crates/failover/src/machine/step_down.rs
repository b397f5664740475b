//! Giving the virtual IP up, so that another machine can serve.
//!
//! A machine that holds the address and serves nothing is the worst end of all: whatever went wrong, the address goes
//! first, then ucarp steps back once (yield) or ends (resign).

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::machine::config::Config;
use crate::machine::lock::Place;
use crate::moosefs::workarounds::drain;
use crate::sys::address::{self, Interface, Removed};
use crate::sys::cancel::Cancel;
use crate::sys::logging::chain;
use crate::sys::systemd;
use crate::ucarp::{Resigned, Ucarp};

use crate::election;
use crate::election::settle;
use crate::promotion::Failure;

/// How long ucarp may take to run vip-down and end before it is killed: with its link down it looks at no signal.
const PATIENCE: Duration = Duration::from_secs(3);

/// What a failure asks of ucarp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StepDown {
    /// Step back once, so that a better machine can win.
    Yield,
    /// End: this machine cannot serve.
    Resign,
}

/// What `failure` asks of ucarp.
pub(crate) fn wanted(failure: &Failure, cancel: &Cancel) -> StepDown {
    match failure {
        // It could have served, perhaps, and was told to end.
        _ if cancel.signalled() => StepDown::Yield,
        Failure::Settle(settle::Error::Lost { .. } | settle::Error::Rival { .. })
        | Failure::Guard(
            election::Error::Newer { .. }
            | election::Error::Alive { .. }
            | election::Error::Isolated { .. }
            | election::Error::WonIsolated { .. }
            | election::Error::Duplicate { .. }
            | election::Error::Behind { .. }
            | election::Error::Lost { .. },
        ) => StepDown::Yield,
        _ => StepDown::Resign,
    }
}

/// Whether machines could go on for ever giving the address to each other for this. An isolated one has nobody to give
/// it to, and one that lost an election has not had it.
pub(crate) fn goes_round(failure: &Failure) -> bool {
    matches!(
        failure,
        Failure::Settle(settle::Error::Rival { .. })
            | Failure::Guard(
                election::Error::Newer { .. }
                    | election::Error::Alive { .. }
                    | election::Error::WonIsolated { .. }
                    | election::Error::Duplicate { .. }
                    | election::Error::Behind { .. }
            )
    )
}

/// Takes the address away and makes ucarp step down. Says whether it did: where a later call of a hook has changed the
/// address, that call decides.
pub(crate) fn step_down(
    how: StepDown,
    interface: &str,
    vip: Ipv4Addr,
    caller: Option<&Ucarp>,
    place: Option<&Place>,
) -> bool {
    let turn = place.and_then(Place::turn);
    if place.is_some_and(Place::superseded) {
        return false;
    }
    remove_address(interface, vip);
    // The vip-down of the ucarp that is told now needs it.
    drop(turn);
    tell(how, interface, vip, caller);
    true
}

fn tell(how: StepDown, interface: &str, vip: Ipv4Addr, caller: Option<&Ucarp>) {
    let Some(caller) = caller else {
        log::error!("no ucarp serves {vip} here, so nothing was told to step down");
        return;
    };
    match how {
        StepDown::Yield => match caller.step_back() {
            Ok(()) => log::warn!("ucarp (pid {}) told to step back once, so that another machine can win", caller.pid),
            Err(e) => log::error!("{}", chain(&e)),
        },
        StepDown::Resign => resign(interface, vip, caller),
    }
}

fn resign(interface: &str, vip: Ipv4Addr, caller: &Ucarp) {
    // Before it ends: its unit might start it again.
    match systemd::stop_unit_of(caller.pid) {
        Ok(Some(unit)) => log::info!("{unit} is told to stop"),
        Ok(None) => (),
        Err(e) => log::warn!("ucarp's unit may start it again: {}", chain(&e)),
    }
    match caller.resign(PATIENCE) {
        Ok(Resigned::Killed) => {
            log::error!(
                "ucarp (pid {}) ignored TERM and was killed: start it again when this machine can serve",
                caller.pid
            );
            // It had no time to call vip-down.
            remove_address(interface, vip);
        }
        Ok(_) => {
            log::error!(
                "ucarp (pid {}) stopped: this machine takes no part in elections until it is started again",
                caller.pid
            );
        }
        Err(e) => log::error!("{}", chain(&e)),
    }
}

/// Takes the address away, and says so.
pub(crate) fn remove_address(interface: &str, vip: Ipv4Addr) {
    say(interface, vip, address::interface(interface).and_then(|found| address::remove(&found, vip)));
}

/// The same where a master serves on it: nothing that it has acknowledged is lost.
pub(crate) fn leave_address(interface: &Interface, vip: Ipv4Addr, config: &Config) {
    say(&interface.name, vip, drain::remove_address(interface, vip, config.client_host, config.client_port));
}

fn say(interface: &str, vip: Ipv4Addr, removed: Result<Removed, address::Error>) {
    match removed {
        Ok(Removed::Removed) => log::warn!("{vip} removed from {interface}"),
        Ok(Removed::NotThere) => (),
        Err(e) => log::error!("{}", chain(&e)),
    }
}
