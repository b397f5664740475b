//! Whether the staged set fits on the file system of the data folder, and an archive beside a serving master.

use std::ffi::OsString;
use std::fmt::{self, Display};
use std::time::{Duration, Instant};

use rustix::fs::FileType;

use crate::instance::Instance;
use crate::machine::rehearsal_folder;
use crate::metadata::{Base, EpochJump, Plan, image};
use crate::sys::cancel::{Cancel, Cancelled};
use crate::sys::folder::{self, Folder};
use crate::sys::logging::chain;
use crate::sys::text::bytes;

/// How long a rehearsal may take to give back its room after it was cancelled.
const PATIENCE: Duration = Duration::from_secs(3);

/// The room that staging a plan needs, and the room that is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Space {
    /// Bytes of the staged image.
    pub(crate) image: u64,
    /// Bytes of the staged change log, about.
    pub(crate) log: u64,
    /// Whether the staged image shares the blocks of the original.
    pub(crate) shared: bool,
    /// Bytes that the user of the daemons can still write.
    pub(crate) free: u64,
}

impl Space {
    /// For `plan` in the data folder.
    pub(crate) fn of(data: &Folder, plan: &Plan, jump: EpochJump) -> Result<Self, folder::Error> {
        let shared = matches!(&plan.base, Base::Image { name, .. } if data.shares_blocks(name));
        let (image, shared) = match &plan.base {
            // MooseFS 1.x: mfsmetarestore writes another one beside it.
            Base::Image { signature, .. } if signature != image::FORMAT_2_0 => {
                (plan.image_bytes.saturating_mul(if shared { 1 } else { 2 }), false)
            }
            _ => (plan.image_bytes, shared),
        };
        Ok(Self { image, log: plan.log_bytes(jump), shared, free: data.free()? })
    }

    /// Bytes of the staged set.
    pub(crate) fn staged(&self) -> u64 {
        self.image.saturating_add(self.log)
    }

    /// Bytes that must be free for it.
    pub(crate) fn needed(&self) -> u64 {
        if self.shared { self.log } else { self.staged() }
    }

    /// Whether they are.
    pub(crate) fn fits(&self) -> bool {
        self.needed() <= self.free
    }

    /// Whether the master then has room for its next image: it writes the new one before it removes the old one.
    pub(crate) fn fits_next_image(&self) -> bool {
        self.needed().saturating_add(self.staged()) <= self.free
    }

    /// Whether a rehearsal (staged set and result) leaves enough room for a promotion meanwhile.
    pub(crate) fn fits_rehearsal(&self) -> bool {
        self.rehearsal() <= self.free
    }

    /// Bytes that must be free for a rehearsal.
    pub(crate) fn rehearsal(&self) -> u64 {
        self.needed().saturating_mul(2).saturating_add(self.staged())
    }
}

impl Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} staged, {} needed, {} free", bytes(self.staged()), bytes(self.needed()), bytes(self.free))
    }
}

/// The room for an archive beside a serving master, which must find enough for its next files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ArchiveRoom {
    /// Bytes of the archive, about.
    pub(crate) archive: u64,
    /// Bytes that must stay free: the next image of the master, its change logs until then, and the same once more for the
    /// metalogger that copies both.
    pub(crate) reserve: u64,
    /// Bytes that the user of the daemons can still write.
    pub(crate) free: u64,
}

impl ArchiveRoom {
    /// For an archive of `aside` in the folder `backup`.
    pub(crate) fn of(data: &Folder, aside: &Folder, backup: &Folder) -> Result<Self, folder::Error> {
        let (here, there) = (sizes(data)?, sizes(aside)?);
        let largest = |kind: &str| {
            let of_kind = |(name, _): &&(OsString, u64)| name.as_encoded_bytes().starts_with(kind.as_bytes());
            here.iter().chain(&there).filter(of_kind).map(|(_, size)| *size).max().unwrap_or_default()
        };
        let next = largest("metadata").saturating_add(largest("changelog")).saturating_mul(2);
        // On another disk an archive is in nobody's way.
        let shared = data.own_status()?.st_dev == backup.own_status()?.st_dev;
        let all = there.iter().fold(0_u64, |all, (_, size)| all.saturating_add(*size));
        // Metadata is packed to four tenths.
        Ok(Self { archive: all / 2, reserve: if shared { next } else { 0 }, free: backup.free()? })
    }

    /// Whether the archive can be begun.
    pub(crate) fn fits(&self) -> bool {
        self.archive.saturating_add(self.reserve) <= self.free
    }

    /// Whether it may go on.
    pub(crate) fn leaves_reserve(&self) -> bool {
        self.reserve <= self.free
    }
}

