"""The compiler: a posture in, a whole ruleset out. Whatever the posture does not allow is dropped.

**inet cleanroom** decides. Base chains input, forward and output have policy drop. Loopback is accepted in
input and output: a packet there never left this kernel, and the enclosure's own parts talk over it.
Everything that is not IPv4 is dropped, and so is what conntrack calls invalid. `forward` looks `iifname .
oifname` up in one verdict map, `input` and `output` the one interface, and each jumps to a chain that knows
only that pair:

- the packet that opens a connection, and those that follow in its direction, must match the pair's set
  themselves: `saddr . daddr . proto . dport`;
- a packet of the reply direction passes if the connection is established and its *original* tuple is in the
  same set, so that removing an element cuts established connections at once, without touching conntrack;
- ICMP errors (RFC 792 destination unreachable, which carries path MTU, and time exceeded) pass if conntrack
  relates them to a connection whose original tuple is in the set. No other ICMP passes, in particular no
  echo.

Sources and destinations may be networks. A set holds networks of one pair of prefix lengths, and the
addresses are masked to those lengths before the lookup: an exact hash set each, no interval set, so
overlapping networks need no merging and a lookup costs the same at 10 and at 10,000 elements. A plan has
two or three such pairs of lengths.

The enclosure itself (origin "") opens connections through `output` and gets only their replies through
`input`. It is never a target, sends no ICMP error (all its links have one MTU) and answers nobody.

**netdev cleanroom** guards. Each guarded interface has an ingress chain, which proves who speaks (machine:
its MAC and its address; port: an address of its networks that is not ours), and an egress chain, the gate,
which passes only IPv4 that the accept rules above have marked, and ARP in this kernel's own name. Ingress
takes the mark off whatever comes in. Ethertypes are compared in the frame itself, where a VLAN tag is still
seen, so tagged frames are dropped; IPv6 with all its extension headers, IPv4 with options (source routes among
them), other ethertypes and ARP probes from 0.0.0.0 (RFC 5227) are dropped too. A dark port's chains have no
accept rule, and no map names it.

A port with tagged zones lets frames with just one of their tags pass to and from the zones' sub-interfaces. Each
of these has a guard of its own, which sees its frames without the tag and judges them as those of any port.

An allowance that names an interface without a guard, a dark port, or the enclosure as target is not
compiled: nothing would prove who speaks there.

What else there is, decided one by one (docs/threat-model.md has the table, with the tests):

- Fragments: a guard judges the source of each; conntrack puts datagrams together before the pair's rules see
  them, so that no fragment passes by itself. Overlapping ones never reach a rule.
- Protocols other than TCP and UDP cannot be allowed. Multicast, broadcast and link-local are in no set, and their
  sources in no guard, except that a zone's own network has its own broadcast address, which is delivered here.
- DHCP: none is served, none is asked for. The enclosure offers no service on any link.
- Loopback and our own addresses from outside stop at the guard, and so do other martians.
- A packet whose TTL ends here is dropped without an answer.
- A connection that is no longer allowed is cut with its element. Its conntrack entry stays and lets nothing
  through: deleting it as well would change nothing but the time until it is forgotten.

**Counting.** An element of a flow set counts the packets and bytes that pass by it, in both directions. Each base and
guard chain counts what it drops under its own name. Whatever the deciding table drops ends in one chain, which
notes the pair of interfaces in `DENIED_PAIRS` and, of a packet that would have opened a connection, its addresses,
protocol and port in `DENIED_FLOWS`. Whoever is denied chooses those keys, so both are bounded. counts.py reads them.

The uplink, a port with peers, is reached by passages only, never by an allowance. Their elements end by
themselves, and since replies are looked up in the same set, so do their connections, whoever is dead or stopped
by then. One chain of type nat gives them the uplink's own address as source; the gate there lets no other
address out, and its ingress hears nobody but the peers, in ARP neither.
"""

import hashlib
import string
import struct
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from ipaddress import IPv4Address, IPv4Network

from cleanroomd.errors import IsolationError
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
    SourceNat,
    Verdict,
)
from cleanroomd.isolation.ruleset import (
    Chain,
    Dynamic,
    Element,
    Family,
    Hook,
    HookPoint,
    KeyField,
    Ruleset,
    Set,
    Table,
)
from cleanroomd.model.plan import Protocol
from cleanroomd.model.posture import Allowance, Passage, PortGuard, Posture, TapGuard

