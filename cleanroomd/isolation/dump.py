"""The whole packet filter as the kernel dumps it, byte for byte, and the same bytes as messages that make it again.

Nothing is interpreted on the way, so that what the twin gets includes what the decoder does not understand, and
tables that are not ours. Attribute numbers are those of include/uapi/linux/netfilter/nf_tables.h.
"""

import struct
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass

from pyroute2.netlink import NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST
from pyroute2.netlink.nfnetlink import NFNL_SUBSYS_NFTABLES
from pyroute2.netlink.nfnetlink.nftsocket import (
    NFT_MSG_DELTABLE,
    NFT_MSG_GETCHAIN,
    NFT_MSG_GETFLOWTABLE,
    NFT_MSG_GETGEN,
    NFT_MSG_GETOBJ,
    NFT_MSG_GETRULE,
    NFT_MSG_GETSET,
    NFT_MSG_GETSETELEM,
    NFT_MSG_GETTABLE,
    NFT_MSG_NEWCHAIN,
    NFT_MSG_NEWFLOWTABLE,
    NFT_MSG_NEWOBJ,
    NFT_MSG_NEWRULE,
    NFT_MSG_NEWSET,
    NFT_MSG_NEWSETELEM,
    NFT_MSG_NEWTABLE,
)

from cleanroomd.errors import IsolationError
from cleanroomd.isolation import decode
from cleanroomd.isolation.channel import Channel, InterruptedDumpError, Reply
from cleanroomd.isolation.encode import Message, attribute

_ATTEMPTS = 20
_TYPE_MASK = 0x3FFF
_DORMANT = 0x1
"""NFT_TABLE_F_DORMANT, the one flag of a table that says what its rules do."""
_CHAIN_HOOK, _HOOK_NUMBER, _HOOK_DEVICE, _HOOK_DEVICES = 4, 1, 3, 4
_RULE_CHAIN, _CHAIN_NAME = 2, 3

TableKey = tuple[int, str]
"""Family (NFPROTO_*) and name."""


@dataclass(frozen=True, slots=True)
class Kind:
    """How one kind of thing is made again: what the kernel numbers by itself, counts or pads is left out."""

    message: int
    words: str
    without: frozenset[int]
    flags: int = NLM_F_CREATE
    table_attribute: int = 1
    extra: bytes = b""


_TABLE = Kind(NFT_MSG_NEWTABLE, "table", frozenset({2, 3, 4, 5, 7}))
_FLOWTABLE = Kind(NFT_MSG_NEWFLOWTABLE, "flowtable", frozenset({4, 5, 6}))
_OBJECT = Kind(NFT_MSG_NEWOBJ, "object", frozenset({5, 6, 7}))
_CHAIN = Kind(NFT_MSG_NEWCHAIN, "chain", frozenset({2, 6, 8, 9}))
_SET = Kind(NFT_MSG_NEWSET, "set", frozenset({10, 14, 16, 19, 20}), extra=attribute(10, struct.pack(">I", 1)))
_ELEMENTS = Kind(NFT_MSG_NEWSETELEM, "elements", frozenset({4}))
_RULE = Kind(NFT_MSG_NEWRULE, "rule", frozenset({3, 6, 8}), NLM_F_CREATE | NLM_F_APPEND)


@dataclass(frozen=True, slots=True)
class Hooked:
    """A base chain as far as the twin has to know it."""

    table: TableKey
    name: str
    number: int
    """NF_*_* of the family."""
    devices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Dump:
    generation: int
    parts: tuple[tuple[Kind, Reply], ...]
    """In an order in which they can be made again."""

    @property
    def tables(self) -> tuple[TableKey, ...]:
        return tuple(_table_of(kind, reply) for kind, reply in self.parts if kind is _TABLE)

    def base_chains(self) -> Iterator[Hooked]:
        for kind, reply in self.parts:
            if kind is not _CHAIN:
                continue
            found = decode.Attributes(reply.attributes)
            if _CHAIN_HOOK in found:
                hook = found.nest(_CHAIN_HOOK)
                named = {hook.text(_HOOK_DEVICE)} if _HOOK_DEVICE in hook else set()
                listed = hook.take(_HOOK_DEVICES) if _HOOK_DEVICES in hook else b""
                named |= {data.rstrip(b"\0").decode("utf-8", "surrogateescape") for _, data in decode.walk(listed)}
                name = found.text(_CHAIN_NAME)
                yield Hooked(_table_of(kind, reply), name, hook.number(_HOOK_NUMBER), tuple(sorted(named)))

    def messages(
        self, *, tables: Collection[TableKey], without: Collection[tuple[TableKey, str]] = ()
    ) -> Iterator[Message]:
        """What makes these tables, without some of their chains, in a namespace that has none of them."""
        for kind, reply in self.parts:
            table = _table_of(kind, reply)
            if table not in tables:
                continue
            if without and kind in (_CHAIN, _RULE):
                name = decode.Attributes(reply.attributes).text(_CHAIN_NAME if kind is _CHAIN else _RULE_CHAIN)
                if (table, name) in without:
                    continue
            yield _message(kind, reply)


