//! Becoming the master. The order of the lines in [`Promotion::steps`] is the order of the work.

mod failure;
pub(crate) mod prepare;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::metadata::{Lineage, Loss, Plan, plan};
use crate::moosefs::workarounds::tcp_resets::HeldResets;
use crate::moosefs::{Daemon, Release};
use crate::sys::address::Interface;
use crate::sys::cancel::Cancel;
use crate::ucarp::Options;

use crate::election;
use crate::election::Checks;
use crate::election::Election;
use crate::election::settle::{self, Settle};
use crate::machine::Machine;
use crate::machine::commit::Unfinished;
use crate::machine::emergency;
use crate::machine::memory;
use crate::machine::recover;
use crate::machine::run::Run;
use crate::machine::supervisor::MOST_DEATHS;
use crate::sys::text::human;
use crate::sys::watchdog::{Watchdog, allowance};
use prepare::Prepared;

pub(crate) use failure::Failure;

/// Between two questions to a starting master.
const ASK_EVERY: Duration = Duration::from_millis(10);
/// A daemon that is not running this long after its start was ordered has died.
const BIRTH: Duration = Duration::from_secs(2);
/// A master that dies of something it finds wrong does so within this after it began to serve.
const INFANCY: Duration = Duration::from_secs(3);
/// Between two looks at a young master.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How a promotion went well.
pub(crate) enum Promoted {
    /// A new master was started.
    Serving,
    /// A healthy master was running already and was left alone.
    AlreadyServing,
}

/// A promotion in progress.
pub(crate) struct Promotion<'a> {
    pub(crate) target: &'a Machine,
    pub(crate) interface: &'a Interface,
    pub(crate) vip: Ipv4Addr,
    pub(crate) options: &'a Options,
    pub(crate) cancel: &'a Cancel,
    pub(crate) run: &'a mut Run,
    /// What the administrator says about changes that cannot be served.
    pub(crate) loss: Loss,
    /// Whether ucarp asks for it; an administrator may ask as often as he likes.
    pub(crate) by_hook: bool,
    /// How many runs of the same call were killed.
    pub(crate) deaths: u8,
    scene: Election,
    undo: Undo,
    dog: &'a Watchdog,
}

/// What has to be undone if the promotion fails now.
#[derive(Default)]
struct Undo {
    begun: bool,
    prepared: Option<Prepared>,
    committed: Option<(Unfinished, Release)>,
    metalogger_stopped: bool,
    master_started: bool,
}

impl<'a> Promotion<'a> {
    pub(crate) fn new(
        target: &'a Machine,
        interface: &'a Interface,
        vip: Ipv4Addr,
        options: &'a Options,
        cancel: &'a Cancel,
        run: &'a mut Run,
        dog: &'a Watchdog,
    ) -> Self {
        Self {
            target,
            interface,
            vip,
            options,
            cancel,
            run,
            loss: Loss::Refuse,
            by_hook: true,
            deaths: 0,
            scene: Election::default(),
            undo: Undo::default(),
            dog,
        }
    }

    /// A step begins, and has more time than it can need.
    fn begin(&self, step: &'static str) {
        let image = self.target.services.start_deadline(self.target.image_size());
        self.dog.allow(step, allowance(Some(&self.target.config)) + image);
    }

    /// Promotes this machine, or puts everything back and says why not.
    pub(crate) fn promote(mut self) -> Result<Promoted, Failure> {
        let result = self.steps();
        if result.is_err() {
            self.undo();
        }
        memory::remember_masters(&self.target.state, self.scene.heard());
        result
    }

    fn steps(&mut self) -> Result<Promoted, Failure> {
        if self.deaths >= MOST_DEATHS && self.target.ask_master().is_err() {
            return Err(Failure::Killed { times: self.deaths });
        }
        self.begin("recover");
        recover::finish_interrupted(self.target, self.run)?;
        self.begin("check");
        if self.already_serving()? {
            self.serve();
            return Ok(Promoted::AlreadyServing);
        }
        if self.by_hook {
            election::flapping::check(&self.target.config, &self.target.state)?;
        }
        let resets = self.withhold_resets();
        self.begin("prepare");
        self.settle_and_prepare()?;
        self.begin("metalogger");
        self.stop_metalogger()?;
        self.begin("stage");
        let plan = self.stage()?;
        self.begin("commit");
        self.commit(&plan)?;
        self.begin("start");
        self.start_master()?;
        self.begin("prove");
        self.prove(&plan)?;
        if let Some(resets) = resets {
            self.run.reset(resets.send());
        }
        self.begin("serve");
        self.watch()?;
        if let Some(Err(e)) = self.undo.committed.take().map(|(committed, _)| committed.finish()) {
            // What serves is not stopped for that; the next run finds a master that runs or has written, and keeps it.
            log::error!("{}", crate::sys::logging::chain(&e));
        }
        self.serve();
        Ok(Promoted::Serving)
    }

