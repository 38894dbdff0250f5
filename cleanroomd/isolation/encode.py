"""Values to nf_tables messages, through pyroute2's message classes.

Of pyroute2's traps these matter here: a str is cut to its number of characters where UTF-8 has more bytes, so
names go in as bytes; NFTA_SET_DESC_CONCAT is nested too deep, and is not sent, for a hash set does not need it.
Expressions repeat from rule to rule and are encoded once; elements are packed with struct, since as objects
10,000 of them take most of a second.
Figures are those of include/uapi/linux/netfilter/nf_tables.h.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from pyroute2.netlink import NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST
from pyroute2.netlink.nfnetlink import NFNL_SUBSYS_NFTABLES, nfgen_msg
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
    nft_chain_msg,
    nft_contains_expr,
    nft_set_msg,
    nft_table_msg,
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
    Rule,
    SetMeta,
    Unknown,
    Verdict,
)
from cleanroomd.isolation.ruleset import Chain, Element, Family, Set, Table

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
NFTA_LIST_ELEM = 1
POLICIES = {True: 1, False: 0}
"""NF_ACCEPT and NF_DROP, by whether a base chain accepts what it did not decide."""

_HOST_ENDIAN = struct.pack("=BBI", 0, 4, 1)
"""NFTNL_UDATA_SET_KEYBYTEORDER, 4 bytes, BYTEORDER_HOST_ENDIAN: without it `nft list` reverses names."""
_ELEMENTS_LIMIT = 60_000
"""Bytes of elements in one message; an attribute's length has 16 bits."""
TYPE_BITS = 6
"""nft joins the data types of a concatenation in so many bits each."""


class _BatchMessage(nfgen_msg):  # type: ignore[misc]
    prefix = "NFNL_BATCH_"
    nla_map = (("NFNL_BATCH_UNSPEC", "none"), ("NFNL_BATCH_GENID", "be32"))


class _RuleMessage(nfgen_msg):  # type: ignore[misc]
    prefix = "NFTA_RULE_"
    nla_map = (
        ("NFTA_RULE_UNSPEC", "none"),
        ("NFTA_RULE_TABLE", "asciiz"),
        ("NFTA_RULE_CHAIN", "asciiz"),
        ("NFTA_RULE_HANDLE", "be64"),
        ("NFTA_RULE_EXPRESSIONS", "cdata"),
    )


class _ElementsMessage(nfgen_msg):  # type: ignore[misc]
    prefix = "NFTA_SET_ELEM_LIST_"
    nla_map = (
        ("NFTA_SET_ELEM_LIST_UNSPEC", "none"),
        ("NFTA_SET_ELEM_LIST_TABLE", "asciiz"),
        ("NFTA_SET_ELEM_LIST_SET", "asciiz"),
        ("NFTA_SET_ELEM_LIST_ELEMENTS", "cdata"),
    )


class _ObjectMessage(nfgen_msg):  # type: ignore[misc]
    prefix = "NFTA_OBJ_"
    nla_map = (
        ("NFTA_OBJ_UNSPEC", "none"),
        ("NFTA_OBJ_TABLE", "asciiz"),
        ("NFTA_OBJ_NAME", "asciiz"),
        ("NFTA_OBJ_TYPE", "be32"),
        ("NFTA_OBJ_DATA", "counter"),
    )

    class counter(nft_contains_expr.nft_expr.nft_counter):  # type: ignore[misc] # noqa: N801
        pass


@dataclass(frozen=True, slots=True)
class Message:
    """One encoded message of a batch, and what it does in words for the case that the kernel refuses it."""

    words: str
    data: bytes


def batch_begin(generation: int) -> Message:
    """Opens a batch that the kernel refuses with ERESTART if the rules are not of this generation."""
    message = _BatchMessage()
    message["attrs"] = [("NFNL_BATCH_GENID", generation)]
    return _batch_mark(message, NFNL_MSG_BATCH_BEGIN)


