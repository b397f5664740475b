//! `vip-down` as ucarp and as people run it, on the real kernel.

#[path = "../../vip-up/tests/support/mod.rs"]
mod support;

use failover::ucarp::Caller;
use support::{Machine, messages, newest_ticket, run};

const HOOK: &str = env!("CARGO_BIN_EXE_vip-down");

#[test]
fn it_removes_the_address_and_hands_over() {
    let machine = Machine::new(HOOK);
    run("ip addr add 172.16.0.99/16 dev eth0");
    let output = machine.hook(&["eth0", "172.16.0.99"]);
    assert!(output.status.success(), "{}", messages(&output));
    assert!(machine.vip_prefixes().is_empty());
    let ticket = format!("--ticket={}", newest_ticket());
    assert!(ticket.starts_with("--ticket=demotion-"), "{ticket}");
    assert_eq!(machine.promote_arguments(), ["--demote", "--interface=eth0", "--vip=172.16.0.99", &ticket]);
    assert!(machine.promote().is_alive(), "the hook does not wait for it");
}

#[test]
fn an_address_with_an_odd_prefix_goes_too() {
    let machine = Machine::new(HOOK);
    run("ip addr add 172.16.0.99/27 dev eth0");
    run("ip addr add 172.16.0.99/32 dev eth0");
    assert!(machine.hook(&["eth0", "172.16.0.99"]).status.success());
    assert!(machine.vip_prefixes().is_empty());
}

#[test]
fn an_absent_address_or_interface_is_fine() {
    let machine = Machine::new(HOOK);
    let output = machine.hook(&["eth0", "172.16.0.99"]);
    assert!(output.status.success(), "{}", messages(&output));
    machine.promote_arguments();
    run("ip link del eth0");
    let output = machine.hook(&["eth0", "172.16.0.99"]);
    assert!(output.status.success(), "{}", messages(&output));
    assert!(messages(&output).contains("eth0 is gone"), "{}", messages(&output));
    machine.promote_arguments();
}

#[test]
fn a_broken_or_missing_configuration_does_not_matter() {
    let machine = Machine::new(HOOK);
    run("ip addr add 172.16.0.99/16 dev eth0");
    std::fs::write("/etc/mfs/mfspromote.cfg", "garbage\n").unwrap();
    assert!(machine.hook(&["eth0", "172.16.0.99"]).status.success());
    assert!(machine.vip_prefixes().is_empty());
    machine.promote_arguments();
    let output = machine.hook(&["eth0", "172.16.0.99", "absent"]);
    assert!(output.status.success(), "{}", messages(&output));
    let arguments = machine.promote_arguments();
    assert!(arguments.contains(&"--config=/etc/mfs/mfspromote-absent.cfg".to_owned()), "{arguments:?}");
}

#[test]
fn it_goes_on_past_errors_and_reports_them_all() {
    use std::os::unix::fs::PermissionsExt;

    let machine = Machine::new(HOOK);
    run("ip addr add 172.16.0.99/16 dev eth0");
    std::fs::create_dir("/run/moosefs-ucarp").unwrap();
    std::fs::set_permissions("/run/moosefs-ucarp", std::fs::Permissions::from_mode(0o777)).unwrap();
    let output = machine.hook(&["eth0", "172.16.0.99", "../evil"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(machine.vip_prefixes().is_empty());
    let said = messages(&output);
    assert!(said.contains("/run/moosefs-ucarp is not only root's") && said.contains("../evil"), "{said}");
    assert_eq!(machine.promote_arguments(), ["--demote", "--interface=eth0", "--vip=172.16.0.99"]);

    machine.break_promote();
    let output = machine.hook(&["eth0", "172.16.0.99"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(messages(&output).contains("cannot start"), "{}", messages(&output));
}

#[test]
fn nothing_leaks_into_the_background() {
    let machine = Machine::new(HOOK);
    assert!(machine.hook_with_open_files().status.success());
    machine.promote_arguments();
    // The fourth is the listing's own.
    assert_eq!(machine.read("fds"), "0\n1\n2\n3\n");
    assert_eq!(machine.read("env"), "LANG\nPATH\n");
    assert_eq!(machine.read("cwd"), "/\n");
}

#[test]
fn at_its_start_ucarp_runs_it_and_is_handed_on() {
    let machine = Machine::new(HOOK);
    run("ip addr add 172.16.0.99/16 dev eth0");
    let ucarp = machine.ucarp("-d", &["-r", "60"]);
    let arguments = machine.promote_arguments();
    let word = arguments.iter().find_map(|word| word.strip_prefix("--hook=")).expect("named by vip-down");
    assert_eq!(word.parse::<Caller>().unwrap().pid, ucarp.0.id());
    assert!(machine.vip_prefixes().is_empty());
}