    /// Whether a master runs here that has everything this machine knows of: ucarp was restarted beside it. One that
    /// lacks changes is a leftover, started by mistake: it is stopped. If a living master of another machine has what it
    /// lacks, this machine must not serve at all.
    fn already_serving(&mut self) -> Result<bool, Failure> {
        if self.target.running(Daemon::Master)?.is_none() {
            return Ok(false);
        }
        let known = memory::inventory(&self.target.data, Some(&self.target.state)).map_err(prepare::Error::from)?;
        let copy_end = match plan::make(&known, Loss::Refuse) {
            Ok(plan) if plan.lineage == Lineage::Ml => plan.end_version,
            Ok(_) => 0,
            Err(refusal) => {
                log::warn!("the files here cannot be compared with the running master: {refusal}");
                0
            }
        };
        let (served, metaid) = match self.target.ask_master() {
            Ok(info) => (info.metadata_version.unwrap_or(u64::MAX), info.metaid),
            Err(e) => {
                // What serves is not stopped on behalf of a call that does not count any more.
                self.cancel.check()?;
                log::warn!("mfsmaster runs here but does not answer: {}", crate::sys::logging::chain(&e));
                (0, None)
            }
        };
        let memory = memory::recall(&self.target.state);
        let peers = election::peers::addresses(&self.target.config, &memory).map_err(election::Error::from)?;
        let newer = election::peers::newer_than(&peers, self.target.config.client_port, served, metaid);
        if let Some((rival, version)) = newer {
            log::warn!("mfsmaster runs here at version {served}, and one is alive on {rival} at version {version}");
            self.end_leftover()?;
            self.run.done("check", format_args!("ended a master that lacks what {rival} has"));
            return Err(election::Error::Newer { rival, version, ours: served }.into());
        }
        if served > 0 && served >= copy_end {
            // 1.x does not tell its version.
            self.run.record.version = Some(served).filter(|served| *served != u64::MAX);
            let version = self.run.record.version.map(|served| format!(" version {served}")).unwrap_or_default();
            self.run.done("check", format_args!("mfsmaster is already serving{version} here; left alone"));
            return Ok(true);
        }
        log::warn!(
            "mfsmaster runs here at version {served}, the metalogger's copy reaches version {copy_end}: \
             ending that master"
        );
        self.end_leftover()?;
        self.run.done("check", format_args!("ended a master that lacks changes"));
        Ok(false)
    }

    /// Killed, not stopped: the address is here, so until it is gone clients are served an old file system. What it has
    /// written lies in its change log.
    fn end_leftover(&self) -> Result<(), Failure> {
        if let Some(master) = self.target.running(Daemon::Master)? {
            self.target.services.kill(Daemon::Master, master)?;
        }
        Ok(())
    }

    /// No client is to learn that its master is gone before it can connect to this one.
    fn withhold_resets(&self) -> Option<HeldResets> {
        let server = SocketAddrV4::new(self.vip, self.target.config.client_port);
        let withheld = HeldResets::begin(self.interface.index, server);
        withheld.inspect_err(|e| log::warn!("{}; clients will wait longer", crate::sys::logging::chain(e))).ok()
    }

