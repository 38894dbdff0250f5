"""What an earlier daemon, another boot or chance left in the run directory: only a machine that is there is adopted."""

import asyncio
import errno
import fcntl
import json
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cleanroomd.clock import now
from cleanroomd.errors import MachineError
from cleanroomd.machine import launcher as module
from cleanroomd.machine import monitor, process, records
from cleanroomd.machine.arguments import pid_file
from cleanroomd.machine.launcher import Launcher
from cleanroomd.model.observed import MachinePhase
from tests.unit.machine.descriptors import few_descriptors, open_files
from tests.unit.machine.test_launcher_faults import SERVICE, launch, open_null, pretender, root

__all__ = ["root"]

SILENT = "trap '' TERM; mkfifo $0.$$; exec 3<> $0.$$; read never <&3"
"""Says nothing and has no child, whose copy of the lock would outlive it."""


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "_CONNECT_DEADLINE", 0.2)
    monkeypatch.setattr(module, "_QUIT_GRACE", 0.2)
    monkeypatch.setattr(module, "_LAST_WORDS", 0.2)


async def until(condition: Callable[[], bool]) -> None:
    """Bounded by the test's own deadline."""
    while True:
        if condition():
            return
        await asyncio.sleep(0.01)


@asynccontextmanager
async def launcher(root: Path, qemu: str = "/nowhere/qemu") -> AsyncIterator[Launcher]:
    made = Launcher(root / "machines", accelerator="tcg", on_change=lambda _: None, open_tap=open_null, qemu=qemu)
    try:
        yield made
    finally:
        await made.close()


@asynccontextmanager
async def machine_of(root: Path, service: str) -> AsyncIterator[int]:
    """The pid of a process that the kernel shows as the QEMU of `service`."""
    directory = root / "machines" / service
    directory.mkdir(parents=True, exist_ok=True)
    arguments = ("-c", "sleep 1000; :", "qemu", "-pidfile", str(pid_file(directory)))
    started = await asyncio.create_subprocess_exec("sh", *arguments, start_new_session=True)
    try:
        # The kernel shows the new arguments a moment after the old program is gone.
        await until(lambda: process.find_process(directory) == started.pid)
        yield started.pid
    finally:
        os.killpg(started.pid, 9)
        await started.wait()


def record(root: Path, service: str, **values: object) -> None:
    document: dict[str, object] = {"pid": os.getpid(), "launched_at": now(), "running_at": now(), "ready_at": now()}
    (root / "machines" / service).mkdir(parents=True, exist_ok=True)
    (root / "machines" / service / "machine.json").write_text(json.dumps(document | values))


async def test_a_pid_that_is_another_process_by_now_is_no_machine(root: Path) -> None:
    record(root, "record")
    pid_file(root / "machines/record").write_text(f"{os.getpid()}\n")
    async with launcher(root) as made:
        assert await made.adopt() == ()
        assert made.facts() == {}


async def test_a_pid_that_is_the_machine_of_another_service_by_now_stays_that_ones(root: Path) -> None:
    async with machine_of(root, "imaging") as pid:
        record(root, "record", pid=pid, proof="HTTP 200")
        record(root, "imaging", pid=pid, launched_at=1.0)
        pid_file(root / "machines/record").write_text(f"{pid}\n")
        assert process.open_process(pid, root / "machines/record") is None
        async with launcher(root) as made:
            assert await made.adopt() == ("imaging",)
            assert made.facts()["imaging"].pid == pid
            await made.end("record")
            assert process.find_process(root / "machines/imaging") == pid


async def test_a_record_that_names_another_machine_is_not_this_ones(root: Path) -> None:
    async with machine_of(root, "imaging") as other, machine_of(root, "record") as pid:
        record(root, "record", pid=other, proof="HTTP 200")
        async with launcher(root) as made:
            await made.adopt()
            facts = made.facts()["record"]
            assert (facts.pid, facts.ready_at, facts.proof) == (pid, None, "")


def test_a_machine_that_is_dead_and_not_yet_reaped_is_none(root: Path) -> None:
    directory = root / "machines/record"
    directory.mkdir(parents=True)
    pid = os.posix_spawnp("sh", ("sh", "-c", "exit 0", "qemu", "-pidfile", str(pid_file(directory))), os.environ)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert process.find_process(directory) is None
    assert process.open_process(pid, directory) is None
    os.waitpid(pid, 0)
    assert process.open_process(pid, directory) is None


@pytest.mark.parametrize("key", ["launched_at", "running_at", "ready_at"])
@pytest.mark.parametrize("instant", [1e12, -1.0, float("inf"), float("nan"), "soon", [1]])
async def test_a_record_of_another_boot_is_not_believed(root: Path, key: str, instant: object) -> None:
    """CLOCK_BOOTTIME begins anew, so that what comes from before may lie ahead."""
    async with machine_of(root, "record") as pid:
        record(root, "record", pid=pid, proof="HTTP 200", **{key: instant})
        async with launcher(root) as made:
            before = now()
            await made.adopt()
            facts = made.facts()["record"]
            assert before <= facts.launched_at <= now()
            assert (facts.ready_at, facts.proof) == (None, "")
            # It cannot be asked, and nothing is known of it: taken to run, since ending one that does costs more.
            assert facts.phase is MachinePhase.RUNNING


