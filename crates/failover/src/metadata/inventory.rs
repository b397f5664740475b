//! The files in the data folder, with versions, completeness, torn tails and holes.
//!
//! Reads, never writes, and never fails because of what it finds: a folder or link named like an image is listed
//! under [`Inventory::others`] with the reason. The metalogger may be running: a file that vanishes (is rotated)
//! between listing and reading counts as absent; the stage checks again all that the plan relies on.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt;

use serde::{Deserialize, Serialize};

use super::changelog::{self, Scan, Segment};
use super::compare::{Compared, Side, compare, same_content};
use super::image::{self, Image};
use super::names::{self, Name};
use super::parallel;
use super::peek::peek;
use super::{Lineage, Version};
use crate::sys::folder::{self, Folder};

pub(crate) use super::names::Origin;

/// The version that the metalogger's newest change log reaches now, from its last whole line alone. For polls: no plan is
/// made, and a hole before that line is not seen.
pub(crate) fn end_of_copy(data: &Folder) -> Option<Version> {
    ends_of_log(data, OsStr::new("changelog_ml.0.mfs")).map(|segment| Version::after(segment.last))
}

/// The stretch from the first change of a log to its last one, from these two lines alone; `None` if they cannot be read, or do
/// not belong together.
pub(crate) fn ends_of_log(folder: &Folder, name: &OsStr) -> Option<Segment> {
    peek(&mut folder.read(name).ok()?).ok()?
}

/// The folder itself cannot be listed.
#[derive(Debug, thiserror::Error)]
#[error("cannot take the inventory of the data folder")]
pub(crate) struct Error(#[from] folder::Error);

/// One image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageFile {
    /// Its file name.
    pub(crate) name: OsString,
    /// Who wrote it.
    pub(crate) lineage: Lineage,
    /// What its name says.
    pub(crate) origin: Origin,
    /// What its content says.
    pub(crate) image: Image,
    /// Bytes.
    pub(crate) size: u64,
    /// Last modification, Unix seconds of this machine's clock.
    pub(crate) modified: u64,
}

impl ImageFile {
    /// The version, if this may be a base.
    ///
    /// A complete download counts: the metalogger writes it from its beginning to its end, flushes each block and
    /// compares its checksum before it asks for the next (`mfsmetalogger/masterconn.c`), and checks less of it than
    /// [`image::read`] before it renames it. One of 1.x does not: its end, sixteen zeros, also occurs inside an image.
    pub(crate) fn base_version(&self) -> Option<Version> {
        match self.image {
            Image::Complete { signature, .. } if self.origin == Origin::Download && &signature != image::FORMAT_2_0 => {
                None
            }
            Image::Complete { version, .. } => Some(version),
            Image::New | Image::Incomplete { .. } => None,
        }
    }
}

/// One change log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogFile {
    /// Its file name.
    pub(crate) name: OsString,
    /// Who wrote it.
    pub(crate) lineage: Lineage,
    /// Precedence within the lineage: 0 is the newest, fetched copies (`_ml_back`) come last.
    pub(crate) rank: u32,
    /// What is in it.
    pub(crate) scan: Scan,
    /// False if only its first and last line were read, because all of it lies below every image that could be the
    /// base: no plan needs it.
    pub(crate) scanned: bool,
    /// Bytes.
    pub(crate) size: u64,
    /// Last modification, Unix seconds of this machine's clock.
    pub(crate) modified: u64,
}

impl LogFile {
    /// Whether the metalogger writes it, or has rotated it: neither fetched, nor dropped and brought back.
    pub(super) fn is_followed(&self) -> bool {
        u64::from(self.rank) < names::DROPPED_LOGS.start
    }

    /// Whether it is a copy fetched once (`_ml_back`), and not the stream of changes.
    pub(super) fn fetched(&self) -> bool {
        self.rank >= names::FETCHED
    }
}

/// Something else that belongs to the metadata by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Other {
    /// Its file name.
    pub(crate) name: OsString,
    /// What it is.
    pub(crate) what: What,
}

