"""A real qemu-ga in a machine that is deaf to its power button: ready by its agent, and stopped through it."""

import os
import re
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from cleanroomd.isolation import links
from cleanroomd.machine import launcher as module
from cleanroomd.machine import process
from cleanroomd.machine.agent import connect
from cleanroomd.machine.arguments import DiskImage
from cleanroomd.machine.crisis import CrisisStore
from cleanroomd.machine.launcher import Launcher
from cleanroomd.model.plan import Disk, GuestAgentProbe, Service, StartKind
from cleanroomd.model.posture import TapGuard
from cleanroomd.probes.runner import ProbeRunner
from rigs import tiny
from tests.kernel.namespaces import Namespace
from tests.unit.probes.test_runner import Board

pytestmark = pytest.mark.timeout(300)

GUEST = tiny.Guest(name="deaf", address="10.1.20.32", gateway="10.1.20.1", kernel=tiny.WITH_SERIAL_PORTS, agent=True)
TAP = "tap-deaf"
MEMORY = 192 << 20
SERVICE = Service(
    name=GUEST.name,
    title="Deaf",
    priority=1,
    address=IPv4Address(GUEST.address),
    gateway=IPv4Address(GUEST.gateway),
    mac="52:54:00:01:20:32",
    memory=MEMORY,
    memory_min=MEMORY,
    disks=(Disk(GUEST.disk),),
    ready=(GuestAgentProbe(),),
    guest_agent=True,
)


@pytest.fixture(scope="session")
def deaf_disk() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cleanroomd"
    return tiny.build([GUEST], cache, lambda _text: None)[GUEST.disk]


class Bench:
    """One machine; `launcher()` stands for one life of the daemon."""

    def __init__(self, root: Path, golden: Path) -> None:
        self.directory = root / "machines"
        self._crisis = CrisisStore(root / "crisis")
        overlay = self._crisis.overlay(SERVICE.name, GUEST.disk)
        self._images = (DiskImage(GUEST.disk, golden, "qcow2", overlay),)

    @asynccontextmanager
    async def launcher(self) -> AsyncIterator[Launcher]:
        made = Launcher(self.directory, accelerator="tcg", on_change=lambda _text: None, open_tap=links.open_tap)
        try:
            yield made
        finally:
            await made.close()

    async def start(self, launcher: Launcher, service: Service = SERVICE) -> None:
        await self._crisis.prepare(SERVICE.name, self._images)
        await launcher.launch(service, taps=(TAP,), disks=self._images, memory=MEMORY, start=StartKind.COLD, attempt=1)
        self._crisis.mark(SERVICE.name, {})
        await launcher.run(SERVICE.name)


@pytest.fixture
async def bench(deaf_disk: Path, own_network: Namespace) -> AsyncIterator[Bench]:
    links.make_tap(TAP)
    links.attach_tap(TapGuard(SERVICE.name, TAP, SERVICE.mac, SERVICE.address, SERVICE.gateway))
    # Not below pytest's own directory: a socket's path has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="cleanroom-") as name:
        made = Bench(Path(name), deaf_disk)
        yield made
        pid = process.find_process(made.directory / SERVICE.name)
        if pid is not None:
            os.kill(pid, signal.SIGKILL)


async def ready(launcher: Launcher) -> str:
    """What the probe says of the machine as soon as it is ready."""
    board = Board()
    probing = ProbeRunner()
    try:
        agent = launcher.agent_socket(SERVICE.name)
        probing.watch(SERVICE.name, SERVICE.ready, str(SERVICE.address), board, agent=agent)
        return (await board.until(lambda _, facts: facts.ok)).detail
    finally:
        await probing.close()


async def test_a_machine_is_ready_by_its_agent_and_stopped_through_it_by_a_later_daemon(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PRESS_AGAIN", 3.0)
    async with bench.launcher() as first:
        await bench.start(first)
        proven = await ready(first)
        async with connect(first.agent_socket(SERVICE.name), SERVICE.name, seconds=30) as agent:
            assert proven == f"guest agent {await agent.version()} answered"
    async with bench.launcher() as second:
        await second.adopt()
        outcome = await second.stop(SERVICE.name, 90)
    assert re.fullmatch(r"powered down after \S+ s, once its guest agent was asked", outcome)


async def test_without_its_agent_in_the_plan_it_is_switched_off(bench: Bench) -> None:
    async with bench.launcher() as launcher:
        await bench.start(launcher, replace(SERVICE, guest_agent=False))
        await ready(launcher)
        assert re.fullmatch(r"was switched off after \S+ s", await launcher.stop(SERVICE.name, 4))
