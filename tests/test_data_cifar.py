"""CIFAR's archives, as Python 2 wrote them: fetched, read, refused, and written."""

import gzip
import io
import os
import pickle
import tarfile
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pytest

from mg.data import SPLITS, cifar, cifar_pickle, hdf5
from mg.errors import UserError

NAMES = {"cifar10": [f"kind {i}" for i in range(10)], "cifar100": [f"c{i}" for i in range(100)]}


def images(count, classes=10, seed=0):
    random = np.random.default_rng(seed)
    x = random.integers(0, 256, (count, 3, 32, 32), np.uint8)
    return x, random.integers(0, classes, count).astype(np.uint16)


@pytest.fixture(scope="module", params=["cifar10", "cifar100"])
def written(request, tmp_path_factory):
    """(data set, folder with an archive of its format, training and test images)."""
    folder = tmp_path_factory.mktemp(request.param)
    classes = cifar.ARCHIVES[request.param].classes
    train, test = images(60, classes), images(20, classes, 1)
    path = folder / cifar.ARCHIVES[request.param].file
    cifar.write_archive(request.param, path, train, test, NAMES[request.param])
    return request.param, folder, train, test


def test_an_archive_is_read_back(written):
    dataset, folder, train, test = written
    parts = [cifar.read(dataset, folder, split) for split in SPLITS]
    assert [len(x) for x, _, _ in parts] == [54, 6, 20]
    for part in (0, 1):
        found = np.concatenate([parts[0][part], parts[1][part]])
        np.testing.assert_array_equal(found, train[part])
        np.testing.assert_array_equal(parts[2][part], test[part])
    assert parts[0][2] == NAMES[dataset]


def test_the_format_is_the_official_one(written):
    """Python and numpy themselves read the archive as its page says that they read the official."""
    dataset, folder, train, test = written
    archive = cifar.ARCHIVES[dataset]
    with tarfile.open(folder / archive.file) as file:
        name = f"{archive.folder}/{archive.test}"
        content = file.extractfile(name).read()
        loaded = pickle.loads(content, encoding="bytes")
    assert content.startswith(b"\x80\x02}(T") and b"numpy.core.multiarray" in content
    assert {archive.labels, b"data", b"filenames", b"batch_label"} == set(loaded)
    assert loaded[b"data"].shape == (20, 3072) and loaded[b"data"].dtype == np.uint8
    np.testing.assert_array_equal(loaded[b"data"].reshape(-1, 3, 32, 32), test[0])
    assert loaded[archive.labels] == test[1].tolist()


def test_pickles_of_numpy_itself_are_read(tmp_path):
    """Protocol 2 of Python 3, whose bytes go through _codecs.encode; and Fortran's order."""
    x, y = images(10)
    for order in "CF":
        values = {"data": np.asarray(x.reshape(10, -1), order=order), "labels": y.tolist()}
        values = {key.encode(): value for key, value in values.items()}
        content = pickle.dumps(values, protocol=2)
        found = cifar._batch(
            cifar_pickle.loads(content, "batch"), cifar.ARCHIVES["cifar10"], "batch"
        )
        np.testing.assert_array_equal(found[0], x)


def test_a_split_becomes_a_data_set(written, tmp_path):
    dataset, folder, train, _ = written
    cifar.prepare(dataset, "train", folder, tmp_path / "train.h5", count=40)
    data = hdf5.load(tmp_path / "train.h5", layout=hdf5.IMAGES)
    np.testing.assert_array_equal(data.x, train[0][:40])
    np.testing.assert_array_equal(data.y, train[1][:40])
    assert data.attributes["classes"] == NAMES[dataset]
    with pytest.raises(UserError, match="54 images for .* train, not 55"):
        cifar.prepare(dataset, "train", folder, tmp_path / "more.h5", count=55)
    with pytest.raises(UserError, match="holds images and their classes; needed are"):
        hdf5.load(tmp_path / "train.h5")


# ------------------------------------------------------------------------ what is refused


class Malicious:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (os.mkdir, (self.path,))


def archive_of(path, members):
    with tarfile.open(path, "w:gz") as file:
        for name, content in members:
            if isinstance(name, tarfile.TarInfo):
                file.addfile(name)
                continue
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))


def meta():
    return pickle.dumps({b"label_names": [name.encode() for name in NAMES["cifar10"]]}, 2)


def batch(**changes):
    x, y = images(20)
    values = {b"data": x.reshape(20, -1), b"labels": y.tolist()}
    return pickle.dumps(values | {k.encode(): v for k, v in changes.items()}, 2)


