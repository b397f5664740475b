//! What can go wrong in the lab. `Debug` prints what `Display` prints, so that a failed test shows the whole story.

use std::path::PathBuf;
use std::time::Duration;
use std::{fmt, io};

/// A failure of the lab, or an event that did not come in time.
#[derive(thiserror::Error)]
pub enum Error {
    /// A file or folder of the lab.
    #[error("cannot {what} {}: {source}", path.display())]
    File {
        /// The operation, as a verb.
        what: &'static str,
        /// The object.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A program of this host did not start.
    #[error("cannot start {program}: {source}")]
    Spawn {
        /// Its command line.
        program: String,
        /// The cause.
        source: io::Error,
    },
    /// A command failed.
    #[error("`{command}` {outcome}\n{output}\n{recent}")]
    Command {
        /// Its command line.
        command: String,
        /// How it ended.
        outcome: String,
        /// What it printed.
        output: String,
        /// The last log lines of every machine, where there are machines.
        recent: String,
    },
    /// debootstrap failed.
    #[error("cannot make {} from Debian's {suite}; {hint}\n{cause}", root.display())]
    Root {
        /// The root of machines.
        root: PathBuf,
        /// The release.
        suite: &'static str,
        /// What to do.
        hint: &'static str,
        /// The cause.
        cause: Box<Error>,
    },
    /// An event did not come before its deadline.
    #[error("waited {within:?} for {what}, and it did not happen\n{recent}")]
    Expired {
        /// The event.
        what: String,
        /// The deadline.
        within: Duration,
        /// The last log lines of every machine.
        recent: String,
    },
    /// A name that no machine of the cluster has.
    #[error("there is no machine called {0}")]
    NoSuchMachine(String),
    /// A machine that is powered off cannot do this.
    #[error("machine {0} is off")]
    Off(String),
    /// A machine that is on already.
    #[error("machine {0} is on already")]
    On(String),
    /// A machine died while it started.
    #[error("machine {name} did not come up\n{recent}")]
    NotUp {
        /// Its name.
        name: String,
        /// The last log lines of every machine.
        recent: String,
    },
    /// No such process on the machine.
    #[error("{program} does not run on {machine}")]
    NotRunning {
        /// The machine.
        machine: String,
        /// The program.
        program: String,
    },
    /// A system call.
    #[error("{what}: {source}")]
    System {
        /// What it was for.
        what: String,
        /// The cause.
        source: io::Error,
    },
    /// Programs under test that are not there.
    #[error("{0}")]
    Programs(String),
    /// A pattern for log lines that is no regular expression.
    #[error("bad pattern: {0}")]
    Pattern(#[from] regex_lite::Error),
    /// A picture that cannot be drawn.
    #[error("cannot draw: {0}")]
    Picture(String),
    /// A line of a log that is not as it should be.
    #[error("cannot read the log line {0:?}")]
    LogLine(String),
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// For `map_err`: an operation on a path failed.
pub(crate) fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
    let path = path.into();
    move |source| Error::File { what, path, source }
}

/// For `map_err`: a system call failed.
pub(crate) fn system<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Error {
    let what = what.into();
    move |source| Error::System { what, source: source.into() }
}
