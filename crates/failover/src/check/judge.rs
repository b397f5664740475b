//! Judges the facts: the fact itself, and where it is not as it should be, the reason and the remedy.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use crate::election::isolation::Outlook;
use crate::instance::Instance;
use crate::machine::outcome::Outcome;
use crate::machine::record::Record;
use crate::machine::standby_master::{Cold, HotState};
use crate::serving::missing::Followers;
use crate::standby::follow::MetaloggerConnection;
use crate::standby::stand_back::StandsBack;
use crate::sys::nft;
use crate::sys::text::{bytes, count, human, when};
use crate::ucarp::Options;

use super::facts::{
    BootFault, Comparison, Copy, Duty, Facts, Folders, ForeignHook, Former, History, Known, Load, NameFacts, NoCopy,
    Serving, Standby, UcarpFacts,
};
use super::finding::{Finding, Report, Role};

/// The most chunkservers that are named.
const MOST_NAMED: usize = 8;
/// A metalogger downloads a new image every 24 hours (`META_DOWNLOAD_FREQ`).
const OLD: Duration = Duration::from_secs(26 * 3600);
const UNKNOWN_RELEASE: &str = "which is not known to this program: the version that it serves cannot be read; upgrade \
                               mfs-promote";
const NO_VIP: &str = "virtual IP unknown without ucarp; start ucarp, or give --interface NAME --vip ADDRESS";

/// Answers every question.
pub(super) fn judge(facts: &Facts) -> Report {
    let mut findings = ucarp(&facts.ucarp, facts.role());
    findings.extend(stands_back(&facts.stands_back));
    findings.push(name(facts, &facts.name));
    findings.push(reconnect(facts));
    findings.extend(listens(facts));
    findings.extend(boot(&facts.boot));
    findings.extend(folders(&facts.folders));
    match &facts.duty {
        Duty::Serving(serving) => findings.extend(self::serving(facts, serving)),
        Duty::Standby(standby) => findings.extend(self::standby(facts, standby)),
    }
    findings.extend(history(facts, &facts.history));
    if facts.role() == Role::Standby {
        findings.push(time(facts));
    }
    Report { role: Some(facts.role()), findings, numbers: facts.numbers() }
}

fn ucarp(facts: &UcarpFacts, role: Role) -> Vec<Finding> {
    let critical = |text: String| vec![Finding::critical("ucarp", text)];
    match facts {
        UcarpFacts::One { pid, options, foreign_hooks, strangers } => {
            let mut findings = started(*pid, options, foreign_hooks);
            findings.extend(heard(options, strangers));
            findings
        }
        UcarpFacts::None => critical(match role {
            Role::Standby => "not running: this machine will not take over; start ucarp".to_owned(),
            Role::Serving => {
                "not running: nothing advertises this master, so another machine will take over; start ucarp".to_owned()
            }
        }),
        UcarpFacts::OtherAddress { name, vip, running } => {
            critical(format!("{}, but not for {vip} on {name}; start it", running_ucarps(*running)))
        }
        UcarpFacts::Unclear { running, ours: 0 } => critical(format!(
            "{}, but none with vip-up of this package; start ucarp with -u /usr/bin/vip-up -d /usr/bin/vip-down",
            running_ucarps(*running)
        )),
        UcarpFacts::Unclear { ours, .. } => {
            critical(format!("{ours} ucarp processes start vip-up; choose one with --interface NAME --vip ADDRESS"))
        }
    }
}

/// A note that cannot be read is no answer: `folders` says what is wrong there.
fn stands_back(noted: &Known<Option<StandsBack>>) -> Option<Finding> {
    let StandsBack { since, why } = noted.as_ref().ok()?.as_ref()?;
    let since = when(u64::try_from(*since).unwrap_or_default());
    let text = format!("stands back since {since} (advskew 150), until this machine could serve again: {why}");
    Some(Finding::warning("ucarp", text))
}

fn running_ucarps(running: usize) -> String {
    format!("{running} ucarp {} here", if running == 1 { "process runs" } else { "processes run" })
}

/// What is heard on the link with the virtual host id of our ucarp.
fn heard(options: &Options, strangers: &Known<BTreeSet<Ipv4Addr>>) -> Option<Finding> {
    match strangers {
        Ok(strangers) if strangers.is_empty() => None,
        Ok(strangers) => {
            let named = strangers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let Options { vhid, .. } = options;
            let text = format!(
                "{named} advertises vhid {vhid} too, with another virtual IP or password: another CARP or ucarp group needs \
                 another vhid, a machine of this group the same -a and password"
            );
            Some(Finding::warning("ucarp", text))
        }
        Err(why) => Some(Finding::warning(
            "ucarp",
            format!("advertisements of other machines cannot be told from forged ones: {why}"),
        )),
    }
}