def link(kind):
    member = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
    member.type, member.linkname = kind, "/etc/passwd"
    return member


PLACE = "cifar-10-batches-py"
GLOBAL = b"\x80\x02cos\nsystem\nU\x04true\x85R."
CHANGED_FUNCTION = b"\x80\x02c_codecs\nencode\nN}U\x0c__defaults__Ns\x86b."
REFUSED = {
    "code": (pickle.dumps(Malicious("executed"), 2), "is refused"),
    "system": (GLOBAL, "asks for os.system"),
    "changed function": (CHANGED_FUNCTION, "changes a function"),
    "huge memo": (b"\x80\x02}r\xff\xff\xff\x7f.", "numbers its parts"),
    "frames": (pickle.dumps({b"data": 1}, 4), "which is refused"),
    "objects": (batch(data=np.array([None, 1])), "not of bytes"),
    "floats": (batch(data=np.zeros((20, 3072))), "not of bytes"),
    "too few pixels": (batch(data=np.zeros((20, 3071), np.uint8)), "3072 bytes per image"),
    "a class too many": (batch(labels=[10] * 20), "numbers below 10"),
    "text for classes": (batch(labels=["a"] * 20), "numbers below 10"),
    "no classes": (batch(labels=None), "no data and labels"),
    "a list": (pickle.dumps([1, 2], 2), "no dictionary"),
    "cut": (batch()[:-5000], "data_batch_1"),
    "empty": (b"", "data_batch_1"),
    "declared too large": (
        batch().replace(b"K\x14M\x00\x0c\x86", b"K\xffM\x00\x0c\x86"),
        "declares an array of (255, 3072)",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_pickle_of_anything_else_is_refused(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content, message = REFUSED[kind]
    names = [f"{PLACE}/data_batch_{i}" for i in range(1, 6)]
    archive_of(
        tmp_path / "cifar-10-python.tar.gz",
        [(f"{PLACE}/batches.meta", meta()), *((name, content) for name in names)],
    )
    with pytest.raises(UserError, match="is not CIFAR-10 in its python version") as caught:
        cifar.read("cifar10", tmp_path, "train")
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("../data_batch_1", batch(), "no file of its own folder"),
        ("/cifar-10-batches-py/data_batch_1", batch(), "no file of its own folder"),
        (link(tarfile.SYMTYPE), b"", "no file of its own folder"),
        (link(tarfile.LNKTYPE), b"", "no file of its own folder"),
        (link(tarfile.CHRTYPE), b"", "no file of its own folder"),
        ("elsewhere/data_batch_1", batch(), "has no cifar-10-batches-py/batches.meta"),
    ],
)
def test_members_out_of_place_are_refused(name, content, message, tmp_path):
    archive_of(tmp_path / "cifar-10-python.tar.gz", [(name, content)])
    with pytest.raises(UserError, match=message):
        cifar.read("cifar10", tmp_path, "train")


def test_a_large_member_is_not_read(tmp_path):
    member = tarfile.TarInfo(f"{PLACE}/data_batch_1")
    member.size = 10**12
    with gzip.open(tmp_path / "cifar-10-python.tar.gz", "wb") as file:
        file.write(member.tobuf())
    with pytest.raises(UserError, match="a file of 1,000,000,000,000 bytes"):
        cifar.read("cifar10", tmp_path, "train")


def test_damaged_archives_end_in_one_line(written, tmp_path):
    dataset, folder, *_ = written
    file = cifar.ARCHIVES[dataset].file
    whole = (folder / file).read_bytes()
    random = np.random.default_rng(3)
    refused = 0
    for cut in range(12):
        content = bytearray(whole)
        if cut < 4:
            content = content[: len(content) * cut // 4]
        else:
            for place in random.integers(0, len(content), 20):
                content[place] = random.integers(256)
        (tmp_path / file).write_bytes(content)
        try:
            cifar.read(dataset, tmp_path, "train")
        except UserError as error:
            refused += 1
            assert "\n" not in str(error) and file in str(error)
    assert refused >= 10


def test_flipped_bytes_of_a_pickle_never_cause_another_error():
    content = batch()
    random = np.random.default_rng(5)
    for _ in range(200):
        damaged = bytearray(content)
        for place in (*random.integers(0, 200, 3), *random.integers(0, len(content), 3)):
            damaged[place] = random.integers(256)
        try:
            cifar._batch(cifar_pickle.loads(bytes(damaged), "x"), cifar.ARCHIVES["cifar10"], "x")
        except ValueError:
            pass


# ------------------------------------------------------------------------ where it comes from


@contextmanager
def serving(folder):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            path = folder / self.path.lstrip("/")
            content = path.read_bytes() if path.exists() else b""
            self.send_response(200 if path.exists() else 404)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def official(written, monkeypatch):
    """(data set, folder) of a small archive that passes for the official one."""
    from dataclasses import replace

    from mg.data.download import sha256

    dataset, folder, *_ = written
    path = folder / cifar.ARCHIVES[dataset].file
    pinned = {"sha256": sha256(path), "size": path.stat().st_size}
    monkeypatch.setitem(cifar.ARCHIVES, dataset, replace(cifar.ARCHIVES[dataset], **pinned))
    return dataset, folder


def test_an_archive_is_fetched_verified_and_left_alone(official, tmp_path):
    dataset, folder = official
    log = []
    with serving(folder) as address:
        sources = [str(tmp_path / "nowhere"), f"{address}empty/", address]
        assert cifar.fetch(dataset, tmp_path / "data", sources, log.append) == address
    assert "nowhere" in log[0] and "404" in log[1]
    assert cifar.fetch(dataset, tmp_path / "data", [], log.append) == "already present"
    assert len(cifar.read(dataset, tmp_path / "data", "test")[0]) == 20
    assert cifar.fetch(dataset, tmp_path / "copy", [str(folder)], log.append) == str(folder)


@pytest.mark.parametrize("wrong", ["http://[abc/", "https://.x/"])
def test_what_is_no_address_is_left_for_the_next_source(wrong, official, tmp_path):
    dataset, folder = official
    log = []
    assert cifar.fetch(dataset, tmp_path / "a", [wrong, str(folder)], log.append) == str(folder)
    assert f"not from {wrong}: it is no valid address" in log[0]
    with pytest.raises(UserError) as caught:
        cifar.fetch(dataset, tmp_path / "b", [wrong], log.append)
    assert f"  {wrong}: it is no valid address" in str(caught.value)


def test_the_official_checksum_is_insisted_on(written, tmp_path):
    dataset, folder, *_ = written
    with pytest.raises(UserError, match="could not be fetched"):
        cifar.fetch(dataset, tmp_path, [str(folder)], lambda line: None)
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="move it away to fetch it, or, to use one of your own"):
        cifar.fetch(dataset, folder, log=lambda line: None)
    assert cifar.fetch(dataset, folder, ["as-is"], lambda line: None) == "as-is"


def test_missing_data_are_explained_once(tmp_path):
    with pytest.raises(UserError) as caught:
        cifar.fetch("cifar100", tmp_path / "data", ["https://mirror.invalid/"], lambda line: None)
    text = str(caught.value)
    for part in (
        "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",  # where to get it
        str(tmp_path / "data" / "cifar-100-python.tar.gz"),  # where to put it
        "169 MB",  # how large it is
        cifar.ARCHIVES["cifar100"].sha256,
        "config/cifar-digits.yaml",  # how to run without it
    ):
        assert part in text


# ------------------------------------------------------------------------ digits


def test_digits_become_an_archive(mnist_directory, tmp_path):
    source = f"mnist:{mnist_directory}"
    assert cifar.fetch("cifar10", tmp_path, [source], lambda line: None) == source
    x, y, names = cifar.read("cifar10", tmp_path, "test")
    assert x.shape == (10_000, 3, 32, 32) and names[7] == "digit 7"
    from mg.data import mnist

    digits, labels = mnist.load_split(mnist_directory, "test")
    np.testing.assert_array_equal(x[:, 1, 2:30, 2:30], digits)
    np.testing.assert_array_equal(y, labels)
    assert not x[:, :, :2].any()


def test_only_an_archive_of_digits_is_replaced_with_digits(tmp_path, monkeypatch):
    written = tmp_path / "cifar-10-python.tar.gz"
    own = images(30), images(10)
    random = np.random.default_rng(0)
    parts = random.integers(0, 256, (30, 28, 28), np.uint8), np.arange(30, dtype=np.uint8) % 10
    monkeypatch.setattr(cifar.mnist, "load_split", lambda directory, split: parts)

    def fetch():
        return cifar.fetch("cifar10", tmp_path, ["mnist:digits"], lambda line: None)

    assert fetch() == fetch() == "mnist:digits"
    cifar.write_archive("cifar10", written, *own, [f"kind {i}" for i in range(10)])
    for content in (written.read_bytes(), b"something else"):
        written.write_bytes(content)
        with pytest.raises(UserError, match=f"{written} is no archive of MNIST's digits") as error:
            fetch()
        assert "\n" not in str(error.value) and written.read_bytes() == content
