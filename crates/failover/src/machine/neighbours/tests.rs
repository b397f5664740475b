use super::*;

const NONE: Option<&str> = None;

fn instance(name: Option<&str>) -> Instance {
    Instance::of_xparam(name).unwrap()
}

fn vip(last: u8) -> VirtualIp {
    VirtualIp { interface: "eth0".to_owned(), address: [172, 16, 0, last].into() }
}

/// An instance with an address, a folder and a port of its own.
fn claim(name: Option<&str>, address: u8, folder: &str, port: u16) -> Claim {
    let clients = SocketAddrV4::new([0, 0, 0, 0].into(), port);
    Claim {
        instance: instance(name),
        vip: vip(address),
        master: Some(Master { data_path: folder.into(), clients, services: Vec::new() }),
    }
}

fn process(number: u32) -> Identity {
    Identity { pid: 100 + number, start: number.into() }
}

fn neighbour(number: u32, claim: &Claim) -> Neighbour {
    Neighbour { process: process(number), claim: claim.clone(), holds: false }
}

fn first() -> Claim {
    claim(NONE, 99, "/var/lib/mfs", 9421)
}

/// Whether the second ucarp is admitted beside the first one, whose hooks were called before.
fn refused(second: &Claim) -> Option<Conflict> {
    let verdicts = [(process(1).to_string(), true)].into();
    decide(second, Some(process(2)), &[neighbour(1, &first())], &verdicts).err()
}

#[test]
fn two_file_systems_that_share_nothing_get_on_with_each_other() {
    assert_eq!(refused(&claim(Some("two"), 98, "/srv/two", 9521)), None);
    assert_eq!(refused(&Claim { master: None, ..claim(Some("two"), 98, "/", 1) }), None, "its hook says what is wrong");
}

#[test]
fn a_second_address_for_one_file_system_is_refused_with_the_remedy() {
    for interface in ["eth0", "eth1"] {
        let mut second = claim(NONE, 98, "/var/lib/mfs", 9421);
        second.vip.interface = interface.to_owned();
        let conflict = refused(&second).unwrap();
        assert!(!conflict.is_same_address());
        assert_eq!(
            conflict.to_string(),
            "another ucarp of this machine (process 101) moves 172.16.0.99 for the instance without a name, and one file \
             system has one virtual IP: end the ucarp for 172.16.0.98, or start it with -x NAME for a file system of its \
             own in /etc/mfs/mfspromote-NAME.cfg"
        );
    }
}

#[test]
fn one_address_for_two_ucarps_is_refused_and_stays() {
    for second in [claim(NONE, 99, "/var/lib/mfs", 9421), claim(Some("two"), 99, "/srv/two", 9521)] {
        assert!(refused(&second).unwrap().is_same_address());
    }
    let others = [neighbour(1, &first()), neighbour(3, &claim(Some("two"), 98, "/srv/two", 9521))];
    let verdicts = [1, 3].map(|number| (process(number).to_string(), true)).into();
    let third = decide(&claim(NONE, 98, "/var/lib/mfs", 9421), Some(process(5)), &others, &verdicts).unwrap_err();
    assert!(third.is_same_address(), "the address of the third is that of the second instance: {third}");
    let unusable = Claim { master: None, ..claim(Some("two"), 99, "/", 1) };
    assert!(refused(&unusable).unwrap().is_same_address());
}

