//! What is looked at before and after the start of a master, so that what serves is what was planned.

use std::fs;
use std::os::unix::fs::FileExt as _;

use lab::{Cluster, LAST_RETRY, Result, log_lines};
use nix::sys::signal::Signal;

use crate::SOON;
use crate::copy_left_alone;
use crate::nothing_lost;

#[test]
fn a_master_that_dies_right_after_its_proof_releases_the_address() -> Result<()> {
    let cluster = Cluster::build().masters(2).start()?;
    let load = cluster.client().keep_writing()?;
    load.wait_for_progress(LAST_RETRY)?;
    load.stop()?;
    cluster.wait_for_metalogger_in_step("m2", SOON)?;
    cluster.power_off("m1")?;
    cluster.wait_for_log("m2", log_lines::PROVED_VERSION, SOON)?;
    let mark = cluster.mark();
    cluster.kill("m2", "mfsmaster", Signal::SIGKILL)?;
    cluster.wait_for_log("m2", log_lines::ENDED_AFTER_PROOF, SOON)?;
    // ucarp's last vip-down comes after the promotion: then nothing acts any more.
    cluster.wait_for_log_since(mark, "m2", log_lines::UCARP_STOPPED, SOON)?;
    cluster.wait_for_log_since(mark, "m2", log_lines::DEMOTION_ENDED, SOON)?;
    assert!(!cluster.holds_vip("m2"));
    assert!(cluster.daemon("m2", "mfsmetalogger").is_ok(), "a standby again");

    // It has served: what it wrote is the history now, or nothing was written and the copy is back.
    cluster.start_ucarp("m2")?;
    cluster.wait_for_serving("m2", SOON)?;
    cluster.wait_for_log_since(mark, "m2", log_lines::SERVING, SOON)?;
    nothing_lost(&cluster, &load)
}

#[test]
fn an_emergency_image_elsewhere_is_not_ignored() -> Result<()> {
    const ELSEWHERE: &str = "/tmp/metadata.mfs.emergency";
    let (cluster, load) = copy_left_alone()?;
    let end = cluster.copy_reaches("m2")?.expect("a copy");
    // A master of this history that went on for 50 changes, could not write into its data folder, and was stopped.
    cluster.must("m2", &["cp", "-a", "/var/lib/mfs/metadata_ml.mfs.back", ELSEWHERE])?;
    cluster.must("m2", &["cp", "-a", ELSEWHERE, "/var/lib/mfs/saved"])?;
    let saved = fs::File::options().write(true).open(cluster.data("m2")?.join("saved")).expect("an image");
    saved.write_all_at(&(end + 50).to_be_bytes(), 8).expect("its version");
    cluster.must("m2", &["mv", "/var/lib/mfs/saved", ELSEWHERE])?;

    let refused =
        format!("{ELSEWHERE} is an image of version {}.*changes {end} to {} are only there", end + 50, end + 49);
    let dry_run = cluster.run("m2", &["mfs-promote", "--dry-run"])?;
    let text = String::from_utf8_lossy(&dry_run.stdout).into_owned();
    assert!(dry_run.status.code() == Some(1) && regex_lite::Regex::new(&refused)?.is_match(&text), "{text}");
    let mark = cluster.mark();
    cluster.power_off("m1")?;
    cluster.wait_for_log("m2", &format!("{}.*{refused}", log_lines::PROMOTION_FAILED), SOON)?;
    cluster.wait_for_log_since(mark, "m2", log_lines::DEMOTION_ENDED, SOON)?;

    cluster.must("m2", &["mv", ELSEWHERE, "/var/lib/lab/"])?;
    cluster.start_ucarp("m2")?;
    cluster.wait_for_serving("m2", SOON)?;
    nothing_lost(&cluster, &load)
}

#[test]
fn no_user_of_a_standby_chooses_what_it_serves_or_keeps_it_from_serving() -> Result<()> {
    // Again and again, because the master looks at a moment of its own.
    const FORGE: &str = r#"python3 -c '
import os, shutil
while True:
    try:
        shutil.copyfile("/tmp/forged", "/tmp/mine")
        os.rename("/tmp/mine", "/tmp/metadata.mfs.emergency")
    except OSError:
        pass' & echo $!"#;
    let (cluster, load) = copy_left_alone()?;
    let end = cluster.copy_reaches("m2")?.expect("a copy");
    // The old state of the same file system, as an image of a version that none can reach.
    cluster.must("m2", &["cp", "/var/lib/mfs/metadata_ml.mfs.back", "/var/lib/mfs/forged"])?;
    let forged = fs::File::options().write(true).open(cluster.data("m2")?.join("forged")).expect("an image");
    forged.write_all_at(&(end + (1 << 40)).to_be_bytes(), 8).expect("its version");
    cluster.must("m2", &["sh", "-c", "mv /var/lib/mfs/forged /tmp/; chmod 644 /tmp/forged; chmod 1777 /tmp"])?;
    cluster.must("m2", &["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", FORGE])?;
    let place = cluster.machine("m2")?.root()?.join("tmp/metadata.mfs.emergency");
    cluster.expect("a forged image", SOON, || place.exists().then_some(()))?;

    cluster.power_off("m1")?;
    cluster.wait_for_serving("m2", SOON)?;
    cluster.wait_for_log("m2", log_lines::SERVING, SOON)?;
    cluster.wait_for_log("m2", log_lines::FORGED_IMAGE, SOON)?;
    cluster.kill("m2", "python3", Signal::SIGKILL)?;
    nothing_lost(&cluster, &load)
}
