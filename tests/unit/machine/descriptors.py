"""A process that runs out of file descriptors."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@contextmanager
def few_descriptors(free: int) -> Iterator[None]:
    """This process may open `free` files more than it has now."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(entry.name) for entry in Path("/proc/self/fd").iterdir())
    taken = [os.open(os.devnull, os.O_RDONLY) for _ in range(highest)]
    highest = max(highest, *taken)
    for fd in taken[-free:] if free else []:
        os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for fd in taken[: len(taken) - free]:
            os.close(fd)