/// What an [`Other`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// `sessions*`: client sessions (1.6).
    Sessions,
    /// `metadata.crc`.
    Checksums,
    /// A download or a file that was being written.
    Temporary,
    /// `metadata.mfs.empty` of the distribution's package; never a base, never set aside.
    Template,
    /// Begins with `metadata` but is no name that `MooseFS` uses; `mfsmaster -a` would look into it nevertheless.
    Foreign,
    /// A folder in place of a file.
    Folder,
    /// In place of a file: a link, FIFO, socket or device, another user's file under a second name, or holes. In words.
    NotAFile(&'static str),
    /// Cannot be read.
    Unreadable(String),
}

impl What {
    /// For a file that cannot be opened.
    fn of(error: folder::Error) -> Self {
        match (error.no_plain_file(), error) {
            (Some(what), _) => Self::NotAFile(what),
            (None, folder::Error::Io { source, .. }) => Self::Unreadable(source.to_string()),
            (None, error) => Self::Unreadable(error.to_string()),
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sessions => "client sessions",
            Self::Checksums => "checksums",
            Self::Temporary => "temporary file",
            Self::Template => "template of an empty file system",
            Self::Foreign => "not a name that MooseFS uses",
            Self::Folder => "a folder",
            Self::NotAFile(what) => what.strip_prefix("is ").unwrap_or(what),
            Self::Unreadable(why) => return write!(f, "cannot be read: {why}"),
        })
    }
}

/// Two stretches of one lineage hold different changes under the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Conflict {
    /// The first id they differ in.
    pub(crate) at: u64,
    /// The one to use, as (index into [`Inventory::logs`], index into its segments): the one that was written later,
    /// since a dead branch was written before the failover that made it one.
    pub(crate) kept: (usize, usize),
    /// The other one: from `at` on it is a dead branch.
    pub(crate) dead: (usize, usize),
    /// Whether the files show which was written later; if not, the newer name is kept.
    pub(crate) certain: bool,
}

/// A history that this machine, or another one, made as a master and that is in no served history: it lost the judgement
/// after a split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unserved {
    /// Where it parted from what is served.
    pub(crate) first: Version,
    /// How far it went, as far as is known.
    pub(crate) last: Version,
}

impl Unserved {
    /// Whether a history that ends at `end` is it: further than the fork, in the epoch in which it went on. A master makes
    /// a few more changes when it stops.
    pub(super) fn is(self, end: Version) -> bool {
        end > self.first && end.epoch() == self.last.epoch()
    }
}

/// `own` and `ml` compared line by line where both have the same ids.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Overlap {
    /// They have no id in common.
    #[default]
    None,
    /// They have no id in common, but the same image, byte by byte: the metalogger had not fetched the logs yet.
    Image {
        /// Its version.
        version: Version,
    },
    /// The same changes wherever both have an id.
    Agree {
        /// The lowest common id.
        from: u64,
        /// The highest common id.
        to: u64,
    },
    /// Two histories.
    Fork {
        /// The first id under which they hold different changes.
        at: u64,
    },
}

/// The usable part of one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    /// Index into [`Inventory::logs`].
    pub(crate) log: usize,
    /// Index into the log's segments.
    pub(crate) segment: usize,
    /// First change.
    pub(crate) first: u64,
    /// Last change.
    pub(crate) last: u64,
}

/// The files in the data folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Inventory {
    /// Images, by name.
    pub(crate) images: Vec<ImageFile>,
    /// Change logs, newest first within each lineage.
    pub(crate) logs: Vec<LogFile>,
    /// All else that belongs to the metadata.
    pub(crate) others: Vec<Other>,
    /// Contradictions inside one lineage.
    pub(crate) conflicts: Vec<Conflict>,
    /// Whether the two lineages are one history.
    pub(crate) overlap: Overlap,
    /// Whether this machine remembers that it served, and has known of no other master since: then its metalogger copied from
    /// itself, and `ml` is a copy of `own`, complete or not. The metalogger's files of earlier times were set aside when
    /// it was promoted.
    pub(crate) served_last: bool,
    /// The history that is in no served one, if this machine remembers any.
    pub(crate) unserved: Option<Unserved>,
    /// The highest epoch that this machine remembers, of its own service or of another machine's, if the caller knows it.
    pub(crate) remembered_epoch: u64,
    /// The place of this machine among those of its group, in the order of their addresses.
    pub(crate) rank: u64,
}

