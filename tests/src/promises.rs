//! The four promises of the product, checked over the trace of a whole cluster: at every moment that was sampled, not only
//! at the end.
//!
//! | promise | broken if |
//! |---|---|
//! | at most one machine serves | two that the network joins hold the address and listen for longer than [`ELECTION`]; or two that it does not join, for longer than [`SPLIT`] |
//! | nothing is dropped silently | a promotion's plan ends before a version that another machine has answered with, although the copy had received everything |
//! | every run ends | a run began, and its process is gone without a line about its end, although the test did not kill it; or it takes longer than [`RUN`]; or a machine holds the address and nothing listens for longer than [`UNSERVED`] |
//! | hooks never delay ucarp | a hook that ucarp started has not logged its last line within [`HOOK`] |
//!
//! The trace is what is there anyway: the log lines of all machines, what the lab did and saw (looked at every 25 ms), and
//! the versions that were answered through the address. The bounds are for a loaded host; what was seen is printed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use crate::clock::Moment;
use crate::events::{Event, LAB, UP};
use crate::faults::{CABLE_PULLED, FROZEN, ISOLATED, MASTER_KILLED, POWER_OFF};
use crate::log_lines::{DEMOTION_BEGUN, DEMOTION_ENDED, PROMOTION_BEGUN, PROMOTION_ENDED, STAGED, STAGED_TO};
use crate::watch::Answer;

/// Machines that time out together all are MASTER for about a second (ucarp's packet capture delivers packets up to a
/// second late), and a serving machine checks twice a second whether it still may serve.
pub const ELECTION: Duration = Duration::from_secs(2);
/// How long a serving machine that is cut off may take to notice it, after another one began to serve beyond the cut. No
/// client of the other side sees it.
pub const SPLIT: Duration = Duration::from_secs(6);
/// How long a machine may hold the address before something listens on it: an election, a peer that stops its master, the
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
    /// The machine and the process id of each run whose process exists at the end; `None` if that is unknown.
    pub running: Option<BTreeSet<(String, String)>>,
    /// The end of it.
    pub end: Option<Moment>,
}

/// What was found in a trace.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// The longest time in which two machines that the network joined served.
    pub overlap: Duration,
    /// The same, of machines that a cut parted.
    pub split: Duration,
    /// The longest time in which a machine held the address and nothing listened.
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
        let mut judge = Judge {
            trace: self,
            machines: BTreeMap::new(),
            joined: Span::default(),
            parted: Span::default(),
            found: Findings::default(),
        };
        for event in &self.events {
            judge.see(event);
        }
        let last = self.events.last().map_or(Moment(0), |event| event.at);
        judge.end(self.end.unwrap_or(last));
        judge.found
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: Duration| time.as_millis();
        write!(
            f,
            "promises: two served for {} ms at most ({} ms across a cut), an address without a master for {} ms at most, \
             slowest hook {} ms, {} runs ended, {} promotions held what was answered before",
            ms(self.overlap),
            ms(self.split),
            ms(self.unserved),
            ms(self.hook),
            self.runs,
            self.compared
        )?;
        self.broken.iter().try_for_each(|one| write!(f, "\n  BROKEN: {one}"))
    }
}

/// A state that comes and goes, and the longest time that it lasted.
#[derive(Clone, Debug, Default)]
struct Span {
    since: Option<Moment>,
    longest: Duration,
    began: Option<Moment>,
}

impl Span {
    fn set(&mut self, on: bool, now: Moment) {
        match self.since {
            None if on => self.since = Some(now),
            Some(since) if !on => {
                self.since = None;
                if now - since >= self.longest {
                    (self.longest, self.began) = (now - since, Some(since));
                }
            }
            _ => (),
        }
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
#[expect(clippy::struct_excessive_bools, reason = "each is seen by itself")]
struct Machine {
    holds: bool,
    listens: bool,
    cut: bool,
    off: bool,
    unserved: Span,
    runs: BTreeMap<String, Run>,
    call: Option<Call>,
    /// When its copy last stopped receiving all changes.
    disturbed: Option<Moment>,
}

struct Judge<'a> {
    trace: &'a Trace,
    machines: BTreeMap<String, Machine>,
    joined: Span,
    parted: Span,
    found: Findings,
}

impl Judge<'_> {
    fn see(&mut self, event: &Event) {
        if event.text == UP {
            // All copies are in step.
            self.machines.values_mut().for_each(|machine| machine.disturbed = None);
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
            "listens on 9421" => machine.listens = true,
            "does not listen on 9421 any more" => machine.listens = false,
            "network whole again" | "thawed" => machine.cut = false,
            "power off" => {
                (machine.off, machine.cut, machine.runs, machine.call) = (true, true, BTreeMap::new(), None);
            }
            "power on" => (machine.off, machine.cut, machine.disturbed) = (false, false, Some(at)),
            "SIGKILL to mfs-promote" => machine.runs.clear(),
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
        machine.unserved.set(machine.holds && !machine.listens, at);
        self.count(at);
    }

    /// Who serves now.
    fn count(&mut self, now: Moment) {
        let serving = || self.machines.values().filter(|machine| machine.holds && machine.listens);
        let (all, joined) = (serving().count(), serving().filter(|machine| !machine.cut).count());
        self.joined.set(joined > 1, now);
        self.parted.set(all > 1 && joined < 2, now);
    }

    fn see_ucarp(&mut self, event: &Event, text: &str) {
        if let Some((_, line)) = text.split_once("Spawning [") {
            let line = line.trim_end_matches(']').to_owned();
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
            let before = std::mem::take(&mut machine.runs);
            machine.runs.insert(process.to_owned(), run);
            self.found.runs += 1;
            for run in before.into_values().filter(|run| !run.isolated) {
                self.found
                    .broken
                    .push(format!("{}: a {} began while another run had not ended", event.machine, run.what));
            }
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
        let earlier = || self.trace.answers.iter().filter(|answer| answer.at < event.at);
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
            matches!(&*event.text, POWER_OFF | MASTER_KILLED | ISOLATED | CABLE_PULLED | FROZEN)
                && event.machine == last.by
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

    fn end(&mut self, now: Moment) {
        self.joined.set(false, now);
        self.parted.set(false, now);
        (self.found.overlap, self.found.split) = (self.joined.longest, self.parted.longest);
        let begin = self.trace.events.first().map_or(Moment(0), |event| event.at);
        let at = |span: &Span| span.began.map_or(0.0, |began| began.seconds_since(begin));
        for (span, bound, what) in [
            (&self.joined, ELECTION, "two machines served"),
            (&self.parted, SPLIT, "two machines served, parted by a cut,"),
        ] {
            if span.longest > bound {
                self.found.broken.push(format!("{what} for {:?} from {:.3} on", span.longest, at(span)));
            }
        }
        for (name, machine) in &mut self.machines {
            machine.unserved.set(false, now);
            let unserved = &machine.unserved;
            self.found.unserved = self.found.unserved.max(unserved.longest);
            if unserved.longest > UNSERVED {
                self.found.broken.push(format!(
                    "{name} held the address for {:?} from {:.3} on, and nothing served",
                    unserved.longest,
                    at(unserved)
                ));
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

#[cfg(test)]
mod tests;
