//! Packs the files that were set aside into a verified `metabak.<unix time>.tar.xz`.
//!
//! The archive is written under a temporary name, flushed, read back from the disk and compared byte by byte with the files
//! it was made from. Only then does it get its name, so files that are removed after that are in it. A run that is killed
//! leaves the originals, and at most a `.partial` file, which the next run replaces.
//!
//! A master serves meanwhile, and must not find its disk full: the archive begins and goes on only while the
//! [`ArchiveRoom`] is there, counted without the blocks that a file system keeps for root.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;

use walkdir::WalkDir;
use xz2::read::XzDecoder;
use xz2::stream::{Check, LzmaOptions, Stream};
use xz2::write::XzEncoder;

use rustix::fs::Advice;

use crate::machine::config::ArchiveFormat;
use crate::machine::space::ArchiveRoom;
use crate::sys::cancel::{Cancel, Cancelled};
use crate::sys::folder::{self, Folder};
use crate::sys::logging::chain;

/// Bytes between two looks at the room on the disk.
const BETWEEN_LOOKS: usize = 2 << 20;

/// Why there is no verified archive. The originals are untouched in every case.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A file could not be opened, created or renamed.
    #[error(transparent)]
    Folder(#[from] folder::Error),
    /// Listing the originals failed.
    #[error("cannot list the files that were set aside")]
    Walk(#[from] walkdir::Error),
    /// Reading, packing or writing failed.
    #[error("cannot write {}", archive.display())]
    Write {
        /// The archive.
        archive: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The archive cannot be read back.
    #[error("cannot read {} back", archive.display())]
    ReadBack {
        /// The archive.
        archive: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The archive can be read back, but its files are not those that were set aside.
    #[error("{} does not hold {name:?} as it was set aside", archive.display())]
    Differs {
        /// The archive.
        archive: PathBuf,
        /// The first file that is missing or different.
        name: OsString,
    },
    /// The master that serves needs the room.
    #[error(
        "not enough space for an archive in {}: {room}. Make room there, or make bak a link to another disk; the next run \
         archives", path.display()
    )]
    NoRoom {
        /// The folder of archives.
        path: PathBuf,
        /// What is needed and what is there.
        room: ArchiveRoom,
    },
    /// The run must stop; the next one archives.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// Packs every file of `aside` into the folder `backup` as `STEM.tar.xz` or `STEM.tlz`, verifies it, and returns its
/// name.
///
/// An archive of that name that already holds every file of `aside` is taken as it is: a run was killed before it
/// removed the originals. An archive that holds other files stays (the clock was set back to an earlier run), and the
/// new one is `STEM-2`, or the next number that is free.
pub(crate) fn write(
    aside: &Folder,
    backup: &Folder,
    stem: &str,
    format: ArchiveFormat,
    level: u32,
    room: ArchiveRoom,
    cancel: &Cancel,
) -> Result<OsString, Error> {
    let extension = match format {
        ArchiveFormat::TarXz => "tar.xz",
        ArchiveFormat::Tlz => "tlz",
    };
    let partial = OsString::from(format!(".{stem}.{extension}.partial"));
    if backup.status(&partial)?.is_some() {
        backup.remove(&partial)?;
    }
    let mut name = OsString::from(format!("{stem}.{extension}"));
    for number in 2_u32.. {
        if backup.status(&name)?.is_none() {
            break;
        }
        match verify(aside, backup, &name, cancel) {
            Err(e @ (Error::Differs { .. } | Error::ReadBack { .. })) => log::warn!("{}", chain(&e)),
            verified => return verified.map(|()| name),
        }
        name = OsString::from(format!("{stem}-{number}.{extension}"));
    }
    if !room.fits() {
        return Err(Error::NoRoom { path: backup.path().to_owned(), room });
    }
    let written = pack(aside, backup, &partial, stem, encoder(format, level), room, cancel)
        .and_then(|()| verify(aside, backup, &partial, cancel))
        .and_then(|()| {
            backup.rename(&partial, backup, &name)?;
            backup.sync()?;
            Ok(name)
        });
    if written.is_err() {
        // If this fails, the next run replaces the partial file.
        let _ = backup.remove(&partial);
    }
    written
}

fn encoder(format: ArchiveFormat, level: u32) -> Result<Stream, xz2::stream::Error> {
    match format {
        ArchiveFormat::TarXz => Stream::new_easy_encoder(level, Check::Crc64),
        // GNU tar knows `.tlz` as the older lzma format.
        ArchiveFormat::Tlz => Stream::new_lzma_encoder(&LzmaOptions::new_preset(level)?),
    }
}

/// The names of all entries of `aside`. One that is not a plain file fails when it is read, so nothing that was set
/// aside can be missing in an archive without an error.
fn originals(aside: &Folder) -> Result<BTreeSet<OsString>, Error> {
    // By the descriptor: the path of the folder may lead to another one by now.
    let root = format!("/proc/self/fd/{}/", aside.as_fd().as_raw_fd());
    let entries = WalkDir::new(root).min_depth(1).max_depth(1).follow_root_links(true).into_iter();
    entries.map(|entry| Ok(entry?.file_name().to_owned())).collect()
}

fn pack(
    aside: &Folder,
    backup: &Folder,
    partial: &OsStr,
    stem: &str,
    stream: Result<Stream, xz2::stream::Error>,
    room: ArchiveRoom,
    cancel: &Cancel,
) -> Result<(), Error> {
    let archive = backup.path().join(partial);
    let failed = |source: io::Error| Error::Write { archive: archive.clone(), source };
    let stream = stream.map_err(|e| failed(e.into()))?;
    let file = backup.create(partial, 0o600)?;
    let mut tar = tar::Builder::new(XzEncoder::new_stream(BufWriter::new(file), stream));
    let mut watch = Watch { backup, room, cancel, read: 0 };
    for name in originals(aside)? {
        let original = aside.read(&name)?;
        let status = original.metadata().map_err(failed)?;
        let mut header = tar::Header::new_gnu();
        header.set_metadata(&status);
        let path = PathBuf::from(stem).join(&name);
        let reader = Watched { file: &original, watch: &mut watch };
        tar.append_data(&mut header, path, reader.take(status.len()))
            .map_err(|source| watch.check().err().unwrap_or_else(|| failed(source)))?;
    }
    let mut file = tar.into_inner().and_then(XzEncoder::finish).map_err(failed)?;
    file.flush().map_err(failed)?;
    file.get_ref().sync_all().map_err(failed)
}

/// Reads the archive `name` back and compares its files with those in `aside`.
fn verify(aside: &Folder, backup: &Folder, name: &OsStr, cancel: &Cancel) -> Result<(), Error> {
    let archive = backup.path().join(name);
    let failed = |source: io::Error| Error::ReadBack { archive: archive.clone(), source };
    let differs = |name: &OsStr| Error::Differs { archive: archive.clone(), name: name.to_owned() };
    let mut missing = originals(aside)?;
    let file = backup.read(name)?;
    forget(&file).map_err(failed)?;
    let mut tar = tar::Archive::new(decoder(file).map_err(failed)?);
    for entry in tar.entries().map_err(failed)? {
        let mut entry = entry.map_err(failed)?;
        let path = entry.path().map_err(failed)?.into_owned();
        let Some(member) = path.file_name() else { continue };
        if !missing.remove(member) {
            continue;
        }
        let original = aside.read(member)?;
        if !same(&mut BufReader::new(original), &mut entry, cancel).map_err(failed)? {
            cancel.check()?;
            return Err(differs(member));
        }
    }
    // The reader stops at the end mark of tar; the checksums of the packed stream come after it.
    io::copy(&mut tar.into_inner(), &mut io::sink()).map_err(failed)?;
    match missing.first() {
        Some(name) => Err(differs(name)),
        None => Ok(()),
    }
}

/// Makes the kernel read a file from the disk again: what it remembers proves nothing about the disk.
fn forget(file: &File) -> io::Result<()> {
    // Only what is flushed can be forgotten.
    file.sync_all()?;
    Ok(rustix::fs::fadvise(file, 0, None, Advice::DontNeed)?)
}

/// A decoder for the format of the file: xz by its signature, else lzma, which has none.
fn decoder(mut file: File) -> io::Result<XzDecoder<BufReader<File>>> {
    const MEMORY_LIMIT: u64 = 128 << 20;
    let mut signature = [0; 6];
    file.read_exact(&mut signature)?;
    file.rewind()?;
    let stream = if signature == *b"\xfd7zXZ\0" {
        Stream::new_stream_decoder(MEMORY_LIMIT, 0)?
    } else {
        Stream::new_lzma_decoder(MEMORY_LIMIT)?
    };
    Ok(XzDecoder::new_stream(BufReader::new(file), stream))
}

fn same(a: &mut impl Read, b: &mut impl Read, cancel: &Cancel) -> io::Result<bool> {
    const BLOCK: u64 = 64 << 10;
    let (mut left, mut right) = (Vec::new(), Vec::new());
    loop {
        left.clear();
        right.clear();
        a.by_ref().take(BLOCK).read_to_end(&mut left)?;
        b.by_ref().take(BLOCK).read_to_end(&mut right)?;
        if left != right || cancel.is_set() {
            return Ok(false);
        }
        if left.is_empty() {
            return Ok(true);
        }
    }
}

/// Looks now and then whether the work may go on.
struct Watch<'a> {
    backup: &'a Folder,
    room: ArchiveRoom,
    cancel: &'a Cancel,
    /// Bytes since the last look at the room: at least as many as were written.
    read: usize,
}

impl Watch<'_> {
    fn check(&mut self) -> Result<(), Error> {
        self.cancel.check()?;
        self.read = 0;
        self.room.free = self.backup.free()?;
        if self.room.leaves_reserve() {
            return Ok(());
        }
        Err(Error::NoRoom { path: self.backup.path().to_owned(), room: self.room })
    }
}

