"""Every allowed flow and every forbidden packet sent through a twin, and what became of each."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address
from itertools import count, cycle, islice
from typing import TypeVar

from cleanroomd.isolation import frames
from cleanroomd.isolation.endpoints import Endpoint, Flow, Scene
from cleanroomd.isolation.frames import ACK, SYN, Tuple4
from cleanroomd.isolation.tracing import Tracer
from cleanroomd.isolation.trials import CLIENT_PORTS, ArpTrial, Layer, Trial, arp_trials, forbidden
from cleanroomd.isolation.twin import Arrival, Twin
from cleanroomd.model.verification import EndpointKind, Mismatch, TriedRelation

FLOWS_AT_MOST = 50_000
"""Allowed flows that are tried; beyond, every so-manieth of each pair is."""
_AT_ONCE = 128
"""Frames between two looks at what came out; a tap holds 500."""
_SHOWN_WHOLE = 50
"""Endpoints up to which every pair is in the answer; it has to fit one message."""
_TRACED = 20
"""Mismatches that are sent again, with the kernel's trace on."""

T = TypeVar("T")
Pair = tuple[str, str]


@dataclass(slots=True)
class Outcome:
    """Packets that did not fare as they should, and how many of what kind were sent, by pair."""

    flows: Counter[Pair] = field(default_factory=Counter)
    untried: Counter[Pair] = field(default_factory=Counter)
    forbidden: Counter[Pair] = field(default_factory=Counter)
    failed: Counter[Pair] = field(default_factory=Counter)
    mismatches: list[Mismatch] = field(default_factory=list)
    """The first `named` of them; `failed` counts all."""
    named: int = 100

    def fail(self, mismatch: Mismatch) -> None:
        self.failed[mismatch.origin, mismatch.target] += 1
        if len(self.mismatches) < self.named:
            self.mismatches.append(mismatch)


