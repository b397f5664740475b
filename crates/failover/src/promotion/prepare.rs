//! The part of a promotion that touches nothing which runs: plan, copy of the image, and the clean set in the stage.
//!
//! Plan and copy are made while the election settles. When the metalogger has stopped and flushed, the plan is made again
//! from the files as they are then; only if it starts from another image is that copied again.

use crate::metadata::{
    Base, EpochJump, Lineage, Loss, Note, Plan, Refusal, Severity, emergency, inventory, plan, stage,
};
use crate::moosefs::{self, Release};
use crate::sys::cancel::{Cancel, Cancelled};
use crate::sys::folder::{self, Folder};
use rustix::fs::Stat;
use std::path::Path;

use super::failure::is_passing;
use crate::machine::Machine;
use crate::machine::commit::{self, RunFolder};
use crate::machine::memory;
use crate::machine::space;
use crate::machine::standby_master::{self, Complete, Hold, StandbyMaster};
use crate::moosefs::workarounds::metarestore;
use crate::sys::logging::chain;
use crate::sys::text::human;

/// In this time the metalogger has done its renames.
const RENAMES: std::time::Duration = std::time::Duration::from_millis(100);

/// The log that a running metalogger appends to.
pub(crate) const WRITTEN_BY_METALOGGER: &str = "changelog_ml.0.mfs";

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
    /// The master that is installed.
    #[error(transparent)]
    Release(#[from] moosefs::Error),
    /// MooseFS 1.x: no image could be made.
    #[error(transparent)]
    Metarestore(#[from] metarestore::Error),
    /// The hot standby is in the way and cannot be ended.
    #[error("cannot end the hot standby")]
    Standby(#[from] standby_master::Error),
    /// Told to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl Error {
    /// Whether the cause may be gone in a moment: the metalogger renames its files, other programs fill the disk.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Stage(stage::Error::ImageChanged { .. } | stage::Error::LogChanged { .. })
            | Self::Space(space::Error::Full { .. })
            | Self::Standby(_) => true,
            Self::Inventory(_) | Self::Stage(_) | Self::Space(_) | Self::RunFolder(_) | Self::Folder(_) => {
                is_passing(self)
            }
            Self::Refused(_) | Self::Emergency(_) | Self::Release(_) | Self::Metarestore(_) | Self::Cancelled(_) => {
                false
            }
        }
    }
}

/// A plan that can be staged here, and what it was made from.
#[derive(Debug, Clone)]
pub(crate) struct Planned {
    pub(crate) plan: Plan,
    source: Source,
    jump: EpochJump,
    /// The release of the master that is to serve it.
    release: Release,
    loss: Loss,
}

/// Which file the image of a plan is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    name: Option<std::ffi::OsString>,
    inode: u64,
    size: i64,
    modified: (i64, u64),
}

/// Makes the plan for the files as they are now, while the metalogger still runs, and checks that it can be staged. Between
/// two renames of the metalogger an image or a log has no name: a plan that is refused is made once more.
pub(crate) fn plan(machine: &Machine, loss: Loss, cancel: &Cancel) -> Result<Planned, Error> {
    let release = check_release(cancel)?;
    once_more(|e| matches!(e, Error::Refused(_)) || is_passing(e), cancel, || plan_for(machine, loss, release))
}

/// Tries once more, a moment later, if `may_pass` says so of the error.
fn once_more<T>(
    may_pass: impl Fn(&Error) -> bool,
    cancel: &Cancel,
    mut work: impl FnMut() -> Result<T, Error>,
) -> Result<T, Error> {
    match work() {
        Err(e) if may_pass(&e) => {
            log::info!("{}; once more", chain(&e));
            cancel.sleep(RENAMES)?;
            work()
        }
        done => done,
    }
}

fn plan_for(machine: &Machine, loss: Loss, release: Release) -> Result<Planned, Error> {
    let plan = make_plan(machine, loss)?;
    let source = source_of(machine, &plan)?;
    let jump = plan.jump();
    stage::check_jump(&plan, jump)?;
    emergency::check(&machine.data, &machine.config.working_user, &plan, plan.end_version + jump, loss)?;
    Ok(Planned { plan, source, jump, release, loss })
}

/// A run folder with the image of a plan in its stage.
#[derive(Debug)]
pub(crate) struct Prepared {
    planned: Planned,
    folder: RunFolder,
    /// The hot standby, which has the image of the plan: then there is no copy of it in the stage.
    standby: Option<StandbyMaster>,
    /// The files from which the plan takes what that has.
    covered: Vec<(u64, u64)>,
}

