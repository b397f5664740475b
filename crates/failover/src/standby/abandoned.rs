//! A MASTER on which nothing of this project works any more.
//!
//! Its ucarp lives and goes on advertising, so no other machine takes over; and nothing renews its lease, so no client is
//! answered. That is so if `mfs-promote` was killed too often there, or hangs. ucarp has one way to make a MASTER step down
//! from outside: an advertisement that it prefers to its own. Then it calls `vip-down` there, and the next election begins.
//!
//! One is sent only if, for [`timing::ABANDONED`]: this run has heard that machine's heartbeats, and they have ended; its
//! signed advertisements go on; and nothing answers on the virtual IP.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::group::{Group, View};
use crate::machine::config::Config;
use crate::moosefs::{self, MasterAt};
use crate::sys::logging::chain;
use crate::sys::text::human;
use crate::timing;
use crate::ucarp::{Options, carp};
use crate::vip::VirtualIp;

/// Between two questions to the virtual IP.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// Looks for such a MASTER.
#[derive(Debug, Default)]
pub(super) struct Abandoned {
    suspect: Option<Suspect>,
}

#[derive(Debug, Clone, Copy)]
struct Suspect {
    address: Ipv4Addr,
    /// Nothing has answered on the virtual IP since then.
    since: Instant,
    /// When that was asked last.
    asked: Instant,
}

impl Abandoned {
    /// Looks for one, and makes its ucarp step down. To be called twice in a second.
    pub(super) fn look(&mut self, group: &Group, config: &Config, vip: &VirtualIp) {
        let (options, now) = (group.options(), Instant::now());
        let Some(address) = abandoned(&group.views(), options, now) else {
            self.suspect = None;
            return;
        };
        let before = self.suspect.filter(|suspect| suspect.address == address);
        if before.is_some_and(|suspect| suspect.asked.elapsed() < ASK_EVERY) {
            return;
        }
        let found = moosefs::find_master(vip.port(config.client_port), timing::PEER_CONNECT, timing::PEER_ANSWER);
        if !matches!(found, MasterAt::Silent | MasterAt::NoMaster) {
            self.suspect = None;
            return;
        }
        let suspect = Suspect { address, since: before.map_or(now, |suspect| suspect.since), asked: Instant::now() };
        self.suspect = Some(suspect);
        if suspect.since.elapsed() >= timing::ABANDONED {
            // Asked again from the beginning.
            self.suspect = None;
            log::error!(
                "nothing has answered on {vip} for {}, and mfs-promote does not work any more on {address}, whose ucarp is \
                 MASTER: telling that ucarp to step down",
                human(suspect.since.elapsed())
            );
            if let Err(e) = carp::send_preferred(&vip.interface, vip.address, options) {
                log::error!("{}", chain(&e));
            }
        }
    }
}

/// A MASTER whose heartbeats were heard and have ended.
fn abandoned(views: &BTreeMap<Ipv4Addr, View>, options: &Options, now: Instant) -> Option<Ipv4Addr> {
    let silent = |view: &View| view.heartbeat.is_some() && view.statement(now).is_none();
    views.iter().find(|(_, view)| silent(view) && view.advertises(now, options)).map(|(address, _)| *address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heartbeat::{Heard, Role, Statement};

    #[test]
    fn a_machine_is_abandoned_if_its_ucarp_goes_on_and_our_run_has_ended() {
        let begun = Instant::now();
        let now = begun + Duration::from_secs(60);
        // Milliseconds ago.
        let found = |heartbeat: Option<u64>, advertised: Option<u64>| {
            let statement = Statement { role: Role::Serving, version: None, metaid: 7, forked_at: None, answers: true };
            let ago = |ms| begun + Duration::from_millis(60_000 - ms);
            let view = View {
                heartbeat: heartbeat.map(|ms| Heard { statement, received: ago(ms) }),
                advertised: advertised.map(ago),
                ..View::default()
            };
            abandoned(&[(Ipv4Addr::LOCALHOST, view)].into(), &Options::default(), now).is_some()
        };
        assert!(found(Some(5000), Some(500)));
        assert!(!found(Some(100), Some(500)), "a run works there");
        assert!(!found(Some(5000), Some(9000)), "its ucarp has ended too");
        assert!(!found(None, Some(500)), "no heartbeat ever came from there: an older release, or a firewall");
    }
}
