//! The transition to the master. [`promote`] is the entry point, [`Promotion::steps`] the order of the work: each step takes
//! what the one before it made. If one fails, [`undo`](Promotion::undo) recovers as the next run would after a crash at that
//! step, and the [policy](crate::policy) decides what follows.

mod failure;
pub(crate) mod prepare;

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use log::Level;

use crate::election::{self, Election, flapping};
use crate::group::{Asking, Group};
use crate::heartbeat::{Role, Statement};
use crate::machine::call::{Call, Origin};
use crate::machine::commit::Unfinished;
use crate::machine::config::{Config, StandbyMode};
use crate::machine::dropped_logs::Removed;
use crate::machine::lock::{self, Lock, Request};
use crate::machine::master::{Look, MasterWatch, Silence, Waited};
use crate::machine::notify::{self, Event, Notified};
use crate::machine::outcome::{Outcome, RunKind, StepName};
use crate::machine::run::Run;
use crate::machine::standby_master::{Complete, Hold};
use crate::machine::state::State;
use crate::machine::step_down::{StepDown, step_down};
use crate::machine::supervisor::{MOST_KILLS, Supervisor};
use crate::machine::watchdog::Watchdog;
use crate::machine::{Machine, commit, connections, dropped_logs, memory, recover, standby_master};
use crate::metadata::{Lineage, Loss, Version, emergency, plan, stage};
use crate::moosefs::workarounds::silent_clients;
use crate::moosefs::workarounds::tcp_resets::ClientListener;
use crate::moosefs::{Daemon, Release};
use crate::policy::Why;
use crate::serving::Serving;
use crate::serving::keeper::Keeper;
use crate::serving::reannounce::Reannounce;
use crate::sys::cancel::{Cancel, Race};
use crate::sys::logging::chain;
use crate::sys::nft::Lease;
use crate::sys::process::{self, Identity, Stopped};
use crate::sys::tcp::Connected;
use crate::sys::text::human;
use crate::timing;
use crate::ucarp::OtherMasters;
use crate::vip::VirtualIp;

pub(crate) use failure::Failure;
use prepare::{Prepared, Staged};

/// Pause between two requests to a starting master.
const ASK_EVERY: Duration = Duration::from_millis(10);
/// So many changes a master cannot have made since it was started: no client is answered before it is proved.
const MOST_SINCE_START: u64 = 1_000_000;
/// For what has deadlines of its own: only a disk that does not answer ends it.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Pause between two looks at a new master.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Makes this machine the master, and stays as long as it serves. On failure the files are put back, the address is removed,
/// and ucarp steps down or is stopped. Returns true if this machine served, or if a later call has taken over.
pub(crate) fn promote(call: &Call, origin: Origin, cancel: &Cancel, supervisor: &Supervisor) -> bool {
    // The configuration may lie on a disk that does not answer. The wait for the lock has a deadline of its own.
    let hook = call.request().filter(|_| origin.is_hook());
    let early = hook.map(|request| watch_time(call, None, DAY, &request, cancel, supervisor));
    let lock = match call.take_lock(origin, cancel) {
        Ok(lock) => lock,
        Err(why) => return without_lock(call, origin, &why),
    };
    let mut run = Run::begin(RunKind::Promotion, Some(call.vip));
    let config = call.load_config();
    let known = config.as_ref().ok().cloned();
    let time = allowance(known.as_ref());
    let watchdog = watch_time(call, known.as_ref(), time, lock.request(), cancel, supervisor);
    drop(early);
    let machine = match config.map_err(Failure::from).and_then(|config| Ok(Machine::open(config)?)) {
        Ok(machine) => machine,
        Err(failure) => {
            let ending = Ending::of(call, known.as_ref(), Some(lock.request()));
            let notified = ending.end(run, failure.why(), &chain(&failure), State::of(&call.instance()).ok().as_ref());
            lock.release();
            drop(notified);
            return false;
        }
    };
    // Before all else that takes a while: the election settles meanwhile.
    let others = listen_to_others(call);
    let group = join_group(call, &machine, origin);
    // Where nobody will stay to renew the lease, there is none.
    let stays = origin.is_hook() && call.ucarp.is_some();
    let keeper =
        stays.then(|| Keeper::start(&call.virtual_ip(), &machine.config, Arc::clone(&group), lock.request().clone()));
    let promotion = Promotion {
        call,
        machine: &machine,
        vip: &call.virtual_ip(),
        options: &call.ucarp.as_ref().map(|ucarp| ucarp.options.clone()).unwrap_or_default(),
        group: &group,
        others,
        keeper: keeper.as_ref(),
        origin,
        cancel,
        run: &mut run,
        watchdog: &watchdog,
    };
    let promoted = promotion.promote();
    drop(watchdog);
    match promoted {
        Ok(promoted) => {
            let serving = Serving::of(call, &machine, lock.request().clone(), cancel, group, keeper);
            serve(serving, call, promoted, &machine, run, lock, cancel)
        }
        Err(failure) => {
            // A step that is cancelled fails in its own words.
            let why = match failure.why() {
                _ if cancel.signalled() => Why::Interrupted,
                _ if cancel.is_set() => Why::TimedOut,
                why => why,
            };
            if let Failure::Election(election::Failure::Newer { version, .. }) = &failure {
                // It may be gone when this machine wins again.
                memory::saw_version(&machine.state, *version, group.metaid());
            }
            let quiet = note(why, &machine.state) == News::Known;
            let ending = Ending { quiet, ..Ending::of(call, Some(&machine.config), Some(lock.request())) };
            let notified = ending.end(run, why, &chain(&failure), Some(&machine.state));
            lock.release();
            drop(notified);
            false
        }
    }
}

