//! What a hook asks for, as the one word that it gives to the run it starts.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Error;
use crate::machine::outcome::RunKind;

/// A request, as one word: `KIND-NANOSECONDS-PID`. No two are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ticket {
    /// What is asked for.
    pub(crate) kind: RunKind,
    /// Nanoseconds since boot.
    pub(crate) issued: u64,
    /// The process that asked.
    pub(crate) pid: u32,
}

impl Ticket {
    pub(super) fn new(kind: RunKind) -> Self {
        Self {
            kind,
            issued: u64::try_from(super::since_boot().as_nanos()).unwrap_or(u64::MAX),
            pid: std::process::id(),
        }
    }
}

impl Ticket {
    /// How long ago it was issued.
    pub(crate) fn age(&self) -> Duration {
        super::since_boot().saturating_sub(Duration::from_nanos(self.issued))
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.kind, self.issued, self.pid)
    }
}

impl FromStr for Ticket {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut parts = text.split('-');
        let mut parse = || {
            let kind = match parts.next()? {
                "promotion" => RunKind::Promotion,
                "demotion" => RunKind::Demotion,
                "rehearsal" => RunKind::Rehearsal,
                _ => return None,
            };
            let issued = parts.next()?.parse().ok()?;
            let pid = parts.next()?.parse().ok()?;
            parts.next().is_none().then_some(Ticket { kind, issued, pid })
        };
        parse().ok_or_else(|| Error::NotATicket { text: text.to_owned() })
    }
}
