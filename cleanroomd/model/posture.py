"""Who may talk to whom at one moment: what the isolation room compiles to rules, and proves to be in force.

A posture is complete: whatever it does not allow is dropped, in both families and both directions.
"""

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


@dataclass(frozen=True)
class Posture:
    ports: tuple[PortGuard, ...] = ()
    taps: tuple[TapGuard, ...] = ()
    allowances: frozenset[Allowance] = frozenset()

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
