"""The tap queues that a running QEMU holds: which tap each belongs to, and a copy of it for whoever repairs it.

A queue whose tap is deleted stays open in QEMU and belongs to nothing: the guest is cut off, and QEMU does not say
so. Any holder of the queue can attach it to another tap; QEMU then goes on with it as if nothing had been.
"""

import ctypes
import errno
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_PIDFD_GETFD = 438
"""pidfd_getfd(2), the same number on every architecture; since kernel 5.6."""
_NETDEV = re.compile(rb"tap,id=(net\d+),fd=(\d+)")
_WITH_VIRTIO_HEADER, _WITHOUT = 12, 10
"""Sizes of struct virtio_net_hdr_v1 and of struct virtio_net_hdr, include/uapi/linux/virtio_net.h."""
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Queue:
    """A network card's queue in the QEMU that has it open."""

    descriptor: int
    """Its number in that process."""
    header: int
    """Bytes before each frame that a guest's usual driver asks for."""


def queues(pid: int) -> tuple[Queue, ...]:
    """The queues that QEMU was started with, in the order of the cards; () when the process is gone."""
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return ()
    found = []
    for netdev, descriptor in _NETDEV.findall(arguments):
        virtio = re.search(rb"virtio-net-pci,[^\0]*netdev=" + netdev + rb"[,\0]", arguments)
        found.append(Queue(int(descriptor), _WITH_VIRTIO_HEADER if virtio else _WITHOUT))
    return tuple(found)


def tap_of(pid: int, descriptor: int) -> str | None:
    """The tap that a queue belongs to, "" for none; None if that cannot be seen."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/fdinfo/{descriptor}").read_bytes().splitlines():
            if line.startswith(b"iff:"):
                return line.removeprefix(b"iff:").strip().decode("utf-8", "surrogateescape")
    return None


@dataclass(frozen=True, slots=True)
class TapRepair:
    """What the isolation room can do with an open queue of a tap."""

    header: Callable[[int], int]
    """Bytes before each frame."""
    rejoin: Callable[[int, str, int], None]
    """Attach a queue to the tap of that name, with so many bytes before each frame."""


class Wiring:
    """The queues of one running QEMU, and the taps that they should belong to."""

    def __init__(self, pid: int, pidfd: int, taps: Iterable[str], repair: TapRepair | None) -> None:
        self._pid = pid
        self._pidfd = pidfd
        self._taps = tuple(taps)
        self._found: dict[str, Queue] = {}
        self._repair = repair
        self._headers: dict[str, int] = {}

    def _queues(self) -> dict[str, Queue]:
        """Not known at once: the arguments of a process are empty for a moment while it is being made."""
        if not self._found:
            self._found = dict(zip(self._taps, queues(self._pid), strict=False))
        return self._found

    def severed(self) -> tuple[str, ...]:
        """The taps that were deleted, or renamed, under a queue: nothing reaches the guest there."""
        found = []
        for tap, queue in self._queues().items():
            belongs_to = tap_of(self._pid, queue.descriptor)
            if belongs_to is None:
                continue
            if belongs_to != tap:
                found.append(tap)
            elif self._repair is not None:
                # The guest's driver chose the header; with the tap, what it chose is lost.
                with suppress(OSError), copied(self._pidfd, queue.descriptor) as copy:
                    self._headers[tap] = self._repair.header(copy)
        return tuple(found)

    def rejoin(self, tap: str) -> None:
        """Attach the queue to the tap that was made anew; OSError if the kernel does not let us."""
        queue = self._queues().get(tap)
        if queue is None or self._repair is None:
            raise OSError(errno.ENODEV, "its queue is not known")
        with copied(self._pidfd, queue.descriptor) as copy:
            self._repair.rejoin(copy, tap, self._headers.get(tap, queue.header))


@contextmanager
def copied(pidfd: int, descriptor: int) -> Iterator[int]:
    """The very queue that the process has open, as a descriptor of ours; OSError if that is not allowed."""
    copy = _LIBC.syscall(_PIDFD_GETFD, pidfd, descriptor, 0)
    if copy < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    try:
        yield copy
    finally:
        os.close(copy)
