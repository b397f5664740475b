//! The folders of runs inside the data folder, and the renames of a commit.
//!
//! `DATA_PATH/mfs-promote/<run>/stage` is where the clean set is prepared, `…/aside` where everything else goes, and
//! `…/journal.json` names the files that are moved. All of it lies in the data folder so that a rename is enough, and
//! belongs to root alone (0700) so that no other user can change what was checked. Nothing is deleted from `aside`
//! before a verified archive holds it.
//!
//! A commit is described in the journal before its first rename. Until a master may have started, it is undone by the
//! same renames the other way. After that, the files decide: a history that the master has written to is kept. Undoing
//! removes nothing before every file is back, and needs no room on the disk.
//!
//! What a power cut can leave. The journal is written under another name, flushed, renamed, and its folder flushed, all
//! before the first file moves; and it is removed only after all moves were flushed. So:
//!
//! - With a journal in phase `moving`, each file is in one of its two places, in any combination: the renames are
//!   flushed together, and their order says nothing. The journal names all of them.
//! - Where the file system cannot rename without replacing, a file that was being moved can have both of its names. Such
//!   a move is ended the way the recovery goes: the name that the file has to lose is removed.
//! - With a journal in phase `starting`, every rename is on the disk.
//! - A journal is the old text or the new one, never half of it.
//! - A run without a journal has not moved any file yet, or it has ended. Its stage is a copy, which can go. The files
//!   it has set aside belong in the archive.
//!
//! A journal that is missing while files are half moved, or that cannot be read, is therefore no trace of a run that
//! was interrupted. A damaged disk leaves it, or an administrator. (The user of the daemons owns the data folder and
//! can rename `mfs-promote` as a whole, with the journal in it, but cannot change what is in it.) Such a run is an
//! error that names the folder, and nothing in it is touched: without a journal no rule knows which of two files is the
//! newer one, and archiving `aside` would let the next promotion plan without changes that were served.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use rustix::fs::{FileType, Stat};

use crate::machine::config::Config;
use crate::machine::journal::{Journal, Phase, StagedFile};
use crate::machine::outcome::StepName;
use crate::machine::run::Run;
use crate::machine::space::ArchiveRoom;
use crate::machine::{Machine, archive, rehearsal_folder};
use crate::metadata::stage;
pub(crate) use crate::moosefs::CLEAN_STOP_IMAGE;
use crate::moosefs::waiting::ROOT;
use crate::moosefs::{self, Daemon};
use crate::sys::cancel::Cancel;
use crate::sys::folder::{self, Folder, Owner};
use crate::sys::json_file;
use crate::sys::logging::chain;
use crate::sys::terminal::Progress;
use crate::sys::text::when;
use crate::sys::trust::changeable;

const STAGE: &str = "stage";
const ASIDE: &str = "aside";
/// Where archives are kept, as in the howto.
const BACKUP: &str = "bak";
/// A file or folder with which it is tried whether files can be moved; a process number ends the name.
const TRIAL: &str = ".mfs-promote-trial.";
/// Where a tool works that runs as the user of the daemons.
const RESTORE: &str = "restore";
/// The client sessions of MooseFS 1.x.
pub(crate) const SESSIONS: &str = "sessions.mfs";

/// Why files could not be moved.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A rename failed, or a file cannot be looked at.
    #[error(transparent)]
    Folder(#[from] folder::Error),
    /// The journal could not be written or removed.
    #[error(transparent)]
    Journal(#[from] json_file::Error),
    /// The journal of an earlier run cannot be read.
    #[error(
        "the journal of the run of {} cannot be read, so no file of that run is touched. Compare {path}/aside with the \
         data folder, move back the files that are missing there, then move {path} away", when(*run),
        path = path.display()
    )]
    BadJournal {
        /// The run.
        run: u64,
        /// Its folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: json_file::Error,
    },
    /// Some files of an earlier run are moved and some are not, and nothing says which belong where.
    #[error(
        "the run of {} has moved only a part of its files and its journal is gone, so no file of that run is touched. \
         Move the files in {path}/aside back to the data folder, then move {path} away", when(*run),
        path = path.display()
    )]
    NoJournal {
        /// The run.
        run: u64,
        /// Its folder.
        path: PathBuf,
    },
    /// Whether a master runs is not known.
    #[error(transparent)]
    MooseFs(#[from] moosefs::Error),
    /// The folder of all runs was made by another user.
    #[error("{} belongs to another user, so mfs-promote did not make it; move it away", .0.display())]
    Foreign(PathBuf),
    /// An archive there could be exchanged before the originals are removed.
    #[error(
        "{path} can be changed by others than root, so no archive is safe in it; run: chown root {path} && chmod 700 \
         {path}",
        path = .0.display()
    )]
    Unsafe(PathBuf),
    /// The folder of archives is a link that is not followed.
    #[error(
        "{} is a link, and {why}. Archives follow a link that root has made, to the full path of a folder that root alone \
         can change. Correct it, or mount the other disk on a folder of that name", path.display()
    )]
    Link {
        /// The link.
        path: PathBuf,
        /// Why it is not followed.
        why: String,
    },
    /// The folder of all runs is on another file system than the data.
    #[error("{} is on another file system than the folder above it, so no file can be moved there; unmount it", .0.display())]
    Mounted(PathBuf),
    /// The archive was not made.
    #[error(transparent)]
    Archive(#[from] archive::Error),
}

