"""A mount namespace for a part of a test: small disks, and devices that are missing."""

import asyncio
import ctypes
import os
import subprocess
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_CLONE_NEWNS = 0x00020000
_LIBC = ctypes.CDLL(None, use_errno=True)


def with_own_mounts(work: Callable[[], Coroutine[None, None, None]]) -> None:
    """Run `work` in a thread whose mounts only it sees, with its children and the threads that it starts.

    A thread of its own, since one that shares its working directory with others cannot go back: setns(2).
    """

    def inside() -> None:
        if _LIBC.unshare(_CLONE_NEWNS) < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        asyncio.run(work())

    with ThreadPoolExecutor(max_workers=1) as pool:
        pool.submit(inside).result()


def mount_small(directory: Path, size: int) -> None:
    """An empty file system of `size` bytes at `directory`."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)], check=True)
