//! The answers for people, programs, Nagios and Prometheus.

use std::fmt::Write as _;
use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Level, Report, Role};
use crate::metadata::Version;
use crate::sys::terminal::Style;

/// Raised when a field changes its meaning or goes; new fields do not raise it.
const FORMAT: u32 = 1;

/// The metrics could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}", path.display())]
pub(super) struct Error {
    path: PathBuf,
    #[source]
    source: std::io::Error,
}

/// For people: one line for each answer, the verdict last.
pub(super) fn text(report: &Report) -> String {
    let style = Style::of_stdout();
    let width = report.findings.iter().map(|finding| finding.name.len()).max().unwrap_or_default();
    let role = match report.role {
        Role::Serving => "this machine serves",
        Role::Standby => "this machine stands by",
    };
    let mut text = format!("{role}\n\n");
    for finding in &report.findings {
        let level = format!("{:8}", finding.level.name());
        let level = match finding.level {
            Level::Ok => style.good(&level),
            Level::Warning | Level::Unknown => style.warning(&level),
            Level::Critical => style.bad(&level),
        };
        let _ = writeln!(text, "  {level}  {:width$}  {}", finding.name, finding.text);
    }
    let _ = writeln!(text, "\n{}", verdict(report));
    text
}

fn verdict(report: &Report) -> &'static str {
    match report.level() {
        Level::Ok => "all well",
        Level::Warning => "works, but see the warnings",
        Level::Unknown => "not everything could be found out",
        Level::Critical => "not ready",
    }
}

/// What is not as it should be, worst first, in one line.
fn complaints(report: &Report) -> String {
    let mut wrong: Vec<_> = report.findings.iter().filter(|finding| finding.level != Level::Ok).collect();
    wrong.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    let wrong: Vec<_> = wrong.iter().map(|finding| format!("{}: {}", finding.name, finding.text)).collect();
    if wrong.is_empty() { verdict(report).to_owned() } else { wrong.join("; ") }
}

/// One line, a `|`, and what can be graphed
/// (<https://nagios-plugins.org/doc/guidelines.html>): no `|` and no line end in the text.
pub(super) fn nagios(report: &Report) -> String {
    let text = complaints(report).replace(['|', '\n'], " ");
    let numbers = &report.numbers;
    let mut data = Vec::new();
    let mut add = |name: &str, value: Option<String>, unit: &str| {
        data.extend(value.map(|value| format!("{name}={value}{unit}")));
    };
    add("lag", numbers.lag.map(|n| n.to_string()), "");
    add("replay", numbers.replay.map(|n| n.to_string()), "");
    add("image_age", numbers.image_age.map(|n| n.to_string()), "s");
    add("takeover", numbers.takeover.map(|n| format!("{n:.1}")), "s");
    add("free", numbers.space.map(|(_, free)| free.to_string()), "B");
    add("standbys", numbers.followers.map(|n| n.to_string()), "");
    let data = if data.is_empty() { String::new() } else { format!(" | {}", data.join(" ")) };
    format!("MFS-PROMOTE {} - {}, {text}{data}\n", report.level().name().to_uppercase(), report.role.name())
}

#[derive(Serialize)]
struct Json<'a> {
    format: u32,
    level: &'static str,
    role: &'static str,
    findings: Vec<JsonFinding<'a>>,
    master_version: Option<Version>,
    copy_version: Option<Version>,
    lag: Option<u64>,
    in_sync: Option<i64>,
    replay: Option<u64>,
    image_age_seconds: Option<u64>,
    needed_bytes: Option<u64>,
    free_bytes: Option<u64>,
    takeover_seconds: Option<f64>,
    rehearsed: Option<i64>,
    standbys: Option<u64>,
    settings: std::collections::BTreeMap<&'a str, &'a str>,
}

#[derive(Serialize)]
struct JsonFinding<'a> {
    name: &'a str,
    level: &'a str,
    text: &'a str,
}

/// For programs.
pub(super) fn json(report: &Report) -> String {
    let numbers = &report.numbers;
    let json = Json {
        format: FORMAT,
        level: report.level().name(),
        role: report.role.name(),
        findings: report
            .findings
            .iter()
            .map(|finding| JsonFinding { name: finding.name, level: finding.level.name(), text: &finding.text })
            .collect(),
        master_version: numbers.master_version,
        copy_version: numbers.copy_version,
        lag: numbers.lag,
        in_sync: numbers.in_sync,
        replay: numbers.replay,
        image_age_seconds: numbers.image_age,
        needed_bytes: numbers.space.map(|(needed, _)| needed),
        free_bytes: numbers.space.map(|(_, free)| free),
        takeover_seconds: numbers.takeover,
        rehearsed: numbers.rehearsed,
        standbys: numbers.followers,
        settings: report.settings.iter().map(|(name, print)| (*name, print.as_str())).collect(),
    };
    serde_json::to_string_pretty(&json).expect("text and numbers") + "\n"
}

