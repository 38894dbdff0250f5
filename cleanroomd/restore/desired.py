"""The posture that should be in force: who may talk to whom, given who is ready at this moment."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

from cleanroomd.model.observed import Interface, MachineFacts, MachinePhase, Observed
from cleanroomd.model.plan import UPLINK, Flow, Plan, Port, Protocol, Service, Zone, endpoint_name, endpoints
from cleanroomd.model.posture import Allowance, PortGuard, Posture, TapGuard
from cleanroomd.model.status import PortState
from cleanroomd.restore.leases import lit, passages
from cleanroomd.restore.order import Outline
from cleanroomd.restore.quarantine import judge_ports, match_ports

_ANYWHERE = IPv4Network("0.0.0.0/0")
ZONE_LINK = "vlan"
"""What the name of every sub-interface begins with, followed by its tag."""
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


def zone_link(port: str, vlan: int) -> str:
    """The sub-interface of the zones with one tag on one port: readable where the name fits, as `tap_name`."""
    name = f"{ZONE_LINK}{vlan}-{port}"
    if len(name) <= _LONGEST_INTERFACE_NAME:
        return name
    return f"{ZONE_LINK}{vlan}-{hashlib.sha256(port.encode()).hexdigest()[:6]}"


def zone_links(plan: Plan, ports: Mapping[str, Interface]) -> Mapping[str, tuple[Interface, int, tuple[Zone, ...]]]:
    """Every sub-interface that should be there -> the interface below it, its tag, and the zones on it."""
    found: dict[str, tuple[Interface, int, tuple[Zone, ...]]] = {}
    for zone in plan.zones:
        if zone.vlan is not None and zone.port in ports:
            name = zone_link(zone.port, zone.vlan)
            before = found[name][2] if name in found else ()
            found[name] = (ports[zone.port], zone.vlan, (*before, zone))
    return found


def is_zone_link(interface: Interface, parent: Interface, vlan: int) -> bool:
    """Whether a link of the right name is the right one."""
    return (interface.parent, interface.vlan) == (parent.name, vlan)


def desired_posture(outline: Outline, observed: Observed, granted: frozenset[str]) -> Posture:
    """Guards for every port and every granted or running machine; flows only to services that are ready."""
    plan = outline.plan
    ports = match_ports(plan, observed.interfaces)
    port_guards = tuple(_port_guards(plan, observed, ports))
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
    zones = _zone_interfaces(plan, port_guards)
    for flow in plan.flows:
        if _open(outline, flow, ready):
            allowances.extend(_flow_allowances(outline, flow, zones, cards))

    def connecting(name: str) -> tuple[str, IPv4Network] | None:
        """A machine once it is ready, as for flows; a zone while its port is open."""
        waits = name in outline.cards and outline.cards[name][0].name not in ready
        return None if waits else _endpoint(outline, name, zones, cards)

    opened = frozenset(passages(outline, observed, ports.get(UPLINK), connecting))
    return Posture(
        ports=tuple(lit(guard, plan, opened) for guard in port_guards),
        taps=tuple(taps),
        allowances=frozenset(allowances),
        passages=opened,
    )


def _cards(outline: Outline, taps: Mapping[str, TapGuard]) -> Mapping[str, TapGuard]:
    """Network card, as flows call it -> its guard, for those that exist at this moment."""
    names = {name: tap_name(service.name, card.name) for name, (service, card) in outline.cards.items()}
    return {name: taps[interface] for name, interface in names.items() if interface in taps}


def _open(outline: Outline, flow: Flow, ready: set[str]) -> bool:
    """A flow to a service opens with that service; one to a zone with the service that it comes from, if any."""
    owner = outline.cards.get(flow.to) or outline.cards.get(flow.origin)
    return owner is None or owner[0].name in ready


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
    outline: Outline, flow: Flow, zones: Mapping[str, str], cards: Mapping[str, TapGuard]
) -> Iterator[Allowance]:
    origin = _endpoint(outline, flow.origin, zones, cards)
    target = _endpoint(outline, flow.to, zones, cards)
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
    outline: Outline, name: str, zones: Mapping[str, str], cards: Mapping[str, TapGuard]
) -> tuple[str, IPv4Network] | None:
    """Interface and network of a zone or network card; None where it does not exist at this moment."""
    if name in outline.cards:
        guard = cards.get(name)
        return None if guard is None else (guard.interface, IPv4Network(guard.address))
    interface = zones.get(name)
    return None if interface is None else (interface, outline.plan.zone(name).network)


def _zone_interfaces(plan: Plan, port_guards: tuple[PortGuard, ...]) -> Mapping[str, str]:
    """Zone -> the interface that it is open on; a zone that is closed is left out."""
    served = {(guard.role, address): guard.interface for guard in port_guards for address in guard.addresses}
    return {zone.name: served[zone.port, zone.address] for zone in plan.zones if (zone.port, zone.address) in served}


def _port_guards(plan: Plan, observed: Observed, ports: Mapping[str, Interface]) -> Iterator[PortGuard]:
    """Each port, then the sub-interfaces of its tagged zones, which are open exactly when the port is."""
    judged = judge_ports(plan, observed)
    there = {interface.name: interface for interface in observed.interfaces}
    links = {
        name: (parent, vlan, zones)
        for name, (parent, vlan, zones) in zone_links(plan, ports).items()
        if name in there and is_zone_link(there[name], parent, vlan)
    }
    for port in plan.ports:
        if port.name not in ports:
            continue
        interface = ports[port.name]
        opens = port.name in judged and judged[port.name].state is PortState.OPEN
        yield PortGuard(
            role=port.name,
            interface=interface.name,
            mac=interface.mac,
            dark=not opens,
            addresses=tuple(zone.address for zone in plan.zones if _untagged_on(zone, port)) if opens else (),
            quarantined=port.name in judged and not opens,
            tags=tuple(sorted(vlan for parent, vlan, _ in links.values() if parent is interface)) if opens else (),
        )
        for name, (parent, _, zones) in links.items():
            if parent is interface:
                addresses = tuple(zone.address for zone in zones) if opens else ()
                yield PortGuard(port.name, name, there[name].mac, dark=not opens, addresses=addresses)


def _untagged_on(zone: Zone, port: Port) -> bool:
    return zone.port == port.name and zone.vlan is None
