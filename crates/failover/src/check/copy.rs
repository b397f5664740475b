//! The metadata: does the copy here have everything, what would a promotion make of it, and who follows a serving master.

use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use crate::metadata::{Base, Inventory, Lineage, Loss, Plan, Severity, Version, emergency, plan};
use crate::moosefs::{self, Info};
use crate::sys::address;
use crate::sys::text::bytes;
use crate::sys::text::human;

use super::{ANSWER, Finding, Level, Numbers, Subject};
use crate::machine::memory;
use crate::machine::space::{self, Space};
use crate::promotion::prepare;
use crate::report;

/// A metalogger writes to its disk once a second.
const FLUSH: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A metalogger fetches a new image every 24 hours (`META_DOWNLOAD_FREQ`).
const OLD: Duration = Duration::from_secs(26 * 3600);

impl Subject {
    /// A machine whose master runs.
    pub(super) fn serving(&self, numbers: &mut Numbers) -> Vec<Finding> {
        let mut findings = vec![self.address(), self.master(numbers)];
        let metaloggers = moosefs::metaloggers(self.serving_address(), ANSWER);
        findings.push(match (metaloggers, address::own_addresses()) {
            (Ok(mut others), Ok(own)) => {
                others.retain(|address| !own.contains(address));
                numbers.followers = u64::try_from(others.len()).ok();
                let names: Vec<_> = others.iter().map(ToString::to_string).collect();
                match names.as_slice() {
                    [] => Finding::new("standbys", Level::Warning, "no other machine has a copy: nobody can take over"),
                    names => Finding::new("standbys", Level::Ok, format!("{} copy from here", names.join(", "))),
                }
            }
            (Err(e), _) => Finding::unknown("standbys", &e),
            (_, Err(e)) => Finding::unknown("standbys", &e),
        });
        findings
    }

    /// Whether clients come here.
    fn address(&self) -> Finding {
        let interface = self.caller().and_then(|caller| caller.options.interface.as_deref());
        let Some((name, vip)) = interface.zip(self.vip) else {
            return Finding::new("address", Level::Unknown, "without a ucarp it is not known what the virtual IP is");
        };
        match address::interface(name).and_then(|interface| address::holds(&interface, vip)) {
            Ok(true) => Finding::new("address", Level::Ok, format!("{vip} is on {name}")),
            Ok(false) => {
                let text = format!(
                    "mfsmaster runs here, but {vip} is not on {name}: it serves nobody, and this machine takes over \
                     with what it has; if another machine serves, stop it here (mfs-promote --demote)"
                );
                Finding::new("address", Level::Critical, text)
            }
            Err(e) => Finding::unknown("address", &e),
        }
    }

    fn master(&self, numbers: &mut Numbers) -> Finding {
        match self.serving_master() {
            Ok(info) => {
                numbers.master_version = info.metadata_version;
                let version = info.metadata_version.map(|version| format!(" serves version {version}"));
                Finding::new("master", Level::Ok, format!("MooseFS {}{}", info.release, version.unwrap_or_default()))
            }
            Err(e) => {
                let text = format!("mfsmaster runs here, but: {}", crate::sys::logging::chain(&e));
                Finding::new("master", Level::Critical, text)
            }
        }
    }

    /// A machine that would have to be promoted.
    pub(super) fn standby(&self, numbers: &mut Numbers) -> Vec<Finding> {
        let mut findings = vec![match self.metalogger {
            Some(pid) => Finding::new("metalogger", Level::Ok, format!("process {pid}")),
            None => {
                Finding::new("metalogger", Level::Critical, "does not run: no change reaches this machine; start it")
            }
        }];
        let master = self.serving_master();
        numbers.master_version = master.as_ref().ok().and_then(|info| info.metadata_version);
        match self.plan(numbers.master_version) {
            Ok((inventory, plan)) => {
                numbers.copy_version = Some(plan.end_version);
                numbers.replay = Some(plan.changes);
                findings.push(self.compare(&master, &plan, numbers));
                findings.push(image(&inventory, &plan, numbers));
                findings.extend(self.promotion(&plan, numbers));
            }
            Err(finding) => findings.push(finding),
        }
        findings
    }

