//! What has to change on this machine. Policy alone: it looks at the facts and touches nothing.

use std::fmt;
use std::io::Read as _;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use crate::sys::address::InterfaceAddress;

use super::Request;
use super::facts::{Facts, HOSTS, Password, UCARP_UNIT, VALUES};
use super::files::{self, Edit};

/// Machines whose skews are nearer to each other become MASTER at once.
const SKEW_STEP: u8 = 50;
/// One that stands back has 150.
const LARGEST_SKEW: u8 = 149;
/// Of a password that is made here; 6 bits each.
const PASSWORD_LENGTH: usize = 16;
const PASSWORD_LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Why nothing is changed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// No virtual IP was given, and none is configured.
    #[error("which virtual IP? Give --vip ADDRESS: a free address of your network, the same on all machines")]
    NoVip,
    /// No machine can have it as its address.
    #[error("{0} is no address that a machine can have in its network; choose a free one")]
    NoHost(Ipv4Addr),
    /// Another machine has it.
    #[error(
        "another machine has {vip} already (hardware address {mac}), and no ucarp with vhid {vhid} and this password advertises it: \
         choose a free address; where keepalived or another program moves it, end that first"
    )]
    Taken {
        /// The address.
        vip: Ipv4Addr,
        /// Of the machine that answers.
        mac: String,
        /// The virtual host id.
        vhid: u8,
    },
    /// The address belongs to this machine.
    #[error(
        "{vip} is the only address of {interface}, so it is this machine's own; choose a free address of that network as virtual IP"
    )]
    OwnAddress {
        /// The address.
        vip: Ipv4Addr,
        /// Where it is.
        interface: String,
    },
    /// No network, or several, that the address lies in.
    #[error("{vip} lies in the network of {found}; give --interface NAME: {names} have addresses")]
    WhichInterface {
        /// The address.
        vip: Ipv4Addr,
        /// `no interface`, or names.
        found: String,
        /// All that could be given.
        names: String,
    },
    /// The interface cannot carry advertisements.
    #[error(
        "{interface} has no IPv4 address of its own besides {vip}; give another --interface NAME: {names} have addresses"
    )]
    NoAddress {
        /// The interface.
        interface: String,
        /// The virtual IP.
        vip: Ipv4Addr,
        /// All that could be given.
        names: String,
    },
    /// The last number of the virtual IP is no virtual host id.
    #[error("no virtual host id can be made of {0}; give --vhid with a number from 1 to 255, the same on all machines")]
    NoVhid(Ipv4Addr),
    /// The name cannot resolve to the virtual IP.
    #[error(
        "the metalogger looks for the master at {name} (MASTER_HOST in {}), which cannot be a name of the virtual IP {vip}; remove \
         that line, so that it is mfsmaster", path.display()
    )]
    Name {
        /// An address, or a name of this machine.
        name: String,
        /// The metalogger's configuration.
        path: PathBuf,
        /// The virtual IP.
        vip: Ipv4Addr,
    },
    /// A file that is not understood is not changed.
    #[error(
        "{VALUES} line {0} is not of the form NAME=value, with quotes around more than one word and nothing behind it: systemd and a \
         shell can read it differently; correct it"
    )]
    OddValues(usize),
    /// ucarp would be given two of them.
    #[error(
        "OPTIONS in {VALUES} has {0}, which has a value of its own in that file, or must not be there; take it out"
    )]
    Options(&'static str),
    /// Nobody would hear, and it would take the address.
    #[error(
        "no master runs here, and no ucarp with vhid {vhid} and this password advertises {vip}: a ucarp that is started here would \
         take the address. Run mfs-promote --init on the machine whose master runs first. If none runs anywhere, start ucarp on the \
         machine that served last: systemctl start {UCARP_UNIT}"
    )]
    NobodyServes {
        /// The virtual host id.
        vhid: u8,
        /// The virtual IP.
        vip: Ipv4Addr,
    },
    /// The password is made on the first machine, once.
    #[error(
        "there is no {0} here. If another machine of the group has it, copy it: mfs-promote --init prints the line for that there. If \
         this is the first machine, make it (at most 19 bytes): install -m 600 /dev/stdin {0} <<< \"$(head -c 12 /dev/urandom | \
         base64)\"; then run this again", path.display()
    )]
    NoPassword {
        /// Where it should be.
        path: PathBuf,
    },
    /// ucarp or its unit would refuse the password.
    #[error("{0}")]
    BadPassword(String),
    /// A master here would let nobody in.
    #[error(
        "there is no {}, so a master here would refuse all clients: copy it from the machine that serves, with mfsmaster.cfg",
        path.display()
    )]
    NoExports {
        /// Where it should be.
        path: PathBuf,
    },
    /// One of them has to go first.
    #[error(
        "a master runs here (pid {pid}), and another one serves at {other}: find out which has the data of your clients, and stop \
         the other one"
    )]
    TwoMasters {
        /// The master here.
        pid: u32,
        /// The other machine.
        other: Ipv4Addr,
    },
    /// Several file systems are set up by hand.
    #[error(
        "{VALUES} sets XPARAM = {0}: --init sets up the instance without a name only; remove XPARAM, or edit the file by hand"
    )]
    Instance(String),
}

