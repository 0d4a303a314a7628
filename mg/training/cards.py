"""Who has which CUDA card: jobs side by side on one machine take different ones."""

import hashlib
import os
import socket
import subprocess

MOST_SHARERS = 64  # jobs on a card, beyond which they are no longer counted

_claims = []  # what this process holds, until it ends


def claim(cards: list[tuple[str, int]]) -> int:
    """Take one of `cards` (UUID, MiB in use) and give its place in the list.

    Each card has one lock per job that may share it: a job takes the first lock of a free card,
    else the second of some card, and so on. Among equals, the card with the least in use is taken.
    Processes that train one network together never share a card with one another, only with other
    jobs: each also takes a lock of its team's.
    """
    by_use = sorted(range(len(cards)), key=lambda index: cards[index][1])
    team = _team()
    for sharers in range(1, MOST_SHARERS + 1):
        for index in by_use:
            names = [f"mg-gpu-{cards[index][0]}-{sharers}"]
            names += [f"mg-team-{team}-{cards[index][0]}"] if team else []
            if _lock(*names):
                return index
    return by_use[0]


def _team() -> str | None:
    """A name that this machine's processes have in common that train one network, if any."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    # The first is "none" for every team of a torchrun that was given no name.
    names = [os.environ.get(name, "") for name in ("TORCHELASTIC_RUN_ID", "MASTER_PORT")]
    return hashlib.sha256(" ".join(names).encode()).hexdigest()[:16]  # addresses are short


def _lock(*names: str) -> bool:
    """Take the locks `names`, all or none, if nobody on this machine has them, whoever they are.

    They are addresses in Linux's abstract namespace: no files, so no permissions and nothing to
    clean up; the kernel frees them when the process ends, however it ends.
    """
    locks = [socket.socket(socket.AF_UNIX) for _ in names]
    try:
        for lock, name in zip(locks, names, strict=True):
            lock.bind(f"\0{name}")
    except OSError:
        for lock in locks:
            lock.close()
        return False
    _claims.extend(locks)
    return True


def narrow_to_one_mig_instance() -> None:
    """Claim one of several MIG instances and leave only it in CUDA_VISIBLE_DEVICES.

    CUDA lets a process see only the first of them; it reads the variable when it starts.
    """
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    if len(visible) > 1 and all(name.startswith("MIG-") for name in visible):
        chosen = claim([(name, 0) for name in visible])
        os.environ["CUDA_VISIBLE_DEVICES"] = visible[chosen]


def memory_in_use() -> dict[str, int]:
    """UUID → MiB in use by anybody, of each card; empty where the driver's tool does not say."""
    query = ["nvidia-smi", "--query-gpu=uuid,memory.used", "--format=csv,noheader,nounits"]
    try:
        text = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
        rows = [line.split(", ") for line in text.splitlines()]
        return {uuid.removeprefix("GPU-"): int(used) for uuid, used in rows}
    except (OSError, subprocess.SubprocessError, ValueError):
        return {}
