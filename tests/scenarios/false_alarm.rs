//! Nobody hears the serving machine for a while, and nobody takes its place: nothing is stopped there, answers wait, and
//! clients go on soon after.

use std::time::Duration;

use lab::{Builder, Cluster, LAST_RETRY, Moment, Result, Workload, log_lines};
use nix::sys::signal::Signal;

use crate::{SOON, nothing_lost, wait_for_whole_copy};

/// m1 serves, and one of its runs watches over it.
fn serving(builder: Builder) -> Result<(Cluster, Workload)> {
    let cluster = builder.start()?;
    cluster.wait_for_log("m1", log_lines::ALREADY_SERVING, SOON)?;
    let load = cluster.client().keep_writing()?;
    Ok((cluster, load))
}

/// The master of m1 is the one that it was, and clients reach it.
fn goes_on(cluster: &Cluster, load: &Workload, pid: Option<i32>) -> Result<()> {
    load.wait_for_progress(LAST_RETRY)?;
    cluster.expect("m1 alone to serve", SOON, || {
        let alone = cluster.masters().all(|machine| machine.name == "m1" || !cluster.holds_vip(&machine.name));
        (alone && cluster.serving() == ["m1"] && cluster.answers("m1")).then_some(())
    })?;
    assert_eq!(cluster.master_pid("m1"), pid, "nothing was stopped");
    Ok(())
}

/// How long the client waited beyond the end of what began at `begun` and ended at `over`.
fn report(what: &str, load: &Workload, begun: Moment, over: Moment) -> Result<()> {
    let waited = load.outage(begun)?;
    let [metadata, writes] = [waited.metadata, waited.writes].map(|all| all.saturating_sub(over - begun));
    eprintln!("{what} for {:.0?}; beyond it metadata waited {metadata:.1?}, writes {writes:.1?}", over - begun);
    Ok(())
}

#[test]
fn the_switch_passes_nothing_for_a_while() -> Result<()> {
    let (cluster, load) = serving(Cluster::build().masters(2))?;
    let pid = cluster.master_pid("m1");
    for seconds in [3, 10, 30] {
        wait_for_whole_copy(&cluster, "m2")?;
        let begun = cluster.split(&[&["m1"], &["m2"], &["cs1"], &["c1"]])?;
        std::thread::sleep(Duration::from_secs(seconds));
        let over = cluster.join()?;
        goes_on(&cluster, &load, pid)?;
        report("the switch passed nothing", &load, begun, over)?;
    }
    nothing_lost(&cluster, &load)
}

/// Every link goes down, so every ucarp becomes BACKUP at once, and looks again ten seconds later: any of them may be the
/// first one to. It takes over only with everything, and nothing is stopped before it says so.
#[test]
fn the_whole_switch_is_without_power_for_a_while() -> Result<()> {
    let (cluster, load) = serving(Cluster::build().masters(2))?;
    for seconds in [3, 10, 30] {
        let [serving, other] = if cluster.serving() == ["m1"] { ["m1", "m2"] } else { ["m2", "m1"] };
        wait_for_whole_copy(&cluster, other)?;
        let (pid, mark) = (cluster.master_pid(serving), cluster.mark());
        let begun = cluster.power_of_switch(false)?;
        std::thread::sleep(Duration::from_secs(seconds));
        let over = cluster.power_of_switch(true)?;
        load.wait_for_progress(LAST_RETRY)?;
        let now = cluster.expect("one machine to serve", SOON, || {
            let now = cluster.serving();
            (now.len() == 1 && cluster.answers(&now[0])).then(|| now[0].clone())
        })?;
        let taken_over = cluster.wait_for_log_since(mark, other, log_lines::SERVING, Duration::ZERO).is_ok();
        if now == serving && !taken_over {
            if cluster.master_pid(serving) != pid {
                // The other one had begun, with everything, and stepped down for this one before it served.
                cluster.wait_for_log_since(mark, serving, log_lines::PEER_WAITS, Duration::ZERO)?;
            }
        } else {
            cluster.wait_for_log_since(mark, other, log_lines::SERVING, SOON)?;
        }
        report(&format!("{serving} served, {now} serves: the switch was without power"), &load, begun, over)?;
    }
    nothing_lost(&cluster, &load)
}

/// All chunkservers stop and start at once; how long the client waited for metadata.
fn restart_chunkservers(cluster: &Cluster, load: &Workload, names: &[&str]) -> Result<Duration> {
    let since = Moment::now();
    for name in names {
        cluster.kill(name, "mfschunkserver", Signal::SIGTERM)?;
    }
    for name in names {
        cluster.expect(&format!("the end of the chunkserver on {name}"), SOON, || {
            cluster.daemon(name, "mfschunkserver").is_err().then_some(())
        })?;
    }
    // As long as a machine takes to restart its services.
    std::thread::sleep(Duration::from_secs(3));
    for name in names {
        cluster.must(name, &["mfschunkserver", "start"])?;
    }
    load.wait_for_progress(LAST_RETRY)?;
    Ok(load.outage(since)?.metadata)
}

#[test]
fn all_chunkservers_are_restarted_at_once() -> Result<()> {
    let (cluster, load) = serving(Cluster::build().masters(2).chunkservers(2))?;
    wait_for_whole_copy(&cluster, "m2")?;
    let pid = cluster.master_pid("m1");
    let waited = restart_chunkservers(&cluster, &load, &["cs1", "cs2"])?;
    eprintln!("two chunkservers and a standby: metadata waited {waited:.1?}");
    goes_on(&cluster, &load, pid)?;
    nothing_lost(&cluster, &load)
}

#[test]
fn the_only_chunkserver_of_a_machine_without_standbys_is_restarted() -> Result<()> {
    let (cluster, load) = serving(Cluster::build().masters(1))?;
    let pid = cluster.master_pid("m1");
    let waited = restart_chunkservers(&cluster, &load, &["cs1"])?;
    eprintln!("one chunkserver and no standby: metadata waited {waited:.1?}");
    goes_on(&cluster, &load, pid)?;
    nothing_lost(&cluster, &load)
}
