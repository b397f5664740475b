//! Where messages go: syslog and journald through `/dev/log`, or standard error.
//!
//! A log that is down must never hold up or end the work. A message waits a moment for a daemon that is busy; if it still
//! takes none, messages are dropped without waiting until it does.

use std::error::Error;
use std::fmt::Write as _;
use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use env_logger::{Builder, Target};
use log::{Level, LevelFilter};

/// The socket that syslogd and journald both listen on.
const SOCKET: &str = "/dev/log";
/// How long a message of a hook waits for a busy daemon, whose queue may be ten messages long: ucarp waits too.
pub(crate) const HOOK_PATIENCE: Duration = Duration::from_millis(20);
/// How long one of a run does.
pub(crate) const RUN_PATIENCE: Duration = Duration::from_millis(250);
/// syslog's facility `daemon`.
const FACILITY: u8 = 3;
/// Longest message; syslog daemons cut at about this size.
const LONGEST: usize = 8192;

/// Sends messages to syslog, or to standard error where there is no `/dev/log`.
/// The first call of this or [`to_stderr`] counts.
pub(crate) fn to_syslog(ident: &str, patience: Duration) {
    let Ok(log) = Log::open(Path::new(SOCKET), patience) else {
        return to_stderr(ident, 0);
    };
    let tag = format!("{ident}[{}]", std::process::id());
    let _ = Builder::new()
        .filter_level(LevelFilter::Info)
        .format(move |out, record| {
            let priority = FACILITY * 8 + severity(record.level());
            write!(out, "<{priority}>{tag}: {}", harmless(&record.args().to_string()))
        })
        .target(Target::Pipe(Box::new(log)))
        .try_init();
}

/// Sends messages to standard error: warnings and information, with `verbosity` 1 also what is done in detail.
pub(crate) fn to_stderr(ident: &str, verbosity: u8) {
    let tag = ident.to_owned();
    let level = match verbosity {
        0 => LevelFilter::Info,
        1 => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    };
    let _ = Builder::new()
        .filter_level(level)
        .format(move |out, record| {
            let text = harmless(&record.args().to_string());
            match record.level() {
                Level::Error | Level::Warn => {
                    writeln!(out, "{tag}: {}: {text}", record.level().as_str().to_lowercase())
                }
                _ => writeln!(out, "{tag}: {text}"),
            }
        })
        .target(Target::Stderr)
        .try_init();
}

/// The text with every character spelled out that does something instead of being seen. File names and the output of
/// other programs are chosen by others: none of it may begin a line of its own in a log, or write over one on a terminal.
pub(crate) fn harmless(text: &str) -> String {
    let acts = |c: char| {
        c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut harmless = String::with_capacity(text.len());
    for c in text.chars() {
        if acts(c) {
            harmless.extend(c.escape_default());
        } else {
            harmless.push(c);
        }
    }
    harmless
}

/// An error and its causes in one line: `cannot do x: y failed: no such file`.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

fn severity(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// One datagram for each message.
struct Log {
    socket: UnixDatagram,
    path: PathBuf,
    patience: Duration,
}

impl Log {
    fn open(path: &Path, patience: Duration) -> std::io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(patience))?;
        socket.connect(path)?;
        Ok(Self { socket, path: path.to_owned(), patience })
    }

    fn send(&mut self, message: &[u8]) {
        use std::io::ErrorKind::{ConnectionRefused, ConnectionReset, NotConnected, WouldBlock};

        let sent = self.socket.send(message).map_err(|e| e.kind());
        let _ = self.socket.set_nonblocking(sent == Err(WouldBlock));
        // The daemon was restarted: its socket is a new one under the old name.
        if matches!(sent, Err(ConnectionRefused | ConnectionReset | NotConnected)) {
            if let Ok(log) = Self::open(&self.path, self.patience) {
                *self = log;
                let _ = self.socket.send(message);
            }
        }
    }
}

impl Write for Log {
    /// Takes all of it, whatever becomes of it. The formatter hands over one whole message a call.
    fn write(&mut self, message: &[u8]) -> std::io::Result<usize> {
        let text = String::from_utf8_lossy(message);
        let mut end = text.len().min(LONGEST);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.send(&text.as_bytes()[..end]);
        Ok(message.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(server: &UnixDatagram) -> String {
        let mut buffer = [0; 2 * LONGEST];
        let read = server.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..read]).into_owned()
    }

    #[test]
    fn a_restarted_daemon_gets_the_next_message() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let first = UnixDatagram::bind(&path).unwrap();
        let mut log = Log::open(&path, HOOK_PATIENCE).unwrap();
        log.write_all(b"one").unwrap();
        assert_eq!(receive(&first), "one");
        drop(first);
        log.write_all(b"lost").unwrap();
        std::fs::remove_file(&path).unwrap();
        let second = UnixDatagram::bind(&path).unwrap();
        log.write_all(b"two").unwrap();
        assert_eq!(receive(&second), "two");
    }

    #[test]
    fn a_busy_daemon_gets_every_message() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let server = UnixDatagram::bind(&path).unwrap();
        let mut log = Log::open(&path, HOOK_PATIENCE).unwrap();
        let reader = std::thread::spawn(move || {
            for number in 0..200 {
                if number % 50 == 0 {
                    std::thread::sleep(HOOK_PATIENCE / 4);
                }
                assert_eq!(receive(&server), number.to_string());
            }
        });
        for number in 0..200 {
            log.write_all(number.to_string().as_bytes()).unwrap();
        }
        reader.join().unwrap();
    }

    #[test]
    fn a_daemon_that_does_not_read_delays_no_run() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let _stuck = UnixDatagram::bind(&path).unwrap();
        let mut log = Log::open(&path, HOOK_PATIENCE).unwrap();
        for _ in 0..10_000 {
            log.write_all(&[b'x'; 1000]).unwrap();
        }
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let server = UnixDatagram::bind(&path).unwrap();
        let mut log = Log::open(&path, HOOK_PATIENCE).unwrap();
        log.write_all("ä".repeat(LONGEST).as_bytes()).unwrap();
        assert_eq!(receive(&server), "ä".repeat(LONGEST / 2));
    }

    #[test]
    fn no_name_writes_a_line_of_its_own_or_over_another() {
        let name = "metadata\n<27>mfs-promote[1]: serving\u{1b}[2J\u{9b}1A\u{202e}\r\tä";
        let shown = harmless(name);
        assert_eq!(shown, "metadata\\n<27>mfs-promote[1]: serving\\u{1b}[2J\\u{9b}1A\\u{202e}\\r\\tä");
    }

    #[test]
    fn causes_follow_their_effects() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot read the file")]
        struct Outer(#[source] std::io::Error);
        let error = Outer(std::io::Error::other("disk on fire"));
        assert_eq!(chain(&error), "cannot read the file: disk on fire");
    }
}
