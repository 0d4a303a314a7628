#!/usr/bin/env bash
# What only a GPU can tell, in one command: the tests that need one, then speed, what matters most
# first. Where time is short, stop it at any moment: every part is kept as far as it came.
#
#     benchmarks/gpu.sh [FOLDER]      an hour by estimate; output into FOLDER (results/gpu)
#
# PYTHON names an interpreter other than that of .venv. A part that fails does not stop the next.
set -u
cd "$(dirname "$0")/.."
folder=${1:-results/gpu}
python=${PYTHON:-.venv/bin/python}
"$python" -c 'import sys, torch
torch.cuda.is_available() or sys.exit("benchmarks/gpu.sh: no CUDA device is visible to PyTorch; install its build for CUDA, or look at nvidia-smi")
try:
    import pytest, mg.training.loop
except ImportError as error:
    sys.exit(f"benchmarks/gpu.sh: {error}; install envs/requirements.txt and envs/requirements-dev.txt")' || exit 1
mkdir -p "$folder" || exit 1

failed=0
part() {
    local name=$1
    shift
    echo "== $name: $*"
    if ! "$@" 2>&1 | tee "$folder/$name.txt"; then
        echo "== $name failed"
        failed=1
    fi
}
set -o pipefail

export TORCHINDUCTOR_COMPILE_THREADS=1 # six tests at a time
part tests "$python" -m pytest -q -n 6 -p no:cacheprovider -k "recorded or never_waits or goes_on_where" tests/test_training_step.py tests/test_training_loop.py tests/test_metrics.py
export TORCHINDUCTOR_COMPILE_THREADS=$(nproc)
for network in pmg r_pmg unet; do
    part $network "$python" benchmarks/training.py --networks $network --compile --rounds 7
done
part side-by-side "$python" benchmarks/training.py --side-by-side --networks pmg --rounds 7
part muon "$python" benchmarks/muon.py
part others "$python" benchmarks/training.py --networks umg sg r_sg --rounds 7
if command -v nvidia-cuda-mps-control >/dev/null; then # the kernels of several processes at once
    CUDA_MPS_PIPE_DIRECTORY=$(mktemp -d)
    export CUDA_MPS_PIPE_DIRECTORY CUDA_MPS_LOG_DIRECTORY=$CUDA_MPS_PIPE_DIRECTORY
    if nvidia-cuda-mps-control -d; then
        trap 'echo quit | nvidia-cuda-mps-control; rm -rf "$CUDA_MPS_PIPE_DIRECTORY"' EXIT
        part side-by-side-mps "$python" benchmarks/training.py --side-by-side --networks pmg --rounds 7
    fi
fi
exit $failed
