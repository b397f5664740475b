//! Metadata images: which version one holds, of which file system, and whether it is whole.
//!
//! Reads a few hundred bytes of an image of any size: header, section headers, last 16 bytes. Format: `MooseFS`
//! `mfsmaster/metadata.c` (`meta_check_metadatafile`); all integers are big-endian.

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};

use super::Version;

/// The whole content of an image that stands for a file system without any change yet.
pub(crate) const NEW: &[u8; 8] = b"MFSM NEW";
/// The signature whose header we can renumber.
pub(crate) const FORMAT_2_0: &[u8; 8] = b"MFSM 2.0";
/// Where the version lies in a 2.0 header: a u64 at this byte offset.
pub(crate) const VERSION_OFFSET_2_0: u64 = 8;

const HEADER: u64 = 24;
const TRAILER: u64 = 16;
const EOF_MARKER: &[u8; 16] = b"[MFS EOF MARKER]";
/// 3.0 and 4.x write 13 sections; the bound keeps a crafted file from being walked for hours.
const MAX_SECTIONS: u32 = 256;

/// What one image is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Image {
    /// `MFSM NEW`: an empty file system, version 1, no metaid.
    New,
    /// Signature, header, sections (2.0) and trailer are right.
    Complete {
        /// `MFSM 1.5`, `MFSM 2.0` …
        signature: [u8; 8],
        /// How far it goes.
        version: Version,
        /// The file system's identity; 0 where none is assigned (always so before 2.0).
        metaid: u64,
    },
    /// Not to be used.
    Incomplete {
        /// What is wrong.
        reason: Flaw,
        /// What its header says it would be, where that can be read.
        header: Option<Header>,
    },
}

/// What the first bytes of an image say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// How far the image goes.
    pub(crate) version: Version,
    /// The file system's identity; 0 where none is assigned (always so before 2.0).
    pub(crate) metaid: u64,
}

/// Why an image is not to be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// Shorter than a header and a trailer.
    Short {
        /// Its length in bytes.
        size: u64,
    },
    /// The first 8 bytes are not a signature we know.
    Signature([u8; 8]),
    /// The last 16 bytes are not the end marker.
    Ending,
    /// The section header at this byte offset is none, or its section reaches past the end.
    Section {
        /// Byte offset in the file.
        offset: u64,
    },
    /// A version that no counter reaches.
    Version(Version),
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short { size } => write!(f, "only {size} bytes long"),
            Self::Signature(bytes) => write!(f, "unknown signature \"{}\"", bytes.escape_ascii()),
            Self::Ending => f.write_str("cut off: the end marker is missing"),
            Self::Section { offset } => write!(f, "damaged: no valid section at byte {offset}"),
            Self::Version(version) => write!(f, "impossible version {version}"),
        }
    }
}

impl Image {
    /// What its header says, whether it is complete or not.
    pub(crate) fn version(&self) -> Option<Version> {
        match self {
            Self::New => None,
            Self::Complete { version, .. } => Some(*version),
            Self::Incomplete { header, .. } => header.map(|header| header.version),
        }
    }
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::New => f.write_str("new and empty"),
            Self::Complete { version, metaid, .. } => write!(f, "version {version}, metaid {metaid:#x}"),
            Self::Incomplete { reason, .. } => reason.fmt(f),
        }
    }
}

/// Reads what `file` is; the position is left anywhere.
///
/// # Errors
/// Only if reading fails; wrong content is an [`Image::Incomplete`].
pub(crate) fn read(file: &mut (impl Read + Seek)) -> io::Result<Image> {
    let size = file.seek(SeekFrom::End(0))?;
    let flawed = |reason, header| Ok(Image::Incomplete { reason, header });
    if size < 8 {
        return flawed(Flaw::Short { size }, None);
    }
    let signature: [u8; 8] = bytes_at(file, 0)?;
    if &signature == NEW && size == 8 {
        return Ok(Image::New);
    }
    let Some(layout) = Layout::of(signature) else {
        return flawed(Flaw::Signature(signature), None);
    };
    if size < HEADER {
        return flawed(Flaw::Short { size }, None);
    }
    let version = Version(u64::from_be_bytes(bytes_at(file, layout.version)?));
    if version.0 >= super::changelog::LIMIT {
        return flawed(Flaw::Version(version), None);
    }
    let metaid = match layout.metaid {
        Some(offset) => u64::from_be_bytes(bytes_at(file, offset)?),
        None => 0,
    };
    let header = Some(Header { version, metaid });
    if size < HEADER + TRAILER {
        return flawed(Flaw::Short { size }, header);
    }
    let ending: [u8; 16] = bytes_at(file, size - TRAILER)?;
    if &ending != layout.ending {
        return flawed(Flaw::Ending, header);
    }
    if layout.sections {
        if let Some(offset) = bad_section(file, size - TRAILER)? {
            return flawed(Flaw::Section { offset }, header);
        }
    }
    Ok(Image::Complete { signature, version, metaid })
}

