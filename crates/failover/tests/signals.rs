//! Signals before, while and after a background run takes over from a hook. A process of its own: signals concern all
//! of it.

use std::process::Command;
use std::time::Duration;

use failover::sys::cancel::{Cancel, hold_back};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn main() {
    let myself = Pid::this();
    hold_back();
    kill(myself, Signal::SIGTERM).unwrap();
    assert!(child_signals("SigBlk") & TERM != 0, "what a hook starts is as safe as the hook");

    let cancel = Cancel::on_signals().unwrap();
    assert!(!cancel.is_set(), "what came before was not meant for this run");
    assert_eq!(child_signals("SigBlk") & TERM, 0, "a daemon that cannot be told to stop");
    assert_eq!(child_signals("SigIgn") & TERM, 0, "a daemon that cannot be told to stop");

    kill(myself, Signal::SIGTERM).unwrap();
    assert!(cancel.sleep(Duration::from_secs(60)).is_err(), "a signal ends a wait");
}

const TERM: u64 = 1 << (Signal::SIGTERM as u64 - 1);

/// A set of signals as a child has it.
fn child_signals(set: &str) -> u64 {
    let output = Command::new("grep").args([set, "/proc/self/status"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    u64::from_str_radix(text.split_whitespace().nth(1).unwrap(), 16).unwrap()
}