/// The folder of one run.
#[derive(Debug)]
pub(crate) struct RunFolder {
    id: u64,
    root: Folder,
    run: Folder,
    /// Where the clean set is prepared.
    pub(crate) stage: Folder,
}

impl RunFolder {
    /// Makes the folder of the run that started at `id`, in unix seconds. If there was a run in that second already,
    /// the next free second names it.
    pub(crate) fn create(data: &Folder, id: u64) -> Result<Self, Error> {
        let root = make_root(data)?;
        let mut id = id;
        while root.status(&number(id))?.is_some() {
            id += 1;
        }
        let run = root.make_subfolder(&number(id), 0o700)?;
        let stage = run.make_subfolder(STAGE.as_ref(), 0o700)?;
        // A file system that cannot do it must be found before anything is stopped or moved.
        try_move(&stage, data)?;
        Ok(Self { id, root, run, stage })
    }

    /// Makes a folder in which a tool may work that runs as `user`. Other users but root cannot enter it.
    pub(crate) fn restore_folder(&self, user: Owner) -> Result<Folder, Error> {
        // The user passes through both, and sees and changes nothing in them.
        for folder in [&self.root, &self.run] {
            folder.let_through()?;
        }
        let restore = self.run.make_subfolder(RESTORE.as_ref(), 0o700)?;
        restore.give_away(user)?;
        Ok(restore)
    }

    /// Removes that folder with all files in it.
    pub(crate) fn remove_restore_folder(&self) -> Result<(), Error> {
        remove_files(&self.run, RESTORE)
    }

    /// Notes that the metalogger is about to be stopped: a run that finds this note starts it again.
    pub(crate) fn note_stop(&self) -> Result<(), Error> {
        let journal =
            Journal { phase: Phase::Stopping, set_aside: Vec::new(), staged: Vec::new(), metalogger_ran: true };
        Ok(journal.write(&self.run)?)
    }

    /// Moves `set_aside` out of the data folder and the staged set in, under a journal.
    ///
    /// If this fails half-way, the journal and the moved files stay, and `recover::finish_interrupted` puts them back.
    pub(crate) fn commit(
        self,
        data: &Folder,
        set_aside: &[OsString],
        metalogger_ran: bool,
    ) -> Result<Unfinished, Error> {
        let mut staged = Vec::new();
        for name in self.stage.names()? {
            let Some(status) = self.stage.status(&name)? else { continue };
            let size = u64::try_from(status.st_size).unwrap_or_default();
            staged.push(StagedFile { name: name.to_string_lossy().into_owned(), inode: status.st_ino, size });
        }
        let set_aside_names = set_aside.iter().map(|name| name.to_string_lossy().into_owned()).collect();
        let mut journal = Journal { phase: Phase::Moving, set_aside: set_aside_names, staged, metalogger_ran };
        journal.write(&self.run)?;
        let aside = self.run.make_subfolder(ASIDE.as_ref(), 0o700)?;
        for name in set_aside {
            data.rename(name, &aside, name)?;
        }
        aside.sync()?;
        for file in &journal.staged {
            self.stage.rename(file.name.as_ref(), data, file.name.as_ref())?;
        }
        data.sync()?;
        journal.phase = Phase::Starting;
        journal.write(&self.run)?;
        Ok(Unfinished { id: self.id, run: self.run, journal })
    }

