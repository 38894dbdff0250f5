"""PID 1 of a namespace: mounts, starts units in order, restarts what dies, reaps, and ends with its lifeline.

The kernel kills every process of a PID namespace when its PID 1 ends, so the rig needs no other clean-up: whoever holds
the other end of the lifeline may be killed with SIGKILL and nothing stays behind.

The lifeline carries lines: `start` starts the units (before it only the mounts are made), `keep` makes the end of the
lifeline harmless. Its end without `keep` ends everything at once.
"""

import fcntl
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

RESTART_DELAY = 0.2
RESTARTS_IN_A_ROW = 8
"""A unit that ends this often without ever becoming ready is left alone, as systemd's start limit would."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A command that PID 1 runs. With `notify` the next unit waits for its READY=1 (sd_notify)."""

    name: str
    argv: tuple[str, ...]
    notify: bool = False
    essential: bool = False
    """Its end ends PID 1, with its exit code. Other units are started again unless they end with 0."""
    log: str = ""
    """File that gets standard output and error; empty to inherit PID 1's."""
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Boot:
    """All that a PID 1 needs to know, passed as one JSON argument."""

    hostname: str
    lifeline: int
    """File descriptor to read; never inherited by units."""
    mounts: tuple[tuple[str, ...], ...] = ()
    """Arguments of mount(8), in order."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Path -> text, written after the mounts of the same path's file system."""
    binds: Mapping[str, str] = field(default_factory=dict)
    """Target -> source, bound last."""
    units: tuple[Unit, ...] = ()
    held: tuple[int, ...] = ()
    """File descriptors kept open for as long as this PID 1 lives (locks), never inherited by units."""
    announce: int = -1
    """File descriptor that gets the line `up` once the mounts are made."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Boot":
        fields: dict[str, Any] = json.loads(text)
        fields["mounts"] = tuple(tuple(each) for each in fields["mounts"])
        fields["held"] = tuple(fields["held"])
        fields["units"] = tuple(Unit(**each | {"argv": tuple(each["argv"])}) for each in fields["units"])
        return cls(**fields)


def prepare(boot: Boot) -> None:
    """Make the machine's own name, mounts and files; raises OSError or CalledProcessError."""
    socket.sethostname(boot.hostname)
    for arguments in boot.mounts:
        subprocess.run(["mount", *arguments], check=True)
    for path, text in boot.files.items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text, encoding="utf-8")
    for target, source in boot.binds.items():
        subprocess.run(["mount", "--bind", source, target], check=True)


class Supervisor:
    """The units of one PID 1: what runs, what is ready, what has to be started again and when."""

    def __init__(self, units: tuple[Unit, ...], log: Callable[[str], None]) -> None:
        self._units = units
        self._log = log
        self._pids: dict[int, Unit] = {}
        self._ready: set[str] = set()
        self._started: set[str] = set()
        self._failures: dict[str, int] = {}
        self._due: dict[str, float] = {}
        self.notifications: dict[socket.socket, Unit] = {}
        self.exit_code: int | None = None
        """Set once an essential unit has ended."""
        for unit in units:
            if unit.notify:
                receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
                receiver.bind(f"\0rig/{unit.name}")
                self.notifications[receiver] = unit

    def start_next(self) -> None:
        """Start units in order, up to the first one that is not yet ready."""
        for unit in self._units:
            if unit.name not in self._started:
                self._start(unit)
            if unit.notify and unit.name not in self._ready:
                return

    def notified(self, receiver: socket.socket) -> None:
        untrusted_message = receiver.recv(4096)
        unit = self.notifications[receiver]
        if b"READY=1" in untrusted_message.split(b"\n") and unit.name not in self._ready:
            self._log(f"{unit.name} is ready")
            self._ready.add(unit.name)
            self._failures.pop(unit.name, None)
            self.start_next()

    def reap(self) -> None:
        """Collect every dead child, units and orphans alike."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            unit = self._pids.pop(pid, None)
            if unit is not None:
                self._ended(unit, os.waitstatus_to_exitcode(status))

    def wait_time(self) -> float | None:
        """Seconds until a unit has to be started again, None if none has to be."""
        return max(0.0, min(self._due.values()) - time.monotonic()) if self._due else None

    def restart_due(self) -> None:
        now = time.monotonic()
        for unit in self._units:
            if self._due.get(unit.name, now + 1) <= now:
                del self._due[unit.name]
                self._start(unit)

    def _ended(self, unit: Unit, code: int) -> None:
        self._ready.discard(unit.name)
        self._log(f"{unit.name} ended with {code}")
        if unit.essential:
            self.exit_code = code if code >= 0 else 128 - code
            return
        if code == 0:
            return
        self._failures[unit.name] = failures = self._failures.get(unit.name, 0) + 1
        if failures >= RESTARTS_IN_A_ROW:
            self._log(f"{unit.name} ended {failures} times without becoming ready; it is not started again")
            return
        self._due[unit.name] = time.monotonic() + RESTART_DELAY * failures

    def _start(self, unit: Unit) -> None:
        self._started.add(unit.name)
        environment = {**os.environ, **unit.environment}
        environment.pop("NOTIFY_SOCKET", None)
        if unit.notify:
            environment["NOTIFY_SOCKET"] = f"@rig/{unit.name}"
        redirect: list[tuple[Any, ...]] = [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)]
        if unit.log:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            redirect += [(os.POSIX_SPAWN_OPEN, 1, unit.log, flags, 0o644), (os.POSIX_SPAWN_DUP2, 1, 2)]
        pid = os.posix_spawnp(
            unit.argv[0],
            unit.argv,
            environment,
            file_actions=redirect,
            setsid=True,
            setsigmask=(),
            setsigdef=(signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD),
        )
        self._pids[pid] = unit
        self._log(f"{unit.name} started as process {pid}")


def _log(message: str) -> None:
    print(f"{time.clock_gettime(time.CLOCK_BOOTTIME):.3f} {message}", file=sys.stderr, flush=True)


def _end(number: int, _frame: object) -> None:
    _log(f"ended by {signal.Signals(number).name}")
    os._exit(128 + number)


def serve(boot: Boot) -> int:
    """Run until an essential unit ends (its exit code) or the lifeline does (0)."""
    for fd in (boot.lifeline, *boot.held):
        fcntl.fcntl(fd, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
    wake_read, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _end)

    prepare(boot)
    supervisor = Supervisor(boot.units, _log)
    if boot.announce >= 0:
        os.write(boot.announce, b"up\n")
        os.close(boot.announce)

    poll = select.poll()
    for fd in (wake_read, boot.lifeline, *(receiver.fileno() for receiver in supervisor.notifications)):
        poll.register(fd, select.POLLIN)
    kept = False
    while supervisor.exit_code is None:
        wait = supervisor.wait_time()
        events = {fd for fd, _ in poll.poll(None if wait is None else wait * 1000)}
        if wake_read in events:
            os.read(wake_read, 4096)
        if boot.lifeline in events:
            words = os.read(boot.lifeline, 4096).split()
            kept = kept or b"keep" in words
            if not words and not kept:
                return 0
            if not words:
                poll.unregister(boot.lifeline)
            if b"start" in words:
                supervisor.start_next()
        for receiver in supervisor.notifications:
            if receiver.fileno() in events:
                supervisor.notified(receiver)
        supervisor.reap()
        supervisor.restart_due()
    return supervisor.exit_code


if __name__ == "__main__":
    os._exit(serve(Boot.from_json(sys.argv[1])))
