//! Watches who holds the address, who listens and who answers, from outside the machines, and notes changes in the event log.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::Result;
use crate::VIP;
use crate::clock::Moment;
use crate::events::{EventLog, LAB};
use crate::locked;
use crate::machine::{Machine, Role};
use crate::moosefs;
use crate::network;
use crate::probe::{self, Replies, Reply};
use crate::switch::{Switch, hardware_address};

/// How often each machine is looked at.
const INTERVAL: Duration = Duration::from_millis(25);
/// How often the listeners of a machine are listed that holds the address.
const LISTENERS_OF_HOLDER: Duration = Duration::from_millis(100);
/// And those of one that does not.
const LISTENERS_OF_OTHERS: Duration = Duration::from_secs(1);
/// How long the master may take to answer before it counts as silent.
const ANSWER: Duration = Duration::from_millis(500);
/// While nobody answers, the pause between two questions and the patience with connecting: the first answer is then seen
/// within hundredths of a second. A question sent to a machine that is gone would hold up the next one.
const SILENCE: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(20)];

/// A master begins to listen.
pub(crate) const LISTENS: &str = "lab: listens on 9421";
/// How the event log says that another machine answers now.
pub(crate) const ANSWERS: &str = "lab: answers on 9421 through the address";

/// A version that was answered through the address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// When.
    pub at: Moment,
    /// The machine.
    pub by: String,
    /// The metadata version.
    pub version: u64,
}

/// What was seen last, and the answers so far.
#[derive(Debug, Default)]
struct Seen {
    answering: Option<(String, Moment)>,
    answers: Vec<Answer>,
}

/// Threads that end with this value.
#[derive(Debug)]
pub(crate) struct Watch {
    seen: Arc<Mutex<Seen>>,
    replies: Replies,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Watch {
    /// The address is asked from the switch; and each machine by itself, if `probed`.
    pub(crate) fn start(
        machines: &[Arc<Machine>],
        switch: &Switch,
        events: &Arc<EventLog>,
        probed: bool,
    ) -> Result<Self> {
        let masters = machines.iter().filter(|machine| matches!(machine.role, Role::Master(_)));
        let masters: Vec<Arc<Machine>> = masters.cloned().collect();
        let (seen, stop) = (Arc::<Mutex<Seen>>::default(), Arc::new(AtomicBool::new(false)));
        let replies = Replies::default();
        let mut threads = Vec::new();
        for machine in masters.iter().filter(|_| probed) {
            threads.push(probe::start((&machine.name, machine.address), switch, &replies, &stop)?);
        }
        {
            let (masters, events, stop) = (masters.clone(), Arc::clone(events), Arc::clone(&stop));
            threads.push(thread::spawn(move || sample(&masters, &events, &stop)));
        }
        let observer = switch.pid();
        {
            let (events, seen, stop) = (Arc::clone(events), Arc::clone(&seen), Arc::clone(&stop));
            threads.push(thread::spawn(move || match network::enter(observer) {
                Ok(()) => observe(&masters, &events, &seen, &stop),
                Err(error) => drop(events.note(LAB, &format!("lab: cannot watch the address: {error}"))),
            }));
        }
        Ok(Self { seen, replies, stop, threads })
    }

    /// The machine that answers INFO through the virtual address, and since when.
    pub(crate) fn answering(&self) -> Option<(String, Moment)> {
        locked(&self.seen).answering.clone()
    }

    /// All answers so far.
    pub(crate) fn answers(&self) -> Vec<Answer> {
        locked(&self.seen).answers.clone()
    }

    /// What each machine has answered its probe so far, in the order of arrival.
    pub(crate) fn replies(&self) -> Vec<Reply> {
        locked(&self.replies).clone()
    }

    /// The last question of its probe that this machine has answered.
    pub(crate) fn last_reply(&self, name: &str) -> Option<Reply> {
        locked(&self.replies).iter().rev().find(|reply| reply.by == name).cloned()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// What was last seen of a machine.
#[derive(Default)]
struct Sight {
    holds: bool,
    listens: bool,
    listeners_read: Option<Instant>,
}

impl Sight {
    /// Looks again. The kernel takes milliseconds to list listeners, so they are read seldom where it matters little.
    fn look(&mut self, machine: &Machine) {
        let Ok(init) = machine.init() else {
            *self = Self::default();
            return;
        };
        self.holds = network::holds(init, VIP);
        let pause = if self.holds { LISTENERS_OF_HOLDER } else { LISTENERS_OF_OTHERS };
        if self.listeners_read.is_none_or(|last| last.elapsed() >= pause) {
            self.listens = network::listens(init);
            self.listeners_read = Some(Instant::now());
        }
    }
}

/// Looks at each machine's addresses and listeners.
fn sample(masters: &[Arc<Machine>], events: &EventLog, stop: &AtomicBool) {
    let mut sights: BTreeMap<&str, Sight> = BTreeMap::new();
    while !stop.load(Ordering::Relaxed) {
        for machine in masters {
            let sight = sights.entry(&machine.name).or_default();
            let before = [sight.holds, sight.listens];
            sight.look(machine);
            let now = [sight.holds, sight.listens];
            for (index, [begin, end]) in CHANGES.into_iter().enumerate() {
                if now[index] != before[index] {
                    events.note(&machine.name, if now[index] { begin } else { end });
                }
            }
        }
        thread::sleep(INTERVAL);
    }
}

const CHANGES: [[&str; 2]; 2] = [
    ["lab: holds the address", "lab: does not hold the address any more"],
    [LISTENS, "lab: does not listen on 9421 any more"],
];

/// Asks INFO through the virtual address and finds out by the hardware address who answered.
fn observe(masters: &[Arc<Machine>], events: &EventLog, seen: &Mutex<Seen>, stop: &AtomicBool) {
    let named = |hardware: String| {
        let machine = masters.iter().find(|machine| hardware_address(machine.address) == hardware);
        machine.map_or(hardware, |machine| machine.name.clone())
    };
    while !stop.load(Ordering::Relaxed) {
        let before = locked(seen).answering.clone();
        let [pause, connecting] = if before.is_some() { [INTERVAL, ANSWER] } else { SILENCE };
        let answer = moosefs::info(network::client_port(VIP), connecting, ANSWER);
        let at = Moment::now();
        let answer = answer.ok().and_then(|version| Some((named(network::neighbour(VIP)?), version)));
        if let Some((by, version)) = answer.clone() {
            locked(seen).answers.push(Answer { at, by, version });
        }
        let who = answer.map(|(name, _)| name);
        if who.as_ref() != before.as_ref().map(|(name, _)| name) {
            let at = match (&who, &before) {
                (Some(name), _) => events.note(name, ANSWERS),
                (None, Some((name, _))) => events.note(name, "lab: does not answer through the address any more"),
                (None, None) => Moment::now(),
            };
            locked(seen).answering = who.map(|name| (name, at));
        }
        thread::sleep(pause);
    }
}
