"""The data set's file: what goes in comes out, others can read it, and damage is found."""

import re
import subprocess
import sys
import time
import zlib

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mg.data import hdf5
from mg.errors import UserError

ATTRIBUTES = {"task": "segmentation", "seed": 1, "scale": (0.5, 1.25), "threshold": 0.3}


def examples(count, side=64, classes=10, seed=0):
    """Sparse inputs and targets."""
    random = np.random.default_rng(seed)
    x = random.random((count, 1, side, side), np.float32)
    x *= random.random(x.shape) < 0.2
    return x, (random.random((count, classes, side, side)) < 0.02).astype(np.uint8)


@pytest.fixture
def written(tmp_path):
    x, y = examples(40)
    path = tmp_path / "set.h5"
    hdf5.write(path, [(x, y)], ATTRIBUTES)
    return path, x, y


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("sizes", [[1], [16], [40], [7, 30, 1, 16, 3], [0, 5, 0]])
def test_blocks_of_any_size_come_back_as_one(sizes, workers, tmp_path):
    x, y = examples(sum(sizes))
    ends = np.cumsum(sizes)[:-1]
    blocks = zip(np.split(x, ends), np.split(y, ends), strict=True)
    hdf5.write(tmp_path / "set.h5", blocks, ATTRIBUTES, workers)
    data = hdf5.load(tmp_path / "set.h5")
    assert np.array_equal(data.x, x) and data.x.dtype == np.float32
    assert np.array_equal(data.y, y) and data.y.dtype == np.uint8
    assert data.attributes == {
        **{"task": "segmentation", "seed": 1, "scale": [0.5, 1.25], "threshold": 0.3},
        "format": hdf5.PIXELS.format,
    }


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.integers(1, 90),
    st.sampled_from([1, 3, 17, 200]),
    st.integers(1, 3),
    hnp.arrays(np.float32, 50, elements=st.floats(0, 1, width=32)),
    st.integers(0, 100),
)
def test_any_content_comes_back(tmp_path, count, side, classes, values, first):
    x = np.resize(values, (count, 1, side, side))
    y = (np.resize(values, (count, classes, side, side)) > 0.5).astype(np.uint8)
    hdf5.write(tmp_path / "any.h5", [(x, y)], {})
    whole, start = hdf5.load(tmp_path / "any.h5"), hdf5.load(tmp_path / "any.h5", count=first)
    assert np.array_equal(whole.x, x) and np.array_equal(whole.y, y)
    assert np.array_equal(start.x, x[:first]) and np.array_equal(start.y, y[:first])


names = st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=20)
values = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.booleans(),
    st.text(st.characters(codec="utf-8", exclude_characters="\0")),
    st.lists(st.floats(allow_nan=False), min_size=1, max_size=5),
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), max_size=5),
)


OF_A_KIND = {
    "format",
    *hdf5._KINDS,
}  # of which not every value is sound; Hypothesis finds such names


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.dictionaries(names.filter(lambda name: name not in OF_A_KIND), values, max_size=5))
def test_any_attributes_come_back(tmp_path, attributes):
    hdf5.write(tmp_path / "any.h5", [examples(1, 4, 1)], attributes)
    assert hdf5.load(tmp_path / "any.h5").attributes == attributes | {"format": hdf5.PIXELS.format}


def test_plain_h5py_reads_it_without_plugins(written):
    path, x, y = written
    with h5py.File(path) as file:
        assert np.array_equal(file["x"][:], x) and np.array_equal(file["y"][3:20, 4], y[3:20, 4])
        assert file["x"].compression == file["y"].compression == "gzip"
        assert file["x"].attrs["crc32"] == zlib.crc32(x)
        assert file["y"].attrs["crc32"] == zlib.crc32(y)
        assert file.attrs["task"] == b"segmentation"


