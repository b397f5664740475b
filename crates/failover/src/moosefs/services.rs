//! Starting and stopping the MooseFS daemons by whatever manages services here.
//!
//! A daemon that we start must live where the administrator looks for it and must outlive ucarp: in its systemd unit,
//! under its init script's pid file, or as the daemon it makes of itself. Which of these it is, is found for each
//! daemon: a unit on a machine booted with systemd, else an init script, else the daemon's own `start`.

use std::ffi::{OsStr, OsString};
use std::fmt::{self, Display};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::machine::config::{Config, ServiceManager};
use crate::moosefs::Daemon;
use crate::sys::cancel::Cancel;
use crate::sys::logging::chain;
use crate::sys::process::{self, Identity};

mod boot;

/// Why a daemon could not be started or stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// `SERVICE_MANAGER` asks for something that is not here.
    #[error("there is no {manager} named {} for {daemon}; set {key} in mfspromote.cfg", tried.join(" or "))]
    NoService {
        /// `systemd unit` or `init script`
        manager: &'static str,
        /// The names looked for.
        tried: Vec<String>,
        /// The daemon.
        daemon: Daemon,
        /// The key that names it.
        key: &'static str,
    },
    /// A program is missing.
    #[error("there is no program {0} in /usr/sbin, /usr/bin, /sbin, /bin or /usr/local; install it")]
    NoProgram(&'static str),
    /// A command failed or took too long.
    #[error("cannot {verb} {control}")]
    Command {
        /// `start` or `stop`
        verb: &'static str,
        /// What was to be started or stopped.
        control: String,
        /// The cause.
        #[source]
        source: process::Error,
    },
    /// The unit does not say what it runs.
    #[error("systemd unit {unit} has no plain ExecStart of {program}: {found:?}", program = Daemon::Master.program())]
    ExecStart {
        /// The unit.
        unit: String,
        /// What `systemctl show` printed.
        found: String,
    },
    /// A file of the service manager could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// How one daemon is started and stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Control {
    /// A systemd unit.
    Unit(String),
    /// An init script.
    Script(String),
    /// The daemon's own commands.
    Own(PathBuf),
}

impl Control {
    /// The command that makes it start at boot, or not; `None` where nothing is known that would.
    pub(crate) fn at_boot(&self, wanted: bool) -> Option<String> {
        let verb = if wanted { "enable" } else { "disable" };
        match self {
            Self::Unit(name) => Some(format!("systemctl {verb} {name}")),
            Self::Script(name) => Some(format!("update-rc.d {name} {verb}")),
            Self::Own(_) => None,
        }
    }
}

impl Display for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unit(name) => write!(f, "systemd unit {name}"),
            Self::Script(name) => write!(f, "init script {name}"),
            Self::Own(program) => write!(f, "{}", program.display()),
        }
    }
}

/// The daemons of this machine and how each is controlled.
#[derive(Debug, Clone)]
pub(crate) struct Services {
    master: Control,
    metalogger: Control,
    cgiserv: Option<Control>,
    master_cfg: PathBuf,
    start_timeout: Duration,
    stop_timeout: Duration,
}

const UNIT_FOLDERS: [&str; 5] = [
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
];

/// The drop-in for the one start that restores.
const DROPIN: &str = "50-mfs-promote.conf";
/// How fast an image surely loads and stores: the slowest disk worth a master.
const IMAGE_BYTES_PER_SECOND: u64 = 10_000_000;

impl Services {
    /// Finds how each daemon is controlled on this machine.
    pub(crate) fn find(config: &Config) -> Result<Self, Error> {
        let control = |daemon, configured: Option<&String>| control(config.service_manager, daemon, configured);
        Ok(Self {
            master: control(Daemon::Master, config.master_service.as_ref())?,
            metalogger: control(Daemon::Metalogger, config.metalogger_service.as_ref())?,
            // Not every machine has the web interface.
            cgiserv: control(Daemon::Cgiserv, config.cgiserv_service.as_ref()).ok(),
            master_cfg: config.master_cfg.clone(),
            start_timeout: config.start_timeout,
            stop_timeout: config.stop_timeout,
        })
    }

    /// How `daemon` is controlled; `None` if it is not installed.
    pub(crate) fn control(&self, daemon: Daemon) -> Option<&Control> {
        match daemon {
            Daemon::Master => Some(&self.master),
            Daemon::Metalogger => Some(&self.metalogger),
            Daemon::Cgiserv => self.cgiserv.as_ref(),
        }
    }

