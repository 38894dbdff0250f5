"""Puts right what `bypasses` found, one thing at a time, by requests of our own to the kernel (rtnetlink).

Formats: include/uapi/linux/rtnetlink.h, if_link.h, fib_rules.h.
"""

import errno
import os
import socket
import struct
from ipaddress import ip_interface, ip_network
from pathlib import Path

from cleanroomd.errors import IsolationError
from cleanroomd.isolation import links
from cleanroomd.isolation.bypasses import (
    FreeLink,
    PolicyRule,
    RemoveAddress,
    RemoveProgram,
    RemoveQueueing,
    RemoveRoute,
    RemoveRule,
    RestoreRoute,
    Route,
    SetSysctl,
    TakeDown,
    Undo,
)
from cleanroomd.isolation.encode import attribute

_HEADER = struct.Struct("=IHHII")
_REQUEST, _ACK = 0x1, 0x4
_ERROR = 2
_SETLINK, _DELADDR, _DELROUTE, _DELRULE, _DELQDISC = 19, 21, 25, 33, 37
_IFINFO, _IFADDR, _RTMSG, _TCMSG = (struct.Struct(f) for f in ("=BxHiII", "=BBBBi", "=BBBBBBBBI", "=BxxxiIII"))
_IFF_UP = 0x1
_IFLA_MASTER, _IFLA_XDP, _IFLA_XDP_FD, _IFLA_XDP_FLAGS = 10, 43, 1, 3
_XDP_MODES = (2, 4)
"""XDP_FLAGS_SKB_MODE, XDP_FLAGS_DRV_MODE: without either the kernel looks in the mode that the driver prefers only."""
_IFA_LOCAL = 2
_RTA_DST, _RTA_OIF, _RTA_PRIORITY, _RTA_TABLE, _RTA_NH_ID = 1, 4, 6, 15, 30
_FRA_GOTO, _FRA_PRIORITY, _FRA_TABLE = 4, 6, 15
_SAME_RULES = 100
"""Rules of one preference and table, which differ in what they match, that go at once."""
_ANY_SCOPE = 255
"""RT_SCOPE_NOWHERE in a request to delete a route stands for every scope."""
_GONE = frozenset({errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.EADDRNOTAVAIL, errno.ENXIO})


def undo(act: Undo) -> None:
    """Put one thing right; what is right or gone already is fine. IsolationError says why that cannot be."""
    try:
        _undo(act)
    except OSError as error:
        if error.errno not in _GONE:
            raise IsolationError(f"cannot undo a change of the network: {error.strerror}") from error


def _undo(act: Undo) -> None:
    match act:
        case SetSysctl():
            (Path("/proc/sys/net") / act.path).write_text(act.value)
        case FreeLink():
            _change_link(act.interface, attribute(_IFLA_MASTER, bytes(4)))
        case RemoveAddress():
            _remove_address(act)
        case TakeDown():
            _change_link(act.interface, change=_IFF_UP)
        case RemoveRoute():
            _remove_route(act.route)
        case RestoreRoute():
            links.attach_tap(act.guard)
        case RemoveRule():
            _remove_rule(act.rule)
        case RemoveQueueing():
            body = _TCMSG.pack(0, socket.if_nametoindex(act.queueing.interface), 0, act.queueing.parent, 0)
            _request(_DELQDISC, body)
        case RemoveProgram():
            for mode in _XDP_MODES:
                no_program = attribute(_IFLA_XDP_FD, struct.pack("=i", -1))
                no_program += attribute(_IFLA_XDP_FLAGS, struct.pack("=I", mode))
                _change_link(act.interface, attribute(_IFLA_XDP, no_program))


def _change_link(interface: str, attributes: bytes = b"", *, change: int = 0) -> None:
    """Set attributes, and clear the flags in `change`."""
    _request(_SETLINK, _IFINFO.pack(0, 0, socket.if_nametoindex(interface), 0, change) + attributes)


def _remove_address(act: RemoveAddress) -> None:
    address = ip_interface(act.address)
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    index = socket.if_nametoindex(act.interface)
    body = _IFADDR.pack(family, address.network.prefixlen, 0, 0, index)
    _request(_DELADDR, body + attribute(_IFA_LOCAL, address.packed))


def _remove_route(route: Route) -> None:
    network = ip_network(route.destination)
    body = _RTMSG.pack(route.family, network.prefixlen, 0, route.tos, 0, 0, _ANY_SCOPE, route.kind, 0)
    body += attribute(_RTA_TABLE, struct.pack("=I", route.table))
    if network.prefixlen:
        body += attribute(_RTA_DST, network.network_address.packed)
    if route.nexthop:
        # The kernel refuses to be told an interface beside it.
        body += attribute(_RTA_NH_ID, struct.pack("=I", route.nexthop))
    elif route.interface:
        body += attribute(_RTA_OIF, struct.pack("=I", socket.if_nametoindex(route.interface)))
    if route.metric:
        body += attribute(_RTA_PRIORITY, struct.pack("=I", route.metric))
    _request(_DELROUTE, body)


def _remove_rule(rule: PolicyRule) -> None:
    body = _RTMSG.pack(rule.family, 0, 0, 0, 0, 0, 0, rule.action, 0)
    body += attribute(_FRA_PRIORITY, struct.pack("=I", rule.preference))
    body += attribute(_FRA_TABLE, struct.pack("=I", rule.table)) if rule.table else b""
    body += attribute(_FRA_GOTO, struct.pack("=I", rule.target)) if rule.target else b""
    for _ in range(_SAME_RULES):
        # Ends with ENOENT.
        _request(_DELRULE, body)


def _request(kind: int, body: bytes) -> None:
    """OSError with the kernel's own code if it refuses."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as asked:
        asked.bind((0, 0))
        asked.send(_HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | _ACK, 1, 0) + body)
        # The kernel answers inside send().
        answer = asked.recv(1 << 16, socket.MSG_DONTWAIT)
        if _HEADER.unpack_from(answer)[1] == _ERROR:
            code = -struct.unpack_from("=i", answer, _HEADER.size)[0]
            if code:
                raise OSError(code, os.strerror(code))
