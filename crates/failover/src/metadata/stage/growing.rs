//! A staged set that grows while the metalogger's copy does: that of a hot standby.
//!
//! [`Growing`] is the staged log without its end. It is made from a plan, then follows the log that the metalogger appends to
//! ([`Tail`]), quickly and without a plan. So what is in it is believed only when a plan has been compared with it, change by
//! change ([`Growing::compare`]): then it is exactly what [`write_log`](super::write_log) would write up to there, and it goes
//! on with that plan.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt as _;

use super::blocks::Blocks;
use super::writer::{Sink, Writer};
use super::{Error, LOG, Written, check_jump, failed, finish, flushing, next_chunk};
use crate::metadata::changelog::{self, Lines};
use crate::metadata::chunks::Chunks;
use crate::metadata::plan::Plan;
use crate::metadata::{EpochJump, Version};
use crate::sys::cancel::Cancel;
use crate::sys::folder::{self, Folder, Owner};

/// The log that a running metalogger appends to.
const FOLLOWED: &str = "changelog_ml.0.mfs";
/// About how many bytes of lines are returned at once.
const MOST_LINES: usize = 1024 * 1024;
/// How much is compared at once.
const BUFFER: usize = 256 * 1024;

/// A staged log that grows. Its owner appends what it returns.
#[derive(Debug)]
pub(crate) struct Growing {
    writer: Writer,
}

impl Growing {
    /// Writes the changes of `plan` to [`LOG`] in the folder `stage`, as [`write_log`](super::write_log) does, without the
    /// changes that end a history. The image must be staged.
    pub(crate) fn begin(
        folder: &Folder,
        plan: &Plan,
        stage: &Folder,
        owner: Owner,
        cancel: &Cancel,
    ) -> Result<Self, Error> {
        let mut writer = at_base(plan, stage)?;
        let name = OsStr::new(LOG);
        let file = stage.create(name, 0o600)?;
        flushing(&file, name, |mut flush| {
            let wrote = move |bytes| flush.wrote(bytes);
            Blocks::write(&file, wrote, failed("write", name), |out| {
                writer.copy(folder, plan, plan.end_version, out, cancel)
            })
        })?;
        finish(stage, &file, name, owner)?;
        Ok(Self { writer })
    }