def batch_end() -> Message:
    return _batch_mark(_BatchMessage(), NFNL_MSG_BATCH_END)


def _batch_mark(message: nfgen_msg, kind: int) -> Message:
    message["res_id"] = NFNL_SUBSYS_NFTABLES
    message["header"]["type"] = kind
    message["header"]["flags"] = NLM_F_REQUEST
    message.encode()
    return Message("the batch", bytes(message.data))


def new_table(table: Table, flags: int) -> Message:
    attributes = [("NFTA_TABLE_NAME", wire_name(table.name)), ("NFTA_TABLE_FLAGS", flags)]
    return _message(f"own table {table}", nft_table_msg(), NFT_MSG_NEWTABLE, table, attributes)


def delete_table(table: Table) -> Message:
    attributes = [("NFTA_TABLE_NAME", wire_name(table.name))]
    return _message(f"clear table {table}", nft_table_msg(), NFT_MSG_DELTABLE, table, attributes)


def new_chain(table: Table, chain: Chain) -> Message:
    attributes: list[tuple[str, object]] = [
        ("NFTA_CHAIN_TABLE", wire_name(table.name)),
        ("NFTA_CHAIN_NAME", wire_name(chain.name)),
    ]
    if chain.hook:
        hook: list[tuple[str, object]] = [
            ("NFTA_HOOK_HOOKNUM", chain.hook.point.number),
            ("NFTA_HOOK_PRIORITY", chain.hook.priority),
        ]
        if chain.hook.device:
            hook.append(("NFTA_HOOK_DEV", wire_name(chain.hook.device)))
        attributes += [
            ("NFTA_CHAIN_HOOK", {"attrs": hook}),
            ("NFTA_CHAIN_POLICY", POLICIES[chain.hook.accepts]),
            ("NFTA_CHAIN_TYPE", b"filter"),
        ]
    return _message(f"add chain {chain.name}", nft_chain_msg(), NFT_MSG_NEWCHAIN, table, attributes)


def delete_chain(table: Table, chain: Chain) -> Message:
    attributes = [("NFTA_CHAIN_TABLE", wire_name(table.name)), ("NFTA_CHAIN_NAME", wire_name(chain.name))]
    return _message(f"delete chain {chain.name}", nft_chain_msg(), NFT_MSG_DELCHAIN, table, attributes)


def new_rule(table: Table, chain: Chain, number: int, rule: Rule) -> Message:
    """Appends a rule; `number` counts from 1, for words only."""
    attributes = [
        ("NFTA_RULE_TABLE", wire_name(table.name)),
        ("NFTA_RULE_CHAIN", wire_name(chain.name)),
        ("NFTA_RULE_EXPRESSIONS", b"".join(_expression(expression) for expression in rule)),
    ]
    words = f"add rule {number} of chain {chain.name}"
    return _message(words, _RuleMessage(), NFT_MSG_NEWRULE, table, attributes, NLM_F_APPEND)


def delete_rules(table: Table, chain: Chain) -> Message:
    attributes = [("NFTA_RULE_TABLE", wire_name(table.name)), ("NFTA_RULE_CHAIN", wire_name(chain.name))]
    return _message(f"clear chain {chain.name}", _RuleMessage(), NFT_MSG_DELRULE, table, attributes)


def new_set(table: Table, item: Set) -> Message:
    """An empty set or verdict map; its number in the batch is of no use, since nothing refers to it by number."""
    key_type = 0
    for part in item.fields:
        key_type = key_type << TYPE_BITS | part
    attributes: list[tuple[str, object]] = [
        ("NFTA_SET_TABLE", wire_name(table.name)),
        ("NFTA_SET_NAME", wire_name(item.name)),
        ("NFTA_SET_FLAGS", {"NFT_SET_MAP"} if item.verdicts else set()),
        ("NFTA_SET_KEY_TYPE", key_type),
        ("NFTA_SET_KEY_LEN", item.key_size),
        ("NFTA_SET_ID", 1),
        ("NFTA_SET_USERDATA", _HOST_ENDIAN),
    ]
    if item.verdicts:
        attributes += [("NFTA_SET_DATA_TYPE", VERDICT_DATA), ("NFTA_SET_DATA_LEN", 0)]
    return _message(f"add set {item.name}", nft_set_msg(), NFT_MSG_NEWSET, table, attributes)