class Replay:
    """One run over a twin that has just been built; `run` leaves it with other rules than it had."""

    def __init__(self, twin: Twin, scene: Scene, flows: Sequence[Flow], untried: Sequence[Flow], named: int) -> None:
        self._twin = twin
        self._scene = scene
        self._flows = flows
        self._serials = count(1)
        self._traced = 0
        self._makers: dict[tuple[int, int], frames.Maker] = {}
        self.outcome = Outcome(named=named)
        for flow in untried:
            self.outcome.untried[flow.pair] += 1

    def run(self) -> Outcome:
        """Allowed flows first, under the kernel's own checks too; then what must not pass, under the rules alone."""
        self._twin.drain()
        ports = cycle(CLIENT_PORTS)
        for some in _chunks(self._flows, _AT_ONCE):
            self._open(some, ports)
        self._twin.without_kernel_checks()
        self._twin.drain()
        trials = tuple(forbidden(self._scene, self._flows, self._serials))
        questions = tuple(arp_trials(self._scene))
        self._refuse(trials, "")
        self._ask(questions, "")
        for layer in (Layer.DECISION, Layer.ENTRANCE, Layer.EXIT):
            self._twin.keep_only(layer)
            self._refuse([trial for trial in trials if layer in trial.layers], layer)
            if layer is Layer.ENTRANCE:
                self._ask([question for question in questions if layer in question.layers], layer)
        return self.outcome

    def _open(self, flows: Sequence[Flow], ports: Iterator[int]) -> None:
        """Open each, let the target answer, and see the answer arrive."""
        asked: dict[int, tuple[Flow, bytes]] = {}
        for flow in flows:
            serial, port = next(self._serials), next(ports)
            packet = self._maker(flow)(port, flow.port, serial)
            asked[serial] = flow, packet
            self._send(flow.by.origin, packet)
        answers: dict[int, tuple[Flow, bytes, bytes]] = {}
        for arrival in self._twin.drain():
            known = self._known(arrival, asked)
            if known is None:
                continue
            flow, packet = asked[known]
            if not _arrived(flow, packet, arrival):
                self._astray(flow, packet, arrival)
                continue
            del asked[known]
            again, seen = next(self._serials), arrival.packet
            to, own = frames.ports(seen)
            answer = _answer(seen[12:16], seen[16:20], seen[9])(own, to, again)
            answers[again] = flow, packet, answer
        for flow, packet in asked.values():
            self._lost(flow, "it did not arrive", flow.by.origin, packet)
        for flow, _, answer in answers.values():
            self._send(flow.by.target, answer)
        for arrival in self._twin.drain():
            known = self._known(arrival, answers)
            if known is None:
                continue
            flow, packet, answer = answers[known]
            if arrival.interface == flow.by.origin.interface and _mirrored(packet, arrival.packet):
                del answers[known]
                self.outcome.flows[flow.pair] += 1
            else:
                self._astray(flow, answer, arrival)
        for flow, _, answer in answers.values():
            self._lost(flow, "its answer did not come back", flow.by.target, answer)

    def _send(self, origin: Endpoint, packet: bytes) -> None:
        self._twin.send(origin, _on_wire(origin, packet))

    def _maker(self, flow: Flow) -> frames.Maker:
        """Made once for all ports between the same addresses."""
        key = id(flow.by), flow.protocol
        if key not in self._makers:
            self._makers[key] = frames.template(Tuple4(flow.by.source, flow.by.destination, flow.protocol))
        return self._makers[key]

    def _refuse(self, trials: Iterable[Trial], layer: str) -> None:
        """Send what must not pass, and see nothing of it anywhere else."""
        for some in _chunks(trials, _AT_ONCE):
            sent = {trial.serial: trial for trial in some}
            for trial in some:
                self.outcome.forbidden[_pair(trial)] += 1
                self._twin.send(trial.origin, trial.data)
            through: dict[int, Arrival] = {}
            for arrival in self._twin.drain():
                serial = self._known(arrival, sent, strict=not layer)
                if serial is not None:
                    through.setdefault(serial, arrival)
            for serial, arrival in through.items():
                trial = sent[serial]
                found = f"it came out at {self._place(arrival)}"
                if layer:
                    found = f"{layer} let it pass by itself"
                rule = self._why(trial.origin, trial.data, dropped=False)
                self.outcome.fail(Mismatch(*_pair(trial), trial.words, found, rule))

    def _ask(self, questions: Iterable[ArpTrial], layer: str) -> None:
        enclosure = self._scene.endpoints[0].name
        for question in questions:
            pair = (question.origin.name, enclosure)
            self.outcome.forbidden[pair] += bool(question.layers)
            self._twin.send(question.origin, question.frame)
            answered = any(
                arrival.interface == question.origin.interface
                and (answer := frames.arp_answer(arrival.frame)) is not None
                and answer[0] == question.asker
                for arrival in self._twin.drain()
            )
            if answered == bool(question.layers):
                found = "it was answered" if answered else "it was not answered"
                if layer:
                    found = f"{layer} let it pass by itself"
                rule = self._why(question.origin, question.frame, dropped=not answered)
                self.outcome.fail(Mismatch(*pair, question.words, found, rule))

    def _known(self, arrival: Arrival, sent: Mapping[int, object], *, strict: bool = True) -> int | None:
        """The serial of something that was sent; what nobody sent is a mismatch by itself."""
        serial = frames.serial_of(arrival.packet)
        if serial is not None and serial in sent:
            return serial
        # Without the guards at the exit (not strict) the kernel speaks of its own accord: IPv6, group membership.
        ignored = serial is not None or not strict or frames.is_arp(arrival.frame) or _is_reset(arrival.packet)
        if not ignored:
            place = self._place(arrival)
            words = frames.describe(
                arrival.frame or frames.ethernet(frames.BROADCAST, frames.BROADCAST, arrival.packet)
            )
            self.outcome.fail(Mismatch(self._scene.endpoints[0].name, place, words, "nobody sent it", "not traced"))
        return None

    def _astray(self, flow: Flow, packet: bytes, arrival: Arrival) -> None:
        source, target = frames.ends(arrival.packet)
        found = f"it came out at {self._place(arrival)}, from {source} to {target}"
        rule = self._why(flow.by.origin, _on_wire(flow.by.origin, packet), dropped=False)
        self.outcome.fail(Mismatch(*flow.pair, str(flow), found, rule))

    def _lost(self, flow: Flow, found: str, sender: Endpoint, sent: bytes) -> None:
        rule = self._why(sender, _on_wire(sender, sent), dropped=True)
        self.outcome.fail(Mismatch(*flow.pair, str(flow), found, rule))

    def _why(self, origin: Endpoint, data: bytes, *, dropped: bool) -> str:
        """Send it once more under the kernel's trace, as long as there are few such packets."""
        if self._traced >= _TRACED:
            return "not traced: too many"
        self._traced += 1
        with Tracer(self._twin) as tracer:
            self._twin.send(origin, data)
            self._twin.drain()
            return tracer.decision(dropped=dropped)

    def _place(self, arrival: Arrival) -> str:
        if not arrival.interface:
            return "the enclosure itself"
        names = [e.name for e in self._scene.endpoints if e.interface == arrival.interface]
        return " or ".join(names) or arrival.interface