    /// Removes the folder of a run that has not moved any file.
    pub(crate) fn discard(self, data: &Folder) -> Result<(), Error> {
        remove_run(data, self.id)
    }
}

/// How a run is ended that was interrupted, or failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recovery {
    /// Its master runs, and goes on.
    KeepRunning,
    /// Its master has written and does not run any more. That history stays in place, and the files set aside
    /// will be archived.
    Keep,
    /// Every file goes back to where it was.
    RollBack,
}

/// A run that has begun to change things: one with a journal.
#[derive(Debug)]
pub(crate) struct Unfinished {
    id: u64,
    run: Folder,
    journal: Journal,
}

/// The runs that were interrupted, the newest first: a later run has built on the files of an earlier one, so it is
/// undone before that. More than one is not to be expected, because each run first ends those before it.
pub(crate) fn unfinished(data: &Folder) -> Result<Vec<Unfinished>, Error> {
    let mut found = Vec::new();
    for id in runs(data)?.into_iter().rev() {
        let Some(run) = open_run(data, id)? else { continue };
        match Journal::read(&run) {
            Ok(Some(journal)) => found.push(Unfinished { id, run, journal }),
            Ok(None) if holds_files(&run, STAGE)? && holds_files(&run, ASIDE)? => {
                return Err(Error::NoJournal { run: id, path: run.path().to_owned() });
            }
            Ok(None) => (),
            Err(source) => return Err(Error::BadJournal { run: id, path: run.path().to_owned(), source }),
        }
    }
    Ok(found)
}

impl Unfinished {
    /// When the run started, in unix seconds.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Its journal.
    pub(crate) fn journal(&self) -> &Journal {
        &self.journal
    }

    /// How it must be ended. A roll-back that was interrupted is found to be a roll-back again.
    pub(crate) fn recovery(&self, data: &Folder) -> Result<Recovery, Error> {
        if self.journal.phase == Phase::Starting && moosefs::running(data, Daemon::Master)?.is_some() {
            return Ok(Recovery::KeepRunning);
        }
        Ok(if self.master_wrote(data)? { Recovery::Keep } else { Recovery::RollBack })
    }

    /// Moves every file back to where it was; no master may run. Killed at any point, the next call goes on. The
    /// journal stays until [`Unfinished::finish`]: there may be more to undo than files.
    pub(crate) fn roll_back(&self, data: &Folder) -> Result<(), Error> {
        // Only moved: until all is back, a staged file that is not in the stage tells that a master has written.
        if let Some(stage) = open(&self.run, STAGE)? {
            for file in &self.journal.staged {
                for name in names_of(file) {
                    data.remove_second_name(name.as_ref(), &stage, file.name.as_ref())?;
                }
                if let Some(name) = place_of(data, Some(&stage), file)? {
                    data.rename(name.as_ref(), &stage, file.name.as_ref())?;
                }
            }
            stage.sync()?;
        }
        self.move_back(data)?;
        remove_files(&self.run, STAGE)
    }

    /// The run has ended: a master serves, or everything is as it was. Removes the journal. From now on, files that are
    /// still set aside can be archived.
    pub(crate) fn finish(self) -> Result<(), Error> {
        // First: files in the stage and set aside without a journal are those of a run that lost its journal.
        remove_files(&self.run, STAGE)?;
        Ok(Journal::remove(&self.run)?)
    }

    /// Moves all files out of `aside` to where they were.
    fn move_back(&self, data: &Folder) -> Result<(), Error> {
        let aside = open(&self.run, ASIDE)?;
        if let Some(aside) = &aside {
            for name in aside.names()? {
                if aside.remove_second_name(&name, data, &name)? {
                    continue;
                }
                if data.status(&name)?.is_some() {
                    log::warn!(
                        "a new {name:?} has appeared in {}; the one of before stays set aside",
                        data.path().display()
                    );
                } else {
                    aside.rename(&name, data, &name)?;
                }
            }
        }
        let here: BTreeSet<_> = data.names()?.iter().map(|name| name.to_string_lossy().into_owned()).collect();
        for name in self.journal.set_aside.iter().filter(|name| !here.contains(*name)) {
            log::warn!("{name:?} is neither in {} nor set aside any more", data.path().display());
        }
        data.sync()?;
        Ok(aside.as_ref().map_or(Ok(()), Folder::sync)?)
    }

