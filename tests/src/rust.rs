//! The workspace in the hands of a Debian release: compiled by its Rust, built by its packaging tools, and installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::error::file;
use crate::root::{self, Release, Shared};
use crate::work::{HostLock, WorkFolder};
use crate::{Result, process};

/// The first time everything is compiled.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// And this is optimized as a whole.
const PACKAGE_PATIENCE: Duration = Duration::from_secs(60 * 60);

/// Builds the source package in /source, and leaves what was built in /out.
///
/// cargo keeps what it compiled in /target for the next time. It knows the crates by their versions, but our own sources only by
/// their times, and those of a source package are all the same: they get new ones, so that all of them are compiled again.
const BUILD: &str = "
    set -eu
    mkdir /build
    cd /build
    dpkg-source -x /source/*.dsc unpacked
    cd unpacked
    find . -path ./vendor -prune -o -type f -exec touch {} +
    dpkg-buildpackage -b -us -uc
    cp ../*.deb /out
";

/// Installs the package in /built, and runs the test that comes with the sources.
const TRY: &str = "
    set -eu
    mount -t tmpfs tmpfs /run
    touch /etc/hosts # every machine has one, and a root is none
    dpkg --install /built/*.deb
    mfs-promote --version
    debian/tests/failover
";

/// Runs the cargo of a release on the workspace, without a network, and returns what it printed.
pub fn cargo(release: Release, words: &[&str]) -> Result<String> {
    let _lock = HostLock::take()?;
    let work = WorkFolder::create()?;
    let root = root::rust(release, work.path())?;
    let sources = sources();
    let vendor = vendored(&sources, work.path())?;
    let target = kept(&format!("{}-target", release.suite()))?;
    let shared = [
        Shared { name: "sources", folder: &sources, writable: false },
        Shared { name: "vendor", folder: &vendor, writable: false },
        Shared { name: "target", folder: &target, writable: true },
    ];
    let mut command = root::inside(&root, work.path(), &shared);
    command.args(["CARGO_TARGET_DIR=/target", "sh", "-c", "cd /sources; exec cargo \"$@\"", "sh"]);
    command.args(["--config", "source.crates-io.replace-with=\"vendor\""]);
    command.args(["--config", "source.vendor.directory=\"/vendor\""]).args(words).arg("--offline");
    process::must(command, work.path(), PATIENCE)
}

/// Builds the source package in the folder `source` as a builder of a release's packages does, puts the binary package into the
/// folder `out`, and returns what was printed.
pub fn package(release: Release, source: &Path, out: &Path) -> Result<String> {
    let _lock = HostLock::take()?;
    let work = WorkFolder::create()?;
    let root = root::builder(release, work.path())?;
    let target = kept(&format!("{}-package-target", release.suite()))?;
    let shared = [
        Shared { name: "source", folder: source, writable: false },
        Shared { name: "target", folder: &target, writable: true },
        Shared { name: "out", folder: out, writable: true },
    ];
    let mut command = root::inside(&root, work.path(), &shared);
    command.args(["CARGO_TARGET_DIR=/target", "LC_ALL=C.UTF-8", "sh", "-c", BUILD]);
    process::must(command, work.path(), PACKAGE_PATIENCE)
}

/// Installs the binary package in the folder `built` on a machine of a release, runs the test of the source package on it, and
/// returns what was printed.
pub fn try_package(release: Release, built: &Path) -> Result<String> {
    let _lock = HostLock::take()?;
    let work = WorkFolder::create()?;
    let root = root::root(release, work.path())?;
    let packaging = sources().join("scripts/packaging");
    let shared = [
        Shared { name: "packaging", folder: &packaging, writable: false },
        Shared { name: "built", folder: built, writable: false },
    ];
    let mut command = root::inside(&root, work.path(), &shared);
    command.args(["LC_ALL=C.UTF-8", "sh", "-c", &format!("cd /packaging\n{TRY}")]);
    process::must(command, work.path(), PATIENCE)
}

/// The workspace.
fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A folder of the cache for what cargo compiled: it is of use the next time.
fn kept(name: &str) -> Result<PathBuf> {
    let target = root::cache().join(name);
    fs::create_dir_all(&target).map_err(file("create", &target))?;
    Ok(target)
}

/// A folder with the sources of all dependencies. cargo takes them from its own cache, and loads only those that this
/// machine never needed.
fn vendored(sources: &Path, scratch: &Path) -> Result<PathBuf> {
    let folder = scratch.join("vendor");
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["vendor", "--quiet", "--locked", "--versioned-dirs", "--respect-source-config"]).arg(&folder);
    command.current_dir(sources);
    process::must(command, scratch, PATIENCE)?;
    Ok(folder)
}