impl Inventory {
    /// The usable stretches of a lineage, in order of precedence: dead branches end where they were left.
    pub(crate) fn spans(&self, lineage: Lineage) -> Vec<Span> {
        let mut spans = Vec::new();
        for (log, file) in self.logs.iter().enumerate().filter(|(_, f)| f.lineage == lineage) {
            for (segment, s) in file.scan.segments.iter().enumerate().rev() {
                let dead = self.conflicts.iter().filter(|c| c.dead == (log, segment));
                // `end` is one behind the last: an id of 0 cannot be stepped back from.
                let end = dead.map(|c| c.at).min().unwrap_or(s.last + 1);
                if end > s.first {
                    spans.push(Span { log, segment, first: s.first, last: end - 1 });
                }
            }
        }
        spans
    }

    /// The segment behind a span.
    pub(crate) fn segment(&self, span: &Span) -> &Segment {
        &self.logs[span.log].scan.segments[span.segment]
    }

    /// The complete image of a lineage to start from: the one of the highest version. Of the metalogger's those count whose epoch
    /// is that of its newest: after a split it may have gone back from the history of an epoch to the one before.
    pub(super) fn best_image(&self, lineage: Lineage) -> Option<(Version, &ImageFile)> {
        let images = || self.images.iter().filter(move |image| image.lineage == lineage);
        let bases = || images().filter_map(|file| file.base_version().map(|version| (version, file)));
        let epoch = match lineage {
            Lineage::Own => None,
            Lineage::Ml => bases().min_by_key(|(_, file)| file.origin.age()).map(|(version, _)| version.epoch()),
        };
        let of_epoch = |version: Version| epoch.is_none_or(|epoch| epoch == version.epoch());
        // Of equal versions the first by name: `metadata.mfs` before its copies.
        let bases: Vec<_> = bases().filter(|(version, _)| of_epoch(*version)).collect();
        bases.into_iter().rev().max_by_key(|(version, _)| *version)
    }

    /// The version of that image; 0 without one.
    fn best_version(&self, lineage: Lineage) -> Version {
        self.best_image(lineage).map(|(version, _)| version).unwrap_or_default()
    }
}

/// Takes the inventory of the data folder.
pub(crate) fn take(folder: &Folder) -> Result<Inventory, Error> {
    let mut inventory = Inventory::default();
    for name in folder.names()? {
        if let Some(kind) = names::classify(name.as_bytes()) {
            inventory.look_at(folder, name, kind);
        }
    }
    inventory.scan_logs(folder);
    inventory.logs.sort_by_key(|log| (log.lineage == Lineage::Own, log.rank));
    for lineage in [Lineage::Ml, Lineage::Own] {
        inventory.find_conflicts(folder, lineage);
    }
    inventory.overlap = inventory.compare_lineages(folder);
    Ok(inventory)
}

impl Inventory {
    fn look_at(&mut self, folder: &Folder, name: OsString, kind: Name) {
        let what = match self.try_look_at(folder, &name, kind) {
            Ok(what) => what,
            Err(error) if error.is_not_found() => None,
            Err(error) => Some(What::of(error)),
        };
        self.others.extend(what.map(|what| Other { name, what }));
    }

    /// Adds an image or a log; returns what anything else is.
    fn try_look_at(&mut self, folder: &Folder, name: &OsStr, kind: Name) -> Result<Option<What>, folder::Error> {
        let Some(status) = folder.status(name)? else {
            return Ok(None);
        };
        match rustix::fs::FileType::from_raw_mode(status.st_mode) {
            rustix::fs::FileType::RegularFile => {}
            rustix::fs::FileType::Directory => return Ok(Some(What::Folder)),
            _ => return Ok(Some(What::NotAFile("is not a regular file"))),
        }
        Ok(Some(match kind {
            Name::Sessions => What::Sessions,
            Name::Checksums => What::Checksums,
            Name::Temporary => What::Temporary,
            Name::Template => What::Template,
            Name::Foreign => What::Foreign,
            Name::Image { lineage, origin } => return Ok(self.add_image(folder.read(name)?, name, lineage, origin)),
            Name::Log { lineage, rank } => return Ok(self.add_log(folder.read(name)?, name, lineage, rank)),
        }))
    }