/// Copies the image of the plan into the stage of the run `id`. The metalogger may finish a download just now: then the plan
/// is made and its image copied once more.
///
/// Without a `hold` no hot standby is taken over.
pub(crate) fn copy(
    planned: Planned,
    machine: &Machine,
    id: u64,
    hold: Option<&Hold>,
    cancel: &Cancel,
) -> Result<Prepared, Error> {
    let (loss, release) = (planned.loss, planned.release);
    let mut planned = Some(planned);
    once_more(Error::may_pass, cancel, || {
        let plan = || plan_for(machine, loss, release);
        try_copy(planned.take().map_or_else(plan, Ok)?, machine, id, hold, cancel)
    })
}

fn try_copy(
    planned: Planned,
    machine: &Machine,
    id: u64,
    hold: Option<&Hold>,
    cancel: &Cancel,
) -> Result<Prepared, Error> {
    let standby = take_standby(&planned, machine, hold, cancel)?;
    let covered = standby.as_ref().map(|standby| standby.covered(machine, &planned.plan)).transpose()?;
    let covered = covered.unwrap_or_default();
    if standby.is_none() {
        space::check(&machine.data, &machine.config.instance, &planned.plan, planned.jump, cancel)?;
    }
    let folder = RunFolder::create(&machine.data, id)?;
    let copied = if standby.is_some() { Ok(()) } else { copy_image(&planned, machine, &folder, cancel) };
    match copied {
        Ok(()) => Ok(Prepared { planned, folder, standby, covered }),
        Err(e) => {
            folder.discard(&machine.data)?;
            Err(e)
        }
    }
}

/// The hot standby, if it has exactly what the plan says. Any other one is ended: a cold start needs its place.
fn take_standby(
    planned: &Planned,
    machine: &Machine,
    hold: Option<&Hold>,
    cancel: &Cancel,
) -> Result<Option<StandbyMaster>, Error> {
    let Some(hold) = hold else {
        standby_master::end(machine)?;
        return Ok(None);
    };
    match StandbyMaster::take(machine, &planned.plan, hold, cancel) {
        Ok(taken) => Ok(taken),
        Err(e) => {
            cancel.check()?;
            log::warn!("no hot standby: {}", chain(&e));
            standby_master::end(machine)?;
            Ok(None)
        }
    }
}

fn copy_image(planned: &Planned, machine: &Machine, folder: &RunFolder, cancel: &Cancel) -> Result<(), Error> {
    Ok(stage::copy_image(&machine.data, &planned.plan, &folder.stage, machine.owner, planned.jump, cancel)?)
}

/// A complete clean set, ready to be moved in.
#[derive(Debug)]
pub(crate) struct Staged {
    pub(crate) folder: RunFolder,
    pub(crate) plan: Plan,
    pub(crate) written: stage::Written,
    /// The release of the master that is to serve it.
    pub(crate) release: Release,
    /// The hot standby that has loaded it.
    pub(crate) standby: Option<Complete>,
}

impl Prepared {
    /// What is prepared, for the log.
    pub(crate) fn summary(&self) -> String {
        let plan = &self.planned.plan;
        format!("{}, {} changes, to version {}", base(plan), plan.changes, plan.end_version)
    }

    pub(crate) fn folder(&self) -> &RunFolder {
        &self.folder
    }

    /// Completes the stage with the files as they are now that the metalogger has stopped.
    pub(crate) fn stage(self, machine: &Machine, cancel: &Cancel) -> Result<Staged, Error> {
        let Self { mut planned, folder, standby, covered } = self;
        planned.plan = make_plan(machine, planned.loss)?;
        let source = source_of(machine, &planned.plan)?;
        let is_new = source != planned.source;
        if is_new {
            (planned.source, planned.jump) = (source, planned.plan.jump());
        }
        if let Some(standby) = standby {
            // What it was fed was compared with the plan of before.
            let is_new = is_new || standby.covered(machine, &planned.plan).ok() != Some(covered);
            if let Some((complete, written)) = complete(standby, &planned.plan, is_new, machine, &folder, cancel)? {
                emergency::check(
                    &machine.data,
                    &machine.config.working_user,
                    &planned.plan,
                    written.served,
                    planned.loss,
                )?;
                let Planned { plan, release, .. } = planned;
                return Ok(Staged { folder, plan, written, release, standby: Some(complete) });
            }
            space::check(&machine.data, &machine.config.instance, &planned.plan, planned.jump, cancel)?;
            copy_image(&planned, machine, &folder, cancel)?;
        } else if is_new {
            log::info!("metalogger downloaded a newer image; copying it");
            folder.stage.remove(stage::IMAGE.as_ref())?;
            space::check(&machine.data, &machine.config.instance, &planned.plan, planned.jump, cancel)?;
            copy_image(&planned, machine, &folder, cancel)?;
        }
        let Planned { plan, jump, release, loss, .. } = planned;
        let written = stage::write_log(&machine.data, &plan, &folder.stage, machine.owner, jump, cancel)?;
        folder.stage.sync()?;
        emergency::check(&machine.data, &machine.config.working_user, &plan, written.served, loss)?;
        if !release.restores_itself() {
            restore(&plan, &folder, release, machine, cancel)?;
        }
        Ok(Staged { folder, plan, written, release, standby: None })
    }

