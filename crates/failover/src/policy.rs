//! What follows from a failure: the one place that decides it, for every failure there is.
//!
//! The error types say *why* in detail and name their [`Why`]; the table says what ucarp is told, whether it counts as a
//! role change (too many of them are flapping), whether `--allow-data-loss` overrides it, and what `NOTIFY` is told.

use crate::machine::notify::Event;
use crate::machine::step_down::StepDown;

/// Why a machine does not serve, does not go on serving, or could not become a standby.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// The virtual IP went away: another machine won the election.
    ElectionLost,
    /// Another machine goes on advertising itself as MASTER.
    OtherMaster,
    /// A master on another machine has changes that are missing here.
    NewerElsewhere,
    /// A master on another machine goes on, and cannot be compared.
    MasterElsewhere,
    /// Nothing beyond this machine answers.
    Isolated,
    /// This machine won while nothing beyond it answered, and something answers now.
    WonWhileIsolated,
    /// Another machine answers for the virtual IP.
    DuplicateAddress,
    /// The copy here is known to lack changes.
    StaleCopy,
    /// The copy here lacks so much that only an administrator may serve it.
    TooStale,
    /// Too many role changes in a short time.
    Flapping,
    /// This machine cannot serve: metadata, disk, daemons, configuration.
    CannotServe,
    /// What kept this machine from serving may be gone in a moment: files that moved while they were read, a full disk, an
    /// interface that went away.
    Passing,
    /// A step took longer than any step can take, and was cancelled.
    TimedOut,
    /// Such a step does not even end when it is cancelled.
    Hangs,
    /// A signal ended the run, or a later call did.
    Interrupted,
    /// The master of a serving machine ended or hangs.
    MasterFailed,
    /// The virtual IP of a serving machine was removed again and again, or cannot be put back.
    VipTaken,
    /// A demotion could not do all of its work.
    DemotionFailed,
}

/// What follows from a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Policy {
    /// What ucarp is told; `None`: this machine stays what it is.
    pub(crate) step_down: Option<StepDown>,
    /// Whether machines could pass the virtual IP round for this without end: it counts towards `FLAP_LIMIT`.
    pub(crate) counts: bool,
    /// Whether `--allow-data-loss` overrides it: changes are missing here, or could be made elsewhere. Two machines with one
    /// address cannot work, whatever is allowed.
    pub(crate) waivable: bool,
    /// What `NOTIFY` is told.
    pub(crate) event: Event,
}

impl Why {
    /// What follows from it.
    pub(crate) fn policy(self) -> Policy {
        // Another machine may do better: it gets its chance, and this one stands for the next election.
        let once = Policy { step_down: Some(StepDown::Once), counts: true, waivable: false, event: Event::StepDown };
        // This machine fails again until an administrator has acted.
        let stop = Policy { step_down: Some(StepDown::StopUcarp), counts: false, waivable: false, event: Event::Stop };
        match self {
            // It had no turn at all.
            Self::ElectionLost | Self::Interrupted => Policy { counts: false, ..once },
            // The same failure again and again ends as flapping.
            Self::Passing
            | Self::TimedOut
            | Self::OtherMaster
            | Self::DuplicateAddress
            | Self::MasterFailed
            | Self::VipTaken => once,
            Self::NewerElsewhere | Self::MasterElsewhere | Self::StaleCopy => Policy { waivable: true, ..once },
            // It has no machine to pass the address to, and stays a standby however long it is cut off, and however often its
            // network comes and goes.
            Self::Isolated | Self::WonWhileIsolated => Policy { counts: false, waivable: true, ..once },
            Self::TooStale => Policy { waivable: true, ..stop },
            Self::Flapping | Self::CannotServe | Self::Hangs => stop,
            // The address is gone already.
            Self::DemotionFailed => Policy { step_down: None, event: Event::Alarm, ..stop },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_has_its_consequences() {
        const ONCE: Option<StepDown> = Some(StepDown::Once);
        const STOP: Option<StepDown> = Some(StepDown::StopUcarp);
        let table = [
            // (why, ucarp, counts, waivable, NOTIFY)
            (Why::ElectionLost, ONCE, false, false, Event::StepDown),
            (Why::OtherMaster, ONCE, true, false, Event::StepDown),
            (Why::NewerElsewhere, ONCE, true, true, Event::StepDown),
            (Why::MasterElsewhere, ONCE, true, true, Event::StepDown),
            (Why::Isolated, ONCE, false, true, Event::StepDown),
            (Why::WonWhileIsolated, ONCE, false, true, Event::StepDown),
            (Why::DuplicateAddress, ONCE, true, false, Event::StepDown),
            (Why::StaleCopy, ONCE, true, true, Event::StepDown),
            (Why::TooStale, STOP, false, true, Event::Stop),
            (Why::Flapping, STOP, false, false, Event::Stop),
            (Why::CannotServe, STOP, false, false, Event::Stop),
            (Why::Passing, ONCE, true, false, Event::StepDown),
            (Why::TimedOut, ONCE, true, false, Event::StepDown),
            (Why::Hangs, STOP, false, false, Event::Stop),
            (Why::Interrupted, ONCE, false, false, Event::StepDown),
            (Why::MasterFailed, ONCE, true, false, Event::StepDown),
            (Why::VipTaken, ONCE, true, false, Event::StepDown),
            (Why::DemotionFailed, None, false, false, Event::Alarm),
        ];
        for (why, step_down, counts, waivable, event) in table {
            assert_eq!(why.policy(), Policy { step_down, counts, waivable, event }, "{why:?}");
        }
    }
}