/// Hears other MASTERs from now on.
fn listen_to_others(call: &Call) -> Option<JoinHandle<OtherMasters>> {
    let (vip, options) = (call.virtual_ip(), call.ucarp.as_ref()?.options.clone());
    let listen = move || vip.other_masters(&options);
    thread::Builder::new()
        .name("settle".to_owned())
        .spawn(listen)
        .inspect_err(|e| log::warn!("cannot listen: {e}"))
        .ok()
}

/// Listens to the other machines and asks them from now on: also while the plan is made, which may take long.
fn join_group(call: &Call, machine: &Machine, origin: Origin) -> Arc<Group> {
    let memory = memory::recall(&machine.state);
    let forked_at = memory.forked_at;
    let statement = Statement { role: Role::Promoting, version: None, metaid: 0, forked_at, answers: false };
    // A run by hand says nothing: the run of a hook may be at work beside it.
    let options = call.ucarp.as_ref().filter(|_| origin.is_hook()).map(|ucarp| &ucarp.options);
    Arc::new(Group::join(&machine.config, &memory, &call.virtual_ip(), options, statement, Asking::Eagerly))
}

/// A run that cannot take its lock: a later call has taken over, or the address must not stay here without a master.
fn without_lock(call: &Call, origin: Origin, why: &lock::Error) -> bool {
    if matches!(why, lock::Error::Superseded) {
        log::info!("promotion skipped: superseded by a later call");
        return true;
    }
    if origin.is_hook() {
        let run = Run::begin(RunKind::Promotion, Some(call.vip));
        let config = call.load_config().ok();
        let ending = Ending::of(call, config.as_ref(), None);
        drop(ending.end(run, Why::CannotServe, &chain(why), State::of(&call.instance()).ok().as_ref()));
    } else {
        log::error!("{}", chain(why));
    }
    false
}

/// A run by hand ends, and nothing renews a lease or the address: both stay until somebody takes them away.
fn serve_for_good(vip: &VirtualIp, config: &Config) {
    if let Err(e) = Lease::on(vip.address, config.client_port).remove() {
        log::warn!("cannot remove the packet filter's table of the lease: {e}");
    }
    if let Err(e) = vip.keep(None) {
        log::warn!("{}", chain(&e));
    }
}

/// How a promotion succeeded.
#[derive(Clone, Copy)]
enum Promoted {
    /// A new master was started.
    Serving,
    /// A healthy master was running already and was left alone.
    AlreadyServing,
}

/// The role: monitoring begins at once, while the replaced files are archived and the lock is released.
fn serve(
    serving: Serving<'_>,
    call: &Call,
    promoted: Promoted,
    machine: &Machine,
    mut run: Run,
    lock: Lock,
    cancel: &Cancel,
) -> bool {
    let notified = match promoted {
        Promoted::Serving => {
            memory::role_changed(&machine.state);
            memory::forget_freshness(&machine.state);
            run.record.outcome = Outcome::Serving;
            Some(notify::tell(&machine.config, Event::Promotion, Some(&call.interface), &run.record, run.elapsed()))
        }
        Promoted::AlreadyServing => {
            run.record.outcome = Outcome::AlreadyServing;
            None
        }
    };
    serving.stay(move || {
        // The run that stood by has kept them, or one that was killed.
        if let Err(e) = dropped_logs::forget(&machine.data) {
            log::warn!("{}", chain(&e));
        }
        commit::archive_all(machine, &mut run, cancel);
        let record = run.end(Some(&machine.state));
        lock.release();
        drop(notified);
        record
    });
    true
}

