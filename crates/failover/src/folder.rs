//! File access inside a folder that another user can write.
//!
//! The data folder belongs to the user of the MooseFS daemons, we run as root. So every access goes through a
//! directory descriptor and one plain name: no path is walked twice, no symbolic link is followed, nothing but a
//! regular file is ever opened, and opening never blocks. Renames never replace what is there.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, RenameFlags, Stat, Uid};
use rustix::io::Errno;

/// What failed, on which object, and why.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried: `open`, `rename` …
        operation: &'static str,
        /// The object it was tried on.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
    /// The name is not one plain component.
    #[error("{name:?} is not a plain file name")]
    Name {
        /// The name as given.
        name: OsString,
    },
    /// A symbolic link, FIFO, folder or device where a regular file belongs.
    #[error("{} is not a regular file; move it away", path.display())]
    NotAFile {
        /// The object.
        path: PathBuf,
    },
}

impl Error {
    /// Whether the object was simply not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
    }
}

/// An open folder: all work in it is relative to its descriptor.
#[derive(Debug)]
pub struct Folder {
    fd: OwnedFd,
    path: PathBuf,
    /// Looked at with other files in it than there are.
    view: Option<Box<View>>,
}

/// What [`Folder::viewed_with`] changes.
#[derive(Debug)]
struct View {
    from: Folder,
    back: BTreeSet<OsString>,
    without: BTreeSet<OsString>,
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Folder {
    /// Opens the folder at `path`. The path itself is root's: links in it are followed.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(|e| io("open", path, e))?;
        Ok(Self { fd, path: path.to_owned(), view: None })
    }

    /// The folder as it would look if the files `back` were moved into it out of `from`, and those named `without` were
    /// gone: for listing, looking and reading. Nothing is moved.
    #[must_use]
    pub fn viewed_with(self, from: Self, back: BTreeSet<OsString>, without: BTreeSet<OsString>) -> Self {
        Self { view: Some(Box::new(View { from, back, without })), ..self }
    }

    /// Where `name` is looked for; `None` if it is not to be seen.
    fn seen(&self, name: &OsStr) -> Option<&Self> {
        match &self.view {
            Some(view) if view.back.contains(name) => Some(&view.from),
            Some(view) if view.without.contains(name) => None,
            _ => Some(self),
        }
    }

