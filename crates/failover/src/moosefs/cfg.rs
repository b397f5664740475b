//! Configuration files in MooseFS's form, theirs and ours, as `mfscommon/cfg.c` reads them.
//!
//! Lines of `KEY = VALUE`. `#` in the first column makes a comment, and so does one behind a tab that ends a value; behind a
//! blank it belongs to the value. Blanks and tabs before the value and blanks behind it are dropped, the last definition
//! wins, and MooseFS ignores every other line. [`Document::parse`] does this to the letter. A file that others than root can
//! change is refused: it decides what programs of root do.

use std::collections::BTreeMap;
use std::ffi::c_char;
use std::io;
use std::path::{Path, PathBuf};

use crate::sys::trust::changeable;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It cannot be read, or is missing.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Others than root can change it, or can put another file in its place.
    #[error("{} can be written by others than root; run: chown root {0} && chmod go-w {0}", path.display())]
    Unsafe {
        /// The file, or the folder above it that has the wrong owner or mode.
        path: PathBuf,
    },
    /// A line that is neither a comment nor `KEY = VALUE`.
    #[error("{} line {line}: not of the form KEY = VALUE: {text:?}; correct it, or begin it with #", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// The line.
        text: String,
    },
    /// A line that releases of MooseFS read in two ways.
    #[error(
        "{} line {line} is longer than {LONGEST} bytes: MooseFS before 4 reads it as two lines, which define something \
         else; shorten it", path.display()
    )]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
    },
}

/// The longest line that MooseFS before 4 reads as one: it has its end in a buffer of 999 bytes.
const LONGEST: usize = 997;

impl Error {
    /// Whether the file is missing.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// The entries of one file, as written.
#[derive(Debug, Default)]
pub(crate) struct Document {
    pub(crate) path: PathBuf,
    pub(crate) entries: Vec<Entry>,
    /// The first line that is neither an entry nor a comment: its number and text.
    odd: Option<(usize, String)>,
}

/// What a line is.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    /// A comment, or empty.
    Nothing,
    /// Key and value.
    Entry(String, String),
    /// What MooseFS ignores, mostly with a warning.
    Odd,
}

/// One line of a file.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) value: String,
    /// Line number, from 1.
    pub(crate) line: usize,
}

impl Document {
    /// Reads a file of which every line must be an entry or a comment: one of ours.
    pub(crate) fn load_strict(path: &Path) -> Result<Self, Error> {
        let document = Self::load(path)?;
        match document.odd {
            Some((line, text)) => Err(Error::Syntax { path: document.path, line, text }),
            None => Ok(document),
        }
    }

    /// Reads a file as MooseFS does, which ignores all other lines.
    pub(crate) fn load(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Read { path: path.to_owned(), source };
        if let Some(path) = changeable(path).map_err(failed)? {
            return Err(Error::Unsafe { path });
        }
        let text = std::fs::read(path).map_err(failed)?;
        let document = Self { path: path.to_owned(), ..Self::parse(&text) };
        match too_long(&text) {
            Some(line) => Err(Error::TooLong { path: document.path, line }),
            None => Ok(document),
        }
    }

    /// Reads a text.
    pub(crate) fn parse(text: &[u8]) -> Self {
        Self::of_lines(text.split(|byte| *byte == b'\n'))
    }

    fn of_lines<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut document = Self::default();
        for (index, line) in lines.enumerate() {
            match read_line(line) {
                Line::Nothing => (),
                Line::Entry(key, value) => document.entries.push(Entry { key, value, line: index + 1 }),
                Line::Odd => {
                    let text = || String::from_utf8_lossy(line).into_owned();
                    document.odd = document.odd.or_else(|| Some((index + 1, text())));
                }
            }
        }
        document
    }

    /// Key and value of all definitions that count.
    fn definitions(&self) -> BTreeMap<&str, &str> {
        self.entries.iter().map(|entry| (entry.key.as_str(), entry.value.as_str())).collect()
    }

    /// The definition of `key` that counts.
    pub(crate) fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().rev().find(|entry| entry.key == key)
    }
}

/// Reads a line as `cfg_reload` does. A byte counts there as a `char`, which has a sign on some machines: on those a byte
/// beyond ASCII ends a value, and the line is ignored.
fn read_line(line: &[u8]) -> Line {
    // C's end of the text.
    let line = line.split(|byte| *byte == 0).next().unwrap_or_default();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let after_blanks = |text: &'_ [u8]| text.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    if line.first() == Some(&b'#') || line.iter().all(u8::is_ascii_whitespace) {
        return Line::Nothing;
    }
    let rest = &line[after_blanks(line)..];
    let (key, rest) = rest.split_at(rest.iter().take_while(|byte| byte.is_ascii_graphic() && **byte != b'=').count());
    let Some(rest) = rest[after_blanks(rest)..].strip_prefix(b"=").filter(|_| !key.is_empty()) else {
        return Line::Odd;
    };
    let rest = &rest[after_blanks(rest)..];
    #[allow(clippy::cast_possible_wrap, trivial_numeric_casts)] // depends on the machine
    let printable = |byte: &&u8| **byte as c_char >= b' ' as c_char;
    let mut value = &rest[..rest.iter().take_while(printable).count()];
    while let Some(shorter) = value.strip_suffix(b" ") {
        value = shorter;
    }
    let rest = &rest[value.len()..];
    match rest[after_blanks(rest)..].first() {
        None | Some(b'\r' | b'#') => Line::Entry(text(key), text(value)),
        Some(_) => Line::Odd,
    }
}

