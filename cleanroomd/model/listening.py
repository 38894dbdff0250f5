"""What listening to a port found; a port with zones opens only after it.

Instants are CLOCK_BOOTTIME seconds.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Found:
    """The outcome of listening to a cable."""

    foreign: str = ""
    """Who was heard of another network, in words; "" when nobody was, and the port was opened."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What one port heard since its cable was plugged in."""

    carrier_changes: int
    """Of the interface when listening began; another number there is another cable."""
    since: float
    """When listening began."""
    router: str = ""
    """A router, DHCP server or the like of another network, in words: this cable is in the wrong place."""
    stranger: str = ""
    """The newest equipment with an address of no zone of the port, in words: it may only be set up wrongly."""
    stranger_at: float | None = None
    problem: str = ""
    """Why the port cannot be listened to, in words; it stays closed then."""
    notes: tuple[str, ...] = ()
    """What is no sign of another network, and worth telling all the same: switches that are managed."""
