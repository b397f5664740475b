//! The hook that ucarp calls when this machine becomes MASTER.

use std::process::ExitCode;

use clap::Parser as _;
use failover::cli::VipUp;

fn main() -> ExitCode {
    failover::vip_up(VipUp::try_parse())
}
