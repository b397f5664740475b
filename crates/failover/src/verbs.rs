//! `mfs-promote`: makes this machine the MooseFS master, or gives the virtual IP up.

use std::error::Error;
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use crate::machine::config::Config;
use crate::machine::lock::{self, Lock, Locks, Place, Role};
use crate::machine::state::State;
use crate::sys::address::{self, Interface};
use crate::sys::cancel::Cancel;
use crate::sys::logging::{self, chain};
use crate::sys::process;
use crate::sys::systemd;
use crate::ucarp::{Options, Ucarp};

use crate::cli::Promote;
use crate::demotion::{Demoted, Demotion};
use crate::machine::Machine;
use crate::machine::notify::Event;
use crate::machine::run::Run;
use crate::machine::step_down::StepDown;
use crate::machine::supervisor::Supervisor;
use crate::machine::{commit, memory, notify, rehearsal_folder, step_down, supervisor};
use crate::promotion::{Failure, Promoted, Promotion};
use crate::serving::Monitor;
use crate::sys::terminal::Progress;
use crate::sys::watchdog;
use crate::sys::watchdog::Watchdog;
use crate::{check, demotion, election, rehearsal, report, switchover};

const NAME: &str = "mfs-promote";
/// How long the run before this one may take to roll back: it may have to end a master that is loading.
const LOCK_PATIENCE: Duration = Duration::from_secs(120);

type Result<T> = std::result::Result<T, Box<dyn Error>>;

pub(crate) fn run(args: &Promote) -> ExitCode {
    begin_log(args);
    if args.stand_in > 0 && !supervisor::is_needed(args) {
        return ExitCode::SUCCESS;
    }
    let done = start(args).and_then(|cancel| {
        let stand_in = Supervisor::appoint(args);
        let done = dispatch(args, &stand_in, &cancel);
        stand_in.dismiss();
        done
    });
    done.unwrap_or_else(|e| {
        log::error!("{}", chain(e.as_ref()));
        if args.check { check::UNKNOWN.into() } else { ExitCode::FAILURE }
    })
}

fn begin_log(args: &Promote) {
    if args.is_hook() {
        logging::to_syslog(NAME);
        // Fails only if this process leads a group already, which is as good.
        let _ = nix::unistd::setsid();
    } else {
        logging::to_stderr(NAME, args.verbose);
    }
}

/// Detachment from ucarp, and signals, in this order: until this run has left ucarp's unit, the signals that end that
/// unit reach it too, and the hook holds them back.
fn start(args: &Promote) -> Result<Cancel> {
    if !process::is_root() {
        return Err("mfs-promote must run as root: it reads the master's metadata and changes addresses".into());
    }
    // A stand-in is where the run before it was.
    if args.is_hook() && args.stand_in == 0 {
        if let Err(e) = systemd::enter_scope(NAME) {
            log::warn!("{}: stopping ucarp's unit can end this run", chain(&e));
        }
    }
    Ok(Cancel::on_signals()?)
}

