//! Everything of a promotion that touches nothing: inventory, plan, and the copy of the image in the stage.
//!
//! Done while the election settles. When the metalogger has stopped and flushed, the plan is made again from what
//! lies there then; only if it starts from another image is that copied anew.

use crate::machine::config::Config;
use crate::metadata::{
    Base, EpochJump, Lineage, Loss, Note, Plan, Refusal, Severity, Version, emergency, image, inventory, plan, stage,
};
use crate::moosefs::{self, Daemon, Release};
use crate::sys::cancel::{Cancel, Cancelled};
use crate::sys::folder::{self, Folder};
use crate::sys::process;
use rustix::fs::Stat;
use std::path::Path;
use std::sync::mpsc::Sender;

use crate::machine::Machine;
use crate::machine::commit::{self, RunFolder};
use crate::machine::memory;
use crate::machine::space;
use crate::moosefs::workarounds::metarestore;
use crate::sys::text::human;

/// How long `mfsmaster -v` may take.
const ANSWER: std::time::Duration = std::time::Duration::from_secs(10);

/// The log that a running metalogger appends to.
const WRITTEN_BY_METALOGGER: &str = "changelog_ml.0.mfs";

/// Why nothing can be staged.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The data folder cannot be read.
    #[error(transparent)]
    Inventory(#[from] inventory::Error),
    /// What lies there must not be served.
    #[error("no promotion from the files here")]
    Refused(#[from] Refusal),
    /// The stage could not be written.
    #[error(transparent)]
    Stage(#[from] stage::Error),
    /// It does not fit.
    #[error(transparent)]
    Space(#[from] space::Error),
    /// An image elsewhere knows more.
    #[error("no promotion from the files here alone")]
    Emergency(#[from] emergency::Error),
    /// The work folder could not be made.
    #[error(transparent)]
    RunFolder(#[from] commit::Error),
    /// A file of the data folder cannot be looked at.
    #[error(transparent)]
    Folder(#[from] folder::Error),
    /// `mfsmaster -v` failed.
    #[error("cannot find out the release of mfsmaster")]
    Release(#[source] process::Error),
    /// `mfsmaster -v` printed something else.
    #[error(transparent)]
    Version(#[from] moosefs::Error),
    /// There is no such program.
    #[error("there is no program mfsmaster; install the package of the MooseFS master")]
    NoMaster,
    /// MooseFS 1.x: no image could be made.
    #[error(transparent)]
    Metarestore(#[from] metarestore::Error),
    /// Told to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// A stage with the image in it, and the plan it was made for.
pub(crate) struct Prepared {
    pub(crate) work: RunFolder,
    plan: Plan,
    source: Source,
    jump: EpochJump,
    release: Release,
    /// How many chunks the staged log unlocks behind the plan's end.
    unlocked: u64,
    loss: Loss,
}

/// Which file the staged image was copied from.
#[derive(PartialEq, Eq)]
struct Source {
    name: Option<std::ffi::OsString>,
    inode: u64,
    size: i64,
    modified: (i64, u64),
}

/// Makes the plan and copies its image into a fresh stage. The metalogger still runs, and may finish a download just
/// now: then once more. Each plan goes to `planned`.
pub(crate) fn begin(
    target: &Machine,
    id: u64,
    loss: Loss,
    planned: &Sender<Plan>,
    cancel: &Cancel,
) -> Result<Prepared, Error> {
    let release = check_release(cancel)?;
    match try_begin(target, id, loss, release, planned, cancel) {
        Err(Error::Stage(e @ stage::Error::ImageChanged { .. })) => {
            log::info!("{}; once more", crate::sys::logging::chain(&e));
            try_begin(target, id, loss, release, planned, cancel)
        }
        begun => begun,
    }
}

fn try_begin(
    target: &Machine,
    id: u64,
    loss: Loss,
    release: Release,
    planned: &Sender<Plan>,
    cancel: &Cancel,
) -> Result<Prepared, Error> {
    let plan = make_plan(target, loss)?;
    // The guards want to know it before the copy is done; whether they still listen is their care.
    let _ = planned.send(plan.clone());
    let source = source_of(target, &plan)?;
    let jump = jump_for(&target.config, &plan);
    space::check(&target.data, &plan, jump, cancel)?;
    emergency::check(&target.data, &target.config.working_user, &plan, plan.end_version + jump, loss)?;
    let work = RunFolder::create(&target.data, id)?;
    let prepared = Prepared { work, plan, source, jump, release, unlocked: 0, loss };
    match prepared.copy_image(target, cancel) {
        Ok(()) => Ok(prepared),
        Err(e) => {
            prepared.work.discard(&target.data)?;
            Err(e)
        }
    }
}

impl Prepared {
    /// What is prepared, for the log.
    pub(crate) fn summary(&self) -> String {
        format!("{}, {} changes, to version {}", base(&self.plan), self.plan.changes, self.plan.end_version)
    }

    /// The version that a master which has loaded the stage answers with.
    pub(crate) fn served_version(&self) -> Version {
        (self.plan.end_version + self.jump).with_changes(self.unlocked)
    }

    /// The release of the master that is to serve it.
    pub(crate) fn release(&self) -> Release {
        self.release
    }

    /// How many chunks are unlocked whose writers were cut off.
    pub(crate) fn unlocked(&self) -> u64 {
        self.unlocked
    }

    /// Completes the stage with what lies in the data folder now, and returns the plan that it follows.
    pub(crate) fn finish(&mut self, target: &Machine, cancel: &Cancel) -> Result<Plan, Error> {
        self.plan = make_plan(target, self.loss)?;
        let source = source_of(target, &self.plan)?;
        if source != self.source {
            log::info!("the metalogger has a newer image by now; copying that one");
            self.work.stage.remove(stage::IMAGE.as_ref())?;
            self.source = source;
            self.jump = jump_for(&target.config, &self.plan);
            space::check(&target.data, &self.plan, self.jump, cancel)?;
            self.copy_image(target, cancel)?;
        }
        self.unlocked = stage::write_log(&target.data, &self.plan, &self.work.stage, target.owner, self.jump, cancel)?;
        self.work.stage.sync()?;
        emergency::check(&target.data, &target.config.working_user, &self.plan, self.served_version(), self.loss)?;
        if !self.release.restores_itself() {
            self.restore(target, cancel)?;
        }
        Ok(self.plan.clone())
    }

    /// MooseFS 1.x: makes one image of the stage, and adds the client sessions to it.
    fn restore(&self, target: &Machine, cancel: &Cancel) -> Result<(), Error> {
        let restore = self.work.restore_folder(&target.data, target.owner)?;
        let move_all = |from: &Folder, to: &Folder, names: &[&str]| {
            names.iter().try_for_each(|name| from.rename(name.as_ref(), to, name.as_ref()))
        };
        move_all(&self.work.stage, &restore, &[stage::IMAGE, stage::LOG])?;
        let deadline = target.services.start_deadline(target.image_size());
        let took = metarestore::restore(&restore, &self.plan, target.owner, deadline, cancel)?;
        log::info!("stage: mfsmetarestore {} made one image of it in {}", self.release, human(took));
        move_all(&restore, &self.work.stage, &[commit::CLEAN_STOP_IMAGE])?;
        self.work.remove_restore_folder()?;
        let sessions = match self.plan.lineage {
            Lineage::Ml => "sessions_ml.mfs",
            Lineage::Own => commit::SESSIONS,
        };
        match stage::copy_file(
            &target.data,
            sessions.as_ref(),
            &self.work.stage,
            commit::SESSIONS.as_ref(),
            target.owner,
        ) {
            Ok(()) => (),
            // A master without them makes every client mount anew; one that is not started, too.
            Err(e) => {
                log::warn!("no client sessions, so clients have to mount again: {}", crate::sys::logging::chain(&e));
            }
        }
        Ok(self.work.stage.sync()?)
    }

    fn copy_image(&self, target: &Machine, cancel: &Cancel) -> Result<(), Error> {
        Ok(stage::copy_image(&target.data, &self.plan, &self.work.stage, target.owner, self.jump, cancel)?)
    }
}

/// `ml, image metadata_ml.mfs.back of version 7`
pub(crate) fn base(plan: &Plan) -> String {
    match &plan.base {
        Base::Image { name, version, .. } => {
            format!("{}, image {} of version {version}", plan.lineage, Path::new(name).display())
        }
        Base::New => format!("{}, from the first change of a new file system", plan.lineage),
    }
}

/// Logs a remark of the plan with the weight it has.
pub(crate) fn log_note(note: &Note) {
    match note.severity() {
        Severity::Info => log::info!("plan: {note}"),
        Severity::Warning => log::warn!("plan: {note}"),
    }
}

/// The weight and the text of a remark on a plan made while the metalogger may be running: the last line of the log
/// that it writes is torn most of the time, and whole a second later.
pub(crate) fn remark(note: &Note, metalogger_runs: bool) -> (Severity, String) {
    match note {
        Note::Torn { file, torn, .. } if metalogger_runs && file == WRITTEN_BY_METALOGGER => {
            let text =
                format!("{WRITTEN_BY_METALOGGER}: the metalogger is writing it, {} bytes not yet a line", torn.bytes);
            (Severity::Info, text)
        }
        _ => (note.severity(), note.to_string()),
    }
}

/// The jump of versions for this plan; beyond whatever is lost by it, since other machines may have followed that. A new file system has no version to jump from, and only images of the 2.0 format
/// are known to bear it.
pub(crate) fn jump_for(config: &Config, plan: &Plan) -> EpochJump {
    match &plan.base {
        Base::Image { signature, .. } if signature == image::FORMAT_2_0 && config.epoch_jump > 0 => {
            EpochJump(config.epoch_jump.saturating_add(plan.lost_versions()))
        }
        Base::Image { .. } | Base::New => EpochJump::NONE,
    }
}

fn make_plan(target: &Machine, loss: Loss) -> Result<Plan, Error> {
    Ok(plan::make(&memory::inventory(&target.data, Some(&target.state))?, loss)?)
}

fn source_of(target: &Machine, plan: &Plan) -> Result<Source, Error> {
    let Base::Image { name, .. } = &plan.base else {
        return Ok(Source { name: None, inode: 0, size: 0, modified: (0, 0) });
    };
    let status: Option<Stat> = target.data.status(name)?;
    Ok(status.map_or(Source { name: None, inode: 0, size: 0, modified: (0, 0) }, |status| Source {
        name: Some(name.clone()),
        inode: status.st_ino,
        size: status.st_size,
        modified: (status.st_mtime, status.st_mtime_nsec),
    }))
}

/// The release of the installed master, if all that it needs to load the stage is there.
pub(crate) fn check_release(cancel: &Cancel) -> Result<Release, Error> {
    let program = process::find_program(Daemon::Master.program()).ok_or(Error::NoMaster)?;
    let finished = process::run(&program, &["-v"], ANSWER, cancel).map_err(Error::Release)?;
    let version = Release::parse(&finished.output)?;
    if !version.restores_itself() {
        metarestore::check_installed()?;
    }
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::changelog::Torn;

    #[test]
    fn a_torn_line_of_a_log_being_written_is_no_warning() {
        let torn = |file: &str| Note::Torn { file: file.into(), torn: Torn { offset: 9, bytes: 4 }, bridged: false };
        let weight = |file, runs| remark(&torn(file), runs).0;
        assert_eq!(weight("changelog_ml.0.mfs", true), Severity::Info);
        assert_eq!(weight("changelog_ml.0.mfs", false), Severity::Warning);
        assert_eq!(weight("changelog_ml.1.mfs", true), Severity::Warning);
        assert_eq!(weight("changelog.0.mfs", true), Severity::Warning);
    }
}
