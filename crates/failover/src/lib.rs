//! The MooseFS failover: everything behind the three programs `vip-up`, `vip-down` and `mfs-promote`.
//!
//! Each room below owns one thing. A room imports only from rooms above it in this table, never from those below;
//! `scripts/check` proves it. The programs call the three functions at the end; all else is private to the library.
//!
//! | room | owns |
//! |---|---|
//! | `sys` | the kernel, and nothing of MooseFS: netlink, packets, processes, folders of another user, signals, log, text |
//! | `ucarp` | the ucarp that called: its identity, its options, its advertisements |
//! | `metadata` | images, change logs, the plan of what to serve, and the clean set for a master to start from |
//! | `moosefs` | the daemons: releases, what a master answers, services, and the workarounds |
//! | `machine` | what this machine keeps: configuration, lock, journal, memory, archive |
//! | `election` | the settle time and the checks before serving |
//! | `serving` | the role of a machine that serves: it monitors master, virtual IP and network |
//! | `promotion` | the transition to the master |
//! | `demotion` | the transition to a standby |
//! | `switchover` | a planned change of the master |
//! | `rehearsal` | a real restore beside the data |
//! | `report` | `--dry-run`, `--status`, `--check-config` |
//! | `check` | `--check` |
//! | `verbs` | what a command line asks for |

mod check;
pub mod cli;
mod demotion;
mod election;
mod hooks;
mod machine;
mod metadata;
mod moosefs;
mod policy;
mod promotion;
mod rehearsal;
mod report;
mod serving;
mod standby;
mod switchover;
mod sys;
mod timing;
mod ucarp;
mod verbs;
mod vip;

use std::process::ExitCode;

/// The hook for `ucarp -u`.
pub fn vip_up(parsed: Result<cli::VipUp, clap::Error>) -> ExitCode {
    hooks::vip_up(parsed)
}

/// The hook for `ucarp -d`.
pub fn vip_down(parsed: Result<cli::VipDown, clap::Error>) -> ExitCode {
    hooks::vip_down(parsed)
}

/// The run that a hook starts in the background, and all that an administrator asks for.
pub fn mfs_promote(args: &cli::Promote) -> ExitCode {
    verbs::run(args)
}
