"""A machine that runs is powered down, not ended, for as long as its plan gives it: its guest has things to write."""

import asyncio
import os
import signal

import pytest

from cleanroomd.machine import monitor
from cleanroomd.machine.launcher import Launcher
from tests.machine.test_launcher import SERVICE, Bench, bench, http

__all__ = ["bench"]

pytestmark = pytest.mark.timeout(180)


async def running(bench: Bench, launcher: Launcher) -> None:
    await bench.launch(launcher)
    await bench.run(launcher)
    assert "ready" in await http("/")


async def test_a_machine_whose_monitor_was_lost_is_powered_down(bench: Bench) -> None:
    async with bench.launcher() as launcher:
        await running(bench, launcher)
        lost = launcher._machines[SERVICE.name].monitor
        assert lost is not None
        await lost.close()
        assert "powered down" in await launcher.stop(SERVICE.name, 60)


async def test_a_qemu_that_is_silent_for_a_while_keeps_the_time_of_its_plan(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "_CONNECT_DEADLINE", 0.5)
    monkeypatch.setattr(monitor, "_COMMAND_DEADLINE", 0.5)
    async with bench.launcher() as launcher:
        await running(bench, launcher)
        pid = launcher.facts()[SERVICE.name].pid
        os.kill(pid, signal.SIGSTOP)
        stopping = asyncio.ensure_future(launcher.stop(SERVICE.name, 60))
        await asyncio.sleep(4)
        os.kill(pid, signal.SIGCONT)
        assert "powered down" in await stopping


async def test_a_guest_that_was_held_by_a_full_disk_is_let_go_to_shut_down(bench: Bench) -> None:
    async with bench.launcher() as launcher:
        await running(bench, launcher)
        held = launcher._machines[SERVICE.name].monitor
        assert held is not None
        await held.execute("stop")
        assert "powered down" in await launcher.stop(SERVICE.name, 60)
