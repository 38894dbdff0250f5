"""What a restarted daemon must find again: failures, intents and leases of this power-on, durations of earlier runs."""

import asyncio
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

from cleanroomd.durable import read_json, write_json
from cleanroomd.model.observed import Failure, Fallback, Intent, Lease

_LONGEST_REASON = 500

_log = logging.getLogger(__name__)


def power_on_time() -> float:
    """When this enclosure was powered on: the start of its PID 1, CLOCK_BOOTTIME seconds."""
    return _pid1_start_ticks() / os.sysconf("SC_CLK_TCK")


def power_on_identity() -> str:
    """Tells one power-on from every other, on hardware as in namespaces."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}:{Path('/proc/self/ns/pid').stat().st_ino}:{_pid1_start_ticks()}"


def _pid1_start_ticks() -> int:
    fields = Path("/proc/1/stat").read_text().rpartition(")")[2].split()
    return int(fields[19])  # starttime, field 22 of proc_pid_stat(5)


class Record:
    """Files below `run` are of this power-on, those below `state` outlive it.

    What is noted holds at once; the call returns once it is on the disk, which the loop need not wait for.
    A file that cannot be written (a full disk) is a loss to the next daemon only: this one goes on with what it
    knows, since whoever asks for a shutdown then needs it most.
    """

    def __init__(self, *, run: Path, state: Path) -> None:
        self._run = run
        self._state = state
        run.mkdir(parents=True, exist_ok=True)
        state.mkdir(parents=True, exist_ok=True)
        self._begin_power_on()
        self.failures: dict[str, tuple[Failure, ...]] = dict(_failures(read_json(run / "failures.json")))
        self.fallbacks: dict[str, Fallback] = dict(_fallbacks(read_json(run / "fallbacks.json")))
        self.intents: dict[str, Intent] = dict(_intents(read_json(run / "intents.json")))
        self.durations: dict[str, float] = dict(_durations(read_json(state / "durations.json")))
        self.leases: dict[str, Lease] = dict(_leases(read_json(run / "leases.json")))
        self._writing = asyncio.Lock()
        self._afterwards: set[asyncio.Task[None]] = set()

    async def add_failure(self, service: str, failure: Failure) -> None:
        reason = failure.reason[:_LONGEST_REASON]
        self.failures[service] = (*self.failures.get(service, ()), Failure(failure.at, reason))
        await self._write_failures()

    async def set_fallback(self, service: str, fallback: Fallback) -> None:
        self.fallbacks[service] = fallback
        await self._write_fallbacks()

    async def clear_failures(self, services: Iterable[str]) -> None:
        """Failures, and warm starts that came to nothing, no longer count."""
        names = tuple(services)
        if [name for name in names if self.failures.pop(name, None) is not None]:
            await self._write_failures()
        done = [name for name in names if name in self.fallbacks and self.fallbacks[name].complete]
        for name in done:
            del self.fallbacks[name]
        if done:
            await self._write_fallbacks()

    async def set_intents(self, services: Iterable[str], intent: Intent) -> None:
        self.intents.update(dict.fromkeys(services, intent))
        await self._keep(self._run / "intents.json", lambda: {name: each.value for name, each in self.intents.items()})

    async def set_lease(self, lease: Lease) -> None:
        self.leases[lease.window] = lease
        await self._write_leases()

    async def drop_leases(self, windows: Iterable[str]) -> None:
        if [name for name in windows if self.leases.pop(name, None) is not None]:
            await self._write_leases()

    def drop_lease_soon(self, window: str) -> None:
        """For the loop, which waits for no disk; a lease that is over opens nothing for a daemon that finds it."""
        if self.leases.pop(window, None) is None:
            return
        task = asyncio.get_running_loop().create_task(self._write_leases())
        self._afterwards.add(task)
        task.add_done_callback(self._afterwards.discard)

    async def set_duration(self, service: str, seconds: float) -> None:
        self.durations[service] = round(seconds, 3)
        await self._keep(self._state / "durations.json", lambda: dict(self.durations))

    async def _write_leases(self) -> None:
        await self._keep(
            self._run / "leases.json", lambda: {window: asdict(lease) for window, lease in self.leases.items()}
        )

    async def _write_failures(self) -> None:
        await self._keep(
            self._run / "failures.json",
            lambda: {name: [asdict(failure) for failure in known] for name, known in self.failures.items()},
        )

    async def _write_fallbacks(self) -> None:
        await self._keep(
            self._run / "fallbacks.json", lambda: {name: asdict(each) for name, each in self.fallbacks.items()}
        )

    async def _keep(self, path: Path, document: Callable[[], Mapping[str, object]]) -> None:
        """One at a time, so that the newest is what stays; what has come since is in it."""
        async with self._writing:
            await asyncio.to_thread(_keep, path, document())

    def _begin_power_on(self) -> None:
        """Forget what was said before the power went off: powering on asks for everything again."""
        marker = self._run / "power-on.json"
        identity = power_on_identity()
        if read_json(marker).get("identity") != identity:
            for name in ("failures.json", "fallbacks.json", "intents.json", "leases.json"):
                (self._run / name).unlink(missing_ok=True)
            _keep(marker, {"identity": identity})


def _keep(path: Path, document: Mapping[str, object]) -> None:
    try:
        write_json(path, document)
    except OSError as error:
        _log.warning("cannot write %s: %s", path, error.strerror)


def _failures(document: Mapping[str, object]) -> Iterable[tuple[str, tuple[Failure, ...]]]:
    for name, known in document.items():
        if isinstance(known, list):
            yield (
                name,
                tuple(
                    Failure(float(entry["at"]), str(entry["reason"]))
                    for entry in known
                    if isinstance(entry, dict) and isinstance(entry.get("at"), int | float) and "reason" in entry
                ),
            )


def _fallbacks(document: Mapping[str, object]) -> Iterable[tuple[str, Fallback]]:
    for name, known in document.items():
        if isinstance(known, dict) and isinstance(known.get("reason"), str):
            yield name, Fallback(known["reason"], known.get("complete") is True)


def _leases(document: Mapping[str, object]) -> Iterable[tuple[str, Lease]]:
    for name, known in document.items():
        if not isinstance(known, dict):
            continue
        instants, words = (known.get("opened_at"), known.get("until")), (known.get("reason"), known.get("author"))
        if all(isinstance(each, int | float) for each in instants) and all(isinstance(each, str) for each in words):
            yield name, Lease(name, float(known["opened_at"]), float(known["until"]), *map(str, words))


def _intents(document: Mapping[str, object]) -> Iterable[tuple[str, Intent]]:
    for name, value in document.items():
        if isinstance(value, str) and value in set(Intent):
            yield name, Intent(value)


def _durations(document: Mapping[str, object]) -> Iterable[tuple[str, float]]:
    for name, value in document.items():
        if isinstance(value, int | float) and 0 <= value < 86_400:
            yield name, float(value)
