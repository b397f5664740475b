//! Several ucarps on a machine: two file systems know nothing of each other, and a ucarp that would stop the master of another
//! one is refused.

use std::time::Duration;

use lab::{Cluster, LAST_RETRY, Moment, Result, Workload, log_lines};

use crate::{SOON, nothing_lost, wait_for_whole_copy};

const ALL: [&str; 3] = ["m1", "m2", "m3"];
/// The address of the second ucarp.
const SECOND: &str = "172.16.0.98";
/// The data folder of the second file system, on the disk of each machine.
const DATA: &str = "/var/lib/lab/two";
const MASTER: &str = "/etc/mfs/mfsmaster-two.cfg";
const METALOGGER: &str = "/etc/mfs/mfsmetalogger-two.cfg";

/// A second ucarp beside the first one.
fn start_second_ucarp(cluster: &Cluster, name: &str, more: &[&str]) -> Result<()> {
    let (address, skew) = (cluster.machine(name)?.address.to_string(), (name.as_bytes()[1] - b'1') * 50);
    let line = format!(
        "ucarp -B -i eth0 -s {address} -v 11 -o /etc/mfs/ucarp.pass -a {SECOND} -u /usr/bin/vip-up -d /usr/bin/vip-down -z \
         -b 1 -r 3 -k {skew}"
    );
    cluster.must(name, &[&line.split(' ').collect::<Vec<_>>(), more].concat()).map(drop)
}

/// The processes whose command lines match.
fn processes(cluster: &Cluster, name: &str, pattern: &str) -> Result<String> {
    let found = cluster.run(name, &["pgrep", "-f", pattern])?;
    Ok(String::from_utf8_lossy(&found.stdout).trim().to_owned())
}

fn holds_second(cluster: &Cluster, name: &str) -> bool {
    cluster.must(name, &["ip", "-4", "addr"]).is_ok_and(|text| text.contains(&format!("inet {SECOND}/")))
}

/// What must not change on a machine when another ucarp comes and goes.
fn first_service(cluster: &Cluster, name: &str) -> Result<[String; 3]> {
    let newest = cluster.must(name, &["cat", "/run/moosefs-ucarp/ticket"])?;
    let masters = processes(cluster, name, "mfsmaster( -a)? start|mfsmaster -c /etc/mfs/mfsmaster.cfg")?;
    Ok([newest, masters, processes(cluster, name, "ucarp.* -a 172.16.0.99 ")?])
}

fn waited(load: &Workload, since: Moment) -> Result<Duration> {
    let outage = load.outage(since)?;
    Ok(outage.metadata.max(outage.writes))
}

fn two_file_systems() -> Result<(Cluster, Workload)> {
    let master = format!(
        "DATA_PATH = {DATA}\nMATOML_LISTEN_PORT = 9519\nMATOCS_LISTEN_PORT = 9520\nMATOCL_LISTEN_PORT = 9521\n"
    );
    let metalogger =
        format!("DATA_PATH = {DATA}\nMASTER_HOST = {SECOND}\nMASTER_PORT = 9519\nMASTER_RECONNECTION_DELAY = 1\n");
    let ours = format!("SERVICE_MANAGER = own\nMASTER_CFG = {MASTER}\nMETALOGGER_CFG = {METALOGGER}\n");
    let cluster = Cluster::build()
        .masters(3)
        .file(MASTER, master, 0o644)
        .file(METALOGGER, metalogger, 0o644)
        .file("/etc/mfs/mfspromote-two.cfg", ours, 0o644)
        .start()?;
    for name in ALL {
        cluster.must(name, &["install", "-d", "-o", "mfs", "-g", "mfs", DATA])?;
    }
    cluster.must(
        "m1",
        &["sh", "-c", &format!("printf 'MFSM NEW' > {DATA}/metadata.mfs; chown mfs {DATA}/metadata.mfs")],
    )?;
    // A stop stores an image of the new file system, for the metaloggers to copy.
    for verb in ["start", "stop", "start"] {
        cluster.must("m1", &["mfsmaster", "-c", MASTER, verb])?;
    }
    start_second_ucarp(&cluster, "m1", &["-x", "two"])?;
    cluster.expect("m1 to hold the second address", SOON, || holds_second(&cluster, "m1").then_some(()))?;
    for name in ["m2", "m3"] {
        cluster.must(name, &["mfsmetalogger", "-c", METALOGGER, "start"])?;
        start_second_ucarp(&cluster, name, &["-x", "two"])?;
    }
    cluster.must("c1", &["sh", "-c", &format!("mkdir -p /mnt/two; mfsmount /mnt/two -H {SECOND} -P 9521")])?;
    let load = cluster.client().keep_writing()?;
    Ok((cluster, load))
}

/// Makes a folder in the second file system, and waits until both standbys have it.
fn change_second(cluster: &Cluster, folder: &str, standbys: &[&str]) -> Result<()> {
    cluster.must("c1", &["mkdir", &format!("/mnt/two/{folder}")])?;
    for name in standbys {
        cluster.expect(&format!("{name} to have the second file system"), SOON, || {
            let check = cluster.run(name, &["mfs-promote", "--check", "-x", "two", "--json"]).ok()?;
            let check: serde_json::Value = serde_json::from_slice(&check.stdout).ok()?;
            (check["lag"] == 0).then_some(())
        })?;
    }
    Ok(())
}

