//! The rpm: rpm installs, upgrades and removes it.

use std::path::Path;
use std::process::Command;

use lab::{Result, debian_package};

use crate::packages::output;

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
rpmbuild --quiet -bb newer.spec --define 'version 0.1.0' --define "tree $work/newer" --define 'maintainer the lab <lab@lab.invalid>' \
    --define 'date Sat Nov 28 2026' --define "_topdir $work/top" --define "_rpmdir $work" --define '_build_id_links none' \
    --define '_rpmfilename newer.rpm'

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
    let spec = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/packaging/moosefs-ucarp.spec");
    let work = tempfile::tempdir().expect("a folder for the root");
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "bash", "-c", LIFETIME, "bash", rpm.trim()]);
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
