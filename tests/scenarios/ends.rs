//! No machine can serve, or ucarp does not react: every run ends, and no machine keeps an address on which it does not
//! serve.

use std::fs;

use lab::log_lines::{self, RUN_FOLDER};
use lab::{Cluster, LAST_RETRY, Result};
use nix::sys::signal::Signal;

use crate::{SOON, digest, nothing_lost};

/// A master that can tell its version, and ends at every start.
const BROKEN: &str = "#!/bin/sh\ncase \"$*\" in *-v*) echo 'version: 3.0.117-1 ; build: 1' ;; *) exit 1 ;; esac\n";
/// The same, but it takes its time to fail.
const SLOWLY_BROKEN: &str = "#!/bin/sh\ncase \"$*\" in *-v*) echo 'version: 3.0.117-1 ; build: 1' ;; \
                             *) while [ -e /run/hold ]; do sleep 0.1; done; exit 1 ;; esac\n";

/// How often a line that contains this was logged on a machine.
fn times(cluster: &Cluster, machine: &str, text: &str) -> usize {
    cluster.events().since(0).iter().filter(|event| event.machine == machine && event.text.contains(text)).count()
}

#[test]
fn no_machine_can_serve_and_everything_stays_for_the_repair() -> Result<()> {
    let mut builder = Cluster::build().masters(3);
    let real = fs::read("/usr/sbin/mfsmaster").expect("mfsmaster");
    for standby in ["m2", "m3"] {
        builder = builder.file_on(standby, "/usr/sbin/mfsmaster", BROKEN, 0o755);
        builder = builder.file_on(standby, "/usr/lib/real/mfsmaster", real.clone(), 0o755);
    }
    let cluster = builder.start()?;
    let load = cluster.client().keep_writing()?;
    load.wait_for_progress(LAST_RETRY)?;
    load.stop()?;
    for standby in ["m2", "m3"] {
        cluster.wait_for_metalogger_in_step(standby, SOON)?;
    }
    cluster.power_off("m1")?;
    for standby in ["m2", "m3"] {
        cluster.wait_for_log(standby, log_lines::CANNOT_START, SOON)?;
        cluster.wait_for_log(standby, log_lines::NO_MORE_ELECTIONS, SOON)?;
        cluster.wait_for_log(standby, log_lines::UCARP_STOPPED, SOON)?;
        assert!(cluster.daemon(standby, "ucarp").is_err() && !cluster.holds_vip(standby));
        assert_eq!(times(&cluster, standby, log_lines::PROMOTION_BEGUN), 1, "one try, and then an alarm");
        let names = cluster.files(standby)?;
        assert!(!names.iter().any(|name| name.starts_with(RUN_FOLDER) || name.starts_with("bak/")), "{names:?}");
    }
    let status = cluster.must("m3", &["mfs-promote", "--status"])?;
    assert!(status.contains(log_lines::OUTCOME_STOPPED), "{status}");

    // The administrator repairs one of them.
    cluster.must("m3", &["cp", "/usr/lib/real/mfsmaster", "/usr/sbin/mfsmaster"])?;
    cluster.start_ucarp("m3")?;
    cluster.wait_for_serving("m3", SOON)?;
    nothing_lost(&cluster, &load)
}

#[test]
fn machines_that_step_down_again_and_again_stop_with_an_alarm() -> Result<()> {
    let few = "FLAP_LIMIT = 2\n";
    let cluster = Cluster::build().masters(3).file("/etc/mfs/mfspromote.cfg", few, 0o644).start()?;
    for standby in ["m2", "m3"] {
        cluster.wait_for_metalogger_in_step(standby, SOON)?;
        cluster.wait_for_log(standby, log_lines::DEMOTION_ENDED, SOON)?;
    }
    // Another machine has the address, so each one that wins must step down.
    cluster.must("c1", &["ip", "address", "add", "172.16.0.99/16", "dev", "eth0"])?;
    let before = [digest(&cluster, "m2")?, digest(&cluster, "m3")?];
    cluster.power_off("m1")?;
    for standby in ["m2", "m3"] {
        cluster.wait_for_log(standby, log_lines::FLAPPING_2, SOON * 2)?;
        cluster.wait_for_log(standby, log_lines::UCARP_STOPPED, SOON)?;
        assert_eq!(times(&cluster, standby, log_lines::STEPPED_DOWN), 2, "{standby}");
        assert!(cluster.daemon(standby, "ucarp").is_err() && !cluster.holds_vip(standby));
        assert_eq!(cluster.master_pid(standby), None);
        cluster.daemon(standby, "mfsmetalogger")?;
    }
    assert_eq!([digest(&cluster, "m2")?, digest(&cluster, "m3")?], before, "no file was touched");
    Ok(())
}

/// A master that is given only a part of what was staged: it starts, listens, and answers with an old version.
const FORGETFUL: &str = "#!/bin/sh\ncase \"$*\" in *-a*start|*-a) : > /var/lib/mfs/changelog.0.mfs ;; esac\n\
                         exec /usr/lib/real/mfsmaster \"$@\"\n";

