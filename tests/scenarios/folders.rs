//! File systems that cannot do everything, and disks without room.

use std::fs;
use std::time::Duration;

use lab::{Cluster, LAST_RETRY, Result, log_lines};
use nix::sys::signal::Signal;
use nix::sys::statvfs::statvfs;
use serde_json::Value;

use crate::{SOON, archived, nothing_lost, wait_for_whole_copy};

const FILTER: &str = "/usr/bin/no-rename-flags";
const MB: u64 = 1 << 20;

/// What `--check` says of `question` on a machine, with its level; nothing if it does not mention it.
fn checked(cluster: &Cluster, machine: &str, before: &[&str], question: &str) -> Result<String> {
    let line = [before, &["mfs-promote", "--check", "--json"]].concat();
    let output = cluster.run(machine, &line)?;
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    let findings = answer["findings"].as_array().expect("a list");
    let of = findings.iter().filter(|finding| finding["name"] == question);
    Ok(of.map(|finding| format!("{}: {}\n", finding["level"], finding["text"]).replace('"', "")).collect())
}

#[test]
fn a_failover_goes_over_links_where_the_file_system_has_no_such_rename() -> Result<()> {
    let filter = fs::read(env!("CARGO_BIN_EXE_no-rename-flags")).expect("the filter");
    let ucarp = format!("#!/bin/sh\nexec {FILTER} /usr/sbin/ucarp \"$@\"\n");
    let cluster =
        Cluster::build().masters(2).file(FILTER, filter, 0o755).file("/usr/local/sbin/ucarp", ucarp, 0o755).start()?;
    let load = cluster.client().keep_writing()?;
    wait_for_whole_copy(&cluster, "m2")?;
    assert_eq!(checked(&cluster, "m2", &[FILTER], "folders")?, "");
    // Nor hard links: that is known before a promotion, which touches nothing.
    let files = cluster.files("m2")?;
    let said = checked(&cluster, "m2", &[FILTER, "--no-links"], "folders")?;
    assert!(said.starts_with("critical: ") && said.contains(log_lines::NO_SAFE_RENAME), "{said}");
    for verb in ["--rehearse", "--dry-run"] {
        let refused = cluster.run("m2", &[FILTER, "--no-links", "mfs-promote", verb])?;
        let text = [refused.stdout, refused.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        assert!(refused.status.code() == Some(1) && text.contains(log_lines::NO_SAFE_RENAME), "{text}");
    }
    assert_eq!(cluster.files("m2")?, files);

    cluster.power_off("m1")?;
    cluster.wait_for_serving("m2", SOON)?;
    cluster.wait_for_log("m2", log_lines::SERVING, SOON)?;
    cluster.wait_for_log("m2", log_lines::ARCHIVED, SOON)?;
    load.wait_for_progress(LAST_RETRY)?;
    assert!(archived(&cluster, "m2")?.contains("metadata_ml.mfs.back"));
    assert!(!cluster.files("m2")?.iter().any(|name| name.starts_with("mfs-promote")));
    nothing_lost(&cluster, &load)
}

#[test]
fn an_archive_never_fills_the_disk_of_the_serving_master() -> Result<()> {
    let cluster = Cluster::build().masters(2).small_disk("m2", 64).start()?;
    let load = cluster.client().keep_writing()?;
    wait_for_whole_copy(&cluster, "m2")?;
    // It is set aside and cannot be packed; twice its size must stay free.
    let data = cluster.machine("m2")?.data()?;
    let noise: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(4 << 20).collect();
    fs::write(data.join("metadata.mfs.back.9"), noise).expect("noise");
    let free = || {
        let status = statvfs(&data).expect("the disk of m2");
        status.blocks_available() * status.fragment_size()
    };
    let ballast = data.join("ballast");
    fs::write(&ballast, vec![7; usize::try_from(free() - 12 * MB).expect("a size")]).expect("ballast");

    cluster.power_off("m1")?;
    cluster.wait_for_serving("m2", SOON)?;
    cluster.wait_for_log("m2", log_lines::NO_ROOM_TO_ARCHIVE, SOON)?;
    // The record of the run, which a check reads, is written with its last line.
    cluster.wait_for_log("m2", log_lines::PROMOTION_ENDED, SOON)?;
    load.wait_for_progress(LAST_RETRY)?;
    assert!(free() > 5 * MB, "{} bytes are left", free());
    let said = checked(&cluster, "m2", &[], "archive")?;
    let why = ["not enough space for the archive", "the last run could not archive them"];
    assert!(said.starts_with("warning: ") && why.iter().any(|why| said.contains(why)), "{said}");
    assert_eq!(fs::read_dir(data.join("bak")).map_or(0, Iterator::count), 0, "no part of it is left");

    fs::remove_file(ballast).expect("the ballast");
    let mark = cluster.mark();
    cluster.restart_ucarp("m2")?;
    cluster.wait_for_log_since(mark, "m2", log_lines::ARCHIVED, SOON * 3)?;
    assert!(archived(&cluster, "m2")?.contains("metadata.mfs.back.9"));
    load.wait_for_progress(LAST_RETRY)?;
    nothing_lost(&cluster, &load)
}

#[test]
fn a_full_run_folder_does_not_bring_the_address_back() -> Result<()> {
    let cluster = Cluster::build().masters(2).start()?;
    let load = cluster.client().keep_writing()?;
    cluster.wait_for_log("m1", log_lines::ALREADY_SERVING, SOON)?;
    wait_for_whole_copy(&cluster, "m2")?;
    let fill = "mount -o remount,size=256k /run; dd if=/dev/zero of=/run/full bs=4k 2>/dev/null; :";
    cluster.must("m1", &["sh", "-c", fill])?;
    let said = checked(&cluster, "m1", &[], "folders")?;
    assert!(said.starts_with("critical: ") && said.contains("No space left on device"), "{said}");

    cluster.kill("m1", "ucarp", Signal::SIGUSR2)?;
    cluster.wait_for_log("m1", log_lines::TOLD_TO_END, SOON)?;
    cluster.wait_for_serving("m2", SOON)?;
    cluster.wait_for_log("m1", log_lines::DEMOTED, SOON)?;
    load.wait_for_progress(LAST_RETRY)?;
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!((cluster.serving(), cluster.holds_vip("m1")), (vec!["m2".to_owned()], false));
    nothing_lost(&cluster, &load)
}
