"""Reads what `bypasses` judges; changes nothing.

Read straight from the kernel's bytes, as the rules are (`decode`): a library that decodes what it does not know to
nothing would hide it. One socket, a few dumps, some milliseconds; a dump without end is cut, and that is said.
Formats: include/uapi/linux/rtnetlink.h, if_link.h, fib_rules.h, bpf.h, netfilter/nf_tables.h.
"""

import ctypes
import errno
import os
import platform
import socket
import struct
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

from cleanroomd.errors import IsolationError
from cleanroomd.isolation import links
from cleanroomd.isolation.bypasses import Link, PolicyRule, Queueing, Route, Surroundings
from cleanroomd.isolation.decode import walk
from cleanroomd.model.posture import Posture

_HEADER = struct.Struct("=IHHII")
_REQUEST, _DUMP = 0x1, 0x300
_ERROR, _DONE = 2, 3
_GETLINK, _GETADDR, _GETROUTE, _GETRULE, _GETQDISC = 18, 22, 26, 34, 38
_IFINFO, _IFADDR, _RTMSG, _TCMSG = (struct.Struct(f) for f in ("=BxHiII", "=BBBBi", "=BBBBBBBBI", "=BxxxiIII"))
_IFF_UP, _IFF_LOOPBACK = 0x1, 0x8
_IFLA_IFNAME, _IFLA_LINK, _IFLA_MASTER, _IFLA_LINKINFO, _IFLA_NETNSID, _IFLA_XDP = 3, 5, 10, 18, 37, 43
_CLONED = 0x200
"""RTM_F_CLONED: what the cache of routes holds, not a route."""
_LINK_SCOPE = 253
_MOST = 20_000
"""Messages of one dump; a namespace with more routes than that has been flooded."""
_OLD_TABLES = {"ip": "ip_tables_names", "ip6": "ip6_tables_names", "arp": "arp_tables_names"}

_NETFILTER = 12
"""NETLINK_NETFILTER"""
_GETCHAIN, _GETFLOWTABLE = 0xA04, 0xA17
_INET, _NETDEV = 1, 5
_FAMILIES = {_INET: "inet", 2: "ip", _NETDEV: "netdev", 10: "ip6"}
_INET_INGRESS = 5

_BPF_CALL = {"x86_64": 321, "aarch64": 280}
_BPF_PROG_QUERY = 16
_TCX = {"ingress": 46, "egress": 47}
"""BPF_TCX_INGRESS, BPF_TCX_EGRESS: programs on a device that no queueing discipline shows, since kernel 6.6."""


def read(posture: Posture) -> Surroundings:
    """The surroundings as they are now, in the current network namespace; IsolationError if they cannot be read."""
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as asked:
            asked.bind((0, 0))
            found = tuple(_links(asked))
            names = {link.index: link.name for link in found}
            guarded = {*(port.interface for port in posture.ports), *(tap.interface for tap in posture.taps)}
            return Surroundings(
                links=tuple(_with_programs(found, guarded)),
                routes=tuple(_routes(asked, names)),
                rules=frozenset(_rules(asked)),
                queueing=tuple(_queueing(asked, names)),
                sysctls=_sysctls(links.wanted_sysctls(posture)),
                old_tables=tuple(_old_tables()),
            )
    except (OSError, struct.error, ValueError) as error:
        raise IsolationError(f"cannot look at the network around the rules: {error}") from error


def indexes(posture: Posture) -> Mapping[str, int]:
    """The kernel's number of each guarded interface, 0 for one that is gone: another number is another device."""
    known = {name: index for index, name in socket.if_nameindex()}
    guarded = (*(port.interface for port in posture.ports), *(tap.interface for tap in posture.taps))
    return {interface: known.get(interface, 0) for interface in guarded}


def leading_tables() -> frozenset[str]:
    """The packet filter's tables that handle packets before the rules decide or after, as "netdev filter".

    A chain at a device's ingress or egress can rewrite a packet and forward it to another device by itself, and a
    flowtable leads established connections past every other chain. IsolationError if they cannot be read.
    """
    found = set()
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETFILTER) as asked:
            asked.bind((0, 0))
            for payload in _dump(asked, _GETCHAIN, bytes(4)):
                chain = dict(walk(payload[4:]))
                hook = int.from_bytes(dict(walk(chain.get(4, b""))).get(1, b"\xff"), "big")
                at_a_device = (payload[0] == _NETDEV and 4 in chain) or (payload[0] == _INET and hook == _INET_INGRESS)
                if at_a_device:
                    found.add(_table_of(payload[0], chain))
            for payload in _dump(asked, _GETFLOWTABLE, bytes(4)):
                found.add(_table_of(payload[0], dict(walk(payload[4:]))))
    except (OSError, struct.error, ValueError, KeyError) as error:
        raise IsolationError(f"cannot look at the tables of others: {error}") from error
    return frozenset(found)


def _dump(asked: socket.socket, kind: int, body: bytes) -> Iterator[bytes]:
    asked.send(_HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | _DUMP, kind, 0) + body)
    count = 0
    while True:
        data = asked.recv(1 << 18, socket.MSG_DONTWAIT)
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, message, _, sequence, _ = _HEADER.unpack_from(data, offset)
            payload = data[offset + _HEADER.size : offset + length]
            offset += max(_HEADER.size, length + -length % 4)
            if sequence != kind:
                continue
            if message == _DONE:
                return
            if message == _ERROR:
                code = -struct.unpack_from("=i", payload)[0]
                raise OSError(code, os.strerror(code))
            count += 1
            if count > _MOST:
                raise OSError(errno.E2BIG, f"more than {_MOST} entries, somebody floods the kernel's tables")
            yield payload