    /// How long a start may take that loads an image of `image` bytes.
    pub(crate) fn start_deadline(&self, image: u64) -> Duration {
        self.start_timeout + Duration::from_secs(image / IMAGE_BYTES_PER_SECOND)
    }

    /// How long a stop may take that stores an image of `image` bytes.
    pub(crate) fn stop_deadline(&self, image: u64) -> Duration {
        self.stop_timeout + Duration::from_secs(image / IMAGE_BYTES_PER_SECOND)
    }

    /// Starts the master on a data folder with one complete image, as it is started at boot.
    ///
    /// Back when the start was ordered (systemd) or the master listens (else).
    pub(crate) fn start_plain_master(&self, deadline: Duration, cancel: &Cancel) -> Result<(), Error> {
        match &self.master {
            Control::Unit(unit) => systemctl("start", unit, deadline, cancel),
            Control::Script(name) => {
                let args = [OsString::from(name), "start".into()];
                run("start", &self.master, &find("service")?, &args, deadline, cancel)
            }
            Control::Own(program) => run("start", &self.master, program, &self.own_start(&[]), deadline, cancel),
        }
    }

    /// The arguments of mfsmaster itself for a start. Always with the verb: that of 1.6 would restart without one.
    fn own_start(&self, options: &[&str]) -> Vec<OsString> {
        let mut args = Vec::new();
        if self.master_cfg.exists() {
            args.extend(["-c".into(), self.master_cfg.clone().into()]);
        }
        args.extend(options.iter().map(OsString::from));
        args.push("start".into());
        args
    }

    /// Starts the master so that it replays the change logs beside its image, loading it once (`-a`).
    ///
    /// Back when the start was ordered (systemd) or the master listens (else): whether it serves, only it can say.
    /// [`Services::remove_restore_dropin`] ends it, whatever comes of the start.
    pub(crate) fn start_master(&self, deadline: Duration, cancel: &Cancel) -> Result<(), Error> {
        if let Control::Unit(unit) = &self.master {
            restore_once(unit, cancel)?;
            return systemctl("start", unit, deadline, cancel);
        }
        run("start", &self.master, &program(Daemon::Master)?, &self.own_start(&["-a"]), deadline, cancel)
    }

    /// Makes later starts of the master's unit plain ones, if [`Services::start_master`] changed them: the unit must go
    /// on refusing an unclean data folder. Also after a run that was killed; where nothing is left, nothing happens.
    ///
    /// A reload of the manager takes some tenths of a second, so this comes after all that clients wait for.
    pub(crate) fn remove_restore_dropin(&self) -> Result<(), Error> {
        let Control::Unit(unit) = &self.master else { return Ok(()) };
        let folder = dropin_folder(unit);
        if !folder.exists() {
            return Ok(());
        }
        let path = folder.join(DROPIN);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(Error::Write { path, source }),
            _ => (),
        }
        let cancel = Cancel::new();
        if restores(&show_exec_start(unit, &cancel)?) {
            daemon_reload(&cancel)?;
        }
        // Last, since it is the mark of unfinished work; one with an administrator's files in it stays.
        let _ = std::fs::remove_dir(&folder);
        Ok(())
    }

    /// Starts `daemon` as it is started at boot.
    pub(crate) fn start(&self, daemon: Daemon, cancel: &Cancel) -> Result<(), Error> {
        let Some(control) = self.control(daemon) else { return Err(Error::NoProgram(daemon.program())) };
        match control {
            Control::Unit(unit) => systemctl("start", unit, self.start_timeout, cancel),
            Control::Script(name) => {
                let args = [OsString::from(name), "start".into()];
                run("start", control, &find("service")?, &args, self.start_timeout, cancel)
            }
            Control::Own(path) => run("start", control, path, &["start".into()], self.start_timeout, cancel),
        }
    }

    /// Stops the `daemon` that runs as `identity` and waits until it is gone; killed if it takes longer than `deadline`.
    pub(crate) fn stop(&self, daemon: Daemon, identity: Identity, deadline: Duration) -> Result<(), Error> {
        let failed = |source| Error::Command { verb: "stop", control: daemon.to_string(), source };
        if let Some(Control::Unit(unit)) = self.control(daemon) {
            // A stop is never cut short: half a stop helps nobody.
            if let Err(e) = systemctl("stop", unit, deadline, &Cancel::new()) {
                let pid = identity.pid;
                log::warn!("{}; killing process {pid}, which is {}", chain(&e), process::describe(pid));
                return process::kill(identity).map(drop).map_err(failed);
            }
        }
        process::stop(identity, deadline).map(drop).map_err(failed)
    }

    /// Kills the `daemon` that runs as `identity`: it writes nothing any more.
    pub(crate) fn kill(&self, daemon: Daemon, identity: Identity) -> Result<(), Error> {
        let failed = |source| Error::Command { verb: "kill", control: daemon.to_string(), source };
        process::kill(identity).map_err(failed)?;
        match self.control(daemon) {
            // It may be one that systemd starts again.
            Some(Control::Unit(unit)) => systemctl("stop", unit, self.stop_timeout, &Cancel::new()),
            _ => Ok(()),
        }
    }

    /// Whether `daemon` is started when the machine boots.
    pub(crate) fn starts_at_boot(&self, daemon: Daemon) -> bool {
        match self.control(daemon) {
            Some(Control::Unit(unit)) => boot::is_wanted(Path::new("/etc/systemd/system"), unit),
            Some(Control::Script(name)) => boot::is_in_a_runlevel(Path::new("/etc"), name),
            Some(Control::Own(_)) | None => false,
        }
    }

    /// Tells an init script which process it owns now: we started the master in its place, because a script cannot
    /// be told to restore.
    pub(crate) fn write_pid_file(&self, pid: u32) -> Result<(), Error> {
        let Control::Script(name) = &self.master else { return Ok(()) };
        let path = PathBuf::from(format!("/run/{name}.pid"));
        std::fs::write(&path, format!("{pid}\n")).map_err(|source| Error::Write { path, source })
    }
}

