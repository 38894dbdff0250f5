"""What `cleanroomctl isolation` shows: who may talk to whom, and how the live kernel was found to keep to it.

Fields are plain values, so that the documents cross the control socket as they are.
"""

from dataclasses import dataclass
from enum import StrEnum


class EndpointKind(StrEnum):
    """Who can stand at the end of a connection."""

    ENCLOSURE = "enclosure"
    """The enclosure itself."""
    MACHINE = "machine"
    """A network card of a restored service."""
    ZONE = "zone"
    """Equipment behind a port, in one of its networks."""
    PORT = "port"
    """Whatever is plugged into a port that has no network open."""


@dataclass(frozen=True, slots=True)
class EndpointView:
    """Somebody who could speak to the enclosure or through it."""

    name: str
    """As the plan calls it; a port by its role."""
    kind: EndpointKind
    """What it is."""
    interface: str
    """The interface that it is behind; "" for the enclosure."""
    address: str
    """Its address or network; "" when it has none."""
    dark: bool
    """Nothing passes to it or from it, whatever the rules between others say."""


@dataclass(frozen=True, slots=True)
class Relation:
    """One ordered pair of endpoints."""

    origin: str
    """Who opens connections."""
    target: str
    """Who they are opened to."""
    allowed: tuple[str, ...]
    """What may be opened at this moment, as "tcp 104, 4242-4250"; empty when nothing may."""
    why: tuple[str, ...]
    """The lines of the plan that allow it, in words."""
    packets: int
    """What has passed by them, both directions together, since each was opened last."""


@dataclass(frozen=True, slots=True)
class TriedRelation:
    """One ordered pair of endpoints as it was tried."""

    origin: str
    """Who opens connections."""
    target: str
    """Who they are opened to."""
    allowed: tuple[str, ...]
    """What may be opened at this moment, as "tcp 104, 4242-4250"; empty when nothing may."""
    flows: int
    """Allowed flows that were opened and answered."""
    untried: int
    """Allowed flows that could not be tried, or that were left out since there are so many."""
    forbidden: int
    """Forbidden packets that were sent, all layers together."""
    mismatches: int
    """Packets that did not fare as the plan says."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One packet that did not fare as the plan says."""

    origin: str
    """Who sent it."""
    target: str
    """Who it was for."""
    packet: str
    """The packet, in words."""
    found: str
    """What became of it, in words."""
    rule: str
    """The rule or policy that decided, as far as the kernel's trace tells."""


@dataclass(frozen=True, slots=True)
class Denied:
    """Packets that were stopped, counted since the guard or the rules were made; what is old is forgotten."""

    what: str
    """From whom to whom, or at which guard, in words."""
    packets: int
    """How many."""


@dataclass(frozen=True, slots=True)
class IsolationView:
    """Who may talk to whom at this moment, and what was denied."""

    proven: bool
    """The rules in the kernel were compared with the plan, and are the same."""
    problem: str
    """Why they are not proven; "" when they are."""
    generation: int | None
    """The kernel's count of rule changes at the proof; None when there is none."""
    endpoints: tuple[EndpointView, ...]
    """Everybody who could speak, the enclosure first."""
    relations: tuple[Relation, ...]
    """The pairs that may connect; every other pair may not."""
    denied: tuple[Denied, ...]
    """What was stopped, the most first; connections that were asked for in vain are told one by one, at most 50."""
    foreign_tables: tuple[str, ...]
    """Tables of the packet filter that are not ours."""


@dataclass(frozen=True, slots=True)
class Verification:
    """The live kernel compared with the plan, and its rules tried packet by packet in a twin."""

    ok: bool
    """Nothing differs, and every packet fared as the plan says."""
    generation: int
    """The kernel's count of rule changes; one and the same for the comparison and for the twin."""
    digest: str
    """SHA-256 of the canonical form of the rules that were found, in hexadecimal."""
    seconds: float
    """How long it took."""
    packets: int
    """Frames and packets that were sent through the twin."""
    flows: int
    """Allowed flows that were opened and answered."""
    differences: tuple[str, ...]
    """What differs between the live rules and the compiled ones, in words; at most 200 are named."""
    surroundings: tuple[str, ...]
    """What differs around the rules: foreign tables, kernel settings, links that were put into a bridge."""
    relations: tuple[TriedRelation, ...]
    """Every ordered pair of endpoints; with more than 50 endpoints those that nothing is to say of are left out."""
    mismatches: tuple[Mismatch, ...]
    """Packets that did not fare as the plan says; at most 100 are named."""
    unnamed: int
    """Differences and mismatches beyond those that are named."""