/// Where things are in one format.
struct Layout {
    version: u64,
    metaid: Option<u64>,
    ending: &'static [u8; 16],
    sections: bool,
}

impl Layout {
    fn of(signature: [u8; 8]) -> Option<Self> {
        let number = signature.strip_prefix(b"MFSM ")?;
        let (ending, sections) = match number {
            b"1.5" => (&[0; 16], false),
            // 1.6 and 1.7 never left a development branch; mfsmaster still reads them.
            b"1.6" | b"1.7" => (EOF_MARKER, false),
            b"2.0" => (EOF_MARKER, true),
            _ => return None,
        };
        Some(Self {
            version: if sections { VERSION_OFFSET_2_0 } else { 12 },
            metaid: sections.then_some(16),
            ending,
            sections,
        })
    }
}

/// Hops from section header to section header; they must end exactly at `end`. The offset of the first wrong one.
fn bad_section(file: &mut (impl Read + Seek), end: u64) -> io::Result<Option<u64>> {
    let mut offset = HEADER;
    for _ in 0..MAX_SECTIONS {
        if offset == end {
            return Ok(None);
        }
        if offset + 16 > end {
            return Ok(Some(offset));
        }
        // 4 bytes of name, a blank, "x.y", u64 length.
        let header: [u8; 16] = bytes_at(file, offset)?;
        let length = u64::from_be_bytes(header[8..].try_into().expect("eight of sixteen bytes"));
        if header[4] != b' ' || header[6] != b'.' {
            return Ok(Some(offset));
        }
        if length == u64::MAX {
            // "Unknown", as written into a pipe: nothing to hop by, the end marker must do.
            return Ok(None);
        }
        match (offset + 16).checked_add(length) {
            Some(next) if next <= end => offset = next,
            _ => return Ok(Some(offset)),
        }
    }
    Ok((offset != end).then_some(offset))
}

/// The content of the section `name` of a complete 2.0 image; `None` without one, or if it is longer than `limit` bytes
/// or of unknown length. Hops by the lengths, so it reads little of an image of any size.
///
/// # Errors
/// Only if reading fails.
pub(crate) fn section(file: &mut (impl Read + Seek), name: [u8; 4], limit: u64) -> io::Result<Option<Vec<u8>>> {
    let Some((start, length)) = find_section(file, name)?.filter(|(_, length)| *length <= limit) else {
        return Ok(None);
    };
    file.seek(SeekFrom::Start(start))?;
    let mut content = Vec::new();
    file.take(length).read_to_end(&mut content)?;
    Ok(Some(content))
}

/// The id that the next new chunk gets, the first number of the section `CHNK` of a complete 2.0 image (`chunk_load` in
/// `mfsmaster/chunks.c`); `None` without that section.
///
/// # Errors
/// Only if reading fails.
pub(crate) fn next_chunk(file: &mut (impl Read + Seek)) -> io::Result<Option<u64>> {
    match find_section(file, *b"CHNK")? {
        Some((start, 8..)) => bytes_at(file, start).map(u64::from_be_bytes).map(Some),
        _ => Ok(None),
    }
}

/// Where the content of the section `name` begins, and how long it is.
fn find_section(file: &mut (impl Read + Seek), name: [u8; 4]) -> io::Result<Option<(u64, u64)>> {
    let end = file.seek(SeekFrom::End(0))?.saturating_sub(TRAILER);
    let mut offset = HEADER;
    for _ in 0..MAX_SECTIONS {
        let start = offset + 16;
        if start > end {
            break;
        }
        let found: [u8; 4] = bytes_at(file, offset)?;
        let length = u64::from_be_bytes(bytes_at(file, offset + 8)?);
        let Some(next) = start.checked_add(length).filter(|next| *next <= end) else { break };
        if found == name {
            return Ok(Some((start, length)));
        }
        offset = next;
    }
    Ok(None)
}

