//! `vip-down` as ucarp and as people run it, on the real kernel.

use std::io::Read as _;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::machine::{Machine, Running, messages, newest_ticket, run, ticket_of};

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

/// A run in the background, started by a call of `kind` for an address.
fn at_work(machine: &Machine, kind: &str, vip: &str) -> Running {
    std::fs::create_dir_all(machine.path("runs")).unwrap();
    let program = machine.path("runs/mfs-promote");
    run(&format!("install -m 755 /bin/sh {}", program.display()));
    let call = json!({ "kind": kind, "interface": "eth0", "vip": vip, "config": null, "ticket": null, "ucarp": null });
    let script = "echo ready; while :; do sleep 0.05; done";
    let mut command = Command::new(program);
    command.args(["-c", script, &format!("--call={call}")]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    Running(child)
}

#[test]
fn a_run_that_serves_is_told_to_end_where_the_call_cannot_be_written() {
    let full = "mount -o remount,size=64k /run && ! dd if=/dev/zero of=/run/full bs=4k 2>/dev/null";
    for (run_is, refusal) in [(full, "No space left"), ("mount -o remount,ro /run", "Read-only file system")] {
        for known in [false, true] {
            let machine = Machine::new(HOOK);
            if known {
                // The folder is there.
                assert!(machine.hook(&["eth0", "172.16.0.99"]).status.success());
                machine.promote_arguments();
            }
            run("ip addr add 172.16.0.99/16 dev eth0");
            let mut serving = at_work(&machine, "promotion", "172.16.0.99");
            let mut others = [("promotion", "172.16.0.98"), ("demotion", "172.16.0.99")]
                .map(|(kind, vip)| at_work(&machine, kind, vip));
            assert!(Command::new("sh").args(["-c", run_is]).status().unwrap().success(), "{run_is}");
            let output = machine.hook(&["eth0", "172.16.0.99"]);
            let said = messages(&output);
            assert!(output.status.code() == Some(1) && said.contains(refusal), "{said}");
            assert!(machine.vip_prefixes().is_empty() && serving.ends(), "{said}");
            assert!(others.iter_mut().all(|other| other.0.try_wait().unwrap().is_none()), "{said}");
            assert_eq!(machine.call()["kind"], json!("demotion"));
        }
    }
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
