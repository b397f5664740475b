//! Images and change logs: which files are in the data folder, which of them to serve, and a clean set for the master.
//!
//! Three steps, each a function of the result of the one before: [`inventory::take`] reads the folder,
//! [`plan::make`] decides (no I/O), [`stage::copy_image`] and [`stage::write_log`] write the set. Nothing in the data
//! folder is changed here. Stock `MooseFS` skips a whole change log because of a torn last line, merges a dead branch
//! without a warning and serves the 8 bytes `MFSM NEW` as a file system; the plan leaves it no such choice.
//!
//! A [`Version`] V of an image means: all changes below V are in it, the next one needed is V.

use std::fmt;

#[cfg(test)]
mod cases;
pub(crate) mod changelog;
mod chunks;
pub(crate) mod chunkservers;
mod compare;
pub(crate) mod emergency;
#[cfg(test)]
mod fuzz;
pub(crate) mod image;
pub(crate) mod inventory;
pub(crate) mod names;
mod note;
mod parallel;
mod peek;
pub(crate) mod plan;
pub(crate) mod stage;
#[cfg(test)]
mod testing;
mod version;

pub(crate) use emergency::Emergency;
pub(crate) use image::Image;
pub(crate) use inventory::{ImageFile, Inventory, LogFile};
pub(crate) use note::{Note, Refusal, Severity};
pub(crate) use plan::{Base, Loss, Plan};
pub(crate) use version::{Behind, EPOCH, EpochJump, Version};

/// Who wrote a file: this machine as master, or its metalogger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Lineage {
    /// `metadata.mfs*`, `changelog.N.mfs`: written by this machine's own master.
    Own,
    /// `metadata_ml*`, `changelog_ml*`: the metalogger's copy from the master that held the virtual IP.
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
