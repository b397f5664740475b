# Boots a machine with systemd from a Debian root, in which nothing is changed: an overlay in memory takes all writes.
# Usage: bash -c SCRIPT booted ROOT NAME GROUP...   in new mount, pid, uts and network namespaces. The groups are control
# groups that are the machine's own. Its eth0 comes later, with the cable.
exec 2>&1
set -eu
root=$1 name=$2
shift 2

for group; do echo 0 > "$group/cgroup.procs"; done
mount --make-rprivate /
mount -t proc proc /proc
mkdir -p /run/systemd/nspawn
mount -t tmpfs -o mode=755 tmpfs /run/systemd/nspawn
if [ ! -e /sys/fs/cgroup/cgroup.procs ]; then
    # Newer releases of systemd know version 2 only.
    export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
fi
exec systemd-nspawn --directory="$root" --volatile=overlay --boot --machine="$name" --register=no --keep-unit \
    --capability=CAP_NET_ADMIN --console=pipe --quiet
