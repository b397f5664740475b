//! Another machine tells the link that it has the address, while this one serves on it.
//!
//! A machine that wins where no advertisement reaches it announces the address before it asks whether somebody serves; it
//! finds this master and yields, but until their neighbour entries grow old, everybody sends to it. ucarp here has heard
//! nothing either. So each claim is answered by an announcement of our own, for as long as an election can take.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::sys::address::Interface;
use crate::sys::arp::{Mac, Probe};
use crate::sys::logging::chain;

/// A rival that wins settles and asks, and yields within this.
const ELECTION: Duration = Duration::from_secs(10);
/// Between two lines about the same machine.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// The claims that were heard.
pub(super) struct Claims {
    vip: Ipv4Addr,
    /// Without it none is heard.
    link: Option<Probe>,
    last: Option<Instant>,
    told: Option<(Mac, Instant)>,
}

impl Claims {
    /// Listens from now on.
    pub(super) fn listen(interface: &Interface, vip: Ipv4Addr) -> Self {
        let link = Probe::open(&interface.name, interface.index, vip);
        let link = link.inspect_err(|e| log::warn!("{}; claims of {vip} are not heard", chain(e))).ok();
        Self { vip, link, last: None, told: None }
    }

    /// Announces the address if somebody else did so in the last moments. For whoever has just seen that this machine is
    /// to serve.
    pub(super) fn answer(&mut self) {
        let Some(link) = &self.link else { return };
        match link.last_holder() {
            Ok(Some(mac)) => {
                self.last = Some(Instant::now());
                if self.told.is_none_or(|(known, at)| known != mac || at.elapsed() > TELL_AGAIN) {
                    log::warn!("{mac} announces {} too; answered by announcements of our own", self.vip);
                    self.told = Some((mac, Instant::now()));
                }
            }
            Ok(None) => (),
            Err(e) => log::debug!("{}", chain(&e)),
        }
        if self.last.is_some_and(|last| last.elapsed() < ELECTION) {
            if let Err(e) = link.announce() {
                log::debug!("{}", chain(&e));
            }
        }
    }
}
