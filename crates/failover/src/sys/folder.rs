//! File access inside a folder that another user can write.
//!
//! The data folder belongs to the user of the MooseFS daemons, and we run as root. So every access goes through a
//! directory descriptor and one plain name: no path is walked twice, no symbolic link is followed, only regular files
//! are opened, and opening never blocks. Renames never replace a file: where the file system cannot rename so (ZFS before
//! 2.2, `GlusterFS`, NFS, some of FUSE), a file gets its second name by a hard link, which never replaces either, before
//! it loses the first. Two kinds of regular files are refused: a hard link to a file of another user, which comes from
//! outside, and a file of holes, which costs nothing to make and takes for ever to read.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::sys::text::strtol;

use rustix::fs::{AtFlags, CWD, Dir, FileType, FlockOperation, Gid, Mode, OFlags, RenameFlags, SeekFrom, Stat, Uid};
use rustix::io::Errno;

/// More entries than this are no data folder of MooseFS, which has some hundred; listing them would take memory without
/// end.
const MOST_NAMES: usize = 100_000;
/// A file may have holes of this many bytes in all. The hole that a crash leaves at the end of a file is far smaller.
const MOST_HOLES: u64 = 1 << 30;

/// How often a lock that is held by another process is tried.
const LOCK_STEP: Duration = Duration::from_millis(1);

/// What failed, on which object, and why.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A system call failed.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// `open`, `rename` …
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
    /// A hard link to a file of another user than the folder's.
    #[error("{} is a hard link to a file of another user (uid {uid}); move it away", path.display())]
    ForeignLink {
        /// The object.
        path: PathBuf,
        /// The owner of the file.
        uid: u32,
    },
    /// A file of holes.
    #[error("{} is {size} bytes long and most of them were never written; move it away", path.display())]
    Holes {
        /// The object.
        path: PathBuf,
        /// Its size.
        size: u64,
    },
    /// More entries than a data folder can have.
    #[error("{} has more than {MOST_NAMES} entries; move files of other programs away", path.display())]
    TooMany {
        /// The folder.
        path: PathBuf,
    },
    /// A file or a symbolic link where a folder belongs.
    #[error("{} is not a folder but a link or a file; move it away", path.display())]
    NotAFolder {
        /// The object.
        path: PathBuf,
    },
    /// The file system can neither rename without replacing, nor give a file a second name.
    #[error(
        "the file system of {} can neither rename a file without replacing another one (renameat2 with RENAME_NOREPLACE) \
         nor make a hard link, so files cannot be moved safely; use another file system there, as ext4, XFS or ZFS",
        path.display()
    )]
    NoSafeRename {
        /// The folder.
        path: PathBuf,
        /// Why there is no hard link.
        #[source]
        source: std::io::Error,
    },
    /// Another folder lies in the place of the one that was made.
    #[error("another program exchanged {} while it was made; move it away", path.display())]
    Exchanged {
        /// The object.
        path: PathBuf,
    },
}

impl Error {
    /// In words, the kind of file that is refused; `None` for any other error.
    pub(crate) fn no_plain_file(&self) -> Option<&'static str> {
        match self {
            Self::NotAFile { .. } => Some("is not a regular file"),
            Self::ForeignLink { .. } => Some("is a hard link to a file of another user"),
            Self::Holes { .. } => Some("consists of holes"),
            _ => None,
        }
    }

    /// Whether the name was taken already.
    pub(crate) fn is_there(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == std::io::ErrorKind::AlreadyExists)
    }

    /// Whether the object was simply not there.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
    }
}

/// An open folder: all work in it is relative to its descriptor.
#[derive(Debug)]
pub(crate) struct Folder {
    fd: OwnedFd,
    path: PathBuf,
    /// The user who can put things into it, or into the folder that it was opened in.
    writer: u32,
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Folder {
    /// Opens the folder at `path`. The path itself is root's: links in it are followed.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(|e| io("open", path, e))?;
        let writer = rustix::fs::fstat(&fd).map_err(|e| io("look at", path, e))?.st_uid;
        Ok(Self { fd, path: path.to_owned(), writer })
    }