def delete_set(table: Table, item: Set) -> Message:
    attributes = [("NFTA_SET_TABLE", wire_name(table.name)), ("NFTA_SET_NAME", wire_name(item.name))]
    return _message(f"delete set {item.name}", nft_set_msg(), NFT_MSG_DELSET, table, attributes)


def new_elements(table: Table, item: Set, elements: Iterable[Element]) -> Iterator[Message]:
    packed = (_packed(element.key, element.verdict) for element in elements)
    return _elements(f"add to set {item.name}", NFT_MSG_NEWSETELEM, table, item, packed)


def delete_elements(table: Table, item: Set, elements: Iterable[Element]) -> Iterator[Message]:
    packed = (_packed(element.key, None) for element in elements)
    return _elements(f"remove from set {item.name}", NFT_MSG_DELSETELEM, table, item, packed)


def new_counter(table: Table, name: str) -> Message:
    return _counter(f"add counter {name}", NFT_MSG_NEWOBJ, table, name)


def delete_counter(table: Table, name: str) -> Message:
    return _counter(f"delete counter {name}", NFT_MSG_DELOBJ, table, name)


def _counter(words: str, kind: int, table: Table, name: str) -> Message:
    attributes: list[tuple[str, object]] = [
        ("NFTA_OBJ_TABLE", wire_name(table.name)),
        ("NFTA_OBJ_NAME", wire_name(name)),
        ("NFTA_OBJ_TYPE", COUNTER_OBJECT),
    ]
    if kind == NFT_MSG_NEWOBJ:
        attributes.append(("NFTA_OBJ_DATA", {"attrs": []}))
    return _message(words, _ObjectMessage(), kind, table, attributes)


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
    attributes = [
        ("NFTA_SET_ELEM_LIST_TABLE", wire_name(table.name)),
        ("NFTA_SET_ELEM_LIST_SET", wire_name(item.name)),
        ("NFTA_SET_ELEM_LIST_ELEMENTS", b"".join(chunk)),
    ]
    return _message(words, _ElementsMessage(), kind, table, attributes)


def _packed(key: bytes, verdict: Verdict | None) -> bytes:
    """NFTA_LIST_ELEM with NFTA_SET_ELEM_KEY and, in a map, NFTA_SET_ELEM_DATA."""
    body = attribute(1, attribute(1, key))
    if verdict:
        decision = attribute(1, struct.pack(">i", VERDICTS[verdict.action]))
        if verdict.chain:
            decision += attribute(2, wire_name(verdict.chain) + b"\0")
        body += attribute(2, attribute(2, decision))
    return attribute(NFTA_LIST_ELEM, body)


def attribute(kind: int, payload: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(payload), kind) + payload + b"\0" * (-len(payload) % 4)