def test_names_of_a_thousand_classes_are_kept_and_verified(tmp_path):
    """More than HDF5's 64 KB of an attribute that it checksums itself."""
    path = tmp_path / "set.h5"
    names = [f"n{i:03} {'é' if i % 2 else 'e'}{'x' * (125 - i % 90)}" for i in range(1000)]
    part = np.zeros((3, 3, 32, 32), np.uint8), np.array([0, 5, 999], np.uint16)
    hdf5.write(path, [part], ATTRIBUTES | {"classes": names}, layout=hdf5.IMAGES)
    assert hdf5.load(path, layout=hdf5.IMAGES).attributes["classes"] == names
    content = path.read_bytes()
    first = content.index(b"n000")
    random = np.random.default_rng(0)
    places = [*range(first - 60, first), *random.integers(first, first + 130_000, 40)]
    for place in places:
        for bit in range(8):
            damaged = bytearray(content)
            damaged[place] ^= 1 << bit
            path.write_bytes(damaged)
            try:
                assert hdf5.load(path, layout=hdf5.IMAGES).attributes["classes"] == names
            except UserError as error:
                assert "\n" not in str(error)
            else:
                assert place < first, "a flipped bit of a name was not noticed"


def test_sparse_content_is_compact(written):
    path, x, y = written
    assert path.stat().st_size < (x.nbytes + y.nbytes) / 4


def test_same_content_gives_the_same_bytes(written, tmp_path):
    path, x, y = written
    again = tmp_path / "again.h5"
    time.sleep(1.1)  # HDF5 would stamp the time in seconds
    hdf5.write(again, [(x, y)], ATTRIBUTES)
    assert path.read_bytes() == again.read_bytes()


def test_failed_writing_leaves_nothing(tmp_path):
    def broken():
        yield examples(20)
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        hdf5.write(tmp_path / "set.h5", broken(), ATTRIBUTES)
    assert not list(tmp_path.iterdir())


def assert_refused(path, *words):
    with pytest.raises(UserError) as caught:
        hdf5.load(path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    for word in words:
        assert word in message


def test_a_file_without_examples_is_not_written(tmp_path):
    with pytest.raises(UserError, match=r"no examples to write into .*empty\.h5"):
        hdf5.write(tmp_path / "empty.h5", [], {"task": "segmentation"})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda x, y: (x, y[:1]), "in block 1 are 3 inputs x and 1 targets y"),
        (lambda x, y: (x[:, 0], y), "in block 1 x has shape .*; needed are four dimensions"),
        (lambda x, y: (x[..., :32], y[..., :32]), "in block 1 examples have shapes"),
    ],
)
def test_blocks_that_do_not_belong_together_are_refused(change, said, tmp_path):
    """Cut anew to whole chunks, the inputs of one would have been given another's targets."""
    x, y = examples(3)
    with pytest.raises(UserError, match=said):
        hdf5.write(tmp_path / "set.h5", [(x, y), change(x, y), (x, y)], ATTRIBUTES)
    assert not list(tmp_path.iterdir())


def test_names_that_would_not_be_read_again_are_not_written(tmp_path):
    part = np.zeros((3, 3, 32, 32), np.uint8), np.zeros(3, np.uint16)
    names = ["a" * 600, *map(str, range(30_000))]
    with pytest.raises(UserError, match="classes would take 18 MB"):
        hdf5.write(tmp_path / "a.h5", [part], ATTRIBUTES | {"classes": names}, layout=hdf5.IMAGES)
    assert not list(tmp_path.iterdir())


def test_missing_file_and_directory(tmp_path):
    assert_refused(tmp_path / "none.h5", "No such file")
    assert_refused(tmp_path, "Is a directory")


def test_a_sound_file_of_another_layout_is_not_to_be_deleted(tmp_path):
    path = tmp_path / "images.h5"
    part = np.zeros((3, 3, 32, 32), np.uint8), np.zeros(3, np.uint16)
    hdf5.write(path, [part], ATTRIBUTES, layout=hdf5.IMAGES)
    said = f"{path} holds images and their classes; needed are images and maps of their pixels"
    with pytest.raises(UserError) as caught:
        hdf5.load(path)
    assert str(caught.value) == said


