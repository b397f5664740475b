//! The workspace in the hands of the Rust that a Debian release ships.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::error::file;
use crate::root::{self, Release};
use crate::work::{HostLock, WorkFolder};
use crate::{Result, process};

/// The first time everything is compiled.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// Enters a copy of ROOT that lives in WORK, where the sources and their dependencies can only be read.
/// Usage: bash -c SCRIPT bash ROOT WORK SOURCES VENDOR TARGET CARGO-WORDS...
const SCRIPT: &str = r#"
set -eu
root=$1 work=$2 sources=$3 vendor=$4 target=$5
shift 5
mkdir "$work/upper" "$work/work" "$work/root"
mount -t overlay overlay -o "lowerdir=$root,upperdir=$work/upper,workdir=$work/work" "$work/root"
cd "$work/root"
mkdir sources vendor target
mount --bind -o ro "$sources" sources
mount --bind -o ro "$vendor" vendor
mount --bind "$target" target
mount --bind /dev dev
mount -t proc proc proc
exec chroot . /usr/bin/env -i PATH=/usr/bin:/bin HOME=/root CARGO_TARGET_DIR=/target sh -c 'cd /sources; exec cargo "$@"' sh \
    --config 'source.crates-io.replace-with="vendor"' --config 'source.vendor.directory="/vendor"' "$@"
"#;

/// Runs the cargo of a release on the workspace, without a network, and returns what it printed.
pub fn cargo(release: Release, words: &[&str]) -> Result<String> {
    let _lock = HostLock::take()?;
    let work = WorkFolder::create()?;
    let root = root::rust(release, work.path())?;
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let vendor = vendored(&sources, work.path())?;
    // What was compiled there is of use the next time.
    let target = root::cache().join(format!("{}-target", release.suite()));
    fs::create_dir_all(&target).map_err(file("create", &target))?;
    let mut command =
        process::unshare(&["--net", "--mount", "--pid", "--fork", "--kill-child", "bash", "-c", SCRIPT, "bash"]);
    command.arg(root).arg(work.path()).arg(sources).arg(vendor).arg(target).args(words).arg("--offline");
    process::must(command, work.path(), PATIENCE)
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
