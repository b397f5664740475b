//! The forms for people.

use std::fmt::Write as _;
use std::time::Duration;

use super::dry_run::{DryRun, ImageRow, ImageState, LogRow, OtherRow, Planned, RemarkSeverity};
use super::status::{Master, Status, UcarpRow};
use crate::machine::memory::Unserved;
use crate::machine::outcome::RunKind;
use crate::machine::record::Record;
use crate::machine::space::Space;
use crate::machine::standby_master::HotState;
use crate::sys::terminal::Style;
use crate::sys::text::{bytes, count, human, table, when};

/// How many runs `--status` shows.
const SHOWN_RUNS: usize = 10;

/// What is in the data folder, what a promotion would make of it, and the verdict.
pub(super) fn dry_run(found: &DryRun, style: Style) -> String {
    let mut text = format!("{}\n", found.data_path.display());
    let mut rows = vec![["", "file", "versions", "size", "state"].map(str::to_owned)];
    rows.extend(found.images.iter().map(image_row));
    rows.extend(found.change_logs.iter().map(log_row));
    rows.extend(found.others.iter().map(other_row));
    table(&mut text, &rows);
    if let Some(planned) = &found.plan {
        text += &plan(planned, style);
    }
    if !found.emergency_files.is_empty() {
        text += "\nemergency images outside the data folder\n";
    }
    for file in &found.emergency_files {
        let _ = writeln!(text, "  {}  {}", style.warning("warning   "), file.text);
    }
    for interrupted in &found.interrupted_runs {
        let _ = writeln!(text, "\ninterrupted run\n  {}", interrupted.text);
    }
    if let Some(pid) = found.master_pid {
        let _ = writeln!(text, "\nmfsmaster is running here (pid {pid}): a promotion keeps it if it lacks no change");
    }
    let verdict = if found.would_succeed {
        style.good("a promotion would succeed")
    } else {
        style.bad("a promotion would fail:")
    };
    let _ = writeln!(text, "\n{verdict}");
    for obstacle in &found.obstacles {
        let _ = writeln!(text, "  {}", style.bad(obstacle));
    }
    text
}

fn image_row(image: &ImageRow) -> [String; 5] {
    let state = match image.state {
        ImageState::New => "new file system, no change yet".to_owned(),
        ImageState::Complete => format!("complete, metaid {}", image.metaid.as_deref().unwrap_or_default()),
        ImageState::Incomplete => format!("not usable: {}", image.flaw.as_deref().unwrap_or_default()),
    };
    let version = image.version.map(|version| version.to_string()).unwrap_or_default();
    [image.lineage.clone(), image.file.clone(), version, bytes(image.bytes), state]
}

fn log_row(log: &LogRow) -> [String; 5] {
    let versions = match (log.first, log.last) {
        (Some(first), Some(last)) => format!("{first}..{last}"),
        _ => String::new(),
    };
    let mut state = match (log.last_change_time, log.changes) {
        (None, _) => "empty".to_owned(),
        (Some(time), None) => format!("all in the image already, last {}", when(time)),
        (Some(time), Some(changes)) => format!("{changes} changes, last {}", when(time)),
    };
    if let Some(torn) = log.torn_bytes {
        let _ = write!(state, ", torn last line of {torn} bytes");
    }
    if let Some(offset) = log.damaged_at.first() {
        let _ = write!(state, ", damaged at byte {offset}");
    }
    [log.lineage.clone(), log.file.clone(), versions, bytes(log.bytes), state]
}

fn other_row(other: &OtherRow) -> [String; 5] {
    [String::new(), other.file.clone(), String::new(), String::new(), other.what.clone()]
}

fn plan(plan: &Planned, style: Style) -> String {
    let base = match &plan.base_file {
        Some(file) => format!("{file} ({}, version {})", plan.lineage, plan.base_version),
        None => format!("the first change of a new file system ({})", plan.lineage),
    };
    let mut text = format!("\nplan\n  start from  {base}\n");
    for run in &plan.runs {
        let _ = writeln!(text, "  replay      {}..{} of {}", run.first, run.last, run.file);
    }
    let last = plan.last_change_time.map(|time| format!(", last change {}", when(time))).unwrap_or_default();
    let _ = writeln!(text, "  ends at     version {}, {} changes{last}", plan.end_version, plan.changes);
    let epoch = plan.served_version.epoch();
    if epoch > plan.end_version.epoch() {
        let _ = writeln!(text, "  served as   version {} (epoch {epoch})", plan.served_version);
    }
    let Space { image, log, shared, free } = plan.space;
    let sharing = if shared { " (shares its blocks with the original)" } else { "" };
    let _ = writeln!(text, "  staged set  image of {}{sharing}, change log of about {}", bytes(image), bytes(log));
    let _ = writeln!(text, "  space       {} needed, {} free", bytes(plan.space.needed()), bytes(free));
    let warning = style.warning("warning   ");
    if plan.space.fits() && !plan.space.fits_next_image() {
        let _ = writeln!(text, "  {warning}  no space for the next image, which the master writes within the hour");
    }
    let _ = writeln!(text, "  set aside   {}: {}", count(plan.set_aside.len(), "file"), plan.set_aside.join(", "));
    for note in &plan.notes {
        let _ = match note.severity {
            RemarkSeverity::Warning => writeln!(text, "  {warning}  {}", note.text),
            RemarkSeverity::Note => writeln!(text, "  note        {}", note.text),
        };
    }
    text
}