@pytest.mark.parametrize("channels", [1, 4])
def test_images_of_other_channels_than_red_green_and_blue_are_refused(tmp_path, channels):
    """They are sound, and not to be deleted."""
    path = tmp_path / "grey.h5"
    part = np.zeros((3, channels, 32, 32), np.uint8), np.zeros(3, np.uint16)
    hdf5.write(path, [part], ATTRIBUTES, layout=hdf5.IMAGES)
    said = f"{path} has images of {channels} channels; they must have 3, red, green and blue"
    with pytest.raises(UserError, match=f"^{re.escape(said)}, write it again with such$"):
        hdf5.load(path, layout=hdf5.IMAGES)


def test_a_file_that_is_none_of_ours_is_not_to_be_deleted(tmp_path):
    """Another's only copy, perhaps; it is said what it lacks and what makes such files."""
    path = tmp_path / "own.h5"
    x, y = examples(4, 16)
    with h5py.File(path, "w") as file:
        file["x"], file["y"] = x, y
        file.attrs["task"] = "segmentation"
    assert_refused(path, "it is not marked mg-data-1", "mg generate", "mg.data.hdf5.write")
    with pytest.raises(UserError) as caught:
        hdf5.load(path)
    assert "delete" not in str(caught.value)
    hdf5.write(path, [(x, y)], {"task": "segmentation"})
    with pytest.raises(UserError, match="does not say its split; .*mg.data.hdf5.write") as caught:
        hdf5.load(path).attributes["split"]
    assert "delete" not in str(caught.value)


def test_a_damaged_file_of_ours_is_to_be_deleted(written):
    path, _, _ = written
    content = bytearray(path.read_bytes())
    with h5py.File(path) as file:
        content[file["x"].id.get_chunk_info(0).byte_offset + 10] ^= 1
    path.write_bytes(content)
    assert_refused(path, "example 0 is damaged; delete it and make it again with `mg generate`")


BEYOND = {
    "masks of 255": (0.5, 255, "has targets of up to 255; they must be 0 or 1"),
    "bytes": (255, 1, "has inputs from 0 to 255; they must be numbers from 0 to 1"),
    "negative": (-0.5, 1, "inputs from -0.5 to 0"),
    "infinite": (np.inf, 1, "inputs from 0 to inf"),
    "no number": (np.nan, 1, "inputs from nan to nan"),
}


@pytest.mark.parametrize("kind", BEYOND)
def test_values_that_no_network_is_made_for_are_refused(kind, tmp_path):
    """Also of the last example alone, and not as damage: the file is what its writer meant."""
    input_, target, reason = BEYOND[kind]
    x, y = np.zeros((40, 1, 64, 64), np.float32), np.zeros((40, 10, 64, 64), np.uint8)
    x[-1, 0, 3, 5], y[-1, 7, 3, 5] = input_, target
    hdf5.write(tmp_path / "own.h5", [(x, y)], ATTRIBUTES)
    assert_refused(tmp_path / "own.h5", reason)
    with pytest.raises(UserError) as caught:
        hdf5.load(tmp_path / "own.h5")
    assert "delete" not in str(caught.value) and "damaged" not in str(caught.value)
    assert len(hdf5.load(tmp_path / "own.h5", count=39).x) == 39


def test_a_canvas_that_is_not_that_of_the_images_is_refused(tmp_path):
    hdf5.write(tmp_path / "own.h5", [examples(3, 16)], ATTRIBUTES | {"canvas": 32})
    assert_refused(tmp_path / "own.h5", "its canvas is 32, but has images 16 pixels wide")


def test_a_seed_that_is_no_number_is_refused_before_a_training_records_it(tmp_path):
    hdf5.write(tmp_path / "own.h5", [examples(3, 16)], ATTRIBUTES | {"seed": "none"})
    assert_refused(tmp_path / "own.h5", "its seed is 'none")


@pytest.mark.parametrize("kind", [bool, np.int64, np.float64])
def test_targets_of_any_type_are_stored_as_they_are_or_not_at_all(kind, tmp_path):
    x, y = examples(3, 16)
    path = tmp_path / "own.h5"
    hdf5.write(path, [(x.astype(np.float64), y.astype(kind))], ATTRIBUTES)
    assert np.array_equal(hdf5.load(path).y, y)
    path.unlink()
    if kind is not bool:
        for value in (256, -1, *([0.5] if kind is np.float64 else [])):
            with pytest.raises(UserError, match="own.h5: y has values that are no whole numbers"):
                hdf5.write(path, [(x, np.where(y, value, 0).astype(kind))], ATTRIBUTES)
            assert not list(tmp_path.iterdir())


