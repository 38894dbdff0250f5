"""Values to nf_tables messages, packed with struct.

As objects of a netlink library the rules of twenty machines take longer to write down than nft(8) takes to put
them in force. Expressions repeat from rule to rule and are packed once.
Attribute numbers and other figures are those of include/uapi/linux/netfilter/nf_tables.h.
"""

import struct
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from pyroute2.netlink import NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST
from pyroute2.netlink.nfnetlink import NFNL_SUBSYS_NFTABLES
from pyroute2.netlink.nfnetlink.nftsocket import (
    NFT_MSG_DELCHAIN,
    NFT_MSG_DELOBJ,
    NFT_MSG_DELRULE,
    NFT_MSG_DELSET,
    NFT_MSG_DELSETELEM,
    NFT_MSG_DELTABLE,
    NFT_MSG_NEWCHAIN,
    NFT_MSG_NEWOBJ,
    NFT_MSG_NEWRULE,
    NFT_MSG_NEWSET,
    NFT_MSG_NEWSETELEM,
    NFT_MSG_NEWTABLE,
)

from cleanroomd.isolation.expressions import (
    Action,
    Bitwise,
    Compare,
    Count,
    Ct,
    Decide,
    Expression,
    Load,
    Lookup,
    Meta,
    Payload,
    Record,
    Rule,
    SetMeta,
    SourceNat,
    Unknown,
    Verdict,
)
from cleanroomd.isolation.leases import EARLY
from cleanroomd.isolation.ruleset import Chain, Element, Set, Table

NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END = 0x10, 0x11
VERDICTS: Mapping[Action, int] = {
    Action.DROP: 0,
    Action.ACCEPT: 1,
    Action.JUMP: -3,
    Action.GOTO: -4,
    Action.RETURN: -5,
}
VERDICT_REGISTER = 0
VERDICT_DATA = 0xFFFFFF00
"""NFT_DATA_VERDICT, the type of a verdict map's values."""
COUNTER_OBJECT = 1
"""NFT_OBJECT_COUNTER"""
MAP = 0x8
"""NFT_SET_MAP"""
TIMED_SET = 0x10
"""NFT_SET_TIMEOUT"""
DYNAMIC_SET = 0x30
"""NFT_SET_TIMEOUT and NFT_SET_EVAL"""
DYNSET_UPDATE = 1
"""NFT_DYNSET_OP_UPDATE: add, or make an element that is there last as long as a new one."""
NFTA_LIST_ELEM = 1
CHAIN_TYPES = {True: "nat", False: "filter"}
"""By whether a base chain translates addresses."""
SOURCE_NAT, NFPROTO_IPV4 = 0, 2
"""NFT_NAT_SNAT, and the only family that is translated."""
POLICIES = {True: 1, False: 0}
"""NF_ACCEPT and NF_DROP, by whether a base chain accepts what it did not decide."""

_HOST_ENDIAN = struct.pack("=BBI", 0, 4, 1)
"""NFTNL_UDATA_SET_KEYBYTEORDER, 4 bytes, BYTEORDER_HOST_ENDIAN: without it `nft list` reverses names."""
_ELEMENTS_LIMIT = 60_000
"""Bytes of elements in one message; an attribute's length has 16 bits."""
TYPE_BITS = 6
"""nft joins the data types of a concatenation in so many bits each."""


@dataclass(frozen=True, slots=True)
class Message:
    """One encoded message of a batch, and what it does in words for the case that the kernel refuses it."""

    words: str
    data: bytes


def batch_begin(generation: int) -> Message:
    """Opens a batch that the kernel refuses with ERESTART if the rules are not of this generation."""
    return _batch_mark(NFNL_MSG_BATCH_BEGIN, _number(1, generation))


def batch_end() -> Message:
    return _batch_mark(NFNL_MSG_BATCH_END, b"")


def _batch_mark(kind: int, attributes: bytes) -> Message:
    return Message("the batch", _packet(kind, NLM_F_REQUEST, 0, attributes, resource=NFNL_SUBSYS_NFTABLES))


def new_table(table: Table, flags: int) -> Message:
    return _message(f"own table {table}", NFT_MSG_NEWTABLE, table, _text(1, table.name) + _number(2, flags))


def delete_table(table: Table) -> Message:
    return _message(f"clear table {table}", NFT_MSG_DELTABLE, table, _text(1, table.name))


def delete_foreign_table(family: int, name: str) -> Message:
    kind = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_DELTABLE
    return Message(f"remove table {name}", _packet(kind, NLM_F_REQUEST, family, _text(1, name)))


def new_chain(table: Table, chain: Chain) -> Message:
    attributes = _text(1, table.name) + _text(3, chain.name)
    if chain.hook:
        hook = _number(1, chain.hook.point.number) + attribute(2, struct.pack(">i", chain.hook.priority))
        if chain.hook.device:
            hook += _text(3, chain.hook.device)
        attributes += attribute(4, hook) + _number(5, POLICIES[chain.hook.accepts])
        attributes += _text(7, CHAIN_TYPES[chain.hook.translates])
    return _message(f"add chain {chain.name}", NFT_MSG_NEWCHAIN, table, attributes)