def read(channel: Channel) -> Dump:
    """Everything in the packet filter of the channel's namespace, at one generation."""
    for _ in range(_ATTEMPTS):
        generation = _generation(channel)
        with suppress(InterruptedDumpError):
            parts = tuple(_parts(channel))
            if _generation(channel) == generation:
                return Dump(generation, parts)
    raise IsolationError(
        "cannot read the rules back: something keeps changing the packet filter",
        "look for a firewall service that reloads all the time, and stop it",
    )


def removal(tables: Collection[TableKey]) -> Iterator[Message]:
    for family, name in tables:
        body = attribute(1, name.encode("utf-8", "surrogateescape") + b"\0")
        yield Message(f"remove table {name}", _bytes(NFT_MSG_DELTABLE, family, body, NLM_F_REQUEST))


def _parts(channel: Channel) -> Iterator[tuple[Kind, Reply]]:
    kinds = (
        (_TABLE, NFT_MSG_GETTABLE),
        (_OBJECT, NFT_MSG_GETOBJ),
        (_FLOWTABLE, NFT_MSG_GETFLOWTABLE),
        (_CHAIN, NFT_MSG_GETCHAIN),
        (_SET, NFT_MSG_GETSET),
    )
    sets: list[Reply] = []
    for kind, request in kinds:
        replies = channel.ask(request)
        yield from ((kind, reply) for reply in replies)
        sets = replies
    for item in sets:
        found = decode.Attributes(item.attributes)
        wanted = attribute(1, found.take(1)) + attribute(2, found.take(2))
        for reply in channel.ask(NFT_MSG_GETSETELEM, item.family, wanted):
            if 3 in decode.Attributes(reply.attributes):
                yield _ELEMENTS, reply
    yield from ((_RULE, reply) for reply in channel.ask(NFT_MSG_GETRULE))


def _generation(channel: Channel) -> int:
    (reply,) = channel.ask(NFT_MSG_GETGEN, dump=False)
    return decode.Attributes(reply.attributes).number(1)


def _table_of(kind: Kind, reply: Reply) -> TableKey:
    return reply.family, decode.Attributes(reply.attributes).text(kind.table_attribute)


def _message(kind: Kind, reply: Reply) -> Message:
    body = _without(reply.attributes, kind.without) + kind.extra
    if kind is _TABLE:
        flags = decode.Attributes(reply.attributes).number(2) & _DORMANT
        body += attribute(2, struct.pack(">I", flags))
    return Message(f"make the {kind.words} again", _bytes(kind.message, reply.family, body, NLM_F_REQUEST | kind.flags))


def _without(attributes: bytes, kinds: Collection[int]) -> bytes:
    """The attributes as they are, flags and padding included, but for some."""
    kept, offset = [], 0
    while offset < len(attributes):
        length, kind = struct.unpack_from("=HH", attributes, offset)
        end = offset + length + -length % 4
        if kind & _TYPE_MASK not in kinds:
            kept.append(attributes[offset:end])
        offset = end
    return b"".join(kept)


def _bytes(kind: int, family: int, body: bytes, flags: int) -> bytes:
    payload = struct.pack("=BBH", family, 0, 0) + body
    return struct.pack("=IHHII", 16 + len(payload), NFNL_SUBSYS_NFTABLES << 8 | kind, flags, 0, 0) + payload
