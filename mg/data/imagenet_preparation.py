"""Photographs as networks are given them: decoded, changed, and brought in batches by processes.

Training images, as in fb.resnet.torch: a crop of 8 to 100 % of the area with an aspect of 3/4 to
4/3, scaled bicubically; brightness, contrast and saturation changed by up to 0.4 in random order;
colour shifted along the principal components of ImageNet's (Krizhevsky et al., 2012) with deviation
0.1; flipped or not. Test images: the shorter side scaled to 8/7 of the crop (256 for 224), then the
crop at the centre, or ten: four corners and the centre, and their mirror images.

A change is drawn from a seed that comes with the image's number, so it does not depend on which
process makes it, nor on what was made before.
"""

import atexit
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
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from mg.data import hdf5
from mg.data.vision import transforms as T
from mg.errors import UserError, first_line, short_of_files, short_of_memory
from mg.signals import STOPPING, postponed

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM")  # Pillow runs a program for others
MOST_PIXELS = 2**26  # of a photograph; ImageNet's largest have 18 million
THINNEST = 100  # times as long as wide: crops scale the shorter side

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Principal components of the colours of ImageNet's pixels, and their deviations.
COMPONENTS = (
    (-0.5675, 0.7192, 0.4009),
    (-0.5808, -0.0045, -0.8140),
    (-0.5836, -0.6948, 0.4203),
)
DEVIATIONS = (0.2175, 0.0188, 0.0045)

_IN_A_ROW = 100  # unreadable images, before it is no longer a matter of a few


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


def decode(path: str | PathLike, as_seen: bool = False) -> Image.Image:
    """The photograph at `path`, in RGB.

    Args:
        as_seen: turned as its camera says, and what is transparent black. Networks were trained
            without.

    Raises:
        UserError: it cannot be read, is in none of `FORMATS`, declares more than `MOST_PIXELS`, or
            is more than `THINNEST` times as long as wide.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged notes beside the pixels
            with Image.open(path, formats=FORMATS) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise ValueError(f"{image.width} x {image.height} pixels are too many")
                if max(image.size) > THINNEST * min(image.size):
                    raise ValueError(f"{image.width} x {image.height} pixels are too thin")
                if as_seen:
                    image = _over_black(ImageOps.exif_transpose(image))
                return _of_eight_bits(image).convert("RGB")
    except Exception as error:  # damaged files make the decoders stumble in every way there is
        if short_of_memory(error) or short_of_files(error):
            raise
        known = f"; read are {', '.join(FORMATS)}" if type(error) is UnidentifiedImageError else ""
        raise UserError(f"{path} is no readable image: {first_line(error):.200}{known}") from error


def _over_black(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)


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
