//! The services that are started at boot: read from the links that `systemctl enable`, `update-rc.d` and `rc-update` make.

use std::path::{Path, PathBuf};

/// Whether OpenRC booted this machine. It does not look at the links of sysvinit, which Debian makes for it as well.
pub(super) fn is_openrc() -> bool {
    Path::new("/run/openrc").exists()
}

/// Whether another unit wants this one: `systemctl enable` makes such a link.
pub(super) fn is_wanted(folder: &Path, unit: &str) -> bool {
    let wanting = |name: &str| matches!(name.rsplit_once('.'), Some((_, "wants" | "requires")));
    let mut links = entries(folder, wanting);
    links.any(|wants| wants.join(format!("{unit}.service")).symlink_metadata().is_ok())
}

/// Whether the script is started in a run level: `update-rc.d` makes a link `rcN.d/SNNname`.
pub(super) fn is_in_a_runlevel(etc: &Path, script: &str) -> bool {
    let mut levels = entries(etc, |name| matches!(name, "rcS.d" | "rc2.d" | "rc3.d" | "rc4.d" | "rc5.d"));
    let starts =
        |name: &str| name.strip_prefix('S').is_some_and(|name| name.trim_start_matches(char::is_numeric) == script);
    levels.any(|level| entries(&level, starts).next().is_some())
}

/// Whether a run level of OpenRC starts the script: `rc-update` makes a link `LEVEL/name`. Its level `off` is the shutdown.
pub(super) fn is_in_an_openrc_runlevel(runlevels: &Path, script: &str) -> bool {
    let mut levels = entries(runlevels, |level| level != "off");
    levels.any(|level| level.join(script).symlink_metadata().is_ok())
}

/// The entries of `folder` whose name is `wanted`.
fn entries(folder: &Path, wanted: impl Fn(&str) -> bool) -> impl Iterator<Item = PathBuf> {
    let found = std::fs::read_dir(folder).into_iter().flatten().flatten();
    found.filter(move |entry| entry.file_name().to_str().is_some_and(&wanted)).map(|entry| entry.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(folder: &Path, name: &str) {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        // Into nothing, as in a root that is not booted.
        std::os::unix::fs::symlink("/nowhere/at/all", path).unwrap();
    }

    #[test]
    fn a_unit_that_another_one_wants_starts_at_boot() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_wanted(dir.path(), "moosefs-master"));
        link(dir.path(), "multi-user.target.wants/moosefs-metalogger.service");
        link(dir.path(), "moosefs-master.service.d/moosefs-master.service");
        assert!(!is_wanted(dir.path(), "moosefs-master"));
        assert!(is_wanted(dir.path(), "moosefs-metalogger"));
    }

    #[test]
    fn a_script_that_a_run_level_starts_starts_at_boot() {
        let dir = tempfile::tempdir().unwrap();
        link(dir.path(), "rc2.d/K01moosefs-master");
        link(dir.path(), "rc0.d/S01moosefs-master");
        link(dir.path(), "rc2.d/S01moosefs-master-other");
        assert!(!is_in_a_runlevel(dir.path(), "moosefs-master"));
        link(dir.path(), "rc3.d/S02moosefs-master");
        assert!(is_in_a_runlevel(dir.path(), "moosefs-master"));
    }

    #[test]
    fn a_script_that_a_run_level_of_openrc_starts_starts_at_boot() {
        let dir = tempfile::tempdir().unwrap();
        link(dir.path(), "off/moosefs-master");
        link(dir.path(), "default/moosefs-metalogger");
        assert!(!is_in_an_openrc_runlevel(dir.path(), "moosefs-master"));
        assert!(is_in_an_openrc_runlevel(dir.path(), "moosefs-metalogger"));
    }
}
