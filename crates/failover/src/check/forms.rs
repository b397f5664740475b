//! The answers for people, programs, Nagios and Prometheus.

use std::fmt::Write as _;
use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::sys::terminal::Style;
use crate::sys::text;

use super::finding::{Finding, Level, Numbers, Report, Role};

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
pub(super) fn text(report: &Report, style: Style) -> String {
    let width = report.findings.iter().map(|finding| finding.name.len()).max().unwrap_or_default();
    let mut text = format!("role: {}\n\n", report.role());
    for Finding { name, level, text: answer } in &report.findings {
        let answer = style.fitted(answer, width + 14);
        let _ =
            writeln!(text, "  {}  {name:width$}  {answer}", coloured(style, *level, &format!("{:8}", level.name())));
    }
    let level = report.level();
    let _ = writeln!(text, "\n{}: {}", coloured(style, level, level.name()), verdict(report));
    text
}

fn coloured(style: Style, level: Level, text: &str) -> String {
    match level {
        Level::Ok => style.good(text),
        Level::Warning | Level::Unknown => style.warning(text),
        Level::Critical => style.bad(text),
    }
}

/// What the worst level means for this machine, and which answers have it.
fn verdict(report: &Report) -> String {
    let level = report.level();
    let ready = match report.role {
        Some(Role::Serving) => "serving",
        _ => "ready to take over",
    };
    let mut names: Vec<_> = report.findings.iter().filter(|f| f.level == level).map(|finding| finding.name).collect();
    names.dedup();
    let names = names.join(", ");
    match level {
        Level::Ok => ready.to_owned(),
        Level::Warning => format!("{ready}, but see: {names}"),
        Level::Unknown => format!("some answers could not be found out, see: {names}"),
        Level::Critical if report.role == Some(Role::Serving) => {
            format!("clients or the next failover are at risk, see: {names}")
        }
        Level::Critical => format!("not ready to take over, see: {names}"),
    }
}

/// Everything that is not as it should be, worst first, in one line.
fn complaints(report: &Report) -> String {
    let mut wrong: Vec<_> = report.findings.iter().filter(|finding| finding.level != Level::Ok).collect();
    wrong.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    let wrong: Vec<_> = wrong.iter().map(|finding| format!("{}: {}", finding.name, finding.text)).collect();
    if wrong.is_empty() { verdict(report) } else { wrong.join("; ") }
}

/// One line, a `|`, and what can be graphed
/// (<https://nagios-plugins.org/doc/guidelines.html>): no `|` and no line end in the text.
pub(super) fn nagios(report: &Report) -> String {
    let text = complaints(report).replace(['|', '\n'], " ");
    let numbers = &report.numbers;
    let whole = |n: Option<u64>| n.map(|n| n.to_string());
    let data = [
        ("lag", whole(numbers.lag), ""),
        ("replay", whole(numbers.replay), ""),
        ("image_age", whole(numbers.image_age_seconds), "s"),
        ("takeover", numbers.takeover_seconds.map(|n| format!("{n:.1}")), "s"),
        ("free", whole(numbers.free_bytes), "B"),
        ("standbys", whole(numbers.standbys), ""),
    ];
    let data = data.into_iter().filter_map(|(name, value, unit)| Some(format!("{name}={}{unit}", value?)));
    let data = data.collect::<Vec<_>>().join(" ");
    let data = if data.is_empty() { data } else { format!(" | {data}") };
    format!("MFS-PROMOTE {} - {}, {text}{data}\n", report.level().name(), report.role())
}

#[derive(Serialize)]
struct Json<'a> {
    format: u32,
    level: Level,
    role: Option<Role>,
    findings: &'a [Finding],
    #[serde(flatten)]
    numbers: &'a Numbers,
}

/// For programs.
pub(super) fn json(report: &Report) -> String {
    let Report { role, findings, numbers } = report;
    text::json(&Json { format: FORMAT, level: report.level(), role: *role, findings, numbers })
}

