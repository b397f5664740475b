//! Makes this machine the MooseFS master, or a standby, and answers an administrator's questions.

use std::process::ExitCode;

use failover::cli::PromoteLine;

fn main() -> ExitCode {
    failover::mfs_promote(PromoteLine::parse())
}
