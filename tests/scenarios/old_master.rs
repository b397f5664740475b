//! A metalogger whose connection ends while it downloads change logs takes the master for an old one, and downloads none any
//! more. The standby finds that its copy stays incomplete, and restarts the metalogger.
//!
//! The fault is made at the very place: the switch lets pass as much as the image has, and not the change log behind it.

use std::fs;

use lab::{Builder, Cluster, LAST_RETRY, Release, Result, Workload, log_lines};
use nix::sys::signal::Signal;

use crate::{SOON, nothing_lost, wait_for_whole_copy};

/// What is let through behind the image: other packets of the connection, and no change log.
const BESIDE: u64 = 30_000;

/// An init script whose first start does not come to an end.
const SLOW_SCRIPT: &str =
    "#!/bin/sh\n[ \"$1\" != start ] || mkdir /run/tried || exec mfsmetalogger start\nexec sleep 1000\n";

fn builder(release: Release) -> Builder {
    Cluster::build().release(release).masters(2).setting("mfsmetalogger", "MASTER_RECONNECTION_DELAY", "1")
}

/// m1 serves, and the metalogger of m2 has lost its connection while it downloaded a change log.
fn connection_lost_while_a_log_is_downloaded(builder: Builder) -> Result<(Cluster, Workload)> {
    let cluster = builder.start()?;
    let load = cluster.client().keep_writing()?;
    let size = |name: &str| {
        let path = cluster.data("m1").ok()?.join(name);
        fs::metadata(path).ok().map(|file| file.len())
    };
    let long = || size("changelog.0.mfs").filter(|log| *log > 3 * BESIDE);
    cluster.expect("a change log that does not pass at once", SOON, long)?;
    let image = size("metadata.mfs.back").expect("an image");
    cluster.must("m2", &["mfsmetalogger", "stop"])?;
    cluster.on_switch(&format!(
        "nft add table bridge cut
         nft add chain bridge cut forward '{{ type filter hook forward priority 0; }}'
         nft add rule bridge cut forward oifname v-m2 tcp sport 9419 quota over {} bytes drop",
        image + BESIDE
    ))?;
    cluster.must("m2", &["mfsmetalogger", "start"])?;
    let downloads = || cluster.files("m2").ok()?.contains(&"changelog_ml.tmp".to_owned()).then_some(());
    cluster.expect("the metalogger of m2 to download a change log", SOON, downloads)?;
    cluster.must("m2", &["ss", "-K", "dst", "172.16.0.99", "dport", "=", "9419"])?;
    cluster.on_switch("nft delete table bridge cut")?;
    cluster.wait_for_log("m2", log_lines::OLD_MASTER, SOON)?;
    Ok((cluster, load))
}

fn the_copy_is_made_whole(release: Release) -> Result<()> {
    let (cluster, load) = connection_lost_while_a_log_is_downloaded(builder(release))?;
    cluster.wait_for_metalogger_in_step("m2", SOON)?;
    let plan = cluster.run("m2", &["mfs-promote", "--dry-run"])?;
    let said = format!("{}{}", String::from_utf8_lossy(&plan.stdout), String::from_utf8_lossy(&plan.stderr));
    assert!(!plan.status.success() && said.contains("missing"), "{said}");
    wait_for_whole_copy(&cluster, "m2")?;
    cluster.wait_for_log("m2", log_lines::METALOGGER_RESTARTED, SOON)?;
    cluster.wait_for_log("m2", log_lines::COPY_COMPLETE_AGAIN, SOON)?;
    cluster.power_off("m1")?;
    cluster.wait_for_serving("m2", SOON)?;
    load.wait_for_progress(LAST_RETRY)?;
    nothing_lost(&cluster, &load)
}

#[test]
fn a_metalogger_that_downloads_no_logs_any_more_is_restarted() -> Result<()> {
    the_copy_is_made_whole(Release::Debian12)
}

#[test]
fn a_metalogger_that_downloads_no_logs_any_more_is_restarted_on_debian_13() -> Result<()> {
    the_copy_is_made_whole(Release::Debian13)
}

#[test]
fn a_run_that_is_killed_while_it_restarts_the_metalogger_leaves_one_running() -> Result<()> {
    let slow = builder(Release::Debian12).file_on("m2", "/etc/init.d/moosefs-metalogger", SLOW_SCRIPT, 0o755);
    let (cluster, load) = connection_lost_while_a_log_is_downloaded(slow)?;
    let tried = || cluster.must("m2", &["ls", "/run/tried"]).ok();
    cluster.expect("the metalogger to be stopped, and its start to hang", SOON, tried)?;
    cluster.kill("m2", "mfs-promote", Signal::SIGKILL)?;
    cluster.wait_for_log("m2", log_lines::RESTART_FINISHED, SOON)?;
    wait_for_whole_copy(&cluster, "m2")?;
    nothing_lost(&cluster, &load)
}

/// The master has lost the change log that is missing.
#[test]
fn a_copy_that_stays_incomplete_is_an_alarm() -> Result<()> {
    let tell = "#!/bin/sh\necho \"$1 $MFS_ERROR\" >> /var/lib/lab/told\n";
    let cluster = builder(Release::Debian12)
        .file_on("m2", "/usr/local/bin/tell", tell, 0o755)
        .file_on("m2", "/etc/mfs/mfspromote.cfg", "NOTIFY = /usr/local/bin/tell\n", 0o644)
        .start()?;
    let load = cluster.client().keep_writing()?;
    load.wait_for_progress(LAST_RETRY)?;
    cluster.must("m2", &["mfsmetalogger", "stop"])?;
    cluster.must("m1", &["mv", "/var/lib/mfs/changelog.0.mfs", "/var/lib/lab"])?;
    load.wait_for_progress(LAST_RETRY)?;
    cluster.must("m2", &["mfsmetalogger", "start"])?;
    cluster.wait_for_log("m2", log_lines::METALOGGER_RESTARTED, SOON)?;
    cluster.wait_for_log("m2", log_lines::COPY_STILL_INCOMPLETE, SOON)?;
    let told = || cluster.must("m2", &["cat", "/var/lib/lab/told"]).ok().filter(|told| told.starts_with("alarm "));
    let told = cluster.expect("an alarm", SOON, told)?;
    assert!(told.contains(log_lines::COPY_STILL_INCOMPLETE), "{told}");
    nothing_lost(&cluster, &load)
}
