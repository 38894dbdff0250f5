"""What is, gathered afresh for every round."""

import os
from collections.abc import Mapping
from pathlib import Path

from cleanroomd.clock import now
from cleanroomd.engine.effects import Effects
from cleanroomd.engine.isolating import links_in_sight
from cleanroomd.engine.journal import Event
from cleanroomd.machine.arguments import OVERHEAD
from cleanroomd.machine.crisis import CrisisStore
from cleanroomd.model.observed import Capacity, Observed
from cleanroomd.model.plan import Plan
from cleanroomd.model.steps import Step
from cleanroomd.vault.catalog import Catalog

_KEPT_FOR_THE_ENCLOSURE = 512 << 20


def measure_capacity(accelerator: str, machines_hold: int) -> Capacity:
    """Memory and start slots for all machines; `machines_hold` bytes are theirs already.

    Measured once per daemon: a figure that moves with every page would make services come and go.
    """
    free = _available_memory() + machines_hold - _KEPT_FOR_THE_ENCLOSURE
    return Capacity(memory=max(0, free), slots=len(os.sched_getaffinity(0)), overhead=OVERHEAD[accelerator])


def _available_memory() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("the kernel names no MemAvailable")


def observe(effects: Effects, capacity: Capacity, *, power_on: float, busy: Mapping[str, Step]) -> Observed:
    """Look at everything; nothing is remembered from the round before but what the effects hold themselves."""
    isolation = effects.isolation
    isolation.check()
    for line in isolation.denials():
        effects.journal.record(Event.ISOLATION, line)
    ports, taps = links_in_sight()
    effects.launcher.look_at_taps()
    return Observed(
        now=now(),
        power_on=power_on,
        capacity=capacity,
        interfaces=ports,
        heard=effects.listening.attend(effects.outline, ports),
        zone_problems=dict(isolation.zone_problems),
        taps=taps,
        proof=isolation.proof,
        isolation_problem=isolation.problem or isolation.guard.breach,
        rules_retry_at=isolation.retry_at,
        foreign_changes=isolation.foreign_changes,
        leases=dict(effects.record.leases),
        deadline=isolation.deadline,
        deadline_retry_at=isolation.deadline_retry_at,
        drill=effects.drill,
        alarms=isolation.guard.alarms.newest,
        disks=effects.storage.newest.disks,
        overlays=effects.storage.newest.overlays,
        fallbacks=dict(effects.record.fallbacks),
        machines=effects.launcher.facts(),
        probes=dict(effects.answers),
        watched=effects.probes.watched(),
        failures=dict(effects.record.failures),
        intents=dict(effects.record.intents),
        busy=dict(busy),
        durations=dict(effects.record.durations),
    )


def look_only(plan: Plan, catalog: Catalog, crisis: CrisisStore, capacity: Capacity) -> Observed:
    """What a daemon would find at power-on, without a lock, a socket or a file of its own."""
    ports, _ = links_in_sight()
    return Observed(
        now=now(),
        power_on=now(),
        capacity=capacity,
        interfaces=ports,
        disks={disk.name: catalog.disk(disk.name).facts for service in plan.services for disk in service.disks},
        overlays=crisis.facts(service.name for service in plan.services),
    )
