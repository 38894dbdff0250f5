"""What the daemon asks of its allocators, so that its memory stays flat over weeks of machines that come and go.

Without this the objects in use are as few as ever after a thousand starts and stops, and yet the heap grows: free
pieces lie between used ones, and are not given back.
"""

import ctypes
import gc

# malloc.h
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

_LARGE = 128 << 10
"""Bytes; what glibc begins with."""


def keep_one_heap() -> None:
    """Have all threads share one heap, with large blocks beside it; to be called before there is a second thread.

    glibc gives threads heaps of their own, eight for each processor, in each of which short-lived threads leave a
    little; threads that take turns at Python's lock gain nothing from that. And it lets the size from which blocks
    are given back at once grow with what was given back before.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in ((_M_ARENA_MAX, 1), (_M_MMAP_THRESHOLD, _LARGE), (_M_TRIM_THRESHOLD, _LARGE)):
            mallopt(parameter, value)


def settle() -> None:
    """Take what there is now for permanent; to be called once everything is loaded.

    Python looks for cycles among old objects only once their number has grown by a quarter. Beside the modules that
    is a lot of garbage; beside nothing it is little.
    """
    gc.collect()
    gc.freeze()
