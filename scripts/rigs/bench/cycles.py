"""What the daemon's memory and descriptors do over a thousand cycles of start and stop."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rigs import power_button, tiny
from rigs.bench.cycles_inside import REAL
from rigs.bench.figures import Figure, Spread
from rigs.bench.sandboxed import enclosure_root, measure
from rigs.place import default_cache

CYCLES = 1000
READING = 100
GOAL_MEMORY = 1.05
GOAL_DESCRIPTORS = 1.0

_HEAD = """
[enclosure]
name = "Bench"
[ports.care]
match = { mac = "52:54:00:00:00:02" }
[zones.workstations]
port = "care"
address = "10.77.0.1/24"
"""
_SERVICE = """
[[service]]
name = "{name}"
title = "Bench"
priority = {priority}
address = "{address}"
gateway = "10.1.20.1"
memory = "128M"
disks = ["{name}-system"]
ready = [{{ http = "http://:80/", expect = 200 }}]
ready_timeout = "10m"
shutdown_timeout = "20s"
[[flow]]
from = "workstations"
to = "{name}"
tcp = [80]
"""


def run() -> Iterator[Figure]:
    found = turn(CYCLES, READING)
    early, late = found["readings"][0], found["readings"][-1]
    count = len(found["readings"])
    seconds = Spread.of(found["seconds"])
    yield Figure(name="cycles_done", unit="", spread=Spread.of([len(found["seconds"])]), runs=1)
    yield Figure(
        name="cycles_daemon_rss",
        unit="MB",
        spread=_over(found, "resident", late),
        runs=count,
        against=f"after {early['cycles']} cycles",
        against_value=early["resident"],
        goal=GOAL_MEMORY,
    )
    yield Figure(
        name="cycles_descriptors",
        unit="",
        spread=_over(found, "descriptors", late),
        runs=count,
        against=f"after {early['cycles']} cycles",
        against_value=early["descriptors"],
        goal=GOAL_DESCRIPTORS,
    )
    yield Figure(name="cycles_processes_left", unit="", spread=_over(found, "processes", late), runs=count, goal=0.0)
    files = [len(reading["files"]) for reading in found["readings"]]
    yield Figure(
        name="cycles_files",
        unit="",
        spread=Spread(min(files), files[-1], max(files)),
        runs=count,
        against=f"after {early['cycles']} cycles",
        against_value=files[0],
        goal=1.0,
    )
    yield Figure(name="cycles_seconds", unit="s", spread=seconds, runs=len(found["seconds"]))


def turn(cycles: int, reading: int) -> Any:
    """Start and stop as often in a sandbox; what `cycles_inside.repeat` found.

    As many machines at a time as there are start slots: none of them is ever ready, so that each keeps one.
    """
    real = tiny.Guest(name=REAL, address="10.1.20.99", gateway="10.1.20.1")
    plan = _HEAD + _SERVICE.format(name=REAL, address=real.address, priority=5)
    with tempfile.TemporaryDirectory(prefix="cleanroom-") as folder:
        disks = dict(tiny.build([real], default_cache(), lambda _text: None))
        for number in range(len(os.sched_getaffinity(0))):
            name = f"button{number}"
            plan += _SERVICE.format(name=name, address=f"10.1.20.{100 + number}", priority=1)
            disks[f"{name}-system"] = power_button.write_disk(Path(folder) / f"{name}.raw")
        with enclosure_root(plan, disks) as root:
            return measure("rigs.bench.cycles_inside", root, str(cycles), str(reading))


def _over(found: Any, name: str, late: Any) -> Spread:
    """The last reading as the value, between the least and the most of all."""
    values = [reading[name] for reading in found["readings"]]
    return Spread(min(values), late[name], max(values))