def test_any_truncation_is_found(written):
    path, _, _ = written
    content = path.read_bytes()
    for length in (0, 1, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        assert_refused(path, "make it again")


def test_any_flipped_bit_is_found_or_harmless(written):
    path, x, y = written
    content = path.read_bytes()
    random = np.random.default_rng(0)
    places = np.concatenate([np.arange(0, 3000, 13), random.integers(0, len(content), 150)])
    found = 0
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << random.integers(8)
        path.write_bytes(damaged)
        try:
            data = hdf5.load(path)
        except UserError as error:
            found += 1
            assert "\n" not in str(error)
        else:
            assert np.array_equal(data.x, x) and np.array_equal(data.y, y)
    assert found > len(places) / 2


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.binary(max_size=3000), st.booleans())
def test_foreign_bytes_are_refused(tmp_path, content, signed):
    path = tmp_path / "foreign.h5"
    path.write_bytes((b"\x89HDF\r\n\x1a\n" if signed else b"") + content)
    assert_refused(path, "make it again")


def test_altered_content_is_found_though_every_chunk_is_sound(written):
    path, _, _ = written
    with h5py.File(path, "r+") as file:
        file["x"][5, 0, 10, 10] += 0.5
    assert_refused(path, "checksum of x")


def test_a_flip_that_deflate_does_not_see_is_found_in_the_first_examples(written):
    """Adler-32 is the same when three bytes in a row change by -1, 2 and -1."""
    path, _, y = written
    with h5py.File(path, "r+") as file:
        _, raw = file["y"].id.read_direct_chunk((0, 0, 0, 0))
        content = bytearray(zlib.decompress(raw[:-4]))
        place = content.index(b"\1\0\1")
        content[place : place + 3] = b"\0\2\0"
        altered = zlib.compress(bytes(content), 1)
        assert altered[-4:] == raw[-8:-4], "Adler-32"
        file["y"].id.write_direct_chunk((0, 0, 0, 0), altered + raw[-4:])
    with pytest.raises(UserError, match="example 0 is damaged"):
        hdf5.load(path, count=1)


FILTERS = {"compression": "gzip", "fletcher32": True}


def rewritten(path, change):
    """A file like ours, but for what `change` does to it."""
    x, y = examples(4, 8, 1)
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        file.attrs["format"] = np.bytes_(hdf5.PIXELS.format)
        for name, part in (("x", x), ("y", y)):
            data = file.create_dataset(name, data=part, chunks=part.shape, **FILTERS)
            data.attrs["crc32"] = np.uint32(zlib.crc32(part))
        change(file)
    return path


def replaced(name, **options):
    def change(file):
        del file[name]
        file.create_dataset(name, **options)

    return change


def linked(kind):
    def change(file):
        del file["x"]
        file["x"] = kind

    return change


def with_attribute(value):
    return lambda file: file.attrs.__setitem__("more", value)


