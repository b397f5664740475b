//! The rpm: its programs need no newer C library than that of Enterprise Linux 8, and rpm installs, upgrades and removes it.

use std::path::Path;
use std::process::Command;

use lab::{Result, debian_package};

use crate::packages::output;

/// The glibc of Enterprise Linux 8.
const OLDEST: (u32, u32) = (2, 28);

/// The versions of glibc that a text names, as `GLIBC_2.28`.
fn glibc_versions(text: &str) -> Vec<(u32, u32)> {
    let version = |rest: &str| {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let mut numbers = rest[..end].split('.').map(|number| number.parse().expect("a number"));
        (numbers.next().expect("the first number"), numbers.next().expect("the second number"))
    };
    text.split("GLIBC_").skip(1).map(version).collect()
}

/// Neither do the programs use newer symbols, nor does rpm demand any.
#[test]
fn the_rpm_needs_no_newer_glibc_than_enterprise_linux_8_has() -> Result<()> {
    let folder = debian_package()?;
    let folder = folder.parent().expect("the package is in a folder");
    let unpacked = tempfile::tempdir().expect("a folder for the files");
    let unpack = "rpm2archive - < \"$(echo \"$0\"/*.rpm)\" | tar --extract --gzip --directory \"$1\"";
    output(Command::new("sh").args(["-c", unpack]).arg(folder).arg(unpacked.path()));
    let symbols = |program: &str| {
        let path = unpacked.path().join("usr/bin").join(program);
        glibc_versions(&output(Command::new("readelf").args(["--version-info", "--wide"]).arg(path)))
    };
    // The hooks load no library.
    for hook in ["vip-up", "vip-down"] {
        assert_eq!(symbols(hook), [], "{hook}");
    }
    let used = symbols("mfs-promote");
    let needs = output(Command::new("sh").args(["-c", "rpm -qp --requires \"$0\"/*.rpm"]).arg(folder));
    let demanded = glibc_versions(&needs);
    eprintln!("the newest symbols used: {:?}, demanded: {:?}", used.iter().max(), demanded.iter().max());
    assert!(used.iter().max().is_some_and(|newest| *newest <= OLDEST), "{used:?}");
    assert_eq!(demanded.iter().max(), used.iter().max(), "{needs}");
    runs(&unpacked.path().join("usr/bin/mfs-promote"));
    Ok(())
}

/// Installs the rpm in $1 (made with the spec and the tree in $2 and $3) in a copy of this machine's root, upgrades it to a
/// release whose file of values has changed, removes it and installs it again. $4 is "without" for a root without systemctl, and
/// $5 an empty folder. What the rpm needs are no rpms here, so its dependencies are not looked at.
const LIFETIME: &str = r#"
set -eu
package=$1 spec=$2 tree=$3 systemctl=$4 work=$5
mount -t tmpfs tmpfs "$work"
cd "$work"
cp -a "$tree" newer
echo '# A newer line.' >> newer/etc/default/moosefs-ucarp
sed 's/^Release: .*/Release: 2/' "$spec" > newer.spec
rpmbuild --quiet -bb newer.spec --define "tree $work/newer" --define "_topdir $work/top" --define "_rpmdir $work" \
    --define '_build_id_links none' --define '_rpmfilename newer.rpm'

mkdir upper work root
mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work root
mount -t proc proc root/proc
mount -t tmpfs tmpfs root/run
# As on Fedora: Debian's systemd would enable every unit.
mkdir -p root/etc/systemd/system-preset
echo 'disable *' > root/etc/systemd/system-preset/00-lab.preset
[ "$systemctl" = with ] || rm root/usr/bin/systemctl
rpm() { verb=$1; shift; command rpm --root "$work/root" --dbpath /var/lib/lab-rpm "$verb" --nodeps "$@" 2>> said; }
enabled() { [ "$systemctl" = without ] || [ "$(chroot root systemctl is-enabled moosefs-ucarp)" = "$1" ]; }
list() { (cd root && find etc usr | sort); }
values=root/etc/default/moosefs-ucarp

list > before
rpm -i "$package"
rpm -V moosefs-ucarp
enabled disabled
[ "$(stat -c '%a %U %G' $values root/usr/bin/vip-up | tr '\n' ' ')" = '644 root root 755 root root ' ]
chroot root /usr/bin/mfs-promote --version
echo 'VIP=172.16.0.99' >> $values
[ "$systemctl" = without ] || chroot root systemctl --quiet enable moosefs-ucarp
rpm -U newer.rpm
grep -qx 'VIP=172.16.0.99' $values
grep -qx '# A newer line.' $values.rpmnew
enabled enabled
rpm -e moosefs-ucarp
# What the administrator has written is kept.
grep -qx 'VIP=172.16.0.99' $values.rpmsave
rm -f $values.rpmsave $values.rpmnew
list > after
diff before after
rpm -i newer.rpm
rpm -V moosefs-ucarp
enabled disabled
echo lived
"#;

fn lives(systemctl: &str) -> Result<()> {
    let folder = debian_package()?;
    let folder = folder.parent().expect("the package is in a folder");
    let rpm = output(Command::new("sh").args(["-c", "echo \"$0\"/*.rpm"]).arg(folder));
    let work = tempfile::tempdir().expect("a folder for the root");
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "bash", "-c", LIFETIME, "bash", rpm.trim()]);
    let spec = folder.join("moosefs-ucarp.spec");
    let said = output(command.arg(spec).arg(folder.join("tree")).arg(systemctl).arg(work.path()));
    assert!(said.ends_with("lived\n"), "{said}");
    Ok(())
}

#[test]
fn rpm_installs_upgrades_and_removes_it() -> Result<()> {
    lives("with")
}

#[test]
fn rpm_installs_upgrades_and_removes_it_where_there_is_no_systemctl() -> Result<()> {
    lives("without")
}

/// It is the same program, with all it needs to look at this machine.
fn runs(program: &Path) {
    let said = output(Command::new(program).arg("--version"));
    assert!(said.contains(env!("CARGO_PKG_VERSION")), "{said}");
    // No machine that tests run on is ready to take over: it has looked, and says so.
    let own_run = ["--mount", "sh", "-c", "mount -t tmpfs tmpfs /run && exec \"$0\" --check --json"];
    let check = Command::new("unshare").args(own_run).arg(program).output().expect("it can be started");
    let found: serde_json::Value = serde_json::from_slice(&check.stdout).expect("JSON");
    assert!(found["role"].is_string(), "{found}");
}
