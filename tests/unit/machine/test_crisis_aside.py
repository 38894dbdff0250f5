"""What may be kept aside, what never is, and a service that has another name than its crisis data."""

from pathlib import Path

import pytest

from cleanroomd.errors import MachineError
from cleanroomd.machine.arguments import DiskImage
from cleanroomd.machine.crisis import CrisisStore
from cleanroomd.model.observed import OverlayFacts


@pytest.fixture
def store(tmp_path: Path) -> CrisisStore:
    tool = tmp_path / "qemu-img"
    tool.write_text('#!/bin/sh\nfor last; do :; done\necho fresh > "$last"\n')
    tool.chmod(0o755)
    (tmp_path / "record-system.qcow2").write_bytes(b"golden")
    return CrisisStore(tmp_path / "crisis", qemu_img=str(tool))


async def prepare(store: CrisisStore, tmp_path: Path, service: str) -> Path:
    overlay = store.overlay(service, "record-system")
    await store.prepare(service, (DiskImage("record-system", tmp_path / "record-system.qcow2", "qcow2", overlay),))
    return overlay


def facts(store: CrisisStore) -> OverlayFacts:
    return store.facts(["record"])["record"]


async def test_overlays_are_kept_aside_whole_under_a_new_name_each_time(store: CrisisStore, tmp_path: Path) -> None:
    for number in (1, 2):
        overlay = await prepare(store, tmp_path, "record")
        overlay.write_text(f"warm start {number}")
        store.mark("record", {})
        assert facts(store) == OverlayFacts(exists=True, marked=True, aside=number - 1)
        aside = store.set_aside("record")
        assert aside == tmp_path / f"crisis/record.aside-{number}"
        assert (aside / overlay.name).read_text() == f"warm start {number}"
        assert (aside / "ran").exists()
        assert facts(store) == OverlayFacts(aside=number)
    assert store.set_aside("record") is None


async def test_what_care_may_have_written_is_never_put_aside(store: CrisisStore, tmp_path: Path) -> None:
    overlay = await prepare(store, tmp_path, "record")
    store.mark("record", {})
    store.mark_opened("record")
    store.mark_opened("record")
    assert facts(store) == OverlayFacts(exists=True, marked=True, opened=True)
    with pytest.raises(MachineError, match="care may have written to them"):
        store.set_aside("record")
    assert overlay.exists()


async def test_a_service_that_was_renamed_does_not_begin_anew(store: CrisisStore, tmp_path: Path) -> None:
    await prepare(store, tmp_path, "record")
    store.mark("record", {})
    with pytest.raises(MachineError, match="care wrote to disk record-system as service record before") as caught:
        await prepare(store, tmp_path, "patient-record")
    assert f"rename {tmp_path}/crisis/record to {tmp_path}/crisis/patient-record" in caught.value.hint
    (tmp_path / "crisis/patient-record").rmdir()
    (tmp_path / "crisis/record").rename(tmp_path / "crisis/patient-record")
    assert (await prepare(store, tmp_path, "patient-record")).exists()


async def test_what_never_ran_or_is_aside_holds_no_other_service_up(store: CrisisStore, tmp_path: Path) -> None:
    await prepare(store, tmp_path, "record")
    await prepare(store, tmp_path, "other")
    store.mark("record", {})
    store.set_aside("record")
    await prepare(store, tmp_path, "third")


def test_a_disk_that_does_not_say_counts_as_holding_what_care_wrote(store: CrisisStore, tmp_path: Path) -> None:
    (tmp_path / "crisis").mkdir()
    (tmp_path / "crisis/record").write_text("not a folder")
    assert facts(store) == OverlayFacts(exists=True, marked=True, opened=True)
