"""Stopping a machine with a guest agent: the power button first, the agent when that is ignored, and which it was."""

import re
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from cleanroomd.durable import read_json
from cleanroomd.machine import agent as agent_module
from cleanroomd.machine import launcher as module
from cleanroomd.machine.launcher import Launcher
from cleanroomd.model.plan import Service, StartKind

from .test_launcher_faults import SERVICE, open_null

WITH_AGENT = replace(SERVICE, guest_agent=True)
PRETENDER = Path(__file__).with_name("pretend_qemu.py")


class Bench:
    """One machine whose QEMU only pretends."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.qemu = root / "qemu"
        self.qemu.write_text(f"#!{sys.executable}\n{PRETENDER.read_text()}")
        self.qemu.chmod(0o755)
        self.launchers: list[Launcher] = []

    def launcher(self) -> Launcher:
        """One more life of the daemon."""
        made = Launcher(
            self.root / "machines",
            accelerator="tcg",
            on_change=lambda _: None,
            open_tap=open_null,
            qemu=str(self.qemu),
        )
        self.launchers.append(made)
        return made

    async def running(self, conduct: str, service: Service = WITH_AGENT) -> Launcher:
        (self.root / "conduct").write_text(conduct)
        made = self.launcher()
        await made.launch(service, taps=("tap",), disks=(), memory=128 << 20, start=StartKind.COLD, attempt=1)
        await made.run(service.name)
        return made

    def told(self, command: str) -> int:
        return (self.root / "told").read_text().split().count(command)


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(module, "_PRESS_AGAIN", 0.2)
    monkeypatch.setattr(module, "_AGENT_DEADLINE", 0.2)
    monkeypatch.setattr(agent_module, "_REFUSAL_SECONDS", 0.2)
    # Not below pytest's own directory: a socket's path has at most 107 bytes.
    with TemporaryDirectory(prefix="cleanroom-") as name:
        made = Bench(Path(name))
        yield made
        for launcher in made.launchers:
            await launcher.end(SERVICE.name)
            await launcher.close()


async def test_a_guest_that_heeds_its_button_is_not_asked_through_its_agent(bench: Bench) -> None:
    launcher = await bench.running("heeds obeys")
    assert re.fullmatch(r"powered down after \S+ s", await launcher.stop(SERVICE.name, 20))
    assert bench.told("guest-shutdown") == 0


async def test_a_guest_that_ignores_its_button_is_asked_through_its_agent(bench: Bench) -> None:
    launcher = await bench.running("obeys")
    outcome = await launcher.stop(SERVICE.name, 20)
    assert re.fullmatch(r"powered down after \S+ s, once its guest agent was asked", outcome)
    assert bench.told("system_powerdown") == 1
    assert bench.told("guest-shutdown") == 1


async def test_the_agent_has_its_turn_within_a_short_time_as_well(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PRESS_AGAIN", 60)
    launcher = await bench.running("obeys")
    assert "guest agent was asked" in await launcher.stop(SERVICE.name, 3)


async def test_an_adopted_machine_is_known_to_have_an_agent(bench: Bench) -> None:
    first = await bench.running("obeys")
    assert read_json(bench.root / "machines" / SERVICE.name / "machine.json")["guest_agent"] is True
    await first.close()
    second = bench.launcher()
    await second.adopt()
    assert "guest agent was asked" in await second.stop(SERVICE.name, 20)


@pytest.mark.parametrize("record", ["{}", '{"pid": 1, "guest_agent": true}', "damaged"])
async def test_a_record_that_is_not_the_machines_gives_it_no_agent(bench: Bench, record: str) -> None:
    first = await bench.running("obeys")
    await first.close()
    (bench.root / "machines" / SERVICE.name / "machine.json").write_text(record)
    second = bench.launcher()
    await second.adopt()
    assert re.fullmatch(r"was switched off after \S+ s", await second.stop(SERVICE.name, 1))
    assert bench.told("guest-shutdown") == 0


async def test_an_agent_that_the_plan_does_not_name_is_not_asked(bench: Bench) -> None:
    launcher = await bench.running("obeys", SERVICE)
    assert re.fullmatch(r"was switched off after \S+ s", await launcher.stop(SERVICE.name, 1))
    assert bench.told("guest-sync-delimited") == 0


async def test_a_guest_that_ignores_its_agent_too_is_switched_off_in_time(bench: Bench) -> None:
    launcher = await bench.running("ignores")
    outcome = await launcher.stop(SERVICE.name, 1.5)
    assert re.fullmatch(r"was switched off after \S+ s \(it ignored its guest agent\)", outcome)
    assert bench.told("guest-shutdown") == 1
    assert bench.told("system_powerdown") > 1


@pytest.mark.parametrize(
    ("conduct", "why"),
    [
        ("refuses", "cannot ask the guest agent of record for guest-shutdown: it has been disabled"),
        ("absent", "cannot reach the guest agent of record: no answer in time"),
    ],
)
async def test_an_agent_that_does_not_help_is_named_and_asked_again(bench: Bench, conduct: str, why: str) -> None:
    launcher = await bench.running(conduct)
    assert re.fullmatch(rf"was switched off after \S+ s \({why}\)", await launcher.stop(SERVICE.name, 2))
    if conduct == "refuses":
        assert bench.told("guest-shutdown") > 1
    assert bench.told("quit") == 1
