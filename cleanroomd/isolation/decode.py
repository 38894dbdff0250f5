"""The kernel's dump of nf_tables into values, by a strict walk over the attributes.

Not with pyroute2's decoders: they turn every number they do not know into None, so that two different foreign
rules would look alike. A proof must see what it does not understand: whatever is not exactly what the encoder
could have written becomes an `Unknown` expression or an oddity in words, never nothing.
Attribute numbers are those of include/uapi/linux/netfilter/nf_tables.h.
"""

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from cleanroomd.isolation.encode import (
    CHAIN_TYPES,
    COUNTER_OBJECT,
    DYNAMIC_SET,
    DYNSET_UPDATE,
    NFPROTO_IPV4,
    POLICIES,
    SOURCE_NAT,
    TIMED_SET,
    TYPE_BITS,
    VERDICT_DATA,
    VERDICT_REGISTER,
    VERDICTS,
)
from cleanroomd.isolation.expressions import (
    WORD,
    Base,
    Bitwise,
    CmpOp,
    Compare,
    Count,
    Ct,
    CtKey,
    Decide,
    Direction,
    Expression,
    Load,
    Lookup,
    Meta,
    MetaKey,
    Payload,
    Record,
    Rule,
    SetMeta,
    SourceNat,
    Unknown,
    Verdict,
)
from cleanroomd.isolation.ruleset import Chain, Dynamic, Element, Family, Hook, HookPoint, KeyField, Set, Tally

_TYPE_MASK = 0x3FFF
"""An attribute's number without NLA_F_NESTED and NLA_F_NET_BYTEORDER."""
_ATTRIBUTE = struct.Struct("=HH")
_NFT_SET_MAP = 0x8
_NF_NAT_RANGE_MAP_IPS = 0x1
_NFT_CHAIN_BASE = 0x1
_ACTIONS = {code: action for action, code in VERDICTS.items()}
_ACCEPTS = {code: accepts for accepts, code in POLICIES.items()}


class Attributes:
    """The attributes of a message or nest, taken out one by one; what is left over at the end is odd.

    Every way in which the bytes can be wrong is a ValueError.
    """

    def __init__(self, data: bytes) -> None:
        self._found: dict[int, bytes] = {}
        for kind, payload in walk(data):
            if kind in self._found:
                raise ValueError(f"attribute {kind} twice")
            self._found[kind] = payload

    def __contains__(self, kind: int) -> bool:
        return kind in self._found

    def take(self, kind: int) -> bytes:
        try:
            return self._found.pop(kind)
        except KeyError:
            raise ValueError(f"no attribute {kind}") from None

    def skip(self, *kinds: int) -> None:
        for kind in kinds:
            self._found.pop(kind, None)

    def number(self, kind: int) -> int:
        """An unsigned number in network byte order, of whatever size."""
        return int.from_bytes(self.take(kind), "big")

    def text(self, kind: int) -> str:
        return self.take(kind).rstrip(b"\0").decode("utf-8", "surrogateescape")

    def nest(self, kind: int) -> "Attributes":
        return Attributes(self.take(kind))

    def register(self, kind: int) -> int:
        return _word(self.number(kind))

    def value(self, kind: int) -> bytes:
        """NFTA_DATA_VALUE inside an nfta_data."""
        nest = self.nest(kind)
        data = nest.take(1)
        nest.finish()
        return data

    def verdict(self, kind: int) -> Verdict:
        """NFTA_DATA_VERDICT inside an nfta_data."""
        outer = self.nest(kind)
        nest = outer.nest(2)
        outer.finish()
        code = int.from_bytes(nest.take(1), "big", signed=True)
        chain = nest.text(2) if 2 in nest else ""
        nest.finish()
        if code not in _ACTIONS:
            raise ValueError(f"verdict {code}")
        return Verdict(_ACTIONS[code], chain)

    def finish(self) -> None:
        if self._found:
            raise ValueError(self.left())

    def left(self) -> str:
        """What nobody took, in words; "" when nothing is left."""
        return ", ".join(f"attribute {kind} = {data.hex()}" for kind, data in sorted(self._found.items()))


