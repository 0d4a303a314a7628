#!/usr/bin/env bash
# Start a real SLURM cluster of one node on the loopback address: as root, without systemd.
#   tests/slurm/start.sh    needs slurmctld, slurmd, srun and munged (tests/slurm/install.sh)
#   tests/slurm/stop.sh     stops it
# The node claims 8 processors, 16 GB and one GPU (a character device); two partitions, cpu and gpu.
# A requeued job waits cred_expire seconds before it starts again.
# There is no accounting. The configuration has to lie in /etc/slurm: the plugin's job steps forget
# SLURM_CONF. State and logs lie in $SLURM_RUN.
set -euo pipefail
run=${SLURM_RUN:-/tmp/mg-slurm}
mark="# Written by tests/slurm/start.sh of mg"
host=$(hostname -s)
socket=$run/munge/munge.socket.2

fail() {
    echo "tests/slurm/start.sh: $1" >&2
    tail -n 20 "$run"/log/*.log >&2 || true
    exit 1
}

# wait_for SECONDS WHAT COMMAND...: until COMMAND succeeds
wait_for() {
    local end=$((SECONDS + $1)) what=$2
    shift 2
    until timeout 5 "$@" > /dev/null 2>&1; do
        [ "$SECONDS" -lt "$end" ] || fail "$what is not ready"
        sleep 0.1
    done
}

[ "$(id -u)" = 0 ] || fail "must be root"
if [ -e /etc/slurm/slurm.conf ] && ! grep -qxF "$mark" /etc/slurm/slurm.conf; then
    fail "/etc/slurm/slurm.conf is of a real cluster; it is left alone"
fi
unset SLURM_CONF
"$(dirname "$0")/stop.sh"

mkdir -p "$run"/{state,spool,log,dev,munge} /etc/slurm
chmod 755 "$run" "$run/munge"  # munge wants its socket's folder to be open to all, its key to none
(umask 077 && head -c 1024 /dev/urandom > "$run/munge/munge.key")
mknod -m 666 "$run/dev/gpu0" c 1 3  # /dev/null under another name: a plain file would not be given to jobs

# Listen on loopback only, where the host's name is a loopback address; elsewhere that would not work.
loopback=
if getent ahostsv4 "$host" | grep -q '^127\.'; then
    loopback=CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
fi
cat > /etc/slurm/slurm.conf <<CONF
$mark
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$socket,cred_expire=30
CredType=cred/munge
$loopback
StateSaveLocation=$run/state
SlurmdSpoolDir=$run/spool
SlurmctldPidFile=$run/slurmctld.pid
SlurmdPidFile=$run/slurmd.pid
SlurmctldLogFile=$run/log/slurmctld.log
SlurmdLogFile=$run/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
MinJobAge=3600
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/filetxt
JobCompLoc=$run/log/jobcomp.log
SlurmdParameters=config_overrides
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 CPUs=8 RealMemory=16000 Gres=gpu:1 State=UNKNOWN
PartitionName=cpu Nodes=n1 Default=YES DefaultTime=10 MaxTime=60 State=UP
PartitionName=gpu Nodes=n1 DefaultTime=10 MaxTime=60 State=UP
CONF
echo "NodeName=n1 Name=gpu File=$run/dev/gpu0" > /etc/slurm/gres.conf

# The daemons go to the background by themselves, and say there why they could not start.
munged --key-file="$run/munge/munge.key" --socket="$socket" --pid-file="$run/munged.pid" \
    --log-file="$run/log/munged.log" --seed-file="$run/munge/munged.seed"
wait_for 20 munged munge -S "$socket" -n
slurmctld
wait_for 30 slurmctld sh -c 'scontrol ping | grep -q UP'
slurmd
wait_for 30 "the node" sh -c 'sinfo -h -n n1 -o %T | grep -qx idle'
[ "$(timeout 30 srun -n1 hostname)" = "$(hostname)" ] || fail "srun does not run"
