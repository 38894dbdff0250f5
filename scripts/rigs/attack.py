"""Who tries what against the enclosure, and what may come of it by the plan: pure.

A strike is judged from both ends: by what came back to the attacker, and by which marked packets a listener inside the
enclosure saw go out behind the rules. Flows of the plan are part of every strike; if they are not answered the strike
proves nothing, and says so.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cleanroomd.model.plan import UPLINK, Plan, Service
from rigs.intruder import FIRST_MARK, MARKS

SCAN_TCP = (21, 22, 23, 25, 53, 80, 104, 111, 135, 139, 389, 443, 445, 636, 1433, 2049, 2575, 3306, 3389, 4242, 5432)
SCAN_TCP_HIGH = (5900, 5985, 8000, 8042, 8080, 8443, 9100, 10000, 11112, 27017)
SCAN_UDP = (53, 67, 69, 111, 123, 137, 138, 161, 500, 514, 1194, 1900, 5353, 51820)
LISTEN_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Attacker:
    """Where a strike comes from: its own address first, then those it forges."""

    name: str
    mark: int
    """What its packets carry, so that they are known from those of the others (rigs.intruder)."""
    sources: tuple[str, ...]
    gateway: str
    fallback_mac: str
    """Where frames go when nobody answers for the gateway."""
    targets: tuple[str, ...]
    permitted: frozenset[tuple[str, int]]
    """Address and TCP port that the plan opens to this attacker."""
    neighbours: frozenset[str]
    """Addresses that the enclosure may answer for in ARP."""


@dataclass(frozen=True, slots=True)
class Strike:
    """What came of one strike."""

    origin: str
    tried: int
    through: int
    """Answers and forwarded packets that the plan does not allow."""
    permitted: int
    answered: int
    """How many of the plan's own flows answered; all of them, or the strike proves nothing."""
    findings: tuple[str, ...] = ()
    """Each thing that got through, or that did not where it should have, in words."""


def scanned_ports(plan: Plan) -> tuple[int, ...]:
    """The usual targets of malware, and every port that any flow of the plan opens."""
    flows = {port for flow in plan.flows for port in flow.tcp}
    return tuple(sorted(flows | set(SCAN_TCP) | set(SCAN_TCP_HIGH)))


def order(attacker: Attacker, plan: Plan) -> dict[str, Any]:
    """The argument that rigs.intruder gets."""
    targets = [
        {"address": target, "tcp": list(scanned_ports(plan)), "udp": list(SCAN_UDP)} for target in attacker.targets
    ]
    return {
        "act": "strike",
        "mark": attacker.mark,
        "sources": list(attacker.sources),
        "gateway": attacker.gateway,
        "fallback_mac": attacker.fallback_mac,
        "targets": targets,
        "seconds": LISTEN_SECONDS,
    }


def hospital_attacker(plan: Plan, *, addresses: Sequence[str], fallback_mac: str) -> Attacker:
    """The compromised network: nothing at all may answer it. It also forges the workstation's gateway."""
    uplink = next(port for port in plan.ports if port.name == UPLINK)
    own = [str(uplink.address.ip)] if uplink.address else []
    return Attacker(
        name="hospital network",
        mark=FIRST_MARK,
        sources=(*addresses, *(str(zone.address.ip + 1) for zone in plan.zones)),
        gateway=own[0] if own else addresses[0],
        fallback_mac=fallback_mac,
        targets=(*own, *_enclosure_addresses(plan), *_machine_addresses(plan)),
        permitted=frozenset(),
        neighbours=frozenset(),
    )


def workstation_attacker(plan: Plan, *, zone: str, address: str, fallback_mac: str) -> Attacker:
    """A clean workstation: the plan's flows and nothing else. It also forges an address of the hospital's."""
    there = plan.zone(zone)
    uplink = next((port.address for port in plan.ports if port.address is not None), None)
    return Attacker(
        name="workstation",
        mark=FIRST_MARK + 1,
        sources=(address, *((str(uplink.ip + 1),) if uplink else ())),
        gateway=str(there.address.ip),
        fallback_mac=fallback_mac,
        targets=(*_enclosure_addresses(plan), *_machine_addresses(plan)),
        permitted=frozenset(_permitted(plan, zone)),
        neighbours=frozenset({str(there.address.ip)}),
    )


