//! One log of everything: the syslog lines of each machine and what the lab itself did and saw, each with its time.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions, Permissions};
use std::io::Write as _;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::Result;
use crate::clock::Moment;
use crate::error::file;
use crate::locked;

/// The machine name under which the lab's own lines appear when they concern no single machine.
pub const LAB: &str = "lab";

/// How the log says that a cluster has come up, with all copies in step.
pub(crate) const UP: &str = "lab: the cluster is up";

/// How many lines of each machine are shown when an event does not come.
const RECENT: usize = 40;

/// A line of a machine's log, or an act or sight of the lab (`lab: …`).
#[derive(Clone, Debug)]
pub struct Event {
    /// When it arrived.
    pub at: Moment,
    /// The same in wall time.
    pub wall: SystemTime,
    /// The machine.
    pub machine: String,
    /// `program[pid]: message`, or `lab: message`.
    pub text: String,
}

/// All events of a cluster, in order of arrival, also written to `WORK/NAME.log`. What a program had logged before it
/// ended is in it when [`EventLog::since`] or [`EventLog::mark`] is called after that.
#[derive(Debug)]
pub struct EventLog {
    begin: Moment,
    folder: PathBuf,
    events: Mutex<Vec<Event>>,
    grown: Condvar,
    sources: Mutex<Vec<Weak<Source>>>,
}

impl EventLog {
    pub(crate) fn new(folder: &Path) -> Arc<Self> {
        let (events, grown, sources) = (Mutex::default(), Condvar::new(), Mutex::default());
        Arc::new(Self { begin: Moment::now(), folder: folder.to_owned(), events, grown, sources })
    }

    /// The moment the log was opened.
    pub fn begin(&self) -> Moment {
        self.begin
    }

    /// Adds a line and returns its time.
    pub(crate) fn note(&self, machine: &str, text: &str) -> Moment {
        let event = Event {
            at: Moment::now(),
            wall: SystemTime::now(),
            machine: machine.to_owned(),
            text: text.trim_end().to_owned(),
        };
        let at = event.at;
        let path = self.folder.join(format!("{machine}.log"));
        // Only a convenience for people: the log in memory is what tests look at.
        if let Ok(mut file) = OpenOptions::new().create(true).append(true).open(path) {
            let wall = event.wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let _ = writeln!(file, "{:9.3} {:.3} {}", at.seconds_since(self.begin), wall.as_secs_f64(), event.text);
        }
        locked(&self.events).push(event);
        self.grown.notify_all();
        at
    }

    /// How many lines there are: a mark for [`EventLog::since`] and `wait_for_log_since`.
    pub fn mark(&self) -> usize {
        self.catch_up();
        locked(&self.events).len()
    }

    /// The lines after a mark.
    pub fn since(&self, mark: usize) -> Vec<Event> {
        self.catch_up();
        locked(&self.events).get(mark..).unwrap_or_default().to_vec()
    }

    /// Notes what has been sent, also where the thread that receives it has not run since.
    fn catch_up(&self) {
        let sources: Vec<_> = locked(&self.sources).iter().filter_map(Weak::upgrade).collect();
        for source in sources {
            source.note_all(self);
        }
    }

