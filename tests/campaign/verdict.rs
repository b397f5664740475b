//! What must hold after every run, with or without a fault.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use lab::SingleMachine;

/// What came of one point.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// The run ended before the call at which the fault was due.
    NotInjected,
    /// All metadata is there, and the next run serves it.
    Well,
    /// Metadata is missing.
    Lost(String),
    /// The next run does not serve what it has to.
    Stuck(String),
    /// A master serves that must not, or one is left that no run knows.
    Stray(String),
}

/// The files of before: content and name. Empty ones say nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Originals(BTreeMap<Vec<u8>, String>);

impl Verdict {
    /// Whether a promise was broken.
    pub(crate) fn is_bad(&self) -> bool {
        matches!(self, Self::Lost(_) | Self::Stuck(_) | Self::Stray(_))
    }

    /// With more about how it came.
    pub(crate) fn explained(self, how: impl Fn() -> String) -> Self {
        let explain = |why: String| format!("{why}\n  {}", how());
        match self {
            Self::Lost(why) => Self::Lost(explain(why)),
            Self::Stuck(why) => Self::Stuck(explain(why)),
            Self::Stray(why) => Self::Stray(explain(why)),
            Self::NotInjected | Self::Well => self,
        }
    }
}

impl Originals {
    /// What lies in a folder.
    pub(crate) fn of(folder: &Path) -> Self {
        let files = fs::read_dir(folder).into_iter().flatten().flatten();
        let read =
            |entry: fs::DirEntry| Some((fs::read(entry.path()).ok()?, entry.file_name().to_string_lossy().into()));
        Self(files.filter_map(read).filter(|(content, _)| !content.is_empty()).collect())
    }

    /// Another content for a file.
    pub(crate) fn replace(&mut self, content: &str, by: String) {
        let name = self.0.remove(content.as_bytes()).expect("a file with this content");
        self.0.insert(by.into_bytes(), name);
    }

    /// The names of those whose content is nowhere: neither in the data folder nor set aside nor in an archive that tar
    /// can unpack. What is staged or rehearsed does not count, it is a copy.
    pub(crate) fn missing(&self, machine: &SingleMachine) -> Vec<String> {
        let mut missing = self.0.clone();
        let (mut folders, mut archives) = (vec![machine.data()], Vec::new());
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
                match path.is_dir() {
                    true if ["stage", "restore", "mfs-rehearsal", "hot"].contains(&name.as_str()) => (),
                    true => folders.push(path),
                    false if name.starts_with("metabak.") => archives.push(path),
                    false if name.ends_with(".partial") => (),
                    // Nor is there anything in a FIFO.
                    false if !path.is_file() => (),
                    false => drop(fs::read(path).map(|content| missing.remove(&content))),
                }
            }
        }
        for archive in archives.iter().take_while(|_| !self.0.is_empty()) {
            let unpacked = machine.folder().join("unpacked");
            let _ = fs::remove_dir_all(&unpacked);
            let _ = fs::create_dir(&unpacked);
            let tar = Command::new("tar").arg("-C").arg(&unpacked).arg("-xf").arg(archive).status();
            if tar.is_ok_and(|status| status.success()) {
                for folder in fs::read_dir(&unpacked).into_iter().flatten().flatten() {
                    for name in Self::of(&folder.path()).0.into_keys() {
                        missing.remove(&name);
                    }
                }
            }
        }
        missing.into_values().collect()
    }
}