def wire_name(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _message(
    words: str,
    message: nfgen_msg,
    kind: int,
    table: Table,
    attributes: Iterable[tuple[str, object]],
    flags: int = 0,
) -> Message:
    message["nfgen_family"] = Family(table.family).value
    message["attrs"] = list(attributes)
    message["header"]["type"] = NFNL_SUBSYS_NFTABLES << 8 | kind
    creates = kind in (NFT_MSG_NEWTABLE, NFT_MSG_NEWCHAIN, NFT_MSG_NEWRULE, NFT_MSG_NEWSET)
    creates = creates or kind in (NFT_MSG_NEWSETELEM, NFT_MSG_NEWOBJ)
    message["header"]["flags"] = NLM_F_REQUEST | flags | (NLM_F_CREATE if creates else 0)
    message.encode()
    return Message(f"{words} ({table})", bytes(message.data))


@lru_cache(maxsize=4096)
def _expression(expression: Expression) -> bytes:
    name, attributes = _expression_attributes(expression)
    encoded = nft_contains_expr.nft_expr()
    data = {"attrs": attributes}
    encoded.setvalue({"attrs": [("NFTA_EXPR_NAME", name), ("NFTA_EXPR_DATA", data)]})
    encoded["header"]["type"] = NFTA_LIST_ELEM
    encoded.encode()
    return bytes(encoded.data)


def _expression_attributes(expression: Expression) -> tuple[str, list[tuple[str, object]]]:
    match expression:
        case Payload(base, offset, length, register):
            return "payload", [
                ("NFTA_PAYLOAD_DREG", _register(register)),
                ("NFTA_PAYLOAD_BASE", base.value),
                ("NFTA_PAYLOAD_OFFSET", offset),
                ("NFTA_PAYLOAD_LEN", length),
            ]
        case Meta(key, register):
            return "meta", [("NFTA_META_DREG", _register(register)), ("NFTA_META_KEY", key.value)]
        case SetMeta(key, register):
            return "meta", [("NFTA_META_KEY", key.value), ("NFTA_META_SREG", _register(register))]
        case Ct(ct_key, register, direction):
            found: list[tuple[str, object]] = [
                ("NFTA_CT_DREG", _register(register)),
                ("NFTA_CT_KEY", ct_key.value),
            ]
            if direction is not None:
                found.append(("NFTA_CT_DIRECTION", direction.value))
            return "ct", found
        case Bitwise(register, mask):
            return "bitwise", [
                ("NFTA_BITWISE_SREG", _register(register)),
                ("NFTA_BITWISE_DREG", _register(register)),
                ("NFTA_BITWISE_LEN", len(mask)),
                ("NFTA_BITWISE_MASK", _value(mask)),
                ("NFTA_BITWISE_XOR", _value(bytes(len(mask)))),
            ]
        case Compare(op, register, value):
            return "cmp", [
                ("NFTA_CMP_SREG", _register(register)),
                ("NFTA_CMP_OP", op.value),
                ("NFTA_CMP_DATA", _value(value)),
            ]
        case Lookup(name, register, decide):
            found = [("NFTA_LOOKUP_SET", wire_name(name)), ("NFTA_LOOKUP_SREG", _register(register))]
            if decide:
                found.append(("NFTA_LOOKUP_DREG", VERDICT_REGISTER))
            return "lookup", found
        case Load(register, value):
            destination = ("NFTA_IMMEDIATE_DREG", _register(register))
            return "immediate", [destination, ("NFTA_IMMEDIATE_DATA", _value(value))]
        case Decide(verdict):
            return "immediate", [
                ("NFTA_IMMEDIATE_DREG", VERDICT_REGISTER),
                ("NFTA_IMMEDIATE_DATA", {"attrs": [("NFTA_DATA_VERDICT", _verdict(verdict))]}),
            ]
        case Count(counter):
            return "objref", [
                ("NFTA_OBJREF_IMM_TYPE", COUNTER_OBJECT),
                ("NFTA_OBJREF_IMM_NAME", wire_name(counter)),
            ]
        case Unknown(name, _):
            raise ValueError(f"a rule with an unknown {name} expression is only ever read")


def _register(word: int) -> int:
    """NFT_REG32_00 and up, one for each word of 4 bytes."""
    return 8 + word


def _value(data: bytes) -> dict[str, object]:
    return {"attrs": [("NFTA_DATA_VALUE", data)]}


def _verdict(verdict: Verdict) -> dict[str, object]:
    attributes: list[tuple[str, object]] = [("NFTA_VERDICT_CODE", VERDICTS[verdict.action])]
    if verdict.chain:
        attributes.append(("NFTA_VERDICT_CHAIN", wire_name(verdict.chain)))
    return {"attrs": attributes}
