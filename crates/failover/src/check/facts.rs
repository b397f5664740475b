//! The facts that a check finds out, before any of them is judged.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::time::Duration;

use crate::election::isolation::Outlook;
use crate::machine::outcome::{Outcome, RunKind, StepName};
use crate::machine::record::Record;
use crate::machine::space::{ArchiveRoom, Space};
use crate::machine::standby_master::HotState;
use crate::metadata::{Behind, Lineage, Version};
use crate::moosefs::{Info, Release};
use crate::serving::missing::Followers;
use crate::standby::follow::MetaloggerConnection;
use crate::standby::stand_back::StandsBack;
use crate::sys::nft;
use crate::sys::progress::Allowance;
use crate::ucarp::Options;

use super::finding::{Numbers, Role};

/// A fact, or the reason why it could not be found out.
pub(super) type Known<T> = Result<T, String>;

/// Everything that was found out.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) vip: Option<Ipv4Addr>,
    /// Where the serving master is asked.
    pub(super) server: SocketAddrV4,
    /// Where the master of this machine listens for clients.
    pub(super) listens: Ipv4Addr,
    pub(super) data_path: PathBuf,
    /// The configured margin of the settle time.
    pub(super) settle_margin: Duration,
    /// How long a start of the master here may take.
    pub(super) start: Allowance,
    pub(super) ucarp: UcarpFacts,
    /// Whether ucarp here lets the others win first.
    pub(super) stands_back: Known<Option<StandsBack>>,
    pub(super) name: NameFacts,
    /// Configuration files in which daemons wait longer than a second before they reconnect.
    pub(super) slow_reconnect: Vec<PathBuf>,
    pub(super) boot: Vec<BootFault>,
    pub(super) folders: Folders,
    pub(super) duty: Duty,
    pub(super) history: History,
}

/// The ucarp that calls our hooks.
#[derive(Debug)]
pub(super) enum UcarpFacts {
    /// It runs.
    One {
        pid: u32,
        options: Options,
        foreign_hooks: Vec<ForeignHook>,
        /// Machines that use its virtual host id and are not of its group.
        strangers: Known<BTreeSet<Ipv4Addr>>,
    },
    /// No ucarp runs at all.
    None,
    /// Of `running`, none is for the interface and address of the command line.
    OtherAddress { name: String, vip: Ipv4Addr, running: usize },
    /// The command line names no address, and not exactly one calls vip-up.
    Unclear { running: usize, ours: usize },
}

/// An option of ucarp that does not start our hook.
#[derive(Debug)]
pub(super) struct ForeignHook {
    pub(super) letter: char,
    /// The hook that it should start.
    pub(super) program: &'static str,
    /// What it starts.
    pub(super) called: Option<String>,
}

/// What the name of the master resolves to.
#[derive(Debug)]
pub(super) struct NameFacts {
    pub(super) host: String,
    pub(super) addresses: Known<Vec<IpAddr>>,
}

/// A daemon that starts at boot and should not, or the other way round.
#[derive(Debug)]
pub(super) struct BootFault {
    /// `systemd unit moosefs-master`
    pub(super) daemon: String,
    pub(super) is_master: bool,
    /// The command that corrects it, where one is known.
    pub(super) remedy: Option<String>,
}

/// The folders that a run writes to, each tried with names of its own.
#[derive(Debug)]
pub(super) struct Folders {
    /// Whether a promotion could move files.
    pub(super) moves: Known<()>,
    /// Whether a hook could hand its call on.
    pub(super) calls: Known<()>,
    /// Whether this machine could remember anything.
    pub(super) memory: Known<()>,
    /// Whether an archive could be written.
    pub(super) archives: Known<()>,
}

/// The facts of a role.
#[derive(Debug)]
pub(super) enum Duty {
    Serving(Box<Serving>),
    Standby(Box<Standby>),
}

/// A master runs here.
#[derive(Debug)]
pub(super) struct Serving {
    /// The interface of the virtual IP, and whether the virtual IP is on it. `None` without a ucarp.
    pub(super) address: Option<(String, Known<bool>)>,
    /// Whether the kernel lets answers to clients leave this machine.
    pub(super) lease: Known<nft::State>,
    pub(super) master: Known<Info>,
    /// How long it may be silent without any work before it counts as one that hangs.
    pub(super) patience: Duration,
    /// Who is connected to it, and who is not.
    pub(super) followers: Known<Followers>,
}

