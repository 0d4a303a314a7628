"""ImageNet (ILSVRC 2012), or any photographs in its folders: list them, decode them, change them.

Layout, as the official archives unpack: `train/<class>/*.JPEG`, `val/<class>/*.JPEG`. A flat folder
of validation images, as the official archive has it, is read too if beside it lies one of the lists
of their classes: `LOC_val_solution.csv` (Kaggle's copy) or
`imagenet_2012_validation_synset_labels.txt` (a class per line, in the order of the files).

Training images, as in fb.resnet.torch: a crop of 8 to 100 % of the area with an aspect of 3/4 to
4/3, scaled bicubically; brightness, contrast and saturation changed by up to 0.4 in random order;
colour shifted along the principal components of ImageNet's (Krizhevsky et al., 2012) with deviation
0.1; flipped or not. Test images: the shorter side scaled to 8/7 of the crop (256 for 224), then the
crop at the centre, or ten: four corners and the centre, and their mirror images.

A change is drawn from a seed that comes with the image's number, so it does not depend on which
process makes it, nor on what was made before.
"""

import atexit
import csv
import ctypes
import multiprocessing.connection
import os
import signal
import sys
import warnings
from collections.abc import Iterable, Iterator
from os import PathLike
from pathlib import Path
from weakref import WeakSet

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from mg.data import MOST_CLASSES, hdf5
from mg.data.vision import transforms as T
from mg.errors import UserError, short_of_files, short_of_memory
from mg.signals import STOPPING, postponed

HELD_OUT = 25  # every 25th training image is for validation
CROP = 224
SUFFIXES = (".jpeg", ".jpg", ".png")

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM")  # Pillow runs a program for others
MOST_PIXELS = 2**26  # of a photograph; ImageNet's largest have 18 million

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Principal components of the colours of ImageNet's pixels, and their deviations.
COMPONENTS = (
    (-0.5675, 0.7192, 0.4009),
    (-0.5808, -0.0045, -0.8140),
    (-0.5836, -0.6948, 0.4203),
)
DEVIATIONS = (0.2175, 0.0188, 0.0045)

_IN_A_ROW = 100  # unreadable images, before it is no longer a matter of a few

# ------------------------------------------------------------------------ listing


