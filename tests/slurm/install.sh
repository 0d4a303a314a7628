#!/usr/bin/env bash
# Install SLURM's packages (Debian, Ubuntu) for the tests; says why not, and fails, where that can't be.
set -euo pipefail
commands="slurmctld slurmd srun munged"
# shellcheck disable=SC2086
if command -v $commands > /dev/null && [ "$(command -v $commands | wc -l)" = 4 ]; then
    exit 0
fi
[ "$(id -u)" = 0 ] || { echo "SLURM can't be installed: not root"; exit 1; }
command -v apt-get > /dev/null || { echo "SLURM can't be installed: no apt-get"; exit 1; }
export DEBIAN_FRONTEND=noninteractive
packages="slurmctld slurmd slurm-client munge"
# shellcheck disable=SC2086
{ apt-get update -qq && apt-get install -y -qq --no-install-recommends $packages; } > /dev/null 2>&1 \
    || { echo "SLURM can't be installed: apt-get failed"; exit 1; }
