"""Run by test_daemon.py as the essential unit of a sandbox: restores the tiny hospital while its daemon is killed.

python -m tests.machine.daemon_inside DESCRIPTOR ROOT LOGS SEED KILLS
"""

import asyncio
import json
import os
import random
import re
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cleanroomd.control.client import Client
from cleanroomd.errors import ControlError
from cleanroomd.model.status import RunState, Status
from rigs import orchestrate
from rigs.namespaces import Node, Rig, rig

SETTLED = (RunState.RESTORED, RunState.DEGRADED, RunState.HALTED)
DAEMON = "cleanroomd --plan"


def kill_daemon(node: Node) -> bool:
    """SIGKILL it, if it lives at the moment."""
    return node.run(["pkill", "-KILL", "-f", "--", DAEMON]).returncode == 0


async def settled(client: Client) -> Status:
    """The first settled status; a daemon that is gone at the moment is waited for."""
    while True:
        try:
            status = await client.status()
            if status.state in SETTLED:
                return status
        except ControlError:
            pass
        await asyncio.sleep(0.2)


def entries(root: Path) -> list[Mapping[str, Any]]:
    return [json.loads(line) for line in (root / "state/journal.jsonl").read_text().splitlines()]


def machines(node: Node) -> dict[str, str]:
    """Service -> pid of every QEMU."""
    shown = node.run(["ps", "-e", "-o", "pid=,args="]).stdout
    found = re.findall(r"^\s*(\d+) \S*qemu-system\S* -name guest=([^,]+),", shown, re.MULTILINE)
    return {name: pid for pid, name in found}


def http(node: Node, path: str) -> str:
    """What the record answers the workstation; "" where nothing does."""
    return node.run(["python3", "-c", GET, f"http://10.1.20.12{path}"]).stdout


GET = """
import sys, urllib.request
try:
    print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())
except OSError:
    pass
"""


async def restore_under_fire(hosts: Rig, root: Path, rng: random.Random, kills: int) -> dict[str, Any]:
    """Kill the daemon at random moments, flush the rules while it is away, and see what became of it all."""
    enclosure, client = hosts.enclosure, Client(root / "run/control")
    await asyncio.to_thread(enclosure.power_on)
    tables = set()
    killed = 0
    for _ in range(kills):
        await asyncio.sleep(rng.uniform(0.1, 2.5))
        killed += kill_daemon(enclosure)
        enclosure.run(["nft", "flush", "ruleset"])
        tables.add(len(re.findall(r"policy drop", enclosure.run(["nft", "list", "ruleset"]).stdout)) >= 3)
    status = await settled(client)
    before = machines(enclosure)
    written = http(hosts.workstation, "/write?patient-1")
    killed += kill_daemon(enclosure)
    read = http(hosts.workstation, "/read")
    again = await settled(client)
    counted = Counter(str(entry["service"]) for entry in entries(root) if entry["text"].endswith("first instruction"))
    return {
        "killed": killed,
        "state": status.state.value,
        "again": again.state.value,
        "since": {service.name: service.since for service in status.services}
        == {service.name: service.since for service in again.services},
        "machines": before,
        "machines again": machines(enclosure),
        "first instructions": dict(counted),
        "denying": sorted(tables),
        "written": written.strip(),
        "read": read.split(),
    }


async def refuse(hosts: Rig, root: Path) -> dict[str, Any]:
    """A second daemon on the same root, and one without a keeper."""
    enclosure, client = hosts.enclosure, Client(root / "run/control")
    await asyncio.to_thread(enclosure.power_on)
    status = await settled(client)
    command = [*(sys.executable, "-m", "cleanroomd", "--plan", str(root / "plan.toml"), "--unsealed")]
    second = enclosure.run([*command, "--root", str(root)])
    return {"state": status.state.value, "code": second.returncode, "said": second.stderr}


def main() -> None:
    deed, descriptor, root, logs = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])
    with rig(root=root, units=orchestrate.units(root, logs), log=logs / "hosts.log") as hosts:
        if deed == "fire":
            work = restore_under_fire(hosts, root, random.Random(int(sys.argv[5])), int(sys.argv[6]))
        else:
            work = refuse(hosts, root)
        found = asyncio.run(work)
    os.write(descriptor, json.dumps(found).encode() + b"\n")


if __name__ == "__main__":
    main()
