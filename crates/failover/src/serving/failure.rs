//! Why a serving machine stops serving.

use std::time::Duration;

use crate::election;
use crate::policy::Why;
use crate::sys::address;
use crate::sys::text::human;
use crate::vip::VirtualIp;

/// Why a serving machine stops serving.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// It may not serve any more.
    #[error(transparent)]
    Election(#[from] election::Failure),
    /// It does not serve any more.
    #[error("mfsmaster exited and has not been running for {}; see its log", human(*.0))]
    Exited(Duration),
    /// Nor does it if its master hangs.
    #[error("mfsmaster is running but has not responded for {}", human(*.0))]
    Unresponsive(Duration),
    /// Another program fights for the address.
    #[error(
        "{vip} was removed from {} {times} times in {} by another program; find it", vip.interface, human(*within)
    )]
    Removed {
        /// The virtual IP.
        vip: VirtualIp,
        /// How often.
        times: usize,
        /// In which time.
        within: Duration,
    },
    /// The address cannot be restored.
    #[error("{vip} was removed from {} by another program and cannot be restored", vip.interface)]
    Gone {
        /// The virtual IP.
        vip: VirtualIp,
        /// Why.
        #[source]
        source: address::Error,
    },
}

impl Failure {
    /// The row of the policy table.
    pub(super) fn why(&self) -> Why {
        match self {
            Self::Election(failure) => failure.why(),
            Self::Exited(_) | Self::Unresponsive(_) => Why::MasterFailed,
            Self::Removed { .. } | Self::Gone { .. } => Why::VipTaken,
        }
    }
}
