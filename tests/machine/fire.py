"""An enclosure whose daemon, machines and mains are killed at random moments, while a workstation writes to it."""

import asyncio
import json
import os
import random
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from cleanroomd.control.client import Client
from cleanroomd.errors import ControlError
from cleanroomd.model.status import RunState, Status
from rigs import orchestrate
from rigs.namespaces import Node, Rig
from rigs.pid1 import RESTARTS_IN_A_ROW, Unit
from tests.machine import fire_writer

SERVICES = {
    name: f"10.1.20.{number}" for number, name in enumerate(("record-db", "record", "imaging", "laboratory"), start=11)
}
SETTLED = (RunState.RESTORED, RunState.DEGRADED, RunState.HALTED, RunState.STOPPED)

QEMU = """#!/bin/sh
# Counts the QEMUs as they start, whoever starts them and whatever is written down of it.
[ "$1" = -name ] && echo "$$ $2" >> "{log}"
exec qemu-system-x86_64 "$@"
"""

GET = """
import sys, urllib.request
print(urllib.request.urlopen(sys.argv[1], timeout=60).read().decode())
"""


def units(root: Path, logs: Path) -> tuple[Unit, ...]:
    """As in the demonstration, with every QEMU entered in `logs`/launches."""
    qemu = root / "qemu"
    qemu.write_text(QEMU.format(log=logs / "launches"))
    qemu.chmod(0o755)
    keeper, daemon = orchestrate.units(root, logs)
    return keeper, replace(daemon, argv=(*daemon.argv, "--qemu", str(qemu)))


def reachable_everywhere(plan: str) -> str:
    """The tiny hospital's plan with a flow from the workstation to each of its machines."""
    return plan + '\n[[flow]]\nfrom = "workstations"\nto = "record-db"\ntcp = [80]\n'


