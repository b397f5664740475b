//! A kernel that refuses system calls, and disks of a size, for the unit tests.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use nix::sched::CloneFlags;
use rustix::io::Errno;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

/// Runs `work` in a thread in which these system calls fail. `renameat2` fails with flags only, as on the file systems that
/// have none: the plain rename is another call on many machines.
pub(crate) fn refusing(calls: &[(nix::libc::c_long, Errno)], work: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let filtered = scope.spawn(|| {
            for (call, errno) in calls {
                let rules = match *call {
                    nix::libc::SYS_renameat2 => {
                        let flags = SeccompCondition::new(4, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, 0).unwrap();
                        vec![SeccompRule::new(vec![flags]).unwrap()]
                    }
                    _ => Vec::new(),
                };
                let refuse = SeccompAction::Errno(errno.raw_os_error().unsigned_abs());
                let filter = SeccompFilter::new(
                    BTreeMap::from([(*call, rules)]),
                    SeccompAction::Allow,
                    refuse,
                    std::env::consts::ARCH.try_into().unwrap(),
                );
                seccompiler::apply_filter(&BpfProgram::try_from(filter.unwrap()).unwrap()).unwrap();
            }
            work();
        });
        if let Err(panic) = filtered.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Runs `work` in a thread that has a file system of this many megabytes to itself.
pub(crate) fn small_disk(megabytes: u32, work: impl FnOnce(&Path) + Send) {
    let dir = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        let mounted = scope.spawn(|| {
            nix::sched::unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).unwrap();
            let mount = |arguments: &[&str]| {
                assert!(Command::new("mount").args(arguments).status().unwrap().success(), "{arguments:?}");
            };
            mount(&["--make-rprivate", "/"]);
            let size = format!("size={megabytes}m,mode=700");
            mount(&["-t", "tmpfs", "-o", &size, "tmpfs", dir.path().to_str().unwrap()]);
            work(dir.path());
        });
        if let Err(panic) = mounted.join() {
            std::panic::resume_unwind(panic);
        }
    });
}
