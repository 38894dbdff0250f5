"""What must fit together in a plan: names, addresses, disks, dependencies, zones, flows and windows.

Pure, and complete for drafts: one wrong value hides no problem of another.
"""

from bisect import bisect_right
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network

from cleanroomd.model.plan import UPLINK, Controller, endpoint_name
from cleanroomd.plan.cycles import cycles
from cleanroomd.plan.drafts import Draft, PortDraft, ServiceDraft, ZoneDraft
from cleanroomd.plan.problems import Finding, Loc, Suggester, printable, quote

PORTS_OF_A_FLOW = 1_024
"""Enough for a server whose dynamic ports were narrowed; a flow of every port isolates nothing."""
PORTS_OF_A_PLAN = 100_000
"""What takes a few seconds to put in force and to prove."""


def cross_findings(plan: Draft) -> list[Finding]:
    suggest = Suggester()
    return [
        *_ports(plan),
        *_zones(plan, suggest),
        *_networks(plan),
        *_service_names(plan),
        *_services(plan),
        *_unique(plan),
        *_addresses(plan),
        *_dependencies(plan, suggest),
        *_flows(plan, suggest),
        *_windows(plan, suggest),
    ]


def _ports(plan: Draft) -> Iterator[Finding]:
    seen: dict[str, str] = {}
    for port in plan.ports:
        loc: Loc = ("ports", port.name)
        for key, value in (("path", port.path), ("mac", port.mac)):
            other = seen.setdefault(f"{key} {value}", port.name) if value else port.name
            if other != port.name:
                yield Finding(
                    (*loc, "match", key),
                    f"{quote(value)} is also the match of port {quote(other)}; each port has its own",
                )
        if port.name == UPLINK:
            yield from _uplink(port)
        elif port.has_address or port.gateway:
            key = "address" if port.has_address else "gateway"
            yield Finding(
                (*loc, key),
                "only the uplink has its address here; give it to a [zones.NAME] with this port instead",
            )


def _uplink(port: PortDraft) -> Iterator[Finding]:
    loc: Loc = ("ports", port.name, "gateway")
    if port.gateway and not port.has_address:
        yield Finding(loc, 'is of no use without an address; write for example address = "192.168.40.5/24"')
    elif port.gateway and port.address and port.gateway not in port.address.network:
        yield Finding(loc, f"{port.gateway} is not in the uplink's network {port.address.network}; correct one of them")
    elif port.gateway and port.address and port.gateway == port.address.ip:
        yield Finding(loc, f"{port.gateway} is the enclosure's own address; write the hospital's gateway")


def _zones(plan: Draft, suggest: Suggester) -> Iterator[Finding]:
    ports = {port.name for port in plan.ports}
    handing_out: dict[object, str] = {}
    for zone in plan.zones:
        loc: Loc = ("zones", zone.name)
        if zone.name == UPLINK:
            yield Finding(loc, f'the name "{UPLINK}" is reserved for the port; give the zone another name')
        if zone.port == UPLINK:
            yield Finding(
                (*loc, "port"),
                "no zone can be behind the uplink; name a care port, and declare a [[window]] to go out",
            )
        elif zone.port is not None and zone.port not in ports:
            meant = suggest(zone.port, ports - {UPLINK}) or "; declare it in [ports.NAME]"
            yield Finding((*loc, "port"), f"{quote(zone.port)} is no port{meant}")
        if zone.dhcp:
            yield from _dhcp(zone, zone.dhcp)
            other = handing_out.setdefault((zone.port, str(zone.vlan)), zone.name)
            if zone.port is not None and other != zone.name:
                yield Finding(
                    (*loc, "dhcp"),
                    f"zone {quote(other)} hands out addresses on the same port and VLAN; "
                    "keep one of the two ranges, or give one zone another VLAN",
                )


def _dhcp(zone: ZoneDraft, dhcp: tuple[IPv4Address, IPv4Address]) -> Iterator[Finding]:
    first, last = dhcp
    loc: Loc = ("zones", zone.name, "dhcp")
    if first > last:
        yield Finding(loc, f"begins at {first}, after its end {last}; exchange from and to")
        return
    if not zone.address:
        return
    network = zone.address.network
    if first <= network.network_address or last >= network.broadcast_address:
        yield Finding(
            loc,
            f"{first} to {last} is not within the zone's network {network}; "
            f"write addresses from {network[1]} to {network[-2]}",
        )
    elif first <= zone.address.ip <= last:
        yield Finding(loc, f"includes the enclosure's own address {zone.address.ip}; leave that one out")


