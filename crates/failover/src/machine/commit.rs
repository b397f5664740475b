//! The work folders inside the data folder, and the renames of a commit.
//!
//! `DATA_PATH/mfs-promote/<run>/stage` is where the clean set is prepared, `…/aside` where everything else goes. They
//! lie in the data folder so that a rename is all it takes, and belong to root alone so that nobody changes what was
//! checked. Nothing is ever deleted from `aside` before a verified archive holds it.
//!
//! A commit is described in the journal before its first rename. Until a master may have started, undoing it is the
//! same renames the other way; afterwards, what the master wrote decides: a history that grew is kept. Undoing removes
//! nothing before all is back, and needs no room on the disk.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};

use crate::machine::config::Config;
use crate::machine::outcome::StepName;
use crate::machine::run::Run;
use crate::machine::state::{self, Journal, Phase, StagedFile, State};
use crate::machine::{Machine, archive, rehearsal_folder};
use crate::metadata::stage;
pub(crate) use crate::moosefs::CLEAN_STOP_IMAGE;
use crate::sys::cancel::Cancel;
use crate::sys::folder::{self, Folder, Owner};
use crate::sys::logging::chain;
use crate::sys::terminal::Progress;

const ROOT: &str = "mfs-promote";
const STAGE: &str = "stage";
const ASIDE: &str = "aside";
/// Where archives are kept, as in the howto.
const BACKUP: &str = "bak";
/// Where a tool that runs as the user of the daemons works.
const RESTORE: &str = "restore";
/// Ends the names of staged files that are set aside, because the rest of their set was never moved in.
const HALF: &str = ".half-staged";
/// The client sessions of MooseFS 1.x.
pub(crate) const SESSIONS: &str = "sessions.mfs";

/// Why files could not be moved.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A rename or a look failed.
    #[error(transparent)]
    Folder(#[from] folder::Error),
    /// The journal could not be written or removed.
    #[error(transparent)]
    State(#[from] state::Error),
    /// The work folder was made by somebody else.
    #[error("{} belongs to another user; nothing of ours is in it: move it away", .0.display())]
    Foreign(std::path::PathBuf),
    /// An archive there could be exchanged before what is in it is removed.
    #[error(
        "{path} can be changed by others than root, so no archive is safe in it; run: chown root {path} && chmod 700 {path}",
        path = .0.display()
    )]
    Unsafe(std::path::PathBuf),
    /// The archive was not made.
    #[error(transparent)]
    Archive(#[from] archive::Error),
}

/// The work folder of one run.
#[derive(Debug)]
pub(crate) struct RunFolder {
    id: u64,
    run: Folder,
    /// Where the clean set is prepared.
    pub(crate) stage: Folder,
}

impl RunFolder {
    /// Makes the work folder of the run that started at `id`; counts on if that second had a run already.
    pub(crate) fn create(data: &Folder, id: u64) -> Result<Self, Error> {
        let root = match open_root(data)? {
            Some(root) => root,
            None => data.make_subfolder(ROOT.as_ref(), 0o700)?,
        };
        let mut id = id;
        while root.status(&number(id))?.is_some() {
            id += 1;
        }
        let run = root.make_subfolder(&number(id), 0o700)?;
        let stage = run.make_subfolder(STAGE.as_ref(), 0o700)?;
        Ok(Self { id, run, stage })
    }

    /// Whether `journal` is that of this run.
    pub(crate) fn is_of(&self, journal: &Journal) -> bool {
        journal.run == self.id
    }

    /// Makes a folder in which a tool may work that runs as `user`; nobody else but root gets in.
    pub(crate) fn restore_folder(&self, data: &Folder, user: Owner) -> Result<Folder, Error> {
        let root = open_root(data)?.ok_or_else(|| Error::Foreign(data.path().join(ROOT)))?;
        // The user passes through both, and sees and changes nothing in them.
        for folder in [&root, &self.run] {
            folder.let_through()?;
        }
        let restore = self.run.make_subfolder(RESTORE.as_ref(), 0o700)?;
        restore.give_away(user)?;
        Ok(restore)
    }