    /// Waits for the election to settle, and meanwhile asks the guards and does all that touches nothing.
    fn settle_and_prepare(&mut self) -> Result<(), Failure> {
        let settle = Settle {
            interface: self.interface,
            vip: self.vip,
            options: self.options,
            margin: self.target.config.settle_margin,
            scene: &self.scene,
        };
        let remembered = memory::recall(&self.target.state).peers;
        let guards = Checks {
            target: self.target,
            interface: self.interface,
            vip: self.vip,
            options: self.options,
            loss: self.loss,
            cancel: self.cancel,
            remembered: &remembered,
            scene: &self.scene,
        };
        let (target, cancel, id, loss) = (self.target, self.cancel, self.run.id(), self.loss);
        let begun = Instant::now();
        let (settled, (prepared, prepared_in), guarded) = std::thread::scope(|scope| {
            let (plans, planned) = mpsc::channel();
            let guarding = scope.spawn(move || guards.watch(&planned));
            let preparing = scope.spawn(move || {
                let prepared = prepare::begin(target, id, loss, &plans, cancel);
                if prepared.is_err() {
                    // Nothing to wait for: the next machine is to have its turn at once.
                    cancel.cancel();
                }
                (prepared, begun.elapsed())
            });
            let settled = settle.wait(cancel);
            match settled {
                Ok(_) => self.scene.settle(),
                Err(_) => cancel.cancel(),
            }
            let settled_in = begun.elapsed();
            let prepared = preparing.join().expect("preparing does not panic");
            (settled.map(|how| (how, settled_in)), prepared, guarding.join().expect("guarding does not panic"))
        });
        self.undo.begun = prepared.is_ok();
        let prepared = prepared.map(|prepared| self.undo.prepared.insert(prepared));
        // Whichever failed first has cancelled the others.
        let ((settled, settled_in), prepared, guarded) = match (settled, prepared, guarded) {
            (Ok(settled), Ok(prepared), Ok(guarded)) => (settled, prepared, guarded),
            (_, _, Err(e)) if !e.is_cancelled() => return Err(e.into()),
            (Ok(_) | Err(settle::Error::Cancelled(_)), Err(e), _) => return Err(e.into()),
            (Err(e), ..) => return Err(e.into()),
            (_, _, Err(e)) => return Err(e.into()),
        };
        self.run.timed("prepare", prepared_in, format_args!("{}", prepared.summary()));
        self.run.timed("settle", settled_in, format_args!("{settled}; {} is ours", self.vip));
        self.run.done("guards", format_args!("{guarded}"));
        Ok(())
    }

    fn stop_metalogger(&mut self) -> Result<(), Failure> {
        self.cancel.check()?;
        if self.target.running(Daemon::Metalogger)?.is_some() {
            let prepared = self.undo.prepared.as_ref().expect("prepared before the metalogger is stopped");
            prepared.work.note_stop()?;
            self.undo.metalogger_stopped = true;
            self.target.stop(Daemon::Metalogger)?;
        }
        let what = if self.undo.metalogger_stopped { "stopped" } else { "was not running" };
        self.run.done("metalogger", format_args!("{what}"));
        Ok(())
    }

    /// Plans again with what the metalogger has flushed, and completes the stage.
    fn stage(&mut self) -> Result<Plan, Failure> {
        let prepared = self.undo.prepared.as_mut().expect("prepared before it is staged");
        let plan = prepared.finish(self.target, self.cancel)?;
        for note in &plan.notes {
            prepare::log_note(note);
        }
        let served = prepared.served_version();
        if prepared.unlocked() > 0 {
            log::info!("stage: {} chunks unlocked whose writers were cut off in the last second", prepared.unlocked());
        }
        for file in emergency::find(&self.target.data, &self.target.config) {
            log::warn!("{file}");
        }
        self.run.record.version = Some(served);
        self.run.record.changes = Some(plan.changes);
        self.run.record.set_aside = plan.set_aside.iter().map(|name| name.to_string_lossy().into_owned()).collect();
        self.run.done(
            "stage",
            format_args!("{} to version {} (served as {served})", prepare::base(&plan), plan.end_version),
        );
        Ok(plan)
    }

    fn commit(&mut self, plan: &Plan) -> Result<(), Failure> {
        self.cancel.check()?;
        let prepared = self.undo.prepared.take().expect("staged before it is committed");
        let release = prepared.release();
        let committed = prepared.work.commit(&self.target.data, &plan.set_aside, self.undo.metalogger_stopped)?;
        self.undo.committed = Some((committed, release));
        self.run.done("commit", format_args!("{} files set aside, the staged set is in place", plan.set_aside.len()));
        Ok(())
    }

    fn start_master(&mut self) -> Result<(), Failure> {
        self.cancel.check()?;
        self.undo.master_started = true;
        let deadline = self.target.services.start_deadline(self.target.image_size());
        let release = self.undo.committed.as_ref().map(|(_, release)| *release);
        if release.is_none_or(Release::restores_itself) {
            self.target.services.start_master(deadline, self.cancel)?;
        } else {
            self.target.services.start_plain_master(deadline, self.cancel)?;
        }
        self.run.done("start", format_args!("mfsmaster started"));
        Ok(())
    }

