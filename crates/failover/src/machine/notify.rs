//! `NOTIFY`: a command of the administrator that is told how runs end.
//!
//! It is told once the end is certain, beside the archive, and holds nothing up: neither clients nor a later call of a
//! hook wait for it. Whatever it does or fails to do changes nothing about the run.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::machine::config::Config;
use crate::machine::record::Record;
use crate::sys::cancel::Cancel;
use crate::sys::logging::chain;
use crate::sys::process::{self, RunOptions};

/// How long the command may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// Why the command is not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It is not there.
    #[error("NOTIFY = {0} cannot be run")]
    Missing(String, #[source] std::io::Error),
    /// It is there, but no program.
    #[error("NOTIFY = {0} is not an executable file; run: chmod +x {0}")]
    NoProgram(String),
    /// Somebody but root decides what root would run.
    #[error("NOTIFY = {0} can be changed by others than root; run: chown root {0} && chmod go-w {0}")]
    Unsafe(String),
}

/// How a run ended, for the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// This machine serves.
    Promotion,
    /// It served, and is a standby again.
    Demotion,
    /// It gave the address up once, so that another machine can win.
    Yield,
    /// It cannot serve: ucarp was ended here.
    Resign,
    /// A run failed in a way that it could not put right.
    Alarm,
}

impl Event {
    fn name(self) -> &'static str {
        match self {
            Self::Promotion => "promotion",
            Self::Demotion => "demotion",
            Self::Yield => "yield",
            Self::Resign => "resign",
            Self::Alarm => "alarm",
        }
    }
}

/// A command at work. Its end, or its deadline, is waited for when this value goes.
#[must_use = "dropping it waits for the command: let go of the lock first"]
pub(crate) struct Notified(Option<JoinHandle<()>>);

impl Drop for Notified {
    fn drop(&mut self) {
        if let Some(command) = self.0.take() {
            let _ = command.join();
        }
    }
}

/// Tells the command, if one is configured, how the run of `record` ends, `took` after it began.
pub(crate) fn tell(
    config: &Config,
    event: Event,
    interface: Option<&str>,
    record: &Record,
    took: Duration,
) -> Notified {
    let Some(command) = config.notify.clone() else { return Notified(None) };
    if let Err(e) = check(&command) {
        log::error!("{}", chain(&e));
        return Notified(None);
    }
    let facts = facts(event, interface, record, took);
    Notified(Some(std::thread::spawn(move || {
        let manner = RunOptions { environment: &facts, ..RunOptions::within(DEADLINE) };
        // Not cut short by a later call: that one sends news of its own.
        let done = process::run_with(&command, &[event.name()], manner, &Cancel::new());
        match done.and_then(process::Finished::success) {
            Ok(_) => log::info!("notify: {} told of the {}", command.display(), event.name()),
            Err(e) => log::warn!("notify: {}", chain(&e)),
        }
    })))
}

/// Whether root may run the command at `path`.
pub(crate) fn check(path: &Path) -> Result<(), Error> {
    let name = path.display().to_string();
    let status = path.metadata().map_err(|e| Error::Missing(name.clone(), e))?;
    if status.uid() != 0 || status.mode() & 0o022 != 0 {
        return Err(Error::Unsafe(name));
    }
    if !status.is_file() || status.mode() & 0o111 == 0 {
        return Err(Error::NoProgram(name));
    }
    Ok(())
}

/// What the command finds in its environment; what is not known is empty.
fn facts(event: Event, interface: Option<&str>, record: &Record, took: Duration) -> Vec<(&'static str, String)> {
    let number = |number: Option<u64>| number.map(|n| n.to_string()).unwrap_or_default();
    vec![
        ("MFS_EVENT", event.name().to_owned()),
        ("MFS_HOST", nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned()),
        ("MFS_VIP", record.vip.clone().unwrap_or_default()),
        ("MFS_INTERFACE", interface.unwrap_or_default().to_owned()),
        ("MFS_VERSION", number(record.version)),
        ("MFS_CHANGES", number(record.changes)),
        ("MFS_ERROR", record.error.clone().unwrap_or_default()),
        ("MFS_STARTED", record.started.to_string()),
        ("MFS_TOOK_MS", took.as_millis().to_string()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn only_what_root_alone_can_change_is_run() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tell");
        assert!(matches!(check(&path), Err(Error::Missing(..))));
        fs::write(&path, "#!/bin/sh\n").unwrap();
        for (mode, wanted) in [(0o644, "not an executable"), (0o775, "changed by others"), (0o755, "")] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let text = check(&path).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(text.contains(wanted) && text.is_empty() == wanted.is_empty(), "{mode:o}: {text}");
        }
        std::os::unix::fs::chown(&path, Some(65_534), None).unwrap();
        assert!(matches!(check(&path), Err(Error::Unsafe(_))));
    }
}
