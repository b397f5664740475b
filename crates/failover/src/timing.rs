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
pub(crate) const HOOK_MUTEX: Duration = ms(300);
/// Added to the time of a clean stop of the master: how long a run waits for the one before it, which may have to stop the
/// master, or to roll back and end one that is loading.
pub(crate) const LOCK_MARGIN: Duration = ms(60_000);
/// How long the size of the image may take to be read for that. A disk that takes longer does not answer, and the run before
/// will not end either.
pub(crate) const IMAGE_SIZE: Duration = ms(2000);

/// How long a hook waits for the kernel to close the lease; it takes some milliseconds, and longer while another program changes
/// the packet filter.
pub(crate) const HOOK_LEASE: Duration = ms(150);
/// How long a hook waits for the kernel to add or remove the address, or to say whether it is there.
pub(crate) const HOOK_ADDRESS: Duration = ms(1000);
/// While a hook removes the virtual IP: how long the master may take for one pass of its loop.
pub(crate) const DRAIN_LOOP_PASS: Duration = ms(60);
/// How long metaloggers may then take to acknowledge. One that takes longer is dead or cut off, and would not get the
/// change.
pub(crate) const DRAIN_ACKNOWLEDGED: Duration = ms(50);

// The election.

/// Where advertisements cannot be heard, the wait of the howto's script: longer than two machines are both MASTER.
pub(crate) const SETTLE_UNHEARD: Duration = ms(3000);
/// The shortest settle time: ten heartbeats of a machine that became MASTER together with this one have come by then.
pub(crate) const SETTLE_LEAST: Duration = ms(500);
/// A machine whose last heartbeat is older than this may have done something else since.
pub(crate) const HEARTBEAT_NOW: Duration = ms(250);
/// Two machines that are both MASTER for this many dead times have different options: waiting longer does not help.
pub(crate) const SETTLE_DEAD_TIMES: u32 = 3;
/// The skew of another machine adds at most this to its interval, and to its dead time.
pub(crate) const OTHER_SKEW: Duration = ms(1000);

// The checks before serving.

/// How long one attempt to reach a ping node or chunkserver may take; an answer takes a millisecond.
pub(crate) const PING: Duration = ms(400);
/// How long the silence of all of them is not believed: a switch may need a moment after a power cut.
pub(crate) const ISOLATED: Duration = ms(3000);
/// One of two attempts to connect to a peer: its kernel answers within a millisecond.
pub(crate) const PEER_CONNECT: Duration = ms(250);
/// The same for a peer that answers on the link and did not answer: its kernel may ask for our hardware address only once
/// in a second.
pub(crate) const PEER_CONNECT_AGAIN: Duration = ms(1500);
/// How long a master may take to answer once it has accepted the connection.
pub(crate) const PEER_ANSWER: Duration = ms(1000);
/// Between two questions to the same peer, where somebody waits for the answer.
pub(crate) const ASK_AGAIN: Duration = ms(100);
/// A peer's master that accepts connections and does not answer within this hangs, and serves no client.
pub(crate) const PEER_HUNG: Duration = ms(3000);
/// A metalogger writes to its disk once a second what a stopping master has sent. Longer behind is not following.
pub(crate) const METALOGGER_FLUSH: Duration = ms(2000);
/// How long one ARP probe waits; an answer takes a millisecond.
pub(crate) const ARP_ANSWER: Duration = ms(150);
/// How long after the election the virtual IP may still be on another machine: one on which everything was killed loses it
/// when its lifetime ends, which the kernel counts in whole seconds.
pub(crate) const REMOVING_VIP: Duration = ms(12_000);
/// After this time and two dead times, a step-down for a stale copy belonged to another election.
pub(crate) const SAME_ELECTION: Duration = ms(60_000);

/// A copy that lacks more changes than this, or is older than [`LAST_RESORT_AGE`], is not served as a last resort: an
/// administrator decides whether to go back as far. A busy cluster makes some hundred changes in a second.
pub(crate) const LAST_RESORT_CHANGES: u64 = 100_000;
/// How long before the last comparison with a serving master such a copy may have been complete.
pub(crate) const LAST_RESORT_AGE: Duration = ms(600_000);

