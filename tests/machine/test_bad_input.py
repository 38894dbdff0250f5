"""Images, disks, memory and devices that fail a machine: in words, with a way out, and with nothing lost.

The programs are the real ones, and so are the images and the file systems.
"""

import asyncio
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from cleanroomd.errors import MachineError
from cleanroomd.machine import launcher as launcher_module
from cleanroomd.machine import process
from cleanroomd.machine.arguments import DiskImage
from cleanroomd.machine.crisis import CrisisStore
from cleanroomd.model.observed import MachinePhase
from cleanroomd.model.plan import StartKind
from cleanroomd.vault.catalog import Catalog
from rigs.scenario import tiny_hospital
from tests.kernel.namespaces import Namespace
from tests.machine.fire import until
from tests.machine.mounts import mount_small, with_own_mounts
from tests.machine.test_launcher import SERVICE, TAP, Bench, bench, http

__all__ = ["bench"]

pytestmark = pytest.mark.timeout(180)


def qemu_img(*arguments: str | Path) -> str:
    while True:
        done = subprocess.run(["qemu-img", *map(str, arguments)], capture_output=True, text=True, check=False)
        # LUKS measures the processor first, and gives up while others keep it busy.
        if "accurate CPU usage" not in done.stderr:
            break
    assert done.returncode == 0, done.stderr
    return done.stdout


def overwrite(image: Path, offset: int, data: bytes) -> None:
    with image.open("r+b") as stream:
        stream.seek(offset)
        stream.write(data)


def header_field(image: Path, offset: int) -> int:
    """A 64-bit field of a qcow2 header, such as 40 for l1_table_offset: QEMU docs/interop/qcow2.rst."""
    with image.open("rb") as stream:
        stream.seek(offset)
        return int(struct.unpack(">Q", stream.read(8))[0])


BACKING = ["/etc/shadow", "base.qcow2", 'json:{"driver":"nbd","host":"192.168.40.9"}', "nbd://192.168.40.9/export"]
ELSEWHERE = [
    *((["-u", "-b", name, "-F", "raw"], "refers to another file; import it as a whole") for name in BACKING),
    (["-o", "data_file=data.raw,data_file_raw=on"], "keeps its data in another file; import it as a whole"),
    (
        [
            "--object",
            "secret,id=key,data=open",
            "-o",
            "encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10",
        ],
        "is encrypted; import it decrypted, since nobody is there to give its key",
    ),
]


@pytest.mark.parametrize(("options", "problem"), ELSEWHERE)
def test_an_image_that_is_not_whole_is_refused_before_anything_opens_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: Sequence[str], problem: str
) -> None:
    monkeypatch.chdir(tmp_path)
    qemu_img("create", "-q", "-f", "qcow2", *options, tmp_path / "record.qcow2", "1M")
    assert Catalog(tmp_path, unsealed=True).disk("record").facts.problem == problem


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    image = tmp_path / "vault/record-system.qcow2"
    image.parent.mkdir()
    qemu_img("create", "-q", "-f", "qcow2", image, "16M")
    subprocess.run(["qemu-io", "-c", "write -q -P 7 0 1M", str(image)], check=True)
    return image


DAMAGE = {
    "L1 table of absurd size": lambda image: overwrite(image, 36, struct.pack(">I", 0xFFFFFFFF)),
    "refcount table nowhere": lambda image: overwrite(image, 48, struct.pack(">Q", 12345)),
    "cut in the middle of its header": lambda image: os.truncate(image, 90),
    "a feature that nobody knows": lambda image: overwrite(image, 72, struct.pack(">Q", 1 << 60)),
}


@pytest.mark.parametrize("damage", DAMAGE)
async def test_a_damaged_image_is_named_with_what_is_wrong_with_it(tmp_path: Path, golden: Path, damage: str) -> None:
    DAMAGE[damage](golden)
    crisis = CrisisStore(tmp_path / "crisis")
    overlay = crisis.overlay("record", "record-system")
    with pytest.raises(MachineError, match=r"on disk record-system: .*[a-z]{3}") as caught:
        await crisis.prepare("record", (DiskImage("record-system", golden, "qcow2", overlay),))
    assert "vault is whole" in caught.value.hint
    assert list(overlay.parent.iterdir()) == []


def test_an_image_without_its_tables_is_no_empty_disk(golden: Path) -> None:
    catalog = Catalog(golden.parent, unsealed=True)
    assert catalog.disk("record-system").facts.problem == ""
    os.truncate(golden, header_field(golden, 40))
    assert catalog.disk("record-system").facts.problem == "is cut short"