    fn add_image(&mut self, mut file: File, name: &OsStr, lineage: Lineage, origin: Origin) -> Option<What> {
        match image::read(&mut file).and_then(|image| Ok((image, stamp(&file)?))) {
            Ok((image, (size, modified))) => {
                self.images.push(ImageFile { name: name.to_owned(), lineage, origin, image, size, modified });
            }
            Err(error) => return Some(What::Unreadable(error.to_string())),
        }
        None
    }

    /// Adds a log by its two ends; whether to read all of it is decided when all images are known.
    fn add_log(&mut self, mut file: File, name: &OsStr, lineage: Lineage, rank: u32) -> Option<What> {
        match peek(&mut file).and_then(|ends| Ok((ends, stamp(&file)?))) {
            Ok((ends, (size, modified))) => self.logs.push(LogFile {
                name: name.to_owned(),
                lineage,
                rank,
                scan: Scan { segments: ends.into_iter().collect(), ..Scan::default() },
                scanned: false,
                size,
                modified,
            }),
            Err(error) => return Some(What::Unreadable(error.to_string())),
        }
        None
    }

    /// Reads the logs that a plan could need, several at a time.
    fn scan_logs(&mut self, folder: &Folder) {
        let floor = self.floor();
        let (below, needed): (Vec<_>, Vec<_>) = std::mem::take(&mut self.logs)
            .into_iter()
            .partition(|log| log.scan.last().is_some_and(|last| floor.has(last)));
        self.logs = below;
        for (log, whole) in parallel::map(needed, |log| whole(folder, log)) {
            let what = match whole {
                Ok(Ok((scan, (size, modified)))) => {
                    self.logs.push(LogFile { scan, scanned: true, size, modified, ..log });
                    continue;
                }
                Ok(Err(error)) => What::Unreadable(error.to_string()),
                Err(error) if error.is_not_found() => continue,
                Err(error) => What::of(error),
            };
            self.others.push(Other { name: log.name, what });
        }
    }

    /// No plan uses a log that ends below this change: the best image of `ml`, or that of `own` too if `own` reaches so
    /// far that it could be chosen, or has to be compared.
    fn floor(&self) -> Version {
        let (own, ml) = (self.best_version(Lineage::Own), self.best_version(Lineage::Ml));
        let logs = self.logs.iter().filter(|log| log.lineage == Lineage::Own);
        // A log whose end could not be peeked at reaches anywhere.
        let unknown = |log: &LogFile| if log.size == 0 { Version::default() } else { Version(u64::MAX) };
        let reach = logs.map(|log| log.scan.last().map_or_else(|| unknown(log), Version::after));
        let reach = reach.max().unwrap_or_default().max(own);
        // An own image of another epoch may be the one that is served.
        let other_epoch = own != Version::default() && own.epoch() != ml.epoch();
        if reach <= ml && !other_epoch { ml } else { own.min(ml) }
    }

    /// Finds stretches of one lineage that contradict each other at or above its best image: below, nothing is used.
    fn find_conflicts(&mut self, folder: &Folder, lineage: Lineage) {
        let floor = self.best_version(lineage).next_change();
        let spans = self.spans(lineage);
        let mut found = Vec::new();
        for (index, a) in spans.iter().enumerate() {
            for b in &spans[index + 1..] {
                let from = a.first.max(b.first).max(floor);
                let to = a.last.min(b.last);
                // If it cannot be read now, the stage will notice: it reads it again.
                let Ok(Compared::Different(at)) = self.compare(folder, a, b, from, to) else {
                    continue;
                };
                let later = self.later(folder, &spans, a, b);
                let (kept, dead) = if later == Some(b) { (b, a) } else { (a, b) };
                found.push(Conflict {
                    at,
                    kept: (kept.log, kept.segment),
                    dead: (dead.log, dead.segment),
                    certain: later.is_some(),
                });
            }
        }
        self.conflicts.extend(found);
    }

