//! The master of a hot standby: an ordinary `mfsmaster` that has loaded what would be served here, and waits for changes.
//!
//! `mfsmaster -a start` loads an image, then replays change logs until their end, and listens only then. So it is given a FIFO in
//! the place of a change log: it waits in it, replays each change as it is fed, and serves some milliseconds after a line that
//! is no change. What it has loaded is a staged set like that of a promotion (`DATA_PATH/mfs-promote/hot`), which grows with it:
//! a promotion moves that set into the data folder and lets the master go, or ends it and starts another one on the same set.
//!
//! How a FIFO takes the place of a log. The master lists the data folder, opens each log and looks at its first and last change,
//! and skips one without changes; then it opens the others and replays them. So there are two names: the *fed* log, a file with
//! one change while the folder is looked at; and a *gate* that comes later in the order of the folder, a FIFO from the start,
//! which holds the master when it looks there. Then the FIFO of the feed replaces the fed log, and the gate goes.
//! All three names are in the data folder for some milliseconds only; the image as long as it is loaded. What a run leaves there
//! that is killed meanwhile, the next run removes ([`sweep`]).
//!
//! It is never a second master:
//!
//! - It has a writing end of its feed itself, so the death of the run that feeds it is not the end of the feed.
//! - It is [marked](waiting) from before its start until it is let go, and counts as no running master.
//! - TERM does not end it but would later, so it is only ever killed.
//! - Who wants it for a promotion takes what [`StandbyMaster::leave`] has left, once: a run that was killed leaves nothing.

mod start;
mod state;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use chrono::Utc;
use serde::{Deserialize, Serialize};

use crate::machine::config::StandbyMode;
use crate::machine::memory::{self, Planning};
use crate::machine::{Machine, commit, space};
use crate::metadata::names;
use crate::metadata::stage::{self, Growing, Stale, Tail};
use crate::metadata::{
    Base, EpochJump, Image, Lineage, Loss, Plan, Refusal, Version, emergency, image, inventory, plan,
};
use crate::moosefs::services;
use crate::moosefs::waiting::{self, FOLDER};
use crate::moosefs::{self, Daemon, Release};
use crate::sys;
use crate::sys::cancel::{Cancel, Cancelled};
use crate::sys::folder::{self, Folder};
use crate::sys::json_file;
use crate::sys::logging::chain;
use crate::sys::process::{self, Identity};
use crate::sys::text::bytes;

use start::start;
pub(crate) use state::{Cold, HotState};

/// The feed.
const FEED: &str = "feed";
/// What a run leaves for the next one.
const LEFT: &str = "left.json";
/// Which set it is.
const RECORD: &str = "set.json";
/// The lock of the one who works on it.
const LOCK: &str = "hot";
/// A line that is no change ends the replay; the second one, if none was before it.
const END: &[u8] = b"0: end\n0: end\n";
/// Pause between two looks at a master that loads.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// How long a master may take for one change.
const READS_WITHIN: Duration = Duration::from_secs(60);
/// How long one may wait, in seconds. A master removes chunkservers from its metadata that were not connected for
/// `CS_DAYS_TO_REMOVE_UNUSED` (7 days), counted from the start of its replay.
const LONGEST_WAIT: u64 = 20 * 60 * 60;
/// How long one that is killed may take to give its memory back.
const ENDS_WITHIN: Duration = Duration::from_secs(60);
/// What a master needs with an empty file system, in bytes.
const LEAST_MEMORY: u64 = 400_000_000;
/// And for each byte of the image.
const MEMORY_TIMES: u64 = 4;
/// `oom_score_adj` of a process that is to be killed first when memory runs out.
const FIRST_TO_GO: &str = "1000";

