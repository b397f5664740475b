//! The metrics of real machines, and the alerts and the dashboard that are made of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use lab::{Cluster, LAST_RETRY, Result};
use nix::sys::signal::Signal;
use regex_lite::Regex;
use serde_json::{Value, json};

use crate::{SOON, nothing_lost};

/// What the timer of the package runs.
const CHECK: &str = include_str!("../../scripts/packaging/check");
/// A command for `NOTIFY` that writes metrics at once, as the book has it.
const NOTIFY: &str = "\
#!/bin/sh
/usr/libexec/moosefs-ucarp/check || :
";
/// Where `CHECK` writes them.
const FOLDER: &str = "/var/lib/prometheus/node-exporter";
/// The minutes that each situation lasts for Prometheus: longer than most alerts wait.
const LASTS: usize = 20;

/// What a machine wrote: each series and its value.
type Metrics = BTreeMap<String, String>;
/// The metrics of all machines that wrote some, by machine.
type Situation = BTreeMap<&'static str, Metrics>;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/packaging/prometheus").canonicalize().expect("a folder")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn parsed(text: &str) -> Metrics {
    let series = text.lines().filter(|line| !line.starts_with('#')).map(|line| line.rsplit_once(' '));
    let series = series.map(|series| series.unwrap_or_else(|| panic!("no value: {text}")));
    series.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn metrics(cluster: &Cluster, machine: &str) -> Result<Metrics> {
    let line = "rm -f /run/check.prom; mfs-promote --check --prometheus /run/check.prom; cat /run/check.prom";
    let metrics = parsed(&cluster.must(machine, &["sh", "-c", line])?);
    eprintln!("{machine}: {metrics:#?}");
    Ok(metrics)
}

/// The words in a text that this expression finds.
fn words(expression: &str, text: &str) -> BTreeSet<String> {
    let found = Regex::new(expression).expect("an expression");
    found.find_iter(text).map(|word| word.as_str().to_owned()).collect()
}

/// The names of metrics in a text.
fn names(text: &str) -> BTreeSet<String> {
    words("mfs_promote_[a-z_]+", text)
}

/// The questions in a text.
fn questions(text: &str) -> BTreeSet<String> {
    words("check=\"[^\"]+\"", text)
}

/// Has Debian's promtool look at a file.
fn promtool(verb: &str, file: &Path) {
    let run = Command::new("promtool").args([verb, "rules"]).arg(file).output();
    let run = run.unwrap_or_else(|e| panic!("promtool: {e}; run scripts/setup"));
    let said = String::from_utf8_lossy(&[run.stdout, run.stderr].concat()).into_owned();
    assert!(run.status.success(), "promtool {verb} rules {}: {said}", file.display());
}

/// The series of a machine in one situation after the other, as promtool reads them. A check each minute.
fn series(machine: &str, name: &str, situations: &[Situation]) -> Value {
    let mut values = String::new();
    let more = LASTS - 1;
    let mut was_there = false;
    for (number, situation) in situations.iter().enumerate() {
        let value = situation.get(machine).and_then(|metrics| metrics.get(name));
        let _ = match value {
            Some(_) if name.starts_with("mfs_promote_checked") => write!(values, "{}+60x{more} ", number * LASTS * 60),
            Some(value) => write!(values, "{value}x{more} "),
            None if was_there => write!(values, "stale _x{more} "),
            None => write!(values, "_x{LASTS} "),
        };
        was_there = value.is_some();
    }
    let name = match name.split_once('{') {
        Some((name, labels)) => format!("{name}{{instance=\"{machine}\",{labels}"),
        None => format!("{name}{{instance=\"{machine}\"}}"),
    };
    json!({ "series": name, "values": values.trim_end() })
}

/// Has Prometheus see the metrics of one situation after the other, and fire these alerts at the end of each.
fn fires(situations: &[Situation], expected: &[&[&str]]) {
    let mut all = BTreeSet::new();
    for situation in situations {
        all.extend(
            situation.iter().flat_map(|(machine, metrics)| metrics.keys().map(|name| (*machine, name.as_str()))),
        );
    }
    let input: Vec<_> = all.iter().map(|(machine, name)| series(machine, name, situations)).collect();
    let fires = |(number, alerts): (usize, &&[&str])| {
        let sample = |labels: &&str| json!({ "labels": format!("{{{labels}}}"), "value": 1 });
        json!({
            "expr": "sum by (alertname, instance, check) (ALERTS{alertstate=\"firing\"})",
            "eval_time": format!("{}m", (number + 1) * LASTS - 1),
            "exp_samples": alerts.iter().map(sample).collect::<Vec<_>>(),
        })
    };
    let tests: Vec<_> = expected.iter().enumerate().map(fires).collect();
    let test = json!({
        "rule_files": [folder().join("moosefs-ucarp.rules.yml")],
        "evaluation_interval": "1m",
        "tests": [{ "interval": "1m", "input_series": input, "promql_expr_test": tests }],
    });
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("real.json");
    std::fs::write(&file, test.to_string()).expect("the test");
    promtool("test", &file);
}