DOCUMENTS: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)
KEYS = ("launched_at", "running_at", "ready_at", "attempt", "memory", "start", "proof", "made", "phase", "service")
MADE = {"definition": "", "guards": [], "depends_on": [], "shutdown_timeout": 10**400}


@given(st.dictionaries(st.sampled_from(KEYS), DOCUMENTS))
@example({"attempt": float("inf"), "memory": float("nan")})
@example({"attempt": -3, "memory": -1, "start": 7, "proof": None})
@example({"made": MADE})
def test_whatever_a_record_holds_a_machine_comes_out_of_it(document: dict[str, Any]) -> None:
    with TemporaryDirectory() as name:
        directory = Path(name) / "record"
        directory.mkdir()
        text = json.dumps(document | {"pid": os.getpid()})
        (directory / "machine.json").write_text(text)
        facts = records.read(directory, os.getpid())
    assert (facts.service, facts.pid) == ("record", os.getpid())
    assert facts.attempt >= 1
    assert facts.memory >= 0
    for instant in (facts.launched_at, facts.running_at, facts.ready_at):
        assert instant is None or 0 <= instant <= now()


@given(st.binary(max_size=200))
def test_a_record_of_random_bytes_is_none(damage: bytes) -> None:
    with TemporaryDirectory() as name:
        directory = Path(name) / "record"
        directory.mkdir()
        (directory / "machine.json").write_bytes(damage)
        facts = records.read(directory, os.getpid())
    assert (facts.phase, facts.ready_at, facts.running_at) == (MachinePhase.PAUSED, None, None)


async def test_locks_and_sockets_of_another_boot_are_no_obstacle(root: Path) -> None:
    directory = root / "machines/record"
    directory.mkdir(parents=True)
    (directory / "lock").write_text("1\n")
    for name in ("qmp.sock", "tools.sock", "agent.sock"):
        with closing(socket.socket(socket.AF_UNIX)) as stale:
            stale.bind(str(directory / name))
    async with launcher(root, pretender(root, SILENT)) as made:
        launching = asyncio.ensure_future(launch(made))
        await until(lambda: bool(made.facts()))
        for name in ("qmp.sock", "tools.sock", "agent.sock"):
            with closing(socket.socket(socket.AF_UNIX)) as client:
                client.connect(str(directory / name))
        with pytest.raises(MachineError, match="no answer in time"):
            await launching
        await made.end("record")


async def test_a_machine_that_died_while_no_daemon_was_there_is_none_and_may_start_again(root: Path) -> None:
    qemu = pretender(root, SILENT)
    async with launcher(root, qemu) as first:
        with pytest.raises(MachineError):
            await launch(first)
        await until(lambda: process.find_process(root / "machines/record") is None)
    assert (root / "machines/record/machine.json").exists()
    async with launcher(root, qemu) as second:
        assert await second.adopt() == ()
        with pytest.raises(MachineError, match="no answer in time"):
            await launch(second)
        await second.end("record")


async def test_a_missing_qemu_is_named_with_its_package(root: Path) -> None:
    async with launcher(root, "/nowhere/qemu") as made:
        with pytest.raises(MachineError, match="cannot start record: /nowhere/qemu: No such file") as caught:
            await launch(made)
        assert "qemu-system-x86" in caught.value.hint
        assert made.facts() == {}


async def test_a_qemu_that_may_not_be_run_is_not_said_to_be_missing(root: Path) -> None:
    qemu = root / "qemu"
    qemu.write_text("#!/bin/sh\n")
    async with launcher(root, str(qemu)) as made:
        with pytest.raises(MachineError, match="Permission denied") as caught:
            await launch(made)
        assert "package" not in caught.value.hint


@pytest.mark.parametrize("free", range(7))
async def test_a_daemon_without_descriptors_says_so_and_keeps_none(root: Path, free: int) -> None:
    async with launcher(root, pretender(root, SILENT)) as made:
        before = open_files()
        with few_descriptors(free), pytest.raises(MachineError, match="Too many open files") as caught:
            await launch(made)
        assert caught.value.message.startswith("cannot ")
        assert caught.value.hint
        assert open_files() == before
        assert made.facts() == {}
        assert process.find_process(root / "machines" / SERVICE.name) is None


async def test_a_machine_that_cannot_be_watched_is_not_left_behind(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_pid: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    async with launcher(root, pretender(root, SILENT)) as made:
        with pytest.raises(MachineError, match="cannot start record: Too many open files"):
            await launch(made)
        assert process.find_process(root / "machines" / SERVICE.name) is None


async def test_a_machine_that_was_killed_is_waited_for_until_the_kernel_has_let_go_of_it(root: Path) -> None:
    directory = root / "machines" / SERVICE.name
    directory.mkdir(parents=True)
    with (directory / "lock").open("w") as dying:
        fcntl.flock(dying, fcntl.LOCK_EX)
        async with launcher(root, pretender(root, SILENT)) as made:
            launching = asyncio.ensure_future(launch(made))
            await asyncio.sleep(0.2)
            assert made.facts() == {}
            dying.close()
            with pytest.raises(MachineError, match="no answer in time"):
                await launching
            await made.end(SERVICE.name)