/// The first control of `daemon` that exists here, by preference of `manager`.
fn control(manager: ServiceManager, daemon: Daemon, configured: Option<&String>) -> Result<Control, Error> {
    control_under(Path::new("/"), manager, daemon, configured)
}

fn control_under(
    root: &Path,
    manager: ServiceManager,
    daemon: Daemon,
    configured: Option<&String>,
) -> Result<Control, Error> {
    let names = configured.map_or_else(|| known_names(daemon), |name| vec![name.clone()]);
    let is_unit = |name: &&String| UNIT_FOLDERS.iter().any(|f| root.join(f).join(format!("{name}.service")).exists());
    let is_script = |name: &&String| root.join("etc/init.d").join(name).exists();
    let booted = root.join("run/systemd/system").exists();
    let missing = |manager| Error::NoService { manager, tried: names.clone(), daemon, key: key(daemon) };
    let unit = || names.iter().find(is_unit).cloned().map(Control::Unit);
    let script = || names.iter().find(is_script).cloned().map(Control::Script);
    match manager {
        ServiceManager::Systemd => unit().ok_or_else(|| missing("systemd unit")),
        ServiceManager::Init => script().ok_or_else(|| missing("init script")),
        ServiceManager::Own => program(daemon).map(Control::Own),
        ServiceManager::Auto if booted => unit().map_or_else(|| program(daemon).map(Control::Own), Ok),
        ServiceManager::Auto => script().map_or_else(|| program(daemon).map(Control::Own), Ok),
    }
}

/// What distributions and upstream call the services.
fn known_names(daemon: Daemon) -> Vec<String> {
    let short = daemon.program().trim_start_matches("mfs");
    ["moosefs-", "mfs", "mfs-"].iter().map(|prefix| format!("{prefix}{short}")).collect()
}

fn key(daemon: Daemon) -> &'static str {
    match daemon {
        Daemon::Master => "MASTER_SERVICE",
        Daemon::Metalogger => "METALOGGER_SERVICE",
        Daemon::Cgiserv => "CGISERV_SERVICE",
    }
}

fn program(daemon: Daemon) -> Result<PathBuf, Error> {
    find(daemon.program())
}

fn find(name: &'static str) -> Result<PathBuf, Error> {
    process::find_program(name).ok_or(Error::NoProgram(name))
}

fn systemctl(verb: &'static str, unit: &str, deadline: Duration, cancel: &Cancel) -> Result<(), Error> {
    run(verb, &Control::Unit(unit.to_owned()), &find("systemctl")?, &[verb.into(), unit.into()], deadline, cancel)
}

fn run(
    verb: &'static str,
    control: &Control,
    program: &Path,
    args: &[OsString],
    deadline: Duration,
    cancel: &Cancel,
) -> Result<(), Error> {
    let args: Vec<&OsStr> = args.iter().map(OsString::as_os_str).collect();
    process::run(program, &args, deadline, cancel)
        .and_then(process::Finished::success)
        .map(|_| ())
        .map_err(|source| Error::Command { verb, control: control.to_string(), source })
}

