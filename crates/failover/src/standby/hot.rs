//! Keeps a hot standby: a master that has loaded the copy here and replays each change as it comes.
//!
//! | it sees | then |
//! |---|---|
//! | no such master, and a copy that could be served | it loads one |
//! | changes that the metalogger has written | it feeds them |
//! | another image, other settings, another program, a log that does not go on, a master that has ended | it ends that master and loads another one |
//!
//! What does not work is tried again after a pause that grows. Whatever happens here, a promotion can always start a master as
//! if there were none.

use std::time::{Duration, Instant};

use log::Level;

use crate::machine::Machine;
use crate::machine::config::StandbyMode;
use crate::machine::lock::{Locks, Request};
use crate::machine::notify::{self, Event};
use crate::machine::standby_master::{self, Cold, Error, Hold, HotState, StandbyMaster};
use crate::metadata::stage::Tail;
use crate::moosefs::waiting;
use crate::sys::cancel::Cancel;
use crate::sys::logging::chain;
use crate::sys::text::human;
use crate::timing;
use crate::ucarp::Ucarp;
use crate::vip::VirtualIp;

use super::stand_back::{self, Changed};

/// Between two looks at the metalogger's log.
const FOLLOW_EVERY: Duration = Duration::from_millis(100);
/// Between two looks at everything else.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// After the first failure; it doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// While a promotion would be refused: nothing is loaded, and the others wait for this machine in each election.
const WHILE_REFUSED: Duration = Duration::from_secs(30);
/// A master that was hot for so long was well.
const WELL: Duration = Duration::from_secs(60);
/// So many masters in a row that end by themselves were not killed by chance.
const REPLAYS: u32 = 2;

/// Keeps one until `cancel` is set or a later call is made; that one may take it over.
pub(super) fn keep(machine: &Machine, vip: &VirtualIp, ucarp: &Ucarp, request: &Request, cancel: &Cancel) {
    // The other machines of the group are heard first: the next epoch depends on them.
    if cancel.sleep(FIRST_PAUSE).is_ok() {
        let stand_back = stand_back::Watch::new(&machine.config.instance, ucarp, request);
        let (pause, longest_pause, told) = (FIRST_PAUSE, LONGEST_PAUSE, String::new());
        Keeper {
            machine,
            vip,
            request,
            cancel,
            pause,
            longest_pause,
            told,
            not_replayed: 0,
            refused: false,
            stand_back,
        }
        .stay();
    }
    if !request.superseded() {
        end(machine);
    }
}

/// Ends one that nobody will feed.
pub(super) fn end(machine: &Machine) {
    let ended = Hold::of(machine, timing::STANDBY_LEFT).and_then(|_hold| standby_master::end(machine));
    if let Err(e) = ended {
        log::warn!("cannot end the hot standby: {}", chain(&e));
    }
}

struct Keeper<'a> {
    machine: &'a Machine,
    vip: &'a VirtualIp,
    request: &'a Request,
    cancel: &'a Cancel,
    pause: Duration,
    longest_pause: Duration,
    /// The last reason in the log.
    told: String,
    /// How often in a row one has ended by itself before it was looked at.
    not_replayed: u32,
    /// A promotion would have been refused at the last look.
    refused: bool,
    stand_back: stand_back::Watch<'a>,
}

