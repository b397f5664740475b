//! The systemd unit that ucarp runs in: leaving it, and stopping it. Where systemd does not manage the machine, nothing is
//! done.
//!
//! The processes that a hook starts belong to ucarp's unit, and systemd ends all of a unit when its main process ends: a
//! promotion that stops ucarp, and the demotion that ucarp's last `vip-down` starts, would be ended in the middle. So
//! background work asks the manager for a scope of its own. Until then it blocks the signals that end it
//! ([`block_signals`](crate::sys::cancel::block_signals)).

use std::path::Path;
use std::time::{Duration, Instant};

use crate::sys::cancel::Cancel;
use crate::sys::process;
use crate::sys::text::human;

/// A manager that does not answer must not hold up a takeover for longer.
const PATIENCE: Duration = Duration::from_secs(2);
/// The call that makes a scope (`org.freedesktop.systemd1(5)`).
const START_TRANSIENT_UNIT: [&str; 8] = [
    "--quiet",
    "--timeout=1",
    "call",
    "org.freedesktop.systemd1",
    "/org/freedesktop/systemd1",
    "org.freedesktop.systemd1.Manager",
    "StartTransientUnit",
    "ssa(sv)a(sa(sv))",
];

/// Why systemd did not do it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A program of systemd is missing.
    #[error("there is no program {0}; is systemd installed completely?")]
    NoProgram(&'static str),
    /// The manager refused a scope.
    #[error("systemd refused a scope for this run")]
    Scope(#[source] process::Error),
    /// The manager agreed, and nothing happened.
    #[error("systemd did not move this run into {scope} within {}", human(PATIENCE))]
    NotMoved {
        /// The scope's name.
        scope: String,
    },
    /// The unit cannot be looked at, stopped or started again.
    #[error("cannot {operation} systemd unit {unit}")]
    Unit {
        /// `look at`, `stop` or `restart`
        operation: &'static str,
        /// The unit.
        unit: String,
        /// The cause.
        #[source]
        source: process::Error,
    },
}

/// Whether systemd manages this machine.
pub(crate) fn is_manager() -> bool {
    Path::new("/run/systemd/system").exists()
}

/// Moves this process into a scope of its own, which vanishes with the process.
pub(crate) fn enter_scope(name: &str) -> Result<(), Error> {
    if !is_manager() {
        return Ok(());
    }
    let begun = Instant::now();
    let pid = std::process::id().to_string();
    let scope = format!("{name}-{pid}.scope");
    let busctl = process::find_program("busctl").ok_or(Error::NoProgram("busctl"))?;
    let properties = [&scope, "fail", "2", "PIDs", "au", "1", &pid, "CollectMode", "s", "inactive-or-failed", "0"];
    let words = [&START_TRANSIENT_UNIT[..], &properties[..]].concat();
    process::run(&busctl, &words, PATIENCE, &Cancel::new())
        .and_then(process::Finished::success)
        .map_err(Error::Scope)?;
    // The answer says only that it will be done.
    while !is_in(&scope) {
        if begun.elapsed() > PATIENCE {
            return Err(Error::NotMoved { scope });
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    log::debug!("moved into {scope} after {}", human(begun.elapsed()));
    Ok(())
}

fn is_in(scope: &str) -> bool {
    std::fs::read_to_string("/proc/self/cgroup").is_ok_and(|groups| groups.lines().any(|line| line.ends_with(scope)))
}

/// Orders the stop of the unit whose main process is `pid`, without waiting for it: whatever the unit's restart rules are,
/// the process is not started again. Returns the unit's name; `None` where there is no such unit. A process that another
/// one started, as ucarp by `ifup` in `networking.service`, is no unit's main process, and that unit is left alone.
pub(crate) fn stop_unit_of(pid: u32) -> Result<Option<String>, Error> {
    let Some(unit) = unit_of(pid)? else { return Ok(None) };
    systemctl("stop", &["stop", "--no-block"], &unit)?;
    Ok(Some(unit))
}

/// Orders the restart of a unit, without waiting for it.
pub(crate) fn restart(unit: &str) -> Result<(), Error> {
    systemctl("restart", &["restart", "--no-block"], unit).map(drop)
}

/// The unit whose main process is `pid`.
pub(crate) fn unit_of(pid: u32) -> Result<Option<String>, Error> {
    if !is_manager() {
        return Ok(None);
    }
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let Some(unit) = unit_in(&groups) else { return Ok(None) };
    let main = systemctl("look at", &["show", "--property=MainPID", "--value"], unit)?;
    Ok((main.trim() == pid.to_string()).then(|| unit.to_owned()))
}

/// Runs `systemctl` with these words for a unit, and returns what it printed.
fn systemctl(operation: &'static str, words: &[&str], unit: &str) -> Result<String, Error> {
    let systemctl = process::find_program("systemctl").ok_or(Error::NoProgram("systemctl"))?;
    process::run(&systemctl, &[words, &["--", unit]].concat(), PATIENCE, &Cancel::new())
        .and_then(process::Finished::success)
        .map(|finished| finished.output)
        .map_err(|source| Error::Unit { operation, unit: unit.to_owned(), source })
}

/// The service in `/proc/PID/cgroup`: in the hierarchy of version 2, or in that of systemd's own.
fn unit_in(groups: &str) -> Option<&str> {
    let path = |line: &str| line.strip_prefix("0::").is_some() || line.contains(":name=systemd:");
    groups.lines().filter(|line| path(line)).find_map(|line| {
        let name = line.rsplit('/').next()?;
        Path::new(name).extension().is_some_and(|kind| kind == "service").then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_is_read_from_either_version_of_control_groups() {
        assert_eq!(unit_in("0::/system.slice/moosefs-ucarp.service\n"), Some("moosefs-ucarp.service"));
        assert_eq!(unit_in("5:pids:/x.service\n1:name=systemd:/system.slice/u.service\n0::/\n"), Some("u.service"));
        assert_eq!(unit_in("0::/user.slice/user-0.slice/session-1.scope\n"), None);
        assert_eq!(unit_in(""), None);
    }
}
