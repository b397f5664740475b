//! The command line.

use std::net::Ipv4Addr;

use clap::Parser;

/// Add the virtual address and start the promotion of this machine in the background.
///
/// ucarp runs this when the machine becomes MASTER (ucarp -u /usr/bin/vip-up). If nothing could be started that would
/// serve on the address, the address is removed again and the calling ucarp told to end, so that another machine takes
/// over. Messages go to syslog, or to the terminal.
#[derive(Debug, Parser)]
#[command(name = "vip-up", version)]
pub(crate) struct Arguments {
    /// Interface that gets the address
    pub(crate) interface: String,
    /// The virtual address (IPv4)
    pub(crate) vip: Ipv4Addr,
    /// Use the configuration /etc/mfs/mfspromote-XPARAM.cfg (ucarp -x)
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
