"""How fast the cluttered-MNIST data sets are made, beside a floor and beside plain Python.

    python benchmarks/data.py [--mnist resources/mnist] [--workers 2] [--repeats 5]

Rates are examples per second of processor time in one thread, best of several runs after warm-up;
with workers, per second of wall time. The floor of an example is the time to clear its input and
target once, and to look up every pixel of every operation once (reading 28 x 28; rotating 28 x 28;
shearing 2 x 28 x 28; resizing 28 x s and s x s; placing s x s in the input and in the target), both
measured here. The floor of a file adds compression and checksum of the same examples.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
from isal import isal_zlib
from numba import njit

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import plain_clutter  # noqa: E402

from mg.data import clutter, hdf5, mnist  # noqa: E402
from mg.data.tasks import TASKS, Task  # noqa: E402

SAMPLE = {True: 2_000, False: 8_000}  # examples per run: of several digits, of one
PLAIN = 60  # examples of the plain rendition
# What Torch7 made per second in one process, where the paper's generators were measured.
ORIGINAL = {
    "segmentation": "680-850",
    **dict.fromkeys(list(TASKS)[1:], "2500-5300"),
}


def seconds(run: Callable[[], object], repeats: int, clock: Callable[[], float]) -> float:
    """The shortest of several runs."""
    run()
    times = []
    for _ in range(repeats):
        start = clock()
        run()
        times.append(clock() - start)
    return min(times)


def exhaust(blocks) -> None:
    for _ in blocks:
        pass


@njit
def look_up(source, places, out):
    for i in range(places.size):
        out[i] = source[places[i]]


def pixel_seconds() -> float:
    """Time of one look-up in a digit."""
    source, out = np.random.default_rng(0).random(784), np.empty(784)
    places = np.random.default_rng(1).integers(0, 784, 784).astype(np.uint32)

    def many() -> None:
        for _ in range(1000):
            look_up(source, places, out)

    return seconds(many, 5, time.process_time) / 1000 / 784


def pixels(task: Task) -> float:
    """Look-ups an example needs at least."""
    digits = task.digits[0] + 0.5 if task.digits else 1  # the number is rounded up
    size = 28 * sum(task.scale) / 2
    resizing = 28 * size + size**2 if task.scale[0] != task.scale[1] else 0
    operations = 1 + (task.rotation > 0) + 2 * (task.shear > 0)
    return digits * (operations * 784 + resizing + 2 * size**2)


def measure(name: str, directory: Path, workers: int, repeats: int, pixel: float) -> None:
    """Print the lines of one task."""
    task = TASKS[name]
    images, labels = mnist.load_split(directory, "train")
    count = SAMPLE[task.digits is not None]
    plain = plain_clutter.examples(name, images, labels)
    next(plain)  # it deals its first permutation here
    start = time.process_time()
    exhaust(islice(plain, PLAIN))
    plain_rate = PLAIN / (time.process_time() - start)

    x, y = next(iter(clutter.blocks(name, "train", images, labels)))

    def clear() -> None:
        x[:] = 0
        y[:] = 0

    def compress() -> None:
        for i in range(0, len(x), 16):
            for part in (x[i : i + 16], y[i : i + 16]):
                isal_zlib.crc32(part)
                isal_zlib.compress(part, 1)

    clock = time.process_time
    packing = seconds(compress, 3 * repeats, clock) / len(x)
    floor = seconds(clear, 20 * repeats, clock) / len(x) + pixels(task) * pixel

    with tempfile.TemporaryDirectory() as folder:
        for mode in clutter.SEEDS:

            def make(workers=1, mode=mode):
                return clutter.blocks(
                    *(name, "train", images, labels), mode=mode, count=count, workers=workers
                )

            def write(workers=1, make=make, path=Path(folder) / "set.h5"):
                hdf5.write(path, make(workers), {}, workers)

            made = seconds(lambda make=make: exhaust(make()), repeats, clock) / count
            written = seconds(write, repeats, clock) / count
            shared = seconds(lambda write=write: write(workers), repeats, time.perf_counter) / count
            print(
                f"{name:18}{mode:12}{1 / made:10,.0f}{floor / made:7.0%}"
                f"{1 / written:10,.0f}{(floor + packing) / written:7.0%}{1 / shared:12,.0f}"
                f"{plain_rate:9,.0f}{1 / made / plain_rate:7,.0f}x{ORIGINAL[name]:>11}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mnist", type=Path, default=ROOT / "resources" / "mnist")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    settings = parser.parse_args()
    pixel = pixel_seconds()
    print(f"one look-up of a pixel: {pixel * 1e9:.2f} ns")
    print(
        f"{'task':18}{'mode':12}{'generate':>10}{'floor':>7}{'to file':>10}{'floor':>7}"
        f"{f'{settings.workers} workers':>12}{'plain':>9}{'gain':>8}{'original':>11}"
    )
    for task in TASKS:
        measure(task, settings.mnist, settings.workers, settings.repeats, pixel)


if __name__ == "__main__":
    main()