    /// What would be promoted; waits until the metalogger has written down what the master has told it by now.
    fn plan(&self, reach: Option<Version>) -> Result<(Inventory, Plan), Finding> {
        let end = Instant::now() + FLUSH;
        let state = report::open_state().ok().flatten();
        loop {
            let inventory = memory::inventory(&self.data, state.as_ref()).map_err(|e| Finding::unknown("plan", &e))?;
            let plan = plan::make(&inventory, Loss::Refuse)
                .map_err(|refusal| Finding::new("plan", Level::Critical, refusal.to_string()))?;
            if reach.is_none_or(|reach| plan.end_version >= reach) || Instant::now() > end {
                return Ok((inventory, plan));
            }
            sleep(LOOK_EVERY);
        }
    }

    /// Whether the copy has everything that the serving master had a moment ago.
    fn compare(&self, master: &Result<Info, moosefs::Error>, plan: &Plan, numbers: &mut Numbers) -> Finding {
        let info = match master {
            Ok(info) => info,
            Err(e) => {
                let ago = self.last_in_step(numbers);
                let text = format!("nobody serves: {}{ago}", crate::sys::logging::chain(e));
                return Finding::new("copy", Level::Critical, text);
            }
        };
        if let Some(metaid) = info.metaid.filter(|metaid| plan.metaid != 0 && *metaid != plan.metaid) {
            let text = format!("of another file system: metaid {:#x}, {metaid:#x} is served", plan.metaid);
            return Finding::new("copy", Level::Critical, text);
        }
        if let Some(served) = info.metadata_version {
            self.note(served, info.metaid, plan.end_version, numbers);
        }
        if plan.lineage == Lineage::Own {
            let text = "the newest history here is the machine's own, not the metalogger's copy: it does not follow";
            return Finding::new("copy", Level::Critical, text);
        }
        // 1.x does not tell its version.
        let Some(version) = info.metadata_version else {
            return Finding::new("copy", Level::Ok, format!("reaches version {}", plan.end_version));
        };
        let lag = version.changes_since(plan.end_version);
        numbers.lag = Some(lag);
        if lag == 0 {
            return Finding::new(
                "copy",
                Level::Ok,
                format!("in step with {} at version {version}", self.serving_address()),
            );
        }
        let text = format!(
            "lacks {lag} changes: {} serves version {version}, the copy here reaches {}{}; if it dies now they are lost",
            self.serving_address(),
            plan.end_version,
            self.last_in_step(numbers)
        );
        Finding::new("copy", Level::Critical, text)
    }

    /// Everything else that a promotion would fail for, or warn of.
    fn promotion(&self, plan: &Plan, numbers: &mut Numbers) -> Vec<Finding> {
        let jump = prepare::jump_for(&self.config, plan);
        let mut findings = Vec::new();
        match Space::of(&self.data, plan, jump) {
            Ok(space) => {
                numbers.space = Some((space.needed(), space.free));
                findings.push(self.space(space));
            }
            Err(e) => findings.push(Finding::unknown("space", &e)),
        }
        for file in emergency::find(&self.data, &self.config.working_user) {
            findings.push(Finding::new("plan", Level::Warning, file.to_string()));
        }
        for note in &plan.notes {
            if let (Severity::Warning, note) = prepare::remark(note, self.metalogger.is_some()) {
                findings.push(Finding::new("plan", Level::Warning, note));
            }
        }
        let text = format!("would serve version {}", plan.end_version + jump);
        findings.push(Finding::new("plan", Level::Ok, text));
        findings
    }

    fn space(&self, space: Space) -> Finding {
        if !space.fits() {
            return Finding::new("space", Level::Critical, space::full(&self.data, space).to_string());
        }
        let (needed, free) = (bytes(space.needed()), bytes(space.free));
        if space.fits_next_image() {
            return Finding::new("space", Level::Ok, format!("{needed} needed, {free} free"));
        }
        let text =
            format!("{needed} needed, {free} free: too little for the image that the master writes next; make room");
        Finding::new("space", Level::Warning, text)
    }
}

/// How old the image is, and how much has to be replayed on it.
fn image(inventory: &Inventory, plan: &Plan, numbers: &mut Numbers) -> Finding {
    let Base::Image { name, .. } = &plan.base else {
        return Finding::new("image", Level::Ok, "none yet: a new file system, from its first change");
    };
    let modified = inventory.images.iter().find(|file| file.name == *name).map(|file| file.modified);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let age = now.saturating_sub(modified.unwrap_or(now));
    numbers.image_age = Some(age);
    let text = format!("{} old, {} changes to replay", human(Duration::from_secs(age)), plan.changes);
    if Duration::from_secs(age) <= OLD {
        return Finding::new("image", Level::Ok, text);
    }
    let text = format!("{text}: the metalogger fetches none any more; see META_DOWNLOAD_FREQ, and restart it");
    Finding::new("image", Level::Warning, text)
}
