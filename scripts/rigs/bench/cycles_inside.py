"""The essential unit of a benchmark's sandbox: start and stop machines again and again, and see what the daemon keeps.

python -m rigs.bench.cycles_inside DESCRIPTOR ROOT CYCLES READING
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from cleanroomd.control.client import Client
from cleanroomd.errors import ControlError
from cleanroomd.model.status import ServiceState, Status
from rigs import orchestrate, power_button
from rigs.bench.cli_inside import process_of, resident
from rigs.namespaces import Node, rig

REAL = "real"
"""The service that becomes ready; all others wait for their power button."""
REAL_EVERY = 50
SAMPLES = 10
SAMPLE_SECONDS = 0.3
UNITS = 3
"""PID 1, the keeper and the daemon: the enclosure's processes while no machine runs."""


class Cycles:
    """Whole cycles of the services of one enclosure."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._client = Client(root / "run/control")
        self._real = asyncio.Lock()
        self.seconds: list[float] = []

    async def begin(self) -> tuple[str, ...]:
        """Stop everything that the power-on started; the services that wait for their button."""
        names: tuple[str, ...] = ()
        while not names:
            try:
                names = tuple(service.name for service in (await self._client.status()).services)
            except ControlError:
                await asyncio.sleep(0.1)
        waiting = tuple(name for name in names if name != REAL)
        await self._client.stop(REAL)
        for name in waiting:
            await self._turn(name)
        await self._until(REAL, ServiceState.STOPPED)
        self.seconds.clear()
        return waiting

    async def run(self, services: tuple[str, ...], numbers: range) -> None:
        """As many cycles as `numbers` has, one of each of `services` at a time."""
        left = iter(numbers)
        await asyncio.gather(*(self._work(name, left) for name in services))

    async def _work(self, service: str, left: Iterator[int]) -> None:
        for number in left:
            if number % REAL_EVERY == 0:
                async with self._real:
                    await self._turn(REAL)
            else:
                await self._turn(service)

    async def _turn(self, service: str) -> None:
        began = time.monotonic()
        await self._client.start(service)
        if service == REAL:
            await self._until(service, ServiceState.READY)
        else:
            await self._until(service, ServiceState.BOOTING)
            await self._listens(service)
        await self._client.stop(service)
        await self._until(service, ServiceState.STOPPED)
        self.seconds.append(time.monotonic() - began)

    async def _until(self, service: str, state: ServiceState) -> None:
        statuses = self._client.watch()
        async for status in statuses:
            if _state(status, service) is state:
                break
        await statuses.aclose()

    async def _listens(self, service: str) -> None:
        """Nothing tells when a file grows but looking at it, short of inotify."""
        console = self._root / "run/machines" / service / "console.log"
        while True:
            with suppress(FileNotFoundError):
                if power_button.LISTENS in console.read_bytes():
                    return
            await asyncio.sleep(0.01)


def _state(status: Status, name: str) -> ServiceState:
    return next(service.state for service in status.services if service.name == name)


def processes_of(node: Node) -> list[str]:
    """What runs in a host, by its PID namespace."""
    home = Path(f"/proc/{node.pid}/ns/pid").stat().st_ino
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdecimal() and (entry / "ns/pid").stat().st_ino == home:
                found.append((entry / "comm").read_text().strip())
    return found


def look(enclosure: Node, daemon: int) -> tuple[int, int, float]:
    """Descriptors of the daemon, processes beside those that are always there, MB that the daemon holds."""
    descriptors = sum(1 for _ in Path(f"/proc/{daemon}/fd").iterdir())
    return descriptors, len(processes_of(enclosure)) - UNITS, resident(daemon)


async def read(enclosure: Node, root: Path, cycles: int) -> dict[str, Any]:
    """What the daemon holds with every machine stopped.

    The least of several looks: a connection that is being closed is none that stays.
    """
    daemon = process_of("-m cleanroomd --plan")
    looks = []
    for _ in range(SAMPLES):
        await asyncio.sleep(SAMPLE_SECONDS)
        looks.append(look(enclosure, daemon))
    files = [path for folder in ("run", "crisis") for path in (root / folder).rglob("*") if not path.is_dir()]
    descriptors, processes, memory = map(min, zip(*looks, strict=True))
    return {
        "cycles": cycles,
        "descriptors": descriptors,
        "processes": processes,
        "resident": memory,
        "files": sorted(str(path.relative_to(root)) for path in files),
    }


async def repeat(enclosure: Node, root: Path, cycles: int, reading: int) -> dict[str, Any]:
    """`cycles` of them, with a reading after each `reading`."""
    enclosure_cycles = Cycles(root)
    services = await enclosure_cycles.begin()
    readings = []
    for first in range(1, cycles + 1, reading):
        last = min(first + reading - 1, cycles)
        await enclosure_cycles.run(services, range(first, last + 1))
        readings.append(await read(enclosure, root, last))
    return {"readings": readings, "seconds": enclosure_cycles.seconds}


def main() -> None:
    descriptor, root, cycles, reading = int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    with rig(root=root, units=orchestrate.units(root, root / "logs"), log=root / "logs/hosts.log") as hosts:
        hosts.enclosure.power_on()
        found = asyncio.run(repeat(hosts.enclosure, root, cycles, reading))
    os.write(descriptor, json.dumps(found).encode() + b"\n")


if __name__ == "__main__":
    main()
