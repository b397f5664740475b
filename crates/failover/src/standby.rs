//! The role of a machine that stands by: its metalogger copies from the serving master, and it may win the next election.
//!
//! The run that was demoted stays, without the lock, as long as the ucarp that called lives, and looks around:
//!
//! | it sees | then |
//! |---|---|
//! | a machine that advertises itself as MASTER | it remembers it as a peer: it is asked before the next promotion |
//! | machines whose metaloggers copy from the serving master | the same: one that takes over while this machine is cut off is heard too late |
//! | a copy that lacks changes, or has all of them | it notes that for the check before a promotion, see [`freshness`] |
//!
//! The role ends with the next call of a hook.

use std::time::{Duration, Instant};

use crate::election::peers;
use crate::machine::call::Call;
use crate::machine::lock::Request;
use crate::machine::{Machine, memory};
use crate::sys::cancel::Cancel;
use crate::timing;
use crate::ucarp::Ucarp;
use crate::vip::VirtualIp;

pub(crate) mod freshness;

/// Between two questions to the serving master.
const ASK_EVERY: Duration = Duration::from_secs(30);

/// A machine that stands by.
pub(crate) struct Standby<'a> {
    machine: &'a Machine,
    vip: VirtualIp,
    /// `None` for a hook that was run by hand: no ucarp has this machine in its elections.
    ucarp: Option<&'a Ucarp>,
    request: Request,
    cancel: &'a Cancel,
}

impl<'a> Standby<'a> {
    /// After the demotion that `call` asked for.
    pub(crate) fn of(call: &'a Call, machine: &'a Machine, request: Request, cancel: &'a Cancel) -> Self {
        Self { machine, vip: call.virtual_ip(), ucarp: call.ucarp.as_ref(), request, cancel }
    }

    /// Stays until the role is over.
    pub(crate) fn stay(self) {
        let Some(ucarp) = self.ucarp else { return };
        let mut others = self.vip.other_masters(&ucarp.options);
        let mut freshness = freshness::Watch::default();
        // The machine that has just won advertises at once, and needs a moment to serve.
        let mut ask_at = Instant::now() + ucarp.options.dead_time() + ucarp.options.interval();
        let mut known = None;
        while self.is_on_duty(ucarp) {
            let Ok(heard) = others.wait(timing::MONITOR, self.cancel) else { return };
            if let Some(other) = heard.filter(|other| known.replace(*other) != Some(*other)) {
                memory::remember_masters(&self.machine.state, [other]);
            }
            if Instant::now() >= ask_at {
                let copying = peers::copying_from(&self.vip, self.machine.config.client_port);
                memory::remember_standbys(&self.machine.state, copying);
                freshness.look(self.machine, &self.vip, self.cancel);
                ask_at = Instant::now() + ASK_EVERY;
            }
        }
    }

    fn is_on_duty(&self, ucarp: &Ucarp) -> bool {
        !self.cancel.is_set() && !self.request.superseded() && ucarp.is_alive()
    }
}
