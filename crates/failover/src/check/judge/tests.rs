use super::*;
use crate::check::facts::Known;
use crate::check::finding::Level::{self, Critical, Ok as Fine, Unknown, Warning};
use crate::check::forms;
use crate::machine::outcome::{RunKind, StepName};
use crate::machine::record::Step;
use crate::machine::space::{ArchiveRoom, Space};
use crate::metadata::Lineage;
use crate::metadata::Version;
use crate::moosefs::{Info, Release};
use crate::sys::progress::Allowance;
use crate::sys::terminal::Style;
use crate::ucarp::Password;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

const VIP: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 99);

fn at(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(172, 16, 0, last)
}

fn info(version: Option<u64>, metaid: Option<u64>) -> Info {
    Info { release: Release { major: 4, minor: 57, patch: 7 }, metadata_version: version.map(Version), metaid }
}

fn copy(end_version: u64) -> Copy {
    Copy {
        lineage: Lineage::Ml,
        metaid: 7,
        end_version: Version(end_version),
        served_version: Version(1_000_000_000_000 + end_version),
        changes: 12,
        image_age: Some(Duration::from_secs(300)),
        space: Ok(Space { image: 2_000_000, log: 100_000, shared: false, free: 9_300_000_000 }),
        network: Ok(Outlook::Proved("172.16.0.41".to_owned())),
        warnings: Vec::new(),
    }
}

fn standing_by(end_version: u64) -> Standby {
    let master = Ok(info(Some(1349), Some(7)));
    Standby {
        metalogger: Some(790),
        connection: Ok(MetaloggerConnection::Follows),
        master,
        copy: Ok(copy(end_version)),
        hot: Ok(None),
        in_sync: Some(1_795_380_000),
        kept_for: Duration::from_secs(72 * 3600),
    }
}

fn followers(metaloggers: &[u8]) -> Followers {
    let metaloggers = metaloggers.iter().map(|last| at(*last)).collect();
    Followers { metaloggers, chunkservers: chunkservers(&[42, 43]), ..Followers::default() }
}

fn chunkservers(numbers: &[u8]) -> std::collections::BTreeSet<std::net::SocketAddrV4> {
    numbers.iter().map(|last| std::net::SocketAddrV4::new(at(*last), 9422)).collect()
}

fn at_work() -> Serving {
    Serving {
        address: Some(("eth0".to_owned(), Ok(true))),
        lease: Ok(nft::State::Open),
        master: Ok(info(Some(1349), Some(7))),
        patience: Duration::from_secs(62),
        followers: Ok(followers(&[12])),
    }
}

/// A machine as the packages leave it, after a start of all daemons.
fn fresh(duty: Duty) -> Facts {
    Facts {
        vip: Some(VIP),
        server: std::net::SocketAddrV4::new(VIP, 9421),
        listens: Ipv4Addr::UNSPECIFIED,
        data_path: "/var/lib/mfs".into(),
        settle_margin: Duration::from_millis(250),
        start: Allowance { still: Duration::from_secs(60), most: Duration::from_secs(300) },
        ucarp: UcarpFacts::One {
            pid: 812,
            options: Options { vhid: 10, advskew: 51, shutdown_script: true, ..Options::default() },
            foreign_hooks: Vec::new(),
            strangers: Ok(BTreeSet::new()),
        },
        stands_back: Ok(None),
        name: NameFacts { host: "mfsmaster".to_owned(), addresses: Ok(vec![VIP.into()]) },
        slow_reconnect: vec!["/etc/mfs/mfsmetalogger.cfg".into()],
        boot: Vec::new(),
        folders: Folders { moves: Ok(()), calls: Ok(()), memory: Ok(()), archives: Ok(()) },
        duty,
        history: History { interrupted: Ok(Vec::new()), not_archived: Ok(0), no_room: None, records: Ok(Vec::new()) },
    }
}

