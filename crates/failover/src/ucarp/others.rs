//! Other machines that advertise themselves as the MASTER of our virtual IP. The one listener for advertisements.
//!
//! An advertisement counts only if it is signed with the password of our own ucarp, for our virtual host and virtual IP, and was
//! not heard before ([`replay`](super::replay)): ucarp itself would not take another one. Those of this machine that a
//! switch returns are left out.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use super::carp::{self, Advertisement, Listener};
use super::options::Options;
use super::replay::Heard;
use super::secret::{self, Secret};
use crate::instance::Instance;
use crate::sys::address;
use crate::sys::cancel::{Cancel, Cancelled};
use crate::sys::logging::chain;
use crate::sys::packet::MOST_AT_ONCE;

/// More are not named.
const MOST_STRANGERS: usize = 8;

/// Why no advertisement can be received.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The interface, or this machine's own addresses.
    #[error(transparent)]
    Address(#[from] address::Error),
    /// The packet socket.
    #[error(transparent)]
    Carp(#[from] carp::Error),
    /// The password.
    #[error(transparent)]
    Secret(#[from] secret::Error),
}

/// The other MASTERs that were heard since this was opened.
#[derive(Debug)]
pub(crate) struct OtherMasters {
    /// `None` if advertisements cannot be received, at all or any more.
    listener: Option<(Listener, Secret)>,
    vip: Ipv4Addr,
    vhid: u8,
    heard: Heard,
    own: Vec<Ipv4Addr>,
    /// When it was opened.
    since: Instant,
    last: Option<(Instant, Advertisement)>,
}

impl OtherMasters {
    /// Listens on the interface `name`, with the options of our own ucarp. What arrives from here on is kept until it is
    /// asked for.
    pub(crate) fn listen(name: &str, vip: Ipv4Addr, options: &Options) -> Result<Self, Error> {
        let secret = Secret::of(options)?;
        let heard = Heard::load(&Instance::of_xparam(options.xparam.as_deref()).unwrap_or_default().run_folder());
        let interface = address::interface(name)?;
        let own = address::own_addresses()?;
        let listener = Listener::open(&interface.name, interface.index, options.group)?;
        Ok(Self { listener: Some((listener, secret)), heard, own, ..Self::deaf(vip, options) })
    }

    /// As [`OtherMasters::listen`]; where that cannot be done, none is ever heard.
    pub(crate) fn listen_if_possible(name: &str, vip: Ipv4Addr, options: &Options) -> Self {
        Self::listen(name, vip, options).unwrap_or_else(|e| {
            log::warn!("{}; other MASTERs cannot be heard", chain(&e));
            Self::deaf(vip, options)
        })
    }

    fn deaf(vip: Ipv4Addr, options: &Options) -> Self {
        let since = Instant::now();
        Self { listener: None, vip, vhid: options.vhid, heard: Heard::default(), own: Vec::new(), since, last: None }
    }

    /// From when on advertisements are received.
    pub(crate) fn since(&self) -> Instant {
        self.since
    }

    /// Whether advertisements can be received.
    pub(crate) fn can_be_heard(&self) -> bool {
        self.listener.is_some()
    }

    /// Waits for the next advertisement of another MASTER, for `time` at most, and returns its sender's own address.
    pub(crate) fn wait(&mut self, time: Duration, cancel: &Cancel) -> Result<Option<Ipv4Addr>, Cancelled> {
        let end = Instant::now() + time;
        let mut ignored = 0;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let Some((listener, _)) = &self.listener else {
                cancel.sleep(left)?;
                return Ok(None);
            };
            match listener.next(left, cancel) {
                Ok(Some(advertisement)) => {
                    if let Some(source) = self.note(advertisement, Instant::now()) {
                        return Ok(Some(source));
                    }
                    ignored += 1;
                    if ignored >= MOST_AT_ONCE && left.is_zero() {
                        return cancel.check().map(|()| None);
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

    /// Takes in the advertisements that have arrived already, and not for ever those that go on arriving.
    pub(crate) fn catch_up(&mut self, cancel: &Cancel) {
        for _ in 0..MOST_AT_ONCE {
            if !matches!(self.wait(Duration::ZERO, cancel), Ok(Some(_))) {
                return;
            }
        }
    }

    fn note(&mut self, advertisement: Advertisement, now: Instant) -> Option<Ipv4Addr> {
        let secret = self.listener.as_ref().map(|(_, secret)| secret)?;
        let signed = advertisement.vhid == self.vhid && advertisement.is_signed(secret, self.vip);
        let other = signed && !self.own.contains(&advertisement.source);
        if !other || !self.heard.is_new(advertisement.source, advertisement.number()) {
            return None;
        }
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

/// The machines that advertise the virtual host id of our ucarp within `time`, and are not of its group: another virtual IP,
/// another password, or no ucarp at all.
pub(crate) fn strangers(
    name: &str,
    vip: Ipv4Addr,
    options: &Options,
    time: Duration,
) -> Result<BTreeSet<Ipv4Addr>, Error> {
    let secret = Secret::of(options)?;
    let interface = address::interface(name)?;
    let own = address::own_addresses()?;
    let listener = Listener::open(&interface.name, interface.index, options.group)?;
    let (end, mut found) = (Instant::now() + time, BTreeSet::new());
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(found);
        }
        if let Some(heard) = listener.next(left, Cancel::never())? {
            let ours = own.contains(&heard.source) || heard.is_signed(&secret, vip);
            if heard.vhid == options.vhid && !ours && found.len() < MOST_STRANGERS {
                found.insert(heard.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing::{own_loopback, own_run};
    use crate::ucarp::carp::tests::{UCARP, advertisement, packet, start, two_machines};
    use crate::ucarp::options::Password;

    const OWN: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 11);
    const OTHER: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 12);
    const VIP: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 99);

    #[test]
    fn only_what_another_machine_of_the_group_has_signed_counts_and_only_once() {
        let _far = two_machines();
        let password = Some(Password::Visible("secret".to_owned()));
        let options = Options { vhid: 10, password, ..Options::default() };
        let mut others = OtherMasters::listen("eth0", VIP, &options).unwrap();
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let foreign = [
            advertisement(OWN, 10, VIP, "secret", 1),
            advertisement(OTHER, 11, VIP, "secret", 1),
            advertisement(OTHER, 10, VIP, "other", 1),
            advertisement(OTHER, 10, Ipv4Addr::new(172, 16, 0, 98), "secret", 1),
        ];
        for advertisement in foreign {
            assert_eq!(others.note(advertisement, at(0)), None, "{advertisement:?}");
        }
        assert_eq!(others.last_heard(), None);
        for number in 0..5 {
            let signed = advertisement(OTHER, 10, VIP, "secret", 100 + number);
            assert_eq!(others.note(signed, at(number * 1000)), Some(OTHER));
            assert_eq!(others.note(signed, at(number * 1000 + 500)), None, "sent again");
        }
        assert_eq!((others.silent_since(at(6000)), others.silent_since(at(6001))), (None, Some(at(4000))));
        assert_eq!((others.advertising(at(6000)), others.advertising(at(6001))), (Some(OTHER), None));
        others.note(advertisement(OTHER, 10, VIP, "secret", 105), at(9000));
        assert_eq!(others.heard_since(at(8999)), Some(OTHER));
        assert_eq!(others.heard_since(at(9000)), None);
    }

    #[test]
    fn another_group_with_our_virtual_host_id_is_named() {
        let far = two_machines();
        let password = Some(Password::Visible("secret".to_owned()));
        let options = Options { vhid: 10, password, ..Options::default() };
        let find = || strangers("eth0", VIP, &options, Duration::from_millis(2500)).unwrap();
        let ucarp = |more: &str| start(&format!("nsenter -t {} -n {UCARP} -s 172.16.0.12{more}", far.0.id()));
        let ours = ucarp("");
        assert_eq!(find(), [].into());
        drop(ours);
        let _other = ucarp(" -p other");
        assert_eq!(find(), [OTHER].into());
    }

    #[test]
    fn a_flood_without_end_hides_neither_the_time_nor_an_order_to_stop() {
        use socket2::{Domain, Protocol, Socket, Type};
        use std::sync::atomic::{AtomicBool, Ordering};

        own_run();
        own_loopback();
        let password = Some(Password::Visible("secret".to_owned()));
        let options = Options { vhid: 10, password, ..Options::default() };
        let mut others = OtherMasters::listen("lo", VIP, &options).unwrap();
        let (over, cancel) = (AtomicBool::new(false), Cancel::new());
        let begun = Instant::now();
        std::thread::scope(|scope| {
            // Half of them are advertisements, which nobody of the group has signed.
            scope.spawn(|| {
                let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(112))).unwrap();
                socket.set_header_included_v4(true).unwrap();
                let here = std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into();
                let (signed, mut broken) = (packet(), packet());
                broken[30] ^= 1;
                while !over.load(Ordering::Relaxed) {
                    let _ = (socket.send_to(&signed, &here), socket.send_to(&broken, &here));
                }
            });
            assert_eq!(others.wait(Duration::from_millis(300), &cancel).unwrap(), None);
            others.catch_up(&cancel);
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(100));
                cancel.cancel();
            });
            assert!(others.wait(Duration::from_secs(60), &cancel).is_err());
            over.store(true, Ordering::Relaxed);
        });
        assert!(begun.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn without_the_password_nothing_can_be_heard() {
        let _far = two_machines();
        for password in [None, Some(Password::File("/nonexistent/ucarp.pass".into()))] {
            let options = Options { vhid: 10, password, ..Options::default() };
            assert!(!OtherMasters::listen_if_possible("eth0", VIP, &options).can_be_heard());
        }
    }
}
