//! `--json`: the same for programs. The field names are documented in `docs/configuration.md` and stay.
//!
//! Versions, sizes and process ids are numbers, times Unix seconds. A metaid is text as everywhere else
//! (`0x…`): it has more bits than a JSON number carries safely.

use std::path::Path;

use crate::machine::journal::Phase;
use crate::machine::lock::AtWork;
use crate::machine::record::Record;
use crate::metadata::{Base, Emergency, Image, ImageFile, LogFile, Refusal, Severity};
use serde::Serialize;

use super::dry_run::{Findings, Planned};
use super::status::{Election, Status};
use super::{Interrupted, Result};
use crate::promotion::prepare;
use crate::sys::text::shown;

/// Raised when a field changes its meaning or goes; new fields do not raise it.
const FORMAT: u32 = 1;

#[derive(Serialize)]
struct DryRun<'a> {
    format: u32,
    would_succeed: bool,
    obstacles: &'a [String],
    refusal: Option<RefusalJson>,
    data_path: &'a Path,
    images: Vec<ImageJson>,
    change_logs: Vec<LogJson>,
    others: Vec<OtherJson>,
    plan: Option<PlanJson>,
    emergency_files: Vec<EmergencyJson>,
    master_pid: Option<u32>,
    metalogger_pid: Option<u32>,
    interrupted_run: Option<InterruptedJson>,
}

#[derive(Serialize)]
struct RefusalJson {
    reason: &'static str,
    text: String,
}

#[derive(Serialize)]
struct ImageJson {
    file: String,
    lineage: String,
    state: &'static str,
    version: Option<u64>,
    metaid: Option<String>,
    flaw: Option<String>,
    bytes: u64,
    modified: u64,
}

#[derive(Serialize)]
struct LogJson {
    file: String,
    lineage: String,
    first: Option<u64>,
    last: Option<u64>,
    last_change_time: Option<u64>,
    /// Not counted where all of it is in the image.
    changes: Option<u64>,
    torn_bytes: Option<u64>,
    damaged_at: Vec<u64>,
    bytes: u64,
    modified: u64,
}

#[derive(Serialize)]
struct OtherJson {
    file: String,
    what: String,
}

#[derive(Serialize)]
struct PlanJson {
    lineage: String,
    base_file: Option<String>,
    base_version: u64,
    metaid: String,
    runs: Vec<RunJson>,
    end_version: u64,
    served_version: u64,
    changes: u64,
    last_change_time: Option<u64>,
    set_aside: Vec<String>,
    notes: Vec<NoteJson>,
    image_bytes: u64,
    change_log_bytes: u64,
    needed_bytes: u64,
    free_bytes: u64,
}

#[derive(Serialize)]
struct RunJson {
    file: String,
    first: u64,
    last: u64,
}

#[derive(Serialize)]
struct NoteJson {
    severity: &'static str,
    text: String,
}

#[derive(Serialize)]
struct EmergencyJson {
    file: String,
    version: Option<u64>,
    metaid: Option<String>,
    modified: u64,
    text: String,
}

#[derive(Serialize)]
struct InterruptedJson {
    started: Option<u64>,
    phase: Option<Phase>,
    set_aside: Option<usize>,
    text: String,
}

#[derive(Serialize)]
struct StatusJson<'a> {
    format: u32,
    data_path: &'a Path,
    master: Option<MasterJson>,
    metalogger_pid: Option<u32>,
    ucarp: &'a [Election],
    not_archived: usize,
    at_work: Option<AtWorkJson>,
    interrupted_run: Option<InterruptedJson>,
    runs: &'a [Record],
}

#[derive(Serialize)]
struct AtWorkJson {
    pid: u32,
    role: String,
    ms: u64,
}

#[derive(Serialize)]
struct MasterJson {
    pid: u32,
    release: Option<String>,
    version: Option<u64>,
    error: Option<String>,
}

/// The text of a dry run.
pub(super) fn dry_run(findings: &Findings) -> Result<String> {
    let metalogger_runs = findings.metalogger.is_some();
    let inventory = &findings.inventory;
    text(&DryRun {
        format: FORMAT,
        would_succeed: findings.obstacles.is_empty(),
        obstacles: &findings.obstacles,
        refusal: findings.plan.as_ref().and_then(|plan| plan.as_ref().err()).map(refusal),
        data_path: &findings.data_path,
        images: inventory.images.iter().map(image).collect(),
        change_logs: inventory.logs.iter().map(log).collect(),
        others: inventory.others.iter().map(|o| OtherJson { file: shown(&o.name), what: o.what.to_string() }).collect(),
        plan: findings.planned().map(|planned| plan(planned, metalogger_runs)),
        emergency_files: findings.emergency.iter().map(emergency).collect(),
        master_pid: findings.master,
        metalogger_pid: findings.metalogger,
        interrupted_run: findings.interrupted.first().map(interrupted),
    })
}