    /// The path this folder was opened by; for messages, and for programs that need a path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The names in the folder, sorted, without `.` and `..`.
    pub(crate) fn names(&self) -> Result<Vec<OsString>, Error> {
        let mut names = self.names_as_listed()?;
        names.sort();
        Ok(names)
    }

    /// The names in the folder in the order in which the file system lists them.
    pub(crate) fn names_as_listed(&self) -> Result<Vec<OsString>, Error> {
        let failed = |e| io("list", &self.path, e);
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.fd).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name));
            }
            if names.len() > MOST_NAMES {
                return Err(Error::TooMany { path: self.path.clone() });
            }
        }
        Ok(names)
    }

    /// Owner, mode and numbers of the folder itself.
    pub(crate) fn own_status(&self) -> Result<Stat, Error> {
        rustix::fs::fstat(&self.fd).map_err(|e| io("look at", &self.path, e))
    }

    /// Kind, owner, size and numbers of `name`, links not followed; `None` if it is not there.
    pub(crate) fn status(&self, name: &OsStr) -> Result<Option<Stat>, Error> {
        let path = self.checked(name)?;
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(status) => Ok(Some(status)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(io("look at", &path, e)),
        }
    }

    /// Opens the regular file `name` for reading.
    pub(crate) fn read(&self, name: &OsStr) -> Result<File, Error> {
        let path = self.checked(name)?;
        // Held without being opened first: opening a FIFO or a device can do things.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let held = rustix::fs::openat(&self.fd, name, flags, Mode::empty()).map_err(|e| io("open", &path, e))?;
        let status = rustix::fs::fstat(&held).map_err(|e| io("look at", &path, e))?;
        if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
            return Err(Error::NotAFile { path });
        }
        if status.st_nlink > 1 && status.st_uid != self.writer {
            return Err(Error::ForeignLink { path, uid: status.st_uid });
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let same = format!("/proc/self/fd/{}", held.as_raw_fd());
        let fd = rustix::fs::openat(CWD, same, flags, Mode::empty()).map_err(|e| io("open", &path, e))?;
        let size = u64::try_from(status.st_size).unwrap_or_default();
        let on_disk = u64::try_from(status.st_blocks).unwrap_or_default().saturating_mul(512);
        // Few blocks can also be good compression.
        if size.saturating_sub(on_disk) > MOST_HOLES && has_holes(&fd, size) {
            return Err(Error::Holes { path, size });
        }
        Ok(File::from(fd))
    }

    /// Creates the new file `name`; it must not exist.
    pub(crate) fn create(&self, name: &OsStr, mode: u32) -> Result<File, Error> {
        let path = self.checked(name)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd =
            rustix::fs::openat(&self.fd, name, flags, Mode::from_raw_mode(mode)).map_err(|e| io("create", &path, e))?;
        Ok(File::from(fd))
    }

    /// Makes the new FIFO `name` and opens both of its ends; it must not exist.
    pub(crate) fn make_fifo(&self, name: &OsStr) -> Result<File, Error> {
        let path = self.checked(name)?;
        rustix::fs::mkfifoat(&self.fd, name, Mode::RUSR | Mode::WUSR).map_err(|e| io("make", &path, e))?;
        self.open_fifo(name)
    }

    /// Opens both ends of the FIFO `name`; neither reading nor writing waits.
    pub(crate) fn open_fifo(&self, name: &OsStr) -> Result<File, Error> {
        let path = self.checked(name)?;
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, name, flags, Mode::empty()).map_err(|e| io("open", &path, e))?;
        let status = rustix::fs::fstat(&fd).map_err(|e| io("look at", &path, e))?;
        if FileType::from_raw_mode(status.st_mode) == FileType::Fifo {
            Ok(fd.into())
        } else {
            Err(Error::Exchanged { path })
        }
    }

    /// Opens the FIFO `name` for writing if a process has opened it, or is about to open it, for reading.
    pub(crate) fn open_read_fifo(&self, name: &OsStr) -> Result<Option<File>, Error> {
        let path = self.checked(name)?;
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(fd.into())),
            Err(Errno::NXIO) => Ok(None),
            Err(e) => Err(io("open", &path, e)),
        }
    }

    /// Opens the file `name` to append to it.
    pub(crate) fn append(&self, name: &OsStr) -> Result<File, Error> {
        let path = self.checked(name)?;
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, name, flags, Mode::empty()).map_err(|e| io("open", &path, e))?;
        Ok(fd.into())
    }

    /// Opens the folder `name` in this one.
    pub(crate) fn subfolder(&self, name: &OsStr) -> Result<Self, Error> {
        let path = self.checked(name)?;
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Self { fd, path, writer: self.writer }),
            Err(Errno::NOTDIR | Errno::LOOP) => Err(Error::NotAFolder { path }),
            Err(e) => Err(io("open folder", &path, e)),
        }
    }

    /// Makes the new folder `name`, flushed to disk before anything is moved into it, and opens it; it must not exist.
    pub(crate) fn make_subfolder(&self, name: &OsStr, mode: u32) -> Result<Self, Error> {
        let path = self.checked(name)?;
        rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(mode)).map_err(|e| io("make folder", &path, e))?;
        self.sync()?;
        let new = self.subfolder(name)?;
        // A user who can rename here can have put another folder in its place, but not an empty one of root.
        if new.is_ours()? && new.names()?.is_empty() { Ok(new) } else { Err(Error::Exchanged { path }) }
    }

    /// Whether only the user of this process can change the files in the folder.
    pub(crate) fn is_ours(&self) -> Result<bool, Error> {
        let status = self.own_status()?;
        Ok(status.st_uid == rustix::process::geteuid().as_raw() && status.st_mode & 0o022 == 0)
    }

    /// Moves `name` into the folder `to` under the name `new_name`; never replaces anything.
    ///
    /// On a file system that cannot rename so, a crash may leave a file under both names: see [`Folder::is_same_file`].
    pub(crate) fn rename(&self, name: &OsStr, to: &Self, new_name: &OsStr) -> Result<(), Error> {
        let path = self.checked(name)?;
        to.checked(new_name)?;
        match rustix::fs::renameat_with(&self.fd, name, &to.fd, new_name, RenameFlags::NOREPLACE) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => self.link_and_unlink(name, to, new_name),
            renamed => renamed.map_err(|e| io("rename", &path, e)),
        }
    }

    /// Moves `name` where the file system has no rename that never replaces.
    fn link_and_unlink(&self, name: &OsStr, to: &Self, new_name: &OsStr) -> Result<(), Error> {
        let path = self.checked(name)?;
        let status = self.status(name)?.ok_or_else(|| io("rename", &path, Errno::NOENT))?;
        if FileType::from_raw_mode(status.st_mode) == FileType::Directory {
            // It has no second name. A plain rename of a folder replaces an empty folder at most.
            return rustix::fs::renameat(&self.fd, name, &to.fd, new_name).map_err(|e| io("rename", &path, e));
        }
        match rustix::fs::linkat(&self.fd, name, &to.fd, new_name, AtFlags::empty()) {
            Ok(()) => (),
            Err(e @ (Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL)) => {
                return Err(Error::NoSafeRename { path: self.path.clone(), source: e.into() });
            }
            Err(e) => return Err(io("rename", &path, e)),
        }
        if self.remove_second_name(name, to, new_name)? { Ok(()) } else { Err(Error::Exchanged { path }) }
    }

    /// Whether a file belongs to the user who can put things here: one of another user is refused as soon as it has a second name.
    pub(crate) fn is_of_writer(&self, status: &Stat) -> bool {
        status.st_uid == self.writer
    }

    /// Gives the file `name` a second name in the folder `to`; never replaces anything.
    pub(crate) fn link(&self, name: &OsStr, to: &Self, new_name: &OsStr) -> Result<(), Error> {
        let path = self.checked(name)?;
        to.checked(new_name)?;
        rustix::fs::linkat(&self.fd, name, &to.fd, new_name, AtFlags::empty()).map_err(|e| io("link", &path, e))
    }

    /// Whether `name` here and `other_name` in `other` are two names of one file.
    pub(crate) fn is_same_file(&self, name: &OsStr, other: &Self, other_name: &OsStr) -> Result<bool, Error> {
        let (Some(one), Some(two)) = (self.status(name)?, other.status(other_name)?) else { return Ok(false) };
        Ok((one.st_dev, one.st_ino) == (two.st_dev, two.st_ino))
    }

    /// Removes `name` if `other_name` in `other` is a second name of the same file, and says whether it is.
    pub(crate) fn remove_second_name(&self, name: &OsStr, other: &Self, other_name: &OsStr) -> Result<bool, Error> {
        if !self.is_same_file(name, other, other_name)? {
            return Ok(false);
        }
        // On the disk before this one goes: a power cut leaves both names, never none.
        other.sync()?;
        self.remove(name)?;
        Ok(true)
    }

    /// Where the symbolic link `name` leads, as it is written.
    pub(crate) fn link_target(&self, name: &OsStr) -> Result<PathBuf, Error> {
        let path = self.checked(name)?;
        let target = rustix::fs::readlinkat(&self.fd, name, Vec::new()).map_err(|e| io("read the link", &path, e))?;
        Ok(PathBuf::from(OsString::from_vec(target.into_bytes())))
    }

    /// Renames `name` to `new_name` in this folder, replacing a file of that name: for our own files only.
    pub(crate) fn replace(&self, name: &OsStr, new_name: &OsStr) -> Result<(), Error> {
        self.replace_in(name, self, new_name)
    }

    /// Moves `name` into the folder `to` under the name `new_name`, replacing a file of that name: for our own files only.
    pub(crate) fn replace_in(&self, name: &OsStr, to: &Self, new_name: &OsStr) -> Result<(), Error> {
        let path = self.checked(name)?;
        to.checked(new_name)?;
        rustix::fs::renameat(&self.fd, name, &to.fd, new_name).map_err(|e| io("rename", &path, e))
    }

    /// Removes the file `name`.
    pub(crate) fn remove(&self, name: &OsStr) -> Result<(), Error> {
        let path = self.checked(name)?;
        rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()).map_err(|e| io("remove", &path, e))
    }

    /// Removes the empty folder `name`.
    pub(crate) fn remove_subfolder(&self, name: &OsStr) -> Result<(), Error> {
        let path = self.checked(name)?;
        rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR).map_err(|e| io("remove folder", &path, e))
    }

    /// Gives an open file that was created here to `owner`.
    pub(crate) fn give(&self, file: &File, name: &OsStr, owner: Owner) -> Result<(), Error> {
        let path = self.checked(name)?;
        rustix::fs::fchown(file, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))
            .map_err(|e| io("change the owner of", &path, e))
    }

    /// Gives the folder itself to `owner`.
    pub(crate) fn give_away(&self, owner: Owner) -> Result<(), Error> {
        rustix::fs::fchown(&self.fd, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))
            .map_err(|e| io("change the owner of", &self.path, e))
    }

    /// Lets other users pass through to folders below, and see and change nothing here (mode 0711).
    pub(crate) fn let_through(&self) -> Result<(), Error> {
        rustix::fs::fchmod(&self.fd, Mode::from_raw_mode(0o711)).map_err(|e| io("change the mode of", &self.path, e))
    }

    /// How many bytes users other than root can still write here.
    pub(crate) fn free(&self) -> Result<u64, Error> {
        let status = rustix::fs::fstatvfs(&self.fd).map_err(|e| io("look at the file system of", &self.path, e))?;
        Ok(status.f_bavail.saturating_mul(status.f_frsize))
    }

    /// Whether a copy of the file `name` made here shares its blocks (reflink). Tried on a file without a name.
    pub(crate) fn shares_blocks(&self, name: &OsStr) -> bool {
        let Ok(original) = self.read(name) else { return false };
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        let unnamed = rustix::fs::openat(&self.fd, ".", flags, Mode::RUSR | Mode::WUSR);
        unnamed.is_ok_and(|unnamed| rustix::fs::ioctl_ficlone(&unnamed, &original).is_ok())
    }

    /// Locks the file `name`, which is made if it is absent, against other processes and threads that lock it. Waits
    /// for `patience` at most; `None` if the lock is held for longer. Dropping the file releases the lock.
    pub(crate) fn lock(&self, name: &OsStr, patience: Duration) -> Result<Option<File>, Error> {
        let path = self.checked(name)?;
        let open = |access: OFlags| {
            let flags = access | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(&self.fd, name, flags, Mode::RUSR | Mode::WUSR)
        };
        let fd = match open(OFlags::RDWR) {
            // A lock needs no room, nor a file system that can be written.
            Err(Errno::ROFS) => open(OFlags::RDONLY),
            opened => opened,
        };
        let fd = fd.map_err(|e| io("open", &path, e))?;
        let end = Instant::now() + patience;
        loop {
            match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Some(File::from(fd))),
                Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < end => std::thread::sleep(LOCK_STEP),
                Err(Errno::WOULDBLOCK | Errno::INTR) => return Ok(None),
                Err(e) => return Err(io("lock", &path, e)),
            }
        }
    }

    /// Tries whether a file can be written here, and leaves none behind.
    pub(crate) fn try_write(&self, name: &OsStr) -> Result<(), Error> {
        let path = self.checked(name)?;
        let mut file = self.create(name, 0o600)?;
        let written = file.write_all(b"x").and_then(|()| file.sync_all());
        self.remove(name)?;
        written.map_err(|source| Error::Io { operation: "write", path, source })
    }

    /// Flushes the folder's own entries to disk.
    pub(crate) fn sync(&self) -> Result<(), Error> {
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

/// The owner of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    /// User id.
    pub(crate) uid: u32,
    /// Group id.
    pub(crate) gid: u32,
}