    /// Asks the master until it answers what was planned.
    fn prove(&mut self, plan: &Plan) -> Result<(), Failure> {
        let patience = self.target.services.start_deadline(self.target.image_size());
        let begun = Instant::now();
        let planned = self.run.record.version.unwrap_or_default();
        let info = loop {
            match self.target.ask_master() {
                Ok(info) => break info,
                Err(source) if begun.elapsed() > patience => {
                    let port = self.target.config.client_port;
                    return Err(Failure::Mute { port, after: patience, source });
                }
                Err(_) => self.cancel.sleep(ASK_EVERY)?,
            }
            if begun.elapsed() > BIRTH && self.target.running(Daemon::Master)?.is_none() {
                return Err(Failure::Died);
            }
        };
        // 1.x does not tell its version: its image was read back before it was moved in.
        let silent = !info.release.restores_itself();
        if !silent && info.metadata_version.is_none_or(|served| served < planned) {
            return Err(Failure::Behind { served: info.metadata_version, planned });
        }
        match info.metaid {
            Some(served) if plan.metaid != 0 && served != plan.metaid => {
                return Err(Failure::Foreign { served, planned: plan.metaid });
            }
            _ => (),
        }
        let served = info.metadata_version.unwrap_or(planned);
        let metaid = info.metaid.map(|metaid| format!(" of metaid {metaid:#x}")).unwrap_or_default();
        self.run.done("prove", format_args!("MooseFS {} answers with version {served}{metaid}", info.release));
        log::info!("serving on {} {} after the call of vip-up", self.vip, human(self.run.elapsed()));
        Ok(())
    }

    /// Stays for a moment to see that the master lives: one that ends now must not leave the address without a server.
    /// A later call that ends this run finds a serving master, and decides what becomes of it.
    fn watch(&mut self) -> Result<(), Failure> {
        let begun = Instant::now();
        while begun.elapsed() < INFANCY && self.cancel.sleep(LOOK_EVERY).is_ok() {
            if self.target.running(Daemon::Master)?.is_none() {
                return Err(Failure::DiedServing { after: begun.elapsed() });
            }
        }
        if let Err(e) = self.target.ask_master() {
            log::warn!("watch: mfsmaster answers no more, but lives: {}", crate::sys::logging::chain(&e));
        }
        self.run.done("watch", format_args!("mfsmaster lives on"));
        Ok(())
    }

    /// What belongs to a serving master but is not needed to serve: failures are reported, not fatal.
    fn serve(&mut self) {
        memory::serving(&self.target.state);
        let warn = |what: &str, e: &dyn std::error::Error| log::warn!("{what}: {}", crate::sys::logging::chain(e));
        if let Ok(Some(master)) = self.target.running(Daemon::Master) {
            if let Err(e) = self.target.services.write_pid_file(master.pid) {
                warn("the init script will not know the master", &e);
            }
        }
        if self.target.services.control(Daemon::Cgiserv).is_some() {
            match self.target.services.start(Daemon::Cgiserv, self.cancel) {
                Ok(()) => self.run.done("cgiserv", format_args!("started")),
                Err(e) => warn("the web interface is not up", &e),
            }
        }
        if matches!(self.target.running(Daemon::Metalogger), Ok(None)) {
            match self.target.start_metalogger() {
                Ok(()) => self.run.done("metalogger", format_args!("started; it copies from this master now")),
                Err(e) => warn("the metalogger is not up, so this machine keeps no second copy", &e),
            }
        }
        self.target.remove_restore_dropin();
    }

    /// Kills the master if it was started, and puts everything back. What cannot be undone is left to the next run.
    fn undo(&mut self) {
        if !self.undo.begun {
            // At most there is an earlier run, which could not be ended.
            return;
        }
        self.begin("roll-back");
        let killed = match self.target.running(Daemon::Master) {
            // Killed, not stopped: a clean stop would write a new image over what was staged.
            Ok(Some(master)) if self.undo.master_started => {
                self.target.services.kill(Daemon::Master, master).map_err(Failure::from)
            }
            Ok(_) => Ok(()),
            Err(e) => Err(e.into()),
        };
        let undone = killed.and_then(|()| Ok(recover::finish_interrupted(self.target, self.run)?));
        if let Err(e) = undone {
            log::error!("roll-back failed; the next run tries again: {}", crate::sys::logging::chain(&e));
        }
    }
}