def _links(asked: socket.socket) -> Iterator[Link]:
    addresses: dict[int, set[str]] = {}
    for payload in _dump(asked, _GETADDR, _IFADDR.pack(0, 0, 0, 0, 0)):
        _, length, _, scope, index = _IFADDR.unpack_from(payload)
        found = dict(walk(payload[_IFADDR.size :]))
        raw = found.get(2, found.get(1, b""))
        # IPv6 gives every device a link-local address by itself.
        if raw and not (len(raw) == 16 and scope == _LINK_SCOPE):
            addresses.setdefault(index, set()).add(f"{ip_address(raw)}/{length}")
    for payload in _dump(asked, _GETLINK, _IFINFO.pack(0, 0, 0, 0, 0)):
        _, _, index, flags, _ = _IFINFO.unpack_from(payload)
        found = dict(walk(payload[_IFINFO.size :]))
        info = dict(walk(found.get(_IFLA_LINKINFO, b"")))
        xdp = dict(walk(found.get(_IFLA_XDP, b"")))
        yield Link(
            name=_text(found[_IFLA_IFNAME]),
            index=index,
            kind=_text(info.get(1, b"")),
            up=bool(flags & _IFF_UP),
            loopback=bool(flags & _IFF_LOOPBACK),
            master=_number(found.get(_IFLA_MASTER)),
            # One that is in another namespace says nothing about this one.
            below=0 if _IFLA_NETNSID in found else _number(found.get(_IFLA_LINK)),
            programs=("xdp",) if any(xdp.get(2, b"")) else (),
            addresses=frozenset(addresses.get(index, ())),
        )


def _routes(asked: socket.socket, names: Mapping[int, str]) -> Iterator[Route]:
    for payload in _dump(asked, _GETROUTE, _RTMSG.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)):
        family, length, _, tos, table, protocol, _, kind, flags = _RTMSG.unpack_from(payload)
        if flags & _CLONED or family != socket.AF_INET:
            continue
        found = dict(walk(payload[_RTMSG.size :]))
        destination = ip_address(found.get(1, bytes(4)))
        yield Route(
            destination=f"{destination}/{length}",
            table=_number(found.get(15)) or table,
            interface=names.get(_number(found.get(4)), ""),
            gateway=str(ip_address(found[5])) if 5 in found else "",
            family=family,
            kind=kind,
            protocol=protocol,
            metric=_number(found.get(6)),
            tos=tos,
            nexthop=_number(found.get(30)),
        )


def _rules(asked: socket.socket) -> Iterator[PolicyRule]:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            for payload in _dump(asked, _GETRULE, _RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)):
                found = dict(walk(payload[_RTMSG.size :]))
                table = _number(found.get(15)) or payload[4]
                target = _number(found.get(4))
                yield PolicyRule(payload[0], _number(found.get(6)), table, payload[7], target)
        except OSError as error:
            # A kernel without IPv6, or without policy routing, has nothing to show.
            if error.errno not in (errno.EOPNOTSUPP, errno.EAFNOSUPPORT):
                raise


def _queueing(asked: socket.socket, names: Mapping[int, str]) -> Iterator[Queueing]:
    for payload in _dump(asked, _GETQDISC, _TCMSG.pack(0, 0, 0, 0, 0)):
        _, index, _, parent, _ = _TCMSG.unpack_from(payload)
        yield Queueing(names.get(index, ""), _text(dict(walk(payload[_TCMSG.size :])).get(1, b"")), parent)


def _with_programs(found: Iterable[Link], guarded: set[str]) -> Iterator[Link]:
    for link in found:
        places = tuple(place for place, kind in _TCX.items() if link.name in guarded and _attached(link.index, kind))
        yield replace(link, programs=(*link.programs, *places)) if places else link


def _attached(index: int, kind: int) -> bool:
    """Whether a program is there; a kernel that does not tell (older, or without the privilege) counts as none."""
    call = _BPF_CALL.get(platform.machine())
    if call is None:
        return False
    identities = (ctypes.c_uint32 * 8)()
    query = struct.pack("=IIIIQII", index, kind, 0, 0, ctypes.addressof(identities), 8, 0).ljust(64, b"\0")
    buffer = ctypes.create_string_buffer(query, len(query))
    result = _LIBC.syscall(call, _BPF_PROG_QUERY, ctypes.byref(buffer), len(query))
    count = struct.unpack_from("=I", buffer.raw, 24)[0]
    return bool(result == 0 and count) or (result < 0 and ctypes.get_errno() == errno.ENOSPC)


_LIBC = ctypes.CDLL(None, use_errno=True)


def _sysctls(wanted: Mapping[str, str]) -> Mapping[str, str]:
    found = {}
    for path in wanted:
        with suppress(OSError):
            found[path] = (Path("/proc/sys/net") / path).read_text().strip()
    return found


def _old_tables() -> Iterator[str]:
    for family, name in _OLD_TABLES.items():
        with suppress(OSError):
            for table in (Path("/proc/thread-self/net") / name).read_text(errors="replace").split():
                yield f"{family} {table}"


def _table_of(family: int, attributes: Mapping[int, bytes]) -> str:
    return f"{_FAMILIES.get(family, family)} {_text(attributes[1])}"


def _number(data: bytes | None) -> int:
    return int.from_bytes(data[:4], sys.byteorder) if data else 0


def _text(data: bytes) -> str:
    return data.rstrip(b"\0").decode("utf-8", "surrogateescape")
