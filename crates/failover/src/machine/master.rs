//! The master of this machine, and how long a silent one is waited for. The one place that decides it, for every part that
//! asks.
//!
//! | the master | what is seen of it |
//! |---|---|
//! | serves | it answers |
//! | loads its image, or stops | it holds its lock and refuses connections |
//! | stores its image without a second process, makes one for that out of much memory, or is swapped out | it accepts connections and answers nothing, for seconds or minutes; then it answers what it was asked |
//! | hangs | the same, and it never answers |
//!
//! Only time and its work tell the last ones apart. So a master that holds its lock gets as long as a start with its files may
//! take ([`Machine::start_time`]), whatever is seen of it, and counts as one that hangs only then: when it has neither used
//! the processor nor read or written anything for the time of a start without progress, or when the bound is reached. The
//! question stays open for all that time: one that takes three seconds for each answer is never asked in vain.

use std::fmt::{self, Display};
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use crate::machine::{ANSWER, Machine};
use crate::moosefs::{self, Daemon, Info, Question};
use crate::sys::cancel::{Cancel, Cancelled};
use crate::sys::logging::chain;
use crate::sys::progress::{Allowance, Patience};
use crate::sys::text::human;

/// Pause between two attempts to connect to a master that refuses.
const AGAIN: Duration = Duration::from_millis(50);

/// What a look at the master of this machine has found.
#[derive(Debug)]
pub(crate) enum Look {
    /// It serves.
    Answers(Info),
    /// No process has held its lock for so long.
    Absent(Duration),
    /// It does not answer, and nothing follows from that yet.
    Busy(Silence),
    /// It has not answered for longer than any master may take.
    Hangs(Silence),
}

/// A master that does not answer.
#[derive(Debug)]
pub(crate) struct Silence {
    /// For how long.
    pub(crate) lasted: Duration,
    /// How long it may last.
    pub(crate) time: Allowance,
    /// Whether this is the first look that has found it.
    pub(crate) begins: bool,
    /// The last answer.
    pub(crate) why: moosefs::Error,
}

impl Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "mfsmaster is running and does not answer ({}): it may be loading or storing its image, or be short of memory. \
             It is waited for, for {} in which it does no work, and for {} at most",
            chain(&self.why),
            human(self.time.still),
            human(self.time.most)
        )
    }
}

/// How a wait for the master ended.
#[derive(Debug)]
pub(crate) enum Waited {
    /// It serves.
    Answers(Info),
    /// It has ended.
    Ended,
    /// It hangs.
    Hangs(Silence),
}

/// One who looks at the master of this machine again and again.
#[derive(Debug)]
pub(crate) struct MasterWatch {
    address: SocketAddrV4,
    /// The question that is not answered yet.
    question: Option<Question>,
    /// When it answered last, or this watch began.
    answered: Instant,
    /// When a process held its lock last.
    ran: Instant,
    /// What is left for the silence that goes on now.
    patience: Option<Patience>,
}

impl MasterWatch {
    /// Begins to watch the master of `machine`.
    pub(crate) fn begin(machine: &Machine) -> Self {
        Self::of(machine.config.own_master())
    }

    fn of(address: SocketAddrV4) -> Self {
        let now = Instant::now();
        Self { address, question: None, answered: now, ran: now, patience: None }
    }

    /// Looks, for [`ANSWER`] at most.
    pub(crate) fn look(&mut self, machine: &Machine, cancel: &Cancel) -> Look {
        // What cannot be found out is not taken for a death.
        let runs = || !matches!(machine.running(Daemon::Master), Ok(None));
        let patience = |since| Patience::with_since(Daemon::Master.program(), machine.start_time(), since);
        self.look_for(ANSWER, runs, patience, cancel)
    }