    /// Waits for a line after `mark` that fulfils a wish.
    pub(crate) fn wait(&self, mark: usize, within: Duration, wish: impl Fn(&Event) -> bool) -> Option<Event> {
        let deadline = Instant::now() + within;
        let mut next = mark;
        let mut events = locked(&self.events);
        loop {
            if let Some(found) = events.iter().skip(next).find(|event| wish(event)) {
                return Some(found.clone());
            }
            next = next.max(events.len());
            let left = deadline.checked_duration_since(Instant::now())?;
            let waited = self.grown.wait_timeout(events, left);
            events = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
    }

    /// The last lines of every machine, merged by time.
    pub fn recent(&self) -> String {
        let events = locked(&self.events);
        let mut left = std::collections::HashMap::new();
        let mut chosen: Vec<&Event> = events
            .iter()
            .rev()
            .filter(|event| {
                let left = left.entry(event.machine.as_str()).or_insert(RECENT);
                *left = left.saturating_sub(1);
                *left > 0
            })
            .collect();
        chosen.reverse();
        let mut text = String::new();
        for event in chosen {
            let at = event.at.seconds_since(self.begin);
            let _ = writeln!(text, "{at:9.3} {:4} {}", event.machine, event.text);
        }
        text
    }
}

/// Receives what a machine writes to its `/dev/log`, as long as this lives.
#[derive(Debug)]
pub(crate) struct Syslog(Arc<Source>);

/// The `/dev/log` of a machine.
#[derive(Debug)]
struct Source {
    socket: UnixDatagram,
    machine: String,
    /// One at a time takes lines out and notes them, so that they stay in order.
    taking: Mutex<()>,
}

impl Syslog {
    pub(crate) fn listen(path: &Path, machine: &str, events: &Arc<EventLog>) -> Result<Self> {
        let socket = UnixDatagram::bind(path).map_err(file("bind", path))?;
        fs::set_permissions(path, Permissions::from_mode(0o666)).map_err(file("open up", path))?;
        socket.set_nonblocking(true).map_err(file("receive from", path))?;
        let source = Arc::new(Source { socket, machine: machine.to_owned(), taking: Mutex::default() });
        locked(&events.sources).push(Arc::downgrade(&source));
        let (receiver, events) = (Arc::clone(&source), Arc::clone(events));
        thread::spawn(move || {
            while receiver.waits() {
                receiver.note_all(&events);
            }
        });
        Ok(Self(source))
    }
}

impl Source {
    /// Waits for lines. False at the end.
    fn waits(&self) -> bool {
        let mut socket = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        match poll(&mut socket, PollTimeout::NONE) {
            Ok(_) => socket[0].revents().is_some_and(|seen| seen == PollFlags::POLLIN),
            Err(error) => error == Errno::EINTR,
        }
    }

    /// Notes all lines that are there.
    fn note_all(&self, events: &EventLog) {
        let _one = locked(&self.taking);
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = self.socket.recv(&mut buffer) {
            let line = String::from_utf8_lossy(&buffer[..length]);
            events.note(&self.machine, without_header(&line));
        }
    }
}

impl Drop for Syslog {
    fn drop(&mut self) {
        let _ = self.0.socket.shutdown(Shutdown::Both);
    }
}

/// A syslog datagram without `<priority>` and time stamp.
fn without_header(line: &str) -> &str {
    let line = line.split_once('>').filter(|(head, _)| head.starts_with('<')).map_or(line, |(_, rest)| rest);
    let line = line.trim_end_matches(['\0', '\n']);
    // `Nov 22 22:38:08 `, as the C library writes it.
    let stamped =
        line.len() > 16 && line.is_char_boundary(16) && line.as_bytes()[3] == b' ' && line.as_bytes()[12] == b':';
    if stamped { &line[16..] } else { line }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The thread that receives has no time to run in between.
    #[test]
    fn lines_are_there_as_soon_as_they_are_sent() {
        let folder = tempfile::tempdir().expect("a folder");
        let events = EventLog::new(folder.path());
        let path = folder.path().join("log");
        let _syslog = Syslog::listen(&path, "m1", &events).expect("a socket");
        let program = UnixDatagram::unbound().expect("a socket");
        for number in 1..=500 {
            let mark = events.mark();
            program.send_to(format!("<30>line {number}").as_bytes(), &path).expect("a line");
            let lines: Vec<_> = events.since(mark).into_iter().map(|event| event.text).collect();
            assert_eq!(lines, [format!("line {number}")]);
        }
    }

    #[test]
    fn nothing_waits_for_lines_of_a_machine_that_is_gone() {
        let folder = tempfile::tempdir().expect("a folder");
        let events = EventLog::new(folder.path());
        let syslog = Syslog::listen(&folder.path().join("log"), "m1", &events).expect("a socket");
        let source = Arc::downgrade(&syslog.0);
        drop(syslog);
        let end = Instant::now() + Duration::from_secs(10);
        while source.upgrade().is_some() {
            assert!(Instant::now() < end, "its thread goes on");
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn header_of_the_c_library_is_removed() {
        assert_eq!(without_header("<30>Nov 22 22:38:08 ucarp[7]: [INFO] hello"), "ucarp[7]: [INFO] hello");
        assert_eq!(without_header("<30>mfs-promote[8]: hello"), "mfs-promote[8]: hello");
        assert_eq!(without_header("plain"), "plain");
    }
}
