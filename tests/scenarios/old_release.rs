//! MooseFS 1.6, with fakes of its programs and the real files of a 1.6.19 metalogger.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use lab::{Cluster, Result, log_lines};

use crate::SOON;
use crate::archived;

const PROGRAMS: &str = include_str!("old_release/moosefs.py");
/// The files: image 302, changes up to the one before this version.
const FILES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/failover/testdata/1.6.19-ml");

/// m2 has 1.6 and the files of its metalogger, and is the only machine; ucarp is not running.
fn machine_of_1_6() -> Result<Cluster> {
    let cluster = Cluster::build().masters(2).start()?;
    cluster.power_off("m1")?;
    cluster.wait_for_log("m2", log_lines::SERVING, SOON)?;
    cluster.stop_ucarp("m2")?;
    cluster.wait_for_log("m2", log_lines::DEMOTED, SOON)?;
    cluster.must("m2", &["mfsmetalogger", "stop"])?;
    cluster.must("m2", &["sh", "-c", "rm -rf /var/lib/mfs/* /var/lib/mfs/.mfsmaster.lock"])?;
    let root = cluster.machine("m2")?.root()?;
    for program in ["mfsmaster", "mfsmetarestore"] {
        let path = root.join("usr/sbin").join(program);
        fs::remove_file(&path).expect("a program of 3.0");
        fs::write(&path, PROGRAMS).expect("a fake");
        cluster.must("m2", &["chmod", "755", &format!("/usr/sbin/{program}")])?;
    }
    // Run as root and as mfs.
    cluster.must("m2", &["sh", "-c", "chmod 711 /var/lib/lab; > /var/lib/lab/calls; chmod 666 /var/lib/lab/calls"])?;
    let machine = cluster.machine("m2")?;
    for entry in fs::read_dir(FILES).expect("files of 1.6.19").flatten() {
        let copy = cluster.data("m2")?.join(entry.file_name());
        fs::copy(entry.path(), &copy).expect("a copy");
        machine.give_to_mfs(&copy)?;
    }
    Ok(cluster)
}

/// The version in the header of an image of 1.6.
fn version(path: &Path) -> u64 {
    let image = fs::read(path).expect("an image");
    u64::from_be_bytes(image[12..20].try_into().expect("a header"))
}