TABLE = "cleanroom"
PRIORITY = 0
"""NF_IP_PRI_FILTER, after conntrack (-200) and defragmentation (-400) in the inet hooks."""
MARK = 0x636C6E72
"""The mark of a packet that an accept rule has passed; any other value stops at the gate."""
ENCLOSURE = ""
LET_THROUGH = "let-through"
APPEARANCE = "appears-as"
"""The chain that hides inner addresses on the uplink."""
NAT_PRIORITY = 100
"""NF_IP_PRI_NAT_SRC"""
ICMP_ERRORS = "icmp-errors"
DENIED = "denied"
"""The chain where every packet ends that the deciding table drops."""
DENIED_PAIRS = "denied-pairs"
"""Dynamic set of what was dropped: name of the interface it came in by . of the one it was to leave by.

Empty stands for the enclosure itself. Each element counts packets and bytes.
"""
DENIED_FLOWS = "denied-flows"
"""Dynamic set of the connections that were asked for in vain: saddr . daddr . proto . dport, as in the flow sets.

The port is 0 for protocols other than TCP and UDP. Only packets that would open a connection (conntrack: new) are
noted, not those of connections that were cut. Each element counts packets and bytes.
"""
PAIRS_NOTED = Dynamic(size=16_384, lifetime=24 * 3600 * 1000)
FLOWS_NOTED = Dynamic(size=4_096, lifetime=3600 * 1000)
"""Bounds, since whoever is denied chooses the keys: what floods them is forgotten an hour after it stops."""
ACCEPT, DROP = Decide(Verdict(Action.ACCEPT)), Decide(Verdict(Action.DROP))
NFPROTO_IPV4 = b"\x02"
ICMP = b"\x01"
"""IANA protocol number."""
ICMP_ERROR_TYPES = (3, 11)
"""RFC 792: destination unreachable, time exceeded."""
PROTOCOLS: Mapping[Protocol, int] = {Protocol.TCP: 6, Protocol.UDP: 17}
"""IANA protocol numbers."""
IPV4, ARP, VLAN = b"\x08\x00", b"\x08\x06", b"\x81\x00"
"""Ethertypes."""
NO_OPTIONS = b"\x45"
"""RFC 791: version 4, and a header of five words, which leaves no room for options."""
FLOW_FIELDS = (KeyField.IPV4_ADDRESS, KeyField.IPV4_ADDRESS, KeyField.PROTOCOL, KeyField.SERVICE)
_FLOW_KEY = struct.Struct(">IIB3xH2x")
"""`FLOW_FIELDS`, each padded to whole registers."""

Pair = tuple[str, str]
Guard = PortGuard | TapGuard
Prefixes = tuple[int, int]
Flows = Mapping[Prefixes, frozenset[Element]]
"""What one endpoint may open to another, by the prefix lengths of source and destination."""


def compile_posture(posture: Posture) -> Ruleset:
    """The rules of a posture; IsolationError if it contradicts itself or names no possible interface."""
    _check(posture)
    outer = {port.interface for port in posture.ports if port.peers and not port.dark}
    inner = {tap.interface for tap in posture.taps}
    inner |= {port.interface for port in posture.ports if not port.dark} - outer
    allowances = [each for each in posture.allowances if each.target in inner and each.origin in inner | {ENCLOSURE}]
    passages = [each for each in posture.passages if each.target in outer and each.origin in inner]
    table = _deciding_table(_flows([*allowances, *passages]), {(each.target, each.appears_as) for each in passages})
    return Ruleset(frozenset({table, _guarding_table(posture)}))


def tap_mac(interface: str) -> str:
    """The enclosure's own MAC on a tap: from its name, so that a machine's ARP cache survives a power cut.

    Locally administered and unicast (IEEE 802, second bit of the first octet set, first one clear).
    """
    octets = bytearray(hashlib.sha256(b"cleanroom tap " + name_bytes(interface)).digest()[:6])
    octets[0] = octets[0] & 0xFC | 0x02
    return octets.hex(":")


def name_bytes(interface: str) -> bytes:
    """An interface name as the kernel has it; IsolationError for what no kernel accepts as one."""
    name = interface.encode("utf-8", "surrogateescape")
    if not 0 < len(name) < 16 or name in (b".", b"..") or any(c in b"/:\0 \t\n\v\f\r\xa0" for c in name):
        raise IsolationError(
            f"cannot guard interface {interface!r}: that is no name of an interface",
            "names have 1 to 15 bytes without spaces, slashes and colons",
        )
    return name


