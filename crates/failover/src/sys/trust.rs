//! Which files root alone decides about. What others could change, or exchange for another one, must neither tell programs of
//! root what to do nor be run by them.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

/// The most links in a path.
const MOST_LINKS: usize = 40;

/// The first of these that others than root can change: the folders above the file, the links on the way to it and the folders
/// above these, and the file itself. `None` if root alone decides: then it stays so between this look and a later use. In a
/// sticky folder like `/tmp` other users cannot replace root's files.
pub(crate) fn changeable(path: &Path) -> io::Result<Option<PathBuf>> {
    let path = std::path::absolute(path)?;
    let (mut left, mut links) = (steps(&path), 0);
    let mut reached = PathBuf::from("/");
    while let Some(step) = left.pop_front() {
        let Some(name) = step else {
            reached.pop();
            continue;
        };
        let next = reached.join(name);
        for path in [&reached, &next] {
            if others_can_change(path)? {
                return Ok(Some(path.clone()));
            }
        }
        if !next.symlink_metadata()?.is_symlink() {
            reached = next;
            continue;
        }
        links += 1;
        if links > MOST_LINKS {
            return Err(io::Error::from_raw_os_error(nix::libc::ELOOP));
        }
        let target = next.read_link()?;
        if target.is_absolute() {
            reached = PathBuf::from("/");
        }
        let mut all = steps(&target);
        all.append(&mut left);
        left = all;
    }
    Ok(None)
}

/// The names in a path, and `None` for each step up.
fn steps(path: &Path) -> VecDeque<Option<OsString>> {
    let steps = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(Some(name.to_owned())),
        Component::ParentDir => Some(None),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    steps.collect()
}

fn others_can_change(path: &Path) -> io::Result<bool> {
    let status = path.symlink_metadata()?;
    let sticky = status.is_dir() && status.mode() & 0o1000 != 0;
    let others = status.mode() & 0o022 != 0 && !sticky && !status.is_symlink();
    Ok(status.uid() != 0 || others)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, chown, lchown, symlink};

    #[test]
    fn every_step_on_the_way_to_a_file_counts() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        for folder in ["a", "b", "c"] {
            fs::create_dir(root.join(folder)).unwrap();
        }
        let (link, between, file) = (root.join("a/link"), root.join("b/link"), root.join("c/file"));
        fs::write(&file, "").unwrap();
        symlink("../b/link", &link).unwrap();
        symlink(&file, &between).unwrap();
        assert_eq!(changeable(&link).unwrap(), None);
        for step in [root.join("a"), root.join("b"), root.join("c"), file.clone()] {
            let mode = |mode| fs::set_permissions(&step, fs::Permissions::from_mode(mode)).unwrap();
            mode(0o775);
            assert_eq!(changeable(&link).unwrap().as_ref(), Some(&step));
            mode(0o755);
            chown(&step, Some(65_534), None).unwrap();
            assert_eq!(changeable(&link).unwrap().as_ref(), Some(&step));
            chown(&step, Some(0), None).unwrap();
        }
        for step in [&link, &between] {
            lchown(step, Some(65_534), None).unwrap();
            assert_eq!(changeable(&link).unwrap().as_ref(), Some(step));
            lchown(step, Some(0), None).unwrap();
        }
        assert_eq!(changeable(&root.join("a/../c/file")).unwrap(), None);
        assert_eq!(changeable(&root.join("a/absent")).unwrap_err().kind(), io::ErrorKind::NotFound);
        symlink("loop", root.join("loop")).unwrap();
        assert!(changeable(&root.join("loop")).is_err());
    }
}
