//! Machines that nobody vouched for say something about masters: the healthy one of the cluster moves nothing.

use std::time::Duration;

use lab::{Cluster, LAST_RETRY, Result, log_lines};

use crate::{SOON, nothing_lost, steady, wait_for_whole_copy};

/// The master of another file system, which knows no chunkserver and no client of ours.
const FOREIGN: &str = "DATA_PATH = /var/lib/lab/foreign\nPERSONALITY = master\n";
/// Its version is later than any that the cluster reaches.
const LATER: u64 = 9_000_000;
/// As long as a serving machine needs to look at everybody it knows, several times.
const WATCHED: Duration = Duration::from_secs(40);

/// A real image of another file system, at a later version.
fn foreign_image() -> Vec<u8> {
    let mut image = include_bytes!("../testdata/metadata.mfs").to_vec();
    image[8..16].copy_from_slice(&LATER.to_be_bytes());
    image[16..24].copy_from_slice(&0x0123_4567_89ab_cdef_u64.to_be_bytes());
    image
}

#[test]
fn a_host_that_copies_our_metadata_runs_the_master_of_another_file_system() -> Result<()> {
    let cluster = Cluster::build()
        .masters(2)
        .file_on("c1", "/etc/mfs/foreign.cfg", FOREIGN, 0o644)
        .file_on("c1", "/root/metadata.mfs", foreign_image(), 0o644)
        .start()?;
    let load = cluster.client().keep_writing_at(50)?;
    wait_for_whole_copy(&cluster, "m2")?;
    let (pid, mark) = (cluster.master_pid("m1"), cluster.mark());
    let foreign = "mkdir /var/lib/lab/foreign; cp /root/metadata.mfs /var/lib/lab/foreign; \
                   chown -R mfs: /var/lib/lab/foreign; mfsmaster -c /etc/mfs/foreign.cfg start; mfsmetalogger start";
    cluster.must("c1", &["sh", "-c", foreign])?;
    cluster.expect("the other master to answer", SOON, || {
        cluster.master_version("c1").ok().filter(|version| *version >= LATER)
    })?;
    std::thread::sleep(WATCHED);
    assert_eq!((cluster.master_pid("m1"), cluster.serving()), (pid, vec!["m1".to_owned()]));
    assert!(!cluster.started_master_since(mark, "m2"), "m2 never served");
    let events = cluster.events().since(mark);
    let moved = events.iter().find(|event| event.text.contains(log_lines::DEMOTION_BEGUN));
    assert!(moved.is_none(), "{moved:?}");
    // A promotion is not kept from serving either.
    cluster.power_off("m1")?;
    cluster.wait_for_serving("m2", SOON)?;
    load.wait_for_progress(LAST_RETRY)?;
    nothing_lost(&cluster, &load)
}

/// Accepts connections on the client port, and sends a byte each 0.9 seconds: no answer is ever whole.
const DRIPPING: &str = "#!/usr/bin/python3
import os, socket, threading, time
if os.fork():
    os._exit(0)
os.setsid()
door = socket.create_server(('', 9421), backlog=100)
def drip(line):
    try:
        for byte in b'\\x00\\x00\\x01\\xff\\x00\\x00\\x00\\x95' + bytes(149):
            line.sendall(bytes([byte]))
            time.sleep(0.9)
    except OSError:
        pass
while True:
    threading.Thread(target=drip, args=(door.accept()[0],), daemon=True).start()
";
/// A takeover with a peer that never comes to the end of its answer.
const TAKEOVER: Duration = Duration::from_secs(30);

#[test]
fn a_peer_that_answers_byte_by_byte_holds_nothing_up() -> Result<()> {
    let cluster = Cluster::build()
        .masters(2)
        .file_on("cs1", "/usr/local/bin/drip", DRIPPING, 0o755)
        .file("/etc/mfs/mfspromote.cfg", "PEERS = 172.16.0.41\n", 0o644)
        .start()?;
    let load = cluster.client().keep_writing_at(50)?;
    wait_for_whole_copy(&cluster, "m2")?;
    cluster.must("cs1", &["sh", "-c", "exec /usr/local/bin/drip > /dev/null 2>&1"])?;
    cluster.expect("the peer to listen", SOON, || {
        cluster.run("m1", &["bash", "-c", "exec 3<> /dev/tcp/172.16.0.41/9421"]).ok().filter(|run| run.status.success())
    })?;
    let off = cluster.power_off("m1")?;
    let taken = cluster.wait_for_serving("m2", TAKEOVER)?;
    eprintln!("m2 serves {:.1} s after m1 has lost its power", taken.at.seconds_since(off));
    cluster.wait_for_log("m2", log_lines::SERVING, SOON)?;
    load.wait_for_progress(LAST_RETRY)?;

    // And the run that watches over the new master goes on seeing what happens.
    cluster.power_on("m1")?;
    wait_for_whole_copy(&cluster, "m1")?;
    let mark = cluster.mark();
    cluster.must("m2", &["ip", "addr", "del", "172.16.0.99/16", "dev", "eth0"])?;
    cluster.wait_for_log_since(mark, "m2", log_lines::ADDRESS_PUT_BACK, Duration::from_secs(5))?;
    steady(&cluster, "m2 to serve", || cluster.serving() == ["m2"])?;
    nothing_lost(&cluster, &load)
}