/// A file whose reading fails once the work must not go on.
struct Watched<'a, 'b> {
    file: &'a File,
    watch: &'a mut Watch<'b>,
}

impl Read for Watched<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.watch.read >= BETWEEN_LOOKS || self.watch.cancel.is_set() {
            self.watch.check().map_err(io::Error::other)?;
        }
        let read = self.file.read(buffer)?;
        self.watch.read += read;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing::small_disk;
    use std::process::Command;

    const PLENTY: ArchiveRoom = ArchiveRoom { archive: 0, reserve: 0, free: u64::MAX };

    struct Place {
        dir: tempfile::TempDir,
        aside: Folder,
        backup: Folder,
    }

    fn place() -> Place {
        let dir = tempfile::tempdir().unwrap();
        for name in ["aside", "bak"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let noise: Vec<u8> = (0..300_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
        std::fs::write(dir.path().join("aside/metadata_ml.mfs.back"), noise).unwrap();
        std::fs::write(dir.path().join("aside/changelog_ml.0.mfs"), "1: 1|SETMETAID(7)\n").unwrap();
        std::fs::write(dir.path().join("aside/changelog_ml_back.0.mfs"), "").unwrap();
        let aside = Folder::open(&dir.path().join("aside")).unwrap();
        let backup = Folder::open(&dir.path().join("bak")).unwrap();
        Place { dir, aside, backup }
    }

    fn archive(place: &Place, format: ArchiveFormat) -> Result<OsString, Error> {
        write(&place.aside, &place.backup, "metabak.1795000000", format, 1, PLENTY, &Cancel::new())
    }

    #[test]
    fn gnu_tar_opens_both_forms_and_finds_every_byte() {
        for (format, name) in
            [(ArchiveFormat::TarXz, "metabak.1795000000.tar.xz"), (ArchiveFormat::Tlz, "metabak.1795000000.tlz")]
        {
            let place = place();
            assert_eq!(archive(&place, format).unwrap(), name);
            assert_eq!(place.backup.names().unwrap(), [name]);
            let status = Command::new("tar")
                .current_dir(place.dir.path())
                .args(["--extract", "--auto-compress", "--file"])
                .arg(place.dir.path().join("bak").join(name))
                .status()
                .unwrap();
            assert!(status.success());
            for file in place.aside.names().unwrap() {
                let read = |folder: &str| std::fs::read(place.dir.path().join(folder).join(&file)).unwrap();
                assert!(read("aside") == read("metabak.1795000000"), "{file:?}");
            }
        }
    }

    #[test]
    fn an_archive_is_private() {
        use std::os::unix::fs::MetadataExt;
        let place = place();
        let name = archive(&place, ArchiveFormat::TarXz).unwrap();
        assert_eq!(std::fs::metadata(place.dir.path().join("bak").join(name)).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_second_run_takes_the_verified_archive_and_leaves_another_as_it_is() {
        let place = place();
        let first = archive(&place, ArchiveFormat::TarXz).unwrap();
        assert_eq!(archive(&place, ArchiveFormat::TarXz).unwrap(), first);
        // A part of the originals is removed already. All that are left are in the archive.
        place.aside.remove("changelog_ml.0.mfs".as_ref()).unwrap();
        assert_eq!(archive(&place, ArchiveFormat::TarXz).unwrap(), first);
        std::fs::write(place.dir.path().join("aside/changelog_ml.0.mfs"), "1: 1|SETMETAID(8)\n").unwrap();
        let backup = place.dir.path().join("bak");
        let before = std::fs::read(backup.join(&first)).unwrap();
        let second = archive(&place, ArchiveFormat::TarXz).unwrap();
        assert_eq!(second, "metabak.1795000000-2.tar.xz");
        assert_eq!(archive(&place, ArchiveFormat::TarXz).unwrap(), second);
        assert!(std::fs::read(backup.join(&first)).unwrap() == before);
    }

    #[test]
    fn a_damaged_archive_is_never_called_verified() {
        let place = place();
        let name = archive(&place, ArchiveFormat::TarXz).unwrap();
        let path = place.dir.path().join("bak").join(&name);
        let whole = std::fs::read(&path).unwrap();
        for cut in [0, 5, 6, whole.len() / 2, whole.len() - 1] {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert!(verify(&place.aside, &place.backup, &name, &Cancel::new()).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_leftover_partial_file_is_replaced_and_a_cancelled_run_leaves_none() {
        let place = place();
        std::fs::write(place.dir.path().join("bak/.metabak.1795000000.tar.xz.partial"), "half").unwrap();
        let cancel = Cancel::new();
        cancel.cancel();
        let result = write(&place.aside, &place.backup, "metabak.1795000000", ArchiveFormat::TarXz, 1, PLENTY, &cancel);
        assert!(matches!(result, Err(Error::Cancelled(_))), "{result:?}");
        assert!(place.backup.names().unwrap().is_empty());
        archive(&place, ArchiveFormat::TarXz).unwrap();
        assert_eq!(place.backup.names().unwrap().len(), 1);
    }

    #[test]
    fn an_archive_never_takes_the_room_of_the_serving_master() {
        const MB: u64 = 1 << 20;
        small_disk(16, |disk| {
            for name in ["aside", "bak"] {
                std::fs::create_dir(disk.join(name)).unwrap();
            }
            // Cannot be packed.
            let mut noise = vec![0; 5 << 20];
            fastrand::Rng::with_seed(7).fill(&mut noise);
            std::fs::write(disk.join("aside/metadata.mfs"), noise).unwrap();
            let [aside, backup] = ["aside", "bak"].map(|name| Folder::open(&disk.join(name)).unwrap());
            let archive = |reserve: u64| {
                let room = ArchiveRoom { archive: 2 * MB, reserve, free: backup.free().unwrap() };
                write(&aside, &backup, "metabak.1795000000", ArchiveFormat::TarXz, 0, room, &Cancel::new())
            };
            // Seen before, and seen on the way.
            for (reserve, begun) in [(10 * MB, false), (8 * MB, true)] {
                let Err(Error::NoRoom { room, .. }) = archive(reserve) else { panic!("an archive of noise") };
                assert_eq!(room.free < reserve, begun, "{room}");
                assert!(room.free > reserve - 3 * MB, "{room}");
                assert!(backup.names().unwrap().is_empty() && aside.names().unwrap().len() == 1);
            }
            archive(MB).unwrap();
        });
    }

    #[test]
    fn an_archive_is_read_back_from_the_disk() {
        // On a disk: a file system in memory, as /tmp may be, forgets nothing.
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let noise: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(1 << 20).collect();
        std::fs::write(dir.path().join("file"), noise).unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        let cached = |file: &File| {
            let mut byte = [0];
            let flags = rustix::io::ReadWriteFlags::NOWAIT;
            rustix::io::preadv2(file, &mut [io::IoSliceMut::new(&mut byte)], 512 << 10, flags).is_ok()
        };
        let file = folder.read("file".as_ref()).unwrap();
        assert!(cached(&file));
        // A page that something else holds for a moment stays.
        let mut forgotten = (0..100).map(|_| {
            forget(&file).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(10));
            !cached(&file)
        });
        assert!(forgotten.any(|forgotten| forgotten));
    }
}