def _networks(plan: Draft) -> Iterator[Finding]:
    """Networks that overlap: the kernel would send packets for both to one of them."""
    for network, loc, label, other, other_label in _overlaps(plan):
        yield Finding(loc, f"{network} overlaps {other} of {other_label}; give {label} a network of its own")


def _overlaps(plan: Draft) -> Iterator[tuple[IPv4Network, Loc, str, IPv4Network, str]]:
    rows = [
        (port.address.network, ("ports", UPLINK, "address"), "the uplink")
        for port in plan.ports
        if port.name == UPLINK and port.address
    ]
    rows += [
        (zone.address.network, ("zones", zone.name, "address"), f"zone {quote(zone.name)}")
        for zone in plan.zones
        if zone.address
    ]
    # In this order every network that holds another comes before it, and nothing disjoint lies between them.
    rows.sort(key=lambda row: (row[0].network_address, row[0].prefixlen))
    widest = None
    for row in rows:
        if widest and row[0].subnet_of(widest[0]):
            yield *row, widest[0], widest[2]
        else:
            widest = row


def _service_names(plan: Draft) -> Iterator[Finding]:
    ports = {port.name for port in plan.ports}
    zones = {zone.name for zone in plan.zones}
    seen: dict[str, int] = {}
    for service in plan.services:
        name = service.name
        if name is None:
            continue
        loc: Loc = ("service", service.index, "name")
        first = seen.setdefault(name, service.index)
        if first != service.index:
            yield Finding(
                loc,
                f"{quote(name)} is also the name of service[{first}]; give each service a name of its own",
            )
        elif name in zones:
            yield Finding(loc, f"{quote(name)} is also the name of a zone; flows could mean either, so rename one")
        elif name in ports or name == UPLINK:
            yield Finding(loc, f"{quote(name)} is the name of a port; give the service another name")


def _services(plan: Draft) -> Iterator[Finding]:
    for service in plan.services:
        loc: Loc = ("service", service.index)
        if service.memory and service.memory_min and service.memory_min > service.memory:
            yield Finding((*loc, "memory_min"), "is more than memory; write at most as much, or leave it out")
        yield from _cards(service)
        if service.controller and len(service.disks) > service.controller.most_disks:
            yield _too_many_disks(loc, len(service.disks), service.controller)
        if service.warm_controller:
            yield Finding(
                (*loc, "start"),
                'a domain controller must not go back in time, so it starts cold only; write start = "cold"',
            )
        for index in service.agentless:
            yield Finding(
                (*loc, "ready", index),
                "asks a guest agent that the machine is not said to have; write guest_agent = true in the service if "
                "it is installed there, else another probe",
            )


def _cards(service: ServiceDraft) -> Iterator[Finding]:
    seen: set[str] = set()
    for card in service.cards:
        if card.gateway and card.gateway == card.address:
            whose = "the card's" if card.name else "the service's"
            yield Finding((*card.loc, "gateway"), f"{card.gateway} is {whose} own address; write its gateway's")
        if card.name and card.name in seen:
            yield Finding(
                (*card.loc, "name"), f"{quote(card.name)} is the name of another card of it; give each its own"
            )
        seen.add(card.name or "")
    slots = len(service.disks) + len(service.cards) - 1
    if service.controller is Controller.VIRTIO and len(service.disks) <= Controller.VIRTIO.most_disks < slots:
        yield Finding(
            ("service", service.index, "nics"),
            f"are too many beside {len(service.disks)} disks: {Controller.VIRTIO.most_disks} fit together; "
            f'write controller = "scsi" if the system has a driver for it',
        )


def _too_many_disks(loc: Loc, disks: int, controller: Controller) -> Finding:
    roomier = [other for other in Controller if other.most_disks >= disks]
    way_out = "join some of them before they are imported"
    if roomier:
        least = min(roomier, key=lambda other: other.most_disks)
        way_out = f'write controller = "{least}" if the system has a driver for it, or {way_out}'
    most = controller.most_disks
    return Finding((*loc, "disks"), f'are more than the {most} that fit on controller "{controller}"; {way_out}')


