"""Birth of the two owned tables, in netlink bytes of our own: this must work when nothing else does yet.

Formats and numbers: include/uapi/linux/netlink.h, netfilter/nfnetlink.h and netfilter/nf_tables.h.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from itertools import product

from cleanroomd.errors import IsolationError

NETLINK_NETFILTER = 12
TABLE = "cleanroom"
INET, NETDEV = 1, 5
"""NFPROTO_*"""
OWNER, PERSIST = 0x2, 0x4
"""NFT_TABLE_F_*; persist needs kernel 6.9."""
BASE_CHAINS = {"input": 1, "forward": 2, "output": 3}
"""NF_INET_LOCAL_IN, _FORWARD, _LOCAL_OUT; all at priority 0."""

_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_CREATE = 0x1, 0x4, 0x400
_NLMSG_ERROR = 2
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_SUBSYSTEM = 10
_NEWTABLE, _DELTABLE, _NEWCHAIN = 0, 2, 3
_POLICY_DROP = 0
_NESTED = 0x8000
_RECEIVE = 1 << 16

_HEADER = struct.Struct("=IHHII")
"""nlmsghdr: length, type, flags, sequence, port."""
_CODE = struct.Struct("=i")
"""nlmsgerr.error: 0 or a negative errno."""


def own_tables() -> socket.socket:
    """A new netlink socket that owns both tables: born deny-all, or taken back with the rules they have.

    Tables that outlived their last owner keep every rule. A table of the same name that was never owned
    cannot be claimed (the kernel answers EOPNOTSUPP) and was not made by us: it is replaced by deny-all.
    Below kernel 6.9 `persist` is refused in the same way, hence the order of attempts.
    """
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
    try:
        netlink.bind((0, 0))
        refusal = 0
        for replace, flags in product((False, True), (OWNER | PERSIST, OWNER)):
            refusal = _send(netlink, _birth(flags, replace=replace))
            if refusal == 0:
                return netlink
            if refusal != errno.EOPNOTSUPP:
                break
        raise IsolationError(f"cannot own the rule tables: {os.strerror(refusal)}", _hint(refusal))
    except OSError as error:
        netlink.close()
        raise IsolationError(f"cannot own the rule tables: {error.strerror or error}") from error
    except IsolationError:
        netlink.close()
        raise


def _hint(refusal: int) -> str:
    if refusal == errno.EPERM:
        return (
            "another process owns them (a keeper, or a daemon that outlived its keeper: stop it), "
            "or this one lacks CAP_NET_ADMIN"
        )
    return "the kernel needs nf_tables with the inet and netdev families (CONFIG_NF_TABLES)"


def _birth(flags: int, *, replace: bool) -> list[bytes]:
    messages = []
    for family in (INET, NETDEV):
        if replace:
            messages.append(_message(_NEWTABLE, family, _string(1, TABLE), create=True))
            messages.append(_message(_DELTABLE, family, _string(1, TABLE)))
        owned = _string(1, TABLE) + _number(2, flags)
        messages.append(_message(_NEWTABLE, family, owned, create=True))
    for name, hook in BASE_CHAINS.items():
        attributes = (
            _string(1, TABLE)
            + _string(3, name)
            + _attribute(4 | _NESTED, _number(1, hook) + _number(2, 0))
            + _number(5, _POLICY_DROP)
            + _string(7, "filter")
        )
        messages.append(_message(_NEWCHAIN, INET, attributes, create=True))
    return messages


def _send(netlink: socket.socket, messages: Iterable[bytes]) -> int:
    """The errno of one batch, 0 when all of it is in force; the kernel applies all or nothing.

    Replies are queued before send() returns, so nothing here waits. Only the last message asks for an
    acknowledgement, and it comes after the errors of the others: the first reply decides.
    """
    parts = [_message(_BATCH_BEGIN, 0, b"", subsystem=0, resource=_SUBSYSTEM), *messages]
    length, kind, flags, *_ = _HEADER.unpack_from(parts[-1])
    parts[-1] = _HEADER.pack(length, kind, flags | _NLM_F_ACK, 0, 0) + parts[-1][_HEADER.size :]
    parts.append(_message(_BATCH_END, 0, b"", subsystem=0, resource=_SUBSYSTEM))
    netlink.send(b"".join(parts))
    codes = []
    with suppress(BlockingIOError):
        while True:
            reply = netlink.recv(_RECEIVE, socket.MSG_DONTWAIT)
            if _HEADER.unpack_from(reply)[1] == _NLMSG_ERROR:
                codes.append(-_CODE.unpack_from(reply, _HEADER.size)[0])
    return int(codes[0]) if codes else errno.EPROTO


def _message(
    kind: int,
    family: int,
    attributes: bytes,
    *,
    create: bool = False,
    subsystem: int = _SUBSYSTEM,
    resource: int = 0,
) -> bytes:
    body = struct.pack("=BBH", family, 0, socket.htons(resource)) + attributes
    flags = _NLM_F_REQUEST | (_NLM_F_CREATE if create else 0)
    return _HEADER.pack(_HEADER.size + len(body), subsystem << 8 | kind, flags, 0, 0) + body


def _attribute(kind: int, payload: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(payload), kind) + payload + b"\0" * (-len(payload) % 4)


def _string(kind: int, text: str) -> bytes:
    return _attribute(kind, text.encode() + b"\0")


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack(">I", value))
