"""What the kernel tells of changes: commits to its packet filter with who made them, and links, addresses, routes.

Both sockets are read without ever waiting, a bounded number of messages at a time, and what they keep is bounded:
a storm of changes costs names, never memory. What was lost is said, and whoever listens looks at what is.
Formats: include/uapi/linux/netlink.h, netfilter/nfnetlink.h, netfilter/nf_tables.h, rtnetlink.h.
"""

import ctypes
import errno
import os
import socket
import struct
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Self

from cleanroomd.errors import IsolationError
from cleanroomd.isolation.decode import Attributes
from cleanroomd.keeper.tables import NETLINK_NETFILTER

_HEADER = struct.Struct("=IHHII")
"""nlmsghdr: length, type, flags, sequence, port."""
_NFGEN = 4
"""Size of nfgenmsg."""
_NEW_GENERATION = 10 << 8 | 15
"""NFNL_SUBSYS_NFTABLES, NFT_MSG_NEWGEN."""
_GEN_ID, _GEN_PID, _GEN_NAME = 1, 2, 3
"""NFTA_GEN_*"""
_GROUP_NFTABLES = 7
_ROUTE_GROUPS = (1, 4, 5, 7, 8, 9, 11, 19, 24, 25)
"""RTNLGRP_LINK, TC, IPV4_IFADDR, IPV4_ROUTE, IPV4_RULE, IPV6_IFADDR, IPV6_ROUTE, IPV6_RULE, and NETCONF of both,
which tells of forwarding, reverse path and proxy sysctls."""
_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_SO_RCVBUFFORCE = 33
_BUFFER = 1 << 20
_AT_ONCE = 500
"""Messages that are read before the loop gets its turn again."""
_LAST = 5
_REMEMBERED = 2000
"""Changes that are kept until somebody takes them."""


@dataclass(frozen=True, slots=True)
class Change:
    """One commit to the packet filter: the kernel's generation after it, and whose socket and process made it."""

    generation: int
    port: int
    """The netlink port that it came through, as the kernel filled it in: nobody can pretend to another's."""
    pid: int
    """As the kernel's own PID namespace numbers it."""
    name: str
    """The thread's name, at most 15 bytes; the process chooses it."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What came since the last time; `lost` if the kernel, or the bound on what is kept, dropped something."""

    changes: tuple[Change, ...]
    lost: bool


class RulesWatch:
    """Listens to every commit to nf_tables in the network namespace in which it is made."""

    def __init__(self) -> None:
        self._socket = _listening(NETLINK_NETFILTER, (_GROUP_NFTABLES,), _only(_NEW_GENERATION))
        self._changes: deque[Change] = deque()
        self._lost = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self, own: int = 0) -> bool:
        """Take in what is there, up to a bound; the rest stays readable. Whether any came not through port `own`."""
        foreign = False
        for _ in range(_AT_ONCE):
            data = _next(self._socket)
            if data is None:
                break
            if not data:
                self._lost = foreign = True
                continue
            change = parse(data)
            if change is None:
                continue
            foreign = foreign or change.port != own
            if len(self._changes) >= _REMEMBERED:
                self._lost = True
            else:
                self._changes.append(change)
        return foreign

    @property
    def newest(self) -> tuple[Change, ...]:
        """A few of those that were heard last."""
        return tuple(islice(reversed(self._changes), _LAST))

    def take(self) -> Heard:
        """Everything that was heard until now, up to the bound on what is kept."""
        for _ in range(_REMEMBERED // _AT_ONCE):
            self.read()
        heard = Heard(tuple(self._changes), self._lost)
        self._changes.clear()
        self._lost = False
        return heard


class LinksWatch:
    """Listens to changes of links, addresses, routes, rules and queueing in its network namespace."""

    def __init__(self) -> None:
        self._socket = _listening(socket.NETLINK_ROUTE, _ROUTE_GROUPS)
        self._ports: deque[int] = deque(maxlen=8)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> bool:
        """Take in what is there; whether anything was. What it said is not kept: whoever listens looks."""
        found = False
        for _ in range(_AT_ONCE):
            data = _next(self._socket)
            if data is None:
                return found
            found = True
            if len(data) >= _HEADER.size:
                port = _HEADER.unpack_from(data)[4]
                if port and port & 0x3FFFFF != os.getpid() & 0x3FFFFF and port not in self._ports:
                    self._ports.append(port)
        return found

    def take_ports(self) -> tuple[int, ...]:
        """Netlink ports, the newest last, of other processes that changed addresses, routes, rules or queueing.

        The kernel numbers a process's first socket by its pid; changes of links themselves carry no port.
        """
        ports = tuple(self._ports)
        self._ports.clear()
        return ports


def parse(data: bytes) -> Change | None:
    """The change that a datagram of the group tells of; None if it tells of something else, or is damaged."""
    with suppress(struct.error, ValueError):
        length, kind, _, _, port = _HEADER.unpack_from(data)
        if kind == _NEW_GENERATION:
            attributes = Attributes(data[_HEADER.size + _NFGEN : length])
            generation, pid = attributes.number(_GEN_ID), attributes.number(_GEN_PID)
            return Change(generation, port, pid, attributes.text(_GEN_NAME))
    return None


def _listening(protocol: int, groups: tuple[int, ...], program: bytes = b"") -> socket.socket:
    watch = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    try:
        watch.setblocking(False)  # noqa: FBT003 (takes no keyword)
        # Without the privilege the buffer is what the system gives; what does not fit is said to be lost.
        with suppress(OSError):
            watch.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        if program:
            _attach(watch, program)
        watch.bind((0, 0))
        for group in groups:
            # A kernel without IPv6 has fewer groups.
            with suppress(OSError):
                watch.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
    except OSError as error:
        watch.close()
        raise IsolationError(f"cannot listen to the kernel's changes: {error.strerror}") from error
    return watch


def _next(watch: socket.socket) -> bytes | None:
    """The next datagram from the kernel, b"" for some that were lost or came from elsewhere, None if there is none."""
    try:
        data, sender = watch.recvfrom(1 << 16)
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno == errno.ENOBUFS:
            return b""
        raise
    return data if sender[0] == 0 else b""


def _only(kind: int) -> bytes:
    """A socket filter (BPF) that passes messages of one type: a flush of ten thousand rules is one message then.

    Each NEWGEN comes in a datagram of its own. BPF loads in network byte order what stands there in the host's.
    """
    load, jump_equal, give = 0x28, 0x15, 0x06
    return b"".join(
        struct.pack("=HBBI", code, true, false, value)
        for code, true, false, value in (
            (load, 0, 0, 4),
            (jump_equal, 0, 1, socket.htons(kind)),
            (give, 0, 0, 0xFFFFFFFF),
            (give, 0, 0, 0),
        )
    )


def _attach(watch: socket.socket, program: bytes) -> None:
    """SO_ATTACH_FILTER; struct sock_fprog names the program by its address."""
    so_attach_filter = 26
    buffer = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
    watch.setsockopt(socket.SOL_SOCKET, so_attach_filter, head)
