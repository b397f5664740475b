# Process 1 of a machine: builds the machine's root, says "ready PID", then reaps until it is killed.
# Usage: bash machine.sh NAME FOLDER LOWER DISK-PATH...   in new mount, pid, uts and network namespaces.
exec 2>&1
set -eu
name=$1 folder=$2 lower=$3
shift 3
read -r pid _ < /proc/self/stat # still the host's /proc, so the host's pid

mount --make-rprivate /
mkdir -p "$folder/over"
mount -t tmpfs -o mode=755 tmpfs "$folder/over"
mkdir "$folder/over/upper" "$folder/over/work" "$folder/over/root"
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$folder/over/upper,workdir=$folder/over/work" "$folder/over/root"
cd "$folder/over/root"

mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
for device in null zero full random urandom tty fuse; do
    : > "dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
mkdir dev/shm dev/pts run/lock
mount -t tmpfs -o mode=1777 tmpfs dev/shm
mount -t devpts -o newinstance,ptmxmode=666,mode=620 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
: > dev/log
mount --bind "$folder/log.socket" dev/log

for path; do # the disk: folders that survive a power cut
    mkdir -p "./$path"
    mount --bind "$folder/disk$path" "./$path"
done
if [ -e "$folder/disk.img" ]; then mount -o loop "$folder/disk.img" ./var/lib/mfs; fi
cp -a "$folder/files/." .

echo "$name" > /proc/sys/kernel/hostname
for scope in all default; do
    if [ -e /proc/sys/net/ipv6/conf/$scope ]; then echo 1 > /proc/sys/net/ipv6/conf/$scope/disable_ipv6; fi
done

pivot_root . mnt
cd /
umount -l /mnt
mkdir -p /mnt/mfs /mnt/check
if [ -e /etc/sysctl.d/lab.conf ]; then sysctl -q -p /etc/sysctl.d/lab.conf; fi
exec < /dev/null
echo "ready $pid"
set +e
while :; do
    sleep 1000 &
    wait $!
done
