//! A copy in which changes are missing although the metalogger follows: it is restarted, and downloads everything again.
//!
//! See [`old_master`](crate::moosefs::workarounds::old_master) for how such a copy comes about, and why a restart is enough. It
//! moves no file.
//!
//! All change logs are read to find that out, so that is done only after a connection or a download, until the copy is complete:
//! a metalogger that follows on one connection takes no change that is not the next one.

use std::time::{Duration, Instant};

use crate::machine::lock::Request;
use crate::machine::notify::{self, Event};
use crate::machine::restart::restart_metalogger;
use crate::machine::{Machine, memory};
use crate::metadata::plan::{self, Gap};
use crate::metadata::{Loss, Version};
use crate::moosefs::workarounds::old_master::{Downloaded, Downloads};
use crate::sys::logging::chain;
use crate::sys::tcp::Outgoing;
use crate::sys::text::human;
use crate::vip::VirtualIp;

use super::unchanged::Unchanged;

/// A metalogger that downloads writes a file that grows, and between two of its downloads there is one answer of the master. One
/// that has no such file for this long, and has a gap in its copy, does not close it.
const STAYS: Duration = Duration::from_secs(30);
/// Such a file that does not grow: a disk or a master that is slow, or what one that was killed has left.
const STANDS_STILL: Duration = Duration::from_secs(120);
/// After the first restart; then [`LONGER`] times as long. Each download takes the place of the oldest image that the metalogger
/// keeps, so those that do not help are not to come more often than others do.
const FIRST_PAUSE: Duration = Duration::from_secs(300);
const LONGER: u32 = 4;
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
/// Beside the reading of all change logs, ten times as long is left to other work.
const SHARE: u32 = 10;

/// Looks for a gap in the copy.
pub(super) struct Incomplete {
    /// The copy was complete with these.
    complete: Option<Marks>,
    /// What was there at the last look, and the version that was served then.
    before: Option<(Marks, Version)>,
    look_at: Instant,
    repair: Repair,
}

/// While these stay, a copy that is complete stays complete.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Marks {
    connections: Vec<Outgoing>,
    downloaded: Downloaded,
}

impl Incomplete {
    /// At the beginning of the role.
    pub(super) fn new(now: Instant) -> Self {
        Self { complete: None, before: None, look_at: now, repair: Repair::default() }
    }

    /// Looks at the copy, and restarts the metalogger if a gap stays. To be called every ten seconds while it has these
    /// `connections` to a master that serves this version.
    pub(super) fn look(
        &mut self,
        machine: &Machine,
        vip: &VirtualIp,
        request: &Request,
        connections: &[Outgoing],
        served: Version,
    ) {
        let begun = Instant::now();
        let marks = Marks { connections: connections.to_vec(), downloaded: Downloaded::of(&machine.data) };
        if begun < self.look_at || self.complete.as_ref() == Some(&marks) {
            return;
        }
        let Some(copy) = plan_copy(machine) else { return };
        self.look_at = begun + begun.elapsed() * SHARE;
        // Where the stream begins shows only when a change has come.
        let before = self.before.replace((marks.clone(), served)).filter(|(before, _)| *before == marks);
        let reaches = |end: &Version| before.is_some_and(|(_, served)| end.behind(served).is_none());
        self.complete = copy.as_ref().is_ok_and(reaches).then_some(marks);
        match self.repair.judge(copy, Downloads::of(&machine.data), Instant::now()) {
            Act::None => (),
            Act::Restart { gap, after } => self.restart(machine, vip, request, gap, after),
            Act::HasNotHelped { gap } => {
                let again = human(self.repair.wait(Instant::now()));
                let text = format!(
                    "the copy here is still incomplete after the metalogger was restarted: {gap}. This machine cannot take over \
                     without a loss; see the logs of mfsmetalogger here and of mfsmaster on {vip}. The metalogger is restarted \
                     again in {again}, then after longer and longer pauses"
                );
                alarm(machine, vip, text);
            }
            Act::Complete { end, after } => log::info!(
                "the copy here is complete again, at version {end}, {} after the metalogger was restarted",
                human(after)
            ),
        }
    }

