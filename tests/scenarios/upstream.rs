//! MooseFS's own packages: its units and files are not Debian's. Their shape on a machine with Debian's binaries, because no
//! distribution has those packages.

use lab::{Booted, Release, Result, log_lines};

use crate::SOON;
use crate::booted::{Packaging, UCARP};
use crate::packages::as_the_readme_says;

const UPSTREAM: Packaging = Packaging {
    install: as_packaged_upstream,
    web_interface: "moosefs-cgiserv.service",
    start: "/usr/sbin/mfsmaster start",
};
/// The command line of a master that a promotion has started by such a unit.
const STARTED: &str = "/usr/sbin/mfsmaster -a start";
/// What goes with Debian's packages, and what comes with the others: each file of configuration is there twice, and the data folder
/// has the metadata of a new file system.
const FILES: &str = r#"
set -eu
rm -f /etc/default/moosefs-* /etc/init.d/moosefs-*
for package in master:mfsexports,mfstopology,mfsmaster metalogger:mfsmetalogger chunkserver:mfschunkserver,mfshdd; do
    for name in $(echo "${package#*:}" | tr , ' '); do
        cp "/usr/share/doc/moosefs-${package%%:*}/examples/$name.cfg" "/etc/mfs/$name.cfg.sample"
        cp "/etc/mfs/$name.cfg.sample" "/etc/mfs/$name.cfg"
    done
done
install -o mfs -g mfs /var/lib/mfs/metadata.mfs.empty /var/lib/mfs/metadata.mfs
systemctl daemon-reload
# Enabled, and started by nobody.
systemctl enable moosefs-master moosefs-metalogger moosefs-chunkserver moosefs-cgiserv
"#;

/// The packages are enabled, and not started, as soon as they are installed.
fn as_packaged_upstream(machine: &Booted) -> Result<()> {
    for (service, restart) in
        [("master", "no"), ("metalogger", "on-abnormal"), ("chunkserver", "on-abnormal"), ("cgiserv", "on-abnormal")]
    {
        for (name, options, data) in [("", "", ""), ("@", &*format!(" -c /etc/mfs-%I/mfs{service}.cfg"), "-%I")] {
            let unit = unit(&format!("mfs{service}"), options, data, restart);
            let path = format!("/usr/lib/systemd/system/moosefs-{service}{name}.service");
            machine.install(&path, unit.as_bytes(), 0o644)?;
        }
    }
    machine.must(&["bash", "-c", FILES]).map(drop)
}

/// The program leaves the foreground, its lock file in the data folder says where it is, and it is stopped by itself.
fn unit(program: &str, options: &str, data: &str, restart: &str) -> String {
    let command = |verb: &str| format!("/usr/sbin/{program}{options} {verb}");
    format!(
        "[Unit]\nDescription={program} as its own package starts it\nAfter=network-online.target\nWants=network-online.target\n\n\
         [Service]\nType=forking\nPIDFile=/var/lib/mfs{data}/.{program}.lock\nExecStart={}\nExecReload={}\nExecStop={}\n\
         Restart={restart}\nTimeoutSec=30min\n\n[Install]\nWantedBy=multi-user.target\n",
        command("start"),
        command("reload"),
        command("stop")
    )
}

#[test]
fn two_machines_with_the_packages_of_moosefs_itself() -> Result<()> {
    let m2 = as_the_readme_says(Release::Debian13, UPSTREAM)?;
    // It has waited, hot. A cold start goes through the unit.
    m2.install("/etc/mfs/mfspromote.cfg", b"STANDBY = cold\n", 0o644)?;
    m2.must(&["systemctl", "stop", UCARP])?;
    m2.wait_for_log(0, log_lines::DEMOTED, SOON)?;
    assert_eq!(m2.processes("mfsmaster"), Vec::<String>::new());
    m2.must(&["systemctl", "start", UCARP])?;
    m2.wait_for_log(1, log_lines::SERVING, SOON)?;
    UPSTREAM.serves(&m2, STARTED)
}
