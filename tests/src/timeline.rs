//! What happened, as a story: the few lines of the event log that matter, and the client's acknowledgements.

use std::fmt::Write as _;

use crate::clock::Moment;
use crate::cluster::Cluster;
use crate::events::{Event, LAB};
use crate::load::Workload;
use crate::{Error, Result, picture};

/// One thing that happened on one machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// When.
    pub at: Moment,
    /// Where.
    pub machine: String,
    /// What, in a few words.
    pub what: String,
}

/// The story of a cluster around one event.
#[derive(Clone, Debug)]
pub struct Timeline {
    /// The event that everything is counted from.
    pub zero: Moment,
    /// Its end.
    pub end: Moment,
    /// The machines that may serve.
    pub masters: Vec<String>,
    /// What happened, in order, from the cluster's start.
    pub marks: Vec<Mark>,
    /// When the client's metadata operations were acknowledged.
    pub metadata: Vec<Moment>,
    /// When its writes were.
    pub writes: Vec<Moment>,
}

impl Timeline {
    /// Collects the story so far, counted from `zero`.
    pub fn collect(cluster: &Cluster, load: &Workload, zero: Moment) -> Result<Self> {
        let marks = cluster.events().since(0).iter().filter_map(Mark::of).collect();
        let [metadata, writes] = load.lines()?.map(|lines| {
            let acknowledged = lines.into_iter().filter(|line| line.errno.is_none());
            acknowledged.map(|line| line.end).collect()
        });
        let masters = cluster.masters().map(|machine| machine.name.clone()).collect();
        Ok(Self { zero, end: Moment::now(), masters, marks, metadata, writes })
    }

    /// The marks from just before zero on, one per line.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for mark in self.marks.iter().filter(|mark| mark.at >= self.zero) {
            let _ = writeln!(text, "{}", mark.line(self.zero));
        }
        text
    }

    /// A picture of it, as an SVG document.
    pub fn svg(&self) -> Result<String> {
        picture::draw(self).map_err(|error| Error::Picture(error.to_string()))
    }
}

impl Mark {
    /// The mark that an event makes, if it is one that matters.
    pub fn of(event: &Event) -> Option<Self> {
        let (program, message) = event.text.split_once(": ")?;
        let program = program.split('[').next()?;
        let what = match program {
            LAB => message.to_owned(),
            "ucarp" => format!("ucarp {}", message.split_once("Switching to state: ")?.1),
            "mfs-promote" | "vip-up" | "vip-down" => format!("{program}: {message}"),
            _ => format!("{program}: {}", important(message)?),
        };
        Some(Self { at: event.at, machine: event.machine.clone(), what })
    }

    /// `+3.1 s  m2   ucarp MASTER`.
    pub fn line(&self, zero: Moment) -> String {
        format!("{:+6.1} s  {:4} {}", self.at.seconds_since(zero), self.machine, self.what)
    }
}

/// The messages of MooseFS that tell of a takeover.
fn important(message: &str) -> Option<&str> {
    const TELLING: &[&str] = &[
        "some changes lost",
        "metadata downloaded",
        "connected to Master",
        "registered to master",
        "connection lost",
        "hole in change files",
    ];
    TELLING.iter().any(|telling| message.contains(telling)).then_some(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    fn what(text: &str) -> Option<String> {
        let event = Event { at: Moment(0), wall: SystemTime::UNIX_EPOCH, machine: "m2".into(), text: text.into() };
        Mark::of(&event).map(|mark| mark.what)
    }

    #[test]
    fn only_telling_lines_make_marks() {
        assert_eq!(what("ucarp[7]: [WARNING] Switching to state: MASTER").as_deref(), Some("ucarp MASTER"));
        assert_eq!(what("lab: power off").as_deref(), Some("power off"));
        assert_eq!(what("mfs-promote[9]: serving").as_deref(), Some("mfs-promote: serving"));
        assert_eq!(what("ucarp[7]: [WARNING] Spawning [x]"), None);
        assert_eq!(what("mfsmaster[7]: set gid to 420"), None);
    }
}
