//! What an administrator asks for by hand: a rehearsal, a listing for programs, and going on in spite of a loss.

use std::fs;
use std::path::Path;

use lab::log_lines::{self, REHEARSAL_CONFIG, REHEARSAL_FOLDER};
use lab::{Cluster, LAST_RETRY, Result};
use nix::sys::signal::Signal;

use crate::SOON;
use crate::archived;
use crate::copy_left_alone;
use crate::nothing_lost;

/// Where the real master is when a fake one is on PATH.
const REAL_MASTER: &str = "/usr/lib/real/mfsmaster";

/// An mfsmaster that does everything but end a restore.
const ENDLESS_RESTORE: &str =
    "#!/bin/sh\ncase \"$*\" in *restore) tail -f /dev/null ;; *) exec /usr/lib/real/mfsmaster \"$@\" ;; esac\n";

/// A cluster on whose m2 no restore ever ends by itself.
fn cluster_with_endless_restore() -> Result<Cluster> {
    let real = fs::read("/usr/sbin/mfsmaster").expect("mfsmaster");
    Cluster::build()
        .masters(2)
        .file_on("m2", REAL_MASTER, real, 0o755)
        .file_on("m2", "/usr/sbin/mfsmaster", ENDLESS_RESTORE, 0o755)
        .start()
}

/// Starts a rehearsal on m2 in the background and waits until its restore runs.
fn rehearsal_at_work(cluster: &Cluster) -> Result<()> {
    cluster.must("m2", &["sh", "-c", "setsid mfs-promote --rehearse > /var/lib/lab/rehearsal 2>&1 &"])?;
    cluster.expect("the restore to run", SOON, || cluster.daemon("m2", "tail").ok())?;
    // What `nothing_left` looks for is there now.
    assert!(cluster.files("m2")?.iter().any(|name| name.starts_with(REHEARSAL_FOLDER)));
    let elsewhere = cluster.must("m2", &["ls", "/run/moosefs-ucarp"])?;
    assert!(elsewhere.contains(REHEARSAL_CONFIG), "{elsewhere}");
    Ok(())
}

/// Nothing of a rehearsal is left on a machine.
fn nothing_left(cluster: &Cluster, machine: &str) -> Result<()> {
    let files = cluster.files(machine)?;
    assert!(!files.iter().any(|name| name.starts_with(REHEARSAL_FOLDER)), "{files:?}");
    let elsewhere = cluster.must(machine, &["ls", "/run/moosefs-ucarp"])?;
    assert!(!elsewhere.contains(REHEARSAL_CONFIG), "{elsewhere}");
    Ok(())
}

/// The daemons of a machine that a rehearsal must not touch. Not an mfsmaster that a run has started, to ask for its version.
fn daemons(cluster: &Cluster, machine: &str) -> [Option<lab::Daemon>; 3] {
    let all = ["mfsmaster", "mfsmetalogger", "ucarp"].map(|program| cluster.daemon(machine, program).ok());
    let parent = all[2].as_ref().map(|ucarp| ucarp.parent);
    all.map(|one| one.filter(|one| Some(one.parent) == parent))
}

/// A value of a JSON text, by Python: the reader that every administrator has.
fn json(cluster: &Cluster, machine: &str, verb: &str, expression: &str) -> Result<String> {
    let script = format!(
        "mfs-promote {verb} --json | python3 -c 'import json,sys; d=json.load(sys.stdin); print({expression})'"
    );
    Ok(cluster.must(machine, &["sh", "-c", &script])?.trim().to_owned())
}

#[test]
fn a_rehearsal_under_load_touches_nothing() -> Result<()> {
    let cluster = Cluster::build().masters(2).start()?;
    let load = cluster.client().keep_writing()?;
    load.wait_for_progress(LAST_RETRY)?;
    let (before, files) = ([daemons(&cluster, "m1"), daemons(&cluster, "m2")], cluster.files("m2")?);
    for machine in ["m2", "m1"] {
        let output = cluster.run(machine, &["mfs-promote", "--rehearse"])?;
        let [text, log] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        eprintln!("{machine}\n{log}{text}");
        assert_eq!(output.status.code(), Some(0), "{log}{text}");
        assert!(text.contains(log_lines::AS_PLANNED) && text.ends_with("a promotion would serve\n"), "{text}");
        assert!(text.contains("inodes ("), "{text}");
        nothing_left(&cluster, machine)?;
    }
    assert_eq!([daemons(&cluster, "m1"), daemons(&cluster, "m2")], before);
    assert_eq!(cluster.files("m2")?, files);
    assert_eq!(cluster.serving(), ["m1"]);
    let status = cluster.must("m2", &["mfs-promote", "--status"])?;
    assert!(status.contains(log_lines::REHEARSED), "{status}");
    load.wait_for_progress(LAST_RETRY)?;
    nothing_lost(&cluster, &load)
}