/// Why there is no hot standby.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// What is in the data folder cannot be served.
    #[error("the copy here could not be served")]
    Refused(#[from] Refusal),
    /// It is not the metalogger's copy.
    #[error("there is no copy of the metalogger's that could be served, only this machine's own files")]
    NoCopy,
    /// A release that drops clients which are not back at once after it has waited.
    #[error(
        "MooseFS {0} is too old, {needed} or later is needed",
        needed = Release::FRESH_AFTER_REPLAY
    )]
    Release(Release),
    /// It has waited for long.
    #[error(
        "it has waited for 20 hours, and a master that waits for days forgets chunkservers that are not back at once"
    )]
    Old,
    /// The data folder cannot be read.
    #[error(transparent)]
    Inventory(#[from] inventory::Error),
    /// It does not fit.
    #[error(transparent)]
    Space(#[from] space::Error),
    /// An image elsewhere knows more, or a place for one is not safe.
    #[error(transparent)]
    Emergency(#[from] emergency::Error),
    /// The set could not be staged.
    #[error(transparent)]
    Stage(#[from] stage::Error),
    /// The copy cannot be followed.
    #[error(transparent)]
    Stale(#[from] Stale),
    /// A file or folder.
    #[error(transparent)]
    Folder(#[from] folder::Error),
    /// The folder of all runs.
    #[error(transparent)]
    Commit(#[from] commit::Error),
    /// A record cannot be read or written.
    #[error(transparent)]
    Record(#[from] json_file::Error),
    /// Whether a master runs is not known.
    #[error(transparent)]
    MooseFs(#[from] moosefs::Error),
    /// It could not be started.
    #[error(transparent)]
    Service(#[from] services::Error),
    /// It could not be killed.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// Reading or writing failed.
    #[error("cannot {operation}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// Memory is short.
    #[error("it may need {} of memory, and {} are free", bytes(*needed), bytes(*free))]
    Memory {
        /// Bytes that it may need.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// The image or a setting is another one.
    #[error("the metalogger has a new image, the group has changed, or what mfsmaster reads at its start")]
    Outdated,
    /// The order of the folder cannot be had.
    #[error("no two names were found that the data folder lists one after the other")]
    Order,
    /// It ended.
    #[error("mfsmaster has ended while it {0}; the system log has its reason")]
    Ended(&'static str),
    /// It ended because of a change, or was killed.
    #[error(
        "mfsmaster has ended while it replayed the changes or waited for them; the system log says which one it could not \
         replay, or that it was killed"
    )]
    Replay,
    /// It does nothing.
    #[error("mfsmaster did not {0} in time")]
    Hangs(&'static str),
    /// The administrator has none.
    #[error("STANDBY is cold")]
    NotWanted,
    /// It would be a second one.
    #[error("a master serves here")]
    Serves,
    /// Another run works on it.
    #[error("another run has the hot standby")]
    Busy,
    /// Told to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl Error {
    /// Whether it lies in the release or the memory of this machine, and not in what happens here.
    pub(crate) fn is_of_the_machine(&self) -> bool {
        matches!(self, Self::Release(_) | Self::Memory { .. } | Self::NotWanted)
    }

    /// Whether a promotion would fail for the same reason.
    pub(crate) fn keeps_from_serving(&self) -> bool {
        match self {
            // Its metalogger gets what is missing from the next master, or just now.
            Self::Refused(refusal) => !refusal.others_have_more(),
            Self::Space(_) | Self::Emergency(_) => true,
            _ => false,
        }
    }
}

/// A file, as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Source {
    inode: u64,
    size: i64,
    modified: (i64, u64),
}

/// Which set the master has loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// The image that it was made from.
    base: Source,
    /// By how much all versions are raised.
    jump: u64,
    /// When, in Unix seconds.
    loaded: i64,
    /// The epoch that the plan begins.
    epoch: u64,
    /// What the plan took from the memory of this machine.
    planning: Planning,
    /// What else it has read.
    settings: Vec<Option<Source>>,
}

/// How far a set goes that a run has left.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Left {
    /// The version that was fed, before the jump.
    end: Version,
    /// How readily the kernel kills an ordinary master of this machine.
    badness: String,
    loaded: Loaded,
}

/// When a master had loaded the copy.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Loaded {
    /// In Unix seconds.
    since: i64,
    /// How long it took, in milliseconds.
    took_ms: u64,
}

/// A master that waits.
#[derive(Debug)]
pub(crate) struct StandbyMaster {
    folder: Folder,
    master: Identity,
    /// How readily the kernel kills an ordinary master of this machine.
    badness: String,
    loaded: Loaded,
    growing: Growing,
    log: File,
    feed: File,
}

impl StandbyMaster {
    /// What there is to say of it.
    pub(crate) fn report(&self) -> HotState {
        let Loaded { since, took_ms } = self.loaded;
        HotState::Hot { since, version: self.end(), memory: process::memory_of(self.master), load_ms: took_ms }
    }

    /// Stages what would be served here, and has a master load it; [`check`] has passed. Returns it with the place in the metalogger's log from
    /// which it has to be fed. Asks whether it is `wanted` still before the master is started.
    pub(crate) fn load(
        machine: &Machine,
        _hold: &Hold,
        wanted: &dyn Fn() -> bool,
        cancel: &Cancel,
    ) -> Result<(Self, Tail), Error> {
        end(machine)?;
        if machine.running(Daemon::Master)?.is_some() {
            return Err(Error::Serves);
        }
        let tail = Tail::open(&machine.data)?;
        let plan = with_epochs(servable(machine, cancel)?)?;
        let folder = commit::make_root(&machine.data)?.make_subfolder(FOLDER.as_ref(), 0o700)?;
        Ok((Self::load_in(machine, folder, &plan, wanted, cancel)?, tail))
    }

    fn load_in(
        machine: &Machine,
        folder: Folder,
        plan: &Plan,
        wanted: &dyn Fn() -> bool,
        cancel: &Cancel,
    ) -> Result<Self, Error> {
        let begun = Instant::now();
        let record = Record {
            base: base_of(machine, plan)?.ok_or(Error::NoCopy)?,
            jump: plan.jump().0,
            loaded: Utc::now().timestamp(),
            epoch: plan.epoch,
            planning: memory::planning(&machine.state),
            settings: settings(machine),
        };
        json_file::write(&folder, OsStr::new(RECORD), &record)?;
        stage::copy_image(&machine.data, plan, &folder, machine.owner, plan.jump(), cancel)?;
        let growing = Growing::begin(&machine.data, plan, &folder, machine.owner, cancel)?;
        let feed = folder.make_fifo(OsStr::new(FEED))?;
        folder.give(&feed, OsStr::new(FEED), machine.owner)?;
        let first = plan.base_version + plan.jump();
        cancel.check()?;
        if !wanted() {
            return Err(Cancelled.into());
        }
        let master = start(machine, &folder, &feed, first, cancel)?;
        let badness = be_first_to_go(master);
        let log = folder.append(OsStr::new(stage::LOG))?;
        let loaded = Loaded { since: 0, took_ms: 0 };
        let mut standby = Self { folder, master, badness, loaded, growing, log, feed };
        standby.feed_file(cancel)?;
        let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        standby.loaded = Loaded { since: Utc::now().timestamp(), took_ms };
        Ok(standby)
    }

    /// Takes over what an earlier run has left here, if that is exactly what `plan` says up to there. What fits in no way is
    /// ended.
    pub(crate) fn take(machine: &Machine, plan: &Plan, _hold: &Hold, cancel: &Cancel) -> Result<Option<Self>, Error> {
        let taken = Self::take_if_it_fits(machine, plan, cancel);
        // One that is there still after a wait that was cut short fits the next run as well.
        if !matches!(taken, Ok(Some(_)) | Err(Error::Cancelled(_))) {
            end(machine)?;
        }
        taken
    }

    fn take_if_it_fits(machine: &Machine, plan: &Plan, cancel: &Cancel) -> Result<Option<Self>, Error> {
        let (Some(master), Some(folder)) =
            (waiting::master(&machine.data)?, commit::open_beside(&machine.data, FOLDER)?)
        else {
            return Ok(None);
        };
        let left: Option<Left> = json_file::read(&folder, OsStr::new(LEFT))?;
        let record: Option<Record> = json_file::read(&folder, OsStr::new(RECORD))?;
        let (Some(left), Some(record)) = (left, record) else {
            log::info!("the run that fed the hot standby did not end in order");
            return Ok(None);
        };
        // Once: what a run that is killed from here on has fed, nobody knows.
        json_file::remove(&folder, OsStr::new(LEFT))?;
        let same = plan.lineage == Lineage::Ml
            && base_of(machine, plan)?.as_ref() == Some(&record.base)
            && plan.jump().0 == record.jump
            && Utc::now().timestamp().abs_diff(record.loaded) <= LONGEST_WAIT
            && settings(machine) == record.settings
            && is_image_of(&folder, plan)?;
        if !same {
            log::info!("the hot standby was made from another image or with other settings");
            return Ok(None);
        }
        let compared = Growing::compare(&machine.data, plan, &folder, left.end, cancel);
        if matches!(compared, Err(stage::Error::Cancelled(_))) {
            // Nothing was fed.
            json_file::write(&folder, OsStr::new(LEFT), &left)?;
        }
        let Some(growing) = compared? else {
            log::warn!("the hot standby was fed something else than the copy here says");
            return Ok(None);
        };
        let (log, feed) = (folder.append(OsStr::new(stage::LOG))?, folder.open_fifo(OsStr::new(FEED))?);
        Ok(Some(Self { folder, master, badness: left.badness, loaded: left.loaded, growing, log, feed }))
    }

    /// Takes over what an earlier run has left here, to feed it on.
    pub(crate) fn take_for_standby(
        machine: &Machine,
        hold: &Hold,
        cancel: &Cancel,
    ) -> Result<Option<(Self, Tail)>, Error> {
        if waiting::master(&machine.data)?.is_none() {
            return Ok(None);
        }
        let tail = Tail::open(&machine.data)?;
        let plan = with_epochs(servable(machine, cancel)?)?;
        Ok(Self::take(machine, &plan, hold, cancel)?.map(|taken| (taken, tail)))
    }

    /// Leaves it to the next run. It must not be fed any more.
    pub(crate) fn leave(self) -> Result<(), Error> {
        let left = Left { end: self.growing.end(), badness: self.badness, loaded: self.loaded };
        Ok(json_file::write(&self.folder, OsStr::new(LEFT), &left)?)
    }

    /// The files, by their numbers, from which `plan` takes what it was fed so far.
    pub(crate) fn covered(&self, machine: &Machine, plan: &Plan) -> Result<Vec<(u64, u64)>, Error> {
        let mut files = Vec::new();
        for stretch in plan.stretches.iter().filter(|stretch| self.end().has(stretch.first)) {
            let status = machine.data.status(&stretch.file)?;
            files.push((status.map_or(0, |status| status.st_ino), stretch.first));
        }
        Ok(files)
    }

    /// The version that it was fed, before the jump.
    pub(crate) fn end(&self) -> Version {
        self.growing.end()
    }

    /// Its process.
    pub(crate) fn master(&self) -> Identity {
        self.master
    }

    /// Feeds what the metalogger has written since.
    pub(crate) fn follow(&mut self, machine: &Machine, tail: &mut Tail, cancel: &Cancel) -> Result<(), Error> {
        loop {
            let lines = tail.follow(&machine.data, &mut self.growing)?;
            if lines.is_empty() {
                return Ok(());
            }
            self.add(&lines, cancel)?;
        }
    }

    /// Feeds what `plan` has beyond it, and the changes that end the history. From now on nothing else fits.
    pub(crate) fn complete(
        mut self,
        machine: &Machine,
        plan: &Plan,
        cancel: &Cancel,
    ) -> Result<(Complete, stage::Written), Error> {
        let lines = self.growing.complete(&machine.data, plan, cancel)?;
        self.add(&lines, cancel)?;
        let Self { folder, master, badness, growing, mut log, feed, .. } = self;
        let (lines, written) = growing.finish()?;
        put(&mut log, &lines)?;
        feed_all(&feed, master, &lines, cancel)?;
        log.sync_all().map_err(|source| Error::Io { operation: "flush the log of the hot standby", source })?;
        Ok((Complete { folder, master, badness, feed }, written))
    }

    /// Whether it has not waited for too long, its process still waits, and the image that it was made from and what it has read
    /// are still those of now.
    pub(crate) fn check(&self, machine: &Machine) -> Result<(), Error> {
        if waiting::master(&machine.data)? != Some(self.master) {
            return Err(Error::Ended("waited"));
        }
        let record: Option<Record> = json_file::read(&self.folder, OsStr::new(RECORD))?;
        if record.as_ref().is_some_and(|record| Utc::now().timestamp().abs_diff(record.loaded) > LONGEST_WAIT) {
            return Err(Error::Old);
        }
        let look = || -> Result<_, Error> { Ok(machine.data.status(OsStr::new(COPY))?.map(Source::from)) };
        let mut image = look()?;
        if image.is_none() {
            // Between two renames, perhaps.
            std::thread::sleep(RENAMES);
            image = look()?;
        }
        let is_of_now = |record: Record| {
            Some(record.base) == image
                && record.settings == settings(machine)
                && memory::planning(&machine.state).changes_nothing(&record.planning, record.epoch)
        };
        if record.is_some_and(is_of_now) { Ok(()) } else { Err(Error::Outdated) }
    }

    fn add(&mut self, lines: &[u8], cancel: &Cancel) -> Result<(), Error> {
        put(&mut self.log, lines)?;
        feed_all(&self.feed, self.master, lines, cancel)
    }

    /// Feeds the log as it was staged.
    fn feed_file(&mut self, cancel: &Cancel) -> Result<(), Error> {
        let mut staged = self.folder.read(OsStr::new(stage::LOG))?;
        let mut block = vec![0; 1024 * 1024];
        loop {
            let read = io::Read::read(&mut staged, &mut block);
            match read.map_err(|source| Error::Io { operation: "read the log of the hot standby", source })? {
                0 => return Ok(()),
                length => feed_all(&self.feed, self.master, &block[..length], cancel)?,
            }
        }
    }
}

/// A master that has everything, and whose set is complete: its files are moved into the data folder, and then it is let go.
#[derive(Debug)]
pub(crate) struct Complete {
    folder: Folder,
    master: Identity,
    badness: String,
    feed: File,
}

impl Complete {
    /// Moves the set into the folder `stage` of a promotion.
    pub(crate) fn move_to(&self, stage: &Folder) -> Result<(), Error> {
        for name in [stage::IMAGE, stage::LOG] {
            self.folder.rename(name.as_ref(), stage, name.as_ref())?;
        }
        Ok(stage.sync()?)
    }

    /// Ends the feed, so that the master serves what is in the data folder by now.
    pub(crate) fn let_go(self, machine: &Machine) -> Result<(), Error> {
        set_badness(self.master, &self.badness);
        let ended = (&self.feed).write_all(END);
        ended.map_err(|source| Error::Io { operation: "end the feed of the hot standby", source })?;
        // It serves now.
        Ok(commit::remove_beside(&machine.data, FOLDER)?)
    }
}

/// The metalogger renames its old image and then the new one.
const RENAMES: Duration = Duration::from_millis(50);

/// How much memory a master may need that loads what is here. Measured: 371 MB with 200,000 objects, whose image has 20 MB, and
/// 1.1 GB with 4,000,000.
fn memory_for(machine: &Machine) -> u64 {
    let image = machine.data.status(OsStr::new(COPY)).ok().flatten();
    let image = image.map_or(0, |status| u64::try_from(status.st_size).unwrap_or_default());
    LEAST_MEMORY.saturating_add(image.saturating_mul(MEMORY_TIMES))
}

/// The metalogger's image.
const COPY: &str = "metadata_ml.mfs.back";

impl From<rustix::fs::Stat> for Source {
    fn from(status: rustix::fs::Stat) -> Self {
        Self { inode: status.st_ino, size: status.st_size, modified: (status.st_mtime, status.st_mtime_nsec) }
    }
}

/// Whether a promotion could serve what is here, and then, whether this machine may keep a hot standby.
pub(crate) fn check(machine: &Machine, cancel: &Cancel) -> Result<(), Error> {
    servable(machine, cancel)?;
    if machine.config.standby == StandbyMode::Cold {
        return Err(Error::NotWanted);
    }
    let release = moosefs::installed_release(cancel)?;
    if !release.can_wait() {
        return Err(Error::Release(release));
    }
    let needed = memory_for(machine);
    let free = sys::memory::available().unwrap_or(u64::MAX);
    if free < needed { Err(Error::Memory { needed, free }) } else { Ok(()) }
}

/// What a promotion would serve here, if it is what a hot standby can have.
fn with_epochs(plan: Plan) -> Result<Plan, Error> {
    if plan.lineage == Lineage::Ml && plan.jump() > EpochJump::NONE { Ok(plan) } else { Err(Error::NoCopy) }
}

/// What a promotion would serve here.
fn servable(machine: &Machine, cancel: &Cancel) -> Result<Plan, Error> {
    let plan = plan::make(&memory::inventory(&machine.data, Some(&machine.state))?, Loss::Refuse)?;
    space::check(&machine.data, &machine.config.instance, &plan, plan.jump(), cancel)?;
    emergency::check(&machine.data, &machine.config.working_user, &plan, plan.end_version + plan.jump(), Loss::Refuse)?;
    Ok(plan)
}

fn base_of(machine: &Machine, plan: &Plan) -> Result<Option<Source>, Error> {
    let Base::Image { name, .. } = &plan.base else { return Ok(None) };
    Ok(machine.data.status(name)?.map(Source::from))
}

fn is_image_of(folder: &Folder, plan: &Plan) -> Result<bool, Error> {
    let Base::Image { signature, version, metaid, .. } = &plan.base else { return Ok(false) };
    let planned = Image::Complete { signature: *signature, version: *version + plan.jump(), metaid: *metaid };
    let name = OsStr::new(stage::IMAGE);
    let found = image::read(&mut folder.read(name)?);
    Ok(found.map_err(|source| Error::Io { operation: "read the image of the hot standby", source })? == planned)
}

/// Everything besides the set that a master reads when it is started.
fn settings(machine: &Machine) -> Vec<Option<Source>> {
    let program = moosefs::find_program(Daemon::Master.program());
    let files = program.into_iter().chain(machine.config.read_by_master.clone());
    files.map(|path| rustix::fs::stat(&path).ok().map(Source::from)).collect()
}

/// The right to work on the hot standby of this machine: of the run that keeps it, or of a promotion. Dropping it releases it.
#[derive(Debug)]
pub(crate) struct Hold {
    _file: File,
}

impl Hold {
    /// Waits until no other run has it, for `patience` at most.
    pub(crate) fn of(machine: &Machine, patience: Duration) -> Result<Self, Error> {
        let folder = Folder::open(&machine.config.instance.run_folder())?;
        Ok(Self { _file: folder.lock(OsStr::new(LOCK), patience)?.ok_or(Error::Busy)? })
    }
}

/// Kills the master that waits on the data folder, or is about to, and removes what was kept for it.
pub(crate) fn end(machine: &Machine) -> Result<(), Error> {
    let until = Instant::now() + ENDS_WITHIN;
    let mut told = false;
    loop {
        // Also the process that starts it, and its writer, which has a lock that the next master would fail in.
        let marked = waiting::marked(&machine.data)?;
        let Some(first) = marked.first() else { break };
        if !told {
            log::info!("ending the hot standby (process {})", first.pid);
            told = true;
        }
        for process in marked {
            // One with much memory takes its time.
            match process::kill(process) {
                Err(e) if Instant::now() > until => return Err(e.into()),
                _ => (),
            }
        }
    }
    commit::remove_beside(&machine.data, FOLDER)?;
    sweep(&machine.data);
    Ok(())
}

/// Ends what a run that was killed has begun here. A run that is at work on it ends it itself.
pub(crate) fn recover(machine: &Machine) -> Result<(), Error> {
    let Ok(_hold) = Hold::of(machine, Duration::ZERO) else { return Ok(()) };
    match commit::open_beside(&machine.data, FOLDER)? {
        Some(folder) if folder.status(OsStr::new(LEFT))?.is_some() => Ok(()),
        _ => end(machine),
    }
}

/// Removes the names from the data folder that a run has left there which was killed while a master was started. What stays
/// is no reason to serve nothing.
fn sweep(data: &Folder) {
    for name in data.names().unwrap_or_default().iter().filter(|name| names::is_of_standby(name.as_encoded_bytes())) {
        match data.remove(name) {
            Err(e) if !e.is_not_found() => log::warn!("{}", chain(&e)),
            _ => (),
        }
    }
}

fn put(log: &mut File, lines: &[u8]) -> Result<(), Error> {
    log.write_all(lines).map_err(|source| Error::Io { operation: "write the log of the hot standby", source })
}

/// Writes all of it, as fast as the master reads.
fn feed_all(mut feed: &File, master: Identity, mut bytes: &[u8], cancel: &Cancel) -> Result<(), Error> {
    let mut end = Instant::now() + READS_WITHIN;
    while !bytes.is_empty() {
        match feed.write(bytes) {
            Ok(written) => {
                bytes = &bytes[written..];
                end = Instant::now() + READS_WITHIN;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => (),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                if !master.is_alive() {
                    return Err(Error::Replay);
                }
                if Instant::now() > end {
                    return Err(Error::Hangs("read its change log"));
                }
                cancel.sleep(LOOK_EVERY)?;
            }
            Err(source) => return Err(Error::Io { operation: "feed the hot standby", source }),
        }
    }
    let unread = || rustix::io::ioctl_fionread(feed.as_fd()).unwrap_or_default() > 0;
    while unread() && master.is_alive() && Instant::now() < end {
        cancel.sleep(LOOK_EVERY)?;
    }
    if unread() { Err(Error::Replay) } else { Ok(()) }
}

/// When memory runs out it is the first to be killed: what is lost is time. Returns what it was before, for
/// [`set_badness`].
fn be_first_to_go(master: Identity) -> String {
    let before = std::fs::read_to_string(badness(master)).unwrap_or_default();
    set_badness(master, FIRST_TO_GO);
    before.trim().to_owned()
}

fn set_badness(master: Identity, value: &str) {
    if !master.is_alive() {
        return;
    }
    if let Err(e) = std::fs::write(badness(master), value) {
        log::warn!("cannot tell the kernel when to kill mfsmaster (process {}): {e}", master.pid);
    }
}

fn badness(master: Identity) -> String {
    format!("/proc/{}/oom_score_adj", master.pid)
}
