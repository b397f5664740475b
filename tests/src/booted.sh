# Boots a machine from a Debian root, in which nothing is changed: an overlay takes all writes. It is in the folder DISK, or in
# memory if that is empty.
# Usage: bash -c SCRIPT booted ROOT NAME DISK GROUP...   in new mount, pid, uts and network namespaces. The groups are control
# groups that are the machine's own. Its eth0 comes later, with the cable.
exec 2>&1
set -eu
root=$1 name=$2 disk=$3
shift 3

for group; do echo 0 > "$group/cgroup.procs"; done
mount --make-rprivate /
mount -t proc proc /proc
mkdir -p /run/systemd/nspawn
mount -t tmpfs -o mode=755 tmpfs /run/systemd/nspawn
if [ ! -e /sys/fs/cgroup/cgroup.procs ]; then
    # Newer releases of systemd know version 2 only.
    export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
fi
volatile=overlay
if [ -n "$disk" ]; then
    mkdir -p "$disk/upper" "$disk/work" "$disk/root"
    mount -t overlay overlay -o "lowerdir=$root,upperdir=$disk/upper,workdir=$disk/work" "$disk/root"
    root=$disk/root volatile=no
fi
exec systemd-nspawn --directory="$root" --volatile=$volatile --boot --machine="$name" --register=no --keep-unit \
    --capability=CAP_NET_ADMIN --console=pipe --quiet
