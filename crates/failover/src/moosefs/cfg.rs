//! Configuration files in MooseFS's form, theirs and ours, as `mfscommon/cfg.c` reads them.
//!
//! Lines of `KEY = VALUE`; `#` in the first column starts a comment, blanks around key and value are dropped, there are
//! no inline comments, and the last definition wins. A file that others than root can change is refused: it decides
//! what programs of root do.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

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
}

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
    /// The first line that is no entry: its number and text.
    odd: Option<(usize, String)>,
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
        Ok(Self { path: path.to_owned(), ..Self::parse(&String::from_utf8_lossy(&text)) })
    }

    /// Reads a text.
    pub(crate) fn parse(text: &str) -> Self {
        let mut document = Self::default();
        for (index, line) in text.lines().enumerate() {
            if line.starts_with('#') || line.trim().is_empty() {
                continue;
            }
            match line.split_once('=') {
                Some((key, value)) if !key.trim().is_empty() => document.entries.push(Entry {
                    key: key.trim().to_owned(),
                    value: value.trim().to_owned(),
                    line: index + 1,
                }),
                _ => document.odd = document.odd.or(Some((index + 1, line.to_owned()))),
            }
        }
        document
    }

    /// The definition of `key` that counts.
    pub(crate) fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().rev().find(|entry| entry.key == key)
    }
}

/// The value of `key` in the file at `path`; `None` where the file or the key is missing. For values that only a report
/// shows.
pub(crate) fn value_in(path: &Path, key: &str) -> Option<String> {
    Some(Document::load(path).ok()?.get(key)?.value.clone())
}

/// The first of these that others than root can change: the file or folder, the folders above it, and those above what
/// its links lead to. `None` if root alone decides. In a sticky folder like `/tmp` other users cannot replace root's
/// files.
pub(crate) fn changeable(path: &Path) -> io::Result<Option<PathBuf>> {
    let real = path.canonicalize()?;
    for path in path.ancestors().chain(real.ancestors()).filter(|path| !path.as_os_str().is_empty()) {
        let status = path.symlink_metadata()?;
        let sticky = status.is_dir() && status.mode() & 0o1000 != 0;
        let others = status.mode() & 0o022 != 0 && !sticky && !status.is_symlink();
        if status.uid() != 0 || others {
            return Ok(Some(path.to_owned()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn as_in_moosefs_the_last_definition_wins_and_there_are_no_inline_comments() {
        let document = Document::parse("A = 1\nA = 2 # x\n # not a comment\n");
        assert_eq!(document.get("A").unwrap().value, "2 # x");
        assert_eq!(document.odd, Some((3, " # not a comment".to_owned())));
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
            let _ = Document::parse(&text);
        }

        #[test]
        fn an_entry_is_read_as_it_is_written(key in "[A-Z_]{1,12}", value in "[a-z0-9/.*-]{1,12}") {
            let document = Document::parse(&format!("{key} = {value}\n"));
            prop_assert_eq!(&document.get(&key).unwrap().value, &value);
        }
    }
}
