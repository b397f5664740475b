//! The command lines of the three programs. The manual pages and completions are made of them (`crates/pages`).

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args, Parser};

use crate::machine::call::Call;
use crate::metadata::Loss;
use crate::report::Form;
use crate::setup::Request;
use crate::sys::process::Identity;
use crate::vip::VirtualIp;

/// Add the virtual IP and start the promotion of this machine in the background.
///
/// ucarp runs this when the machine becomes MASTER (ucarp -u /usr/bin/vip-up). If nothing could be started that would
/// serve on the address, the address is removed again and the calling ucarp is stopped, so that another machine takes
/// over. Messages go to syslog, or to the terminal.
#[derive(Debug, Parser)]
#[command(name = "vip-up", version)]
pub struct VipUp {
    #[command(flatten)]
    pub(crate) words: HookWords,
}

/// Remove the virtual IP and start the demotion of this machine in the background.
///
/// ucarp runs this when the machine becomes BACKUP, and each time ucarp starts (ucarp -d /usr/bin/vip-down). Where the
/// address is not there and no master runs, nothing happens. It works without any configuration file. Messages go to
/// syslog, or to the terminal.
#[derive(Debug, Parser)]
#[command(name = "vip-down", version)]
pub struct VipDown {
    #[command(flatten)]
    pub(crate) words: HookWords,
}

/// The three words with which ucarp calls a hook.
#[derive(Debug, Args)]
pub(crate) struct HookWords {
    /// Interface of the virtual IP
    pub(crate) interface: String,
    /// Virtual IP (IPv4)
    pub(crate) vip: Ipv4Addr,
    /// Use the configuration /etc/mfs/mfspromote-XPARAM.cfg (ucarp -x)
    pub(crate) xparam: Option<String>,
}

/// What `mfs-promote` was called with.
#[derive(Debug)]
pub enum PromoteLine {
    /// `--init`, which has options of its own.
    Init(Init),
    /// Everything else.
    Promote(Box<Promote>),
}

impl PromoteLine {
    /// The command line of this process; ends it where that is wrong, or asks for help.
    pub fn parse() -> Self {
        let words: Vec<_> = std::env::args_os().collect();
        if words.iter().skip(1).any(|word| word == INIT) {
            return Self::Init(Init::parse_from(words.into_iter().filter(|word| word != INIT)));
        }
        Self::Promote(Box::new(Promote::parse_from(words)))
    }
}

const INIT: &str = "--init";

/// Set this machine up as one of those that can be the MooseFS master.
#[derive(Debug, Parser)]
#[command(name = "mfs-promote", bin_name = "mfs-promote --init", version)]
#[command(
    after_help = "Begin on the machine whose master runs: it prints the line for the next one. All is shown first, \
                        and you are asked.\nIt ends with --check. Exit status: 0 set up, 1 not or not yet, 2 usage."
)]
pub struct Init {
    /// The virtual IP: a free address, the same on all machines
    #[arg(long, value_name = "ADDRESS")]
    vip: Option<Ipv4Addr>,
    /// Its network interface [default: the one of that network]
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
    /// Virtual host id, the same on all machines [default: the last number of the virtual IP]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(1..))]
    vhid: Option<u8>,
    /// ucarp's advskew: 0 for the first choice, 50 for the second, 100 for the third
    #[arg(long, value_name = "NUMBER")]
    skew: Option<u8>,
    /// Leave /etc/hosts alone
    #[arg(long)]
    keep_hosts: bool,
    /// Do it without asking
    #[arg(long)]
    yes: bool,
    /// Increase verbosity (repeatable)
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
}

impl Init {
    /// What is asked for.
    pub(crate) fn request(self) -> Request {
        let Self { vip, interface, vhid, skew, keep_hosts, yes, verbose: _ } = self;
        Request { vip, interface, vhid, skew, keep_hosts, agreed: yes }
    }

    /// `--verbose`, counted.
    pub(crate) fn verbosity(&self) -> u8 {
        self.verbose
    }
}

