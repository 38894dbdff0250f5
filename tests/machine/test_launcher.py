"""Real QEMUs: paused before the first instruction, adopted, stopped, killed; and what care wrote stays."""

import asyncio
import os
import signal
import tempfile
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from cleanroomd.errors import IsolationError, MachineError
from cleanroomd.isolation import links
from cleanroomd.machine import process
from cleanroomd.machine.arguments import DiskImage
from cleanroomd.machine.crisis import CrisisStore
from cleanroomd.machine.launcher import Launcher
from cleanroomd.machine.queues import TapRepair
from cleanroomd.model.observed import MachinePhase, Made
from cleanroomd.model.plan import Disk, Service, StartKind, TcpProbe
from cleanroomd.model.posture import TapGuard
from tests.kernel.namespaces import Namespace
from tests.machine.conftest import GUEST

pytestmark = pytest.mark.timeout(180)

TAP = "tap-probe"
MEMORY = 128 << 20
SERVICE = Service(
    name=GUEST.name,
    title="Probe",
    priority=1,
    address=IPv4Address(GUEST.address),
    gateway=IPv4Address(GUEST.gateway),
    mac="52:54:00:01:20:31",
    memory=MEMORY,
    memory_min=MEMORY,
    disks=(Disk(GUEST.disk),),
    ready=(TcpProbe(80, b"HTTP"),),
)


class Bench:
    """One enclosure's machines in a directory; `launcher()` stands for one life of the daemon."""

    def __init__(self, root: Path, golden: Path) -> None:
        self.root = root
        self.crisis = CrisisStore(root / "crisis")
        self.images = (DiskImage(GUEST.disk, golden, "qcow2", self.crisis.overlay(SERVICE.name, GUEST.disk)),)
        self.changes: asyncio.Queue[str] = asyncio.Queue()

    @property
    def directory(self) -> Path:
        return self.root / "machines"

    @asynccontextmanager
    async def launcher(self) -> AsyncIterator[Launcher]:
        launcher = Launcher(
            self.directory,
            accelerator="tcg",
            on_change=self.changes.put_nowait,
            open_tap=links.open_tap,
            taps=TapRepair(header=links.tap_header, rejoin=links.rejoin_tap),
        )
        try:
            yield launcher
        finally:
            await launcher.close()

    async def launch(self, launcher: Launcher, made: Made | None = None) -> None:
        await self.crisis.prepare(SERVICE.name, self.images)
        await launcher.launch(
            SERVICE, taps=(TAP,), disks=self.images, memory=MEMORY, start=StartKind.COLD, attempt=1, made=made
        )

    async def run(self, launcher: Launcher) -> None:
        self.crisis.mark(SERVICE.name, {})
        await launcher.run(SERVICE.name)


@pytest.fixture
def bench(tiny_disk: Path, own_network: Namespace) -> Iterator[Bench]:
    links.make_tap(TAP)
    links.attach_tap(TapGuard(SERVICE.name, TAP, SERVICE.mac, SERVICE.address, SERVICE.gateway))
    # Not below pytest's own directory: a socket's path has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="cleanroom-") as name:
        made = Bench(Path(name), tiny_disk)
        yield made
        pid = process.find_process(made.directory / SERVICE.name)
        if pid is not None:
            os.kill(pid, signal.SIGKILL)


async def http(path: str) -> str:
    """The guest's answer, as soon as it gives one; the test's timeout bounds the wait."""

    def get() -> str:
        with urllib.request.urlopen(f"http://{GUEST.address}{path}", timeout=5) as answer:
            return str(answer.read().decode())

    while True:
        try:
            return await asyncio.to_thread(get)
        except OSError:
            await asyncio.sleep(0.2)


async def test_a_machine_runs_when_it_is_let_go_and_not_before(bench: Bench) -> None:
    async with bench.launcher() as launcher:
        await bench.launch(launcher)
        assert launcher.facts()[SERVICE.name].phase is MachinePhase.PAUSED
        console = bench.directory / SERVICE.name / "console.log"
        assert console.read_bytes() == b""
        await bench.run(launcher)
        assert launcher.facts()[SERVICE.name].phase is MachinePhase.RUNNING
        assert "ready" in await http("/")
        assert "serves on" in launcher.console_tail(SERVICE.name)
        outcome = await launcher.stop(SERVICE.name, 60)
        assert "powered down" in outcome
        assert launcher.facts() == {}
        assert process.find_process(bench.directory / SERVICE.name) is None


async def test_a_later_daemon_adopts_what_runs_and_what_is_paused(bench: Bench) -> None:
    async with bench.launcher() as first:
        await bench.launch(first)
    async with bench.launcher() as second:
        assert await second.adopt() == (SERVICE.name,)
        assert second.facts()[SERVICE.name].phase is MachinePhase.PAUSED
        await bench.run(second)
        assert "ready" in await http("/")
        await second.declare_ready(SERVICE.name, "HTTP 200")
        known = second.facts()[SERVICE.name]
    async with bench.launcher() as third:
        await third.adopt()
        assert third.facts()[SERVICE.name] == known
        assert "ready" in await http("/")
        await third.stop(SERVICE.name, 60)