/// What runs here, and the last runs.
pub(super) fn status(status: &Status, style: Style) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:14} {}", style.fitted(value, 15));
    };
    line("mfsmaster", &status.master.as_ref().map_or_else(|| "not running".to_owned(), master));
    let missing = status.master.as_ref().map(missing).unwrap_or_default();
    if !missing.is_empty() {
        line("not connected", &missing);
    }
    let metalogger =
        status.metalogger_pid.map_or_else(|| "not running".to_owned(), |pid| format!("running, pid {pid}"));
    line("mfsmetalogger", &metalogger);
    if let Some(hot) = &status.hot_standby {
        line("hot standby", &hot_standby(hot));
    }
    for here in &status.ucarp {
        line("ucarp", &ucarp(here));
        // A promotion opens them when it serves.
        if here.answers_held && status.at_work.is_none() {
            line("clients", "answers are held: no other machine hears this one, or one serves");
        }
    }
    if status.ucarp.is_empty() {
        line("ucarp", "not running: this machine takes part in no election; start ucarp");
    }
    if let Some(run) = &status.at_work {
        let since = human(Duration::from_millis(run.ms));
        line("at work", &format!("{} for {since}, pid {}", run.kind, run.pid));
    }
    for unserved in &status.unserved {
        let Unserved { first, end, served_by, .. } = unserved;
        let changes = count(usize::try_from(end.changes_since(*first)).unwrap_or(usize::MAX), "change");
        line("not served", &format!("{changes} made here, versions {first} to {}", end.last_change()));
        line("", &format!("{served_by} serves a history without them"));
    }
    // A run at work has such files itself.
    if status.not_archived > 0 && status.at_work.is_none() {
        let files = format!("files of {}", count(status.not_archived, "run"));
        line("not archived", &format!("{files}, in {}/mfs-promote", status.data_path.display()));
        if let Some(why) = &status.archive_obstacle {
            line("", why);
        }
    }
    for interrupted in &status.interrupted_runs {
        line("interrupted", &interrupted.text);
    }
    text + &runs(&status.runs, style)
}

fn master(master: &Master) -> String {
    let mut text = format!("running, pid {}", master.pid);
    let version = master.version.map(|version| format!("version {version}"));
    let release = master.release.as_ref().map(|release| format!("MooseFS {release}"));
    let error = master.error.as_ref().map(|error| format!("but not answering: {error}"));
    for part in [release, version, error].into_iter().flatten() {
        let _ = write!(text, ", {part}");
    }
    text
}

fn hot_standby(state: &HotState) -> String {
    match state {
        HotState::Hot { since, version, memory, load_ms } => {
            let (since, took) =
                (when(u64::try_from(*since).unwrap_or_default()), human(Duration::from_millis(*load_ms)));
            format!("loaded in {took}, follows the copy since {since} (version {version}), {}", bytes(*memory))
        }
        HotState::Cold { why, .. } => format!("none: {why}"),
    }
}

/// Chunkservers and metaloggers that are not connected.
fn missing(master: &Master) -> String {
    let chunkservers = master.chunkservers_missing.iter().map(|at| format!("chunkserver {at}"));
    let metaloggers = master.metaloggers_missing.iter().map(|machine| format!("the metalogger of {machine}"));
    metaloggers.chain(chunkservers).collect::<Vec<_>>().join(", ")
}

fn ucarp(ucarp: &UcarpRow) -> String {
    let vip = ucarp.vip.map_or_else(|| "the virtual IP".to_owned(), |vip| vip.to_string());
    let interface = ucarp.interface.as_deref().unwrap_or("its interface");
    let held = match ucarp.held {
        Some(true) => format!("{vip} is on {interface}"),
        Some(false) => format!("{vip} is not on {interface}"),
        None => format!("cannot find out whether {vip} is on {interface}"),
    };
    format!("running, pid {}, {held}", ucarp.pid)
}

