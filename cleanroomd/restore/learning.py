"""From what was denied to flows that would allow it; pure, and a proposal to people, never a decision.

Whoever was denied chose what to ask for: a machine that carries malware asks for much. So the proposals are few,
counted, and made for reading.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

from cleanroomd.model.lesson import Lesson, ProposedFlow
from cleanroomd.model.plan import UPLINK, Protocol
from cleanroomd.restore.order import Outline

MOST_FLOWS = 200
MOST_OTHERS = 50
MOST_PORTS = 32
"""A client that asks one server for more than so many ports is looking around."""
_EXAMPLES = 3
_NUMBERS: Mapping[int, Protocol] = {6: Protocol.TCP, 17: Protocol.UDP}
"""IANA protocol numbers of what flows can allow."""
_OTHERS: Mapping[int, str] = {1: "ICMP", 2: "IGMP", 47: "GRE", 50: "ESP", 132: "SCTP"}


@dataclass(frozen=True, slots=True)
class Attempt:
    """A connection that was asked for in vain."""

    source: IPv4Address
    destination: IPv4Address
    protocol: int
    """IANA number."""
    port: int
    packets: int


def learn(attempts: Iterable[Attempt], outline: Outline) -> Lesson:
    """Flows in the plan's own names, ports merged, the most frequent first; what the plan has already is left out."""
    names = _Names(outline)
    asked: defaultdict[tuple[str, str], Counter[tuple[Protocol, int]]] = defaultdict(Counter)
    others: Counter[str] = Counter()
    for attempt in attempts:
        origin, to = names.end(attempt.source), names.end(attempt.destination)
        protocol = _NUMBERS.get(attempt.protocol)
        problem = names.problem(attempt, origin, to)
        if problem or origin is None or to is None or protocol is None:
            others[problem] += attempt.packets
        elif not names.planned(origin, to, protocol, attempt.port):
            asked[origin, to][protocol, attempt.port] += attempt.packets
    for (origin, to), ports in list(asked.items()):
        if len(ports) > MOST_PORTS:
            del asked[origin, to]
            others[f"{origin} asked {to} for {len(ports)} ports: it looks around, or is attacked"] += ports.total()
    flows = sorted((_proposal(*pair, ports) for pair, ports in asked.items()), key=_most_first)
    if len(flows) > MOST_FLOWS:
        others[f"{len(flows) - MOST_FLOWS} more pairs"] += sum(flow.packets for flow in flows[MOST_FLOWS:])
    told = sorted(others.items(), key=lambda item: (-item[1], item[0]))
    return Lesson(tuple(flows[:MOST_FLOWS]), tuple(f"{_packets(count)}: {what}" for what, count in told[:MOST_OTHERS]))


def as_toml(lesson: Lesson) -> Iterator[str]:
    """Lines of a plan file, everything but the flows as comments."""
    yield "# What was denied, as flows that would allow it. Nothing of it is allowed yet: read each one,"
    yield "# keep what care needs, put it into the plan, and have the plan signed again."
    for flow in lesson.flows:
        yield ""
        yield f"# {_packets(flow.packets)} denied: {flow.detail}"
        yield "[[flow]]"
        yield f'from = "{flow.origin}"'
        yield f'to = "{flow.to}"'
        for key, ports in (("tcp", flow.tcp), ("udp", flow.udp)):
            if ports:
                yield f"{key} = [{', '.join(map(str, ports))}]"
    if not lesson.flows:
        yield "# Nothing was denied that a flow could allow."
    if lesson.others:
        yield ""
        yield "# Denied as well, and nothing that a flow can allow:"
        yield from (f"#   {other}" for other in lesson.others)


class _Names:
    """Who has an address, in the words of the plan."""

    def __init__(self, outline: Outline) -> None:
        self._plan = outline.plan
        self._cards = {card.address: name for name, (_, card) in outline.cards.items()}
        gateways = {card.gateway for _, card in outline.cards.values() if card.gateway is not None}
        self._own = {zone.address.ip for zone in outline.plan.zones} | (gateways - self._cards.keys())
        self._uplink = next((p.address.network for p in outline.plan.ports if p.name == UPLINK and p.address), None)
        self._planned = {
            (flow.origin, flow.to, protocol, port)
            for flow in outline.plan.flows
            for protocol, ports in ((Protocol.TCP, flow.tcp), (Protocol.UDP, flow.udp))
            for port in ports
        }

    def end(self, address: IPv4Address) -> str | None:
        """What a flow calls whoever has the address; None for nobody that a flow could name."""
        if address in self._cards:
            return self._cards[address]
        zones = (zone for zone in self._plan.zones if address in zone.network)
        zone = next(zones, None)
        if zone is None or address in (zone.address.ip, zone.network.broadcast_address):
            return None
        return zone.name

    def planned(self, origin: str, to: str, protocol: Protocol, port: int) -> bool:
        """Whether the plan allows it already: it was asked for before its service was ready."""
        return (origin, to, protocol, port) in self._planned

    def problem(self, attempt: Attempt, origin: str | None, to: str | None) -> str:
        """Why no flow can allow it, as a sentence about it; "" when one can."""
        who = origin or str(attempt.source)
        target = attempt.destination
        what = _service(attempt)
        if target.is_multicast or target == IPv4Address("255.255.255.255") or self._is_broadcast(target):
            return f"{who} called to everybody ({target}, {what})"
        if target in self._own:
            return f"{who} asked the enclosure itself for {what} at {target}, which answers nobody"
        if self._uplink is not None and target in self._uplink:
            return f"{who} asked {target} in the hospital's network for {what}; that takes a [[window]] and a lease"
        if to is None:
            return f"{who} asked {target} for {what}, which is no service and in no zone"
        if origin is None:
            return f"{attempt.source}, which is no service and in no zone, asked {to} for {what}"
        if origin == to:
            return f"{origin} asked itself for {what} at {target}"
        if attempt.protocol not in _NUMBERS or not attempt.port:
            return f"{origin} sent {what} to {to}; flows are TCP and UDP"
        return ""

    def _is_broadcast(self, address: IPv4Address) -> bool:
        return any(address == zone.network.broadcast_address for zone in self._plan.zones)


def _proposal(origin: str, to: str, ports: Counter[tuple[Protocol, int]]) -> ProposedFlow:
    frequent = sorted(ports.items(), key=lambda item: (-item[1], item[0]))
    detail = ", ".join(f"{protocol} {port} ({count})" for (protocol, port), count in frequent[:_EXAMPLES])
    more = len(frequent) - _EXAMPLES
    return ProposedFlow(
        origin=origin,
        to=to,
        tcp=tuple(sorted(port for protocol, port in ports if protocol is Protocol.TCP)),
        udp=tuple(sorted(port for protocol, port in ports if protocol is Protocol.UDP)),
        packets=ports.total(),
        detail=detail + (f" and {more} more" if more > 0 else ""),
    )


def _most_first(flow: ProposedFlow) -> tuple[int, str, str]:
    return -flow.packets, flow.origin, flow.to


def _service(attempt: Attempt) -> str:
    if attempt.protocol in _NUMBERS:
        return f"{_NUMBERS[attempt.protocol]} {attempt.port}"
    return _OTHERS.get(attempt.protocol, f"protocol {attempt.protocol}")


def _packets(count: int) -> str:
    return "1 packet" if count == 1 else f"{count} packets"