/// Runs the verb; most of them say whether it was done and the answer is yes.
fn dispatch(args: &Promote, stand_in: &Supervisor, cancel: &Cancel) -> Result<ExitCode> {
    if args.check {
        return Ok(check::check(args));
    }
    let well = if args.status {
        report::status(&config(args)?, args.json)
    } else if args.check_config {
        report::check_config(&config(args)?)
    } else if args.dry_run {
        let address = args.interface.as_deref().zip(args.vip);
        report::dry_run(&config(args)?, address, args.loss(), args.json, cancel)
    } else if args.rehearse {
        rehearsal::rehearse(config(args)?, args.interface.as_deref().zip(args.vip), cancel)
    } else if args.hand_over {
        switchover::hand_over(config(args)?, args.interface.as_deref().zip(args.vip), cancel)
    } else if args.demote {
        demote(args, cancel)
    } else {
        promote(args, stand_in, cancel)
    };
    Ok(if well? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn config(args: &Promote) -> std::result::Result<Config, crate::machine::config::Error> {
    match &args.config {
        Some(path) => Config::load(path),
        None => Config::for_xparam(None),
    }
}

/// Becomes the master; on failure everything is put back, the address goes, and ucarp steps down.
fn promote(args: &Promote, stand_in: &Supervisor, cancel: &Cancel) -> Result<bool> {
    let (Some(name), Some(vip)) = (&args.interface, args.vip) else {
        return Err("a promotion needs --interface and --vip; --dry-run shows what it would do".into());
    };
    let interface = address::interface(name);
    if !args.is_hook() {
        refuse_without_address(interface.as_ref().map_err(ToString::to_string)?, vip)?;
    }
    let caller = args.hook.clone().or_else(|| Ucarp::find(name, vip));
    let lock = match take_lock(args, Role::Promotion, cancel) {
        Ok(Some(lock)) => lock,
        Ok(None) => return Ok(true),
        Err(why) => {
            if args.is_hook() {
                // Not even this far: the address must not stay without a server.
                step_down::step_down(StepDown::Resign, name, vip, caller.as_ref(), None);
            }
            return Err(why);
        }
    };
    let (begun, mut run) = (Instant::now(), Run::new("promotion", Some(vip)));
    let config = config(args);
    let known = config.as_ref().ok().cloned();
    let dog = Watchdog::watch("open", watchdog::allowance(known.as_ref()), cancel, {
        let (name, caller, place, stand_in) = (name.clone(), caller.clone(), lock.place().clone(), stand_in.clone());
        move |_| {
            step_down::step_down(StepDown::Resign, &name, vip, caller.as_ref(), Some(&place));
            log::error!("promotion ended: stopped; what it had begun is ended by the next run");
            stand_in.dismiss();
            std::process::exit(1)
        }
    });
    let target = config.map_err(Box::<dyn Error>::from).and_then(|config| Ok(Machine::open(config)?));
    let (target, interface) = match (target, interface.map_err(Box::<dyn Error>::from)) {
        (Ok(target), Ok(interface)) => (target, interface),
        (Err(why), _) | (_, Err(why)) => {
            // It could not even begin: the address must not stay either.
            step_down::step_down(StepDown::Resign, name, vip, caller.as_ref(), Some(lock.place()));
            drop(lock);
            run.record.error = Some(chain(why.as_ref()));
            let _notified =
                known.map(|config| notify::tell(&config, Event::Resign, Some(name), &run.record, run.elapsed()));
            return Err(why);
        }
    };
    let options = caller.as_ref().map(|caller| caller.options.clone()).unwrap_or_default();
    let mut promotion = Promotion::new(&target, &interface, vip, &options, cancel, &mut run, &dog);
    promotion.loss = args.loss();
    promotion.by_hook = args.is_hook();
    promotion.deaths = args.stand_in;
    let promoted = promotion.promote();
    drop(dog);
    let again = remember(&promoted, &target.state);
    if again {
        // Every few seconds the same until the network is back: only what fails on top of it is worth a line.
        log::set_max_level(log::LevelFilter::Error);
    }
    let (outcome, event) = match &promoted {
        Ok(Promoted::Serving) => ("serving", Some(Event::Promotion)),
        Ok(Promoted::AlreadyServing) => ("already serving", None),
        Err(failure) => {
            run.record.error = Some(chain(failure));
            let how = step_down::wanted(failure, cancel);
            let place = lock.place();
            failed(failure, again, place, || {
                step_down::step_down(how, name, vip, caller.as_ref(), Some(place)).then_some(how)
            })
        }
    };
    let event = event.filter(|_| !again);
    let notified = event.map(|event| notify::tell(&target.config, event, Some(name), &run.record, run.elapsed()));
    if matches!(promoted, Ok(Promoted::Serving)) {
        check::note_settings(&target.config, &target.state);
    }
    let sentry = caller.as_ref().filter(|_| promoted.is_ok() && args.is_hook()).map(|caller| Monitor {
        target: &target,
        interface: &interface,
        vip,
        caller,
        config: args.config.as_deref(),
        place: lock.place().clone(),
        cancel,
        over: AtomicBool::new(false),
    });
    let (mut record, reason) = std::thread::scope(|scope| {
        // From the first moment on; packing takes minutes.
        let standing = sentry.map(|sentry| scope.spawn(|| sentry.stand()));
        if promoted.is_ok() {
            archive(&target, &mut run, cancel);
        }
        let record = run.end(outcome, (!again).then_some(&target.state));
        lock.release();
        drop(notified);
        (record, standing.and_then(|standing| standing.join().expect("watching does not panic")))
    });
    if let Some(reason) = reason {
        record.error = Some(chain(&reason));
        drop(notify::tell(&target.config, Event::Yield, Some(name), &record, begun.elapsed()));
    }
    Ok(promoted.is_ok())
}

/// Leaves for the guards of later runs how this one ended. Says whether it is the end that the last one had, told
/// already.
fn remember(promoted: &std::result::Result<Promoted, Failure>, state: &State) -> bool {
    match promoted {
        Err(Failure::Guard(election::Error::Isolated { .. })) => return !memory::isolated(state),
        Ok(Promoted::Serving) => {
            memory::role_changed(state);
            memory::forget_freshness(state);
        }
        Err(Failure::Guard(election::Error::Behind { .. })) => memory::stepped_down_stale(state),
        Err(failure) if step_down::goes_round(failure) => memory::role_changed(state),
        _ => (),
    }
    false
}

/// Logs why the promotion failed, steps down, and names the outcome and what it is to `NOTIFY`.
fn failed(
    failure: &Failure,
    told: bool,
    place: &Place,
    step_down: impl FnOnce() -> Option<StepDown>,
) -> (&'static str, Option<Event>) {
    let why = chain(failure);
    if place.superseded() {
        log::info!("promotion given up: {why}");
    } else if !told {
        log::error!("promotion failed: {why}");
    }
    match step_down() {
        Some(StepDown::Resign) => ("stopped", Some(Event::Resign)),
        Some(StepDown::Yield) => ("yielded", Some(Event::Yield)),
        None => ("yielded", None),
    }
}

fn refuse_without_address(interface: &Interface, vip: Ipv4Addr) -> Result<()> {
    if address::holds(interface, vip)? {
        return Ok(());
    }
    Err(format!(
        "{vip} is not on {}: ucarp gives it to the machine that wins, and another one may be serving. \
         --dry-run shows what a promotion would do here",
        interface.name
    )
    .into())
}

/// Goes back to metalogger duty. Works without a usable configuration: the defaults are then better than nothing.
fn demote(args: &Promote, cancel: &Cancel) -> Result<bool> {
    let address = args.interface.as_deref().zip(args.vip);
    if let (false, Some((name, vip))) = (args.is_hook(), address) {
        if address::interface(name).and_then(|found| address::holds(&found, vip)).unwrap_or(false) {
            return Err(
                format!("{vip} is on {name}: stop ucarp, it calls vip-down and that demotes this machine").into()
            );
        }
    }
    let config = config(args).unwrap_or_else(|e| {
        log::error!("going on with defaults: {}", chain(&e));
        Config::fallback()
    });
    let Some(lock) = take_lock(args, Role::Demotion, cancel)? else { return Ok(true) };
    let mut run = Run::new("demotion", args.vip);
    let target = Machine::open(config)?;
    let options = args.hook.as_ref().map_or_else(Options::default, |caller| caller.options.clone());
    let grace = if args.is_hook() && !on_purpose(&target, args) { demotion::grace(&options) } else { Duration::ZERO };
    let demotion = Demotion { target: &target, address, grace, options: &options, lock: &lock, cancel, run: &mut run };
    let demoted = demotion.demote();
    let (outcome, event) = match &demoted {
        Ok(Demoted::NothingToDo) => ("nothing to demote", None),
        Ok(Demoted::Kept) => ("master kept", None),
        Ok(Demoted::Stopped) => ("demoted", Some(Event::Demotion)),
        Err(demotion::Failure::Cancelled(_)) if lock.superseded() => ("overtaken by a later call", None),
        Err(failure) => {
            log::error!("demotion failed: {}", chain(failure));
            run.record.error = Some(chain(failure));
            ("failed", Some(Event::Alarm))
        }
    };
    let interface = args.interface.as_deref();
    let _notified = event.map(|event| notify::tell(&target.config, event, interface, &run.record, run.elapsed()));
    if demoted.is_ok() {
        archive(&target, &mut run, cancel);
    }
    // The demotions of a standby that is cut off and tries again and again are no news.
    let isolated = memory::recall(&target.state).isolation.is_some();
    let news = !(isolated && matches!(demoted, Ok(Demoted::NothingToDo)));
    run.end(outcome, news.then_some(&target.state));
    let place = lock.release();
    if let (true, Some((name, vip))) = (args.is_hook(), address) {
        memory::remember_masters(&target.state, demotion::listen(name, &options, &place, cancel));
        let others = election::peers::copying_from(vip, target.config.client_port);
        if !place.superseded() {
            memory::remember_standbys(&target.state, others);
        }
    }
    Ok(demoted.is_ok())
}

/// Whether the ucarp that called steps back because this machine hands over.
fn on_purpose(target: &Machine, args: &Promote) -> bool {
    let taken = args.hook.as_ref().map(|caller| target.state.take_switchover(caller.identity()));
    taken.transpose().unwrap_or_else(|e| {
        log::warn!("{}", chain(&e));
        None
    }) == Some(true)
}

/// The right to act; `None` if a later call has it.
fn take_lock(args: &Promote, role: Role, cancel: &Cancel) -> Result<Option<Lock>> {
    let locks = Locks::system()?;
    let taken = match &args.ticket {
        Some(ticket) => locks.acquire(ticket, LOCK_PATIENCE, cancel),
        // vip-down could not draw one.
        None if args.is_hook() => {
            let ticket = locks.request(role)?;
            locks.acquire(&ticket, LOCK_PATIENCE, cancel)
        }
        None => locks.acquire_if_free(role),
    };
    match taken {
        Ok(lock) => Ok(Some(lock)),
        Err(lock::Error::Superseded) => {
            log::info!("{role} not begun: a later call decides");
            Ok(None)
        }
        Err(e) => Err(e.into()),
    }
}

/// Archives what was set aside, by this run and by interrupted ones, at the lowest priority.
fn archive(target: &Machine, run: &mut Run, cancel: &Cancel) {
    let _ = rustix::process::nice(19);
    if let Err(e) = rehearsal_folder::sweep(&target.data) {
        log::warn!("what a rehearsal left cannot be removed: {}", chain(&e));
    }
    let progress = Progress::show("archiving what was set aside", || None);
    let result = commit::archive_leftovers(&target.data, &target.config, cancel);
    drop(progress);
    match result {
        Ok(archives) if archives.is_empty() => (),
        Ok(archives) => {
            let names = archives.join(", ");
            run.done("archive", format_args!("{names} written, read back and compared; the originals are removed"));
            run.record.archive = Some(names);
        }
        Err(commit::Error::Archive(crate::machine::archive::Error::Cancelled(_))) => {
            log::info!("archive: left to the next run, a later call comes first");
        }
        Err(e) => log::warn!("what was set aside stays in {}/mfs-promote: {}", target.data.path().display(), chain(&e)),
    }
}
