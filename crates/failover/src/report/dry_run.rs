//! `--dry-run`: what is in the data folder, what a promotion would make of it, and whether it would succeed.

use std::error::Error;
use std::path::PathBuf;

use serde::Serialize;

use crate::election::isolation;
use crate::machine::commit;
use crate::machine::config::Config;
use crate::machine::memory;
use crate::machine::recover::{self, Interrupted};
use crate::machine::space::{self, Space};
use crate::machine::state::State;
use crate::metadata::inventory::Other;
use crate::metadata::stage;
use crate::metadata::{
    Base, Emergency, Image, ImageFile, Inventory, LogFile, Loss, Note, Plan, Refusal, Severity, Version, emergency,
    plan,
};
use crate::moosefs::services::Services;
use crate::moosefs::{self, Daemon};
use crate::promotion::prepare;
use crate::report::interrupted::{InterruptedRun, describe};
use crate::sys::address;
use crate::sys::cancel::Cancel;
use crate::sys::folder::{Folder, Owner};
use crate::sys::logging::chain;
use crate::sys::text::shown;
use crate::vip::VirtualIp;

/// Everything that a dry run finds out.
///
/// Versions, sizes and process ids are numbers, times are Unix seconds. A metaid is text (`0x…`) because it has more
/// bits than a JSON number carries safely.
#[derive(Debug, Serialize)]
pub(super) struct DryRun {
    pub(super) would_succeed: bool,
    /// Everything that a promotion would fail for.
    pub(super) obstacles: Vec<String>,
    pub(super) refusal: Option<Refused>,
    pub(super) data_path: PathBuf,
    pub(super) images: Vec<ImageRow>,
    pub(super) change_logs: Vec<LogRow>,
    pub(super) others: Vec<OtherRow>,
    pub(super) plan: Option<Planned>,
    pub(super) emergency_files: Vec<EmergencyRow>,
    pub(super) master_pid: Option<u32>,
    pub(super) metalogger_pid: Option<u32>,
    pub(super) interrupted_runs: Vec<InterruptedRun>,
}

/// Why there is no plan.
#[derive(Debug, Serialize)]
pub(super) struct Refused {
    reason: &'static str,
    text: String,
}

/// An image.
#[derive(Debug, Serialize)]
pub(super) struct ImageRow {
    pub(super) file: String,
    pub(super) lineage: String,
    pub(super) state: ImageState,
    pub(super) version: Option<Version>,
    pub(super) metaid: Option<String>,
    /// Why it is incomplete.
    pub(super) flaw: Option<String>,
    pub(super) bytes: u64,
    modified: u64,
}

/// Whether an image can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ImageState {
    Complete,
    /// Of a new file system without any change.
    New,
    Incomplete,
}

/// A change log.
#[derive(Debug, Serialize)]
pub(super) struct LogRow {
    pub(super) file: String,
    pub(super) lineage: String,
    pub(super) first: Option<u64>,
    pub(super) last: Option<u64>,
    pub(super) last_change_time: Option<u64>,
    /// Not counted where the image has all of them.
    pub(super) changes: Option<u64>,
    pub(super) torn_bytes: Option<u64>,
    pub(super) damaged_at: Vec<u64>,
    pub(super) bytes: u64,
    modified: u64,
}

/// Another file of the metadata.
#[derive(Debug, Serialize)]
pub(super) struct OtherRow {
    pub(super) file: String,
    pub(super) what: String,
}

/// A plan, and what it takes.
#[derive(Debug, Serialize)]
pub(super) struct Planned {
    pub(super) lineage: String,
    /// `None`: a new file system, from its first change.
    pub(super) base_file: Option<String>,
    pub(super) base_version: Version,
    metaid: String,
    pub(super) runs: Vec<Replay>,
    pub(super) end_version: Version,
    pub(super) served_version: Version,
    pub(super) changes: u64,
    pub(super) last_change_time: Option<u64>,
    pub(super) set_aside: Vec<String>,
    pub(super) notes: Vec<Remark>,
    image_bytes: u64,
    change_log_bytes: u64,
    needed_bytes: u64,
    free_bytes: u64,
    #[serde(skip)]
    pub(super) space: Space,
}

/// The changes that are replayed from one log.
#[derive(Debug, Serialize)]
pub(super) struct Replay {
    pub(super) file: String,
    pub(super) first: u64,
    pub(super) last: u64,
}