/// How ucarp was started.
fn started(pid: u32, options: &Options, foreign_hooks: &[ForeignHook]) -> Vec<Finding> {
    let mut findings: Vec<_> = foreign_hooks
        .iter()
        .map(|ForeignHook { letter, program, called }| {
            let called = called.as_deref().map_or_else(
                || format!("started without -{letter}"),
                |called| format!("calls {called}, which is not {program} of this package"),
            );
            Finding::critical("ucarp", format!("{called}; restart it with -{letter} /usr/bin/{program}"))
        })
        .collect();
    let advice = [
        (
            !options.shutdown_script,
            "started without -z: when ucarp exits, the virtual IP stays on this machine; restart it with -z",
        ),
        (
            options.has_visible_password(),
            "started with -p: the process list shows the password; put it into a file and restart ucarp with -o FILE",
        ),
        (
            options.preempt,
            "started with -P: it takes the virtual IP from a healthy master and interrupts the clients; restart it \
             without -P",
        ),
        (
            options.neutral,
            "started with -n: it calls no vip-down when it starts, so a master or a virtual IP that was left here stays, and \
             nothing compares the copy with the serving master before the first election; restart it without -n",
        ),
    ];
    findings.extend(advice.iter().filter(|(wrong, _)| *wrong).map(|(_, text)| Finding::warning("ucarp", *text)));
    if findings.is_empty() {
        let Options { vhid, advbase, deadratio, .. } = options;
        let text = format!(
            "running, pid {pid}, vhid {vhid}; declares a master dead after {} (advbase {advbase}, deadratio {deadratio})",
            human(options.declares_dead())
        );
        findings.push(Finding::ok("ucarp", text));
    }
    findings
}

fn name(facts: &Facts, NameFacts { host, addresses }: &NameFacts) -> Finding {
    let Some(vip) = facts.vip else { return Finding::unknown("name", NO_VIP) };
    let remedy = format!("put \"{vip} {host}\" into /etc/hosts on every machine");
    match addresses.as_ref().map(|addresses| addresses.first()) {
        Ok(Some(IpAddr::V4(first))) if *first == vip => Finding::ok("name", format!("{host} resolves to {vip}")),
        Ok(Some(first)) => {
            Finding::critical("name", format!("{host} resolves to {first}, not to the virtual IP {vip}; {remedy}"))
        }
        Ok(None) => Finding::critical("name", format!("{host} resolves to no address; {remedy}")),
        Err(why) => Finding::critical("name", format!("cannot resolve {host} ({why}); {remedy}")),
    }
}

/// Advice only: after a failover clients wait for the chunkservers, and these for their next attempt to connect.
fn reconnect(facts: &Facts) -> Finding {
    let files: Vec<_> = facts.slow_reconnect.iter().map(|path| path.display().to_string()).collect();
    Finding::ok(
        "reconnect",
        if files.is_empty() {
            "1 s here; set MASTER_RECONNECTION_DELAY = 1 on every chunkserver as well".to_owned()
        } else {
            let files = files.join(", ");
            format!("for a faster failover, set MASTER_RECONNECTION_DELAY = 1 in {files} and on every chunkserver")
        },
    )
}

fn boot(faults: &[BootFault]) -> Vec<Finding> {
    if faults.is_empty() {
        return vec![Finding::ok("boot", "the metalogger starts at boot, the master does not")];
    }
    let text = |BootFault { daemon, is_master, remedy }: &BootFault| {
        let fault = if *is_master {
            "starts at boot and would serve old metadata; only a promotion may start it"
        } else {
            "does not start at boot, so after a reboot this machine has no current copy"
        };
        let remedy = remedy.as_ref().map(|command| format!("; run: {command}")).unwrap_or_default();
        Finding::warning("boot", format!("{daemon} {fault}{remedy}"))
    };
    faults.iter().map(text).collect()
}