def prepare(
    split: str,
    directory: str | PathLike,
    output: str | PathLike,
    count: int | None = None,
    crop: int = CROP,
) -> None:
    """List the images of a split, or the first `count` of an even choice, in an HDF5 file.

    train are the training images without every 25th, valid those, test the validation images (the
    test images have no public classes). With `count` the images are chosen evenly, so that all
    classes are there as long as there is one for each.

    Args:
        crop: side of the crops that a network gets, in pixels.

    Raises:
        UserError: there are no such images, or fewer than `count`, or too many classes.
    """
    if crop < 32 or crop % 32:
        raise UserError(f"crops of {crop} pixels do not fit the networks; take a multiple of 32")
    directory = Path(directory).resolve()
    classes = _classes(directory)
    if split == "test":
        images = list(_test_images(directory, classes))
    else:
        everything = [
            (path, number)
            for number, name in enumerate(classes)
            for path in _images(directory / "train" / name)
        ]
        held_out = slice(HELD_OUT - 1, None, HELD_OUT)
        images = everything[held_out]
        if split == "train":
            del everything[held_out]
            images = everything
    if count is not None:
        if count > len(images):
            raise UserError(
                f"{directory} has {len(images):,} images for {split}, not {count:,}; ask for fewer"
            )
        images = [images[i * len(images) // count] for i in range(count)]
    if not images:
        raise UserError(f"{directory} has no images for {split}; add some or leave that split out")
    paths = [os.fsencode(path.relative_to(directory)) for path, _ in images]
    x = np.zeros((len(paths), max(map(len, paths))), np.uint8)
    for row, path in zip(x, paths, strict=True):
        row[: len(path)] = list(path)
    y = np.array([number for _, number in images], np.uint16)
    attributes = {
        "task": "imagenet",
        "split": split,
        "canvas": crop,
        "directory": str(directory),
        "classes": _names(directory, classes),
    }
    hdf5.write(output, [(x, y)], attributes, layout=hdf5.FILES)


def _classes(directory: Path) -> list[str]:
    train = directory / "train"
    classes = (
        sorted(folder.name for folder in train.iterdir() if folder.is_dir())
        if (train.is_dir())
        else []
    )
    if not classes:
        raise UserError(_advice(directory))
    if len(classes) > MOST_CLASSES:
        raise UserError(
            f"{train} has {len(classes):,} classes; at most {MOST_CLASSES:,} can be told apart"
        )
    return classes


def _advice(directory: Path) -> str:
    return (
        f"ImageNet is not in {directory}: there is no train/<class>/ with images. It cannot be "
        "fetched without an account: register at https://image-net.org/download-images, download "
        "ILSVRC2012_img_train.tar (138 GB, 1,281,167 images) and ILSVRC2012_img_val.tar (6.3 GB, "
        f"50,000 images), unpack them as {directory}/train/<class>/*.JPEG and "
        f"{directory}/val/<class>/*.JPEG, or name another folder as imagenet.directory. Any "
        "photographs in such folders will do. To see classifiers at work without it: snakemake "
        "--cores all --configfile config/cifar-digits.yaml"
    )


def _images(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    except OSError as error:
        raise UserError(f"cannot list {folder}: {error.strerror}") from error


def _test_images(directory: Path, classes: list[str]) -> Iterator[tuple[Path, int]]:
    folder, numbers = directory / "val", {name: i for i, name in enumerate(classes)}
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist; unpack the validation images there")

    def number(name: str, where: Path) -> int:
        if name not in numbers:
            raise UserError(f"{where} names the class {name!r}, which {directory}/train lacks")
        return numbers[name]

    flat = _images(folder)
    if not flat:
        for sub in sorted(path for path in folder.iterdir() if path.is_dir()):
            for path in _images(sub):
                yield path, number(sub.name, folder)
        return
    solution = directory / "LOC_val_solution.csv"
    synsets = directory / "imagenet_2012_validation_synset_labels.txt"
    try:
        if solution.exists():
            with solution.open(newline="") as file:
                found = {
                    row["ImageId"]: row["PredictionString"].split()[0]
                    for row in csv.DictReader(file)
                }
            names, where = [found.get(path.stem, "") for path in flat], solution
        elif synsets.exists():
            names, where = synsets.read_text().split(), synsets
        else:
            raise UserError(
                f"{folder} holds images without folders of classes; sort them into val/<class>/, "
                f"or put {solution.name} or {synsets.name} into {directory}"
            )
    except (OSError, UnicodeError, KeyError, IndexError, TypeError) as error:
        raise UserError(f"{directory} has a list of classes that is damaged: {error}") from error
    if len(names) != len(flat):
        raise UserError(f"{where} names {len(names):,} classes for {len(flat):,} images")
    for path, name in zip(flat, names, strict=True):
        yield path, number(name, where)


def _names(directory: Path, classes: list[str]) -> list[str]:
    """Words for the classes, if Kaggle's list of them is there."""
    try:
        lines = (directory / "LOC_synset_mapping.txt").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError):
        return classes
    words = dict(line.split(" ", 1) for line in lines if " " in line)
    return [words.get(name, name) for name in classes]


# ------------------------------------------------------------------------ changing


class Lighting(nn.Module):
    """Shift the colour of an image (3, H, W) along ImageNet's principal components."""

    def __init__(self, deviation: float = 0.1) -> None:
        super().__init__()
        self.deviation = deviation
        self.components = torch.tensor(COMPONENTS) * torch.tensor(DEVIATIONS)

    def forward(self, image: Tensor) -> Tensor:
        shift = self.components @ torch.normal(0.0, self.deviation, (3,))
        return image + shift.view(3, 1, 1)


def _to_tensor() -> list[nn.Module]:
    return [T.ToImage(), T.ToDtype(torch.float32, scale=True)]


def training_transform(crop: int) -> nn.Module:
    """A photograph (PIL, RGB) -> (3, crop, crop) float32; random by torch's global generator."""
    bicubic = T.InterpolationMode.BICUBIC
    return T.Compose(
        [
            T.RandomResizedCrop(crop, (0.08, 1), (3 / 4, 4 / 3), bicubic),
            T.ColorJitter(0.4, 0.4, 0.4),
            *_to_tensor(),
            Lighting(),
            T.Normalize(MEAN, STD),
            T.RandomHorizontalFlip(),
        ]
    )


def test_transform(crop: int, ten_crops: bool = False) -> nn.Module:
    """A photograph (PIL, RGB) -> (3, crop, crop), or (10, 3, crop, crop), float32."""
    resize = T.Resize(round(crop * 8 / 7), T.InterpolationMode.BICUBIC)
    after = [*_to_tensor(), T.Normalize(MEAN, STD)]
    if not ten_crops:
        return T.Compose([resize, T.CenterCrop(crop), *after])
    return T.Compose([resize, *after, T.TenCrop(crop), torch.stack])


class Photographs(Dataset):
    """Images of an HDF5 file of paths, decoded when they are asked for.

    An item is asked for as (number, seed) in training and as (number, None) in testing. It is
    (image, class, unreadable): the number of an image that could not be decoded, -1 if none. In
    training the next readable image takes its place; in testing, and after too many in a row that
    are not, the class is -1.
    """

    def __init__(self, data: hdf5.Dataset, training: bool, ten_crops: bool = False) -> None:
        self.root = Path(data.attributes["directory"])
        self.paths, self.labels = data.x, data.y
        crop = data.attributes["canvas"]
        self.transform = training_transform(crop) if training else test_transform(crop, ten_crops)
        self.shape = (10, 3, crop, crop) if ten_crops else (3, crop, crop)

    def __len__(self) -> int:
        return len(self.paths)

    def path(self, number: int) -> Path:
        """Where an image lies."""
        return self.root / os.fsdecode(self.paths[number].tobytes().rstrip(b"\0"))

    def __getitem__(self, item: tuple[int, int | None]) -> tuple[Tensor, int, int]:
        first, seed = item
        unreadable = -1
        for number in range(first, first + _IN_A_ROW):
            number %= len(self)
            try:
                image = decode(self.path(number))
            except UserError:
                unreadable = first
                if seed is None:
                    break
                continue
            with torch.random.fork_rng(devices=[]):
                if seed is not None:
                    torch.manual_seed(seed)
                return self.transform(image), int(self.labels[number]), unreadable
        return torch.zeros(self.shape), -1, unreadable


def decode(path: str | PathLike) -> Image.Image:
    """The photograph at `path`, in RGB.

    Raises:
        UserError: it cannot be read, is in none of `FORMATS`, or declares more than `MOST_PIXELS`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged notes beside the pixels
            with Image.open(path, formats=FORMATS) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise ValueError(f"{image.width} x {image.height} pixels are too many")
                return _of_eight_bits(image).convert("RGB")
    except Exception as error:  # damaged files make the decoders stumble in every way there is
        if short_of_memory(error) or short_of_files(error):
            raise
        reason = str(error).splitlines() or [type(error).__name__]
        raise UserError(f"{path} is no readable image: {reason[0][:200]}") from error


def _of_eight_bits(image: Image.Image) -> Image.Image:
    """Greys of 16 bits as their upper 8; Pillow would make white of all but the darkest."""
    if image.mode == "F":
        raise ValueError("its pixels are fractions; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image


class _Batches:
    """Lists of items for a loader, from tensors of numbers and seeds (batches, size)."""

    def __init__(self, numbers: Iterable[Tensor], seeds: Iterable[Tensor | None], length: int):
        self.numbers, self.seeds, self.length = numbers, seeds, length

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[list[tuple[int, int | None]]]:
        for numbers, seeds in zip(self.numbers, self.seeds, strict=True):
            drawn = [None] * len(numbers) if seeds is None else seeds.tolist()
            yield list(zip(numbers.tolist(), drawn, strict=True))


def load(
    photographs: Photographs,
    numbers: list[Tensor] | Tensor,
    seeds: Tensor | None,
    workers: int,
    pin: bool = False,
) -> Iterator[list[Tensor]]:
    """Batches [images, classes, unreadable] of the items with these numbers and seeds.

    Args:
        numbers: of each batch.
        seeds: of each item in training, of the shape of `numbers`; None in testing.
        workers: processes that decode ahead; 0 for this one.
        pin: for a fast copy to a GPU.

    Raises:
        UserError: in training, too many images in a row cannot be read.
    """
    batches = _Batches(numbers, [None] * len(numbers) if seeds is None else seeds, len(numbers))
    loader = DataLoader(
        photographs,
        batch_sampler=batches,
        num_workers=workers,
        pin_memory=pin,
        worker_init_fn=_serve_the_training_alone,
        multiprocessing_context=_START if workers else None,
        generator=torch.Generator(),  # not the global one: its state belongs to the training
        prefetch_factor=4 if workers else None,
    )

    def checked(batch: list[Tensor]) -> list[Tensor]:
        _, classes, unreadable = batch
        if seeds is not None and (classes < 0).any():  # raised here: a worker's error is long
            first = photographs.path(int(unreadable[classes < 0][0]))
            raise UserError(
                f"{_IN_A_ROW} images from {first} on cannot be read; is {photographs.root} still "
                "there? List the images again with `mg prepare`"
            )
        return batch

    with postponed():
        started, workers = _start(loader)
    return map(checked, _watched(started, workers))


# Python 3.14 would start workers through a server process: each with a copy of the list of images,
# and, as children of the server, not ended with the training. Elsewhere there is no safe fork.
_START = "fork" if sys.platform == "linux" else None
_workers: WeakSet[multiprocessing.Process] = WeakSet()  # of all loaders


def _start(loader: DataLoader) -> tuple[Iterator, set[multiprocessing.Process]]:
    """Its batches and workers; if not all of them can be started, those that were are ended."""
    others = {*multiprocessing.active_children()}
    try:
        batches = iter(loader)
    except BaseException:
        for worker in {*multiprocessing.active_children()} - others:
            worker.kill()
        raise
    workers = {*multiprocessing.active_children()} - others
    _workers.update(workers)
    return batches, workers


def _watched(batches: Iterator, workers: set[multiprocessing.Process]) -> Iterator[list[Tensor]]:
    try:
        yield from batches
    except Exception as error:  # it may be any, if a worker is gone
        if not workers:
            raise
        # One that ends has closed its files a moment before.
        ending = multiprocessing.connection.wait([worker.sentinel for worker in workers], timeout=5)
        for worker in workers:
            worker.join(timeout=5 if worker.sentinel in ending else 0)
        if any(worker.exitcode not in (None, 0) for worker in workers):
            raise UserError(
                "most likely not enough memory: a process that decodes images was killed; ask for "
                "fewer workers or a smaller batch (in a container, see /dev/shm too)"
            ) from error
        raise


def _serve_the_training_alone(worker: int) -> None:
    """Leave signals and words to it; end with it, even if it is killed (on Linux)."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    # Called where a connection to the training breaks off; errors of images are passed on.
    sys.excepthook = lambda *_: None
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


_PR_SET_PDEATHSIG = 1


@atexit.register
def _end_workers() -> None:
    """End those that are still there when Python ends: it would send SIGTERM and wait for ever."""
    left = [worker for worker in _workers if worker.is_alive()]
    if left:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # PyTorch takes a killed worker for an error
    for worker in left:
        worker.kill()
