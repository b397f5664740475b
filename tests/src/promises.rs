//! The four promises of the product, checked over the trace of a whole cluster: at every moment that was sampled, not only
//! at the end.
//!
//! | promise | broken if |
//! |---|---|
//! | at most one machine serves | a machine answers a client, and another one answers between two answers of it that are less than 100 ms apart, while clients can hear both: no time at all is allowed |
//! | nothing is dropped silently | a promotion's plan ends before a version that another machine has answered with, although the copy had received everything |
//! | every run ends | a run began, and its process is gone without a line about its end, although the test did not kill it; or it takes longer than [`RUN`]; or a machine that is not cut off holds the address and answers nobody for longer than [`UNSERVED`] |
//! | hooks never delay ucarp | a hook that ucarp started has not logged its last line within [`HOOK`] |
//!
//! The trace is what is there anyway: the log lines of all machines, what the lab did and saw (looked at every 25 ms), the
//! versions that were answered through the address, and what each machine by itself answered its probe (`probe.rs`), asked
//! every 20 ms on the machine's own side of the network. The bounds are for a loaded host; what was seen is printed.
//!
//! A machine that answers at some moment between a question and its answer is not caught where its answers and the other
//! machine's only follow each other: two that answer together for less than 20 ms may not be seen. Two that a split parts
//! are counted, and not judged: no client hears both. When it has ended, they have half a second to find each other.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::VIP;
use crate::clock::Moment;
use crate::events::{Event, LAB, UP};
use crate::faults::{
    CABLE_PULLED, FROZEN, FROZEN_GROUP, ISOLATED, MASTER_KILLED, OURS_KILLED, POWER_OFF, SPLIT, STOPPED,
};
use crate::log_lines::{
    DEMOTION_BEGUN, DEMOTION_ENDED, NOT_SERVED, PROMOTION_BEGUN, PROMOTION_ENDED, STAGED, STAGED_TO, WITHOUT_LOCK,
};
use crate::probe::Reply;
use crate::watch::Answer;

mod together;

pub use together::{Between, Overlap};

/// How long a machine may hold the address before it answers clients: an election, a peer that stops its master, the
/// load of the metadata, and the roll-back where that failed.
pub const UNSERVED: Duration = Duration::from_secs(45);
/// How long a run may take. It may wait for a peer to stop its master, and it archives.
pub const RUN: Duration = Duration::from_secs(180);
/// ucarp sends nothing while its hook runs. A hook that takes less than the interval of its advertisements (`-b 1`) delays
/// one of them, and other machines wait for three before they take over. Hooks take milliseconds; the slowest one is
/// printed. This bound is about safety, and far enough above what they take for a host that is busy with other clusters.
pub const HOOK: Duration = Duration::from_secs(1);
/// A copy is complete only once its metalogger has followed the last takeover: what served for less than this may be
/// missing in it.
const FOLLOWED: Duration = Duration::from_secs(20);
/// What was acknowledged this shortly before a crash may exist nowhere else.
const LOSS_WINDOW: Duration = crate::load::LOSS_WINDOW;

/// What is judged.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// Everything that was logged and seen, in order.
    pub events: Vec<Event>,
    /// The versions that were answered through the address, in order.
    pub answers: Vec<Answer>,
    /// What each machine answered its probe, in the order of each machine's answers.
    pub replies: Vec<Reply>,
    /// The machine and the process id of each run whose process exists at the end; `None` if that is unknown.
    pub running: Option<BTreeSet<(String, String)>>,
    /// The end of it.
    pub end: Option<Moment>,
}

/// What was found in a trace.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// The times in which two machines answered clients.
    pub overlaps: Vec<Overlap>,
    /// The longest time in which a machine that was not cut off held the address and answered nobody.
    pub unserved: Duration,
    /// The slowest hook, from ucarp's line that it starts it to the hook's last line.
    pub hook: Duration,
    /// Promotions and demotions that began.
    pub runs: usize,
    /// Promotions whose end was compared with what had been answered before.
    pub compared: usize,
    /// Each broken promise, in words.
    pub broken: Vec<String>,
}

