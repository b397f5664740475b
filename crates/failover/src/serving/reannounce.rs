//! Another machine announces the virtual IP on the link, while this one serves on it.
//!
//! A machine that wins where no advertisement reaches it announces the address before it asks whether another one serves.
//! It then finds this master and steps down, but until the neighbour entries of all others expire they send to it. ucarp
//! here has heard nothing either. So each announcement is answered by one of our own, for as long as an election can take.
//!
//! A standby that times out a little later than this machine announces the address too, before it reads the advertisement that
//! makes it step down. So a promotion announces the address again when its master answers.

use std::time::{Duration, Instant};

use crate::sys::arp::{Mac, Probe};
use crate::sys::logging::chain;
use crate::vip::VirtualIp;

/// A machine that wins settles, asks and steps down within this.
const ELECTION: Duration = Duration::from_secs(10);
/// Between two lines about the same machine.
const LOG_AGAIN: Duration = Duration::from_secs(60);

/// The announcements of others.
pub(crate) struct Reannounce {
    vip: VirtualIp,
    /// `None` if none can be heard.
    link: Option<Probe>,
    last: Option<Instant>,
    logged: Option<(Mac, Instant)>,
}

impl Reannounce {
    /// Listens from now on.
    pub(crate) fn listen(vip: &VirtualIp) -> Self {
        let link = vip.arp().inspect_err(|e| {
            log::warn!("{}; cannot detect other machines that announce {vip}", chain(e));
        });
        Self { vip: vip.clone(), link: link.ok(), last: None, logged: None }
    }

    /// Announces the address if another machine did so a moment ago. For a machine that has just seen that it is to serve.
    pub(crate) fn answer(&mut self) {
        let Some(link) = &self.link else { return };
        match link.last_holder() {
            Ok(Some(mac)) => {
                self.last = Some(Instant::now());
                if self.logged.is_none_or(|(known, at)| known != mac || at.elapsed() > LOG_AGAIN) {
                    log::warn!("{mac} also announces {}; re-sending gratuitous ARP", self.vip);
                    self.logged = Some((mac, Instant::now()));
                }
            }
            Ok(None) => (),
            Err(e) => log::debug!("{}", chain(&e)),
        }
        if self.last.is_some_and(|last| last.elapsed() < ELECTION) {
            self.announce();
        }
    }

    /// Announces the address.
    pub(crate) fn announce(&self) {
        if let Some(Err(e)) = self.link.as_ref().map(Probe::announce) {
            log::debug!("{}", chain(&e));
        }
    }
}
