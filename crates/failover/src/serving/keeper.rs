//! The lease: this machine answers clients only while it has proof that it is heard, and keeps the virtual IP only while this
//! process works.
//!
//! Another machine that hears nothing of this one may be promoted. When the network comes back, both would answer. So the
//! kernel holds answers back unless the lease is open ([`Lease`]), and closes it by itself a moment after its last renewal.
//! Twice that time is less than another machine needs to begin ([`timing::lease`]).
//!
//! | it sees | then |
//! |---|---|
//! | another machine has heard this one since the last renewal: its heartbeat says so, or a machine that is asked answers | the lease is renewed |
//! | no proof, or this process was paused | the kernel has closed the lease; answers wait, nothing is stopped |
//! | another machine that claims to serve | the lease is closed at once |
//! | a closed lease, new proof, no other machine that claims to serve for a settle time, and all of them asked since | the lease is opened |
//! | another machine whose history goes further than the one here | the lease is closed, and this machine steps down |
//!
//! The address has a lifetime of its own, which is renewed as long as this process works: it goes from a machine on which
//! everything of ours was killed. Where the kernel has no packet filter, that lifetime is the lease.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::targets::Targets;
use crate::election;
use crate::group::{Group, View};
use crate::machine::config::Config;
use crate::machine::lock::Request;
use crate::metadata::Version;
use crate::moosefs;
use crate::sys::address::Added;
use crate::sys::cancel::Cancel;
use crate::sys::logging::chain;
use crate::sys::nft::{Lease, Renewed};
use crate::sys::text::human;
use crate::timing;
use crate::vip::VirtualIp;

/// Between two looks.
const TICK: Duration = Duration::from_millis(100);
/// How long the master here may take to tell its version.
const ANSWER: Duration = Duration::from_secs(1);

/// Keeps address and lease. Both end with the value.
#[derive(Debug)]
pub(crate) struct Keeper {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    vip: VirtualIp,
    config: Config,
    group: Arc<Group>,
    request: Request,
    lease: Lease,
    /// Whether the kernel can hold answers back.
    filter: bool,
    end: Cancel,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Nothing is answered before a master is proved.
    serving: bool,
    /// The address was released: answers are held until it is back.
    released: bool,
    answers: Answers,
    /// The newest moment at which this machine is known to have been heard.
    proof: Option<Instant>,
    renewed: Option<Instant>,
    /// When clients were answered again.
    opened: Option<Instant>,
    /// What ends this machine's right to serve.
    lost: Option<Lost>,
}

/// Whether clients are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answers {
    Given,
    Held {
        since: Instant,
        /// Since when there is proof again, and no other machine claims to serve.
        quiet: Option<Instant>,
    },
}

impl Default for Answers {
    fn default() -> Self {
        Self::Held { since: Instant::now(), quiet: None }
    }
}

/// Another machine has more.
#[derive(Debug, Clone, Copy)]
struct Lost {
    peer: Ipv4Addr,
    theirs: Version,
    ours: Version,
}

impl State {
    /// Clients are answered from now on.
    fn give(&mut self) {
        let now = Some(Instant::now());
        (self.answers, self.renewed, self.opened) = (Answers::Given, now, now);
    }

