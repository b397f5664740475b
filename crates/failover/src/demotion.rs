//! Going back to metalogger duty.
//!
//! The hook has taken the address away already, so the master serves nobody. Why the hook was called it is not told:
//! ucarp was restarted beside a healthy master (the address comes back after ucarp's dead time), or a rival won. The
//! grace waits for the answer, and listens: a rival that claimed the address and falls silent has found that this machine
//! knows more, and the address comes back a dead time after its last word. One that goes on has found that it has all
//! that is known here, and waits for this master to stop.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::machine::lock::{Lock, Place};
use crate::moosefs::{self, Daemon};
use crate::sys::address;
use crate::sys::cancel::{Cancel, Cancelled};
use crate::ucarp::Options;
use crate::ucarp::carp::{Advertisement, Listener};

use crate::machine::memory;
use crate::machine::recover;
use crate::machine::run::Run;
use crate::machine::{self, Machine};
use crate::sys::text::human;

/// Added to ucarp's dead time and its polling step.
const MARGIN: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Within this a rival finds that it lacks something, and yields. One that goes on waits for the master here to stop.
pub(crate) const LACKING: Duration = Duration::from_secs(3);
/// Rivals that come and go prolong the grace to so many at most.
const GRACES: u32 = 4;

/// Why the demotion failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// An interrupted promotion.
    #[error("an earlier run was interrupted, and its work can neither be finished nor undone")]
    Recover(#[from] recover::Error),
    /// Whether a master runs.
    #[error(transparent)]
    MooseFs(#[from] moosefs::Error),
    /// The daemons.
    #[error(transparent)]
    Machine(#[from] machine::Error),
    /// A later call.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// How a demotion went well.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Demoted {
    /// No master was running.
    NothingToDo,
    /// The address came back: the master is still needed.
    Kept,
    /// The master is stopped.
    Stopped,
}

/// A demotion in progress.
pub(crate) struct Demotion<'a> {
    pub(crate) target: &'a Machine,
    /// Where the address was, if a hook called.
    pub(crate) address: Option<(&'a str, Ipv4Addr)>,
    /// How long to wait for the address to come back.
    pub(crate) grace: Duration,
    /// The options of the ucarp that called, for what a rival says.
    pub(crate) options: &'a Options,
    pub(crate) lock: &'a Lock,
    pub(crate) cancel: &'a Cancel,
    pub(crate) run: &'a mut Run,
}

impl Demotion<'_> {
    /// Stops the master, unless the address comes back within the grace.
    pub(crate) fn demote(mut self) -> Result<Demoted, Failure> {
        // A master that must stop does so whatever else is wrong.
        let recovered = recover::finish_interrupted(self.target, self.run);
        let demoted = self.stop_master()?;
        recovered?;
        Ok(demoted)
    }

    fn stop_master(&mut self) -> Result<Demoted, Failure> {
        if self.target.running(Daemon::Master)?.is_none() {
            memory::stopped_serving(&self.target.state);
            self.run.done("check", format_args!("no master runs here"));
            return Ok(Demoted::NothingToDo);
        }
        if self.address_comes_back()? {
            self.run.done("grace", format_args!("the address is back; the master was not touched"));
            return Ok(Demoted::Kept);
        }
        self.run.done("grace", format_args!("the address did not come back"));
        memory::stopped_serving(&self.target.state);
        self.target.stop(Daemon::Master)?;
        self.run.done("stop", format_args!("mfsmaster stopped"));
        if self.target.running(Daemon::Metalogger)?.is_none() {
            self.target.start_metalogger()?;
            self.run.done("metalogger", format_args!("started"));
        }
        Ok(Demoted::Stopped)
    }

    fn address_comes_back(&self) -> Result<bool, Failure> {
        let Some((interface, vip)) = self.address else { return Ok(false) };
        log::info!("waiting {} in case {vip} comes back: a restart of ucarp looks just like this", human(self.grace));
        let begun = Instant::now();
        let mut rivals = Rivals::listen(interface, self.options);
        let mut end = begun + self.grace;
        loop {
            // An interface that is gone holds nothing.
            let back = address::interface(interface).and_then(|found| address::holds(&found, vip)).unwrap_or(false);
            if back || self.lock.superseded() {
                return Ok(true);
            }
            rivals.hear(LOOK_EVERY, self.cancel)?;
            if let Some(rival) = rivals.goes_on() {
                log::info!("{rival} goes on claiming {vip}: it waits for this master to stop");
                return Ok(false);
            }
            if Instant::now() < end {
                continue;
            }
            match rivals.silent_since() {
                Some(last_word) if last_word + self.grace > end && begun.elapsed() < self.grace * GRACES => {
                    log::info!("the rival fell silent; waiting on for {vip} to come back");
                    end = last_word + self.grace;
                }
                _ => return Ok(false),
            }
        }
    }
}

/// Rivals that advertise while we wait.
pub(crate) struct Rivals<'a> {
    listener: Option<Listener>,
    options: &'a Options,
    own: Vec<Ipv4Addr>,
    /// Since when one has been heard without a pause.
    first: Option<Instant>,
    last: Option<(Instant, Advertisement)>,
}

