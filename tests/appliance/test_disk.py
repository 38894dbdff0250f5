"""A disk that takes its time costs nobody the daemon: its loop, its watchdog and its answers go on meanwhile."""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from rigs.nspawn.container import Container
from tests.appliance.enclosure import WATCHDOG, eventually, journal, main_pid, restarts, services

pytestmark = pytest.mark.timeout(400)

_DELAY = WATCHDOG + 3
"""Seconds that each flush to the disk takes: one alone outlasts the watchdog."""


@contextmanager
def slow_disk(container: Container, log: Path) -> Iterator[None]:
    """Every fsync(2) and fdatasync(2) of the daemon takes `_DELAY` seconds and is in `log` once it is done."""
    argv = ["strace", "--follow-forks", "--decode-fds=path", f"--attach={container.pid_here(main_pid(container))}"]
    argv += ["--trace=fsync,fdatasync", f"--inject=fsync,fdatasync:delay_enter={_DELAY * 1_000_000}"]
    with subprocess.Popen([*argv, f"--output={log}"], stderr=subprocess.PIPE, text=True) as strace:
        try:
            assert strace.stderr is not None
            assert "attached" in strace.stderr.readline()
            yield
        finally:
            strace.terminate()


def flushed(log: Path) -> int:
    """How many flushes are over."""
    return log.read_text().count("(DELAYED)")


def test_a_slow_disk_does_not_fire_the_watchdog(fresh: Container, tmp_path: Path) -> None:
    daemon = main_pid(fresh)
    log = tmp_path / "strace.log"
    asked = (("stop", "imaging"), ("start", "record"), ("restore",))
    with slow_disk(fresh, log), ExitStack() as running:
        for words in asked:
            running.enter_context(fresh.started("cleanroomctl", *words, stdout=subprocess.DEVNULL))
        eventually(lambda: "sync(" in log.read_text(), "the daemon writes", fresh)
        assert set(services(fresh)) == {"record", "imaging"}
        assert flushed(log) == 0, "the status was answered only once the disk was done"
        eventually(lambda: flushed(log) or restarts(fresh), "one flush", fresh)
    assert restarts(fresh) == 0, journal(fresh)
    assert main_pid(fresh) == daemon
    assert "Watchdog timeout" not in journal(fresh)
