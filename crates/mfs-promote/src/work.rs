//! The work folders inside the data folder, and the renames of a commit.
//!
//! `DATA_PATH/mfs-promote/<run>/stage` is where the clean set is prepared, `…/aside` where everything else goes. They
//! lie in the data folder so that a rename is all it takes, and belong to root alone so that nobody changes what was
//! checked. Nothing is ever deleted from `aside` before a verified archive holds it.
//!
//! A commit is described in the journal before its first rename. Until a master may have started, undoing it is the
//! same renames the other way; afterwards, what the master wrote decides: a history that grew is kept.

use std::ffi::{OsStr, OsString};

use failover::archive;
use failover::cancel::Cancel;
use failover::config::Config;
use failover::folder::{self, Folder, Owner};
use failover::metadata::stage;
use failover::state::{self, Journal, Phase, StagedFile, State};

const ROOT: &str = "mfs-promote";
const STAGE: &str = "stage";
const ASIDE: &str = "aside";
/// Where archives are kept, as in the howto.
const BACKUP: &str = "bak";
/// Where a tool that runs as the user of the daemons works.
const RESTORE: &str = "restore";
/// The image of a clean stop: a master that wrote it has served. For MooseFS 1.x it is also the staged image.
pub(crate) const CLEAN_STOP_IMAGE: &str = "metadata.mfs";
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
    /// The archive was not made.
    #[error(transparent)]
    Archive(#[from] archive::Error),
}

/// The work folder of one run.
#[derive(Debug)]
pub(crate) struct Work {
    id: u64,
    run: Folder,
    /// Where the clean set is prepared.
    pub(crate) stage: Folder,
}

impl Work {
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
        self.run.sync()?;
        for file in &journal.staged {
            self.stage.rename(file.name.as_ref(), data, file.name.as_ref())?;
        }
        data.sync()?;
        state.write_journal(&Journal { phase: Phase::Starting, ..journal })?;
        Ok(())
    }

    /// Removes the work folder of a run that moved nothing.
    pub(crate) fn discard(self, data: &Folder) -> Result<(), Error> {
        clear(&self.stage)?;
        self.remove_restore_folder()?;
        self.run.remove_subfolder(STAGE.as_ref())?;
        remove_run(data, self.id)
    }
}

/// How a begun commit was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Undone {
    /// Every file is where it was.
    Back,
    /// The master had written: its history stays, what was set aside stays set aside.
    Kept,
}

/// Ends the commit that `journal` describes, with no master running.
pub(crate) fn roll_back(data: &Folder, state: &State, journal: &Journal) -> Result<Undone, Error> {
    if journal.phase == Phase::Starting && master_wrote(data, journal)? {
        state.clear_journal()?;
        return Ok(Undone::Kept);
    }
    if let Some(run) = open_run(data, journal.run)? {
        // The staged set goes: it was made from what comes back now.
        for file in &journal.staged {
            if let Some(name) = place_of(data, &[&file.name, stage::IMAGE], file, false)? {
                data.remove(name.as_ref())?;
            }
        }
        if let Some(aside) = open(&run, ASIDE)? {
            for name in &journal.set_aside {
                let name = OsStr::new(name);
                if aside.status(name)?.is_none() {
                    continue;
                }
                if data.status(name)?.is_some() {
                    log::warn!("{name:?} appeared meanwhile; what was there before stays set aside");
                    continue;
                }
                aside.rename(name, data, name)?;
            }
            if aside.names()?.is_empty() {
                run.remove_subfolder(ASIDE.as_ref())?;
            }
        }
        data.sync()?;
    }
    state.clear_journal()?;
    Ok(Undone::Back)
}

/// Whether the files in place are no longer just what was staged.
fn master_wrote(data: &Folder, journal: &Journal) -> Result<bool, Error> {
    // Those of 1.x are written all the time, and are no history.
    for file in journal.staged.iter().filter(|file| file.name != SESSIONS) {
        // A start renames an image of the first name to the second (1.x).
        let names = if file.name == CLEAN_STOP_IMAGE {
            [CLEAN_STOP_IMAGE, stage::IMAGE].as_slice()
        } else {
            &[file.name.as_str()]
        };
        if place_of(data, names, file, true)?.is_none() {
            return Ok(true);
        }
    }
    // What only a master that has served leaves beside what was staged.
    for name in [CLEAN_STOP_IMAGE, stage::LOG] {
        if !journal.staged.iter().any(|file| file.name == name) && data.status(name.as_ref())?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Under which of `names` a staged file lies in the data folder; if asked, only at its full size and no more.
fn place_of<'a>(data: &Folder, names: &[&'a str], file: &StagedFile, whole: bool) -> Result<Option<&'a str>, Error> {
    for name in names {
        let Some(status) = data.status(name.as_ref())? else { continue };
        if status.st_ino == file.inode && (!whole || u64::try_from(status.st_size) == Ok(file.size)) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// Archives what ended runs have set aside, removes the originals, and returns the archives' names.
pub(crate) fn archive_leftovers(data: &Folder, config: &Config, cancel: &Cancel) -> Result<Vec<String>, Error> {
    let mut archives = Vec::new();
    for id in runs(data)? {
        let Some(run) = open_run(data, id)? else { continue };
        for name in [STAGE, RESTORE] {
            if let Some(folder) = open(&run, name)? {
                clear(&folder)?;
                run.remove_subfolder(name.as_ref())?;
            }
        }
        if let Some(aside) = open(&run, ASIDE)? {
            if !aside.names()?.is_empty() {
                let backup = match open(data, BACKUP)? {
                    Some(backup) => backup,
                    None => data.make_subfolder(BACKUP.as_ref(), 0o700)?,
                };
                let stem = format!("metabak.{id}");
                let (format, level) = (config.archive_format, config.archive_level);
                let name = archive::write(&aside, &backup, &stem, format, level, cancel)?.name;
                clear(&aside)?;
                archives.push(format!("{BACKUP}/{}", name.to_string_lossy()));
            }
            run.remove_subfolder(ASIDE.as_ref())?;
        }
        remove_run(data, id)?;
    }
    Ok(archives)
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
    let status = root.own_status()?;
    if status.st_uid != rustix::process::geteuid().as_raw() || status.st_mode & 0o022 != 0 {
        return Err(Error::Foreign(root.path().to_owned()));
    }
    Ok(Some(root))
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

/// Removes the empty folder of a run, and the folder of all runs if this was the last.
fn remove_run(data: &Folder, id: u64) -> Result<(), Error> {
    let Some(root) = open_root(data)? else { return Ok(()) };
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