/// What the administrator should know about the plan.
#[derive(Debug, Serialize)]
pub(super) struct Remark {
    pub(super) severity: RemarkSeverity,
    pub(super) text: String,
}

/// How much a remark matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RemarkSeverity {
    Note,
    Warning,
}

/// An emergency image outside the data folder.
#[derive(Debug, Serialize)]
pub(super) struct EmergencyRow {
    file: String,
    version: Option<Version>,
    metaid: Option<String>,
    modified: u64,
    pub(super) text: String,
}

impl DryRun {
    pub(super) fn gather(
        config: &Config,
        vip: Option<&VirtualIp>,
        loss: Loss,
        cancel: &Cancel,
    ) -> Result<Self, Box<dyn Error>> {
        let data = Folder::open(&config.data_path)?;
        let mut config = config.clone();
        config.find_default_user(&data);
        let interrupted = recover::interrupted(&data)?;
        // Until its files are back, a plan would be one for files that are not going to be there.
        let moves_files = interrupted.iter().any(Interrupted::moves_files);
        let state = State::existing(&config.instance)?;
        let inventory = if moves_files { Inventory::default() } else { memory::inventory(&data, state.as_ref())? };
        let plan = (!moves_files).then(|| plan::make(&inventory, loss));
        let emergency = emergency::find(&data, &config.working_user);
        let metalogger = moosefs::running(&data, Daemon::Metalogger)?;
        let mut obstacles = Vec::new();
        let planned = match &plan {
            Some(Ok(plan)) => {
                let space = Space::of(&data, plan, plan.jump())?;
                if !space.fits() {
                    obstacles.push(space::full(&data, space).to_string());
                }
                obstacles.extend(stage::check_jump(plan, plan.jump()).err().map(|e| chain(&e)));
                obstacles.extend(emergencies(&emergency, plan, &data, loss));
                let memory = state.as_ref().map(memory::recall).unwrap_or_default();
                let network = isolation::outlook(&config, &data, plan, &memory, vip.map(|vip| vip.address), cancel)?;
                // A promotion that may lose changes goes on without.
                obstacles.extend(network.unproved().filter(|_| loss == Loss::Refuse).map(|why| why.to_string()));
                Some(Planned::new(plan, space, metalogger.is_some()))
            }
            Some(Err(refusal)) => {
                obstacles.push(refusal.to_string());
                None
            }
            None => {
                obstacles.extend(interrupted.iter().map(describe));
                None
            }
        };
        obstacles.extend(commit::try_moves(&data).err().map(|e| chain(&e)));
        obstacles.extend(of_machine(&config, vip, cancel)?);
        Ok(Self {
            would_succeed: obstacles.is_empty(),
            obstacles,
            refusal: plan.as_ref().and_then(|plan| plan.as_ref().err()).map(Refused::from),
            data_path: data.path().to_owned(),
            images: inventory.images.iter().map(ImageRow::from).collect(),
            change_logs: inventory.logs.iter().map(LogRow::from).collect(),
            others: inventory.others.iter().map(OtherRow::from).collect(),
            plan: planned,
            emergency_files: emergency.iter().map(EmergencyRow::from).collect(),
            master_pid: moosefs::running(&data, Daemon::Master)?.map(|daemon| daemon.pid),
            metalogger_pid: metalogger.map(|daemon| daemon.pid),
            interrupted_runs: interrupted.iter().map(InterruptedRun::from).collect(),
        })
    }
}

/// What a promotion would fail for besides its metadata.
fn of_machine(config: &Config, vip: Option<&VirtualIp>, cancel: &Cancel) -> Result<Vec<String>, address::Error> {
    let mut obstacles = Vec::new();
    obstacles.extend(prepare::check_release(cancel).err().map(|e| chain(&e)));
    obstacles.extend(Services::find(&config.services).err().map(|e| chain(&e)));
    let user = &config.working_user;
    if Owner::named(user, config.working_group.as_deref()).is_none() {
        obstacles.push(format!("there is no user {user}; correct WORKING_USER in mfsmaster.cfg"));
    }
    if let Some(vip) = vip {
        if !vip.holds()? {
            let interface = &vip.interface;
            obstacles.push(format!("{vip} is not on {interface}; ucarp adds it on the machine that wins the election"));
        }
    }
    Ok(obstacles)
}

