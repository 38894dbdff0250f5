"""What a ruleset does with one packet: the kernel's way of evaluating expressions, in a few lines.

Independent of the compiler, so that both would have to be wrong in the same way.
"""

import sys
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from cleanroomd.isolation.expressions import (
    Action,
    Base,
    Bitwise,
    CmpOp,
    Compare,
    Count,
    Ct,
    CtKey,
    CtState,
    Decide,
    Direction,
    Load,
    Lookup,
    Meta,
    MetaKey,
    Payload,
    Record,
    Rule,
    SetMeta,
    Verdict,
)
from cleanroomd.isolation.ruleset import Chain, Family, HookPoint, Ruleset, Table

ETHERNET_HEADER, IPV4_HEADER = 14, 20
NOWHERE = IPv4Address(0)


@dataclass(frozen=True)
class Connection:
    """What conntrack knows of a packet."""

    state: CtState = CtState.NEW
    direction: Direction = Direction.ORIGINAL
    source: IPv4Address = NOWHERE
    destination: IPv4Address = NOWHERE
    protocol: int = 6
    port: int = 0


@dataclass(frozen=True)
class Packet:
    frame: bytes
    iifname: str = ""
    oifname: str = ""
    mark: int = 0
    connection: Connection | None = None


class NoMatch(Exception):  # noqa: N818
    """The rule does not apply."""


def passes(ruleset: Ruleset, point: HookPoint, packet: Packet) -> Packet | None:
    """The packet as a hook lets it go on, or None if it is dropped. Without a chain at the hook it goes on."""
    family = Family.INET if point < HookPoint.INGRESS else Family.NETDEV
    device = {HookPoint.INGRESS: packet.iifname, HookPoint.EGRESS: packet.oifname}.get(point, "")
    table = ruleset.table(family, "cleanroom")
    assert table is not None
    for chain in table.chains:
        if chain.hook and (chain.hook.point, chain.hook.device) == (point, device):
            action, after = _Run(table, packet).base(chain)
            return after if action is Action.ACCEPT else None
    return packet


class _Run:
    def __init__(self, table: Table, packet: Packet) -> None:
        self._table = table
        self._packet = packet
        self._registers = bytearray(64)

    def base(self, chain: Chain) -> tuple[Action, Packet]:
        assert chain.hook is not None
        verdict = self._chain(chain)
        action = verdict.action if verdict else Action.ACCEPT if chain.hook.accepts else Action.DROP
        return action, self._packet

    def _chain(self, chain: Chain) -> Verdict | None:
        """An accept or drop; None if the chain ends without."""
        for rule in chain.rules:
            verdict = self._rule(rule)
            if verdict is None:
                continue
            if verdict.action in (Action.ACCEPT, Action.DROP):
                return verdict
            if verdict.action is Action.RETURN:
                return None
            target = self._table.chain(verdict.chain)
            assert target is not None
            below = self._chain(target)
            if below or verdict.action is Action.GOTO:
                return below
        return None

    def _rule(self, rule: Rule) -> Verdict | None:
        try:
            for expression in rule:
                match expression:
                    case Payload(base, offset, length, register):
                        self._store(register, self._payload(base, offset, length))
                    case Meta(key, register):
                        self._store(register, self._meta(key))
                    case Ct(ct_key, register, _):
                        self._store(register, self._ct(ct_key))
                    case Load(register, value):
                        self._store(register, value)
                    case SetMeta(MetaKey.MARK, register):
                        self._packet = replace(
                            self._packet, mark=int.from_bytes(self._load(register, 4), sys.byteorder)
                        )
                    case Bitwise(register, mask):
                        masked = bytes(a & b for a, b in zip(self._load(register, len(mask)), mask, strict=True))
                        self._store(register, masked)
                    case Compare(op, register, value):
                        if (self._load(register, len(value)) == value) is not (op is CmpOp.EQUAL):
                            raise NoMatch
                    case Lookup(name, register, decide):
                        verdict = self._lookup(name, register)
                        if decide:
                            return verdict
                    case Count(_) | Record(_, _):
                        pass
                    case Decide(verdict):
                        return verdict
                    case _:
                        raise AssertionError(expression)
        except NoMatch:
            pass
        return None

    def _store(self, register: int, value: bytes) -> None:
        """Short values fill their register with zeros, as the kernel's do."""
        padded = value.ljust(-len(value) % 4 + len(value), b"\0")
        self._registers[register * 4 : register * 4 + len(padded)] = padded

    def _load(self, register: int, length: int) -> bytes:
        return bytes(self._registers[register * 4 : register * 4 + length])

    def _payload(self, base: Base, offset: int, length: int) -> bytes:
        start = {Base.LINK: 0, Base.NETWORK: ETHERNET_HEADER, Base.TRANSPORT: ETHERNET_HEADER + IPV4_HEADER}[base]
        data = self._packet.frame[start + offset : start + offset + length]
        if len(data) < length:
            raise NoMatch
        return data

    def _meta(self, key: MetaKey) -> bytes:
        ethertype = self._packet.frame[12:14]
        match key:
            case MetaKey.IIFNAME:
                return _name(self._packet.iifname)
            case MetaKey.OIFNAME:
                return _name(self._packet.oifname)
            case MetaKey.MARK:
                return self._packet.mark.to_bytes(4, sys.byteorder)
            case MetaKey.NFPROTO:
                return {b"\x08\x00": b"\x02", b"\x86\xdd": b"\x0a"}[ethertype]
            case MetaKey.L4PROTO:
                return self._payload(Base.NETWORK, 9, 1)

    def _ct(self, key: CtKey) -> bytes:
        connection = self._packet.connection
        if connection is None:
            if key is CtKey.STATE:
                return CtState.INVALID.to_bytes(4, sys.byteorder)
            raise NoMatch
        return {
            CtKey.STATE: connection.state.to_bytes(4, sys.byteorder),
            CtKey.DIRECTION: bytes([connection.direction]),
            CtKey.PROTOCOL: bytes([connection.protocol]),
            CtKey.PROTO_DST: connection.port.to_bytes(2, "big"),
            CtKey.SRC_IP: connection.source.packed,
            CtKey.DST_IP: connection.destination.packed,
        }[key]

    def _lookup(self, name: str, register: int) -> Verdict | None:
        item = self._table.set(name)
        assert item is not None
        key = self._load(register, item.key_size)
        for element in item.elements:
            if element.key == key:
                return element.verdict
        raise NoMatch


def _name(interface: str) -> bytes:
    return interface.encode("utf-8", "surrogateescape").ljust(16, b"\0")
