//! The answers of a check: findings with their levels, and numbers for graphs.

use crate::metadata::Version;
use serde::Serialize;

/// The exit code if nothing could be found out.
pub(crate) const UNKNOWN: u8 = 3;

/// How good an answer is, worst last. The numbers are those of Nagios plugins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Level {
    /// As it should be.
    Ok,
    /// It would work, but needs attention.
    Warning,
    /// Could not be found out.
    Unknown,
    /// This machine cannot take over, or data would be lost.
    Critical,
}

impl Level {
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Critical => 2,
            Self::Unknown => UNKNOWN,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
            Self::Unknown => "UNKNOWN",
        }
    }
}

/// What this machine is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Role {
    /// A master runs here.
    Serving,
    /// None does.
    Standby,
}

impl Role {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Standby => "standby",
        }
    }
}

/// One question and its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) name: &'static str,
    pub(super) level: Level,
    pub(super) text: String,
}

impl Finding {
    fn new(name: &'static str, level: Level, text: impl Into<String>) -> Self {
        Self { name, level, text: text.into() }
    }

    pub(super) fn ok(name: &'static str, text: impl Into<String>) -> Self {
        Self::new(name, Level::Ok, text)
    }

    pub(super) fn warning(name: &'static str, text: impl Into<String>) -> Self {
        Self::new(name, Level::Warning, text)
    }

    pub(super) fn unknown(name: &'static str, text: impl Into<String>) -> Self {
        Self::new(name, Level::Unknown, text)
    }

    pub(super) fn critical(name: &'static str, text: impl Into<String>) -> Self {
        Self::new(name, Level::Critical, text)
    }
}

/// What can be graphed. `None` could not be found out, or has no meaning here.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(super) struct Numbers {
    /// The instance, if it has a name.
    pub(super) xparam: Option<String>,
    /// The version that the serving master has.
    pub(super) master_version: Option<Version>,
    /// The version where a promotion here would end.
    pub(super) copy_version: Option<Version>,
    /// Changes that the copy lacks.
    pub(super) lag: Option<u64>,
    /// When a check last found the copy in sync, Unix seconds.
    pub(super) in_sync: Option<i64>,
    /// Changes that a promotion would replay.
    pub(super) replay: Option<u64>,
    /// Age of the image.
    pub(super) image_age_seconds: Option<u64>,
    /// Space that a promotion needs.
    pub(super) needed_bytes: Option<u64>,
    /// Space that is free.
    pub(super) free_bytes: Option<u64>,
    /// Estimate, from the death of the master to serving here.
    pub(super) takeover_seconds: Option<f64>,
    /// When a rehearsal last succeeded, Unix seconds.
    pub(super) rehearsed: Option<i64>,
    /// Other machines whose metaloggers are connected to the master here.
    pub(super) standbys: Option<u64>,
}

/// All answers.
#[derive(Debug)]
pub(super) struct Report {
    /// `None` if not even that could be found out.
    pub(super) role: Option<Role>,
    pub(super) findings: Vec<Finding>,
    pub(super) numbers: Numbers,
}

impl Report {
    /// The worst level.
    pub(super) fn level(&self) -> Level {
        self.findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok)
    }

    pub(super) fn role(&self) -> &'static str {
        self.role.map_or("unknown", Role::name)
    }
}