impl Trace {
    /// Judges the whole trace.
    pub fn judge(&self) -> Findings {
        let mut judge = Judge { trace: self, machines: BTreeMap::new(), found: Findings::default() };
        for event in &self.events {
            judge.see(event);
        }
        let last = self.events.last().map_or(Moment(0), |event| event.at);
        judge.end(self.end.unwrap_or(last));
        judge.found
    }
}

impl Findings {
    /// All the time in which two machines answered that clients could hear both.
    pub fn overlap(&self) -> Duration {
        self.together(Between::Nothing)
    }

    /// All the time in which two machines answered with this between them.
    pub fn together(&self, between: Between) -> Duration {
        self.overlaps.iter().filter(|one| one.between == between).map(|one| one.to - one.from).sum()
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: Duration| time.as_millis();
        write!(
            f,
            "promises: two answered for {} ms ({} ms in a split, {} ms after its end), an address without answers for {} ms at most, \
             slowest hook {} ms, {} runs ended, {} promotions held what was answered before",
            ms(self.overlap()),
            ms(self.together(Between::Split)),
            ms(self.together(Between::EndedSplit)),
            ms(self.unserved),
            ms(self.hook),
            self.runs,
            self.compared
        )?;
        self.broken.iter().try_for_each(|one| write!(f, "\n  BROKEN: {one}"))
    }
}

/// A run that has begun.
#[derive(Clone, Debug)]
struct Run {
    begun: Moment,
    what: String,
    /// A machine that is isolated tries again every few seconds and does not log how each try ended.
    isolated: bool,
}

/// A hook that ucarp waits for.
#[derive(Clone, Debug)]
struct Call {
    spawned: Moment,
    line: String,
    process: Option<String>,
}

#[derive(Clone, Debug, Default)]
struct Machine {
    holds: bool,
    cut: bool,
    off: bool,
    /// Since when it holds the address and is not cut off, and the earlier times of this kind.
    since: Option<Moment>,
    held: Vec<(Moment, Moment)>,
    runs: BTreeMap<String, Run>,
    /// A run that has just said that it cannot take the lock: it stops the master beside any other.
    without_lock: Option<String>,
    call: Option<Call>,
    /// When its copy last stopped receiving all changes.
    disturbed: Option<Moment>,
}

impl Machine {
    fn may_be_asked(&mut self, now_it_may: bool, now: Moment) {
        if let (Some(since), false) = (self.since, now_it_may) {
            self.held.push((since, now));
        }
        self.since = self.since.or(Some(now)).filter(|_| now_it_may);
    }

    /// The longest time in which it held the address and answered none of these, and when that began.
    fn unserved(&self, replies: &[&Reply]) -> Option<(Duration, Moment)> {
        let gaps = |(from, to): &(Moment, Moment)| {
            let (from, to) = (*from, *to);
            let answered = replies.iter().map(|reply| reply.received).filter(move |at| (from..=to).contains(at));
            let moments: Vec<Moment> = [from].into_iter().chain(answered).chain([to]).collect();
            moments.windows(2).map(|pair| (pair[1] - pair[0], pair[0])).max()
        };
        self.held.iter().filter_map(gaps).max()
    }
}

struct Judge<'a> {
    trace: &'a Trace,
    machines: BTreeMap<String, Machine>,
    found: Findings,
}

