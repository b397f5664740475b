//! `--check` on a standby and on the serving machine: what it says, and with which exit code.

use lab::{Cluster, LAST_RETRY, Result, log_lines};
use serde_json::Value;

use crate::{SOON, nothing_lost};

fn check(cluster: &Cluster, machine: &str) -> Result<Value> {
    let output = cluster.run(machine, &["mfs-promote", "--check", "--json"])?;
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    let code = ["ok", "warning", "critical", "unknown"].iter().position(|level| answer["level"] == **level);
    assert_eq!(output.status.code().and_then(|code| usize::try_from(code).ok()), code, "{answer}");
    Ok(answer)
}

/// The answers to one question, with their levels.
fn said(answer: &Value, name: &str) -> String {
    let findings = answer["findings"].as_array().expect("a list");
    let of = findings.iter().filter(|finding| finding["name"] == name);
    let words = of.map(|finding| format!("{}: {}", finding["level"], finding["text"]).replace('"', ""));
    words.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_standby_reports_whether_it_is_in_sync_and_the_serving_machine_its_standbys() -> Result<()> {
    let cluster = Cluster::build().masters(2).start()?;
    let load = cluster.client().keep_writing()?;
    load.wait_for_progress(LAST_RETRY)?;
    cluster.wait_for_metalogger_in_step("m2", SOON)?;

    let standby = check(&cluster, "m2")?;
    assert_eq!(standby["role"], "standby");
    assert!(said(&standby, "ucarp").starts_with(log_lines::CHECK_UCARP), "{standby:#}");
    assert_eq!(said(&standby, "name"), "ok: mfsmaster resolves to 172.16.0.99");
    assert!(said(&standby, "copy").starts_with(log_lines::IN_SYNC), "{standby:#}");
    assert!(said(&standby, "plan").contains(log_lines::CHECK_WOULD_SERVE), "{standby:#}");
    assert_eq!(standby["lag"], 0);
    assert!(standby[log_lines::IN_SYNC_FIELD].as_i64().is_some_and(|time| time > 0), "{standby:#}");
    assert!(said(&standby, "reconnect").contains("MASTER_RECONNECTION_DELAY = 1 in /etc/mfs/mfsmetalogger.cfg"));
    assert!(standby["takeover_seconds"].is_null(), "never tried here");
    let rehearsed = cluster.run("m2", &["mfs-promote", "--rehearse"])?;
    assert_eq!(rehearsed.status.code(), Some(0), "{rehearsed:?}");
    let standby = check(&cluster, "m2")?;
    assert!(standby["takeover_seconds"].as_f64().is_some_and(|seconds| seconds > 4.0), "{standby:#}");

    let server = check(&cluster, "m1")?;
    assert_eq!((&server["role"], &server["standbys"]), (&"serving".into(), &1.into()));
    assert_eq!(said(&server, "address"), "ok: 172.16.0.99 is on eth0");
    assert_eq!(said(&server, "standbys"), "ok: the metalogger of 172.16.0.12 is connected");
    nothing_lost(&cluster, &load)
}

#[test]
fn a_standby_that_could_not_take_over_is_critical_in_every_form() -> Result<()> {
    let cluster = Cluster::build().masters(2).start()?;
    let load = cluster.client().keep_writing()?;
    load.wait_for_progress(LAST_RETRY)?;
    cluster.wait_for_metalogger_in_step("m2", SOON)?;
    cluster.starve("m2")?;
    load.wait_for_progress(LAST_RETRY)?;
    let behind = check(&cluster, "m2")?;
    assert!(said(&behind, "copy").starts_with(log_lines::LACKS), "{behind:#}");
    assert!(behind["lag"].as_u64().is_some_and(|lag| lag > 0), "{behind:#}");
    // What this machine looked like to the check before is in the state folder, and says when it was in step.
    let noted = cluster.must("m2", &["cat", "/var/lib/moosefs-ucarp/freshness.json"])?;
    assert!(noted.contains(&format!("\"served\": {}", behind["master_version"])), "{noted}");

    let nagios = cluster.run("m2", &["mfs-promote", "--check", "--nagios"])?;
    let line = String::from_utf8_lossy(&nagios.stdout).into_owned();
    assert_eq!((nagios.status.code(), line.lines().count()), (Some(2), 1), "{line}");
    // A metalogger that is starved for long gives its connection up, which is critical, too.
    let lacks = line.starts_with(log_lines::NAGIOS_CRITICAL) && line.contains(log_lines::NAGIOS_LACKS);
    assert!(lacks && line.contains(" | lag="), "{line}");

    let file = "/var/lib/lab/mfs-promote.prom";
    let metrics = cluster.run("m2", &["mfs-promote", "--check", "--prometheus", file])?;
    assert_eq!((metrics.status.code(), metrics.stdout.len()), (Some(2), 0), "{metrics:?}");
    let text = cluster.must("m2", &["cat", file])?;
    assert!(
        text.contains("\nmfs_promote_ready 0\n") && text.contains("mfs_promote_check{check=\"copy\"} 2\n"),
        "{text}"
    );

    cluster.feed("m2")?;
    cluster.wait_for_metalogger_in_step("m2", SOON)?;
    cluster.stop_ucarp("m2")?;
    let alone = check(&cluster, "m2")?;
    assert!(said(&alone, "ucarp").starts_with(log_lines::NO_UCARP), "{alone:#}");
    nothing_lost(&cluster, &load)
}