fn run(kind: RunKind, outcome: Outcome, error: Option<&str>) -> Record {
    let step = |name, ms| Step { name, ms };
    let steps = match kind {
        RunKind::Rehearsal => vec![step(StepName::Stage, 6), step(StepName::Restore, 240)],
        _ => Vec::new(),
    };
    Record {
        started: 1_795_380_000,
        kind,
        vip: None,
        outcome,
        version: None,
        changes: None,
        set_aside: Vec::new(),
        archive: None,
        steps,
        total_ms: 300,
        error: error.map(str::to_owned),
    }
}

fn standby_facts(end_version: u64) -> Facts {
    fresh(Duty::Standby(Box::new(standing_by(end_version))))
}

fn serving_facts() -> Facts {
    fresh(Duty::Serving(Box::new(at_work())))
}

fn shown(facts: &Facts) -> String {
    forms::text(&judge(facts), Style::plain())
}

/// The answers to one question.
fn answers(facts: &Facts, name: &str) -> Vec<(Level, String)> {
    let of = |finding: Finding| (finding.name == name).then_some((finding.level, finding.text));
    judge(facts).findings.into_iter().filter_map(of).collect()
}

/// Expects one answer to a question: its level, and all of its text.
fn expect(facts: &Facts, name: &str, level: Level, text: &str) {
    assert_eq!(answers(facts, name), [(level, text.to_owned())], "{name}");
}

#[test]
fn a_fresh_standby_reads_well() {
    let expected = "\
role: standby

  OK        ucarp       running, pid 812, vhid 10; declares a master dead after 3.6 s (advbase 1, deadratio 3)
  OK        name        mfsmaster resolves to 172.16.0.99
  OK        reconnect   for a faster failover, set MASTER_RECONNECTION_DELAY = 1 in /etc/mfs/mfsmetalogger.cfg and on every chunkserver
  OK        boot        the metalogger starts at boot, the master does not
  OK        metalogger  running, pid 790, connected
  OK        copy        in sync with 172.16.0.99:9421 at version 1349
  OK        image       5 min old, 12 changes to replay
  OK        space       2.1 MB needed, 9.3 GB free
  OK        plan        would serve version 1000000001349
  OK        runs        none yet
  OK        rehearsal   none among the last 50 runs; run mfs-promote --rehearse
  OK        time        duration of a takeover unknown until a rehearsal measures it; run mfs-promote --rehearse

OK: ready to take over
";
    assert_eq!(shown(&standby_facts(1349)), expected);
}

#[test]
fn a_healthy_standby_reads_well() {
    let mut facts = standby_facts(1349);
    facts.slow_reconnect.clear();
    let runs = [
        run(RunKind::Demotion, Outcome::Demoted, None),
        run(RunKind::Rehearsal, Outcome::WouldServe, None),
        run(RunKind::Rehearsal, Outcome::Cancelled, None),
    ];
    facts.history.records = Ok(runs.into());
    let expected = "\
role: standby

  OK        ucarp       running, pid 812, vhid 10; declares a master dead after 3.6 s (advbase 1, deadratio 3)
  OK        name        mfsmaster resolves to 172.16.0.99
  OK        reconnect   1 s here; set MASTER_RECONNECTION_DELAY = 1 on every chunkserver as well
  OK        boot        the metalogger starts at boot, the master does not
  OK        metalogger  running, pid 790, connected
  OK        copy        in sync with 172.16.0.99:9421 at version 1349
  OK        image       5 min old, 12 changes to replay
  OK        space       2.1 MB needed, 9.3 GB free
  OK        plan        would serve version 1000000001349
  OK        runs        the last demotion, at 2026-11-22 20:40:00 UTC, ended: demoted
  OK        rehearsal   succeeded at 2026-11-22 20:40:00 UTC
  OK        time        a takeover takes about 5.29 s: 3.6 s to declare the master dead, 1.45 s at most to settle, 246 ms to load (measured by the rehearsal of 2026-11-22 20:40:00 UTC)

OK: ready to take over
";
    assert_eq!(shown(&facts), expected);
    let numbers = facts.numbers();
    assert_eq!((numbers.lag, numbers.replay, numbers.needed_bytes), (Some(0), Some(12), Some(2_100_000)));
    assert_eq!(numbers.rehearsed, Some(1_795_380_000));
    assert!(numbers.takeover_seconds.is_some_and(|seconds| (seconds - 5.293).abs() < 0.01), "{numbers:?}");
}