// A promotion.

/// How long the run that stood by may need to let go of the hot standby: a fraction of the settle time.
pub(crate) const STANDBY_LEFT: Duration = ms(1000);

/// A daemon that does not run when this has passed since its start was ordered has exited.
pub(crate) const START_GRACE: Duration = ms(2000);
/// A master that exits over something it finds wrong does so within this after it began to serve.
pub(crate) const EARLY_EXIT: Duration = ms(3000);
/// However steady its progress: a start or a stop of the master takes so many times what its files take on an ordinary disk
/// (10 MB/s) at most. Disks of 3 MB/s were met.
pub(crate) const MOST_TIMES: u32 = 5;
/// A thread that waits in the kernel for a disk, and has not run once in this time, hangs: the disk does not answer. Half of
/// what the kernel itself takes for a hung task.
pub(crate) const HUNG: Duration = ms(60_000);
/// How long a step that has timed out may take to stop once it is cancelled.
pub(crate) const CANCEL_GRACE: Duration = ms(10_000);
/// How long the record of such a run may take to be written, once the address is gone.
pub(crate) const RECORD: Duration = ms(2000);
/// How long it may take to order the stop of ucarp's unit, before ucarp is told to end in any case.
pub(crate) const UNIT_STOP: Duration = ms(5000);
/// How long ucarp may take to run `vip-down` and end before it is killed: with its link down it ignores signals.
pub(crate) const UCARP_STOP: Duration = ms(3000);

// A serving machine's lease: the time in which it may answer clients without new proof that it is heard.

/// Between two renewals.
pub(crate) const LEASE_RENEWED: Duration = ms(250);
/// What is kept free between the end of a lease and the moment in which another machine can begin to serve: answers that are
/// under way, and the kernel's clock.
const LEASE_GUARD: Duration = ms(250);
/// However ucarp's options are: no machine begins to serve sooner than this after the one before was last heard.
const SOONEST_TAKEOVER: Duration = ms(1250);
/// A machine of which no heartbeat came for this long does not send any more: ten of them are missing.
pub(crate) const HEARTBEAT_LOST: Duration = ms(1000);

/// How soon after the last sign that it was heard another machine can begin to serve: `dead` (`advbase` times `deadratio`)
/// after its last advertisement, which may have been as old as its interval, and after the settle time, an interval
/// without that `skew` and the margin.
fn soonest_takeover(dead: Duration, skew: Duration, settle_margin: Duration) -> Duration {
    (dead + settle_margin).saturating_sub(skew).max(SOONEST_TAKEOVER)
}

/// How long the kernel keeps a lease after a renewal, on a machine with these options of ucarp. Twice that is less than
/// [`soonest_takeover`]: a process that is paused between its proof and the renewal renews at the last moment of the lease
/// before.
pub(crate) fn lease(dead: Duration, skew: Duration, settle_margin: Duration) -> Duration {
    soonest_takeover(dead, skew, settle_margin).saturating_sub(LEASE_GUARD) / 2
}

/// How long no other MASTER must be heard until an election has settled: an interval and the margin, and longer where
/// ucarp's options would let a machine begin to serve before the lease of another one has ended.
pub(crate) fn settle(dead: Duration, interval: Duration, settle_margin: Duration) -> Duration {
    let soonest = (dead + settle_margin).saturating_sub(OTHER_SKEW);
    interval + settle_margin + SOONEST_TAKEOVER.saturating_sub(soonest)
}

/// How long a machine must have been silent so that it answers no client any more, whatever its skew: counted from its last
/// heartbeat, which may have been followed by one that was lost.
pub(crate) fn silent(dead: Duration, settle_margin: Duration) -> Duration {
    soonest_takeover(dead, Duration::ZERO, settle_margin) + HEARTBEAT_NOW
}

