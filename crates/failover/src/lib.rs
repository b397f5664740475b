//! The MooseFS failover: everything behind the three programs `vip-up`, `vip-down` and `mfs-promote`.
//!
//! Each room (a module at this level) owns one thing. A room imports only from rooms above it in this table, never from those below; a test
//! (`tests/layers.rs`) reads the table and proves it. The programs call the three functions at the end; all else is private
//! to the library.
//!
//! | room | owns |
//! |---|---|
//! | `sys` | the kernel, and nothing of MooseFS: netlink, packets, processes, folders of another user, signals, log, text |
//! | `timing` | the durations that depend on each other |
//! | `instance` | which MooseFS service of this machine: its name, its files and folders |
//! | `ucarp` | the ucarp that called: its identity, its options, its advertisements |
//! | `vip` | the virtual IP: an address on an interface, as ucarp names it |
//! | `metadata` | images, change logs, the plan of what to serve, and the clean set for a master to start from |
//! | `heartbeat` | what the runs of this group say to each other, signed |
//! | `moosefs` | the daemons: releases, what a master answers, services, and the workarounds |
//! | `machine` | what this machine keeps: configuration, lock, journal, memory, archive |
//! | `group` | the other machines of the group: what they say, and what their masters answer |
//! | `policy` | the table of failures, and what follows from each |
//! | `switchover` | a planned change of the master |
//! | `election` | the settle time and the checks before serving |
//! | `serving` | the role of a machine that serves: it monitors master, virtual IP and network |
//! | `standby` | the role of a machine that does not serve: it records who serves, and how fresh its copy is |
//! | `promotion` | the transition to the master |
//! | `demotion` | the transition to a standby |
//! | `rehearsal` | a real restore beside the data |
//! | `report` | `--dry-run`, `--status`, `--check-config` |
//! | `check` | `--check` |
//! | `setup` | `--init`: what makes this machine one of those that can be the master |
//! | `cli` | the command lines of the three programs |
//! | `hooks` | `vip-up` and `vip-down` |
//! | `verbs` | `mfs-promote`: one function for each thing that it can be asked for |

mod check;
pub mod cli;
mod demotion;
mod election;
mod group;
mod heartbeat;
mod hooks;
mod instance;
mod machine;
mod metadata;
mod moosefs;
mod policy;
mod promotion;
mod rehearsal;
mod report;
mod serving;
mod setup;
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
pub fn mfs_promote(line: cli::PromoteLine) -> ExitCode {
    match line {
        cli::PromoteLine::Init(args) => verbs::init(args),
        cli::PromoteLine::Promote(args) => verbs::run(&args),
    }
}
