"""The daemon's side of the keeper: one copy of the owning socket."""

import os
import socket
from pathlib import Path

from cleanroomd.errors import IsolationError
from cleanroomd.keeper.server import peer_uid
from cleanroomd.keeper.tables import NETLINK_NETFILTER

_SECONDS = 5.0
_HINT = "start the keeper first: python -m cleanroomd.keeper --socket PATH"


def owning_socket(path: Path) -> socket.socket:
    """A copy of the netlink socket that owns the tables; closing it leaves the keeper's own open."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.settimeout(_SECONDS)
            connection.connect(os.fspath(path))
            if peer_uid(connection) != os.geteuid():
                raise IsolationError(f"cannot get the owning socket: {path} is served by another user", _HINT)
            _, descriptors, _, _ = socket.recv_fds(connection, 1, 1)
    except OSError as error:
        reason = error.strerror or "no answer in time"
        raise IsolationError(f"cannot get the owning socket from the keeper at {path}: {reason}", _HINT) from error
    if not descriptors:
        raise IsolationError(f"cannot get the owning socket from {path}: the keeper refused", _HINT)
    # Not with MSG_CMSG_CLOEXEC: recv_fds of Python 3.11 drops its flags.
    os.set_inheritable(descriptors[0], False)  # noqa: FBT003 (takes no keyword)
    owning = socket.socket(fileno=descriptors[0])
    if (owning.family, owning.proto) != (socket.AF_NETLINK, NETLINK_NETFILTER):
        owning.close()
        raise IsolationError(f"cannot get the owning socket: {path} handed out something else", _HINT)
    return owning
