//! The batch byte by byte, and the kernel's reading of it, in a network namespace of its own.

use std::net::Ipv4Addr;
use std::process::Command;

use nix::sched::{CloneFlags, unshare};

use super::*;

const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(172, 16, 0, 99), 9421);

/// The kernel's rules in nft's language, one line each.
fn ruleset() -> Vec<String> {
    let output = Command::new("nft").args(["list", "ruleset"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(|line| line.trim().to_owned()).collect()
}

#[test]
fn the_kernel_holds_the_rule_until_the_connection_is_dropped() {
    unshare(CloneFlags::CLONE_NEWNET).expect("these tests run as root");
    for (segments, flags) in [(Segments::Resets, "tcp flags rst / rst,ack "), (Segments::All, "")] {
        let held = hold_segments(segments, SERVER).unwrap();
        let rules = ruleset();
        assert!(rules[0].starts_with(&format!("table ip moosefs-ucarp-{} {{", std::process::id())), "{rules:?}");
        let expected = [
            "flags owner",
            "",
            "chain held {",
            "type filter hook output priority filter; policy accept;",
            &format!("ip saddr 172.16.0.99 tcp sport 9421 {flags}drop"),
            "}",
            "}",
        ];
        assert_eq!(rules[1..], expected);
        drop(held);
        assert_eq!(ruleset(), [""; 0]);
    }
}

#[test]
fn a_refusal_of_the_kernel_is_an_error() {
    unshare(CloneFlags::CLONE_NEWNET).expect("these tests run as root");
    let first = hold_segments(Segments::All, SERVER).unwrap();
    // The table has the name of the process, and another connection owns it.
    assert_eq!(hold_segments(Segments::All, SERVER).unwrap_err(), nix::errno::Errno::EPERM);
    drop(first);
    hold_segments(Segments::All, SERVER).unwrap();
}

/// The bytes of a listing in hexadecimal numbers, without its `//` comments.
fn listed(listing: &str) -> Vec<u8> {
    let digits: String = listing.lines().flat_map(|line| line.split("//").next().unwrap().split_whitespace()).collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

/// Each message begins with its length, kind, flags, sequence number and port, and a `struct nfgenmsg`; each attribute
/// with its length and kind. These bytes made the rule that the test above reads back.
#[cfg(target_endian = "little")]
#[test]
fn the_batch_is_byte_for_byte_the_one_that_the_kernel_was_seen_to_accept() {
    let ends = [
        (BATCH_BEGIN, "14000000 10000100 00000000 00000000 0000000a"),
        (BATCH_END, "14000000 11000100 00000000 00000000 0000000a"),
    ];
    for (kind, expected) in ends {
        assert_eq!(border(kind), listed(expected));
    }
    let table = "
        24000000 000a0504 00000000 00000000 02000000
        06000100 54000000                               // name T
        08000200 00000002                               // flags owner";
    let chain = "
        50000000 030a0504 00000000 00000000 02000000
        06000100 54000000                               // table T
        09000300 68656c64 00000000                      // name held
        14000480 08000100 00000003 08000200 00000000    // hook output, priority 0
        08000500 00000001                               // policy accept
        0b000700 66696c74 65720000                      // type filter";
    let names = "
        06000100 54000000                               // table T
        09000200 68656c64 00000000                      // chain held";
    let of_server = "
        34000180 0c000100 7061796c 6f616400 24000280    // payload
            08000100 00000001 08000200 00000001         // register 1, network header
            08000300 00000009 08000400 00000001         // one byte at 9
        2c000180 08000100 636d7000 20000280             // cmp
            08000100 00000001 08000200 00000000         // register 1, equal
            0c000380 05000100 06000000                  // 6, TCP
        34000180 0c000100 7061796c 6f616400 24000280    // payload
            08000100 00000001 08000200 00000001         // register 1, network header
            08000300 0000000c 08000400 00000004         // four bytes at 12
        2c000180 08000100 636d7000 20000280             // cmp
            08000100 00000001 08000200 00000000         // register 1, equal
            0c000380 08000100 ac100063                  // 172.16.0.99
        34000180 0c000100 7061796c 6f616400 24000280    // payload
            08000100 00000001 08000200 00000002         // register 1, transport header
            08000300 00000000 08000400 00000002         // two bytes at 0
        2c000180 08000100 636d7000 20000280             // cmp
            08000100 00000001 08000200 00000000         // register 1, equal
            0c000380 06000100 24cd0000                  // 9421";
    let reset = "
        34000180 0c000100 7061796c 6f616400 24000280    // payload
            08000100 00000001 08000200 00000002         // register 1, transport header
            08000300 0000000d 08000400 00000001         // one byte at 13
        44000180 0c000100 62697477 69736500 34000280    // bitwise
            08000100 00000001 08000200 00000001         // register 1 to register 1
            08000300 00000001                           // one byte
            0c000480 05000100 14000000                  // mask RST and ACK
            0c000580 05000100 00000000                  // xor 0
        2c000180 08000100 636d7000 20000280             // cmp
            08000100 00000001 08000200 00000000         // register 1, equal
            0c000380 05000100 04000000                  // RST";
    let drop = "
        30000180 0e000100 696d6d65 64696174 65000000 1c000280 // immediate
            08000100 00000000                           // verdict register
            10000280 0c000280 08000100 00000000         // drop";
    let header = "060a050c 00000000 00000000 02000000";
    for (segments, length, expressions, reset) in
        [(Segments::Resets, "20020000", "f8010480", reset), (Segments::All, "7c010000", "54010480", "")]
    {
        let rule = [length, header, names, expressions, of_server, reset, drop].map(listed).concat();
        assert_eq!(requests("T", segments, SERVER), [listed(table), listed(chain), rule]);
    }
}