/// The number of the first line that is so long that releases of MooseFS would read other values.
fn too_long(text: &[u8]) -> Option<usize> {
    let lines = || text.split(|byte| *byte == b'\n');
    let (at, _) = lines().enumerate().find(|(_, line)| line.len() > LONGEST)?;
    // Its buffer holds the line's end, or one byte more of a line that goes on.
    let pieces =
        lines().flat_map(|line| if line.len() > LONGEST { line.chunks(LONGEST + 1) } else { line.chunks(usize::MAX) });
    let differs = Document::parse(text).definitions() != Document::of_lines(pieces).definitions();
    differs.then_some(at + 1)
}

/// The value of `key` in the file at `path`; `None` where the file or the key is missing. For values that only a report
/// shows.
pub(crate) fn value_in(path: &Path, key: &str) -> Option<String> {
    Some(Document::load(path).ok()?.get(key)?.value.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn as_in_moosefs_the_last_definition_wins_and_there_are_no_inline_comments() {
        let document = Document::parse(b"A = 1\nA = 2 # x\n # not a comment\n");
        assert_eq!(document.get("A").unwrap().value, "2 # x");
        assert_eq!(document.odd, Some((3, " # not a comment".to_owned())));
    }

    #[test]
    fn a_line_is_read_as_by_cfg_c() {
        for (line, wanted) in [
            ("A=1", Some(("A", "1"))),
            (" \tA\t =\t 1", Some(("A", "1"))),
            ("A = 1\t# comment", Some(("A", "1"))),
            ("A = 1 \t #comment", Some(("A", "1"))),
            ("A = 1\t", Some(("A", "1"))),
            ("A = 1  ", Some(("A", "1"))),
            ("A = 1\r", Some(("A", "1"))),
            ("A = 1\rB = 2", Some(("A", "1"))),
            ("A = 1\0B", Some(("A", "1"))),
            ("A = a b  c", Some(("A", "a b  c"))),
            ("A = \"1\"", Some(("A", "\"1\""))),
            ("A == 1", Some(("A", "= 1"))),
            ("A =", Some(("A", ""))),
            ("A = \t#", Some(("A", "#"))),
            ("A", None),
            ("A B = 1", None),
            ("= 1", None),
            ("A = 1\t2", None),
            ("A = 1\x0c", None),
            ("A\x01 = 1", None),
            ("\u{feff}A = 1", None),
        ] {
            let document = Document::parse(line.as_bytes());
            let read = document.entries.first().map(|entry| (entry.key.as_str(), entry.value.as_str()));
            assert_eq!(read, wanted, "{line:?}");
            assert_eq!(document.odd.is_some(), wanted.is_none(), "{line:?}");
        }
        let has_sign = c_char::MIN != 0;
        assert_eq!(Document::parse("A = gr\u{fc}n".as_bytes()).entries.is_empty(), has_sign);
    }

    #[test]
    fn a_line_that_releases_read_differently_is_refused() {
        let line = |length: usize, end: &str| format!("#{}{end}\n", "x".repeat(length - 1));
        assert_eq!(too_long(line(998, "A = 1").as_bytes()), Some(1), "its end is a line of its own");
        assert_eq!(too_long(line(900, "A = 1").as_bytes()), None);
        assert_eq!(too_long(line(5000, "").as_bytes()), None, "a comment in both");
        let value = |length: usize| format!("B = 1\nA = {}\n", "x".repeat(length));
        assert_eq!(too_long(value(993).as_bytes()), None);
        assert_eq!(too_long(value(995).as_bytes()), Some(2));
    }

    #[test]
    fn a_file_that_others_can_write_or_exchange_is_refused() {
        use std::os::unix::fs::{PermissionsExt, chown, symlink};
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let (folder, path, link) = (root.join("mfs"), root.join("mfs/x.cfg"), root.join("link.cfg"));
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(&path, "ARCHIVE_LEVEL = 3\n").unwrap();
        symlink(&path, &link).unwrap();
        let mode = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        let refused = || {
            [&path, &link].map(|path| match Document::load(path) {
                Err(Error::Unsafe { path }) => Some(path),
                Ok(_) => None,
                Err(e) => panic!("{e}"),
            })
        };
        assert_eq!(refused(), [None, None]);
        mode(&path, 0o666);
        assert_eq!(refused(), [Some(path.clone()), Some(path.clone())]);
        mode(&path, 0o644);
        mode(&folder, 0o775);
        assert_eq!(refused(), [Some(folder.clone()), Some(folder.clone())]);
        mode(&folder, 0o755);
        chown(&folder, Some(65_534), None).unwrap();
        assert_eq!(refused(), [Some(folder.clone()), Some(folder.clone())]);
        chown(&folder, Some(0), None).unwrap();
        std::os::unix::fs::lchown(&link, Some(65_534), None).unwrap();
        assert_eq!(refused(), [None, Some(link.clone())]);
        assert!(matches!(Document::load_strict(&link), Err(Error::Unsafe { .. })), "ours as theirs");
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC*") {
            let _ = (Document::parse(text.as_bytes()), too_long(text.as_bytes()));
        }

        #[test]
        fn an_entry_is_read_as_it_is_written(key in "[A-Z_]{1,12}", value in "[a-z0-9/.*-]{1,12}") {
            let document = Document::parse(format!("{key} = {value}\n").as_bytes());
            prop_assert_eq!(&document.get(&key).unwrap().value, &value);
        }
    }
}
