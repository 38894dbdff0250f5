"""The posture that should be in force: who may talk to whom, given who is ready at this moment."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

from cleanroomd.model.observed import Interface, MachineFacts, MachinePhase, Observed
from cleanroomd.model.plan import UPLINK, Flow, Plan, Port, Protocol, Service, endpoint_name, endpoints
from cleanroomd.model.posture import Allowance, PortGuard, Posture, TapGuard
from cleanroomd.restore.order import Outline

_ANYWHERE = IPv4Network("0.0.0.0/0")
_LONGEST_INTERFACE_NAME = 15  # IFNAMSIZ less its terminator, linux/if.h


def tap_name(service: str, card: str = "") -> str:
    """The tap of one card of `service`: readable where the name fits, unambiguous where it does not."""
    endpoint = endpoint_name(service, card)
    name = f"tap-{endpoint}"
    if len(name) <= _LONGEST_INTERFACE_NAME:
        return name
    digest = hashlib.sha256(endpoint.encode()).hexdigest()[:5]
    return f"tap-{re.sub(r'[^a-z0-9]', '', service)[:5]}-{digest}"


def planned_guards(outline: Outline, service: Service) -> tuple[TapGuard, ...]:
    """One guard for each network card, the first one first."""
    return tuple(
        TapGuard(
            service=service.name,
            interface=tap_name(service.name, card.name),
            mac=card.mac,
            address=card.address,
            gateway=card.gateway,
            neighbours=outline.peers[endpoint_name(service.name, card.name)],
        )
        for card in service.cards
    )


def guards(outline: Outline, observed: Observed, name: str) -> tuple[TapGuard, ...]:
    """As planned; for a machine that runs, with the addresses that it really has, and only the plan's neighbours."""
    service = outline.services.get(name)
    planned = () if service is None else planned_guards(outline, service)
    machine = observed.machines.get(name)
    if machine is None or machine.made is None:
        return planned
    neighbours = {guard.interface: guard.neighbours for guard in planned}
    return tuple(replace(guard, neighbours=neighbours.get(guard.interface, ())) for guard in machine.made.guards)


def address_of(machine: MachineFacts | None, service: Service) -> IPv4Address:
    """Where `service` is to be probed: the first address of its machine, if there is one, else the plan's."""
    if machine is None or machine.made is None or not machine.made.guards:
        return service.address
    return machine.made.guards[0].address


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
    guarded = [name for name in outline.services if name in granted or name in observed.machines]
    guarded += sorted(name for name in observed.machines if name not in outline.services)
    taps = [guard for name in guarded for guard in guards(outline, observed, name)]
    cards = _cards(outline, {tap.interface: tap for tap in taps})
    ready = {
        name
        for name, machine in observed.machines.items()
        if machine.phase is MachinePhase.RUNNING and machine.ready_at is not None
    }
    allowances = [
        allowance
        for name in guarded
        if (service := outline.services.get(name)) is not None
        for allowance in probe_allowances(service, address_of(observed.machines.get(name), service))
    ]
    for flow in plan.flows:
        if _open(outline, flow, ready):
            allowances.extend(_flow_allowances(outline, flow, ports, cards))
    return Posture(
        ports=tuple(_port_guard(plan, port, ports[port.name]) for port in plan.ports if port.name in ports),
        taps=tuple(taps),
        allowances=frozenset(allowances),
    )


def _cards(outline: Outline, taps: Mapping[str, TapGuard]) -> Mapping[str, TapGuard]:
    """Network card, as flows call it -> its guard, for those that exist at this moment."""
    names = {name: tap_name(service.name, card.name) for name, (service, card) in outline.cards.items()}
    return {name: taps[interface] for name, interface in names.items() if interface in taps}


def _open(outline: Outline, flow: Flow, ready: set[str]) -> bool:
    """A flow to a service opens with that service; one to a zone with the service that it comes from."""
    owner = outline.cards.get(flow.to) or outline.cards[flow.origin]
    return owner[0].name in ready


def probe_allowances(service: Service, address: IPv4Address) -> Iterator[Allowance]:
    """What the enclosure itself may open to a machine at `address`, compiled from its `ready`."""
    for protocol, port in sorted(frozenset().union(*map(endpoints, service.ready))):
        yield Allowance(
            origin="",
            source=_ANYWHERE,
            target=tap_name(service.name),
            destination=IPv4Network(address),
            protocol=protocol,
            port=port,
            label=f"probe of {service.name}, {protocol} {port}",
        )


def _flow_allowances(
    outline: Outline, flow: Flow, ports: Mapping[str, Interface], cards: Mapping[str, TapGuard]
) -> Iterator[Allowance]:
    origin = _endpoint(outline, flow.origin, ports, cards)
    target = _endpoint(outline, flow.to, ports, cards)
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
    outline: Outline, name: str, ports: Mapping[str, Interface], cards: Mapping[str, TapGuard]
) -> tuple[str, IPv4Network] | None:
    """Interface and network of a zone or network card; None where it does not exist at this moment."""
    if name in outline.cards:
        guard = cards.get(name)
        return None if guard is None else (guard.interface, IPv4Network(guard.address))
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
