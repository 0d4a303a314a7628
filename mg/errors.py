"""The one exception for mistakes a user can correct; what errors of libraries say."""

import re
from collections.abc import Iterator


class UserError(Exception):
    """A problem the user can solve.

    Its text is the whole message: one line that says what is wrong, where, and what to do. The
    command line prints it without a traceback and exits with status 2.
    """


def first_line(error: BaseException) -> str:
    """Of what an error says; its type if that is nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


# What libraries say instead of raising MemoryError: PyTorch and CUDA, C++, HDF5, oneDNN, Python,
# Pillow, matplotlib.
_SHORT = re.compile(
    "out of memory|not enough memory|allocate memory|bad_alloc|memory allocation failed"
    "|could not create a primitive|error return without exception set"
    "|codec configuration error when writing|could not be made C-contiguous"
    r"|allocate shared memory|DataLoader worker .* is killed by signal: (Killed|Bus error)"
)
_PERHAPS = re.compile("filter returned failure")  # HDF5 of damaged bytes, too
_LITTLE = 1 << 26  # bytes
_NO_FILE = re.compile("Too many open files")
_NO_THREAD = re.compile("can't start new thread|Resource temporarily unavailable")


def short_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or what it came from, says that there is not enough memory."""
    for cause in _causes(error):
        if isinstance(cause, MemoryError):
            return True
        if isinstance(cause, OSError | RuntimeError | SystemError | ValueError):
            text = str(cause)
            if _SHORT.search(text) or _PERHAPS.search(text) and not _there_is_some():
                return True
    return False


def short_of_threads(error: BaseException | None) -> bool:
    """Whether an error, or what it came from, says that no process or thread can be begun."""
    return isinstance(error, BlockingIOError) or any(  # fork; otherwise Python's threads, C++'s
        isinstance(cause, RuntimeError) and _NO_THREAD.search(str(cause))
        for cause in _causes(error)
    )


def short_of_files(error: BaseException | None) -> bool:
    """Whether an error, or what it came from, says that no more files can be opened."""
    return any(
        isinstance(cause, OSError | RuntimeError) and _NO_FILE.search(str(cause))
        for cause in _causes(error)
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _there_is_some() -> bool:
    try:
        bytearray(_LITTLE)
    except MemoryError:
        return False
    return True
