//! `--dry-run`: what lies in the data folder, what a promotion would make of it, and whether it would succeed.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use crate::machine::config::Config;
use crate::metadata::{
    Base, Emergency, EpochJump, Image, ImageFile, Inventory, LogFile, Loss, Plan, Refusal, Severity, Version,
    emergency, plan,
};
use crate::moosefs::services::Services;
use crate::moosefs::{self, Daemon};
use crate::sys::address;
use crate::sys::cancel::Cancel;
use crate::sys::folder::{Folder, Owner};
use crate::sys::logging::chain;

use super::{Interrupted, Result, json, open_state, print};
use crate::machine::memory;
use crate::machine::space::{self, Space};
use crate::promotion::prepare;
use crate::sys::terminal::Style;
use crate::sys::text::{bytes, shown, table, when};

/// Everything that a dry run finds out.
pub(super) struct Findings {
    pub(super) data_path: PathBuf,
    pub(super) inventory: Inventory,
    pub(super) plan: std::result::Result<Planned, Refusal>,
    pub(super) emergency: Vec<Emergency>,
    pub(super) obstacles: Vec<String>,
    pub(super) interrupted: Option<Interrupted>,
    pub(super) master: Option<u32>,
    pub(super) metalogger: Option<u32>,
}

/// A plan, and what it takes.
pub(super) struct Planned {
    pub(super) plan: Plan,
    pub(super) jump: EpochJump,
    pub(super) space: Space,
}

/// Prints what a promotion would do; answers whether it would succeed.
pub(crate) fn dry_run(
    config: &Config,
    address: Option<(&str, Ipv4Addr)>,
    loss: Loss,
    json: bool,
    cancel: &Cancel,
) -> Result<bool> {
    let findings = Findings::gather(config, address, loss, cancel)?;
    print(&if json { json::dry_run(&findings)? } else { findings.render(Style::of_stdout())? });
    Ok(findings.obstacles.is_empty())
}

impl Findings {
    fn gather(config: &Config, address: Option<(&str, Ipv4Addr)>, loss: Loss, cancel: &Cancel) -> Result<Self> {
        let data = Folder::open(&config.data_path)?;
        let interrupted = Interrupted::look(&data)?;
        let data = match &interrupted {
            Some(interrupted) => interrupted.seen_by_next(data)?,
            None => data,
        };
        let inventory = memory::inventory(&data, open_state()?.as_ref())?;
        let plan = match plan::make(&inventory, loss) {
            Ok(plan) => Ok(Planned::new(&data, plan, config)?),
            Err(refusal) => Err(refusal),
        };
        let mut findings = Self {
            data_path: data.path().to_owned(),
            inventory,
            plan,
            emergency: emergency::find(&data, &config.working_user),
            obstacles: Vec::new(),
            interrupted,
            master: moosefs::running(&data, Daemon::Master)?.map(|daemon| daemon.pid),
            metalogger: moosefs::running(&data, Daemon::Metalogger)?.map(|daemon| daemon.pid),
        };
        findings.obstacles = findings.find_obstacles(&data, config, address, loss, cancel)?;
        Ok(findings)
    }

    /// Everything a promotion would fail for.
    fn find_obstacles(
        &self,
        data: &Folder,
        config: &Config,
        address: Option<(&str, Ipv4Addr)>,
        loss: Loss,
        cancel: &Cancel,
    ) -> Result<Vec<String>> {
        let mut obstacles = Vec::new();
        match &self.plan {
            Ok(Planned { space, .. }) if !space.fits() => obstacles.push(space::full(data, *space).to_string()),
            Ok(_) => (),
            Err(refusal) => obstacles.push(refusal.to_string()),
        }
        obstacles.extend(prepare::check_release(cancel).err().map(|e| chain(&e)));
        obstacles.extend(Services::find(config).err().map(|e| chain(&e)));
        let user = &config.working_user;
        obstacles.extend(self.emergencies(loss));
        if Owner::named(user, config.working_group.as_deref()).is_none() {
            obstacles.push(format!("there is no user {user}: is WORKING_USER in mfsmaster.cfg right?"));
        }
        if let Some((name, vip)) = address {
            if !address::holds(&address::interface(name)?, vip)? {
                obstacles.push(format!("{vip} is not on {name}: ucarp gives it to the machine that wins"));
            }
        }
        Ok(obstacles)
    }