/// What cannot be written to; nothing where all can.
fn folders(Folders { moves, calls, memory, archives }: &Folders) -> Vec<Finding> {
    let critical = |why: &String, then: &str| Finding::critical("folders", format!("{why}: {then}"));
    let mut findings = Vec::new();
    findings.extend(moves.as_ref().err().map(|why| critical(why, "a promotion would be refused")));
    findings.extend(calls.as_ref().err().map(|why| {
        let then = format!(
            "vip-up would give up, and stop ucarp; make {} writable, or room there",
            Instance::default().run_folder().display()
        );
        critical(why, &then)
    }));
    findings.extend(memory.as_ref().err().map(|why| {
        let then = format!(
            "a promotion goes on, but knows nothing of what this machine noted (flapping, a stale copy, machines of the \
             group); make {} writable, or room there",
            Instance::default().state_folder().display()
        );
        critical(why, &then)
    }));
    findings.extend(archives.as_ref().err().map(|why| {
        let then = "no archive can be written, and files that were set aside stay in mfs-promote";
        Finding::warning("archive", format!("{why}: {then}"))
    }));
    findings
}

/// Whether clients and other machines reach the master of this machine; nothing where it listens everywhere.
fn listens(facts: &Facts) -> Option<Finding> {
    let (host, vip) = (facts.listens, facts.vip?);
    let set = "set MATOCL_LISTEN_HOST = * in mfsmaster.cfg";
    match host {
        Ipv4Addr::UNSPECIFIED => None,
        host if host == vip => Some(Finding::warning(
            "listen",
            format!(
                "the master listens for clients on {vip} only, so other machines cannot ask it on its own address; {set}"
            ),
        )),
        host => Some(Finding::critical(
            "listen",
            format!("the master listens for clients on {host} only, and they connect to {vip}: none is served; {set}"),
        )),
    }
}

/// What a promotion would be refused for although the copy is good; nothing where something proves the network.
fn network(outlook: &Known<Outlook>) -> Option<Finding> {
    match outlook {
        Ok(Outlook::Unproved(why)) => Some(Finding::critical("network", why.to_string())),
        Ok(Outlook::Unasked | Outlook::Proved(_)) => None,
        Err(why) => Some(Finding::warning("network", format!("cannot tell what proves the network: {why}"))),
    }
}

fn serving(facts: &Facts, serving: &Serving) -> Vec<Finding> {
    let mut findings = vec![address(facts, serving)];
    findings.extend(clients(facts, serving));
    findings.extend([master(serving), standbys(serving), chunkservers(serving)]);
    findings
}

/// Whether clients reach this machine.
fn address(facts: &Facts, serving: &Serving) -> Finding {
    let (Some((name, held)), Some(vip)) = (&serving.address, facts.vip) else {
        return Finding::unknown("address", NO_VIP);
    };
    match held {
        Ok(true) => Finding::ok("address", format!("{vip} is on {name}")),
        Ok(false) => Finding::critical(
            "address",
            format!(
                "mfsmaster runs here, but {vip} is not on {name}: no client reaches it, and no metalogger copies \
                 changes to this machine; if another machine serves, run mfs-promote --demote here"
            ),
        ),
        Err(why) => Finding::unknown("address", why.as_str()),
    }
}

/// Whether clients that reach this machine are answered.
fn clients(facts: &Facts, serving: &Serving) -> Option<Finding> {
    let (Some((_, Ok(true))), Some(vip)) = (&serving.address, facts.vip) else { return None };
    Some(match &serving.lease {
        Ok(nft::State::Open) => Finding::ok("clients", "answered, as long as other machines hear this one"),
        Ok(nft::State::Closed) => Finding::critical(
            "clients",
            format!(
                "answers are held: no other machine hears this one, another one may serve, or no mfs-promote works here. The \
                 log says which. If none works here, start ucarp again; with no other machine that could serve, run: nft \
                 delete table ip moosefs-ucarp-{vip}"
            ),
        ),
        Ok(nft::State::None) => Finding::warning(
            "clients",
            "answered without a lease, as after a promotion by hand or without nf_tables: this machine goes on while it is \
             cut off and another one serves; if nf_tables is there, start ucarp again",
        ),
        Err(why) => Finding::warning(
            "clients",
            format!("answered without a lease, since the kernel cannot hold answers back ({why}); load nf_tables"),
        ),
    })
}

fn master(serving: &Serving) -> Finding {
    match &serving.master {
        Ok(info) if info.is_of_unknown_release() => {
            Finding::warning("master", format!("MooseFS {}, {UNKNOWN_RELEASE}", info.release))
        }
        Ok(info) => {
            let version = info.metadata_version.map(|version| format!(", version {version}"));
            Finding::ok("master", format!("MooseFS {}{}", info.release, version.unwrap_or_default()))
        }
        // Most masters that do not answer are busy, and this one look does not show since when.
        Err(why) => Finding::warning(
            "master",
            format!(
                "mfsmaster is running and does not answer ({why}): it may be loading or storing its image, or be short of \
                 memory; if it does no work for {}, this machine stops serving; see its log",
                human(serving.patience)
            ),
        ),
    }
}