def chosen(scene: Scene, at_most: int = FLOWS_AT_MOST) -> tuple[list[Flow], list[Flow]]:
    """The flows to try, and those to leave out because there are so many; every pair keeps its share."""
    every = list(scene.flows())
    step = max(1, -(-len(every) // at_most))
    if step == 1:
        return every, []
    first_of_pair = {id(flow) for flow in {flow.pair: flow for flow in reversed(every)}.values()}
    kept: list[Flow] = []
    left: list[Flow] = []
    for number, flow in enumerate(every):
        (kept if number % step == 0 or id(flow) in first_of_pair else left).append(flow)
    return kept, left


def hosts(scene: Scene) -> Mapping[str, frozenset[IPv4Address]]:
    """Who has to be there behind each port for the packets to have somewhere to go."""
    found: dict[str, set[IPv4Address]] = {}
    for endpoint in scene.endpoints:
        if endpoint.kind in (EndpointKind.ZONE, EndpointKind.PORT) and endpoint.network is not None:
            known = found.setdefault(endpoint.interface, set())
            known.add(endpoint.address)
            if other := scene.station(endpoint.network, other_than=(endpoint.address,)):
                known.add(other)
    for _, ends in scene.opened:
        for endpoint, address in ((ends.origin, ends.source), (ends.target, ends.destination)):
            if endpoint.interface in found:
                found[endpoint.interface].add(address)
    return {interface: frozenset(addresses) for interface, addresses in found.items()}


def relations(scene: Scene, outcome: Outcome) -> tuple[TriedRelation, ...]:
    """Every ordered pair, or every remarkable one if they are many; last those that only a stray packet made."""
    allowed = {(r.origin, r.target): r.allowed for r in scene.relations()}
    names = [endpoint.name for endpoint in scene.endpoints]
    pairs = dict.fromkeys((a, b) for a in names for b in names if a != b or outcome.forbidden[a, b])
    if len(names) > _SHOWN_WHOLE:
        pairs = {pair: None for pair in pairs if outcome.flows[pair] or outcome.untried[pair]}
    pairs |= dict.fromkeys(outcome.failed)
    return tuple(
        TriedRelation(
            *pair,
            allowed.get(pair, ()),
            outcome.flows[pair],
            outcome.untried[pair],
            outcome.forbidden[pair],
            outcome.failed[pair],
        )
        for pair in pairs
    )


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    left = iter(items)
    while some := list(islice(left, size)):
        yield some


def _pair(trial: Trial) -> Pair:
    return trial.origin.name, trial.target.name


@lru_cache(maxsize=4096)
def _answer(asker: bytes, asked: bytes, protocol: int) -> frames.Maker:
    """The second segment of a handshake; the first one carried eight bytes after its SYN."""
    ends = Tuple4(IPv4Address(asked), IPv4Address(asker), protocol)
    return frames.template(ends, flags=SYN | ACK, sequence=1, acknowledged=9)


def _on_wire(origin: Endpoint, packet: bytes) -> bytes:
    if origin.kind is EndpointKind.ENCLOSURE:
        return packet
    return frames.link_header(origin.ours, origin.mac) + packet


def _arrived(flow: Flow, packet: bytes, arrival: Arrival) -> bool:
    """At the right place, to the right MAC, and unchanged but for a source that is to be hidden."""
    target, found = flow.by.target, arrival.packet
    if arrival.interface != target.interface:
        return False
    if arrival.frame and arrival.frame[:14] != frames.link_header(target.mac, target.ours):
        return False
    if flow.by.appears_as is None:
        return found[12:24] == packet[12:24]
    # The source and its port are translated.
    return found[12:16] == flow.by.appears_as.packed and (found[16:20], found[22:24]) == (packet[16:20], packet[22:24])


def _mirrored(packet: bytes, answer: bytes) -> bool:
    """Whether the answer's addresses and ports are those of the packet the other way round."""
    return (answer[16:20], answer[12:16], answer[22:24], answer[20:22]) == (
        packet[12:16],
        packet[16:20],
        packet[20:22],
        packet[22:24],
    )


def _is_reset(packet: bytes) -> bool:
    """The enclosure's own kernel knows nothing of connections that a raw socket opened."""
    return len(packet) >= 40 and packet[9] == frames.TCP and bool(packet[33] & 0x04)
