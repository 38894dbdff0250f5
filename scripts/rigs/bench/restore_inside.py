"""The essential unit of a benchmark's sandbox: power an enclosure on, wait, say when each service was ready.

python -m rigs.bench.restore_inside DESCRIPTOR ROOT [SERVICE]
"""

import asyncio
import json
import os
import sys
from pathlib import Path

from cleanroomd.control.client import Client
from cleanroomd.errors import ControlError
from cleanroomd.model.status import RunState
from rigs import orchestrate
from rigs.namespaces import rig


def reduce_plan(path: Path, only: str) -> None:
    """Leave one service in the plan, without dependencies and flows."""
    head, *services = path.read_text(encoding="utf-8").split("[[service]]")
    chosen = next(text for text in services if f'name = "{only}"' in text)
    lines = [line for line in chosen.split("[[flow]]")[0].splitlines() if not line.startswith("depends_on")]
    path.write_text(f"{head}[[service]]" + "\n".join(lines) + "\n", encoding="utf-8")


async def restored(client: Client) -> None:
    while True:
        try:
            async for status in client.watch():
                if status.state is RunState.RESTORED:
                    return
        except ControlError:
            await asyncio.sleep(0.1)


def durations(journal: Path) -> dict[str, float]:
    """Service -> seconds from the first launch of any to its being ready, by the run journal."""
    entries = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
    begin = next(entry["boottime"] for entry in entries if entry["text"].startswith("launch "))
    return {
        entry["service"]: entry["boottime"] - begin
        for entry in entries
        if entry["event"] == "service" and entry.get("state") == "ready"
    }


def main() -> None:
    descriptor, root = int(sys.argv[1]), Path(sys.argv[2])
    only = sys.argv[3] if len(sys.argv) > 3 else ""
    if only:
        reduce_plan(root / "plan.toml", only)
    with rig(root=root, units=orchestrate.units(root, root / "logs"), log=root / "logs/hosts.log") as hosts:
        hosts.enclosure.power_on()
        asyncio.run(restored(Client(root / "run/control")))
        found = durations(root / "state/journal.jsonl")
    os.write(descriptor, json.dumps(found).encode() + b"\n")


if __name__ == "__main__":
    main()
