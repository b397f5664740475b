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
    assert_eq!(add(&eth0, VIP, Some(16), None).unwrap(), Added::Added);
    assert_eq!(add(&eth0, VIP, Some(16), None).unwrap(), Added::AlreadyThere);
    assert_eq!(add(&eth0, VIP, Some(24), None).unwrap(), Added::AlreadyThere, "another prefix too");
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
    add(&eth0, VIP, Some(16), None).unwrap();
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

/// The addresses of the interface, in their order.
fn addresses(interface: &Interface) -> Vec<Ipv4Addr> {
    list(interface).unwrap().iter().map(|entry| entry.address).collect()
}

fn do_not_promote() {
    std::fs::write("/proc/sys/net/ipv4/conf/eth0/promote_secondaries", "0").unwrap();
}

#[test]
fn the_first_address_of_a_network_is_removed_alone() {
    let eth0 = network(&["172.16.0.99/16", "172.16.0.11/16", "172.16.0.12/16"]);
    do_not_promote();
    assert_eq!(remove(&eth0, VIP).unwrap(), Removed::Removed);
    assert_eq!(addresses(&eth0), [Ipv4Addr::new(172, 16, 0, 11), Ipv4Addr::new(172, 16, 0, 12)]);
}

#[test]
fn other_addresses_stay_also_where_a_service_manager_has_made_the_settings_read_only() {
    let eth0 = network(&["172.16.0.99/16", "172.16.0.11/16", "172.16.0.12/16"]);
    do_not_promote();
    // As ProtectKernelTunables= does.
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    for arguments in
        [&["--make-rprivate", "/"][..], &["--bind", "/proc/sys", "/proc/sys"], &["-oremount,bind,ro", "/proc/sys"]]
    {
        assert!(Command::new("mount").args(arguments).status().unwrap().success());
    }
    assert!(std::fs::write("/proc/sys/net/ipv4/conf/eth0/promote_secondaries", "1").is_err());
    assert_eq!(remove(&eth0, VIP).unwrap(), Removed::Removed);
    assert_eq!(addresses(&eth0), [Ipv4Addr::new(172, 16, 0, 11), Ipv4Addr::new(172, 16, 0, 12)]);
}

#[test]
fn the_first_address_of_a_network_expires_alone() {
    let eth0 = network(&["172.16.0.98/16"]);
    do_not_promote();
    add(&eth0, VIP, Some(16), Some(Duration::from_secs(1))).unwrap();
    // A restart of the network: the second address is the first one now.
    ip("addr del 172.16.0.98/16 dev eth0");
    ip("addr add 172.16.0.11/16 dev eth0");
    assert_eq!(addresses(&eth0), [VIP, Ipv4Addr::new(172, 16, 0, 11)]);
    while holds(&eth0, VIP).unwrap() {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(addresses(&eth0), [Ipv4Addr::new(172, 16, 0, 11)]);
}

#[test]
fn an_address_that_has_just_gone_is_not_brought_back() {
    let eth0 = network(&["172.16.0.11/16"]);
    let kernel = Rtnetlink::open().unwrap();
    // It was there when the addresses were listed.
    let late = [entry("172.16.0.99", 16), entry("172.16.0.99", 32)];
    for lifetime in [None, Some(Duration::from_secs(10))] {
        assert!(!kernel.keep(&eth0, VIP, &late, lifetime).unwrap());
        assert_eq!(addresses(&eth0), [Ipv4Addr::new(172, 16, 0, 11)]);
    }
}

#[test]
fn an_address_that_is_there_gets_the_new_lifetime() {
    let eth0 = network(&["172.16.0.11/16", "172.16.0.99/32"]);
    let lifetime = || {
        let output = Command::new("ip").args(["-o", "addr", "show", "to", "172.16.0.99"]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(!text.contains("autojoin"), "{text}");
        let mut words = text.split_whitespace().skip_while(|word| *word != "valid_lft");
        words.nth(1).unwrap().to_owned()
    };
    assert_eq!(lifetime(), "forever");
    for (time, expected) in [(Some(500), "500sec"), (Some(900), "900sec"), (None, "forever")] {
        let time = time.map(Duration::from_secs);
        assert_eq!(add(&eth0, VIP, Some(16), time).unwrap(), Added::AlreadyThere);
        assert_eq!(lifetime(), expected);
        assert!(keep(&eth0, VIP, time).unwrap());
        assert_eq!(lifetime(), expected);
    }
}

#[test]
fn a_missing_interface_is_named() {
    network(&[]);
    let error = interface("eth7").unwrap_err();
    assert_eq!(error.to_string(), "no interface eth7");
    let gone = Interface { name: "eth7".to_owned(), index: 77 };
    assert_eq!(remove(&gone, VIP).unwrap(), Removed::NotThere);
    let error = add(&gone, VIP, Some(16), None).unwrap_err();
    assert!(error.is_no_interface(), "{error:?}");
}

#[test]
fn hundreds_of_addresses_are_listed() {
    let eth0 = network(&[]);
    for n in 1..=1000_u32 {
        let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 0)) + n);
        assert_eq!(add(&eth0, address, Some(16), None).unwrap(), Added::Added);
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

#[test]
fn an_address_that_nobody_keeps_goes_by_itself() {
    let eth0 = network(&["172.16.0.11/16"]);
    let there = || holds(&eth0, VIP).unwrap();
    let lifetime = Some(Duration::from_secs(1));
    assert_eq!(add(&eth0, VIP, Some(16), lifetime).unwrap(), Added::Added);
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_secs(4) {
        assert!(keep(&eth0, VIP, lifetime).unwrap());
        std::thread::sleep(Duration::from_millis(200));
    }
    while there() {
        assert!(begun.elapsed() < Duration::from_secs(8), "the kernel looks once in a second or two");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(!keep(&eth0, VIP, lifetime).unwrap() && !there(), "it is not added again");
    add(&eth0, VIP, Some(16), lifetime).unwrap();
    assert!(keep(&eth0, VIP, None).unwrap());
    std::thread::sleep(Duration::from_secs(4));
    assert!(there(), "it stays");
}