#[test]
fn two_instances_with_one_folder_port_or_unit_are_refused() {
    let text = |second: &Claim| refused(second).unwrap().to_string();
    assert_eq!(
        text(&claim(Some("two"), 98, "/var/lib/mfs/", 9521)),
        "the instance two has the same DATA_PATH /var/lib/mfs/ as the instance without a name has, whose ucarp runs here \
         (process 101): set another one in the files that MASTER_CFG and METALOGGER_CFG of /etc/mfs/mfspromote-two.cfg name"
    );
    let port = text(&claim(Some("two"), 98, "/srv/two", 9421));
    assert!(port.contains("the same MATOCL_LISTEN_PORT 9421") && port.contains("mfspromote-two.cfg"), "{port}");
    let mut hosts = [first(), claim(Some("two"), 98, "/srv/two", 9421)];
    for (claim, host) in hosts.iter_mut().zip([99, 98]) {
        claim.master.as_mut().unwrap().clients.set_ip([172, 16, 0, host].into());
    }
    assert_eq!(hosts[0].conflict(1, &hosts[1]), None, "each listens on its own address");
    let mut units = [first(), claim(Some("two"), 98, "/srv/two", 9521)];
    for claim in &mut units {
        let unit = Control::Unit("moosefs-master".to_owned());
        claim.master.as_mut().unwrap().services = vec![("MASTER_SERVICE", unit)];
    }
    let text = units[1].conflict(1, &units[0]).unwrap().to_string();
    assert!(text.contains("the same systemd unit moosefs-master") && text.contains("set MASTER_SERVICE in"), "{text}");
}

#[test]
fn a_folder_is_known_by_what_its_path_leads_to() {
    let dir = tempfile::tempdir().unwrap();
    let (one, link) = (dir.path().join("one"), dir.path().join("link"));
    std::fs::create_dir(&one).unwrap();
    std::os::unix::fs::symlink(&one, &link).unwrap();
    assert!(is_same_folder(&one, &link) && is_same_folder(&dir.path().join("absent"), &dir.path().join("absent")));
    assert!(!is_same_folder(&one, dir.path()) && !is_same_folder(&dir.path().join("absent"), &dir.path().join("gone")));
}

#[test]
fn the_first_one_goes_on_whatever_comes_after_it() {
    let (first, second) = (first(), claim(NONE, 98, "/var/lib/mfs", 9421));
    let decide = |claim, me, other: &Neighbour, verdicts: &[(u32, bool)]| {
        let verdicts = verdicts.iter().map(|(number, admitted)| (process(*number).to_string(), *admitted)).collect();
        decide(claim, Some(process(me)), std::slice::from_ref(other), &verdicts).is_ok()
    };
    // Both are new: the older one is the first.
    assert!(decide(&first, 1, &neighbour(2, &second), &[]));
    assert!(!decide(&second, 2, &neighbour(1, &first), &[]));
    // The first one was started again, beside a refused one that is older now.
    assert!(decide(&first, 3, &neighbour(2, &second), &[(2, false)]));
    assert!(!decide(&second, 2, &neighbour(3, &first), &[(2, false), (3, true)]));
    // It serves since before the hooks knew of this, and is the younger one.
    let serving = Neighbour { holds: true, ..neighbour(3, &first) };
    assert!(!decide(&second, 2, &serving, &[]));
}

#[test]
fn a_hook_without_a_ucarp_may_do_what_that_of_its_address_may() {
    let (first, second) = (first(), claim(NONE, 98, "/var/lib/mfs", 9421));
    let verdicts = [(process(1).to_string(), true)].into();
    let others = [neighbour(1, &first)];
    assert_eq!(decide(&first, None, &others, &verdicts), Ok(()));
    assert!(decide(&second, None, &others, &verdicts).is_err(), "the end of a unit whose ucarp was refused");
    assert_eq!(decide(&second, None, &others, &Verdicts::new()), Ok(()), "nothing is known of the other one");
}

#[test]
fn who_names_no_instance_means_the_one_without_a_name_or_the_only_one() {
    let [none, one, two] = [None, Some("one"), Some("two")].map(instance);
    assert_eq!(only(vec![]).unwrap(), none);
    assert_eq!(only(vec![one.clone(), one.clone()]).unwrap(), one);
    assert_eq!(only(vec![two.clone(), none.clone()]).unwrap(), none);
    let error = only(vec![two, one]).unwrap_err().to_string();
    assert_eq!(error, "ucarps of several instances run here: one, two; choose one with -x NAME");
}
