//! Command lines as people write them, and a real ucarp.

use super::*;
use proptest::prelude::*;

fn parse(line: &str) -> Options {
    Options::parse(&line.split(' ').collect::<Vec<_>>())
}

#[test]
fn the_howto_s_own_line() {
    let line = "ucarp -i eth0 -s 172.16.0.11 -v 10 -o /etc/mfs/ucarp.pass -a 172.16.0.99 -u /usr/bin/vip-up -d /usr/bin/vip-down -z";
    let expected = Options {
        vhid: 10,
        vip: Some(Ipv4Addr::new(172, 16, 0, 99)),
        source: Some(Ipv4Addr::new(172, 16, 0, 11)),
        interface: Some("eth0".to_owned()),
        shutdown_script: true,
        ..Options::default()
    };
    assert_eq!(parse(line), expected);
    assert_eq!(expected.interval(), Duration::from_secs(1));
    assert_eq!(expected.dead_time(), Duration::from_secs(3));
}

#[test]
fn every_way_of_writing_the_same() {
    let expected = parse("ucarp -z -B -P -v 10 -b 2 -k 128 -r 4 -i eth0 -a 10.0.0.1 -x one");
    for line in [
        "ucarp -zBPv10 -b2 -k128 -r4 -ieth0 -a10.0.0.1 -xone",
        "ucarp -PBzv 10 -b 2 -k 128 -r 4 -i eth0 -a 10.0.0.1 -x one",
        "ucarp --shutdown --daemonize --preempt --vhid=10 --advbase=2 --advskew=128 --deadratio=4 \
         --interface=eth0 --addr=10.0.0.1 --xparam=one",
        "ucarp --sh --da --pr --vh 10 --advb 2 --advs 128 --dea 4 --in eth0 --ad 10.0.0.9 --addr 10.0.0.1 --x one",
        "ucarp -v 0xa -b 02 -k 0x80 -r 4x -i eth1 -i eth0 -a 10.0.0.1 -x one stray -zPB",
        "ucarp -zP -v 266 -b 2 -k 128 -r 4 -i eth0 -a 10.0.0.1 -x one -- -n",
        "ucarp -p -n -zP --pass --neutral -v10 -b2 -k128 -r4 -ieth0 -a10.0.0.1 -xone",
    ] {
        assert_eq!(parse(line), expected, "{line}");
    }
    assert_eq!(expected.interval(), Duration::from_millis(2500));
    assert_eq!(expected.dead_time(), Duration::from_millis(8500));
}

#[test]
fn another_group_and_no_options_at_all() {
    assert_eq!(parse("ucarp --mcast=224.0.0.20").group, Ipv4Addr::new(224, 0, 0, 20));
    assert_eq!(parse("ucarp"), Options::default());
    assert_eq!(parse("ucarp -v").vhid, 0);
    assert_eq!(Options::parse(&[""; 0]), Options::default());
}

#[test]
fn a_caller_that_is_not_ucarp_is_refused() {
    assert!(matches!(Caller::parent(), Err(Error::NotUcarp { .. })));
    assert!("12@34".parse::<Caller>().is_err());
    assert!("12@34/vhid=300".parse::<Caller>().is_err());
}

proptest! {
    #[test]
    fn a_caller_survives_as_one_word(
        pid: u32, start: u64, vhid: u8, advbase: u8, advskew: u8, deadratio: u32,
        vip: Option<u32>, source: Option<u32>, interface in proptest::option::of(".{0,15}"), group: u32,
        flags: [bool; 4], xparam: Option<String>,
    ) {
        let caller = Caller { pid, start, options: Options {
            vhid, advbase, advskew, deadratio, interface, xparam,
            vip: vip.map(Into::into), source: source.map(Into::into), group: group.into(),
            shutdown_script: flags[0], preempt: flags[1], neutral: flags[2], ignore_link: flags[3],
        }};
        let word = caller.to_string();
        prop_assert!(!word.contains(char::is_whitespace));
        prop_assert_eq!(word.parse::<Caller>().unwrap(), caller);
    }

    #[test]
    fn no_command_line_makes_it_panic(argv: Vec<String>, word: String) {
        let _ = Options::parse(&argv);
        let _ = word.parse::<Caller>();
    }
}