    /// Compares the log in `stage`, which reaches version `end` before the jump, with what `plan` says. `None` if it is not
    /// exactly that.
    pub(crate) fn compare(
        folder: &Folder,
        plan: &Plan,
        stage: &Folder,
        end: Version,
        cancel: &Cancel,
    ) -> Result<Option<Self>, Error> {
        if end < plan.base_version || end > plan.end_version {
            return Ok(None);
        }
        let mut writer = at_base(plan, stage)?;
        let log = BufReader::with_capacity(BUFFER, stage.read(OsStr::new(LOG))?);
        let mut same = Same { log, there: Vec::new(), differs: false };
        match writer.copy(folder, plan, end, &mut same, cancel) {
            Ok(()) if same.is_at_end().map_err(failed("read", OsStr::new(LOG)))? => Ok(Some(Self { writer })),
            Ok(()) => Ok(None),
            Err(_) if same.differs => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The version that it reaches, before the jump.
    pub(crate) fn end(&self) -> Version {
        self.writer.version()
    }

    /// The lines of the changes of `plan` that are not in it yet; they are now.
    pub(crate) fn complete(&mut self, folder: &Folder, plan: &Plan, cancel: &Cancel) -> Result<Vec<u8>, Error> {
        let mut lines = Vec::new();
        self.writer.copy(folder, plan, plan.end_version, &mut lines, cancel)?;
        Ok(lines)
    }

    /// The lines that end the history.
    pub(crate) fn finish(mut self) -> Result<(Vec<u8>, Written), Error> {
        let mut lines = Vec::new();
        let written = self.writer.end(&mut lines)?;
        Ok((lines, written))
    }
}

fn at_base(plan: &Plan, stage: &Folder) -> Result<Writer, Error> {
    let jump = plan.jump();
    check_jump(plan, jump)?;
    let next_chunk = if jump > EpochJump::NONE { next_chunk(stage)? } else { None };
    Ok(Writer::after(plan.base_version, jump, Chunks::of_image(next_chunk, jump.count())))
}

/// Writes nothing: what is put must be what is there.
struct Same {
    log: BufReader<File>,
    /// What was read last.
    there: Vec<u8>,
    differs: bool,
}

impl Same {
    fn is_at_end(&mut self) -> io::Result<bool> {
        Ok(self.log.read(&mut [0])? == 0)
    }
}

impl Sink for Same {
    fn put(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        for part in parts {
            self.there.resize(part.len(), 0);
            match self.log.read_exact(&mut self.there) {
                Ok(()) if self.there == *part => (),
                Err(e) if e.kind() != io::ErrorKind::UnexpectedEof => return Err(e),
                _ => {
                    self.differs = true;
                    return Err(io::ErrorKind::InvalidData.into());
                }
            }
        }
        Ok(())
    }
}

/// Why the metalogger's log cannot be followed any more: the hot standby has to be loaded again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stale {
    /// Another change than the next one.
    #[error("the metalogger's log goes on with change {found} instead of {expected}")]
    Change {
        /// The change that should have come.
        expected: u64,
        /// The one that came.
        found: u64,
    },
    /// Something that is no change.
    #[error("{FOLLOWED} has something at byte {offset} that is no change")]
    Garbage {
        /// Where.
        offset: u64,
    },
    /// It cannot be read.
    #[error(transparent)]
    Folder(#[from] folder::Error),
    /// It cannot be read.
    #[error("cannot read {FOLLOWED}")]
    Io(#[source] io::Error),
    /// The lines cannot be renumbered.
    #[error(transparent)]
    Stage(#[from] Error),
}

/// A reader of the log that the metalogger appends to, which goes on in the next one when that is rotated.
#[derive(Debug)]
pub(crate) struct Tail {
    file: File,
    /// How far whole lines were read.
    offset: u64,
    /// Whether the place where the set ends was passed.
    begun: bool,
}

impl Tail {
    /// At the beginning of the log of now.
    pub(crate) fn open(folder: &Folder) -> Result<Self, Stale> {
        Ok(Self { file: folder.read(OsStr::new(FOLLOWED))?, offset: 0, begun: false })
    }

    /// The lines of changes that the metalogger has written since, renumbered; they are in `growing` now. After many lines there
    /// may be more: none are returned when all were.
    pub(crate) fn follow(&mut self, folder: &Folder, growing: &mut Growing) -> Result<Vec<u8>, Stale> {
        let mut lines = Vec::new();
        // Of several rotations in a row, the first leaves a gap that the next change shows.
        self.read(growing, &mut lines)?;
        if lines.is_empty() {
            if let Some(next) = self.next_log(folder)? {
                // What was written between the two looks.
                self.read(growing, &mut lines)?;
                if lines.is_empty() {
                    (self.file, self.offset) = (next, 0);
                    self.read(growing, &mut lines)?;
                }
            }
        }
        Ok(lines)
    }

    /// The log of now, if that is another one.
    fn next_log(&self, folder: &Folder) -> Result<Option<File>, Stale> {
        let mine = self.file.metadata().map_err(Stale::Io)?;
        match folder.status(OsStr::new(FOLLOWED))? {
            Some(now) if (now.st_dev, now.st_ino) != (mine.dev(), mine.ino()) => {
                Ok(Some(folder.read(OsStr::new(FOLLOWED))?))
            }
            // None: between two renames.
            _ => Ok(None),
        }
    }

    fn read(&mut self, growing: &mut Growing, out: &mut Vec<u8>) -> Result<(), Stale> {
        let size = self.file.metadata().map_err(Stale::Io)?.len();
        if size == self.offset {
            self.begun = true;
            return Ok(());
        }
        self.file.seek(SeekFrom::Start(self.offset)).map_err(Stale::Io)?;
        let mut lines = Lines::new((&self.file).take(size.saturating_sub(self.offset)), self.offset);
        while let Some(raw) = lines.next().map_err(Stale::Io)?.filter(|raw| raw.ended) {
            if out.len() >= MOST_LINES {
                return Ok(());
            }
            let expected = growing.writer.version().next_change();
            match changelog::parse(raw.text) {
                Some(line) if line.id == expected => {
                    growing.writer.add(&line, out)?;
                    self.begun = true;
                }
                // The last one that is in the set. What is before it a plan has taken, or has left out.
                Some(line) if !self.begun => self.begun = line.id + 1 == expected,
                None if !self.begun => (),
                Some(line) => return Err(Stale::Change { expected, found: line.id }),
                None => return Err(Stale::Garbage { offset: raw.offset }),
            }
            self.offset = raw.offset + raw.bytes;
        }
        // All that was there when the set was made: from here on, each line is the next change.
        self.begun = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::metadata::stage::{copy_image, write_log};
    use crate::metadata::testing::{Data, lines, me};

    fn copy() -> Data {
        let logs = Data::new().image("metadata_ml.mfs.back", 10, 1).log("changelog_ml.1.mfs", 8..=15, 0);
        logs.file(FOLLOWED, lines(16..=20, 0) + "21: 17")
    }

    /// A set of `data`, loaded as it is now.
    fn begun(data: &Data) -> (Data, Growing, Tail) {
        let (folder, plan, stage) = (data.folder(), data.plan().unwrap(), Data::new());
        let tail = Tail::open(&folder).unwrap();
        copy_image(&folder, &plan, &stage.folder(), me(), plan.jump(), Cancel::never()).unwrap();
        let growing = Growing::begin(&folder, &plan, &stage.folder(), me(), Cancel::never()).unwrap();
        (stage, growing, tail)
    }

    fn append(data: &Data, name: &str, text: &str) {
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(data.path(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn rotate(data: &Data) {
        std::fs::rename(data.path("changelog_ml.1.mfs"), data.path("changelog_ml.2.mfs")).unwrap();
        std::fs::rename(data.path(FOLLOWED), data.path("changelog_ml.1.mfs")).unwrap();
    }

    fn log(stage: &Data) -> Vec<u8> {
        std::fs::read(stage.path(LOG)).unwrap()
    }

    /// What a promotion would stage of `data` now.
    fn written(data: &Data) -> (Vec<u8>, Written) {
        let (folder, plan, stage) = (data.folder(), data.plan().unwrap(), Data::new());
        copy_image(&folder, &plan, &stage.folder(), me(), plan.jump(), Cancel::never()).unwrap();
        let written = write_log(&folder, &plan, &stage.folder(), me(), plan.jump(), Cancel::never()).unwrap();
        (log(&stage), written)
    }

    #[test]
    fn a_set_that_has_followed_ends_as_the_set_of_a_promotion() {
        let data = copy();
        let (stage, mut growing, mut tail) = begun(&data);
        let add = |growing: &mut Growing, tail: &mut Tail| {
            let mut added = 0;
            loop {
                let lines = tail.follow(&data.folder(), growing).unwrap();
                append(&stage, LOG, std::str::from_utf8(&lines).unwrap());
                added += lines.len();
                if lines.is_empty() {
                    return added;
                }
            }
        };
        assert_eq!(add(&mut growing, &mut tail), 0, "a torn line");
        append(&data, FOLLOWED, "|OP()\n22: 18|WRITE(7,0,1,0):9\n");
        assert!(add(&mut growing, &mut tail) > 0);
        // Changes in both logs since the last look.
        append(&data, FOLLOWED, "23: 18|OP()\n");
        rotate(&data);
        append(&data, FOLLOWED, "24: 18|OP()\n25: 1");
        assert!(add(&mut growing, &mut tail) > 0);
        assert_eq!(growing.end(), Version(25));

        // Another run takes it over, and the metalogger has written more by the time it is stopped.
        let (folder, plan) = (data.folder(), data.plan().unwrap());
        let compare = |end| Growing::compare(&folder, &plan, &stage.folder(), end, Cancel::never()).unwrap();
        assert!(compare(Version(24)).is_none(), "it has more");
        assert!(compare(Version(26)).is_none(), "more than there is");
        let mut taken = compare(Version(25)).expect("exactly what the plan says");
        append(&data, FOLLOWED, "8|OP()\n");
        let rest = taken.complete(&folder, &data.plan().unwrap(), Cancel::never()).unwrap();
        let (end, version) = taken.finish().unwrap();
        assert_eq!(version.unlocked, 1);
        assert_eq!(([log(&stage), rest, end].concat(), version), written(&data));
    }

    #[test]
    fn many_changes_are_returned_in_parts() {
        let data = copy();
        let (_stage, mut growing, mut tail) = begun(&data);
        append(&data, FOLLOWED, &("|OP()\n".to_owned() + &lines(22..=200_000, 0)));
        let mut parts = 0;
        loop {
            let part = tail.follow(&data.folder(), &mut growing).unwrap();
            assert!(part.len() < MOST_LINES + 100);
            if part.is_empty() {
                break;
            }
            parts += 1;
        }
        assert!(parts > 2, "{parts}");
        assert_eq!(growing.end(), Version(200_001));
    }

    #[test]
    fn a_set_with_another_change_is_not_taken_over() {
        let data = copy();
        let (stage, growing, _) = begun(&data);
        let mut other = log(&stage);
        let last = other.len() - 3;
        other[last] ^= 1;
        std::fs::write(stage.path(LOG), other).unwrap();
        let (folder, plan) = (data.folder(), data.plan().unwrap());
        let compared = Growing::compare(&folder, &plan, &stage.folder(), growing.end(), Cancel::never());
        assert!(compared.unwrap().is_none());
    }

    #[test]
    fn a_log_that_does_not_go_on_is_stale() {
        for (appended, change) in [("23: 18|OP()\n", true), ("20: 18|OP()\n", true), ("x\n", false)] {
            let data = copy();
            let (_stage, mut growing, mut tail) = begun(&data);
            append(&data, FOLLOWED, &format!("|OP()\n{appended}"));
            let stale = tail.follow(&data.folder(), &mut growing).unwrap_err();
            assert_eq!(matches!(stale, Stale::Change { .. }), change, "{appended:?}: {stale}");
        }
        // Two rotations in a row: the log between them was never seen.
        let data = copy();
        let (_stage, mut growing, mut tail) = begun(&data);
        rotate(&data);
        append(&data, FOLLOWED, "22: 18|OP()\n");
        rotate(&data);
        append(&data, FOLLOWED, "23: 18|OP()\n");
        assert!(matches!(tail.follow(&data.folder(), &mut growing), Err(Stale::Change { .. })));
    }

    #[test]
    fn what_a_plan_has_left_out_of_the_log_is_passed_over() {
        let data = Data::new().image("metadata_ml.mfs.back", 10, 1).log("changelog_ml_back.0.mfs", 8..=20, 0);
        // A power cut has left a torn line, to which the metalogger has appended: together another number.
        let data = data.file(FOLLOWED, "12: 1|O".to_owned() + &lines(13..=18, 0) + "19" + &lines(19..=20, 0));
        let (_stage, mut growing, mut tail) = begun(&data);
        append(&data, FOLLOWED, "21: 18|OP()\n");
        assert!(!tail.follow(&data.folder(), &mut growing).unwrap().is_empty());
        assert_eq!(growing.end(), Version(22));
    }
}
