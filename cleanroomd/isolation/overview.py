"""Who may talk to whom at this moment, and what was denied, in words; pure but for the counters that it is given."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from cleanroomd.isolation.counts import DeniedFlow
from cleanroomd.isolation.endpoints import Permission, Scene, words
from cleanroomd.isolation.policy import guard_name
from cleanroomd.isolation.ruleset import HookPoint, Tally
from cleanroomd.model.posture import Allowance, Proof
from cleanroomd.model.verification import Denied, IsolationView

NAMED_FLOWS = 50


@dataclass(frozen=True, slots=True)
class Counted:
    """What the kernel has counted; all of it empty when it cannot be read."""

    guards: Mapping[str, int] = field(default_factory=dict)
    """Chain -> packets that it dropped."""
    pairs: Mapping[tuple[str, str], Tally] = field(default_factory=dict)
    flows: Mapping[DeniedFlow, Tally] = field(default_factory=dict)
    passed: Mapping[Allowance, Tally] = field(default_factory=dict)
    foreign_tables: frozenset[str] = frozenset()


def overview(scene: Scene, proof: Proof | None, problem: str, counted: Counted) -> IsolationView:
    by_permission: dict[tuple[object, ...], int] = {}
    for allowance, tally in counted.passed.items():
        key = (allowance.origin, allowance.source, allowance.target, allowance.destination)
        by_permission[key] = by_permission.get(key, 0) + tally.packets

    def passed(each: Permission) -> int:
        return by_permission.get((each.origin, each.source, each.target, each.destination), 0)

    return IsolationView(
        proven=proof is not None,
        problem=problem,
        generation=proof.generation if proof else None,
        endpoints=tuple(endpoint.view() for endpoint in scene.endpoints),
        relations=scene.relations(passed),
        denied=tuple(_denied(scene, counted)),
        foreign_tables=tuple(sorted(counted.foreign_tables)),
    )


def _denied(scene: Scene, counted: Counted) -> Iterator[Denied]:
    places = _places(scene)
    found = []
    for interface, place in places.items():
        if interface:
            entrance = counted.guards.get(guard_name(HookPoint.INGRESS, interface), 0)
            found.append(Denied(f"from {place}, at its guard: not in its own name, or not IPv4", entrance))
            gate = counted.guards.get(guard_name(HookPoint.EGRESS, interface), 0)
            found.append(Denied(f"to {place}, at its gate: past the rules", gate))
    for (origin, target), tally in counted.pairs.items():
        pair = f"from {places.get(origin, origin)} to {places.get(target, target)}"
        found.append(Denied(pair, tally.packets))
    yield from sorted((each for each in found if each.packets), key=lambda each: (-each.packets, each.what))
    flows = sorted(counted.flows.items(), key=lambda item: (-item[1].packets, item[0]))
    for flow, tally in flows[:NAMED_FLOWS]:
        port = f" {flow.port}" if flow.port else ""
        asked = f"{words(flow.protocol)}{port} from {flow.source} to {flow.destination}"
        yield Denied(f"connection {asked}", tally.packets)


def _places(scene: Scene) -> Mapping[str, str]:
    """Interface -> who is behind it, "" for the enclosure."""
    found: dict[str, str] = {}
    for endpoint in scene.endpoints:
        there = found.get(endpoint.interface)
        found[endpoint.interface] = f"{there} or {endpoint.name}" if there else endpoint.name
    return found
