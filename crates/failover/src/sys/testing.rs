//! A kernel that refuses system calls, disks of a size, and a `/run` and a network of a test's own, for the unit tests.

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
            mount_tmpfs(dir.path(), &format!("size={megabytes}m,mode=700"));
            work(dir.path());
        });
        if let Err(panic) = mounted.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Gives the calling thread, and what it starts, an empty `/run`: what an administrator's run has left on the machine is no
/// part of a test, and a test leaves nothing there.
pub(crate) fn own_run() {
    mount_tmpfs(Path::new("/run"), "mode=755");
}

/// Gives the calling thread, and what it starts, a network that has nothing but a loopback: a port that was closed there is
/// not taken by another test.
pub(crate) fn own_loopback() {
    nix::sched::unshare(CloneFlags::CLONE_NEWNET).expect("these tests run as root");
    assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
}

fn mount_tmpfs(path: &Path, options: &str) {
    nix::sched::unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).expect("these tests run as root");
    let mount = |arguments: &[&str]| {
        assert!(Command::new("mount").args(arguments).status().unwrap().success(), "{arguments:?}");
    };
    mount(&["--make-rprivate", "/"]);
    mount(&["-t", "tmpfs", "-o", options, "tmpfs", path.to_str().unwrap()]);
}
