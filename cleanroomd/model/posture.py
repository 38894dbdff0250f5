"""Who may talk to whom at one moment: what the isolation room compiles to rules, and proves to be in force.

A posture is complete: whatever it does not allow is dropped, in both families and both directions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from cleanroomd.model.plan import Protocol


@dataclass(frozen=True, slots=True, order=True)
class PortGuard:
    """A physical port. A dark port passes nothing in either direction and is kept down, without an address."""

    role: str
    interface: str
    mac: str
    dark: bool = True
    addresses: tuple[IPv4Interface, ...] = ()
    """The enclosure's own addresses there; their networks are the only sources accepted."""
    quarantined: bool = False
    """A dark port that is up all the same, to be listened to; it passes no more than any dark port."""
    tags: tuple[int, ...] = ()
    """VLAN tags that pass between the wire and the port's sub-interfaces, which have guards of their own."""
    peers: tuple[IPv4Network, ...] = ()
    """For the uplink: the hosts that leases lead to. Only they are heard, only passages lead there, and whatever
    leaves bears one of `addresses`."""


@dataclass(frozen=True, slots=True, order=True)
class TapGuard:
    """A routed tap of a machine: one MAC, one address, and who is answered for in ARP."""

    service: str
    interface: str
    mac: str
    address: IPv4Address
    gateway: IPv4Address | None
    neighbours: tuple[IPv4Network, ...] = ()
    """Peers that the plan lets the machine talk to, answered for by proxy ARP on its tap."""


@dataclass(frozen=True, slots=True, order=True)
class Allowance:
    """Connections from `source` behind `origin` to `destination`:`port` behind `target`, replies included.

    `origin` is an interface, or "" for the enclosure itself (a readiness probe).
    """

    origin: str
    source: IPv4Network
    target: str
    destination: IPv4Network
    protocol: Protocol
    port: int
    label: str = ""
    """The line of the plan that allows it, in words: "workstations to imaging, tcp 4242"."""


@dataclass(frozen=True, slots=True, order=True)
class Passage:
    """What a lease lets through: an allowance out of the enclosure that ends by itself, both directions at once."""

    origin: str
    """An interface; the enclosure itself never speaks there."""
    source: IPv4Network
    target: str
    """The uplink's interface."""
    destination: IPv4Network
    protocol: Protocol
    port: int
    until: float
    """CLOCK_BOOTTIME seconds, in whole milliseconds; from then on nothing passes, whoever is dead or stopped."""
    appears_as: IPv4Address
    """The enclosure's own address on the uplink, in place of whatever inner address connects."""
    label: str = ""
    """The window of the plan, in words: "lease results: imaging to 192.168.40.10, tcp 2575"."""


@dataclass(frozen=True)
class Posture:
    ports: tuple[PortGuard, ...] = ()
    taps: tuple[TapGuard, ...] = ()
    allowances: frozenset[Allowance] = frozenset()
    passages: frozenset[Passage] = frozenset()

    @cached_property
    def ends(self) -> Mapping[str, float]:
        """Interface that passages lead to -> when the last of them ends."""
        found: dict[str, float] = {}
        for passage in self.passages:
            found[passage.target] = max(passage.until, found.get(passage.target, 0.0))
        return found

    @cached_property
    def guarded(self) -> frozenset[tuple[str, str, IPv4Address]]:
        """Interface, MAC and address of each tap that is guarded."""
        return frozenset((tap.interface, tap.mac, tap.address) for tap in self.taps)


DENY_ALL = Posture()


@dataclass(frozen=True, slots=True)
class Proof:
    """A posture read back from the live kernel and found to be what was compiled."""

    posture: Posture
    generation: int
    """The kernel's ruleset generation (NFT_MSG_GETGEN) at the read-back."""
    digest: str
    """SHA-256 of the canonical dump, in hexadecimal."""
    at: float
    """CLOCK_BOOTTIME seconds."""
