"""One TCP connection to an untrusted machine, with one deadline and one byte budget for all that is read.

Neither a slow drip nor an endless answer can hold an attempt beyond its deadline or grow it beyond its
budget: every single system call gets only the time that is left.
"""

import io
import socket
import ssl
import time
from typing import Any, Self

from cleanroomd.probes.answer import UnreadyError, printable

CONNECT_TIMEOUT = 0.5
"""Seconds for the TCP handshake while a machine boots; more would quantise the measured time to ready."""

READ_BUDGET = 64 * 1024
"""Bytes read in one attempt unless a protocol needs more."""


class Deadline:
    """An instant on the monotonic clock by which an attempt is over."""

    __slots__ = ("_end",)

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def remaining(self) -> float:
        """Seconds left, always positive; TimeoutError when there are none."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("deadline passed")
        return left


class Connection(io.RawIOBase):
    """A connected socket, readable as a raw binary stream; closes with its `with` block.

    Reads raise TimeoutError at the deadline and UnreadyError once `budget` bytes were read.
    """

    def __init__(self, sock: socket.socket, deadline: Deadline, budget: int) -> None:
        super().__init__()
        self._sock = sock
        self._deadline = deadline
        self._budget = budget

    @classmethod
    def open(
        cls,
        address: str,
        port: int,
        *,
        timeout: float,
        connect_timeout: float,
        tls: ssl.SSLContext | None = None,
        budget: int = READ_BUDGET,
    ) -> Self:
        """Connect to a numeric IPv4 `address` within `connect_timeout`; all must end within `timeout`."""
        deadline = Deadline(timeout)
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.settimeout(min(connect_timeout, deadline.remaining()))
            try:
                sock.connect((address, port))
            except TimeoutError:
                raise UnreadyError("no answer yet") from None
            if tls is not None:
                sock.settimeout(deadline.remaining())
                sock = tls.wrap_socket(sock)
        except BaseException:
            sock.close()
            raise
        return cls(sock, deadline, budget)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        if not view:
            return 0
        if self._budget <= 0:
            raise UnreadyError("the answer is too long")
        self._sock.settimeout(self._deadline.remaining())
        count = self._sock.recv_into(view[: min(len(view), self._budget)])
        self._budget -= count
        return count

    def receive(self) -> bytes:
        """Some bytes, b"" when the machine closed the connection."""
        return self.read(16 * 1024) or b""

    def receive_exactly(self, count: int) -> bytes:
        """Exactly `count` bytes; UnreadyError if the machine closes before, or the budget is too small."""
        if count > self._budget:
            raise UnreadyError("the answer is too long")
        data = bytearray()
        while len(data) < count:
            chunk = self.read(count - len(data))
            if not chunk:
                raise UnreadyError("the connection was closed")
            data += chunk
        return bytes(data)

    def sendall(self, data: Any) -> None:
        """Send `data` before the deadline."""
        self._sock.settimeout(self._deadline.remaining())
        self._sock.sendall(data)

    def peer_certificate(self) -> bytes:
        """The certificate that the machine showed, as DER; empty without TLS."""
        if not isinstance(self._sock, ssl.SSLSocket):
            return b""
        return self._sock.getpeercert(binary_form=True) or b""

    def close(self) -> None:
        try:
            self._sock.close()
        finally:
            super().close()


_IN_WORDS: tuple[tuple[type[BaseException], str], ...] = (
    (TimeoutError, "no complete answer in time"),
    (ConnectionRefusedError, "connection refused"),
    (ConnectionResetError, "connection reset"),
    (BrokenPipeError, "the connection was closed"),
)


def in_words(error: UnreadyError | OSError) -> str:
    """Why an attempt got no answer, for the status board."""
    for kind, words in _IN_WORDS:
        if isinstance(error, kind):
            return words
    if isinstance(error, ssl.SSLError):
        return f"TLS: {printable(error.reason or str(error))}"
    if isinstance(error, OSError):
        return printable(error.strerror or str(error)).lower()
    return str(error)
