"""The instant at which a link goes dark, whatever becomes of the daemon.

A daemon asks for it over the keeper's socket, with a message that names the interface and the instant, and is
answered with what is held from then on. It is kept in a file too, so that it outlives the keeper. Instants are
CLOCK_BOOTTIME, in nanoseconds.
"""

import os
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cleanroomd.keeper.darkness import darken

MESSAGE = struct.Struct("=16sQ")
"""Interface, ended by zeros, and instant. Requests and answers, and the file, look alike."""
NOTHING = 0
"""In place of the instant: no link is to go dark."""
JUST_ASKING = (1 << 64) - 1
"""In place of the instant of a request: leave everything as it is."""
_AGAIN = 1_000_000_000
_LONGEST_WAIT = 1.0
"""Seconds: what select(2) sleeps for does not count while the whole machine sleeps, the deadline does."""


def boottime() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Deadline:
    """At most one; a newer one takes its place."""

    def __init__(self, path: Path, *, act: Callable[[str], None] = darken) -> None:
        """Takes up what an earlier keeper held at `path`."""
        self._path = path
        self._act = act
        self._interface, self._at = _parsed(_read(path))
        self._try_at = self._at

    def held(self) -> bytes:
        return MESSAGE.pack(self._interface, self._at)

    def wait(self, longest: float | None = None) -> float | None:
        """Seconds after which `keep` must be called at the latest; None for whenever."""
        if self._at == NOTHING:
            return longest
        seconds = max(0.0, min(_LONGEST_WAIT, (self._try_at - boottime()) / 1e9))
        return seconds if longest is None else min(seconds, longest)

    def ask(self, untrusted_request: bytes) -> bytes:
        """The answer to a request. OSError, and nothing changed, if it cannot be kept; ValueError if it is none."""
        if len(untrusted_request) != MESSAGE.size:
            raise ValueError("a request of another size")
        interface, at = _parsed(untrusted_request)
        if at != JUST_ASKING:
            self._store(MESSAGE.pack(interface, at))
            self._interface, self._at, self._try_at = interface, at, at
        return self.held()

    def keep(self) -> None:
        """Do what is due. What fails is tried again, as long as it takes."""
        if self._at == NOTHING or boottime() < self._try_at:
            return
        name = os.fsdecode(self._interface)
        try:
            self._act(name)
        except OSError as error:
            print(f"cannot take {name} down: {error.strerror or error}; trying again", file=sys.stderr, flush=True)
            self._try_at = boottime() + _AGAIN
            return
        print(f"took {name} down: its time was over", file=sys.stderr, flush=True)
        self._interface, self._at = b"", NOTHING
        with suppress(OSError):
            self._path.unlink()

    def _store(self, data: bytes) -> None:
        """Without fsync: it is for the next keeper of this power-on, and /run holds nothing longer."""
        draft = self._path.with_name(self._path.name + ".new")
        draft.write_bytes(data)
        draft.replace(self._path)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MESSAGE.size + 1)
    except OSError:
        return b""


def _parsed(untrusted: bytes) -> tuple[bytes, int]:
    """What is no message holds nothing."""
    if len(untrusted) != MESSAGE.size:
        return b"", NOTHING
    name, at = MESSAGE.unpack(untrusted)
    interface = name.rstrip(b"\0")
    return (interface, at) if interface or at == JUST_ASKING else (b"", NOTHING)