    /// Whether a master has written since the commit began, so that the files in place are no longer just the staged ones, or
    /// has been proved to serve them.
    fn master_wrote(&self, data: &Folder) -> Result<bool, Error> {
        let Self { run, journal, .. } = self;
        let (stage, aside) = (open(run, STAGE)?, open(run, ASIDE)?);
        let left = |folder: Option<&Folder>, name: &str| match folder {
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
        let all_back = !journal.set_aside.is_empty() && !holds_files(run, ASIDE)?;
        if journal.phase != Phase::Starting || all_back {
            // No master was started, or the run is rolled back already.
            return Ok(false);
        }
        if stage.is_none() {
            // Else only a run whose master serves removes its stage, and then its journal.
            return Ok(true);
        }
        for file in staged() {
            if place_of(data, stage.as_ref(), file)?.is_none() && !left(stage.as_ref(), &file.name)? {
                return Ok(true);
            }
        }
        // Only a master that has served leaves these beside what was staged; unless they are back already.
        for name in [CLEAN_STOP_IMAGE, stage::LOG] {
            let still_aside = match &aside {
                Some(aside) => left(Some(aside), name)? && !aside.is_same_file(name.as_ref(), data, name.as_ref())?,
                None => false,
            };
            let back = journal.set_aside.iter().any(|aside| aside == name) && !still_aside;
            let staged = journal.staged.iter().any(|file| file.name == name);
            if !staged && !back && data.status(name.as_ref())?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
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

/// Under which name a staged file lies in the data folder. Another one that is in the stage still is not there, even if a
/// number is the same: the folder may have been copied since.
fn place_of<'a>(data: &Folder, stage: Option<&Folder>, file: &'a StagedFile) -> Result<Option<&'a str>, Error> {
    let staged = stage.map_or(Ok(None), |stage| stage.status(file.name.as_ref()))?;
    for name in names_of(file) {
        let Some(here) = data.status(name.as_ref())? else { continue };
        let same = staged.as_ref().is_none_or(|staged| (staged.st_dev, staged.st_ino) == (here.st_dev, here.st_ino));
        if same && here.st_ino == file.inode {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

fn size_of(data: &Folder, name: &str) -> Result<Option<u64>, Error> {
    Ok(data.status(name.as_ref())?.and_then(|status| u64::try_from(status.st_size).ok()))
}

/// Removes the stages of ended runs, and their folders if nothing is set aside in them. A run that was killed leaves a
/// stage, which takes room that the next one needs.
pub(crate) fn sweep(data: &Folder) -> Result<(), Error> {
    sweep_trials(data)?;
    runs(data)?.into_iter().try_for_each(|id| remove_run(data, id))?;
    match open_root(data)? {
        Some(root) if root.names()?.is_empty() => Ok(data.remove_subfolder(ROOT.as_ref())?),
        _ => Ok(()),
    }
}

/// Archives the files that ended runs have set aside, removes the originals, and returns the names of the archives. A
/// run that still has its journal is left to the next run: its files may have to go back.
pub(crate) fn archive_leftovers(data: &Folder, config: &Config, cancel: &Cancel) -> Result<Vec<String>, Error> {
    let mut archives = Vec::new();
    for id in runs(data)? {
        let Some(run) = open_run(data, id)? else { continue };
        if Journal::exists(&run)? {
            log::warn!("the run of {} still has its journal; the next run archives its files", when(id));
            continue;
        }
        if let Some(aside) = open(&run, ASIDE)? {
            if !aside.names()?.is_empty() {
                let backup = match open_backup(data)? {
                    Some(backup) => backup,
                    None => data.make_subfolder(BACKUP.as_ref(), 0o700)?,
                };
                let stem = format!("metabak.{id}");
                let (format, level) = (config.archive_format, config.archive_level);
                let room = ArchiveRoom::of(data, &aside, &backup)?;
                let name = archive::write(&aside, &backup, &stem, format, level, room, cancel)?;
                clear(&aside)?;
                archives.push(format!("{BACKUP}/{}", name.to_string_lossy()));
            }
        }
        remove_run(data, id)?;
    }
    Ok(archives)
}

/// The room for the next archive of what ended runs have set aside; `None` if there is nothing to archive.
pub(crate) fn archive_room(data: &Folder) -> Result<Option<ArchiveRoom>, Error> {
    for id in runs(data)? {
        let Some(run) = open_run(data, id)? else { continue };
        if let Some(aside) = open(&run, ASIDE)?.filter(|_| !matches!(Journal::exists(&run), Ok(true))) {
            let backup = open_backup(data)?;
            return Ok(Some(ArchiveRoom::of(data, &aside, backup.as_ref().unwrap_or(data))?));
        }
    }
    Ok(None)
}

/// Why that archive cannot be written, in words.
pub(crate) fn archive_obstacle(data: &Folder) -> Option<String> {
    match archive_room(data) {
        Err(e) => Some(chain(&e)),
        Ok(room) => room.filter(|room| !room.fits()).map(|room| format!("not enough space: {room}")),
    }
}

/// The folder of archives, or the one that root's link in its place leads to; `None` if there is none yet.
fn open_backup(data: &Folder) -> Result<Option<Folder>, Error> {
    let backup = match data.subfolder(BACKUP.as_ref()) {
        Ok(found) => found,
        Err(e) if e.is_not_found() => return Ok(None),
        Err(folder::Error::NotAFolder { path }) => linked_backup(data, path)?,
        Err(e) => return Err(e.into()),
    };
    if backup.is_ours()? { Ok(Some(backup)) } else { Err(Error::Unsafe(backup.path().to_owned())) }
}

/// Follows the link in the place of the folder of archives. The user of the daemons can put a link there, but not one of
/// root.
fn linked_backup(data: &Folder, path: PathBuf) -> Result<Folder, Error> {
    let link = data.status(BACKUP.as_ref())?;
    let is_link = |status: &Stat| FileType::from_raw_mode(status.st_mode) == FileType::Symlink;
    let Some(link) = link.filter(is_link) else { return Err(folder::Error::NotAFolder { path }.into()) };
    let refused = |why: String| Error::Link { path: path.clone(), why };
    if link.st_uid != 0 {
        return Err(refused(format!("user {} has made it", link.st_uid)));
    }
    let target = data.link_target(BACKUP.as_ref())?;
    if !target.is_absolute() {
        return Err(refused(format!("leads to {}, which is no full path", target.display())));
    }
    match changeable(&target).and_then(|changeable| Ok((changeable, target.canonicalize()?))) {
        Ok((None, real)) => Ok(Folder::open(&real)?),
        Ok((Some(changeable), _)) => Err(refused(format!("others than root can change {}", changeable.display()))),
        Err(e) => Err(refused(format!("it leads to {}: {e}", target.display()))),
    }
}

/// Tries, with a file and a folder of its own that it removes again, whether a promotion could move files between the data
/// folder and its own folders.
pub(crate) fn try_moves(data: &Folder) -> Result<(), Error> {
    if let Some(root) = open_root(data)? {
        if root.own_status()?.st_dev != data.own_status()?.st_dev {
            return Err(Error::Mounted(root.path().to_owned()));
        }
    }
    let name = trial("folder");
    let work = data.make_subfolder(&name, 0o700)?;
    let moved = try_move(&work, data);
    match moved.and(data.remove_subfolder(&name)) {
        // A promotion that begins meanwhile takes it for a leftover.
        Err(e) if e.is_not_found() => Ok(()),
        tried => Ok(tried?),
    }
}

/// Tries whether an archive could be written.
pub(crate) fn try_archive(data: &Folder) -> Result<(), Error> {
    let backup = open_backup(data)?;
    match backup.as_ref().unwrap_or(data).try_write(&trial("archive")) {
        Err(e) if e.is_not_found() => Ok(()),
        tried => Ok(tried?),
    }
}

/// Moves an empty file out of the folder `work` and back.
fn try_move(work: &Folder, data: &Folder) -> Result<(), folder::Error> {
    let name = trial("file");
    drop(work.create(&name, 0o600)?);
    let moved = work.rename(&name, data, &name).and_then(|()| data.rename(&name, work, &name));
    let removed = work.remove(&name);
    moved?;
    removed
}

fn trial(what: &str) -> OsString {
    OsString::from(format!("{TRIAL}{what}.{}", std::process::id()))
}

/// Removes what a process left that was killed while it tried.
fn sweep_trials(data: &Folder) -> Result<(), Error> {
    for name in data.names()?.iter().filter(|name| name.as_encoded_bytes().starts_with(TRIAL.as_bytes())) {
        match data.subfolder(name) {
            Ok(folder) if folder.is_ours()? => {
                clear(&folder)?;
                data.remove_subfolder(name)?;
            }
            Err(folder::Error::NotAFolder { .. }) => data.remove(name)?,
            // Of another user, or gone by now.
            Ok(_) | Err(_) => (),
        }
    }
    Ok(())
}

/// Archives what was set aside, by this run and by interrupted ones, at the lowest priority.
pub(crate) fn archive_all(machine: &Machine, run: &mut Run, cancel: &Cancel) {
    let _ = rustix::process::nice(19);
    if let Err(e) = rehearsal_folder::sweep(&machine.data, &machine.config.instance) {
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

/// The runs that have a folder, oldest first.
pub(crate) fn runs(data: &Folder) -> Result<Vec<u64>, Error> {
    let Some(root) = open_root(data)? else { return Ok(Vec::new()) };
    let mut ids: Vec<u64> = root.names()?.iter().filter_map(|name| name.to_str()?.parse().ok()).collect();
    ids.sort_unstable();
    Ok(ids)
}

/// Moves files out of the data folder for the next archive.
pub(super) fn set_aside(data: &Folder, id: u64, names: &[OsString]) -> Result<(), Error> {
    let RunFolder { run, .. } = RunFolder::create(data, id)?;
    let aside = run.make_subfolder(ASIDE.as_ref(), 0o700)?;
    for name in names {
        data.rename(name, &aside, name)?;
    }
    aside.sync()?;
    Ok(data.sync()?)
}

/// The folder `name` beside those of the runs.
pub(super) fn open_beside(data: &Folder, name: &str) -> Result<Option<Folder>, Error> {
    match open_root(data)? {
        Some(root) => open(&root, name),
        None => Ok(None),
    }
}

/// Removes that folder with all files in it, and the folder of all runs if it was the last one. Another run may do the same.
pub(super) fn remove_beside(data: &Folder, name: &str) -> Result<(), Error> {
    let gone = |done: Result<(), folder::Error>| match done {
        Err(e) if e.is_not_found() => Ok(()),
        done => done,
    };
    let Some(folder) = open_beside(data, name)? else { return Ok(()) };
    for file in folder.names()? {
        gone(folder.remove(&file))?;
    }
    if let Some(root) = open_root(data)? {
        gone(root.remove_subfolder(name.as_ref()))?;
        if root.names()?.is_empty() {
            gone(data.remove_subfolder(ROOT.as_ref()))?;
        }
    }
    Ok(())
}

/// The folder of all runs, made if it is not there.
pub(super) fn make_root(data: &Folder) -> Result<Folder, Error> {
    match open_root(data)? {
        Some(root) => Ok(root),
        None => Ok(data.make_subfolder(ROOT.as_ref(), 0o700)?),
    }
}

pub(super) fn open_root(data: &Folder) -> Result<Option<Folder>, Error> {
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

/// Whether there are files in the folder `name` of a run.
fn holds_files(run: &Folder, name: &str) -> Result<bool, Error> {
    Ok(match open(run, name)? {
        Some(folder) => !folder.names()?.is_empty(),
        None => false,
    })
}

fn clear(folder: &Folder) -> Result<(), Error> {
    for name in folder.names()? {
        folder.remove(&name)?;
    }
    Ok(folder.sync()?)
}

/// Removes the folder `name` of a run with all files in it, if it is there.
fn remove_files(run: &Folder, name: &str) -> Result<(), Error> {
    if let Some(folder) = open(run, name)? {
        clear(&folder)?;
        run.remove_subfolder(name.as_ref())?;
    }
    Ok(())
}

/// Removes the stage of an ended run, its folder if nothing is set aside in it, and the folder of all runs if this was
/// the last one. A run with a journal has not ended, and stays as it is.
fn remove_run(data: &Folder, id: u64) -> Result<(), Error> {
    let (Some(root), Some(run)) = (open_root(data)?, open_run(data, id)?) else { return Ok(()) };
    if Journal::exists(&run)? {
        return Ok(());
    }
    for name in [STAGE, RESTORE] {
        remove_files(&run, name)?;
    }
    if let Some(aside) = open(&run, ASIDE)? {
        if !aside.names()?.is_empty() {
            return Ok(());
        }
        run.remove_subfolder(ASIDE.as_ref())?;
    }
    // A run that was killed while it wrote its journal leaves it under another name.
    Journal::remove(&run)?;
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
