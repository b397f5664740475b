//! Roots of Debian releases: made once by debootstrap, kept, never written to again. What runs in one has a copy of it.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};

use crate::Error;
use crate::Result;
use crate::error::{file, system};
use crate::process::{self, must};

/// A release of Debian, and with it one of MooseFS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// bookworm, with MooseFS 3.0.117.
    Debian12,
    /// trixie, with MooseFS 4.57.5.
    Debian13,
    /// sid, with MooseFS 4.59.2 or what has come since: the newest that Debian has.
    DebianUnstable,
}

impl Release {
    pub(crate) fn suite(self) -> &'static str {
        match self {
            Self::Debian12 => "bookworm",
            Self::Debian13 => "trixie",
            Self::DebianUnstable => "sid",
        }
    }

    /// What to do if no root can be made.
    fn hint(self) -> &'static str {
        match self {
            Self::Debian12 | Self::Debian13 => "is its mirror reachable?",
            Self::DebianUnstable => {
                "Debian unstable cannot always be installed: is its mirror reachable, and are all packages there? Try again \
                 later; a root that was made once is kept"
            }
        }
    }

    /// What is in a root beside Debian's minimum; another list makes another root.
    fn packages(self) -> String {
        let web_interface = match self {
            Self::Debian12 | Self::Debian13 => "moosefs-cgiserv",
            Self::DebianUnstable => "moosefs-gui",
        };
        format!("{PACKAGES},{web_interface}")
    }

    /// What a clean builder of Debian packages has, and what our source package needs to be built.
    fn build_packages(self) -> String {
        let rust = match self {
            // The Rust of bookworm itself is too old for us; browsers are built with this one.
            Self::Debian12 => "cargo-web,rustc-web",
            Self::Debian13 | Self::DebianUnstable => "cargo,rustc",
        };
        format!("build-essential,debhelper,{rust}")
    }
}

/// What is in each root.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,iproute2,procps,python3-minimal,fuse3,iputils-arping,xz-utils,ucarp,\
                        moosefs-master,moosefs-metalogger,moosefs-chunkserver,moosefs-client";
/// What is in the root of machines without systemd.
const SYSVINIT: &str =
    "sysvinit-core,inetutils-syslogd,iproute2,procps,xz-utils,ucarp,moosefs-master,moosefs-metalogger";
/// The compiler of a release, and what it needs to link C code.
const RUST: &str = "cargo,rustc,gcc,libc6-dev";
/// Enters a copy of ROOT that lives in WORK, and runs a command there. FOLDER is mounted as /NAME in it; MODE is ro or rw.
/// Usage: bash -c ENTER bash ROOT WORK [MODE NAME FOLDER]... -- [VARIABLE=VALUE]... COMMAND...
const ENTER: &str = r#"
set -eu
root=$1 work=$2
shift 2
mkdir "$work/upper" "$work/work" "$work/root"
mount -t overlay overlay -o "lowerdir=$root,upperdir=$work/upper,workdir=$work/work" "$work/root"
cd "$work/root"
while [ "$1" != -- ]; do
    mkdir "./$2"
    mount --bind -o "$1" "$3" "./$2"
    shift 3
done
shift
mount --bind /dev dev
mount -t proc proc proc
mount -t sysfs sysfs sys
exec chroot . /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root "$@"
"#;
/// Written into the root when it is complete.
const STAMP: &str = "lab-packages";
/// About 300 MB are loaded and unpacked.
const PATIENCE: Duration = Duration::from_secs(20 * 60);

/// Where it is kept: `LAB_CACHE`, or a folder of the system's cache.
pub(crate) fn cache() -> PathBuf {
    std::env::var_os("LAB_CACHE").map_or_else(|| PathBuf::from("/var/cache/moosefs-lab"), PathBuf::from)
}

/// The root of a release's machines; made now if it is not there.
pub(crate) fn root(release: Release, scratch: &Path) -> Result<PathBuf> {
    make(release.suite(), release, &release.packages(), None, scratch)
}

/// A root of a release that sysvinit boots; made now if it is not there. OpenRC, which cannot be installed beside it from the
/// beginning, is only downloaded: `apt-get install openrc` needs no network there.
pub(crate) fn sysvinit(release: Release, scratch: &Path) -> Result<PathBuf> {
    make(&format!("{}-sysvinit", release.suite()), release, SYSVINIT, Some("openrc"), scratch)
}