    /// `runs` and `patience` are asked only if there is no answer.
    fn look_for(
        &mut self,
        time: Duration,
        runs: impl FnOnce() -> bool,
        patience: impl FnOnce(Instant) -> Patience,
        cancel: &Cancel,
    ) -> Look {
        let why = match self.ask(Instant::now() + time, cancel) {
            Ok(info) => {
                (self.answered, self.patience) = (Instant::now(), None);
                self.ran = self.answered;
                return Look::Answers(info);
            }
            Err(why) => why,
        };
        if !runs() {
            return Look::Absent(self.ran.elapsed());
        }
        self.ran = Instant::now();
        let begins = self.patience.is_none();
        let patience = self.patience.get_or_insert_with(|| patience(self.answered));
        let silence = Silence { lasted: self.answered.elapsed(), time: patience.allowance(), begins, why };
        if patience.left().is_zero() { Look::Hangs(silence) } else { Look::Busy(silence) }
    }

    fn ask(&mut self, end: Instant, cancel: &Cancel) -> Result<Info, moosefs::Error> {
        let mut question = self.question.take().map_or_else(|| Question::ask(self.address), Ok)?;
        if let Some(info) = question.answer(end, cancel)? {
            return Ok(info);
        }
        let unanswered = question.unanswered();
        self.question = Some(question);
        Err(unanswered)
    }

    /// Looks by `look` until the master answers, has ended, or hangs, with one line in the log if that takes time.
    fn wait(mut self, mut look: impl FnMut(&mut Self) -> Look, cancel: &Cancel) -> Result<Waited, Cancelled> {
        let begun = Instant::now();
        let mut told = false;
        loop {
            let seen = look(&mut self);
            // Not the last answer of a wait that was cut short.
            cancel.check()?;
            match seen {
                Look::Answers(info) => {
                    if told {
                        log::info!("mfsmaster answers after {}", human(begun.elapsed()));
                    }
                    return Ok(Waited::Answers(info));
                }
                Look::Absent(_) => return Ok(Waited::Ended),
                Look::Hangs(silence) => return Ok(Waited::Hangs(silence)),
                Look::Busy(silence) => {
                    if silence.begins {
                        log::warn!("{silence}");
                        told = true;
                    }
                    cancel.sleep(AGAIN)?;
                }
            }
        }
    }
}

impl Machine {
    /// Waits until the master here answers, has ended, or has not answered for longer than any master may take. A later call
    /// and a signal end the wait at once.
    pub(crate) fn wait_for_master(&self, cancel: &Cancel) -> Result<Waited, Cancelled> {
        MasterWatch::begin(self).wait(|watch| watch.look(self, cancel), cancel)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{SocketAddr, TcpListener};
    use std::thread::{self, sleep};

    use super::*;
    use crate::sys::progress::LEAST;

    const LOOK: Duration = Duration::from_millis(20);
    const PATIENCE: Duration = Duration::from_millis(400);

    fn listener() -> (TcpListener, SocketAddrV4) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let SocketAddr::V4(address) = listener.local_addr().unwrap() else { unreachable!() };
        (listener, address)
    }

