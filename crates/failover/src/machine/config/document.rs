//! The text form: lines of `KEY = VALUE`.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Error, KEYS};

/// The first of a file, the folders above it, and those above where its links lead, that others than root can change;
/// `None` if root alone decides what is read there. In a folder like `/tmp` everybody's files are their own.
fn changeable(path: &Path) -> io::Result<Option<PathBuf>> {
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

/// The entries of one file as written.
#[derive(Debug, Default)]
pub(super) struct Document {
    pub(super) path: PathBuf,
    entries: Vec<Entry>,
    /// The first line that is no entry: its number and text.
    pub(super) odd: Option<(usize, String)>,
}

/// One line of it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) value: String,
    /// Line number, from 1.
    pub(super) line: usize,
}

impl Document {
    /// Reads one of our files: every line must make sense.
    pub(super) fn load(path: &Path) -> Result<Self, Error> {
        let document = Self::read(path)?;
        match document.odd {
            Some((line, text)) => Err(Error::Syntax { path: document.path, line, text }),
            None => Ok(document),
        }
    }

    /// Reads one of MooseFS's files: lines it ignores, we ignore.
    pub(super) fn load_lenient(path: &Path) -> Result<Self, Error> {
        Self::read(path)
    }

    /// Only root may be able to change it, and to put another one in its place.
    fn read(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Read { path: path.to_owned(), source };
        if let Some(open) = changeable(path).map_err(failed)? {
            return Err(Error::Unsafe { path: open });
        }
        let text = std::fs::read(path).map_err(failed)?;
        Ok(Self { path: path.to_owned(), ..Self::parse(&String::from_utf8_lossy(&text)) })
    }

    pub(super) fn parse(text: &str) -> Self {
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

    pub(super) fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().rev().find(|entry| entry.key == key)
    }

    pub(super) fn check_keys(&self) -> Result<(), Error> {
        match self.entries.iter().find(|entry| !KEYS.contains(&entry.key.as_str())) {
            Some(entry) => Err(Error::UnknownKey { path: self.path.clone(), line: entry.line, key: entry.key.clone() }),
            None => Ok(()),
        }
    }
}
