"""Takes a link down and its addresses away, in netlink bytes of our own: it must work when everything else is dead.

Formats and numbers: include/uapi/linux/rtnetlink.h, if_link.h and if_addr.h.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator

_RTM_NEWLINK, _RTM_NEWADDR, _RTM_DELADDR, _RTM_GETADDR = 16, 20, 21, 22
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_DUMP = 0x1, 0x4, 0x300
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_IFF_UP = 0x1
_SECONDS = 2.0
_RECEIVE = 1 << 16

_HEADER = struct.Struct("=IHHII")
"""nlmsghdr: length, type, flags, sequence, port."""
_LINK = struct.Struct("=BxHiII")
"""ifinfomsg: family, type, index, flags, mask of the flags to change."""
_ADDRESS = struct.Struct("=BBBBi")
"""ifaddrmsg: family, prefix length, flags, scope, index."""
_CODE = struct.Struct("=i")


def darken(interface: str) -> None:
    """Down first, then without addresses; nothing is left to do for an interface that is gone. OSError otherwise."""
    try:
        index = socket.if_nametoindex(interface)
    except OSError:
        return
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as netlink:
        netlink.settimeout(_SECONDS)
        netlink.bind((0, 0))
        _do(netlink, _RTM_NEWLINK, _LINK.pack(socket.AF_UNSPEC, 0, index, 0, _IFF_UP))
        for address in _addresses(netlink, index):
            _do(netlink, _RTM_DELADDR, address)


def _addresses(netlink: socket.socket, index: int) -> list[bytes]:
    """The address messages of a link, as the kernel wants them back to delete them."""
    netlink.send(_message(_RTM_GETADDR, _NLM_F_DUMP, _ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0)))
    found: list[bytes] = []
    while True:
        for kind, body in _received(netlink):
            if kind == _NLMSG_DONE:
                return found
            if kind == _RTM_NEWADDR and _ADDRESS.unpack_from(body)[4] == index:
                found.append(body)


def _do(netlink: socket.socket, kind: int, body: bytes) -> None:
    netlink.send(_message(kind, _NLM_F_ACK, body))
    for answer, payload in _received(netlink):
        code = -_CODE.unpack_from(payload)[0] if answer == _NLMSG_ERROR else errno.EPROTO
        # Gone meanwhile, by itself or by the daemon's hand: as wanted.
        if code not in (0, errno.ENODEV, errno.EADDRNOTAVAIL):
            raise OSError(code, os.strerror(code))


def _received(netlink: socket.socket) -> Iterator[tuple[int, bytes]]:
    data, offset = netlink.recv(_RECEIVE), 0
    while offset < len(data):
        length, kind, *_ = _HEADER.unpack_from(data, offset)
        yield kind, data[offset + _HEADER.size : offset + length]
        offset += length + -length % 4


def _message(kind: int, flags: int, body: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(body), kind, _NLM_F_REQUEST | flags, 0, 0) + body
