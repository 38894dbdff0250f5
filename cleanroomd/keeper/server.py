"""Copies of the owning socket for processes of the same user, over a unix socket, until told to stop."""

import fcntl
import os
import selectors
import signal
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cleanroomd.errors import IsolationError
from cleanroomd.keeper.deadline import MESSAGE, Deadline
from cleanroomd.keeper.tables import OwnedElsewhereError, own_tables, owns_tables

BACKLOG = 8
HELD, WANTED = b"1", b"0"
"""What a keeper says first: a copy of the owning socket comes with this, or it asks its client for one."""
_CLIENT_SECONDS = 0.5
_HANDOVER_SECONDS = 5.0
"""A daemon looks after its keeper every second."""
_CLAIM_AGAIN = 0.25
"""Nothing tells when the last holder of a socket is gone, so the tables are tried again after so many seconds."""
_PEER = struct.Struct("=iII")
"""struct ucred: process, user, group."""


def peer_uid(connection: socket.socket) -> int:
    """Effective uid of the other end when it connected or listened (SO_PEERCRED)."""
    return int(_PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))[1])


def peer_pid(connection: socket.socket) -> int:
    """Process of the other end when it connected or listened; 0 if it is in a PID namespace that is not seen."""
    return int(_PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))[0])


@contextmanager
def place(path: Path) -> Iterator[socket.socket]:
    """The bound unix socket, not listening yet; its file is gone afterwards.

    A lock on the directory (released with this process, no file left behind) makes one of two keepers that
    start at once the second, which then finds the first one's socket. A file that nobody listens on is what a
    killed keeper left; it is replaced.
    """
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        _clear(path)
        previous = os.umask(0o177)
        try:
            listener.bind(os.fspath(path))
        finally:
            os.umask(previous)
        listener.listen(BACKLOG)
        fcntl.flock(directory, fcntl.LOCK_UN)
        try:
            yield listener
        finally:
            path.unlink(missing_ok=True)
    finally:
        listener.close()
        os.close(directory)


def _clear(path: Path) -> None:
    """Make room at a path; IsolationError if somebody listens there, or if it is no socket at all."""
    if not os.path.lexists(path):
        return
    if not path.is_socket():
        raise IsolationError(
            f"cannot keep the rule tables: {path} is in the way and no socket",
            "move that file away, or name another place for the socket",
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        probe.settimeout(_CLIENT_SECONDS)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except TimeoutError:
            # Its queue is full: somebody listens.
            pass
    raise IsolationError(
        f"cannot keep the rule tables: another keeper serves {path}",
        "one keeper per enclosure is enough; stop the other one first if it is not wanted",
    )


def taken_over(listener: socket.socket, stop: socket.socket, closing: Deadline) -> socket.socket | None:
    """The owning socket: the tables' own birth, or handed over by a daemon that outlived another keeper.

    Whoever owns the tables never lets go of them in between: the daemon keeps its copy. None when `stop` can be
    read; OwnedElsewhereError when nobody has come with the socket after some seconds. `closing` is kept meanwhile.
    """
    deadline = time.monotonic() + _HANDOVER_SECONDS
    listener.settimeout(0)
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        selector.register(stop, selectors.EVENT_READ)
        while True:
            closing.keep()
            try:
                return own_tables()
            except OwnedElsewhereError:
                if time.monotonic() > deadline:
                    raise
            ready = {key.fileobj for key, _ in selector.select(closing.wait(_CLAIM_AGAIN))}
            if stop in ready:
                return None
            if listener in ready:
                with suppress(OSError):
                    handed = _handed_in(listener)
                    if handed is not None:
                        return handed


def _handed_in(listener: socket.socket) -> socket.socket | None:
    """The owning socket, if the next client brings it; it then gets a copy like every other client."""
    connection, _ = listener.accept()
    with connection:
        connection.settimeout(_CLIENT_SECONDS)
        if peer_uid(connection) != os.geteuid():
            return None
        connection.send(WANTED)
        untrusted_socket = received_socket(connection)[1]
        if untrusted_socket is None:
            return None
        if not owns_tables(untrusted_socket):
            untrusted_socket.close()
            return None
        # Whatever becomes of this client, the socket is here now.
        with suppress(OSError):
            socket.send_fds(connection, [HELD], [untrusted_socket.fileno()])
        return untrusted_socket


def received_socket(connection: socket.socket) -> tuple[bytes, socket.socket | None]:
    """The next message, at most a byte, and the socket that came with it; not inherited by children."""
    message, descriptors, _, _ = socket.recv_fds(connection, 1, 1)
    if not descriptors:
        return message, None
    # Not with MSG_CMSG_CLOEXEC: recv_fds of Python 3.11 drops its flags.
    os.set_inheritable(descriptors[0], False)  # noqa: FBT003 (takes no keyword)
    try:
        return message, socket.socket(fileno=descriptors[0])
    except OSError:
        # No socket at all.
        os.close(descriptors[0])
        return message, None


def serve(listener: socket.socket, owning: socket.socket, stop: socket.socket, closing: Deadline) -> None:
    """Hand out copies and keep the deadline until `stop` can be read."""
    with selectors.DefaultSelector() as selector:
        listener.settimeout(0)
        selector.register(listener, selectors.EVENT_READ)
        selector.register(stop, selectors.EVENT_READ)
        while True:
            closing.keep()
            ready = {key.fileobj for key, _ in selector.select(closing.wait())}
            if stop in ready:
                return
            if listener in ready:
                # A client may be gone, or refuse to read, by the time it is served: its loss alone.
                with suppress(OSError, ValueError):
                    _answer(listener, owning, closing)


def _answer(listener: socket.socket, owning: socket.socket, closing: Deadline) -> None:
    """A copy, and an answer to the one request that may follow; a client that keeps silent delays no deadline."""
    connection, _ = listener.accept()
    with connection:
        connection.settimeout(_CLIENT_SECONDS)
        if peer_uid(connection) != os.geteuid():
            return
        socket.send_fds(connection, [HELD], [owning.fileno()])
        connection.settimeout(closing.wait(_CLIENT_SECONDS))
        untrusted_request = connection.recv(MESSAGE.size + 1)
        if untrusted_request:
            connection.send(closing.ask(untrusted_request))


@contextmanager
def stop_signals() -> Iterator[socket.socket]:
    """A socket that becomes readable at the first SIGTERM or SIGINT from now on."""
    wakeup, alarm = socket.socketpair()
    with wakeup, alarm:
        alarm.settimeout(0)
        signal.set_wakeup_fd(alarm.fileno())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        try:
            yield wakeup
        finally:
            signal.set_wakeup_fd(-1)