class Fire:
    """The deeds, and the counts of what became of them. One power-on after the other."""

    def __init__(self, hosts: Rig, root: Path, rng: random.Random) -> None:
        self.enclosure = hosts.enclosure
        self.workstation = hosts.workstation
        self.client = Client(root / "run/control")
        self.kills = 0
        self.denying = True
        self._root = root
        self._logs = root / "logs"
        self._rng = rng
        self._without_ready = 0
        self._ready_seen = 0

    async def power_on(self) -> None:
        """The records of an earlier power-on are put away: what is counted is of this one."""
        (self._logs / "launches").write_text("")
        (self._root / "state/journal.jsonl").unlink(missing_ok=True)
        await asyncio.to_thread(self.enclosure.power_on)

    async def power_cut(self) -> None:
        await asyncio.to_thread(self.enclosure.power_cut)

    async def kill_daemon(self, times: int) -> None:
        """SIGKILL it so often that it lived, at moments that are anything between its first and its quietest."""
        target = self.kills + times
        while self.kills < target:
            await self._breathe()
            await self._moment()
            if self._strike():
                self.kills += 1
                self._without_ready += 1
                if self._rng.random() < 0.3:
                    self._attack_the_rules()

    async def _breathe(self) -> None:
        """PID 1 gives up a unit that dies again and again without becoming ready; the demonstration's does too."""
        while self._without_ready >= RESTARTS_IN_A_ROW // 2:
            self._check_restarts()
            ready = (self._logs / "hosts.log").read_text().count("daemon is ready")
            if ready > self._ready_seen:
                self._ready_seen = ready
                self._without_ready = 0
            else:
                await asyncio.sleep(0.02)

    async def _moment(self) -> None:
        """A random while; or soon after the journal says that the daemon takes one of the steps that matter."""
        longest = self._rng.choice((0.05, 0.5, 1.0, 2.5))
        if self._rng.random() < 0.5:
            await asyncio.sleep(self._rng.uniform(0.0, longest))
            return
        journal = self._root / "state/journal.jsonl"
        start = journal.stat().st_size if journal.exists() else 0
        with suppress(TimeoutError):
            async with asyncio.timeout(2.5):
                await until(lambda: _takes_a_step(journal, start), every=0.002)
        await asyncio.sleep(self._rng.uniform(0.0, 0.1))

    def _strike(self) -> bool:
        """Whether there was a daemon to kill at this moment."""
        parent = self.enclosure.pid
        for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
            with suppress(OSError):
                if {b"cleanroomd", b"--plan"} <= set(Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")):
                    # Its parent is PID 1 of a namespace in which only this test kills: the pid is still its own.
                    os.kill(int(pid), signal.SIGKILL)
                    return True
        return False

    def _attack_the_rules(self) -> None:
        """While nobody is there to notice; the keeper's socket keeps them all the same."""
        self.enclosure.run(["nft", "flush", "ruleset"])
        shown = self.enclosure.run(["nft", "list", "ruleset"]).stdout
        self.denying = self.denying and len(re.findall(r"policy drop", shown)) >= 3

    async def kill_machine(self, service: str) -> None:
        """SIGKILL its QEMU, and wait until it was started again, with whatever else it takes."""
        before = self.launches()[service]
        self._kill_qemu(service)
        await until(lambda: self.launches()[service] > before)

    async def kill_machine_and_daemon(self, service: str) -> None:
        """The machine dies while no daemon is there to see it."""
        before = self.launches()[service]
        await until(self._strike, every=0.01)
        self.kills += 1
        self._kill_qemu(service)
        await until(lambda: self.launches()[service] > before)

    def _kill_qemu(self, service: str) -> None:
        self.enclosure.run(["kill", "-KILL", machines(self.enclosure)[service]])

    def _check_restarts(self) -> None:
        """A daemon that ends by itself again and again is no case for patience."""
        assert "is not started again" not in (self._logs / "hosts.log").read_text()

    async def settled(self, *wanted: RunState) -> Status:
        """The first status with a state of `wanted`; a daemon that is gone at the moment is waited for."""
        while True:
            with suppress(ControlError):
                status = await self.client.status()
                if status.state in (wanted or SETTLED):
                    return status
            self._check_restarts()
            await asyncio.sleep(0.2)

    async def shutdown(self, *, kills: int = 0) -> None:
        """Power all machines down, in whatever order the plan says."""
        while True:
            try:
                await self.client.shutdown()
                break
            except ControlError:
                await asyncio.sleep(0.2)
        await self.kill_daemon(kills)
        await self.settled(RunState.STOPPED)

    def launches(self) -> Counter[str]:
        """QEMUs started since power-on, as they said themselves."""
        return Counter(re.findall(r"guest=([^,]+),", (self._logs / "launches").read_text()))

    def evidence(self) -> dict[str, Any]:
        """What says how often each machine was started in this power-on, and what it itself says of that."""
        journal = (self._root / "state/journal.jsonl").read_text().splitlines()
        entries = [json.loads(line) for line in journal]
        started = Counter(entry["service"] for entry in entries if entry["text"] == "first instruction")
        boots = {
            name: (self._root / f"run/machines/{name}/console.log").read_bytes().count(b"serves on")
            for name in SERVICES
        }
        failed = [entry["text"] for entry in entries if entry["text"].startswith("attempt failed")]
        return {"launches": self.launches(), "started": started, "boots": boots, "failed attempts": failed}

    def missing(self, acknowledged: Mapping[str, list[str]]) -> dict[str, list[str]]:
        """Service -> acknowledged writes that its machine does not hold exactly once."""
        found = {}
        for service, texts in acknowledged.items():
            answer = self.workstation.run(["python3", "-c", GET, f"http://{SERVICES[service]}/read"])
            held = Counter(answer.stdout.split())
            found[service] = [text for text in texts if held[text] != 1]
        return found

    def check_images(self) -> list[dict[str, Any]]:
        """What `qemu-img check` finds wrong in each overlay; every machine must be off."""
        found = []
        for overlay in sorted((self._root / "crisis").glob("*/*.qcow2")):
            command = ["qemu-img", "check", "--output=json", "-f", "qcow2", str(overlay)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            said = json.loads(done.stdout) if done.stdout else {"check-errors": done.stderr}
            wrong = {key: said.get(key, 0) for key in ("check-errors", "corruptions", "leaks")}
            found.append({"image": overlay.parent.name, **wrong})
        return found

    @contextmanager
    def writing(self, run: str, acknowledged: dict[str, list[str]]) -> Iterator[None]:
        """The workstation writes to all machines; every acknowledgement is added to `acknowledged` at the end."""
        log = self._logs / f"acknowledged-{run}"
        targets = [f"{service}={address}" for service, address in SERVICES.items()]
        with log.open("wb") as output:
            writer = self.workstation.popen(["python3", fire_writer.__file__, run, *targets], stdout=output)
        try:
            yield
        finally:
            writer.kill()
            writer.wait()
            for line in log.read_text().splitlines(keepends=True):
                if line.endswith("\n"):
                    service, text = line.split()
                    acknowledged.setdefault(service, []).append(text)


def machines(node: Node) -> dict[str, str]:
    """Service -> pid, as numbered in `node`, of every QEMU."""
    shown = node.run(["ps", "-e", "-o", "pid=,args="]).stdout
    found = re.findall(r"^\s*(\d+) \S*qemu-system\S* -name guest=([^,]+),", shown, re.MULTILINE)
    return {name: pid for pid, name in found}


async def until(condition: Callable[[], bool], *, every: float = 0.05) -> None:
    """Bounded by the test's own deadline."""
    while True:
        if condition():
            return
        await asyncio.sleep(every)


def _takes_a_step(journal: Path, start: int) -> bool:
    """Whether the daemon wrote beyond `start` that it takes one of the steps after which much is different."""
    try:
        with journal.open("rb") as stream:
            stream.seek(start)
            return re.search(rb'"text": "(launch|run|stop|declare) ', stream.read()) is not None
    except FileNotFoundError:
        return False
