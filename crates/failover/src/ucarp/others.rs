//! Other machines that advertise themselves as the MASTER of our virtual IP. The one listener for advertisements.
//!
//! Advertisements of another virtual host, and those of this machine that a switch returns, are left out.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use super::carp::{self, Advertisement, Listener};
use super::options::Options;
use crate::sys::address;
use crate::sys::cancel::{Cancel, Cancelled};
use crate::sys::logging::chain;

/// Why no advertisement can be received.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The interface, or this machine's own addresses.
    #[error(transparent)]
    Address(#[from] address::Error),
    /// The packet socket.
    #[error(transparent)]
    Carp(#[from] carp::Error),
}

/// The other MASTERs that were heard since this was opened.
#[derive(Debug)]
pub(crate) struct OtherMasters {
    /// `None` if advertisements cannot be received, at all or any more.
    listener: Option<Listener>,
    vhid: u8,
    own: Vec<Ipv4Addr>,
    /// Since when one has been advertising without a pause.
    first: Option<Instant>,
    last: Option<(Instant, Advertisement)>,
}

impl OtherMasters {
    /// Listens on the interface `name`, with the options of our own ucarp. What arrives from here on is kept until it is
    /// asked for.
    pub(crate) fn listen(name: &str, options: &Options) -> Result<Self, Error> {
        let interface = address::interface(name)?;
        let own = address::own_addresses()?;
        let listener = Listener::open(&interface.name, interface.index, options.group)?;
        Ok(Self { listener: Some(listener), vhid: options.vhid, own, first: None, last: None })
    }

    /// As [`OtherMasters::listen`]; where that cannot be done, none is ever heard.
    pub(crate) fn listen_if_possible(name: &str, options: &Options) -> Self {
        Self::listen(name, options).unwrap_or_else(|e| {
            log::warn!("{}; other MASTERs cannot be heard", chain(&e));
            Self { listener: None, vhid: options.vhid, own: Vec::new(), first: None, last: None }
        })
    }

    /// Whether advertisements can be received.
    pub(crate) fn can_be_heard(&self) -> bool {
        self.listener.is_some()
    }

    /// Waits for the next advertisement of another MASTER, for `time` at most, and returns its sender's own address.
    pub(crate) fn wait(&mut self, time: Duration, cancel: &Cancel) -> Result<Option<Ipv4Addr>, Cancelled> {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let Some(listener) = &self.listener else {
                cancel.sleep(left)?;
                return Ok(None);
            };
            match listener.next(left, cancel) {
                Ok(Some(advertisement)) => {
                    if let Some(source) = self.note(advertisement, Instant::now()) {
                        return Ok(Some(source));
                    }
                }
                Ok(None) => return cancel.check().map(|()| None),
                Err(e) => {
                    log::warn!("{}; other MASTERs cannot be heard any more", chain(&e));
                    self.listener = None;
                }
            }
        }
    }

    /// Takes in the advertisements that have arrived already.
    pub(crate) fn catch_up(&mut self, cancel: &Cancel) {
        while let Ok(Some(_)) = self.wait(Duration::ZERO, cancel) {}
    }

    fn note(&mut self, advertisement: Advertisement, now: Instant) -> Option<Ipv4Addr> {
        if advertisement.vhid != self.vhid || self.own.contains(&advertisement.source) {
            return None;
        }
        let paused = self.silent_since(now).is_some();
        self.first = self.first.filter(|_| !paused).or(Some(now));
        self.last = Some((now, advertisement));
        Some(advertisement.source)
    }

    /// The own address of the machine that was heard last.
    pub(crate) fn last_heard(&self) -> Option<Ipv4Addr> {
        self.last.map(|(_, heard)| heard.source)
    }

    /// The machine that was heard last, if that was after `then`.
    pub(crate) fn heard_since(&self, then: Instant) -> Option<Ipv4Addr> {
        self.last.filter(|(when, _)| *when > then).map(|(_, heard)| heard.source)
    }

    /// The machine that has advertised without a pause for longer than `time`.
    pub(crate) fn advertising_for(&self, time: Duration) -> Option<Ipv4Addr> {
        self.heard_since(self.first? + time)
    }

    /// The machine that was heard last, unless two of its advertisements are missing at `now`.
    pub(crate) fn advertising(&self, now: Instant) -> Option<Ipv4Addr> {
        self.last_heard().filter(|_| self.silent_since(now).is_none())
    }

    /// When the last advertisement came, if two are missing since.
    pub(crate) fn silent_since(&self, now: Instant) -> Option<Instant> {
        self.last
            .filter(|(when, heard)| now.saturating_duration_since(*when) > heard.interval() * 2)
            .map(|(when, _)| when)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const OTHER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

    #[test]
    fn only_others_of_the_same_virtual_host_count_and_a_pause_begins_a_new_count() {
        let mut others = OtherMasters { listener: None, vhid: 10, own: vec![OWN], first: None, last: None };
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let of = |source, vhid| Advertisement { source, vhid, advskew: 0, advbase: 1 };
        assert_eq!(others.note(of(OWN, 10), at(0)), None);
        assert_eq!(others.note(of(OTHER, 11), at(0)), None);
        assert_eq!(others.last_heard(), None);
        for ms in [0, 1000, 2000, 3000, 4000] {
            assert_eq!(others.note(of(OTHER, 10), at(ms)), Some(OTHER));
        }
        assert_eq!(others.advertising_for(Duration::from_secs(3)), Some(OTHER));
        assert_eq!((others.silent_since(at(6000)), others.silent_since(at(6001))), (None, Some(at(4000))));
        assert_eq!((others.advertising(at(6000)), others.advertising(at(6001))), (Some(OTHER), None));
        others.note(of(OTHER, 10), at(9000));
        assert_eq!(others.advertising_for(Duration::from_secs(3)), None, "it had paused");
        assert_eq!(others.heard_since(at(8999)), Some(OTHER));
        assert_eq!(others.heard_since(at(9000)), None);
    }
}
