//! What must be certain before this machine serves, besides a won election: that it is not cut off ([`isolation`]), that
//! no master that knows more is alive elsewhere ([`peers`]), that its copy is not known to be behind ([`staleness`]), that
//! nobody else has the address ([`duplicate`]), and that the address does not go round and round ([`flapping`]).
//!
//! The questions are asked while the election settles, so an ordinary takeover does not take longer for them. The order
//! matters: a rival's silence counts only if the question was sent after something beyond this machine had answered.
//! Otherwise a machine whose network comes back in between would take the silence of the time before for a death.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::metadata::{Loss, Plan, Version, chunkservers};
use crate::sys::address::{self, Interface};
use crate::sys::arp::Mac;
use crate::sys::cancel::{Cancel, Cancelled};
use crate::sys::logging::chain;
use crate::sys::text::when;
use crate::ucarp::Options;

use crate::machine::Machine;
use crate::sys::text::human;

mod duplicate;
pub(crate) mod flapping;
pub(crate) mod isolation;
pub(crate) mod peers;
pub(crate) mod settle;
mod staleness;

/// How long a wait for one of several things sleeps in between.
const PAUSE: Duration = Duration::from_millis(10);

/// Why this machine must not serve now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A master with history that is missing here.
    #[error(
        "a master is alive on {rival} at version {version}, and what lies here ends at {ours}: \
         it has changes that are missing here, so this is a split and not a death"
    )]
    Newer {
        /// Its real address.
        rival: Ipv4Addr,
        /// What it serves.
        version: Version,
        /// What would be served here, before the epoch jump.
        ours: Version,
    },
    /// A master that cannot be compared, and goes on.
    #[error("a master is alive on {rival} and does not stop within {}; {why}", human(*after))]
    Alive {
        /// Its real address.
        rival: Ipv4Addr,
        /// How long we waited.
        after: Duration,
        /// Why that is not good enough.
        why: &'static str,
    },
    /// Nothing beyond this machine answers.
    #[error(
        "this machine is isolated: none of {asked} answered within {}; \
         PING_NODES names further machines that prove a working network", human(*after)
    )]
    Isolated {
        /// Who was asked.
        asked: String,
        /// For how long.
        after: Duration,
    },
    /// The network has just come back.
    #[error(
        "{witness} was silent when this machine won and answers now: it won because it could hear nobody, \
         so the election is held again"
    )]
    WonIsolated {
        /// Who answers now.
        witness: Ipv4Addr,
    },
    /// Somebody else has the address.
    #[error("another machine ({mac}) answers for {vip} on {interface}: find it, and take the address away there")]
    Duplicate {
        /// Its hardware address.
        mac: Mac,
        /// The virtual IP.
        vip: Ipv4Addr,
        /// Where it was asked for.
        interface: String,
    },
    /// A better copy may be elsewhere.
    #[error(
        "the copy here is behind: version {served} was served at {}, and what lies here ends at {ours}, {} changes \
         before; another machine may have them", when(*compared), served.changes_since(*ours)
    )]
    Behind {
        /// What was served when the copy was last compared.
        served: Version,
        /// When that was, in unix seconds.
        compared: u64,
        /// What would be served here, before the epoch jump.
        ours: Version,
    },
    /// The address goes round.
    #[error(
        "this machine was promoted or yielded {turns} times within {}: \
         find out why nobody can serve for long, then start ucarp again", human(*window)
    )]
    Flapping {
        /// How often.
        turns: usize,
        /// In which time.
        window: Duration,
    },
    /// The address went away while we waited.
    #[error("{vip} is no longer on {interface}: another machine won")]
    Lost {
        /// The virtual IP.
        vip: Ipv4Addr,
        /// Where it was.
        interface: String,
    },
    /// The addresses of this machine.
    #[error(transparent)]
    Address(#[from] address::Error),
    /// The chunkservers cannot be read out of the metadata.
    #[error(transparent)]
    Chunkservers(#[from] chunkservers::Error),
    /// Told to stop.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl Error {
    /// Whether an administrator who allows the loss of data passes over it: changes that are missing here, or that might
    /// be made elsewhere, are lost then. Two machines with one address cannot work whatever is allowed.
    fn is_about_loss(&self) -> bool {
        matches!(
            self,
            Self::Newer { .. }
                | Self::Alive { .. }
                | Self::Isolated { .. }
                | Self::WonIsolated { .. }
                | Self::Behind { .. }
        )
    }

    /// Whether it is only that a later call decides.
    pub(crate) fn is_cancelled(&self) -> bool {
        matches!(self, Self::Cancelled(_) | Self::Chunkservers(chunkservers::Error::Cancelled(_)))
    }
}

/// What the settling election tells the guards while both are at work.
#[derive(Debug, Default)]
pub(crate) struct Election(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    heard: BTreeSet<Ipv4Addr>,
    settled: Option<Instant>,
}

impl Election {
    /// A rival was heard.
    pub(crate) fn hear(&self, rival: Ipv4Addr) {
        self.seen(|seen| seen.heard.insert(rival));
    }

    /// The election has settled.
    pub(crate) fn settle(&self) {
        self.seen(|seen| seen.settled = Some(Instant::now()));
    }

    /// The rivals heard so far.
    pub(crate) fn heard(&self) -> BTreeSet<Ipv4Addr> {
        self.seen(|seen| seen.heard.clone())
    }

    fn settled_for(&self) -> Option<Duration> {
        self.seen(|seen| seen.settled.map(|since| since.elapsed()))
    }

    fn seen<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What is guarded.
pub(crate) struct Checks<'a> {
    pub(crate) target: &'a Machine,
    pub(crate) interface: &'a Interface,
    pub(crate) vip: Ipv4Addr,
    /// The options of our own ucarp; a rival's are like them.
    pub(crate) options: &'a Options,
    pub(crate) loss: Loss,
    pub(crate) cancel: &'a Cancel,
    /// Rivals of earlier days.
    pub(crate) remembered: &'a [Ipv4Addr],
    pub(crate) scene: &'a Election,
}

impl Checks<'_> {
    /// Answers when it is certain that this machine may serve what `planned` will hold, and says how it knows. Ends
    /// without a word if no plan comes: why there is none is said elsewhere.
    pub(crate) fn watch(&self, planned: &Receiver<Plan>) -> Result<String, Error> {
        let Some(plan) = self.wait_for_plan(planned)? else { return Ok(String::new()) };
        let own = address::own_addresses()?;
        std::thread::scope(|scope| {
            let stranger = scope.spawn(|| self.ends_all(duplicate::watch(self)));
            let asked = self.ends_all(self.ask(&plan, &own));
            match (asked, stranger.join().expect("probing does not panic")) {
                (Ok(asked), Ok(stranger)) => Ok(format!("{asked}; {stranger}")),
                // Whichever failed first has cancelled the other one.
                (Err(e), Err(other)) if other.is_cancelled() => Err(e),
                (_, Err(e)) | (Err(e), Ok(_)) => Err(e),
            }
        })
    }

    /// Asks ping_nodes, then rivals.
    fn ask(&self, plan: &Plan, own: &[Ipv4Addr]) -> Result<String, Error> {
        let reached = self.unless_allowed(isolation::before_serving(self, plan, own))?;
        let rivals = self.unless_allowed(peers::before_serving(self, plan, own))?;
        let fresh = self.unless_allowed(staleness::before_serving(self, plan))?;
        Ok(format!("{reached}; {rivals}; {fresh}"))
    }

    /// The plan that is made meanwhile; `None` if there will be none.
    fn wait_for_plan(&self, planned: &Receiver<Plan>) -> Result<Option<Plan>, Cancelled> {
        loop {
            match planned.recv_timeout(PAUSE) {
                Ok(plan) => return Ok(Some(plan)),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => self.cancel.check()?,
            }
        }
    }

    /// A guard that says no ends what goes on beside it.
    fn ends_all(&self, result: Result<String, Error>) -> Result<String, Error> {
        if result.is_err() {
            self.cancel.cancel();
        }
        result
    }

    /// With `--allow-data-loss` the guards against loss only warn.
    fn unless_allowed(&self, result: Result<String, Error>) -> Result<String, Error> {
        match result {
            Err(e) if self.loss == Loss::Allow && e.is_about_loss() => {
                log::warn!("guard passed over, --allow-data-loss was given: {}", chain(&e));
                Ok("passed over by --allow-data-loss".to_owned())
            }
            result => result,
        }
    }

    fn still_here(&self) -> Result<(), Error> {
        if address::holds(self.interface, self.vip)? {
            Ok(())
        } else {
            Err(Error::Lost { vip: self.vip, interface: self.interface.name.clone() })
        }
    }

    /// Real addresses on which a master may live: `PEERS`, whom we heard ever, whom we hear now; none of our own.
    fn candidates(&self, own: &[Ipv4Addr]) -> BTreeSet<Ipv4Addr> {
        let configured = self.target.config.peers.iter().chain(self.remembered).copied();
        configured.chain(self.scene.heard()).filter(|address| !own.contains(address) && *address != self.vip).collect()
    }
}
