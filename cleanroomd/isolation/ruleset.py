"""A whole nftables ruleset as one frozen value: what policy compiles, what the kernel is read back into.

Equality, the canonical form and the digest do not depend on the order of tables, chains, sets or elements,
which the kernel does not keep; rules keep their order, which decides. Packet counts and handles are no part
of it.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import IPv4Address
from itertools import zip_longest

from cleanroomd.isolation.expressions import WORD, Rule, Verdict, describe

MAX_WORDS = 120
"""Longest description of one thing inside a difference."""


class Family(IntEnum):
    """NFPROTO_* of the tables that the enclosure owns."""

    INET = 1
    NETDEV = 5


class HookPoint(IntEnum):
    """Hook numbers; each family counts its own, so the netdev ones carry an offset of 16 here."""

    INPUT = 1
    FORWARD = 2
    OUTPUT = 3
    POSTROUTING = 4
    INGRESS = 16
    EGRESS = 17

    @property
    def number(self) -> int:
        """NF_INET_* or NF_NETDEV_* as the kernel counts them."""
        return self.value & 15

    @classmethod
    def of(cls, family: Family, number: int) -> "HookPoint | None":
        """The hook with a kernel number in a family; None for one that the policy never uses."""
        wanted = number + 16 if family is Family.NETDEV else number
        return next((hook for hook in cls if hook.value == wanted), None)


class KeyField(IntEnum):
    """One field of a set's key, numbered as the nft tool's data types so that it can display the set."""

    IPV4_ADDRESS = 7
    PROTOCOL = 12
    SERVICE = 13
    ICMP_TYPE = 14
    IFNAME = 41

    @property
    def size(self) -> int:
        return _SIZES[self]

    def words(self, data: bytes) -> str:
        match self:
            case KeyField.IPV4_ADDRESS:
                return str(IPv4Address(data))
            case KeyField.IFNAME:
                return data.rstrip(b"\0").decode("utf-8", "backslashreplace")
            case KeyField.PROTOCOL:
                return {6: "tcp", 17: "udp"}.get(data[0], str(data[0]))
            case _:
                return str(int.from_bytes(data, "big"))


_SIZES: Mapping[KeyField, int] = {
    KeyField.IPV4_ADDRESS: 4,
    KeyField.PROTOCOL: 1,
    KeyField.SERVICE: 2,
    KeyField.ICMP_TYPE: 1,
    KeyField.IFNAME: 16,
}


def padded(size: int) -> int:
    """Bytes that a field takes in a concatenation: whole registers."""
    return -size % WORD + size


@dataclass(frozen=True, slots=True)
class Hook:
    """Where a base chain is attached, and what becomes of a packet that its rules do not decide."""

    point: HookPoint
    priority: int
    device: str = ""
    """The interface of a netdev chain, as the kernel names it."""
    accepts: bool = False
    """Policy accept: only where nothing comes that another chain has not accepted."""
    translates: bool = False
    """A chain of type nat: it sees the packet that opens a connection, and the kernel does alike with the others."""

    def __str__(self) -> str:
        device = f" of {self.device}" if self.device else ""
        policy = "accept" if self.accepts else "drop"
        kind = "nat " if self.translates else ""
        return f"{kind}{self.point.name.lower()}{device} at priority {self.priority}, policy {policy}"


@dataclass(frozen=True, slots=True)
class Chain:
    name: str
    rules: tuple[Rule, ...] = ()
    hook: Hook | None = None
    """None for a chain that is only jumped to."""
    oddity: str = ""
    """What the kernel shows of it that the policy never writes; a difference by itself."""


@dataclass(frozen=True, slots=True, order=True)
class Element:
    key: bytes
    """The fields one after another, each padded to whole registers if there is more than one."""
    verdict: Verdict | None = None
    """What a verdict map gives for the key."""
    oddity: str = ""
    until: float | None = None
    """When the kernel is to forget it, or will: CLOCK_BOOTTIME seconds; None for never. See `leases.settled`."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What a counter has counted since it was made."""

    packets: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Dynamic:
    """A set that rules fill: its bounds are part of the ruleset, what is in it at a moment is not."""

    size: int
    """Most elements; more are not noted."""
    lifetime: int
    """Milliseconds after which a key is forgotten that no packet had any more."""


@dataclass(frozen=True, slots=True)
class Set:
    """A hash set of concatenated fields (at most 5), or a map of such keys to verdicts."""

    name: str
    fields: tuple[KeyField, ...]
    elements: frozenset[Element] = frozenset()
    """Always empty here if the set is dynamic."""
    verdicts: bool = False
    oddity: str = ""
    counted: bool = False
    """Each element counts the packets and bytes of the lookups that found it."""
    dynamic: Dynamic | None = None
    timed: bool = False
    """Its elements may have an end."""

    @property
    def kind(self) -> tuple[object, ...]:
        """What cannot be changed in place."""
        return self.fields, self.verdicts, self.counted, self.dynamic, self.timed

    @property
    def key_size(self) -> int:
        if len(self.fields) == 1:
            return self.fields[0].size
        return sum(padded(field.size) for field in self.fields)

    def words(self, element: Element) -> str:
        """An element in words: "10.77.0.0 . 10.1.20.14 . tcp . 4242"."""
        if len(element.key) != self.key_size or not self.fields:
            return element.key.hex()
        parts, offset = [], 0
        for item in self.fields:
            parts.append(item.words(element.key[offset : offset + item.size]))
            offset += padded(item.size)
        verdict = f": {element.verdict}" if element.verdict else ""
        if element.until is not None:
            verdict += f" until {element.until:.3f}"
        return " . ".join(parts) + verdict + (f" ({element.oddity})" if element.oddity else "")


