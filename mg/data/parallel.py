"""Work for a few threads, in order and without running ahead."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any


def in_order(
    function: Callable[[Any], Any], items: Iterable[Any], workers: int = 1
) -> Iterator[Any]:
    """Yield function(item) for every item, in order, computed by `workers` threads.

    At most 2 x workers results wait to be taken, so that memory stays bounded. `items` is iterated
    in the caller's thread. Threads help where `function` releases the interpreter's lock.
    """
    if workers == 1:
        yield from map(function, items)
        return
    waiting: deque = deque()
    with ThreadPoolExecutor(workers) as pool:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