/// The text of a status.
pub(super) fn status(status: &Status) -> Result<String> {
    let answer = status.answer.as_ref();
    let info = answer.and_then(|answer| answer.as_ref().ok());
    let master = |pid| MasterJson {
        pid,
        release: info.map(|info| info.release.to_string()),
        version: info.and_then(|info| info.metadata_version),
        error: answer.and_then(|answer| answer.as_ref().err().cloned()),
    };
    let at_work = |AtWork { pid, role, since }| AtWorkJson {
        pid,
        role: role.to_string(),
        ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
    };
    text(&StatusJson {
        format: FORMAT,
        data_path: &status.data_path,
        master: status.master.map(master),
        metalogger_pid: status.metalogger,
        ucarp: &status.elections,
        not_archived: status.not_archived,
        at_work: status.at_work.map(at_work),
        interrupted_run: match &status.interrupted {
            Ok(runs) => runs.first().map(interrupted),
            Err(text) => Some(InterruptedJson { started: None, phase: None, set_aside: None, text: text.clone() }),
        },
        runs: status.records.as_deref().unwrap_or_default(),
    })
}

fn text(value: &impl Serialize) -> Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

fn refusal(refusal: &Refusal) -> RefusalJson {
    let reason = match refusal {
        Refusal::Nothing { .. } => "nothing",
        Refusal::Metaids { .. } => "metaids",
        Refusal::Hole { .. } => "hole",
        Refusal::MlHasMore { .. } => "ml_has_more",
        Refusal::MlUnusable { .. } => "ml_unusable",
        Refusal::InTheWay { .. } => "in_the_way",
        Refusal::Unread { .. } => "unread",
        Refusal::Unreadable { .. } => "unreadable",
        Refusal::Cut { .. } => "cut",
        Refusal::StepBack { .. } => "step_back",
        Refusal::Unrelated { .. } => "unrelated",
    };
    RefusalJson { reason, text: refusal.to_string() }
}

fn hex(metaid: u64) -> String {
    format!("{metaid:#x}")
}

fn image(file: &ImageFile) -> ImageJson {
    let (state, version, metaid, flaw) = match &file.image {
        Image::New => ("new", Some(1), None, None),
        Image::Complete { version, metaid, .. } => ("complete", Some(*version), Some(hex(*metaid)), None),
        Image::Incomplete { reason, .. } => ("incomplete", None, None, Some(reason.to_string())),
    };
    let (bytes, modified) = (file.size, file.modified);
    let (file, lineage) = (shown(&file.name), file.lineage.to_string());
    ImageJson { file, lineage, state, version, metaid, flaw, bytes, modified }
}

fn log(log: &LogFile) -> LogJson {
    LogJson {
        file: shown(&log.name),
        lineage: log.lineage.to_string(),
        first: log.scan.first(),
        last: log.scan.last(),
        last_change_time: log.scan.last_time(),
        changes: log.scanned.then_some(log.scan.lines),
        torn_bytes: log.scan.torn.map(|torn| torn.bytes),
        damaged_at: log.scan.damage.iter().map(|damage| damage.offset).collect(),
        bytes: log.size,
        modified: log.modified,
    }
}

fn plan(planned: &Planned, metalogger_runs: bool) -> PlanJson {
    let Planned { plan, space, .. } = planned;
    let note = |note| {
        let (severity, text) = prepare::remark(note, metalogger_runs);
        let severity = if severity == Severity::Warning { "warning" } else { "note" };
        NoteJson { severity, text }
    };
    PlanJson {
        lineage: plan.lineage.to_string(),
        base_file: match &plan.base {
            Base::Image { name, .. } => Some(shown(name)),
            Base::New => None,
        },
        base_version: plan.base_version,
        metaid: hex(plan.metaid),
        runs: plan.runs.iter().map(|r| RunJson { file: shown(&r.file), first: r.first, last: r.last }).collect(),
        end_version: plan.end_version,
        served_version: planned.served(),
        changes: plan.changes,
        last_change_time: plan.last_change_time,
        set_aside: plan.set_aside.iter().map(|name| shown(name)).collect(),
        notes: plan.notes.iter().map(note).collect(),
        image_bytes: space.image,
        change_log_bytes: space.log,
        needed_bytes: space.needed(),
        free_bytes: space.free,
    }
}

fn emergency(file: &Emergency) -> EmergencyJson {
    let (version, metaid) = match &file.image {
        Some(Image::Complete { version, metaid, .. }) => (Some(*version), Some(hex(*metaid))),
        _ => (None, None),
    };
    EmergencyJson {
        file: shown(file.path.as_os_str()),
        version,
        metaid,
        modified: file.modified,
        text: file.to_string(),
    }
}

fn interrupted(interrupted: &Interrupted) -> InterruptedJson {
    InterruptedJson {
        started: Some(interrupted.started),
        phase: Some(interrupted.phase),
        set_aside: Some(interrupted.set_aside),
        text: interrupted.to_string(),
    }
}
