//! Whether two machines answered together, from what each of them answered its probe.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::Moment;
use crate::events::Event;
use crate::faults::{JOINED, SPLIT};
use crate::probe::Reply;

/// A machine that answers twice within this has served all the time between, and no other one may have answered then: to
/// hand the service over and to get it back takes a hundred times as long.
pub(crate) const CLOSE: Duration = Duration::from_millis(100);

/// After a split has ended, two machines that served on both sides of it have this long to find each other.
pub(crate) const FOUND: Duration = Duration::from_millis(500);

/// What was between two machines that answered together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Between {
    /// Nothing: clients could hear both.
    Nothing,
    /// A split that has ended a moment ago.
    EndedSplit,
    /// A split: no client could hear both.
    Split,
}

/// Two machines answered clients together: from the first to the last answer that one of them gave between two answers of
/// the other one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// The question of the first such answer was sent.
    pub from: Moment,
    /// The last such answer was here.
    pub to: Moment,
    /// The two.
    pub machines: [String; 2],
    /// What was between them.
    pub between: Between,
}

/// All overlaps in a trace, in the order in which they began.
pub(crate) fn overlaps(replies: &[Reply], events: &[Event]) -> Vec<Overlap> {
    let mut by_machine: BTreeMap<&str, Vec<&Reply>> = BTreeMap::new();
    for reply in replies {
        by_machine.entry(&reply.by).or_default().push(reply);
    }
    let splits = splits(events);
    let mut found = Vec::new();
    for (one, around) in &by_machine {
        for (other, replies) in by_machine.iter().filter(|(other, _)| *other != one) {
            let mut machines = [(*one).to_owned(), (*other).to_owned()];
            machines.sort();
            for pair in around.windows(2).filter(|pair| pair[1].sent - pair[0].received < CLOSE) {
                let first = replies.partition_point(|reply| reply.sent < pair[0].received);
                for reply in replies[first..].iter().take_while(|reply| reply.received <= pair[1].sent) {
                    let between = between(&splits, &machines, pair[0].sent, pair[1].received);
                    let (from, to, machines) = (reply.sent, reply.received, machines.clone());
                    found.push(Overlap { from, to, machines, between });
                }
            }
        }
    }
    joined(found)
}

/// What was between these machines at some time from one moment to another one.
fn between(splits: &[Split], machines: &[String; 2], from: Moment, to: Moment) -> Between {
    let parting = || splits.iter().filter(|split| split.parts(machines) && split.from <= to);
    if parting().any(|split| from <= split.to) {
        Between::Split
    } else if parting().any(|split| from - split.to < FOUND) {
        Between::EndedSplit
    } else {
        Between::Nothing
    }
}

/// One overlap instead of several that follow each other closely.
fn joined(mut all: Vec<Overlap>) -> Vec<Overlap> {
    all.sort_by(|a, b| (a.from, &a.machines).cmp(&(b.from, &b.machines)));
    let mut joined: Vec<Overlap> = Vec::new();
    for one in all {
        let same = |earlier: &&mut Overlap| {
            earlier.machines == one.machines && earlier.between == one.between && one.from - earlier.to < CLOSE
        };
        match joined.iter_mut().rev().find(same) {
            Some(earlier) => earlier.to = earlier.to.max(one.to),
            None => joined.push(one),
        }
    }
    joined
}

/// A time in which the switch was split, the moments of both orders included.
struct Split {
    from: Moment,
    to: Moment,
    groups: Vec<Vec<String>>,
}

impl Split {
    fn parts(&self, [one, other]: &[String; 2]) -> bool {
        let group = |name: &String| self.groups.iter().position(|group| group.contains(name));
        group(one) != group(other)
    }
}

fn splits(events: &[Event]) -> Vec<Split> {
    let mut splits: Vec<Split> = Vec::new();
    for event in events {
        if let Some(groups) = event.text.strip_prefix(SPLIT) {
            let groups = groups.split(" | ").map(|group| group.split(' ').map(str::to_owned).collect()).collect();
            splits.push(Split { from: event.at, to: Moment(u64::MAX), groups });
        } else if event.text == JOINED {
            for split in &mut splits {
                split.to = split.to.min(event.at);
            }
        }
    }
    splits
}
