//! Giving the virtual IP up, so that another machine can serve.
//!
//! A machine that holds the address and serves nothing is the worst end of all: whatever failed, the address goes first,
//! then ucarp steps down once or is stopped.

use std::net::SocketAddrV4;
use std::time::Duration;

use log::Level;

use crate::machine::lock::Request;
use crate::moosefs::workarounds::drain;
use crate::sys::address::{self, Removed};
use crate::sys::logging::chain;
use crate::sys::process::{self, Stopped};
use crate::sys::systemd;
use crate::timing;
use crate::ucarp::Ucarp;
use crate::vip::VirtualIp;

/// What a failure asks of ucarp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StepDown {
    /// Step down once, so that another machine can win.
    Once,
    /// End: this machine cannot serve until an administrator has acted.
    StopUcarp,
}

/// Removes the address and makes ucarp step down, logged with this level. Says whether it did: where a later call of a hook
/// has changed the address, that call decides. Nothing is lost that the master that is asked on `serving` has acknowledged;
/// `None` where none serves.
pub(crate) fn step_down(
    how: StepDown,
    vip: &VirtualIp,
    ucarp: Option<&Ucarp>,
    request: Option<&Request>,
    serving: Option<SocketAddrV4>,
    level: Level,
) -> bool {
    let mutex = request.and_then(Request::hook_mutex);
    if request.is_some_and(Request::superseded) {
        return false;
    }
    let removed = match serving {
        Some(master) => drain::remove_address(vip, master, drain::close).map(|left| left.removed),
        None => vip.remove(),
    };
    log_removal(vip, removed, level);
    // The vip-down of the ucarp that is signalled now needs it.
    drop(mutex);
    let Some(ucarp) = ucarp else {
        log::error!("no ucarp manages {vip} on {} here, so none was told to step down", vip.interface);
        return true;
    };
    match how {
        StepDown::Once => match ucarp.step_down() {
            Ok(()) => log::log!(level, "ucarp (pid {}) steps down once, so that another machine can win", ucarp.pid),
            Err(e) => log::error!("{}", chain(&e)),
        },
        StepDown::StopUcarp => stop_ucarp(vip, ucarp),
    }
    true
}

/// Stops ucarp and waits for its end.
fn stop_ucarp(vip: &VirtualIp, ucarp: &Ucarp) {
    stop_unit(ucarp);
    match ucarp.stop(timing::UCARP_STOP) {
        Ok(Stopped::Killed) => {
            log::error!(
                "ucarp (pid {}) ignored TERM and was killed; start it again when this machine can serve",
                ucarp.pid
            );
            // It had no time to call vip-down.
            log_removal(vip, vip.remove(), Level::Warn);
        }
        Ok(Stopped::OnTerm | Stopped::AlreadyGone) => log::error!(
            "ucarp (pid {}) stopped: this machine takes no part in elections until ucarp is started again",
            ucarp.pid
        ),
        Err(e) => log::error!("{}", chain(&e)),
    }
}

/// As [`step_down`] with [`StepDown::StopUcarp`], for the hook that ucarp is waiting for: ucarp ends when the hook has
/// returned, so there is nothing to wait for.
pub(crate) fn stop_calling_ucarp(ucarp: &Ucarp) {
    stop_unit(ucarp);
    match ucarp.terminate() {
        Ok(()) => log::error!(
            "cannot serve here: stopping ucarp (pid {}), so that another machine can take over. Fix the error above, then \
             start ucarp again",
            ucarp.pid
        ),
        Err(e) => log::error!("{}", chain(&e)),
    }
}

/// Before ucarp ends: its unit might start it again. systemd's programs may be on a disk that does not answer.
fn stop_unit(ucarp: &Ucarp) {
    let pid = ucarp.pid;
    match process::within(timing::UNIT_STOP, move || systemd::stop_unit_of(pid)) {
        Some(Ok(Some(unit))) => log::info!("{unit}: stop ordered"),
        Some(Ok(None)) => (),
        Some(Err(e)) => log::warn!("ucarp's unit may start it again: {}", chain(&e)),
        None => log::warn!("ucarp's unit may start it again: systemd's programs do not answer"),
    }
}

fn log_removal(vip: &VirtualIp, removed: Result<Removed, address::Error>, level: Level) {
    match removed {
        Ok(Removed::Removed) => log::log!(level, "{vip} removed from {}", vip.interface),
        Ok(Removed::NotThere) => (),
        Err(e) if e.is_no_interface() => (),
        Err(e) => log::error!("{}", chain(&e)),
    }
}

/// Kills a ucarp that a signal has stopped: continued, it would go on as the MASTER that it was, without an address.
pub(crate) fn end_stopped_ucarp(ucarp: &Ucarp) {
    if let Err(e) = ucarp.stop(Duration::ZERO) {
        log::error!("{}", chain(&e));
    }
}
