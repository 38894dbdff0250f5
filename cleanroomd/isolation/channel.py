"""Requests and batches over one netlink socket, whose copies share a receive queue.

Everything is synchronous and waits for nothing: the kernel answers a request inside send(), and a dump goes on
inside recv(). Replies to a predecessor that died are dropped before each request, and every reply is matched by
sequence number. Formats: include/uapi/linux/netlink.h and netfilter/nfnetlink.h.
"""

import errno
import os
import secrets
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from pyroute2.netlink import NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR
from pyroute2.netlink.nfnetlink import NFNL_SUBSYS_NFTABLES

from cleanroomd.errors import IsolationError
from cleanroomd.isolation import encode
from cleanroomd.isolation.encode import Message

_HEADER = struct.Struct("=IHHII")
"""nlmsghdr: length, type, flags, sequence, port."""
_NFGEN = struct.Struct("=BBH")
"""nfgenmsg: family, version, resource."""
_CODE = struct.Struct("=i")
"""nlmsgerr.error: 0 or a negative errno."""
_RECEIVE = 1 << 17
_SO_SNDBUFFORCE = 32
_RESERVED = 32
"""Bytes of the send buffer that af_netlink keeps back."""


@dataclass(frozen=True, slots=True)
class Reply:
    family: int
    attributes: bytes


class RefusedError(Exception):
    """The kernel took nothing of a batch; `words` say which part it did not like."""

    def __init__(self, code: int, words: str) -> None:
        super().__init__(f"{words}: {os.strerror(code)}")
        self.code = code


class InterruptedDumpError(Exception):
    """The rules changed during a dump: begin it again."""


class Channel:
    """Takes the socket over and closes it."""

    def __init__(self, owning: socket.socket) -> None:
        self._socket = owning
        self._socket.settimeout(None)
        self._sequence = secrets.randbits(30)

    def close(self) -> None:
        self._socket.close()

    @property
    def port(self) -> int:
        """The netlink port that the kernel knows the owner by."""
        return int(self._socket.getsockname()[0])

    def ask(self, kind: int, family: int = 0, attributes: bytes = b"", *, dump: bool = True) -> list[Reply]:
        """The replies to one request (NFT_MSG_GET*): all there is of a dump, otherwise the one answer."""
        self._drop_unread()
        self._sequence += 1
        flags = NLM_F_REQUEST | (NLM_F_DUMP if dump else 0)
        body = _NFGEN.pack(family, 0, 0) + attributes
        header = (_HEADER.size + len(body), NFNL_SUBSYS_NFTABLES << 8 | kind, flags, self._sequence, 0)
        self._socket.send(_HEADER.pack(*header) + body)
        replies: list[Reply] = []
        while True:
            for sequence, message, found, payload in self._receive():
                if sequence != self._sequence:
                    continue
                if found & NLM_F_DUMP_INTR:
                    raise InterruptedDumpError
                if message == NLMSG_DONE:
                    return replies
                if message == NLMSG_ERROR:
                    raise _failure(-_CODE.unpack_from(payload)[0])
                replies.append(Reply(payload[0], payload[_NFGEN.size :]))
                if not dump:
                    return replies

    def commit(self, messages: Sequence[Message], generation: int) -> None:
        """Put one batch in force, bound to a generation; RefusedError if the kernel does not take all of it.

        The code is ERESTART if the rules are no longer of that generation. Only the last message asks for an
        acknowledgement; the errors of the others come before it, and that of the batch itself may come alone.
        """
        self._drop_unread()
        batch = (encode.batch_begin(generation), *messages, encode.batch_end())
        first = self._sequence + 1
        acknowledged = first + len(messages)
        self._sequence += len(batch)
        parts = []
        for sequence, message in enumerate(batch, start=first):
            length, kind, flags, *_ = _HEADER.unpack_from(message.data)
            if sequence == acknowledged:
                flags |= NLM_F_ACK
            parts.append(_HEADER.pack(length, kind, flags, sequence, 0) + message.data[_HEADER.size :])
        self._send(b"".join(parts))
        while True:
            for sequence, kind, _, payload in self._receive():
                if kind != NLMSG_ERROR or not 0 <= sequence - first < len(batch):
                    continue
                code = -_CODE.unpack_from(payload)[0]
                if code:
                    raise RefusedError(code, batch[sequence - first].words)
                if sequence == acknowledged:
                    return

    def _send(self, data: bytes) -> None:
        """A batch is one datagram, so the send buffer must hold all of it."""
        if len(data) > self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) - _RESERVED:
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, len(data))
            except PermissionError:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, len(data))
        try:
            self._socket.send(data)
        except OSError as error:
            raise RefusedError(error.errno or errno.EIO, "the batch") from error

    def _receive(self) -> list[tuple[int, int, int, bytes]]:
        """Sequence, type, flags and payload of the messages in one datagram, which is there already."""
        try:
            data = self._socket.recv(_RECEIVE, socket.MSG_DONTWAIT)
        except BlockingIOError:
            raise IsolationError("cannot reach the packet filter: the kernel did not answer") from None
        except OSError as error:
            raise IsolationError(f"cannot reach the packet filter: {error.strerror}") from error
        found, offset = [], 0
        while offset < len(data):
            length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
            found.append((sequence, kind, flags, data[offset + _HEADER.size : offset + length]))
            offset += length + -length % 4
        return found

    def _drop_unread(self) -> None:
        """Replies that nobody read; a dump left half done runs to its end here (else the next is EBUSY)."""
        while True:
            try:
                self._socket.recv(_RECEIVE, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise IsolationError(f"cannot reach the packet filter: {error.strerror}") from error


def _failure(code: int) -> Exception:
    """A table that vanished during the dump is a change like any other."""
    if code in (errno.EINTR, errno.EAGAIN, errno.ENOENT):
        return InterruptedDumpError()
    return IsolationError(f"cannot read the packet filter: {os.strerror(code)}")