impl Owner {
    /// The user `user` with `group`, or with the user's own group; `None` if there is no such user or group. Either may be
    /// `#` and a number, as MooseFS takes them.
    pub(crate) fn named(user: &str, group: Option<&str>) -> Option<Self> {
        let user = account(user)?;
        let gid = match group {
            Some(group) => match numeric_id(group) {
                Some(id) => Some(id),
                None => Some(nix::unistd::Group::from_name(group).ok()??.gid.as_raw()),
            },
            None => user.gid,
        };
        // A process cannot be given the last number.
        let valid = |id: &u32| *id != u32::MAX;
        Some(Self { uid: Some(user.uid).filter(valid)?, gid: gid.filter(valid)? })
    }
}

/// What is known of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    /// User id.
    pub(crate) uid: u32,
    /// Group id; `None` for a number without an entry.
    pub(crate) gid: Option<u32>,
    /// The home; `None` for a number without an entry.
    pub(crate) home: Option<PathBuf>,
}

/// Whether two paths lead to one file or folder: one of them may name it by a link.
pub(crate) fn lead_to_one(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| rustix::fs::stat(path).ok().map(|status| (status.st_dev, status.st_ino));
    one == other || identity(one).is_some_and(|found| Some(found) == identity(other))
}

/// The user of this name, or that of `#` and a number, which need not have an entry.
pub(crate) fn account(user: &str) -> Option<Account> {
    let id = numeric_id(user);
    let entry = match id {
        Some(id) => nix::unistd::User::from_uid(id.into()),
        None => nix::unistd::User::from_name(user),
    };
    match (entry.ok().flatten(), id) {
        (Some(entry), _) => {
            Some(Account { uid: entry.uid.as_raw(), gid: Some(entry.gid.as_raw()), home: Some(entry.dir) })
        }
        (None, id) => id.map(|uid| Account { uid, gid: None, home: None }),
    }
}

/// The number in `#420`, read as MooseFS does.
fn numeric_id(text: &str) -> Option<u32> {
    let (number, _) = strtol(text.strip_prefix('#')?, 10);
    u32::try_from(number & 0xffff_ffff).ok()
}

/// Whether more than [`MOST_HOLES`] of the first `size` bytes were never written.
fn has_holes(file: &OwnedFd, size: u64) -> bool {
    let (mut at, mut holes) = (0, 0_u64);
    while at < size && holes <= MOST_HOLES {
        let Ok(hole) = rustix::fs::seek(file, SeekFrom::Hole(at)) else { break };
        // Behind the last data there is a hole up to the end.
        let data = rustix::fs::seek(file, SeekFrom::Data(hole)).unwrap_or(size);
        holes += data.min(size).saturating_sub(hole);
        at = data.max(hole + 1);
    }
    let _ = rustix::fs::seek(file, SeekFrom::Start(0));
    holes > MOST_HOLES
}

fn io(operation: &'static str, path: &Path, errno: Errno) -> Error {
    Error::Io { operation, path: path.to_owned(), source: errno.into() }
}

#[cfg(test)]
mod tests;
