//! The address of a serving machine, kept where it is.
//!
//! What takes it away besides our hooks (a restart of networkd, `ip addr flush`) does not know what hangs on it, and
//! neither ucarp nor MooseFS notice. It is put back rather than given up: the master and the clients' connections live on,
//! while a failover would block them for seconds. Not at once: whoever flushes goes on until nothing is left. Who takes it
//! away again and again means it: then this machine steps back.
//!
//! A ucarp that was killed leaves the address here, and nobody moves it any more. If it is not started again at once, the
//! address goes before another machine can have won it. Later would be too late: from the moment another machine has the
//! address, its metalogger hears nothing of what is acknowledged here. Whoever claims it then finds a master that knows
//! what it knows itself, and that stops. If nobody does, there is no standby, and the address comes back: this machine
//! serves on alone. The first claim after that is answered in the same way, but with patience: a rival that finds it
//! lacks something yields, and the address comes back again.

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::machine::lock::Role;
use crate::sys::address::{self, Changes};
use crate::sys::arp::Probe;
use crate::sys::logging::chain;
use crate::sys::process::{self, Stat};

use super::{LOOK_EVERY, Monitor, Reason};
use crate::demotion::{LACKING, Rivals};
use crate::machine::memory;
use crate::machine::step_down;

/// More losses of the address than this within [`WINDOW`] are no accident.
const MOST_LOSSES: usize = 3;
const WINDOW: Duration = Duration::from_secs(60);
/// `ip addr flush` comes back until nothing is left: it must find nothing.
const FLUSH: Duration = Duration::from_millis(250);
/// Between the end of the wait for a new ucarp here and the moment in which another machine can win.
const RESTART_MARGIN: Duration = Duration::from_millis(500);
/// How much longer than by our own options the ucarp of another machine may wait.
const OTHER_SKEW: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(100);