async def test_a_machine_let_go_by_a_daemon_that_died_before_it_wrote_that_down_is_known_to_run(bench: Bench) -> None:
    async with bench.launcher() as first:
        await bench.launch(first)
        record = bench.directory / SERVICE.name / "machine.json"
        before = record.read_bytes()
        await bench.run(first)
        record.write_bytes(before)
    async with bench.launcher() as second:
        await second.adopt()
        assert second.facts()[SERVICE.name].phase is MachinePhase.RUNNING
        await second.stop(SERVICE.name, 0)


@pytest.mark.parametrize("damage", [b"", b"{", b'{"pid": 1, "ready_at": 5}', b"\xff" * 100])
async def test_a_damaged_or_foreign_record_is_not_believed(bench: Bench, damage: bytes) -> None:
    async with bench.launcher() as first:
        await bench.launch(first)
    (bench.directory / SERVICE.name / "machine.json").write_bytes(damage)
    async with bench.launcher() as second:
        await second.adopt()
        facts = second.facts()[SERVICE.name]
        assert (facts.phase, facts.ready_at) == (MachinePhase.PAUSED, None)
        await second.stop(SERVICE.name, 0)


async def test_two_qemus_never_have_one_disk(bench: Bench) -> None:
    async with bench.launcher() as first:
        await bench.launch(first)
        async with bench.launcher() as second:
            with pytest.raises(MachineError, match="another QEMU of it is still running"):
                await bench.launch(second)
        assert first.facts()[SERVICE.name].phase is MachinePhase.PAUSED
        await first.stop(SERVICE.name, 0)
        await bench.launch(first)
        await first.stop(SERVICE.name, 0)


async def test_what_was_written_is_there_after_the_machine_was_killed(bench: Bench) -> None:
    async with bench.launcher() as launcher:
        await bench.launch(launcher)
        await bench.run(launcher)
        assert "written" in await http("/write?patient-1")
        os.kill(launcher.facts()[SERVICE.name].pid, signal.SIGKILL)
        while launcher.facts()[SERVICE.name].phase is not MachinePhase.DEAD:
            await bench.changes.get()
        assert "signal 9" in launcher.facts()[SERVICE.name].death
        await launcher.end(SERVICE.name)
        await bench.launch(launcher)
        await bench.run(launcher)
        assert "patient-1" in await http("/read")
        await launcher.stop(SERVICE.name, 0)


async def test_a_marked_overlay_that_is_gone_is_reported_and_never_replaced(bench: Bench) -> None:
    await bench.crisis.prepare(SERVICE.name, bench.images)
    bench.crisis.mark(SERVICE.name, {})
    overlay = bench.images[0].overlay
    kept = overlay.with_suffix(".aside")
    overlay.rename(kept)
    with pytest.raises(MachineError, match=r"its crisis data .* are gone"):
        await bench.crisis.prepare(SERVICE.name, bench.images)
    assert not overlay.exists()
    kept.rename(overlay)
    before = overlay.stat()
    await bench.crisis.prepare(SERVICE.name, bench.images)
    assert overlay.stat() == before


async def test_a_qemu_that_cannot_start_says_why(bench: Bench) -> None:
    async with bench.launcher() as launcher:
        await bench.crisis.prepare(SERVICE.name, bench.images)
        bench.images[0].overlay.write_bytes(b"no image at all")
        with pytest.raises(MachineError, match="not in qcow2 format"):
            await bench.launch(launcher)
        await launcher.end(SERVICE.name)
        assert launcher.facts() == {}


async def test_a_machine_whose_tap_was_deleted_goes_on_by_a_new_one(bench: Bench) -> None:
    """QEMU's own queue is attached to the tap that is made anew: the guest is not restarted, and loses no data."""
    guard = TapGuard(SERVICE.name, TAP, SERVICE.mac, SERVICE.address, SERVICE.gateway)
    made = Made(definition="", guards=(guard,), depends_on=(), shutdown_timeout=60)
    async with bench.launcher() as launcher:
        await bench.launch(launcher, made)
        await bench.run(launcher)
        before = await http("/")
        launcher.look_at_taps()
        assert launcher.facts()[SERVICE.name].severed == ()
        links.remove_tap(TAP)
        launcher.look_at_taps()
        assert launcher.facts()[SERVICE.name].severed == (TAP,)
        with pytest.raises(IsolationError, match="cannot join tap"):
            launcher.rejoin(SERVICE.name, TAP)
    # A later daemon, which was not there when the tap was deleted, sees it too.
    async with bench.launcher() as launcher:
        await launcher.adopt()
        launcher.look_at_taps()
        assert launcher.facts()[SERVICE.name].severed == (TAP,)
        links.make_tap(TAP)
        links.attach_tap(guard)
        launcher.rejoin(SERVICE.name, TAP)
        assert launcher.facts()[SERVICE.name].severed == ()
        assert await http("/") == before
        assert launcher.facts()[SERVICE.name].attempt == 1
        await launcher.stop(SERVICE.name, 60)