def test_a_full_disk_costs_an_overlay_and_none_that_is_there(tmp_path: Path, golden: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    filler = root / "filler"
    crisis = CrisisStore(root / "crisis")
    first = DiskImage("record-system", golden, "qcow2", crisis.overlay("record", "record-system"))
    second = DiskImage("imaging-system", golden, "qcow2", crisis.overlay("imaging", "imaging-system"))

    async def work() -> None:
        mount_small(root, 4 << 20)
        await crisis.prepare("record", (first,))
        crisis.mark("record", {})
        kept = first.overlay.read_bytes()
        fill(filler)
        with pytest.raises(MachineError, match="No space left on device") as caught:
            await crisis.prepare("imaging", (second,))
        assert "data disk" in caught.value.hint
        assert not second.overlay.exists()
        assert first.overlay.read_bytes() == kept
        filler.unlink()
        await crisis.prepare("imaging", (second,))
        fill(filler)
        with pytest.raises(MachineError, match=r"cannot run imaging: .*No space left") as caught:
            crisis.mark("imaging", {})
        assert "make room" in caught.value.hint

    with_own_mounts(work)


def fill(filler: Path) -> None:
    """Take all the room that is left."""
    with filler.open("wb", buffering=0) as stream:
        for size in (1 << 20, 4096, 1):
            while True:
                try:
                    stream.write(b"x" * size)
                except OSError:
                    break


def test_a_guest_that_meets_a_full_disk_is_held_until_there_is_room_and_loses_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher_module, "_TEND_EVERY", 1.0)
    filler = bench.root / "crisis/filler"
    acknowledged = []

    async def work() -> None:
        (bench.root / "crisis").mkdir()
        mount_small(bench.root / "crisis", 4 << 20)
        async with bench.launcher() as launcher:
            await bench.launch(launcher)
            await bench.run(launcher)
            await http("/")
            fill(filler)
            number = 0
            while bench.changes.empty():
                number += 1
                if await is_written(f"full-{number}"):
                    acknowledged.append(f"full-{number}")
            assert bench.changes.get_nowait().startswith("probe is held, its write met a full data disk")
            assert launcher.facts()[SERVICE.name].phase is MachinePhase.RUNNING
            filler.unlink()
            assert await bench.changes.get() == "probe goes on, there is room on the data disk again"
            assert "ready" in await http("/")
            assert "powered down" in await launcher.stop(SERVICE.name, 60)
            await bench.launch(launcher)
            await bench.run(launcher)
            assert set(acknowledged) <= set((await http("/read")).split())
            assert await is_written("after")
            assert "powered down" in await launcher.stop(SERVICE.name, 60)
        said = json.loads(qemu_img("check", "--output=json", bench.images[0].overlay))
        assert {said.get(key, 0) for key in ("corruptions", "leaks", "check-errors")} == {0}

    with_own_mounts(work)


async def is_written(text: str) -> bool:
    """Whether the guest says so within a few seconds."""
    try:
        async with asyncio.timeout(3):
            return "written" in await http(f"/write?{text}")
    except TimeoutError:
        return False


async def test_a_plan_that_wants_more_memory_than_there_is_is_told_by_qemu(bench: Bench) -> None:
    async with bench.launcher() as launcher:
        await bench.crisis.prepare(SERVICE.name, bench.images)
        with pytest.raises(MachineError, match=r"cannot start probe: QEMU ended: .*[Cc]annot allocate memory"):
            await launcher.launch(
                SERVICE, taps=(TAP,), disks=bench.images, memory=1 << 46, start=StartKind.COLD, attempt=1
            )
        await launcher.end(SERVICE.name)
        await bench.launch(launcher)
        await launcher.stop(SERVICE.name, 0)


def test_a_missing_tun_device_is_named(bench: Bench) -> None:
    async def work() -> None:
        mount_small(Path("/dev/net"), 4096)
        async with bench.launcher() as launcher:
            with pytest.raises(MachineError, match=r"cannot start probe: .*No such file") as caught:
                await bench.launch(launcher)
            assert "tun" in caught.value.hint
            assert launcher.facts() == {}

    with_own_mounts(work)


async def test_a_machine_that_died_while_no_daemon_was_there_starts_again_on_what_it_wrote(bench: Bench) -> None:
    async with bench.launcher() as first:
        await bench.launch(first)
        await bench.run(first)
        assert "written" in await http("/write?patient-1")
        pid = first.facts()[SERVICE.name].pid
    os.kill(pid, signal.SIGKILL)
    await until(lambda: process.find_process(bench.directory / SERVICE.name) is None)
    async with bench.launcher() as second:
        assert await second.adopt() == ()
        await bench.launch(second)
        await bench.run(second)
        assert (await http("/read")).split() == ["patient-1"]
        await second.stop(SERVICE.name, 60)


async def test_an_image_with_damaged_tables_starts_no_guest_and_qemu_says_why(bench: Bench) -> None:
    damaged = bench.root / "damaged.qcow2"
    shutil.copyfile(bench.images[0].golden, damaged)
    damaged.chmod(0o644)
    table = header_field(damaged, 40)
    # No cluster begins at that address, so that it can be none of the second-level table's.
    overwrite(damaged, table, struct.pack(">Q", 1 << 63 | 512))
    bench.images = (replace(bench.images[0], golden=damaged),)
    async with bench.launcher() as launcher:
        await bench.launch(launcher)
        await bench.run(launcher)
        log = bench.directory / SERVICE.name / "qemu.log"
        await until(lambda: "corrupt" in log.read_text())
        await launcher.stop(SERVICE.name, 0)


def test_a_daemon_that_can_run_no_machine_says_why_and_ends(tmp_path: Path, own_network: Namespace) -> None:
    command = [sys.executable, "-m", "cleanroomd", "--plan", str(tiny_hospital().plan), "--root", str(tmp_path)]
    command += ["--qemu", "/nowhere/qemu", "--unsealed", "--control", str(tmp_path / "control")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    said, way_out = done.stderr.splitlines()
    assert "cannot find QEMU: /nowhere/qemu" in said
    assert "install the package" in way_out
