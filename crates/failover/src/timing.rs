//! The durations that the safety argument rests on, in one table. The tests below say how they depend on each other. `docs/safety.md` has the argument.
//!
//! Times of ucarp come from its own options: [`interval`](crate::ucarp::Options::interval) and
//! [`dead_time`](crate::ucarp::Options::dead_time). Waits that decide nothing stay where they are used.

use std::time::Duration;

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

// The hooks.

/// How long a hook waits for another one at most: ucarp advertises nothing meanwhile.
pub(crate) const HOOK_MUTEX: Duration = ms(200);
/// How long a run waits for the one before it, which may have to roll back and end a master that is loading.
pub(crate) const LOCK: Duration = ms(120_000);

/// While a hook removes the virtual IP: how long the master may take for one pass of its loop.
pub(crate) const DRAIN_LOOP_PASS: Duration = ms(60);
/// How long metaloggers may then take to acknowledge. One that takes longer is dead or cut off, and would not get the
/// change.
pub(crate) const DRAIN_ACKNOWLEDGED: Duration = ms(50);

// The election.

/// Where advertisements cannot be heard, the wait of the howto's script: longer than two machines are both MASTER.
pub(crate) const SETTLE_UNHEARD: Duration = ms(3000);
/// Two machines that are both MASTER for this many dead times have different options: waiting longer does not help.
pub(crate) const SETTLE_DEAD_TIMES: u32 = 3;
/// The skew of another machine adds at most this to its interval, and to its dead time.
pub(crate) const OTHER_SKEW: Duration = ms(1000);

// The checks before serving.

/// How long one attempt to reach a ping node or chunkserver may take; an answer takes a millisecond.
pub(crate) const PING: Duration = ms(400);
/// How long the silence of all of them is not believed: a switch may need a moment after a power cut.
pub(crate) const ISOLATED: Duration = ms(3000);
/// One of two attempts to connect to a peer.
pub(crate) const PEER_CONNECT: Duration = ms(400);
/// The same for a peer that answers on the link and did not answer: its kernel may ask for our hardware address only once
/// in a second.
pub(crate) const PEER_CONNECT_AGAIN: Duration = ms(1500);
/// How long a master may take to answer once it has accepted the connection.
pub(crate) const PEER_ANSWER: Duration = ms(1000);
/// A peer's master that accepts connections and does not answer within this hangs, and serves no client.
pub(crate) const PEER_HUNG: Duration = ms(3000);
/// A metalogger writes to its disk once a second what a stopping master has sent. Longer behind is not following.
pub(crate) const METALOGGER_FLUSH: Duration = ms(2000);
/// How long one ARP probe waits; an answer takes a millisecond.
pub(crate) const ARP_ANSWER: Duration = ms(150);
/// How long after the election another machine may take to remove the virtual IP.
pub(crate) const REMOVING_VIP: Duration = ms(2000);
/// After this time and two dead times, a step-down for a stale copy belonged to another election.
pub(crate) const SAME_ELECTION: Duration = ms(60_000);

// A promotion.

/// A daemon that does not run when this has passed since its start was ordered has exited.
pub(crate) const START_GRACE: Duration = ms(2000);
/// A master that exits over something it finds wrong does so within this after it began to serve.
pub(crate) const EARLY_EXIT: Duration = ms(3000);
/// How long a step that has timed out may take to stop once it is cancelled.
pub(crate) const CANCEL_GRACE: Duration = ms(10_000);
/// How long ucarp may take to run `vip-down` and end before it is killed: with its link down it ignores signals.
pub(crate) const UCARP_STOP: Duration = ms(3000);

// A demotion.

/// Added to ucarp's dead time and interval: the time in which a restarted ucarp is MASTER again.
pub(crate) const GRACE_MARGIN: Duration = ms(1000);
/// Within this another MASTER finds that it lacks changes, and steps down. One that goes on waits for the master here to
/// stop.
pub(crate) const OTHER_DECIDES: Duration = ms(3000);
/// Other MASTERs that come and go prolong the grace to this many at most.
pub(crate) const GRACES: u32 = 4;

// A serving machine.

/// Between two looks at master, network and peers.
pub(crate) const MONITOR: Duration = ms(500);
/// A master that an administrator restarts is back within this: it takes its lock before it loads.
pub(crate) const RESTART: Duration = ms(3000);
/// A machine that has looked around, and reached another one, within this was not paused.
pub(crate) const AWAKE: Duration = ms(2000);
/// Between the end of the wait for a restarted ucarp and the moment in which another machine can win.
pub(crate) const UCARP_RESTART_MARGIN: Duration = ms(500);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ucarp::Options;

    fn all_options() -> impl Iterator<Item = Options> {
        [(1, 3), (1, 1), (2, 3), (5, 2)].into_iter().flat_map(|(advbase, deadratio)| {
            [0, 50, 255].map(|advskew| Options { advbase, advskew, deadratio, ..Options::default() })
        })
    }

    #[test]
    fn a_hook_that_waits_for_another_one_is_back_before_an_advertisement_is_missed() {
        assert!(all_options().all(|options| HOOK_MUTEX * 2 < options.interval()));
        assert!(DRAIN_LOOP_PASS * 2 + DRAIN_ACKNOWLEDGED < HOOK_MUTEX, "what a hook does while it has the mutex");
    }

    #[test]
    fn a_peer_is_asked_twice_and_judged_before_its_master_is_said_to_hang() {
        assert!(PEER_CONNECT * 2 + PEER_ANSWER < PEER_HUNG);
        assert!(PEER_CONNECT * 2 + PEER_CONNECT_AGAIN < PEER_HUNG);
        assert!(METALOGGER_FLUSH > Duration::from_secs(1), "a metalogger flushes once a second");
    }

    #[test]
    fn the_grace_of_a_demotion_outlasts_a_restart_of_ucarp_and_the_decision_of_another_master() {
        for options in all_options() {
            assert!(crate::demotion::grace(&options) > options.dead_time() + options.interval());
        }
        assert!(OTHER_DECIDES >= PEER_CONNECT * 2 + PEER_ANSWER, "it has asked us by then");
    }

    #[test]
    fn an_early_exit_is_noticed_before_a_restart_would_be_waited_for() {
        assert!(START_GRACE < EARLY_EXIT && EARLY_EXIT <= RESTART);
        assert!(MONITOR * 2 < AWAKE, "two looks are made in the time in which one is fresh");
    }
}
