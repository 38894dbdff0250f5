"""What the rules have counted, in the words of the posture: what passed by each allowance, and who was denied what.

Counters begin with the element that holds them: a flow that closes and opens again begins at 0, and what was
denied is forgotten some time after the last such packet (`policy.PAIRS_NOTED`, `policy.FLOWS_NOTED`). They are no
part of the proof, and reading them changes nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Protocol as Interface

from cleanroomd.isolation.policy import DENIED_FLOWS, DENIED_PAIRS, ENCLOSURE, flow_place
from cleanroomd.isolation.ruleset import KeyField, Tally
from cleanroomd.model.posture import Allowance


class Tallies(Interface):
    """The part of `netlink.RuleWriter` that is needed here."""

    def tallies(self, name: str) -> Mapping[bytes, Tally]: ...


@dataclass(frozen=True, slots=True, order=True)
class DeniedFlow:
    """A connection that was asked for in vain."""

    source: IPv4Address
    destination: IPv4Address
    protocol: int
    """IANA number."""
    port: int
    """Of the destination; 0 for protocols other than TCP and UDP."""


def passed(rules: Tallies, allowances: Iterable[Allowance]) -> dict[Allowance, Tally]:
    """What has passed by each allowance, both directions together; nothing for one that is not in force.

    Allowances that say the same in other words share a counter.
    """
    places = {allowance: flow_place(allowance) for allowance in allowances}
    found = {name: rules.tallies(name) for name in sorted({name for name, _ in places.values()})}
    return {allowance: found[name].get(key, Tally()) for allowance, (name, key) in places.items()}


def denied_pairs(rules: Tallies) -> dict[tuple[str, str], Tally]:
    """(Interface that it came in by, interface that it was to leave by) -> what was dropped; "" is the enclosure."""
    size = KeyField.IFNAME.size
    return {(_name(key[:size]), _name(key[size:])): tally for key, tally in rules.tallies(DENIED_PAIRS).items()}


def denied_flows(rules: Tallies) -> dict[DeniedFlow, Tally]:
    """The connections that were asked for in vain, at most as many as `policy.FLOWS_NOTED` allows."""
    return {
        DeniedFlow(IPv4Address(key[:4]), IPv4Address(key[4:8]), key[8], int.from_bytes(key[12:14], "big")): tally
        for key, tally in rules.tallies(DENIED_FLOWS).items()
    }


def _name(field: bytes) -> str:
    return field.rstrip(b"\0").decode("utf-8", "surrogateescape") or ENCLOSURE