#[test]
fn a_serving_machine_reads_well() {
    let mut facts = serving_facts();
    facts.history.records = Ok(vec![run(RunKind::Promotion, Outcome::Serving, None)]);
    let expected = "\
role: serving

  OK        ucarp         running, pid 812, vhid 10; declares a master dead after 3.6 s (advbase 1, deadratio 3)
  OK        name          mfsmaster resolves to 172.16.0.99
  OK        reconnect     for a faster failover, set MASTER_RECONNECTION_DELAY = 1 in /etc/mfs/mfsmetalogger.cfg and on every chunkserver
  OK        boot          the metalogger starts at boot, the master does not
  OK        address       172.16.0.99 is on eth0
  OK        clients       answered, as long as other machines hear this one
  OK        master        MooseFS 4.57.7, version 1349
  OK        standbys      the metalogger of 172.16.0.12 is connected
  OK        chunkservers  2 connected, none is missing
  OK        runs          the last promotion, at 2026-11-22 20:40:00 UTC, ended: serving
  OK        rehearsal     none among the last 50 runs; run mfs-promote --rehearse

OK: serving
";
    assert_eq!(shown(&facts), expected);
    assert_eq!(facts.numbers().standbys, Some(1));
}

#[test]
fn a_standby_in_trouble_reads_well() {
    let mut standby = standing_by(1339);
    standby.metalogger = None;
    let mut facts = fresh(Duty::Standby(Box::new(standby)));
    facts.ucarp = UcarpFacts::None;
    facts.vip = Some(VIP);
    facts.boot = vec![BootFault {
        daemon: "systemd unit moosefs-metalogger".to_owned(),
        is_master: false,
        remedy: Some("systemctl enable moosefs-metalogger".to_owned()),
    }];
    facts.history.records =
        Ok(vec![run(RunKind::Promotion, Outcome::Stopped, Some("cannot find out the release of mfsmaster"))]);
    let expected = "\
role: standby

  CRITICAL  ucarp       not running: this machine will not take over; start ucarp
  OK        name        mfsmaster resolves to 172.16.0.99
  OK        reconnect   for a faster failover, set MASTER_RECONNECTION_DELAY = 1 in /etc/mfs/mfsmetalogger.cfg and on every chunkserver
  WARNING   boot        systemd unit moosefs-metalogger does not start at boot, so after a reboot this machine has no current copy; run: systemctl enable moosefs-metalogger
  CRITICAL  metalogger  not running: this machine receives no changes; start mfsmetalogger
  CRITICAL  copy        lacks 10 changes: 172.16.0.99:9421 serves version 1349, the copy ends at version 1339; last in sync 2026-11-22 20:40:00 UTC; a failover would lose them; check mfsmetalogger and its connection to 172.16.0.99:9421
  OK        image       5 min old, 12 changes to replay
  OK        space       2.1 MB needed, 9.3 GB free
  OK        plan        would serve version 1000000001339
  WARNING   runs        the last promotion, at 2026-11-22 20:40:00 UTC, failed (stopped): cannot find out the release of mfsmaster
  OK        rehearsal   none among the last 50 runs; run mfs-promote --rehearse
  OK        time        duration of a takeover unknown without ucarp

CRITICAL: not ready to take over, see: ucarp, metalogger, copy
";
    assert_eq!(shown(&facts), expected);
    assert_eq!(facts.numbers().lag, Some(10));
    let nagios = forms::nagios(&judge(&facts));
    assert!(nagios.starts_with("MFS-PROMOTE CRITICAL - standby, ucarp: not running: "), "{nagios}");
}

