//! What the verbs that change nothing print: `--dry-run`, `--status`, `--check-config`.

use std::error::Error;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, Utc};
use failover::address;
use failover::cancel::Cancel;
use failover::config::Config;
use failover::folder::{Folder, Owner};
use failover::logging::chain;
use failover::metadata::{Base, Image, ImageFile, Inventory, LogFile, Plan, Severity, inventory, plan};
use failover::moosefs::{self, Daemon};
use failover::service::Services;
use failover::state::{self, Journal, Record, State};

use crate::prepare;
use crate::run::human;
use crate::work;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// How many runs `--status` shows.
const SHOWN_RUNS: usize = 10;

/// Prints a text in one go; a reader that went away is no error.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Prints every setting in force, aligned, with where it came from.
pub(crate) fn check_config(config: &Config) -> Result<bool> {
    let width = config.in_force.iter().map(|setting| setting.key.len()).max().unwrap_or_default();
    let value_width = config.in_force.iter().map(|setting| setting.value.len()).max().unwrap_or_default();
    let mut text = String::new();
    for setting in &config.in_force {
        let value = if setting.value.is_empty() { "-" } else { &setting.value };
        writeln!(text, "{:width$}  {value:value_width$}  {}", setting.key, setting.origin)?;
    }
    let services = Services::find(config)?;
    for daemon in [Daemon::Master, Daemon::Metalogger, Daemon::Cgiserv] {
        let control = services.control(daemon).map_or("not installed".to_owned(), ToString::to_string);
        writeln!(text, "{:width$}  {control}", daemon.program())?;
    }
    print(&text);
    Ok(true)
}

/// Prints what a promotion would do; answers whether it would succeed.
pub(crate) fn dry_run(config: &Config, address: Option<(&str, Ipv4Addr)>, cancel: &Cancel) -> Result<bool> {
    let data = Folder::open(&config.data_path)?;
    let inventory = inventory::take(&data)?;
    let mut obstacles = Vec::new();
    let mut text = String::new();
    describe_inventory(&mut text, &data, &inventory)?;
    match plan::make(&inventory) {
        Ok(plan) => describe_plan(&mut text, &plan, config)?,
        Err(refusal) => obstacles.push(refusal.to_string()),
    }
    obstacles.extend(prepare::check_release(cancel).err().map(|e| chain(&e)));
    obstacles.extend(Services::find(config).err().map(|e| chain(&e)));
    if Owner::named(&config.working_user, config.working_group.as_deref()).is_none() {
        obstacles.push(format!("there is no user {}: is WORKING_USER in mfsmaster.cfg right?", config.working_user));
    }
    if let Some(journal) = open_state()?.map(|state| state.journal()).transpose()?.flatten() {
        writeln!(text, "\ninterrupted run\n  {}", describe_journal(&journal))?;
    }
    if let Some(pid) = moosefs::running(&data, Daemon::Master)? {
        writeln!(text, "\nmfsmaster runs here (pid {pid}): a promotion would leave it alone if it lacks nothing")?;
    }
    if let Some((name, vip)) = address {
        if !address::holds(&address::interface(name)?, vip)? {
            obstacles.push(format!("{vip} is not on {name}: ucarp gives it to the machine that wins"));
        }
    }
    if obstacles.is_empty() {
        writeln!(text, "\na promotion would succeed")?;
    } else {
        writeln!(text, "\na promotion would fail:")?;
        for obstacle in &obstacles {
            writeln!(text, "  {obstacle}")?;
        }
    }
    print(&text);
    Ok(obstacles.is_empty())
}

fn describe_inventory(text: &mut String, data: &Folder, inventory: &Inventory) -> Result<()> {
    writeln!(text, "{}", data.path().display())?;
    let mut rows = vec![["", "file", "versions", "size", "state"].map(str::to_owned)];
    rows.extend(inventory.images.iter().map(image_row));
    rows.extend(inventory.logs.iter().map(log_row));
    rows.extend(
        inventory
            .others
            .iter()
            .map(|other| [String::new(), shown(&other.name), String::new(), String::new(), other.what.to_string()]),
    );
    table(text, &rows);
    Ok(())
}

