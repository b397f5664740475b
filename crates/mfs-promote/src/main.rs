//! Makes this machine the MooseFS master, or a standby, and answers an administrator's questions.

use std::process::ExitCode;

use clap::Parser as _;
use failover::cli::Promote;

fn main() -> ExitCode {
    failover::mfs_promote(&Promote::parse())
}
