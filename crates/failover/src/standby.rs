//! The role of a machine that stands by: its metalogger copies from the serving master, and it may win the next election.
//!
//! The run that was demoted stays, without the lock, as long as the ucarp that called lives, and looks around:
//!
//! | it sees | then |
//! |---|---|
//! | other machines of the group | it remembers them: they are asked before the next promotion, also if they are heard too late then |
//! | another machine that serves, and the metalogger here still connected to the one before it | it makes the metalogger follow, see [`follow`] |
//! | a copy in which changes are missing, and a metalogger that follows and does not fetch them | it restarts the metalogger, see [`incomplete`] |
//! | who is connected to the machine that serves | it keeps that for a takeover, see [`connections`] |
//! | a MASTER on which nothing of ours works, so that nothing answers | it makes that ucarp step down, see [`abandoned`] |
//! | a copy that lacks changes, or has all of them | it notes that for the check before a promotion, see [`freshness`] |
//! | change logs that the metalogger drops before it has a new image | it keeps them, see [`dropped_logs`] |
//!
//! Beside that it keeps a master that has loaded the copy, see [`hot`].
//!
//! The role ends with the next call of a hook.

use std::thread;
use std::time::{Duration, Instant};

use crate::group::{Asking, Group};
use crate::heartbeat::{Role, Statement};
use crate::machine::call::Call;
use crate::machine::dropped_logs::Removed;
use crate::machine::last_heard::LastHeard;
use crate::machine::lock::{Locks, Request};
use crate::machine::outcome::RunKind;
use crate::machine::{Machine, commit, connections, dropped_logs, memory, restart};
use crate::moosefs::Daemon;
use crate::sys::cancel::Cancel;
use crate::sys::logging::chain;
use crate::timing;
use crate::ucarp::Ucarp;
use crate::vip::VirtualIp;

use abandoned::Abandoned;
use follow::Follow;

mod abandoned;
pub(crate) mod follow;
pub(crate) mod freshness;
mod hot;
mod incomplete;
pub(crate) mod stand_back;
mod unchanged;

/// How long a call of a hook may go unnoticed where no other machine is heard: an election waits for what is known here.
const LOOK: Duration = Duration::from_millis(100);

/// Between two questions to the serving master.
const ASK_EVERY: Duration = Duration::from_secs(30);

/// After a question that was not answered.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// A machine that stands by.
pub(crate) struct Standby<'a> {
    machine: &'a Machine,
    vip: VirtualIp,
    /// `None` for a hook that was run by hand: no ucarp has this machine in its elections.
    ucarp: Option<&'a Ucarp>,
    request: Request,
    cancel: &'a Cancel,
}

impl<'a> Standby<'a> {
    /// After the demotion that `call` asked for.
    pub(crate) fn of(call: &'a Call, machine: &'a Machine, request: Request, cancel: &'a Cancel) -> Self {
        Self { machine, vip: call.virtual_ip(), ucarp: call.ucarp.as_ref(), request, cancel }
    }

    /// Stays until the role is over.
    pub(crate) fn stay(self) {
        let Some(ucarp) = self.ucarp else { return hot::end(self.machine) };
        let off_duty = self.cancel.child();
        let archive = || self.archive(&off_duty);
        thread::scope(|scope| {
            scope.spawn(|| hot::keep(self.machine, &self.vip, ucarp, &self.request, &off_duty));
            // Whatever takes its time, the metalogger connects again soon.
            scope.spawn(|| self.keep_logs(&off_duty, || drop(scope.spawn(archive))));
            self.look_around(ucarp);
            off_duty.cancel();
        });
    }

    /// Keeps the logs that the metalogger drops, and has those archived that are not needed any more.
    fn keep_logs(&self, cancel: &Cancel, mut archive: impl FnMut()) {
        let mut told = String::new();
        while cancel.sleep(timing::MONITOR).is_ok() {
            match self.look_at_logs() {
                Ok(true) => archive(),
                Ok(false) => (),
                Err(e) => {
                    let text = chain(&e);
                    if text != told {
                        log::warn!("cannot keep the logs that the metalogger may drop: {text}");
                    }
                    told = text;
                }
            }
        }
        let kept = dropped_logs::bring_back(&self.machine.data, self.removed());
        // The next run goes on with them.
        let kept = if self.request.superseded() { kept } else { kept.and(dropped_logs::forget(&self.machine.data)) };
        if let Err(e) = kept {
            log::warn!("{}", chain(&e));
        }
    }