impl Display for ArchiveRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { archive, reserve, free } = *self;
        write!(f, "it takes about {}, {} free", bytes(archive), bytes(free))?;
        if reserve > 0 {
            write!(f, ", and {} must stay free for the next image and change logs of the master", bytes(reserve))?;
        }
        Ok(())
    }
}

/// The regular files of a folder, and their sizes.
fn sizes(folder: &Folder) -> Result<Vec<(OsString, u64)>, folder::Error> {
    let mut sizes = Vec::new();
    for name in folder.names()? {
        let status = folder.status(&name)?.filter(|s| FileType::from_raw_mode(s.st_mode) == FileType::RegularFile);
        let size = status.map(|status| u64::try_from(status.st_size).unwrap_or_default());
        sizes.extend(size.map(|size| (name, size)));
    }
    Ok(sizes)
}

/// Why a plan cannot be staged.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It does not fit.
    #[error("not enough space in {}: {} needed, {} free", path.display(), bytes(*needed), bytes(*free))]
    Full {
        /// Bytes needed.
        needed: u64,
        /// Bytes free.
        free: u64,
        /// The data folder.
        path: std::path::PathBuf,
    },
    /// The free space is not known.
    #[error(transparent)]
    Folder(#[from] folder::Error),
    /// The run must stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// Checks that the plan can be staged. If room is missing, removes what a rehearsal has used.
pub(crate) fn check(
    data: &Folder,
    instance: &Instance,
    plan: &Plan,
    jump: EpochJump,
    cancel: &Cancel,
) -> Result<(), Error> {
    let end = Instant::now() + PATIENCE;
    loop {
        let space = Space::of(data, plan, jump)?;
        if space.fits() {
            return Ok(());
        }
        let swept = rehearsal_folder::sweep(data, instance).unwrap_or_else(|e| {
            log::warn!("cannot remove the files of a rehearsal: {}", chain(&e));
            true
        });
        let space = Space::of(data, plan, jump)?;
        if space.fits() {
            return Ok(());
        }
        if swept || Instant::now() >= end {
            return Err(full(data, space));
        }
        cancel.sleep(Duration::from_millis(50))?;
    }
}

/// The error of a plan that does not fit.
pub(crate) fn full(data: &Folder, space: Space) -> Error {
    Error::Full { needed: space.needed(), free: space.free, path: data.path().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_image_needs_no_room() {
        let space = Space { image: 1000, log: 10, shared: false, free: 1009 };
        assert_eq!((space.staged(), space.needed(), space.fits()), (1010, 1010, false));
        let shared = Space { shared: true, ..space };
        assert_eq!((shared.staged(), shared.needed(), shared.fits()), (1010, 10, true));
        assert!(!shared.fits_next_image() && Space { free: 1020, ..shared }.fits_next_image());
        assert_eq!((space.rehearsal(), shared.rehearsal()), (3030, 1030));
        let huge = Space { image: u64::MAX, log: 10, ..space };
        assert!(!huge.fits() && !huge.fits_rehearsal());
    }

    #[test]
    fn an_archive_leaves_room_for_the_next_files_of_the_master() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, size: u64| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::File::create(path).unwrap().set_len(size).unwrap();
        };
        file("metadata.mfs.back", 1000);
        file("changelog.0.mfs", 10);
        file("aside/metadata_ml.mfs.back", 900);
        file("aside/changelog_ml.0.mfs", 20);
        std::os::unix::fs::symlink("/etc", dir.path().join("metadata.mfs")).unwrap();
        let open = |name: &str| Folder::open(&dir.path().join(name)).unwrap();
        let room = ArchiveRoom::of(&open("."), &open("aside"), &open(".")).unwrap();
        assert_eq!((room.archive, room.reserve), (460, 2040));
        assert!(room.free > 0 && !ArchiveRoom { free: 2499, ..room }.fits());
        let least = ArchiveRoom { free: 2500, ..room };
        assert!(least.fits() && !ArchiveRoom { free: 2039, ..room }.leaves_reserve());
        let text = "it takes about 460 B, 2.5 kB free, and 2.0 kB must stay free for the next image and change logs of the \
                    master";
        assert_eq!(least.to_string(), text);
        // On a disk of its own it needs no more than it takes.
        let own = ArchiveRoom::of(&open("."), &open("aside"), &Folder::open("/dev/shm".as_ref()).unwrap()).unwrap();
        assert_eq!((own.archive, own.reserve), (460, 0));
    }

    #[test]
    fn a_full_disk_is_named_with_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let data = Folder::open(dir.path()).unwrap();
        let space = Space { image: 53_100_000, log: 0, shared: false, free: 8_000_000 };
        let text = full(&data, space).to_string();
        assert!(text.ends_with(": 53.1 MB needed, 8.0 MB free"), "{text}");
    }
}
