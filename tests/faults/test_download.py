"""A machine that reaches nothing."""

import os
import shutil
import subprocess
import sys

import pytest


def test_no_network_at_all(tmp_path):
    """In a network namespace of its own, where not even localhost answers, soon."""
    apart = [shutil.which("unshare") or "unshare", "--net"]
    try:
        subprocess.run([*apart, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no network namespace can be made here: {error}")
    done = subprocess.run(
        [*apart, sys.executable, "-m", "mg", "fetch", "--output", tmp_path / "mnist"],
        env=os.environ | {"npm_config_cache": str(tmp_path / "npm")},  # else it has them already
        capture_output=True,
        text=True,
        timeout=60,  # npm by itself takes 70 s
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "mg fetch: error:" in done.stderr and f"{tmp_path / 'mnist'}" in done.stderr
    assert not [path for path in (tmp_path / "mnist").rglob("*") if path.is_file()]