#[test]
fn a_master_that_serves_less_than_planned_does_not_serve_at_all() -> Result<()> {
    let real = fs::read("/usr/sbin/mfsmaster").expect("mfsmaster");
    let cluster = Cluster::build()
        .masters(3)
        .file_on("m2", "/usr/lib/real/mfsmaster", real, 0o755)
        .file_on("m2", "/usr/sbin/mfsmaster", FORGETFUL, 0o755)
        .start()?;
    let load = cluster.client().keep_writing()?;
    load.wait_for_progress(LAST_RETRY)?;
    load.stop()?;
    for standby in ["m2", "m3"] {
        cluster.wait_for_metalogger_in_step(standby, SOON)?;
    }
    cluster.power_off("m1")?;
    cluster.wait_for_log("m2", log_lines::SERVES_LESS, SOON)?;
    cluster.wait_for_log("m2", log_lines::UCARP_STOPPED, SOON)?;
    assert!(!cluster.holds_vip("m2") && cluster.master_pid("m2").is_none());
    cluster.wait_for_serving("m3", SOON)?;
    let verdict = load.verify(&cluster.crashes())?;
    assert_eq!((verdict.lost, verdict.failed), (vec![], vec![]));
    Ok(())
}

/// ucarp does nothing while a hook runs: a slow wrapper makes it neither send nor receive.
#[test]
fn a_wrapped_hook_is_reported_by_the_check() -> Result<()> {
    let wrapper = "#!/bin/sh\nsleep 10\nexec /usr/bin/vip-up \"$@\"\n";
    let cluster = Cluster::build().masters(2).file_on("m2", "/usr/bin/slow", wrapper, 0o755).start()?;
    cluster.wait_for_metalogger_in_step("m2", SOON)?;
    let check = || cluster.run("m2", &["mfs-promote", "--check", "--interface", "eth0", "--vip", "172.16.0.99"]);
    let before = String::from_utf8_lossy(&check()?.stdout).into_owned();
    assert!(!before.contains(log_lines::WRAPPED_HOOK), "{before}");
    let restart = "mapfile -d '' -t line < /proc/$(pidof ucarp)/cmdline; kill $(pidof ucarp); \
                   while pidof ucarp; do sleep 0.1; done; exec \"${line[@]/vip-up/slow}\"";
    cluster.must("m2", &["bash", "-c", restart])?;
    let checked = check()?;
    let after = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(checked.status.code() != Some(0) && after.contains(log_lines::WRAPPED_HOOK), "{after}");
    Ok(())
}

#[test]
fn ucarp_whose_link_is_down_is_killed_and_the_address_goes() -> Result<()> {
    let cluster = Cluster::build().masters(2).file_on("m2", "/usr/sbin/mfsmaster", SLOWLY_BROKEN, 0o755).start()?;
    cluster.wait_for_metalogger_in_step("m2", SOON)?;
    cluster.must("m2", &["touch", "/run/hold"])?;
    cluster.power_off("m1")?;
    cluster.wait_for_log("m2", log_lines::COMMITTED, SOON)?;
    assert!(cluster.files("m2")?.iter().any(|name| name.starts_with(RUN_FOLDER)), "it is there while a promotion runs");
    // It would step down by itself as soon as it sees that the link is down; it must get its signal before.
    cluster.kill("m2", "ucarp", Signal::SIGSTOP)?;
    cluster.cut("m2")?;
    let mark = cluster.mark();
    cluster.must("m2", &["rm", "/run/hold"])?;
    cluster.wait_for_log_since(mark, "m2", log_lines::ADDRESS_REMOVED, SOON)?;
    cluster.kill("m2", "ucarp", Signal::SIGCONT)?;
    cluster.wait_for_log("m2", log_lines::PROMOTION_FAILED, SOON)?;
    cluster.wait_for_log("m2", log_lines::UCARP_KILLED, SOON)?;
    cluster.wait_for_log("m2", log_lines::UCARP_STOPPED, SOON)?;
    assert!(!cluster.holds_vip("m2"), "our program removed the address");
    assert!(cluster.daemon("m2", "ucarp").is_err());
    cluster.heal("m2")?;
    assert!(!cluster.holds_vip("m2"));
    Ok(())
}

#[test]
fn the_interface_of_the_serving_machine_vanishes() -> Result<()> {
    let cluster = Cluster::build().masters(2).start()?;
    let load = cluster.client().keep_writing()?;
    cluster.wait_for_metalogger_in_step("m2", SOON)?;
    cluster.must("m1", &["ip", "link", "delete", "eth0"])?;
    cluster.wait_for_serving("m2", SOON)?;
    load.wait_for_progress(LAST_RETRY)?;
    // ucarp ends with status 0 and calls vip-down, whose demotion finds no address any more.
    cluster.expect("ucarp of m1 to end", SOON, || cluster.daemon("m1", "ucarp").is_err().then_some(()))?;
    cluster.wait_for_log("m1", log_lines::DEMOTED, SOON)?;
    assert_eq!((cluster.master_pid("m1"), cluster.serving()), (None, vec!["m2".to_owned()]));
    let verdict = load.verify(&cluster.crashes())?;
    assert_eq!((verdict.lost, verdict.failed), (vec![], vec![]));
    Ok(())
}
