//! Without this, a master under systemd does not start after a promotion: its unit does not let it replay logs (`-a`).
//!
//! For the one start that restores, a drop-in in `/run` replaces the unit's `ExecStart` by the same command with `-a`.
//! It is removed after the start: on any later start the unit must refuse an unclean data folder again.

use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::moosefs::Daemon;
use crate::sys::cancel::Cancel;
use crate::sys::process;

/// The drop-in's name.
const NAME: &str = "50-mfs-promote.conf";
/// How long systemctl may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why the drop-in could not be written or removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// systemctl is missing or failed.
    #[error("cannot {operation}")]
    Systemctl {
        /// `read systemd unit …`, `reload the configuration of systemd`
        operation: String,
        /// The cause.
        #[source]
        source: process::Error,
    },
    /// The command of the unit is not plain enough to add an option to it.
    #[error(
        "systemd unit {unit} has no plain ExecStart of {program}: {found:?}; correct it, or set SERVICE_MANAGER = own",
        program = Daemon::Master
    )]
    ExecStart {
        /// The unit.
        unit: String,
        /// The output of `systemctl show`.
        found: String,
    },
    /// The file cannot be written or removed.
    #[error("cannot {operation} {}", path.display())]
    File {
        /// `write` or `remove`
        operation: &'static str,
        /// The drop-in.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// Adds `-a` to the command of `unit`, until [`remove`].
pub(crate) fn add(unit: &str, cancel: &Cancel) -> Result<(), Error> {
    let found = exec_start(unit, cancel)?;
    let Some(argv) = argv_of(&found) else { return Err(Error::ExecStart { unit: unit.to_owned(), found }) };
    if argv.contains(&"-a") {
        return Ok(());
    }
    let folder = folder_of(unit);
    let path = folder.join(NAME);
    let text = format!("[Service]\nExecStart=\nExecStart={} -a {}\n", argv[0], argv[1..].join(" "));
    std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&path, text)).map_err(|source| Error::File {
        operation: "write",
        path,
        source,
    })?;
    // The manager reads a unit again that it does not keep in memory, which saves the reload.
    if restores(&exec_start(unit, cancel)?) { Ok(()) } else { reload(cancel) }
}

/// Removes the drop-in of `unit`, also one that a killed run has left; nothing happens where there is none.
///
/// A reload of the manager takes some tenths of a second, so call this after all that clients wait for.
pub(crate) fn remove(unit: &str) -> Result<(), Error> {
    let folder = folder_of(unit);
    if !folder.exists() {
        return Ok(());
    }
    let path = folder.join(NAME);
    match std::fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            return Err(Error::File { operation: "remove", path, source });
        }
        _ => (),
    }
    // Not cut short by a signal: a later start would restore again.
    let cancel = Cancel::new();
    if restores(&exec_start(unit, &cancel)?) {
        reload(&cancel)?;
    }
    // Last, because the folder is the mark of unfinished work. A folder that an administrator uses too is not empty and
    // stays.
    let _ = std::fs::remove_dir(&folder);
    Ok(())
}

fn folder_of(unit: &str) -> PathBuf {
    PathBuf::from(format!("/run/systemd/system/{unit}.service.d"))
}

fn restores(shown: &str) -> bool {
    argv_of(shown).is_some_and(|argv| argv.contains(&"-a"))
}

fn reload(cancel: &Cancel) -> Result<(), Error> {
    systemctl(&["daemon-reload"], "reload the configuration of systemd", cancel).map(drop)
}

fn exec_start(unit: &str, cancel: &Cancel) -> Result<String, Error> {
    systemctl(&["show", "--property=ExecStart", "--value", unit], &format!("read systemd unit {unit}"), cancel)
}

fn systemctl(args: &[&str], operation: &str, cancel: &Cancel) -> Result<String, Error> {
    let failed = |source| Error::Systemctl { operation: operation.to_owned(), source };
    let args: Vec<&OsStr> = args.iter().map(OsStr::new).collect();
    let finished = process::find_program("systemctl")
        .ok_or_else(|| process::Error::NotInstalled { name: "systemctl".to_owned() })
        .and_then(|systemctl| process::run(&systemctl, &args, PATIENCE, cancel))
        .and_then(process::Finished::success);
    finished.map(|finished| finished.output).map_err(failed)
}

/// The words of `argv[]` in the output of `systemctl show --property=ExecStart`.
fn argv_of(shown: &str) -> Option<Vec<&str>> {
    let argv: Vec<&str> = shown.split("argv[]=").nth(1)?.split(" ; ").next()?.split_whitespace().collect();
    argv.first().filter(|program| program.starts_with('/'))?;
    Some(argv)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_unit_are_read_as_systemd_prints_them() {
        let shown = "{ path=/usr/sbin/mfsmaster ; argv[]=/usr/sbin/mfsmaster -c ${CFGFILE} -f start ; \
                     ignore_errors=no ; start_time=[n/a] ; pid=0 }\n";
        assert_eq!(argv_of(shown).unwrap(), ["/usr/sbin/mfsmaster", "-c", "${CFGFILE}", "-f", "start"]);
        assert!(!restores(shown) && restores(&shown.replace("-f start", "-a -f start")));
        assert_eq!(argv_of("\n"), None);
    }
}
