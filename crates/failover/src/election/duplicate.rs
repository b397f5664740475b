//! Does another machine answer for the virtual IP?
//!
//! A rival that steps back takes its address away within milliseconds, so an answer counts only if it still comes a
//! while after the election has settled: then it is an address that nobody looks after, as a killed ucarp leaves it.

use std::time::Duration;

use crate::sys::arp::Probe;
use crate::sys::logging::chain;

use super::{Checks, Error, PAUSE};

/// How long one probe waits. An answer takes a millisecond.
const ANSWER: Duration = Duration::from_millis(150);
/// So many probes in a row without an answer are believed.
const UNANSWERED: u32 = 3;
/// How long after the election a rival may take to remove the address.
const STEPPING_BACK: Duration = Duration::from_secs(2);

/// Probes until nobody answers and the election has settled.
pub(super) fn watch(guards: &Checks<'_>) -> Result<String, Error> {
    if !guards.target.config.arp_probe {
        return Ok(format!("who else has {} was not asked (ARP_PROBE = no)", guards.vip));
    }
    let probe = match Probe::open(&guards.interface.name, guards.interface.index, guards.vip) {
        Ok(probe) => probe,
        Err(e) => {
            log::warn!("{}; whether another machine has {} is not known", chain(&e), guards.vip);
            return Ok(format!("who else has {} could not be asked", guards.vip));
        }
    };
    let (mut unanswered, mut rivals) = (0, 0);
    loop {
        guards.cancel.check()?;
        let heard = guards.scene.heard().len();
        if heard != rivals {
            // Whoever claims the address late may have it now.
            (unanswered, rivals) = (0, heard);
        }
        let settled = guards.scene.settled_for();
        if unanswered >= UNANSWERED {
            if settled.is_some() {
                return Ok(format!("nobody else has {}", guards.vip));
            }
            guards.cancel.sleep(PAUSE)?;
            continue;
        }
        match probe.ask(ANSWER, guards.cancel) {
            Ok(None) => unanswered += 1,
            Ok(Some(mac)) if settled.is_some_and(|since| since > STEPPING_BACK) => {
                return Err(Error::Duplicate { mac, vip: guards.vip, interface: guards.interface.name.clone() });
            }
            Ok(Some(_)) => {
                unanswered = 0;
                guards.cancel.sleep(ANSWER)?;
            }
            Err(e) => {
                log::warn!("{}; whether another machine has {} is not known", chain(&e), guards.vip);
                return Ok(format!("who else has {} could not be asked", guards.vip));
            }
        }
    }
}
