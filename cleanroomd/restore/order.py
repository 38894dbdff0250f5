"""The order in which services come back: who depends on whom, and who is served first."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Network

from cleanroomd.model.plan import Card, Plan, Service, endpoint_name


def definition(service: Service) -> str:
    """Digest of all that a machine is made from: where two differ, the one that runs is not what the plan describes."""
    made_from = (
        *(service.cards, service.memory, service.cpus, service.disks, service.firmware, service.controller),
        *(service.start, service.role, service.guest_agent),
    )
    return hashlib.sha256(repr(made_from).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Outline:
    """A plan with everything derived from it that does not change while it is in force."""

    plan: Plan

    @cached_property
    def services(self) -> Mapping[str, Service]:
        return {service.name: service for service in self.plan.services}

    @cached_property
    def definitions(self) -> Mapping[str, str]:
        """Service -> `definition`."""
        return {service.name: definition(service) for service in self.plan.services}

    @cached_property
    def cards(self) -> Mapping[str, tuple[Service, Card]]:
        """What a flow may call a network card -> the card, and whose it is."""
        return {
            endpoint_name(service.name, card.name): (service, card)
            for service in self.plan.services
            for card in service.cards
        }

    @cached_property
    def dependants(self) -> Mapping[str, tuple[str, ...]]:
        """Service -> those that directly depend on it, in plan order."""
        found: dict[str, list[str]] = {service.name: [] for service in self.plan.services}
        for service in self.plan.services:
            for name in service.depends_on:
                found[name].append(service.name)
        return {name: tuple(names) for name, names in found.items()}

    @cached_property
    def topological(self) -> tuple[str, ...]:
        """Every service after all that it depends on; plan order among equals."""
        missing = {service.name: len(service.depends_on) for service in self.plan.services}
        ready = [name for name, count in missing.items() if count == 0]
        for name in ready:
            for dependant in self.dependants[name]:
                missing[dependant] -= 1
                if missing[dependant] == 0:
                    ready.append(dependant)
        return tuple(ready)

    @cached_property
    def effective_priority(self) -> Mapping[str, int]:
        """The lowest number among a service and all that depend on it, directly or not."""
        found = {service.name: service.priority for service in self.plan.services}
        for name in reversed(self.topological):
            for dependency in self.services[name].depends_on:
                found[dependency] = min(found[dependency], found[name])
        return found

    @cached_property
    def peers(self) -> Mapping[str, tuple[IPv4Network, ...]]:
        """Network card, as in `cards` -> the networks of all that a flow, in either direction, or a window leads to."""
        zones = {zone.name: zone.network for zone in self.plan.zones}
        found: dict[str, set[IPv4Network]] = {name: set() for name in self.cards}
        for flow in self.plan.flows:
            for name, other in ((flow.origin, flow.to), (flow.to, flow.origin)):
                if name in found:
                    peer = self.cards.get(other)
                    found[name].add(zones[other] if peer is None else IPv4Network(peer[1].address))
        for window in self.plan.windows:
            if window.origin in found:
                found[window.origin].add(IPv4Network(window.to))
        return {name: tuple(sorted(networks)) for name, networks in found.items()}

    @cached_property
    def essential(self) -> frozenset[str]:
        """The required services with everything that they depend on, directly or not."""
        found = {service.name for service in self.plan.services if service.required}
        for name in reversed(self.topological):
            if name in found:
                found.update(self.services[name].depends_on)
        return frozenset(found)

    @cached_property
    def start_order(self) -> tuple[str, ...]:
        """Who takes a free cold-start slot first: effective priority, then plan order."""
        place = {service.name: index for index, service in enumerate(self.plan.services)}
        return tuple(sorted(place, key=lambda name: (self.effective_priority[name], place[name])))

    @cached_property
    def memory_order(self) -> tuple[str, ...]:
        """Who is given memory first; what a service depends on always stands before it."""
        depth = {name: index for index, name in enumerate(self.topological)}
        return tuple(
            sorted(
                depth,
                key=lambda name: (name not in self.essential, self.effective_priority[name], depth[name]),
            )
        )

    def needed_by(self, names: Iterable[str]) -> frozenset[str]:
        """`names` with everything that depends on them, directly or not."""
        found = set(names)
        for name in self.topological:
            if found.intersection(self.services[name].depends_on):
                found.add(name)
        return frozenset(found)

    def needs_of(self, names: Iterable[str]) -> frozenset[str]:
        """`names` with everything that they depend on, directly or not."""
        found = set(names)
        for name in reversed(self.topological):
            if name in found:
                found.update(self.services[name].depends_on)
        return frozenset(found)
