//! The kind of a run, its outcome and its steps: one set of words for the log, the records and the reports.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a run is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RunKind {
    /// Becoming the master.
    Promotion,
    /// Becoming a standby.
    Demotion,
    /// A restore beside the data, as a promotion would make it.
    Rehearsal,
    /// A planned change of the master to another machine.
    Switchover,
}

impl fmt::Display for RunKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `pad`: the reports align it.
        f.pad(match self {
            Self::Promotion => "promotion",
            Self::Demotion => "demotion",
            Self::Rehearsal => "rehearsal",
            Self::Switchover => "switchover",
        })
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// Promotion: a new master serves.
    Serving,
    /// Promotion: a healthy master was running here and was left alone.
    AlreadyServing,
    /// Promotion: failed; ucarp released the virtual IP once, so that another machine can win.
    SteppedDown,
    /// Promotion: failed; ucarp was stopped here.
    Stopped,
    /// Demotion: the master was stopped.
    Demoted,
    /// Demotion: no master was running.
    NothingToDemote,
    /// Demotion: the virtual IP came back, so the master was left alone.
    MasterKept,
    /// A later request took this run's place.
    Superseded,
    /// It failed. Also the outcome of a run that ended without naming one.
    Failed,
    /// Switchover: another machine serves.
    SwitchedOver,
    /// Switchover: no other machine took over.
    NotSwitchedOver,
    /// Rehearsal: a promotion would serve.
    WouldServe,
    /// Rehearsal: a promotion would fail.
    WouldNotServe,
    /// Rehearsal: ended by a promotion or a signal, without a result.
    Cancelled,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Serving => "serving",
            Self::AlreadyServing => "already serving",
            Self::SteppedDown => "stepped down",
            Self::Stopped => "stopped",
            Self::Demoted => "demoted",
            Self::NothingToDemote => "nothing to demote",
            Self::MasterKept => "master kept",
            Self::Superseded => "superseded",
            Self::Failed => "failed",
            Self::SwitchedOver => "switched over",
            Self::NotSwitchedOver => "not switched over",
            Self::WouldServe => "would serve",
            Self::WouldNotServe => "would not serve",
            Self::Cancelled => "cancelled",
        })
    }
}

/// A step of a run: begins its log line, and is timed in the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StepName {
    /// Ends what an interrupted run began.
    Recover,
    /// Puts everything back after a failure.
    RollBack,
    /// Looks at what runs here; of a rehearsal: checks its result.
    Check,
    /// Plans, and copies the image into the stage.
    Prepare,
    /// Waits until the election is settled.
    Settle,
    /// The checks before serving.
    Checks,
    /// Stops or starts the metalogger.
    Metalogger,
    /// Completes the stage.
    Stage,
    /// Moves the staged set in.
    Commit,
    /// Starts the master.
    Start,
    /// Lets the hot standby serve.
    LetGo,
    /// Asks the master until it answers what was planned.
    Prove,
    /// Resets the clients' stale connections.
    Clients,
    /// Makes sure that the new master stays up.
    Watch,
    /// Starts the web interface.
    Cgiserv,
    /// Archives what was set aside.
    Archive,
    /// Waits in case the virtual IP comes back.
    Grace,
    /// Stops the master.
    Stop,
    /// Makes ucarp step down.
    Ucarp,
    /// Waits until another machine serves.
    Serve,
    /// Restores the staged set, in a rehearsal.
    Restore,
}

impl fmt::Display for StepName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Recover => "recover",
            Self::RollBack => "roll-back",
            Self::Check => "check",
            Self::Prepare => "prepare",
            Self::Settle => "settle",
            Self::Checks => "checks",
            Self::Metalogger => "metalogger",
            Self::Stage => "stage",
            Self::Commit => "commit",
            Self::Start => "start",
            Self::LetGo => "hot",
            Self::Prove => "prove",
            Self::Clients => "clients",
            Self::Watch => "watch",
            Self::Cgiserv => "cgiserv",
            Self::Archive => "archive",
            Self::Grace => "grace",
            Self::Stop => "stop",
            Self::Ucarp => "ucarp",
            Self::Serve => "serve",
            Self::Restore => "restore",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_read_words_without_spaces_and_people_read_plain_ones() {
        assert_eq!(serde_json::to_string(&Outcome::NothingToDemote).unwrap(), "\"nothing_to_demote\"");
        assert_eq!(Outcome::NothingToDemote.to_string(), "nothing to demote");
        assert_eq!(serde_json::to_string(&RunKind::Switchover).unwrap(), "\"switchover\"");
        assert_eq!(serde_json::to_string(&StepName::Restore).unwrap(), format!("\"{}\"", StepName::Restore));
    }
}