/// Writes the metrics for the node exporter's textfile collector. A reader finds the old file or the new one.
pub(super) fn write_prometheus(report: &Report, path: &Path) -> Result<(), Error> {
    let failed = |source| Error { path: path.to_owned(), source };
    let name = path.file_name().ok_or_else(|| failed(std::io::ErrorKind::InvalidInput.into()))?;
    // The collector reads what ends in .prom.
    let beside = path.with_file_name(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
    let written = std::fs::File::create_new(&beside)
        .and_then(|mut file| {
            // The exporter is another user; the umask must not lock it out.
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
        ("ready", "1 if no answer is critical or unknown", flag(report.level() <= Level::Warning)),
        ("serving", "1 if a master runs here", flag(report.role == Some(Role::Serving))),
        ("level", "Worst answer: 0 ok, 1 warning, 2 critical, 3 unknown", Some(report.level().code().to_string())),
        (
            "master_version",
            "Version of the metadata that is served",
            whole(numbers.master_version.map(|version| version.0)),
        ),
        (
            "copy_version",
            "Version where a promotion here would end",
            whole(numbers.copy_version.map(|version| version.0)),
        ),
        ("copy_lag_changes", "Changes that the copy here lacks", whole(numbers.lag)),
        ("in_sync_timestamp_seconds", "When the copy here was last in sync", numbers.in_sync.map(|n| n.to_string())),
        ("replay_changes", "Changes that a promotion would replay", whole(numbers.replay)),
        ("image_age_seconds", "Age of the image that a promotion would load", whole(numbers.image_age_seconds)),
        ("space_needed_bytes", "Bytes that a promotion needs", whole(numbers.needed_bytes)),
        ("space_free_bytes", "Bytes free in the data folder", whole(numbers.free_bytes)),
        (
            "takeover_seconds",
            "Estimate, from the death of the master to serving here",
            numbers.takeover_seconds.map(|n| format!("{n:.3}")),
        ),
        ("rehearsed_timestamp_seconds", "When a rehearsal last succeeded", numbers.rehearsed.map(|n| n.to_string())),
        ("standbys", "Other machines whose metaloggers are connected here", whole(numbers.standbys)),
        ("checked_timestamp_seconds", "When this check was made", Some(chrono::Utc::now().timestamp().to_string())),
    ];
    let mut text = String::new();
    let head = |name: &str, help: &str| format!("# HELP mfs_promote_{name} {help}\n# TYPE mfs_promote_{name} gauge\n");
    for (name, help, value) in single {
        if let Some(value) = value {
            text += &head(name, help);
            let _ = writeln!(text, "mfs_promote_{name}{} {value}", labels(None, numbers.xparam.as_deref()));
        }
    }
    text += &head("check", "Level of each question: the worst of its answers");
    let mut levels = std::collections::BTreeMap::new();
    for finding in &report.findings {
        let worst = levels.entry(finding.name).or_insert(finding.level);
        *worst = (*worst).max(finding.level);
    }
    for (name, level) in levels {
        let _ = writeln!(text, "mfs_promote_check{} {}", labels(Some(name), numbers.xparam.as_deref()), level.code());
    }
    text
}

/// The collector takes a metric from two files only with different labels.
fn labels(check: Option<&str>, xparam: Option<&str>) -> String {
    let labels = [check.map(|check| format!("check=\"{check}\"")), xparam.map(|name| format!("xparam=\"{name}\""))];
    let labels: Vec<_> = labels.into_iter().flatten().collect();
    if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(levels: &[Level]) -> Report {
        let finding = |level: &Level| Finding { name: "copy", level: *level, text: "lacks | 5\nchanges".to_owned() };
        Report {
            role: Some(Role::Standby),
            findings: levels.iter().map(finding).collect(),
            numbers: Numbers {
                lag: Some(5),
                takeover_seconds: Some(4.56),
                needed_bytes: Some(1),
                free_bytes: Some(2),
                ..Numbers::default()
            },
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
        assert!(nagios(&report(&[Level::Ok])).starts_with("MFS-PROMOTE OK - standby, ready to take over | "));
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
        let mut named = report(&[Level::Ok]);
        named.numbers.xparam = Some("two".to_owned());
        write_prometheus(&named, &path).unwrap();
        let both = std::fs::read_to_string(&path).unwrap();
        assert!(both.contains("mfs_promote_ready{xparam=\"two\"} 1\n"), "{both}");
        assert!(both.contains("mfs_promote_check{check=\"copy\",xparam=\"two\"} 0\n"), "{both}");
        assert!(!text.contains("standbys"), "unknown numbers are omitted: {text}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
        assert!(write_prometheus(&report(&[]), &dir.path().join("none/x.prom")).is_err());
    }

    #[test]
    fn programs_get_every_answer() {
        let json: serde_json::Value = serde_json::from_str(&json(&report(&[Level::Warning]))).unwrap();
        assert_eq!(json["level"], "warning");
        assert_eq!(json["findings"][0]["name"], "copy");
        assert_eq!(json["lag"], 5);
        assert!(json["replay"].is_null());
    }
}
