"""How long the rest will take, from durations measured before or assumed."""

from collections.abc import Mapping

from cleanroomd.model.observed import Observed
from cleanroomd.model.plan import StartKind
from cleanroomd.model.status import ServiceState
from cleanroomd.restore.judgement import Judgement, start_kind
from cleanroomd.restore.order import Outline
from cleanroomd.restore.timeline import timeline

ASSUMED_COLD = 90.0
"""Seconds from first instruction to ready for a service that was never measured."""
ASSUMED_WARM = 2.0
"""The same for a warm start."""
_OVERDUE = 1.0
"""What is said to be left, seconds, of a start that takes longer than the one before."""


def remaining(outline: Outline, observed: Observed, judgement: Judgement) -> Mapping[str, float]:
    """Service -> estimated seconds until ready, for those that are on their way or waiting."""
    under_way = {}
    waiting = {}
    kinds = {name: start_kind(observed, judgement.admission, name) for name in judgement.services}

    def duration(name: str) -> float:
        return assumed_duration(observed, name, kinds[name])

    for name, service in judgement.services.items():
        if service.state in (ServiceState.STARTING, ServiceState.BOOTING):
            elapsed = observed.now - service.since
            under_way[name] = max(_OVERDUE, duration(name) - elapsed)
        elif service.state is ServiceState.PENDING:
            depends_on = outline.services[name].depends_on
            states = judgement.services
            waiting[name] = [other for other in depends_on if states[other].state is not ServiceState.READY]
    spans = timeline(
        outline,
        slots=observed.capacity.slots,
        duration=duration,
        under_way=under_way,
        waiting=waiting,
        warm=[name for name, kind in kinds.items() if kind is StartKind.WARM],
    )
    return {name: span.ready for name, span in spans.items()}


def assumed_duration(observed: Observed, name: str, start: StartKind = StartKind.COLD) -> float:
    """Seconds from first instruction to ready: as measured last, else assumed."""
    if start is StartKind.WARM:
        return ASSUMED_WARM
    return observed.durations.get(name, ASSUMED_COLD)