/// The values for ucarp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chosen {
    /// The virtual IP.
    pub(super) vip: Ipv4Addr,
    /// Its interface.
    pub(super) interface: String,
    /// This machine's own address on it.
    pub(super) address: Ipv4Addr,
    /// The virtual host id.
    pub(super) vhid: u8,
    /// advskew.
    pub(super) skew: u8,
}

/// A command to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Command {
    /// The program, found where programs are.
    pub(super) program: &'static str,
    /// Its arguments.
    pub(super) words: Vec<String>,
    /// What it is for.
    pub(super) why: &'static str,
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.program, self.words.join(" "))
    }
}

/// What has to change, in this order, and what cannot be done by a command.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) edits: Vec<Edit>,
    pub(super) commands: Vec<Command>,
    pub(super) notes: Vec<String>,
}

impl Plan {
    /// Whether nothing has to change.
    pub(super) fn is_empty(&self) -> bool {
        self.edits.is_empty() && self.commands.is_empty()
    }
}

/// The advskew for the next machine after one with this.
pub(super) fn next_skew(skew: u8) -> u8 {
    skew.saturating_add(SKEW_STEP).min(LARGEST_SKEW)
}

impl Chosen {
    /// What was asked for, else what is configured, else what follows from it.
    pub(super) fn of(request: &Request, facts: &Facts) -> Result<Self, Refusal> {
        let configured = |name| files::value(&facts.values, name).filter(|value| !value.is_empty());
        if let Some(line) = files::odd_line(&facts.values) {
            return Err(Refusal::OddValues(line));
        }
        let options = files::parsed(&configured("OPTIONS").unwrap_or_default());
        if let Some(instance) = configured("XPARAM").or(options.xparam.clone()) {
            return Err(Refusal::Instance(instance));
        }
        let not_there = [
            ("-v", options.vhid != 0),
            ("-a", options.vip.is_some()),
            ("-i", options.interface.is_some()),
            ("-p or -o", options.password.is_some()),
            ("-u or -d", options.up_script.is_some() || options.down_script.is_some()),
            ("-P", options.preempt),
        ];
        if let Some((option, _)) = not_there.into_iter().find(|(_, is_there)| *is_there) {
            return Err(Refusal::Options(option));
        }
        let vip = request.vip.or_else(|| facts.configured_vip()).ok_or(Refusal::NoVip)?;
        // One that is configured for another virtual IP says nothing.
        let kept =
            configured("INTERFACE").filter(|_| request.vip.is_none_or(|asked| facts.configured_vip() == Some(asked)));
        let is_no_host = |(_, entry): &(String, InterfaceAddress)| {
            let mask = u32::MAX.checked_shl(u32::from(32 - entry.prefix)).unwrap_or_default();
            let host = u32::from(vip) & !mask;
            entry.prefix < 31 && entry.contains(vip) && (host == 0 || host == !mask)
        };
        if vip.is_loopback()
            || vip.is_multicast()
            || vip.is_broadcast()
            || vip.is_unspecified()
            || facts.addresses.iter().any(is_no_host)
        {
            return Err(Refusal::NoHost(vip));
        }
        let interface = request.interface.clone().or(kept).map_or_else(|| interface_of(vip, facts), Ok)?;
        let kept = configured("ADDRESS").and_then(|address| address.parse().ok()).filter(|address| {
            let is = |(name, entry): &(String, InterfaceAddress)| *name == interface && entry.address == *address;
            *address != vip && facts.addresses.iter().any(is)
        });
        let address = kept.map_or_else(|| own_address(&interface, vip, facts), Ok)?;
        let vhid = request.vhid.or_else(|| configured("VHID")?.parse().ok()).unwrap_or(vip.octets()[3]);
        if vhid == 0 {
            return Err(Refusal::NoVhid(vip));
        }
        let given = Some(options.advskew).filter(|skew| *skew > 0);
        let usual = if facts.master.is_some() || facts.ucarp.at_boot { 0 } else { SKEW_STEP };
        let skew = request.skew.or(given).unwrap_or(usual);
        Ok(Self { vip, interface, address, vhid, skew })
    }
}

