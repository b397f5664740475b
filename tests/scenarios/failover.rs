//! A machine stops serving, another one takes over, and everything acknowledged is there.

use lab::{Cluster, LAST_RETRY, Moment, Result, Workload, log_lines};
use nix::sys::signal::Signal;

use crate::SOON;
use crate::nothing_lost;

fn cluster_under_load() -> Result<(Cluster, Workload)> {
    let cluster = Cluster::build().masters(3).start()?;
    let load = cluster.client().keep_writing()?;
    for standby in ["m2", "m3"] {
        cluster.wait_for_metalogger_in_step(standby, SOON)?;
    }
    Ok((cluster, load))
}

/// Waits until another machine serves and the client works, and returns that machine's name.
fn taken_over(cluster: &Cluster, load: &Workload, from: &str, since: Moment) -> Result<String> {
    let taken = cluster.wait_for_serving_other_than(from, SOON)?;
    load.wait_for_progress(LAST_RETRY)?;
    eprintln!(
        "{} serves {:.1} s after {from}; the client waited {:?}",
        taken.by,
        taken.at.seconds_since(since),
        load.outage(since)?
    );
    Ok(taken.by)
}

#[test]
fn power_off_of_the_master() -> Result<()> {
    let (cluster, load) = cluster_under_load()?;
    let off = cluster.power_off("m1")?;
    let by = taken_over(&cluster, &load, "m1", off)?;
    assert_eq!(cluster.serving(), [by.as_str()]);
    cluster.wait_for_log(&by, log_lines::SERVING, SOON)?;
    // How many have sent something since the address moved, chance decides.
    cluster.wait_for_log(&by, log_lines::CLIENTS_RESET, SOON)?;
    cluster.wait_for_metalogger_in_step(&by, SOON)?;
    nothing_lost(&cluster, &load)?;

    let status = cluster.must(&by, &["mfs-promote", "--status"])?;
    assert!(status.contains("promotion") && status.contains("serving"), "{status}");
    let files = cluster.files(&by)?;
    assert!(files.iter().any(|name| name.starts_with("bak/metabak.") && name.ends_with(".tar.xz")), "{files:?}");
    assert!(!files.iter().any(|name| name.starts_with(log_lines::RUN_FOLDER)), "{files:?}");
    Ok(())
}

#[test]
fn master_process_killed_and_ucarp_stopped() -> Result<()> {
    let (cluster, load) = cluster_under_load()?;
    let since = cluster.kill("m1", "mfsmaster", Signal::SIGKILL)?;
    cluster.stop_ucarp("m1")?;
    let by = taken_over(&cluster, &load, "m1", since)?;
    assert_eq!(cluster.serving(), [by]);
    assert!(!cluster.holds_vip("m1"));
    nothing_lost(&cluster, &load)
}

#[test]
fn four_failovers_round_the_ring() -> Result<()> {
    let (cluster, load) = cluster_under_load()?;
    let mut serving = "m1".to_owned();
    for _ in 0..4 {
        let off = cluster.power_off(&serving)?;
        let by = taken_over(&cluster, &load, &serving, off)?;
        cluster.power_on(&serving)?;
        for machine in ["m1", "m2", "m3"] {
            cluster.wait_for_metalogger_in_step(machine, SOON)?;
        }
        assert_eq!(cluster.serving(), [by.as_str()]);
        assert_eq!(cluster.master_pid(&serving), None, "{serving} came back as a standby");
        serving = by;
    }
    nothing_lost(&cluster, &load)
}

#[test]
fn a_machine_that_cannot_serve_stops_its_ucarp_and_the_third_one_serves() -> Result<()> {
    // On m2 the master can tell its version, and ends at every start.
    let broken = "#!/bin/sh\ncase \"$*\" in *-v*) echo 'version: 3.0.117-1 ; build: 1' ;; *) exit 1 ;; esac\n";
    let cluster = Cluster::build().masters(3).file_on("m2", "/usr/sbin/mfsmaster", broken, 0o755).start()?;
    let load = cluster.client().keep_writing()?;
    cluster.wait_for_metalogger_in_step("m2", SOON)?;
    cluster.wait_for_metalogger_in_step("m3", SOON)?;

    let off = cluster.power_off("m1")?;
    cluster.wait_for_log("m2", log_lines::CANNOT_START, SOON)?;
    cluster.wait_for_log("m2", log_lines::ROLLED_BACK, SOON)?;
    cluster.wait_for_serving("m3", SOON)?;
    assert_eq!(taken_over(&cluster, &load, "m2", off)?, "m3");
    assert!(!cluster.holds_vip("m2"));
    assert!(cluster.daemon("m2", "ucarp").is_err(), "ucarp of m2 ended");
    cluster.daemon("m2", "mfsmetalogger")?;
    let files = cluster.files("m2")?;
    assert!(!files.iter().any(|name| name.starts_with(log_lines::RUN_FOLDER) || name.starts_with("bak/")), "{files:?}");
    cluster.wait_for_metalogger_in_step("m2", SOON)?;
    nothing_lost(&cluster, &load)
}

#[test]
fn a_hook_that_cannot_work_makes_ucarp_step_down() -> Result<()> {
    let cluster =
        Cluster::build().masters(3).file_on("m2", "/etc/mfs/mfspromote.cfg", "NONSENSE = 1\n", 0o644).start()?;
    let load = cluster.client().keep_writing()?;
    cluster.wait_for_metalogger_in_step("m3", SOON)?;
    let off = cluster.power_off("m1")?;
    cluster.wait_for_log("m2", log_lines::UNKNOWN_KEY, SOON)?;
    cluster.wait_for_serving("m3", SOON)?;
    assert_eq!(taken_over(&cluster, &load, "m2", off)?, "m3");
    assert!(!cluster.holds_vip("m2"));
    nothing_lost(&cluster, &load)
}
