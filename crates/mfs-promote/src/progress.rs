//! A line on the terminal that says how long the work at hand has taken by now.
//!
//! Only for people: where standard error is no terminal there is none, and the log has what matters.

use std::io::{IsTerminal as _, Write as _};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::report::bytes;

/// Between two looks.
const STEP: Duration = Duration::from_millis(200);
/// Work that is done within this is not worth a line.
const SHORT: Duration = Duration::from_millis(500);

/// Work at hand; its line goes when this value goes.
pub(crate) struct Progress(Option<(Sender<()>, JoinHandle<()>)>);

impl Progress {
    /// Shows that `what` is being done; `done` tells how many bytes of it are, as far as that can be seen.
    pub(crate) fn show(what: &'static str, done: impl Fn() -> Option<u64> + Send + 'static) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(None);
        }
        let (stop, stopped) = channel();
        let begun = Instant::now();
        let line = std::thread::spawn(move || {
            while stopped.recv_timeout(STEP) == Err(RecvTimeoutError::Timeout) {
                if begun.elapsed() > SHORT {
                    let written = done().map(|done| format!(", {} written", bytes(done))).unwrap_or_default();
                    // Back to the first column, and the rest of the line is erased.
                    let _ = write!(std::io::stderr(), "\r\x1b[K{what}: {} s{written}", begun.elapsed().as_secs());
                }
            }
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        });
        Self(Some((stop, line)))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((stop, line)) = self.0.take() {
            drop(stop);
            let _ = line.join();
        }
    }
}
