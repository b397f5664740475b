//! `--rehearse`: stages what a promotion would stage, restores it beside the data, and checks the result.
//!
//! Running daemons are not touched: the set is staged into a folder of its own, and `mfsmaster restore` works on that
//! folder alone. It opens no port, runs at the lowest priority, and is the first process that the kernel kills when
//! memory runs out. The metalogger keeps writing its logs. A promotion never waits for a rehearsal: it cancels it and
//! continues.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::election::isolation::{self, Unproved};
use crate::machine::config::Config;
use crate::machine::lock::{self, Locks};
use crate::metadata::{
    Image, Loss, Plan, Refusal, Severity, Version, chunkservers, emergency, image, inventory, plan, stage,
};
use crate::moosefs::{self, Daemon, Release};
use crate::sys::cancel::{Cancel, Cancelled};
use crate::sys::folder;
use crate::sys::logging::chain;
use crate::sys::process::{self, RunOptions};
use crate::sys::progress::Allowance;
use crate::timing;
use crate::ucarp::Ucarp;
use crate::vip::VirtualIp;

use crate::machine::memory;
use crate::machine::outcome::{Outcome, RunKind, StepName};
use crate::machine::rehearsal_folder::{self, RehearsalFolder};
use crate::machine::run::Run;
use crate::machine::space::{self, Space};
use crate::machine::{self, Machine, commit};
use crate::moosefs::workarounds::metarestore;
use crate::promotion::prepare;
use crate::sys::terminal::{Progress, print};
use crate::sys::text::{bytes, human};

/// Attempts to stage the set; one fails if the metalogger changes a file of the plan.
const ATTEMPTS: u32 = 3;
/// At the lowest priority everything may take this much longer.
const SLOWNESS: u32 = 10;
/// The image that the restore writes.
const RESULT: &str = "metadata.mfs";
/// Counts what is in an image.
const COUNTER: &str = "mfsmetadirinfo";