def machine_attacker(plan: Plan, service: Service, *, beyond: Iterable[str]) -> Attacker:
    """A restored machine that turns out to be infected; it also forges the address of another machine."""
    others = [each for each in _machine_addresses(plan) if each != str(service.address)]
    gateway = str(service.gateway) if service.gateway else others[0]
    addresses = {each.name: str(each.address) for each in plan.services}
    pairs = [(flow.origin, flow.to) for flow in plan.flows] + [(flow.to, flow.origin) for flow in plan.flows]
    peers = {addresses[there] for here, there in pairs if here == service.name and there in addresses}
    return Attacker(
        name=service.name,
        mark=FIRST_MARK + 2 + plan.services.index(service) % (MARKS - 2),
        sources=(str(service.address), *others[:1]),
        gateway=gateway,
        fallback_mac="ff:ff:ff:ff:ff:ff",
        targets=(gateway, *others, *_enclosure_addresses(plan), *beyond),
        permitted=frozenset(_permitted(plan, service.name)),
        neighbours=frozenset({gateway, *peers}),
    )


def judge(attacker: Attacker, outcome: Mapping[str, Any], forwarded: Iterable[Mapping[str, Any]]) -> Strike:
    """Sort what came back and what went out into what the plan allows and what it does not.

    `forwarded` are the marked packets that the enclosure emitted meanwhile, of this attacker and of others.
    """
    reached: set[tuple[str, int]] = set()
    findings: list[str] = []
    for heard in outcome["heard"]:
        kind = str(heard["kind"])
        source = str(heard.get("source", ""))
        if attacker.neighbours and (kind == "arp-request" or (kind == "arp-reply" and source in attacker.neighbours)):
            continue
        if kind == "tcp":
            if heard.get("port") != outcome["source_port"]:
                continue
            there = (source, int(heard.get("source_port", 0)))
            if there in attacker.permitted:
                reached.add(there)
                continue
            findings.append(f"{attacker.name} got an answer from {source}:{there[1]}")
            continue
        if kind == "udp" and heard.get("port") != outcome["source_port"]:
            continue
        findings.append(f"{attacker.name} received {kind} from {source or 'somebody'}")
    own = attacker.sources[0]
    for packet in forwarded:
        if packet.get("mark") != attacker.mark:
            continue
        there = (str(packet.get("target", "")), int(packet.get("port", 0)))
        if packet["kind"] == "tcp" and packet.get("source") == own and there in attacker.permitted:
            continue
        findings.append(
            f"a {packet['kind']} packet of {attacker.name} from {packet.get('source')} to {there[0]}:{there[1]} "
            f"left the enclosure on {packet.get('interface')}"
        )
    through = len(findings)
    findings += [
        f"{attacker.name} got no answer from {address}:{port}, which the plan opens"
        for address, port in sorted(attacker.permitted - reached)
    ]
    return Strike(
        origin=attacker.name,
        tried=int(outcome["tried"]) - len(attacker.permitted),
        through=through,
        permitted=len(attacker.permitted),
        answered=len(reached),
        findings=tuple(findings),
    )


def _permitted(plan: Plan, origin: str) -> set[tuple[str, int]]:
    services = {service.name: str(service.address) for service in plan.services}
    return {
        (services[flow.to], port)
        for flow in plan.flows
        if flow.origin == origin and flow.to in services
        for port in flow.tcp
    }


def _machine_addresses(plan: Plan) -> list[str]:
    return [str(service.address) for service in plan.services]


def _enclosure_addresses(plan: Plan) -> list[str]:
    return [str(zone.address.ip) for zone in plan.zones]
