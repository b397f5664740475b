//! The Debian 12 root that booted machines start from: made once by debootstrap, kept, never written to again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::error::file;
use crate::process::must;
use crate::{Error, Result};

const SUITE: &str = "bookworm";
/// What is in it beside Debian's minimum; another list makes another root.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,iproute2,procps,python3-minimal,ucarp,\
                        moosefs-master,moosefs-metalogger,moosefs-cgiserv";
/// Written into the root when it is complete.
const STAMP: &str = "lab-packages";
/// About 300 MB are loaded and unpacked.
const PATIENCE: Duration = Duration::from_secs(20 * 60);

/// Where it is kept: `LAB_CACHE`, or a folder of the system's cache.
fn cache() -> PathBuf {
    std::env::var_os("LAB_CACHE").map_or_else(|| PathBuf::from("/var/cache/moosefs-lab"), PathBuf::from)
}

/// The root; made now if it is not there. The caller holds the host's lock.
pub(crate) fn root(scratch: &Path) -> Result<PathBuf> {
    let cache = cache();
    let root = cache.join(SUITE);
    if fs::read_to_string(root.join(STAMP)).is_ok_and(|packages| packages == PACKAGES) {
        return Ok(root);
    }
    let new = cache.join(format!("{SUITE}.new"));
    for old in [&root, &new] {
        if old.exists() {
            fs::remove_dir_all(old).map_err(file("remove", old))?;
        }
    }
    fs::create_dir_all(&cache).map_err(file("create", &cache))?;
    let mut debootstrap = Command::new("debootstrap");
    debootstrap.args(["--variant=minbase", &format!("--include={PACKAGES}"), SUITE]).arg(&new).arg(mirror(scratch)?);
    must(debootstrap, scratch, PATIENCE)?;
    fs::write(new.join(STAMP), PACKAGES).map_err(file("write", new.join(STAMP)))?;
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
        Error::Programs(format!("the apt sources of this machine name no mirror of Debian, so no {SUITE} can be made"))
    })
}
