"""Which rule decided on a packet, as the kernel's own trace tells (nf_tables_trace.c); for the few packets that matter.

Numbers are those of include/uapi/linux/netfilter/nf_tables.h and nfnetlink.h.
"""

import socket
import struct
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from pyroute2.netlink import NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST
from pyroute2.netlink.nfnetlink import NFNL_SUBSYS_NFTABLES
from pyroute2.netlink.nfnetlink.nftsocket import NFT_MSG_GETRULE, NFT_MSG_NEWRULE

from cleanroomd.isolation import decode, dump, encode
from cleanroomd.isolation.encode import Message, attribute
from cleanroomd.isolation.expressions import describe
from cleanroomd.isolation.ruleset import Chain, Family, Hook, HookPoint, Table
from cleanroomd.isolation.twin import Twin
from cleanroomd.keeper.tables import NETLINK_NETFILTER

_TABLE = "twin-trace"
_FIRST = -500
"""Priority before every other chain."""
_GROUP = 1 << (9 - 1)
"""NFNLGRP_NFTRACE"""
_TRACE = NFNL_SUBSYS_NFTABLES << 8 | 17
"""NFT_MSG_TRACE"""
_NFTRACE_KEY = 12
"""NFT_META_NFTRACE"""
_DROP, _ACCEPT = 0, 1
_BY_POLICY, _BY_RULE = 1, 3
"""NFT_TRACETYPE_*"""
_HEADER = struct.Struct("=IHHII")
_WORDS = 160
"""Longest description of one rule."""
_FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}


@dataclass(frozen=True, slots=True)
class _Event:
    packet: int
    family: int
    table: str
    chain: str
    kind: int
    verdict: int
    handle: int


class Tracer:
    """While it is open every packet of the twin is traced."""

    def __init__(self, twin: Twin) -> None:
        self._twin = twin
        self._rules = _numbered(twin)
        self._heard = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)

    def __enter__(self) -> Self:
        self._twin.commit(_marking(self._twin.interfaces))
        self._heard.bind((0, _GROUP))
        return self

    def __exit__(self, *_: object) -> None:
        self._heard.close()
        self._twin.commit(dump.removal([(int(family), _TABLE) for family in (Family.INET, Family.NETDEV)]))

    def decision(self, *, dropped: bool) -> str:
        """What decided on the first packet that was sent since, in words."""
        events = [event for event in self._events() if event.table != _TABLE]
        events = [event for event in events if event.packet == events[0].packet]
        wanted = _DROP if dropped else _ACCEPT
        decided = [
            self._words(event) for event in events if event.verdict == wanted and event.kind in (_BY_POLICY, _BY_RULE)
        ]
        if not decided:
            return "no rule decided: the kernel itself did" if dropped else "no rule looked at it"
        return decided[-1] if dropped else "; then ".join(dict.fromkeys(decided))

    def _words(self, event: _Event) -> str:
        where = f"chain {event.chain} of table {_FAMILIES.get(event.family, event.family)} {event.table}"
        if event.kind == _BY_POLICY:
            return f"policy of {where}"
        number, text = self._rules.get((event.family, event.table, event.chain, event.handle), (0, "a rule unknown"))
        return f"{where}, rule {number}: {text if len(text) <= _WORDS else text[: _WORDS - 3] + '...'}"

    def _events(self) -> Iterator[_Event]:
        with suppress(BlockingIOError):
            while True:
                data = self._heard.recv(1 << 16, socket.MSG_DONTWAIT)
                offset = 0
                while offset + _HEADER.size <= len(data):
                    length, kind, *_ = _HEADER.unpack_from(data, offset)
                    if kind == _TRACE:
                        yield _event(data[offset + _HEADER.size : offset + length])
                    offset += max(_HEADER.size, length + -length % 4)


def _event(payload: bytes) -> _Event:
    found = decode.Attributes(payload[4:])
    kind = found.number(4)
    verdict = -2
    if kind == _BY_POLICY:
        verdict = found.number(16)
    elif 5 in found:
        verdict = int.from_bytes(found.nest(5).take(1), "big", signed=True)
    handle = found.number(3) if 3 in found else 0
    return _Event(found.number(6), payload[0], found.text(1), found.text(2), kind, verdict, handle)


def _numbered(twin: Twin) -> dict[tuple[int, str, str, int], tuple[int, str]]:
    """Family, table, chain and handle of each rule -> its number in the chain, from 1, and what it says."""
    counts: defaultdict[tuple[int, str, str], int] = defaultdict(int)
    found = {}
    for reply in twin.channel.ask(NFT_MSG_GETRULE):
        attributes = decode.Attributes(reply.attributes)
        where = reply.family, attributes.text(1), attributes.text(2)
        counts[where] += 1
        expressions = attributes.take(4) if 4 in attributes else b""
        found[*where, attributes.number(3)] = counts[where], describe(decode.rule(expressions))
    return found


def _marking(interfaces: tuple[str, ...]) -> Iterator[Message]:
    netdev, inet = Table(Family.NETDEV, _TABLE), Table(Family.INET, _TABLE)
    chains = [
        (netdev, Chain(f"trace-{n}", (), Hook(HookPoint.INGRESS, _FIRST, name, accepts=True)))
        for n, name in enumerate(interfaces)
    ]
    chains.append((inet, Chain("trace", (), Hook(HookPoint.OUTPUT, _FIRST, accepts=True))))
    yield encode.new_table(netdev, 0)
    yield encode.new_table(inet, 0)
    for table, chain in chains:
        yield encode.new_chain(table, chain)
        yield _mark(table, chain)


def _mark(table: Table, chain: Chain) -> Message:
    """The rule `meta nftrace set 1`, which the policy has no words for."""
    one = attribute(1, b"\1")
    load = attribute(1, struct.pack(">I", 8)) + attribute(2, one)
    store = attribute(2, struct.pack(">I", _NFTRACE_KEY)) + attribute(3, struct.pack(">I", 8))
    parts = (("immediate", load), ("meta", store))
    listed = b"".join(attribute(1, attribute(1, name.encode() + b"\0") + attribute(2, body)) for name, body in parts)
    body = attribute(1, _TABLE.encode() + b"\0") + attribute(2, chain.name.encode() + b"\0") + attribute(4, listed)
    payload = struct.pack("=BBH", table.family, 0, 0) + body
    flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_APPEND
    header = _HEADER.pack(_HEADER.size + len(payload), NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWRULE, flags, 0, 0)
    return Message("trace packets", header + payload)
