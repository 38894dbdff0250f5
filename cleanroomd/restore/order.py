"""The order in which services come back: who depends on whom, and who is served first."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Network

from cleanroomd.model.plan import Plan, Service


@dataclass(frozen=True)
class Outline:
    """A plan with everything derived from it that does not change while it is in force."""

    plan: Plan

    @cached_property
    def services(self) -> Mapping[str, Service]:
        return {service.name: service for service in self.plan.services}

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
        """Service -> the networks of all that a flow connects it with, in either direction."""
        zones = {zone.name: zone.network for zone in self.plan.zones}
        found: dict[str, set[IPv4Network]] = {service.name: set() for service in self.plan.services}
        for flow in self.plan.flows:
            for name, other in ((flow.origin, flow.to), (flow.to, flow.origin)):
                if name in found:
                    service = self.services.get(other)
                    found[name].add(zones[other] if service is None else IPv4Network(service.address))
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
