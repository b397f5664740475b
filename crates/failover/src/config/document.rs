//! The text form: lines of `KEY = VALUE`.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Error, KEYS};

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
    /// Reads one of our files: every line must make sense, and only root may be able to change it.
    pub(super) fn load(path: &Path) -> Result<Self, Error> {
        let (document, status) = Self::read(path)?;
        if status.mode() & 0o022 != 0 || status.uid() != 0 {
            return Err(Error::Unsafe { path: path.to_owned() });
        }
        match document.odd {
            Some((line, text)) => Err(Error::Syntax { path: document.path, line, text }),
            None => Ok(document),
        }
    }

    /// Reads one of MooseFS's files: lines it ignores, we ignore.
    pub(super) fn load_lenient(path: &Path) -> Result<Self, Error> {
        Ok(Self::read(path)?.0)
    }

    fn read(path: &Path) -> Result<(Self, std::fs::Metadata), Error> {
        let failed = |source| Error::Read { path: path.to_owned(), source };
        let mut file = std::fs::File::open(path).map_err(failed)?;
        let status = file.metadata().map_err(failed)?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(failed)?;
        let document = Self { path: path.to_owned(), ..Self::parse(&String::from_utf8_lossy(&text)) };
        Ok((document, status))
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