    /// Archives what was set aside, beside the role. A run that wants to work meanwhile cancels it, and archives that itself.
    fn archive(&self, cancel: &Cancel) {
        let locks = Locks::of(&self.machine.config.instance);
        let Ok(lock) = locks.and_then(|locks| locks.acquire_if_free(RunKind::Demotion)) else { return };
        let _ = rustix::process::nice(19);
        match commit::archive_leftovers(&self.machine.data, &self.machine.config, cancel) {
            Ok(archives) if archives.is_empty() => (),
            Ok(archives) => log::info!("{} written, read back and compared", archives.join(", ")),
            Err(e) => log::info!("what was set aside is archived by the next run: {}", chain(&e)),
        }
        lock.release();
    }

    fn look_around(&self, ucarp: &Ucarp) {
        let memory = memory::recall(&self.machine.state);
        let statement = Statement { role: Role::StandingBy, version: None, metaid: 0, forked_at: None, answers: false };
        let group =
            Group::join(&self.machine.config, &memory, &self.vip, Some(&ucarp.options), statement, Asking::Never);
        restart::finish(self.machine, &self.request);
        LastHeard::forget(&self.machine.config.instance);
        let (mut freshness, mut follow) = (freshness::Watch::default(), Follow::new(Instant::now()));
        let mut abandoned = Abandoned::default();
        // The machine that has just won advertises at once, and needs a moment to serve.
        let mut ask_at = Instant::now() + ucarp.options.dead_time() + ucarp.options.interval();
        let mut remember_at = Instant::now();
        while self.is_on_duty(ucarp) && group.wait(LOOK, self.cancel).is_ok() {
            if Instant::now() >= remember_at {
                group.remember(&self.machine.state);
                if group.another_claims() {
                    memory::another_serves(&self.machine.state);
                }
                remember_at = Instant::now() + timing::MONITOR;
            }
            if let Some(told) = group.take_connections() {
                connections::keep(&self.machine.config.instance, &told);
            }
            if follow.note_server(group.server()) {
                // That one may die, too, before the next comparison.
                ask_at = ask_at.min(Instant::now() + ucarp.options.dead_time() + ucarp.options.interval());
            }
            follow.look(self.machine, &self.vip, &self.request);
            abandoned.look(&group, &self.machine.config, &self.vip);
            if let Some((served, metaid)) = group.served() {
                freshness.hear(&self.machine.state, served, metaid);
            }
            if Instant::now() >= ask_at {
                let reached = freshness.look(self.machine, &self.vip, self.cancel);
                if let Some(reached) = reached {
                    group.say(|statement| statement.version = Some(reached));
                }
                ask_at = Instant::now() + if reached.is_some() { ASK_EVERY } else { ASK_AGAIN };
            }
        }
        group.leave().leave(&self.machine.config.instance);
    }

    /// Not beside a run of an administrator, which may move them, nor beside the master that it has started.
    fn look_at_logs(&self) -> Result<bool, dropped_logs::Error> {
        if Locks::of(&self.machine.config.instance).is_ok_and(|locks| locks.another_works()) {
            return Ok(false);
        }
        if matches!(self.machine.running(Daemon::Master), Ok(Some(_))) {
            return dropped_logs::forget(&self.machine.data).map(|()| false);
        }
        dropped_logs::keep(&self.machine.data, self.removed())
    }

    fn removed(&self) -> Removed {
        Removed::while_metalogger(matches!(self.machine.running(Daemon::Metalogger), Ok(Some(_))))
    }

    fn is_on_duty(&self, ucarp: &Ucarp) -> bool {
        !self.cancel.is_set() && !self.request.superseded() && ucarp.is_alive()
    }
}
