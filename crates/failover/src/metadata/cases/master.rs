//! Sets of files, and the real `mfsmaster` that is run on them.

use std::fs::File;
use std::os::unix::fs::{chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime};

use crate::metadata::{Image, image};
use crate::sys::folder::Owner;

/// A restore of these sets takes a fraction of a second; one that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(15);

/// What one name in a data folder is.
#[derive(Clone)]
pub(super) enum Content {
    Bytes(Vec<u8>),
    /// A link to a file with this content somewhere else.
    Link(Vec<u8>),
    Fifo,
    Folder,
}

/// What lies in a data folder.
#[derive(Clone, Default)]
pub(super) struct Set {
    files: Vec<(String, Content)>,
    /// Unix seconds of every file's last modification.
    modified: u64,
}

impl Set {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn file(self, name: &str, bytes: impl AsRef<[u8]>) -> Self {
        self.with(name, Content::Bytes(bytes.as_ref().to_vec()))
    }

    pub(super) fn with(mut self, name: &str, content: Content) -> Self {
        self.files.push((name.to_owned(), content));
        self
    }

    pub(super) fn modified(mut self, time: u64) -> Self {
        self.modified = time;
        self
    }

    /// Lays the set into an empty folder, backwards if so wished: some file systems list it in the order of creation.
    pub(super) fn write(&self, folder: &Path, backwards: bool) {
        let mut files: Vec<_> = self.files.iter().collect();
        if backwards {
            files.reverse();
        }
        let owner = owner();
        for (name, content) in files {
            let path = folder.join(name);
            match content {
                Content::Bytes(bytes) => write(&path, bytes, self.modified),
                Content::Link(bytes) => {
                    let target = folder.with_file_name("elsewhere");
                    write(&target, bytes, self.modified);
                    chown(&target, Some(owner.uid), Some(owner.gid)).unwrap();
                    symlink(&target, &path).unwrap();
                }
                Content::Fifo => nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o640)).unwrap(),
                Content::Folder => std::fs::create_dir(&path).unwrap(),
            }
            chown(&path, Some(owner.uid), Some(owner.gid)).unwrap();
        }
    }
}

fn write(path: &Path, bytes: &[u8], modified: u64) {
    std::fs::write(path, bytes).unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(modified);
    File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

fn owner() -> Owner {
    Owner::named("mfs", None).expect("this test needs the user mfs")
}

/// How a restore ended.
#[derive(Debug, Clone)]
pub(super) struct Output {
    pub(super) status: ExitStatus,
    /// What it printed.
    pub(super) text: String,
}

impl Output {
    pub(super) fn success(&self) -> bool {
        self.status.success()
    }
}

/// A data folder of its own for one run of the real `mfsmaster`; no port is opened.
pub(super) struct Master {
    dir: tempfile::TempDir,
    pub(super) owner: Owner,
}

impl Master {
    pub(super) fn new() -> Self {
        // In memory: what mfsmaster makes of two equal candidates depends on the order in which it finds them, and
        // there that order can be chosen.
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let master = Self { dir, owner: owner() };
        std::fs::create_dir(master.data()).unwrap();
        for path in [master.dir.path().to_owned(), master.data()] {
            chown(path, Some(master.owner.uid), Some(master.owner.gid)).expect("this test needs root");
        }
        master
    }

    pub(super) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// `mfsmaster -a -x restore`; `None` if it does not end.
    pub(super) fn restore(&self) -> Option<Output> {
        let config = self.dir.path().join("mfsmaster.cfg");
        let data = self.data();
        let text = format!("WORKING_USER = mfs\nDATA_PATH = {}\nSYSLOG_IDENT = mfscase\n", data.display());
        std::fs::write(&config, text).unwrap();
        let printed = self.dir.path().join("printed");
        let file = File::create(&printed).unwrap();
        // A master that cannot store its result leaves it in /tmp, where every later one looks: each has its own.
        let mut command = Command::new("unshare");
        let own_tmp = "mount -t tmpfs tmpfs /tmp && exec mfsmaster -c \"$0\" -a -x restore";
        command.args(["--mount", "sh", "-c", own_tmp]).arg(&config);
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        let mut child = command.spawn().expect("this test needs mfsmaster");
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                let text = String::from_utf8_lossy(&std::fs::read(&printed).unwrap()).into_owned();
                return Some(Output { status, text });
            }
            if Instant::now() > end {
                child.kill().unwrap();
                child.wait().unwrap();
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What the restored image is.
    pub(super) fn restored(&self) -> Option<Image> {
        File::open(self.data().join("metadata.mfs")).ok().map(|mut file| image::read(&mut file).unwrap())
    }

    pub(super) fn restored_bytes(&self) -> Option<Vec<u8>> {
        std::fs::read(self.data().join("metadata.mfs")).ok()
    }
}
