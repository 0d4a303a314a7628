#!/bin/sh
# Install the lock beside this file: install.sh [INDEX], where INDEX serves another build of PyTorch,
# in the lock's version, than the default, which is for CUDA.
set -eu
lock=$(dirname "$0")/requirements.txt
if [ -n "${1-}" ]; then
    # shellcheck disable=SC2046
    pip install --no-cache-dir --no-deps --index-url "$1" $(grep -E '^torch(vision)?==' "$lock")
fi
pip install --no-cache-dir -r "$lock"
