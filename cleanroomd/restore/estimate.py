"""How long the rest will take, from durations measured before or assumed."""

import heapq
from collections.abc import Mapping

from cleanroomd.model.observed import Observed
from cleanroomd.model.status import ServiceState
from cleanroomd.restore.judgement import Judgement
from cleanroomd.restore.order import Outline

ASSUMED_COLD = 90.0
"""Seconds from first instruction to ready for a service that was never measured."""


def remaining(outline: Outline, observed: Observed, judgement: Judgement) -> Mapping[str, float]:
    """Service -> estimated seconds until ready, for those that are on their way or waiting.

    The starts are played through with the slots and the order that the loop itself uses.
    """
    coming: dict[str, float] = {}
    events: list[tuple[float, str]] = []
    slots = max(1, observed.capacity.slots)
    for name, service in judgement.services.items():
        if service.state in (ServiceState.STARTING, ServiceState.BOOTING):
            elapsed = observed.now - service.since
            heapq.heappush(events, (max(1.0, assumed_duration(observed, name) - elapsed), name))
            slots -= 1
    waiting = {
        name: {
            other
            for other in outline.services[name].depends_on
            if judgement.services[other].state is not ServiceState.READY
        }
        for name, service in judgement.services.items()
        if service.state is ServiceState.PENDING
    }
    place = {name: index for index, name in enumerate(outline.start_order)}
    startable = [(place[name], name) for name, needs in waiting.items() if not needs]
    heapq.heapify(startable)
    now = 0.0
    while True:
        while startable and slots > 0:
            name = heapq.heappop(startable)[1]
            slots -= 1
            heapq.heappush(events, (now + assumed_duration(observed, name), name))
        if not events:
            return coming
        now, name = heapq.heappop(events)
        coming[name] = now
        slots += 1
        for dependant in outline.dependants[name]:
            needs = waiting.get(dependant)
            if needs and name in needs:
                needs.remove(name)
                if not needs:
                    heapq.heappush(startable, (place[dependant], dependant))


def assumed_duration(observed: Observed, name: str) -> float:
    """Seconds from first instruction to ready: as measured last, else assumed."""
    return observed.durations.get(name, ASSUMED_COLD)
