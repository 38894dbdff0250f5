"""What the kernel says of the process at the other end of a Unix socket."""

import errno
import grp
import os
import pwd
import socket
import struct
from dataclasses import dataclass

from cleanroomd.control.access import ACT_GROUP, VIEW_GROUP, Peer

_SO_PEERGROUPS = 59
"""asm-generic/socket.h, Linux 4.13; Python has no name for it."""
_MOST_BYTES = 1024
"""The longest answer that Python's getsockopt() takes."""
_UCRED = struct.Struct("iII")
"""struct ucred: pid, uid, gid."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Tells peers apart by the group numbers of this system, looked up once.

    Not for every connection: a name service that hangs would hang the daemon's loop.
    """

    own_uid: int
    names: tuple[tuple[int, str], ...]

    @classmethod
    def of_this_system(cls) -> "Credentials":
        """A group that does not exist has no members; creating it later takes a restart of the daemon."""
        found = []
        for name in (ACT_GROUP, VIEW_GROUP):
            try:
                found.append((grp.getgrnam(name).gr_gid, name))
            except KeyError:
                continue
        return cls(own_uid=os.geteuid(), names=tuple(found))

    def read(self, connection: socket.socket) -> Peer:
        """The peer as it was when it connected; OSError if the kernel does not say."""
        pid, uid, gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        gids = {gid, *_supplementary_groups(connection)}
        groups = frozenset(name for number, name in self.names if number in gids)
        return Peer(uid=uid, pid=pid, groups=groups, owner=uid == self.own_uid)


def user_name(uid: int) -> str:
    """What the system calls a user, for people; it may wait for a name service, so not in the daemon's loop."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _supplementary_groups(connection: socket.socket) -> list[int]:
    try:
        answer = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MOST_BYTES)
    except OSError as error:
        if error.errno != errno.ERANGE:
            raise
        # A member of more groups than fit counts as a member of none.
        return []
    return memoryview(answer).cast("I").tolist()
