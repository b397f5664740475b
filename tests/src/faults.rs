//! The injected faults as the event log names them, and the moments at which acknowledged changes may be lost with a machine.

use std::ops::RangeInclusive;

use crate::clock::Moment;
use crate::events::Event;
use crate::watch::ANSWERS;

/// A power cut begins: the cable is not pulled yet.
pub(crate) const POWER_OFF: &str = "lab: power off";
/// The power cut's cable is pulled.
pub(crate) const CUT_OFF: &str = "lab: cut off";
/// The link is down.
pub(crate) const CABLE_PULLED: &str = "lab: cable pulled";
/// The link is up, and nothing passes.
pub(crate) const ISOLATED: &str = "lab: isolated beyond its link";
/// Every process stops, and nothing passes.
pub(crate) const FROZEN: &str = "lab: frozen";
/// Every process is stopped by a signal; the kernel goes on, and its network.
pub(crate) const STOPPED: &str = "lab: every process stopped";
/// The same, by a control group.
pub(crate) const FROZEN_GROUP: &str = "lab: control group frozen";
/// The switch is split; its groups follow.
pub(crate) const SPLIT: &str = "lab: split: ";
/// It is whole again.
pub(crate) const JOINED: &str = "lab: joined again";
/// ucarp and every program of ours are killed.
pub(crate) const OURS_KILLED: &str = "lab: SIGKILL to ucarp and everything of ours";
/// The master's process is killed.
pub(crate) const MASTER_KILLED: &str = "lab: SIGKILL to mfsmaster";

/// The times in which a master may have been lost with changes that it had acknowledged and not replicated: power cuts,
/// SIGKILL, and network cuts, splits and pauses around the machine that answered clients. Each from the order to its completion.
pub(crate) fn crashes(events: &[Event]) -> Vec<RangeInclusive<Moment>> {
    let mut crashes = Vec::new();
    let mut answering = None;
    for (index, event) in events.iter().enumerate() {
        match &*event.text {
            ANSWERS => answering = Some(&event.machine),
            MASTER_KILLED => crashes.push(event.at..=event.at),
            CABLE_PULLED | ISOLATED | FROZEN | STOPPED | FROZEN_GROUP if answering == Some(&event.machine) => {
                crashes.push(event.at..=event.at);
            }
            split if split.starts_with(SPLIT) => crashes.push(event.at..=event.at),
            POWER_OFF => {
                let done = |later: &&Event| later.machine == event.machine && later.text == CUT_OFF;
                let end = events[index..].iter().find(done).map_or(event.at, |event| event.at);
                crashes.push(event.at..=end);
            }
            _ => (),
        }
    }
    crashes
}
