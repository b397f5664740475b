//! Tells the machines that stand by who is connected to the master here: the one that takes over has them reset.

use std::time::{Duration, Instant};

use crate::group::Group;
use crate::machine::config::Config;
use crate::machine::connections;
use crate::sys::tcp::Connected;
use crate::vip::VirtualIp;

/// Between two looks. A connection that is younger is not told, and its client soon sends again by itself.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// When what has not changed is told again: a machine that began to stand by does not know it.
const TELL_AGAIN: Duration = Duration::from_secs(10);

/// What was told last, and when.
#[derive(Debug, Default)]
pub(super) struct Teller {
    told: Vec<Connected>,
    told_at: Option<Instant>,
    looked_at: Option<Instant>,
}

impl Teller {
    /// Tells it if it is time to.
    pub(super) fn look(&mut self, group: &Group, config: &Config, vip: &VirtualIp) {
        if self.looked_at.is_some_and(|at| at.elapsed() < LOOK_EVERY) {
            return;
        }
        self.looked_at = Some(Instant::now());
        let connected = connections::to_master(config, vip.address);
        if connected != self.told || self.told_at.is_none_or(|at| at.elapsed() >= TELL_AGAIN) {
            group.tell_connections(connected.clone());
            (self.told, self.told_at) = (connected, self.looked_at);
        }
    }
}
