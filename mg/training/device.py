"""Which device a training runs on, and what it is called; how the processor computes."""

import ctypes
import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from glob import glob
from pathlib import Path

import torch

from mg.errors import UserError, first_line, short_of_memory
from mg.progress import say
from mg.training import cards

CARD_FILES = "/dev/nvidia[0-9]*"


def check_device(request: str) -> None:
    """Refuse what `choose_device` would refuse, without claiming anything.

    Raises:
        UserError: the device does not exist.
    """
    if request in ("auto", "cpu"):
        return
    if request == "cuda":
        if not torch.cuda.is_available():
            raise UserError("no CUDA device is visible; use --device cpu or auto")
        return
    try:
        device = torch.device(request)
        if device.type != "cuda" or device.index >= torch.cuda.device_count():
            raise ValueError
    except (RuntimeError, ValueError, TypeError):
        count = torch.cuda.device_count()
        known = f"auto, cpu, cuda or cuda:N with N below {count}" if count else "auto or cpu"
        raise UserError(f"device {request!r} is not on this machine; choose {known}") from None


def choose_device(request: str = "auto") -> torch.device:
    """The device to compute on, from now on the current one.

    A card is claimed by a lock that lasts as long as the process: jobs side by side take different
    cards, the least used first. When there are more jobs than cards, they share them evenly.
    `CUDA_VISIBLE_DEVICES` is respected, whether it lists numbers, UUIDs or MIG instances.

    Args:
        request: `auto` (a CUDA device, or the processor where there is none; a line says so where
            there is a card that PyTorch can't use), `cpu`, `cuda` or
            `cuda:N`, which is taken whoever holds it.

    Raises:
        UserError: the device does not exist.
    """
    if request == "cpu":
        return torch.device("cpu")
    cards.narrow_to_one_mig_instance()
    if request == "auto" and not torch.cuda.is_available():
        _say_if_a_card_lies_idle()
        return torch.device("cpu")
    check_device(request)
    if request in ("auto", "cuda"):
        return _use(torch.device("cuda", cards.claim(visible_cards())))
    return _use(torch.device(request))


def _say_if_a_card_lies_idle() -> None:
    shown = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
    if glob(CARD_FILES) and re.match(r"\d|GPU-|MIG-", shown.strip()):  # CUDA sees none otherwise
        build = torch.version.cuda
        why = f"its CUDA {build} may need a newer driver" if build else "it was built without CUDA"
        say(
            f"there is an NVIDIA card, but PyTorch {torch.__version__} cannot use it ({why});"
            " going on with the processor (--device cuda makes this an error)"
        )


def _use(card: torch.device) -> torch.device:
    try:
        # Some calls know no other than the current one; the first card may be another job's.
        torch.cuda.set_device(card)
        torch.ones(1, device=card).add_(1).item()
    except RuntimeError as error:
        if short_of_memory(error):
            raise
        held = "no kernel image" not in str(error)
        advice = "see what holds it" if held else "install a build of PyTorch for it"
        raise UserError(
            f"{card} cannot be used ({first_line(error)}); {advice}, or use --device cpu"
        ) from error
    return card


def visible_cards() -> list[tuple[str, int]]:
    """(UUID, MiB in use by anybody) of each CUDA device that this process sees, in CUDA's order."""
    used = cards.memory_in_use()
    uuids = [
        str(torch.cuda.get_device_properties(index).uuid).removeprefix("GPU-")
        for index in range(torch.cuda.device_count())
    ]
    return [(uuid, used.get(uuid, 0)) for uuid in uuids]


def configure_torch(threads: int | None) -> None:
    """Compute with so many threads of the processor (PyTorch's choice if None), on memory kept.

    On a card float32 means float32, as on a processor: by itself PyTorch lets convolutions round
    their inputs to 10 bits (TF32).
    """
    if threads:
        torch.set_num_threads(threads)
    keep_freed_memory(True)
    torch.backends.cudnn.allow_tf32 = False


@contextmanager
def denormals_as_zero() -> Iterator[None]:
    """Let denormal numbers count as zero in this thread, and in those that are started meanwhile.

    Processors are slow at them, and the momentum of channels that no longer learn decays to such
    (docs/performance.md says what they cost). Afterwards this thread computes as before.
    """
    before = (torch.tensor(1e-30) * 1e-10).item() == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def keep_freed_memory(keep: bool) -> None:
    """Let the process reuse the memory of tensors that are gone, as PyTorch does on CUDA.

    glibc gives every block from 32 MiB on back to the system when it is freed, and the free end of
    its heap; the next step gets it again page by page, cleared (docs/performance.md says at what
    cost). False sets bounds like glibc's own again; what was kept by then may stay and be reused.
    Other C libraries are left as they are.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    trim_threshold, mmap_threshold, mmap_max = -1, -3, -4  # malloc.h
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(mmap_max, 0 if keep else 2**16)
    mallopt(mmap_threshold, 2**25)
    mallopt(trim_threshold, -1 if keep else 2**26)


def activation_type(precision: str, device: torch.device) -> torch.dtype:
    """The type of activations for a recipe's `precision` on `device`.

    `auto` means bfloat16 where the device has instructions for it: cards from Ampere on, processors
    with AVX512-BF16 or AMX. Elsewhere it is emulated, slower than float32.
    """
    if precision == "auto":
        if device.type == "cuda":
            native = torch.cuda.get_device_capability(device) >= (8, 0)
        else:
            native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        precision = "bfloat16" if native else "float32"
    return getattr(torch, precision)


def device_name(device: torch.device) -> str:
    """The card's or processor's name, for people who compare times."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.split(':', 1)[1].strip()} (CPU)"
    except OSError:
        pass
    return f"{platform.processor() or platform.machine()} (CPU)"
