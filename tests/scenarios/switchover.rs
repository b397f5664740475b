//! Planned switchovers: nothing is lost, however busy the clients are.

use lab::{Cluster, LAST_RETRY, Moment, Result, log_lines};
use nix::sys::signal::Signal;

use crate::SOON;
use crate::nothing_lost;

/// Switches over from one machine and returns what was printed.
fn switch_over(cluster: &Cluster, from: &str) -> Result<String> {
    let output = cluster.run(from, &["mfs-promote", log_lines::SWITCHOVER])?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    eprintln!("{text}");
    assert_eq!(output.status.code(), Some(0), "{text}");
    Ok(text)
}

#[test]
fn there_and_back_under_load() -> Result<()> {
    let cluster = Cluster::build().masters(2).start()?;
    let load = cluster.client().keep_writing()?;
    for (from, to, address) in [("m1", "m2", "172.16.0.12"), ("m2", "m1", "172.16.0.11"), ("m1", "m2", "172.16.0.12")] {
        cluster.wait_for_metalogger_in_step(to, SOON)?;
        load.wait_for_progress(LAST_RETRY)?;
        let mark = cluster.mark();
        let since = Moment::now();
        let text = switch_over(&cluster, from)?;
        assert!(text.contains(&format!("{address}{}", log_lines::SWITCHED_OVER)), "{text}");
        load.wait_for_progress(LAST_RETRY)?;
        eprintln!("{from} to {to}: {:?}", load.outage(since)?);
        cluster.wait_for_log_since(mark, from, log_lines::DEMOTED, SOON)?;
        cluster.wait_for_log_since(mark, to, log_lines::SERVING, SOON)?;
        assert_eq!(cluster.serving(), [to]);
        cluster.daemon(from, "ucarp")?;
        cluster.daemon(from, "mfsmetalogger")?;
        cluster.wait_for_metalogger_in_step(from, SOON)?;
    }
    nothing_lost(&cluster, &load)
}

#[test]
fn a_switchover_without_a_standby_is_refused() -> Result<()> {
    let cluster = Cluster::build().masters(2).start()?;
    let load = cluster.client().keep_writing()?;
    let refused = |name: &str, wanted: &str| -> Result<()> {
        let master = cluster.master_pid("m1");
        let output = cluster.run(name, &["mfs-promote", log_lines::SWITCHOVER])?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && text.contains(wanted), "{text}");
        assert_eq!((cluster.serving(), cluster.master_pid("m1")), (vec!["m1".to_owned()], master));
        Ok(())
    };
    refused("m2", log_lines::NOT_SERVING)?;
    cluster.kill("m2", "mfsmetalogger", Signal::SIGTERM)?;
    cluster.expect("m2's metalogger to be gone", SOON, || {
        let connected = cluster.must("m1", &["ss", "-Htn", "state", "established", "sport", "=", ":9419"]).ok()?;
        (!connected.contains("172.16.0.12")).then_some(())
    })?;
    refused("m1", log_lines::NO_STANDBY)?;
    load.wait_for_progress(LAST_RETRY)?;
    nothing_lost(&cluster, &load)
}

#[test]
fn the_other_machine_cannot_serve_and_this_one_serves_again() -> Result<()> {
    let broken = "#!/bin/sh\ncase \"$*\" in *-v*) echo 'version: 3.0.117-1 ; build: 1' ;; *) exit 1 ;; esac\n";
    let cluster = Cluster::build().masters(2).file_on("m2", "/usr/sbin/mfsmaster", broken, 0o755).start()?;
    let load = cluster.client().keep_writing()?;
    cluster.wait_for_metalogger_in_step("m2", SOON)?;
    let mark = cluster.mark();
    let output = cluster.run("m1", &["mfs-promote", log_lines::SWITCHOVER])?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && text.contains(log_lines::SERVES_AGAIN), "{text}");
    cluster.wait_for_log_since(mark, "m2", log_lines::UCARP_STOPPED, SOON)?;
    cluster.wait_for_log_since(mark, "m1", log_lines::SERVING, SOON)?;
    load.wait_for_progress(LAST_RETRY)?;
    assert_eq!(cluster.serving(), ["m1"]);
    nothing_lost(&cluster, &load)
}