    /// Which of two spans was written later; `a` is before `b` in `spans`. A daemon appends to its log and renames it: what it
    /// wrote is in order. When a log was fetched is unknown, but one that continues to the newest changes is of their
    /// history.
    fn later<'a>(&self, folder: &Folder, spans: &'a [Span], a: &'a Span, b: &'a Span) -> Option<&'a Span> {
        let fetched = |span: &Span| self.logs[span.log].fetched();
        if !fetched(a) && !fetched(b) {
            return Some(a);
        }
        let newest = spans.first().filter(|newest| !fetched(newest) && ![a, b].contains(newest))?;
        let continues = |span: &Span| {
            let common = (span.first.max(newest.first), span.last.min(newest.last));
            span.last + 1 == newest.first
                || (common.0 <= common.1
                    && matches!(self.compare(folder, span, newest, common.0, common.1), Ok(Compared::Same)))
        };
        match (continues(a), continues(b)) {
            (true, false) => Some(a),
            (false, true) => Some(b),
            (true, true) | (false, false) => None,
        }
    }

    fn compare_lineages(&self, folder: &Folder) -> Overlap {
        let mut common: Option<(u64, u64)> = None;
        let mut fork: Option<u64> = None;
        let own = self.spans(Lineage::Own);
        for ml in self.spans(Lineage::Ml) {
            for own in &own {
                let (from, to) = (ml.first.max(own.first), ml.last.min(own.last));
                if from > to {
                    continue;
                }
                match self.compare(folder, &ml, own, from, to) {
                    Ok(Compared::Same) => common = Some(common.map_or((from, to), |(f, t)| (f.min(from), t.max(to)))),
                    Ok(Compared::Different(at)) => fork = fork.into_iter().chain([at]).min(),
                    // Not known to agree.
                    Ok(Compared::Unknown) | Err(_) => {}
                }
            }
        }
        match (common, fork) {
            (_, Some(at)) => Overlap::Fork { at },
            (Some((from, to)), None) => Overlap::Agree { from, to },
            (None, None) => self.common_image(folder).map_or(Overlap::None, |version| Overlap::Image { version }),
        }
    }

    /// The version of an image that both lineages have. Read whole only where versions and sizes are the same.
    fn common_image(&self, folder: &Folder) -> Option<Version> {
        let of = |lineage| self.images.iter().filter(move |i: &&ImageFile| i.lineage == lineage);
        of(Lineage::Ml).find_map(|ml| {
            let Image::Complete { version, .. } = ml.image else { return None };
            let mut like = of(Lineage::Own).filter(|own| own.image == ml.image && own.size == ml.size);
            like.any(|own| same_content(folder, &own.name, &ml.name).unwrap_or(false)).then_some(version)
        })
    }

    fn compare(&self, folder: &Folder, a: &Span, b: &Span, from: u64, to: u64) -> io::Result<Compared> {
        let side = |span: &Span| Side {
            name: &self.logs[span.log].name,
            segment: &self.logs[span.log].scan.segments[span.segment],
        };
        compare(folder, side(a), side(b), from, to)
    }
}

/// The content of a log, its size in bytes and its modification in Unix seconds.
type Whole = (Scan, (u64, u64));

/// All of a log, with its size and modification afterwards.
fn whole(folder: &Folder, log: &LogFile) -> Result<io::Result<Whole>, folder::Error> {
    let file = folder.read(&log.name)?;
    let scanned = stamp(&file).and_then(|(size, _)| {
        // Lines appended from now on are left to the next inventory: there may be no end of them.
        let scan = changelog::scan((&file).take(size))?;
        Ok((scan, stamp(&file)?))
    });
    Ok(scanned)
}

/// Size in bytes and modification in Unix seconds.
fn stamp(file: &File) -> io::Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let metadata = file.metadata()?;
    Ok((metadata.len(), u64::try_from(metadata.mtime()).unwrap_or(0)))
}

#[cfg(test)]
mod tests;
