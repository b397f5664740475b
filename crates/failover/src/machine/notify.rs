//! `NOTIFY`: a command of the administrator that is run with the outcome of a run.
//!
//! It is started once the outcome is certain, runs beside the archive, and delays nothing: neither clients nor the next
//! run wait for it. Its own outcome changes nothing about the run.

use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::machine::config::Config;
use crate::machine::outcome::RunKind;
use crate::machine::record::Record;
use crate::sys::cancel::Cancel;
use crate::sys::logging::chain;
use crate::sys::process::{self, RunOptions};
use crate::sys::trust::changeable;

/// How long the command may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// Why the command is not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It is missing.
    #[error("NOTIFY = {0} cannot be run; correct the path in mfspromote.cfg")]
    Missing(String, #[source] std::io::Error),
    /// It is not a program.
    #[error("NOTIFY = {0} is not an executable file; run: chmod +x {0}")]
    NoProgram(String),
    /// Others than root decide what root would run.
    #[error("NOTIFY = {0} is not run: {1} can be changed by others than root; run: chown root {1} && chmod go-w {1}")]
    Unsafe(String, String),
}

/// An outcome that an administrator should know. The name is the command's argument and `MFS_EVENT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// This machine serves.
    Promotion,
    /// It served, and is a standby again.
    Demotion,
    /// It stepped down once, so that another machine can win.
    StepDown,
    /// It cannot serve: ucarp was stopped here.
    Stop,
    /// A run failed and left something that needs repair.
    Alarm,
}

impl Event {
    /// Its name in the configuration's documentation and for the command.
    fn name(self) -> &'static str {
        match self {
            Self::Promotion => "promotion",
            Self::Demotion => "demotion",
            Self::StepDown => "step-down",
            Self::Stop => "stop",
            Self::Alarm => "alarm",
        }
    }
}

/// A command that runs. Dropping this value waits until the command has ended or its deadline has passed.
#[must_use = "dropping it waits for the command: release the lock first"]
pub(crate) struct Notified(Option<JoinHandle<()>>);

impl Drop for Notified {
    fn drop(&mut self) {
        if let Some(command) = self.0.take() {
            let _ = command.join();
        }
    }
}

/// Runs the command, if one is configured, with the outcome of the run of `record`, `took` after the run began.
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
    let thread = std::thread::Builder::new().name("notify".to_owned());
    let thread = thread.spawn(move || {
        let options = RunOptions { environment: &facts, ..RunOptions::within(DEADLINE) };
        // The next run does not cut it short: that one has an outcome of its own.
        let done = process::run_with(&command, &[event.name()], options, Cancel::never());
        match done.and_then(process::Finished::success) {
            Ok(_) => log::info!("notify: ran {} {}", command.display(), event.name()),
            Err(e) => log::warn!("notify: {}", chain(&e)),
        }
    });
    match thread {
        Ok(thread) => Notified(Some(thread)),
        Err(e) => {
            log::warn!("notify: cannot start a thread for the command: {e}");
            Notified(None)
        }
    }
}

/// As [`tell`], for a hook, for which ucarp waits: the command is started and left alone.
pub(crate) fn tell_without_waiting(config: &Config, event: Event, interface: &str, vip: Ipv4Addr, error: String) {
    let Some(command) = &config.notify else { return };
    let record = Record { error: Some(error), ..Record::new(RunKind::Promotion, Some(vip)) };
    let facts = facts(event, Some(interface), &record, Duration::ZERO);
    let started = check(command)
        .map_err(|e| chain(&e))
        .and_then(|()| process::launch_with(command, &[event.name()], &facts).map_err(|e| chain(&e)));
    if let Err(e) = started {
        log::error!("{e}");
    }
}

/// An error unless root may run the command at `path`. Nobody else can exchange it between this and the start: no folder or link
/// on the way to it is another user's.
pub(crate) fn check(path: &Path) -> Result<(), Error> {
    let name = path.display().to_string();
    let status = path.metadata().map_err(|e| Error::Missing(name.clone(), e))?;
    if let Some(theirs) = changeable(path).map_err(|e| Error::Missing(name.clone(), e))? {
        return Err(Error::Unsafe(name, theirs.display().to_string()));
    }
    if !status.is_file() || status.permissions().mode() & 0o111 == 0 {
        return Err(Error::NoProgram(name));
    }
    Ok(())
}

/// The environment of the command; unknown values are empty.
fn facts(event: Event, interface: Option<&str>, record: &Record, took: Duration) -> Vec<(&'static str, String)> {
    let number = |number: Option<u64>| number.map(|n| n.to_string()).unwrap_or_default();
    vec![
        ("MFS_EVENT", event.name().to_owned()),
        ("MFS_HOST", nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned()),
        ("MFS_VIP", record.vip.clone().unwrap_or_default()),
        ("MFS_INTERFACE", interface.unwrap_or_default().to_owned()),
        ("MFS_VERSION", number(record.version.map(|version| version.0))),
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
        assert!(matches!(check(&path), Err(Error::Unsafe(..))));
        std::os::unix::fs::chown(&path, Some(0), None).unwrap();
        std::os::unix::fs::chown(folder.path(), Some(65_534), None).unwrap();
        let text = check(&path).unwrap_err().to_string();
        assert!(text.contains(&format!("run: chown root {} &&", folder.path().display())), "{text}");
    }

    #[test]
    fn the_command_gets_the_event_and_the_facts() {
        let folder = tempfile::tempdir().unwrap();
        let (command, told) = (folder.path().join("tell"), folder.path().join("told"));
        let script = "#!/bin/sh\necho \"$* $MFS_EVENT $MFS_INTERFACE $MFS_VIP <$MFS_VERSION> $MFS_TOOK_MS\"";
        fs::write(&command, format!("{script} >> {}\n", told.display())).unwrap();
        fs::set_permissions(&command, fs::Permissions::from_mode(0o755)).unwrap();
        let config = Config { notify: Some(command), ..Config::salvage(None) };
        let record = Record::new(RunKind::Promotion, Some(Ipv4Addr::new(172, 16, 0, 99)));
        let events = [Event::Promotion, Event::Demotion, Event::StepDown, Event::Stop, Event::Alarm];
        for event in events {
            // Waits for the command.
            drop(tell(&config, event, Some("eth0"), &record, Duration::from_millis(1260)));
        }
        let line = |name: &str| format!("{name} {name} eth0 172.16.0.99 <> 1260\n");
        let lines = ["promotion", "demotion", "step-down", "stop", "alarm"].map(line).concat();
        assert_eq!(fs::read_to_string(told).unwrap(), lines);
    }
}
