//! The settle time: wait until it is certain that this machine won.
//!
//! Machines that time out together all become MASTER and argue; the losers step back within a second or so. A rival
//! announces itself the moment it becomes MASTER, so silence for one advertisement interval and a margin means that
//! there is none.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::sys::address::{self, Interface};
use crate::sys::cancel::{Cancel, Cancelled};
use crate::ucarp::Options;
use crate::ucarp::carp::Listener;

use crate::election::Election;

/// Where advertisements cannot be heard, the wait of the howto's script: longer than any argument lasts.
const DEAF_WAIT: Duration = Duration::from_secs(3);
/// An argument that lasts longer than this many dead times is none that waiting ends.
const ROUNDS: u32 = 3;
/// How long a vanished address may go unnoticed.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Why this machine does not serve.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The address went away.
    #[error("{vip} is no longer on {interface}: another machine won")]
    Lost {
        /// The virtual IP.
        vip: Ipv4Addr,
        /// Where it was.
        interface: String,
    },
    /// Another machine goes on advertising.
    #[error("{rival} still advertises itself as the master after {}; do both machines have the same ucarp options?",
            crate::sys::text::human(*after))]
    Rival {
        /// The rival's own address.
        rival: Ipv4Addr,
        /// How long we waited for it to step back.
        after: Duration,
    },
    /// The address could not be looked up.
    #[error(transparent)]
    Address(#[from] address::Error),
    /// Told to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// What is watched while we wait.
pub(crate) struct Settle<'a> {
    /// Where the virtual IP is.
    pub(crate) interface: &'a Interface,
    /// The virtual IP.
    pub(crate) vip: Ipv4Addr,
    /// The options of our own ucarp.
    pub(crate) options: &'a Options,
    /// Added to one advertisement interval.
    pub(crate) margin: Duration,
    /// Where rivals are noted that are heard.
    pub(crate) scene: &'a Election,
}

impl Settle<'_> {
    /// Waits until no rival was heard for an interval and a margin, and the address is still here. Says how it knows.
    pub(crate) fn wait(&self, cancel: &Cancel) -> Result<String, Error> {
        let own = address::own_addresses()?;
        match Listener::open(&self.interface.name, self.interface.index, self.options.group) {
            Ok(listener) => self.listen(&listener, &own, cancel),
            Err(e) => {
                log::warn!(
                    "{}; waiting {} instead",
                    crate::sys::logging::chain(&e),
                    crate::sys::text::human(DEAF_WAIT)
                );
                self.wait_deaf(cancel)
            }
        }
    }

    fn listen(&self, listener: &Listener, own: &[Ipv4Addr], cancel: &Cancel) -> Result<String, Error> {
        let silence = self.options.interval() + self.margin;
        let bound = Instant::now() + self.options.dead_time() * ROUNDS;
        let mut quiet_since = Instant::now();
        let mut rival = None;
        loop {
            self.still_here()?;
            let left = (quiet_since + silence).saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(match rival {
                    None => format!("no rival heard for {}", crate::sys::text::human(silence)),
                    Some(rival) => format!("{rival} stepped back"),
                });
            }
            let heard = match listener.next(left.min(LOOK_EVERY), cancel) {
                Ok(heard) => heard,
                Err(e) => {
                    log::warn!(
                        "{}; waiting {} instead",
                        crate::sys::logging::chain(&e),
                        crate::sys::text::human(DEAF_WAIT)
                    );
                    return self.wait_deaf(cancel);
                }
            };
            cancel.check()?;
            let Some(advertisement) = heard else { continue };
            if advertisement.vhid != self.options.vhid || own.contains(&advertisement.source) {
                continue;
            }
            self.scene.hear(advertisement.source);
            if rival.replace(advertisement.source) != Some(advertisement.source) {
                log::info!(
                    "{} advertises itself as the master too; waiting for one of us to step back",
                    advertisement.source
                );
            }
            quiet_since = Instant::now();
            if quiet_since > bound {
                let after = self.options.dead_time() * ROUNDS;
                return Err(Error::Rival { rival: advertisement.source, after });
            }
        }
    }

    fn wait_deaf(&self, cancel: &Cancel) -> Result<String, Error> {
        let end = Instant::now() + DEAF_WAIT;
        while Instant::now() < end {
            self.still_here()?;
            cancel.sleep(LOOK_EVERY)?;
        }
        self.still_here()?;
        Ok("advertisements cannot be heard here".to_owned())
    }

    fn still_here(&self) -> Result<(), Error> {
        if address::holds(self.interface, self.vip)? {
            Ok(())
        } else {
            Err(Error::Lost { vip: self.vip, interface: self.interface.name.clone() })
        }
    }
}