#[test]
fn a_ucarp_that_cannot_do_its_work_is_critical() {
    let not_found = |ucarp| Facts { ucarp, ..standby_facts(1349) };
    for (facts, text) in [
        (
            not_found(UcarpFacts::OtherAddress { name: "eth0".to_owned(), vip: VIP, running: 1 }),
            "1 ucarp process runs here, but not for 172.16.0.99 on eth0; start it",
        ),
        (
            not_found(UcarpFacts::Unclear { running: 1, ours: 0 }),
            "1 ucarp process runs here, but none with vip-up of this package; start ucarp with -u /usr/bin/vip-up -d \
             /usr/bin/vip-down",
        ),
        (
            not_found(UcarpFacts::Unclear { running: 3, ours: 2 }),
            "2 ucarp processes start vip-up; choose one with --interface NAME --vip ADDRESS",
        ),
        (
            Facts { ucarp: UcarpFacts::None, ..serving_facts() },
            "not running: nothing advertises this master, so another machine will take over; start ucarp",
        ),
    ] {
        expect(&facts, "ucarp", Critical, text);
    }
}

#[test]
fn every_flaw_of_a_ucarp_is_an_answer_of_its_own() {
    let options = Options {
        preempt: true,
        neutral: true,
        password: Some(Password::Visible("secret".to_owned())),
        shutdown_script: false,
        ..Options::default()
    };
    let foreign_hooks = vec![
        ForeignHook { letter: 'u', program: "vip-up", called: Some("/usr/bin/slow".to_owned()) },
        ForeignHook { letter: 'd', program: "vip-down", called: None },
    ];
    let facts = Facts {
        ucarp: UcarpFacts::One { pid: 1, options, foreign_hooks, strangers: Ok([at(9)].into()) },
        ..standby_facts(1349)
    };
    let levels: Vec<_> = answers(&facts, "ucarp").into_iter().map(|(level, _)| level).collect();
    assert_eq!(levels, [Critical, Critical, Warning, Warning, Warning, Warning, Warning]);
    let texts: Vec<_> = answers(&facts, "ucarp").into_iter().map(|(_, text)| text).collect();
    assert_eq!(
        texts[0],
        "calls /usr/bin/slow, which is not vip-up of this package; restart it with -u /usr/bin/vip-up"
    );
    assert!(texts[5].starts_with("started with -n: it calls no vip-down when it starts"), "{}", texts[5]);
    assert_eq!(texts[1], "started without -d; restart it with -d /usr/bin/vip-down");
}

#[test]
fn a_name_must_lead_to_the_virtual_ip() {
    let named = |addresses: Known<Vec<IpAddr>>| Facts {
        name: NameFacts { host: "mfsmaster".to_owned(), addresses },
        ..standby_facts(1349)
    };
    let remedy = "put \"172.16.0.99 mfsmaster\" into /etc/hosts on every machine";
    for (facts, text) in [
        (named(Ok(vec![at(11).into()])), "mfsmaster resolves to 172.16.0.11, not to the virtual IP 172.16.0.99"),
        (named(Ok(Vec::new())), "mfsmaster resolves to no address"),
        (named(Err("no such host".to_owned())), "cannot resolve mfsmaster (no such host)"),
    ] {
        expect(&facts, "name", Critical, &format!("{text}; {remedy}"));
    }
    expect(&Facts { vip: None, ..standby_facts(1349) }, "name", Unknown, NO_VIP);
}