#[test]
fn a_failover_ends_a_rehearsal_and_does_not_wait_for_it() -> Result<()> {
    let cluster = cluster_with_endless_restore()?;
    let load = cluster.client().keep_writing()?;
    load.wait_for_progress(LAST_RETRY)?;
    rehearsal_at_work(&cluster)?;
    cluster.power_off("m1")?;
    cluster.wait_for_log("m2", log_lines::REHEARSAL_TOLD, SOON)?;
    // It watches its master for some seconds after it serves.
    let now = json(&cluster, "m2", "--status", "d[\"at_work\"][\"kind\"], d[\"interrupted_runs\"]")?;
    assert_eq!(now, "promotion []");
    // The rehearsal's restore would never end.
    cluster.wait_for_serving("m2", SOON)?;
    cluster.wait_for_log("m2", log_lines::SERVING, SOON)?;
    cluster.expect("the rehearsal to be over", SOON, || rehearsal_cancelled(&cluster))?;
    assert!(cluster.daemon("m2", "tail").is_err(), "its restore was killed");
    nothing_left(&cluster, "m2")?;
    let runs = json(&cluster, "m2", "--status", "sorted((r[\"kind\"], r[\"outcome\"]) for r in d[\"runs\"])[1:]")?;
    assert_eq!(runs, "[('promotion', 'serving'), ('rehearsal', 'cancelled')]");
    let archives = archived(&cluster, "m2")?;
    assert!(!archives.contains(REHEARSAL_FOLDER), "{archives}");
    load.wait_for_progress(LAST_RETRY)?;
    nothing_lost(&cluster, &load)
}

fn rehearsal_cancelled(cluster: &Cluster) -> Option<()> {
    let text = cluster.must("m2", &["cat", "/var/lib/lab/rehearsal"]).ok()?;
    text.contains(log_lines::REHEARSAL_CANCELLED).then_some(())
}

#[test]
fn a_killed_rehearsal_is_removed_by_the_next_run_and_never_archived() -> Result<()> {
    let cluster = cluster_with_endless_restore()?;
    cluster.wait_for_metalogger_in_step("m2", SOON)?;
    rehearsal_at_work(&cluster)?;
    cluster.signal_verb("m2", "--rehearse", Signal::SIGKILL)?;
    let files = cluster.files("m2")?;
    assert!(files.contains(&format!("{REHEARSAL_FOLDER}/restore/metadata.mfs.back")), "{files:?}");
    let dry_run = cluster.run("m2", &["mfs-promote", "--dry-run"])?;
    assert_eq!(dry_run.status.code(), Some(0), "it does not hinder a promotion: {dry_run:?}");
    cluster.power_off("m1")?;
    cluster.wait_for_log("m2", log_lines::SERVING, SOON)?;
    nothing_left(&cluster, "m2")?;
    let archives = archived(&cluster, "m2")?;
    assert_eq!(archives.lines().filter(|line| line.ends_with(".mfs.back")).count(), 1, "{archives}");
    Ok(())
}

#[test]
fn a_signal_ends_a_rehearsal_and_leaves_nothing() -> Result<()> {
    let cluster = cluster_with_endless_restore()?;
    let before = [daemons(&cluster, "m2"), daemons(&cluster, "m1")];
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        rehearsal_at_work(&cluster)?;
        cluster.signal_verb("m2", "--rehearse", signal)?;
        let over = || cluster.verb("m2", "--rehearse").is_err().then_some(());
        cluster.expect("the rehearsal to end", SOON, over)?;
        nothing_left(&cluster, "m2")?;
        assert!(cluster.daemon("m2", "tail").is_err(), "its restore is over");
    }
    assert_eq!([daemons(&cluster, "m2"), daemons(&cluster, "m1")], before);
    Ok(())
}

#[test]
fn a_rehearsal_on_a_terminal_shows_that_it_is_at_work() -> Result<()> {
    let cluster = cluster_with_endless_restore()?;
    cluster.wait_for_log("m2", log_lines::DEMOTION_ENDED, SOON)?;
    let on_a_terminal = "setsid script -qfc 'mfs-promote --rehearse' /dev/null > /var/lib/lab/terminal 2>&1 &";
    cluster.must("m2", &["sh", "-c", on_a_terminal])?;
    cluster.expect("a line that counts the seconds", SOON, || {
        let shown = cluster.must("m2", &["cat", "/var/lib/lab/terminal"]).ok()?;
        shown.contains(log_lines::RESTORING).then_some(())
    })?;
    cluster.signal_verb("m2", "--rehearse", Signal::SIGTERM)?;
    cluster.expect("the rehearsal to end", SOON, || cluster.verb("m2", "--rehearse").is_err().then_some(()))
}

