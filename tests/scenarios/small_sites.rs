//! Two machines that do everything: master, metalogger and chunkserver. When one loses its power, no chunkserver is left that
//! could prove to the other one that its network works. A gateway proves it, or what an administrator names.
//!
//! And a site whose first rack loses its power: the chunkserver that is left is the last one of many.

use lab::{Cluster, LAST_RETRY, Result, Workload, log_lines};

use crate::{SOON, nothing_lost};

const BOTH: [&str; 2] = ["m1", "m2"];
/// Where the switch itself answers.
const GATEWAY: [&str; 6] = ["ip", "route", "add", "default", "via", "172.16.0.1"];

fn two_that_do_everything() -> Result<(Cluster, Workload)> {
    let mut builder = Cluster::build().masters(2).chunkservers(0);
    for daemon in ["mfsmetalogger", "mfschunkserver"] {
        builder = builder.setting(daemon, "MASTER_RECONNECTION_DELAY", "1");
    }
    let cluster = builder.start()?;
    for name in BOTH {
        cluster.must(name, &["mfschunkserver", "start"])?;
    }
    cluster.must("c1", &["mfssetgoal", "-r", "2", "/mnt/mfs"])?;
    let load = cluster.client().keep_writing()?;
    load.wait_for_progress(LAST_RETRY)?;
    // Not by --dry-run, which knows what only the other machine proves.
    cluster.wait_for_metalogger_in_step("m2", SOON)?;
    Ok((cluster, load))
}

/// Status and output of a verb on the standby.
fn verb(cluster: &Cluster, verb: &[&str]) -> Result<(bool, String)> {
    let output = cluster.run("m2", &[&["mfs-promote"], verb].concat())?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
}

#[test]
fn with_a_gateway_the_survivor_serves_without_a_word_of_configuration() -> Result<()> {
    let (cluster, load) = two_that_do_everything()?;
    for name in BOTH {
        cluster.must(name, &GATEWAY)?;
    }
    let (_, checked) = verb(&cluster, &["--check"])?;
    assert!(!checked.contains(log_lines::CHECK_NETWORK), "{checked}");
    for rehearsed in ["--dry-run", "--rehearse"] {
        let (would, said) = verb(&cluster, &[rehearsed])?;
        assert!(would && !said.contains(log_lines::CHECK_NETWORK), "{said}");
    }
    cluster.power_off("m1")?;
    cluster.wait_for_serving("m2", SOON)?;
    load.wait_for_progress(LAST_RETRY)?;
    nothing_lost(&cluster, &load)
}

#[test]
fn without_a_gateway_each_verb_names_the_remedy_and_the_remedy_works() -> Result<()> {
    let (cluster, load) = two_that_do_everything()?;
    let (_, checked) = verb(&cluster, &["--check"])?;
    assert!(checked.contains("CRITICAL  network") && checked.contains(log_lines::CHECK_NETWORK), "{checked}");
    for rehearsed in ["--dry-run", "--rehearse"] {
        let (would, said) = verb(&cluster, &[rehearsed])?;
        assert!(!would && said.contains(log_lines::CHECK_NETWORK), "{said}");
    }
    let mark = cluster.mark();
    cluster.power_off("m1")?;
    cluster.wait_for_log_since(mark, "m2", log_lines::ISOLATED, SOON)?;
    assert_eq!(cluster.master_pid("m2"), None);
    cluster.must("m2", &["sh", "-c", "echo 'PING_NODES = 172.16.0.61' > /etc/mfs/mfspromote.cfg"])?;
    cluster.wait_for_serving("m2", SOON)?;
    load.wait_for_progress(LAST_RETRY)?;
    nothing_lost(&cluster, &load)
}

/// Chunkservers in the first rack, on one machine: more than are asked at once.
const RACK: u16 = 39;

#[test]
fn forty_chunkservers_of_which_the_first_rack_dies_with_the_master() -> Result<()> {
    let cluster =
        Cluster::build().masters(2).chunkservers(2).setting("mfsmetalogger", "MASTER_RECONNECTION_DELAY", "1");
    let cluster = cluster.start()?;
    for number in 1..RACK {
        let (folder, port) = (format!("/srv/{number}"), 9500 + number);
        let script = format!(
            "mkdir -p {folder}/data {folder}/chunks && chown -R mfs {folder} && echo {folder}/chunks > {folder}/hdd.cfg && \
             cp /etc/mfs/mfschunkserver.cfg {folder}/mfs.cfg && \
             printf 'DATA_PATH = {folder}/data\\nHDD_CONF_FILENAME = {folder}/hdd.cfg\\nCSSERV_LISTEN_PORT = {port}\\n' \
             >> {folder}/mfs.cfg && mfschunkserver -c {folder}/mfs.cfg start"
        );
        cluster.must("cs1", &["sh", "-c", &script])?;
    }
    let all = format!("{} connected", RACK + 1);
    let registered = || {
        let said = cluster.run("m1", &["mfs-promote", "--check"]).ok()?.stdout;
        String::from_utf8_lossy(&said).contains(&all).then_some(())
    };
    cluster.expect("all chunkservers to be connected", SOON, registered)?;
    cluster.must("c1", &["mkdir", "/mnt/mfs/kept"])?;
    cluster.wait_for_metalogger_in_step("m2", SOON)?;
    cluster.power_off("cs1")?;
    cluster.power_off("m1")?;
    cluster.wait_for_serving("m2", SOON)?;
    cluster.must("c1", &["ls", "/mnt/mfs/kept"])?;
    Ok(())
}
