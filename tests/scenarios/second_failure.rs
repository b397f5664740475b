//! The machine that has just taken over dies too, before another one has followed it.
//!
//! Later is worse, and left to chance by MooseFS: at the first change that it hears of the new history a metalogger drops its
//! logs, and it downloads all of it when it connects next (docs/limits.md).

use lab::{Cluster, LAST_RETRY, Result, log_lines};

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
    let kept = cluster.must("m2", &["sh", "-c", archives])?;
    assert!(kept.contains("metadata_ml.mfs.back"), "{kept}");
    // As a standby it follows the machine that serves now.
    cluster.wait_for_metalogger_in_step("m2", SOON)?;
    Ok(())
}
