"""What is: facts about the enclosure at one instant, gathered by the effects and judged by pure code.

Instants are CLOCK_BOOTTIME seconds, sizes are bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from cleanroomd.model.listening import Found, Heard
from cleanroomd.model.plan import StartKind
from cleanroomd.model.posture import Proof, TapGuard
from cleanroomd.model.status import Alarm
from cleanroomd.model.steps import Step


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface as udev and the kernel describe it."""

    name: str
    mac: str
    path: str = ""
    """udev's ID_PATH; empty for virtual interfaces and where no udevd runs."""
    up: bool = False
    carrier: bool = False
    addresses: frozenset[str] = frozenset()
    """IPv4 addresses in CIDR notation."""
    index: int = 0
    """The kernel's number for it; a device that comes back has another."""
    carrier_changes: int = 0
    """How often its carrier came or went: the same number is the same cable, untouched."""
    found: Found | None = None
    """What listening found on this very cable, as the kernel keeps it for us; None when nothing was."""
    parent: str = ""
    """Of a VLAN sub-interface: the physical interface below it."""
    vlan: int | None = None
    """Of a VLAN sub-interface: its tag."""
    permanent: bool = False
    """Its driver says that `mac` is the card's own, and not one that somebody has set."""
    stacked: bool = False
    """It is made of other interfaces (bridge, bond, macvlan, VLAN), whose MAC it may have taken; no card of its own."""
    marked: bool = False
    """It bears our alias, whatever has become of the cable since: it was a port that zones are behind."""


@dataclass(frozen=True, slots=True)
class DiskFacts:
    """A disk of the vault as found; `problem` says in words why it cannot be used, if it cannot."""

    name: str
    problem: str = ""
    data_as_of: float | None = None
    """Unix time of the newest data on it."""


class MachinePhase(StrEnum):
    PAUSED = "paused"
    """QEMU runs, the guest has executed no instruction."""
    RUNNING = "running"
    DEAD = "dead"
    """The process is gone; its record is kept until the failure has been accounted for."""


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """A QEMU process of ours, launched or adopted."""

    service: str
    pid: int
    phase: MachinePhase
    start: StartKind
    attempt: int
    """1 for the first attempt of this power-on."""
    memory: int
    launched_at: float
    running_at: float | None = None
    adopted_at: float | None = field(default=None, compare=False)
    """When this daemon found it running; None for one that it launched itself."""
    ready_at: float | None = None
    """First moment at which every probe had answered; survives a restart of the daemon."""
    proof: str = ""
    """The answers that made it ready, in words."""
    held: bool = False
    """QEMU holds the guest: there is no space for what it writes. It loses nothing, and goes on once there is."""
    severed: tuple[str, ...] = ()
    """Taps that QEMU holds a dead queue of: somebody deleted or renamed them, and nothing reaches the guest there."""
    death: str = ""
    """Why a DEAD machine died, with the last words of QEMU or of the guest's console."""
    made: "Made | None" = None
    """What it was made from; None when its record was lost, and the plan is believed instead."""


@dataclass(frozen=True, slots=True)
class Made:
    """What holds of a machine for as long as it runs, whatever the plan says meanwhile."""

    definition: str
    """Digest of the definition that it was launched from (`cleanroomd.restore.order.definition`)."""
    guards: tuple[TapGuard, ...]
    """Its taps with the addresses that its guest has; their neighbours are the plan's to say."""
    depends_on: tuple[str, ...]
    shutdown_timeout: float
    """Seconds."""


@dataclass(frozen=True, slots=True)
class ProbeFacts:
    """The newest answer of a service's probes since its machine runs."""

    ok: bool
    detail: str
    """In words: "C-ECHO 0x0000" or "waiting for HTTP 200 on /login"."""
    at: float


@dataclass(frozen=True, slots=True)
class OverlayFacts:
    """The crisis overlays of a service that its machine would run on now."""

    exists: bool = False
    marked: bool = False
    """Its machine may have written to them."""
    opened: bool = False
    """Flows to the service may have been open, so that they may hold what care wrote; taken for granted of overlays
    that a cold start ran on."""
    aside: int = 0
    """Earlier sets of overlays that are kept beside them, for people to look into."""


