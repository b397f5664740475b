//! What hangs is ended, after a line that says what it was doing: an endless restore, a disk that does not answer, a daemon
//! that is stopped by a signal.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lab::{Cluster, LAST_RETRY, Result, log_lines};
use nix::sys::signal::Signal;

use crate::SOON;
use crate::nothing_lost;
use crate::wait_for_whole_copy;

/// Everything but a restore, which never ends and needs a whole processor.
const BUSY_RESTORE: &str =
    "#!/bin/sh\ncase \"$*\" in *restore) while :; do :; done ;; *) exec /usr/lib/real/mfsmaster \"$@\" ;; esac\n";

/// Takes the lock of a master, listens, and answers nothing.
const MUTE: &str = "#!/usr/bin/python3
import fcntl, os, socket, sys, time
if '-v' in sys.argv:
    sys.exit(print('version: 3.0.117-1 ; build: 1'))
ready, listening = os.pipe()
if os.fork():
    sys.exit(0 if os.read(ready, 1) else 1)
os.setsid()
lock = open('/var/lib/mfs/.mfsmaster.lock', 'w')
fcntl.lockf(lock, fcntl.LOCK_EX)
door = socket.create_server(('', 9421))
os.write(listening, b'!')
time.sleep(600)
";

/// A data folder whose disk does not answer, until this value goes: writing waits, and no signal ends it.
struct Frozen<'a> {
    cluster: &'a Cluster,
    /// Thaws it if this test is killed.
    rescue: Child,
}

impl<'a> Frozen<'a> {
    fn new(cluster: &'a Cluster) -> Result<Self> {
        let data = cluster.data("m2")?;
        let script = "exec 3< \"$0\"; echo; sleep 300; fsfreeze -u /proc/self/fd/3";
        let mut rescue = Command::new("setsid");
        rescue.args(["bash", "-c", script]).arg(data).stdout(Stdio::piped());
        let mut frozen = Self { cluster, rescue: rescue.spawn().expect("setsid") };
        std::io::Read::read_exact(frozen.rescue.stdout.as_mut().expect("its output"), &mut [0]).expect("it is ready");
        cluster.must("m2", &["fsfreeze", "--freeze", "/var/lib/mfs"])?;
        Ok(frozen)
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        let thawed = self.cluster.must("m2", &["fsfreeze", "--unfreeze", "/var/lib/mfs"]);
        if thawed.is_ok() {
            // Its sleep goes with it.
            let group = nix::unistd::Pid::from_raw(i32::try_from(self.rescue.id()).expect("an id"));
            let _ = nix::sys::signal::killpg(group, Signal::SIGKILL);
            let _ = self.rescue.wait();
        }
    }
}

#[test]
fn what_hangs_is_ended_and_the_address_does_not_stay() -> Result<()> {
    let real = std::fs::read("/usr/sbin/mfsmaster").expect("mfsmaster");
    let cluster = Cluster::build()
        .masters(2)
        .small_disk("m2", 64)
        .file("/etc/mfs/mfspromote.cfg", "START_TIMEOUT = 4\nSTOP_TIMEOUT = 2\n", 0o644)
        .file_on("m2", "/etc/mfs/quick.cfg", "START_TIMEOUT = 0.2\n", 0o644)
        .file_on("m2", "/usr/lib/real/mfsmaster", real, 0o755)
        .file_on("m2", "/usr/sbin/mfsmaster", BUSY_RESTORE, 0o755)
        .start()?;
    let load = cluster.client().keep_writing()?;
    load.wait_for_progress(LAST_RETRY)?;
    load.stop()?;
    wait_for_whole_copy(&cluster, "m2")?;

    let rehearsed = cluster.run("m2", &["mfs-promote", "--rehearse", "--config", "/etc/mfs/quick.cfg"])?;
    let text = String::from_utf8_lossy(&rehearsed.stderr);
    let said = regex_lite::Regex::new(log_lines::RESTORE_TIMED_OUT)?;
    assert!(rehearsed.status.code() == Some(1) && said.is_match(&text), "{text}");
    assert!(!cluster.files("m2")?.iter().any(|name| name.starts_with(log_lines::REHEARSAL_FOLDER)));

    let mark = cluster.mark();
    let frozen = Frozen::new(&cluster)?;
    cluster.power_off("m1")?;
    cluster.wait_for_log_since(mark, "m2", log_lines::STEP_TIMED_OUT, SOON)?;
    cluster.wait_for_log_since(mark, "m2", log_lines::STEP_DOES_NOT_STOP, SOON)?;
    cluster.expect("m2 to give the address up", SOON, || (!cluster.holds_vip("m2")).then_some(()))?;
    cluster.expect("ucarp of m2 to end", SOON, || cluster.daemon("m2", "ucarp").is_err().then_some(()))?;
    std::thread::sleep(Duration::from_secs(1));
    assert!(!cluster.holds_vip("m2"));
    drop(frozen);
    cluster.wait_for_log_since(mark, "m2", log_lines::NOTHING_TO_DEMOTE, SOON)?;

    // The disk answers again; now it is the metalogger that does nothing.
    cluster.daemon("m2", "mfsmetalogger")?;
    cluster.kill("m2", "mfsmetalogger", Signal::SIGSTOP)?;
    let mark = cluster.mark();
    cluster.start_ucarp("m2")?;
    cluster.wait_for_log_since(mark, "m2", log_lines::METALOGGER_KILLED, SOON)?;
    // Another machine may have what it had not written: m2 steps down once.
    cluster.wait_for_log_since(mark, "m2", log_lines::MAY_LACK_CHANGES, SOON)?;
    cluster.wait_for_log_since(mark, "m2", log_lines::LAST_RESORT_UNKNOWN, SOON)?;
    cluster.wait_for_log_since(mark, "m2", log_lines::SERVING, SOON)?;
    nothing_lost(&cluster, &load)
}

#[test]
fn a_master_that_never_answers_does_not_keep_the_address() -> Result<()> {
    let cluster = Cluster::build()
        .masters(3)
        .file("/etc/mfs/mfspromote.cfg", "START_TIMEOUT = 4\nSTOP_TIMEOUT = 2\n", 0o644)
        .file_on("m2", "/usr/sbin/mfsmaster", MUTE, 0o755)
        .start()?;
    let load = cluster.client().keep_writing()?;
    for standby in ["m2", "m3"] {
        cluster.wait_for_metalogger_in_step(standby, SOON)?;
    }
    let mark = cluster.mark();
    cluster.power_off("m1")?;
    cluster.wait_for_log_since(mark, "m2", log_lines::DOES_NOT_ANSWER, SOON)?;
    cluster.wait_for_log_since(mark, "m2", log_lines::UCARP_STOPPED, SOON)?;
    let log = cluster.events().since(mark);
    assert!(log.iter().any(|line| line.machine == "m2" && line.text.contains(log_lines::ROLLED_BACK)));
    cluster.wait_for_serving("m3", SOON)?;
    load.wait_for_progress(LAST_RETRY)?;
    assert_eq!((cluster.serving(), cluster.holds_vip("m2")), (vec!["m3".to_owned()], false));
    nothing_lost(&cluster, &load)
}
