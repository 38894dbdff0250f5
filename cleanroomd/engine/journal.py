"""The run journal: every state change, refusal and wake-up with its reason, once.

The file state/journal.jsonl below the daemon's root holds one JSON object a line: `time` (Unix time), `boottime`
(CLOCK_BOOTTIME), both in seconds, `event`, `text`, `service` where the entry is about one, and whatever else the
event has to say. At 16 MiB it becomes state/journal.jsonl.1, in the place of the one before; both are read.

Where systemd's journal runs it gets every entry too, under the identifier cleanroomd: MESSAGE_ID as below,
CLEANROOM_EVENT, CLEANROOM_SERVICE, and each further field in capitals after CLEANROOM_. Priority is 3 (error) for
step-failed and 6 (information) for the others. `journalctl MESSAGE_ID=...` shows the entries of one event.
"""

import asyncio
import json
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from enum import StrEnum
from pathlib import Path
from typing import IO, TextIO

_LARGEST_FILE = 16 << 20
_LONGEST_LINE = 1 << 20
_SYSTEMD_SOCKET = Path("/run/systemd/journal/socket")


class Event(StrEnum):
    """Kinds of entry, each with a message id of systemd's journal that never changes."""

    WAKE_UP = "wake-up"
    """Something changed or a time came, and the daemon looks at everything again; the text says what."""
    STEP = "step"
    """The daemon does something, such as writing rules or launching a machine; the text says what."""
    STEP_FAILED = "step-failed"
    """A step could not be done; the text says why."""
    SERVICE = "service"
    """A service came into another state, a machine ran its first instruction or ended, or an attempt failed."""
    RUN = "run"
    """The run as a whole came into another state; the text adds the verdict on the plan."""
    ISOLATION = "isolation"
    """The rules were proven or not, or somebody else changed them, or the keeper ended, or a lease was over."""
    OPERATOR = "operator"
    """Somebody asked to start, stop, restore or shut down, or opened or closed the uplink."""
    ADOPTED = "adopted"
    """A machine that an earlier daemon started was found running, and runs on."""
    DAEMON = "daemon"
    """The daemon began or ended, chose how machines run, or had a fault of its own."""


MESSAGE_IDS = {
    Event.WAKE_UP: "5fa6a3b9b9c84f5c9d7e1c8e64a31b02",
    Event.STEP: "a3a6f27b1cf24e2f9d1eb7a9c1d5e603",
    Event.STEP_FAILED: "7d1c7b1b6f0c4a56b9d2a4e8a5c0f704",
    Event.SERVICE: "e2c1f7c0a5f34b0b8f5d9b6a7c3e1805",
    Event.RUN: "90d0e2f94b9a4d44a6f3c5b7e8d1a906",
    Event.ISOLATION: "4b8f4a7d5e1c4f6e8c2b9d0a3f7e5b07",
    Event.OPERATOR: "c6d5e4f3a2b14c0d9e8f7a6b5c4d3e08",
    Event.ADOPTED: "1f2e3d4c5b6a49788796a5b4c3d2e109",
    Event.DAEMON: "d8c7b6a594834f72a1b0c9d8e7f6a50a",
}


ADVICE = {
    Event.WAKE_UP: "nothing.",
    Event.STEP: "nothing; a step that fails is told as such.",
    Event.STEP_FAILED: "read why. The daemon goes on, and tries again by itself where that can help; `cleanroomctl "
    "status` says whether anything is left for you to do.",
    Event.SERVICE: "nothing while services come up. For one that failed or is blocked, `cleanroomctl status` says why "
    "and what helps, and `cleanroomctl start SERVICE` tries it again.",
    Event.RUN: "nothing when everything is restored or on its way. After DEGRADED or HALTED, `cleanroomctl status` "
    "names the services that are missing, and what to do first.",
    Event.ISOLATION: "while isolation is not proven nothing more starts or opens, and the daemon writes the rules "
    "again by itself. If that lasts, unplug the uplink and restart the enclosure.",
    Event.OPERATOR: "nothing, if it was you or a colleague; only root and members of the group cleanroom can ask.",
    Event.ADOPTED: "nothing.",
    Event.DAEMON: "nothing when it begins or ends. After a fault, `journalctl --unit cleanroomd` has what a developer "
    "needs to know; the machines run on.",
}
"""What to do about an entry, as the end of a sentence: for systemd's message catalog and the reference."""