/// Writes the metrics for the node exporter's textfile collector: a reader finds the old file or the new one.
pub(super) fn write_prometheus(report: &Report, path: &Path) -> Result<(), Error> {
    let failed = |source| Error { path: path.to_owned(), source };
    let name = path.file_name().ok_or_else(|| failed(std::io::ErrorKind::InvalidInput.into()))?;
    // The collector reads what ends in .prom.
    let beside = path.with_file_name(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
    let written = std::fs::File::create_new(&beside)
        .and_then(|mut file| {
            // The exporter is another user, whatever the umask of whoever calls this.
            file.set_permissions(Permissions::from_mode(0o644))?;
            file.write_all(metrics(report).as_bytes())
        })
        .and_then(|()| std::fs::rename(&beside, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    written.map_err(failed)
}

/// The text form of Prometheus
/// (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
fn metrics(report: &Report) -> String {
    let numbers = &report.numbers;
    let whole = |n: Option<u64>| n.map(|n| n.to_string());
    let flag = |is: bool| Some(u8::from(is).to_string());
    let single = [
        ("ready", "1 if nothing critical or unknown was found", flag(report.level() <= Level::Warning)),
        ("serving", "1 if a master runs here", flag(report.role == Role::Serving)),
        ("level", "Worst answer: 0 ok, 1 warning, 2 critical, 3 unknown", Some(report.level().code().to_string())),
        (
            "master_version",
            "Release of the metadata that is served",
            whole(numbers.master_version.map(|version| version.0)),
        ),
        (
            "copy_version",
            "Release that a promotion here would end at",
            whole(numbers.copy_version.map(|version| version.0)),
        ),
        ("copy_lag_changes", "Changes that the copy here lacks", whole(numbers.lag)),
        ("in_step_timestamp_seconds", "When the copy here was last in step", numbers.in_sync.map(|n| n.to_string())),
        ("replay_changes", "Changes that a promotion would replay", whole(numbers.replay)),
        ("image_age_seconds", "Age of the image that a promotion would load", whole(numbers.image_age)),
        ("space_needed_bytes", "Bytes that a promotion needs", whole(numbers.space.map(|(needed, _)| needed))),
        ("space_free_bytes", "Bytes free where it needs them", whole(numbers.space.map(|(_, free)| free))),
        ("takeover_seconds", "From the death of the master to serving", numbers.takeover.map(|n| format!("{n:.3}"))),
        ("rehearsed_timestamp_seconds", "When it was last rehearsed", numbers.rehearsed.map(|n| n.to_string())),
        ("standbys", "Other machines that copy from the master here", whole(numbers.followers)),
        ("checked_timestamp_seconds", "When this was found out", Some(chrono::Utc::now().timestamp().to_string())),
    ];
    let mut text = String::new();
    let head = |name: &str, help: &str| format!("# HELP mfs_promote_{name} {help}\n# TYPE mfs_promote_{name} gauge\n");
    for (name, help, value) in single {
        if let Some(value) = value {
            text += &head(name, help);
            let _ = writeln!(text, "mfs_promote_{name} {value}");
        }
    }
    text += &head("check", "Level of each question, the worst where it has several answers");
    let mut levels = std::collections::BTreeMap::new();
    for finding in &report.findings {
        let worst = levels.entry(finding.name).or_insert(finding.level);
        *worst = (*worst).max(finding.level);
    }
    for (name, level) in levels {
        let _ = writeln!(text, "mfs_promote_check{{check=\"{name}\"}} {}", level.code());
    }
    text += &head("settings_info", "Fingerprints of files that should be the same on every machine");
    for (file, print) in &report.settings {
        let _ = writeln!(text, "mfs_promote_settings_info{{file=\"{file}\",fingerprint=\"{print}\"}} 1");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::{Finding, Numbers};
    use super::*;

    fn report(levels: &[Level]) -> Report {
        let finding = |level: &Level| Finding::new("copy", *level, "lacks | 5\nchanges");
        Report {
            role: Role::Standby,
            findings: levels.iter().map(finding).collect(),
            numbers: Numbers { lag: Some(5), takeover: Some(4.56), space: Some((1, 2)), ..Numbers::default() },
            settings: vec![("mfsexports.cfg", "00ff".to_owned())],
        }
    }

    #[test]
    fn the_worst_answer_is_the_answer() {
        use Level::{Critical, Ok, Unknown, Warning};
        let code = |levels: &[Level]| report(levels).level().code();
        assert_eq!([code(&[]), code(&[Ok, Warning]), code(&[Warning, Unknown])], [0, 1, 3]);
        assert_eq!(code(&[Unknown, Critical, Ok]), 2);
    }

    #[test]
    fn nagios_gets_one_line() {
        let line = nagios(&report(&[Level::Ok, Level::Critical]));
        let expected = "MFS-PROMOTE CRITICAL - standby, copy: lacks   5 changes | lag=5 takeover=4.6s free=2B\n";
        assert_eq!(line, expected);
        assert!(nagios(&report(&[Level::Ok])).starts_with("MFS-PROMOTE OK - standby, all well | "));
    }

    #[test]
    fn metrics_are_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mfs-promote.prom");
        std::fs::write(&path, "old").unwrap();
        write_prometheus(&report(&[Level::Ok, Level::Warning]), &path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("# TYPE mfs_promote_copy_lag_changes gauge\nmfs_promote_copy_lag_changes 5\n"), "{text}");
        assert!(
            text.contains("mfs_promote_check{check=\"copy\"} 1\n") && text.contains("mfs_promote_ready 1\n"),
            "{text}"
        );
        assert!(!text.contains("standbys"), "what is not known is left out: {text}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing stays beside it");
        assert!(write_prometheus(&report(&[]), &dir.path().join("none/x.prom")).is_err());
    }

    #[test]
    fn programs_get_every_answer() {
        let json: serde_json::Value = serde_json::from_str(&json(&report(&[Level::Warning]))).unwrap();
        assert_eq!(json["level"], "warning");
        assert_eq!(json["findings"][0]["name"], "copy");
        assert_eq!(json["lag"], 5);
        assert!(json["replay"].is_null());
        assert_eq!(json["settings"]["mfsexports.cfg"], "00ff");
    }
}