/// Make this machine the MooseFS master, from its metalogger's copy of the metadata.
// One line each, so that `--help` is a screen; more of it all is in the manual page (`crates/pages`).
#[derive(Debug, Parser)]
#[expect(clippy::struct_excessive_bools, reason = "a command line is a list of them")]
#[command(name = "mfs-promote", version, arg_required_else_help = true)]
// A screen has 24 lines: without the blank ones of the default around the usage.
#[command(help_template = "{about-with-newline}{usage-heading} {usage}\n{all-args}{after-help}")]
#[command(after_help = "Begin with --dry-run. Exit status: 0 yes, 1 no, 2 usage; --check: as Nagios.")]
#[command(group(ArgGroup::new("verb").args(["dry_run", "rehearse", "switchover", "demote", "status", "check", "check_config", "call", "adopt"])))]
#[command(group(ArgGroup::new("listing").args(["dry_run", "status", "check"]).multiple(true)))]
#[command(group(ArgGroup::new("looking").args(["check"])))]
pub struct Promote {
    /// Set this machine up (see mfs-promote --init --help)
    // It is read as [`Init`], and listed here.
    #[arg(long)]
    init: bool,
    /// Print what a promotion would do; change nothing
    #[arg(long)]
    dry_run: bool,
    /// Restore a copy beside the data and check the result
    #[arg(long)]
    rehearse: bool,
    /// Switch over to another machine (planned)
    #[arg(long)]
    switchover: bool,
    /// Stop the master here and become a standby
    #[arg(long)]
    demote: bool,
    /// Show the daemons here and the last runs
    #[arg(long)]
    status: bool,
    /// Check whether this machine is ready to take over
    #[arg(long)]
    check: bool,
    /// Show every setting in force and where it came from
    #[arg(long)]
    check_config: bool,
    /// JSON output (with --dry-run, --status, --check)
    #[arg(long, requires = "listing")]
    json: bool,
    /// Nagios plugin output (with --check)
    #[arg(long, requires = "looking", conflicts_with = "json")]
    nagios: bool,
    /// Write Prometheus metrics to FILE (with --check)
    #[arg(long, value_name = "FILE", requires = "looking", conflicts_with_all = ["json", "nagios"])]
    prometheus: Option<PathBuf>,
    /// Promote even if known changes will be lost
    #[arg(long, conflicts_with_all = ["rehearse", "switchover", "demote", "status", "check", "check_config", "call", "adopt"])]
    allow_data_loss: bool,
    /// Network interface of the virtual IP
    #[arg(long, value_name = "NAME", requires = "vip", value_hint = clap::ValueHint::Other)]
    interface: Option<String>,
    /// The virtual IP; without a verb: promote this machine
    #[arg(long, value_name = "ADDRESS", requires = "interface", value_hint = clap::ValueHint::Other)]
    vip: Option<Ipv4Addr>,
    /// Configuration file instead of /etc/mfs/mfspromote.cfg
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// The instance of ucarp -x NAME: mfspromote-NAME.cfg
    #[arg(short, long, value_name = "NAME", value_hint = clap::ValueHint::Other, conflicts_with = "config")]
    xparam: Option<String>,
    /// Increase verbosity (repeatable)
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
    /// The call of a hook, as JSON; given by the hooks
    #[arg(long, hide = true, conflicts_with_all = ["interface", "vip", "config", "xparam"])]
    call: Option<Call>,
    /// The process that the unit takes over which this program is started in; given by the drop-in of that unit
    #[arg(long, hide = true, requires = "pid_file")]
    adopt: Option<Identity>,
    /// The pid file of that unit
    #[arg(long, hide = true, requires = "adopt")]
    pid_file: Option<PathBuf>,
}