/// How long a MASTER may advertise while nothing of ours works there and nothing answers on the virtual IP. Longer than a killed
/// run needs to be started again, and than the kernel keeps an address that nothing renews.
pub(crate) const ABANDONED: Duration = ms(15_000);

/// How long the kernel keeps the virtual IP of a machine on which nothing renews it.
pub(crate) const VIP_LIFETIME: Duration = ms(10_000);
/// The same where the kernel has no packet filter, and this is the lease.
pub(crate) const VIP_LIFETIME_ALONE: Duration = ms(2000);

// A demotion.

/// Added to ucarp's dead time and interval: the time in which a restarted ucarp is MASTER again.
pub(crate) const GRACE_MARGIN: Duration = ms(1000);
/// How long after the mark of a switchover the demotion of its ucarp may come: ucarp steps down within its interval, and the
/// demotion asks the master first.
pub(crate) const SWITCHOVER_MARK: Duration = ms(10_000);
/// MooseFS 1.6 tells no version: there another MASTER that goes on for this long is taken to lack nothing.
pub(crate) const OTHER_DECIDES: Duration = ms(3000);

// A serving machine.

/// Between two looks at master, network and peers.
pub(crate) const MONITOR: Duration = ms(500);
/// A master that an administrator restarts is back within this: it takes its lock before it loads.
pub(crate) const RESTART: Duration = ms(3000);
/// One that crashed does not start again in the ordinary way. A unit with a restart rule of its own is quicker than this.
pub(crate) const RESTART_CRASHED: Duration = ms(800);
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
        assert!(
            HOOK_LEASE + DRAIN_LOOP_PASS + DRAIN_ACKNOWLEDGED < HOOK_MUTEX,
            "what a hook does while it has the mutex"
        );
    }

    #[test]
    fn a_peer_is_asked_twice_and_judged_before_its_master_is_said_to_hang() {
        assert!(PEER_CONNECT * 2 + PEER_ANSWER < PEER_HUNG);
        assert!(PEER_CONNECT * 2 + PEER_CONNECT_AGAIN < PEER_HUNG);
        let options = Options::default();
        let settle = settle(options.dead(), options.interval(), ms(250));
        assert!(PEER_CONNECT * 2 * 2 + ASK_AGAIN < settle, "a silent one holds no takeover up");
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
    fn a_lease_has_ended_before_another_machine_begins_to_serve() {
        let margin = ms(250);
        for server in all_options() {
            let lease = lease(server.dead(), server.skew(), margin);
            assert!(lease > LEASE_RENEWED * 3 / 2, "{server:?}: {lease:?}");
            // With a dead time below an interval every standby is MASTER again and again.
            let alike = |other: &Options| other.dead() == server.dead() && other.dead() >= server.interval();
            for other in all_options().filter(alike) {
                let elected = other.dead_time().saturating_sub(server.interval());
                let begins = elected + settle(other.dead(), other.interval(), margin);
                assert!(lease * 2 + LEASE_GUARD <= begins, "{server:?} and {other:?}: {lease:?} twice, {begins:?}");
            }
        }
    }

    #[test]
    fn the_lease_of_a_silent_machine_has_ended() {
        let margin = ms(250);
        for server in all_options() {
            let lease = lease(server.dead(), server.skew(), margin);
            assert!(lease * 2 + LEASE_GUARD + HEARTBEAT_NOW <= silent(server.dead(), margin), "{server:?}: {lease:?}");
        }
        assert!(PEER_CONNECT * 2 <= SETTLE_LEAST, "a silent one is asked twice meanwhile");
    }

    #[test]
    fn an_early_exit_is_noticed_before_a_restart_would_be_waited_for() {
        assert!(START_GRACE < EARLY_EXIT && EARLY_EXIT <= RESTART);
        assert!(RESTART_CRASHED > MONITOR, "it is looked for twice");
        assert!(MONITOR * 2 < AWAKE, "two looks are made in the time in which one is fresh");
    }
}
