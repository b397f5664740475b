//! `--rehearse`: a real restore of what a promotion would stage, beside the data, and the proof of its result.
//!
//! Nothing that runs is touched: the set is staged into a folder of its own, `mfsmaster restore` works on that alone,
//! opens no port and runs at the lowest priority, and the first to go where memory runs out. The metalogger goes on
//! writing its logs meanwhile. A promotion never waits for a rehearsal: it tells it to end, and goes on.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::machine::config::Config;
use crate::machine::lock::{self, Locks};
use crate::metadata::{Image, Loss, Plan, Refusal, Severity, image, inventory, plan, stage};
use crate::moosefs::{Daemon, Release};
use crate::sys::cancel::{Cancel, Cancelled};
use crate::sys::folder;
use crate::sys::logging::chain;
use crate::sys::process::{self, RunOptions};
use crate::ucarp::Ucarp;

use crate::check;
use crate::machine::Machine;
use crate::machine::memory;
use crate::machine::rehearsal_folder::{self, RehearsalFolder};
use crate::machine::run::Run;
use crate::machine::space::{self, Space};
use crate::moosefs::workarounds::metarestore;
use crate::promotion::prepare;
use crate::report;
use crate::sys::terminal::Progress;
use crate::sys::text::{bytes, human};

/// How often a plan is made anew because the metalogger changed a file that it names.
const ATTEMPTS: u32 = 3;
/// At the lowest priority everything may take this many times as long.
const SLOWNESS: u32 = 10;
/// What the restore leaves in its folder.
const RESULT: &str = "metadata.mfs";
/// Counts what is in an image.
const COUNTER: &str = "mfsmetadirinfo";