/// Whether an end is news to the administrator.
#[derive(PartialEq, Eq)]
enum News {
    New,
    /// The promotion before ended in the same way, and that was reported.
    Known,
}

/// Records for the checks of later promotions how this one failed.
fn note(why: Why, state: &State) -> News {
    match why {
        Why::Isolated if !memory::isolated(state) => return News::Known,
        Why::StaleCopy => memory::stepped_down_stale(state),
        why if why.policy().counts => memory::role_changed(state),
        _ => (),
    }
    News::New
}

/// All that the end of a failed promotion needs.
struct Ending<'a> {
    call: &'a Call,
    config: Option<&'a Config>,
    request: Option<&'a Request>,
    /// It is no news, and logged in detail only.
    quiet: bool,
}

impl<'a> Ending<'a> {
    fn of(call: &'a Call, config: Option<&'a Config>, request: Option<&'a Request>) -> Self {
        Self { call, config, request, quiet: false }
    }

    /// Logs why, steps down as the policy says, keeps the record in `state`, and runs `NOTIFY`.
    fn end(self, run: Run, why: Why, text: &str, state: Option<&State>) -> Option<Notified> {
        let state = state.filter(|_| !self.quiet);
        let (run, notified) = self.step_down(run, why, text);
        run.end(state);
        notified
    }

    /// All of it but the record.
    fn step_down(self, mut run: Run, why: Why, text: &str) -> (Run, Option<Notified>) {
        let policy = why.policy();
        run.record.error = Some(text.to_owned());
        if self.request.is_some_and(Request::superseded) {
            log::info!("promotion given up: {text}");
        } else {
            log::log!(if self.quiet { Level::Debug } else { Level::Error }, "promotion failed: {text}");
        }
        let (vip, ucarp) = (self.call.virtual_ip(), self.call.ucarp.as_ref());
        let level = if self.quiet { Level::Debug } else { Level::Warn };
        let done = policy.step_down.filter(|how| step_down(*how, &vip, ucarp, self.request, None, level));
        run.record.outcome = match done {
            Some(StepDown::Once) => Outcome::SteppedDown,
            Some(StepDown::StopUcarp) => Outcome::Stopped,
            None => Outcome::Superseded,
        };
        let config = self.config.filter(|_| done.is_some() && !self.quiet);
        let notified = config
            .map(|config| notify::tell(config, policy.event, Some(&self.call.interface), &run.record, run.elapsed()));
        (run, notified)
    }
}

/// A bound on each step: if cancelling does not stop it, this process exits. The disk of the state folder may be the one that
/// does not answer, so the address goes before anything is looked for there.
fn watch_time(
    call: &Call,
    config: Option<&Config>,
    time: Duration,
    request: &Request,
    cancel: &Cancel,
    supervisor: &Supervisor,
) -> Watchdog {
    let (call, known, request, supervisor) = (call.clone(), config.cloned(), request.clone(), supervisor.clone());
    Watchdog::watch(StepName::Recover, time, cancel, move |step| {
        let run = Run::under_way(RunKind::Promotion, Some(call.vip));
        let text = format!("step \"{step}\" timed out and did not stop; the next run will recover");
        let ending = Ending::of(&call, known.as_ref(), Some(&request));
        let (run, notified) = ending.step_down(run, Why::Hangs, &text);
        supervisor.dismiss();
        process::within(timing::RECORD, move || run.end(State::of(&call.instance()).ok().as_ref()));
        drop(notified);
        std::process::exit(1)
    })
}

/// No step of a promotion takes this long, whatever the daemons do; the bound for loading the files is added.
fn allowance(config: Option<&Config>) -> Duration {
    config.map_or(Duration::from_secs(180), |config| config.services.start_timeout * 2 + config.services.stop_timeout)
}

/// How far a promotion came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reached {
    /// Nothing was changed.
    Nothing,
    /// There may be files to put back, as the journal says.
    Files,
    /// A master may have been started.
    Start,
}

/// The clean set in its place, and what its master has to answer.
struct Committed {
    journal: Unfinished,
    served: Version,
    /// Where the history before it ends: `served` without the epoch jump.
    end_version: Version,
    metaid: u64,
    release: Release,
    /// The hot standby that has loaded what is in place.
    standby: Option<Complete>,
}

/// A promotion in progress.
struct Promotion<'a> {
    call: &'a Call,
    machine: &'a Machine,
    vip: &'a VirtualIp,
    options: &'a crate::ucarp::Options,
    group: &'a Group,
    /// The other MASTERs, as soon as they can be heard; `None` if no ucarp has called.
    others: Option<JoinHandle<OtherMasters>>,
    /// `None` for a run by hand.
    keeper: Option<&'a Keeper>,
    origin: Origin,
    cancel: &'a Cancel,
    run: &'a mut Run,
    watchdog: &'a Watchdog,
}