    /// What follows from what is seen at `now`, where the kernel keeps a lease for so long and an election settles in so long.
    fn decide(&mut self, seen: &Seen, lease: Duration, settle: Duration, now: Instant) -> Decision {
        let age = |then: Option<Instant>| then.map_or(Duration::MAX, |then| now.saturating_duration_since(then));
        match self.answers {
            Answers::Given => match seen.claim.filter(|(at, _)| Some(*at) > self.opened) {
                Some((_, other)) => Decision::Hold(format!("{other} claims to serve too")),
                None if seen.more_elsewhere => Decision::Hold("another machine has more changes".to_owned()),
                None if self.proof > self.renewed && age(self.renewed) >= timing::LEASE_RENEWED => Decision::Renew,
                // The kernel has closed it.
                None if age(self.renewed) > lease => Decision::Hold(match self.proof {
                    Some(_) => format!("no other machine has heard this one for {}", human(age(self.proof))),
                    None => "no other machine hears this one".to_owned(),
                }),
                None => Decision::Stay,
            },
            Answers::Held { since, quiet } => {
                let heard = self.proof.is_some_and(|proof| proof > since) && age(self.proof) < lease;
                let quiet = quiet.or(Some(now)).filter(|_| heard && !seen.more_elsewhere);
                let quiet = quiet.max(seen.claim.map(|(at, _)| at).filter(|_| quiet.is_some()));
                self.answers = Answers::Held { since, quiet };
                let settled = quiet.is_some() && age(quiet) >= settle && seen.asked_since >= quiet;
                // From the proof to the opening half a lease may pass, as long as the permit for that lasts.
                if settled && age(self.proof) < lease / 2 && !self.released {
                    return Decision::LetGo { held_for: now.saturating_duration_since(since) };
                }
                Decision::Stay
            }
        }
    }
}

/// What a look at the group shows.
#[derive(Debug, Clone, Copy)]
struct Seen {
    /// The last time that another machine claimed to serve.
    claim: Option<(Instant, Ipv4Addr)>,
    /// Whether one of them has more changes.
    more_elsewhere: bool,
    /// All of them were asked since then; `None` if one was not asked yet.
    asked_since: Option<Instant>,
}

/// What is to be done about the lease.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Stay,
    Renew,
    Hold(String),
    LetGo { held_for: Duration },
}

impl Keeper {
    /// Keeps the address from now on. The lease stays as it is: closed, unless a run before this one has left it open.
    pub(crate) fn start(vip: &VirtualIp, config: &Config, group: Arc<Group>, request: Request) -> Self {
        let lease = Lease::on(vip.address, config.client_port);
        let filter = lease.install().inspect_err(|e| {
            log::warn!("cannot hold answers back ({e}); the address goes instead when no other machine hears this one");
        });
        let shared = Arc::new(Shared {
            vip: vip.clone(),
            config: config.clone(),
            group,
            request,
            lease,
            filter: filter.is_ok(),
            end: Cancel::new(),
            state: Mutex::default(),
        });
        if shared.filter {
            if let Err(e) = shared.lease.permit(shared.lease_time()) {
                log::warn!("cannot permit that the lease is opened: {e}");
            }
        }
        let spawn = |name: &str, work: fn(&Shared)| {
            let shared = Arc::clone(&shared);
            let thread = thread::Builder::new().name(name.to_owned()).spawn(move || work(&shared));
            thread.inspect_err(|e| log::error!("cannot keep the lease: {e}")).ok()
        };
        let threads = [spawn("lease", Shared::keep), spawn("proof", Shared::prove)].into_iter().flatten().collect();
        Self { shared, threads }
    }

    /// A master was proved, and this machine may serve: clients are answered from now on. If this process was paused since it
    /// began, another machine may serve by now, and one can be heard again that does: then the lease is regained first. Says whether
    /// clients are answered now.
    pub(crate) fn open(&self) -> nix::Result<bool> {
        let shared = &self.shared;
        let mut state = shared.state();
        let now = Instant::now();
        let claims = |(other, view): (Ipv4Addr, View)| (view.last_answer(now) == Some(now)).then_some(other);
        let other = shared.group.views().into_iter().find_map(claims);
        let opened = other.is_none() && shared.open()?;
        state.serving = true;
        if opened {
            shared.restore_vip();
            state.give();
            drop(state);
            shared.group.say(|statement| statement.answers = true);
        } else {
            let why = other.map_or_else(
                || "this machine was paused, and another one may serve".to_owned(),
                |other| format!("{other} claims to serve too"),
            );
            log::error!("answers to clients are held: {why}");
        }
        Ok(opened)
    }

