//! The real sets in `testdata`, with changes of all kinds: mfsmaster itself loads everything that we stage from them.

use std::os::unix::fs::MetadataExt;

use super::master::Master;
use crate::metadata::testing::Data;
use crate::metadata::version::EPOCH;
use crate::metadata::{EpochJump, Image, image, stage};
use crate::sys::cancel::Cancel;
use crate::sys::folder::Folder;

/// Of the third promotion.
const JUMP: EpochJump = EpochJump(3 * EPOCH);

/// Stages `data` into a master's folder and has mfsmaster restore it.
fn loads(data: &Data, jump: EpochJump) {
    let (folder, plan, cancel) = (data.folder(), data.plan().unwrap(), Cancel::new());
    let master = Master::new();
    let stage = Folder::open(&master.data()).unwrap();
    stage::copy_image(&folder, &plan, &stage, master.owner, jump, &cancel).unwrap();
    let written = stage::write_log(&folder, &plan, &stage, master.owner, jump, &cancel).unwrap();
    let log = std::fs::metadata(master.data().join(stage::LOG)).unwrap();
    assert_eq!((log.uid(), log.mode() & 0o777), (master.owner.uid, 0o640));

    let output = master.restore().expect("a restore in time");
    assert!(output.success(), "{output:?}");
    let (signature, version, metaid) = (*b"MFSM 2.0", written.served, plan.metaid);
    assert_eq!(master.restored(), Some(Image::Complete { signature, version, metaid }), "{output:?}");
    let next = |name: &str| image::next_chunk(&mut stage.read(name.as_ref()).unwrap()).unwrap();
    let skips = next("metadata.mfs") > Some(300_000_000);
    assert_eq!(skips, jump > EpochJump::NONE, "{output:?}");
}

#[test]
fn a_copy_with_a_torn_log() {
    loads(&Data::real("3.0.117-torn-ml"), EpochJump::NONE);
    loads(&Data::real("3.0.117-torn-ml"), JUMP);
}

#[test]
fn a_log_written_on_behind_a_torn_line() {
    loads(&Data::real("3.0.117-glued-ml"), EpochJump::NONE);
    loads(&Data::real("3.0.117-glued-ml"), JUMP);
}

#[test]
fn a_crashed_masters_own_files() {
    loads(&Data::real("3.0.117-master"), JUMP);
}

#[test]
fn a_file_system_without_any_dump() {
    loads(&Data::real("3.0.117-new-ml"), EpochJump::NONE);
}

#[test]
fn an_image_without_changes() {
    let image = include_bytes!("../../../testdata/3.0.117-torn-ml/metadata_ml.mfs.back");
    let data = || Data::new().file("metadata_ml.mfs.back", image);
    loads(&data(), EpochJump::NONE);
    loads(&data(), JUMP);
}