/// Puts a drop-in beside the master's unit that makes it restore (`-a`): units do not pass it.
fn restore_once(unit: &str, cancel: &Cancel) -> Result<(), Error> {
    let found = show_exec_start(unit, cancel)?;
    let argv = argv_of(&found).ok_or_else(|| Error::ExecStart { unit: unit.to_owned(), found: found.clone() })?;
    if argv.contains(&"-a") {
        return Ok(());
    }
    let folder = dropin_folder(unit);
    let path = folder.join(DROPIN);
    let text = format!("[Service]\nExecStart=\nExecStart={} -a {}\n", argv[0], argv[1..].join(" "));
    std::fs::create_dir_all(&folder)
        .and_then(|()| std::fs::write(&path, text))
        .map_err(|source| Error::Write { path: path.clone(), source })?;
    // A unit that nothing has kept in the manager's memory is read afresh, which saves the reload.
    if restores(&show_exec_start(unit, cancel)?) { Ok(()) } else { daemon_reload(cancel) }
}

fn dropin_folder(unit: &str) -> PathBuf {
    PathBuf::from(format!("/run/systemd/system/{unit}.service.d"))
}

fn restores(shown: &str) -> bool {
    argv_of(shown).is_some_and(|argv| argv.contains(&"-a"))
}

fn daemon_reload(cancel: &Cancel) -> Result<(), Error> {
    let systemd = Control::Unit("configuration".into());
    run("reload", &systemd, &find("systemctl")?, &["daemon-reload".into()], Duration::from_secs(30), cancel)
}

fn show_exec_start(unit: &str, cancel: &Cancel) -> Result<String, Error> {
    let args = ["show", "--property=ExecStart", "--value", unit].map(OsStr::new);
    process::run(&find("systemctl")?, &args, Duration::from_secs(30), cancel)
        .and_then(process::Finished::success)
        .map(|finished| finished.output)
        .map_err(|source| Error::Command { verb: "read", control: format!("systemd unit {unit}"), source })
}

/// The words of `argv[]` in what `systemctl show --property=ExecStart` prints.
fn argv_of(shown: &str) -> Option<Vec<&str>> {
    let argv: Vec<&str> = shown.split("argv[]=").nth(1)?.split(" ; ").next()?.split_whitespace().collect();
    argv.first().filter(|program| program.starts_with('/'))?;
    Some(argv)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        dir
    }

    fn found(root: &Path, manager: ServiceManager, configured: Option<&str>) -> Result<Control, Error> {
        control_under(root, manager, Daemon::Metalogger, configured.map(str::to_owned).as_ref())
    }

    #[test]
    fn a_unit_is_used_where_systemd_booted_the_machine() {
        let debian = machine(&[
            "run/systemd/system/x",
            "lib/systemd/system/moosefs-metalogger.service",
            "etc/init.d/moosefs-metalogger",
        ]);
        let control = found(debian.path(), ServiceManager::Auto, None).unwrap();
        assert_eq!(control, Control::Unit("moosefs-metalogger".into()));
    }

    #[test]
    fn an_init_script_is_used_where_it_did_not() {
        let files = ["lib/systemd/system/moosefs-metalogger.service", "etc/init.d/mfsmetalogger"];
        let control = found(machine(&files).path(), ServiceManager::Auto, None).unwrap();
        assert_eq!(control, Control::Script("mfsmetalogger".into()));
    }

    #[test]
    fn a_configured_name_is_the_only_one_looked_for() {
        let here = machine(&["etc/init.d/moosefs-metalogger", "etc/init.d/ours"]);
        let control = found(here.path(), ServiceManager::Auto, Some("ours")).unwrap();
        assert_eq!(control, Control::Script("ours".into()));
        let error = found(here.path(), ServiceManager::Init, Some("theirs")).unwrap_err().to_string();
        assert_eq!(
            error,
            "there is no init script named theirs for mfsmetalogger; set METALOGGER_SERVICE in mfspromote.cfg"
        );
    }

    #[test]
    fn the_words_of_a_unit_are_read_as_systemd_prints_them() {
        let shown = "{ path=/usr/sbin/mfsmaster ; argv[]=/usr/sbin/mfsmaster -c ${CFGFILE} -f start ; \
                     ignore_errors=no ; start_time=[n/a] ; pid=0 }\n";
        assert_eq!(argv_of(shown).unwrap(), ["/usr/sbin/mfsmaster", "-c", "${CFGFILE}", "-f", "start"]);
        assert_eq!(argv_of("\n"), None);
    }
}
