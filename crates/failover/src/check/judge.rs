//! Judges the facts: the fact itself, and where it is not as it should be, the reason and the remedy.

use std::net::IpAddr;
use std::time::Duration;

use crate::machine::outcome::Outcome;
use crate::machine::record::Record;
use crate::sys::text::{bytes, count, human, when};
use crate::ucarp::Options;

use super::facts::{
    BootFault, Comparison, Copy, Duty, Facts, ForeignHook, History, NameFacts, NoCopy, Serving, Standby, UcarpFacts,
};
use super::finding::{Finding, Report, Role};

/// A metalogger downloads a new image every 24 hours (`META_DOWNLOAD_FREQ`).
const OLD: Duration = Duration::from_secs(26 * 3600);
const NO_VIP: &str = "virtual IP unknown without ucarp; start ucarp, or give --interface NAME --vip ADDRESS";

/// Answers every question.
pub(super) fn judge(facts: &Facts) -> Report {
    let mut findings = ucarp(&facts.ucarp, facts.role());
    findings.push(name(facts, &facts.name));
    findings.push(reconnect(facts));
    findings.extend(boot(&facts.boot));
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
        UcarpFacts::One { pid, options, foreign_hooks } => started(*pid, options, foreign_hooks),
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
            "{}, but not with -u .../vip-up; restart ucarp with -u /usr/bin/vip-up -d /usr/bin/vip-down",
            running_ucarps(*running)
        )),
        UcarpFacts::Unclear { ours, .. } => {
            critical(format!("{ours} ucarp processes start vip-up; choose one with --interface NAME --vip ADDRESS"))
        }
    }
}

fn running_ucarps(running: usize) -> String {
    format!("{running} ucarp {} here", if running == 1 { "process runs" } else { "processes run" })
}

/// How ucarp was started.
fn started(pid: u32, options: &Options, foreign_hooks: &[ForeignHook]) -> Vec<Finding> {
    let mut findings: Vec<_> = foreign_hooks
        .iter()
        .map(|ForeignHook { letter, program, called }| {
            let called = called.as_deref().map_or_else(
                || format!("started without -{letter}"),
                |called| format!("calls {called}, which is not {program}"),
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
            options.visible_password,
            "started with -p: the process list shows the password; put it into a file and restart ucarp with -o FILE",
        ),
        (
            options.preempt,
            "started with -P: it takes the virtual IP from a healthy master and interrupts the clients; restart it \
             without -P",
        ),
    ];
    findings.extend(advice.iter().filter(|(wrong, _)| *wrong).map(|(_, text)| Finding::warning("ucarp", *text)));
    if findings.is_empty() {
        let Options { vhid, advbase, deadratio, .. } = options;
        let text = format!(
            "running, pid {pid}, vhid {vhid}; declares a master dead after {} (advbase {advbase}, deadratio {deadratio})",
            human(options.dead_time())
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

fn serving(facts: &Facts, serving: &Serving) -> Vec<Finding> {
    vec![address(facts, serving), master(serving), standbys(serving)]
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

fn master(serving: &Serving) -> Finding {
    match &serving.master {
        Ok(info) => {
            let version = info.metadata_version.map(|version| format!(", version {version}"));
            Finding::ok("master", format!("MooseFS {}{}", info.release, version.unwrap_or_default()))
        }
        Err(why) => Finding::critical("master", format!("mfsmaster runs but does not answer ({why}); see its log")),
    }
}

fn standbys(serving: &Serving) -> Finding {
    let machines = match &serving.metaloggers {
        Ok(machines) => machines,
        Err(why) => return Finding::unknown("standbys", why.as_str()),
    };
    let names: Vec<_> = machines.iter().map(ToString::to_string).collect();
    match names.as_slice() {
        [] => Finding::warning(
            "standbys",
            "no metalogger of another machine is connected: no machine could take over; start mfsmetalogger on a standby",
        ),
        [one] => Finding::ok("standbys", format!("the metalogger of {one} is connected")),
        names => Finding::ok("standbys", format!("the metaloggers of {} are connected", names.join(", "))),
    }
}

fn standby(facts: &Facts, standby: &Standby) -> Vec<Finding> {
    let mut findings = vec![match standby.metalogger {
        Some(pid) => Finding::ok("metalogger", format!("running, pid {pid}")),
        None => Finding::critical("metalogger", "not running: this machine receives no changes; start mfsmetalogger"),
    }];
    match &standby.copy {
        Ok(copy) => {
            findings.push(compare(facts, standby, copy));
            findings.push(image(copy));
            findings.push(space(facts, copy));
            findings.extend(copy.warnings.iter().map(|text| Finding::warning("plan", text.as_str())));
            findings.push(Finding::ok("plan", format!("would serve version {}", copy.served_version)));
        }
        Err(NoCopy::Refused(why)) => {
            findings.push(Finding::critical("plan", format!("a promotion would be refused: {why}")));
        }
        Err(NoCopy::Unknown(why)) => findings.push(Finding::unknown("plan", why.as_str())),
    }
    findings
}

/// Whether the copy has everything that the serving master had a moment ago.
fn compare(facts: &Facts, standby: &Standby, copy: &Copy) -> Finding {
    let (server, data) = (facts.server, facts.data_path.display());
    let last = standby.in_sync.and_then(|time| u64::try_from(time).ok());
    let last = last.map(|time| format!("; last in sync {}", when(time))).unwrap_or_default();
    let end = copy.end_version;
    match standby.compare(copy) {
        Comparison::InSync { served } => Finding::ok("copy", format!("in sync with {server} at version {served}")),
        Comparison::NoVersion => {
            let why = "MooseFS 1.x does not report which version is served";
            Finding::ok("copy", format!("ends at version {end}; not compared: {why}"))
        }
        Comparison::Stale { served, lag } => Finding::critical(
            "copy",
            format!(
                "lacks {lag} changes: {server} serves version {served}, the copy ends at version {end}{last}; a \
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
            let text =
                format!("old files of {runs} are not archived yet, in {data}/mfs-promote; the next run archives them");
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
        "a takeover takes about {}: {} to declare the master dead, {} to settle, {} to load (measured by the {} of {})",
        human(takeover.total()),
        human(takeover.dead),
        human(takeover.settle),
        human(takeover.load),
        takeover.measured_by.kind,
        started_at(takeover.measured_by)
    );
    Finding::ok("time", text)
}

#[cfg(test)]
mod tests;
