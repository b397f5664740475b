//! What a hook asks for, as the one word that it gives to the run it starts.

use std::fmt;
use std::str::FromStr;

use super::Error;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Becoming the master.
    Promotion,
    /// Going back to metalogger duty.
    Demotion,
    /// Trying a promotion out: never asked for by ticket, and never in the way of the others.
    Rehearsal,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Promotion => "promotion",
            Self::Demotion => "demotion",
            Self::Rehearsal => "rehearsal",
        })
    }
}

/// A request, as one word: `ROLE-NANOSECONDS-PID`. No two are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    /// What is asked for.
    pub(crate) role: Role,
    /// Nanoseconds since boot.
    pub(crate) issued: u64,
    /// The process that asked.
    pub(crate) pid: u32,
}

impl Ticket {
    pub(super) fn new(role: Role) -> Self {
        Self {
            role,
            issued: u64::try_from(super::since_boot().as_nanos()).unwrap_or(u64::MAX),
            pid: std::process::id(),
        }
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.role, self.issued, self.pid)
    }
}

impl FromStr for Ticket {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut parts = text.split('-');
        let mut parse = || {
            let role = match parts.next()? {
                "promotion" => Role::Promotion,
                "demotion" => Role::Demotion,
                "rehearsal" => Role::Rehearsal,
                _ => return None,
            };
            let issued = parts.next()?.parse().ok()?;
            let pid = parts.next()?.parse().ok()?;
            parts.next().is_none().then_some(Ticket { role, issued, pid })
        };
        parse().ok_or_else(|| Error::NotATicket { text: text.to_owned() })
    }
}