#[test]
fn two_file_systems_fail_over_together_and_apart() -> Result<()> {
    let (cluster, load) = two_file_systems()?;
    change_second(&cluster, "a", &["m2", "m3"])?;
    for name in ["m2", "m3"] {
        wait_for_whole_copy(&cluster, name)?;
    }
    let off = cluster.power_off("m1")?;
    let first = cluster.wait_for_serving_other_than("m1", SOON)?.by;
    let second = || ["m2", "m3"].into_iter().find(|name| holds_second(&cluster, name));
    let second = cluster.expect("another machine to hold the second address", SOON, second)?;
    cluster.wait_for_log(&first, &format!(r"^mfs-promote\[.*{}", log_lines::SERVING), SOON)?;
    cluster.wait_for_log(second, &format!(r"^mfs-promote-two\[.*{}", log_lines::SERVING), SOON)?;
    load.wait_for_progress(LAST_RETRY)?;
    eprintln!("{first} and {second} serve; the client waited {:?}", load.outage(off)?);
    let other = if second == "m2" { "m3" } else { "m2" };
    change_second(&cluster, "b", &[other])?;

    // One moves, the other stays where it is.
    let before = [first_service(&cluster, "m2")?, first_service(&cluster, "m3")?];
    let begun = Moment::now();
    cluster.must(second, &["mfs-promote", "--switchover", "-x", "two"])?;
    cluster.expect("the second address to move", SOON, || holds_second(&cluster, other).then_some(()))?;
    cluster.wait_for_log(other, &format!(r"^mfs-promote-two\[.*{}", log_lines::SERVING), SOON)?;
    change_second(&cluster, "c", &[])?;
    assert_eq!(cluster.must("c1", &["ls", "/mnt/two"])?, "a\nb\nc\n");
    assert_eq!([first_service(&cluster, "m2")?, first_service(&cluster, "m3")?], before);
    assert_eq!(cluster.serving(), [first.as_str()]);
    load.wait_for_progress(LAST_RETRY)?;
    assert!(waited(&load, begun)? < Duration::from_secs(2), "{:?}", load.outage(begun)?);

    // Each knows its own runs.
    for (instance, folder) in [(&[][..], "/var/lib/mfs"), (&["-x", "two"][..], DATA)] {
        let status = cluster.must(other, &[&["mfs-promote", "--status", "--json"], instance].concat())?;
        assert!(status.contains(&format!("\"data_path\": \"{folder}\"")), "{status}");
    }
    nothing_lost(&cluster, &load)
}

#[test]
fn a_second_ucarp_without_a_file_system_of_its_own_is_refused_and_changes_nothing() -> Result<()> {
    let cluster = Cluster::build().masters(3).file("/etc/mfs/mfspromote-same.cfg", "", 0o644).start()?;
    let load = cluster.client().keep_writing()?;
    for name in ["m2", "m3"] {
        wait_for_whole_copy(&cluster, name)?;
    }
    let before: Result<Vec<_>> = ALL.iter().map(|name| first_service(&cluster, name)).collect();
    let (before, since) = (before?, Moment::now());
    for (more, refused) in [
        (&[][..], log_lines::SECOND_ADDRESS),
        (&["-x", "b"][..], log_lines::NO_CONFIGURATION),
        (&["-x", "same"][..], log_lines::SAME_FOLDER),
        (&["-x", "../b"][..], log_lines::BAD_NAME),
    ] {
        let mark = cluster.mark();
        for name in ALL {
            start_second_ucarp(&cluster, name, more)?;
        }
        if more.is_empty() {
            let check = cluster.run("m2", &["mfs-promote", "--check"])?;
            let said = String::from_utf8_lossy(&check.stdout).into_owned();
            assert!(check.status.code() == Some(2) && said.contains("another ucarp of this machine"), "{said}");
        }
        for name in ALL {
            cluster.wait_for_log_since(mark, name, &format!("vip-up.*{refused}"), SOON)?;
            cluster.expect("the second ucarp to be gone", SOON, || {
                processes(&cluster, name, &format!("ucarp.* -a {SECOND} ")).ok()?.is_empty().then_some(())
            })?;
        }
        assert!(!ALL.iter().any(|name| holds_second(&cluster, name)), "nothing serves on it");
        let after: Result<Vec<_>> = ALL.iter().map(|name| first_service(&cluster, name)).collect();
        assert_eq!(after?, before, "{more:?}");
    }
    assert_eq!(cluster.serving(), ["m1"]);
    load.wait_for_progress(LAST_RETRY)?;
    assert!(waited(&load, since)? < Duration::from_secs(2), "{:?}", load.outage(since)?);

    cluster.power_off("m1")?;
    cluster.wait_for_serving_other_than("m1", SOON)?;
    load.wait_for_progress(LAST_RETRY)?;
    nothing_lost(&cluster, &load)
}
