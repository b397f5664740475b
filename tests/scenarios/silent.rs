//! Connections through the virtual IP on which nothing is sent, when the machine that has it loses its power.

use std::time::Duration;

use lab::{Cluster, LAST_RETRY, Result, VIP, log_lines};

use crate::{SOON, nothing_lost};

/// Connects to each port of the virtual IP, sends nothing, and leaves a file for each connection that has ended.
const SILENT: &str = r#"
import os, select, socket, sys
if os.fork(): sys.exit()
os.setsid()
address, ports = sys.argv[1], [int(port) for port in sys.argv[2:]]
ends = {socket.create_connection((address, port)): port for port in ports}
for port in ports: open(f"/tmp/connected-{port}", "w").close()
while ends:
    for end in select.select(list(ends), [], [])[0]:
        try: more = end.recv(4096)
        except OSError: more = b""
        if not more: open(f"/tmp/ended-{ends.pop(end)}", "w").close()
"#;
/// Clients, chunkservers and metaloggers, and MooseFS's monitoring pages, which are no part of the master.
const OF_MASTER: [&str; 3] = ["9421", "9420", "9419"];
const OF_ANOTHER: &str = "9425";
/// A kernel is asked twice in this time.
const ASKED: Duration = Duration::from_secs(2);

fn is_there(cluster: &Cluster, what: &str, port: &str) -> bool {
    cluster.must("c1", &["test", "-e", &format!("/tmp/{what}-{port}")]).is_ok()
}

#[test]
fn who_sends_nothing_is_reset_when_another_machine_serves_and_no_client_of_another_service() -> Result<()> {
    let cluster = Cluster::build().masters(2).start()?;
    let load = cluster.client().keep_writing()?;
    cluster.wait_for_metalogger_in_step("m2", SOON)?;
    cluster.must("m1", &["mfscgiserv", "start"])?;
    let address = VIP.to_string();
    let ports = [&OF_MASTER[..], &[OF_ANOTHER]].concat();
    cluster.must("c1", &[&["python3", "-c", SILENT, &address][..], &ports].concat())?;
    for port in &ports {
        cluster
            .expect(&format!("a connection to {port}"), SOON, || is_there(&cluster, "connected", port).then_some(()))?;
    }
    // The standby is told of the three, and of no other service.
    let client = cluster.must("c1", &["ss", "-Htn", "dst", &address])?;
    let ends: Vec<&str> = client.lines().filter_map(|line| line.split_ascii_whitespace().nth(3)).collect();
    let of_master = |line: &str| OF_MASTER.iter().any(|port| line.contains(&format!("{address}:{port}")));
    assert!(ends.len() > OF_MASTER.len(), "{client}");
    cluster.expect("the standby to know them", SOON, || {
        let known = cluster.must("m2", &["cat", "/run/moosefs-ucarp/connections.json"]).ok()?;
        let all = client.lines().zip(&ends).filter(|(line, _)| of_master(line)).all(|(_, end)| known.contains(end));
        let known: Vec<serde_json::Value> = serde_json::from_str(&known).expect("a list");
        let is_of_master = |one: &serde_json::Value| OF_MASTER.contains(&one["port"].to_string().as_str());
        assert!(known.iter().all(is_of_master), "{known:?}");
        all.then_some(())
    })?;

    for port in &ports {
        assert!(!is_there(&cluster, "ended", port), "{port} ended before the cut");
    }
    let mark = cluster.mark();
    cluster.power_off("m1")?;
    cluster.wait_for_log_since(mark, "m2", log_lines::SERVING, SOON)?;
    for port in OF_MASTER {
        cluster.expect(&format!("the connection to {port} to end"), SOON, || {
            is_there(&cluster, "ended", port).then_some(())
        })?;
    }
    std::thread::sleep(ASKED);
    assert!(!is_there(&cluster, "ended", OF_ANOTHER));
    load.wait_for_progress(LAST_RETRY)?;
    nothing_lost(&cluster, &load)
}
