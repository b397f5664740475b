//! Advertisements that are not of this cluster, forged ones, and recorded ones that are sent again: they change nothing.

use std::time::Duration;

use lab::{Cluster, LAST_RETRY, Result, VIP, Workload, log_lines};

use crate::SOON;
use crate::nothing_lost;

const PACKETS: &str = include_str!("foreign/packets.py");
/// Packets are sent while this exists.
const TRIGGER: &str = "/tmp/send";

/// m1 serves, and m2 would be preferred: its ucarp, once it is MASTER, takes no notice of a right advertisement of m1.
fn two_masters() -> Result<(Cluster, Workload)> {
    let cluster = Cluster::build().masters(2).skew("m1", 100).skew("m2", 0);
    let cluster = cluster.file_on("c1", "/etc/packets.py", PACKETS, 0o644).start()?;
    let load = cluster.client().keep_writing()?;
    load.wait_for_progress(LAST_RETRY)?;
    cluster.wait_for_metalogger_in_step("m2", SOON)?;
    Ok((cluster, load))
}

/// c1 records what m1 advertises, and is then ready to send it.
fn record(cluster: &Cluster, manner: &str) -> Result<()> {
    cluster.must("c1", &["python3", "/etc/packets.py", "record", "/tmp/packets", "6"])?;
    let send = format!("setsid python3 /etc/packets.py send /tmp/packets {TRIGGER} {manner} > /dev/null 2>&1 &");
    cluster.must("c1", &["sh", "-c", &send]).map(drop)
}

fn trigger(cluster: &Cluster) -> Result<()> {
    cluster.must("c1", &["touch", TRIGGER]).map(drop)
}

/// m2 has been promoted as if it had heard no other MASTER.
fn expect_an_ordinary_promotion(cluster: &Cluster, mark: usize) -> Result<()> {
    cluster.wait_for_log_since(mark, "m2", log_lines::SERVING, SOON)?;
    let events = cluster.events().since(mark);
    let said = |text: &str| events.iter().any(|event| event.machine == "m2" && event.text.contains(text));
    assert!(said(log_lines::SETTLED), "it was settled at once");
    assert!(!said(log_lines::DEMOTION_STARTED), "and it did not step down");
    Ok(())
}

#[test]
fn another_group_with_the_same_vhid_changes_nothing() -> Result<()> {
    let (cluster, load) = two_masters()?;
    let other = "ucarp -B -i eth0 -s 172.16.0.61 -v 10 -p other -a 172.16.0.98 -b 1 -r 1";
    cluster.must("c1", &other.split(' ').collect::<Vec<_>>())?;
    let check = || {
        let output = cluster.run("m2", &["mfs-promote", "--check"]).ok()?;
        String::from_utf8_lossy(&output.stdout).contains(log_lines::CHECK_FOREIGN_GROUP).then_some(())
    };
    cluster.expect("the check to name the other group", SOON, check)?;
    let mark = cluster.mark();
    cluster.power_off("m1")?;
    expect_an_ordinary_promotion(&cluster, mark)?;
    load.wait_for_progress(LAST_RETRY)?;
    nothing_lost(&cluster, &load)
}

#[test]
fn a_forged_advertisement_changes_nothing() -> Result<()> {
    let (cluster, load) = two_masters()?;
    record(&cluster, "forged")?;
    let mark = cluster.mark();
    trigger(&cluster)?;
    cluster.power_off("m1")?;
    expect_an_ordinary_promotion(&cluster, mark)?;
    load.wait_for_progress(LAST_RETRY)?;

    // It goes on. A ucarp that is restarted beside a healthy master finds it as it was.
    let (master, mark) = (cluster.master_pid("m2"), cluster.mark());
    cluster.restart_ucarp("m2")?;
    cluster.wait_for_log_since(mark, "m2", log_lines::ALREADY_SERVING, SOON)?;
    load.wait_for_progress(LAST_RETRY)?;
    assert_eq!(cluster.master_pid("m2"), master, "the master was not stopped");
    nothing_lost(&cluster, &load)
}

#[test]
fn a_replayed_advertisement_changes_nothing() -> Result<()> {
    let (cluster, load) = two_masters()?;
    record(&cluster, "replayed")?;
    let mark = cluster.mark();
    cluster.power_off("m1")?;
    // Sooner it would keep the ucarp of m2 itself from being MASTER.
    cluster.wait_for_log_since(mark, "m2", log_lines::UCARP_MASTER, SOON)?;
    trigger(&cluster)?;
    expect_an_ordinary_promotion(&cluster, mark)?;
    load.wait_for_progress(LAST_RETRY)?;
    let master = cluster.master_pid("m2");
    std::thread::sleep(Duration::from_secs(10));
    load.wait_for_progress(LAST_RETRY)?;
    assert_eq!((cluster.master_pid("m2"), cluster.serving()), (master, vec!["m2".to_owned()]), "{VIP}");
    nothing_lost(&cluster, &load)
}
