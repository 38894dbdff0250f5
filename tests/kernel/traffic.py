"""Traffic that never stops while something is done to the rules: what is allowed, counted, and what is not, looked for.

Allowed datagrams and segments carry sequence numbers, so that a lost one is known; forbidden ones carry a word that
a capture at their target must never show.
"""

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field

from tests.kernel.namespaces import Namespace
from tests.kernel.world import DATABASE, IMAGING, World, eventually

FORBIDDEN = b"forbidden traffic"
ALLOWED_PORT, FORBIDDEN_PORT, STREAM_PORT = 9, 1234, 5432
_PAUSE = 0.002
"""Seconds between two datagrams."""
_SEQUENCE = struct.Struct("=I")
_SO_RCVBUFFORCE = 33
_BUFFER = 8 << 20


@dataclass
class Count:
    """What came of one direction."""

    sent: int = 0
    received: set[int] = field(default_factory=set)
    streamed: int = 0
    echoed: int = 0
    forbidden: int = 0
    tried: int = 0

    @property
    def lost(self) -> int:
        return self.sent - len(self.received)


class Traffic:
    """From one namespace to another; `count` is final once `stop` has returned."""

    def __init__(self, source: Namespace, target: Namespace, address: str, *, stream: bool) -> None:
        self.count = Count()
        self._stop = threading.Event()
        self._resources = ExitStack()
        enter = self._resources.enter_context
        self._address = address
        self._inbox = enter(target.receiver(address, ALLOWED_PORT))
        self._inbox.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        self._capture = enter(target.frames("eth0"))
        self._capture.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        self._outbox = enter(source.open_socket(kind=socket.SOCK_DGRAM))
        self._outbox.settimeout(0)
        self._stream: socket.socket | None = None
        work = [self._send, self._receive, self._look]
        if stream:
            with target.listener(address, STREAM_PORT) as listener:
                self._stream = enter(source.open_socket())
                self._stream.connect((address, STREAM_PORT))
                self._far, _ = listener.accept()
                enter(self._far)
                self._far.settimeout(5)
            work += [self._talk, self._echo]
        self._threads = [threading.Thread(target=each, daemon=True) for each in work]
        for thread in self._threads:
            thread.start()

    def stop(self) -> Count:
        """Stop sending, wait for what is under way, and say what came of it all."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._resources.close()
        return self.count

    def flows(self) -> None:
        """Wait until some more of the allowed has arrived."""
        goal = len(self.count.received) + 5
        eventually(lambda: len(self.count.received) >= goal, "allowed traffic")

    def _send(self) -> None:
        count = self.count
        while not self._stop.wait(_PAUSE):
            with suppress(OSError):
                self._outbox.sendto(_SEQUENCE.pack(count.sent), (self._address, ALLOWED_PORT))
                count.sent += 1
            with suppress(OSError):
                self._outbox.sendto(FORBIDDEN, (self._address, FORBIDDEN_PORT))
                count.tried += 1

    def _receive(self) -> None:
        for data in self._until_quiet(self._inbox):
            self.count.received.add(_SEQUENCE.unpack(data)[0])

    def _look(self) -> None:
        for frame in self._until_quiet(self._capture):
            self.count.forbidden += FORBIDDEN in frame

    def _until_quiet(self, inbox: socket.socket) -> Iterator[bytes]:
        """What arrives, until nothing has for a while after the end; another stream may go on beside it."""
        inbox.settimeout(0.2)
        end = float("inf")
        while time.monotonic() < end:
            try:
                data, sender = inbox.recvfrom(1 << 16)
            except TimeoutError:
                if self._stop.is_set():
                    return
                continue
            if self._stop.is_set():
                end = min(end, time.monotonic() + 0.5)
            if len(sender) < 3 or sender[2] != socket.PACKET_OUTGOING:
                yield data

    def _talk(self) -> None:
        assert self._stream is not None
        while not self._stop.wait(_PAUSE):
            self._stream.sendall(_SEQUENCE.pack(self.count.streamed))
            assert _SEQUENCE.unpack(self._stream.recv(_SEQUENCE.size, socket.MSG_WAITALL))[0] == self.count.streamed
            self.count.streamed += 1
        self._stream.shutdown(socket.SHUT_WR)

    def _echo(self) -> None:
        while data := self._far.recv(_SEQUENCE.size, socket.MSG_WAITALL):
            self._far.sendall(data)
            self.count.echoed += 1


@contextmanager
def to_imaging(world: World) -> Iterator[Traffic]:
    """From the clean workstation, which may send there, but not all it sends."""
    yield from _running(Traffic(world.workstation, world.imaging, IMAGING, stream=False))


@contextmanager
def to_database(world: World) -> Iterator[Traffic]:
    """Between two machines, with a connection that stays open."""
    yield from _running(Traffic(world.imaging, world.database, DATABASE, stream=True))


def _running(traffic: Traffic) -> Iterator[Traffic]:
    try:
        traffic.flows()
        yield traffic
    finally:
        traffic.stop()