    /// The emergency images that a promotion would not pass over.
    fn emergencies(&self, loss: Loss) -> Vec<String> {
        let Ok(planned) = &self.plan else { return Vec::new() };
        let judged = |file: &Emergency| file.judge(&planned.plan, planned.served(), &self.data_path);
        let allowed = |error: &emergency::Error| loss == Loss::Allow && matches!(error, emergency::Error::Newer { .. });
        let errors = self.emergency.iter().filter_map(judged).filter(|error| !allowed(error));
        errors.map(|error| error.to_string()).collect()
    }

    fn render(&self, style: Style) -> Result<String> {
        let mut text = format!("{}\n", self.data_path.display());
        describe_inventory(&mut text, &self.inventory);
        if let Ok(planned) = &self.plan {
            planned.describe(&mut text, self.metalogger.is_some(), style)?;
        }
        if !self.emergency.is_empty() {
            writeln!(text, "\nemergency images outside the data folder")?;
        }
        for file in &self.emergency {
            writeln!(text, "  {}  {file}", style.warning("warning   "))?;
        }
        if let Some(interrupted) = &self.interrupted {
            writeln!(text, "\ninterrupted run (above is what will be there then)\n  {interrupted}")?;
        }
        if let Some(pid) = self.master {
            writeln!(text, "\nmfsmaster runs here (pid {pid}): a promotion would leave it alone if it lacks nothing")?;
        }
        if self.obstacles.is_empty() {
            writeln!(text, "\n{}", style.good("a promotion would succeed"))?;
        } else {
            writeln!(text, "\n{}", style.bad("a promotion would fail:"))?;
        }
        for obstacle in &self.obstacles {
            writeln!(text, "  {}", style.bad(obstacle))?;
        }
        Ok(text)
    }
}

impl Planned {
    pub(super) fn new(data: &Folder, plan: Plan, config: &Config) -> Result<Self> {
        let jump = prepare::jump_for(config, &plan);
        Ok(Self { space: Space::of(data, &plan, jump)?, plan, jump })
    }

    /// The version that a master would serve.
    pub(super) fn served(&self) -> Version {
        self.plan.end_version + self.jump
    }

    fn describe(&self, text: &mut String, metalogger_runs: bool, style: Style) -> Result<()> {
        let plan = &self.plan;
        let base = match &plan.base {
            Base::Image { name, version, .. } => format!("{} ({}, version {version})", shown(name), plan.lineage),
            Base::New => format!("the first change of a new file system ({})", plan.lineage),
        };
        writeln!(text, "\nplan")?;
        writeln!(text, "  start from  {base}")?;
        for run in &plan.stretches {
            writeln!(text, "  replay      {}..{} of {}", run.first, run.last, shown(&run.file))?;
        }
        let last = plan.last_change_time.map(|time| format!(", last change {}", when(time))).unwrap_or_default();
        writeln!(text, "  ends at     version {}, {} changes{last}", plan.end_version, plan.changes)?;
        if self.jump > EpochJump::NONE {
            writeln!(text, "  served as   version {} (epoch jump of {})", self.served(), self.jump)?;
        }
        self.describe_space(text, style)?;
        let names: Vec<_> = plan.set_aside.iter().map(|name| shown(name)).collect();
        writeln!(text, "  set aside   {} files: {}", names.len(), names.join(", "))?;
        for note in &plan.notes {
            match prepare::remark(note, metalogger_runs) {
                (Severity::Warning, note) => writeln!(text, "  {}  {note}", style.warning("warning   "))?,
                (Severity::Info, note) => writeln!(text, "  note        {note}")?,
            }
        }
        Ok(())
    }

    fn describe_space(&self, text: &mut String, style: Style) -> Result<()> {
        let Space { image, log, shared, .. } = self.space;
        let sharing = if shared { ", which shares its blocks" } else { "" };
        writeln!(text, "  staged set  image of {}{sharing}, change log of about {}", bytes(image), bytes(log))?;
        writeln!(text, "  space       {} needed, {} free", bytes(self.space.needed()), bytes(self.space.free))?;
        if self.space.fits() && !self.space.fits_next_image() {
            let tight = "the staged set fits, but then not the next image that the master writes within the hour";
            writeln!(text, "  {}  {tight}", style.warning("warning   "))?;
        }
        Ok(())
    }
}

fn describe_inventory(text: &mut String, inventory: &Inventory) {
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
}

fn image_row(file: &ImageFile) -> [String; 5] {
    let (version, state) = match &file.image {
        Image::New => ("1".to_owned(), "new file system, no change yet".to_owned()),
        Image::Complete { version, metaid, .. } => (version.to_string(), format!("complete, metaid {metaid:#x}")),
        Image::Incomplete { reason, .. } => (String::new(), format!("not usable: {reason}")),
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