@dataclass(frozen=True, slots=True)
class Table:
    family: Family
    name: str
    chains: frozenset[Chain] = frozenset()
    sets: frozenset[Set] = frozenset()
    counters: frozenset[str] = frozenset()
    oddity: str = ""

    def __str__(self) -> str:
        return f"{self.family.name.lower()} {self.name}"

    def chain(self, name: str) -> Chain | None:
        return next((chain for chain in self.chains if chain.name == name), None)

    def set(self, name: str) -> Set | None:
        return next((item for item in self.sets if item.name == name), None)


@dataclass(frozen=True, slots=True)
class Ruleset:
    tables: frozenset[Table] = field(default_factory=frozenset)

    def table(self, family: Family, name: str) -> Table | None:
        return next((t for t in self.tables if (t.family, t.name) == (family, name)), None)

    def canonical(self) -> str:
        """One line per thing, sorted: equal for equal rulesets, different for different ones."""
        lines: list[str] = []
        for table in sorted(self.tables, key=lambda t: (t.family, t.name)):
            lines.append(repr(("table", int(table.family), table.name, table.oddity)))
            lines.extend(repr(("counter", name)) for name in sorted(table.counters))
            for item in sorted(table.sets, key=lambda s: s.name):
                fields = tuple(int(part) for part in item.fields)
                bounds = (item.dynamic.size, item.dynamic.lifetime) if item.dynamic else ()
                lines.append(
                    repr(("set", item.name, fields, item.verdicts, item.counted, bounds, item.timed, item.oddity))
                )
                lines.extend(
                    repr(("element", e.key.hex(), str(e.verdict or ""), e.oddity, e.until))
                    for e in sorted_elements(item)
                )
            for chain in sorted(table.chains, key=lambda c: c.name):
                lines.append(repr(("chain", chain.name, chain.hook, chain.oddity)))
                lines.extend(repr(("rule", rule)) for rule in chain.rules)
        return "\n".join(lines)

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical form, in hexadecimal."""
        return hashlib.sha256(self.canonical().encode("utf-8", "surrogateescape")).hexdigest()


def sorted_elements(item: Set) -> list[Element]:
    return _ordered(item.elements)


def _ordered(elements: Iterable[Element]) -> list[Element]:
    return sorted(elements, key=lambda e: (e.key, str(e.verdict or ""), e.oddity, e.until or 0.0))


def differences(expected: Ruleset, found: Ruleset) -> tuple[str, ...]:
    """Every difference in words, empty if and only if the two are equal; the order is stable."""
    return tuple(_ruleset_differences(expected, found))


def _ruleset_differences(expected: Ruleset, found: Ruleset) -> Iterator[str]:
    wanted = {(t.family, t.name): t for t in expected.tables}
    there = {(t.family, t.name): t for t in found.tables}
    for key in sorted(wanted.keys() | there.keys()):
        match wanted.get(key), there.get(key):
            case None, Table() as extra:
                yield f"table {extra} is there and should not be"
            case Table() as missing, None:
                yield f"table {missing} is missing"
            case Table() as ours, Table() as theirs:
                yield from _oddity(f"table {ours}", ours.oddity, theirs.oddity)
                yield from _chain_differences(ours, theirs)
                yield from _set_differences(ours, theirs)
                yield from _names(f"table {ours}: counter", ours.counters, theirs.counters)


def _set_differences(ours: Table, theirs: Table) -> Iterator[str]:
    wanted = {item.name: item for item in ours.sets}
    there = {item.name: item for item in theirs.sets}
    yield from _names(f"table {ours}: set", wanted, there)
    for name in sorted(wanted.keys() & there.keys()):
        expected, found = wanted[name], there[name]
        where = f"set {name} of table {ours}"
        yield from _oddity(where, expected.oddity, found.oddity)
        if expected.kind != found.kind:
            yield f"{where} has another kind of key or value, other bounds, or counts otherwise"
            continue
        for element in _ordered(expected.elements - found.elements):
            yield f"{where} lacks {expected.words(element)}"
        for element in _ordered(found.elements - expected.elements):
            yield f"{where} has {found.words(element)} and should not"


def _chain_differences(ours: Table, theirs: Table) -> Iterator[str]:
    wanted = {chain.name: chain for chain in ours.chains}
    there = {chain.name: chain for chain in theirs.chains}
    yield from _names(f"table {ours}: chain", wanted, there)
    for name in sorted(wanted.keys() & there.keys()):
        expected, found = wanted[name], there[name]
        where = f"chain {name} of table {ours}"
        yield from _oddity(where, expected.oddity, found.oddity)
        if expected.hook != found.hook:
            yield f"{where} is at {found.hook or 'no hook'}, not at {expected.hook or 'no hook'}"
        for number, (rule, other) in enumerate(zip_longest(expected.rules, found.rules), start=1):
            if rule != other:
                yield f"{where}, rule {number}: {_rule_words(other)} instead of {_rule_words(rule)}"


def _names(what: str, expected: Iterable[str], found: Iterable[str]) -> Iterator[str]:
    wanted, there = frozenset(expected), frozenset(found)
    yield from (f"{what} {name} is missing" for name in sorted(wanted - there))
    yield from (f"{what} {name} is there and should not be" for name in sorted(there - wanted))


def _oddity(where: str, expected: str, found: str) -> Iterator[str]:
    if expected != found:
        yield f"{where} has {found or 'nothing'} where {expected or 'nothing'} is expected"


def _rule_words(rule: Rule | None) -> str:
    if rule is None:
        return "no rule"
    text = describe(rule)
    return text if len(text) <= MAX_WORDS else text[: MAX_WORDS - 3] + "..."
