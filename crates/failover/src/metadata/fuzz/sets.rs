//! Whole data folders: real sets with damaged, renamed, lost and mixed-up files, through inventory, plan and stage.

use std::cell::Cell;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use fastrand::Rng;

use super::damage::{damage, pick};
use crate::metadata::testing::me;
use crate::metadata::version::EPOCH;
use crate::metadata::{
    Base, EpochJump, Image, Inventory, Lineage, LogFile, Loss, Note, Plan, Version, changelog, image, inventory, plan,
    stage,
};
use crate::sys::cancel::Cancel;
use crate::sys::folder::Folder;

const JUMP: EpochJump = EpochJump(EPOCH);
const NAMES: &[&str] = &[
    "metadata.mfs",
    "metadata.mfs.back",
    "metadata.mfs.back.1",
    "metadata.mfs.emergency",
    "metadata_ml.mfs.back",
    "metadata_ml.mfs.back.1",
    "metadata_ml.tmp",
    "changelog.0.mfs",
    "changelog.1.mfs",
    "changelog_ml.0.mfs",
    "changelog_ml.1.mfs",
    "changelog_ml_back.0.mfs",
    "changelog_ml_back.1.mfs",
];

type Files = Vec<(String, Vec<u8>)>;

/// The real sets, the folders to work in, and what came out so far.
pub(super) struct Sets {
    real: Vec<Files>,
    data: PathBuf,
    stage: PathBuf,
    plans: Cell<u64>,
    refusals: Cell<u64>,
}

impl Sets {
    pub(super) fn new(dir: &Path) -> Self {
        let mut sets: Vec<PathBuf> = super::testdata().read_dir().unwrap().map(|set| set.unwrap().path()).collect();
        sets.sort();
        let real = sets.iter().map(|set| files(set)).collect();
        let (data, stage) = (dir.join("data"), dir.join("stage"));
        Self { real, data, stage, plans: Cell::new(0), refusals: Cell::new(0) }
    }

    pub(super) fn summary(&self) -> String {
        format!("{} plans, staged and read back; {} refusals", self.plans.get(), self.refusals.get())
    }

    pub(super) fn execute(&self, rng: &mut Rng) {
        let files = self.damaged(rng);
        for folder in [&self.data, &self.stage] {
            let _ = std::fs::remove_dir_all(folder);
            std::fs::create_dir(folder).unwrap();
        }
        for (name, bytes) in &files {
            std::fs::write(self.data.join(name), bytes).unwrap();
        }
        let folder = Folder::open(&self.data).unwrap();
        let inventory = inventory::take(&folder).unwrap();
        match plan::make(&inventory, Loss::Refuse) {
            Ok(plan) => {
                self.plans.set(self.plans.get() + 1);
                check(&plan, &inventory, &files);
                self.stage(&folder, &plan);
            }
            Err(refusal) => {
                self.refusals.set(self.refusals.get() + 1);
                assert!(!refusal.to_string().contains(char::is_control), "{refusal}");
            }
        }
    }

    fn damaged(&self, rng: &mut Rng) -> Files {
        let mut files = pick(rng, &self.real).clone();
        let others = pick(rng, &self.real);
        for _ in 0..=rng.usize(..3) {
            let index = rng.usize(..files.len());
            match rng.usize(..8) {
                0 => drop(files.remove(index)),
                1 => files[index].0 = pick(rng, NAMES).to_string(),
                2 => files.push(((*pick(rng, NAMES)).to_owned(), files[index].1.clone())),
                3 => files.push(pick(rng, others).clone()),
                _ => {
                    let other = pick(rng, others).1.clone();
                    damage(rng, &mut files[index].1, &other);
                }
            }
            if files.is_empty() {
                break;
            }
        }
        // Of two files with one name the folder has the second.
        let mut unique = Files::new();
        for file in files {
            unique.retain(|(name, _)| *name != file.0);
            unique.push(file);
        }
        unique
    }

