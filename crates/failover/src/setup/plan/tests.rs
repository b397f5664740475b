//! What is planned for which machine, and what is refused.

use super::*;
use crate::setup::facts::Unit;

const VIP: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 99);
const OTHER: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 12);

fn entry(address: [u8; 4], prefix: u8) -> InterfaceAddress {
    InterfaceAddress { address: address.into(), prefix, secondary: false }
}

fn unit(name: &str, at_boot: bool, runs: bool) -> Unit {
    Unit { name: name.to_owned(), at_boot, runs }
}

/// A machine where Debian's packages were just installed, with a master that was started by hand.
fn first() -> Facts {
    Facts {
        values: "INTERFACE=\nADDRESS=\nVIP=\nVHID=\nPASSWORD_FILE=/etc/mfs/ucarp.pass\nXPARAM=\nOPTIONS=\n".to_owned(),
        has_values: true,
        hosts: "127.0.0.1 localhost\n172.16.0.11 m1 mfsmaster\n".to_owned(),
        addresses: vec![("eth0".to_owned(), entry([172, 16, 0, 11], 24)), ("eth1".to_owned(), entry([10, 0, 0, 1], 8))],
        name: "mfsmaster".to_owned(),
        metalogger_cfg: "/etc/mfs/mfsmetalogger.cfg".into(),
        own_names: vec!["m1.example".to_owned(), "m1".to_owned(), "localhost".to_owned()],
        ports: [9421, 9419],
        resolved: Some(Ipv4Addr::new(172, 16, 0, 11)),
        password_file: "/etc/mfs/ucarp.pass".into(),
        password: Password::Missing,
        missing: vec!["/etc/mfs/mfsmetalogger.cfg".into()],
        undelayed: None,
        missing_exports: None,
        read_by_master: vec!["/etc/mfs/mfsexports.cfg".into()],
        master: Some(812),
        master_unit: unit("moosefs-master", true, true),
        metalogger: unit("moosefs-metalogger", false, false),
        ucarp: unit(UCARP_UNIT, false, false),
        other_ucarp: None,
    }
}

/// The next one: without a master, with the files that were copied to it.
fn second() -> Facts {
    Facts { master: None, password: Password::Good, missing: Vec::new(), ..first() }
}

fn request() -> Request {
    Request { vip: Some(VIP), ..Request::default() }
}

fn chosen(request: &Request, facts: &Facts) -> Result<Chosen, Refusal> {
    Chosen::of(request, facts)
}

/// Where another machine advertises the address and has it, unless a master runs here.
fn around(facts: &Facts) -> Around {
    match facts.master {
        Some(_) => Around::default(),
        None => Around {
            advertises: Some(OTHER),
            has_vip: Some("02:00:00:00:00:02".to_owned()),
            follows: facts.resolved == Some(VIP),
            ..Around::default()
        },
    }
}

fn planned(request: &Request, facts: &Facts) -> Result<Plan, Refusal> {
    plan(&chosen(request, facts)?, request, facts, &around(facts))
}

fn files(plan: &Plan) -> Vec<&str> {
    plan.edits.iter().filter_map(|edit| edit.path.to_str()).collect()
}

/// The text of a file that is written.
fn after<'a>(plan: &'a Plan, path: &str) -> &'a str {
    &plan.edits.iter().find(|edit| edit.path.as_os_str() == path).unwrap().after
}

fn commands(plan: &Plan) -> Vec<String> {
    plan.commands.iter().map(ToString::to_string).collect()
}

#[test]
fn a_machine_whose_master_runs_gets_everything_but_another_master() {
    let plan = planned(&request(), &first()).unwrap();
    let all = ["/etc/mfs/ucarp.pass", "/etc/default/moosefs-ucarp", "/etc/mfs/mfsmetalogger.cfg", "/etc/hosts"];
    assert_eq!(files(&plan), all);
    assert_eq!(
        after(&plan, VALUES),
        "INTERFACE=eth0\nADDRESS=172.16.0.11\nVIP=172.16.0.99\nVHID=99\nPASSWORD_FILE=/etc/mfs/ucarp.pass\nXPARAM=\nOPTIONS=\n"
    );
    assert_eq!(after(&plan, HOSTS), "127.0.0.1 localhost\n172.16.0.11 m1\n172.16.0.99 mfsmaster\n");
    assert_eq!(
        commands(&plan),
        [
            "systemctl enable moosefs-metalogger",
            "systemctl start moosefs-metalogger",
            "systemctl enable moosefs-ucarp",
            "systemctl disable moosefs-master",
            "systemctl start moosefs-ucarp",
        ]
    );
    assert_eq!(plan.notes, Vec::<String>::new());
}

