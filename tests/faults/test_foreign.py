"""Files made to do harm: refused, never executed, and nothing large is allocated for them."""

import gzip
import io
import os
import pickle
import resource
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from processes import evaluate, run_mg, saliency, train

from mg.data import cifar, cifar_pickle, hdf5, imagenet_preparation, mnist
from mg.data.download import SourceError
from mg.errors import UserError
from mg.evaluation.pixels import check_fits
from mg.files import read_json
from mg.training.checkpoint import read_torch
from mg.training.feed import for_training


@pytest.fixture
def copy(whole, tmp_path):
    run = tmp_path / "translation/pmg/seed0"
    shutil.copytree(whole, run)
    return run


class Executed:
    """A pickle that makes a folder when it is read."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return (os.mkdir, (self.folder,))


def with_little_memory():
    """300 MB more than the process has: a declared size of gigabytes would show."""
    pages = int(open("/proc/self/statm").read().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + 300_000_000
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def predict(run, image, out):
    return [
        *("predict", "--model", run / "model.pt", "--device", "cpu"),
        *("--output", out, image),
    ]


PICKLES = {
    "torch.save": lambda path, evil: torch.save({"format": "mg-model-1", "network": evil}, path),
    "bare pickle": lambda path, evil: path.write_bytes(pickle.dumps(evil)),
    "zip": lambda path, evil: zipfile.ZipFile(path, "w").writestr(
        "archive/data.pkl", pickle.dumps(evil)
    ),
}


@pytest.mark.parametrize("kind", PICKLES)
def test_a_malicious_model_is_refused(copy, tmp_path, kind):
    PICKLES[kind](copy / "model.pt", Executed(tmp_path / "executed"))
    for command in (evaluate(copy), saliency(copy), ["show", copy / "model.pt"]):
        assert "model.pt" in run_mg(*command).line
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("kind", PICKLES)
def test_a_malicious_checkpoint_is_passed_over(copy, tmp_path, kind):
    folder = tmp_path / "run/checkpoints"
    folder.mkdir(parents=True)
    PICKLES[kind](folder / "checkpoint.pt", Executed(tmp_path / "executed"))
    ended = run_mg(*train(tmp_path / "run", copy / "train.h5"))
    assert ended.code == 0 and "ignored" in ended.err
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("options", [{"width": [60000, 60000]}, {"n_layer": 10**9}])
def test_a_model_that_declares_a_gigantic_network_takes_no_memory(copy, options):
    content = torch.load(copy / "model.pt", weights_only=True)
    torch.save({**content, "options": options}, copy / "model.pt")
    assert "model.pt" in run_mg(*evaluate(copy), before=with_little_memory).line


def linked(kind):
    def change(file, name):
        del file[name]
        file[name] = kind

    return change


def virtual(file, name):
    layout = h5py.VirtualLayout(file[name].shape, file[name].dtype)
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", file[name].shape)
    del file[name]
    file.create_virtual_dataset(name, layout)


def external(file, name):
    shape, kind = file[name].shape, file[name].dtype
    del file[name]
    file.create_dataset(name, shape, kind, external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])


FILTERS = {"compression": "gzip", "fletcher32": True}


def gigantic(file, name):
    shape, kind = file[name].shape, file[name].dtype
    del file[name]
    chunks = (1, *shape[1:])
    file.create_dataset(name, (2**34, *shape[1:]), kind, chunks=chunks, **FILTERS)


HARM = {
    "external link": linked(h5py.ExternalLink("/etc/passwd", "/x")),
    "soft link": linked(h5py.SoftLink("/nowhere")),
    "virtual": virtual,
    "external storage": external,
    "gigantic": gigantic,
    "a group": lambda file, name: (file.pop(name), file.create_group(name)),
}
PLACES = {
    "data": ("test.h5", "x", evaluate),
    "predictions": (
        "predictions.h5",
        "prediction",
        lambda run: [
            *("figure", "spatial", "--data", run / "test.h5", "--output", run / "f"),
            *("--predictions", run / "predictions.h5"),
        ],
    ),
    "maps": (
        "saliency.h5",
        "map",
        lambda run: [
            "figure",
            "saliency",
            "--saliency",
            run / "saliency.h5",
            "--output",
            run / "f",
        ],
    ),
    "shown": ("saliency.h5", "map", lambda run: ["show", run / "saliency.h5"]),
}


@pytest.mark.parametrize("harm", HARM)
@pytest.mark.parametrize("place", PLACES)
def test_hdf5_that_points_elsewhere_or_swells_is_refused(copy, place, harm):
    name, data, command = PLACES[place]
    with h5py.File(copy / name, "r+") as file:
        HARM[harm](file, data)
    ended = run_mg(*command(copy), before=with_little_memory)
    assert name in ended.line and data in ended.line
    assert not list(copy.glob("f.*"))


def tar(path, members):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def test_an_archive_that_climbs_out_writes_nothing(tmp_path):
    (tmp_path / "a").mkdir()
    members = [("../../outside", b"x"), ("/tmp/mg-outside", b"x")]
    path = tar(tmp_path / "a/b.tgz", members)
    with pytest.raises(SourceError, match="has no"):
        for _, pieces in mnist._from_archive(path, list(mnist.SHA256)):
            b"".join(pieces)
    assert [p.name for p in tmp_path.rglob("*")] == ["a", "b.tgz"]
    assert not os.path.exists("/tmp/mg-outside")


def drawn(path, kind, size=(40, 30)):
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)
    Image.fromarray(pixels).save(path, kind)
    return path.read_bytes()


def gigantic_png(content, size):
    header = b"IHDR" + struct.pack(">II", size, size) + content[24:29]
    return content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]


def gigantic_jpeg(content, size):
    place = content.index(b"\xff\xc0") + 5
    return content[:place] + struct.pack(">HH", size, size) + content[place + 4 :]


def gigantic_bmp(content, size):
    return content[:18] + struct.pack("<II", size, size) + content[26:]


GIGANTIC = {"PNG": gigantic_png, "JPEG": gigantic_jpeg, "BMP": gigantic_bmp}


TAKES_MEMORY = ("JPEG", 8000)  # so many are allowed


@pytest.mark.parametrize(
    "kind,size",
    [(k, n) for k in GIGANTIC for n in (8000, 13000, 65000) if (k, n) != TAKES_MEMORY],
)
def test_an_image_that_declares_a_gigantic_size_takes_no_memory(copy, tmp_path, kind, size):
    """Of 64 million pixels and more, in a few kilobytes; the last ones are bombs to Pillow too."""
    path = tmp_path / "image"
    path.write_bytes(GIGANTIC[kind](drawn(path, kind), size))
    ended = run_mg(*predict(copy, path, tmp_path / "out"), before=with_little_memory)
    assert f"{path} is no readable image" in ended.line
    assert not (tmp_path / "out").exists()


def test_a_jpeg_of_as_many_pixels_as_are_allowed_takes_their_memory_and_says_so(copy, tmp_path):
    """Only in its last bytes would Pillow notice that it is cut."""
    kind, size = TAKES_MEMORY
    path = tmp_path / "image"
    path.write_bytes(GIGANTIC[kind](drawn(path, kind), size))
    # In a process of its own: this one may have as much that it freed before, and use it again.
    script = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import mg.evaluation.images, test_foreign\nfrom mg.cli import main\n"
        "test_foreign.with_little_memory()\nmain(sys.argv[1:])"
    )
    arguments = map(str, predict(copy, path, tmp_path / "out"))
    command = [sys.executable, "-c", script, *arguments]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert "not enough memory" in line
    assert not (tmp_path / "out").exists()


def test_a_format_that_another_program_would_read_is_refused(copy, tmp_path):
    """Pillow gives PostScript, which is a program, to Ghostscript."""
    drawn(tmp_path / "image.eps", "EPS")
    ended = run_mg(*predict(copy, tmp_path / "image.eps", tmp_path / "out"))
    assert "image.eps is no readable image" in ended.line


# ------------------------------------------------------------------------ anything at all

quick = settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
REFUSED = (UserError, SourceError)


def refused_or_read(read, *arguments):
    """Only our own errors, in one line."""
    try:
        return read(*arguments)
    except REFUSED as error:
        assert "\n" not in str(error)


def changed(content, changes):
    """Some bytes of the content replaced, or the content cut."""
    content = bytearray(content)
    for place, byte in changes:
        if byte is None:
            del content[place % (len(content) + 1) :]
        elif content:
            content[place % len(content)] = byte
    return bytes(content)


changes = st.lists(
    st.tuples(st.integers(0, 2**20), st.one_of(st.integers(0, 255), st.none())), max_size=4
)


@quick
@given(st.one_of(st.binary(max_size=60), changes))
def test_any_idx_file(tmp_path, what):
    sound = b"\0\0\x08\x03" + np.array([2, 28, 28], ">u4").tobytes() + bytes(2 * 28 * 28)
    (tmp_path / "idx").write_bytes(what if isinstance(what, bytes) else changed(sound, what))
    refused_or_read(mnist._read_idx, tmp_path / "idx")


@quick
@given(changes)
def test_any_data_set(tmp_path, whole, what):
    (tmp_path / "set.h5").write_bytes(changed((whole / "test.h5").read_bytes(), what))
    refused_or_read(hdf5.load, tmp_path / "set.h5")


IMAGES = {"PNG", "JPEG", "WEBP", "BMP", "GIF", "PPM"}


@quick
@given(
    st.sampled_from(sorted(IMAGES)),
    st.lists(
        st.tuples(st.integers(0, 4000), st.one_of(st.integers(0, 255), st.none())), max_size=4
    ),
    st.booleans(),
)
def test_any_image(tmp_path, kind, what, in_the_header):
    path = tmp_path / f"sound {kind}"
    sound = path.read_bytes() if path.exists() else drawn(path, kind)
    if in_the_header:
        what = [(place % 60, byte) for place, byte in what]
    content = changed(sound, what)
    (tmp_path / "image").write_bytes(content)
    image = refused_or_read(imagenet_preparation.decode, tmp_path / "image")
    if content == sound:
        assert image.size == (40, 30)
    assert image is None or image.mode == "RGB" and image.width * image.height <= 2**26


@quick
@given(st.binary(max_size=200))
def test_anything_else_as_an_image(tmp_path, content):
    (tmp_path / "image").write_bytes(content)
    refused_or_read(imagenet_preparation.decode, tmp_path / "image")


@quick
@given(changes)
def test_any_maps(tmp_path, whole, what):
    from mg.evaluation.attention import read

    (tmp_path / "saliency.h5").write_bytes(changed((whole / "saliency.h5").read_bytes(), what))
    refused_or_read(read, tmp_path / "saliency.h5")


@pytest.fixture(params=["translation", "cifar10", "imagenet"])
def of_a_task(request):
    """A task, and a test set of it."""
    kinds = {"translation": "whole", "cifar10": "classified", "imagenet": "photographed"}
    return request.param, request.getfixturevalue(kinds[request.param]) / "test.h5"


@quick
@given(
    st.dictionaries(
        st.sampled_from(
            ["task", "split", "format", "seed", "canvas", "mode", "classes", "directory"]
        ),
        st.one_of(st.none(), st.integers(-(2**31), 2**31), st.floats(), st.text(max_size=5).filter(
            lambda text: "\0" not in text), st.lists(st.integers(0, 9), max_size=3)),
    )
)  # fmt: skip
@example({"task": "\n"})
def test_any_attributes_of_a_data_set(tmp_path, of_a_task, attributes):
    """None stands for an attribute that is missing."""
    task, sound = of_a_task
    path = tmp_path / "set.h5"
    shutil.copy(sound, path)
    with h5py.File(path, "r+") as file:
        for name, value in attributes.items():
            if value is None and name in file.attrs:
                del file.attrs[name]
        given = {name: value for name, value in attributes.items() if value is not None}
        hdf5.write_attributes(file, given)
    data = refused_or_read(for_training, task, [path], torch.device("cpu"), "plain")
    if data is not None and task == "translation":
        model = {"dataset": task, "network": "unet", "options": {}}
        refused_or_read(check_fits, model, hdf5.load(path), path)


@quick
@given(st.one_of(st.binary(max_size=80), changes))
def test_any_model(tmp_path, whole, what):
    sound = (whole / "model.pt").read_bytes()
    (tmp_path / "m.pt").write_bytes(what if isinstance(what, bytes) else changed(sound, what))
    refused_or_read(read_torch, tmp_path / "m.pt")


@quick
@given(st.one_of(st.binary(max_size=80), changes))
def test_any_json(tmp_path, whole, what):
    sound = (whole / "metrics.json").read_bytes()
    (tmp_path / "m.json").write_bytes(what if isinstance(what, bytes) else changed(sound, what))
    refused_or_read(read_json, tmp_path / "m.json")


@quick
@given(st.one_of(st.binary(max_size=80), changes))
def test_any_archive(tmp_path, what):
    path = tmp_path / "a.tgz"
    if not path.exists():
        tar(path, [(f"package/{name}", bytes(500)) for name in mnist.SHA256])
    sound = path.read_bytes()
    (tmp_path / "b.tgz").write_bytes(what if isinstance(what, bytes) else changed(sound, what))

    def read():
        for _, pieces in mnist._from_archive(tmp_path / "b.tgz", list(mnist.SHA256)):
            b"".join(pieces)

    refused_or_read(read)


@quick
@given(st.one_of(st.binary(max_size=80), changes))
def test_any_archive_of_cifar(tmp_path, classified, what):
    """The compressed bytes; what is within them, below."""
    name = cifar.ARCHIVES["cifar10"].file
    sound = (classified / name).read_bytes()
    (tmp_path / name).write_bytes(what if isinstance(what, bytes) else changed(sound, what))
    refused_or_read(cifar.read, "cifar10", tmp_path, "test")


@quick
@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), min_size=1, max_size=6))
def test_any_tar_file_of_cifar(tmp_path, classified, what):
    """Headers and beginnings of pickles changed under a right checksum of the whole."""
    name = cifar.ARCHIVES["cifar10"].file
    content = gzip.decompress((classified / name).read_bytes())
    (tmp_path / name).write_bytes(gzip.compress(changed(content, what), 1))
    for split in ("train", "test"):
        refused_or_read(cifar.read, "cifar10", tmp_path, split)


pieces = st.sampled_from(
    [b"\x80\x02", b"}", b"]", b")", b"(", b"q\x00", b"h\x00", b"K\x07", b"U\x04data", b"s", b"u",
     b"e", b"a", b"t", b"\x85", b"\x86", b"\x87", b"R", b"b", b"N", b"\x88", b"0", b"2", b"."]
    + [f"c{module}\n{name}\n".encode() for module, name in cifar_pickle._Unpickler._STAND_INS]
    + [b"cos\nsystem\n", b"r\xff\xff\xff\x7f", b"T\xff\xff\xff\x7f", b"\x8a\xff"]
)  # fmt: skip


@quick
@given(st.lists(pieces, max_size=25))
def test_any_pickle_of_cifar(parts):
    """Programs of the operations that these archives use, in any order, and a few others."""
    try:
        value = cifar_pickle.loads(b"".join(parts) + b".", "batch")
        cifar._batch(value, cifar.ARCHIVES["cifar10"], "batch")
    except ValueError as error:  # its caller names the archive
        assert "\n" not in str(error)


def test_a_malicious_pickle_of_cifar_is_refused(tmp_path):
    for protocol in (0, 2, 4):
        content = pickle.dumps({b"data": Executed(tmp_path / "executed")}, protocol)
        with pytest.raises(ValueError, match="data_batch_1"):  # its caller names the archive
            cifar_pickle.loads(content, "data_batch_1")
    assert not (tmp_path / "executed").exists()