impl<'a> Rivals<'a> {
    pub(crate) fn listen(interface: &str, options: &'a Options) -> Self {
        let listener = address::interface(interface)
            .ok()
            .and_then(|found| Listener::open(&found.name, found.index, options.group).ok());
        Self { listener, options, own: address::own_addresses().unwrap_or_default(), first: None, last: None }
    }

    /// Listens for `time`, or less if something is heard.
    pub(crate) fn hear(&mut self, time: Duration, cancel: &Cancel) -> Result<(), Cancelled> {
        let Some(listener) = &self.listener else { return cancel.sleep(time) };
        match listener.next(time, cancel) {
            Ok(Some(heard)) => self.take(heard),
            Ok(None) => (),
            Err(_) => self.listener = None,
        }
        cancel.check()
    }

    /// Takes in what has arrived already.
    pub(crate) fn catch_up(&mut self, cancel: &Cancel) {
        while let Some(Ok(Some(heard))) = self.listener.as_ref().map(|listener| listener.next(Duration::ZERO, cancel)) {
            self.take(heard);
        }
    }

    fn take(&mut self, heard: Advertisement) {
        if heard.vhid == self.options.vhid && !self.own.contains(&heard.source) {
            let paused = self.silent_since().is_some();
            self.first = self.first.filter(|_| !paused).or_else(|| Some(Instant::now()));
            self.last = Some((Instant::now(), heard));
        }
    }

    /// Whether they can be heard at all.
    pub(crate) fn can_be_heard(&self) -> bool {
        self.listener.is_some()
    }

    /// The real address of the rival that was heard last.
    pub(crate) fn last_heard(&self) -> Option<Ipv4Addr> {
        self.last.map(|(_, heard)| heard.source)
    }

    /// The real address of the rival that was heard last, if that was after `then`.
    pub(crate) fn heard_since(&self, then: Instant) -> Option<Ipv4Addr> {
        self.last.filter(|(when, _)| *when > then).map(|(_, heard)| heard.source)
    }

    /// The rival that still advertised when it must have found out whether it lacks something.
    fn goes_on(&self) -> Option<Ipv4Addr> {
        self.heard_since(self.first? + LACKING)
    }

    /// When the last rival said its last word, if two of its advertisements are missing since.
    pub(crate) fn silent_since(&self) -> Option<Instant> {
        self.last.filter(|(when, heard)| when.elapsed() > heard.interval() * 2).map(|(when, _)| when)
    }
}

/// Waits for the machine that has the address to say so, and returns its real address: it is the one to ask for a
/// master later. Nobody waits for this, and the lock is free; a later call ends it.
pub(crate) fn listen(interface: &str, options: &Options, place: &Place, cancel: &Cancel) -> Option<Ipv4Addr> {
    let end = Instant::now() + options.dead_time() + options.interval();
    let mut rivals = Rivals::listen(interface, options);
    while rivals.can_be_heard() && rivals.last.is_none() && Instant::now() < end {
        rivals.hear(LOOK_EVERY, cancel).ok()?;
        if place.superseded() {
            return None;
        }
    }
    rivals.last_heard()
}

/// How long ucarp takes at most to become MASTER again after its start: its dead time and one step of its polling.
pub(crate) fn grace(options: &Options) -> Duration {
    options.dead_time() + options.interval() + MARGIN
}