/// A table of the last runs, the steps of the last promotion, and why the last run failed.
fn runs(records: &[Record], style: Style) -> String {
    if records.is_empty() {
        return "\nno runs yet\n".to_owned();
    }
    let mut text = "\n".to_owned();
    let mut rows = vec![["started (UTC)", "run", "outcome", "version", "total"].map(str::to_owned)];
    let shown = &records[records.len().saturating_sub(SHOWN_RUNS)..];
    rows.extend(shown.iter().map(record_row));
    table(&mut text, &rows);
    if let Some(last) = records.iter().rev().find(|record| record.kind == RunKind::Promotion) {
        let time = |ms| human(Duration::from_millis(ms));
        let steps: Vec<_> = last.steps.iter().map(|step| format!("{} {}", step.name, time(step.ms))).collect();
        let changes = last.changes.map(|changes| format!("{changes} changes replayed; ")).unwrap_or_default();
        let _ = writeln!(text, "\n{}", style.fitted(&format!("last promotion: {changes}{}", steps.join(", ")), 0));
    }
    if let Some(error) = shown.last().and_then(|last| last.error.as_ref()) {
        let _ = writeln!(text, "\n{}", style.fitted(&format!("the last run failed: {error}"), 0));
    }
    text
}

fn record_row(record: &Record) -> [String; 5] {
    [
        when(u64::try_from(record.started).unwrap_or_default()).trim_end_matches(" UTC").to_owned(),
        record.kind.to_string(),
        record.outcome.to_string(),
        record.version.map(|version| version.to_string()).unwrap_or_default(),
        human(Duration::from_millis(record.total_ms)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::outcome::{Outcome, StepName};
    use crate::machine::record::Step;
    use crate::metadata::Version;
    use crate::report::status::RunAtWork;

    fn record(kind: RunKind, outcome: Outcome, error: Option<&str>) -> Record {
        Record {
            started: 1_795_380_000,
            kind,
            vip: None,
            outcome,
            version: Some(Version(2_000_001_000_326)),
            changes: Some(324),
            set_aside: Vec::new(),
            archive: None,
            steps: vec![
                Step { name: StepName::Settle, ms: 1470 },
                Step { name: StepName::Start, ms: 204 },
                Step { name: StepName::Archive, ms: 8 },
            ],
            total_ms: 4790,
            error: error.map(str::to_owned),
        }
    }

    #[test]
    fn the_status_fits_a_screen() {
        let mut data = Status {
            hot_standby: None,
            unserved: Vec::new(),
            data_path: "/var/lib/mfs".into(),
            master: Some(Master {
                pid: 98,
                release: Some("3.0.117".into()),
                version: Some(Version(1_000_326)),
                error: None,
                chunkservers_missing: vec!["10.0.0.3:9422".parse().unwrap()],
                metaloggers_missing: vec![std::net::Ipv4Addr::new(10, 0, 0, 2)],
            }),
            metalogger_pid: None,
            ucarp: vec![UcarpRow {
                pid: 43,
                vip: Some(std::net::Ipv4Addr::new(172, 16, 0, 99)),
                interface: Some("eth0".into()),
                held: Some(true),
                answers_held: false,
            }],
            not_archived: 1,
            archive_obstacle: Some("not enough space".to_owned()),
            at_work: None,
            interrupted_runs: Vec::new(),
            runs: vec![
                record(RunKind::Promotion, Outcome::Serving, None),
                record(RunKind::Switchover, Outcome::NotSwitchedOver, Some("no standby")),
            ],
        };
        let expected = "\
mfsmaster      running, pid 98, MooseFS 3.0.117, version 1000326
not connected  the metalogger of 10.0.0.2, chunkserver 10.0.0.3:9422
mfsmetalogger  not running
ucarp          running, pid 43, 172.16.0.99 is on eth0
not archived   files of 1 run, in /var/lib/mfs/mfs-promote
               not enough space

  started (UTC)        run         outcome            version        total
  2026-11-22 20:40:00  promotion   serving            2000001000326  4.79 s
  2026-11-22 20:40:00  switchover  not switched over  2000001000326  4.79 s

last promotion: 324 changes replayed; settle 1.47 s, start 204 ms, archive 8 ms

the last run failed: no standby
";
        assert_eq!(status(&data, Style::plain()), expected);
        data.at_work = Some(RunAtWork { pid: 7, kind: RunKind::Demotion, ms: 2500 });
        let text = status(&data, Style::plain());
        assert!(text.contains("\nat work        demotion for 2.5 s, pid 7\n\n"), "{text}");
        data.ucarp[0].answers_held = true;
        assert!(!status(&data, Style::plain()).contains("answers are held"), "until a promotion serves, they are");
        data.at_work = None;
        data.unserved = vec![Unserved {
            first: Version(3_000_000_005_000),
            end: Version(3_000_000_005_012),
            whole_epoch: true,
            served_by: std::net::Ipv4Addr::new(172, 16, 200, 102),
            noted: 1_795_379_424,
        }];
        let text = status(&data, Style::plain());
        let expected = "\nclients        answers are held: no other machine hears this one, or one serves\n\
                        not served     12 changes made here, versions 3000000005000 to 3000000005011\n               \
                        172.16.200.102 serves a history without them\n";
        assert!(text.contains(expected), "{text}");
        data.runs = (0..50).map(|_| record(RunKind::Switchover, Outcome::NotSwitchedOver, None)).collect();
        let text = status(&data, Style::plain());
        assert!(text.lines().count() < 24 && text.lines().all(|line| line.len() <= 80), "{text}");
    }
}