    /// The path this folder was opened by; for messages, and for programs that need a path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names in the folder, sorted, without `.` and `..`.
    pub fn names(&self) -> Result<Vec<OsString>, Error> {
        let failed = |e| io("list", &self.path, e);
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.fd).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name));
            }
        }
        if let Some(view) = &self.view {
            names.retain(|name| !view.without.contains(name) && !view.back.contains(name));
            names.extend(view.back.iter().cloned());
        }
        names.sort();
        Ok(names)
    }

    /// What the folder itself is.
    pub fn own_status(&self) -> Result<Stat, Error> {
        rustix::fs::fstat(&self.fd).map_err(|e| io("look at", &self.path, e))
    }

    /// What `name` is, links not followed; `None` if it is not there.
    pub fn status(&self, name: &OsStr) -> Result<Option<Stat>, Error> {
        let path = self.checked(name)?;
        let Some(seen) = self.seen(name) else { return Ok(None) };
        match rustix::fs::statat(&seen.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(status) => Ok(Some(status)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(io("look at", &path, e)),
        }
    }

    /// Opens the regular file `name` for reading.
    pub fn read(&self, name: &OsStr) -> Result<File, Error> {
        let path = self.checked(name)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let Some(seen) = self.seen(name) else { return Err(io("open", &path, Errno::NOENT)) };
        let fd = match rustix::fs::openat(&seen.fd, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::LOOP | Errno::NXIO) => return Err(Error::NotAFile { path }),
            Err(e) => return Err(io("open", &path, e)),
        };
        let status = rustix::fs::fstat(&fd).map_err(|e| io("look at", &path, e))?;
        if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
            return Err(Error::NotAFile { path });
        }
        Ok(File::from(fd))
    }

    /// Creates the new file `name`; it must not exist.
    pub fn create(&self, name: &OsStr, mode: u32) -> Result<File, Error> {
        let path = self.checked(name)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd =
            rustix::fs::openat(&self.fd, name, flags, Mode::from_raw_mode(mode)).map_err(|e| io("create", &path, e))?;
        Ok(File::from(fd))
    }

    /// Opens the folder `name` in this one.
    pub fn subfolder(&self, name: &OsStr) -> Result<Self, Error> {
        let path = self.checked(name)?;
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, name, flags, Mode::empty()).map_err(|e| io("open folder", &path, e))?;
        Ok(Self { fd, path, view: None })
    }

    /// Makes the new folder `name`, flushed to disk before anything is moved into it, and opens it; it must not exist.
    pub fn make_subfolder(&self, name: &OsStr, mode: u32) -> Result<Self, Error> {
        let path = self.checked(name)?;
        rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(mode)).map_err(|e| io("make folder", &path, e))?;
        self.sync()?;
        self.subfolder(name)
    }

    /// Moves `name` into the folder `to` under the name `new_name`; never replaces anything.
    pub fn rename(&self, name: &OsStr, to: &Self, new_name: &OsStr) -> Result<(), Error> {
        let path = self.checked(name)?;
        to.checked(new_name)?;
        rustix::fs::renameat_with(&self.fd, name, &to.fd, new_name, RenameFlags::NOREPLACE)
            .map_err(|e| io("rename", &path, e))
    }

    /// Renames `name` to `new_name` in this folder, replacing what is there: for our own files only.
    pub fn replace(&self, name: &OsStr, new_name: &OsStr) -> Result<(), Error> {
        let path = self.checked(name)?;
        self.checked(new_name)?;
        rustix::fs::renameat(&self.fd, name, &self.fd, new_name).map_err(|e| io("rename", &path, e))
    }

    /// Removes the file `name`.
    pub fn remove(&self, name: &OsStr) -> Result<(), Error> {
        let path = self.checked(name)?;
        rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()).map_err(|e| io("remove", &path, e))
    }

    /// Removes the empty folder `name`.
    pub fn remove_subfolder(&self, name: &OsStr) -> Result<(), Error> {
        let path = self.checked(name)?;
        rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR).map_err(|e| io("remove folder", &path, e))
    }

    /// Gives an open file that was created here to `owner`.
    pub fn give(&self, file: &File, name: &OsStr, owner: Owner) -> Result<(), Error> {
        let path = self.checked(name)?;
        rustix::fs::fchown(file, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))
            .map_err(|e| io("change the owner of", &path, e))
    }

    /// Gives the folder itself to `owner`.
    pub fn give_away(&self, owner: Owner) -> Result<(), Error> {
        rustix::fs::fchown(&self.fd, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))
            .map_err(|e| io("change the owner of", &self.path, e))
    }

    /// Lets other users pass through to what is below, and see and change nothing here (mode 0711).
    pub fn let_through(&self) -> Result<(), Error> {
        rustix::fs::fchmod(&self.fd, Mode::from_raw_mode(0o711)).map_err(|e| io("change the mode of", &self.path, e))
    }

    /// How many bytes users other than root can still write here.
    pub fn free(&self) -> Result<u64, Error> {
        let status = rustix::fs::fstatvfs(&self.fd).map_err(|e| io("look at the file system of", &self.path, e))?;
        Ok(status.f_bavail.saturating_mul(status.f_frsize))
    }

    /// Whether a copy of the file `name` made here shares its blocks (reflink). Tried on a file without a name.
    pub fn shares_blocks(&self, name: &OsStr) -> bool {
        let Ok(original) = self.read(name) else { return false };
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        let unnamed = rustix::fs::openat(&self.fd, ".", flags, Mode::RUSR | Mode::WUSR);
        unnamed.is_ok_and(|unnamed| rustix::fs::ioctl_ficlone(&unnamed, &original).is_ok())
    }

    /// Flushes the folder's own entries to disk.
    pub fn sync(&self) -> Result<(), Error> {
        rustix::fs::fsync(&self.fd).map_err(|e| io("flush", &self.path, e))
    }

    fn checked(&self, name: &OsStr) -> Result<PathBuf, Error> {
        let bytes = name.as_bytes();
        if bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.contains(&b'/') || bytes.contains(&0) {
            return Err(Error::Name { name: name.to_owned() });
        }
        Ok(self.path.join(name))
    }
}