/// No master runs here.
#[derive(Debug)]
pub(super) struct Standby {
    /// The metalogger's process.
    pub(super) metalogger: Option<u32>,
    /// Whether it is connected to that master.
    pub(super) connection: Known<MetaloggerConnection>,
    /// What the master at the virtual IP answers.
    pub(super) master: Known<Info>,
    pub(super) copy: Result<Copy, NoCopy>,
    /// What is said of the hot standby; `None` where none is kept.
    pub(super) hot: Known<Option<HotState>>,
    /// When a check last found the copy in sync, Unix seconds.
    pub(super) in_sync: Option<i64>,
    /// How long the metalogger keeps an image after it was replaced.
    pub(super) kept_for: Duration,
}

/// Why there is no plan for a promotion.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoCopy {
    /// The files must not be served.
    Refused { why: String, former: Option<Former> },
    /// The files could not be read.
    Unknown(String),
}

/// Images that the metalogger keeps of a former file system, or of a history that its master has left: without them the
/// files can be served.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Former {
    /// Their names.
    pub(super) files: Vec<String>,
    /// The metaid of all other files.
    pub(super) metaid: u64,
    /// Where these end.
    pub(super) end_version: Version,
}

impl Former {
    /// Whether the serving master has what the other files have.
    pub(super) fn is_left_by(&self, master: &Info) -> bool {
        let same = master.metaid.is_none_or(|metaid| metaid == self.metaid);
        same && master.metadata_version.is_some_and(|served| self.end_version.behind(served).is_none())
    }
}

/// What a promotion would serve.
#[derive(Debug)]
pub(super) struct Copy {
    pub(super) lineage: Lineage,
    pub(super) metaid: u64,
    /// The version after all changes that are here.
    pub(super) end_version: Version,
    /// The version after the jump.
    pub(super) served_version: Version,
    /// Changes to replay.
    pub(super) changes: u64,
    /// `None`: a new file system without an image.
    pub(super) image_age: Option<Duration>,
    pub(super) space: Known<Space>,
    /// What would prove to a promotion that this machine is not cut off.
    pub(super) network: Known<Outlook>,
    /// What a promotion would warn of.
    pub(super) warnings: Vec<String>,
}

/// How the copy compares with the serving master.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    /// There is no master to compare with.
    NoMaster(String),
    /// Another file system, known by its metaid.
    OtherFileSystem {
        ours: u64,
        served: u64,
    },
    /// The newest files are this machine's own, not the metalogger's.
    NotFollowing,
    /// MooseFS 1.x does not report its version, and that of an unknown release cannot be read.
    NoVersion(Release),
    InSync {
        served: Version,
    },
    Stale {
        served: Version,
        behind: Behind,
    },
}

/// What earlier runs left, and how they ended.
#[derive(Debug)]
pub(super) struct History {
    /// Interrupted runs, and what the next one does about each.
    pub(super) interrupted: Known<Vec<String>>,
    /// How many runs have files that are not archived yet.
    pub(super) not_archived: Known<usize>,
    /// The room that is missing for the next archive of them.
    pub(super) no_room: Option<ArchiveRoom>,
    /// Oldest first.
    pub(super) records: Known<Vec<Record>>,
}

/// How long a takeover takes, part by part.
#[derive(Debug)]
pub(super) struct Takeover<'a> {
    /// Until ucarp declares the master dead.
    pub(super) dead: Duration,
    /// At most, where no other machine wins, too.
    pub(super) settle: Duration,
    pub(super) load: Load<'a>,
}

/// What a takeover has to load.
#[derive(Debug)]
pub(super) enum Load<'a> {
    /// Nothing: a hot standby has done that.
    Done { took: Duration },
    /// Everything. A run has measured it.
    Measured {
        /// Staging and loading.
        took: Duration,
        /// Loading alone.
        start: Duration,
        by: &'a Record,
    },
}

impl Takeover<'_> {
    pub(super) fn total(&self) -> Duration {
        let load = match self.load {
            Load::Done { .. } => Duration::ZERO,
            Load::Measured { took, .. } => took,
        };
        self.dead + self.settle + load
    }
}

impl Facts {
    pub(super) fn role(&self) -> Role {
        match self.duty {
            Duty::Serving(_) => Role::Serving,
            Duty::Standby(_) => Role::Standby,
        }
    }