    /// Stages the plan; what is staged must be exactly what was planned.
    fn stage(&self, folder: &Folder, plan: &Plan) {
        let owner = me();
        let (stage, cancel) = (Folder::open(&self.stage).unwrap(), Cancel::new());
        let raised = match &plan.base {
            Base::Image { signature, .. } if signature == image::FORMAT_2_0 => {
                plan.end_version < Version(u32::MAX.into())
            }
            _ => false,
        };
        let jump = if raised { JUMP } else { EpochJump::NONE };
        stage::copy_image(folder, plan, &stage, owner, jump, &cancel).unwrap();
        let written = stage::write_log(folder, plan, &stage, owner, jump, &cancel).unwrap();

        let staged = image::read(&mut stage.read(OsStr::new(stage::IMAGE)).unwrap()).unwrap();
        match staged {
            Image::New => assert!(plan.base == Base::New && plan.base_version == Version::NEW),
            Image::Complete { version, .. } => assert_eq!(version, plan.base_version + jump),
            Image::Incomplete { .. } => panic!("an incomplete image was staged: {staged}"),
        }
        let scan = changelog::scan(stage.read(OsStr::new(stage::LOG)).unwrap()).unwrap();
        assert!(scan.damage.is_empty() && scan.torn.is_none(), "{scan:?}");
        let found: Vec<_> = scan.segments.iter().map(|s| (Version(s.first), Version::after(s.last))).collect();
        let (first, end) = (plan.base_version + jump, written.served);
        assert_eq!(found, if first == end { vec![] } else { vec![(first, end)] });
    }
}

fn files(set: &Path) -> Files {
    let entries = set.read_dir().unwrap().map(|entry| entry.unwrap());
    let mut files: Files =
        entries.map(|e| (e.file_name().into_string().unwrap(), std::fs::read(e.path()).unwrap())).collect();
    files.sort();
    files
}

fn check(plan: &Plan, inventory: &Inventory, files: &Files) {
    let (mut next, mut heard) = (plan.base_version, false);
    for stretch in &plan.stretches {
        let log = inventory.logs.iter().find(|log| log.name == stretch.file).expect("a stretch of a log that is there");
        assert!(log.scanned && stretch.offset < log.size, "{plan:#?}");
        // Only the metalogger's logs ever continue the files of the other lineage, and never the other way round.
        assert!(log.lineage == plan.lineage || log.lineage == Lineage::Ml, "{plan:#?}");
        assert!(log.lineage == Lineage::Ml || !heard, "{plan:#?}");
        heard |= log.lineage == Lineage::Ml;
        assert!(stretch.first == next.next_change() && stretch.last >= stretch.first, "{plan:#?}");
        next = Version::after(stretch.last);
    }
    assert_eq!((next, next.changes_since(plan.base_version)), (plan.end_version, plan.changes), "{plan:#?}");
    assert!(plan.set_aside.is_sorted() && plan.set_aside.windows(2).all(|w| w[0] != w[1]), "{plan:#?}");
    assert!(plan.notes.iter().all(|note| !note.to_string().contains(char::is_control)), "{plan:#?}");
    nothing_is_dropped_silently(plan, inventory, files);
}

/// A whole line beyond the plan's end is only ever passed over with a note on its log. Of logs that end below the base
/// only the two ends are read.
fn nothing_is_dropped_silently(plan: &Plan, inventory: &Inventory, files: &Files) {
    let named = |log: &LogFile| {
        plan.notes.iter().any(|note| match note {
            Note::Damage { file, .. } => *file == log.name,
            Note::Conflict { dead, .. } => *dead == log.name,
            _ => false,
        })
    };
    for log in inventory.logs.iter().filter(|log| log.lineage == plan.lineage && log.scanned && !named(log)) {
        let (_, bytes) = files.iter().find(|(name, _)| log.name == **name).unwrap();
        let mut offset = 0;
        for line in bytes.split_inclusive(|b| *b == b'\n') {
            // Digits in front of an id that are left of a torn line are none of its own.
            let glued = |d: &changelog::Damage| d.offset == offset && d.kind == changelog::Kind::Glued;
            let id = line.strip_suffix(b"\n").and_then(changelog::parse).map(|line| line.id);
            if let Some(id) = id.filter(|id| !plan.end_version.has(*id) && !log.scan.damage.iter().any(glued)) {
                panic!("change {id} of {:?} is dropped\n{plan:#?}", log.name);
            }
            offset += line.len() as u64;
        }
    }
}
