//! What a command line asks of `mfs-promote`, and its exit code.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::check;
use crate::cli::{Init, Promote, Verb};
use crate::demotion::demote;
use crate::instance::Instance;
use crate::machine::call::{Call, Origin};
use crate::machine::config::Config;
use crate::machine::neighbours::{self, Claim, Unclear};
use crate::machine::outcome::RunKind;
use crate::machine::supervisor::{self, Supervisor};
use crate::metadata::Loss;
use crate::moosefs::workarounds::adoption;
use crate::promotion::promote;
use crate::rehearsal::rehearse;
use crate::report;
use crate::setup;
use crate::switchover::switch_over;
use crate::sys::cancel::Cancel;
use crate::sys::logging::{self, chain};
use crate::sys::{process, systemd};
use crate::ucarp::Ucarp;
use crate::vip::VirtualIp;

const NAME: &str = "mfs-promote";

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Does what the command line asks for.
pub(crate) fn run(args: &Promote) -> ExitCode {
    if let Some(Verb::Call(call)) = args.verb() {
        return answer(run_call(call));
    }
    logging::to_stderr(NAME, args.verbosity());
    if let Some(Verb::Adopt(master, pid_file)) = args.verb() {
        return answer(adoption::take_along(master, pid_file).map(|()| true).map_err(Into::into));
    }
    if let Some(Verb::Check(form)) = args.verb() {
        return match begin() {
            Ok(_) => check::check(args.virtual_ip().as_ref(), load(args), form),
            Err(e) => {
                log::error!("{}", chain(e.as_ref()));
                check::UNKNOWN.into()
            }
        };
    }
    answer(begin().and_then(|cancel| run_by_hand(args, &cancel)))
}

/// Sets this machine up.
pub(crate) fn init(args: Init) -> ExitCode {
    logging::to_stderr(NAME, args.verbosity());
    answer(refuse_others().and_then(|()| setup::set_up(args.request())))
}

fn answer(well: Result<bool>) -> ExitCode {
    match well {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            log::error!("{}", chain(e.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// Signals are caught from here on.
fn begin() -> Result<Cancel> {
    refuse_others()?;
    Ok(Cancel::on_signals()?)
}

fn refuse_others() -> Result<()> {
    if process::is_root() {
        return Ok(());
    }
    Err("mfs-promote must run as root: it reads the master's metadata and changes addresses".into())
}

/// The background work of a hook. It leaves ucarp's unit first: until then it blocks the signals that end that unit.
fn run_call(call: &Call) -> Result<bool> {
    logging::to_syslog(&call.instance().ident(NAME), logging::RUN_PATIENCE);
    // Fails only if this process leads a group already, which is as good.
    let _ = nix::unistd::setsid();
    let again;
    let call = if call.killed > 0 {
        // It is where the run before it was.
        let Some(call) = supervisor::to_be_done_again(call) else { return Ok(true) };
        again = call;
        &again
    } else {
        if let Err(e) = systemd::enter_scope(NAME) {
            log::warn!("{}: stopping ucarp's unit can end this run", chain(&e));
        }
        call
    };
    let cancel = begin()?;
    let supervisor = Supervisor::start(call);
    let well = match call.kind {
        RunKind::Demotion => demote(Some(call), None, &cancel),
        _ => promote(call, Origin::Hook, &cancel, &supervisor),
    };
    supervisor.dismiss();
    Ok(well)
}

/// Most verbs say whether it was done, or whether the answer is yes.
fn run_by_hand(args: &Promote, cancel: &Cancel) -> Result<bool> {
    let vip = args.virtual_ip();
    match args.verb() {
        None | Some(Verb::Call(_) | Verb::Adopt(..) | Verb::Check(_)) => {
            Err("a promotion needs --interface and --vip; --dry-run shows what it would do".into())
        }
        Some(Verb::Promote(vip, loss)) => promote_by_hand(args, &vip, loss, cancel),
        Some(Verb::Demote) => demote_by_hand(args, vip.as_ref(), cancel),
        Some(Verb::Status) => report::status(&load(args)?, args.form()),
        Some(Verb::CheckConfig) => report::check_config(&load(args)?),
        Some(Verb::DryRun(loss)) => report::dry_run(&load(args)?, vip.as_ref(), loss, args.form(), cancel),
        Some(Verb::Rehearse) => {
            let config = load(args)?;
            refuse_intrusion(Some(&config))?;
            Ok(rehearse(config, vip.as_ref(), cancel)?)
        }
        Some(Verb::Switchover) => switch_over(load(args)?, vip.as_ref(), cancel),
    }
}

fn load(args: &Promote) -> Result<Config> {
    Ok(match args.config() {
        Some(file) => Config::load(file)?,
        None => Config::of(&instance(args)?)?,
    })
}

/// The instance that is meant.
fn instance(args: &Promote) -> std::result::Result<Instance, Unclear> {
    match (args.config(), args.xparam()) {
        (Some(file), _) => Ok(Instance::of_file(file)),
        (None, Some(name)) => Ok(Instance::of_xparam(Some(name))?),
        (None, None) => neighbours::instance_meant(args.virtual_ip().as_ref()),
    }
}

/// The file with its configuration; `None` for the one that need not exist.
fn file(args: &Promote) -> std::result::Result<Option<PathBuf>, Unclear> {
    match args.config() {
        Some(file) => Ok(Some(file.to_owned())),
        None => Ok(Some(instance(args)?).filter(|instance| instance.name().is_some()).map(|instance| instance.file())),
    }
}

/// Nothing is done to the master of another instance.
fn refuse_intrusion(config: Option<&Config>) -> Result<()> {
    config.and_then(neighbours::intrusion).map_or(Ok(()), |conflict| Err(conflict.into()))
}

/// An administrator's run would do to another instance what the hooks of a refused ucarp would.
fn refuse_conflict(args: &Promote, vip: &VirtualIp, ucarp: Option<&Ucarp>) -> Result<()> {
    let instance = instance(args)?;
    let config = load(args).ok().or_else(|| Config::salvage_for(instance.named_file().as_deref()));
    Ok(neighbours::admit(&Claim::of(instance, vip.clone(), config.as_ref()), ucarp)?)
}

fn promote_by_hand(args: &Promote, vip: &VirtualIp, loss: Loss, cancel: &Cancel) -> Result<bool> {
    if !vip.holds()? {
        return Err(format!(
            "{vip} is not on {}: ucarp adds it on the machine that wins, and another one may be serving. --dry-run shows \
             what a promotion would do here",
            vip.interface
        )
        .into());
    }
    let ucarp = Ucarp::find(&vip.interface, vip.address);
    refuse_conflict(args, vip, ucarp.as_ref())?;
    let call = Call {
        kind: RunKind::Promotion,
        interface: vip.interface.clone(),
        vip: vip.address,
        config: file(args)?,
        ticket: None,
        ucarp,
        left: None,
        killed: 0,
    };
    Ok(promote(&call, Origin::Administrator(loss), cancel, &Supervisor::none()))
}

fn demote_by_hand(args: &Promote, vip: Option<&VirtualIp>, cancel: &Cancel) -> Result<bool> {
    if let Some(vip) = vip.filter(|vip| vip.holds().unwrap_or(false)) {
        return Err(format!(
            "{vip} is on {}: stop ucarp, it calls vip-down and that demotes this machine",
            vip.interface
        )
        .into());
    }
    refuse_intrusion(load(args).ok().as_ref())?;
    Ok(demote(None, file(args)?.as_deref(), cancel))
}
