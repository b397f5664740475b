//! The hook that ucarp calls when this machine becomes BACKUP, and when ucarp starts.

use std::process::ExitCode;

use clap::Parser as _;
use failover::cli::VipDown;

fn main() -> ExitCode {
    failover::vip_down(VipDown::try_parse())
}