def _check(posture: Posture) -> None:
    seen: set[str] = {"lo"}
    guards: tuple[Guard, ...] = (*posture.ports, *posture.taps)
    for guard in guards:
        name_bytes(guard.interface)
        if guard.interface in seen:
            raise IsolationError(
                f"cannot compile the rules: interface {guard.interface} is guarded twice",
                "give each port and each machine an interface of its own",
            )
        seen.add(guard.interface)


def _flows(opened: Iterable[Allowance | Passage]) -> Mapping[Pair, Flows]:
    """Of two passages that open the same, the later end counts."""
    found: defaultdict[Pair, defaultdict[Prefixes, dict[bytes, float | None]]]
    found = defaultdict(lambda: defaultdict(dict))
    for each in opened:
        ends = found[each.origin, each.target][each.source.prefixlen, each.destination.prefixlen]
        key, until = _flow_key(each), each.until if isinstance(each, Passage) else None
        ends[key] = max(until, ends.get(key) or until) if until is not None else None
    return {
        pair: {
            prefixes: frozenset(Element(key, until=until) for key, until in ends.items())
            for prefixes, ends in by_prefixes.items()
        }
        for pair, by_prefixes in found.items()
    }


def _flow_key(allowance: Allowance | Passage) -> bytes:
    source, destination = allowance.source.network_address, allowance.destination.network_address
    return _FLOW_KEY.pack(int(source), int(destination), PROTOCOLS[allowance.protocol], allowance.port)


def flow_place(allowance: Allowance | Passage) -> tuple[str, bytes]:
    """The set and the key that stand for an allowance, and count what passes by it."""
    pair = allowance.origin, allowance.target
    return _set_name(pair, (allowance.source.prefixlen, allowance.destination.prefixlen)), _flow_key(allowance)


def _deciding_table(flows: Mapping[Pair, Flows], appearances: AbstractSet[tuple[str, IPv4Address]]) -> Table:
    ways = {way for origin, target in flows for way in ((origin, target), (target, origin))}
    maps: dict[str, set[Element]] = {"forward": set(), "input": set(), "output": set()}
    chains = set(_base_chains())
    for way in ways:
        base, key = _way(way)
        name = "//".join((base, *(_escaped(part) for part in way if part != ENCLOSURE)))
        opening, replying = flows.get(way, {}), flows.get((way[1], way[0]), {})
        chains.add(Chain(name, tuple(_pair_rules(way, opening, replying))))
        maps[base].add(Element(key, Verdict(Action.JUMP, name)))
    interface = (KeyField.IFNAME,)
    sets = {
        Set("forward", interface * 2, frozenset(maps["forward"]), verdicts=True),
        Set("input", interface, frozenset(maps["input"]), verdicts=True),
        Set("output", interface, frozenset(maps["output"]), verdicts=True),
        Set(ICMP_ERRORS, (KeyField.ICMP_TYPE,), frozenset(Element(bytes([t])) for t in ICMP_ERROR_TYPES)),
        Set(DENIED_PAIRS, interface * 2, counted=True, dynamic=PAIRS_NOTED),
        Set(DENIED_FLOWS, FLOW_FIELDS, counted=True, dynamic=FLOWS_NOTED),
    }
    for pair, by_prefixes in flows.items():
        for lengths, keys in by_prefixes.items():
            timed = any(element.until is not None for element in keys)
            sets.add(Set(_set_name(pair, lengths), FLOW_FIELDS, keys, counted=True, timed=timed))
    if appearances:
        chains.add(_appearance(appearances))
    return Table(Family.INET, TABLE, frozenset(chains), frozenset(sets), frozenset(maps))


def _way(way: Pair) -> tuple[str, bytes]:
    """The base chain that sees packets from the first to the second, and their key in its map."""
    origin, target = way
    if origin == ENCLOSURE:
        return "output", _ifname(target)
    if target == ENCLOSURE:
        return "input", _ifname(origin)
    return "forward", _ifname(origin) + _ifname(target)