/// The interface with the network that the address lies in.
fn interface_of(vip: Ipv4Addr, facts: &Facts) -> Result<String, Refusal> {
    let networks = facts.addresses.iter().filter(|(_, entry)| entry.address != vip && entry.contains(vip));
    let mut found: Vec<&str> = networks.map(|(name, _)| name.as_str()).collect();
    found.dedup();
    if let [one] = found[..] {
        return Ok(one.to_owned());
    }
    if let Some((interface, _)) = facts.addresses.iter().find(|(_, entry)| entry.address == vip) {
        return Err(Refusal::OwnAddress { vip, interface: interface.clone() });
    }
    let found = if found.is_empty() { "no interface".to_owned() } else { found.join(" and of ") };
    Err(Refusal::WhichInterface { vip, found, names: names(facts) })
}

fn names(facts: &Facts) -> String {
    let mut names: Vec<_> = facts.addresses.iter().map(|(name, entry)| format!("{name} ({})", entry.address)).collect();
    names.dedup();
    names.join(", ")
}

/// This machine's address on the interface: one of the network of the virtual IP if there is one.
fn own_address(interface: &str, vip: Ipv4Addr, facts: &Facts) -> Result<Ipv4Addr, Refusal> {
    let own = || facts.addresses.iter().filter(|(name, entry)| name == interface && entry.address != vip);
    let beside = |(_, entry): &&(String, InterfaceAddress)| entry.contains(vip);
    let found = own().find(beside).or_else(|| own().next()).map(|(_, entry)| entry.address);
    found.ok_or_else(|| Refusal::NoAddress { interface: interface.to_owned(), vip, names: names(facts) })
}

/// What was found on the network.
#[derive(Debug, Clone, Default)]
pub(super) struct Around {
    /// Another machine that advertises the virtual IP now, with our password.
    pub(super) advertises: Option<Ipv4Addr>,
    /// The hardware address of another machine that has the virtual IP.
    pub(super) has_vip: Option<String>,
    /// Another machine that the name resolves to, and whose master answers.
    pub(super) serves: Option<Ipv4Addr>,
    /// Whether the metalogger here has a connection to the virtual IP.
    pub(super) follows: bool,
}

/// What has to change.
pub(super) fn plan(chosen: &Chosen, request: &Request, facts: &Facts, around: &Around) -> Result<Plan, Refusal> {
    refuse(chosen, facts, around)?;
    let mut plan = Plan { edits: edits(chosen, request, facts), ..Plan::default() };
    let renamed = plan.edits.iter().any(|edit| edit.path.as_os_str() == HOSTS);
    let valued = plan.edits.iter().any(|edit| edit.path.as_os_str() == VALUES);
    let is_elsewhere = facts.metalogger.runs && around.advertises.is_some() && !around.follows;
    plan.commands = daemons(facts, renamed || is_elsewhere);
    let Facts { ucarp, other_ucarp, master_unit, .. } = facts;
    if !ucarp.at_boot {
        plan.commands.push(systemctl("enable", UCARP_UNIT, "at boot, and a check every five minutes"));
    }
    // Not before ucarp is there at the next boot.
    if master_unit.at_boot {
        let why = "mfs-promote starts it; at boot it would serve old metadata";
        plan.commands.push(systemctl("disable", &master_unit.name, why));
    }
    if !ucarp.runs && facts.addresses.iter().any(|(_, entry)| entry.address == chosen.vip) {
        plan.notes.push(format!(
            "{} is on this machine already: ucarp takes it away when it starts, and adds it again some seconds later. Nothing else may \
             add it any more (the configuration of the network, keepalived)",
            chosen.vip
        ));
    }
    match (other_ucarp, ucarp.runs) {
        (Some(pid), _) => plan.notes.push(format!(
            "ucarp (process {pid}) runs, and its unit has not started it: end it, also at boot, then: systemctl start {UCARP_UNIT}"
        )),
        (None, true) if valued => plan.notes.push(format!(
            "ucarp runs with the earlier values until: systemctl restart {UCARP_UNIT} (on the machine that serves, clients \
             wait some seconds)"
        )),
        (None, true) => (),
        (None, false) => {
            plan.commands.push(systemctl("start", UCARP_UNIT, "ucarp, which leaves a healthy master alone"));
        }
    }
    if request.keep_hosts && facts.resolved != Some(chosen.vip) {
        plan.notes.push(format!("{} does not resolve to {}: change that where you keep names", facts.name, chosen.vip));
    }
    Ok(plan)
}

