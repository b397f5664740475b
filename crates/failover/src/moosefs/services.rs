//! Starts and stops the MooseFS daemons, each by the service manager of this machine.
//!
//! A daemon that we start must be where the administrator looks for it, and must outlive ucarp: in its systemd unit,
//! under the pid file of its init script, or as the daemon that its own program becomes. Each daemon is looked for in
//! this order: its unit on a machine that systemd booted, else its init script, else its program.

use std::ffi::{OsStr, OsString};
use std::fmt::{self, Display};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::moosefs::workarounds::{adoption, restore_dropin};
use crate::moosefs::{self, Daemon, waiting};
use crate::sys::cancel::Cancel;
use crate::sys::logging::chain;
use crate::sys::process::{self, Identity, RunOptions, Stopped};
use crate::sys::progress::{Allowance, Patience};
use crate::timing;

mod boot;

/// Why a daemon could not be started or stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// `SERVICE_MANAGER` asks for a unit or script that does not exist.
    #[error("there is no {manager} named {} for {daemon}; set {key} in mfspromote.cfg to its name", tried.join(" or "))]
    NoService {
        /// `systemd unit` or `init script`
        manager: &'static str,
        /// The names that were looked for.
        tried: Vec<String>,
        /// The daemon.
        daemon: Daemon,
        /// The key that names it.
        key: &'static str,
    },
    /// A program is missing.
    #[error(
        "there is no program {0} where programs are, nor in /usr/local/mfs or /opt/mfs; install it, or link it into /usr/local/sbin"
    )]
    NoProgram(&'static str),
    /// A command failed or took too long.
    #[error("cannot {verb} {control}")]
    Command {
        /// `start`, `stop` or `kill`
        verb: &'static str,
        /// The daemon, and how it is controlled.
        control: String,
        /// The cause.
        #[source]
        source: process::Error,
    },
    /// The master's unit does not take over a master that runs.
    #[error(transparent)]
    Adoption(#[from] adoption::Error),
    /// The master's unit cannot be made to restore, or to stop restoring.
    #[error(transparent)]
    Dropin(#[from] restore_dropin::Error),
    /// The pid file of an init script cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// Which service manager is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServiceManager {
    /// systemd where it booted the machine, else init scripts, else the daemons' own commands.
    Auto,
    /// `systemctl`.
    Systemd,
    /// `service`, on init scripts.
    Init,
    /// `mfsmaster start` and the like.
    Own,
}

/// The part of the configuration that is about the daemons.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Which service manager is used.
    pub(crate) manager: ServiceManager,
    /// Name of the master's unit or init script, where it is not one of the known ones.
    pub(crate) master: Option<String>,
    /// Name of the metalogger's unit or init script.
    pub(crate) metalogger: Option<String>,
    /// Name of the CGI server's unit or init script.
    pub(crate) cgiserv: Option<String>,
    /// The master's own configuration file.
    pub(crate) master_cfg: PathBuf,
    /// The metalogger's own configuration file.
    pub(crate) metalogger_cfg: PathBuf,
    /// How long a start may take without progress.
    pub(crate) start_timeout: Duration,
    /// How long a stop may take without progress.
    pub(crate) stop_timeout: Duration,
}

impl Settings {
    /// How long a start may take that loads so many `bytes` of image and change logs.
    pub(crate) fn start_time(&self, bytes: u64) -> Allowance {
        time(self.start_timeout, bytes)
    }

    /// How long a stop may take that stores an image of `image` bytes.
    pub(crate) fn stop_time(&self, image: u64) -> Allowance {
        time(self.stop_timeout, image)
    }
}

/// A start or a stop goes on while the master works. Its bound is a multiple of what an ordinary disk needs: a slow disk takes
/// longer, and one change can be seconds of work.
fn time(still: Duration, bytes: u64) -> Allowance {
    let ordinary = still + Duration::from_secs(bytes / BYTES_PER_SECOND);
    Allowance { still, most: ordinary * timing::MOST_TIMES }
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
    /// The command that makes it start at boot, or not; `None` where no such command is known.
    pub(crate) fn at_boot(&self, wanted: bool) -> Option<String> {
        let verb = if wanted { "enable" } else { "disable" };
        match self {
            Self::Unit(name) => Some(format!("systemctl {verb} {name}")),
            Self::Script(name) if boot::is_openrc() => {
                Some(format!("rc-update {} {name} default", if wanted { "add" } else { "del" }))
            }
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
    settings: Settings,
}

const UNIT_FOLDERS: [&str; 5] = [
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
];

/// How fast metadata is loaded and stored on an ordinary disk, at least.
const BYTES_PER_SECOND: u64 = 10_000_000;

impl Services {
    /// Finds how each daemon is controlled on this machine.
    pub(crate) fn find(settings: &Settings) -> Result<Self, Error> {
        let control = |daemon, name: &Option<String>| control(settings.manager, daemon, name.as_ref());
        Ok(Self {
            master: control(Daemon::Master, &settings.master)?,
            metalogger: control(Daemon::Metalogger, &settings.metalogger)?,
            cgiserv: cgiserv(settings),
            settings: settings.clone(),
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

    /// See [`Settings::start_time`].
    pub(crate) fn start_time(&self, bytes: u64) -> Allowance {
        self.settings.start_time(bytes)
    }

    /// See [`Settings::stop_time`].
    pub(crate) fn stop_time(&self, image: u64) -> Allowance {
        self.settings.stop_time(image)
    }

    /// Starts the master on a data folder with one complete image, as it is started at boot.
    ///
    /// Returns when the start was ordered (systemd) or the master listens (else).
    pub(crate) fn start_plain_master(&self, time: Allowance, cancel: &Cancel) -> Result<(), Error> {
        start(&self.master, Daemon::Master, &self.own_start(Daemon::Master, &[]), time, cancel)
    }

    /// The arguments of the program of `daemon` for a start. Always with the verb: 1.6 restarts without one.
    fn own_start(&self, daemon: Daemon, options: &[&str]) -> Vec<OsString> {
        let file = match daemon {
            Daemon::Master => Some(&self.settings.master_cfg),
            Daemon::Metalogger => Some(&self.settings.metalogger_cfg),
            Daemon::Cgiserv => None,
        };
        let mut args = Vec::new();
        if let Some(file) = file.filter(|file| file.exists()) {
            args.extend(["-c".into(), file.clone().into()]);
        }
        args.extend(options.iter().map(OsString::from));
        args.push("start".into());
        args
    }

    /// Starts the master so that it replays the change logs beside its image in the data folder `data` (`-a`). An init script cannot pass that,
    /// so the program itself is started in its place.
    ///
    /// Returns when the start was ordered (systemd) or the master listens (else); only the master can say whether it
    /// serves. Call [`Services::remove_restore_dropin`] afterwards, also if the start fails.
    pub(crate) fn start_master(&self, data: &Path, time: Allowance, cancel: &Cancel) -> Result<(), Error> {
        let args = self.own_start(Daemon::Master, &["-a"]);
        match &self.master {
            Control::Unit(unit) => {
                restore_dropin::add(unit, data, cancel)?;
                start(&self.master, Daemon::Master, &args, time, cancel)
            }
            control => run("start", (control, Daemon::Master), &program(Daemon::Master)?, &args, time, cancel),
        }
    }

    /// Launches a master as [`Services::start_master`] does, with a variable in its environment, and returns the process that
    /// starts it and ends when it serves.
    pub(crate) fn launch_master(&self, variable: &str, value: &str) -> Result<u32, Error> {
        let (program, args) = (program(Daemon::Master)?, self.own_start(Daemon::Master, &["-a"]));
        let launched = process::launch_with(&program, &args, &[(variable, value.to_owned())]);
        launched.map_err(|source| Error::Command { verb: "start", control: Control::Own(program).to_string(), source })
    }

    /// Makes the unit of the master know `master`, if that has waited to serve, so that its unit has not started it.
    pub(crate) fn adopt_master(&self, master: Identity, cancel: &Cancel) -> Result<(), Error> {
        match &self.master {
            Control::Unit(unit) if waiting::has_waited(master) => Ok(adoption::adopt(unit, master, cancel)?),
            _ => Ok(()),
        }
    }

    /// Makes later starts of the master plain ones again, if [`Services::start_master`] changed them, in this run or in
    /// one that was killed. Takes some tenths of a second.
    pub(crate) fn remove_restore_dropin(&self) -> Result<(), Error> {
        let Control::Unit(unit) = &self.master else { return Ok(()) };
        Ok(restore_dropin::remove(unit)?)
    }

    /// Starts `daemon` as it is started at boot.
    pub(crate) fn start(&self, daemon: Daemon, cancel: &Cancel) -> Result<(), Error> {
        let Some(control) = self.control(daemon) else { return Err(Error::NoProgram(daemon.program())) };
        start(control, daemon, &self.own_start(daemon, &[]), Allowance::fixed(self.settings.start_timeout), cancel)
    }

    /// Stops the `daemon` that runs as `identity` and waits until it has ended; kills it if that takes longer than
    /// `time`.
    pub(crate) fn stop(&self, daemon: Daemon, identity: Identity, time: Allowance) -> Result<Stopped, Error> {
        if let Some(Control::Unit(unit)) = self.control(daemon) {
            // Not cut short by a signal: no later step expects a daemon that is half stopped.
            if let Err(e) = systemctl("stop", (unit, daemon), time, &Cancel::new()) {
                let pid = identity.pid;
                log::warn!("{}; killing {daemon} (pid {pid}): {}", chain(&e), process::describe(pid));
                return kill(daemon, identity).map(|()| Stopped::Killed);
            }
        }
        let stopped = process::stop(identity, Patience::with(daemon.program(), time));
        stopped.map_err(|source| Error::Command { verb: "stop", control: daemon.to_string(), source })
    }

    /// Kills the `daemon` that runs as `identity`, so that it writes nothing more.
    pub(crate) fn kill(&self, daemon: Daemon, identity: Identity) -> Result<(), Error> {
        kill(daemon, identity)?;
        match self.control(daemon) {
            // Its unit may start it again.
            Some(Control::Unit(unit)) => {
                systemctl("stop", (unit, daemon), Allowance::fixed(self.settings.stop_timeout), &Cancel::new())
            }
            _ => Ok(()),
        }
    }

    /// Whether `daemon` is started when the machine boots.
    pub(crate) fn starts_at_boot(&self, daemon: Daemon) -> bool {
        match self.control(daemon) {
            Some(Control::Unit(unit)) => boot::is_wanted(Path::new("/etc/systemd/system"), unit),
            Some(Control::Script(name)) if boot::is_openrc() => {
                boot::is_in_an_openrc_runlevel(Path::new("/etc/runlevels"), name)
            }
            Some(Control::Script(name)) => boot::is_in_a_runlevel(Path::new("/etc"), name),
            Some(Control::Own(_)) | None => false,
        }
    }

    /// Writes the pid file of the master's init script, which did not start the master itself: see
    /// [`Services::start_master`]. Without it the script would not find the master to stop it.
    pub(crate) fn write_pid_file(&self, pid: u32) -> Result<(), Error> {
        let Control::Script(name) = &self.master else { return Ok(()) };
        let path = PathBuf::from(format!("/run/{name}.pid"));
        std::fs::write(&path, format!("{pid}\n")).map_err(|source| Error::Write { path, source })
    }
}

/// How `daemon` is controlled on this machine: the first of the ways that `manager` allows.
fn control(manager: ServiceManager, daemon: Daemon, configured: Option<&String>) -> Result<Control, Error> {
    control_under(Path::new("/"), manager, daemon, configured)
}

fn control_under(
    root: &Path,
    manager: ServiceManager,
    daemon: Daemon,
    configured: Option<&String>,
) -> Result<Control, Error> {
    let names =
        configured.map_or_else(|| known_names(daemon), |name| vec![name.trim_end_matches(".service").to_owned()]);
    let is_unit = |name: &&String| {
        unit_files(name).iter().any(|file| UNIT_FOLDERS.iter().any(|f| root.join(f).join(file).exists()))
    };
    let is_script = |name: &&String| root.join("etc/init.d").join(name).exists();
    let booted = root.join("run/systemd/system").exists();
    let missing = |manager| Error::NoService { manager, tried: names.clone(), daemon, key: key(daemon) };
    let unit = || names.iter().find(is_unit).cloned().map(Control::Unit);
    let script = || names.iter().find(is_script).cloned().map(Control::Script);
    match manager {
        ServiceManager::Systemd => unit().ok_or_else(|| missing("systemd unit")),
        ServiceManager::Init => script().ok_or_else(|| missing("init script")),
        ServiceManager::Own => program(daemon).map(Control::Own),
        ServiceManager::Auto => {
            let (found, manager) = if booted { (unit(), "systemd unit") } else { (script(), "init script") };
            match found {
                Some(found) => Ok(found),
                // Another service than the one that was asked for would be a surprise.
                None if configured.is_some() => Err(missing(manager)),
                None => program(daemon).map(Control::Own),
            }
        }
    }
}

/// The web interface; not every machine has it, and a wrong name of it keeps no master away.
fn cgiserv(settings: &Settings) -> Option<Control> {
    let found = control(settings.manager, Daemon::Cgiserv, settings.cgiserv.as_ref());
    found
        .inspect_err(|e| {
            if settings.cgiserv.is_some() {
                log::warn!("{}", chain(e));
            }
        })
        .ok()
}

/// The files that make the unit `name`: its own, or that of the template that it is an instance of.
fn unit_files(name: &str) -> Vec<String> {
    match name.split_once('@') {
        // A template is no unit.
        Some((_, "")) => Vec::new(),
        Some((template, _)) => vec![format!("{name}.service"), format!("{template}@.service")],
        None => vec![format!("{name}.service")],
    }
}

/// The names that distributions and upstream give to the services.
fn known_names(daemon: Daemon) -> Vec<String> {
    let short = daemon.program().trim_start_matches("mfs");
    let names = ["moosefs-", "mfs", "mfs-"].map(|prefix| format!("{prefix}{short}"));
    // Since 4.0 the web interface has another name.
    let new = (daemon == Daemon::Cgiserv).then(|| "moosefs-gui".to_owned());
    names.into_iter().chain(new).collect()
}

fn key(daemon: Daemon) -> &'static str {
    match daemon {
        Daemon::Master => "MASTER_SERVICE",
        Daemon::Metalogger => "METALOGGER_SERVICE",
        Daemon::Cgiserv => "CGISERV_SERVICE",
    }
}

fn program(daemon: Daemon) -> Result<PathBuf, Error> {
    moosefs::find_program(daemon.program()).ok_or(Error::NoProgram(daemon.program()))
}

fn find(name: &'static str) -> Result<PathBuf, Error> {
    process::find_program(name).ok_or(Error::NoProgram(name))
}

/// Starts `daemon`: a unit and a script know how, the program takes `args`.
fn start(control: &Control, daemon: Daemon, args: &[OsString], time: Allowance, cancel: &Cancel) -> Result<(), Error> {
    match control {
        Control::Unit(unit) => systemctl("start", (unit, daemon), time, cancel),
        Control::Script(name) => {
            run("start", (control, daemon), &find("service")?, &[name.into(), "start".into()], time, cancel)
        }
        Control::Own(program) => run("start", (control, daemon), program, args, time, cancel),
    }
}

fn kill(daemon: Daemon, identity: Identity) -> Result<(), Error> {
    let killed = process::kill(identity);
    killed.map(drop).map_err(|source| Error::Command { verb: "kill", control: daemon.to_string(), source })
}

fn systemctl(verb: &'static str, unit: (&str, Daemon), time: Allowance, cancel: &Cancel) -> Result<(), Error> {
    let (unit, daemon) = unit;
    let control = Control::Unit(unit.to_owned());
    run(verb, (&control, daemon), &find("systemctl")?, &[verb.into(), unit.into()], time, cancel)
}

/// Runs a program that starts or stops a daemon, as long as that daemon makes progress.
fn run(
    verb: &'static str,
    (control, daemon): (&Control, Daemon),
    program: &Path,
    args: &[OsString],
    time: Allowance,
    cancel: &Cancel,
) -> Result<(), Error> {
    let args: Vec<&OsStr> = args.iter().map(OsString::as_os_str).collect();
    let manner = RunOptions { time, works: Some(daemon.program()), ..RunOptions::within(time.most) };
    process::run_with(program, &args, manner, cancel)
        .and_then(process::Finished::success)
        .map(|_| ())
        .map_err(|source| Error::Command { verb, control: control.to_string(), source })
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
            "there is no init script named theirs for mfsmetalogger; set METALOGGER_SERVICE in mfspromote.cfg to its \
             name"
        );
    }

    #[test]
    fn a_configured_name_that_does_not_exist_is_not_passed_over() {
        let booted = machine(&["run/systemd/system/x", "lib/systemd/system/moosefs-metalogger.service"]);
        let error = found(booted.path(), ServiceManager::Auto, Some("moosefs-metaloger")).unwrap_err().to_string();
        assert!(error.starts_with("there is no systemd unit named moosefs-metaloger for mfsmetalogger"), "{error}");
        let other = machine(&["etc/init.d/moosefs-metalogger"]);
        let error = found(other.path(), ServiceManager::Auto, Some("moosefs-metaloger")).unwrap_err().to_string();
        assert!(error.starts_with("there is no init script named moosefs-metaloger for mfsmetalogger"), "{error}");
    }

    #[test]
    fn an_instance_of_a_template_is_a_unit_and_the_template_is_none() {
        let files = ["run/systemd/system/x", "lib/systemd/system/moosefs-metalogger@.service"];
        let here = machine(&files);
        for name in ["moosefs-metalogger@one", "moosefs-metalogger@one.service"] {
            let control = found(here.path(), ServiceManager::Auto, Some(name)).unwrap();
            assert_eq!(control, Control::Unit("moosefs-metalogger@one".into()));
        }
        for name in ["moosefs-metalogger@", "moosefs-metalogger", "moosefs-master@one"] {
            assert!(found(here.path(), ServiceManager::Auto, Some(name)).is_err(), "{name}");
        }
    }

    #[test]
    fn each_daemon_gets_its_own_configuration_file() {
        let dir = machine(&["master.cfg", "metalogger.cfg"]);
        let services = services(dir.path().join("master.cfg"), dir.path().join("metalogger.cfg"));
        let words = |daemon, options: &[&str]| {
            let words = services.own_start(daemon, options);
            words
                .iter()
                .map(|word| word.to_string_lossy().replace(dir.path().to_str().unwrap(), ""))
                .collect::<Vec<_>>()
        };
        assert_eq!(words(Daemon::Master, &["-a"]), ["-c", "/master.cfg", "-a", "start"]);
        assert_eq!(words(Daemon::Metalogger, &[]), ["-c", "/metalogger.cfg", "start"]);
        assert_eq!(words(Daemon::Cgiserv, &[]), ["start"]);
        std::fs::remove_file(dir.path().join("metalogger.cfg")).unwrap();
        assert_eq!(words(Daemon::Metalogger, &[]), ["start"]);
    }

    /// The daemons of a machine without a service manager.
    fn services(master_cfg: PathBuf, metalogger_cfg: PathBuf) -> Services {
        let settings = Settings {
            manager: ServiceManager::Own,
            master: None,
            metalogger: None,
            cgiserv: None,
            master_cfg,
            metalogger_cfg,
            start_timeout: Duration::ZERO,
            stop_timeout: Duration::ZERO,
        };
        let own = Control::Own("/nowhere".into());
        Services { master: own.clone(), metalogger: own, cgiserv: None, settings }
    }

    #[test]
    fn a_killed_daemon_writes_nothing_more() {
        let dir = tempfile::tempdir().unwrap();
        let services = services("/nowhere".into(), "/nowhere".into());
        // As a master stores an image on TERM.
        let script = "trap 'echo image > metadata.mfs; exit' TERM; echo; while :; do sleep 0.01; done";
        let mut daemon = std::process::Command::new("/bin/sh")
            .args(["-c", script])
            .current_dir(dir.path())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Read::read_exact(daemon.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        services.kill(Daemon::Master, Identity::of(daemon.id()).unwrap()).unwrap();
        daemon.wait().unwrap();
        assert!(!dir.path().join("metadata.mfs").exists());
    }
}
