//! The machine that has just taken over dies too, before another one has all that it serves.
//!
//! At the first change that it hears of the new history a metalogger drops its logs, and it downloads everything when it
//! connects next (docs/limits.md).

use lab::{Cluster, LAST_RETRY, Release, Result, log_lines};

use crate::SOON;
use crate::nothing_lost_but;

#[test]
fn the_new_master_dies_before_the_others_follow_it() -> Result<()> {
    let cluster = Cluster::build().masters(3).start()?;
    let load = cluster.client().keep_writing()?;
    for standby in ["m2", "m3"] {
        cluster.wait_for_metalogger_in_step(standby, SOON)?;
    }
    cluster.power_off("m1")?;
    let taken = cluster.wait_for_serving("m2", SOON)?;
    let off = cluster.power_off("m2")?;
    cluster.wait_for_serving("m3", SOON)?;
    cluster.wait_for_log("m3", log_lines::SERVING, SOON)?;
    load.wait_for_progress(LAST_RETRY)?;
    assert_eq!(cluster.serving(), ["m3"]);
    // What m2 acknowledged before m3 followed it is gone: that is counted and named, and nothing else.
    nothing_lost_but(&cluster, &load, &[taken.at..=off])?;

    // An archive that has its name is whole; what was set aside is there in any case.
    cluster.power_on("m2")?;
    let archives = "cd /var/lib/mfs; for a in bak/metabak.*.tar.xz; do [ -e \"$a\" ] || continue; \
                    tar --list --file \"$a\" || exit 1; done; find mfs-promote -type f 2>/dev/null; :";
    // While it is archived, it may be seen in neither place.
    cluster.expect("what was set aside on m2", SOON, || {
        let kept = cluster.must("m2", &["sh", "-c", archives]).ok()?;
        kept.contains("metadata_ml.mfs.back").then_some(())
    })?;
    // As a standby it follows the machine that serves now.
    cluster.wait_for_metalogger_in_step("m2", SOON)?;
    Ok(())
}

#[test]
fn the_new_master_dies_when_the_other_metalogger_has_dropped_its_logs_on_3_0() -> Result<()> {
    the_new_master_dies_at(Release::Debian12, &[])
}

#[test]
fn the_new_master_dies_when_the_other_metalogger_has_dropped_its_logs_on_4_57() -> Result<()> {
    the_new_master_dies_at(Release::Debian13, &[])
}

/// It follows, and what it follows cannot be restored without the image.
#[test]
fn the_new_master_dies_before_the_other_metalogger_has_an_image_of_it() -> Result<()> {
    the_new_master_dies_at(Release::Debian12, &["mkdir", "/var/lib/mfs/metadata_ml.tmp"])
}

/// After the metalogger of m3 has dropped its logs, or has connected again where something keeps it from downloading an image.
fn the_new_master_dies_at(release: Release, keeps_from_downloading: &[&str]) -> Result<()> {
    let cluster = Cluster::build().release(release).masters(3).start()?;
    let load = cluster.client().keep_writing()?;
    for standby in ["m2", "m3"] {
        cluster.wait_for_metalogger_in_step(standby, SOON)?;
    }
    if !keeps_from_downloading.is_empty() {
        cluster.must("m3", keeps_from_downloading)?;
    }
    cluster.power_off("m1")?;
    let taken = cluster.wait_for_serving("m2", SOON)?;
    cluster.wait_for_log("m3", log_lines::LOGS_DROPPED, SOON)?;
    if !keeps_from_downloading.is_empty() {
        cluster.expect("m3 to follow m2", SOON, || {
            let log = cluster.must("m3", &["cat", "/var/lib/mfs/changelog_ml.0.mfs"]).ok()?;
            (log.lines().count() > 9).then_some(())
        })?;
    }
    let off = cluster.power_off("m2")?;
    cluster.wait_for_serving("m3", SOON)?;
    cluster.wait_for_log("m3", log_lines::SERVING, SOON)?;
    load.wait_for_progress(LAST_RETRY)?;
    nothing_lost_but(&cluster, &load, &[taken.at..=off])?;
    Ok(())
}