    /// The numbers among the facts.
    pub(super) fn numbers(&self) -> Numbers {
        let rehearsed = self.history.rehearsal().filter(|last| last.error.is_none());
        let mut numbers = Numbers { rehearsed: rehearsed.map(|last| last.started), ..Numbers::default() };
        match &self.duty {
            Duty::Serving(serving) => {
                numbers.master_version = serving.master.as_ref().ok().and_then(|info| info.metadata_version);
                let followers = serving.followers.as_ref().ok();
                numbers.standbys = followers.and_then(|all| u64::try_from(all.metaloggers.len()).ok());
            }
            Duty::Standby(standby) => {
                numbers.master_version = standby.master.as_ref().ok().and_then(|info| info.metadata_version);
                numbers.in_sync = standby.in_sync;
                numbers.takeover_seconds = self.takeover().map(|takeover| takeover.total().as_secs_f64());
                if let Ok(copy) = &standby.copy {
                    numbers.copy_version = Some(copy.end_version);
                    numbers.replay = Some(copy.changes);
                    numbers.image_age_seconds = copy.image_age.map(|age| age.as_secs());
                    numbers.lag = match standby.compare(copy) {
                        Comparison::InSync { .. } => Some(0),
                        Comparison::Stale { behind, .. } => behind.changes(),
                        _ => None,
                    };
                    if let Ok(space) = &copy.space {
                        numbers.needed_bytes = Some(space.needed());
                        numbers.free_bytes = Some(space.free);
                    }
                }
            }
        }
        numbers
    }

    /// `None` without ucarp, or if nothing here has loaded the metadata yet.
    pub(super) fn takeover(&self) -> Option<Takeover<'_>> {
        let UcarpFacts::One { options, .. } = &self.ucarp else { return None };
        let load = self.loaded().or_else(|| self.measured())?;
        let settle = options.interval() + self.settle_margin;
        Some(Takeover { dead: options.declares_dead(), settle, load })
    }

    fn loaded(&self) -> Option<Load<'_>> {
        match &self.duty {
            Duty::Standby(standby) => match standby.hot {
                Ok(Some(HotState::Hot { load_ms, .. })) => Some(Load::Done { took: Duration::from_millis(load_ms) }),
                _ => None,
            },
            Duty::Serving(_) => None,
        }
    }

    fn measured(&self) -> Option<Load<'_>> {
        let records = self.history.records.as_ref().ok()?;
        let (by, [staged, start]) = records.iter().rev().find_map(|record| Some((record, loading(record)?)))?;
        Some(Load::Measured { took: staged + start, start, by })
    }
}

impl Standby {
    pub(super) fn compare(&self, copy: &Copy) -> Comparison {
        let info = match &self.master {
            Ok(info) => info,
            Err(why) => return Comparison::NoMaster(why.clone()),
        };
        if let Some(served) = other_file_system(info, copy) {
            return Comparison::OtherFileSystem { ours: copy.metaid, served };
        }
        if copy.lineage == Lineage::Own {
            return Comparison::NotFollowing;
        }
        let Some(served) = info.metadata_version else { return Comparison::NoVersion(info.release) };
        match copy.end_version.behind(served) {
            None => Comparison::InSync { served },
            Some(behind) => Comparison::Stale { served, behind },
        }
    }
}

/// The metaid that is served, if it shows that `copy` is of another file system.
pub(super) fn other_file_system(info: &Info, copy: &Copy) -> Option<u64> {
    info.metaid.filter(|metaid| copy.metaid != 0 && *metaid != copy.metaid)
}

impl History {
    /// The last promotion, demotion or switchover.
    pub(super) fn last_run(&self) -> Option<&Record> {
        self.records.as_ref().ok()?.iter().rev().find(|record| record.kind != RunKind::Rehearsal)
    }

    /// Whether the last run set files aside and has no archive of them.
    pub(super) fn last_archive_failed(&self) -> bool {
        self.last_run().is_some_and(|last| !last.set_aside.is_empty() && last.archive.is_none())
    }

    /// The last rehearsal that came to a result.
    pub(super) fn rehearsal(&self) -> Option<&Record> {
        let has_result = |record: &&Record| record.outcome != Outcome::Cancelled;
        let records = self.records.as_ref().ok()?.iter().rev();
        records.filter(|record| record.kind == RunKind::Rehearsal).find(has_result)
    }
}

/// How long staging and loading took, in a run that did both.
fn loading(record: &Record) -> Option<[Duration; 2]> {
    let took = |name: StepName| record.steps.iter().find(|step| step.name == name).map(|step| step.ms);
    let load = took(StepName::Restore).or_else(|| Some(took(StepName::Start)? + took(StepName::Prove)?))?;
    Some([took(StepName::Stage).unwrap_or_default(), load].map(Duration::from_millis))
}