class Journal:
    """Appends to a file of JSON lines, and to systemd's journal where there is one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._before = path.with_name(path.name + ".1")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: TextIO | None = None
        self._open()
        self._entries = 0
        self._grown = asyncio.Condition()
        self._wakers: set[asyncio.Task[None]] = set()
        self._systemd = _SYSTEMD_SOCKET.exists()

    def record(self, event: Event, text: str, *, service: str = "", **fields: str | float) -> None:
        """Add one entry; a full disk costs the entry, never the restoration."""
        entry: dict[str, object] = {
            "time": round(time.time(), 3),
            "boottime": round(time.clock_gettime(time.CLOCK_BOOTTIME), 3),
            "event": event.value,
            "text": text,
        }
        if service:
            entry["service"] = service
        entry.update(fields)
        self._append(json.dumps(entry, ensure_ascii=False) + "\n")
        if self._systemd:
            # What journald does not take is in the file.
            with suppress(OSError, ValueError):
                _send_to_systemd(event, text, service, fields)
        self._entries += 1
        task = asyncio.get_running_loop().create_task(self._wake())
        self._wakers.add(task)
        task.add_done_callback(self._wakers.discard)

    async def entries(
        self, *, follow: bool, last: int | None = None, service: str = ""
    ) -> AsyncIterator[Mapping[str, object]]:
        """The entries of the file before and of the current one, then with `follow` each new one as it comes.

        With `service` only those about it; with `last` at most so many of those that are there already.
        """
        mark = f'"service": {json.dumps(service, ensure_ascii=False)}'.encode() if service else b""
        with ExitStack() as opened:
            readers = [_Reader(opened.enter_context(path.open("rb"))) for path in self._files()]
            if last is not None:
                # In a thread: reading it all may take longer than the loop should be away from the machines.
                await asyncio.to_thread(_skip_to_last, readers, last, mark)
            while True:
                seen = self._entries
                left = not readers[-1].is_at(self._path) if readers else self._path.exists()
                for reader in readers:
                    for line in reader.lines():
                        if mark in line:
                            yield _parse(line)
                if not follow:
                    return
                if left:
                    opened.close()
                    readers = [_Reader(opened.enter_context(self._path.open("rb")))]
                    continue
                async with self._grown:
                    await self._grown.wait_for(lambda seen=seen: self._entries != seen)  # type: ignore[misc]

    def close(self) -> None:
        if self._file is not None:
            # What a full disk did not take at the end is lost like any other entry on it.
            with suppress(OSError):
                self._file.close()
            self._file = None

    async def _wake(self) -> None:
        async with self._grown:
            self._grown.notify_all()

    def _files(self) -> list[Path]:
        """Those that exist, in the order of their entries; the current one appears with its first entry."""
        return [path for path in (self._before, self._path) if path.exists()]

    def _append(self, line: str) -> None:
        if self._file is None:
            self._open()
        if self._file is None:
            return
        try:
            self._file.write(line)
            self._file.flush()
            if self._file.tell() > _LARGEST_FILE:
                self._path.replace(self._before)
                self.close()
        except OSError:
            # Closed, so that what could not be written does not stand in front of later entries.
            self.close()

    def _open(self) -> None:
        """Try to; a line that a power cut, or a disk that was full for a moment, left half written is ended."""
        try:
            opened = self._path.open("a", encoding="utf-8", errors="backslashreplace")
        except OSError:
            return
        self._file = opened
        with suppress(OSError):
            if opened.tell() and not _ends_a_line(self._path):
                opened.write("\n")


class _Reader:
    """Reads the whole lines of one file of the journal as they are written."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._partial = b""

    def is_at(self, path: Path) -> bool:
        """Whether `path` still names the file."""
        try:
            return os.path.samestat(os.fstat(self._stream.fileno()), path.stat())
        except OSError:
            # Between two files: the next one appears with the next entry.
            return True

    def lines(self) -> Iterator[bytes]:
        """Those that follow the ones read before."""
        while part := self._stream.readline(_LONGEST_LINE):
            self._partial += part
            if self._partial.endswith(b"\n"):
                line, self._partial = self._partial, b""
                yield line

    def skip_to_last(self, count: int, mark: bytes) -> int:
        """Go on with the last `count` lines that hold `mark`, or as many as there are; returns their number."""
        places: deque[int] = deque(maxlen=count)
        place = 0
        for line in self.lines():
            if mark in line:
                places.append(place)
            place += len(line)
        self._stream.seek(places[0] if places else place)
        self._partial = b""
        return len(places)


def _skip_to_last(readers: Sequence[_Reader], count: int, mark: bytes) -> None:
    """As one file: what the newest has too few of, the ones before it have."""
    for reader in reversed(readers):
        count -= reader.skip_to_last(count, mark)


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as stream:
        stream.seek(-1, os.SEEK_END)
        return stream.read() == b"\n"


def _parse(line: bytes) -> Mapping[str, object]:
    text = line.decode(errors="replace")
    try:
        entry = json.loads(text)
    except ValueError:
        entry = None
    return entry if isinstance(entry, dict) else {"event": "unreadable", "text": text.strip()[:200]}


def _send_to_systemd(event: Event, text: str, service: str, fields: Mapping[str, str | float]) -> None:
    from systemd import journal

    journal.send(
        f"{service}: {text}" if service else text,
        MESSAGE_ID=MESSAGE_IDS[event],
        SYSLOG_IDENTIFIER="cleanroomd",
        PRIORITY="3" if event is Event.STEP_FAILED else "6",
        CLEANROOM_EVENT=event.value,
        CLEANROOM_SERVICE=service,
        **{f"CLEANROOM_{key.upper()}": str(value) for key, value in fields.items()},
    )
