//! What the administrator's command gets, and that nothing waits for it.

use lab::{Cluster, Result, log_lines};

use crate::SOON;

/// Writes down what it gets, and never ends.
const TELL: &str = "#!/bin/sh\n{ echo \"$1 $MFS_EVENT $MFS_HOST $MFS_INTERFACE $MFS_VIP $MFS_VERSION\"; echo \
                    \"$MFS_ERROR\"; } >> /var/lib/lab/told\nexec sleep 1000\n";

#[test]
fn a_command_is_called_and_nothing_waits_for_it() -> Result<()> {
    let cluster = Cluster::build()
        .masters(2)
        .file_on("m2", "/usr/local/bin/tell", TELL, 0o755)
        .file_on("m2", "/etc/mfs/mfspromote.cfg", "NOTIFY = /usr/local/bin/tell\n", 0o644)
        .start()?;
    cluster.wait_for_metalogger_in_step("m2", SOON)?;
    let told = || cluster.must("m2", &["cat", "/var/lib/lab/told"]).unwrap_or_default();
    cluster.power_off("m1")?;
    cluster.wait_for_serving("m2", SOON)?;
    let line = |event: &str, version: u64| format!("{event} {event} m2 eth0 172.16.0.99 {version}\n");
    let wait =
        |wanted: &str| cluster.expect("the command to be called", SOON, || told().contains(wanted).then_some(()));
    let proof = cluster.wait_for_log("m2", log_lines::PROVED_VERSION, SOON)?;
    let version = proof.text.split(' ').skip_while(|word| *word != "version").nth(1).and_then(|v| v.parse().ok());
    wait(&line("promotion", version.expect("a version")))?;

    // The command is still at it. The demotion neither waits for it nor ends it.
    cluster.stop_ucarp("m2")?;
    cluster.wait_for_log("m2", log_lines::DEMOTED, SOON)?;
    cluster.wait_for_log("m2", log_lines::NOTIFY_TIMED_OUT, SOON)?;
    assert!(told().contains(log_lines::NOTIFIED_DEMOTION), "{}", told());

    // A failure comes with its reason.
    cluster.must("m2", &["sh", "-c", "ln -s x /var/lib/mfs/metadata_y"])?;
    cluster.start_ucarp("m2")?;
    cluster.wait_for_log("m2", log_lines::UCARP_STOPPED, SOON)?;
    wait(log_lines::NOTIFIED_STOP)?;
    assert!(told().contains(log_lines::NOTIFIED_STALE_COPY), "{}", told());
    Ok(())
}
