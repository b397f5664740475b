//! Data folders for the unit tests: made up, or copies of real ones in `testdata/`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::{Inventory, Loss, Plan, Refusal, inventory, plan};
use crate::sys::folder::{Folder, Owner};

/// A data folder under construction.
pub(super) struct Data {
    dir: tempfile::TempDir,
}

impl Data {
    pub(super) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// A copy of one set in `testdata/`.
    pub(super) fn real(set: &str) -> Self {
        let data = Self::new();
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(set);
        for entry in from.read_dir().unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), data.path(&entry.file_name().into_string().unwrap())).unwrap();
        }
        data
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn file(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        std::fs::write(self.path(name), content).unwrap();
        self
    }

    /// A complete 2.0 image with one section.
    pub(super) fn image(self, name: &str, version: u64, metaid: u64) -> Self {
        self.file(name, image(version, metaid))
    }

    /// A log of the changes `ids`, as the history `branch` has them.
    pub(super) fn log(self, name: &str, ids: impl IntoIterator<Item = u64>, branch: u64) -> Self {
        self.file(name, lines(ids, branch))
    }

    pub(super) fn folder(&self) -> Folder {
        Folder::open(self.dir.path()).unwrap()
    }

    pub(super) fn inventory(&self) -> Inventory {
        inventory::take(&self.folder()).unwrap()
    }

    pub(super) fn plan(&self) -> Result<Plan, Refusal> {
        plan::make(&self.inventory(), Loss::Refuse)
    }

    /// The plan of an administrator who allows the loss of data.
    pub(super) fn lossy_plan(&self) -> Result<Plan, Refusal> {
        plan::make(&self.inventory(), Loss::Allow)
    }
}

pub(super) fn image(version: u64, metaid: u64) -> Vec<u8> {
    let mut bytes = b"MFSM 2.0".to_vec();
    bytes.extend(version.to_be_bytes());
    bytes.extend(metaid.to_be_bytes());
    bytes.extend(b"NODE 1.0\0\0\0\0\0\0\0\x04abcd[MFS EOF MARKER]");
    bytes
}

/// A complete 2.0 image with one section of that name and content.
pub(super) fn image_with(version: u64, name: [u8; 4], content: &[u8]) -> Vec<u8> {
    let mut bytes = b"MFSM 2.0".to_vec();
    bytes.extend(version.to_be_bytes());
    bytes.extend(7_u64.to_be_bytes());
    bytes.extend(name);
    bytes.extend(b" 1.3");
    bytes.extend((content.len() as u64).to_be_bytes());
    bytes.extend(content);
    bytes.extend(b"[MFS EOF MARKER]");
    bytes
}

/// One line; a later `branch` has later times, as a history after a failover has.
pub(super) fn line(id: u64, branch: u64) -> String {
    format!("{id}: {}|CREATE(1,f{id}_{branch},2):{id}\n", 1_000_000 * (branch + 1) + id)
}

pub(super) fn lines(ids: impl IntoIterator<Item = u64>, branch: u64) -> String {
    ids.into_iter().fold(String::new(), |mut text, id| {
        write!(text, "{}", line(id, branch)).unwrap();
        text
    })
}

/// The user the tests run as: giving a file to it always works.
pub(super) fn me() -> Owner {
    Owner { uid: rustix::process::getuid().as_raw(), gid: rustix::process::getgid().as_raw() }
}
