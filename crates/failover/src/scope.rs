//! Leaving the systemd unit that ucarp runs in.
//!
//! What a hook starts belongs to ucarp's unit, and systemd ends all of a unit when its main process ends: a promotion
//! that makes ucarp resign, and the demotion that ucarp's last `vip-down` starts, would be ended in the middle. So
//! background work asks the manager for a scope of its own. Until then it holds signals back
//! ([`hold_back`](crate::cancel::hold_back)).

use std::path::Path;
use std::time::{Duration, Instant};

use crate::cancel::Cancel;
use crate::process;

/// A manager that does not answer must not hold a takeover up for longer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Where the manager is asked, and for what.
const CALL: [&str; 8] = [
    "--quiet",
    "--timeout=1",
    "call",
    "org.freedesktop.systemd1",
    "/org/freedesktop/systemd1",
    "org.freedesktop.systemd1.Manager",
    "StartTransientUnit",
    "ssa(sv)a(sa(sv))",
];

/// Why this process is still in its caller's unit.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The manager cannot be asked.
    #[error("there is no program busctl; is systemd installed completely?")]
    NoProgram,
    /// The manager refused.
    #[error("systemd gives this run no scope of its own")]
    Refused(#[source] process::Error),
    /// The manager agreed, and nothing happened.
    #[error("systemd did not move this run into {scope} within {PATIENCE:?}")]
    NotMoved {
        /// The scope's name.
        scope: String,
    },
}

/// Moves this process into a scope of its own and returns the scope's name; `None` where systemd does not manage the
/// machine. The scope vanishes with the process.
pub fn enter(name: &str) -> Result<Option<String>, Error> {
    if !Path::new("/run/systemd/system").exists() {
        return Ok(None);
    }
    let begun = Instant::now();
    let pid = std::process::id().to_string();
    let scope = format!("{name}-{pid}.scope");
    let busctl = process::find_program("busctl").ok_or(Error::NoProgram)?;
    let wish = [&scope, "fail", "2", "PIDs", "au", "1", &pid, "CollectMode", "s", "inactive-or-failed", "0"];
    let words = [&CALL[..], &wish[..]].concat();
    process::run(&busctl, &words, PATIENCE, &Cancel::new())
        .and_then(process::Finished::success)
        .map_err(Error::Refused)?;
    // The answer says that it will be done.
    while !is_in(&scope) {
        if begun.elapsed() > PATIENCE {
            return Err(Error::NotMoved { scope });
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    log::debug!("in {scope} after {:?}", begun.elapsed());
    Ok(Some(scope))
}

fn is_in(scope: &str) -> bool {
    std::fs::read_to_string("/proc/self/cgroup").is_ok_and(|groups| groups.lines().any(|line| line.ends_with(scope)))
}