    /// Removes that folder with what is in it.
    pub(crate) fn remove_restore_folder(&self) -> Result<(), Error> {
        if let Some(restore) = open(&self.run, RESTORE)? {
            clear(&restore)?;
            self.run.remove_subfolder(RESTORE.as_ref())?;
        }
        Ok(())
    }

    /// Notes that the metalogger is about to be stopped: whoever finds that starts it again.
    pub(crate) fn note_stop(&self, data: &Folder, state: &State) -> Result<(), Error> {
        let journal = Journal {
            run: self.id,
            data_path: data.path().to_owned(),
            phase: Phase::Stopping,
            set_aside: Vec::new(),
            staged: Vec::new(),
            metalogger_ran: true,
        };
        Ok(state.write_journal(&journal)?)
    }

    /// Moves `set_aside` out of the data folder and the staged set in, under a journal.
    pub(crate) fn commit(
        &self,
        data: &Folder,
        state: &State,
        set_aside: &[OsString],
        metalogger_ran: bool,
    ) -> Result<(), Error> {
        let mut staged = Vec::new();
        for name in self.stage.names()? {
            let Some(status) = self.stage.status(&name)? else { continue };
            let size = u64::try_from(status.st_size).unwrap_or_default();
            staged.push(StagedFile { name: name.to_string_lossy().into_owned(), inode: status.st_ino, size });
        }
        let journal = Journal {
            run: self.id,
            data_path: data.path().to_owned(),
            phase: Phase::Moving,
            set_aside: set_aside.iter().map(|name| name.to_string_lossy().into_owned()).collect(),
            staged,
            metalogger_ran,
        };
        state.write_journal(&journal)?;
        let aside = self.run.make_subfolder(ASIDE.as_ref(), 0o700)?;
        for name in set_aside {
            data.rename(name, &aside, name)?;
        }
        aside.sync()?;
        for file in &journal.staged {
            self.stage.rename(file.name.as_ref(), data, file.name.as_ref())?;
        }
        data.sync()?;
        state.write_journal(&Journal { phase: Phase::Starting, ..journal })?;
        Ok(())
    }

    /// Removes the work folder of a run that has nothing set aside.
    pub(crate) fn discard(self, data: &Folder) -> Result<(), Error> {
        remove_run(data, self.id)
    }
}

/// How a begun commit is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Undone {
    /// Every file is where it was.
    Back,
    /// The master had written: its history stays, what was set aside stays set aside.
    Kept,
}

/// Ends the commit that `journal` describes, with no master running. Killed at any point, it goes on when it is called
/// again; the journal is the caller's to clear, when all else is as it was too.
pub(crate) fn roll_back(data: &Folder, journal: &Journal) -> Result<Undone, Error> {
    let undone = outlook(data, journal)?;
    let Some(run) = open_run(data, journal.run)? else { return Ok(undone) };
    if undone == Undone::Back {
        // Only moved: until all is back, where a staged file lies is what tells that no master has written.
        if let Some(stage) = open(&run, STAGE)? {
            for file in &journal.staged {
                if let Some(name) = place_of(data, Some(&stage), file)? {
                    data.rename(name.as_ref(), &stage, file.name.as_ref())?;
                }
            }
            stage.sync()?;
        }
        let aside = open(&run, ASIDE)?;
        move_back(data, aside.as_ref(), journal.set_aside.iter().map(OsStr::new))?;
    }
    remove_run(data, journal.run)?;
    Ok(undone)
}

/// How [`roll_back`] will end the commit.
pub(crate) fn outlook(data: &Folder, journal: &Journal) -> Result<Undone, Error> {
    Ok(if master_wrote(data, journal)? { Undone::Kept } else { Undone::Back })
}

/// The data folder as it will look when [`roll_back`] has put everything back.
pub(crate) fn as_rolled_back(data: Folder, journal: &Journal) -> Result<Folder, Error> {
    let mut without = BTreeSet::new();
    let run = open_run(&data, journal.run)?;
    let stage = run.as_ref().map_or(Ok(None), |run| open(run, STAGE))?;
    for file in &journal.staged {
        without.extend(place_of(&data, stage.as_ref(), file)?.map(OsString::from));
    }
    let names = journal.set_aside.iter().map(OsString::from).collect();
    with_aside_back(data, journal.run, names, without)
}

