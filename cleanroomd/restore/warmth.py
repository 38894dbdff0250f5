"""Which services may start warm at this moment, and why the others that are staged for it start cold."""

from collections.abc import Mapping

from cleanroomd.model.observed import Observed, OverlayFacts
from cleanroomd.model.plan import Service, StartKind
from cleanroomd.restore.order import Outline

DOMAIN_CONTROLLER = "domain-controller"
"""The role that is cold only: its peers would take a directory that goes back in time for a forged one."""

WARM_TIMEOUT = 30.0
"""Seconds that a warm start may take to its first correct answer; one that works takes about one."""


def cold_causes(outline: Outline, observed: Observed) -> Mapping[str, str]:
    """Service -> "" where it may start warm, else why not, for all that the plan wants to start warm."""
    return {
        service.name: _cold_cause(observed, service)
        for service in outline.plan.services
        if service.start is StartKind.WARM
    }


def _cold_cause(observed: Observed, service: Service) -> str:
    name = service.name
    if service.role == DOMAIN_CONTROLLER:
        return "cold, since a domain controller never goes back in time"
    overlay = observed.overlays.get(name, OverlayFacts())
    if overlay.marked and overlay.opened:
        return "cold, on what care wrote"
    if name in observed.fallbacks:
        return f"cold, since its warm start came to nothing: {observed.fallbacks[name].reason}"
    state = observed.warm.get(name)
    if state is None:
        return "cold, since the vault holds no warm state of it"
    return f"cold, since its warm state cannot be used: {state.problem}" if state.problem else ""