impl Judge<'_> {
    fn see(&mut self, event: &Event) {
        if event.text == UP {
            // All copies are in step.
            self.machines.values_mut().for_each(|machine| machine.disturbed = None);
        }
        if event.text.starts_with(SPLIT) {
            self.machines.values_mut().for_each(|machine| machine.disturbed = Some(event.at));
        }
        if event.machine == LAB {
            return;
        }
        let Some((program, text)) = event.text.split_once(": ") else { return };
        let (program, process) =
            program.split_once('[').map_or((program, ""), |(name, rest)| (name, rest.trim_end_matches(']')));
        match program {
            LAB => self.see_lab(event, text),
            "ucarp" => self.see_ucarp(event, text),
            "vip-up" | "vip-down" => self.see_hook(event, process),
            "mfs-promote" => self.see_run(event, process, text),
            _ => (),
        }
    }

    fn machine(&mut self, event: &Event) -> &mut Machine {
        self.machines.entry(event.machine.clone()).or_default()
    }

    /// What the lab did and saw.
    fn see_lab(&mut self, event: &Event, text: &str) {
        let at = event.at;
        let machine = self.machine(event);
        match text {
            "holds the address" => machine.holds = true,
            "does not hold the address any more" => machine.holds = false,
            "network whole again" | "thawed" => machine.cut = false,
            "power off" => {
                (machine.off, machine.cut, machine.runs, machine.call) = (true, true, BTreeMap::new(), None);
            }
            "power on" => (machine.off, machine.cut, machine.disturbed) = (false, false, Some(at)),
            "SIGKILL to mfs-promote" => machine.runs.clear(),
            _ if event.text == OURS_KILLED => (machine.runs, machine.call) = (BTreeMap::new(), None),
            "SIGKILL to ucarp" => machine.call = None,
            _ => (),
        }
        let cut = matches!(&*event.text, CABLE_PULLED | ISOLATED | FROZEN);
        if cut {
            (machine.cut, machine.call) = (true, None);
            machine.runs.values_mut().for_each(|run| run.isolated = true);
        }
        let starved = text.starts_with("blocked") || text == "its metalogger receives nothing";
        if cut || starved || text.ends_with(" to mfsmetalogger") {
            machine.disturbed = Some(at);
        }
        if matches!(&*event.text, STOPPED | FROZEN_GROUP) {
            machine.call = None;
        }
        machine.may_be_asked(machine.holds && !machine.cut, at);
    }

    fn see_ucarp(&mut self, event: &Event, text: &str) {
        if let Some((_, line)) = text.split_once("Spawning [") {
            let line = line.trim_end_matches(']').to_owned();
            // The ucarp of another file system.
            if !line.split(' ').any(|word| word == VIP.to_string()) {
                return;
            }
            let machine = self.machine(event);
            // Its processes end one after the other: a ucarp may see the interface go first.
            machine.call = (!machine.off).then_some(Call { spawned: event.at, line, process: None });
        }
    }

    /// A line of a hook: the last one that it says is the end of it.
    fn see_hook(&mut self, event: &Event, process: &str) {
        let Some(call) = &mut self.machine(event).call else { return };
        if call.process.get_or_insert_with(|| process.to_owned()) == process {
            let took = event.at - call.spawned;
            self.found.hook = self.found.hook.max(took);
            if took > HOOK {
                let line = self.machine(event).call.take().map(|call| call.line).unwrap_or_default();
                self.found.broken.push(format!("{}: {line} delayed ucarp for {took:?}", event.machine));
            }
        }
    }

    fn see_run(&mut self, event: &Event, process: &str, text: &str) {
        let begun = match text {
            PROMOTION_BEGUN => Some("promotion"),
            DEMOTION_BEGUN => Some("demotion"),
            _ => None,
        };
        if let Some(what) = begun {
            let machine = self.machine(event);
            let run = Run { begun: event.at, what: what.to_owned(), isolated: machine.cut };
            let without_lock = machine.without_lock.take().is_some_and(|one| one == process);
            // Without the lock another one may be at work.
            let before = if without_lock { BTreeMap::new() } else { std::mem::take(&mut machine.runs) };
            machine.runs.insert(process.to_owned(), run);
            self.found.runs += 1;
            for run in before.into_values().filter(|run| !run.isolated) {
                self.found
                    .broken
                    .push(format!("{}: a {} began while another run had not ended", event.machine, run.what));
            }
        } else if text.ends_with(WITHOUT_LOCK) {
            self.machine(event).without_lock = Some(process.to_owned());
        } else if text.starts_with(PROMOTION_ENDED) || text.starts_with(DEMOTION_ENDED) {
            self.machine(event).runs.remove(process);
        } else if text.starts_with(STAGED) {
            self.compare(event, text);
        }
    }

    /// What is about to be served holds everything that another machine has answered with.
    fn compare(&mut self, event: &Event, text: &str) {
        let number =
            |text: &str| text.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse::<u64>().ok());
        let Some(end) = text.split_once(STAGED_TO).and_then(|(_, rest)| number(rest)) else { return };
        let named = self.not_served(event.at);
        let is_named = |answer: &Answer| {
            named.iter().any(|(machine, versions)| *machine == answer.by && versions.contains(&answer.version))
        };
        let earlier = || self.trace.answers.iter().filter(|answer| answer.at < event.at && !is_named(answer));
        let Some(last) = earlier().filter(|answer| answer.by != event.machine).max_by_key(|answer| answer.version)
        else {
            return;
        };
        let mut stint: Vec<&Answer> =
            earlier().rev().skip_while(|answer| *answer != last).take_while(|answer| answer.by == last.by).collect();
        stint.reverse();
        let up = self.trace.events.iter().find(|event| event.text == UP).map_or(Moment(0), |event| event.at);
        // Before a cluster is up, the lab has seen to it that all copies are in step.
        let long = stint.first().is_some_and(|first| first.at <= up || last.at - first.at >= FOLLOWED);
        let disturbed = self.machines.get(&event.machine).and_then(|machine| machine.disturbed);
        let whole =
            disturbed.is_none_or(|since| earlier().any(|answer| answer.by == event.machine && answer.at > since));
        if !(long && whole) {
            return;
        }
        let gone = |event: &Event| {
            let fault = matches!(
                &*event.text,
                POWER_OFF | MASTER_KILLED | ISOLATED | CABLE_PULLED | FROZEN | STOPPED | FROZEN_GROUP
            );
            fault && event.machine == last.by
        };
        let crash = self.trace.events.iter().rev().find(|crash| crash.at < event.at && gone(crash));
        let counts =
            |answer: &&&Answer| crash.is_none_or(|crash| answer.at < crash.at && crash.at - answer.at > LOSS_WINDOW);
        let Some(known) = stint.iter().filter(counts).map(|answer| answer.version).max() else { return };
        self.found.compared += 1;
        if end < known {
            self.found.broken.push(format!(
                "{}: promotes history up to {end}, {} had answered with {known}",
                event.machine, last.by
            ));
        }
    }

    /// What machines have said to be in no served history: the versions with which each of them answered there.
    fn not_served(&self, before: Moment) -> Vec<(&str, RangeInclusive<u64>)> {
        let said = self.trace.events.iter().take_while(|event| event.at < before);
        said.filter_map(|event| Some((&*event.machine, not_served(&event.text)?))).collect()
    }

    fn end(&mut self, now: Moment) {
        self.found.overlaps = together::overlaps(&self.trace.replies, &self.trace.events);
        let begin = self.trace.events.first().map_or(Moment(0), |event| event.at);
        for both in self.found.overlaps.iter().filter(|both| both.between == Between::Nothing) {
            let [one, other] = &both.machines;
            let at = both.from.seconds_since(begin);
            self.found
                .broken
                .push(format!("{one} and {other} both answered for {:?} from {at:.3} on", both.to - both.from));
        }
        for (name, machine) in &mut self.machines {
            machine.may_be_asked(false, now);
            let own: Vec<&Reply> = self.trace.replies.iter().filter(|reply| reply.by == *name).collect();
            let (unserved, since) = machine.unserved(&own).unwrap_or((Duration::ZERO, now));
            self.found.unserved = self.found.unserved.max(unserved);
            if unserved > UNSERVED {
                let at = since.seconds_since(begin);
                self.found
                    .broken
                    .push(format!("{name} held the address for {unserved:?} from {at:.3} on, and answered nobody"));
            }
            for (process, run) in machine.runs.iter().filter(|(_, run)| !run.isolated) {
                let run_of = format!("{name}: the {} of process {process}", run.what);
                let running = &self.trace.running;
                if running.as_ref().is_some_and(|all| !all.contains(&(name.clone(), process.clone()))) {
                    self.found.broken.push(format!("{run_of} is gone and has not logged how it ended"));
                } else if now - run.begun > RUN {
                    self.found.broken.push(format!("{run_of} has not ended after {:?}", now - run.begun));
                }
            }
            if let Some(call) = machine.call.as_ref().filter(|call| call.process.is_none() && now - call.spawned > HOOK)
            {
                self.found.broken.push(format!("{name}: {} has said nothing for {:?}", call.line, now - call.spawned));
            }
        }
    }
}

/// The versions that a line says to be in no served history. The version that a master answers with is one more than its last
/// change.
fn not_served(text: &str) -> Option<RangeInclusive<u64>> {
    let (_, rest) = text.split_once(NOT_SERVED)?;
    let mut numbers = rest.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse::<u64>().ok());
    let (first, last) = (numbers.next()?, numbers.next()?);
    Some(first + 1..=last + 1)
}

#[cfg(test)]
mod tests;