    fn restart(&mut self, machine: &Machine, vip: &VirtualIp, request: &Request, gap: Gap, after: Duration) {
        let why = || {
            log::warn!(
                "the copy here is incomplete: {gap}, and the metalogger here, which is connected to {vip}, has downloaded nothing \
                 for {}. One whose connection has ended during a download does not repeat it; restarting the metalogger, so \
                 that it downloads the image and the change logs again",
                human(after)
            );
        };
        match restart_metalogger(machine, request, why) {
            Ok(false) => (),
            Ok(true) => self.repair.restarted(Instant::now()),
            Err(e) => {
                self.repair.restarted(Instant::now());
                alarm(
                    machine,
                    vip,
                    format!("the copy here is incomplete: {gap}; cannot restart the metalogger: {}", chain(&e)),
                );
            }
        }
    }
}

fn alarm(machine: &Machine, vip: &VirtualIp, text: String) {
    log::error!("{text}");
    notify::tell_without_waiting(&machine.config, Event::Alarm, &vip.interface, vip.address, text);
}

/// Where a plan of what is here ends; else the gap in the metalogger's files, if it is refused for one. Reads all change logs.
pub(super) fn plan_copy(machine: &Machine) -> Option<Result<Version, Option<Gap>>> {
    let inventory = memory::inventory(&machine.data, Some(&machine.state)).ok()?;
    let planned = plan::make(&inventory, Loss::Refuse);
    Some(planned.map(|plan| plan.end_version).map_err(|_| plan::gap_in_copy(&inventory)))
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
enum Act {
    None,
    /// The gap has stayed for this long.
    Restart {
        gap: Gap,
        after: Duration,
    },
    /// It was restarted, and the gap stays.
    HasNotHelped {
        gap: Gap,
    },
    /// The gap is closed, this long after the first restart.
    Complete {
        end: Version,
        after: Duration,
    },
}

/// When the metalogger is restarted.
#[derive(Debug, Default)]
struct Repair {
    seen: Unchanged<(Gap, Downloads)>,
    /// A gap for which it was restarted.
    found: Option<Found>,
    /// Not before this time, and the pause after that.
    next: Option<(Instant, Duration)>,
}

#[derive(Debug, Clone, Copy)]
struct Found {
    /// The first restart.
    since: Instant,
    reported: bool,
}

impl Repair {
    /// What follows from a look at `now`: where the copy ends, or the gap in it.
    fn judge(&mut self, copy: Result<Version, Option<Gap>>, downloads: Downloads, now: Instant) -> Act {
        let gap = match copy {
            Err(Some(gap)) => gap,
            // Nothing that a download could mend.
            Err(None) => {
                self.seen.forget();
                return Act::None;
            }
            Ok(end) => {
                self.seen.forget();
                if self.next.is_some_and(|(next, _)| now >= next) {
                    self.next = None;
                }
                let complete = |found: Found| Act::Complete { end, after: now - found.since };
                return self.found.take().map_or(Act::None, complete);
            }
        };
        let after = self.seen.lasted((gap, downloads), now);
        if after < if downloads == Downloads::default() { STAYS } else { STANDS_STILL } {
            return Act::None;
        }
        match &mut self.found {
            Some(found) if !found.reported => {
                found.reported = true;
                Act::HasNotHelped { gap }
            }
            _ if self.next.is_none_or(|(next, _)| now >= next) => Act::Restart { gap, after },
            _ => Act::None,
        }
    }

    /// Takes in that the metalogger was restarted, or could not be.
    fn restarted(&mut self, now: Instant) {
        self.seen.forget();
        self.found.get_or_insert(Found { since: now, reported: false });
        let pause = self.next.map_or(FIRST_PAUSE, |(_, pause)| (pause * LONGER).min(LONGEST_PAUSE));
        self.next = Some((now + pause, pause));
    }

    /// How long until it may be restarted again.
    fn wait(&self, now: Instant) -> Duration {
        self.next.map_or(Duration::ZERO, |(next, _)| next.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GAP: Gap = Gap::Changes { first: 5, last: 9 };

    /// A repair, and what it does at each look, in seconds.
    struct Looks {
        repair: Repair,
        start: Instant,
    }

    impl Looks {
        fn new() -> Self {
            Self { repair: Repair::default(), start: Instant::now() }
        }

        fn at(&mut self, seconds: u64, copy: Result<u64, Option<Gap>>) -> Act {
            let now = self.start + Duration::from_secs(seconds);
            let act = self.repair.judge(copy.map(Version), Downloads::default(), now);
            if matches!(act, Act::Restart { .. }) {
                self.repair.restarted(now);
            }
            act
        }

        /// The seconds of all restarts and alarms while a gap stays, with a look each ten seconds.
        fn while_it_stays(&mut self, seconds: std::ops::Range<u64>) -> (Vec<u64>, Vec<u64>) {
            let (mut restarts, mut alarms) = (Vec::new(), Vec::new());
            for second in seconds.step_by(10) {
                match self.at(second, Err(Some(GAP))) {
                    Act::Restart { gap: GAP, .. } => restarts.push(second),
                    Act::HasNotHelped { gap: GAP } => alarms.push(second),
                    other => assert_eq!(other, Act::None),
                }
            }
            (restarts, alarms)
        }
    }

    const STAYED: Act = Act::Restart { gap: GAP, after: STAYS };

    #[test]
    fn a_gap_that_stays_is_mended_once_and_said_to_be_closed() {
        let mut looks = Looks::new();
        assert_eq!(looks.at(0, Ok(20)), Act::None);
        for seconds in [10, 20, 30] {
            assert_eq!(looks.at(seconds, Err(Some(GAP))), Act::None);
        }
        assert_eq!(looks.at(40, Err(Some(GAP))), STAYED);
        // It downloads.
        assert_eq!(looks.at(50, Err(Some(GAP))), Act::None);
        assert_eq!(looks.at(60, Ok(90)), Act::Complete { end: Version(90), after: Duration::from_secs(20) });
        assert_eq!(looks.at(70, Ok(95)), Act::None);
    }

    #[test]
    fn a_gap_that_a_download_closes_is_left_alone() {
        let mut looks = Looks::new();
        // Large and slow: it grows all the time.
        for seconds in (0..600).step_by(10) {
            let at = looks.start + Duration::from_secs(seconds);
            let downloads = Downloads::of_log(i64::try_from(seconds).unwrap());
            assert_eq!(looks.repair.judge(Err(Some(GAP)), downloads, at), Act::None);
        }
        // It stands still for a while.
        for seconds in 600..710 {
            let at = looks.start + Duration::from_secs(seconds);
            assert_eq!(looks.repair.judge(Err(Some(GAP)), Downloads::of_log(600), at), Act::None);
        }
        let at = looks.start + Duration::from_secs(720);
        let restart = Act::Restart { gap: GAP, after: STANDS_STILL };
        assert_eq!(looks.repair.judge(Err(Some(GAP)), Downloads::of_log(600), at), restart, "for too long");
        assert_eq!(looks.at(800, Ok(90)), Act::None);
        // Another gap each time: the metalogger finds itself that changes were lost.
        for seconds in 0..60 {
            let gap = Gap::Changes { first: 5, last: seconds };
            assert_eq!(looks.at(800 + seconds, Err(Some(gap))), Act::None);
        }
    }

    #[test]
    fn what_does_not_help_is_an_alarm_once_and_is_tried_more_and_more_rarely() {
        let (restarts, alarms) = Looks::new().while_it_stays(0..20_000);
        assert_eq!(restarts, [30, 330, 1530, 5130, 8730, 12_330, 15_930, 19_530]);
        assert_eq!(alarms, [70]);
    }

    #[test]
    fn a_second_gap_soon_after_the_first_waits_for_the_pause_and_a_late_one_does_not() {
        let mut looks = Looks::new();
        assert_eq!(looks.while_it_stays(0..40).0, [30]);
        assert!(matches!(looks.at(50, Ok(90)), Act::Complete { .. }));
        assert_eq!(looks.while_it_stays(60..400), (vec![330], vec![370]));
        assert!(matches!(looks.at(400, Ok(90)), Act::Complete { .. }));
        // The second pause is over.
        assert_eq!(looks.at(1530, Ok(90)), Act::None);
        assert_eq!(looks.while_it_stays(1600..1640).0, [1630]);
        assert_eq!(looks.at(1650, Ok(90)), Act::Complete { end: Version(90), after: Duration::from_secs(20) });
        assert_eq!(looks.while_it_stays(1660..2000).0, [1930], "the pauses begin again");
    }

    #[test]
    fn files_that_are_refused_for_something_else_are_no_reason_and_no_end() {
        let mut looks = Looks::new();
        for seconds in (0..600).step_by(10) {
            assert_eq!(looks.at(seconds, Err(None)), Act::None);
        }
        assert_eq!(looks.while_it_stays(600..640).0, [630]);
        assert_eq!(looks.at(640, Err(None)), Act::None);
        assert!(matches!(looks.at(650, Ok(90)), Act::Complete { .. }));
    }
}
