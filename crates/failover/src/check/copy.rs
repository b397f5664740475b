//! What a promotion would serve: looks at the metalogger's copy, and notes how fresh it is.

use std::net::Ipv4Addr;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use crate::election::isolation;
use crate::instance::Instance;
use crate::machine::config::Config;
use crate::machine::memory::{self, Freshness};
use crate::machine::space::Space;
use crate::machine::state::State;
use crate::metadata::inventory::end_of_copy;
use crate::metadata::inventory::{ImageFile, Origin};
use crate::metadata::{Base, Image, Inventory, Lineage, Loss, Plan, Refusal, Severity, Version, emergency, plan};
use crate::moosefs::Info;
use crate::promotion::prepare;
use crate::sys::cancel::Cancel;
use crate::sys::folder::Folder;
use crate::sys::logging::chain;
use crate::sys::text::shown;

use super::facts::{Copy, Former, NoCopy, other_file_system};

/// How long the metalogger may take to write what the master has sent it: it flushes once a second.
const FLUSH: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What would be promoted. Waits for the metalogger's next flush if the copy is not at version `served` yet.
pub(super) fn look(
    config: &Config,
    data: &Folder,
    state: Option<&State>,
    vip: Ipv4Addr,
    served: Option<Version>,
    metalogger_runs: bool,
) -> Result<Copy, NoCopy> {
    let (inventory, plan) = plan_when_flushed(data, state, served, FLUSH)?;
    let mut warnings: Vec<_> = emergency::find(data, &config.working_user).iter().map(ToString::to_string).collect();
    warnings.extend(plan.notes.iter().filter_map(|note| match prepare::remark(note, metalogger_runs) {
        (Severity::Warning, text) => Some(text),
        (Severity::Info, _) => None,
    }));
    let memory = state.map(memory::recall).unwrap_or_default();
    let network = isolation::outlook(config, data, &plan, &memory, Some(vip), Cancel::never());
    Ok(Copy {
        lineage: plan.lineage,
        metaid: plan.metaid,
        end_version: plan.end_version,
        served_version: plan.served(),
        changes: plan.changes,
        image_age: image_age(&inventory, &plan),
        space: Space::of(data, &plan, plan.jump()).map_err(|e| chain(&e)),
        network: network.map_err(|e| chain(&e)),
        warnings,
    })
}

/// Plans once, when the metalogger's log reaches version `served` or `patience` is over. If the end of that log cannot
/// be read (it has just been rotated, or an image holds all changes), it plans first, and once more at the end.
fn plan_when_flushed(
    data: &Folder,
    state: Option<&State>,
    served: Option<Version>,
    patience: Duration,
) -> Result<(Inventory, Plan), NoCopy> {
    let end = Instant::now() + patience;
    let wait = |reached: &dyn Fn() -> bool| {
        while !reached() && Instant::now() < end {
            sleep(LOOK_EVERY);
        }
    };
    let Some(served) = served else { return make_plan(data, state) };
    wait(&|| end_of_copy(data).is_none_or(|end| end.behind(served).is_none()));
    let (inventory, plan) = make_plan(data, state)?;
    if plan.end_version.behind(served).is_none() || Instant::now() >= end {
        return Ok((inventory, plan));
    }
    wait(&|| end_of_copy(data).is_some_and(|end| end.behind(served).is_none()));
    make_plan(data, state)
}

fn make_plan(data: &Folder, state: Option<&State>) -> Result<(Inventory, Plan), NoCopy> {
    let inventory = memory::inventory(data, state).map_err(|e| NoCopy::Unknown(chain(&e)))?;
    match plan::make(&inventory, Loss::Refuse) {
        Ok(plan) => Ok((inventory, plan)),
        Err(refusal) => Err(NoCopy::Refused { why: refusal.to_string(), former: former(inventory, &refusal) }),
    }
}