fn standbys(serving: &Serving) -> Finding {
    let Followers { metaloggers, metaloggers_missing, .. } = match &serving.followers {
        Ok(followers) => followers,
        Err(why) => return Finding::unknown("standbys", why.as_str()),
    };
    let connected: Vec<_> = metaloggers.iter().map(ToString::to_string).collect();
    let missing: Vec<_> = metaloggers_missing.iter().map(ToString::to_string).collect();
    let connected = match connected.as_slice() {
        [] if missing.is_empty() => {
            return Finding::warning(
                "standbys",
                "no metalogger of another machine is connected: no machine could take over; start mfsmetalogger on a \
                 standby",
            );
        }
        [] => "no metalogger of another machine is connected: no machine could take over".to_owned(),
        [one] => format!("the metalogger of {one} is connected"),
        names => format!("the metaloggers of {} are connected", names.join(", ")),
    };
    if missing.is_empty() {
        return Finding::ok("standbys", connected);
    }
    let missing = missing.join(", ");
    let text = format!("{connected}; not those of {missing}, which were within a day: run mfs-promote --check there");
    Finding::warning("standbys", text)
}

fn chunkservers(serving: &Serving) -> Finding {
    let Followers { chunkservers, chunkservers_missing, .. } = match &serving.followers {
        Ok(followers) => followers,
        Err(why) => return Finding::unknown("chunkservers", why.as_str()),
    };
    let connected = chunkservers.len();
    if chunkservers_missing.is_empty() {
        return Finding::ok("chunkservers", format!("{connected} connected, none is missing"));
    }
    let more = chunkservers_missing.len().saturating_sub(MOST_NAMED);
    let names: Vec<_> = chunkservers_missing.iter().take(MOST_NAMED).map(ToString::to_string).collect();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let missing = format!("not connected: {}{more}; {connected} connected", names.join(", "));
    if connected == 0 {
        return Finding::critical("chunkservers", format!("{missing}: no client can read or write; start one"));
    }
    Finding::warning(
        "chunkservers",
        format!("{missing}; start those that are missing, or remove them from the metadata (mfscli -RC)"),
    )
}

fn standby(facts: &Facts, standby: &Standby) -> Vec<Finding> {
    let mut findings = vec![metalogger(facts, standby)];
    match &standby.copy {
        Ok(copy) => {
            findings.push(compare(facts, standby, copy));
            findings.push(image(copy));
            findings.push(space(facts, copy));
            findings.extend(copy.warnings.iter().map(|text| Finding::warning("plan", text.as_str())));
            findings.extend(network(&copy.network));
            findings.extend(hot(&standby.hot, copy));
            findings.push(Finding::ok("plan", format!("would serve version {}", copy.served_version)));
        }
        Err(NoCopy::Refused { why, former }) => {
            let remedy = former.as_ref().map(|former| left_behind(facts, standby, former)).unwrap_or_default();
            findings.push(Finding::critical("plan", format!("a promotion would be refused: {why}{remedy}")));
        }
        Err(NoCopy::Unknown(why)) => findings.push(Finding::unknown("plan", why.as_str())),
    }
    findings
}

/// Whether a takeover would have to load the metadata first; nothing where no hot standby is kept.
fn hot(report: &Known<Option<HotState>>, copy: &Copy) -> Option<Finding> {
    let name = "hot standby";
    Some(match report.as_ref().map(Option::as_ref) {
        Ok(None) => return None,
        Ok(Some(HotState::Hot { since, version, memory, .. })) => {
            let behind = match copy.end_version.changes_since(*version) {
                0 => "has all changes of the copy".to_owned(),
                changes => format!("is {changes} changes behind the copy"),
            };
            let since = when(u64::try_from(*since).unwrap_or_default());
            Finding::ok(name, format!("hot since {since}, {}, {behind}", bytes(*memory)))
        }
        Ok(Some(HotState::Cold { why, kind })) => match kind {
            Cold::NotReplayed => {
                let text = format!("the copy here cannot be replayed, so this machine could not serve: {why}");
                Finding::critical(name, text)
            }
            Cold::ForNow | Cold::Refused => {
                Finding::warning(name, format!("cold: {why}. A takeover has to load the metadata first"))
            }
            Cold::NotHere => Finding::ok(name, format!("cold: {why}. A takeover has to load the metadata first")),
        },
        Err(why) => Finding::unknown(name, why.as_str()),
    })
}

