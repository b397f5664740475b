//! The chunkservers that a history names: machines on the network that are known without any configuration.
//!
//! An image of 2.0 or later lists them in its section `CSDB`: u32 count, then as many entries of one length, each
//! beginning with u32 address and u16 port (`mfsmaster/csdb.c`, `csdb_store`; later releases only append to an entry).
//! Changes since are `CSDBOP(op,address,port,argument)`, op 1 being a removal. Images of 1.6 name none.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{self, Seek, SeekFrom};
use std::net::{Ipv4Addr, SocketAddrV4};

use super::changelog::{Lines, parse};
use super::image;
use super::plan::{Base, Plan};
use crate::sys::cancel::{Cancel, Cancelled};
use crate::sys::folder::{self, Folder};

/// A longer list is not one of chunkservers: MooseFS numbers them with 16 bits.
const MAX_LIST: u64 = 4 + 65536 * 64;
/// `op 1` of `CSDBOP`.
const REMOVED: u32 = 1;
const LINES_BETWEEN_CHECKS: u32 = 4096;

/// Why the chunkservers are not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A file could not be opened.
    #[error(transparent)]
    Folder(#[from] folder::Error),
    /// Reading failed.
    #[error("cannot read the chunkservers from {}", file.display())]
    Read {
        /// The file.
        file: std::path::PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// Told to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// Where the chunkservers listen that the image of `plan` names: a few hundred bytes of it are read.
pub(crate) fn in_image(folder: &Folder, plan: &Plan) -> Result<BTreeSet<SocketAddrV4>, Error> {
    let Base::Image { name, signature, .. } = &plan.base else { return Ok(BTreeSet::new()) };
    if signature != image::FORMAT_2_0 {
        return Ok(BTreeSet::new());
    }
    let list = image::section(&mut folder.read(name)?, *b"CSDB", MAX_LIST).map_err(failed(name))?;
    Ok(list.map(|list| read_list(&list)).unwrap_or_default())
}

/// Adds to `known`, and removes from it, what the changes of `plan` say. Reads all of them: seconds for a busy day.
pub(crate) fn after_changes(
    folder: &Folder,
    plan: &Plan,
    mut known: BTreeSet<SocketAddrV4>,
    cancel: &Cancel,
) -> Result<BTreeSet<SocketAddrV4>, Error> {
    for stretch in &plan.stretches {
        let mut file = folder.read(&stretch.file)?;
        file.seek(SeekFrom::Start(stretch.offset)).map_err(failed(&stretch.file))?;
        let mut lines = Lines::new(file, stretch.offset);
        let mut until_check = 0;
        while let Some(raw) = lines.next().map_err(failed(&stretch.file))? {
            if until_check == 0 {
                cancel.check()?;
                until_check = LINES_BETWEEN_CHECKS;
            }
            until_check -= 1;
            let Some(line) = parse(raw.text).filter(|line| raw.ended && line.id <= stretch.last) else { break };
            match operation(line.operation) {
                Some((REMOVED, address)) => drop(known.remove(&address)),
                Some((_, address)) => drop(known.insert(address)),
                None => (),
            }
        }
    }
    Ok(known)
}

fn read_list(list: &[u8]) -> BTreeSet<SocketAddrV4> {
    let Some((count, entries)) = list.split_first_chunk().map(|(count, rest)| (u32::from_be_bytes(*count), rest))
    else {
        return BTreeSet::new();
    };
    let count = usize::try_from(count).unwrap_or_default();
    if count == 0 || entries.len() % count != 0 || entries.len() / count < 6 {
        return BTreeSet::new();
    }
    let entries = entries.chunks_exact(entries.len() / count);
    entries
        .map(|entry| {
            let address = Ipv4Addr::new(entry[0], entry[1], entry[2], entry[3]);
            SocketAddrV4::new(address, u16::from_be_bytes([entry[4], entry[5]]))
        })
        .collect()
}

/// `CSDBOP(OP,ADDRESS,PORT,ARGUMENT)`
fn operation(text: &[u8]) -> Option<(u32, SocketAddrV4)> {
    let arguments = text.strip_prefix(b"CSDBOP(")?.strip_suffix(b")")?;
    let mut arguments = std::str::from_utf8(arguments).ok()?.split(',');
    let op = arguments.next()?.parse().ok()?;
    let address: u32 = arguments.next()?.parse().ok()?;
    let port = arguments.next()?.parse().ok()?;
    Some((op, SocketAddrV4::new(Ipv4Addr::from(address), port)))
}

fn failed(file: &OsStr) -> impl Fn(io::Error) -> Error {
    move |source| Error::Read { file: file.into(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::testing::{Data, image_with};

    fn list(entries: &[([u8; 4], u16)], entry: usize) -> Vec<u8> {
        let mut bytes = u32::try_from(entries.len()).unwrap().to_be_bytes().to_vec();
        for (address, port) in entries {
            bytes.extend(address);
            bytes.extend(port.to_be_bytes());
            bytes.extend(vec![0; entry - 6]);
        }
        bytes
    }

    fn shown(found: &BTreeSet<SocketAddrV4>) -> Vec<String> {
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_list_of_each_release_is_read_and_nothing_else() {
        for entry in [6, 8, 9, 13, 20] {
            let found = read_list(&list(&[([10, 0, 0, 1], 9422), ([10, 0, 0, 2], 9522)], entry));
            assert_eq!(shown(&found), ["10.0.0.1:9422", "10.0.0.2:9522"], "{entry}");
        }
        for bad in [&b""[..], &[0, 0, 0], &[0, 0, 0, 0], &[0, 0, 0, 2, 1, 2, 3], &[255; 40]] {
            assert!(read_list(bad).is_empty(), "{bad:?}");
        }
    }

    #[test]
    fn changes_add_and_remove() {
        let at = |last: u8| u32::from(Ipv4Addr::new(10, 0, 0, last));
        let log = format!(
            "5: 17|CSDBOP(0,{},9422,3)\n6: 17|CREATE(1,CSDBOP%280%2C1,1,438,18,0,0,0):9\n\
             7: 18|CSDBOP(1,{},9422,0)\n8: 18|CSDBOP(2,{},9422,1)\n",
            at(3),
            at(1),
            at(4)
        );
        let image = image_with(5, *b"CSDB", &list(&[([10, 0, 0, 1], 9422), ([10, 0, 0, 2], 9422)], 13));
        let data = Data::new().file("metadata_ml.mfs.back", image).file("changelog_ml.0.mfs", log);
        let (folder, plan) = (data.folder(), data.plan().unwrap());
        let known = in_image(&folder, &plan).unwrap();
        assert_eq!(shown(&known), ["10.0.0.1:9422", "10.0.0.2:9422"]);
        let known = after_changes(&folder, &plan, known, &Cancel::new()).unwrap();
        assert_eq!(shown(&known), ["10.0.0.2:9422", "10.0.0.3:9422", "10.0.0.4:9422"]);
    }

    #[test]
    fn an_image_without_the_section_names_none() {
        let data = Data::new().file("metadata_ml.mfs.back", image_with(5, *b"NODE", &[0; 30])).log(
            "changelog_ml.0.mfs",
            5..=6,
            0,
        );
        let (folder, plan) = (data.folder(), data.plan().unwrap());
        assert!(in_image(&folder, &plan).unwrap().is_empty());
        assert!(after_changes(&folder, &plan, BTreeSet::new(), &Cancel::new()).unwrap().is_empty());
    }
}