/// The kept images for which the files are refused, and for nothing else.
fn former(mut inventory: Inventory, refusal: &Refusal) -> Option<Former> {
    if !matches!(refusal, Refusal::Metaids { .. } | Refusal::StepBack { .. }) {
        return None;
    }
    let known = |file: &ImageFile| match file.image {
        Image::Complete { version, metaid, .. } if file.lineage == Lineage::Ml => Some((version, metaid)),
        _ => None,
    };
    let (version, metaid) = inventory.images.iter().filter(|file| file.origin == Origin::Current).find_map(known)?;
    let is_former = |file: &ImageFile| {
        let kept = matches!(file.origin, Origin::Previous(_));
        kept && known(file).is_some_and(|kept| kept.1 != metaid || kept.0 > version)
    };
    let files = inventory.images.iter().filter(|file| is_former(file)).map(|file| shown(&file.name)).collect();
    inventory.images.retain(|file| !is_former(file));
    let plan = plan::make(&inventory, Loss::Refuse).ok()?;
    Some(Former { files, metaid: plan.metaid, end_version: plan.end_version })
}

fn image_age(inventory: &Inventory, plan: &Plan) -> Option<Duration> {
    let Base::Image { name, .. } = &plan.base else { return None };
    let modified = inventory.images.iter().find(|file| file.name == *name)?.modified;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Some(now.saturating_sub(Duration::from_secs(modified)))
}

/// Notes the comparison for the check before the next promotion: a machine that knows its copy to be stale steps down
/// first. Returns when the copy was last in sync. A note that cannot be kept changes nothing about the answers.
pub(super) fn note_freshness(
    instance: &Instance,
    state: Option<&State>,
    master: Option<&Info>,
    copy: Option<&Copy>,
) -> Option<i64> {
    // One that cannot be read is reported by the next promotion.
    let before = state.and_then(|state| memory::freshness(state).ok().flatten());
    let in_sync = before.as_ref().and_then(|noted| noted.in_sync);
    let (Some(info), Some(copy)) = (master, copy) else { return in_sync };
    let Some(now) = compared(info, copy, before.as_ref(), chrono::Utc::now().timestamp()) else { return in_sync };
    // The first check on a machine makes the folder.
    if let Err(e) = State::of(instance).and_then(|state| memory::note_freshness(&state, &now)) {
        log::warn!("cannot record the served version: {}", chain(&e));
    }
    now.in_sync
}

