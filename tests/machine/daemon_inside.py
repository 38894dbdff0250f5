"""Run by test_daemon.py as the essential unit of a sandbox: restores the tiny hospital, come what may.

python -m tests.machine.daemon_inside DEED DESCRIPTOR ROOT [SEED]
"""

import asyncio
import json
import os
import random
import sys
from pathlib import Path
from typing import Any

from cleanroomd.model.status import RunState
from rigs.namespaces import Rig, rig
from tests.machine.fire import SERVICES, Fire, machines, units


async def restore_under_fire(hosts: Rig, root: Path, rng: random.Random) -> dict[str, Any]:
    """Three power-ons: only the daemon is killed; machines and the mains as well; and at last all is looked at."""
    fire = Fire(hosts, root, rng)
    acknowledged: dict[str, list[str]] = {}

    with fire.writing("first", acknowledged):
        await fire.power_on()
        await fire.kill_daemon(10)
        state = (await fire.settled()).state
        before = machines(fire.enclosure)
        since = {service.name: service.since for service in (await fire.settled()).services}
        await fire.kill_daemon(2)
        again = await fire.settled()
        await asyncio.sleep(1)
    daemon_killed = {
        "state": state,
        "again": again.state,
        "same machines": machines(fire.enclosure) == before and set(before) == set(SERVICES),
        "same since": {service.name: service.since for service in again.services} == since,
        **fire.evidence(),
        "missing": fire.missing(acknowledged),
    }
    await fire.shutdown(kills=3)
    daemon_killed |= {"left": machines(fire.enclosure), "images": fire.check_images()}
    await fire.power_cut()

    with fire.writing("second", acknowledged):
        await fire.power_on()
        await fire.kill_daemon(6)
        await fire.settled(RunState.RESTORED)
        victims = rng.sample(sorted(SERVICES), 2)
        await fire.kill_machine(victims[0])
        await fire.kill_machine_and_daemon(victims[1])
        state = (await fire.settled(RunState.RESTORED)).state
        all_killed = {"state": state, "victims": victims, **fire.evidence()}
        await asyncio.sleep(rng.uniform(0.0, 1.0))
        await fire.power_cut()

    await fire.power_on()
    await fire.kill_daemon(6)
    after = {"state": (await fire.settled()).state, **fire.evidence(), "missing": fire.missing(acknowledged)}
    await fire.shutdown()
    after["images"] = fire.check_images()
    return {
        "kills": fire.kills,
        "acknowledged": {service: len(texts) for service, texts in acknowledged.items()},
        "denying": fire.denying,
        "daemon killed": daemon_killed,
        "all killed": all_killed,
        "after": after,
    }


async def refuse(hosts: Rig, root: Path) -> dict[str, Any]:
    """A second daemon on the same root."""
    fire = Fire(hosts, root, random.Random(0))
    await fire.power_on()
    status = await fire.settled()
    command = [*(sys.executable, "-m", "cleanroomd", "--plan", str(root / "plan.toml"), "--unsealed")]
    second = fire.enclosure.run([*command, "--root", str(root)])
    return {"state": status.state, "code": second.returncode, "said": second.stderr}


def main() -> None:
    deed, descriptor, root = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    logs = root / "logs"
    with rig(root=root, units=units(root, logs), log=logs / "hosts.log") as hosts:
        if deed == "fire":
            work = restore_under_fire(hosts, root, random.Random(int(sys.argv[4])))
        else:
            work = refuse(hosts, root)
        found = asyncio.run(work)
    os.write(descriptor, json.dumps(found).encode() + b"\n")


if __name__ == "__main__":
    main()