#[test]
fn a_metalogger_whose_file_leaves_the_delay_to_the_default_gets_a_short_one() {
    // As MooseFS's own packages install it; the last line may lack its end.
    let file = ("/etc/mfs/mfsmetalogger.cfg".into(), "# MASTER_RECONNECTION_DELAY = 5".to_owned());
    let mut facts = Facts { missing: Vec::new(), undelayed: Some(file), ..first() };
    let plan = planned(&request(), &facts).unwrap();
    assert_eq!(
        after(&plan, "/etc/mfs/mfsmetalogger.cfg"),
        "# MASTER_RECONNECTION_DELAY = 5\nMASTER_RECONNECTION_DELAY = 1\n"
    );
    assert_eq!(commands(&plan)[1], "systemctl start moosefs-metalogger");

    // One that runs is told; it need not be restarted if it looks for the master where that is.
    facts.metalogger.runs = true;
    facts.resolved = Some(VIP);
    let plan = planned(&request(), &facts).unwrap();
    assert_eq!(commands(&plan)[1], "systemctl reload moosefs-metalogger");
}

#[test]
fn the_next_machine_is_a_second_choice_and_needs_the_password_and_the_exports_of_the_first() {
    let plan = planned(&request(), &second()).unwrap();
    assert!(after(&plan, VALUES).ends_with("OPTIONS=\"-k 50\"\n"), "{}", after(&plan, VALUES));
    assert_eq!(files(&plan), ["/etc/default/moosefs-ucarp", "/etc/hosts"]);
    let missing = Facts { password: Password::Missing, ..second() };
    assert!(matches!(planned(&request(), &missing), Err(Refusal::NoPassword { .. })));
    let closed = Facts { missing_exports: Some("/etc/mfs/mfsexports.cfg".into()), ..second() };
    assert!(matches!(planned(&request(), &closed), Err(Refusal::NoExports { .. })));
    let long = Facts { password: Password::Bad("too long".to_owned()), ..second() };
    assert!(matches!(planned(&request(), &long), Err(Refusal::BadPassword(_))));
    assert_eq!([next_skew(0), next_skew(50), next_skew(120), next_skew(255)], [50, 100, 149, 149]);
}

#[test]
fn nothing_is_changed_where_ucarp_would_take_the_address_from_something() {
    let judged = |facts: &Facts, around: Around| plan(&chosen(&request(), facts).unwrap(), &request(), facts, &around);
    let nobody = judged(&second(), Around::default());
    assert!(matches!(nobody, Err(Refusal::NobodyServes { .. })), "{nobody:?}");
    let has_vip = Some("02:00:00:00:00:07".to_owned());
    for facts in [first(), second()] {
        let taken = judged(&facts, Around { has_vip: has_vip.clone(), ..Around::default() });
        assert!(matches!(taken, Err(Refusal::Taken { .. })), "{taken:?}");
    }
    for around in
        [Around { advertises: Some(OTHER), ..Around::default() }, Around { serves: Some(OTHER), ..Around::default() }]
    {
        let two = judged(&first(), around);
        assert!(matches!(two, Err(Refusal::TwoMasters { .. })), "{two:?}");
    }
    let held = Facts {
        addresses: [first().addresses, vec![("eth0".to_owned(), entry([172, 16, 0, 99], 32))]].concat(),
        ..first()
    };
    let plan = judged(&held, Around::default()).unwrap();
    assert!(plan.notes[0].contains("is on this machine already"), "{:?}", plan.notes);
}

#[test]
fn a_password_is_made_once_for_a_group() {
    let mut facts = first();
    facts.values = after(&planned(&request(), &facts).unwrap(), VALUES).to_owned();
    assert!(matches!(planned(&request(), &facts), Err(Refusal::NoPassword { .. })), "it is lost, and others have it");
}

#[test]
fn what_is_set_up_already_stays_as_it_is() {
    let mut facts = first();
    let plan = planned(&request(), &facts).unwrap();
    after(&plan, VALUES).clone_into(&mut facts.values);
    after(&plan, HOSTS).clone_into(&mut facts.hosts);
    facts.resolved = Some(VIP);
    facts.password = Password::Good;
    facts.missing = Vec::new();
    facts.master_unit.at_boot = false;
    for unit in [&mut facts.metalogger, &mut facts.ucarp] {
        (unit.at_boot, unit.runs) = (true, true);
    }
    for request in [request(), Request::default()] {
        let plan = planned(&request, &facts).unwrap();
        assert_eq!(plan, Plan::default());
    }
    // After a failover no master runs here: its skew is still that of the first machine.
    facts.master = None;
    assert_eq!(planned(&Request::default(), &facts).unwrap(), Plan::default());
}

#[test]
fn a_ucarp_that_runs_is_never_restarted() {
    let mut facts = second();
    (facts.ucarp.at_boot, facts.ucarp.runs) = (true, true);
    let plan = planned(&Request { skew: Some(100), ..request() }, &facts).unwrap();
    assert!(!commands(&plan).iter().any(|command| command.contains(UCARP_UNIT)), "{:?}", plan.commands);
    assert!(plan.notes[0].contains("systemctl restart moosefs-ucarp"), "{:?}", plan.notes);
    let by_hand = Facts { other_ucarp: Some(77), ..second() };
    let plan = planned(&request(), &by_hand).unwrap();
    assert!(!commands(&plan).contains(&"systemctl start moosefs-ucarp".to_owned()));
    assert!(plan.notes[0].contains("process 77"), "{:?}", plan.notes);
}