/// The data folder as it will look when [`take_back_lost`] has put back what the run `id` has set aside.
pub(crate) fn as_taken_back(data: Folder, id: u64) -> Result<Folder, Error> {
    let run = open_run(&data, id)?;
    let within = |name| run.as_ref().map_or(Ok(None), |run| open(run, name));
    let (Some(stage), Some(aside)) = (within(STAGE)?, within(ASIDE)?) else { return Ok(data) };
    let mut without = BTreeSet::new();
    for name in [stage::IMAGE, stage::LOG, CLEAN_STOP_IMAGE] {
        if stage.status(name.as_ref())?.is_none() {
            without.insert(name.into());
        }
    }
    with_aside_back(data, id, aside.names()?, without)
}

fn with_aside_back(data: Folder, id: u64, names: Vec<OsString>, without: BTreeSet<OsString>) -> Result<Folder, Error> {
    let Some(run) = open_run(&data, id)? else { return Ok(data) };
    let Some(aside) = open(&run, ASIDE)? else { return Ok(data) };
    let mut back = BTreeSet::new();
    for name in names {
        if aside.status(&name)?.is_some() && (without.contains(&name) || data.status(&name)?.is_none()) {
            back.insert(name);
        }
    }
    Ok(data.viewed_with(aside, back, without))
}

/// Moves files out of `aside` to where they were.
fn move_back<'a>(
    data: &Folder,
    aside: Option<&Folder>,
    names: impl IntoIterator<Item = &'a OsStr>,
) -> Result<(), Error> {
    for name in names {
        let here = data.status(name)?.is_some();
        match aside {
            Some(aside) if aside.status(name)?.is_some() => {
                if here {
                    log::warn!("{name:?} appeared meanwhile; what was there before stays set aside");
                } else {
                    aside.rename(name, data, name)?;
                }
            }
            _ if here => (),
            _ => log::warn!("{name:?} is neither in {} nor set aside any more", data.path().display()),
        }
    }
    data.sync()?;
    Ok(aside.map_or(Ok(()), Folder::sync)?)
}

/// Moves back what runs have set aside that were killed while they moved files, and whose journal is lost: staged files
/// are left in the stage. Says how many files that were.
pub(crate) fn take_back_lost(data: &Folder) -> Result<usize, Error> {
    let mut count = 0;
    for id in lost_runs(data)? {
        let Some(run) = open_run(data, id)? else { continue };
        let (Some(stage), Some(aside)) = (open(&run, STAGE)?, open(&run, ASIDE)?) else { continue };
        let names: Vec<_> = aside.names()?.into_iter().filter(|name| !name.to_string_lossy().ends_with(HALF)).collect();
        // A part of the staged set reaches further than all that comes back, and lacks changes.
        for name in [stage::IMAGE, stage::LOG, CLEAN_STOP_IMAGE] {
            let half = OsString::from(format!("{name}{HALF}"));
            let moved_in = data.status(name.as_ref())?.is_some() && stage.status(name.as_ref())?.is_none();
            if moved_in && aside.status(&half)?.is_none() {
                data.rename(name.as_ref(), &aside, &half)?;
            }
        }
        count += names.len();
        move_back(data, Some(&aside), names.iter().map(OsString::as_os_str))?;
    }
    Ok(count)
}

/// The runs that have files both in the stage and set aside: they were moving them.
pub(crate) fn lost_runs(data: &Folder) -> Result<Vec<u64>, Error> {
    let mut lost = Vec::new();
    for id in runs(data)? {
        let Some(run) = open_run(data, id)? else { continue };
        let holds = |name| match open(&run, name)? {
            Some(folder) => Ok::<_, Error>(!folder.names()?.is_empty()),
            None => Ok(false),
        };
        if holds(STAGE)? && holds(ASIDE)? {
            lost.push(id);
        }
    }
    Ok(lost)
}