fn image_row(file: &ImageFile) -> [String; 5] {
    let (version, state) = match &file.image {
        Image::New => ("1".to_owned(), "new file system, no change yet".to_owned()),
        Image::Complete { version, metaid, .. } => (version.to_string(), format!("complete, metaid {metaid:#x}")),
        Image::Incomplete { reason } => (String::new(), format!("not usable: {reason}")),
    };
    [file.lineage.to_string(), shown(&file.name), version, bytes(file.size), state]
}

fn log_row(file: &LogFile) -> [String; 5] {
    let scan = &file.scan;
    let versions = match (scan.first(), scan.last()) {
        (Some(first), Some(last)) => format!("{first}..{last}"),
        _ => String::new(),
    };
    let content = match scan.last_time() {
        Some(time) if !file.scanned => format!("all in the image already, last {}", when(time)),
        Some(time) => format!("{} changes, last {}", scan.lines, when(time)),
        None => "empty".to_owned(),
    };
    let torn = scan.torn.as_ref().map(|torn| format!(", torn last line of {} bytes", torn.bytes));
    let damage = scan.damage.first().map(|damage| format!(", damaged at byte {}", damage.offset));
    let state = content + &torn.unwrap_or_default() + &damage.unwrap_or_default();
    [file.lineage.to_string(), shown(&file.name), versions, bytes(file.size), state]
}

fn describe_plan(text: &mut String, plan: &Plan, config: &Config) -> Result<()> {
    let base = match &plan.base {
        Base::Image { name, version, .. } => format!("{} ({}, version {version})", shown(name), plan.lineage),
        Base::New => format!("the first change of a new file system ({})", plan.lineage),
    };
    writeln!(text, "\nplan")?;
    writeln!(text, "  start from  {base}")?;
    for run in &plan.runs {
        writeln!(text, "  replay      {}..{} of {}", run.first, run.last, shown(&run.file))?;
    }
    let last = plan.last_change_time.map(|time| format!(", last change {}", when(time))).unwrap_or_default();
    writeln!(text, "  ends at     version {}, {} changes{last}", plan.end_version, plan.changes)?;
    let jump = prepare::jump_for(config, plan);
    if jump > 0 {
        writeln!(text, "  served as   version {} (epoch jump of {jump})", plan.end_version + jump)?;
    }
    let names: Vec<_> = plan.set_aside.iter().map(|name| shown(name)).collect();
    writeln!(text, "  set aside   {} files: {}", names.len(), names.join(", "))?;
    for note in &plan.notes {
        let mark = if note.severity() == Severity::Warning { "warning" } else { "note" };
        writeln!(text, "  {mark:10}  {note}")?;
    }
    Ok(())
}

fn describe_journal(journal: &Journal) -> String {
    format!(
        "the run of {} was interrupted ({:?}, {} files set aside); the next promotion or demotion ends it",
        when(journal.run),
        journal.phase,
        journal.set_aside.len()
    )
}

