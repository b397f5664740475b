//! Images that a master saved in need outside the data folder, and what they mean for a promotion.
//!
//! They are never used or moved by us. But one that goes beyond what is staged must not be passed over: `mfsmaster -a`
//! would serve it, or it holds changes that the files here lack.

use std::path::PathBuf;

use crate::machine::config::Config;
use crate::metadata::{Emergency, Loss, Plan, emergency};
use crate::sys::folder::Folder;

use crate::machine::Machine;

/// Why such an image stands in the way.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The master would load it.
    #[error(
        "{} is an image of version {version} of this file system, and mfsmaster -a would serve it instead of what was \
         staged to be served as {served}; move it away, or find out what made it",
        path.display()
    )]
    Served {
        /// Where it is.
        path: PathBuf,
        /// Its version.
        version: u64,
        /// The version of the staged set.
        served: u64,
    },
    /// It holds later changes.
    #[error(
        "{0} is an image of version {version} that a master saved when it could not write into its data folder; the \
         files here end at version {end}, so changes {end} to {2} are only there; to use them: mv {0} \
         {1}/metadata.mfs.emergency, and look at mfs-promote --dry-run; to go without them for good: move it away",
        path.display(), data.display(), version - 1
    )]
    Newer {
        /// Where it is.
        path: PathBuf,
        /// Its version.
        version: u64,
        /// Where the files here end.
        end: u64,
        /// The data folder.
        data: PathBuf,
    },
}

/// All such images, wherever `mfsmaster -a` looks besides the data folder.
pub(crate) fn find(data: &Folder, config: &Config) -> Vec<Emergency> {
    let user = nix::unistd::User::from_name(&config.working_user).ok().flatten();
    emergency::look(data, &emergency::places(user.as_ref().map(|user| user.dir.as_path())))
}

/// Refuses a plan that is to be served as version `served` if such an image goes beyond it.
pub(crate) fn check(target: &Machine, plan: &Plan, served: u64, loss: Loss) -> Result<(), Error> {
    let found = find(&target.data, &target.config);
    let judged = |file| judge(file, plan, served, target.owner.uid, target.data.path().to_owned());
    match found.iter().find_map(judged) {
        Some(newer @ Error::Newer { .. }) if loss == Loss::Allow => {
            log::warn!("data loss allowed: {newer}");
            Ok(())
        }
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// What `file` means beside a plan that is to be served as version `served` by the master of the user `uid`.
pub(crate) fn judge(file: &Emergency, plan: &Plan, served: u64, uid: u32, data: PathBuf) -> Option<Error> {
    let path = file.path.clone();
    if let Some(version) = file.beyond(plan.metaid, served) {
        return Some(Error::Served { path, version, served });
    }
    // Anybody may have put a file into some of these places; only a master's own says something.
    let trusted = [0, uid].contains(&file.uid);
    let version = file.beyond(plan.metaid, plan.end_version).filter(|_| trusted)?;
    Some(Error::Newer { path, version, end: plan.end_version, data })
}
