//! `vip-up` as ucarp and as people run it, on the real kernel.

use std::os::unix::net::UnixDatagram;

use serde_json::json;

use crate::machine::{Machine, VIP, messages, newest_ticket, run, ticket_of, until};

const HOOK: &str = "vip-up";

#[test]
fn it_adds_the_address_and_starts_the_promotion() {
    let machine = Machine::new(HOOK);
    let output = machine.hook(&["eth0", "172.16.0.99"]);
    assert!(output.status.success(), "{}", messages(&output));
    assert_eq!(machine.vip_prefixes(), [16], "the prefix of the interface's own network");
    let call = machine.call();
    assert_eq!((&call["interface"], &call["vip"]), (&json!("eth0"), &json!("172.16.0.99")));
    assert_eq!((&call["kind"], &call["ucarp"], &call["config"]), (&json!("promotion"), &json!(null), &json!(null)));
    assert!(newest_ticket().starts_with("promotion-"), "{}", newest_ticket());
    assert_eq!(ticket_of(&call), newest_ticket());
    assert!(machine.promote_runs(), "the hook does not wait for it");
}

#[test]
fn a_second_run_changes_nothing_but_the_request() {
    let machine = Machine::new(HOOK);
    run("ip addr add 172.16.0.99/24 dev eth0");
    let output = machine.hook(&["eth0", "172.16.0.99"]);
    assert!(output.status.success(), "{}", messages(&output));
    assert_eq!(machine.vip_prefixes(), [24]);
    machine.promote_arguments();
}

#[test]
fn the_configuration_of_the_xparam_counts() {
    let machine = Machine::new(HOOK);
    std::fs::write("/etc/mfs/mfspromote-one.cfg", "PREFIX_LENGTH = 27\n").unwrap();
    let output = machine.hook(&["eth0", "172.16.0.99", "one"]);
    assert!(output.status.success(), "{}", messages(&output));
    assert_eq!(machine.vip_prefixes(), [27]);
    assert_eq!(machine.call()["config"], "/etc/mfs/mfspromote-one.cfg");
}

#[test]
fn nothing_leaks_into_the_background() {
    let machine = Machine::new(HOOK);
    let output = machine.hook_with_open_files();
    assert!(output.status.success(), "{}", messages(&output));
    machine.promote_arguments();
    // The fourth is the listing's own.
    assert_eq!(machine.read("fds"), "0\n1\n2\n3\n");
    assert_eq!(machine.read("env"), "LANG\nPATH\n");
    assert_eq!(machine.read("cwd"), "/\n");
}

#[test]
fn without_the_interface_it_says_so() {
    let machine = Machine::new(HOOK);
    let output = machine.hook(&["eth7", "172.16.0.99"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(messages(&output).contains("vip-up: error: no interface eth7"), "{}", messages(&output));
    assert!(!machine.path("args").exists());
}

#[test]
fn a_broken_configuration_is_named_and_nothing_is_done() {
    let machine = Machine::new(HOOK);
    std::fs::write("/etc/mfs/mfspromote.cfg", "PREFIX_LENGHT = 16\n").unwrap();
    let output = machine.hook(&["eth0", "172.16.0.99"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(messages(&output).contains("PREFIX_LENGHT"), "{}", messages(&output));
    assert!(machine.vip_prefixes().is_empty());
    assert!(!machine.path("args").exists());
}

#[test]
fn what_cannot_be_started_leaves_no_address() {
    let machine = Machine::new(HOOK);
    machine.break_promote();
    let output = machine.hook(&["eth0", "172.16.0.99"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(messages(&output).contains("cannot start"), "{}", messages(&output));
    assert!(machine.vip_prefixes().is_empty());
    run("ip addr add 172.16.0.99/16 dev eth0");
    assert_eq!(machine.hook(&["eth0", "172.16.0.99"]).status.code(), Some(1));
    assert_eq!(machine.vip_prefixes(), [16], "by hand, an address that was there before stays");
}

#[test]
fn a_wrong_command_line_is_a_usage_error() {
    let machine = Machine::new(HOOK);
    let output = machine.hook(&["eth0", "172.16.0.999"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(messages(&output).contains("172.16.0.999"), "{}", messages(&output));
    let help = machine.hook(&["--help"]);
    assert!(help.status.success());
    assert!(String::from_utf8_lossy(&help.stdout).contains("becomes MASTER"));
}

#[test]
fn messages_go_to_syslog() {
    let machine = Machine::new(HOOK);
    // A /dev of the test's own, in which it is the syslog daemon.
    let null = machine.path("null");
    std::fs::write(&null, "").unwrap();
    run(&format!("mount --bind /dev/null {}", null.display()));
    run("mount -t tmpfs none /dev");
    std::fs::write("/dev/null", "").unwrap();
    run(&format!("mount --bind {} /dev/null", null.display()));
    let daemon = UnixDatagram::bind("/dev/log").unwrap();
    let output = machine.hook(&["eth7", "172.16.0.99"]);
    run(&format!("umount {}", null.display()));
    assert_eq!((output.status.code(), messages(&output).as_str()), (Some(1), ""));
    let mut buffer = [0; 1000];
    let length = daemon.recv(&mut buffer).unwrap();
    let message = String::from_utf8_lossy(&buffer[..length]);
    assert!(message.starts_with("<27>vip-up[") && message.ends_with("]: no interface eth7"), "{message}");
}

#[test]
fn the_calling_ucarp_is_named() {
    let machine = Machine::new(HOOK);
    let mut ucarp = machine.ucarp("-u", &["-z", "-k", "10"]);
    let call = machine.call();
    assert_eq!(call["ucarp"]["pid"], ucarp.0.id());
    let options = &call["ucarp"]["options"];
    assert_eq!((&options["vip"], &options["advskew"]), (&json!(VIP), &json!(10)));
    assert_eq!(options["shutdown_script"], true);
    assert_eq!(machine.vip_prefixes(), [16]);
    assert_eq!(ucarp.0.try_wait().unwrap(), None, "ucarp goes on");
}

/// Never "address held, nothing serving": with and without `-z`, and whoever added the address.
#[test]
fn ucarp_steps_down_when_nothing_can_be_started() {
    for more in [&["-z"][..], &[]] {
        let machine = Machine::new(HOOK);
        machine.break_promote();
        run("ip addr add 172.16.0.99/24 dev eth0");
        let mut ucarp = machine.ucarp("-u", more);
        assert!(ucarp.ends(), "ucarp {more:?} must step down");
        until("the address is gone", || machine.vip_prefixes().is_empty());
    }
}

#[test]
fn ucarp_steps_down_on_a_broken_configuration() {
    let machine = Machine::new(HOOK);
    std::fs::write("/etc/mfs/mfspromote.cfg", "garbage\n").unwrap();
    let mut ucarp = machine.ucarp("-u", &["-z"]);
    assert!(ucarp.ends());
    assert!(machine.vip_prefixes().is_empty());
    assert!(!machine.path("args").exists());
}
