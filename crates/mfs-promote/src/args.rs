//! The command line.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use clap::{ArgGroup, Parser};
use failover::lock::Ticket;
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
#[command(group(ArgGroup::new("verb").args(["dry_run", "demote", "status", "check_config"])))]
pub(crate) struct Args {
    /// Print what a promotion would do and touch nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Stop the master here and go back to metalogger duty
    #[arg(long)]
    pub(crate) demote: bool,
    /// Show what runs here now, and the last promotions and demotions
    #[arg(long)]
    pub(crate) status: bool,
    /// Show every setting in force and where it came from
    #[arg(long)]
    pub(crate) check_config: bool,
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
    }
}
