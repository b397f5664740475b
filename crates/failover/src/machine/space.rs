//! Whether the staged set fits on the file system of the data folder.

use std::fmt::{self, Display};
use std::time::{Duration, Instant};

use crate::metadata::{Base, EpochJump, Plan, image};
use crate::sys::cancel::{Cancel, Cancelled};
use crate::sys::folder::{self, Folder};

use crate::machine::rehearsal_folder;
use crate::sys::text::bytes;

/// How long room may take to be made: what a rehearsal used, and gives back when it is told to end.
const PATIENCE: Duration = Duration::from_secs(3);

/// What staging a plan takes, and what there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Space {
    /// The staged image.
    pub(crate) image: u64,
    /// The staged change log, about.
    pub(crate) log: u64,
    /// Whether the staged image shares the blocks of the original.
    pub(crate) shared: bool,
    /// What user mfs can still write.
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

    /// The staged set.
    pub(crate) fn staged(&self) -> u64 {
        self.image.saturating_add(self.log)
    }

    /// What has to be free for it.
    pub(crate) fn needed(&self) -> u64 {
        if self.shared { self.log } else { self.staged() }
    }

    /// Whether it is.
    pub(crate) fn fits(&self) -> bool {
        self.needed() <= self.free
    }

    /// Whether the master, once it serves, has room for its next image: it writes a whole one before the old one goes.
    pub(crate) fn fits_next_image(&self) -> bool {
        self.needed().saturating_add(self.staged()) <= self.free
    }

    /// Whether there is room for a rehearsal (staged set and result) beside that of a promotion.
    pub(crate) fn fits_rehearsal(&self) -> bool {
        self.rehearsal() <= self.free
    }

    /// What a rehearsal wants to be free.
    pub(crate) fn rehearsal(&self) -> u64 {
        self.needed().saturating_mul(2).saturating_add(self.staged())
    }
}

impl Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} staged, {} needed, {} free", bytes(self.staged()), bytes(self.needed()), bytes(self.free))
    }
}

/// Why nothing is staged.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It would not fit.
    #[error("staging needs {} and {} are free in {}: make room there", bytes(*needed), bytes(*free), path.display())]
    Full {
        /// Bytes needed.
        needed: u64,
        /// Bytes free.
        free: u64,
        /// The data folder.
        path: std::path::PathBuf,
    },
    /// The file system cannot be asked.
    #[error(transparent)]
    Folder(#[from] folder::Error),
    /// Told to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// Checks that the plan can be staged; takes back what a rehearsal used, if that is what is missing.
pub(crate) fn check(data: &Folder, plan: &Plan, jump: EpochJump, cancel: &Cancel) -> Result<(), Error> {
    let end = Instant::now() + PATIENCE;
    loop {
        let space = Space::of(data, plan, jump)?;
        if space.fits() {
            return Ok(());
        }
        let swept = rehearsal_folder::sweep(data).unwrap_or_else(|e| {
            log::warn!("what a rehearsal left cannot be removed: {}", crate::sys::logging::chain(&e));
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

/// That it does not fit, with the numbers.
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
    fn a_full_disk_is_named_with_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let data = Folder::open(dir.path()).unwrap();
        let space = Space { image: 53_100_000, log: 0, shared: false, free: 8_000_000 };
        let text = full(&data, space).to_string();
        assert!(text.starts_with("staging needs 53.1 MB and 8.0 MB are free in "), "{text}");
    }
}
