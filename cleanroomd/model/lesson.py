"""What a staging run was denied, as flows that a plan could have; nothing of it is ever applied."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProposedFlow:
    """Ports that one end asked for in vain at another."""

    origin: str
    """Zone, service or SERVICE.CARD that tried to connect."""
    to: str
    """Zone, service or SERVICE.CARD that it tried to connect to."""
    tcp: tuple[int, ...]
    """TCP ports, in order."""
    udp: tuple[int, ...]
    """UDP ports, in order."""
    packets: int
    """Packets that were denied."""
    detail: str
    """The ports that were asked for most, with their packets, in words."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """What was denied that could be allowed, most frequent first, and what no flow can allow."""

    flows: tuple[ProposedFlow, ...]
    """To be read one by one, and put into the plan by whoever knows what the machines do."""
    others: tuple[str, ...]
    """What no flow can allow, in words, most frequent first."""
