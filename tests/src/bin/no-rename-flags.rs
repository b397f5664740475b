//! `no-rename-flags [--no-links] COMMAND …`: runs a command, and all that it starts, as on a file system whose rename knows no
//! flags (ZFS before 2.2, `GlusterFS`, NFS), and with `--no-links` as on one without hard links too.

use std::collections::BTreeMap;
use std::error::Error;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use nix::errno::Errno;
use nix::libc::{SYS_linkat, SYS_renameat2, c_long};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args_os().skip(1).peekable();
    let flags = SeccompCondition::new(4, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, 0)?;
    refuse(SYS_renameat2, vec![SeccompRule::new(vec![flags])?], Errno::EINVAL)?;
    if words.next_if(|word| word == "--no-links").is_some() {
        refuse(SYS_linkat, Vec::new(), Errno::EPERM)?;
    }
    let program = words.next().ok_or("no command")?;
    Err(Command::new(program).args(words).exec().into())
}

/// From here on this system call fails where a rule matches, or always if there is none.
fn refuse(call: c_long, rules: Vec<SeccompRule>, errno: Errno) -> Result<(), Box<dyn Error>> {
    let action = SeccompAction::Errno(u32::try_from(errno as i32)?);
    let architecture = std::env::consts::ARCH.try_into()?;
    let filter = SeccompFilter::new(BTreeMap::from([(call, rules)]), SeccompAction::Allow, action, architecture)?;
    Ok(seccompiler::apply_filter(&BpfProgram::try_from(filter)?)?)
}
