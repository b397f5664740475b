//! Against the real kernel, each test in a network namespace of its own.

use super::*;
use nix::sched::{CloneFlags, unshare};
use proptest::prelude::*;
use std::process::Command;

const VIP: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 99);

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

/// A fresh namespace for this thread, with one interface `eth0` that is up and has `addresses`.
fn network(addresses: &[&str]) -> Interface {
    unshare(CloneFlags::CLONE_NEWNET).expect("these tests run as root");
    ip("link add eth0 type veth peer name far");
    ip("link set eth0 up");
    ip("link set far up");
    for address in addresses {
        ip(&format!("addr add {address} dev eth0"));
    }
    interface("eth0").unwrap()
}

fn entry(address: &str, prefix: u8) -> InterfaceAddress {
    InterfaceAddress { address: address.parse().unwrap(), prefix, secondary: false }
}

#[test]
fn adding_twice_is_adding_once() {
    let eth0 = network(&["172.16.0.11/16"]);
    assert!(!holds(&eth0, VIP).unwrap());
    assert_eq!(add(&eth0, VIP, Some(16)).unwrap(), Added::Added);
    assert_eq!(add(&eth0, VIP, Some(16)).unwrap(), Added::AlreadyThere);
    assert_eq!(add(&eth0, VIP, Some(24)).unwrap(), Added::AlreadyThere, "another prefix too");
    let list = list(&eth0).unwrap();
    assert_eq!(list.len(), 2);
    assert!(list.contains(&InterfaceAddress { address: VIP, prefix: 16, secondary: true }));
    assert!(own_addresses().unwrap().contains(&VIP));
}

#[test]
fn the_wait_ends_at_a_change_and_not_before() {
    let eth0 = network(&["172.16.0.11/16"]);
    let (changes, cancel) = (Changes::listen().unwrap(), Cancel::new());
    let waited = |time| {
        let begun = std::time::Instant::now();
        changes.wait(Duration::from_millis(time), &cancel);
        begun.elapsed()
    };
    assert!(waited(50) >= Duration::from_millis(50), "nothing has changed");
    add(&eth0, VIP, Some(16)).unwrap();
    assert!(waited(60_000) < Duration::from_secs(30));
    remove(&eth0, VIP).unwrap();
    assert!(waited(60_000) < Duration::from_secs(30));
    assert!(waited(50) >= Duration::from_millis(50), "each change ends one wait");
    cancel.cancel();
    assert!(waited(60_000) < Duration::from_secs(30));
}

#[test]
fn removing_what_is_absent_is_fine() {
    let eth0 = network(&["172.16.0.11/16"]);
    assert_eq!(remove(&eth0, VIP).unwrap(), Removed::NotThere);
}

#[test]
fn every_entry_is_removed_with_any_prefix() {
    let eth0 = network(&["172.16.0.11/16", "172.16.0.99/16", "172.16.0.99/27", "172.16.0.99/32"]);
    assert_eq!(remove(&eth0, VIP).unwrap(), Removed::Removed);
    assert!(!holds(&eth0, VIP).unwrap());
    assert_eq!(list(&eth0).unwrap(), [entry("172.16.0.11", 16)]);
}

#[test]
fn an_entry_whose_label_is_not_utf8_is_seen_and_removed() {
    use std::os::unix::ffi::OsStrExt as _;
    let eth0 = network(&["172.16.0.11/16"]);
    let label = std::ffi::OsStr::from_bytes(b"eth0:\xff");
    let status = Command::new("ip").args(["addr", "add", "172.16.0.99/16", "dev", "eth0", "label"]).arg(label).status();
    assert!(status.unwrap().success());
    assert!(holds(&eth0, VIP).unwrap());
    assert_eq!(remove(&eth0, VIP).unwrap(), Removed::Removed);
    assert_eq!(list(&eth0).unwrap(), [entry("172.16.0.11", 16)]);
}

#[test]
fn the_first_address_of_a_network_is_removed_alone() {
    for promotes in ["0", "1"] {
        let eth0 = network(&["172.16.0.99/16", "172.16.0.11/16", "172.16.0.12/16"]);
        let setting = "/proc/sys/net/ipv4/conf/eth0/promote_secondaries";
        std::fs::write(setting, promotes).unwrap();
        assert_eq!(remove(&eth0, VIP).unwrap(), Removed::Removed);
        let left: Vec<_> = list(&eth0).unwrap().iter().map(|entry| entry.address).collect();
        assert_eq!(left, [Ipv4Addr::new(172, 16, 0, 11), Ipv4Addr::new(172, 16, 0, 12)]);
        assert_eq!(std::fs::read_to_string(setting).unwrap().trim(), promotes);
    }
}

#[test]
fn a_missing_interface_is_named() {
    network(&[]);
    let error = interface("eth7").unwrap_err();
    assert_eq!(error.to_string(), "no interface eth7");
    let gone = Interface { name: "eth7".to_owned(), index: 77 };
    assert_eq!(remove(&gone, VIP).unwrap(), Removed::NotThere);
    let error = add(&gone, VIP, Some(16)).unwrap_err();
    assert!(error.is_no_interface(), "{error:?}");
}

#[test]
fn hundreds_of_addresses_are_listed() {
    let eth0 = network(&[]);
    for n in 1..=1000_u32 {
        let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 0)) + n);
        assert_eq!(add(&eth0, address, Some(16)).unwrap(), Added::Added);
    }
    assert_eq!(list(&eth0).unwrap().len(), 1000);
}

#[test]
fn the_prefix_is_the_configured_one_or_that_of_the_narrowest_own_network() {
    let own = [entry("172.16.0.11", 16), entry("172.16.0.12", 24), entry("10.0.0.1", 8), entry("172.16.0.99", 30)];
    assert_eq!(prefix_for(&own, VIP, None), 24);
    assert_eq!(prefix_for(&own, VIP, Some(20)), 20);
    assert_eq!(prefix_for(&own, Ipv4Addr::new(192, 168, 0, 1), None), 32);
    assert_eq!(prefix_for(&[], VIP, None), 32);
    assert_eq!(prefix_for(&[entry("1.2.3.4", 0)], VIP, None), 0);
}

#[test]
fn a_dump_that_changed_while_it_was_read_does_not_count() {
    use netlink_packet_core::NLMSG_DONE;
    let dump = |interrupted, code: i32| {
        let mut message = AddressMessage::default();
        message.header = AddressHeader { family: AddressFamily::Inet, prefix_len: 16, index: 7, ..Default::default() };
        message.attributes = vec![AddressAttribute::Local(VIP.into())];
        let first = request(RTM_NEWADDR, interrupted, &bytes(&message));
        let mut parts = [first, request(NLMSG_DONE, 0, &code.to_ne_bytes())].into_iter();
        read_dump(|| Ok(parts.next().unwrap()))
    };
    assert_eq!(dump(0, 0), Ok(Some(vec![(7, entry("172.16.0.99", 16))])));
    assert_eq!(dump(NLM_F_DUMP_INTR, 0), Ok(None));
    assert_eq!(dump(0, -105), Err(Errno::ENOBUFS), "the kernel gave up");
}

proptest! {
    #[test]
    fn all_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
        let _ = read_address(&bytes);
        for message in messages(&bytes).into_iter().chain(messages(&request(RTM_NEWADDR, 0, &bytes))) {
            let _ = read_address(message.payload());
            let _ = netlink::result(&message);
        }
    }
}