impl Keeper<'_> {
    fn is_on_duty(&self) -> bool {
        !self.cancel.is_set() && !self.request.superseded()
    }

    /// Whether a run of an administrator is at work, which asks for no ticket.
    fn another_works(&self) -> bool {
        Locks::of(&self.machine.config.instance).is_ok_and(|locks| locks.another_works())
    }

    fn stay(mut self) {
        while self.is_on_duty() {
            let begun = Instant::now();
            let ended = if self.another_works() { Ok(()) } else { self.run() };
            if !self.is_on_duty() {
                break;
            }
            match ended {
                Ok(()) => self.pause = FIRST_PAUSE,
                Err(e) => self.note(&e, begun.elapsed()),
            }
            if self.cancel.sleep(self.pause).is_err() {
                break;
            }
            self.pause = (self.pause * 2).min(self.longest_pause);
        }
        self.report(None);
    }

    /// Keeps one until another run is to have it.
    fn run(&mut self) -> Result<(), Error> {
        if waiting::master(&self.machine.data)?.is_none() {
            // A promotion does not wait for that.
            standby_master::check(self.machine, self.cancel)?;
        }
        let hold = Hold::of(self.machine, timing::STANDBY_LEFT)?;
        let kept = self.keep_one(&hold).and_then(StandbyMaster::leave);
        if kept.is_err() {
            standby_master::end(self.machine)?;
        }
        kept
    }

    /// Loads one and feeds it until another run is to have it; returns it then.
    fn keep_one(&mut self, hold: &Hold) -> Result<StandbyMaster, Error> {
        let (mut standby, mut tail) = self.begin(hold)?;
        self.told.clear();
        self.refused = false;
        self.report(Some(&standby.report()));
        let (begun, mut look_at) = (Instant::now(), Instant::now() + LOOK_EVERY);
        while !self.request.superseded() && !self.another_works() {
            // Not cut short: half a line would make it useless to the next run.
            standby.follow(self.machine, &mut tail, Cancel::never())?;
            if !standby.master().is_alive() {
                return Err(Error::Replay);
            }
            if Instant::now() >= look_at {
                standby.check(self.machine)?;
                // One that ends over a change does so as soon as it has read it.
                self.not_replayed = 0;
                self.stand_back.unknown();
                if begun.elapsed() > WELL {
                    self.stand_back.able();
                }
                self.report(Some(&standby.report()));
                look_at = Instant::now() + LOOK_EVERY;
            }
            match self.cancel.sleep(FOLLOW_EVERY) {
                Err(e) if !self.request.superseded() => return Err(e.into()),
                _ => (),
            }
        }
        Ok(standby)
    }

    fn begin(&self, hold: &Hold) -> Result<(StandbyMaster, Tail), Error> {
        if let Some(taken) = StandbyMaster::take_for_standby(self.machine, hold, self.cancel)? {
            log::info!("hot standby: process {} goes on from version {}", taken.0.master().pid, taken.0.end());
            return Ok(taken);
        }
        let begun = Instant::now();
        let wanted = || self.is_on_duty() && !self.another_works();
        let (standby, tail) = StandbyMaster::load(self.machine, hold, &wanted, self.cancel)?;
        log::info!(
            "hot standby: mfsmaster (process {}) has loaded version {} in {} and follows the metalogger",
            standby.master().pid,
            standby.end(),
            human(begun.elapsed())
        );
        Ok((standby, tail))
    }

    /// Says why there is none: a reason that lasts is said once.
    fn note(&mut self, why: &Error, after: Duration) {
        if after > WELL {
            self.pause = FIRST_PAUSE;
        }
        self.not_replayed = if matches!(why, Error::Replay | Error::Ended(_)) { self.not_replayed + 1 } else { 0 };
        let text = chain(why);
        let known = self.told == text;
        let kind = match why {
            _ if self.not_replayed >= REPLAYS => Cold::NotReplayed,
            why if why.keeps_from_serving() => Cold::Refused,
            why if why.is_of_the_machine() && self.machine.config.standby != StandbyMode::Hot => Cold::NotHere,
            _ => Cold::ForNow,
        };
        if self.not_replayed == REPLAYS {
            log::error!("the copy here cannot be replayed, so this machine could not serve: {text}");
            let VirtualIp { interface, address } = self.vip;
            notify::tell_without_waiting(&self.machine.config, Event::Alarm, interface, *address, text.clone());
        } else if kind == Cold::Refused {
            // Its numbers grow.
            let level = if self.refused { Level::Debug } else { Level::Warn };
            log::log!(level, "a promotion would fail now, so there is no hot standby either: {text}");
        } else if !known {
            let level = match kind {
                _ if matches!(why, Error::NotWanted) => Level::Debug,
                Cold::NotHere => Level::Info,
                _ => Level::Warn,
            };
            log::log!(level, "no hot standby for now: {text}. A promotion starts mfsmaster as if there were none");
        }
        self.report(Some(&HotState::Cold { why: text.clone(), kind }));
        self.refused = kind == Cold::Refused;
        self.longest_pause = if self.refused { WHILE_REFUSED } else { LONGEST_PAUSE };
        match kind {
            Cold::NotReplayed | Cold::Refused => self.may_stand_back(&text),
            // The plan was made before that was found out.
            _ if why.is_of_the_machine() => self.stand_back.able(),
            _ => self.stand_back.unknown(),
        }
        self.told = text;
    }

    fn may_stand_back(&mut self, why: &str) {
        if self.stand_back.unable(why) == Changed::StandsBack {
            let VirtualIp { interface, address } = self.vip;
            notify::tell_without_waiting(&self.machine.config, Event::Alarm, interface, *address, why.to_owned());
        }
    }

    fn report(&self, report: Option<&HotState>) {
        if let Err(e) = HotState::tell(report, &self.machine.config.instance) {
            log::debug!("cannot report the hot standby: {}", chain(&e));
        }
    }
}
