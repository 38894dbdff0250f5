"""How long the rest will take, from durations measured before or assumed."""

from collections.abc import Mapping

from cleanroomd.model.observed import Observed
from cleanroomd.model.status import ServiceState
from cleanroomd.restore.judgement import Judgement
from cleanroomd.restore.order import Outline
from cleanroomd.restore.timeline import timeline

ASSUMED_COLD = 90.0
"""Seconds from first instruction to ready for a service that was never measured."""
_OVERDUE = 1.0
"""What is said to be left, seconds, of a start that takes longer than the one before."""


def remaining(outline: Outline, observed: Observed, judgement: Judgement) -> Mapping[str, float]:
    """Service -> estimated seconds until ready, for those that are on their way or waiting."""
    under_way = {}
    waiting = {}
    for name, service in judgement.services.items():
        if service.state in (ServiceState.STARTING, ServiceState.BOOTING):
            elapsed = observed.now - service.since
            under_way[name] = max(_OVERDUE, assumed_duration(observed, name) - elapsed)
        elif service.state is ServiceState.PENDING:
            depends_on = outline.services[name].depends_on
            states = judgement.services
            waiting[name] = [other for other in depends_on if states[other].state is not ServiceState.READY]
    spans = timeline(
        outline,
        slots=observed.capacity.slots,
        duration=lambda name: assumed_duration(observed, name),
        under_way=under_way,
        waiting=waiting,
    )
    return {name: span.ready for name, span in spans.items()}


def assumed_duration(observed: Observed, name: str) -> float:
    """Seconds from first instruction to ready: as measured last, else assumed."""
    return observed.durations.get(name, ASSUMED_COLD)