def delete_chain(table: Table, chain: Chain) -> Message:
    attributes = _text(1, table.name) + _text(3, chain.name)
    return _message(f"delete chain {chain.name}", NFT_MSG_DELCHAIN, table, attributes)


def new_rule(table: Table, chain: Chain, number: int, rule: Rule) -> Message:
    """Appends a rule; `number` counts from 1, for words only."""
    expressions = attribute(4, b"".join(map(_expression, rule)))
    attributes = _text(1, table.name) + _text(2, chain.name) + expressions
    return _message(f"add rule {number} of chain {chain.name}", NFT_MSG_NEWRULE, table, attributes, NLM_F_APPEND)


def delete_rules(table: Table, chain: Chain) -> Message:
    attributes = _text(1, table.name) + _text(2, chain.name)
    return _message(f"clear chain {chain.name}", NFT_MSG_DELRULE, table, attributes)


def new_set(table: Table, item: Set) -> Message:
    """An empty set or verdict map; its number in the batch is of no use, since nothing refers to it by number.

    How its key is concatenated is not said (NFTA_SET_DESC_CONCAT): a hash set does not need it.
    """
    key_type = 0
    for part in item.fields:
        key_type = key_type << TYPE_BITS | part
    flags = MAP if item.verdicts else 0
    attributes = _text(1, table.name) + _text(2, item.name) + _number(4, key_type) + _number(5, item.key_size)
    attributes += _number(10, 1) + attribute(13, _HOST_ENDIAN)
    if item.verdicts:
        attributes += _number(6, VERDICT_DATA) + _number(7, 0)
    if item.dynamic:
        flags |= DYNAMIC_SET
        attributes += attribute(9, _number(1, item.dynamic.size)) + _long(11, item.dynamic.lifetime)
    if item.timed:
        flags |= TIMED_SET
    if item.counted:
        attributes += attribute(17, _named("counter", _long(1, 0) + _long(2, 0)))
    return _message(f"add set {item.name}", NFT_MSG_NEWSET, table, attributes + _number(3, flags))


def delete_set(table: Table, item: Set) -> Message:
    attributes = _text(1, table.name) + _text(2, item.name)
    return _message(f"delete set {item.name}", NFT_MSG_DELSET, table, attributes)


def new_elements(table: Table, item: Set, elements: Iterable[Element]) -> Iterator[Message]:
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    packed = (_packed(element.key, element.verdict, lifetime(element, now)) for element in elements)
    return _elements(f"add to set {item.name}", NFT_MSG_NEWSETELEM, table, item, packed)


def delete_elements(table: Table, item: Set, elements: Iterable[Element]) -> Iterator[Message]:
    packed = (_packed(element.key, None) for element in elements)
    return _elements(f"remove from set {item.name}", NFT_MSG_DELSETELEM, table, item, packed)


def new_counter(table: Table, name: str) -> Message:
    return _counter(f"add counter {name}", NFT_MSG_NEWOBJ, table, name)


def delete_counter(table: Table, name: str) -> Message:
    return _counter(f"delete counter {name}", NFT_MSG_DELOBJ, table, name)


def _counter(words: str, kind: int, table: Table, name: str) -> Message:
    attributes = _text(1, table.name) + _text(2, name) + _number(3, COUNTER_OBJECT)
    if kind == NFT_MSG_NEWOBJ:
        attributes += attribute(4, b"")
    return _message(words, kind, table, attributes)


def _elements(words: str, kind: int, table: Table, item: Set, packed: Iterable[bytes]) -> Iterator[Message]:
    chunk: list[bytes] = []
    size = 0
    for element in packed:
        if size + len(element) > _ELEMENTS_LIMIT:
            yield _element_list(words, kind, table, item, chunk)
            chunk, size = [], 0
        chunk.append(element)
        size += len(element)
    if chunk:
        yield _element_list(words, kind, table, item, chunk)


def _element_list(words: str, kind: int, table: Table, item: Set, chunk: list[bytes]) -> Message:
    attributes = _text(1, table.name) + _text(2, item.name) + attribute(3, b"".join(chunk))
    return _message(words, kind, table, attributes)


def lifetime(element: Element, now: float) -> int | None:
    """Milliseconds for which the kernel is to keep it, at least one; None for ever."""
    if element.until is None:
        return None
    return max(1, int((element.until - EARLY - now) * 1000))


