"""Downloads by `mg fetch`: no network, bad servers, no room, no permission, killed, doubled."""

import gzip
import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from processes import Running, checksums, run_mg
from test_data_mnist import digits, send, served

from mg.data import cifar, download, mnist


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


@pytest.fixture(params=["mnist", "cifar10"])
def data(request, monkeypatch):
    """Files that pass for a data set's: `files` as they are kept, `bodies` as they are served."""
    if request.param == "mnist":
        files = dict(zip(mnist.SHA256, (*digits(400), *digits(200)), strict=True))
        for name, content in files.items():
            monkeypatch.setitem(mnist.SHA256, name, hashlib.sha256(content).hexdigest())
            monkeypatch.setitem(mnist.SIZES, name, len(content))
        bodies = {f"{name}.gz": gzip.compress(content) for name, content in files.items()}
    else:
        archive = cifar.ARCHIVES["cifar10"]
        content = np.random.default_rng(0).bytes(300_000)
        pinned = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        monkeypatch.setitem(cifar.ARCHIVES, "cifar10", replace(archive, **pinned))
        files = bodies = {archive.file: content}
    return SimpleNamespace(name=request.param, files=files, bodies=bodies)


def fetch(data, out, *sources):
    return ["fetch", "--data", data.name, "--output", out, "--source", *sources]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def good(data):
    return lambda handler, name: send(handler, data.bodies[name])


def slow(data):
    """In pieces, for half a second."""

    def answer(handler, name):
        body = data.bodies[name]
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        for start in range(0, len(body), len(body) // 20):
            handler.wfile.write(body[start : start + len(body) // 20])
            time.sleep(0.5 / 20 / len(data.bodies))

    return answer


def hanging(data):
    def answer(handler, name):
        send(handler, data.bodies[name][:1000], len(data.bodies[name]))
        time.sleep(4)

    return answer


def wrong(data):
    body = data.bodies[max(data.bodies, key=lambda name: len(data.bodies[name]))]
    return lambda handler, name: send(handler, body[:-1000] + bytes(1000))


BAD = {
    "hangs": (hanging, "silent for 2 s"),
    "sends an error page": (
        lambda data: lambda handler, name: send(handler, b"<html>please log in</html>"),
        "(an error page\\?|ends after 26 of)",
    ),
    "answers that it has none": (
        lambda data: lambda handler, name: send(handler, b"<html>gone</html>", status=404),
        "HTTP status 404",
    ),
    "cuts the file": (
        lambda data: (
            lambda handler, name: send(handler, data.bodies[name][:5000], len(data.bodies[name]))
        ),
        "connection ended after 5,000 of",
    ),
    "sends wrong bytes": (wrong, "(SHA-256 differs|damaged|truncated|larger than)"),
}


@pytest.mark.parametrize("mirror", BAD)
def test_a_mirror_that_is_bad_is_left_for_the_next(mirror, data, tmp_path, monkeypatch):
    """By itself it ends the download with its reason, and nothing lies under a final name."""
    monkeypatch.setattr(download, "_SILENCE_SECONDS", 2)
    answer, reason = BAD[mirror]
    with served(answer(data)) as (bad, _), served(good(data)) as (address, _):
        alone = run_mg(*fetch(data, tmp_path / "alone", bad))
        both = run_mg(*fetch(data, tmp_path / "both", bad, address))
    assert alone.code == 2 and "Traceback" not in alone.err + both.err
    for ended in (alone, both):
        assert re.search(f"not from {bad}: .*{reason}", ended.err)
    assert not checksums(tmp_path / "alone")
    assert both.code == 0 and f"fetched from {address}" in both.err
    assert contents(tmp_path / "both") == data.files


def test_a_full_disk_ends_the_download(data, small_disk):
    """It is the disk's fault, so the next source is not asked; what was there stays."""
    out = small_disk(100)
    (out / "kept").write_bytes(bytes(range(256)) * 48)
    before = checksums(out)
    with served(good(data)) as (address, requests):
        ended = run_mg(*fetch(data, out / "data", address, address))
    assert "No space left on device" in ended.err.splitlines()[-1] and ended.code == 2
    assert "Traceback" not in ended.err and "not from" not in ended.err
    assert len(requests) == len({*requests}), "nothing was asked for again"
    found = checksums(out)
    assert before.items() <= found.items()
    for path in found.keys() - before.keys():
        assert path.read_bytes() == data.files[path.name], "whole, under its final name"


def test_a_read_only_directory_ends_the_download(data, small_disk):
    out = small_disk(100)
    subprocess.run(["mount", "-o", "remount,ro", out], check=True)
    with served(good(data)) as (address, _):
        line = run_mg(*fetch(data, out / "data", address)).line
    assert "Read-only file system" in line and str(out) in line


def test_two_downloads_at_once_give_whole_files(data, tmp_path):
    with served(slow(data)) as (address, _):
        both = [Running(*fetch(data, tmp_path / "data", address)) for _ in range(2)]
        assert [process.end().code for process in both] == [0, 0]
    assert contents(tmp_path / "data") == data.files


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_download_killed_at_random_moments(number, data, tmp_path):
    """What lies under its final name is whole; the same command brings the rest."""
    out, moments = tmp_path / "data", random.Random(f"{data.name} {number}")
    for _ in range(4):
        shutil.rmtree(out, ignore_errors=True)
        with served(slow(data)) as (address, _):
            process = Running(*fetch(data, out, address))
            time.sleep(moments.uniform(0, 0.5))
            os.kill(process.pid, number)
            ended = process.end()
        assert ended.code in (0, -number, 128 + number) and "Traceback" not in ended.err
        found = contents(out) if out.exists() else {}
        hidden = {name for name in found if name.startswith(".")}
        assert all(found[name] == data.files[name] for name in found.keys() - hidden)
        assert number == signal.SIGKILL or not hidden, "half-written files are cleared away"
    with served(good(data)) as (address, _):
        assert run_mg(*fetch(data, out, address)).code == 0
    assert {name: (out / name).read_bytes() for name in data.files} == data.files
