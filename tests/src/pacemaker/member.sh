# One member of a Pacemaker cluster, in namespaces of its own (mounts, host name, IPC, processes, network).
# Arguments: the member's name, and the folder with its corosync.conf and cib.xml, which also takes its logs.
set -eu
mount --make-rprivate /
# What follows hides the place where the folder lies.
mount --bind "$2" /mnt
hostname "$1"
for place in /run /dev/shm /tmp /var/log /var/lib/corosync /var/lib/pacemaker; do
    mount -t tmpfs tmpfs "$place"
done
mkdir -p /run/crm /run/lock /run/resource-agents /run/heartbeat/rsctmp /var/log/pacemaker /var/log/cluster \
    /var/lib/pacemaker/cib /var/lib/pacemaker/pengine /var/lib/pacemaker/blackbox /var/lib/pacemaker/cores
cp /mnt/cib.xml /var/lib/pacemaker/cib/
chmod 600 /var/lib/pacemaker/cib/cib.xml
chown -R hacluster:haclient /run/crm /var/lib/pacemaker /var/log/pacemaker
corosync -f -c /mnt/corosync.conf >>/mnt/corosync.log 2>&1 &
tries=0
until corosync-cfgtool -s >/dev/null 2>&1; do
    tries=$((tries + 1))
    if [ "$tries" -gt 400 ]; then
        echo "corosync does not come up" >&2
        exit 1
    fi
    sleep 0.05
done
PCMK_logfile=/mnt/pacemaker.log PCMK_logpriority=notice exec pacemakerd -f