impl Promotion<'_> {
    fn promote(mut self) -> Result<Promoted, Failure> {
        let mut reached = Reached::Nothing;
        let result = self.steps(&mut reached);
        if result.is_err() {
            self.undo(reached);
        }
        result
    }

    /// The order of the work. `reached` says what there is to undo if it fails.
    fn steps(&mut self, reached: &mut Reached) -> Result<Promoted, Failure> {
        self.require_survival()?;
        self.begin(StepName::Recover);
        recover::finish_interrupted(self.machine, self.run)?;
        self.begin(StepName::Check);
        if self.already_serving()? {
            self.group.say(|statement| statement.role = Role::Serving);
            match self.keeper {
                Some(keeper) => keeper.resume(),
                None if self.call.ucarp.is_none() => serve_for_good(self.vip, &self.machine.config),
                // The run of a hook keeps them.
                None => (),
            }
            self.start_companions();
            return Ok(Promoted::AlreadyServing);
        }
        if self.origin.is_hook() {
            flapping::check(&self.machine.config, &self.machine.state)?;
        }
        let clients = self.listen_to_clients();
        self.begin(StepName::Prepare);
        *reached = Reached::Files;
        let (prepared, _hold) = self.settle_and_prepare()?;
        self.begin(StepName::Metalogger);
        let metalogger_ran = self.stop_metalogger(&prepared)?;
        self.begin(StepName::Stage);
        self.keep_dropped_logs(Removed::while_metalogger(metalogger_ran));
        let staged = self.stage(prepared)?;
        self.begin(StepName::Commit);
        let mut committed = self.commit(staged, metalogger_ran)?;
        self.begin(StepName::Start);
        *reached = Reached::Start;
        let hot = self.let_standby_go(&mut committed)?;
        if !hot {
            self.start_cold(&committed)?;
        }
        let mut reannounce = self.machine.config.arp_probe.then(|| Reannounce::listen(self.vip));
        let answers = self.answer_clients(&committed)?;
        // Else another machine may serve them: the kernel resets those that send here once the lease is regained.
        if answers {
            // Another standby may have been MASTER for a moment since ucarp here announced the address.
            reannounce.iter().for_each(Reannounce::announce);
            self.reset_clients(clients);
        }
        self.begin(StepName::Watch);
        let forked = self.forked_by_master()?;
        match self.watch(reannounce.as_mut()) {
            // It remembers a TERM that it got while it waited, and has stored everything.
            Err(Failure::DiedServing { .. }) if hot => {
                log::warn!("the hot standby was told to stop while it waited, so another mfsmaster is started");
                self.wait_for(&forked)?;
                self.start_cold(&committed)?;
                self.watch(reannounce.as_mut())?;
            }
            watched => watched?,
        }
        self.finish(committed);
        self.start_companions();
        Ok(Promoted::Serving)
    }

    /// A step begins, and has more time than it can need.
    fn begin(&self, step: StepName) {
        self.watchdog.allow(step, allowance(Some(&self.machine.config)) + self.machine.start_time().most);
    }

    /// A call whose runs are killed again and again is given up, unless a master answers by now.
    fn require_survival(&self) -> Result<(), Failure> {
        if self.call.killed < MOST_KILLS {
            return Ok(());
        }
        match self.machine.running(Daemon::Master)?.map(|_| self.machine.wait_for_master(self.cancel)).transpose()? {
            Some(Waited::Answers(_)) => Ok(()),
            Some(Waited::Ended | Waited::Hangs(_)) | None => Err(Failure::Killed { times: self.call.killed }),
        }
    }

    /// Whether a master runs here that has everything this machine knows of: then ucarp was only restarted. One that lacks
    /// changes is stale, started by mistake: it is killed, and so is one that hangs. If a living master of another machine has
    /// the missing changes, this machine must not serve at all.
    fn already_serving(&mut self) -> Result<bool, Failure> {
        let machine = self.machine;
        if machine.running(Daemon::Master)?.is_none() {
            return Ok(false);
        }
        // Read before the master is asked: it may be the one that the copy grows from.
        let copy_end = self.end_of_copy()?;
        let served = match machine.wait_for_master(self.cancel)? {
            Waited::Answers(info) => {
                if info.is_of_unknown_release() {
                    log::warn!(
                        "mfsmaster {} runs here, a release that is not known to this program: it cannot be compared with the \
                         files here",
                        info.release
                    );
                }
                self.group.set_metaid(info.metaid.unwrap_or_default());
                info.metadata_version.unwrap_or(Version(u64::MAX))
            }
            Waited::Ended => {
                self.run.done(StepName::Check, format_args!("mfsmaster ran here without an answer, and has ended"));
                return Ok(false);
            }
            Waited::Hangs(silence) => {
                let (lasted, why) = (human(silence.lasted), chain(&silence.why));
                log::warn!("mfsmaster runs here and has not answered for {lasted} ({why}): it hangs");
                Version::default()
            }
        };
        if served > Version::default() && !copy_end.reaches_further_than(served) {
            // Neither 1.x nor an unknown release tells its version.
            self.run.record.version = Some(served).filter(|served| *served != Version(u64::MAX));
            let version = self.run.record.version.map(|served| format!(" version {served}")).unwrap_or_default();
            self.run.done(StepName::Check, format_args!("mfsmaster is already serving{version} here; left alone"));
            return Ok(true);
        }
        log::warn!(
            "mfsmaster runs here at version {served}, the metalogger's copy reaches version {copy_end}: ending that master"
        );
        self.end_stale_master()?;
        self.run.done(StepName::Check, format_args!("ended a master that lacks changes"));
        Ok(false)
    }

    /// The version that the metalogger's copy reaches; 0 if that cannot be compared with a master of this machine.
    fn end_of_copy(&self) -> Result<Version, Failure> {
        let known = memory::inventory(&self.machine.data, Some(&self.machine.state)).map_err(prepare::Error::from)?;
        Ok(match plan::make(&known, Loss::Refuse) {
            Ok(plan) if plan.lineage == Lineage::Ml => plan.end_version,
            Ok(_) => Version::default(),
            Err(refusal) => {
                log::warn!("cannot compare the files here with the running master: {refusal}");
                Version::default()
            }
        })
    }

    /// Killed, not stopped: the address is here, so until the master is gone clients are served an old file system. Its
    /// changes are in its change log.
    fn end_stale_master(&self) -> Result<(), Failure> {
        if let Some(master) = self.machine.running(Daemon::Master)? {
            self.machine.services.kill(Daemon::Master, master)?;
        }
        Ok(())
    }

    /// Clients must not learn that their master is gone before they can connect to this one: the lease is closed, which holds
    /// resets back, and those that send are recorded.
    fn listen_to_clients(&self) -> Option<ClientListener> {
        // Without a lease the kernel answers them as they come.
        self.keeper?;
        ClientListener::open_if_possible(self.vip, self.machine.config.client_port)
    }

    /// Ends the connections to the machine that served: those of clients that were heard here, and all others that it has told.
    fn reset_clients(&mut self, heard: Option<ClientListener>) {
        let config = &self.machine.config;
        let reset = heard.map(ClientListener::reset_all);
        let is_reset = |one: &Connected| match &reset {
            Some(Ok(clients)) => one.port == config.client_port && clients.contains(&one.end),
            _ => false,
        };
        let (heard, silent): (Vec<_>, Vec<_>) = connections::lost(config).into_iter().partition(is_reset);
        let probed = silent.len();
        let probed = match silent_clients::reset(self.vip.address, silent, heard) {
            Ok(()) => Some(probed),
            Err(e) => {
                log::warn!("{}; they notice the takeover when they send again", chain(&e));
                None
            }
        };
        if let Some(reset) = &reset {
            self.run.clients_reset(reset, probed);
        }
    }

    /// What the metalogger has dropped since the run that stood by has looked is used, too. Without it, the copy ends earlier.
    fn keep_dropped_logs(&self, removed: Removed) {
        if let Err(e) = dropped_logs::bring_back(&self.machine.data, removed) {
            log::warn!("{}", chain(&e));
        }
    }

    /// Waits for the election to settle, and meanwhile makes the checks and prepares the stage.
    fn settle_and_prepare(&mut self) -> Result<(Prepared, Option<Hold>), Failure> {
        let loss = match self.origin.loss() {
            Loss::Refuse if election::is_last_resort(self.machine, self.options) => Loss::LastResort,
            loss => loss,
        };
        let election = Election::new(self.machine, self.vip, self.options, loss, self.group);
        let (machine, id, begun) = (self.machine, self.run.id(), Instant::now());
        let race: Race<Failure> = Race::new(self.cancel);
        let timed = |done| (done, begun.elapsed());
        // A panic ends the process.
        let others = self.others.take().and_then(|others| others.join().ok());
        let others = others.unwrap_or_else(|| self.vip.other_masters(self.options));
        let (mut hold, settling_since) = (None, others.since());
        let (settled, prepared, checked) = thread::scope(|scope| {
            let settle = || race.run(|cancel| Ok(election.settle(others, cancel)?));
            let settling = scope.spawn(|| settle().map(|settled| (settled, settling_since.elapsed())));
            let planned = race.run(|cancel| {
                // What the run that stood by has fed until then must be in the plan, and it must load no other one from now on.
                let level = if machine.config.standby == StandbyMode::Cold { Level::Debug } else { Level::Warn };
                let taken = Hold::of(machine, timing::STANDBY_LEFT);
                hold = taken.inspect_err(|e| log::log!(level, "no hot standby: {}", chain(e))).ok();
                self.keep_dropped_logs(Removed::while_metalogger(machine.running(Daemon::Metalogger)?.is_some()));
                Ok(prepare::plan(machine, loss, cancel)?)
            });
            let (checking, prepared) = match planned {
                Some(planned) => {
                    let plan = planned.plan.clone();
                    let (election, race) = (&election, &race);
                    let checking = scope.spawn(move || race.run(|cancel| Ok(election.check(&plan, cancel)?)));
                    let prepared = race.run(|cancel| Ok(prepare::copy(planned, machine, id, hold.as_ref(), cancel)?));
                    (Some(checking), prepared.map(timed))
                }
                None => (None, None),
            };
            // A panic ends the process.
            let checked = checking.and_then(|checking| checking.join().unwrap_or_default());
            (settling.join().unwrap_or_default(), prepared, checked)
        });
        self.group.remember(&machine.state);
        let ((settled, settled_in), (prepared, prepared_in), checked) = match (settled, prepared, checked) {
            (Some(settled), Some(prepared), Some(checked)) => (settled, prepared, checked),
            (_, prepared, _) => {
                if let Some((prepared, _)) = prepared {
                    prepared.leave();
                }
                return Err(race.first_error().expect("a part that did not end has failed"));
            }
        };
        self.run.timed(StepName::Prepare, prepared_in, format_args!("{}", prepared.summary()));
        self.run.timed(StepName::Settle, settled_in, format_args!("{settled}"));
        self.run.done(StepName::Checks, format_args!("{}", checked.0));
        Ok((prepared, hold))
    }

    /// Stops the metalogger, which flushes its logs. Says whether it ran.
    fn stop_metalogger(&mut self, prepared: &Prepared) -> Result<bool, Failure> {
        self.cancel.check()?;
        let ran = self.machine.running(Daemon::Metalogger)?.is_some();
        if ran {
            prepared.folder().note_stop()?;
            if self.machine.stop(Daemon::Metalogger)? == Stopped::Killed {
                let loss = self.origin.loss();
                Election::new(self.machine, self.vip, self.options, loss, self.group).metalogger_killed()?;
            }
        }
        self.run.done(StepName::Metalogger, format_args!("{}", if ran { "stopped" } else { "was not running" }));
        Ok(ran)
    }

    /// Plans again with the logs that the metalogger has flushed, and completes the stage.
    fn stage(&mut self, prepared: Prepared) -> Result<Staged, Failure> {
        let staged = prepared.stage(self.machine, self.cancel)?;
        let Staged { plan, written: stage::Written { served, unlocked }, .. } = &staged;
        for note in &plan.notes {
            prepare::log_note(note);
        }
        if *unlocked > 0 {
            log::info!("stage: released {unlocked} chunk locks of writes interrupted in the last second");
        }
        for file in emergency::find(&self.machine.data, &self.machine.config.working_user) {
            log::warn!("{file}");
        }
        self.run.record.version = Some(*served);
        self.run.record.changes = Some(plan.changes);
        self.run.record.set_aside = plan.set_aside.iter().map(|name| name.to_string_lossy().into_owned()).collect();
        self.run.done(
            StepName::Stage,
            format_args!("{} to version {} (served as {served})", prepare::base(plan), plan.end_version),
        );
        Ok(staged)
    }

    /// Moves all other files out of the data folder, and the clean set into it.
    fn commit(&mut self, staged: Staged, metalogger_ran: bool) -> Result<Committed, Failure> {
        self.cancel.check()?;
        let Staged { folder, plan, written, release, standby } = staged;
        // The files themselves are set aside now.
        if let Err(e) = dropped_logs::forget(&self.machine.data) {
            log::warn!("{}", chain(&e));
        }
        let journal = folder.commit(&self.machine.data, &plan.set_aside, metalogger_ran)?;
        let aside = plan.set_aside.len();
        self.run.done(StepName::Commit, format_args!("{aside} files set aside, the staged set is in place"));
        let (served, end_version, metaid) = (written.served, plan.end_version, plan.metaid);
        Ok(Committed { journal, served, end_version, metaid, release, standby })
    }

    /// Lets the hot standby serve what is in place, and proves it. Returns false if there is none, or if it does not: the set in
    /// place is that of a cold start.
    fn let_standby_go(&mut self, committed: &mut Committed) -> Result<bool, Failure> {
        let Some(standby) = committed.standby.take() else { return Ok(false) };
        self.cancel.check()?;
        memory::epoch_begins(&self.machine.state, committed.served);
        let gone = standby.let_go(self.machine).map_err(|e| Failure::from(prepare::Error::from(e)));
        let proved = gone.and_then(|()| {
            self.run.done(StepName::LetGo, format_args!("the waiting master begins to serve"));
            self.begin(StepName::Prove);
            self.prove(committed)
        });
        let Err(why) = proved else { return Ok(true) };
        self.cancel.check()?;
        log::warn!("the hot standby does not serve, so another mfsmaster is started: {}", chain(&why));
        standby_master::end(self.machine).map_err(prepare::Error::from)?;
        let forked = self.forked_by_master()?;
        self.end_stale_master()?;
        self.wait_for(&forked)?;
        Ok(false)
    }

    /// The processes that the master here has forked.
    fn forked_by_master(&self) -> Result<Vec<Identity>, Failure> {
        Ok(self.machine.running(Daemon::Master)?.map(process::forked_by).unwrap_or_default())
    }

    /// What a master has forked has a lock in which the next one would fail.
    fn wait_for(&self, forked: &[Identity]) -> Result<(), Failure> {
        let end = Instant::now() + timing::START_GRACE;
        while forked.iter().any(Identity::is_alive) && Instant::now() < end {
            self.cancel.sleep(ASK_EVERY)?;
        }
        Ok(())
    }

    /// Starts a master on what is in place, and proves that it serves that.
    fn start_cold(&mut self, committed: &Committed) -> Result<(), Failure> {
        self.begin(StepName::Start);
        // A master looks for images in places where every user can put them.
        let held = emergency::hold(self.machine.owner).map_err(prepare::Error::from)?;
        self.start_master(committed)?;
        self.begin(StepName::Prove);
        self.prove(committed)?;
        drop(held);
        Ok(())
    }

    fn start_master(&mut self, committed: &Committed) -> Result<(), Failure> {
        self.cancel.check()?;
        memory::epoch_begins(&self.machine.state, committed.served);
        // The staged set is all that is there now.
        let time = self.machine.start_time();
        if committed.release.restores_itself() {
            self.machine.services.start_master(self.machine.data.path(), time, self.cancel)?;
        } else {
            self.machine.services.start_plain_master(time, self.cancel)?;
        }
        self.run.done(StepName::Start, format_args!("mfsmaster started"));
        Ok(())
    }

    /// Asks the master until it answers with what was staged. Exit codes of MooseFS prove nothing.
    fn prove(&mut self, committed: &Committed) -> Result<(), Failure> {
        let (mut master, begun) = (MasterWatch::begin(self.machine), Instant::now());
        let (planned, planned_metaid) = (committed.served, committed.metaid);
        let info = loop {
            match master.look(self.machine, self.cancel) {
                Look::Answers(info) => break info,
                Look::Absent(_) if begun.elapsed() > timing::START_GRACE => return Err(Failure::Died),
                Look::Hangs(Silence { lasted, why, .. }) => {
                    let port = self.machine.config.client_port;
                    return Err(Failure::Unresponsive { port, after: lasted, source: why });
                }
                Look::Absent(_) | Look::Busy(_) => self.cancel.sleep(ASK_EVERY)?,
            }
        };
        match info.metadata_version {
            Some(served) if served < planned => return Err(Failure::Behind { served, planned }),
            Some(served) if served > planned.with_changes(MOST_SINCE_START) => {
                return Err(Failure::Beyond { served, planned });
            }
            // It was started on the staged set and serves; to stop it because this program is older would leave no master.
            None if info.is_of_unknown_release() => log::warn!(
                "MooseFS {} is not known to this program, so it cannot be proved that it serves version {planned}; {} is \
                 installed",
                info.release,
                committed.release
            ),
            // 1.x does not tell its version: its image was read back before it was moved in.
            Some(_) | None => (),
        }
        match info.metaid {
            Some(served) if planned_metaid != 0 && served != planned_metaid => {
                return Err(Failure::Foreign { served, planned: planned_metaid });
            }
            _ => (),
        }
        let served = info.metadata_version.unwrap_or(planned);
        let metaid = info.metaid.map(|metaid| format!(" of metaid {metaid:#x}")).unwrap_or_default();
        self.run.done(StepName::Prove, format_args!("MooseFS {} answers with version {served}{metaid}", info.release));
        match self.call.ticket.filter(|_| self.origin.is_hook()) {
            Some(ticket) => log::info!("serving on {}, {} after ucarp called vip-up", self.vip, human(ticket.age())),
            None => log::info!("serving on {}, {} after the start of this run", self.vip, human(self.run.elapsed())),
        }
        Ok(())
    }

    /// From here on clients are answered, if the lease can be opened. The others learn which history that is.
    fn answer_clients(&mut self, committed: &Committed) -> Result<bool, Failure> {
        memory::forked(&self.machine.state, committed.end_version);
        self.group.say(|statement| {
            (statement.role, statement.version) = (Role::Serving, Some(committed.served));
            statement.forked_at = Some(committed.end_version);
        });
        if let Some(keeper) = self.keeper {
            return keeper.open().map_err(Failure::Lease);
        }
        serve_for_good(self.vip, &self.machine.config);
        Ok(true)
    }

    /// Watches the new master for a moment: one that exits now must not leave the address without a master. A later call
    /// that ends this run finds a serving master, and decides what becomes of it.
    fn watch(&mut self, mut reannounce: Option<&mut Reannounce>) -> Result<(), Failure> {
        let begun = Instant::now();
        while begun.elapsed() < timing::EARLY_EXIT && self.cancel.sleep(LOOK_EVERY).is_ok() {
            if let Some(reannounce) = reannounce.as_deref_mut().filter(|_| self.keeper.is_none_or(Keeper::answers)) {
                reannounce.answer();
            }
            if self.machine.running(Daemon::Master)?.is_none() {
                return Err(Failure::DiedServing { after: begun.elapsed() });
            }
        }
        if let Err(e) = self.machine.ask_master() {
            log::warn!("watch: mfsmaster stopped responding but is running: {}", chain(&e));
        }
        self.run.done(StepName::Watch, format_args!("mfsmaster still running"));
        Ok(())
    }

    /// The new history is this machine's now. If the journal cannot be removed, the master still serves: the next run finds
    /// that it runs or has written, and keeps it.
    fn finish(&self, committed: Committed) {
        memory::serving(&self.machine.state);
        if let Err(e) = committed.journal.finish() {
            log::error!("{}", chain(&e));
        }
    }

    /// What belongs to a serving master but is not needed to serve: failures are logged, not fatal.
    fn start_companions(&mut self) {
        let machine = self.machine;
        memory::serving(&machine.state);
        let warn = |what: &str, e: &dyn std::error::Error| log::warn!("{what}: {}", chain(e));
        if let Ok(Some(master)) = machine.running(Daemon::Master) {
            if let Err(e) = machine.services.write_pid_file(master.pid) {
                warn("cannot write the init script's pid file", &e);
            }
            if let Err(e) = machine.services.adopt_master(master, self.cancel) {
                warn("the master's unit does not know the master that serves", &e);
            }
        }
        if machine.services.control(Daemon::Cgiserv).is_some() {
            match machine.services.start(Daemon::Cgiserv, self.cancel) {
                Ok(()) => self.run.done(StepName::Cgiserv, format_args!("started")),
                Err(e) => warn("cannot start the web interface", &e),
            }
        }
        if matches!(machine.running(Daemon::Metalogger), Ok(None)) {
            match machine.start_metalogger() {
                Ok(()) => self.run.done(StepName::Metalogger, format_args!("started; it copies from this master now")),
                Err(e) => warn("cannot start the metalogger, so this machine keeps no second copy", &e),
            }
        }
        machine.remove_restore_dropin();
    }

    /// Kills a master that this run started, then recovers as the next run would after a crash here: the journal says which
    /// files to move back, and stays for the next run if that fails.
    fn undo(&mut self, reached: Reached) {
        if reached == Reached::Nothing {
            return;
        }
        self.begin(StepName::RollBack);
        if reached == Reached::Start {
            if let Err(e) = standby_master::end(self.machine) {
                log::error!("cannot end the hot standby: {}", chain(&e));
            }
        }
        let ended = match self.machine.running(Daemon::Master) {
            // Killed, not stopped: a clean stop would write a new image over the staged one.
            Ok(Some(master)) if reached == Reached::Start => {
                self.machine.services.kill(Daemon::Master, master).map_err(Failure::from)
            }
            Ok(_) => Ok(()),
            Err(e) => Err(e.into()),
        };
        let undone = ended.and_then(|()| Ok(recover::finish_interrupted(self.machine, self.run)?));
        if let Err(e) = undone {
            log::error!("roll-back failed; the next run tries again: {}", chain(&e));
        }
    }
}
