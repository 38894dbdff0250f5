"""The hardware that a plan names, in real QEMUs: a system finds its disk and its network card, under both firmwares."""

import asyncio
import json
import os
import re
import subprocess
import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from cleanroomd.engine import starting
from cleanroomd.engine.effects import Effects
from cleanroomd.isolation import links
from cleanroomd.machine.arguments import DiskImage
from cleanroomd.machine.crisis import UEFI_VARIABLES, CrisisStore
from cleanroomd.machine.launcher import Launcher
from cleanroomd.model.observed import MachinePhase
from cleanroomd.model.plan import Card, Controller, Disk, Firmware, Nic, Service, StartKind, TcpProbe
from cleanroomd.model.posture import TapGuard
from cleanroomd.model.steps import LaunchMachine
from cleanroomd.restore.desired import planned_guards, tap_name
from cleanroomd.restore.order import Outline
from rigs import tiny
from rigs.hospital.disks import BOOT_START
from tests.kernel.namespaces import Namespace
from tests.machine.test_launcher import http
from tests.unit.restore.plans import plan

pytestmark = pytest.mark.timeout(300)

GUEST = tiny.Guest(name="old", address="10.1.20.31", gateway="10.1.20.1", kernel=tiny.PHYSICAL)
TAP = tap_name(GUEST.name)
MEMORY = 256 << 20
SERVICE = Service(
    name=GUEST.name,
    title="Old",
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
    """One machine at a time, launched as the engine does it."""

    def __init__(self, root: Path, launcher: Launcher) -> None:
        self.root = root
        self.crisis = CrisisStore(root / "crisis")
        self.launcher = launcher
        self.variables = self.crisis.variables(SERVICE.name)

    async def launch(self, service: Service, *golden: Path) -> None:
        images = tuple(
            DiskImage(f"disk{number}", path, path.suffix[1:], self.crisis.overlay(service.name, f"disk{number}"))
            for number, path in enumerate(golden)
        )

        async def look() -> None:
            """No loop reads what this would find."""

        effects = SimpleNamespace(
            outline=Outline(plan(service)),
            storage=SimpleNamespace(look=look),
            images=lambda _service: images,
            crisis=self.crisis,
            launcher=self.launcher,
        )
        step = LaunchMachine(service.name, start=StartKind.COLD, memory=MEMORY, attempt=1)
        await starting.launch(step, cast("Effects", effects))
        self.crisis.mark(service.name, {})


@pytest.fixture(scope="session")
def old_disk() -> Path:
    """The qcow2 of a guest with drivers for all hardware, built once and kept in the cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cleanroomd"
    return tiny.build([GUEST], cache, lambda _text: None)[GUEST.disk]


@pytest.fixture
async def bench(own_network: Namespace) -> AsyncIterator[Bench]:
    links.make_tap(TAP)
    links.attach_tap(TapGuard(SERVICE.name, TAP, SERVICE.mac, SERVICE.address, SERVICE.gateway))
    with tempfile.TemporaryDirectory(prefix="cleanroom-") as name:
        root = Path(name)
        launcher = Launcher(root / "machines", accelerator="tcg", on_change=lambda _text: None, open_tap=links.open_tap)
        yield Bench(root, launcher)
        await launcher.end(SERVICE.name)
        await launcher.close()


@pytest.mark.parametrize(
    ("controller", "nic"),
    [
        (Controller.SATA, Nic.E1000),
        (Controller.IDE, Nic.RTL8139),
        (Controller.SCSI, Nic.E1000E),
        (Controller.IDE, Nic.E1000E),
    ],
)
async def test_a_system_serves_and_keeps_data_on_the_hardware_of_the_plan(
    bench: Bench, old_disk: Path, controller: Controller, nic: Nic
) -> None:
    await bench.launch(replace(SERVICE, controller=controller, nic=nic), old_disk)
    await bench.launcher.run(SERVICE.name)
    assert "written" in await http("/write?patient-1")
    assert "patient-1" in await http("/read")
    assert "powered down" in await bench.launcher.stop(SERVICE.name, 60)


@pytest.mark.parametrize("controller", Controller)
async def test_as_many_disks_fit_as_a_plan_may_name(bench: Bench, controller: Controller) -> None:
    golden = bench.root / "empty.raw"
    golden.write_bytes(bytes(1 << 20))
    service = replace(SERVICE, controller=controller)
    await bench.launch(service, *[golden] * controller.most_disks)
    assert bench.launcher.facts()[SERVICE.name].phase is MachinePhase.PAUSED


async def test_each_card_of_a_machine_is_on_a_tap_of_its_own(bench: Bench, old_disk: Path) -> None:
    """And as many fit as a plan may name."""
    cards = tuple(
        Card(f"card{number}", f"52:54:00:01:40:{number:02x}", IPv4Address(f"10.1.40.{number}"), model=model)
        for number, model in enumerate((*Nic, *Nic, Nic.VIRTIO)[:7], start=1)
    )
    service = replace(SERVICE, nics=cards)
    for guard in planned_guards(Outline(plan(service)), service)[1:]:
        links.make_tap(guard.interface)
        links.attach_tap(guard)
    await bench.launch(service, old_disk)
    await bench.launcher.run(SERVICE.name)
    assert "ready" in await http("/")
    taps = {tap_name(service.name, card.name): card.mac for card in service.cards}
    assert await cards_of(bench) == taps
    made = bench.launcher.facts()[service.name].made
    assert made is not None
    assert {guard.interface: guard.mac for guard in made.guards} == taps


async def cards_of(bench: Bench) -> dict[str, str]:
    """Tap -> MAC of the card that QEMU has on it; the kernel says which tap each of its descriptors is."""
    reader, writer = await asyncio.open_unix_connection(bench.root / "machines" / SERVICE.name / "tools.sock")
    question = {"execute": "human-monitor-command", "arguments": {"command-line": "info network"}}
    for request in ({"execute": "qmp_capabilities"}, question):
        writer.write(json.dumps(request).encode() + b"\n")
    shown = ""
    while "netdev" not in shown and "macaddr" not in shown:
        shown = (await reader.readline()).decode()
    writer.close()
    found = {}
    for mac, fd in re.findall(r"macaddr=([0-9a-f:]+).*?fd=(\d+)", json.loads(shown)["return"], re.DOTALL):
        found[tap_of(bench.launcher.facts()[SERVICE.name].pid, fd)] = mac
    return found


def tap_of(pid: int, fd: str) -> str:
    (name,) = re.findall(r"^iff:\s*(\S+)", Path(f"/proc/{pid}/fdinfo/{fd}").read_text(), re.MULTILINE)
    return str(name)


async def test_uefi_firmware_boots_a_system_and_remembers(bench: Bench, old_disk: Path) -> None:
    golden = bench.root / "uefi.raw"
    await asyncio.to_thread(_make_uefi_disk, old_disk, golden)
    service = replace(SERVICE, firmware=Firmware.UEFI)
    await bench.launch(service, golden)
    assert bench.variables.read_bytes() == UEFI_VARIABLES.read_bytes()
    await bench.launcher.run(SERVICE.name)
    assert "ready" in await http("/")
    await bench.launcher.stop(SERVICE.name, 60)
    remembered = bench.variables.read_bytes()
    assert remembered != UEFI_VARIABLES.read_bytes()
    await bench.launch(service, golden)
    assert bench.variables.read_bytes() == remembered
    await bench.launcher.stop(SERVICE.name, 0)


def _make_uefi_disk(bios: Path, image: Path) -> None:
    """The same system as on `bios`, with what the firmware's shell needs to start its kernel."""
    subprocess.run(["qemu-img", "convert", "-O", "raw", bios, image], check=True)
    folder = image.parent
    drive = f"{image}@@{BOOT_START}"

    def copy(*arguments: str | Path) -> None:
        subprocess.run(["mcopy", "-o", "-i", drive, *arguments], check=True)

    copy("::vmlinuz", folder / "vmlinuz.efi")
    copy("::syslinux.cfg", folder / "syslinux.cfg")
    (options,) = (
        line.split(None, 1)[1]
        for line in (folder / "syslinux.cfg").read_text(encoding="ascii").splitlines()
        if line.strip().startswith("APPEND")
    )
    script = folder / "startup.nsh"
    script.write_text(f"fs0:\r\nvmlinuz.efi initrd=\\initrd {options}\r\n", encoding="ascii")
    copy(folder / "vmlinuz.efi", script, "::")
