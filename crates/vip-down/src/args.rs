//! The command line.

use std::net::Ipv4Addr;

use clap::Parser;

/// Remove the virtual address and start the demotion of this machine in the background.
///
/// ucarp runs this when the machine becomes BACKUP, and each time ucarp starts (ucarp -d /usr/bin/vip-down). Where the
/// address is not there and no master runs, nothing happens. It works without any configuration file. Messages go to
/// syslog, or to the terminal.
#[derive(Debug, Parser)]
#[command(name = "vip-down", version)]
pub(crate) struct Arguments {
    /// Interface that loses the address
    pub(crate) interface: String,
    /// The virtual address (IPv4)
    pub(crate) vip: Ipv4Addr,
    /// Use the configuration /etc/mfs/mfspromote-XPARAM.cfg for the demotion (ucarp -x)
    pub(crate) xparam: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