/// A root of a release with its Rust; made now if it is not there.
pub(crate) fn rust(release: Release, scratch: &Path) -> Result<PathBuf> {
    make(&format!("{}-rust", release.suite()), release, RUST, None, scratch)
}

/// A root of a release in which Debian packages are built; made now if it is not there.
pub(crate) fn builder(release: Release, scratch: &Path) -> Result<PathBuf> {
    make(&format!("{}-builder", release.suite()), release, &release.build_packages(), None, scratch)
}

/// A folder that what runs in a root finds there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shared<'a> {
    /// Its name in the root, directly under `/`.
    pub(crate) name: &'a str,
    /// Where it is on this machine.
    pub(crate) folder: &'a Path,
    /// Whether what runs there may write to it.
    pub(crate) writable: bool,
}

/// A command that runs in a copy of a root, with these folders of this machine, and without a network. What it leaves in the copy
/// goes with `work`, which is for this one command.
pub(crate) fn inside(root: &Path, work: &Path, shared: &[Shared]) -> Command {
    let mut command =
        process::unshare(&["--net", "--mount", "--pid", "--fork", "--kill-child", "bash", "-c", ENTER, "bash"]);
    command.arg(root).arg(work);
    for one in shared {
        command.args([if one.writable { "rw" } else { "ro" }, one.name]).arg(one.folder);
    }
    command.arg("--");
    command
}

fn make(name: &str, release: Release, packages: &str, downloaded: Option<&str>, scratch: &Path) -> Result<PathBuf> {
    let cache = cache();
    let root = cache.join(name);
    fs::create_dir_all(&cache).map_err(file("create", &cache))?;
    let lock = cache.join(format!("{name}.lock"));
    let open = OpenOptions::new().create(true).truncate(false).write(true).open(&lock).map_err(file("open", &lock))?;
    let _lock = Flock::lock(open, FlockArg::LockExclusive).map_err(|(_, e)| system("lock the cache of roots")(e))?;
    if fs::read_to_string(root.join(STAMP)).is_ok_and(|stamp| stamp == packages) {
        return Ok(root);
    }
    let new = cache.join(format!("{name}.new"));
    for old in [&root, &new] {
        if old.exists() {
            fs::remove_dir_all(old).map_err(file("remove", old))?;
        }
    }
    eprintln!("making {} with debootstrap: once, in a minute or two", root.display());
    let mut debootstrap = Command::new("debootstrap");
    debootstrap
        .args(["--variant=minbase", &format!("--include={packages}"), release.suite()])
        .arg(&new)
        .arg(mirror(scratch)?);
    let mut steps = vec![debootstrap];
    if let Some(package) = downloaded {
        let mut download = Command::new("chroot");
        download.arg(&new).args(["apt-get", "--assume-yes", "--download-only", "install", package]);
        steps.push(download);
    }
    for step in steps {
        must(step, scratch, PATIENCE).map_err(|cause| Error::Root {
            root: root.clone(),
            suite: release.suite(),
            hint: release.hint(),
            cause: Box::new(cause),
        })?;
    }
    fs::write(new.join(STAMP), packages).map_err(file("write", new.join(STAMP)))?;
    fs::rename(&new, &root).map_err(file("rename", &new))?;
    Ok(root)
}

/// The mirror that this machine's own packages come from.
fn mirror(scratch: &Path) -> Result<String> {
    let mut apt = Command::new("apt-get");
    apt.args(["indextargets", "--format", "$(ORIGIN) $(CODENAME) $(SITE)", "Created-By: Packages"]);
    let targets = must(apt, scratch, Duration::from_secs(60))?;
    // Updates and security are other trees, `bookworm-security`.
    let plain = |line: &&str| {
        let mut words = line.split(' ');
        words.next() == Some("Debian") && words.next().is_some_and(|codename| !codename.contains('-'))
    };
    let found = targets.lines().find(plain).and_then(|line| line.split(' ').nth(2));
    found.map(str::to_owned).ok_or_else(|| {
        Error::Programs("the apt sources of this machine name no mirror of Debian, so no root can be made".to_owned())
    })
}
