"""How close a restoration of tiny machines comes to what no order could beat, and to starting them one by one."""

import os
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path

from cleanroomd.plan.load import load
from cleanroomd.restore.order import Outline
from cleanroomd.restore.timeline import critical_path
from rigs.bench.figures import Figure, Spread
from rigs.bench.sandboxed import enclosure_root, measure
from rigs.place import default_cache
from rigs.scenario import tiny_hospital

RUNS = 3
GOAL = 1.15


def run() -> Iterator[Figure]:
    scenario = tiny_hospital()
    disks = scenario.build(default_cache(), lambda _step: None)
    plan = load(scenario.plan)
    outline = Outline(plan)
    names = [service.name for service in plan.services]
    slots = len(os.sched_getaffinity(0))
    ratios, serial, makespans, bounds = [], [], [], []
    for _ in range(RUNS):
        solo = {name: _measure(scenario.plan, disks, only=name)[name] for name in names}
        together = _measure(scenario.plan, disks, only="")
        makespan = max(together.values())
        bound = max(critical_path(outline, names, solo.__getitem__), sum(solo.values()) / slots)
        makespans.append(makespan)
        bounds.append(bound)
        ratios.append(makespan / bound)
        serial.append(makespan / sum(solo.values()))
    yield Figure(
        name="restore_makespan",
        unit="s",
        spread=Spread.of(makespans),
        runs=RUNS,
        against="max(critical path, work / slots) of solo starts",
        against_value=statistics.median(bounds),
        goal=GOAL,
    )
    yield Figure(name="restore_over_bound", unit="times", spread=Spread.of(ratios), runs=RUNS, goal=GOAL)
    yield Figure(name="restore_over_one_by_one", unit="times", spread=Spread.of(serial), runs=RUNS, goal=1.0)


def _measure(plan: Path, disks: Mapping[str, Path], *, only: str) -> dict[str, float]:
    """Service -> seconds from the first launch of the run to ready, in a sandbox of its own."""
    with enclosure_root(plan.read_text(encoding="utf-8"), disks) as root:
        found: dict[str, float] = measure("rigs.bench.restore_inside", root, only)
        return found