    /// The election is lost: leaves the hot standby to the next run.
    pub(crate) fn leave(self) {
        if let Some(Err(e)) = self.standby.map(StandbyMaster::leave) {
            log::warn!("the hot standby is given up: {}", chain(&e));
        }
    }
}

/// Feeds the hot standby what the plan has beyond it, and moves its set into the stage. `None` if that cannot be done: then it
/// is ended.
fn complete(
    standby: StandbyMaster,
    plan: &Plan,
    is_new: bool,
    machine: &Machine,
    folder: &RunFolder,
    cancel: &Cancel,
) -> Result<Option<(Complete, stage::Written)>, Error> {
    if !is_new {
        let completed = standby.complete(machine, plan, cancel);
        match completed.and_then(|(complete, written)| complete.move_to(&folder.stage).map(|()| (complete, written))) {
            Ok(done) => return Ok(Some(done)),
            Err(e) => {
                cancel.check()?;
                log::warn!("the hot standby is not used: {}", chain(&e));
            }
        }
    }
    standby_master::end(machine)?;
    for name in folder.stage.names()? {
        folder.stage.remove(&name)?;
    }
    Ok(None)
}

/// MooseFS 1.x: makes one image of the stage, and adds the client sessions to it.
fn restore(plan: &Plan, folder: &RunFolder, release: Release, machine: &Machine, cancel: &Cancel) -> Result<(), Error> {
    let restore = folder.restore_folder(machine.owner)?;
    let move_all = |from: &Folder, to: &Folder, names: &[&str]| {
        names.iter().try_for_each(|name| from.rename(name.as_ref(), to, name.as_ref()))
    };
    move_all(&folder.stage, &restore, &[stage::IMAGE, stage::LOG])?;
    let took = metarestore::restore(&restore, plan, machine.owner, machine.start_time(), cancel)?;
    log::info!("stage: mfsmetarestore {release} merged image and log in {}", human(took));
    move_all(&restore, &folder.stage, &[commit::CLEAN_STOP_IMAGE])?;
    folder.remove_restore_folder()?;
    let sessions = match plan.lineage {
        Lineage::Ml => "sessions_ml.mfs",
        Lineage::Own => commit::SESSIONS,
    };
    let copied =
        stage::copy_file(&machine.data, sessions.as_ref(), &folder.stage, commit::SESSIONS.as_ref(), machine.owner);
    if let Err(e) = copied {
        // A master without them makes every client mount again; so does one that is not started.
        log::warn!("no client sessions, so clients have to mount again: {}", chain(&e));
    }
    Ok(folder.stage.sync()?)
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

fn make_plan(machine: &Machine, loss: Loss) -> Result<Plan, Error> {
    Ok(plan::make(&memory::inventory(&machine.data, Some(&machine.state))?, loss)?)
}

fn source_of(machine: &Machine, plan: &Plan) -> Result<Source, Error> {
    let Base::Image { name, .. } = &plan.base else {
        return Ok(Source { name: None, inode: 0, size: 0, modified: (0, 0) });
    };
    let status: Option<Stat> = machine.data.status(name)?;
    Ok(status.map_or(Source { name: None, inode: 0, size: 0, modified: (0, 0) }, |status| Source {
        name: Some(name.clone()),
        inode: status.st_ino,
        size: status.st_size,
        modified: (status.st_mtime, status.st_mtime_nsec),
    }))
}

/// The release of the installed master, if all that it needs to load the stage is there.
pub(crate) fn check_release(cancel: &Cancel) -> Result<Release, Error> {
    let release = moosefs::installed_release(cancel)?;
    if !release.restores_itself() {
        metarestore::check_installed()?;
    }
    Ok(release)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::Version;
    use crate::metadata::changelog::Torn;

    #[test]
    fn what_may_pass_is_tried_once_more() {
        let cancel = Cancel::new();
        let changed = || stage::Error::LogChanged { file: "changelog_ml.0.mfs".into(), change: 9 };
        let tries = |answers: Vec<Result<u8, Error>>| {
            let (mut answers, mut tried) = (answers.into_iter(), 0);
            let done = once_more(Error::may_pass, &cancel, || {
                tried += 1;
                answers.next().unwrap()
            });
            (tried, done.ok())
        };
        assert_eq!(tries(vec![Ok(7)]), (1, Some(7)));
        assert_eq!(tries(vec![Err(changed().into()), Ok(7)]), (2, Some(7)));
        assert_eq!(tries(vec![Err(changed().into()), Err(changed().into())]), (2, None));
        assert_eq!(tries(vec![Err(moosefs::Error::NotInstalled.into())]), (1, None));
        assert_eq!(tries(vec![Err(Refusal::Unserved { end: Version(9) }.into())]), (1, None));
    }

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
