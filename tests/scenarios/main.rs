//! Whole clusters with real ucarp and real MooseFS. Needs root, ucarp, the MooseFS 3.0 packages and debootstrap.
//! `LAB_CLUSTERS` (1) clusters run at a time: the lab holds locks of the host while they run.

mod address;
mod book;
mod booted;
mod chain;
mod chance;
mod check;
mod clock;
mod config;
mod election;
mod ends;
mod failover;
mod failures_page;
mod false_alarm;
mod folders;
mod follow;
mod foreign;
mod freshness;
mod generations;
mod hostile;
mod hot;
mod hot_clock;
mod hot_deaths;
mod hot_metalogger;
mod hung;
mod isolation;
mod killed;
mod lab_itself;
mod metadata;
mod monitoring;
mod notify;
mod old_master;
mod old_release;
mod other_inits;
mod packages;
mod patience;
mod pause;
mod pre_serving;
mod proof;
mod reproducible;
mod rpm;
mod rust_version;
mod second_failure;
mod several;
mod silent;
mod small_sites;
mod source_package;
mod split;
mod storm;
mod strangers;
mod survivors;
mod switchover;
mod upgrade;
mod upstream;
mod verbs;

use std::ops::RangeInclusive;
use std::time::Duration;

use lab::{Cluster, LAST_RETRY, Moment, Result, Workload};
use nix::sys::signal::Signal;

/// The deadline of every wait for an event.
const SOON: Duration = Duration::from_secs(60);

/// The metadata of a machine, byte by byte, and what is left of a run.
fn digest(cluster: &Cluster, machine: &str) -> Result<String> {
    const LOOK: &str =
        "cd /var/lib/mfs; sha256sum metadata* changelog*; ls mfs-promote 2>&- | grep -v logs; ls -d bak 2>&1; :";
    cluster.must(machine, &["sh", "-c", LOOK])
}

/// Every acknowledged name and content is there, no operation failed, and at no moment did two machines answer.
fn nothing_lost(cluster: &Cluster, load: &Workload) -> Result<()> {
    nothing_lost_but(cluster, load, &[]).map(drop)
}

/// The same, but what was acknowledged in these times may be gone, with what builds on it: returned in words.
fn nothing_lost_but(cluster: &Cluster, load: &Workload, times: &[RangeInclusive<Moment>]) -> Result<Vec<String>> {
    let verdict = load.verify(&[&cluster.crashes(), times].concat())?;
    let (lost, cut_off) = (verdict.lost.len(), verdict.cut_off.len());
    eprintln!("{} operations acknowledged, {lost} lost, {cut_off} cut in two", verdict.acknowledged);
    for one in &verdict.cut_off {
        eprintln!("  cut in two: {one}");
    }
    assert_eq!(verdict.lost, []);
    assert_eq!(verdict.failed, []);
    assert_eq!(cluster.findings().overlap(), Duration::ZERO, "{:?}", cluster.overlaps());
    Ok(verdict.cut_off)
}

/// Waits until `condition` has held for ten seconds without a break: longer than any election lasts.
fn steady(cluster: &Cluster, what: &str, mut condition: impl FnMut() -> bool) -> Result<()> {
    let mut since = Moment::now();
    cluster.expect(&format!("{what} for ten seconds"), SOON * 2, || {
        std::thread::sleep(Duration::from_millis(200));
        if !condition() {
            since = Moment::now();
        }
        (Moment::now() - since >= Duration::from_secs(10)).then_some(())
    })
}

/// Waits until a machine has all that the serving master had when this was called, in a copy that can be served.
fn wait_for_whole_copy(cluster: &Cluster, machine: &str) -> Result<()> {
    cluster.wait_for_metalogger_in_step(machine, SOON)?;
    let dry_run = || cluster.run(machine, &["mfs-promote", "--dry-run"]).ok().filter(|run| run.status.success());
    cluster.expect(&format!("{machine} to have a whole copy"), SOON, dry_run).map(drop)
}

/// Two machines, a load that has ended, and m2's complete copy without a metalogger that would write to it: ready to be
/// damaged.
fn copy_left_alone() -> Result<(Cluster, Workload)> {
    let cluster = Cluster::build().masters(2).start()?;
    let load = cluster.client().keep_writing()?;
    load.wait_for_progress(LAST_RETRY)?;
    load.stop()?;
    assert_eq!(load.errors()?, []);
    cluster.wait_for_metalogger_in_step("m2", SOON)?;
    cluster.kill("m2", "mfsmetalogger", Signal::SIGKILL)?;
    Ok((cluster, load))
}

/// From now on the switch drops the packets that match this rule of nft.
fn drop_on_switch(cluster: &Cluster, rule: &str) -> Result<()> {
    cluster.on_switch(&format!(
        "nft add table bridge strict
         nft add chain bridge strict forward '{{ type filter hook forward priority 0; }}'
         nft add rule bridge strict forward {rule} drop"
    ))
}

/// The names in the archives of a machine.
fn archived(cluster: &Cluster, machine: &str) -> Result<String> {
    cluster.must(machine, &["sh", "-c", "for a in /var/lib/mfs/bak/metabak.*; do tar --list --file $a; done"])
}