def _base_chains() -> Iterator[Chain]:
    loopback = {
        "input": (Meta(MetaKey.IIFNAME, 0), Compare(CmpOp.EQUAL, 0, _ifname("lo")), ACCEPT),
        "output": (Meta(MetaKey.OIFNAME, 0), Compare(CmpOp.EQUAL, 0, _ifname("lo")), ACCEPT),
    }
    keys: Mapping[str, Rule] = {
        "input": (Meta(MetaKey.IIFNAME, 0),),
        "output": (Meta(MetaKey.OIFNAME, 0),),
        "forward": (Meta(MetaKey.IIFNAME, 0), Meta(MetaKey.OIFNAME, 4)),
    }
    for name, key in keys.items():
        denied = (Count(name), Decide(Verdict(Action.GOTO, DENIED)))
        rules: tuple[Rule, ...] = (
            (Meta(MetaKey.NFPROTO, 0), Compare(CmpOp.NOT_EQUAL, 0, NFPROTO_IPV4), *denied),
            (*_state(CtState.INVALID), *denied),
            (*key, Lookup(name, 0, decide=True)),
            denied,
        )
        if name in loopback:
            rules = (loopback[name], *rules)
        yield Chain(name, rules, Hook(HookPoint[name.upper()], PRIORITY))
    mark = MARK.to_bytes(4, sys.byteorder)
    yield Chain(LET_THROUGH, ((Load(0, mark), SetMeta(MetaKey.MARK, 0), ACCEPT),))
    yield Chain(DENIED, (*_noting(), (DROP,)))


def _appearance(appearances: AbstractSet[tuple[str, IPv4Address]]) -> Chain:
    """Connections that leave by an interface bear an address of it; whatever comes here has been accepted before."""
    rules = tuple(
        (
            *(Meta(MetaKey.OIFNAME, 0), Compare(CmpOp.EQUAL, 0, _ifname(interface))),
            *(Load(0, address.packed), SourceNat(0)),
        )
        for interface, address in sorted(appearances)
    )
    return Chain(APPEARANCE, rules, Hook(HookPoint.POSTROUTING, NAT_PRIORITY, accepts=True, translates=True))


def _noting() -> Iterator[Rule]:
    """What is remembered of a packet that is dropped; a rule that cannot note anything leaves it to the next."""
    yield (Meta(MetaKey.IIFNAME, 0), Meta(MetaKey.OIFNAME, 4), Record(DENIED_PAIRS, 0))
    is_ipv4 = (Meta(MetaKey.NFPROTO, 0), Compare(CmpOp.EQUAL, 0, NFPROTO_IPV4))
    opening = (*is_ipv4, *_state(CtState.NEW), *_addresses(), Meta(MetaKey.L4PROTO, 2))
    numbers = [bytes([number]) for number in PROTOCOLS.values()]
    for number in numbers:
        port = Payload(Base.TRANSPORT, 2, 2, 3)
        yield (*opening, Compare(CmpOp.EQUAL, 2, number), port, Record(DENIED_FLOWS, 0))
    others = tuple(Compare(CmpOp.NOT_EQUAL, 2, number) for number in numbers)
    yield (*opening, *others, Load(3, bytes(4)), Record(DENIED_FLOWS, 0))


def _pair_rules(way: Pair, opening: Flows, replying: Flows) -> Iterator[Rule]:
    """What may pass from the first of a pair to the second: its own openings, replies to the other's."""
    passing = ACCEPT if way[1] == ENCLOSURE else Decide(Verdict(Action.GOTO, LET_THROUGH))
    forth = [(_set_name(way, prefixes), prefixes) for prefixes in sorted(opening)]
    back = [(_set_name((way[1], way[0]), prefixes), prefixes) for prefixes in sorted(replying)]
    for name, prefixes in forth:
        states = _state(CtState.NEW, CtState.ESTABLISHED)
        yield (*_direction(Direction.ORIGINAL), *states, *_own_tuple(prefixes), Lookup(name, 0), passing)
    for name, prefixes in back:
        states = _state(CtState.ESTABLISHED)
        yield (*_direction(Direction.REPLY), *states, *_original_tuple(prefixes), Lookup(name, 0), passing)
    if way[0] == ENCLOSURE:
        return
    for direction, sets in ((Direction.ORIGINAL, forth), (Direction.REPLY, back)):
        for name, prefixes in sets:
            yield (
                *_icmp_error(),
                *_direction(direction),
                *_state(CtState.RELATED),
                *_original_tuple(prefixes),
                Lookup(name, 0),
                passing,
            )


def _direction(direction: Direction) -> Rule:
    return (Ct(CtKey.DIRECTION, 0), Compare(CmpOp.EQUAL, 0, bytes([direction])))


def _state(*states: CtState) -> Rule:
    """Go on if the connection is in one of the states."""
    mask = sum(states).to_bytes(4, sys.byteorder)
    return (Ct(CtKey.STATE, 0), Bitwise(0, mask), Compare(CmpOp.NOT_EQUAL, 0, bytes(4)))