def _packed(key: bytes, verdict: Verdict | None, milliseconds: int | None = None) -> bytes:
    """NFTA_LIST_ELEM with NFTA_SET_ELEM_KEY and, where there is one, _DATA (of a map) and _TIMEOUT."""
    if verdict is None and milliseconds is None:
        head, tail = _around_key(len(key))
        return head + key + tail
    body = attribute(1, attribute(1, key))
    if verdict:
        body += attribute(2, attribute(2, _verdict(verdict)))
    if milliseconds is not None:
        body += attribute(4, struct.pack(">Q", milliseconds))
    return attribute(NFTA_LIST_ELEM, body)


@lru_cache(maxsize=64)
def _around_key(size: int) -> tuple[bytes, bytes]:
    """What is before and after each key of a size, so that thousands of elements are only joined together."""
    whole = attribute(NFTA_LIST_ELEM, attribute(1, attribute(1, bytes(size))))
    key = len(whole) - size - (-size % 4)
    return whole[:key], whole[key + size :]


def attribute(kind: int, payload: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(payload), kind) + payload + b"\0" * (-len(payload) % 4)


def _text(kind: int, text: str) -> bytes:
    return attribute(kind, wire_name(text) + b"\0")


def _number(kind: int, value: int) -> bytes:
    return struct.pack("=HH", 8, kind) + value.to_bytes(4, "big")


def _long(kind: int, value: int) -> bytes:
    return attribute(kind, value.to_bytes(8, "big"))


def wire_name(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


_CREATING = frozenset(
    {NFT_MSG_NEWTABLE, NFT_MSG_NEWCHAIN, NFT_MSG_NEWRULE, NFT_MSG_NEWSET, NFT_MSG_NEWSETELEM, NFT_MSG_NEWOBJ}
)


def _message(words: str, kind: int, table: Table, attributes: bytes, flags: int = 0) -> Message:
    flags |= NLM_F_REQUEST | (NLM_F_CREATE if kind in _CREATING else 0)
    return Message(f"{words} ({table})", _packet(NFNL_SUBSYS_NFTABLES << 8 | kind, flags, table.family, attributes))


def _packet(kind: int, flags: int, family: int, attributes: bytes, *, resource: int = 0) -> bytes:
    """nlmsghdr and nfgenmsg before the attributes; the sequence number is filled in when it is sent."""
    head = struct.pack("=IHHII", 20 + len(attributes), kind, flags, 0, 0)
    return head + struct.pack("=BB", family, 0) + resource.to_bytes(2, "big") + attributes


@lru_cache(maxsize=4096)
def _expression(expression: Expression) -> bytes:
    return attribute(NFTA_LIST_ELEM, _named(*_name_and_body(expression)))


def _named(name: str, body: bytes) -> bytes:
    return _text(1, name) + attribute(2, body)


def _name_and_body(expression: Expression) -> tuple[str, bytes]:
    match expression:
        case Payload(base, offset, length, register):
            where = _number(2, base) + _number(3, offset) + _number(4, length)
            return "payload", _register(1, register) + where
        case Meta(key, register):
            return "meta", _register(1, register) + _number(2, key)
        case SetMeta(key, register):
            return "meta", _number(2, key) + _register(3, register)
        case Ct(ct_key, register, direction):
            which = b"" if direction is None else attribute(3, bytes([direction]))
            return "ct", _register(1, register) + _number(2, ct_key) + which
        case Bitwise(register, mask):
            operands = _number(3, len(mask)) + _value(4, mask) + _value(5, bytes(len(mask)))
            return "bitwise", _register(1, register) + _register(2, register) + operands
        case Compare(op, register, value):
            return "cmp", _register(1, register) + _number(2, op) + _value(3, value)
        case Lookup(name, register, decide):
            result = _number(3, VERDICT_REGISTER) if decide else b""
            return "lookup", _text(1, name) + _register(2, register) + result
        case Load(register, value):
            return "immediate", _register(1, register) + _value(2, value)
        case Decide(verdict):
            return "immediate", _number(1, VERDICT_REGISTER) + attribute(2, attribute(2, _verdict(verdict)))
        case Count(counter):
            return "objref", _number(1, COUNTER_OBJECT) + _text(2, counter)
        case SourceNat(register):
            kind = _number(1, SOURCE_NAT) + _number(2, NFPROTO_IPV4)
            return "nat", kind + _register(3, register) + _register(4, register)
        case Record(name, register):
            return "dynset", _text(1, name) + _number(3, DYNSET_UPDATE) + _register(4, register)
        case Unknown(name, _):
            raise ValueError(f"a rule with an unknown {name} expression is only ever read")


def _register(kind: int, word: int) -> bytes:
    """NFT_REG32_00 and up, one for each word of 4 bytes."""
    return _number(kind, 8 + word)


def _value(kind: int, data: bytes) -> bytes:
    """NFTA_DATA_VALUE"""
    return attribute(kind, attribute(1, data))


def _verdict(verdict: Verdict) -> bytes:
    code = attribute(1, struct.pack(">i", VERDICTS[verdict.action]))
    return code + (_text(2, verdict.chain) if verdict.chain else b"")