@dataclass(frozen=True, slots=True)
class WarmFacts:
    """The sealed warm state of a service; `problem` says in words why it cannot be used, if it cannot."""

    problem: str = ""


@dataclass(frozen=True, slots=True)
class Fallback:
    """A warm start that came to nothing: the attempt goes on cold."""

    reason: str
    complete: bool
    """The machine is gone and what it wrote is aside; before that nothing else may start."""


class Intent(StrEnum):
    """What the operator asked for; persisted, so that a restarted daemon goes on with it."""

    RUN = "run"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Failure:
    at: float
    reason: str


@dataclass(frozen=True, slots=True)
class Lease:
    """An opening of the uplink that an operator asked for. Nothing but an earlier close changes its end."""

    window: str
    """Name of the plan's window."""
    opened_at: float
    until: float
    """CLOCK_BOOTTIME seconds, in whole milliseconds."""
    reason: str
    author: str
    """The user who asked, as the kernel knows who was at the other end of the control socket."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """The keeper takes the link of `interface` down, with its addresses, at `until`, whether a daemon lives or not."""

    interface: str
    until: float
    """CLOCK_BOOTTIME seconds, in whole milliseconds."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the machines may use in all. `memory` excludes what the enclosure keeps for itself."""

    memory: int
    slots: int
    """Machines that may start cold at the same time."""
    overhead: int = 0
    """Memory that each QEMU takes beside its guest's."""


@dataclass(frozen=True, slots=True)
class Observed:
    now: float
    power_on: float
    capacity: Capacity
    interfaces: tuple[Interface, ...] = ()
    heard: Mapping[str, Heard] = field(default_factory=dict)
    """What is heard on each interface that is listened to, by its name."""
    zone_problems: Mapping[str, str] = field(default_factory=dict)
    """Tagged zones whose sub-interface cannot be made -> why, in words."""
    taps: frozenset[str] = frozenset()
    """Names of the persistent taps that exist."""
    proof: Proof | None = None
    """The newest proof, None when the rules in force are not known to be ours."""
    isolation_problem: str = ""
    """Why the rules could not be applied or proven, in words; empty when they were."""
    rules_retry_at: float = 0.0
    """No further attempt at the rules before this instant, after one has failed."""
    foreign_changes: int = 0
    alarms: tuple[Alarm, ...] = ()
    """The newest foreign changes; those that stand come first."""
    leases: Mapping[str, Lease] = field(default_factory=dict)
    """Window -> the lease on it; one whose end is past is on its way out."""
    deadline: Deadline | None = None
    """What the keeper holds; None when it holds nothing, is gone, or does not answer."""
    deadline_retry_at: float = 0.0
    """No further attempt to have it held before this instant, after one has failed."""
    drill: bool = False
    """This is an exercise: the uplink never opens."""
    disks: Mapping[str, DiskFacts] = field(default_factory=dict)
    overlays: Mapping[str, OverlayFacts] = field(default_factory=dict)
    warm: Mapping[str, WarmFacts] = field(default_factory=dict)
    """The services that have a warm state in the vault."""
    fallbacks: Mapping[str, Fallback] = field(default_factory=dict)
    """Warm starts that came to nothing since the service was last ready, or asked for by the operator."""
    machines: Mapping[str, MachineFacts] = field(default_factory=dict)
    probes: Mapping[str, ProbeFacts] = field(default_factory=dict)
    watched: frozenset[str] = frozenset()
    """Services whose probes run at this moment."""
    failures: Mapping[str, tuple[Failure, ...]] = field(default_factory=dict)
    intents: Mapping[str, Intent] = field(default_factory=dict)
    busy: Mapping[str, Step] = field(default_factory=dict)
    """Service -> the step that is under way for it; nothing further is planned for it meanwhile."""
    durations: Mapping[str, float] = field(default_factory=dict)
    """Service -> seconds from first instruction to ready, as measured last; of cold starts."""