def _icmp_error() -> Rule:
    is_icmp = (Meta(MetaKey.L4PROTO, 0), Compare(CmpOp.EQUAL, 0, ICMP))
    return (*is_icmp, Payload(Base.TRANSPORT, 0, 1, 0), Lookup(ICMP_ERRORS, 0))


def _own_tuple(prefixes: Prefixes) -> Rule:
    """The packet's own addresses, protocol and destination port into registers 0 to 3 (RFC 791, 793, 768)."""
    return (*_addresses(), *_masks(prefixes), Meta(MetaKey.L4PROTO, 2), Payload(Base.TRANSPORT, 2, 2, 3))


def _addresses() -> Rule:
    return (Payload(Base.NETWORK, 12, 4, 0), Payload(Base.NETWORK, 16, 4, 1))


def _original_tuple(prefixes: Prefixes) -> Rule:
    """The same four facts of the packet that opened the connection, as conntrack remembers them."""
    original = Direction.ORIGINAL
    source, destination = Ct(CtKey.SRC_IP, 0, original), Ct(CtKey.DST_IP, 1, original)
    masks = _masks(prefixes)
    return (source, destination, *masks, Ct(CtKey.PROTOCOL, 2), Ct(CtKey.PROTO_DST, 3, original))


def _masks(prefixes: Prefixes) -> Rule:
    return tuple(Bitwise(register, _mask(length)) for register, length in enumerate(prefixes) if length < 32)


def _mask(length: int) -> bytes:
    return IPv4Network((0, length)).netmask.packed


def _guarding_table(posture: Posture) -> Table:
    guards: tuple[Guard, ...] = (*posture.ports, *posture.taps)
    chains = frozenset(
        chain
        for guard in guards
        for chain in (
            _guard_chain(HookPoint.INGRESS, guard.interface, _ingress(guard)),
            _guard_chain(HookPoint.EGRESS, guard.interface, _egress(guard)),
        )
    )
    return Table(Family.NETDEV, TABLE, chains, counters=frozenset(chain.name for chain in chains))


def _guard_chain(point: HookPoint, interface: str, rules: Iterable[Rule]) -> Chain:
    """A netdev chain that counts under its own name what its rules do not accept, and drops it."""
    name = guard_name(point, interface)
    return Chain(name, (*rules, (Count(name),)), Hook(point, PRIORITY, interface))


def guard_name(point: HookPoint, interface: str) -> str:
    return f"{point.name.lower()}//{_escaped(interface)}"


def _ingress(guard: Guard) -> Iterator[Rule]:
    unmarked = (Load(0, bytes(4)), SetMeta(MetaKey.MARK, 0), ACCEPT)
    if isinstance(guard, TapGuard):
        mac, own = _mac(guard), IPv4Network(guard.address)
        yield (*_from_mac(mac), *_is_arp(), *_arp_sender_mac(mac), *_arp_sender_in(own), ACCEPT)
        yield (*_from_mac(mac), *_is_plain_ipv4(), *_source_in(own), *unmarked)
    elif not guard.dark:
        denied = (Count(guard_name(HookPoint.INGRESS, guard.interface)), DROP)
        for address in sorted({item.ip for item in guard.addresses}):
            yield (*_is_arp(), *_arp_sender_in(IPv4Network(address)), *denied)
            yield (*_is_ipv4(), *_source_in(IPv4Network(address)), *denied)
        for network in guard.peers or sorted({item.network for item in guard.addresses}):
            yield (*_is_arp(), *_arp_sender_in(network), ACCEPT)
            yield (*_is_plain_ipv4(), *_source_in(network), *unmarked)
        for tag in guard.tags:
            # What it carries is proven by the guard of the sub-interface, which sees it next, without the tag.
            yield (*_is_tagged(tag, ARP), ACCEPT)
            yield (*_is_tagged(tag, IPV4), ACCEPT)