#[test]
fn a_running_metalogger_is_restarted_only_for_another_address_of_the_master() {
    let mut facts = second();
    (facts.metalogger.at_boot, facts.metalogger.runs) = (true, true);
    assert!(commands(&planned(&request(), &facts).unwrap()).contains(&"systemctl restart moosefs-metalogger".into()));
    facts.resolved = Some(VIP);
    let plan = planned(&request(), &facts).unwrap();
    assert!(!commands(&plan).iter().any(|command| command.contains("metalogger")), "{:?}", plan.commands);
    assert!(!files(&plan).contains(&HOSTS));
    facts.resolved = None;
    let plan = planned(&Request { keep_hosts: true, ..request() }, &facts).unwrap();
    assert!(!files(&plan).contains(&HOSTS) && plan.notes.iter().any(|note| note.contains("does not resolve")));
}

#[test]
fn the_interface_and_the_vhid_follow_from_the_address_or_must_be_given() {
    let facts = first();
    let found = chosen(&Request { vip: Some([10, 9, 9, 9].into()), ..Request::default() }, &facts).unwrap();
    assert_eq!((found.interface.as_str(), found.address, found.vhid), ("eth1", [10, 0, 0, 1].into(), 9));
    let given = |vip: [u8; 4], interface: Option<&str>, vhid| {
        let interface = interface.map(str::to_owned);
        chosen(&Request { vip: Some(vip.into()), interface, vhid, ..Request::default() }, &facts)
    };
    assert!(matches!(given([192, 168, 0, 1], None, None), Err(Refusal::WhichInterface { .. })));
    assert_eq!(given([192, 168, 0, 1], Some("eth1"), None).unwrap().address, Ipv4Addr::new(10, 0, 0, 1));
    assert!(matches!(given([192, 168, 0, 1], Some("eth7"), None), Err(Refusal::NoAddress { .. })));
    assert!(matches!(given([172, 16, 0, 11], None, None), Err(Refusal::OwnAddress { .. })));
    for no_host in [[127, 0, 0, 9], [224, 0, 0, 1], [172, 16, 0, 255], [172, 16, 0, 0], [255, 255, 255, 255]] {
        assert_eq!(given(no_host, None, None), Err(Refusal::NoHost(no_host.into())));
    }
    assert!(matches!(given([10, 1, 0, 0], None, None), Err(Refusal::NoVhid(_))));
    assert_eq!(given([10, 1, 0, 0], None, Some(7)).unwrap().vhid, 7);
    assert_eq!(chosen(&Request::default(), &facts), Err(Refusal::NoVip));
    let second_address = [first().addresses, vec![("eth0".to_owned(), entry([172, 16, 0, 77], 24))]].concat();
    let values = first().values.replace("ADDRESS=", "ADDRESS=172.16.0.77");
    let kept = Facts { addresses: second_address, values, ..first() };
    assert_eq!(chosen(&request(), &kept).unwrap().address, Ipv4Addr::new(172, 16, 0, 77), "the one that is configured");
    let twice = Facts {
        addresses: [first().addresses, vec![("br0".to_owned(), entry([172, 16, 0, 12], 24))]].concat(),
        ..first()
    };
    assert!(matches!(chosen(&request(), &twice), Err(Refusal::WhichInterface { .. })));
}

#[test]
fn a_second_file_system_and_an_address_in_place_of_a_name_are_refused() {
    let instance = Facts { values: "XPARAM=two\n".to_owned(), ..first() };
    assert_eq!(planned(&request(), &instance), Err(Refusal::Instance("two".to_owned())));
    for name in ["172.16.0.11", "localhost", "M1", "m1.example"] {
        let named = Facts { name: name.to_owned(), ..first() };
        assert!(matches!(planned(&request(), &named), Err(Refusal::Name { .. })), "{name}");
    }
    for options in ["-x two", "-a 1.2.3.4", "-P", "-v 7", "-o /x"] {
        let odd = Facts { values: format!("OPTIONS=\"{options}\"\n"), ..first() };
        let refused = planned(&request(), &odd);
        assert!(matches!(refused, Err(Refusal::Options(_) | Refusal::Instance(_))), "{options}");
    }
    let odd = Facts { values: "VIP = 1.2.3.4\n".to_owned(), ..first() };
    assert_eq!(planned(&request(), &odd), Err(Refusal::OddValues(1)));
    let vip = Facts { name: VIP.to_string(), resolved: Some(VIP), ..first() };
    assert!(planned(&request(), &vip).is_ok());
}

#[test]
fn passwords_differ_and_ucarp_takes_them() {
    let [one, two] = [new_password(), new_password()];
    assert_ne!(one, two);
    assert_eq!([one.len(), two.len()], [PASSWORD_LENGTH; 2]);
}
