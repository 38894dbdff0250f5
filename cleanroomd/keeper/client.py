"""The daemon's side of the keeper: one copy of the owning socket."""

import os
import select
import socket
from dataclasses import dataclass
from pathlib import Path

from cleanroomd.errors import IsolationError
from cleanroomd.keeper.deadline import JUST_ASKING, MESSAGE, NOTHING
from cleanroomd.keeper.server import HELD, WANTED, peer_pid, peer_uid, received_socket
from cleanroomd.keeper.tables import NETLINK_NETFILTER
from cleanroomd.model.observed import Deadline

_SECONDS = 1.0
_DEADLINE_SECONDS = 0.5
"""The daemon's loop waits for these: a keeper that hangs must not hold up much else."""
_MILLISECOND = 1_000_000
_HINT = "start the keeper first: python -m cleanroomd.keeper --socket PATH"


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy of the owning socket, and a watch on the keeper that holds the original."""

    owning: socket.socket
    keeper: int | None
    """A pidfd; None where the kernel does not name the process (it lives in another PID namespace)."""

    def keeper_is_gone(self) -> bool:
        if self.keeper is None:
            return False
        poll = select.poll()
        poll.register(self.keeper, select.POLLIN)
        return bool(poll.poll(0))

    def close(self) -> None:
        """Leaves the keeper's own open; without a keeper the tables have no owner any more."""
        self.owning.close()
        if self.keeper is not None:
            os.close(self.keeper)


def owning_socket(path: Path) -> socket.socket:
    """A copy of the netlink socket that owns the tables; closing it leaves the keeper's own open."""
    copy = copy_of(path)
    if copy.keeper is not None:
        os.close(copy.keeper)
    return copy.owning


def copy_of(path: Path, *, ours: socket.socket | None = None) -> Copy:
    """A copy of the owning socket from the keeper at `path`.

    A keeper that finds the tables owned asks for the socket: it gets `ours`, which stays open here as well, so
    that the tables have an owner at every moment. IsolationError when there is no keeper, or when it has nothing.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.settimeout(_SECONDS)
            connection.connect(os.fspath(path))
            if peer_uid(connection) != os.geteuid():
                raise IsolationError(f"cannot get the owning socket: {path} is served by another user", _HINT)
            said, owning = received_socket(connection)
            if said == WANTED and ours is not None:
                socket.send_fds(connection, [HELD], [ours.fileno()])
                said, owning = received_socket(connection)
            process = _process(peer_pid(connection))
    except OSError as error:
        reason = error.strerror or "no answer in time"
        raise IsolationError(f"cannot get the owning socket from the keeper at {path}: {reason}", _HINT) from error
    if owning is not None and (owning.family, owning.proto) == (socket.AF_NETLINK, NETLINK_NETFILTER):
        return Copy(owning, process)
    if process is not None:
        os.close(process)
    if owning is not None:
        owning.close()
        raise IsolationError(f"cannot get the owning socket: {path} handed out something else", _HINT)
    if said == WANTED:
        raise IsolationError(f"cannot get the owning socket from {path}: another process holds it", _HINT)
    raise IsolationError(f"cannot get the owning socket from {path}: the keeper refused", _HINT)


def deadline_at(path: Path, *, hold: Deadline | None = None, interface: str = "") -> Deadline | None:
    """What the keeper at `path` holds; with `hold` from now on that, with `interface` from now on nothing.

    IsolationError when it does not answer, or cannot keep it.
    """
    if hold is not None:
        request = MESSAGE.pack(os.fsencode(hold.interface), round(hold.until * 1000) * _MILLISECOND)
    else:
        request = MESSAGE.pack(os.fsencode(interface), NOTHING if interface else JUST_ASKING)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.settimeout(_DEADLINE_SECONDS)
            connection.connect(os.fspath(path))
            if peer_uid(connection) != os.geteuid():
                raise IsolationError(f"cannot reach the keeper: {path} is served by another user", _HINT)
            said, copy = received_socket(connection)
            if copy is not None:
                copy.close()
            if said != HELD:
                raise IsolationError("cannot reach the keeper: it does not own the rule tables yet", _HINT)
            connection.send(request)
            untrusted_answer = connection.recv(MESSAGE.size + 1)
    except OSError as error:
        raise IsolationError(f"cannot reach the keeper: {error.strerror or 'no answer in time'}", _HINT) from error
    if len(untrusted_answer) != MESSAGE.size:
        raise IsolationError("cannot reach the keeper: it did not take the deadline", _HINT)
    name, at = MESSAGE.unpack(untrusted_answer)
    return Deadline(os.fsdecode(name.rstrip(b"\0")), at / 10**9) if at != NOTHING else None


def _process(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid) if pid else None
    except ProcessLookupError:
        return None