/// The emergency images that stop a promotion.
fn emergencies(found: &[Emergency], plan: &Plan, data: &Folder, loss: Loss) -> Vec<String> {
    let judged = found.iter().filter_map(|file| file.judge(plan, plan.served(), data.path()));
    let allowed = |error: &emergency::Error| loss == Loss::Allow && matches!(error, emergency::Error::Newer { .. });
    judged.filter(|error| !allowed(error)).map(|error| error.to_string()).collect()
}

impl Planned {
    fn new(plan: &Plan, space: Space, metalogger_runs: bool) -> Self {
        Self {
            lineage: plan.lineage.to_string(),
            base_file: match &plan.base {
                Base::Image { name, .. } => Some(shown(name)),
                Base::New => None,
            },
            base_version: plan.base_version,
            metaid: hex(plan.metaid),
            runs: plan
                .stretches
                .iter()
                .map(|r| Replay { file: shown(&r.file), first: r.first, last: r.last })
                .collect(),
            end_version: plan.end_version,
            served_version: plan.served(),
            changes: plan.changes,
            last_change_time: plan.last_change_time,
            set_aside: plan.set_aside.iter().map(|name| shown(name)).collect(),
            notes: plan.notes.iter().map(|note| Remark::new(note, metalogger_runs)).collect(),
            image_bytes: space.image,
            change_log_bytes: space.log,
            needed_bytes: space.needed(),
            free_bytes: space.free,
            space,
        }
    }
}

impl Remark {
    fn new(note: &Note, metalogger_runs: bool) -> Self {
        let (severity, text) = prepare::remark(note, metalogger_runs);
        let severity = match severity {
            Severity::Info => RemarkSeverity::Note,
            Severity::Warning => RemarkSeverity::Warning,
        };
        Self { severity, text }
    }
}

impl From<&Refusal> for Refused {
    fn from(refusal: &Refusal) -> Self {
        let reason = match refusal {
            Refusal::Nothing { .. } => "nothing",
            Refusal::Metaids { .. } => "metaids",
            Refusal::Hole { .. } => "hole",
            Refusal::MlHasMore { .. } => "ml_has_more",
            Refusal::MlUnusable { .. } => "ml_unusable",
            Refusal::InTheWay { .. } => "in_the_way",
            Refusal::Unread { .. } => "unread",
            Refusal::Tail { .. } => "tail",
            Refusal::Unreadable { .. } => "unreadable",
            Refusal::Cut { .. } => "cut",
            Refusal::StepBack { .. } => "step_back",
            Refusal::Unrelated { .. } => "unrelated",
            Refusal::Unserved { .. } => "unserved",
            Refusal::Contradiction { .. } => "contradiction",
            Refusal::OtherMaster { .. } => "other_master",
            Refusal::Unfollowed { .. } => "unfollowed",
        };
        Self { reason, text: refusal.to_string() }
    }
}

impl From<&ImageFile> for ImageRow {
    fn from(image: &ImageFile) -> Self {
        let (state, version, metaid, flaw) = match &image.image {
            Image::New => (ImageState::New, Some(Version::NEW), None, None),
            Image::Complete { version, metaid, .. } => (ImageState::Complete, Some(*version), Some(hex(*metaid)), None),
            Image::Incomplete { reason, .. } => (ImageState::Incomplete, None, None, Some(reason.to_string())),
        };
        Self {
            file: shown(&image.name),
            lineage: image.lineage.to_string(),
            state,
            version,
            metaid,
            flaw,
            bytes: image.size,
            modified: image.modified,
        }
    }
}

impl From<&LogFile> for LogRow {
    fn from(log: &LogFile) -> Self {
        Self {
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
}

impl From<&Other> for OtherRow {
    fn from(other: &Other) -> Self {
        Self { file: shown(&other.name), what: other.what.to_string() }
    }
}

impl From<&Emergency> for EmergencyRow {
    fn from(file: &Emergency) -> Self {
        let (version, metaid) = match &file.image {
            Some(Image::Complete { version, metaid, .. }) => (Some(*version), Some(hex(*metaid))),
            _ => (None, None),
        };
        Self { file: shown(file.path.as_os_str()), version, metaid, modified: file.modified, text: file.to_string() }
    }
}

fn hex(metaid: u64) -> String {
    format!("{metaid:#x}")
}
