"""Run by test_reload.py as the essential unit of a sandbox: a restored enclosure whose plan is changed.

python -m tests.machine.reload_inside DESCRIPTOR ROOT
"""

import asyncio
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cleanroomd.control.client import Client
from cleanroomd.errors import ControlError
from cleanroomd.model.status import RunState, ServiceState, ServiceStatus, Status
from rigs import orchestrate
from rigs.namespaces import Rig, rig

GET = """
import sys, urllib.request
try:
    print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())
except OSError:
    print("nothing")
"""


async def until(client: Client, holds: Callable[[Status], bool]) -> Status:
    """The first status for which `holds`; a daemon that is not there yet is waited for."""
    while True:
        try:
            async for status in client.watch():
                if holds(status):
                    return status
        except ControlError:
            await asyncio.sleep(0.2)


def service(status: Status, name: str) -> ServiceStatus:
    return next(each for each in status.services if each.name == name)


def without(plan: str, name: str) -> str:
    """`plan` without the service `name` and its flows."""
    tables = re.split(r"(?m)^(?=\[)", plan)
    return "".join(table for table in tables if f'name = "{name}"' not in table and f'to = "{name}"' not in table)


async def change_the_plan(hosts: Rig, root: Path) -> dict[str, Any]:
    enclosure, client = hosts.enclosure, Client(root / "run/control")
    path = root / "plan.toml"
    text = path.read_text(encoding="utf-8")

    def reload(plan: str) -> None:
        path.write_text(plan, encoding="utf-8")
        enclosure.run(["pkill", "-HUP", "-f", "--", "cleanroomd --plan"])

    def get(address: str) -> str:
        return hosts.workstation.run(["python3", "-c", GET, f"http://{address}/"]).stdout.strip()

    def memory(name: str) -> list[str]:
        shown = enclosure.run(["ps", "-e", "-ww", "-o", "args="]).stdout
        return re.findall(rf"guest={name},.* -m (\d+M)", shown)

    await asyncio.to_thread(enclosure.power_on)
    await until(client, lambda status: status.state is RunState.RESTORED)
    found: dict[str, Any] = {"before": get("10.1.20.14")}

    changed = without(text, "laboratory").replace('title = "Imagerie (PACS)"', 'title = "PACS"')
    head, imaging = changed.split('name = "imaging"')
    changed = f'{head}name = "imaging"{imaging.replace("128M", "160M", 1)}'
    reload(changed)
    status = await until(client, lambda status: len(status.services) == 3)
    found["reasons"] = {each.name: each.reason for each in status.services}
    found["title"] = service(status, "imaging").title
    found["state"] = status.state
    found["next"] = status.next_action
    found["laboratory"] = {"memory": memory("laboratory"), "reached": get("10.1.20.14")}
    found["kept"] = (root / "crisis/laboratory/laboratory-system.qcow2").exists()
    found["running"] = memory("imaging")

    reload("[enclosure")
    status = await until(client, lambda status: status.plan_problem != "")
    found["problem"] = status.plan_problem
    found["still"] = {"state": status.state, "record": get("10.1.20.12")}

    reload(text)
    status = await until(client, lambda status: len(status.services) == 4 and status.state is RunState.RESTORED)
    found["again"] = {"problem": status.plan_problem, "reached": get("10.1.20.14")}

    reload(changed)
    await until(client, lambda status: len(status.services) == 3)
    await client.stop("imaging")
    await until(client, lambda status: service(status, "imaging").state is ServiceState.STOPPED)
    await client.start("imaging")
    status = await until(client, lambda status: status.state is RunState.RESTORED)
    found["applied"] = {"memory": memory("imaging"), "reason": service(status, "imaging").reason}
    return found


def main() -> None:
    descriptor, root = int(sys.argv[1]), Path(sys.argv[2])
    with rig(root=root, units=orchestrate.units(root, root / "logs"), log=root / "logs/hosts.log") as hosts:
        found = asyncio.run(change_the_plan(hosts, root))
    os.write(descriptor, json.dumps(found).encode() + b"\n")


if __name__ == "__main__":
    main()