#[test]
fn a_copy_is_compared_with_what_is_served() {
    type Change = fn(&mut Standby);
    let cases: [(Change, Level, &str, Option<u64>); 7] = [
        (|_| (), Fine, "in sync with 172.16.0.99:9421 at version 1349", Some(0)),
        // The copy may be ahead: the master was asked before.
        (|s| s.master = Ok(info(Some(1300), None)), Fine, "in sync with 172.16.0.99:9421 at version 1300", Some(0)),
        (
            |s| s.master = Ok(Info { release: Release { major: 1, minor: 6, patch: 27 }, ..info(None, None) }),
            Fine,
            "ends at version 1349; not compared: MooseFS 1.x does not report which version is served",
            None,
        ),
        (
            |s| s.master = Ok(Info { release: Release { major: 5, minor: 1, patch: 2 }, ..info(None, None) }),
            Warning,
            "ends at version 1349; not compared: 172.16.0.99:9421 runs MooseFS 5.1.2, which is not known to this program: \
             the version that it serves cannot be read; upgrade mfs-promote",
            None,
        ),
        (
            |s| s.master = Err("no answer from a master on 172.16.0.99:9421: timed out".to_owned()),
            Critical,
            "no serving master (no answer from a master on 172.16.0.99:9421: timed out); last in sync 2026-11-22 \
             20:40:00 UTC; run mfs-promote --status on the other machines",
            None,
        ),
        (
            |s| s.master = Ok(info(Some(1349), Some(9))),
            Critical,
            "of another file system: metaid 0x7 here, 0x9 on 172.16.0.99:9421; move the metadata files out of \
             /var/lib/mfs and restart mfsmetalogger",
            None,
        ),
        (
            |s| s.copy.as_mut().unwrap().lineage = Lineage::Own,
            Critical,
            "the newest metadata here is this machine's own, not the metalogger's: the copy does not follow the \
             serving master; restart mfsmetalogger",
            None,
        ),
    ];
    for (change, level, text, lag) in cases {
        let mut standby = standing_by(1349);
        change(&mut standby);
        let facts = fresh(Duty::Standby(Box::new(standby)));
        expect(&facts, "copy", level, text);
        assert_eq!(facts.numbers().lag, lag, "{text}");
    }
}

#[test]
fn a_master_that_listens_on_one_address_only_is_told() {
    let listening = |listens| Facts { listens, ..fresh(Duty::Standby(Box::new(standing_by(1349)))) };
    let text = "the master listens for clients on 172.16.0.99 only, so other machines cannot ask it on its own address; \
                set MATOCL_LISTEN_HOST = * in mfsmaster.cfg";
    expect(&listening(VIP), "listen", Warning, text);
    let text = "the master listens for clients on 172.16.0.11 only, and they connect to 172.16.0.99: none is served; set \
                MATOCL_LISTEN_HOST = * in mfsmaster.cfg";
    expect(&listening(at(11)), "listen", Critical, text);
    assert!(judge(&listening(Ipv4Addr::UNSPECIFIED)).findings.iter().all(|finding| finding.name != "listen"));
}

#[test]
fn a_hot_standby_is_told_and_a_copy_that_does_not_replay_is_critical() {
    let with = |hot| fresh(Duty::Standby(Box::new(Standby { hot: Ok(hot), ..standing_by(1349) })));
    let hot =
        |version| HotState::Hot { since: 1_795_380_000, version: Version(version), memory: 371_000_000, load_ms: 5200 };
    let since = when(1_795_380_000);
    let text = format!("hot since {since}, 371.0 MB, has all changes of the copy");
    expect(&with(Some(hot(1349))), "hot standby", Fine, &text);
    let text = format!("hot since {since}, 371.0 MB, is 9 changes behind the copy");
    expect(&with(Some(hot(1340))), "hot standby", Fine, &text);
    let text = "a takeover takes about 5.05 s: 3.6 s to declare the master dead, 1.45 s at most to settle; the metadata is loaded, \
                which took 5.2 s";
    expect(&with(Some(hot(1349))), "time", Fine, text);
    let cold = |kind| Some(HotState::Cold { why: "mfsmaster has ended".to_owned(), kind });
    let text = "cold: mfsmaster has ended. A takeover has to load the metadata first";
    expect(&with(cold(Cold::ForNow)), "hot standby", Warning, text);
    expect(&with(cold(Cold::NotHere)), "hot standby", Fine, text);
    let text = "the copy here cannot be replayed, so this machine could not serve: mfsmaster has ended";
    expect(&with(cold(Cold::NotReplayed)), "hot standby", Critical, text);
    assert!(judge(&with(None)).findings.iter().all(|finding| finding.name != "hot standby"));
}

