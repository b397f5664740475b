//! Standard output and the terminal: a text, its colours and line breaks, and a line that shows the progress of long work.
//!
//! Colours and line breaks appear only if standard output is a terminal, the progress line only if standard error is one.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::termios::tcgetwinsize;

use crate::sys::text::bytes;

/// How often the progress line is written.
const STEP: Duration = Duration::from_millis(200);
/// Shorter work has no progress line.
const SHORT: Duration = Duration::from_millis(500);

/// Prints a text at once. A reader that went away is no error.
pub(crate) fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Asks a question on the terminal, and returns the answer without blanks around it; `None` without a terminal or an answer.
pub(crate) fn ask(question: &str) -> Option<String> {
    if !std::io::stdin().is_terminal() {
        return None;
    }
    let mut out = std::io::stdout();
    out.write_all(question.as_bytes()).and_then(|()| out.flush()).ok()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).ok()?;
    Some(answer.trim().to_owned()).filter(|answer| !answer.is_empty())
}

/// Long work in progress; its line disappears when this value is dropped.
pub(crate) struct Progress(Option<(Sender<()>, JoinHandle<()>)>);

impl Progress {
    /// Shows `what` and its duration. `done` counts the bytes written, if they can be counted.
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
                    // To the first column, erasing the line.
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

/// How a text for people looks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    coloured: bool,
    /// How many columns a line may have.
    columns: Option<usize>,
}

impl Style {
    /// For standard output: as it is, but on a terminal with its columns, and with colours if `NO_COLOR` is not set
    /// (<https://no-color.org>).
    pub(crate) fn of_stdout() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let out = std::io::stdout();
        let columns = tcgetwinsize(&out).ok().map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0);
        Self { coloured: out.is_terminal() && !unwanted, columns }
    }

    /// That of a file.
    #[cfg(test)]
    pub(crate) fn plain() -> Self {
        Self { coloured: false, columns: None }
    }

    /// Breaks a text between words so that it fits, where each of its lines begins in the column `indent`.
    pub(crate) fn fitted(self, text: &str, indent: usize) -> String {
        let Some(room) = self.columns.and_then(|columns| columns.checked_sub(indent)) else { return text.to_owned() };
        let (mut fitted, mut used) = (String::new(), 0);
        for word in text.split(' ') {
            let length = word.chars().count();
            if used > 0 && used + 1 + length > room {
                let _ = write!(fitted, "\n{:indent$}", "");
                used = 0;
            } else if used > 0 {
                fitted.push(' ');
                used += 1;
            }
            fitted.push_str(word);
            used += length;
        }
        fitted
    }

    pub(crate) fn good(self, text: &str) -> String {
        self.with("32", text)
    }

    pub(crate) fn warning(self, text: &str) -> String {
        self.with("33", text)
    }

    pub(crate) fn bad(self, text: &str) -> String {
        self.with("31", text)
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.coloured { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_is_added_around_text_or_not_at_all() {
        assert_eq!(Style { coloured: true, ..Style::plain() }.bad("no"), "\x1b[31mno\x1b[0m");
        assert_eq!(Style::plain().good("yes"), "yes");
        assert!(!Style::of_stdout().coloured || std::io::stdout().is_terminal());
    }

    #[test]
    fn lines_break_between_words_on_a_terminal() {
        let terminal = Style { columns: Some(12), ..Style::plain() };
        assert_eq!(terminal.fitted("one two three", 4), "one two\n    three");
        assert_eq!(terminal.fitted("one two3 a-word-without-end x", 4), "one two3\n    a-word-without-end\n    x");
        assert_eq!(terminal.fitted("one two", 13), "one two");
        assert_eq!(Style::plain().fitted("one two three", 4), "one two three");
    }
}