/// The version that the dry run plans for.
fn planned(cluster: &Cluster) -> Result<u64> {
    let text = cluster.must("m2", &["mfs-promote", "--dry-run"])?;
    let end = text.split("ends at     version ").nth(1).and_then(|rest| rest.split(',').next());
    Ok(end.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no end in {text}")))
}

fn calls(cluster: &Cluster) -> Result<String> {
    cluster.must("m2", &["cat", "/var/lib/lab/calls"])
}

#[test]
fn a_master_of_1_6_serves_the_image_that_its_own_tool_made() -> Result<()> {
    let cluster = machine_of_1_6()?;
    // Else by the init script.
    cluster.must("m2", &["sh", "-c", "echo SERVICE_MANAGER = own > /etc/mfs/mfspromote.cfg"])?;
    let data = cluster.data("m2")?;
    let (end, sessions) = (planned(&cluster)?, fs::read(data.join("sessions_ml.mfs")).expect("sessions"));
    let rehearsed = cluster.must("m2", &["mfs-promote", "--rehearse"])?;
    assert!(rehearsed.contains(log_lines::WOULD_SERVE), "{rehearsed}");
    let mark = cluster.mark();
    cluster.start_ucarp("m2")?;
    cluster.wait_for_log_since(mark, "m2", log_lines::PROVED_1_6, SOON)?;
    cluster.wait_for_log_since(mark, "m2", log_lines::SERVING, SOON)?;

    // Renamed by the start, as 1.6 does.
    assert_eq!(version(&data.join("metadata.mfs.back")), end);
    assert_eq!(fs::read(data.join("sessions.mfs")).expect("sessions"), sessions);
    let root = data.metadata().expect("the data folder");
    for name in ["metadata.mfs.back", "sessions.mfs"] {
        let status = data.join(name).metadata().expect("a file of the stage");
        assert_eq!((status.uid(), status.gid(), status.mode() & 0o7777), (root.uid(), root.gid(), 0o640), "{name}");
    }
    let user = root.uid();
    let calls = calls(&cluster)?;
    let restore = calls.lines().rfind(|line| line.starts_with("mfsmetarestore")).expect("a restore");
    let wanted = regex_lite::Regex::new(&format!(
        "^mfsmetarestore -m (/var/lib/mfs/mfs-promote/[0-9]+/restore)/metadata.mfs.back -o [^ ]+/restore/metadata.mfs \
         [^ ]+/restore/changelog.0.mfs as {user}$"
    ))?;
    assert!(wanted.is_match(restore), "{restore}");
    assert!(calls.lines().any(|line| line == "mfsmaster -c /etc/mfs/mfsmaster.cfg start as 0"), "{calls}");
    assert!(archived(&cluster, "m2")?.contains("metadata_ml.mfs.back"));
    let files = cluster.files("m2")?;
    assert!(!files.iter().any(|name| name.starts_with(log_lines::RUN_FOLDER)), "{files:?}");

    // ucarp is restarted, then ends: the master is left alone, then stopped.
    let mark = cluster.mark();
    cluster.restart_ucarp("m2")?;
    cluster.wait_for_log_since(mark, "m2", log_lines::LEFT_ALONE, SOON)?;
    cluster.stop_ucarp("m2")?;
    cluster.wait_for_log_since(mark, "m2", log_lines::DEMOTED, SOON)?;
    assert_eq!(version(&data.join("metadata.mfs")), end);
    Ok(())
}

#[test]
fn a_restore_of_1_6_is_verified() -> Result<()> {
    let cluster = machine_of_1_6()?;
    let files = cluster.files("m2")?;
    for (fault, wanted) in [
        ("full", "the image that mfsmetarestore wrote is not version [0-9]+, but only 0 bytes long"),
        ("fails", "mfsmetarestore cannot merge the image with its change log.*Operation not permitted"),
        ("hangs", "mfsmetarestore cannot merge the image with its change log.*was not done after 1[.0-9]* s"),
    ] {
        let mark = cluster.mark();
        cluster.must("m2", &["sh", "-c", &format!("echo {fault} > /var/lib/lab/fault")])?;
        if fault == "hangs" {
            cluster.must("m2", &["sh", "-c", "echo START_TIMEOUT = 1 > /etc/mfs/mfspromote.cfg"])?;
        }
        cluster.start_ucarp("m2")?;
        cluster.wait_for_log_since(mark, "m2", &format!("{}.*{wanted}", log_lines::PROMOTION_FAILED), SOON)?;
        cluster.wait_for_log_since(mark, "m2", log_lines::UCARP_STOPPED, SOON)?;
        cluster.wait_for_log_since(mark, "m2", log_lines::DEMOTION_ENDED, SOON)?;
        assert_eq!(cluster.files("m2")?, files, "{fault}");
        assert!(!cluster.holds_vip("m2"));
    }
    // One change only: 1.6.27 takes such a log for an empty one.
    cluster.must("m2", &["rm", "/var/lib/lab/fault", "/etc/mfs/mfspromote.cfg"])?;
    let data = cluster.data("m2")?;
    for name in files.iter().filter(|name| name.starts_with("changelog_ml")) {
        fs::remove_file(data.join(name)).expect("a log");
    }
    let base = version(&data.join("metadata_ml.mfs.back"));
    fs::write(data.join("changelog_ml.0.mfs"), format!("{base}: 1300000000|ACCESS(1)\n")).expect("one change");
    let mark = cluster.mark();
    cluster.start_ucarp("m2")?;
    cluster.wait_for_log_since(mark, "m2", log_lines::SERVING, SOON)?;
    assert_eq!(version(&data.join("metadata.mfs.back")), base + 1);
    Ok(())
}
