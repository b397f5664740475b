//! How long ucarp waits for vip-up: from its start until it is collected, in a machine that holds nothing else.
//!
//! This program calls itself in namespaces of its own. There it is process 1, so whatever a hook leaves behind becomes
//! its child and can be ended before the next call, and everything ends with it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lab::{VIP, log_lines};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::wait;
use nix::unistd::Pid;

use crate::Result;
use crate::Setup;
use crate::page::{Goal, Section, cell, ratio, row, shown, table};
use crate::stats::Summary;

/// Calls of each kind.
const CALLS: u32 = 300;
/// Calls of each kind that do not count.
const WARM_UP: u32 = 5;
/// The machine's disk, network and log: all of it private, and gone with the namespaces.
const SET_UP: &str = "
    for private in /run /etc/mfs /usr/share/ucarp; do mount -t tmpfs none $private; done
    : > /run/null
    mount --bind /dev/null /run/null
    mount -t tmpfs none /dev
    : > /dev/null
    mount --bind /run/null /dev/null
    ip link add eth0 type veth peer name far
    ip addr add 172.16.0.11/16 dev eth0
    ip link set eth0 up
    ip link set far up";

/// Milliseconds of each call.
#[derive(Default)]
struct HookTimes {
    /// Ours, where the promotion ends at once.
    short: Vec<f64>,
    /// Ours, where the promotion goes on.
    long: Vec<f64>,
    /// The shell hook.
    shell: Vec<f64>,
}

/// A kind of vip-up, with what it leaves to the background.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Short,
    Long,
    Shell,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Short, Self::Long, Self::Shell];

    /// Where it is installed. The howto's hook calls `setup.sh` by this path.
    fn folder(self) -> &'static Path {
        Path::new(match self {
            Self::Short => "/run/short",
            Self::Long => "/run/long",
            Self::Shell => "/usr/share/ucarp",
        })
    }

    /// What it starts in the background. Only the hook is timed, so nothing is promoted.
    fn background(self) -> (&'static str, &'static str) {
        match self {
            Self::Short => ("mfs-promote", "#!/bin/sh\nexit 0\n"),
            Self::Long => ("mfs-promote", "#!/bin/sh\nexec sleep 60\n"),
            Self::Shell => ("setup.sh", "#!/bin/sh\nexit 0\n"),
        }
    }
}

pub(crate) fn section(setup: &Setup) -> Result<Section> {
    let times = measure(setup.shell.as_deref())?;
    let shell = Summary::of(times.shell.iter().copied());
    let mut rows = vec![row(["hook", "milliseconds", "to the shell hook"])];
    for (name, times) in [
        ("ours, the promotion ends at once", &times.short),
        ("ours, the promotion goes on", &times.long),
        ("shell", &times.shell),
    ] {
        let summary = Summary::of(times.iter().copied());
        rows.push(vec![name.to_owned(), cell(summary), shown(ratio(summary, shell))]);
    }
    let worst = ratio(Summary::of(times.long), shell);
    let goals = vec![Goal::at_most("`vip-up` against the shell hook", 0.5, "×", worst)];
    Ok(Section { title: "vip-up alone", text: table(&rows) + EXPLANATION, goals, pictures: Vec::new() })
}

/// How it was measured.
const EXPLANATION: &str = "
From its start until it is collected, 300 calls of each, in a network namespace with a veth pair. The address is really
added each time and removed again untimed; what follows in the background (mfs-promote, `setup.sh`) is a stand-in, and the
hook's caller is the benchmark, not ucarp. ucarp is silent towards other machines for as long as this takes.
";