#[test]
fn a_plan_that_would_fail_or_warns_is_told() {
    let with = |copy: Result<Copy, NoCopy>| fresh(Duty::Standby(Box::new(Standby { copy, ..standing_by(1349) })));
    let space = |free| with(Ok(Copy { space: Ok(Space { image: 1000, log: 10, shared: false, free }), ..copy(1349) }));
    let text = "1.0 kB needed, 1.0 kB free in /var/lib/mfs: a promotion would fail; free space there";
    expect(&space(1009), "space", Critical, text);
    let text = "1.0 kB needed, 2.0 kB free in /var/lib/mfs: too little for the master's next image; free space there";
    expect(&space(2019), "space", Warning, text);
    expect(&space(2020), "space", Fine, "1.0 kB needed, 2.0 kB free");
    let aged = |hours: u64| with(Ok(Copy { image_age: Some(Duration::from_secs(hours * 3600)), ..copy(1349) }));
    expect(&aged(26), "image", Fine, "26 h old, 12 changes to replay");
    let text = "27 h old, 12 changes to replay: the metalogger has stopped downloading images; check \
                META_DOWNLOAD_FREQ and restart it";
    expect(&aged(27), "image", Warning, text);
    let new = "none yet: a new file system, replayed from its first change";
    expect(&with(Ok(Copy { image_age: None, ..copy(1349) })), "image", Fine, new);
    let refused = |former| with(Err(NoCopy::Refused { why: "changes 2 to 3 are missing".to_owned(), former }));
    expect(&refused(None), "plan", Critical, "a promotion would be refused: changes 2 to 3 are missing");
    let former = |end| Former { files: vec!["a.1".to_owned(), "a.2".to_owned()], metaid: 7, end_version: Version(end) };
    for (end, right) in [
        (1349, "the master on 172.16.0.99:9421 serves what the other files have"),
        (1300, "make sure that the other files are those that must be served"),
    ] {
        let text = format!(
            "a promotion would be refused: changes 2 to 3 are missing. Only kept images are in the way: {right}; run: cd \
             /var/lib/mfs && mkdir -p former && mv a.1 a.2 former; or wait: the metalogger replaces them within 72 h"
        );
        expect(&refused(Some(former(end))), "plan", Critical, &text);
    }
    expect(&with(Err(NoCopy::Unknown("disk on fire".to_owned()))), "plan", Unknown, "disk on fire");
    let warns = with(Ok(Copy { warnings: vec!["a torn line".to_owned()], ..copy(1349) }));
    let expected = [(Warning, "a torn line".to_owned()), (Fine, "would serve version 1000000001349".to_owned())];
    assert_eq!(answers(&warns, "plan"), expected);
}

