//! Without this, a master under systemd does not start after a promotion: its unit does not let it replay logs (`-a`).
//!
//! For the one start that restores, a drop-in in `/run` replaces the unit's `ExecStart` by the same command with `-a`.
//! It is removed after the start: on any later start the unit must refuse an unclean data folder again.
//!
//! The units of MooseFS's own packages are of `Type=forking` and name a fixed `PIDFile=`. With `DATA_PATH` elsewhere systemd
//! waits in vain for that file, while the master serves, and ends the master after half an hour. So the drop-in names the
//! file that the master does write.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
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

/// Adds `-a` to the command of `unit`, for a master with this data folder, until [`remove`].
pub(crate) fn add(unit: &str, data: &Path, cancel: &Cancel) -> Result<(), Error> {
    let shown = show(unit, cancel)?;
    let Some(text) = drop_in(&shown, data) else {
        return Err(Error::ExecStart { unit: unit.to_owned(), found: value_of(&shown, "ExecStart").to_owned() });
    };
    if text.is_empty() {
        return Ok(());
    }
    write_file(unit, &text)?;
    // The manager reads a unit again that it does not keep in memory, which saves the reload.
    if drop_in(&show(unit, cancel)?, data).is_some_and(|missing| missing.is_empty()) { Ok(()) } else { reload(cancel) }
}

/// Writes `text` as the drop-in of `unit`, until [`remove`].
pub(super) fn write(unit: &str, text: &str) -> Result<(), Error> {
    write_file(unit, text)?;
    reload(Cancel::never())
}

fn write_file(unit: &str, text: &str) -> Result<(), Error> {
    let folder = folder_of(unit);
    let path = folder.join(NAME);
    let written = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&path, text));
    written.map_err(|source| Error::File { operation: "write", path, source })
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
    if is_changed(&show(unit, &cancel)?) {
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

/// Whether the command is not that of a plain start, as far as can be told.
fn is_changed(shown: &str) -> bool {
    argv_of(shown).is_none_or(|argv| argv.contains(&"-a"))
}

fn reload(cancel: &Cancel) -> Result<(), Error> {
    systemctl(&["daemon-reload"], "reload the configuration of systemd", cancel).map(drop)
}

fn show(unit: &str, cancel: &Cancel) -> Result<String, Error> {
    systemctl(&["show", "--property=ExecStart,PIDFile", "--", unit], &format!("read systemd unit {unit}"), cancel)
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

/// What the unit that is `shown` lacks for a restore in the folder `data`: empty if nothing. `None` if its command is not
/// plain.
fn drop_in(shown: &str, data: &Path) -> Option<String> {
    let argv = argv_of(shown)?;
    let mut lines = String::new();
    if !argv.contains(&"-a") {
        let _ = writeln!(lines, "ExecStart=\nExecStart={} -a {}", argv[0], argv[1..].join(" "));
    }
    let (expected, written) = (value_of(shown, "PIDFile"), data.join(format!(".{}.lock", Daemon::Master)));
    if !expected.is_empty() && Path::new(expected) != written {
        let _ = writeln!(lines, "PIDFile={}", written.display());
    }
    // Specifiers are resolved already.
    Some(if lines.is_empty() { lines } else { format!("[Service]\n{}", lines.replace('%', "%%")) })
}

/// The value of a property in the output of `systemctl show`.
pub(super) fn value_of<'a>(shown: &'a str, property: &str) -> &'a str {
    shown.lines().find_map(|line| line.strip_prefix(property)?.strip_prefix('=')).unwrap_or_default()
}

/// The words of the command in the output of `systemctl show`, if it is one of mfsmaster itself: a shell would take `-a` as
/// an option of its own.
fn argv_of(shown: &str) -> Option<Vec<&str>> {
    let command = value_of(shown, "ExecStart");
    let argv: Vec<&str> = command.split("argv[]=").nth(1)?.split(" ; ").next()?.split_whitespace().collect();
    let program = Path::new(argv.first()?);
    (program.is_absolute() && program.file_name() == Some(Daemon::Master.program().as_ref())).then_some(argv)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: &str = "ExecStart={ path=/usr/sbin/mfsmaster ; argv[]=/usr/sbin/mfsmaster -c ${CFGFILE} -f start ; \
                          ignore_errors=no ; start_time=[n/a] ; pid=0 }\nPIDFile=\n";
    const UPSTREAM: &str = "PIDFile=/var/lib/mfs/.mfsmaster.lock\nExecStart={ path=/usr/local/sbin/mfsmaster ; \
                            argv[]=/usr/local/sbin/mfsmaster start ; ignore_errors=no ; pid=0 }\n";

    fn text(shown: &str, data: &str) -> Option<String> {
        drop_in(shown, Path::new(data))
    }

    #[test]
    fn the_words_of_a_unit_are_read_as_systemd_prints_them() {
        assert_eq!(argv_of(DEBIAN).unwrap(), ["/usr/sbin/mfsmaster", "-c", "${CFGFILE}", "-f", "start"]);
        assert!(!is_changed(DEBIAN) && is_changed(&DEBIAN.replace("-f start", "-a -f start")));
        assert_eq!(argv_of("ExecStart=\n"), None);
        assert_eq!(argv_of("\n"), None);
    }

    #[test]
    fn the_drop_in_adds_what_the_unit_lacks() {
        let started = "[Service]\nExecStart=\nExecStart=/usr/sbin/mfsmaster -a -c ${CFGFILE} -f start\n";
        assert_eq!(text(DEBIAN, "/anywhere").unwrap(), started);
        assert_eq!(text(&DEBIAN.replace("-f start", "-a -f start"), "/anywhere").unwrap(), "");

        let started = "[Service]\nExecStart=\nExecStart=/usr/local/sbin/mfsmaster -a start\n";
        assert_eq!(text(UPSTREAM, "/var/lib/mfs").unwrap(), started);
        let moved = format!("{started}PIDFile=/mnt/100%%/meta/.mfsmaster.lock\n");
        assert_eq!(text(UPSTREAM, "/mnt/100%/meta").unwrap(), moved);
    }

    #[test]
    fn a_unit_that_starts_something_else_is_refused() {
        for command in ["/bin/sh -c \"mfsmaster start\"", "/usr/bin/env mfsmaster start", "mfsmaster start", ""] {
            let shown = format!("ExecStart={{ path=/bin/sh ; argv[]={command} ; pid=0 }}\nPIDFile=\n");
            assert_eq!(text(&shown, "/var/lib/mfs"), None, "{command}");
        }
    }
}