def _unique(plan: Draft) -> Iterator[Finding]:
    """MAC addresses and disks that two machines would share."""
    macs: dict[str, int] = {}
    disks: dict[str, int] = {}
    for service in plan.services:
        loc: Loc = ("service", service.index)
        own: dict[str, str | None] = {}
        for card in service.cards:
            if not card.mac:
                continue
            first = macs.setdefault(card.mac, service.index)
            if card.mac in own and own[card.mac] != card.name:
                yield Finding((*card.loc, "mac"), f"{card.mac} is also the MAC of another card of it; each has its own")
            # Services of one name derive one MAC; their name is the problem.
            elif first != service.index and not _same_name(plan, service, first):
                yield Finding(
                    (*card.loc, "mac"),
                    f"{card.mac} is also the MAC of {_who(plan, first)}; every machine needs its own",
                )
            own.setdefault(card.mac, card.name)
        for index, disk in service.disks:
            spot: Loc = (*loc, "disks", index)
            if disk not in disks:
                disks[disk] = service.index
            elif disks[disk] == service.index:
                yield Finding(spot, f"{quote(disk)} is listed twice; remove one of the two")
            else:
                yield Finding(
                    spot,
                    f"{quote(disk)} is already a disk of {_who(plan, disks[disk])}; two machines never share a disk",
                )


def _addresses(plan: Draft) -> Iterator[Finding]:
    """Services whose addresses are those of another machine, of the enclosure, or of a zone's equipment."""
    own = {zone.address.ip: f"zone {quote(zone.name)}" for zone in plan.zones if zone.address}
    own |= {port.address.ip: "the uplink" for port in plan.ports if port.name == UPLINK and port.address}
    zones: list[tuple[IPv4Network, str]] = []
    for network, name in sorted((zone.address.network, zone.name) for zone in plan.zones if zone.address):
        if not zones or not network.subnet_of(zones[-1][0]):
            zones.append((network, name))
    starts = [network.network_address for network, _ in zones]
    seen: dict[IPv4Address, tuple[int, Loc]] = {}
    cards = [(service, card, card.address) for service in plan.services for card in service.cards if card.address]
    for service, card, address in cards:
        loc: Loc = (*card.loc, "address")
        first, place = seen.setdefault(address, (service.index, card.loc))
        before = bisect_right(starts, address) - 1
        if first == service.index and place != card.loc:
            yield Finding(loc, f"{address} is also the address of another card of it; each has its own")
        elif first != service.index:
            yield Finding(loc, f"{address} is also the address of {_who(plan, first)}; every machine needs its own")
        elif address in own:
            yield Finding(loc, f"{address} is the enclosure's own address on {own[address]}; change one of the two")
        elif before >= 0 and address in zones[before][0]:
            network, zone = zones[before]
            yield Finding(
                loc,
                f"{address} is in the network {network} of zone {quote(zone)}, whose equipment would "
                "look for it behind the port; give the zone another network",
            )


def _dependencies(plan: Draft, suggest: Suggester) -> Iterator[Finding]:
    by_name: dict[str, int] = {}
    for position, service in enumerate(plan.services):
        if service.name is not None:
            by_name.setdefault(service.name, position)
    zones = {zone.name for zone in plan.zones}
    edges: list[list[int]] = []
    for service in plan.services:
        loc: Loc = ("service", service.index, "depends_on")
        known: dict[int, None] = {}
        for index, name in service.depends_on:
            if name in by_name:
                known[by_name[name]] = None
            else:
                what = "a zone, no service" if name in zones else "no service"
                meant = suggest(name, by_name) or "; declare it in a [[service]], or remove it here"
                yield Finding(loc, f"{quote(name)} is {what}{meant}", (*loc, index))
        edges.append(list(known))
    for cycle, others in cycles(edges):
        yield _cycle([plan.services[member] for member in cycle], [plan.services[member] for member in others])


def _cycle(members: list[ServiceDraft], others: list[ServiceDraft]) -> Finding:
    names = [quote(member.name) for member in members]
    loc: Loc = ("service", members[0].index, "depends_on")
    if len(names) == 1:
        message = f"{names[0]} depends on itself and could never start; remove it here"
    else:
        circle = " needs ".join([*names, names[0]])
        message = f"none of these could ever start: {circle}; remove one of these dependencies"
    if others:
        message += f" (in circles with them: {', '.join(quote(other.name) for other in others)})"
    return Finding(loc, message)