    /// A master of 3.0.105 that takes this time for each answer.
    fn slow(listener: TcpListener, time: Duration) {
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                while stream.read_exact(&mut [0; 8]).is_ok() {
                    sleep(time);
                    let mut answer = [&511_u32.to_be_bytes()[..], &137_u32.to_be_bytes(), &[0, 3, 0, 210]].concat();
                    answer.resize(8 + 137, 0);
                    let _ = stream.write_all(&answer);
                }
            }
        });
    }

    fn fixed(since: Instant) -> Patience {
        Patience::new(Allowance::fixed(PATIENCE), since, || 0)
    }

    /// In words, with the time that it took.
    fn waited(address: SocketAddrV4, runs: impl Fn() -> bool, cancel: &Cancel) -> (&'static str, Duration) {
        waited_with(address, runs, fixed, cancel)
    }

    fn waited_with(
        address: SocketAddrV4,
        runs: impl Fn() -> bool,
        patience: impl Fn(Instant) -> Patience,
        cancel: &Cancel,
    ) -> (&'static str, Duration) {
        let begun = Instant::now();
        let look = |watch: &mut MasterWatch| watch.look_for(LOOK, &runs, &patience, cancel);
        let end = match MasterWatch::of(address).wait(look, cancel) {
            Ok(Waited::Answers(_)) => "answers",
            Ok(Waited::Ended) => "ended",
            Ok(Waited::Hangs(_)) => "hangs",
            Err(Cancelled) => "cancelled",
        };
        (end, begun.elapsed())
    }

    #[test]
    fn a_busy_a_loading_and_a_hung_master_get_the_same_time() {
        let never = Cancel::never();
        // Each answer comes later than a look lasts.
        let (busy, address) = listener();
        slow(busy, LOOK * 5);
        let (end, took) = waited(address, || true, never);
        assert_eq!(end, "answers");
        assert!(took >= LOOK * 5);

        let (loading, address) = listener();
        drop(loading);
        thread::spawn(move || {
            sleep(LOOK * 5);
            slow(TcpListener::bind(address).unwrap(), Duration::ZERO);
        });
        assert_eq!(waited(address, || true, never).0, "answers");

        let (_mute, address) = listener();
        let (end, took) = waited(address, || true, never);
        assert_eq!(end, "hangs");
        assert!(took > PATIENCE && took < PATIENCE * 5, "{took:?}");

        let (refusing, address) = listener();
        drop(refusing);
        let (end, took) = waited(address, || true, never);
        assert_eq!(end, "hangs");
        assert!(took > PATIENCE && took < PATIENCE * 5, "{took:?}");
    }

    #[test]
    fn a_silent_master_that_works_is_waited_for_up_to_the_bound_and_one_that_does_not_is_given_up() {
        let (_mute, address) = listener();
        let time = Allowance { still: PATIENCE, most: PATIENCE * 4 };
        let working = |since| {
            let mut work = 0;
            Patience::new(time, since, move || {
                work += LEAST;
                work
            })
        };
        let (end, took) = waited_with(address, || true, working, Cancel::never());
        assert_eq!(end, "hangs");
        assert!(took >= time.most, "{took:?}");
        let idle = |since| Patience::new(time, since, || 7);
        let (end, took) = waited_with(address, || true, idle, Cancel::never());
        assert_eq!(end, "hangs");
        assert!(took < time.most, "{took:?}");
    }

    #[test]
    fn a_wait_ends_with_the_master_and_at_a_later_call() {
        let (_mute, address) = listener();
        let begun = Instant::now();
        let (end, took) = waited(address, || begun.elapsed() < LOOK * 3, Cancel::never());
        assert_eq!(end, "ended");
        assert!(took < PATIENCE, "{took:?}");

        let cancel = Cancel::new();
        let other = cancel.clone();
        thread::spawn(move || {
            sleep(LOOK * 3);
            other.cancel();
        });
        let (end, took) = waited(address, || true, &cancel);
        assert_eq!(end, "cancelled");
        assert!(took < PATIENCE, "{took:?}");
    }

    #[test]
    fn a_watch_counts_each_silence_from_the_last_answer() {
        let (busy, address) = listener();
        slow(busy, LOOK * 3);
        let mut watch = MasterWatch::of(address);
        let mut look = |runs: bool| watch.look_for(LOOK, || runs, fixed, Cancel::never());
        for _ in 0..2 {
            let Look::Busy(first) = look(true) else { panic!("not busy") };
            assert!(first.begins && first.lasted < PATIENCE);
            let Look::Busy(second) = look(true) else { panic!("not busy") };
            assert!(!second.begins && second.lasted > first.lasted);
            sleep(LOOK * 3);
            assert!(matches!(look(true), Look::Answers(_)));
        }
        sleep(LOOK);
        assert!(matches!(look(false), Look::Absent(gone) if gone >= LOOK));
    }
}
