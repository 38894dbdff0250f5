"""How a child gets to talk to its machine's guest agent, whose socket it may not open: the daemon hands it connections.

Each has one end of a pair of sockets. The child asks with one byte and gets one message: a connected socket
(SCM_RIGHTS, unix(7)), or words that say why there is none. QEMU serves one client of an agent at a time, so the child
closes each connection after one conversation.
"""

import os
import socket
from pathlib import Path

from cleanroomd.probes.answer import UnreadyError, printable
from cleanroomd.probes.connection import Deadline

_LONGEST_WORDS = 256


def pair() -> tuple[socket.socket, socket.socket]:
    """The daemon's end, which never blocks, and the child's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(0)
    return ours, theirs


def hand_over(ours: socket.socket, agent: Path) -> None:
    """Answer one request with a connection to the socket `agent`; OSError when the child takes no answer."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(0)
        try:
            connection.connect(str(agent))
        except BlockingIOError:
            ours.send(b"others are talking to it")
        except OSError as error:
            ours.send((error.strerror or "no connection to it").lower().encode()[:_LONGEST_WORDS])
        else:
            socket.send_fds(ours, [b"\0"], [connection.fileno()])


def ask(theirs: socket.socket, deadline: Deadline) -> socket.socket:
    """A connection to the agent; UnreadyError with why there is none, OSError when that is not said in time."""
    _forget_late_answers(theirs)
    theirs.settimeout(deadline.remaining())
    theirs.send(b"?")
    words, descriptors, _, _ = socket.recv_fds(theirs, _LONGEST_WORDS, 1)
    if not descriptors:
        raise UnreadyError(printable(words) or "no connection to it")
    return socket.socket(fileno=descriptors[0])


def _forget_late_answers(theirs: socket.socket) -> None:
    """Close connections that were asked for by an attempt that gave up before they came."""
    theirs.settimeout(0)
    words = b"late"
    while words:
        try:
            words, descriptors, _, _ = socket.recv_fds(theirs, _LONGEST_WORDS, 1)
        except BlockingIOError:
            return
        for descriptor in descriptors:
            os.close(descriptor)