    /// A master runs here that has everything. If the lease is open still, it stays open; else it is regained.
    pub(crate) fn resume(&self) {
        let mut state = self.shared.state();
        state.serving = true;
        if self.shared.filter && matches!(self.shared.lease.renew(self.shared.lease_time()), Ok(Renewed::Yes)) {
            state.give();
        }
    }

    /// The address is about to be removed by this run: the lease is not opened, and the address not added again, until
    /// [`Keeper::restored`].
    pub(super) fn release(&self) {
        let mut state = self.shared.state();
        (state.released, state.answers) = (true, Answers::default());
        drop(state);
        self.shared.group.say(|statement| statement.answers = false);
    }

    /// The address is back. Clients are answered as soon as the lease is regained.
    pub(super) fn restored(&self) {
        self.shared.state().released = false;
    }

    /// Why this machine must not serve any more.
    pub(super) fn failure(&self) -> Option<election::Failure> {
        let Lost { peer, theirs, ours } = self.shared.state().lost?;
        Some(election::Failure::Newer { peer, version: theirs, ours })
    }

    /// Whether clients are answered.
    pub(crate) fn answers(&self) -> bool {
        self.shared.state().answers == Answers::Given
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.shared.end.cancel();
        // A panic ends the process.
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_on_duty(&self) -> bool {
        !self.end.is_set() && !self.request.superseded()
    }

    fn vip_lifetime(&self) -> Duration {
        if self.filter { timing::VIP_LIFETIME } else { timing::VIP_LIFETIME_ALONE }
    }

    fn lease_time(&self) -> Duration {
        let options = self.group.options();
        timing::lease(options.dead(), options.skew(), self.config.settle_margin)
    }

    /// The loop of the lease.
    fn keep(&self) {
        let mut kept: Option<Instant> = None;
        let (mut own, mut asked): (Option<Own>, Option<Instant>) = (None, None);
        while self.is_on_duty() {
            let _ = self.group.wait(TICK, &self.end);
            if kept.is_none_or(|last| last.elapsed() >= self.vip_lifetime() / 5) && self.keep_vip() {
                kept = Some(Instant::now());
            }
            self.prolong_permit(self.lease_time());
            if !self.state().serving {
                continue;
            }
            if asked.is_none_or(|last| last.elapsed() >= timing::MONITOR) {
                own = self.ask_own().or(own);
                asked = Some(Instant::now());
            }
            self.prolong_permit(self.lease_time() / 2);
            self.look(own);
        }
    }

    /// Renews the lifetime of the address. Where it is the lease, only while clients may be answered, or nothing listens yet.
    fn keep_vip(&self) -> bool {
        let state = self.state();
        let may = self.filter || !state.serving || state.answers == Answers::Given;
        drop(state);
        // A hook that removes it must not find it added again.
        let mutex = self.request.hook_mutex();
        let kept = may
            && self.is_on_duty()
            && self.vip.keep(Some(self.vip_lifetime())).inspect_err(|e| log::debug!("{}", chain(e))).is_ok();
        drop(mutex);
        kept
    }

    /// How far the history of the master here goes.
    fn ask_own(&self) -> Option<Own> {
        let info = moosefs::info(self.config.own_master(), ANSWER).ok()?;
        self.group.say(|statement| {
            statement.version = info.metadata_version;
            statement.metaid = info.metaid.unwrap_or(statement.metaid);
        });
        Some(Own { version: info.metadata_version?, metaid: info.metaid.unwrap_or_default() })
    }

    /// Prolongs the permit to open a closed lease, for so long. If this process was paused, the permit has ended, and what was
    /// seen before does not count any more.
    fn prolong_permit(&self, time: Duration) {
        let mut state = self.state();
        let Answers::Held { since, .. } = state.answers else { return };
        if !self.filter {
            return;
        }
        let permitted = match self.lease.prolong_permit(time) {
            Ok(Renewed::Yes) => return,
            // The end of the promotion finds that.
            Ok(Renewed::Lapsed) if !state.serving => return,
            Ok(Renewed::Lapsed) => self.lease.permit(time),
            // Another program has removed the table: answers are not held.
            Ok(Renewed::Gone) => self.lease.install().and_then(|()| self.lease.permit(time)),
            Err(e) => Err(e),
        };
        state.answers = Answers::Held { since, quiet: None };
        if let Err(e) = permitted {
            log::debug!("cannot permit that the lease is opened: {e}");
        }
    }

    /// Opens the lease, if that is permitted still.
    fn open(&self) -> nix::Result<bool> {
        Ok(!self.filter || self.lease.open(self.lease_time())? == Renewed::Yes)
    }

    /// One look at the group, and what follows from it.
    fn look(&self, own: Option<Own>) {
        let (views, now, options) = (self.group.views(), Instant::now(), self.group.options());
        let lost = own.and_then(|own| own.lost_to(&views, now, options));
        let heard = self.group.last_proof();
        let mut state = self.state();
        state.proof = state.proof.max(heard);
        let seen = Seen {
            claim: views.iter().filter_map(|(other, view)| Some((view.last_answer(now)?, *other))).max(),
            more_elsewhere: lost.is_some(),
            asked_since: views.values().map(|view| view.asked.map(|asked| asked.begun)).min().unwrap_or(Some(now)),
        };
        let settle = timing::settle(options.dead(), options.interval(), self.config.settle_margin);
        match state.decide(&seen, self.lease_time(), settle, now) {
            Decision::Stay => (),
            Decision::Renew => self.renew(&mut state),
            Decision::Hold(why) => self.hold(&mut state, &why),
            Decision::LetGo { held_for } => self.let_go(&mut state, held_for),
        }
        state.lost = state.lost.or(lost);
        // Not at once: of two that hear each other again after a split, the second one must hear that the first one answered, or it goes
        // on, though it may be the one whose changes do not count.
        if matches!(state.answers, Answers::Held { since, .. } if since.elapsed() >= timing::HEARTBEAT_NOW) {
            self.group.say(|statement| statement.answers = false);
        }
    }

    fn renew(&self, state: &mut State) {
        if !self.filter {
            state.renewed = Some(Instant::now());
            return;
        }
        match self.lease.renew(self.lease_time()) {
            Ok(Renewed::Yes) => state.renewed = Some(Instant::now()),
            Ok(Renewed::Lapsed) => self.hold(state, "this machine was paused, or was not heard in time"),
            Ok(Renewed::Gone) => {
                log::warn!("another program removed the packet filter's table of the lease; it is made again");
                let permitted = || self.lease.permit(timing::LEASE_RENEWED);
                let made = self.lease.install().and_then(|()| permitted()).and_then(|()| {
                    let fresh = state.proof.is_some_and(|proof| proof.elapsed() < timing::LEASE_RENEWED * 2);
                    Ok(fresh && self.open()?)
                });
                match made {
                    Ok(true) => state.renewed = Some(Instant::now()),
                    Ok(false) => self.hold(state, "no other machine has heard this one since"),
                    Err(e) => self.hold(state, &format!("the lease cannot be made again: {e}")),
                }
            }
            Err(e) => log::warn!("cannot renew the lease: {e}"),
        }
    }

    /// Clients are answered no more. Nothing is stopped.
    fn hold(&self, state: &mut State, why: &str) {
        state.answers = Answers::default();
        if self.filter {
            if let Err(e) = self.lease.close() {
                log::warn!("cannot close the lease; it ends by itself: {e}");
            }
        }
        log::error!("answers to clients are held: {why}");
    }

    /// Clients are answered again.
    fn let_go(&self, state: &mut State, held_for: Duration) {
        match self.open() {
            Ok(true) => (),
            // This process was paused: it begins again.
            Ok(false) => return,
            Err(e) => {
                log::warn!("cannot open the lease: {e}");
                return;
            }
        }
        self.restore_vip();
        state.give();
        self.group.say(|statement| statement.answers = true);
        log::warn!("answers to clients are let go after {}", human(held_for));
    }

    /// The address may have expired: while the lease was closed, or while this run waited for the one before it.
    fn restore_vip(&self) {
        // A hook that removes it must not find it added again.
        let mutex = self.request.hook_mutex();
        let add = || self.vip.add(self.config.prefix_length, Some(self.vip_lifetime()));
        let added = self.is_on_duty().then(add);
        drop(mutex);
        match added {
            Some(Ok(Added::Added)) => self.vip.announce(),
            Some(Err(e)) => log::warn!("{}", chain(&e)),
            Some(Ok(Added::AlreadyThere)) | None => (),
        }
    }

    /// The loop that asks other machines whether they hear this one.
    fn prove(&self) {
        let mut targets = Targets::new(&self.config);
        while self.is_on_duty() {
            let begun = Instant::now();
            let heard = targets.hear(&self.group);
            let mut state = self.state();
            state.proof = state.proof.max(heard);
            drop(state);
            if self.end.sleep(timing::LEASE_RENEWED.saturating_sub(begun.elapsed())).is_err() {
                return;
            }
        }
    }
}

/// What the master here serves.
#[derive(Debug, Clone, Copy)]
struct Own {
    version: Version,
    metaid: u64,
}

impl Own {
    /// The machine whose history goes further, if there is one that must be believed: it is attended, or an administrator
    /// has named it and it does not work with leases.
    fn lost_to(self, views: &BTreeMap<Ipv4Addr, View>, now: Instant, options: &crate::ucarp::Options) -> Option<Lost> {
        let further = |(peer, view): (&Ipv4Addr, &View)| {
            let believed = view.is_attended(now, options) || (view.configured && !view.leased);
            let theirs = view.history(now).filter(|_| believed && !view.is_foreign(self.metaid, now))?;
            theirs.reaches_further_than(self.version).then_some(Lost { peer: *peer, theirs, ours: self.version })
        };
        views.iter().find_map(further)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::Asked;
    use crate::heartbeat::{Heard, Role, Statement};
    use crate::moosefs::{Info, MasterAt, Release};
    use crate::ucarp::Options;

    const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
    const LEASE: Duration = Duration::from_millis(1500);
    const SETTLE: Duration = Duration::from_millis(1250);

    struct Moments(Instant);

    impl Moments {
        fn at(&self, ms: u64) -> Instant {
            self.0 + Duration::from_millis(ms)
        }

        /// Clients are answered since 0; renewed and proved then.
        fn given(&self) -> State {
            let at = Some(self.at(0));
            State {
                serving: true,
                released: false,
                answers: Answers::Given,
                proof: at,
                renewed: at,
                opened: at,
                lost: None,
            }
        }

        /// Answers are held since 0.
        fn held(&self) -> State {
            State { answers: Answers::Held { since: self.at(0), quiet: None }, ..self.given() }
        }

        fn seen(&self, claim: Option<u64>, asked: u64) -> Seen {
            let claim = claim.map(|ms| (self.at(ms), PEER));
            Seen { claim, more_elsewhere: false, asked_since: Some(self.at(asked)) }
        }
    }

    #[test]
    fn a_lease_is_renewed_by_new_proof_only() {
        let t = Moments(Instant::now());
        let mut state = t.given();
        let none = t.seen(None, 0);
        assert_eq!(state.decide(&none, LEASE, SETTLE, t.at(1000)), Decision::Stay, "no proof since");
        state.proof = Some(t.at(900));
        assert_eq!(state.decide(&none, LEASE, SETTLE, t.at(1000)), Decision::Renew);
        state.proof = Some(t.at(0));
        let held = state.decide(&none, LEASE, SETTLE, t.at(1501));
        assert_eq!(held, Decision::Hold("no other machine has heard this one for 1.5 s".to_owned()));
    }

    #[test]
    fn a_lease_ends_at_once_where_another_machine_claims_to_serve_or_has_more() {
        let t = Moments(Instant::now());
        let decide = |seen: Seen| t.given().decide(&seen, LEASE, SETTLE, t.at(100));
        assert_eq!(decide(t.seen(Some(50), 0)), Decision::Hold("10.0.0.2 claims to serve too".to_owned()));
        assert_eq!(decide(t.seen(Some(0), 0)), Decision::Stay, "before this machine began to");
        let more = Seen { more_elsewhere: true, ..t.seen(None, 0) };
        assert!(matches!(decide(more), Decision::Hold(_)));
    }

    #[test]
    fn a_lease_is_regained_as_an_election_is_won() {
        let t = Moments(Instant::now());
        // (proof, last claim, last question, at) and whether answers are let go: it is quiet from 1000 on.
        let cases = [
            (2300, None, 1100, 2300, true),
            (2300, None, 1100, 2200, false),
            (2300, None, 900, 2300, false),
            (2300, Some(1200), 1100, 2300, false),
            (2300, Some(1200), 1300, 2500, true),
            (700, None, 1100, 2300, false),
            (1500, None, 1100, 2300, false),
        ];
        for (proof, claim, asked, at, lets_go) in cases {
            let mut state = t.held();
            state.proof = Some(t.at(1000));
            assert_eq!(state.decide(&t.seen(None, 0), LEASE, SETTLE, t.at(1000)), Decision::Stay);
            state.proof = Some(t.at(proof));
            let decision = state.decide(&t.seen(claim, asked), LEASE, SETTLE, t.at(at));
            assert_eq!(matches!(decision, Decision::LetGo { .. }), lets_go, "{proof} {claim:?} {asked} {at}");
        }
        let mut state = t.held();
        state.proof = Some(t.at(1000));
        let more = Seen { more_elsewhere: true, ..t.seen(None, 2000) };
        for ms in [1000, 2000, 3000, 4000] {
            state.proof = Some(t.at(ms));
            assert_eq!(state.decide(&more, LEASE, SETTLE, t.at(ms)), Decision::Stay);
        }
    }

    fn view(version: u64, role: Option<Role>, now: Instant) -> View {
        let release = Release { major: 3, minor: 0, patch: 117 };
        let found = MasterAt::Answers(Info { release, metadata_version: Some(Version(version)), metaid: None });
        let heartbeat = role.map(|role| Heard {
            statement: Statement { role, version: Some(Version(5)), metaid: 7, forked_at: None, answers: false },
            received: now,
        });
        View { asked: Some(Asked { begun: now, found }), heartbeat, ..View::default() }
    }

    #[test]
    fn the_history_with_more_changes_wins_whatever_was_promoted_later() {
        let (now, options) = (Instant::now(), Options::default());
        let lost = |own: u64, metaid, view: View| {
            let own = Own { version: Version(own), metaid };
            own.lost_to(&[(PEER, view)].into(), now, &options).map(|lost| lost.theirs)
        };
        let serving = |version| view(version, Some(Role::Serving), now);
        let promoted = 1_000_000_000_000;
        // This machine went on in a split, the other one was promoted at 100.
        assert_eq!(lost(100 + 300, 7, serving(promoted + 100 + 5)), None);
        assert_eq!(lost(100 + 300, 7, serving(promoted + 100 + 301)), Some(Version(promoted + 401)));
        // The same from the other side.
        assert_eq!(lost(promoted + 105, 7, serving(400)), Some(Version(400)));
        assert_eq!(lost(promoted + 401, 7, serving(400)), None);
        // Neither has made a change: the promoted one stays.
        assert_eq!(lost(100, 7, serving(promoted + 100)), Some(Version(promoted + 100)));
        assert_eq!(lost(promoted + 100, 7, serving(100)), None);
        assert_eq!(lost(100, 8, serving(400)), None, "another file system");
        assert_eq!(lost(100, 7, view(400, None, now)), None, "nobody vouches for it");
        // What it has counted since it left the virtual IP are no changes of clients.
        assert_eq!(lost(100, 7, view(400, Some(Role::Demoting), now)), None);
        let configured = View { configured: true, ..view(400, None, now) };
        assert_eq!(lost(100, 7, configured), Some(Version(400)));
    }
}