/// What the administrator has to do first.
fn refuse(chosen: &Chosen, facts: &Facts, around: &Around) -> Result<(), Refusal> {
    let Chosen { vip, vhid, .. } = *chosen;
    let name = facts.name.to_lowercase();
    if facts.own_names.contains(&name) || name.parse::<Ipv4Addr>().is_ok_and(|address| address != vip) {
        return Err(Refusal::Name { name: facts.name.clone(), path: facts.metalogger_cfg.clone(), vip });
    }
    if let Password::Bad(why) = &facts.password {
        return Err(Refusal::BadPassword(why.clone()));
    }
    let is_new =
        facts.master.is_some() && facts.configured_vip().is_none() && !facts.ucarp.at_boot && !facts.ucarp.runs;
    if facts.password == Password::Missing && !is_new {
        return Err(Refusal::NoPassword { path: facts.password_file.clone() });
    }
    if let Some(path) = &facts.missing_exports {
        return Err(Refusal::NoExports { path: path.clone() });
    }
    if facts.ucarp.runs {
        return Ok(());
    }
    match (facts.master, around.advertises.or(around.serves), &around.has_vip) {
        (Some(pid), Some(other), _) => Err(Refusal::TwoMasters { pid, other }),
        (_, None, Some(mac)) => Err(Refusal::Taken { vip, mac: mac.clone(), vhid }),
        (None, _, _) if around.advertises.is_none() && facts.other_ucarp.is_none() => {
            Err(Refusal::NobodyServes { vhid, vip })
        }
        _ => Ok(()),
    }
}

fn edits(chosen: &Chosen, request: &Request, facts: &Facts) -> Vec<Edit> {
    let changed = |path: &str, before: &str, after: String, is_there: bool| {
        let before = is_there.then(|| before.to_owned());
        let edit = Edit { path: path.into(), before, after, mode: 0o644, instead: None };
        (edit.before.as_ref() != Some(&edit.after)).then_some(edit)
    };
    let mut edits = Vec::new();
    // Before the values, which say that there is a group already: then none is made.
    if facts.password == Password::Missing {
        edits.push(Edit {
            path: facts.password_file.clone(),
            before: None,
            after: new_password() + "\n",
            mode: 0o600,
            instead: Some("a password, made here and not shown"),
        });
    }
    edits.extend(changed(VALUES, &facts.values, values(chosen, facts), facts.has_values));
    edits.extend(facts.missing.iter().map(|path| {
        let is_metalogger = path.ends_with("mfsmetalogger.cfg");
        let after = if is_metalogger { files::with_shortest_delay("") } else { String::new() };
        Edit { path: path.clone(), before: None, after, mode: 0o644, instead: None }
    }));
    edits.extend(facts.undelayed.iter().map(|(path, text)| Edit {
        path: path.clone(),
        before: Some(text.clone()),
        after: files::with_shortest_delay(text),
        mode: 0o644,
        instead: None,
    }));
    if !request.keep_hosts && facts.resolved != Some(chosen.vip) {
        edits.extend(changed(HOSTS, &facts.hosts, files::with_host(&facts.hosts, &facts.name, chosen.vip), true));
    }
    edits
}

/// The values of ucarp's unit.
fn values(chosen: &Chosen, facts: &Facts) -> String {
    let Chosen { vip, interface, address, vhid, skew } = chosen;
    let options = files::value(&facts.values, "OPTIONS").unwrap_or_default();
    let options = if files::parsed(&options).advskew == *skew { options } else { files::with_skew(&options, *skew) };
    [
        ("INTERFACE", interface.clone()),
        ("ADDRESS", address.to_string()),
        ("VIP", vip.to_string()),
        ("VHID", vhid.to_string()),
        ("PASSWORD_FILE", facts.password_file.display().to_string()),
        ("OPTIONS", options),
    ]
    .iter()
    .fold(facts.values.clone(), |text, (name, value)| files::with_value(&text, name, value))
}

/// The metalogger always, and looking for the master where that will be.
fn daemons(facts: &Facts, moves: bool) -> Vec<Command> {
    let metalogger = &facts.metalogger;
    let mut commands = Vec::new();
    if !metalogger.at_boot {
        commands.push(systemctl("enable", &metalogger.name, "the copy that this machine serves from"));
    }
    if metalogger.runs && moves {
        commands.push(systemctl("restart", &metalogger.name, "it finds the master at the virtual IP"));
    } else if metalogger.runs && facts.undelayed.is_some() {
        commands.push(systemctl("reload", &metalogger.name, "it connects again after a second"));
    } else if !metalogger.runs {
        commands.push(systemctl("start", &metalogger.name, "it copies from now on"));
    }
    commands
}

fn systemctl(verb: &str, unit: &str, why: &'static str) -> Command {
    Command { program: "systemctl", words: vec![verb.to_owned(), unit.to_owned()], why }
}

/// 96 random bits, as text.
///
/// # Panics
/// Where the kernel has no random numbers: then nothing can be secret.
fn new_password() -> String {
    let mut random = [0; PASSWORD_LENGTH];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut random));
    read.expect("random numbers from /dev/urandom");
    random.iter().map(|byte| char::from(PASSWORD_LETTERS[usize::from(byte % 64)])).collect()
}

#[cfg(test)]
mod tests;
