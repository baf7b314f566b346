#!/bin/sh
# Boots systemd as process 1 of a container on an overlay of this machine's own root: called in fresh mount, PID, network, UTS,
# IPC and cgroup namespaces, with an empty folder. What the container writes ends with it.
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
cd "$1/root"
mount -t proc proc proc
# Sysctls and devices are this machine's.
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
for device in null zero full random urandom tty; do
    touch "dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
mkdir dev/pts dev/shm old
# Process 1 and the bus, and nothing of what this machine would start.
mkdir -p run/systemd/system run/systemd/system-generators
for generator in usr/lib/systemd/system-generators/*; do
    ln -s /dev/null "run/systemd/system-generators/${generator##*/}"
done
cat > run/systemd/system/lab.target <<END
[Unit]
DefaultDependencies=no
Requires=dbus.socket
END
cat > run/systemd/system/dbus.socket <<END
[Unit]
DefaultDependencies=no
[Socket]
ListenStream=/run/dbus/system_bus_socket
END
cat > run/systemd/system/dbus.service <<END
[Unit]
DefaultDependencies=no
Requires=dbus.socket
[Service]
Type=notify
ExecStart=/usr/bin/dbus-daemon --system --address=systemd: --nofork --nopidfile --systemd-activation
END
pivot_root . old
umount -l /old
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    setpriv --bounding-set -sys_module,-sys_time,-sys_rawio,-sys_boot /lib/systemd/systemd --unit=lab.target
