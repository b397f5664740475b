//! Images and change logs: what lies in a data folder, what to make of it, and the clean set a master starts from.
//!
//! Three steps, each a function of what the one before it found: [`inventory::take`] reads the folder,
//! [`plan::make`] decides (no I/O), [`stage::copy_image`] and [`stage::write_log`] write the set. Nothing in the data
//! folder is ever changed here. Stock `MooseFS` skips a whole change log over a torn last line, merges a dead branch
//! without a word and takes the 8-byte `MFSM NEW` for a file system; the plan leaves none of these choices to it.
//!
//! A [`Version`] V of an image means: all changes below V are in it, the next one needed is V.

use std::fmt;

#[cfg(test)]
mod cases;
pub(crate) mod changelog;
pub(crate) mod chunkservers;
mod compare;
pub(crate) mod emergency;
#[cfg(test)]
mod fuzz;
pub(crate) mod image;
pub(crate) mod inventory;
mod names;
mod note;
mod parallel;
mod peek;
pub(crate) mod plan;
pub(crate) mod stage;
#[cfg(test)]
mod testing;
mod unlock;
mod version;

pub(crate) use emergency::Emergency;
pub(crate) use image::Image;
pub(crate) use inventory::{ImageFile, Inventory, LogFile};
pub(crate) use note::{Note, Refusal, Severity};
pub(crate) use plan::{Base, Loss, Plan};
pub(crate) use version::{EpochJump, Version};

/// Who wrote a file: this machine as master, or its metalogger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Lineage {
    /// `metadata.mfs*`, `changelog.N.mfs`: written by this machine's own master.
    Own,
    /// `metadata_ml*`, `changelog_ml*`: the metalogger's copy of whichever master held the virtual IP.
    Ml,
}

impl fmt::Display for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Own => "own",
            Self::Ml => "ml",
        })
    }
}