/// Why there was no rehearsal, or why it failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The data folder, the state folder or the daemons.
    #[error(transparent)]
    Machine(#[from] machine::Error),
    /// Another run comes first.
    #[error("no rehearsal while another run is at work")]
    Busy(#[source] lock::Error),
    /// The lock.
    #[error(transparent)]
    Lock(lock::Error),
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
    /// A promotion could not move files.
    #[error(transparent)]
    Moves(#[from] commit::Error),
    /// A file.
    #[error(transparent)]
    Folder(#[from] folder::Error),
    /// A promotion would not fit.
    #[error(transparent)]
    Space(#[from] space::Error),
    /// A promotion would fit, a rehearsal does not.
    #[error(
        "not enough space to rehearse: {} needed (including the reserve for a promotion), {} free",
        bytes(*needed), bytes(*free)
    )]
    NoSpace {
        /// Bytes needed.
        needed: u64,
        /// Bytes free.
        free: u64,
    },
    /// The rehearsal folder.
    #[error(transparent)]
    RehearsalFolder(#[from] rehearsal_folder::Error),
    /// `restore` does not exist.
    #[error("mfsmaster {0} has no command to restore without serving; a rehearsal needs 3.0.107 or later")]
    CannotRestore(Release),
    /// The restore failed.
    #[error("the restore failed, and so would a promotion")]
    Restore(#[source] process::Error),
    /// The restore of 1.x failed.
    #[error("the restore failed, and so would a promotion")]
    Metarestore(#[from] metarestore::Error),
    /// Its result cannot be read.
    #[error("the restore succeeded, but its result cannot be read")]
    Unreadable(#[source] std::io::Error),
    /// Its result is not what was planned.
    #[error("the restore succeeded, but its result is {found} instead of {planned}")]
    Differs {
        /// The result.
        found: Image,
        /// The plan.
        planned: String,
    },
    /// A promotion gives up before its master has loaded all that.
    #[error(
        "the restore succeeded in {}, and a promotion would not wait for its master for longer than {}; raise START_TIMEOUT",
        human(*took), human(*most)
    )]
    TooSlow {
        /// How long it took.
        took: Duration,
        /// How long a promotion waits.
        most: Duration,
    },
    /// What a promotion asks other machines.
    #[error("the restore succeeded, and a promotion would not be made")]
    Network(#[source] Unproved),
    /// The chunkservers of the copy.
    #[error(transparent)]
    Chunkservers(#[from] chunkservers::Error),
    /// Told to end.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl From<lock::Error> for Failure {
    fn from(error: lock::Error) -> Self {
        match error {
            lock::Error::Busy { .. } => Self::Busy(error),
            error => Self::Lock(error),
        }
    }
}

/// The result of a rehearsal, and how long its parts took.
struct Rehearsed {
    release: Release,
    staged: Duration,
    restored: Duration,
    result: Image,
    counts: Option<String>,
}

/// Rehearses a promotion; answers whether it would serve.
pub(crate) fn rehearse(config: Config, vip: Option<&VirtualIp>, cancel: &Cancel) -> Result<bool, Failure> {
    let machine = Machine::open(config)?;
    let locks = Locks::of(&machine.config.instance)?;
    let _rehearsing = locks.rehearse()?;
    give_way();
    let options = vip.and_then(|vip| Ucarp::find(&vip.interface, vip.address)).map(|ucarp| ucarp.options);
    let settle = options.unwrap_or_default().interval() + machine.config.settle_margin;
    let mut run = Run::begin(RunKind::Rehearsal, vip.map(|vip| vip.address));
    // Left by an earlier rehearsal that was killed.
    rehearsal_folder::remove(&machine.data, &machine.config.instance)?;
    let rehearsed = Rehearsal { machine: &machine, vip: vip.map(|vip| vip.address), cancel, run: &mut run }.steps();
    if let Err(e) = rehearsal_folder::remove(&machine.data, &machine.config.instance) {
        log::error!("cannot remove the rehearsal folder: {}", chain(&e));
    }
    run.record.outcome = match &rehearsed {
        Ok(_) => Outcome::WouldServe,
        // Whatever it was doing failed because of that, which says nothing about the metadata.
        Err(_) if cancel.is_set() => Outcome::Cancelled,
        Err(failure) => {
            run.record.error = Some(chain(failure));
            log::error!("{}", chain(failure));
            Outcome::WouldNotServe
        }
    };
    run.end(Some(&machine.state));
    if let Ok(rehearsed) = &rehearsed {
        print(&rehearsed.text(settle));
    }
    Ok(rehearsed.is_ok())
}

/// Takes the lowest priority for the processor, and the first place to be killed when memory runs out. Children inherit
/// both.
fn give_way() {
    let _ = rustix::process::nice(19);
    if let Err(e) = std::fs::write("/proc/self/oom_score_adj", "1000") {
        log::debug!("cannot mark this process as the first to be killed when memory runs out: {e}");
    }
}

/// A rehearsal in progress.
struct Rehearsal<'a> {
    machine: &'a Machine,
    vip: Option<Ipv4Addr>,
    cancel: &'a Cancel,
    run: &'a mut Run,
}

impl Rehearsal<'_> {
    fn steps(&mut self) -> Result<Rehearsed, Failure> {
        commit::try_moves(&self.machine.data)?;
        let release = prepare::check_release(self.cancel)?;
        if release.restores_itself() && release < Release::RESTORE_ALONE {
            return Err(Failure::CannotRestore(release));
        }
        let begun = Instant::now();
        let (plan, served, folder) = self.stage()?;
        let staged = begun.elapsed();
        self.run.record.version = Some(served);
        self.run.record.changes = Some(plan.changes);
        self.run.done(StepName::Stage, format_args!("{} to version {served}", prepare::base(&plan)));
        let result = folder.restore.path().join(RESULT);
        let progress = Progress::show("restoring", move || Some(result.metadata().ok()?.len()));
        let restored = if release.restores_itself() {
            self.restore(&folder, &plan)?
        } else {
            folder.restore.give_away(self.machine.owner).map_err(Failure::from)?;
            metarestore::restore(&folder.restore, &plan, self.machine.owner, self.manner(&plan).time, self.cancel)?
        };
        drop(progress);
        self.run.done(StepName::Restore, format_args!("restored by mfsmaster {release}"));
        let result = check(&folder, &plan, served)?;
        in_time(restored, self.promotion_waits(&plan))?;
        self.check_network(&plan)?;
        let counts = self.count(&folder, &plan);
        self.run.done(StepName::Check, format_args!("{result}, as planned"));
        Ok(Rehearsed { release, staged, restored, result, counts })
    }

    /// Checks that a promotion would have something that proves the network. On the serving machine nothing is asked: it is
    /// not the one that would be promoted.
    fn check_network(&self, plan: &Plan) -> Result<(), Failure> {
        let Machine { config, data, state, .. } = self.machine;
        if matches!(self.machine.running(Daemon::Master), Ok(Some(_))) {
            return Ok(());
        }
        let outlook = isolation::outlook(config, data, plan, &memory::recall(state), self.vip, self.cancel)?;
        outlook.unproved().map_or(Ok(()), |why| Err(Failure::Network(why)))
    }

    /// Stages the plan. Tries again if the metalogger changed one of its files.
    fn stage(&self) -> Result<(Plan, Version, RehearsalFolder), Failure> {
        for left in (0..ATTEMPTS).rev() {
            match self.try_stage() {
                Err(Failure::Stage(e @ (stage::Error::ImageChanged { .. } | stage::Error::LogChanged { .. })))
                    if left > 0 =>
                {
                    log::info!("{e}; the metalogger is writing, staging again");
                    rehearsal_folder::remove(&self.machine.data, &self.machine.config.instance)?;
                }
                result => return result,
            }
        }
        unreachable!("the last attempt returns")
    }

    fn try_stage(&self) -> Result<(Plan, Version, RehearsalFolder), Failure> {
        let Machine { data, owner, state, .. } = self.machine;
        let plan = plan::make(&memory::inventory(data, Some(state))?, Loss::Refuse)?;
        let metalogger_runs = matches!(self.machine.running(Daemon::Metalogger), Ok(Some(_)));
        for note in &plan.notes {
            match prepare::remark(note, metalogger_runs) {
                (Severity::Info, note) => log::info!("plan: {note}"),
                (Severity::Warning, note) => log::warn!("plan: {note}"),
            }
        }
        let jump = plan.jump();
        let space = Space::of(data, &plan, jump)?;
        if !space.fits() {
            return Err(space::full(data, space).into());
        }
        if !space.fits_rehearsal() {
            return Err(Failure::NoSpace { needed: space.rehearsal(), free: space.free });
        }
        log::info!("staging {} in the rehearsal folder", bytes(space.staged()));
        let folder = RehearsalFolder::create(data)?;
        stage::copy_image(data, &plan, &folder.restore, *owner, jump, self.cancel)?;
        let written = stage::write_log(data, &plan, &folder.restore, *owner, jump, self.cancel)?;
        Ok((plan, written.served, folder))
    }

    /// Restores the staged set. Returns how long that took.
    fn restore(&self, folder: &RehearsalFolder, plan: &Plan) -> Result<Duration, Failure> {
        let Machine { data, config, owner, .. } = self.machine;
        let cfg = folder.give_to_daemon_user(data, config, *owner)?;
        let program = moosefs::find_program(Daemon::Master.program())
            .ok_or(prepare::Error::from(moosefs::Error::NotInstalled))?;
        let _held = emergency::hold(*owner).map_err(prepare::Error::from)?;
        log::info!("restoring with {} at the lowest priority", program.display());
        let args = ["-c".as_ref(), cfg.as_os_str(), "restore".as_ref()];
        process::run_with(&program, &args, self.manner(plan), self.cancel)
            .and_then(process::Finished::success)
            .map(|finished| finished.took)
            .map_err(Failure::Restore)
    }

    /// How long a promotion would wait for its master to load this plan.
    fn promotion_waits(&self, plan: &Plan) -> Allowance {
        let bytes = plan.image_bytes.saturating_add(plan.log_bytes(plan.jump()));
        self.machine.services.start_time(bytes)
    }

    /// Has time enough for the lowest priority, so that it is known how long a restore takes, also if that is longer than a
    /// promotion would wait. When that is over, it is killed at once: none of its files is needed.
    fn manner(&self, plan: &Plan) -> RunOptions<'static> {
        let most = self.promotion_waits(plan).most / timing::MOST_TIMES * SLOWNESS;
        RunOptions { patience: Duration::ZERO, ..RunOptions::within(most) }
    }

    /// Counts the content of the result, if the program for that is installed. It runs as the user of the daemons,
    /// because it reads all of the image.
    fn count(&self, folder: &RehearsalFolder, plan: &Plan) -> Option<String> {
        let program = moosefs::find_program(COUNTER)?;
        let image = folder.restore.path().join(RESULT);
        let manner = RunOptions { user: Some(self.machine.owner), ..self.manner(plan) };
        let counted = process::run_with(&program, &[image.as_os_str(), "/".as_ref()], manner, self.cancel)
            .and_then(process::Finished::success);
        match counted {
            Ok(finished) => counts(&finished.output),
            Err(e) => {
                log::warn!("cannot count the content of the result: {}", chain(&e));
                None
            }
        }
    }
}

/// Checks that a promotion would wait so long for its master.
fn in_time(restored: Duration, waits: Allowance) -> Result<(), Failure> {
    if restored > waits.most { Err(Failure::TooSlow { took: restored, most: waits.most }) } else { Ok(()) }
}

/// Checks that the result is what was planned.
fn check(folder: &RehearsalFolder, plan: &Plan, served: Version) -> Result<Image, Failure> {
    let mut file = folder.restore.read(RESULT.as_ref())?;
    let found = image::read(&mut file).map_err(Failure::Unreadable)?;
    match found {
        Image::Complete { version, metaid, .. } if version == served && (plan.metaid == 0 || metaid == plan.metaid) => {
            Ok(found)
        }
        found => Err(Failure::Differs { found, planned: format!("version {served}, metaid {:#x}", plan.metaid) }),
    }
}

/// `62 inodes (1 files, 61 folders), 0 chunks`, from the output of mfsmetadirinfo.
fn counts(output: &str) -> Option<String> {
    let value = |key: &str| {
        let lines = output.split(['\n', '\r']).map(str::trim);
        lines.filter_map(|line| line.strip_prefix(key)?.strip_prefix(": ")).find_map(|value| value.parse::<u64>().ok())
    };
    let (inodes, files, folders, chunks) = (value("inodes")?, value("files")?, value("dirs")?, value("chunks")?);
    Some(format!("{inodes} inodes ({files} files, {folders} folders), {chunks} chunks"))
}

impl Rehearsed {
    /// The result for people.
    fn text(&self, settle: Duration) -> String {
        let Self { release, staged, restored, result, counts } = self;
        let takeover = settle + *staged + *restored;
        let (settle, staged, restored, takeover) = (human(settle), human(*staged), human(*restored), human(takeover));
        let counts = counts.as_deref().map(|counts| format!("  holds       {counts}\n")).unwrap_or_default();
        format!(
            "  staged in   {staged}\n  restored in {restored} by mfsmaster {release}\n  result      {result}, as planned\n\
             {counts}  takeover    takes about {takeover} from the call of vip-up, {settle} of it at most to settle\n\n\
             a promotion would serve\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_of_mfsmetadirinfo_is_read() {
        let output = "edge scan: 100.00%\rnode scan: 100.00%\n---\npath: /\ninodes: 62\n files: 1\n dirs: 61\nchunks: 0\n \
                      keep chunks: 0\n";
        assert_eq!(counts(output).unwrap(), "62 inodes (1 files, 61 folders), 0 chunks");
        assert_eq!(counts("usage: mfsmetadirinfo"), None);
    }

    #[test]
    fn a_run_that_comes_first_is_named() {
        let busy = lock::Error::Busy { pid: 7, kind: RunKind::Promotion, since: Duration::from_secs(3) };
        let text = chain(&Failure::from(busy));
        assert!(text.starts_with("no rehearsal while another run is at work: a promotion has been running"), "{text}");
    }

    #[test]
    fn a_restore_that_a_promotion_would_not_wait_for_is_a_failure() {
        let second = Duration::from_secs(1);
        let waits = Allowance { still: second, most: second * 5 };
        assert!(in_time(second * 5, waits).is_ok(), "longer than the time without progress");
        let text = chain(&in_time(second * 6, waits).unwrap_err());
        assert!(text.contains("in 6 s, and a promotion would not wait") && text.contains("longer than 5 s"), "{text}");
    }

    #[test]
    fn the_result_reads_well() {
        let rehearsed = Rehearsed {
            release: Release::RESTORE_ALONE,
            staged: Duration::from_millis(4),
            restored: Duration::from_millis(243),
            result: Image::New,
            counts: None,
        };
        let text = rehearsed.text(Duration::from_millis(1450));
        let takeover = "  takeover    takes about 1.7 s from the call of vip-up, 1.45 s of it at most to settle\n";
        assert!(text.contains(takeover) && text.ends_with("\n\na promotion would serve\n"), "{text}");
    }
}