impl Monitor<'_> {
    /// Keeps the address until the watch is over.
    pub(super) fn keep_address(&self) -> Option<Reason> {
        let changes = Changes::listen().inspect_err(|e| log::warn!("{}; looking twice in a second", chain(e))).ok();
        let mut losses: Vec<Instant> = Vec::new();
        let mut rivals = Rivals::listen(&self.interface.name, &self.caller.options);
        while self.is_on_duty() {
            if !self.ucarp_works() {
                return self.without_ucarp(&mut losses);
            }
            if !self.holds() && self.cancel.sleep(FLUSH).is_ok() {
                rivals.catch_up(self.cancel);
                if let Some(rival) =
                    rivals.last_heard().filter(|_| self.is_on_duty() && rivals.silent_since().is_none())
                {
                    // Another machine has won, and the hook that took the address away died before it could say so.
                    self.step_aside(&format!("{rival} claims it"));
                    return None;
                }
                match self.put_back(&mut losses) {
                    Ok(true) => log::error!(
                        "{} was taken off {} by something else while this machine serves on it: put back",
                        self.vip,
                        self.interface.name
                    ),
                    Ok(false) => (),
                    Err(reason) => return Some(self.step_back(reason)),
                }
            }
            rivals.catch_up(self.cancel);
            match &changes {
                Some(changes) => changes.wait(LOOK_EVERY, self.cancel),
                None => drop(self.cancel.sleep(LOOK_EVERY)),
            }
        }
        None
    }

    /// Whether ucarp is there, and not stopped by a signal: then it moves nothing either.
    fn ucarp_works(&self) -> bool {
        self.caller.is_alive() && Stat::of(self.caller.pid).is_none_or(|stat| stat.state != 'T')
    }

    pub(super) fn holds(&self) -> bool {
        // What cannot be found out is not taken for a loss.
        address::holds(self.interface, self.vip).unwrap_or(true)
    }

    /// Puts the address back, unless a hook has taken it away or is about to say why it did. Says whether it was missing.
    fn put_back(&self, losses: &mut Vec<Instant>) -> Result<bool, Reason> {
        let turn = self.place.turn();
        if !self.is_on_duty() || self.holds() {
            return Ok(false);
        }
        losses.retain(|loss| loss.elapsed() < WINDOW);
        losses.push(Instant::now());
        if losses.len() > MOST_LOSSES {
            let (vip, interface) = (self.vip, self.interface.name.clone());
            return Err(Reason::TakenAway { vip, interface, times: losses.len(), within: WINDOW });
        }
        let added = address::add(self.interface, self.vip, self.target.config.prefix_length);
        drop(turn);
        added.map_err(|e| Reason::Gone(self.vip, e))?;
        self.announce();
        Ok(true)
    }

    /// Whoever asked for the address in vain meanwhile need not ask again.
    fn announce(&self) {
        let probe = Probe::open(&self.interface.name, self.interface.index, self.vip);
        if let Err(e) = probe.and_then(|probe| probe.announce()) {
            log::warn!("{}", chain(&e));
        }
    }

    /// Finds out whether another machine takes over, and serves on if none does.
    fn without_ucarp(&self, losses: &mut Vec<Instant>) -> Option<Reason> {
        let (vip, options) = (self.vip, &self.caller.options);
        let how = if self.caller.is_alive() { "was stopped by a signal" } else { "is gone" };
        log::error!("ucarp (pid {}) {how} and has left {vip} here: start it again", self.caller.pid);
        let mut rivals = Rivals::listen(&self.interface.name, options);
        let restart = options.dead_time().saturating_sub(options.interval() + LOOK_EVERY + RESTART_MARGIN);
        let mut claimed = self.hear(&mut rivals, restart, |rivals| rivals.last_heard().is_some());
        while self.is_on_duty() {
            self.let_go();
            if !rivals.can_be_heard() {
                self.step_aside("whether another machine claims it cannot be heard");
                return None;
            }
            let patience = if claimed { LACKING + options.interval() * 2 } else { Duration::ZERO };
            if let Some(rival) = self.claim(&mut rivals, patience) {
                memory::remember_masters(&self.target.state, [rival]);
                self.step_aside(&format!("{rival} claims it"));
                return None;
            }
            if let Err(reason) = self.take_back(losses) {
                return Some(self.step_back(reason));
            }
            // Alone until somebody claims it anew.
            let begun = Instant::now();
            claimed = self.hear(&mut rivals, Duration::MAX, |rivals| rivals.heard_since(begun).is_some());
        }
        None
    }

    /// Listens until something is heard that counts, for `time` at most; keeps the address meanwhile if it is here. Says
    /// whether it was heard.
    fn hear(&self, rivals: &mut Rivals<'_>, time: Duration, counts: impl Fn(&Rivals<'_>) -> bool) -> bool {
        let begun = Instant::now();
        while self.is_on_duty() && begun.elapsed() < time {
            if counts(rivals) {
                return true;
            }
            if rivals.hear(LOOK_EVERY.min(time), self.cancel).is_err() {
                break;
            }
        }
        false
    }

    /// The machine that claims the address, and goes on to for so long; `None` if nobody does within the time in which one
    /// would.
    fn claim(&self, rivals: &mut Rivals<'_>, persistent: Duration) -> Option<Ipv4Addr> {
        let begun = Instant::now();
        let nobody = self.caller.options.dead_time() + self.caller.options.interval() + OTHER_SKEW;
        let mut first = None;
        while self.is_on_duty() {
            match rivals.last_heard().filter(|_| rivals.silent_since().is_none()) {
                Some(rival) if first.get_or_insert_with(Instant::now).elapsed() >= persistent => return Some(rival),
                // It has yielded, or nobody is there.
                None if first.is_some() || begun.elapsed() > nobody => return None,
                _ => (),
            }
            rivals.hear(PAUSE, self.cancel).ok()?;
        }
        None
    }

    /// Takes the address away for a while, if it is still this run that decides.
    fn let_go(&self) {
        let turn = self.place.turn();
        if self.is_on_duty() {
            step_down::leave_address(self.interface, self.vip, &self.target.config);
        }
        drop(turn);
    }

    /// Nobody else serves, so this machine goes on.
    fn take_back(&self, losses: &mut Vec<Instant>) -> Result<(), Reason> {
        losses.clear();
        if self.put_back(losses)? {
            log::error!("no other machine takes over: this one serves on {}, without a ucarp", self.vip);
        }
        Ok(())
    }

    /// What ucarp's hook would do: the master is stopped in the background. Without a grace, for the address is gone and
    /// nobody here would bring it back.
    fn step_aside(&self, why: &str) {
        let turn = self.place.turn();
        if !self.is_on_duty() {
            return;
        }
        self.over.store(true, Ordering::SeqCst);
        log::error!("this machine gives {} up: {why}, and ucarp here does not", self.vip);
        let asked = self.place.request(Role::Demotion);
        drop(turn);
        if let Err(e) = self.target.state.note_switchover(self.caller.identity()) {
            log::warn!("the master is stopped later than it could be: {}", chain(&e));
        }
        let mut words: Vec<OsString> = vec![
            "--demote".into(),
            format!("--interface={}", self.interface.name).into(),
            format!("--vip={}", self.vip).into(),
            format!("--hook={}", self.caller).into(),
        ];
        match &asked {
            Ok(ticket) => words.push(format!("--ticket={ticket}").into()),
            Err(e) => log::warn!("{}", chain(e)),
        }
        words.extend(self.config.map(|path| {
            let mut word = OsString::from("--config=");
            word.push(path);
            word
        }));
        let started = process::find_beside("mfs-promote").and_then(|program| process::launch(&program, &words));
        if let Err(e) = started {
            log::error!("the master here is not stopped: {}", chain(&e));
        }
        // One that is stopped would go on as the MASTER that it was, without an address.
        if self.caller.is_alive() && !self.ucarp_works() {
            if let Err(e) = self.caller.resign(Duration::ZERO) {
                log::error!("{}", chain(&e));
            }
        }
    }
}