/// What becomes of images that are kept of a former file system.
fn left_behind(facts: &Facts, standby: &Standby, former: &Former) -> String {
    let right = if standby.master.as_ref().is_ok_and(|master| former.is_left_by(master)) {
        format!("the master on {} serves what the other files have", facts.server)
    } else {
        "make sure that the other files are those that must be served".to_owned()
    };
    let (data, files) = (facts.data_path.display(), former.files.join(" "));
    format!(
        ". Only kept images are in the way: {right}; run: cd {data} && mkdir -p former && mv {files} former; or wait: the \
         metalogger replaces them within {}",
        human(standby.kept_for)
    )
}

/// Whether changes arrive here.
fn metalogger(facts: &Facts, standby: &Standby) -> Finding {
    let Some(pid) = standby.metalogger else {
        return Finding::critical("metalogger", "not running: this machine receives no changes; start mfsmetalogger");
    };
    let (server, name) = (facts.server.ip(), &facts.name.host);
    match &standby.connection {
        Ok(MetaloggerConnection::Follows) => Finding::ok("metalogger", format!("running, pid {pid}, connected")),
        // That the master does not answer is said of the copy.
        Err(_) => Finding::ok("metalogger", format!("running, pid {pid}")),
        Ok(MetaloggerConnection::None) => Finding::critical(
            "metalogger",
            format!(
                "running, pid {pid}, but not connected to the master on {server}: this machine receives no changes; see \
                 its log, and what {name} resolves to"
            ),
        ),
        Ok(MetaloggerConnection::Stale) => Finding::critical(
            "metalogger",
            format!(
                "running, pid {pid}, but connected to a master that is gone: it does not follow the one on {server}, and \
                 a failover would serve an old history; restart mfsmetalogger"
            ),
        ),
    }
}

/// Whether the copy has everything that the serving master had a moment ago.
fn compare(facts: &Facts, standby: &Standby, copy: &Copy) -> Finding {
    let (server, data) = (facts.server, facts.data_path.display());
    let last = standby.in_sync.and_then(|time| u64::try_from(time).ok());
    let last = last.map(|time| format!("; last in sync {}", when(time))).unwrap_or_default();
    let end = copy.end_version;
    match standby.compare(copy) {
        Comparison::InSync { served } => Finding::ok("copy", format!("in sync with {server} at version {served}")),
        Comparison::NoVersion(release) if release.restores_itself() => Finding::warning(
            "copy",
            format!("ends at version {end}; not compared: {server} runs MooseFS {release}, {UNKNOWN_RELEASE}"),
        ),
        Comparison::NoVersion(_) => {
            let why = "MooseFS 1.x does not report which version is served";
            Finding::ok("copy", format!("ends at version {end}; not compared: {why}"))
        }
        Comparison::Stale { served, behind } => Finding::critical(
            "copy",
            format!(
                "{behind}: {server} serves version {served}, the copy ends at version {end}{last}; a \
                 failover would lose them; check mfsmetalogger and its connection to {server}"
            ),
        ),
        Comparison::NoMaster(why) => Finding::critical(
            "copy",
            format!("no serving master ({why}){last}; run mfs-promote --status on the other machines"),
        ),
        Comparison::OtherFileSystem { ours, served } => Finding::critical(
            "copy",
            format!(
                "of another file system: metaid {ours:#x} here, {served:#x} on {server}; move the metadata files out \
                 of {data} and restart mfsmetalogger"
            ),
        ),
        Comparison::NotFollowing => Finding::critical(
            "copy",
            "the newest metadata here is this machine's own, not the metalogger's: the copy does not follow the \
             serving master; restart mfsmetalogger",
        ),
    }
}

/// How old the image is, and how many changes a promotion has to replay.
fn image(copy: &Copy) -> Finding {
    let Some(age) = copy.image_age else {
        return Finding::ok("image", "none yet: a new file system, replayed from its first change");
    };
    let text = format!("{} old, {} changes to replay", human(Duration::from_secs(age.as_secs())), copy.changes);
    if age <= OLD {
        return Finding::ok("image", text);
    }
    Finding::warning(
        "image",
        format!("{text}: the metalogger has stopped downloading images; check META_DOWNLOAD_FREQ and restart it"),
    )
}

