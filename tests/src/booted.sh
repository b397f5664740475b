# Boots a machine with systemd from a Debian root, in which nothing is changed: an overlay in memory takes all writes.
# Usage: bash -c SCRIPT booted ROOT GROUP   in new mount, pid, uts and network namespaces.
exec 2>&1
set -eu
root=$1 group=$2

mount --make-rprivate /
mount -t proc proc /proc
mkdir -p /run/systemd/nspawn
mount -t tmpfs -o mode=755 tmpfs /run/systemd/nspawn

# A control group of its own in the hierarchies that systemd uses: version 2, or 1 with 2 beside it.
for hierarchy in /sys/fs/cgroup /sys/fs/cgroup/unified /sys/fs/cgroup/systemd; do
    [ -e "$hierarchy/cgroup.procs" ] || continue
    case $hierarchy in */systemd) key='name=systemd' ;; *) key='' ;; esac
    own=$(sed -n "s/^[0-9]*:$key://p" /proc/self/cgroup)
    mkdir -p "$hierarchy$own/$group"
    find "$hierarchy$own/$group" -mindepth 1 -depth -type d -exec rmdir {} + # left by one that was killed
    echo 0 > "$hierarchy$own/$group/cgroup.procs"
    echo "group $hierarchy$own/$group"
done

ip link set lo up
ip link add switch type veth peer name eth0
ip addr add 172.16.0.1/16 dev switch
ip addr add 172.16.0.11/16 dev eth0
ip link set switch up
ip link set eth0 up
exec systemd-nspawn --directory="$root" --volatile=overlay --boot --machine=booted --register=no --keep-unit \
    --capability=CAP_NET_ADMIN --console=pipe --quiet
