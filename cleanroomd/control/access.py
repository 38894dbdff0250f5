"""Who may call what, decided on what the kernel says of the caller; pure.

The socket itself is open to every local process, so that a refusal can be a sentence rather than a bare
EACCES; these rules are what protects the enclosure.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

ACT_GROUP = "cleanroom"
"""Members do everything that root does here."""
VIEW_GROUP = "cleanroom-view"
"""Members read the status and the journal, and see the isolation proven."""

PLACES = 64
"""Connections in all."""
PLACES_PER_USER = 16
PLACES_FOR_ACTING = 16
"""Of all places, those kept for who may act: readers and strangers cannot lock them out."""


class Verb(StrEnum):
    STATUS = "read the status"
    JOURNAL = "read the journal"
    START = "start a service"
    STOP = "stop a service"
    RESTORE = "restore"
    SHUTDOWN = "shut down"
    UPLINK = "open or close the uplink"
    ISOLATION = "see the isolation"
    VERIFY = "verify the isolation"


class Right(StrEnum):
    VIEW = "view"
    ACT = "act"


REQUIRED: Mapping[Verb, Right] = MappingProxyType(
    {
        Verb.STATUS: Right.VIEW,
        Verb.JOURNAL: Right.VIEW,
        Verb.START: Right.ACT,
        Verb.STOP: Right.ACT,
        Verb.RESTORE: Right.ACT,
        Verb.SHUTDOWN: Right.ACT,
        Verb.UPLINK: Right.ACT,
        Verb.ISOLATION: Right.VIEW,
        Verb.VERIFY: Right.VIEW,
    }
)

_HOLDERS: Mapping[Right, str] = MappingProxyType(
    {
        Right.VIEW: f"root and the members of the groups {ACT_GROUP} and {VIEW_GROUP}",
        Right.ACT: f"root and the members of the group {ACT_GROUP}",
    }
)


@dataclass(frozen=True, slots=True)
class Peer:
    """The process at the other end, as the kernel recorded it when it connected."""

    uid: int
    pid: int
    groups: frozenset[str] = frozenset()
    """Which of ACT_GROUP and VIEW_GROUP it was in; no other group matters."""
    owner: bool = False
    """It runs under the daemon's own user."""


def may(peer: Peer, verb: Verb) -> bool:
    if peer.uid == 0 or peer.owner or ACT_GROUP in peer.groups:
        return True
    return REQUIRED[verb] is Right.VIEW and VIEW_GROUP in peer.groups


def who_may(verb: Verb) -> str:
    """Who is allowed, in words that complete "only ... may do this"."""
    return _HOLDERS[REQUIRED[verb]]


def has_place(connected: Counter[int], peer: Peer) -> bool:
    """Whether one more connection of `peer` is taken; `connected` counts the present ones by user."""
    if connected[peer.uid] >= PLACES_PER_USER:
        return False
    places = PLACES if may(peer, Verb.START) else PLACES - PLACES_FOR_ACTING
    return connected.total() < places