#[test]
fn a_serving_machine_that_is_not_reached_or_has_no_standby_is_told() {
    let with = |change: fn(&mut Serving)| {
        let mut serving = at_work();
        change(&mut serving);
        fresh(Duty::Serving(Box::new(serving)))
    };
    let text = "mfsmaster runs here, but 172.16.0.99 is not on eth0: no client reaches it, and no metalogger copies \
                changes to this machine; if another machine serves, run mfs-promote --demote here";
    expect(&with(|s| s.address = Some(("eth0".to_owned(), Ok(false)))), "address", Critical, text);
    expect(&with(|s| s.address = None), "address", Unknown, NO_VIP);
    let text = "answers are held: no other machine hears this one, another one may serve, or no mfs-promote works here. The \
                log says which. If none works here, start ucarp again; with no other machine that could serve, run: nft \
                delete table ip moosefs-ucarp-172.16.0.99";
    expect(&with(|s| s.lease = Ok(nft::State::Closed)), "clients", Critical, text);
    let text = "answered without a lease, as after a promotion by hand or without nf_tables: this machine goes on while it \
                is cut off and another one serves; if nf_tables is there, start ucarp again";
    expect(&with(|s| s.lease = Ok(nft::State::None)), "clients", Warning, text);
    let text = "answered without a lease, since the kernel cannot hold answers back (no); load nf_tables";
    expect(&with(|s| s.lease = Err("no".to_owned())), "clients", Warning, text);
    let text = "mfsmaster is running and does not answer (timed out): it may be loading or storing its image, or be short of \
                memory; if it does no work for 62 s, this machine stops serving; see its log";
    expect(&with(|s| s.master = Err("timed out".to_owned())), "master", Warning, text);
    let text = "MooseFS 4.57.7, which is not known to this program: the version that it serves cannot be read; upgrade \
                mfs-promote";
    expect(&with(|s| s.master = Ok(info(None, None))), "master", Warning, text);
    let text = "no metalogger of another machine is connected: no machine could take over; start mfsmetalogger on a \
                standby";
    expect(&with(|s| s.followers = Ok(followers(&[]))), "standbys", Warning, text);
    let text = "the metaloggers of 172.16.0.12, 172.16.0.13 are connected";
    expect(&with(|s| s.followers = Ok(followers(&[12, 13]))), "standbys", Fine, text);
    let text = "the metalogger of 172.16.0.12 is connected; not those of 172.16.0.13, which were within a day: run \
                mfs-promote --check there";
    let one_missing = |serving: &mut Serving| {
        serving.followers = Ok(Followers { metaloggers_missing: [at(13)].into(), ..followers(&[12]) });
    };
    expect(&with(one_missing), "standbys", Warning, text);
    let text = "not connected: 172.16.0.41:9422; 2 connected; start those that are missing, or remove them from the \
                metadata (mfscli -RC)";
    let change =
        |s: &mut Serving| s.followers = Ok(Followers { chunkservers_missing: chunkservers(&[41]), ..followers(&[12]) });
    expect(&with(change), "chunkservers", Warning, text);
    let text = "not connected: 172.16.0.41:9422; 0 connected: no client can read or write; start one";
    let change = |s: &mut Serving| {
        s.followers = Ok(Followers {
            chunkservers: chunkservers(&[]),
            chunkservers_missing: chunkservers(&[41]),
            ..followers(&[12])
        });
    };
    expect(&with(change), "chunkservers", Critical, text);
    let verdict = |facts: &Facts| shown(facts).lines().last().unwrap().to_owned();
    assert_eq!(verdict(&with(|s| s.followers = Ok(followers(&[])))), "WARNING: serving, but see: standbys");
    assert_eq!(verdict(&with(|s| s.master = Err("timed out".to_owned()))), "WARNING: serving, but see: master");
    let risk = "CRITICAL: clients or the next failover are at risk, see: address";
    assert_eq!(verdict(&with(|s| s.address = Some(("eth0".to_owned(), Ok(false))))), risk);
    assert_eq!(verdict(&with(|s| s.address = None)), "UNKNOWN: some answers could not be found out, see: address");
}

#[test]
fn a_metalogger_that_does_not_follow_is_critical() {
    let with = |connection| fresh(Duty::Standby(Box::new(Standby { connection, ..standing_by(1349) })));
    let text = "running, pid 790, but not connected to the master on 172.16.0.99: this machine receives no changes; see \
                its log, and what mfsmaster resolves to";
    expect(&with(Ok(MetaloggerConnection::None)), "metalogger", Critical, text);
    let text = "running, pid 790, but connected to a master that is gone: it does not follow the one on 172.16.0.99, and \
                a failover would serve an old history; restart mfsmetalogger";
    expect(&with(Ok(MetaloggerConnection::Stale)), "metalogger", Critical, text);
    expect(&with(Err("timed out".to_owned())), "metalogger", Fine, "running, pid 790");
}

