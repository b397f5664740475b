//! The command line.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use clap::{ArgGroup, Parser};
use failover::lock::Ticket;
use failover::metadata::Loss;
use failover::ucarp::Caller;

/// Make this machine the MooseFS master, from its metalogger's copy of the metadata.
///
/// Called by vip-up and vip-down in the background. By hand: `--dry-run` shows what a promotion would do here and
/// whether it would succeed; `--interface` and `--vip` without a verb promote this machine, if the address is on it.
#[derive(Debug, Parser)]
#[expect(clippy::struct_excessive_bools, reason = "a command line is a list of them")]
#[command(version, arg_required_else_help = true, max_term_width = 100)]
#[command(after_help = "Exit codes: 0 done (or: it would succeed), 1 failed (or: it would fail), 2 wrong usage.\n\
    What runs did and how long each step took: mfs-promote --status, and the system log.")]
#[command(group(ArgGroup::new("verb").args(["dry_run", "rehearse", "hand_over", "demote", "status", "check_config"])))]
#[command(group(ArgGroup::new("listing").args(["dry_run", "status"]).multiple(true)))]
pub(crate) struct Args {
    /// Print what a promotion would do and touch nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Restore a copy of the metadata beside the data, as a promotion would, and check the result
    #[arg(long)]
    pub(crate) rehearse: bool,
    /// Hand the service over to another machine: stop the master here, step back, and report who took over
    #[arg(long)]
    pub(crate) hand_over: bool,
    /// Stop the master here and go back to metalogger duty
    #[arg(long)]
    pub(crate) demote: bool,
    /// Show what runs here now, and the last promotions and demotions
    #[arg(long)]
    pub(crate) status: bool,
    /// Show every setting in force and where it came from
    #[arg(long)]
    pub(crate) check_config: bool,
    /// With --dry-run or --status: for programs
    #[arg(long, requires = "listing")]
    pub(crate) json: bool,
    /// Serve what is whole although known changes are lost by it; for this run only, never given by hooks
    #[arg(long, conflicts_with_all = ["rehearse", "hand_over", "demote", "status", "check_config", "hook", "ticket"])]
    pub(crate) allow_data_loss: bool,
    /// Network interface of the virtual IP
    #[arg(long, value_name = "NAME", requires = "vip")]
    pub(crate) interface: Option<String>,
    /// The virtual IP that clients know as mfsmaster
    #[arg(long, value_name = "ADDRESS", requires = "interface")]
    pub(crate) vip: Option<Ipv4Addr>,
    /// Configuration file instead of /etc/mfs/mfspromote.cfg
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Say more; twice: everything
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// The ucarp on whose behalf this runs; given by the hooks
    #[arg(long, hide = true, requires = "vip")]
    pub(crate) hook: Option<Caller>,
    /// The place of this call in the order of calls; given by the hooks
    #[arg(long, hide = true)]
    pub(crate) ticket: Option<Ticket>,
}

impl Args {
    /// Whether a hook of ucarp started this run.
    pub(crate) fn is_hook(&self) -> bool {
        self.hook.is_some() || self.ticket.is_some()
    }

    /// What the administrator says about changes that cannot be served.
    pub(crate) fn loss(&self) -> Loss {
        if self.allow_data_loss { Loss::Allow } else { Loss::Refuse }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn one_verb_at_a_time_and_an_address_with_its_interface() {
        let parse = |line: &str| Args::try_parse_from(line.split(' '));
        assert!(parse("mfs-promote --dry-run").is_ok());
        assert!(parse("mfs-promote --interface eth0 --vip 172.16.0.99").is_ok());
        assert!(parse("mfs-promote --dry-run --demote").is_err());
        assert!(parse("mfs-promote --vip 172.16.0.99").is_err());
        assert!(parse("mfs-promote --interface eth0").is_err());
        assert!(Args::try_parse_from(["mfs-promote"]).is_err());
        assert!(parse("mfs-promote --rehearse --dry-run").is_err());
    }

    #[test]
    fn data_is_lost_only_by_hand_and_only_by_a_promotion() {
        let parse = |line: &str| Args::try_parse_from(line.split(' '));
        assert_eq!(parse("mfs-promote --interface eth0 --vip 172.16.0.99").unwrap().loss(), Loss::Refuse);
        let by_hand = parse("mfs-promote --allow-data-loss --interface eth0 --vip 172.16.0.99").unwrap();
        assert_eq!(by_hand.loss(), Loss::Allow);
        assert_eq!(parse("mfs-promote --dry-run --allow-data-loss").unwrap().loss(), Loss::Allow);
        for other in ["--rehearse", "--demote", "--status", "--check-config", "--ticket promotion-1-1"] {
            assert!(parse(&format!("mfs-promote --allow-data-loss {other}")).is_err(), "{other}");
        }
    }

    #[test]
    fn only_listings_are_for_programs() {
        let parse = |line: &str| Args::try_parse_from(line.split(' '));
        assert!(parse("mfs-promote --dry-run --json").is_ok());
        assert!(parse("mfs-promote --status --json").is_ok());
        for other in ["--rehearse", "--demote", "--interface eth0 --vip 172.16.0.99"] {
            assert!(parse(&format!("mfs-promote --json {other}")).is_err(), "{other}");
        }
    }
}
