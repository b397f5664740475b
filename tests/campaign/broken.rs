//! Runs on a machine where something is broken that they need before their first step. A promotion still
//! removes the address, logs how it ended, keeps a record and calls `NOTIFY`; a demotion still stops its master.

use std::fs;

use lab::{Result, SingleMachine, log_lines};

use crate::test_machine::{Standby, TestMachine, promotion};

/// A call as a hook passes it on.
const CALL: &str =
    r#"{"kind":"promotion","interface":"eth0","vip":"172.16.0.99","config":null,"ticket":null,"ucarp":null}"#;
/// Writes down what it is called with.
const TELL: &str = "#!/bin/sh\necho \"$1 $MFS_ERROR\" >> /var/lib/lab/told\n";

/// Runs a promotion as a hook does, and looks for its end in the log, the records and what `NOTIFY` got.
fn fails_and_says_so(machine: &SingleMachine, why: &str) -> Result<()> {
    machine.must(&["install", "-d", "/var/lib/lab"])?;
    fs::write(machine.disk("/var/lib/lab/tell"), TELL).expect("a script");
    machine.must(&["chmod", "755", "/var/lib/lab/tell"])?;
    machine.must(&["sh", "-c", "echo NOTIFY = /var/lib/lab/tell >> /etc/mfs/mfspromote.cfg"])?;
    machine.address(true)?;
    let (done, _) = machine.run(&["mfs-promote", "--call", CALL])?;
    let log = machine.log();
    assert!(!done && log.contains(why), "{log}");
    assert!(log.contains(log_lines::PROMOTION_BEGUN) && log.contains(log_lines::UCARP_STOPPED), "{log}");
    let addresses = machine.must(&["ip", "addr", "show", "dev", "eth0"])?;
    assert!(!addresses.contains("172.16.0.99"), "{addresses}");
    let told = fs::read_to_string(machine.disk("/var/lib/lab/told")).expect("NOTIFY was called");
    assert!(told.starts_with("stop ") && told.contains(why), "{told}");
    let records = fs::read_dir(machine.state()).expect("records").flatten();
    let records: Vec<_> = records.filter_map(|record| fs::read_to_string(record.path()).ok()).collect();
    assert!(records.iter().any(|record| record.contains(why) && record.contains("\"stopped\"")), "{records:?}");
    Ok(())
}

#[test]
fn a_promotion_that_cannot_take_its_lock_ends_as_any_other() -> Result<()> {
    let machines = lab::SingleMachines::reserve()?;
    let test = TestMachine::start(&machines, Standby::Cold)?;
    test.machine().must(&["install", "-d", "-m", "777", "/run/moosefs-ucarp"])?;
    fails_and_says_so(test.machine(), "/run/moosefs-ucarp can be written by others than root")
}

#[test]
fn a_promotion_without_its_user_ends_as_any_other() -> Result<()> {
    let machines = lab::SingleMachines::reserve()?;
    let test = TestMachine::start(&machines, Standby::Cold)?;
    test.machine().must(&["sh", "-c", "echo WORKING_USER = absent >> /etc/mfs/mfsmaster.cfg"])?;
    fails_and_says_so(test.machine(), "there is no user absent")
}

#[test]
fn a_demotion_stops_its_master_whatever_else_is_broken() -> Result<()> {
    let breaks: [(&str, &[&str]); 6] = [
        ("the state folder", &["chmod", "777", "/var/lib/moosefs-ucarp"]),
        ("the folder of the lock", &["chmod", "777", "/run/moosefs-ucarp"]),
        ("the configuration", &["sh", "-c", "echo NONSENSE = 1 >> /etc/mfs/mfspromote.cfg"]),
        ("the master's configuration", &["sh", "-c", "echo MATOCL_LISTEN_PORT = x >> /etc/mfs/mfsmaster.cfg"]),
        ("the owner of the master's configuration", &["chmod", "666", "/etc/mfs/mfsmaster.cfg"]),
        ("the owner of the folder of all configurations", &["chown", "mfs", "/etc/mfs"]),
    ];
    for (broken, by) in breaks {
        let machines = lab::SingleMachines::reserve()?;
        let test = TestMachine::start(&machines, Standby::Cold)?;
        let machine = test.machine();
        machine.reset(&test.standby(), None)?;
        machine.address(true)?;
        let (done, output) = machine.run(&promotion())?;
        assert!(done && machine.runs("mfsmaster"), "{output}");
        machine.address(false)?;
        machine.must(by)?;
        machine.run(&["mfs-promote", "--call", &CALL.replace("promotion", "demotion")])?;
        let log = machine.log();
        assert!(!machine.runs("mfsmaster"), "{broken}: {log}");
        assert!(log.contains(log_lines::DEMOTION_ENDED), "{broken}: {log}");
    }
    Ok(())
}
