"""Which device a training runs on, and what it is called."""

import fcntl
import os
import platform
import tempfile
from pathlib import Path

import torch

from mg.errors import UserError

_claims = []  # open lock files; a claim lasts until the process ends, however it ends


def choose_device(request: str = "auto") -> torch.device:
    """The device to compute on.

    Args:
        request: `auto` (a CUDA device that no other process of mg on this machine holds, or the
            processor where there is no CUDA device), `cpu`, `cuda` or `cuda:N`.

    Raises:
        UserError: the device does not exist.
    """
    if request == "cpu" or (request == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if request in ("auto", "cuda"):
        if not torch.cuda.is_available():
            raise UserError("no CUDA device is visible; use --device cpu or auto")
        return torch.device("cuda", _claim_free(torch.cuda.device_count()))
    try:
        device = torch.device(request)
        if device.type != "cuda" or device.index >= torch.cuda.device_count():
            raise ValueError
    except (RuntimeError, ValueError, TypeError):
        raise UserError(
            f"device {request!r} is not on this machine; choose auto, cpu, cuda or cuda:N"
            f" with N below {torch.cuda.device_count()}"
        ) from None
    return device


def _claim_free(count: int) -> int:
    """The first visible device that nobody holds; the first of all when every one is held."""
    for index in range(count):
        uuid = torch.cuda.get_device_properties(index).uuid
        path = Path(tempfile.gettempdir()) / f"mg-gpu-{uuid}.lock"
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue
        _claims.append(handle)
        return index
    return 0


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