/// Prints what runs here, and the last runs.
pub(crate) fn status(config: &Config) -> Result<bool> {
    let data = Folder::open(&config.data_path)?;
    let mut text = String::new();
    for daemon in [Daemon::Master, Daemon::Metalogger] {
        let state = match moosefs::running(&data, daemon)? {
            Some(pid) => format!("runs, pid {pid}{}", served(config, daemon)),
            None => "does not run".to_owned(),
        };
        writeln!(text, "{:14} {state}", daemon.program())?;
    }
    let pending = work::runs(&data)?;
    if !pending.is_empty() {
        writeln!(text, "{:14} {} runs in {}/mfs-promote", "not archived", pending.len(), data.path().display())?;
    }
    let Some(state) = open_state()? else {
        print(&(text + "\nno run yet\n"));
        return Ok(true);
    };
    if let Some(journal) = state.journal()? {
        writeln!(text, "{:14} {}", "interrupted", describe_journal(&journal))?;
    }
    let records = state.records()?;
    text.push('\n');
    let mut rows = vec![["started", "run", "outcome", "version", "changes", "total"].map(str::to_owned)];
    let shown = &records[records.len().saturating_sub(SHOWN_RUNS)..];
    rows.extend(shown.iter().map(record_row));
    table(&mut text, &rows);
    if let Some(last) = shown.last() {
        let steps: Vec<_> =
            last.steps.iter().map(|step| format!("{} {}", step.name, human(Duration::from_millis(step.ms)))).collect();
        writeln!(text, "\nsteps of the last run: {}", steps.join(", "))?;
        if let Some(error) = &last.error {
            writeln!(text, "it ended with: {error}")?;
        }
    }
    print(&text);
    Ok(true)
}

fn served(config: &Config, daemon: Daemon) -> String {
    if daemon != Daemon::Master {
        return String::new();
    }
    let host = if config.client_host.is_unspecified() { Ipv4Addr::LOCALHOST } else { config.client_host };
    match moosefs::info(SocketAddrV4::new(host, config.client_port), Duration::from_secs(2)) {
        Ok(info) => {
            let version = info.metadata_version.map(|version| format!(", serves version {version}"));
            format!(", MooseFS {}{}", info.release, version.unwrap_or_default())
        }
        Err(e) => format!(", but: {}", chain(&e)),
    }
}

fn record_row(record: &Record) -> [String; 6] {
    [
        when(u64::try_from(record.started).unwrap_or_default()),
        record.role.clone(),
        record.outcome.clone(),
        record.version.map_or_else(String::new, |version| version.to_string()),
        record.changes.map_or_else(String::new, |changes| changes.to_string()),
        human(Duration::from_millis(record.total_ms)),
    ]
}

/// The state folder if there is one: a verb that changes nothing makes none.
fn open_state() -> std::result::Result<Option<State>, state::Error> {
    if Path::new(state::FOLDER).exists() { State::open().map(Some) } else { Ok(None) }
}

/// A file name as text: what is no text in it, or would break a line, is escaped.
fn shown(name: &OsStr) -> String {
    name.to_string_lossy().escape_debug().to_string()
}

/// Appends rows of equal columns, indented; the first row is the heading.
fn table<const N: usize>(text: &mut String, rows: &[[String; N]]) {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..N).map(width).collect();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(format!("  {}", cells.collect::<Vec<_>>().join("  ")).trim_end());
        text.push('\n');
    }
}

/// `2026-11-22 21:04:31 UTC`
fn when(unix: u64) -> String {
    let time = i64::try_from(unix).ok().and_then(|seconds| DateTime::<Utc>::from_timestamp(seconds, 0));
    time.map_or_else(|| format!("at {unix}"), |time| time.format("%Y-%m-%d %H:%M:%S UTC").to_string())
}

/// `53.1 MB`
fn bytes(count: u64) -> String {
    #[allow(clippy::cast_precision_loss)] // three digits are shown
    let count = count as f64;
    match count {
        c if c >= 1e9 => format!("{:.1} GB", c / 1e9),
        c if c >= 1e6 => format!("{:.1} MB", c / 1e6),
        c if c >= 1e3 => format!("{:.1} kB", c / 1e3),
        c => format!("{c} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align_and_end_without_blanks() {
        let mut text = String::new();
        table(&mut text, &[["a", "file"].map(str::to_owned), ["long", "x"].map(str::to_owned)]);
        assert_eq!(text, "  a     file\n  long  x\n");
    }

    #[test]
    fn sizes_and_times_read_well() {
        assert_eq!([bytes(8), bytes(2900), bytes(53_100_000)], ["8 B", "2.9 kB", "53.1 MB"]);
        assert_eq!(when(1_795_380_000), "2026-11-22 20:40:00 UTC");
    }
}