def _word(register: int) -> int:
    """A data register as a word; the kernel numbers those at 16 bytes 1 to 4, all others 8 and up."""
    if 1 <= register <= 4:
        return (register - 1) * 4
    if 8 <= register < 24:
        return register - 8
    raise ValueError(f"register {register}")


def walk(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The attributes of a nest in their order; ValueError if they do not fill it."""
    offset = 0
    while offset < len(data):
        if len(data) - offset < _ATTRIBUTE.size:
            raise ValueError("attributes end in the middle")
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size or offset + length > len(data):
            raise ValueError("an attribute is longer than its message")
        yield kind & _TYPE_MASK, data[offset + _ATTRIBUTE.size : offset + length]
        offset += length + -length % WORD


def rule(expressions: bytes) -> Rule:
    """NFTA_RULE_EXPRESSIONS as a rule."""
    return tuple(_expression(payload) for _, payload in walk(expressions))


def _expression(data: bytes) -> Expression:
    outer = Attributes(data)
    name = outer.text(1)
    body = outer.take(2) if 2 in outer else b""
    try:
        attributes = Attributes(body)
        expression = _DECODERS[name](attributes)
        attributes.finish()
        outer.finish()
    except (KeyError, ValueError):
        return Unknown(name, data.hex())
    return expression


def _payload(a: Attributes) -> Expression:
    return Payload(Base(a.number(2)), a.number(3), a.number(4), a.register(1))


def _meta(a: Attributes) -> Expression:
    key = MetaKey(a.number(2))
    return Meta(key, a.register(1)) if 1 in a else SetMeta(key, a.register(3))


def _ct(a: Attributes) -> Expression:
    direction = Direction(a.number(3)) if 3 in a else None
    return Ct(CtKey(a.number(2)), a.register(1), direction)


def _bitwise(a: Attributes) -> Expression:
    source, destination, length = a.register(1), a.register(2), a.number(3)
    mask, xor = a.value(4), a.value(5)
    operation = a.number(6) if 6 in a else 0
    if source != destination or operation != 0 or len(mask) != length or any(xor):
        raise ValueError("another operation than a mask in place")
    return Bitwise(source, mask)


def _cmp(a: Attributes) -> Expression:
    return Compare(CmpOp(a.number(2)), a.register(1), a.value(3))


def _lookup(a: Attributes) -> Expression:
    decide = 3 in a
    if decide and a.number(3) != VERDICT_REGISTER:
        raise ValueError("a map to data")
    if 5 in a and a.number(5) != 0:
        raise ValueError("an inverted lookup")
    return Lookup(a.text(1), a.register(2), decide)


def _immediate(a: Attributes) -> Expression:
    register = a.number(1)
    return Decide(a.verdict(2)) if register == VERDICT_REGISTER else Load(_word(register), a.value(2))


def _objref(a: Attributes) -> Expression:
    if a.number(1) != COUNTER_OBJECT:
        raise ValueError("another object than a counter")
    return Count(a.text(2))


def _nat(a: Attributes) -> Expression:
    if a.number(1) != SOURCE_NAT or a.number(2) != NFPROTO_IPV4:
        raise ValueError("another translation than of an IPv4 source")
    lowest, highest = a.register(3), a.register(4)
    if lowest != highest:
        raise ValueError("a range of addresses")
    if 7 in a and a.number(7) & ~_NF_NAT_RANGE_MAP_IPS:
        raise ValueError("ports that change")
    return SourceNat(lowest)


def _dynset(a: Attributes) -> Expression:
    if a.number(3) != DYNSET_UPDATE or (6 in a and a.number(6) != 0) or (9 in a and a.number(9) != 0):
        raise ValueError("another operation than to note or refresh a key")
    return Record(a.text(1), a.register(4))


_DECODERS: Mapping[str, Callable[[Attributes], Expression]] = {
    "payload": _payload,
    "meta": _meta,
    "ct": _ct,
    "bitwise": _bitwise,
    "cmp": _cmp,
    "lookup": _lookup,
    "immediate": _immediate,
    "objref": _objref,
    "nat": _nat,
    "dynset": _dynset,
}


@dataclass(frozen=True, slots=True)
class TableFacts:
    """What the kernel says of a table itself: NFT_TABLE_F_* and the netlink port that owns it, 0 for none."""

    family: int
    name: str
    flags: int
    owner: int


def table(family: int, data: bytes) -> TableFacts:
    a = Attributes(data)
    owner = a.number(7) if 7 in a else 0
    return TableFacts(family, a.text(1), a.number(2), owner)


def chain(family: Family, data: bytes) -> Chain:
    """A chain without its rules."""
    a = Attributes(data)
    a.skip(1, 2, 6, 8, 9, 12)
    name = a.text(3)
    flags = a.number(10) if 10 in a else 0
    odd = [f"flags {flags}"] if flags & ~_NFT_CHAIN_BASE else []
    hook = None
    if 4 in a:
        try:
            hook = _hook(family, a)
        except (KeyError, ValueError) as error:
            odd.append(f"a hook with {error}")
    if a.left():
        odd.append(a.left())
    return Chain(name, (), hook, "; ".join(odd))


def _hook(family: Family, a: Attributes) -> Hook:
    nest = a.nest(4)
    kind, accepts = a.text(7), _ACCEPTS[a.number(5)]
    number, priority = nest.number(1), int.from_bytes(nest.take(2), "big", signed=True)
    point = HookPoint.of(family, number)
    if point is None or kind not in CHAIN_TYPES.values():
        raise ValueError(f"type {kind} at hook {number}")
    device = nest.text(3) if 3 in nest else ""
    if 4 in nest:
        devices = [payload.rstrip(b"\0").decode("utf-8", "surrogateescape") for _, payload in walk(nest.take(4))]
        if devices != [device]:
            raise ValueError(f"devices {', '.join(devices)}")
    nest.finish()
    return Hook(point, priority, device, accepts, translates=kind == CHAIN_TYPES[True])


def set_head(data: bytes) -> Set:
    """A set without its elements."""
    a = Attributes(data)
    # Table, policy, size hints, number, collection interval, user data, padding, handle, and what the kernel
    # adds about its own implementation: none of these says which keys match.
    a.skip(1, 8, 10, 12, 13, 14, 16, 19, 20)
    name, flags = a.text(2), a.number(3) if 3 in a else 0
    bounds = a.take(9) if 9 in a else b""
    key_type, key_length = a.number(4), a.number(5)
    verdicts = bool(flags & _NFT_SET_MAP)
    odd, dynamic, counted, timed = [], None, False, False
    try:
        if flags & DYNAMIC_SET == DYNAMIC_SET:
            dynamic = Dynamic(_size(bounds), a.number(11))
            flags &= ~DYNAMIC_SET
        elif flags & TIMED_SET and 11 not in a:
            timed = True
            flags &= ~TIMED_SET
        if 17 in a:
            counted = True
            tally(a.take(17))
    except ValueError as error:
        odd.append(f"bounds or an expression with {error}")
    if flags & ~_NFT_SET_MAP:
        odd.append(f"flags {flags}")
    if verdicts and a.number(6) != VERDICT_DATA:
        odd.append("values other than verdicts")
    a.skip(6, 7)
    try:
        fields = _key_fields(key_type)
    except ValueError:
        fields = ()
    item = Set(name, fields, frozenset(), verdicts, counted=counted, dynamic=dynamic, timed=timed)
    if not fields or item.key_size != key_length:
        odd.append(f"keys of type {key_type:#x} and {key_length} bytes")
    if a.left():
        odd.append(a.left())
    return replace(item, oddity="; ".join(odd))


def _size(bounds: bytes) -> int:
    """NFTA_SET_DESC_SIZE; 0 where the kernel names none. How a concatenation is split says nothing of a hash set."""
    a = Attributes(bounds)
    a.skip(2)
    size = a.number(1) if 1 in a else 0
    a.finish()
    return size


def tally(data: bytes) -> Tally:
    """A set's or element's counter; ValueError if the expression is anything else."""
    outer = Attributes(data)
    name, body = outer.text(1), outer.nest(2)
    outer.finish()
    if name != "counter":
        raise ValueError(f"expression {name}")
    found = Tally(packets=body.number(2), bytes=body.number(1))
    body.skip(3)
    body.finish()
    return found


def _key_fields(key_type: int) -> tuple[KeyField, ...]:
    fields: list[KeyField] = []
    while key_type:
        fields.insert(0, KeyField(key_type & (1 << TYPE_BITS) - 1))
        key_type >>= TYPE_BITS
    return tuple(fields)


def tallies(data: bytes) -> Iterator[tuple[bytes, Tally]]:
    """Key and counter of the elements in one NFT_MSG_NEWSETELEM; what has no counter is left out."""
    listed = Attributes(data)
    if 3 not in listed:
        return
    for _, payload in walk(listed.take(3)):
        a = Attributes(payload)
        if 7 in a:
            yield a.value(1), tally(a.take(7))


def elements(data: bytes, now: float = 0.0) -> Iterator[Element]:
    """The elements in one NFT_MSG_NEWSETELEM; those with an end have it counted from `now`, CLOCK_BOOTTIME seconds.

    The kernel lists no element whose end is past.
    """
    listed = Attributes(data)
    if 3 not in listed:
        return
    forms: dict[int, _Form] = {}
    for _, payload in walk(listed.take(3)):
        form = forms.get(len(payload))
        if form is not None and int.from_bytes(payload, "big") & form.mask == form.fixed:
            yield Element(payload[form.key])
            continue
        element = _element(payload, now)
        if element == Element(element.key):
            forms[len(payload)] = _form(payload)
        yield element


@dataclass(frozen=True, slots=True)
class _Form:
    """All bits of a plain element but those of its key and of its counts: another one like it needs no second walk."""

    key: slice
    mask: int
    fixed: int


def _form(data: bytes) -> _Form:
    """Of an element that was decoded and is nothing but a key, and perhaps counts."""
    key, free = slice(0), []
    for kind, start, end in _places(data, 0, len(data)):
        if kind == 1:
            (_, *value), *_ = _places(data, start, end)
            key = slice(*value)
            free.append(key)
        elif kind == 7:
            bodies = (place for place in _places(data, start, end) if place[0] == 2)
            free += [slice(a, b) for _, *body in bodies for which, a, b in _places(data, *body) if which in (1, 2)]
    mask = bytearray(b"\xff" * len(data))
    for part in free:
        mask[part] = bytes(part.stop - part.start)
    bits = int.from_bytes(mask, "big")
    return _Form(key, bits, int.from_bytes(data, "big") & bits)


def _places(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, begin and end of the payload of each attribute in a part of `data` that is known to be well-formed."""
    while start < end:
        length, kind = _ATTRIBUTE.unpack_from(data, start)
        yield kind & _TYPE_MASK, start + _ATTRIBUTE.size, start + length
        start += length + -length % WORD


def _element(data: bytes, now: float) -> Element:
    a = Attributes(data)
    a.skip(6, 8)
    if 3 in a and a.number(3) != 0:
        return Element(data, None, "an element with flags")
    try:
        key = a.value(1)
        verdict = a.verdict(2) if 2 in a else None
        until = None
        if 4 in a:
            a.skip(4)
            until = now + a.number(5) / 1000
        if 7 in a:
            tally(a.take(7))
        a.finish()
    except ValueError as error:
        return Element(data, None, f"an element with {error}")
    return Element(key, verdict, until=until)