#[test]
fn alerts_and_dashboard_use_what_machines_write() -> Result<()> {
    let cluster = Cluster::build()
        .masters(3)
        .file_on("m2", "/usr/libexec/moosefs-ucarp/check", CHECK, 0o755)
        .file_on("m2", "/usr/local/sbin/check-now", NOTIFY, 0o755)
        .file_on("m2", "/etc/mfs/mfspromote.cfg", "NOTIFY = /usr/local/sbin/check-now\n", 0o644)
        .start()?;
    cluster.must("m2", &["mkdir", "-p", FOLDER])?;
    for machine in ["m1", "m2", "m3"] {
        // As the README says; it would be a warning.
        cluster.must(machine, &["update-rc.d", "moosefs-master", "disable"])?;
    }
    let load = cluster.client().keep_writing()?;
    load.wait_for_progress(LAST_RETRY)?;
    for machine in ["m2", "m3"] {
        cluster.wait_for_metalogger_in_step(machine, SOON)?;
    }
    let look = |machines: &[&'static str]| -> Result<Situation> {
        machines.iter().map(|machine| Ok((*machine, metrics(&cluster, machine)?))).collect()
    };
    let is = |situation: &Situation, machine: &str, series: &str, value: &str| {
        assert_eq!(situation[machine].get(series).map(String::as_str), Some(value), "{series} of {machine}");
    };

    // Without a rehearsal the duration of a takeover is unknown.
    cluster.must("m2", &["mfs-promote", "--rehearse"])?;
    let healthy = look(&["m1", "m2", "m3"])?;
    for (machine, ready, serving) in [("m1", "1", "1"), ("m2", "1", "0"), ("m3", "1", "0")] {
        is(&healthy, machine, "mfs_promote_ready", ready);
        is(&healthy, machine, "mfs_promote_serving", serving);
    }
    is(&healthy, "m1", "mfs_promote_standbys", "2");
    is(&healthy, "m2", "mfs_promote_copy_lag_changes", "0");

    cluster.cut("m3")?;
    let cut_off = look(&["m1", "m2", "m3"])?;
    is(&cut_off, "m3", "mfs_promote_ready", "0");
    is(&cut_off, "m3", "mfs_promote_check{check=\"network\"}", "2");
    assert!(!cut_off["m3"].contains_key("mfs_promote_master_version"), "it reaches no master");
    cluster.heal("m3")?;
    cluster.wait_for_metalogger_in_step("m3", SOON)?;

    cluster.kill("m3", "mfsmetalogger", Signal::SIGKILL)?;
    load.wait_for_progress(LAST_RETRY)?;
    let stale = look(&["m1", "m2", "m3"])?;
    is(&stale, "m1", "mfs_promote_standbys", "1");
    is(&stale, "m3", "mfs_promote_ready", "0");
    is(&stale, "m3", "mfs_promote_check{check=\"metalogger\"}", "2");
    is(&stale, "m3", "mfs_promote_check{check=\"copy\"}", "2");

    cluster.power_off("m1")?;
    cluster.wait_for_serving("m2", SOON)?;
    let file = format!("{FOLDER}/moosefs-ucarp.prom");
    let notified = || {
        let metrics = parsed(&cluster.must("m2", &["cat", &file]).ok()?);
        metrics.get("mfs_promote_serving").filter(|serving| *serving == "1").map(drop)
    };
    cluster.expect("m2 to write its new role without the timer", SOON, notified)?;
    // Its chunkserver is back.
    load.wait_for_progress(LAST_RETRY)?;
    let failed_over = look(&["m2", "m3"])?;
    is(&failed_over, "m2", "mfs_promote_serving", "1");
    is(&failed_over, "m3", "mfs_promote_serving", "0");
    nothing_lost(&cluster, &load)?;

    let situations = [healthy, cut_off, stale, failed_over];
    let written: Vec<_> =
        situations.iter().flat_map(|situation| situation.values().flat_map(|all| all.keys())).collect();
    let written = written.into_iter().cloned().collect::<Vec<_>>().join("\n");
    for file in ["moosefs-ucarp.rules.yml", "dashboard.json", "tests.yml"] {
        let text = read(&folder().join(file));
        let unknown: Vec<_> = names(&text).difference(&names(&written)).cloned().collect();
        assert!(!names(&text).is_empty() && unknown.is_empty(), "{file}: no machine writes {unknown:?}");
        let unknown: Vec<_> = questions(&text).difference(&questions(&written)).cloned().collect();
        assert!(unknown.is_empty(), "{file}: no machine asks {unknown:?}");
    }
    let page = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/monitoring.md"));
    assert_eq!(names(&page), names(&written), "docs/monitoring.md has another list");

    let cut = [
        "alertname=\"MfsPromoteCheckCritical\",check=\"copy\",instance=\"m3\"",
        "alertname=\"MfsPromoteCheckCritical\",check=\"network\",instance=\"m3\"",
    ];
    let lost = "alertname=\"MfsPromoteStaleCopy\",instance=\"m3\"";
    let stopped = "alertname=\"MfsPromoteCheckCritical\",check=\"metalogger\",instance=\"m3\"";
    let after = [
        lost,
        stopped,
        "alertname=\"MfsPromoteTookOver\",instance=\"m2\"",
        "alertname=\"MfsPromoteNoStandbyReady\",instance=\"m2\"",
        "alertname=\"MfsPromoteMetricsMissing\",instance=\"m1\"",
    ];
    fires(&situations, &[&[], &cut, &[lost, stopped], &after]);
    Ok(())
}

#[test]
fn the_rules_pass_their_tests_and_the_dashboard_asks_what_prometheus_understands() {
    promtool("check", &folder().join("moosefs-ucarp.rules.yml"));
    promtool("test", &folder().join("tests.yml"));

    let dashboard: Value = serde_json::from_str(&read(&folder().join("dashboard.json"))).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let rule =
        |(number, target): (usize, &Value)| json!({ "record": format!("panel_{number}"), "expr": target["expr"] });
    let rules: Vec<_> = targets.enumerate().map(rule).collect();
    assert!(rules.len() >= 7, "{rules:?}");
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("panels.json");
    let groups = json!({ "groups": [{ "name": "panels", "rules": rules }] });
    std::fs::write(&file, groups.to_string()).expect("the rules");
    promtool("check", &file);
}
