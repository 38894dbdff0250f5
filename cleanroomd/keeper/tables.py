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
_NEWTABLE, _DELTABLE, _NEWCHAIN, _GETGEN = 0, 2, 3, 16
_POLICY_DROP = 0
_NESTED = 0x8000
_RECEIVE = 1 << 16

_HEADER = struct.Struct("=IHHII")
"""nlmsghdr: length, type, flags, sequence, port."""
_CODE = struct.Struct("=i")
"""nlmsgerr.error: 0 or a negative errno."""


class OwnedElsewhereError(IsolationError):
    """Another process holds the owning socket: a keeper, or a daemon that outlived its keeper."""


_NEEDED = "the kernel needs nf_tables with the inet and netdev families: load the module nf_tables"


def own_tables() -> socket.socket:
    """A new netlink socket that owns both tables: born deny-all, or taken back with the rules they have.

    Tables that outlived their last owner keep every rule. A table of the same name that was never owned
    cannot be claimed (the kernel answers EOPNOTSUPP) and was not made by us: it is replaced by deny-all.
    OwnedElsewhereError while another socket owns them.
    """
    try:
        netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
    except OSError as error:
        # A kernel without nfnetlink knows no such protocol.
        cause = "the kernel has no nf_tables" if error.errno == errno.EPROTONOSUPPORT else error.strerror or str(error)
        raise IsolationError(f"cannot own the rule tables: {cause}", _NEEDED) from error
    try:
        netlink.bind((0, 0))
        refusal = _claim(netlink, replace=(False, True))
        if refusal == 0:
            return netlink
        message = f"cannot own the rule tables: {os.strerror(refusal)}"
        if refusal != errno.EPERM:
            raise IsolationError(message, _NEEDED)
        if not _may_read(netlink):
            raise IsolationError(message, "this process lacks CAP_NET_ADMIN: run it as root")
        raise OwnedElsewhereError(message, "another process owns them: a keeper elsewhere, or a daemon; stop it first")
    except OSError as error:
        netlink.close()
        raise IsolationError(f"cannot own the rule tables: {error.strerror or error}") from error
    except IsolationError:
        netlink.close()
        raise


def owns_tables(untrusted_socket: socket.socket) -> bool:
    """Whether a socket that another process handed over owns both tables, or can take them as they are."""
    if (untrusted_socket.family, untrusted_socket.proto) != (socket.AF_NETLINK, NETLINK_NETFILTER):
        return False
    try:
        return _claim(untrusted_socket, replace=(False,)) == 0
    except OSError:
        return False


def _claim(netlink: socket.socket, *, replace: Iterable[bool]) -> int:
    """The last errno, 0 once both tables are owned. Kernels below 6.9 refuse `persist` with EOPNOTSUPP."""
    refusal = errno.EPROTO
    for anew, flags in product(replace, (OWNER | PERSIST, OWNER)):
        refusal = _send(netlink, _birth(flags, replace=anew))
        if refusal != errno.EOPNOTSUPP:
            break
    return refusal


def _may_read(netlink: socket.socket) -> bool:
    """Without CAP_NET_ADMIN the kernel refuses even to tell the generation of the rules."""
    netlink.send(_message(_GETGEN, 0, b""))
    reply = netlink.recv(_RECEIVE, socket.MSG_DONTWAIT)
    return int(_HEADER.unpack_from(reply)[1]) != _NLMSG_ERROR


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

    What an earlier holder of the socket left unread is dropped first.

    Replies are queued before send() returns, so nothing here waits. Only the last message asks for an
    acknowledgement, and it comes after the errors of the others: the first reply decides.
    """
    parts = [_message(_BATCH_BEGIN, 0, b"", subsystem=0, resource=_SUBSYSTEM), *messages]
    length, kind, flags, *_ = _HEADER.unpack_from(parts[-1])
    parts[-1] = _HEADER.pack(length, kind, flags | _NLM_F_ACK, 0, 0) + parts[-1][_HEADER.size :]
    parts.append(_message(_BATCH_END, 0, b"", subsystem=0, resource=_SUBSYSTEM))
    _unread(netlink)
    netlink.send(b"".join(parts))
    replies = _unread(netlink)
    codes = [
        -_CODE.unpack_from(each, _HEADER.size)[0] for each in replies if _HEADER.unpack_from(each)[1] == _NLMSG_ERROR
    ]
    return int(codes[0]) if codes else errno.EPROTO


def _unread(netlink: socket.socket) -> list[bytes]:
    replies = []
    with suppress(BlockingIOError):
        while True:
            replies.append(netlink.recv(_RECEIVE, socket.MSG_DONTWAIT))
    return replies


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
