"""How close a restoration of tiny machines comes to what no order could beat, and to starting them one by one.

The bound knows what each machine takes alone, and nothing of what machines take from each other. So the same machines
are also started by hand, alone and all together, in the same order: what that costs, no daemon can save.
"""

import os
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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
DAEMON, HAND = "restore_inside", "by_hand_inside"


@dataclass(frozen=True, slots=True)
class Run:
    """All machines together, and what each of them takes alone; in seconds."""

    makespan: float
    bound: float
    """max(critical path, work / slots) of the solo starts."""
    one_by_one: float

    @property
    def over_bound(self) -> float:
        return self.makespan / self.bound


def run() -> Iterator[Figure]:
    scenario = tiny_hospital()
    disks = scenario.build(default_cache(), lambda _step: None)
    outline = Outline(load(scenario.plan))
    ours, by_hand = [], []
    for _ in range(RUNS):
        ours.append(_run(DAEMON, outline, scenario.plan, disks))
        by_hand.append(_run(HAND, outline, scenario.plan, disks))
    yield _against("restore_makespan", ours, "max(critical path, work / slots) of solo starts", ours, bound=True)
    yield _ratios("restore_over_bound", [each.over_bound for each in ours], GOAL)
    yield _ratios("by_hand_over_bound", [each.over_bound for each in by_hand])
    yield _against("restore_makespan_by_hand", ours, "the same machines by hand", by_hand, bound=False)
    # Pair by pair: the two runs of a pair are neighbours in time.
    pairs = zip(ours, by_hand, strict=True)
    yield _ratios("restore_over_by_hand", [mine.makespan / theirs.makespan for mine, theirs in pairs], GOAL)
    yield _ratios("restore_over_one_by_one", [each.makespan / each.one_by_one for each in ours], 1.0)


def _run(program: str, outline: Outline, plan: Path, disks: Mapping[str, Path]) -> Run:
    names = [service.name for service in outline.plan.services]
    solo = {name: _measure(program, plan, disks, only=name)[name] for name in names}
    together = _measure(program, plan, disks, only="")
    work = sum(solo.values())
    bound = max(critical_path(outline, names, solo.__getitem__), work / len(os.sched_getaffinity(0)))
    return Run(makespan=max(together.values()), bound=bound, one_by_one=work)


def _measure(program: str, plan: Path, disks: Mapping[str, Path], *, only: str) -> dict[str, float]:
    """Service -> seconds from the first launch of the run to ready, in a sandbox of its own."""
    with enclosure_root(plan.read_text(encoding="utf-8"), disks) as root:
        found: dict[str, float] = measure(f"rigs.bench.{program}", root, only)
        return found


def _against(name: str, ours: Sequence[Run], peer: str, theirs: Sequence[Run], *, bound: bool) -> Figure:
    return Figure(
        name=name,
        unit="s",
        spread=Spread.of([each.makespan for each in ours]),
        runs=len(ours),
        against=peer,
        against_value=statistics.median(each.bound if bound else each.makespan for each in theirs),
        goal=GOAL,
    )


def _ratios(name: str, values: Sequence[float], goal: float | None = None) -> Figure:
    return Figure(name=name, unit="times", spread=Spread.of(values), runs=len(values), goal=goal)
