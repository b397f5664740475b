//! A call of a hook, as it is passed on to the run that does the work: what is asked for, where, by which ucarp, and its
//! place in the order of calls. It travels as JSON in one word of the command line (`--call`).

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Stdio;
use std::str::FromStr;

use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use crate::instance::Instance;
use crate::machine::config::{self, Config};
use crate::machine::lock::{self, Lock, Locks, Request, Ticket};
use crate::machine::outcome::RunKind;
use crate::machine::time_for_run_before;
use crate::metadata::{Loss, Version};
use crate::moosefs::Daemon;
use crate::sys::cancel::Cancel;
use crate::sys::logging::chain;
use crate::sys::process;
use crate::sys::progress::Patience;
use crate::ucarp::Ucarp;
use crate::vip::VirtualIp;

/// The program that does the work.
const PROGRAM: &str = "mfs-promote";

/// A call of a hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Call {
    /// [`RunKind::Promotion`] or [`RunKind::Demotion`].
    pub(crate) kind: RunKind,
    /// The interface that ucarp named.
    pub(crate) interface: String,
    /// The virtual IP that ucarp named.
    pub(crate) vip: Ipv4Addr,
    /// The configuration file that the XPARAM stands for.
    pub(crate) config: Option<PathBuf>,
    /// The place in the order of calls; `None` if the hook could not draw a ticket.
    pub(crate) ticket: Option<Ticket>,
    /// The ucarp that called the hook; `None` for a hook that was run by hand.
    pub(crate) ucarp: Option<Ucarp>,
    /// The version of the metadata here when `vip-down` removed the address, if it could be asked: no client was answered
    /// with a later one.
    #[serde(default)]
    pub(crate) left: Option<Version>,
    /// How many runs of this call were killed. Above zero, the run first waits for the one before it to be killed.
    #[serde(default)]
    pub(crate) killed: u8,
}

impl Call {
    /// Starts the run in the background, and returns its process id at once.
    pub(crate) fn launch(&self) -> Result<u32, process::Error> {
        self.launch_reading(Stdio::null())
    }

    /// As [`Call::launch`], with an input.
    pub(crate) fn launch_reading(&self, input: impl Into<Stdio>) -> Result<u32, process::Error> {
        let word = serde_json::to_string(self).expect("text and numbers");
        process::launch_reading(&process::find_beside(PROGRAM)?, &[format!("--call={word}")], input)
    }

    /// Takes the lock in the call's place in the order of calls. An administrator's run disturbs no other one.
    pub(crate) fn take_lock(&self, origin: Origin, cancel: &Cancel) -> Result<Lock, lock::Error> {
        let locks = Locks::of(&self.instance())?;
        match (origin, &self.ticket) {
            (Origin::Administrator(_), _) => locks.acquire_if_free(self.kind),
            (Origin::Hook, Some(ticket)) => locks.acquire(ticket, || self.patience(), cancel),
            (Origin::Hook, None) => {
                let ticket = locks.ask(self.kind)?;
                locks.acquire(&ticket, || self.patience(), cancel)
            }
        }
    }

    /// The call's place in the order of calls, where it has one, before there is a lock.
    pub(crate) fn request(&self) -> Option<Request> {
        Some(Locks::of(&self.instance()).ok()?.request(self.ticket?))
    }

    /// How long the run before this one may take to end. Nothing of this machine is open yet.
    fn patience(&self) -> Patience {
        let config = self.load_config().unwrap_or_else(|_| Config::salvage(self.config.as_deref()));
        Patience::with(Daemon::Master.program(), time_for_run_before(&config))
    }

    /// The instance that is meant.
    pub(crate) fn instance(&self) -> Instance {
        self.config.as_deref().map(Instance::of_file).unwrap_or_default()
    }

    /// The configuration that the call names.
    pub(crate) fn load_config(&self) -> Result<Config, config::Error> {
        self.config.as_deref().map_or_else(|| Config::for_xparam(None), Config::load)
    }

    /// Where the address is moved.
    pub(crate) fn virtual_ip(&self) -> VirtualIp {
        VirtualIp { interface: self.interface.clone(), address: self.vip }
    }
}

/// Where a call comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A hook of ucarp.
    Hook,
    /// The command line, and whether it allows known changes to be lost.
    Administrator(Loss),
}

impl Origin {
    /// Whether a hook called.
    pub(crate) fn is_hook(self) -> bool {
        self == Self::Hook
    }

    /// Whether known changes may be lost.
    pub(crate) fn loss(self) -> Loss {
        match self {
            Self::Hook => Loss::Refuse,
            Self::Administrator(loss) => loss,
        }
    }
}

/// Tells the promotions of this virtual IP, and the runs that serve on it, to end: for a hook whose own call cannot be
/// written where they would find it.
pub(crate) fn end_promotions(vip: &VirtualIp) {
    for run in process::in_this_network(PROGRAM) {
        let call =
            process::words(run).iter().find_map(|word| word.to_str()?.strip_prefix("--call=")?.parse::<Call>().ok());
        if call.is_some_and(|call| call.kind == RunKind::Promotion && call.virtual_ip() == *vip) {
            log::warn!("telling the promotion of pid {} to end instead", run.pid);
            let told = run.open().and_then(|run| run.map_or(Ok(()), |run| run.signal(Signal::TERM)));
            if let Err(e) = told {
                log::error!("{}", chain(&e));
            }
        }
    }
}

impl FromStr for Call {
    type Err = serde_json::Error;

    fn from_str(word: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(word)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ucarp::{Options, Password};

    proptest! {
        #[test]
        fn a_call_arrives_as_it_was_sent(
            pid: u32, start: u64, vhid: u8, vip: u32, group: u32, interface: String, xparam: Option<String>,
            up_script: Option<String>, path in proptest::option::of("[ -~]{0,40}"), flags: [bool; 3], killed: u8,
        ) {
            let options = Options {
                vhid, xparam, up_script, vip: Some(vip.into()), group: group.into(), interface: Some(interface.clone()),
                shutdown_script: flags[0], preempt: flags[1], password: flags[2].then(|| Password::Visible("secret".to_owned())), ..Options::default()
            };
            let kind = if flags[0] { RunKind::Promotion } else { RunKind::Demotion };
            let call = Call {
                kind, interface, vip: vip.into(), config: path.map(PathBuf::from), killed, left: flags[0].then_some(Version(start)),
                ticket: flags[1].then_some(Ticket { kind, issued: start, pid }),
                ucarp: flags[2].then_some(Ucarp { pid, start, options }),
            };
            let word = serde_json::to_string(&call).unwrap();
            prop_assert_eq!(word.parse::<Call>().unwrap(), call);
        }

        #[test]
        fn no_word_makes_it_panic(word: String) {
            let _ = word.parse::<Call>();
        }
    }
}