#[test]
fn listings_for_programs_agree_with_those_for_people() -> Result<()> {
    let cluster = Cluster::build().masters(2).start()?;
    let load = cluster.client().keep_writing()?;
    load.wait_for_progress(LAST_RETRY)?;
    load.stop()?;
    assert_eq!(load.errors()?, []);
    cluster.wait_for_metalogger_in_step("m2", SOON)?;
    cluster.wait_for_log("m2", log_lines::DEMOTION_ENDED, SOON)?;
    let text = cluster.must("m2", &["mfs-promote", "--dry-run"])?;
    let of = |expression: &str| json(&cluster, "m2", "--dry-run", expression);
    assert_eq!(of("d[\"would_succeed\"], d[\"obstacles\"], d[\"refusal\"], d[\"format\"]")?, "True [] None 1");
    for (expression, line) in [
        ("d[\"plan\"][\"end_version\"]", "ends at     version {}, "),
        ("d[\"plan\"][\"served_version\"]", "served as   version {} ("),
        ("d[\"plan\"][\"changes\"]", ", {} changes, last change "),
        ("d[\"plan\"][\"base_file\"]", "start from  {} (ml, version "),
        ("d[\"images\"][0][\"metaid\"]", "complete, metaid {}"),
        ("len(d[\"plan\"][\"set_aside\"])", "set aside   {} files: "),
    ] {
        let line = line.replace("{}", &of(expression)?);
        assert!(text.contains(&line), "{line} in {text}");
    }
    let metalogger = of("d[\"metalogger_pid\"]")?;
    assert_eq!(
        json(&cluster, "m2", "--status", "d[\"metalogger_pid\"], d[\"master\"], d[\"runs\"][0][\"kind\"]")?,
        format!("{metalogger} None demotion")
    );
    let version = cluster.master_version("m1")?.to_string();
    assert_eq!(json(&cluster, "m1", "--status", "d[\"master\"][\"version\"]")?, version);

    // What cannot be served is refused in both, with the same words.
    let data = cluster.data("m2")?;
    fs::write(data.join("changelog_ml.0.mfs"), "9000000: 1795000000|ACCESS(1)\n").expect("a log far away");
    let refused = cluster.run("m2", &["mfs-promote", "--dry-run", "--json"])?;
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert_eq!(of("d[\"refusal\"][\"reason\"], d[\"plan\"], d[\"would_succeed\"]")?, "hole None False");
    let text = cluster.run("m2", &["mfs-promote", "--dry-run"])?;
    assert!(String::from_utf8_lossy(&text.stdout).contains(&of("d[\"obstacles\"][0]")?), "{text:?}");
    Ok(())
}

/// Takes ten changes out of the middle of what m2's metalogger has written, and says which.
fn make_a_hole(data: &Path) -> (u64, u64) {
    let log = data.join("changelog_ml.0.mfs");
    let text = fs::read_to_string(&log).expect("the metalogger's log");
    let lines: Vec<&str> = text.lines().collect();
    let at = lines.len() / 2;
    let id = |line: &str| line.split(':').next().and_then(|id| id.parse().ok()).expect("an id");
    let missing = (id(lines[at]), id(lines[at + 9]));
    let rest: String = [&lines[..at], &lines[at + 10..], &[""]].concat().join("\n");
    fs::write(&log, rest).expect("a log with a hole");
    missing
}

#[test]
fn a_loss_is_refused_until_the_administrator_allows_it() -> Result<()> {
    let (cluster, _) = copy_left_alone()?;
    let (first, last) = make_a_hole(&cluster.data("m2")?);

    let mark = cluster.mark();
    cluster.power_off("m1")?;
    cluster.wait_for_log("m2", &format!("promotion failed.*changes {first} to {last} are missing"), SOON)?;
    // ucarp's last vip-down comes after the promotion: then nothing acts any more.
    cluster.wait_for_log_since(mark, "m2", log_lines::UCARP_STOPPED, SOON)?;
    cluster.wait_for_log_since(mark, "m2", log_lines::DEMOTION_ENDED, SOON)?;
    assert!(!cluster.holds_vip("m2"));
    assert_eq!(cluster.master_pid("m2"), None);

    let refused = cluster.run("m2", &["mfs-promote", "--dry-run"])?;
    let text = String::from_utf8_lossy(&refused.stdout);
    assert!(refused.status.code() == Some(1) && text.contains(log_lines::LOSS_ADVICE), "{text}");
    let shown = cluster.must("m2", &["mfs-promote", "--dry-run", "--allow-data-loss"])?;
    eprintln!("{text}{shown}");
    let left = format!("lost: changes {} to ", last + 1);
    let missing = format!(" of changelog_ml.0.mfs are not served: changes {first} to {last} are missing");
    assert!(shown.contains(&left) && shown.contains(&missing), "{shown}");

    cluster.must("m2", &["ip", "address", "add", "172.16.0.99/24", "dev", "eth0"])?;
    let by_hand = ["mfs-promote", "--allow-data-loss", "--interface", "eth0", "--vip", "172.16.0.99"];
    let promoted = cluster.run("m2", &by_hand)?;
    let log = String::from_utf8_lossy(&promoted.stderr);
    assert_eq!(promoted.status.code(), Some(0), "{log}");
    assert!(log.contains(log_lines::LOSS_WARNED) && log.contains(&left) && log.contains(&missing), "{log}");
    assert!(cluster.master_version("m2")? >= first);
    let archives = archived(&cluster, "m2")?;
    assert!(archives.contains("changelog_ml.0.mfs"), "what was lost is kept: {archives}");
    Ok(())
}
