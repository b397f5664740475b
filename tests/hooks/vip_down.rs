//! `vip-down` as ucarp and as people run it, on the real kernel.

use serde_json::json;

use crate::machine::{Machine, messages, newest_ticket, run, ticket_of};

const HOOK: &str = "vip-down";

#[test]
fn it_removes_the_address_and_starts_the_demotion() {
    let machine = Machine::new(HOOK);
    run("ip addr add 172.16.0.99/16 dev eth0");
    let output = machine.hook(&["eth0", "172.16.0.99"]);
    assert!(output.status.success(), "{}", messages(&output));
    assert!(machine.vip_prefixes().is_empty());
    let call = machine.call();
    assert_eq!((&call["interface"], &call["vip"]), (&json!("eth0"), &json!("172.16.0.99")));
    assert_eq!((&call["kind"], &call["ucarp"]), (&json!("demotion"), &json!(null)));
    assert!(newest_ticket().starts_with("demotion-"), "{}", newest_ticket());
    assert_eq!(ticket_of(&call), newest_ticket());
    assert!(machine.promote_runs(), "the hook does not wait for it");
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
    assert_eq!(machine.call()["config"], "/etc/mfs/mfspromote-absent.cfg");
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
    assert!(said.contains("/run/moosefs-ucarp can be written by others") && said.contains("../evil"), "{said}");
    let call = machine.call();
    assert_eq!((&call["kind"], &call["ticket"], &call["config"]), (&json!("demotion"), &json!(null), &json!(null)));

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
fn at_its_start_ucarp_runs_it_and_is_named() {
    let machine = Machine::new(HOOK);
    run("ip addr add 172.16.0.99/16 dev eth0");
    let ucarp = machine.ucarp("-d", &["-r", "60"]);
    assert_eq!(machine.call()["ucarp"]["pid"], ucarp.0.id());
    assert!(machine.vip_prefixes().is_empty());
}