/// Times calls of the kinds, one after the other, in namespaces that end with this process.
fn measure(shell: Option<&Path>) -> Result<HookTimes> {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "unshare", "--net", "--mount", "--pid", "--mount-proc", "--fork"]);
    command.arg("--kill-child").arg(std::env::current_exe()?);
    command.args(["--alone", "hook"]);
    command.args(shell);
    // Without this the programs would be built there once more.
    command.env_remove("CARGO").stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = command.output()?;
    if !output.status.success() {
        return Err(format!("timing vip-up failed: {}", output.status).into());
    }
    let mut times = HookTimes::default();
    for line in String::from_utf8(output.stdout)?.lines() {
        let (kind, time) = line.split_once(' ').ok_or_else(|| format!("no time in {line:?}"))?;
        let times = match Kind::ALL.iter().find(|known| format!("{known:?}") == kind) {
            Some(Kind::Short) => &mut times.short,
            Some(Kind::Long) => &mut times.long,
            Some(Kind::Shell) => &mut times.shell,
            None => return Err(format!("unknown kind in {line:?}").into()),
        };
        times.push(time.parse()?);
    }
    Ok(times)
}

/// The other half of [`measure`]: prints `KIND MILLISECONDS` for each call.
pub(crate) fn inside(words: &[String]) -> Result<()> {
    let shell = words.first().map(Path::new);
    if std::process::id() != 1 {
        return Err("this is not a machine of its own".into());
    }
    succeed(Command::new("sh").args(["-ec", SET_UP]))?;
    let log = UnixDatagram::bind("/dev/log")?;
    log.set_nonblocking(true)?;
    let programs = lab::built_programs()?;
    let mut kinds = vec![Kind::Short, Kind::Long];
    kinds.extend(shell.map(|_| Kind::Shell));
    for kind in &kinds {
        let source = shell.filter(|_| *kind == Kind::Shell).unwrap_or(&programs);
        fs::create_dir_all(kind.folder())?;
        fs::copy(source.join("vip-up"), kind.folder().join("vip-up"))?;
        let (name, text) = kind.background();
        let path = kind.folder().join(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    for round in 0..WARM_UP + CALLS {
        // Every order of the kinds comes equally often.
        if round % 3 == 0 {
            kinds.reverse();
        } else {
            kinds.rotate_left(1);
        }
        for kind in &kinds {
            let took = call(*kind)?;
            check_and_clean(*kind, &log)?;
            if round >= WARM_UP {
                println!("{kind:?} {}", took.as_secs_f64() * 1e3);
            }
        }
    }
    Ok(())
}

/// Calls a hook as ucarp does and waits for its end.
fn call(kind: Kind) -> Result<Duration> {
    let mut command = Command::new(kind.folder().join("vip-up"));
    command.args(["eth0", &VIP.to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let begin = Instant::now();
    let status = command.spawn()?.wait()?;
    let took = begin.elapsed();
    if status.success() { Ok(took) } else { Err(format!("vip-up ({kind:?}): {status}").into()) }
}

/// Makes sure that the hook did its work, and undoes it: no address, nothing in the background.
fn check_and_clean(kind: Kind, log: &UnixDatagram) -> Result<()> {
    // Fails if the address is not there.
    succeed(Command::new("ip").args(["addr", "del", &format!("{VIP}/16"), "dev", "eth0"]))?;
    let mut buffer = [0; 4096];
    let mut said = String::new();
    while let Ok(length) = log.recv(&mut buffer) {
        said += &String::from_utf8_lossy(&buffer[..length]);
    }
    if kind != Kind::Shell && !said.contains(log_lines::PROMOTION_STARTED) {
        return Err(format!("vip-up ({kind:?}) started no promotion: {said}").into());
    }
    if kind == Kind::Long {
        for pid in others()? {
            kill(pid, Signal::SIGKILL)?;
        }
    }
    loop {
        match wait() {
            Ok(_) => {}
            Err(Errno::ECHILD) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Every process of this machine but this one.
fn others() -> Result<Vec<Pid>> {
    let names = fs::read_dir("/proc")?.map(|entry| Ok(entry?.file_name().to_string_lossy().parse::<i32>().ok()));
    let pids = names.collect::<std::io::Result<Vec<_>>>()?;
    Ok(pids.into_iter().flatten().filter(|pid| *pid != 1).map(Pid::from_raw).collect())
}

fn succeed(command: &mut Command) -> Result<()> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr)).into())
}
