//! The systemd unit of a process that we did not start.

use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use super::{Control, Error, find, run};
use crate::cancel::Cancel;
use crate::process;

/// A manager that does not answer must not hold up what follows.
const PATIENCE: Duration = Duration::from_secs(2);

/// Orders the stop of the systemd unit whose main process is `pid`, without waiting for it: whatever the unit's restart
/// rules are, that end is not undone. Returns the unit's name; `None` where there is no such unit. A process that another
/// one started, as ucarp by `ifup` in `networking.service`, is no unit's main process, and that unit is left alone.
pub fn stop_unit_of(pid: u32) -> Result<Option<String>, Error> {
    if !Path::new("/run/systemd/system").exists() {
        return Ok(None);
    }
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let Some(unit) = unit_in(&groups) else { return Ok(None) };
    let systemctl = find("systemctl")?;
    let cancel = Cancel::new();
    let args = ["show", "--property=MainPID", "--value", "--", unit].map(OsStr::new);
    let main = process::run(&systemctl, &args, PATIENCE, &cancel)
        .and_then(process::Finished::success)
        .map_err(|source| Error::Command { verb: "read", control: format!("systemd unit {unit}"), source })?;
    if main.output.trim() != pid.to_string() {
        return Ok(None);
    }
    let args = ["stop", "--no-block", "--", unit].map(Into::into);
    run("stop", &Control::Unit(unit.to_owned()), &systemctl, &args, PATIENCE, &cancel)?;
    Ok(Some(unit.to_owned()))
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
