"""How deciding grows with the plan: a fresh outline, admission, judgement, posture, steps and schedule."""

import itertools
import math
import random
import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Interface

from cleanroomd.model.observed import Capacity, DiskFacts, Interface, Observed
from cleanroomd.model.plan import Disk, Enclosure, Flow, Plan, Port, Service, TcpProbe, Zone
from cleanroomd.restore.order import Outline
from cleanroomd.restore.reconcile import reconcile
from cleanroomd.restore.timeline import timeline
from rigs.bench.figures import Figure, Spread, interleave

SIZES = (100, 1_000, 10_000)
RUNS = 5
GOAL_SECONDS = 1.0
SLACK = 1.5
"""Growth may exceed n log n by this factor: caches get colder as plans get larger."""


def paper_plan(size: int) -> Plan:
    """`size` services, each with two dependencies among those before it and one flow; the same every time."""
    rng = random.Random(size)  # noqa: S311 -- the same plan every time
    services = tuple(
        Service(
            name=f"s{number}",
            title=f"Service {number}",
            priority=rng.randint(1, 5),
            address=IPv4Address("10.1.0.0") + number + 1,
            mac=f"52:54:00:{number >> 16:02x}:{number >> 8 & 255:02x}:{number & 255:02x}",
            memory=512 << 20,
            memory_min=256 << 20,
            disks=(Disk(f"s{number}-system"),),
            ready=(TcpProbe(80, b"ready"),),
            required=rng.random() < 0.5,
            depends_on=tuple(sorted({f"s{rng.randrange(number)}" for _ in range(2)})) if number else (),
        )
        for number in range(size)
    )
    return Plan(
        enclosure=Enclosure("Paper"),
        ports=(Port("care", mac="52:54:00:00:00:02"),),
        zones=(Zone("workstations", "care", IPv4Interface("10.77.0.1/24")),),
        services=services,
        flows=tuple(Flow("workstations", service.name, tcp=(80,)) for service in services),
    )


def decide(plan: Plan, observed: Observed) -> float:
    """Seconds to decide everything from a plan that was only just read."""
    begin = time.perf_counter()
    outline = Outline(plan)
    turn = reconcile(outline, observed)
    waiting = {service.name: service.depends_on for service in plan.services}
    spans = timeline(outline, slots=8, duration=lambda _name: 60.0, under_way={}, waiting=waiting)
    seconds = time.perf_counter() - begin
    if len(spans) != len(plan.services) or len(turn.posture.taps) != len(plan.services):
        raise RuntimeError("a service was left out")
    return seconds


def run() -> Iterator[Figure]:
    work = {}
    for size in SIZES:
        plan = paper_plan(size)
        observed = Observed(
            now=0.0,
            power_on=0.0,
            capacity=Capacity(memory=size << 30, slots=8),
            interfaces=(Interface("care0", "52:54:00:00:00:02"),),
            disks={disk.name: DiskFacts(disk.name) for service in plan.services for disk in service.disks},
        )
        work[str(size)] = lambda plan=plan, observed=observed: decide(plan, observed)
    found = interleave(work, runs=RUNS)
    spreads = {size: Spread.of(found[str(size)]) for size in SIZES}
    for size in SIZES:
        goal = GOAL_SECONDS if size == max(SIZES) else None
        yield Figure(name=f"plan_decide_{size}", unit="s", spread=spreads[size], runs=RUNS, goal=goal)
    for small, large in itertools.pairwise(SIZES):
        allowed = large * math.log(large) / (small * math.log(small))
        growth = [big / little for big, little in zip(found[str(large)], found[str(small)], strict=True)]
        yield Figure(
            name=f"plan_growth_{small}_{large}",
            unit="times",
            spread=Spread.of(growth),
            runs=RUNS,
            against="n log n",
            against_value=allowed,
            goal=SLACK,
        )
