//! A hostile user mfs against root: what it does in its folder must have no effect outside of it, must not delay root, and
//! must not write into root's log.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use lab::{Cluster, Result, log_lines};
use nix::sys::signal::Signal;

use crate::SOON;
use crate::copy_left_alone;
use crate::nothing_lost;

const SWAPPER: &str = include_str!("hostile/swapper.py");
/// Owner, mode, size and times of all that lies outside, and of the folders themselves: reading shows too.
const LOOK_OUTSIDE: &str = "cd /etc/outside; find . -printf '%p %U:%G %m %s %T@\\n' | sort; \
                            stat -c '%n %U %a %s %X %Y' canary /var/lib/lab/secret";

fn as_mfs(script: &str) -> [String; 7] {
    let words = ["setpriv", "--reuid=mfs", "--regid=mfs", "--clear-groups", "sh", "-c", script];
    words.map(str::to_owned)
}

/// Runs `work` while the swapper is at work on m2.
fn with_swapper(cluster: &Cluster, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let script = as_mfs("python3 /etc/swapper.py & echo $!");
    let script: Vec<&str> = script.iter().map(String::as_str).collect();
    cluster.must("m2", &script)?;
    let worked = work();
    cluster.kill("m2", "python3", Signal::SIGTERM)?;
    cluster.expect("the swapper to end", SOON, || cluster.daemon("m2", "python3").is_err().then_some(()))?;
    worked
}

/// Starts ucarp on m2 and waits until nothing acts any more; says whether m2 serves.
fn promote(cluster: &Cluster) -> Result<bool> {
    let mark = cluster.mark();
    cluster.start_ucarp("m2")?;
    cluster.wait_for_log_since(mark, "m2", log_lines::PROMOTION_ENDED, SOON)?;
    if cluster.serving() == ["m2"] {
        return Ok(true);
    }
    cluster.wait_for_log_since(mark, "m2", log_lines::DEMOTION_ENDED, SOON)?;
    Ok(false)
}

#[test]
fn root_changes_nothing_outside_a_folder_whose_owner_attacks_it() -> Result<()> {
    let (cluster, load) = copy_left_alone()?;
    cluster.power_off("m1")?;
    cluster.wait_for_log("m2", log_lines::SERVING, SOON)?;
    cluster.stop_ucarp("m2")?;
    cluster.wait_for_log("m2", log_lines::DEMOTED, SOON)?;
    cluster.must("m2", &["mfsmetalogger", "stop"])?;
    let root = cluster.machine("m2")?.root()?;
    fs::write(root.join("etc/swapper.py"), SWAPPER).expect("the swapper");
    cluster.must("m2", &["sh", "-c", "mkdir -m 700 /etc/outside; echo secret | tee /etc/outside/canary > /var/lib/lab/secret
        chmod 600 /etc/outside/canary /var/lib/lab/secret; touch -ad '2 days ago' /etc/outside/canary /var/lib/lab/secret
        cp -a /var/lib/mfs /var/lib/lab/whole"])?;
    let outside = cluster.must("m2", &["sh", "-c", LOOK_OUTSIDE])?;

    // A second name of a file of root's, which only its owner or a kernel of another setting lets mfs make.
    let link = cluster.data("m2")?.join("metadata.mfs.back.7");
    fs::hard_link(cluster.machine("m2")?.disk("/var/lib/lab").join("secret"), &link).expect("a second name");
    let refused = cluster.run("m2", &["mfs-promote", "--dry-run"])?;
    let text = String::from_utf8_lossy(&refused.stdout);
    assert!(text.contains(log_lines::SECOND_NAME), "{text}");
    assert!(!promote(&cluster)?, "nor is it set aside");
    fs::remove_file(&link).expect("the second name");

    let rounds = std::env::var("LAB_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    for _ in 0..rounds {
        with_swapper(&cluster, || {
            for verb in ["--dry-run", "--check", "--rehearse"] {
                cluster.run("m2", &["mfs-promote", verb])?;
            }
            promote(&cluster).map(drop)
        })?;
        if cluster.daemon("m2", "ucarp").is_ok() {
            let mark = cluster.mark();
            cluster.stop_ucarp("m2")?;
            cluster.wait_for_log_since(mark, "m2", log_lines::DEMOTION_ENDED, SOON)?;
        }
        // What mfs did to its own files it did to itself: the administrator has a copy.
        cluster.must(
            "m2",
            &[
                "sh",
                "-c",
                "mfsmetalogger stop; mfsmaster stop
            find /var/lib/mfs -mindepth 1 -delete; cp -a /var/lib/lab/whole/. /var/lib/mfs",
            ],
        )?;
    }
    assert_eq!(cluster.must("m2", &["sh", "-c", LOOK_OUTSIDE])?, outside);
    assert_eq!(cluster.must("m2", &["cat", "/etc/outside/canary", "/var/lib/lab/secret"])?, "secret\nsecret\n");
    let events = cluster.events().since(0);
    let forged = events.iter().find(|event| event.text.contains(['\n', '\x1b']));
    assert!(forged.is_none(), "{forged:?}");

    assert!(promote(&cluster)?);
    cluster.expect("the archive", SOON, || {
        let folder = cluster.data("m2").ok()?.join("bak");
        let archive = fs::read_dir(&folder)
            .ok()?
            .flatten()
            .find(|entry| entry.file_name().to_string_lossy().starts_with("metabak"))?;
        let mode = |path: &std::path::Path| path.metadata().expect("it is there").permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&archive.path())), (0o700, 0o600));
        Some(())
    })?;
    nothing_lost(&cluster, &load)
}

#[test]
fn other_users_and_files_that_they_can_write_are_refused() -> Result<()> {
    let cluster = Cluster::build().masters(1).start()?;
    for program in
        ["mfs-promote --dry-run", "mfs-promote --demote", "vip-up eth0 172.16.0.99", "vip-down eth0 172.16.0.99"]
    {
        let script = as_mfs(program);
        let script: Vec<&str> = script.iter().map(String::as_str).collect();
        let refused = cluster.run("m1", &script)?;
        let begun = cluster.events().since(0);
        let said = String::from_utf8_lossy(&refused.stderr).contains(log_lines::NOT_ROOT)
            || begun.iter().any(|event| event.text.contains(log_lines::NOT_ROOT));
        assert!(said && refused.status.code() == Some(1), "{program}: {refused:?}");
    }
    assert!(cluster.holds_vip("m1"));
    let dry_run = || {
        cluster.run("m1", &["mfs-promote", "--dry-run"]).map(|run| String::from_utf8_lossy(&run.stderr).into_owned())
    };
    for (spoil, mend, wanted) in [
        ("chown mfs /etc/mfs", "chown root /etc/mfs", "/etc/mfs can be written by others than root"),
        (
            "chmod g+w /etc/mfs/mfsmaster.cfg",
            "chmod g-w /etc/mfs/mfsmaster.cfg",
            "/etc/mfs/mfsmaster.cfg can be written by",
        ),
        (
            "chmod o+w /var/lib/moosefs-ucarp",
            "chmod o-w /var/lib/moosefs-ucarp",
            "/var/lib/moosefs-ucarp can be written by",
        ),
    ] {
        cluster.must("m1", &["sh", "-c", spoil])?;
        let text = dry_run()?;
        assert!(text.contains(wanted) && text.contains(log_lines::CHOWN_ADVICE), "{wanted} in {text}");
        cluster.must("m1", &["sh", "-c", mend])?;
    }
    Ok(())
}