/// Whether a master has written since the commit began: then the files in place are no longer just what was staged.
fn master_wrote(data: &Folder, journal: &Journal) -> Result<bool, Error> {
    let run = open_run(data, journal.run)?;
    let within = |name| run.as_ref().map_or(Ok(None), |run| open(run, name));
    let (stage, aside) = (within(STAGE)?, within(ASIDE)?);
    let left = |folder: &Option<Folder>, name: &str| match folder {
        Some(folder) => Ok::<_, Error>(folder.status(name.as_ref())?.is_some()),
        None => Ok(false),
    };
    // Those of 1.x are written all the time, and are no history.
    let staged = || journal.staged.iter().filter(|file| file.name != SESSIONS);
    for file in staged() {
        let place = place_of(data, stage.as_ref(), file)?;
        if place.map_or(Ok(false), |name| size_of(data, name).map(|size| size != Some(file.size)))? {
            return Ok(true);
        }
    }
    let mut waiting = false;
    for name in &journal.set_aside {
        waiting |= left(&aside, name)?;
    }
    if journal.phase != Phase::Starting || (!waiting && !journal.set_aside.is_empty()) {
        // No master was started, or all is back already.
        return Ok(false);
    }
    for file in staged() {
        if place_of(data, stage.as_ref(), file)?.is_none() && !left(&stage, &file.name)? {
            return Ok(true);
        }
    }
    // What only a master that has served leaves beside what was staged, if it is not back already.
    for name in [CLEAN_STOP_IMAGE, stage::LOG] {
        let back = journal.set_aside.iter().any(|aside| aside == name) && !left(&aside, name)?;
        let staged = journal.staged.iter().any(|file| file.name == name);
        if !staged && !back && data.status(name.as_ref())?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Under which names a staged file may lie in the data folder: a start renames an image of the first name to the second
/// (1.x).
fn names_of(file: &StagedFile) -> &[&str] {
    match file.name.as_str() {
        CLEAN_STOP_IMAGE => &[CLEAN_STOP_IMAGE, stage::IMAGE],
        stage::IMAGE => &[stage::IMAGE],
        stage::LOG => &[stage::LOG],
        _ => &[SESSIONS],
    }
}

/// Under which name a staged file lies in the data folder. One that is in the stage still is not there, even if a number is
/// the same: the folder may have been copied since.
fn place_of<'a>(data: &Folder, stage: Option<&Folder>, file: &'a StagedFile) -> Result<Option<&'a str>, Error> {
    if stage.map_or(Ok(None), |stage| stage.status(file.name.as_ref()))?.is_some() {
        return Ok(None);
    }
    for name in names_of(file) {
        if data.status(name.as_ref())?.is_some_and(|status| status.st_ino == file.inode) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

fn size_of(data: &Folder, name: &str) -> Result<Option<u64>, Error> {
    Ok(data.status(name.as_ref())?.and_then(|status| u64::try_from(status.st_size).ok()))
}

/// Removes what runs have staged that were killed, and their folders if nothing is set aside in them: it takes room that
/// the next stage needs.
pub(crate) fn sweep(data: &Folder) -> Result<(), Error> {
    runs(data)?.into_iter().try_for_each(|id| remove_run(data, id))?;
    match open_root(data)? {
        Some(root) if root.names()?.is_empty() => Ok(data.remove_subfolder(ROOT.as_ref())?),
        _ => Ok(()),
    }
}

/// Archives what ended runs have set aside, removes the originals, and returns the archives' names.
pub(crate) fn archive_leftovers(data: &Folder, config: &Config, cancel: &Cancel) -> Result<Vec<String>, Error> {
    let mut archives = Vec::new();
    for id in runs(data)? {
        let Some(run) = open_run(data, id)? else { continue };
        if let Some(aside) = open(&run, ASIDE)? {
            if !aside.names()?.is_empty() {
                let backup = match open(data, BACKUP)? {
                    Some(backup) => backup,
                    None => data.make_subfolder(BACKUP.as_ref(), 0o700)?,
                };
                if !backup.is_ours()? {
                    return Err(Error::Unsafe(backup.path().to_owned()));
                }
                let stem = format!("metabak.{id}");
                let (format, level) = (config.archive_format, config.archive_level);
                let name = archive::write(&aside, &backup, &stem, format, level, cancel)?.name;
                clear(&aside)?;
                archives.push(format!("{BACKUP}/{}", name.to_string_lossy()));
            }
        }
        remove_run(data, id)?;
    }
    Ok(archives)
}

/// Archives what was set aside, by this run and by interrupted ones, at the lowest priority.
pub(crate) fn archive_all(machine: &Machine, run: &mut Run, cancel: &Cancel) {
    let _ = rustix::process::nice(19);
    if !matches!(machine.state.journal(), Ok(None)) {
        // What is set aside may have to come back.
        log::warn!("cannot remove the journal; the next run will archive the old files");
        return;
    }
    if let Err(e) = rehearsal_folder::sweep(&machine.data) {
        log::warn!("cannot remove the folder of a rehearsal: {}", chain(&e));
    }
    let progress = Progress::show("archiving what was set aside", || None);
    let result = archive_leftovers(&machine.data, &machine.config, cancel);
    drop(progress);
    match result {
        Ok(archives) if archives.is_empty() => (),
        Ok(archives) => {
            let names = archives.join(", ");
            run.done(
                StepName::Archive,
                format_args!("{names} written, read back and compared; the originals are removed"),
            );
            run.record.archive = Some(names);
        }
        Err(Error::Archive(archive::Error::Cancelled(_))) => log::info!("archive: postponed for a later call"),
        Err(e) => {
            log::warn!("the files set aside stay in {}/mfs-promote: {}", machine.data.path().display(), chain(&e));
        }
    }
}

/// The runs that left a work folder, oldest first.
pub(crate) fn runs(data: &Folder) -> Result<Vec<u64>, Error> {
    let Some(root) = open_root(data)? else { return Ok(Vec::new()) };
    let mut ids: Vec<u64> = root.names()?.iter().filter_map(|name| name.to_str()?.parse().ok()).collect();
    ids.sort_unstable();
    Ok(ids)
}

fn open_root(data: &Folder) -> Result<Option<Folder>, Error> {
    let Some(root) = open(data, ROOT)? else { return Ok(None) };
    if root.is_ours()? { Ok(Some(root)) } else { Err(Error::Foreign(root.path().to_owned())) }
}

fn open_run(data: &Folder, id: u64) -> Result<Option<Folder>, Error> {
    let Some(root) = open_root(data)? else { return Ok(None) };
    open(&root, number(id))
}

fn open(folder: &Folder, name: impl AsRef<OsStr>) -> Result<Option<Folder>, Error> {
    match folder.subfolder(name.as_ref()) {
        Ok(found) => Ok(Some(found)),
        Err(e) if e.is_not_found() => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn clear(folder: &Folder) -> Result<(), Error> {
    for name in folder.names()? {
        folder.remove(&name)?;
    }
    Ok(folder.sync()?)
}

/// Removes what a run has staged, and its folder if nothing is set aside in it, and the folder of all runs if this was
/// the last. What is gone already is no error.
fn remove_run(data: &Folder, id: u64) -> Result<(), Error> {
    let (Some(root), Some(run)) = (open_root(data)?, open_run(data, id)?) else { return Ok(()) };
    for name in [STAGE, RESTORE] {
        if let Some(folder) = open(&run, name)? {
            clear(&folder)?;
            run.remove_subfolder(name.as_ref())?;
        }
    }
    if let Some(aside) = open(&run, ASIDE)? {
        if !aside.names()?.is_empty() {
            return Ok(());
        }
        run.remove_subfolder(ASIDE.as_ref())?;
    }
    root.remove_subfolder(&number(id))?;
    if root.names()?.is_empty() {
        data.remove_subfolder(ROOT.as_ref())?;
    }
    Ok(())
}

fn number(id: u64) -> OsString {
    OsString::from(id.to_string())
}

#[cfg(test)]
mod tests;
