"""What was denied, told in a few lines however much of it there is.

Nothing here reads a packet: the lines are differences of counters, so a flood makes the numbers larger and not the
work. What goes on is told at once, then after ten seconds, then ever more rarely, up to once in ten minutes.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cleanroomd.isolation.counts import DeniedFlow
from cleanroomd.isolation.policy import guard_name
from cleanroomd.isolation.ruleset import HookPoint, Tally
from cleanroomd.model.posture import Posture

FIRST_PAUSE, LONGEST_PAUSE, SLOWER = 10.0, 600.0, 6.0
"""Seconds between two lines about the same thing, at first and at most, and by what the pause grows."""
LINES = 3
"""Most lines at a time; what is left over is told the next time, the largest numbers first."""
EXAMPLES = 2
PROTOCOLS = {1: "icmp", 2: "igmp", 6: "tcp", 17: "udp", 47: "gre", 50: "esp", 132: "sctp"}
"""IANA protocol numbers by the names that administrators use."""

Subject = tuple[str, str] | str
"""A pair of interfaces between which packets were dropped, or the guard chain that dropped frames."""


@dataclass(frozen=True, slots=True)
class Denied:
    """All that has been denied up to a moment."""

    guards: Mapping[str, int]
    """Chain -> frames."""
    pairs: Mapping[tuple[str, str], Tally]
    flows: Mapping[DeniedFlow, Tally]


@dataclass(slots=True)
class _Told:
    count: int
    at: float
    pause: float


class Denials:
    """Remembers what was told. One entry for each pair of interfaces and each guard, whatever the packets say."""

    def __init__(self) -> None:
        self._told: dict[Subject, _Told] = {}
        self._flows: dict[tuple[str, str], Counter[DeniedFlow]] = {}
        """What had been noted of a pair when it was last told."""

    def lines(self, denied: Denied, posture: Posture, at: float) -> list[str]:
        """What is to be told at a moment (seconds of any steady clock); at most `LINES` lines."""
        totals = dict(_totals(denied, posture))
        self._told = {subject: told for subject, told in self._told.items() if subject in totals}
        self._flows = {pair: noted for pair, noted in self._flows.items() if pair in totals}
        due: list[tuple[int, Subject]] = []
        for subject, count in totals.items():
            told = self._told.setdefault(subject, _Told(0, at - FIRST_PAUSE, FIRST_PAUSE))
            if count < told.count:
                # The counter began anew.
                told.count = 0
            if count > told.count and at >= told.at + told.pause:
                due.append((count - told.count, subject))
            elif count == told.count and at >= told.at + told.pause:
                told.pause = FIRST_PAUSE
        due.sort(key=lambda item: (-item[0], str(item[1])))
        return [self._line(subject, more, denied, posture, at) for more, subject in due[:LINES]]

    def _line(self, subject: Subject, more: int, denied: Denied, posture: Posture, at: float) -> str:
        told = self._told[subject]
        first = told.count == 0
        period = "" if first else f" in {_span(at - told.at)}"
        told.count += more
        told.at, told.pause = at, FIRST_PAUSE if first else min(told.pause * SLOWER, LONGEST_PAUSE)
        what = "packet" if more == 1 else "packets"
        if isinstance(subject, str):
            return f"denied {more} {what}{period} {_guards(posture)[subject]}"
        origin, target = (_endpoint(posture, interface) for interface in subject)
        return f"denied {more} {what} from {origin} to {target}{period}{self._examples(subject, denied, posture)}"

    def _examples(self, pair: tuple[str, str], denied: Denied, posture: Posture) -> str:
        noted = Counter(
            {flow: tally.packets for flow, tally in denied.flows.items() if _pair_of(flow, posture) == pair}
        )
        new = noted - self._flows.get(pair, Counter())
        self._flows[pair] = noted
        if not new:
            return ""
        named = [f"{_service(flow)} at {flow.destination} ({count})" for flow, count in new.most_common(EXAMPLES)]
        return ": " + ", ".join(named) + (f" and {len(new) - EXAMPLES} others" if len(new) > EXAMPLES else "")


def _totals(denied: Denied, posture: Posture) -> Iterator[tuple[Subject, int]]:
    for pair, tally in denied.pairs.items():
        yield pair, tally.packets
    for chain in _guards(posture):
        yield chain, denied.guards.get(chain, 0)


def _guards(posture: Posture) -> Mapping[str, str]:
    """Guard chain -> where it stands, in words."""
    found = {}
    for interface in [port.interface for port in posture.ports] + [tap.interface for tap in posture.taps]:
        name = _endpoint(posture, interface)
        found[guard_name(HookPoint.INGRESS, interface)] = f"at the guard of {name}: not in its own name, or not IPv4"
        found[guard_name(HookPoint.EGRESS, interface)] = f"at the gate to {name}: past the rules"
    return found


def _endpoint(posture: Posture, interface: str) -> str:
    names = {tap.interface: tap.service for tap in posture.taps}
    names |= {port.interface: f"port {port.role}" for port in posture.ports}
    return names.get(interface, interface) if interface else "the enclosure"


def _pair_of(flow: DeniedFlow, posture: Posture) -> tuple[str, str]:
    """The interfaces behind which its addresses are, as far as the guards tell; "" for everything else."""

    def behind(address: object) -> str:
        for tap in posture.taps:
            if tap.address == address:
                return tap.interface
        for port in posture.ports:
            for own in port.addresses:
                if own.ip != address and address in own.network:
                    return port.interface
        return ""

    return behind(flow.source), behind(flow.destination)


def _service(flow: DeniedFlow) -> str:
    protocol = PROTOCOLS.get(flow.protocol, f"protocol {flow.protocol}")
    return f"{protocol} {flow.port}" if flow.port else protocol


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