def _egress(guard: Guard) -> Iterator[Rule]:
    if isinstance(guard, PortGuard) and guard.dark:
        return
    mac = _parsed_mac(tap_mac(guard.interface)) if isinstance(guard, TapGuard) else _mac(guard)
    marked = (Meta(MetaKey.MARK, 0), Compare(CmpOp.EQUAL, 0, MARK.to_bytes(4, sys.byteorder)))
    if isinstance(guard, PortGuard):
        for tag in guard.tags:
            yield (*_from_mac(mac), *_is_tagged(tag, ARP), *_equals(Base.LINK, 18 + 8, mac), ACCEPT)
            yield (*_from_mac(mac), *_is_tagged(tag, IPV4), *marked, ACCEPT)
        if not guard.addresses:
            return
    yield (*_from_mac(mac), *_is_arp(), *_arp_sender_mac(mac), ACCEPT)
    if isinstance(guard, PortGuard) and guard.peers:
        for address in sorted({item.ip for item in guard.addresses}):
            yield (*_from_mac(mac), *_is_ipv4(), *_source_in(IPv4Network(address)), *marked, ACCEPT)
        return
    yield (*_from_mac(mac), *_is_ipv4(), *marked, ACCEPT)


def _equals(base: Base, offset: int, value: bytes) -> Rule:
    """Go on if the bytes at an offset are these."""
    return (Payload(base, offset, len(value), 0), Compare(CmpOp.EQUAL, 0, value))


def _from_mac(mac: bytes) -> Rule:
    return _equals(Base.LINK, 6, mac)


def _is_ipv4() -> Rule:
    return _equals(Base.LINK, 12, IPV4)


def _is_tagged(tag: int, ethertype: bytes) -> Rule:
    """One VLAN tag (IEEE 802.1Q, of whatever priority), and right below it the ethertype: no second tag."""
    wanted = Compare(CmpOp.EQUAL, 0, tag.to_bytes(2, "big"))
    identifier = (Payload(Base.LINK, 14, 2, 0), Bitwise(0, b"\x0f\xff"), wanted)
    return (*_equals(Base.LINK, 12, VLAN), *identifier, *_equals(Base.LINK, 16, ethertype))


def _is_plain_ipv4() -> Rule:
    return (*_is_ipv4(), *_equals(Base.NETWORK, 0, NO_OPTIONS))


def _is_arp() -> Rule:
    """RFC 826: hardware type Ethernet, protocol type IPv4, address lengths 6 and 4."""
    network = Base.NETWORK
    header = ((0, b"\0\1"), (2, IPV4), (4, b"\6"), (5, b"\4"))
    fields = (expression for offset, value in header for expression in _equals(network, offset, value))
    return (*_equals(Base.LINK, 12, ARP), *fields)


def _arp_sender_mac(mac: bytes) -> Rule:
    return _equals(Base.NETWORK, 8, mac)


def _arp_sender_in(network: IPv4Network) -> Rule:
    return _address_in(14, network)


def _source_in(network: IPv4Network) -> Rule:
    return _address_in(12, network)


def _address_in(offset: int, network: IPv4Network) -> Rule:
    """Go on if the address at an offset of the network header is in the network."""
    masks = (Bitwise(0, network.netmask.packed),) if network.prefixlen < 32 else ()
    wanted = Compare(CmpOp.EQUAL, 0, network.network_address.packed)
    return (Payload(Base.NETWORK, offset, 4, 0), *masks, wanted)


def _mac(guard: Guard) -> bytes:
    try:
        return _parsed_mac(guard.mac)
    except ValueError:
        raise IsolationError(
            f"cannot guard interface {guard.interface}: {guard.mac!r} is no MAC address",
            "write six hexadecimal octets with colons, as in 52:54:00:00:00:01",
        ) from None


def _parsed_mac(text: str) -> bytes:
    octets = bytes.fromhex(text.replace(":", ""))
    if len(octets) != 6:
        raise ValueError(text)
    return octets


def _ifname(interface: str) -> bytes:
    """The key of an interface in sets and comparisons: IFNAMSIZ bytes."""
    return name_bytes(interface).ljust(KeyField.IFNAME.size, b"\0")


def _escaped(endpoint: str) -> str:
    """An endpoint inside the name of a chain or set: letters the nft tool can read back, no two alike.

    "//" separates, "/" and two hexadecimal digits stand for any other byte, "/enclosure" for the enclosure.
    """
    if endpoint == ENCLOSURE:
        return "/enclosure"
    return "".join(chr(c) if chr(c) in _PLAIN else f"/{c:02x}" for c in name_bytes(endpoint))


_PLAIN = frozenset(string.ascii_letters + string.digits + "-_.")


def _set_name(pair: Pair, prefixes: Prefixes) -> str:
    """Deterministic, so that two rulesets with the same pair differ only in elements."""
    origin, target = (_escaped(endpoint) for endpoint in pair)
    return f"flows//{origin}//{target}//{prefixes[0]}-{prefixes[1]}"