#[test]
fn what_earlier_runs_left_is_told() {
    let with = |history: History| Facts { history, ..standby_facts(1349) };
    let none = || History { interrupted: Ok(Vec::new()), not_archived: Ok(0), no_room: None, records: Ok(Vec::new()) };
    let left = with(History { interrupted: Ok(vec!["interrupted".to_owned()]), not_archived: Ok(2), ..none() });
    assert_eq!(answers(&left, "runs")[0], (Warning, "interrupted".to_owned()));
    let text = "old files of 2 runs are not archived yet, in /var/lib/mfs/mfs-promote; the next run archives them";
    expect(&left, "archive", Warning, text);
    let room = ArchiveRoom { archive: 4_000_000, reserve: 20_000_000, free: 21_000_000 };
    let text = "old files of 2 runs are not archived yet, in /var/lib/mfs/mfs-promote; there is not enough space for the \
                archive (it takes about 4.0 MB, 21.0 MB free, and 20.0 MB must stay free for the next image and change \
                logs of the master); make room, or make /var/lib/mfs/bak a link to another disk";
    expect(&with(History { not_archived: Ok(2), no_room: Some(room), ..none() }), "archive", Warning, text);
    let mut last = run(RunKind::Promotion, Outcome::Serving, None);
    last.set_aside = vec!["metadata.mfs.back.9".to_owned()];
    let text = "old files of 2 runs are not archived yet, in /var/lib/mfs/mfs-promote; the last run could not archive them, \
                see its log; if the disk is full, make room, or make /var/lib/mfs/bak a link to another disk";
    expect(&with(History { not_archived: Ok(2), records: Ok(vec![last]), ..none() }), "archive", Warning, text);
    let failed = with(History {
        records: Ok(vec![
            run(RunKind::Demotion, Outcome::Failed, Some("no disk")),
            run(RunKind::Rehearsal, Outcome::WouldNotServe, Some("no room")),
        ]),
        ..none()
    });
    expect(&failed, "runs", Warning, "the last demotion, at 2026-11-22 20:40:00 UTC, failed: no disk");
    let text = "failed at 2026-11-22 20:40:00 UTC: no room; correct the cause, then run mfs-promote --rehearse";
    expect(&failed, "rehearsal", Warning, text);
    assert_eq!(failed.numbers().rehearsed, None);
    let unread = with(History { records: Err("disk on fire".to_owned()), ..none() });
    expect(&unread, "runs", Unknown, "disk on fire");
}

#[test]
fn a_master_that_starts_at_boot_is_told_with_the_command() {
    let boot = vec![BootFault { daemon: "init script moosefs-master".to_owned(), is_master: true, remedy: None }];
    let text = "init script moosefs-master starts at boot and would serve old metadata; only a promotion may start it";
    expect(&Facts { boot, ..standby_facts(1349) }, "boot", Warning, text);
}

#[test]
fn a_folder_that_cannot_be_written_is_told_before_a_promotion_needs_it() {
    let good = || Folders { moves: Ok(()), calls: Ok(()), memory: Ok(()), archives: Ok(()) };
    let with = |folders: Folders| Facts { folders, ..serving_facts() };
    let why = || Err("cannot do it".to_owned());
    let moves = with(Folders { moves: why(), ..good() });
    expect(&moves, "folders", Critical, "cannot do it: a promotion would be refused");
    let text = "cannot do it: vip-up would give up, and stop ucarp; make /run/moosefs-ucarp writable, or room there";
    expect(&with(Folders { calls: why(), ..good() }), "folders", Critical, text);
    let text = "cannot do it: a promotion goes on, but knows nothing of what this machine noted (flapping, a stale copy, \
                machines of the group); make /var/lib/moosefs-ucarp writable, or room there";
    expect(&with(Folders { memory: why(), ..good() }), "folders", Critical, text);
    let text = "cannot do it: no archive can be written, and files that were set aside stay in mfs-promote";
    expect(&with(Folders { archives: why(), ..good() }), "archive", Warning, text);
}

#[test]
fn a_machine_that_stands_back_says_why() {
    let note = StandsBack { since: 1_795_380_000, why: "no usable metadata".to_owned() };
    let since = when(1_795_380_000);
    let facts = Facts { stands_back: Ok(Some(note)), ..standby_facts(1349) };
    let text =
        format!("stands back since {since} (advskew 150), until this machine could serve again: no usable metadata");
    assert!(answers(&facts, "ucarp").contains(&(Warning, text)), "{:?}", answers(&facts, "ucarp"));
}
