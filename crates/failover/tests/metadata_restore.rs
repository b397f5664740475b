//! Proves that what we stage is what `MooseFS` itself loads: the real `mfsmaster restore` replays staged sets.
//!
//! Needs mfsmaster 3.0.107 or later, the user `mfs` and root; without them these tests fail, they are not skipped.
//! `restore` opens no port, and each run has a data folder of its own.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use failover::metadata::{Image, Loss, Plan, image, inventory, plan, stage};
use failover::sys::cancel::Cancel;
use failover::sys::folder::{Folder, Owner};

const JUMP: u64 = 1_000_000;

/// A folder that the user `mfs` can work in.
struct Master {
    dir: tempfile::TempDir,
    owner: Owner,
}

impl Master {
    fn new() -> Self {
        let mfs = nix::unistd::User::from_name("mfs").unwrap().expect("this test needs the user mfs");
        let owner = Owner { uid: mfs.uid.as_raw(), gid: mfs.gid.as_raw() };
        let dir = tempfile::tempdir().unwrap();
        let master = Self { dir, owner };
        std::fs::create_dir(master.data()).unwrap();
        for path in [master.dir.path().to_owned(), master.data()] {
            std::os::unix::fs::chown(path, Some(owner.uid), Some(owner.gid)).expect("this test needs root");
        }
        master
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn restore(&self) -> Output {
        let config = self.dir.path().join("mfsmaster.cfg");
        let data = self.data();
        let text = format!("WORKING_USER = mfs\nDATA_PATH = {}\nSYSLOG_IDENT = staged\n", data.display());
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new("mfsmaster");
        command.arg("-c").arg(config).arg("restore").output().expect("this test needs mfsmaster")
    }

    /// What the restored image is.
    fn result(&self) -> Image {
        image::read(&mut File::open(self.data().join("metadata.mfs")).unwrap()).unwrap()
    }
}

fn set(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name)
}

/// Plans `data` and stages it into a master's folder.
fn staged(data: &Path, jump: u64) -> (Plan, Master) {
    let folder = Folder::open(data).unwrap();
    let plan = plan::make(&inventory::take(&folder).unwrap(), Loss::Refuse).unwrap();
    let master = Master::new();
    let (stage, cancel) = (Folder::open(&master.data()).unwrap(), Cancel::new());
    stage::copy_image(&folder, &plan, &stage, master.owner, jump, &cancel).unwrap();
    let written = stage::write_log(&folder, &plan, &stage, master.owner, jump, &cancel).unwrap();
    assert_eq!(written.lines, plan.changes);
    (plan, master)
}

fn loads(data: &Path, jump: u64) {
    let (plan, master) = staged(data, jump);
    let log = std::fs::metadata(master.data().join(stage::LOG)).unwrap();
    assert_eq!((log.uid(), log.mode() & 0o777), (master.owner.uid, 0o640));
    let output = master.restore();
    assert!(output.status.success(), "{output:?}");
    let (signature, version, metaid) = (*b"MFSM 2.0", plan.end_version + jump, plan.metaid);
    let expected = Image::Complete { signature, version, metaid };
    assert_eq!(master.result(), expected, "{output:?}");
}

#[test]
fn a_copy_with_a_torn_log() {
    loads(&set("3.0.117-torn-ml"), 0);
    loads(&set("3.0.117-torn-ml"), JUMP);
}

#[test]
fn a_log_written_on_behind_a_torn_line() {
    loads(&set("3.0.117-glued-ml"), 0);
    loads(&set("3.0.117-glued-ml"), JUMP);
}

#[test]
fn a_crashed_masters_own_files() {
    loads(&set("3.0.117-master"), JUMP);
}

#[test]
fn a_file_system_without_any_dump() {
    loads(&set("3.0.117-new-ml"), 0);
}

#[test]
fn an_image_without_changes() {
    let data = tempfile::tempdir().unwrap();
    let name = "metadata_ml.mfs.back";
    std::fs::copy(set("3.0.117-torn-ml").join(name), data.path().join(name)).unwrap();
    loads(data.path(), 0);
    loads(data.path(), JUMP);
}

/// Why any of this is needed: given the torn log itself, stock mfsmaster loses all of it and reports success.
#[test]
fn stock_mfsmaster_drops_a_torn_log() {
    let master = Master::new();
    for entry in set("3.0.117-torn-ml").read_dir().unwrap() {
        let (from, to) = (entry.as_ref().unwrap().path(), master.data().join(entry.unwrap().file_name()));
        std::fs::copy(from, &to).unwrap();
        std::os::unix::fs::chown(to, Some(master.owner.uid), Some(master.owner.gid)).unwrap();
    }
    let output = master.restore();
    assert!(output.status.success(), "{output:?}");
    assert!(matches!(master.result(), Image::Complete { version: 67, .. }), "{output:?}");
}
