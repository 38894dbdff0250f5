"""The demonstration's place on this machine: its cache, its lock, the folder of one run, and the one that was kept."""

import fcntl
import hashlib
import json
import os
import select
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

from cleanroomd.errors import CleanroomError
from rigs import namespaces

STOP_SECONDS = 30.0
LONGEST_SOCKET = "run/machines/abcdefghijklmnopqrstuvwxyz012345/agent.sock"
"""Below the root of the enclosure; names of services have at most 32 letters."""

DURATIONS = "state/durations.json"
"""Where the daemon keeps how long each service took to become ready."""


def default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cleanroomd"


@dataclass(frozen=True, slots=True)
class Running:
    """A sandbox that runs: its PID 1 as numbered outside, and when that started, so that a reused number is known."""

    pid: int
    started: int
    workstation: int
    """PID 1 of the workstation, as numbered inside."""

    @classmethod
    def of(cls, pid: int, *, workstation: int) -> "Running":
        return cls(pid=pid, started=_start_ticks(pid), workstation=workstation)


class Place:
    """Folders and files below one cache."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache.absolute()
        self.logs = self.cache / "demo/logs"
        self.outcome = self.cache / "demo/last"
        self._root = self.cache / "demo/root"
        self._running = self.cache / "demo/running.json"
        self._link = self.cache / "demo/short"
        """Holds the name of a short way to the root, where sockets would else have too long a path."""

    @contextmanager
    def locked(self) -> Iterator[int]:
        """Be the only demonstration of this cache; the sandbox keeps the lock for as long as it lives."""
        self._root.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(self.cache / "demo/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                running = self._read_running()
                which = f"the one with process {running.pid}" if running else "one that is being built"
                raise CleanroomError(
                    f"cannot start a demonstration: {which} runs already", "end it with: scripts/demo --stop"
                ) from None
            yield lock
        finally:
            os.close(lock)

    def clear(self) -> None:
        """Remove what a run leaves in files; call it with the lock only."""
        if self._link.exists():
            short = Path(self._link.read_text(encoding="utf-8"))
            if short.is_symlink():
                short.unlink()
                short.parent.rmdir()
            self._link.unlink()
        self._running.unlink(missing_ok=True)
        if self._root.exists():
            shutil.rmtree(self._root)

    def prepare(self, *, plan: Path, disks: Mapping[str, Path]) -> Path:
        """The enclosure's root for one run: the plan, and a vault of links to disks that nobody writes.

        How long services took in the run before is the one thing that the daemon finds again, for its estimates.
        """
        vault = self._root / "vault"
        vault.mkdir(parents=True)
        (self._root / "state").mkdir()
        if self._durations(plan).exists():
            shutil.copyfile(self._durations(plan), self._root / DURATIONS)
        shutil.rmtree(self.logs, ignore_errors=True)
        self.logs.mkdir()
        shutil.copyfile(plan, self._root / "plan.toml")
        for name, image in disks.items():
            (vault / f"{name}.qcow2").symlink_to(image)
        if namespaces.socket_path_fits(self._root / LONGEST_SOCKET):
            return self._root
        short = Path(tempfile.mkdtemp(prefix="cleanroom-")) / "root"
        self._link.write_text(str(short), encoding="utf-8")
        short.symlink_to(self._root)
        return short

    def save_outcome(self, plan: Path) -> None:
        """Keep the run journal for whoever wants to know more, and the durations for the next run."""
        self.outcome.mkdir(exist_ok=True)
        for source, target in (
            (self._root / "state/journal.jsonl", self.outcome / "journal.jsonl"),
            (self._root / DURATIONS, self._durations(plan)),
        ):
            if source.exists():
                shutil.copyfile(source, target)

    def _durations(self, plan: Path) -> Path:
        return self.cache / f"demo/durations-{hashlib.sha256(plan.read_bytes()).hexdigest()[:16]}.json"

    def write_running(self, running: Running) -> None:
        self._running.write_text(json.dumps(asdict(running)), encoding="utf-8")

    def stop(self) -> None:
        """End the demonstration that runs, and wait until it is gone."""
        running = self._alive()
        try:
            handle = os.pidfd_open(running.pid)
        except ProcessLookupError:
            return
        try:
            if _start_ticks(running.pid) == running.started:
                signal.pidfd_send_signal(handle, signal.SIGTERM)
                select.select([handle], [], [], STOP_SECONDS)
        finally:
            os.close(handle)
        self._wait_unlocked()
        with self.locked():
            self.clear()

    def enter_workstation(self, command: Sequence[str]) -> NoReturn:
        """Become `command` at the workstation of the demonstration that runs."""
        running = self._alive()
        inner = namespaces.enter_argv(running.workstation, command)
        outer = namespaces.enter_argv(running.pid, inner, user=os.geteuid() != 0)
        os.execvp(outer[0], outer)  # noqa: S606 -- no shell is wanted

    def _alive(self) -> Running:
        running = self._read_running()
        if running is None or _start_ticks(running.pid) != running.started:
            raise CleanroomError("cannot find a demonstration: none runs", "start one with: scripts/demo --keep")
        return running

    def _read_running(self) -> Running | None:
        try:
            return Running(**json.loads(self._running.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def _wait_unlocked(self) -> None:
        """The lock is free once the last process of the sandbox is; flock(2) has no deadline of its own."""
        deadline = time.monotonic() + STOP_SECONDS
        lock = os.open(self.cache / "demo/lock", os.O_RDWR | os.O_CLOEXEC)
        try:
            while time.monotonic() < deadline:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    time.sleep(0.05)
                else:
                    return
        finally:
            os.close(lock)
        raise CleanroomError("cannot end the demonstration: it still holds its lock", "try again in a moment")


def _start_ticks(pid: int) -> int:
    """When a process started, in clock ticks since boot (field 22 of proc_pid_stat(5)); 0 when there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return int(fields[19])
    except (OSError, ValueError, IndexError):
        return 0
