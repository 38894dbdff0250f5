"""Launches that come to nothing, with programs that only pretend to be QEMU."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from ipaddress import IPv4Address
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from cleanroomd.errors import IsolationError, MachineError
from cleanroomd.machine import launcher as module
from cleanroomd.machine import logs, monitor, process, records
from cleanroomd.machine.launcher import Launcher
from cleanroomd.model.observed import MachinePhase
from cleanroomd.model.plan import Disk, Service, StartKind, TcpProbe

SERVICE = Service(
    name="record",
    title="Record",
    priority=1,
    address=IPv4Address("10.1.20.12"),
    mac="52:54:00:01:20:12",
    memory=128 << 20,
    memory_min=128 << 20,
    disks=(Disk("record-system"),),
    ready=(TcpProbe(80, b"HTTP"),),
)


@pytest.fixture
def root() -> Iterator[Path]:
    """Not below pytest's own directory: a socket's path has at most 107 bytes."""
    with TemporaryDirectory(prefix="cleanroom-") as name:
        yield Path(name)


def open_null(_tap: str) -> int:
    return os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)


def pretender(root: Path, body: str) -> str:
    """A program with QEMU's arguments on its command line, as a script's are."""
    program = root / "qemu"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    return str(program)


async def launch(launcher: Launcher) -> None:
    await launcher.launch(SERVICE, taps=("tap-record",), disks=(), memory=128 << 20, start=StartKind.COLD, attempt=1)


@pytest.fixture
async def silent(root: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Launcher]:
    """A launcher whose QEMU never says a word and ignores SIGTERM."""
    monkeypatch.setattr(monitor, "_CONNECT_DEADLINE", 0.2)
    monkeypatch.setattr(module, "_QUIT_GRACE", 0.2)
    qemu = pretender(root, "trap '' TERM; while :; do sleep 1; done")
    made = Launcher(root / "machines", accelerator="tcg", on_change=lambda _: None, open_tap=open_null, qemu=qemu)
    yield made
    await made.end(SERVICE.name)
    await made.close()


async def test_a_tap_that_does_not_open_is_a_failure_of_the_machine(root: Path) -> None:
    """Of the rules it would be one that is tried again at once, for ever."""

    def refuse(_tap: str) -> int:
        raise IsolationError("cannot open tap tap-record: No such file or directory", "load the module tun")

    launcher = Launcher(root / "machines", accelerator="tcg", on_change=lambda _: None, open_tap=refuse)
    with pytest.raises(MachineError, match="cannot start record: cannot open tap tap-record") as caught:
        await launch(launcher)
    assert caught.value.hint == "load the module tun"
    assert launcher.facts() == {}


async def test_a_qemu_that_never_greets_is_ended(silent: Launcher, root: Path) -> None:
    with pytest.raises(MachineError, match="no answer in time"):
        await launch(silent)
    await silent.end(SERVICE.name)
    assert silent.facts() == {}
    assert process.find_process(root / "machines" / SERVICE.name) is None


async def test_a_qemu_that_ends_at_once_leaves_its_words_and_its_code(root: Path) -> None:
    qemu = pretender(root, "echo 'qemu: no such device' >&2; exit 3")
    launcher = Launcher(root / "machines", accelerator="tcg", on_change=lambda _: None, open_tap=open_null, qemu=qemu)
    with pytest.raises(MachineError, match="cannot start record: QEMU ended: qemu: no such device"):
        await launch(launcher)
    await launcher.end(SERVICE.name)
    await launcher.close()


async def test_a_machine_without_record_that_cannot_be_asked_is_taken_to_run(
    silent: Launcher, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "kill", lambda _pidfd: None)
        with pytest.raises(MachineError):
            await launch(silent)
    (root / "machines" / SERVICE.name / "machine.json").unlink()
    second = Launcher(root / "machines", accelerator="tcg", on_change=lambda _: None, open_tap=open_null)
    assert await second.adopt() == (SERVICE.name,)
    facts = second.facts()[SERVICE.name]
    assert facts.phase is MachinePhase.RUNNING
    assert facts.ready_at is None
    assert facts.memory == 128 << 20
    await second.close()


async def test_a_full_disk_costs_the_record_and_not_the_machine(
    silent: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(records, "write_json", full)
    with pytest.raises(MachineError, match="no answer in time"):
        await launch(silent)


async def test_a_guest_that_floods_its_console_does_not_fill_the_disk(silent: Launcher, root: Path) -> None:
    launching = asyncio.ensure_future(launch(silent))
    await asyncio.sleep(0)
    directory = root / "machines" / SERVICE.name
    for name in ("console.log", "qemu.log"):
        with (directory / name).open("ab") as stream:
            stream.write(b"x" * (3 << 20) + b"the end")
    silent.bound_logs()
    for name in ("console.log", "qemu.log"):
        assert (directory / name).stat().st_size == 0
        kept = (directory / f"{name}.1").read_bytes()
        assert len(kept) == 1 << 20
        assert kept.endswith(b"the end")
    with pytest.raises(MachineError):
        await launching


def test_a_log_is_emptied_even_when_there_is_no_room_to_keep_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "console.log"
    log.write_bytes(b"x" * (2 << 20))
    (tmp_path / "console.log.1").mkdir()
    logs.bound(log)
    assert log.stat().st_size == 0
