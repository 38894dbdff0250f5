"""The posture that should be in force: who may talk to whom, given who is ready at this moment."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Network

from cleanroomd.model.observed import Interface, MachinePhase, Observed
from cleanroomd.model.plan import UPLINK, Flow, Plan, Port, Protocol, Service, endpoints
from cleanroomd.model.posture import Allowance, PortGuard, Posture, TapGuard
from cleanroomd.restore.order import Outline

_ANYWHERE = IPv4Network("0.0.0.0/0")
_LONGEST_INTERFACE_NAME = 15  # IFNAMSIZ less its terminator, linux/if.h


def tap_name(service: str) -> str:
    """The tap of `service`: readable where the name fits, unambiguous where it does not."""
    name = f"tap-{service}"
    if len(name) <= _LONGEST_INTERFACE_NAME:
        return name
    digest = hashlib.sha256(service.encode()).hexdigest()[:5]
    return f"tap-{re.sub(r'[^a-z0-9]', '', service)[:5]}-{digest}"


def match_ports(plan: Plan, interfaces: tuple[Interface, ...]) -> Mapping[str, Interface]:
    """Port name -> the interface that plays it; a port that is absent or claimed twice is left out."""
    found = {}
    for port in plan.ports:
        candidates = [interface for interface in interfaces if _plays(port, interface)]
        if len(candidates) == 1:
            found[port.name] = candidates[0]
    return found


def _plays(port: Port, interface: Interface) -> bool:
    if port.mac is not None and interface.mac != port.mac:
        return False
    if port.path is not None and interface.path != port.path:
        return False
    return port.mac is not None or port.path is not None


def desired_posture(outline: Outline, observed: Observed, granted: frozenset[str]) -> Posture:
    """Guards for every port and every granted or running machine; flows only to services that are ready."""
    plan = outline.plan
    ports = match_ports(plan, observed.interfaces)
    guarded = {name for name in outline.services if name in granted or name in observed.machines}
    ready = {
        name
        for name, machine in observed.machines.items()
        if machine.phase is MachinePhase.RUNNING and machine.ready_at is not None
    }
    allowances = [allowance for name in guarded for allowance in probe_allowances(outline.services[name])]
    for flow in plan.flows:
        if _open(outline, flow, ready):
            allowances.extend(_flow_allowances(outline, flow, ports, guarded))
    return Posture(
        ports=tuple(_port_guard(plan, port, ports[port.name]) for port in plan.ports if port.name in ports),
        taps=tuple(_tap_guard(outline, service) for service in plan.services if service.name in guarded),
        allowances=frozenset(allowances),
    )


def _open(outline: Outline, flow: Flow, ready: set[str]) -> bool:
    """A flow to a service opens with that service; one to a zone with the service that it comes from."""
    return (flow.to if flow.to in outline.services else flow.origin) in ready


def probe_allowances(service: Service) -> Iterator[Allowance]:
    """What the enclosure itself may open to a machine, compiled from its `ready`."""
    for protocol, port in sorted(frozenset().union(*map(endpoints, service.ready))):
        yield Allowance(
            origin="",
            source=_ANYWHERE,
            target=tap_name(service.name),
            destination=IPv4Network(service.address),
            protocol=protocol,
            port=port,
            label=f"probe of {service.name}, {protocol} {port}",
        )


def _flow_allowances(
    outline: Outline, flow: Flow, ports: Mapping[str, Interface], guarded: set[str]
) -> Iterator[Allowance]:
    origin = _endpoint(outline, flow.origin, ports, guarded)
    target = _endpoint(outline, flow.to, ports, guarded)
    if origin is None or target is None:
        return
    for protocol, numbers in ((Protocol.TCP, flow.tcp), (Protocol.UDP, flow.udp)):
        for number in numbers:
            yield Allowance(
                origin=origin[0],
                source=origin[1],
                target=target[0],
                destination=target[1],
                protocol=protocol,
                port=number,
                label=f"{flow.origin} to {flow.to}, {protocol} {number}",
            )


def _endpoint(
    outline: Outline, name: str, ports: Mapping[str, Interface], guarded: set[str]
) -> tuple[str, IPv4Network] | None:
    """Interface and network of a zone or service; None where it does not exist at this moment."""
    if name in outline.services:
        service = outline.services[name]
        return (tap_name(name), IPv4Network(service.address)) if name in guarded else None
    zone = outline.plan.zone(name)
    interface = ports.get(zone.port)
    # A tagged zone has no interface of its own yet; it stays closed rather than share the untagged one.
    if interface is None or zone.vlan is not None:
        return None
    return interface.name, zone.network


def _port_guard(plan: Plan, port: Port, interface: Interface) -> PortGuard:
    addresses = tuple(zone.address for zone in plan.zones if zone.port == port.name and zone.vlan is None)
    dark = port.name == UPLINK or not addresses
    return PortGuard(
        role=port.name,
        interface=interface.name,
        mac=interface.mac,
        dark=dark,
        addresses=() if dark else addresses,
    )


def _tap_guard(outline: Outline, service: Service) -> TapGuard:
    return TapGuard(
        service=service.name,
        interface=tap_name(service.name),
        mac=service.mac,
        address=service.address,
        gateway=service.gateway,
        neighbours=outline.peers[service.name],
    )