fn bytes_at<const N: usize>(file: &mut (impl Read + Seek), offset: u64) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Cursor;

    fn complete(version: u64, metaid: u64, sections: &[usize]) -> Vec<u8> {
        let mut bytes = FORMAT_2_0.to_vec();
        bytes.extend(version.to_be_bytes());
        bytes.extend(metaid.to_be_bytes());
        for length in sections {
            bytes.extend(b"NODE 1.0");
            bytes.extend((*length as u64).to_be_bytes());
            bytes.extend(vec![7; *length]);
        }
        bytes.extend(EOF_MARKER);
        bytes
    }

    fn flaw(bytes: Vec<u8>) -> Option<Flaw> {
        match read(&mut Cursor::new(bytes)).unwrap() {
            Image::Incomplete { reason, .. } => Some(reason),
            _ => None,
        }
    }

    #[test]
    fn whole_images() {
        assert_eq!(read(&mut Cursor::new(b"MFSM NEW")).unwrap(), Image::New);
        let image = read(&mut Cursor::new(complete(77, 5, &[3, 0, 100]))).unwrap();
        assert_eq!(image, Image::Complete { signature: *FORMAT_2_0, version: Version(77), metaid: 5 });
    }

    #[test]
    fn real_images() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/");
        for (name, expected) in [
            ("3.0.117-torn-ml/metadata_ml.mfs.back", (*b"MFSM 2.0", Version(67), 0x6b03_6efa_c9f9_df1c)),
            ("1.6.19-ml/metadata_ml.mfs.back", (*b"MFSM 1.5", Version(302), 0)),
        ] {
            let mut file = std::fs::File::open(format!("{folder}{name}")).unwrap();
            let (signature, version, metaid) = expected;
            assert_eq!(read(&mut file).unwrap(), Image::Complete { signature, version, metaid });
        }
    }

    #[test]
    fn flaws() {
        let whole = complete(77, 5, &[30]);
        let mut hole = whole.clone();
        hole.splice(40..50, []);
        let mut name = whole.clone();
        name[28] = 0;
        for (what, bytes, expected) in [
            ("empty", vec![], Flaw::Short { size: 0 }),
            ("longer than NEW", b"MFSM NEW\n".to_vec(), Flaw::Signature(*NEW)),
            ("foreign", b"LIZM 2.9 and more".to_vec(), Flaw::Signature(*b"LIZM 2.9")),
            ("header only", whole[..24].to_vec(), Flaw::Short { size: 24 }),
            ("cut", whole[..whole.len() - 1].to_vec(), Flaw::Ending),
            ("bytes missing inside", hole, Flaw::Section { offset: 24 }),
            ("no section", name, Flaw::Section { offset: 24 }),
            ("version", complete(u64::MAX, 5, &[]), Flaw::Version(Version(u64::MAX))),
        ] {
            assert_eq!(flaw(bytes), Some(expected), "{what}");
        }
    }

    #[test]
    fn a_cut_image_still_says_what_it_would_be() {
        let header = |bytes: &[u8]| match read(&mut Cursor::new(bytes)).unwrap() {
            Image::Incomplete { header, .. } => header,
            _ => panic!("it is cut"),
        };
        let whole = complete(77, 5, &[30]);
        for length in 24..whole.len() {
            assert_eq!(header(&whole[..length]), Some(Header { version: Version(77), metaid: 5 }), "{length}");
        }
        assert_eq!(header(&whole[..23]), None);
        assert_eq!(header(&complete(u64::MAX, 5, &[])), None);
    }

    #[test]
    fn a_section_of_unknown_length_relies_on_the_end_marker() {
        let mut bytes = complete(77, 5, &[30]);
        bytes[32..40].fill(0xff);
        assert_eq!(flaw(bytes), None);
    }

    #[test]
    fn a_file_of_endless_sections_is_given_up() {
        assert!(matches!(flaw(complete(77, 5, &[0; 300])), Some(Flaw::Section { .. })));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), whole: bool) {
            if whole && bytes.len() >= 40 {
                bytes[..8].copy_from_slice(FORMAT_2_0);
                let end = bytes.len() - 16;
                bytes[end..].copy_from_slice(EOF_MARKER);
            }
            read(&mut Cursor::new(bytes)).unwrap();
        }

        #[test]
        fn a_cut_image_is_never_complete(cut in 1_usize..100) {
            let whole = complete(77, 5, &[30, 30]);
            let kept = whole.len() - cut.min(whole.len());
            prop_assert!(flaw(whole[..kept].to_vec()).is_some());
        }
    }
}
