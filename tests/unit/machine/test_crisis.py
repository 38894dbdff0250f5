"""What care wrote is never replaced, never hidden, and never put on an image that it does not belong to."""

import os
from pathlib import Path

import pytest

from cleanroomd.errors import MachineError
from cleanroomd.machine import crisis
from cleanroomd.machine.arguments import DiskImage
from cleanroomd.machine.crisis import CrisisStore
from cleanroomd.model.observed import OverlayFacts


class Bench:
    """A vault of one image, and a qemu-img that only makes files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tool = root / "qemu-img"
        self.script('for last; do :; done; echo fresh > "$last"')
        self.golden = root / "vault" / "record-system.qcow2"
        self.golden.parent.mkdir()
        self.golden.write_bytes(b"golden")
        self.uefi_code = root / "CODE.fd"
        self.uefi_code.write_bytes(b"code")
        self.uefi_variables = root / "VARS.fd"
        self.uefi_variables.write_bytes(b"nothing yet")
        self.store = CrisisStore(
            root / "crisis",
            qemu_img=str(self.tool),
            uefi_code=self.uefi_code,
            uefi_variables=self.uefi_variables,
        )
        self.variables = self.store.variables("record")
        self.overlay = self.store.overlay("record", "record-system")
        self.images = (DiskImage("record-system", self.golden, "qcow2", self.overlay),)

    def script(self, body: str) -> None:
        self.tool.write_text(f"#!/bin/sh\n{body}\n")
        self.tool.chmod(0o755)

    async def prepare(self) -> None:
        await self.store.prepare("record", self.images)

    async def prepare_uefi(self) -> None:
        await self.store.prepare("record", self.images, variables=self.variables)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def test_an_overlay_that_is_there_stays_as_it_is(bench: Bench) -> None:
    await bench.prepare()
    bench.store.mark("record", {})
    bench.overlay.write_text("what care wrote")
    await bench.prepare()
    assert bench.overlay.read_text() == "what care wrote"
    assert bench.store.facts(["record"]) == {"record": OverlayFacts(exists=True, marked=True)}


async def test_an_overlay_is_not_used_on_another_image(bench: Bench) -> None:
    await bench.prepare()
    bench.store.mark("record", {})
    bench.overlay.write_text("what care wrote")
    before = bench.golden.stat()
    bench.golden.write_bytes(b"another")
    with pytest.raises(MachineError, match="belong to another image of disk record-system"):
        await bench.prepare()
    assert bench.overlay.read_text() == "what care wrote"
    bench.golden.write_bytes(b"golden")
    os.utime(bench.golden, ns=(before.st_atime_ns, before.st_mtime_ns))
    await bench.prepare()


async def test_what_comes_to_be_there_while_an_overlay_is_made_is_not_replaced(bench: Bench) -> None:
    bench.script(f'for last; do :; done; echo fresh > "$last"; echo put back > "{bench.overlay}"')
    with pytest.raises(MachineError, match="File exists"):
        await bench.prepare()
    assert bench.overlay.read_text() == "put back\n"


async def test_a_link_that_leads_nowhere_is_no_missing_overlay(bench: Bench) -> None:
    bench.overlay.parent.mkdir(parents=True)
    bench.overlay.symlink_to(bench.root / "not-mounted" / "record.qcow2")
    await bench.prepare()
    assert bench.overlay.is_symlink()


async def test_a_missing_tool_is_named(bench: Bench) -> None:
    bench.tool.unlink()
    with pytest.raises(MachineError, match="qemu-img: No such file") as caught:
        await bench.prepare()
    assert "qemu-utils" in caught.value.hint


async def test_what_an_unlucky_tool_left_is_removed_since_a_full_disk_needs_the_room(bench: Bench) -> None:
    bench.script('for last; do :; done; echo half > "$last"; echo "qemu-img: No space left on device" >&2; exit 1')
    with pytest.raises(MachineError, match="record-system: No space left on device") as caught:
        await bench.prepare()
    assert "free space" in caught.value.hint
    assert list(bench.overlay.parent.iterdir()) == []


async def test_a_tool_that_may_not_be_run_is_not_said_to_be_missing(bench: Bench) -> None:
    bench.tool.chmod(0o644)
    with pytest.raises(MachineError, match="qemu-img: Permission denied") as caught:
        await bench.prepare()
    assert "package" not in caught.value.hint


async def test_a_tool_that_hangs_is_ended(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crisis, "_CREATE_DEADLINE", 0.2)
    bench.script(f"echo $$ > {bench.root}/pid; exec sleep 1000")
    with pytest.raises(MachineError, match="no end after"):
        await bench.prepare()
    assert not bench.overlay.exists()


async def test_a_mark_that_is_there_is_made_durable_before_each_run(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.prepare()
    bench.store.mark("record", {"plan": "1"})
    before = (bench.overlay.parent / "ran").read_bytes()
    synced: list[Path] = []
    monkeypatch.setattr(crisis, "sync_directory", synced.append)
    bench.store.mark("record", {"plan": "2"})
    assert synced == [bench.overlay.parent]
    assert (bench.overlay.parent / "ran").read_bytes() == before


def test_a_store_that_cannot_be_read_counts_as_marked(bench: Bench) -> None:
    folder = bench.overlay.parent
    folder.parent.mkdir()
    folder.write_text("a file where a folder should be")
    assert bench.store.facts(["record"]) == {"record": OverlayFacts(exists=True, marked=True, opened=True)}


async def test_uefi_variables_are_made_once_and_then_left_alone(bench: Bench) -> None:
    await bench.prepare_uefi()
    assert bench.variables.read_bytes() == b"nothing yet"
    assert bench.variables.stat().st_nlink == 1
    bench.store.mark("record", {})
    bench.variables.write_bytes(b"boot Debian")
    bench.uefi_variables.write_bytes(b"a later template")
    await bench.prepare_uefi()
    assert bench.variables.read_bytes() == b"boot Debian"


async def test_a_machine_with_bios_firmware_gets_no_uefi_variables(bench: Bench) -> None:
    bench.uefi_code.unlink()
    await bench.prepare()
    assert not bench.variables.exists()


async def test_uefi_variables_that_are_gone_are_reported_and_never_replaced(bench: Bench) -> None:
    await bench.prepare_uefi()
    bench.store.mark("record", {})
    bench.variables.unlink()
    with pytest.raises(MachineError, match="what its UEFI firmware remembered is gone") as caught:
        await bench.prepare_uefi()
    assert str(bench.variables) in caught.value.hint
    assert not bench.variables.exists()


async def test_a_half_made_variable_store_with_a_second_name_is_not_written_through(bench: Bench) -> None:
    await bench.prepare_uefi()
    aside = bench.variables.with_name("aside")
    bench.variables.rename(aside)
    bench.variables.with_name(".uefi-vars.fd").hardlink_to(aside)
    aside.write_bytes(b"boot Debian")
    await bench.prepare_uefi()
    assert aside.read_bytes() == b"boot Debian"


@pytest.mark.parametrize("lost", ["CODE.fd", "VARS.fd"])
async def test_missing_uefi_firmware_is_named_with_its_package(bench: Bench, lost: str) -> None:
    (bench.root / lost).unlink()
    with pytest.raises(MachineError, match=lost) as caught:
        await bench.prepare_uefi()
    assert "ovmf" in caught.value.hint
    assert not bench.overlay.exists()