/// Who a file belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

impl Owner {
    /// The user `user` with `group`, or with the user's own group; `None` if there is no such user or group.
    pub fn named(user: &str, group: Option<&str>) -> Option<Self> {
        let user = nix::unistd::User::from_name(user).ok()??;
        let gid = match group {
            Some(group) => nix::unistd::Group::from_name(group).ok()??.gid,
            None => user.gid,
        };
        Some(Self { uid: user.uid.as_raw(), gid: gid.as_raw() })
    }
}

fn io(operation: &'static str, path: &Path, errno: Errno) -> Error {
    Error::Io { operation, path: path.to_owned(), source: errno.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn scratch() -> (tempfile::TempDir, Folder) {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        (dir, folder)
    }

    #[test]
    fn a_symbolic_link_is_never_followed() {
        let (dir, folder) = scratch();
        std::fs::write(dir.path().join("target"), "secret").unwrap();
        symlink("target", dir.path().join("link")).unwrap();
        symlink(dir.path(), dir.path().join("dirlink")).unwrap();
        assert!(matches!(folder.read("link".as_ref()), Err(Error::NotAFile { .. })));
        assert!(folder.subfolder("dirlink".as_ref()).is_err());
        assert!(folder.create("link".as_ref(), 0o600).is_err());
    }

    #[test]
    fn a_fifo_does_not_block_and_is_refused() {
        let (dir, folder) = scratch();
        nix::unistd::mkfifo(&dir.path().join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(matches!(folder.read("fifo".as_ref()), Err(Error::NotAFile { .. })));
    }

    #[test]
    fn names_that_leave_the_folder_are_refused() {
        let (_dir, folder) = scratch();
        for name in ["", ".", "..", "a/b", "/etc/passwd"] {
            assert!(matches!(folder.read(name.as_ref()), Err(Error::Name { .. })), "{name:?}");
        }
    }

    #[test]
    fn asking_for_space_leaves_nothing_behind() {
        let (dir, folder) = scratch();
        std::fs::write(dir.path().join("a"), "a").unwrap();
        assert!(folder.free().unwrap() > 0);
        let _ = folder.shares_blocks("a".as_ref());
        assert!(!folder.shares_blocks("absent".as_ref()));
        assert_eq!(folder.names().unwrap(), ["a"]);
    }

    #[test]
    fn a_view_shows_what_would_be_there_and_moves_nothing() {
        let (dir, folder) = scratch();
        std::fs::create_dir(dir.path().join("aside")).unwrap();
        for (name, text) in [("kept", "kept"), ("log", "new"), ("staged", "new"), ("aside/log", "old")] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let aside = folder.subfolder("aside".as_ref()).unwrap();
        let names = |names: &[&str]| names.iter().map(OsString::from).collect();
        let view = folder.viewed_with(aside, names(&["log"]), names(&["log", "staged"]));
        assert_eq!(view.names().unwrap(), ["aside", "kept", "log"]);
        assert_eq!(std::io::read_to_string(view.read("log".as_ref()).unwrap()).unwrap(), "old");
        assert!(view.read("staged".as_ref()).unwrap_err().is_not_found());
        assert!(view.status("staged".as_ref()).unwrap().is_none() && view.status("kept".as_ref()).unwrap().is_some());
        assert_eq!(std::fs::read_to_string(dir.path().join("log")).unwrap(), "new");
    }

    #[test]
    fn a_rename_never_replaces() {
        let (dir, folder) = scratch();
        std::fs::write(dir.path().join("a"), "a").unwrap();
        std::fs::write(dir.path().join("b"), "b").unwrap();
        assert!(folder.rename("a".as_ref(), &folder, "b".as_ref()).is_err());
        assert_eq!(std::fs::read_to_string(dir.path().join("b")).unwrap(), "b");
    }
}