/// Why the rehearsal did not come to its end, or came to a bad one.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The release, or the user.
    #[error(transparent)]
    Prepare(#[from] prepare::Error),
    /// No plan.
    #[error("no promotion from the files here")]
    Refused(#[from] Refusal),
    /// The inventory.
    #[error(transparent)]
    Inventory(#[from] inventory::Error),
    /// The stage.
    #[error(transparent)]
    Stage(#[from] stage::Error),
    /// A file.
    #[error(transparent)]
    Folder(#[from] folder::Error),
    /// A promotion would not fit.
    #[error(transparent)]
    Space(#[from] space::Error),
    /// A promotion would fit, a rehearsal does not.
    #[error(
        "too little room to rehearse: it needs {} with what a promotion would need meanwhile, {} are free",
        bytes(*needed), bytes(*free)
    )]
    TooLittleRoom {
        /// Bytes wanted.
        needed: u64,
        /// Bytes free.
        free: u64,
    },
    /// The folder.
    #[error(transparent)]
    RehearsalFolder(#[from] rehearsal_folder::Error),
    /// `restore` does not exist.
    #[error("mfsmaster {0} cannot be rehearsed: it restores only when it starts and serves; 3.0.107 and later can")]
    CannotRestore(Release),
    /// The restore failed.
    #[error("the restore failed, so would a promotion")]
    Restore(#[source] process::Error),
    /// The restore of 1.x failed.
    #[error("the restore failed, so would a promotion")]
    Metarestore(#[from] metarestore::Error),
    /// Its result cannot be read.
    #[error("the restore succeeded, but its result cannot be read")]
    Unreadable(#[source] std::io::Error),
    /// Its result is another one.
    #[error("the restore succeeded, but its result is not what was planned: {found}; planned was {planned}")]
    Differs {
        /// What it is.
        found: Image,
        /// What it should be.
        planned: String,
    },
    /// Told to end.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl Failure {
    /// Whether a promotion or a signal ended it, which says nothing about the metadata.
    fn is_cancelled(&self) -> bool {
        matches!(
            self,
            Self::Cancelled(_)
                | Self::Stage(stage::Error::Cancelled(_))
                | Self::Restore(process::Error::Cancelled(_))
                | Self::Metarestore(metarestore::Error::Failed(process::Error::Cancelled(_)))
                | Self::Prepare(prepare::Error::Cancelled(_) | prepare::Error::Release(process::Error::Cancelled(_)))
        )
    }
}

/// What took how long, and what came out.
struct Rehearsed {
    release: Release,
    staged: Duration,
    restored: Duration,
    result: Image,
    counts: Option<String>,
}

/// Rehearses a promotion; answers whether it would serve.
pub(crate) fn rehearse(config: Config, address: Option<(&str, Ipv4Addr)>, cancel: &Cancel) -> report::Result<bool> {
    let target = Machine::open(config)?;
    let locks = Locks::system()?;
    let _rehearsing = locks.rehearse().map_err(|e| match e {
        lock::Error::Busy { .. } => format!("{e}: it comes first"),
        e => chain(&e),
    })?;
    give_way();
    let options = address.and_then(|(name, vip)| Ucarp::find(name, vip)).map(|caller| caller.options);
    let settle = options.unwrap_or_default().interval() + target.config.settle_margin;
    let mut run = Run::new("rehearsal", address.map(|(_, vip)| vip));
    // What an earlier one left that was killed.
    rehearsal_folder::remove(&target.data)?;
    let rehearsed = Rehearsal { target: &target, cancel, run: &mut run }.steps();
    if let Err(e) = rehearsal_folder::remove(&target.data) {
        log::error!("the folder of the rehearsal cannot be removed: {}", chain(&e));
    }
    let outcome = match &rehearsed {
        Ok(_) => "would serve",
        Err(failure) if failure.is_cancelled() => "cancelled",
        Err(_) => "would not serve",
    };
    if let Err(failure) = &rehearsed {
        run.record.error = Some(chain(failure));
        log::error!("{}", chain(failure));
    }
    run.end(outcome, Some(&target.state));
    if let Ok(rehearsed) = &rehearsed {
        check::note_settings(&target.config, &target.state);
        report::print(&rehearsed.text(settle));
    }
    Ok(rehearsed.is_ok())
}

/// Behind everything else that wants the processor, and in front where memory runs out. Children inherit both.
fn give_way() {
    let _ = rustix::process::nice(19);
    if let Err(e) = std::fs::write("/proc/self/oom_score_adj", "1000") {
        log::debug!("not marked as the first to go where memory runs out: {e}");
    }
}

/// A rehearsal in progress.
struct Rehearsal<'a> {
    target: &'a Machine,
    cancel: &'a Cancel,
    run: &'a mut Run,
}

impl Rehearsal<'_> {
    fn steps(&mut self) -> Result<Rehearsed, Failure> {
        let release = prepare::check_release(self.cancel)?;
        if release.restores_itself() && release < Release::RESTORE_ALONE {
            return Err(Failure::CannotRestore(release));
        }
        let begun = Instant::now();
        let (plan, served, scratch) = self.stage()?;
        let staged = begun.elapsed();
        self.run.record.version = Some(served);
        self.run.record.changes = Some(plan.changes);
        self.run.done("stage", format_args!("{} to version {served}", prepare::base(&plan)));
        let result = scratch.restore.path().join(RESULT);
        let progress = Progress::show("restoring", move || Some(result.metadata().ok()?.len()));
        let restored = if release.restores_itself() {
            self.restore(&scratch)?
        } else {
            scratch.restore.give_away(self.target.owner).map_err(Failure::from)?;
            metarestore::restore(&scratch.restore, &plan, self.target.owner, self.manner().deadline, self.cancel)?
        };
        drop(progress);
        self.run.done("restore", format_args!("MooseFS {release} restored it"));
        let result = check(&scratch, &plan, served)?;
        let counts = self.count(&scratch);
        self.run.done("check", format_args!("{result}, as planned"));
        Ok(Rehearsed { release, staged, restored, result, counts })
    }

    /// Stages the plan, anew if the metalogger changed a file under it.
    fn stage(&self) -> Result<(Plan, u64, RehearsalFolder), Failure> {
        for left in (0..ATTEMPTS).rev() {
            match self.try_stage() {
                Err(Failure::Stage(e @ (stage::Error::ImageChanged { .. } | stage::Error::LogChanged { .. })))
                    if left > 0 =>
                {
                    log::info!("{e}: the metalogger is at work; once more");
                    rehearsal_folder::remove(&self.target.data)?;
                }
                result => return result,
            }
        }
        unreachable!("the last attempt returns")
    }

    fn try_stage(&self) -> Result<(Plan, u64, RehearsalFolder), Failure> {
        let Machine { data, config, owner, state, .. } = self.target;
        let plan = plan::make(&memory::inventory(data, Some(state))?, Loss::Refuse)?;
        let metalogger_runs = matches!(self.target.running(Daemon::Metalogger), Ok(Some(_)));
        for note in &plan.notes {
            match prepare::remark(note, metalogger_runs) {
                (Severity::Info, note) => log::info!("plan: {note}"),
                (Severity::Warning, note) => log::warn!("plan: {note}"),
            }
        }
        let jump = prepare::jump_for(config, &plan);
        let space = Space::of(data, &plan, jump)?;
        if !space.fits() {
            return Err(space::full(data, space).into());
        }
        if !space.fits_rehearsal() {
            return Err(Failure::TooLittleRoom { needed: space.rehearsal(), free: space.free });
        }
        log::info!("staging {} beside the data", bytes(space.staged()));
        let scratch = RehearsalFolder::create(data)?;
        stage::copy_image(data, &plan, &scratch.restore, *owner, jump, self.cancel)?;
        let written = stage::write_log(data, &plan, &scratch.restore, *owner, jump, self.cancel)?;
        let served = plan.end_version + jump + written.unlocked;
        Ok((plan, served, scratch))
    }

    /// Runs the restore on what is staged, and says how long it took.
    fn restore(&self, scratch: &RehearsalFolder) -> Result<Duration, Failure> {
        let Machine { data, config, owner, .. } = self.target;
        let cfg = scratch.give_to_daemon_user(data, config, *owner)?;
        let program = process::find_program(Daemon::Master.program()).ok_or(prepare::Error::NoMaster)?;
        log::info!("restoring it with {}, at the lowest priority", program.display());
        let args = ["-c".as_ref(), cfg.as_os_str(), "restore".as_ref()];
        process::run_with(&program, &args, self.manner(), self.cancel)
            .and_then(process::Finished::success)
            .map(|finished| finished.took)
            .map_err(Failure::Restore)
    }

    /// Patient, and ended without ado: nothing of it is worth an orderly end.
    fn manner(&self) -> RunOptions<'static> {
        let deadline = self.target.services.start_deadline(self.target.image_size()) * SLOWNESS;
        RunOptions { patience: Duration::ZERO, ..RunOptions::within(deadline) }
    }

    /// What is in the result, where there is a program that counts it. As the user of the daemons: it reads all of it.
    fn count(&self, scratch: &RehearsalFolder) -> Option<String> {
        let program = process::find_program(COUNTER)?;
        let image = scratch.restore.path().join(RESULT);
        let manner = RunOptions { user: Some(self.target.owner), ..self.manner() };
        let counted = process::run_with(&program, &[image.as_os_str(), "/".as_ref()], manner, self.cancel)
            .and_then(process::Finished::success);
        match counted {
            Ok(finished) => counts(&finished.output),
            Err(e) => {
                log::warn!("what is in the result is not counted: {}", chain(&e));
                None
            }
        }
    }
}

/// Checks that the result is what was planned.
fn check(scratch: &RehearsalFolder, plan: &Plan, served: u64) -> Result<Image, Failure> {
    let mut file = scratch.restore.read(RESULT.as_ref())?;
    let found = image::read(&mut file).map_err(Failure::Unreadable)?;
    match found {
        Image::Complete { version, metaid, .. } if version == served && (plan.metaid == 0 || metaid == plan.metaid) => {
            Ok(found)
        }
        found => Err(Failure::Differs { found, planned: format!("version {served}, metaid {:#x}", plan.metaid) }),
    }
}

/// `62 inodes (1 files, 61 dirs), 0 chunks`, out of what mfsmetadirinfo prints.
fn counts(output: &str) -> Option<String> {
    let value = |key: &str| {
        let lines = output.split(['\n', '\r']).map(str::trim);
        lines.filter_map(|line| line.strip_prefix(key)?.strip_prefix(": ")).find_map(|value| value.parse::<u64>().ok())
    };
    let (inodes, files, folders, chunks) = (value("inodes")?, value("files")?, value("dirs")?, value("chunks")?);
    Some(format!("{inodes} inodes ({files} files, {folders} folders), {chunks} chunks"))
}

impl Rehearsed {
    /// What the administrator wants to know.
    fn text(&self, settle: Duration) -> String {
        let Self { release, staged, restored, result, counts } = self;
        let takeover = settle + *staged + *restored;
        let (settle, staged, restored, takeover) = (human(settle), human(*staged), human(*restored), human(takeover));
        let counts = counts.as_deref().map(|counts| format!("  holds       {counts}\n")).unwrap_or_default();
        format!(
            "  staged in   {staged}\n  restored in {restored} by mfsmaster {release}\n  result      {result}, as planned\n\
             {counts}  a takeover  takes about {takeover} from the call of vip-up: {settle} to settle, the rest as here\n\n\
             a promotion would serve\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_mfsmetadirinfo_prints_is_read() {
        let output = "edge scan: 100.00%\rnode scan: 100.00%\n---\npath: /\ninodes: 62\n files: 1\n dirs: 61\nchunks: 0\n \
                      keep chunks: 0\n";
        assert_eq!(counts(output).unwrap(), "62 inodes (1 files, 61 folders), 0 chunks");
        assert_eq!(counts("usage: mfsmetadirinfo"), None);
    }

    #[test]
    fn being_told_to_end_says_nothing_about_the_metadata() {
        assert!(Failure::from(Cancelled).is_cancelled());
        assert!(Failure::Restore(process::Error::Cancelled(Cancelled)).is_cancelled());
        assert!(Failure::Stage(stage::Error::Cancelled(Cancelled)).is_cancelled());
        assert!(!Failure::CannotRestore(Release::AUTO_RESTORE).is_cancelled());
    }
}
