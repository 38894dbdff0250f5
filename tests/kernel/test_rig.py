"""The rig's promise: whatever happens to whoever started it, nothing stays behind, and its attackers are not blind."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rigs import namespaces
from rigs.namespaces import Sandbox

LAUNCHER = """
import sys
from pathlib import Path
from tests.kernel.test_rig import inside

with inside("stay", Path(sys.argv[1])) as (made, read):
    read()
    print(made.process.pid, flush=True)
    sys.stdin.read()
"""
DEADLINE = 8.0


@contextmanager
def inside(deed: str, folder: Path) -> Iterator[tuple[Sandbox, Any]]:
    """A sandbox in which rig_inside does `deed`, and a function that waits for what it says of it."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    argv = [sys.executable, "-m", "tests.kernel.rig_inside", deed, str(write_end), str(folder)]
    with os.fdopen(read_end) as said, namespaces.sandbox(argv, log=folder / "log", pass_fds=(write_end,)) as made:
        os.close(write_end)

        def read() -> dict[str, Any]:
            line = said.readline()
            assert line, (folder / "log").read_text()
            result: dict[str, Any] = json.loads(line)
            return result

        yield made, read


def do(deed: str, folder: Path) -> dict[str, Any]:
    with inside(deed, folder) as (_, read):
        return read()  # type: ignore[no-any-return]


def descendants(pid: int) -> set[int]:
    """Every process below `pid`, however deep in PID namespaces."""
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        each = waiting.pop()
        found.add(each)
        waiting += [int(child) for child in Path(f"/proc/{each}/task/{each}/children").read_text().split()]
    return found


def all_end(pids: set[int]) -> bool:
    """Wait until every process has ended, as far as it takes less than the deadline."""
    for pid in pids:
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            if not select.select([handle], [], [], DEADLINE)[0]:
                return False
        finally:
            os.close(handle)
    return True


def surroundings() -> tuple[str, list[str]]:
    return Path("/proc/self/mountinfo").read_text(), [name for _, name in socket.if_nameindex()]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", f"{root}:{root / 'scripts'}")


def test_the_end_of_the_lifeline_ends_every_process(tmp_path: Path) -> None:
    before = surroundings()
    with inside("stay", tmp_path) as (made, read):
        read()
        pids = descendants(made.process.pid)
        assert len(pids) > 8
        made.lifeline.cut()
        assert all_end(pids)
    assert surroundings() == before


def test_killing_the_launcher_leaves_nothing(tmp_path: Path) -> None:
    before = surroundings()
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with launcher:
        assert launcher.stdout is not None
        pids = descendants(int(launcher.stdout.readline()))
        assert len(pids) > 8
        launcher.send_signal(signal.SIGKILL)
    assert all_end(pids)
    assert surroundings() == before


def test_a_kept_sandbox_outlives_its_launcher_until_it_is_told_to_end(tmp_path: Path) -> None:
    with inside("stay", tmp_path) as (made, read):
        read()
        made.keep()
    pids = descendants(made.process.pid)
    try:
        assert made.process.poll() is None
        assert len(pids) > 8
    finally:
        os.kill(made.pid, signal.SIGTERM)
        made.process.wait(DEADLINE)
    assert all_end(pids)


def test_a_power_cut_ends_everything_in_the_enclosure_at_once(tmp_path: Path) -> None:
    found = do("power_cut", tmp_path)
    assert any("trap" in line for line in found["before"])
    assert len(found["before"]) >= 4
    assert found["alive"] == []
    assert found["cables"] == []


def test_power_on_after_a_cut_is_a_new_boot_of_the_same_machine(tmp_path: Path) -> None:
    found = do("power_cut", tmp_path)
    ports = {"uplink0": namespaces.UPLINK_MAC, "care0": namespaces.CARE_MAC}
    assert ports.items() <= found["ports"].items()
    assert found["ports again"] == ports
    assert found["boot"] != found["boot again"]


def test_attackers_notice_an_enclosure_that_lets_everything_through(tmp_path: Path) -> None:
    found = do("open_enclosure", tmp_path)
    assert found.get("problem") is None
    assert found["answered"] > 0
    assert found["forwarded"] > 0


def test_units_start_in_order_and_come_back(tmp_path: Path) -> None:
    found = do("supervise", tmp_path)
    assert found["order"] == ["first", "ready", "second"]
    assert found["after"] == ["first", "ready", "second", "second"]