def _flows(plan: Draft, suggest: Suggester) -> Iterator[Finding]:
    ends = _Ends(plan, suggest)
    for flow in plan.flows:
        loc: Loc = ("flow", flow.index)
        for key, name in (("from", flow.origin), ("to", flow.to)):
            if name == UPLINK:
                yield Finding(
                    (*loc, key),
                    f'"{UPLINK}" cannot be in a flow; declare a [[window]] and open it with a lease',
                )
            elif name is not None and (problem := ends.problem(name)):
                yield Finding((*loc, key), problem)
        if flow.origin is not None and flow.origin == flow.to and flow.to != UPLINK:
            yield Finding((*loc, "to"), f"{quote(flow.to)} is where the flow comes from; name its other end")
        if flow.openings > PORTS_OF_A_FLOW:
            yield Finding(
                loc,
                f"opens {flow.openings} ports, which keeps next to nothing apart; name the {PORTS_OF_A_FLOW} at most "
                "that the service listens on, and narrow its range of dynamic ports if it has one",
            )
    openings = sum(flow.openings for flow in plan.flows)
    if openings > PORTS_OF_A_PLAN:
        yield Finding(
            ("flow",), f"all flows together open {openings} ports; {PORTS_OF_A_PLAN} at most can be proven in time"
        )


def _windows(plan: Draft, suggest: Suggester) -> Iterator[Finding]:
    ends = _Ends(plan, suggest)
    uplink = next((port for port in plan.ports if port.name == UPLINK), None)
    seen: dict[str, int] = {}
    for window in plan.windows:
        loc: Loc = ("window", window.index)
        if window.name is not None and (first := seen.setdefault(window.name, window.index)) != window.index:
            yield Finding(
                (*loc, "name"), f"{quote(window.name)} is also the name of window[{first}]; give each its own"
            )
        if window.origin == UPLINK:
            yield Finding(
                (*loc, "from"),
                "a window opens towards the uplink, never from it; name the service that connects",
            )
        elif window.origin is not None and (problem := ends.problem(window.origin)):
            yield Finding((*loc, "from"), problem)
        if uplink is None or not uplink.has_address:
            yield Finding(loc, f"needs the uplink; declare [ports.{UPLINK}] with match and address")
        elif window.to and uplink.address and window.to not in uplink.address.network:
            yield Finding(
                (*loc, "to"),
                f"{window.to} is not in the uplink's network {uplink.address.network}; name a host in it",
            )
        elif window.to and uplink.address and window.to == uplink.address.ip:
            yield Finding((*loc, "to"), f"{window.to} is the enclosure's own address; name the hospital's host")


class _Ends:
    """What flows and windows may name."""

    def __init__(self, plan: Draft, suggest: Suggester) -> None:
        self._suggest = suggest
        self._known = {zone.name for zone in plan.zones}
        self._known.update(
            endpoint_name(service.name, card.name)
            for service in plan.services
            for card in service.cards
            if service.name is not None and card.name is not None
        )
        self._behind: dict[str, list[str]] = {port.name: [] for port in plan.ports}
        for zone in plan.zones:
            if zone.port in self._behind:
                self._behind[zone.port].append(zone.name)

    def problem(self, name: str) -> str:
        """Why `name` cannot be an end, or nothing."""
        if name in self._known:
            return ""
        if name in self._behind:
            zones = ", ".join(quote(zone) for zone in self._behind[name]) or "none yet, declare a [zones.NAME]"
            return f"{quote(name)} is a port; name a zone behind it: {zones}"
        meant = self._suggest(name, self._known) or "; declare it in a [zones.NAME] or a [[service]]"
        return f"{quote(name)} is no zone or service{meant}"


def _same_name(plan: Draft, service: ServiceDraft, first: int) -> bool:
    return service.name is not None and service.name == _by_index(plan, first).name


def _who(plan: Draft, index: int) -> str:
    name = _by_index(plan, index).name
    return f"service[{index}]" if name is None else f'service[{index}] "{printable(name)}"'


def _by_index(plan: Draft, index: int) -> ServiceDraft:
    position = bisect_right(plan.services, index, key=lambda service: service.index) - 1
    return plan.services[position]
