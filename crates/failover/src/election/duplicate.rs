//! Does another machine answer for the virtual IP?
//!
//! A machine that steps down removes its address within milliseconds, so an answer counts only if it still comes a while
//! after the election has settled: then it is an address that no ucarp manages, as a killed one leaves it.

use super::{Election, Failure, POLL};
use crate::sys::cancel::Cancel;
use crate::sys::logging::chain;
use crate::timing;

/// Silence after this many probes in a row is believed.
const UNANSWERED: u32 = 3;

/// Probes until no answer comes and the election has settled.
pub(super) fn check(election: &Election<'_>, cancel: &Cancel) -> Result<String, Failure> {
    let vip = election.vip;
    if !election.machine.config.arp_probe {
        return Ok(format!("not checked whether another machine has {vip} (ARP_PROBE = no)"));
    }
    let unknown = |error: &dyn std::error::Error| {
        log::warn!("{}; cannot check whether another machine has {vip}", chain(error));
        Ok(format!("cannot check whether another machine has {vip}"))
    };
    let probe = match vip.arp() {
        Ok(probe) => probe,
        Err(e) => return unknown(&e),
    };
    let (mut unanswered, mut others) = (0, 0);
    loop {
        cancel.check()?;
        let heard = election.other_masters().len();
        if heard != others {
            // A machine that advertises late may have the address only now.
            (unanswered, others) = (0, heard);
        }
        let settled = election.settled_for();
        if unanswered >= UNANSWERED {
            if settled.is_some() {
                return Ok(format!("no other machine has {vip}"));
            }
            cancel.sleep(POLL)?;
            continue;
        }
        match probe.ask(timing::ARP_ANSWER, cancel) {
            Ok(None) => unanswered += 1,
            Ok(Some(mac)) if settled.is_some_and(|since| since > timing::REMOVING_VIP) => {
                return Err(Failure::Duplicate { mac, vip: vip.clone() });
            }
            Ok(Some(_)) => {
                unanswered = 0;
                cancel.sleep(timing::ARP_ANSWER)?;
            }
            Err(e) => return unknown(&e),
        }
    }
}