UNLIKE_OURS = {
    "unmarked": (lambda file: file.attrs.pop("format"), "not marked"),
    "without targets": (lambda file: file.pop("y"), "no data set y"),
    "external link": (linked(h5py.ExternalLink("/etc/passwd", "/x")), "no data set x"),
    "soft link": (linked(h5py.SoftLink("/y")), "no data set x"),
    "group": (lambda file: (file.pop("x"), file.create_group("x")), "x is not a data set"),
    "doubles": (replaced("x", data=np.zeros((4, 1, 8, 8))), "x is not a data set of float32"),
    "flat": (replaced("x", data=np.zeros((4, 64), np.float32)), "four dimensions"),
    "not chunked": (replaced("x", data=np.zeros((4, 1, 8, 8), np.float32)), "chunks"),
    "shuffled": (
        replaced(
            "x",
            data=np.zeros((4, 1, 8, 8), np.float32),
            **dict(chunks=(4, 1, 8, 8), shuffle=True, **FILTERS),
        ),
        "filters deflate and fletcher32",
    ),
    "without Fletcher's checksum": (
        replaced(
            "x",
            data=np.zeros((4, 1, 8, 8), np.float32),
            **dict(chunks=(4, 1, 8, 8), compression="gzip"),
        ),
        "filters deflate and fletcher32",
    ),
    "gigantic": (
        replaced("x", shape=(2**40, 1, 8, 8), chunks=(4, 1, 8, 8), dtype="f4", **FILTERS),
        "more than the file holds",
    ),
    "gigantic chunks": (
        replaced(
            "x",
            shape=(4, 1, 2**15, 2**13),
            chunks=(1, 1, 2**15, 2**13),
            dtype="f4",
            **FILTERS,
        ),
        "more than the file holds",
    ),
    "missing chunks": (
        replaced("x", shape=(4, 1, 8, 8), chunks=(2, 1, 8, 8), dtype="f4", **FILTERS),
        "more than the file holds",
    ),
    "fewer targets": (
        replaced(
            "y",
            data=np.zeros((3, 1, 8, 8), np.uint8),
            **dict(chunks=(3, 1, 8, 8), **FILTERS),
        ),
        "do not belong together",
    ),
    "texts of variable length": (
        replaced("x", data=["a"] * 4, dtype=h5py.string_dtype()),
        "x is not a data set",
    ),
    "an attribute of variable length": (with_attribute("text"), "text of variable length"),
    "a list of them": (with_attribute(["a", "b"]), "text of variable length"),
    "numbers of variable length": (
        lambda file: h5py.h5a.create(
            file.id,
            b"more",
            h5py.h5t.py_create(h5py.vlen_dtype(np.int64), logical=True),
            h5py.h5s.create(h5py.h5s.SCALAR),
        ),
        "neither text nor numbers",
    ),
    "a reference": (lambda file: with_attribute(file["x"].ref)(file), "neither text nor numbers"),
    "a compound": (with_attribute(np.zeros(2, [("a", "f4")])), "neither text nor numbers"),
    "raw bytes": (with_attribute(np.void(b"abc")), "neither text nor numbers"),
    "no value": (with_attribute(h5py.Empty("f4")), "neither text nor numbers"),
    "a large attribute": (with_attribute(np.zeros(2**21 + 1)), "larger than any"),
    "text of its checksum": (
        lambda file: file["x"].attrs.__setitem__("crc32", "1"),
        "text of variable length",
    ),
    "without checksum": (lambda file: file["x"].attrs.pop("crc32"), "crc32"),
}


def test_a_file_like_ours_is_read(tmp_path):
    assert len(hdf5.load(rewritten(tmp_path / "like.h5", lambda file: None)).x) == 4


@pytest.mark.parametrize("kind", UNLIKE_OURS)
def test_a_file_unlike_ours_is_refused(kind, tmp_path):
    change, reason = UNLIKE_OURS[kind]
    assert_refused(rewritten(tmp_path / "unlike.h5", change), reason)


def test_a_chunk_that_swells_is_refused(tmp_path):
    """A bomb: the chunk inflates to more than its declared size."""
    path = rewritten(tmp_path / "bomb.h5", lambda file: None)
    with h5py.File(path, "r+") as file:
        bomb = zlib.compress(bytes(10_000_000))
        file["x"].id.write_direct_chunk((0, 0, 0, 0), bomb + hdf5._fletcher(bomb))
    assert_refused(path, "damaged")


FILL_THE_DISK = """
import resource, signal, sys
import numpy as np
from mg.data import hdf5
from mg.errors import UserError

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
x = np.random.default_rng(0).random((200, 1, 64, 64), np.float32)
try:
    hdf5.write(sys.argv[1], [(x, x.astype(np.uint8))], {})
except UserError as error:
    print(error)
"""


def test_a_disk_that_takes_no_more_is_said_in_one_line(tmp_path):
    """The limit on a file's size stands in for a full disk."""
    path = tmp_path / "large.h5"
    done = subprocess.run(
        [sys.executable, "-c", FILL_THE_DISK, path], capture_output=True, text=True
    )
    assert done.stdout == f"cannot write {path}: File too large\n"
    assert not list(tmp_path.iterdir())