fn space(facts: &Facts, copy: &Copy) -> Finding {
    let space = match &copy.space {
        Ok(space) => space,
        Err(why) => return Finding::unknown("space", why.as_str()),
    };
    let text = format!("{} needed, {} free", bytes(space.needed()), bytes(space.free));
    let data = facts.data_path.display();
    if !space.fits() {
        Finding::critical("space", format!("{text} in {data}: a promotion would fail; free space there"))
    } else if !space.fits_next_image() {
        Finding::warning("space", format!("{text} in {data}: too little for the master's next image; free space there"))
    } else {
        Finding::ok("space", text)
    }
}

/// What earlier runs left, and how they ended.
fn history(facts: &Facts, history: &History) -> Vec<Finding> {
    let mut findings = Vec::new();
    match &history.interrupted {
        Ok(interrupted) => {
            findings.extend(interrupted.iter().map(|text| Finding::warning("runs", text.as_str())));
        }
        Err(why) => findings.push(Finding::unknown("runs", why.as_str())),
    }
    match &history.not_archived {
        Ok(0) => (),
        Ok(runs) => {
            let (runs, data) = (count(*runs, "run"), facts.data_path.display());
            let remedy = format!("make room, or make {data}/bak a link to another disk");
            let next = match history.no_room {
                Some(room) => format!("there is not enough space for the archive ({room}); {remedy}"),
                // What does not get smaller shows that only while it is packed.
                None if history.last_archive_failed() => {
                    format!("the last run could not archive them, see its log; if the disk is full, {remedy}")
                }
                None => "the next run archives them".to_owned(),
            };
            let text = format!("old files of {runs} are not archived yet, in {data}/mfs-promote; {next}");
            findings.push(Finding::warning("archive", text));
        }
        Err(why) => findings.push(Finding::unknown("archive", why.as_str())),
    }
    match &history.records {
        Ok(_) => {
            findings.push(history.last_run().map_or_else(|| Finding::ok("runs", "none yet"), last_run));
            findings.push(rehearsal(history.rehearsal()));
        }
        Err(why) => findings.push(Finding::unknown("runs", why.as_str())),
    }
    findings
}

fn started_at(record: &Record) -> String {
    when(u64::try_from(record.started).unwrap_or_default())
}

fn last_run(last: &Record) -> Finding {
    let (role, at, outcome) = (last.kind, started_at(last), last.outcome);
    match &last.error {
        Some(why) => {
            let outcome = Some(outcome).filter(|outcome| *outcome != Outcome::Failed);
            let outcome = outcome.map(|outcome| format!(" ({outcome})")).unwrap_or_default();
            Finding::warning("runs", format!("the last {role}, at {at}, failed{outcome}: {why}"))
        }
        None => Finding::ok("runs", format!("the last {role}, at {at}, ended: {outcome}")),
    }
}

fn rehearsal(last: Option<&Record>) -> Finding {
    let Some(last) = last else {
        return Finding::ok("rehearsal", "none among the last 50 runs; run mfs-promote --rehearse");
    };
    let at = started_at(last);
    match &last.error {
        None => Finding::ok("rehearsal", format!("succeeded at {at}")),
        Some(why) => {
            let text = format!("failed at {at}: {why}; correct the cause, then run mfs-promote --rehearse");
            Finding::warning("rehearsal", text)
        }
    }
}

/// From the death of a master to serving here.
fn time(facts: &Facts) -> Finding {
    let Some(takeover) = facts.takeover() else {
        let missing = match facts.ucarp {
            UcarpFacts::One { .. } => "until a rehearsal measures it; run mfs-promote --rehearse",
            _ => "without ucarp",
        };
        return Finding::ok("time", format!("duration of a takeover unknown {missing}"));
    };
    let text = format!(
        "a takeover takes about {}: {} to declare the master dead, {} at most to settle",
        human(takeover.total()),
        human(takeover.dead),
        human(takeover.settle)
    );
    let (load, start, by) = match takeover.load {
        Load::Done { took } => {
            return Finding::ok("time", format!("{text}; the metadata is loaded, which took {}", human(took)));
        }
        Load::Measured { took, start, by } => (took, start, by),
    };
    let text = format!("{text}, {} to load (measured by the {} of {})", human(load), by.kind, started_at(by));
    let most = facts.start.most;
    if start > most {
        let text = format!(
            "{text}; a promotion waits {} at most for the master to load, so it would fail; raise START_TIMEOUT",
            human(most)
        );
        return Finding::warning("time", text);
    }
    Finding::ok("time", text)
}

#[cfg(test)]
mod tests;
