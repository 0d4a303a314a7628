#!/usr/bin/env bash
# Stop what tests/slurm/start.sh started, and remove what it wrote.
set -u
run=${SLURM_RUN:-/tmp/mg-slurm}
unset SLURM_CONF

# running PID: not gone, and not merely waiting for its parent to notice
running() { [ -r "/proc/$1/stat" ] && ! grep -q ') Z ' "/proc/$1/stat" 2> /dev/null; }

if [ -s "$run/slurmctld.pid" ] && running "$(cat "$run/slurmctld.pid")"; then
    timeout 10 scancel --user=root 2> /dev/null  # jobs would outlive slurmd
    for _ in $(seq 60); do
        [ -z "$(timeout 5 squeue -h 2> /dev/null)" ] && break
        sleep 0.5
    done
fi
for daemon in slurmd slurmctld munged; do
    [ -s "$run/$daemon.pid" ] || continue
    pid=$(cat "$run/$daemon.pid")
    kill "$pid" 2> /dev/null
    for _ in $(seq 60); do
        running "$pid" || break
        sleep 0.25
    done
    running "$pid" && kill -9 "$pid"
done
rm -rf "$run"
if grep -qsxF "# Written by tests/slurm/start.sh of mg" /etc/slurm/slurm.conf; then
    rm -f /etc/slurm/slurm.conf /etc/slurm/gres.conf
fi
exit 0