/// What a command line asks for.
#[derive(Debug)]
pub(crate) enum Verb<'a> {
    /// The background work of a hook.
    Call(&'a Call),
    /// A unit takes over a process: which, and its pid file.
    Adopt(Identity, &'a Path),
    /// A promotion by hand.
    Promote(VirtualIp, Loss),
    /// A demotion by hand.
    Demote,
    DryRun(Loss),
    Rehearse,
    Switchover,
    Status,
    Check(Form<'a>),
    CheckConfig,
}

impl Promote {
    /// What is asked for; `None` if that is nothing.
    pub(crate) fn verb(&self) -> Option<Verb<'_>> {
        let form = match &self.prometheus {
            Some(path) => Form::Prometheus(path),
            None if self.nagios => Form::Nagios,
            None => self.form(),
        };
        Some(if let Some(call) = &self.call {
            Verb::Call(call)
        } else if let (Some(master), Some(file)) = (self.adopt, &self.pid_file) {
            Verb::Adopt(master, file)
        } else if self.check {
            Verb::Check(form)
        } else if self.status {
            Verb::Status
        } else if self.check_config {
            Verb::CheckConfig
        } else if self.dry_run {
            Verb::DryRun(self.loss())
        } else if self.rehearse {
            Verb::Rehearse
        } else if self.switchover {
            Verb::Switchover
        } else if self.demote {
            Verb::Demote
        } else {
            Verb::Promote(self.virtual_ip()?, self.loss())
        })
    }

    /// `--interface` and `--vip`.
    pub(crate) fn virtual_ip(&self) -> Option<VirtualIp> {
        let (interface, address) = (self.interface.clone()?, self.vip?);
        Some(VirtualIp { interface, address })
    }

    /// `--config`.
    pub(crate) fn config(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    /// `--xparam`.
    pub(crate) fn xparam(&self) -> Option<&str> {
        self.xparam.as_deref()
    }

    /// `--verbose`, counted.
    pub(crate) fn verbosity(&self) -> u8 {
        self.verbose
    }

    /// `--json`.
    pub(crate) fn form(&self) -> Form<'_> {
        if self.json { Form::Json } else { Form::Text }
    }

    fn loss(&self) -> Loss {
        if self.allow_data_loss { Loss::Allow } else { Loss::Refuse }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_lines_are_well_formed() {
        for command in [VipUp::command(), VipDown::command(), Promote::command()] {
            command.debug_assert();
        }
    }

    #[test]
    fn the_help_fits_a_screen() {
        let shown = |option| Promote::try_parse_from(["mfs-promote", option]).unwrap_err().to_string();
        let help = shown("--help");
        assert!(help.lines().count() <= 24, "{help}");
        for line in help.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        assert_eq!(help, shown("-h"));
    }

    #[test]
    fn without_arguments_it_explains_itself() {
        let error = Promote::try_parse_from(["mfs-promote"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert_eq!(error.to_string(), Promote::command().render_help().to_string());
    }

    #[test]
    fn one_verb_at_a_time_and_an_address_with_its_interface() {
        let parse = |line: &str| Promote::try_parse_from(line.split(' '));
        assert!(parse("mfs-promote --dry-run").is_ok());
        assert!(parse("mfs-promote --interface eth0 --vip 172.16.0.99").is_ok());
        assert!(parse("mfs-promote --dry-run --demote").is_err());
        assert!(parse("mfs-promote --vip 172.16.0.99").is_err());
        assert!(parse("mfs-promote --interface eth0").is_err());
        assert!(Promote::try_parse_from(["mfs-promote"]).is_err());
        assert!(parse("mfs-promote --rehearse --dry-run").is_err());
    }

    #[test]
    fn an_instance_is_named_once() {
        let parse = |line: &str| Promote::try_parse_from(line.split(' '));
        assert_eq!(parse("mfs-promote --check -x one").unwrap().xparam(), Some("one"));
        assert_eq!(parse("mfs-promote --xparam one --demote").unwrap().xparam(), Some("one"));
        assert!(parse("mfs-promote --check -x one --config /etc/mfs/mfspromote-two.cfg").is_err());
        assert!(parse("mfs-promote -x one").is_ok_and(|args| args.verb().is_none()), "it is no verb");
    }

    #[test]
    fn data_is_lost_only_by_hand_and_only_by_a_promotion() {
        let parse = |line: &str| Promote::try_parse_from(line.split(' '));
        assert_eq!(parse("mfs-promote --interface eth0 --vip 172.16.0.99").unwrap().loss(), Loss::Refuse);
        let by_hand = parse("mfs-promote --allow-data-loss --interface eth0 --vip 172.16.0.99").unwrap();
        assert_eq!(by_hand.loss(), Loss::Allow);
        assert_eq!(parse("mfs-promote --dry-run --allow-data-loss").unwrap().loss(), Loss::Allow);
        for other in ["--rehearse", "--demote", "--status", "--check", "--check-config", "--switchover"] {
            assert!(parse(&format!("mfs-promote --allow-data-loss {other}")).is_err(), "{other}");
        }
    }

    #[test]
    fn only_listings_are_for_programs() {
        let parse = |line: &str| Promote::try_parse_from(line.split(' '));
        assert!(parse("mfs-promote --dry-run --json").is_ok());
        assert!(parse("mfs-promote --status --json").is_ok());
        assert!(parse("mfs-promote --check --json").is_ok());
        assert!(parse("mfs-promote --check --prometheus /run/x.prom").is_ok());
        for other in ["--status --nagios", "--check --nagios --json", "--dry-run --prometheus /run/x.prom"] {
            assert!(parse(&format!("mfs-promote {other}")).is_err(), "{other}");
        }
        for other in ["--rehearse", "--demote", "--interface eth0 --vip 172.16.0.99"] {
            assert!(parse(&format!("mfs-promote --json {other}")).is_err(), "{other}");
        }
    }
}