/// The comparison to note; `None` if there is nothing to compare.
fn compared(info: &Info, copy: &Copy, before: Option<&Freshness>, now: i64) -> Option<Freshness> {
    let served = info.metadata_version.filter(|_| other_file_system(info, copy).is_none())?;
    Some(Freshness::compared(now, copy.end_version, served, info.metaid, before))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::election::isolation::Outlook;
    use crate::moosefs::Release;
    use std::io::Write as _;

    fn image(version: u64) -> Vec<u8> {
        let mut bytes = b"MFSM 2.0".to_vec();
        bytes.extend(version.to_be_bytes());
        bytes.extend(7_u64.to_be_bytes());
        bytes.extend(b"NODE 1.0\0\0\0\0\0\0\0\x04abcd[MFS EOF MARKER]");
        bytes
    }

    fn changes(ids: std::ops::Range<u64>) -> String {
        let lines: Vec<_> = ids.map(|id| format!("{id}: {}|ACCESS(1)\n", 1_795_000_000 + id)).collect();
        lines.concat()
    }

    fn end_when_flushed(data: &Folder, served: Option<u64>, patience: Duration) -> u64 {
        plan_when_flushed(data, None, served.map(Version), patience).unwrap().1.end_version.0
    }

    #[test]
    fn a_plan_waits_for_the_next_flush_of_the_metalogger() {
        let dir = tempfile::tempdir().unwrap();
        let data = Folder::open(dir.path()).unwrap();
        let log = dir.path().join("changelog_ml.0.mfs");
        std::fs::write(dir.path().join("metadata_ml.mfs.back"), image(5)).unwrap();
        std::fs::write(&log, changes(5..10)).unwrap();
        let (now, brief, patient) = (Duration::ZERO, Duration::from_millis(250), Duration::from_secs(60));
        assert_eq!(end_when_flushed(&data, None, patient), 10);
        assert_eq!(end_when_flushed(&data, Some(10), patient), 10);
        assert_eq!(end_when_flushed(&data, Some(12), now), 10);
        assert_eq!(end_when_flushed(&data, Some(12), brief), 10, "changes that do not arrive are lacking");
        let flush = |content: String| {
            let log = log.clone();
            std::thread::spawn(move || {
                sleep(LOOK_EVERY * 2);
                std::fs::OpenOptions::new().append(true).open(log).unwrap().write_all(content.as_bytes()).unwrap();
            })
        };
        let flushed = flush(changes(10..12));
        assert_eq!(end_when_flushed(&data, Some(12), patient), 12);
        flushed.join().unwrap();
        // Just rotated.
        std::fs::rename(&log, dir.path().join("changelog_ml.1.mfs")).unwrap();
        std::fs::write(&log, "").unwrap();
        assert_eq!(end_when_flushed(&data, Some(12), patient), 12);
        let flushed = flush(changes(12..14));
        assert_eq!(end_when_flushed(&data, Some(14), patient), 14);
        flushed.join().unwrap();
    }

    #[test]
    fn a_refusal_and_an_unreadable_folder_are_not_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let data = Folder::open(dir.path()).unwrap();
        assert!(matches!(make_plan(&data, None), Err(NoCopy::Refused { former: None, .. })));
    }

    #[test]
    fn kept_images_of_a_former_file_system_are_named_if_nothing_else_is_wrong() {
        let of = |metaid: u64, version| {
            let mut image = image(version);
            image[16..24].copy_from_slice(&metaid.to_be_bytes());
            image
        };
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, image: Vec<u8>| std::fs::write(dir.path().join(name), image).unwrap();
        write("metadata_ml.mfs.back", of(7, 5));
        std::fs::write(dir.path().join("changelog_ml.0.mfs"), changes(5..10)).unwrap();
        let look = || make_plan(&Folder::open(dir.path()).unwrap(), None).map(|(_, plan)| plan.end_version.0);
        let former = || match look() {
            Err(NoCopy::Refused { former: Some(former), .. }) => former,
            other => panic!("{other:?}"),
        };
        // Another file system; and a higher version of this one.
        for kept in [of(8, 90), of(8, 2), of(7, 90)] {
            write("metadata_ml.mfs.back.1", kept.clone());
            write("metadata_ml.mfs.back.2", kept);
            write("metadata_ml.mfs.back.3", of(7, 3));
            let former = former();
            assert_eq!(former.files, ["metadata_ml.mfs.back.1", "metadata_ml.mfs.back.2"]);
            assert_eq!((former.metaid, former.end_version), (7, Version(10)));
            let served = |version, metaid| Info {
                release: crate::moosefs::Release::AUTO_RESTORE,
                metadata_version: Some(Version(version)),
                metaid,
            };
            assert!(former.is_left_by(&served(10, None)) && former.is_left_by(&served(10, Some(7))));
            assert!(!former.is_left_by(&served(90, None)) && !former.is_left_by(&served(10, Some(8))));
        }
        write("metadata.mfs.back", of(9, 5));
        assert!(matches!(look(), Err(NoCopy::Refused { former: None, .. })), "more is wrong");
    }

    #[test]
    fn a_comparison_is_noted_with_when_the_copy_was_in_sync() {
        let copy = Copy {
            lineage: Lineage::Ml,
            metaid: 7,
            end_version: Version(10),
            served_version: Version(10),
            changes: 0,
            image_age: None,
            space: Err(String::new()),
            network: Ok(Outlook::Unasked),
            warnings: Vec::new(),
        };
        let info = |version: Option<u64>, metaid| Info {
            release: Release::AUTO_RESTORE,
            metadata_version: version.map(Version),
            metaid,
        };
        let noted_at = |compared, in_sync, served, then| Freshness {
            compared,
            served: Version(served),
            metaid: Some(7),
            in_sync: Some(in_sync),
            in_sync_version: Some(Version(then)),
        };
        let before = noted_at(500, 500, 9, 9);
        let noted = |version, metaid| compared(&info(version, metaid), &copy, Some(&before), 900);
        assert_eq!(noted(Some(10), Some(7)), Some(noted_at(900, 900, 10, 10)));
        assert_eq!(noted(Some(11), Some(7)), Some(noted_at(900, 500, 11, 9)));
        let epoch = Version(0) + crate::metadata::EpochJump::epochs(1);
        assert_eq!(noted(Some(epoch.0), Some(7)), Some(noted_at(900, 500, epoch.0, 9)), "another master was promoted");
        assert_eq!(noted(Some(11), Some(8)), None, "another file system");
        assert_eq!(noted(None, None), None, "1.x reports no version");
    }
}
