"""What the daemon says of itself: the one document that the command line, the console and drills read.

Fields are plain values, so that the document crosses the control socket as it is; instants are
CLOCK_BOOTTIME seconds unless they say Unix time.
"""

from dataclasses import dataclass
from enum import StrEnum


class ServiceState(StrEnum):
    """pending -> starting -> booting -> ready; failed and blocked come back; excluded does not fit."""

    PENDING = "pending"
    STARTING = "starting"
    BOOTING = "booting"
    READY = "ready"
    FAILED = "failed"
    BLOCKED = "blocked"
    EXCLUDED = "excluded"
    STOPPING = "stopping"
    STOPPED = "stopped"


class RunState(StrEnum):
    RESTORING = "RESTORING"
    RESTORED = "RESTORED"
    DEGRADED = "DEGRADED"
    HALTED = "HALTED"
    STOPPED = "STOPPED"


class VerdictKind(StrEnum):
    ADMISSIBLE = "admissible"
    DEGRADED = "degraded"
    BLOCKED = "blocked"


@dataclass(frozen=True, slots=True)
class Finding:
    """One reason of a verdict: the service, what happens to it, the number that decides, what would help."""

    service: str
    effect: str
    cause: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgement of a plan against the hardware, before anything starts."""

    kind: VerdictKind
    summary: str
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    name: str
    title: str
    priority: int
    required: bool
    state: ServiceState
    reason: str
    """Always said: why the service is in this state, or what it waits for."""
    since: float
    """When it entered the state."""
    elapsed: float | None
    """Seconds from power-on to ready once ready, else None."""
    remaining: float | None
    """Estimated seconds until ready; None when it is ready, will not be, or nothing is known."""
    start: str
    """"cold" or "warm" once started, else ""."""
    proof: str
    """The protocol answer that proved it ready, in words; "" before."""
    attempt: int
    address: str
    data_as_of: float | None
    """Unix time of the newest data staged for it."""


@dataclass(frozen=True, slots=True)
class IsolationStatus:
    proven: bool
    proven_at: float | None
    generation: int
    uplink: str
    """"dark", or what is open."""
    foreign_changes: int
    problem: str
    """Why isolation is not proven; "" when it is."""


@dataclass(frozen=True, slots=True)
class Status:
    enclosure: str
    state: RunState
    now: float
    power_on: float
    restored_after: float | None
    """Seconds from power-on until the last service was ready; None before."""
    remaining: float | None
    isolation: IsolationStatus
    verdict: Verdict
    services: tuple[ServiceStatus, ...]
    next_action: str
    """What the operator should do now, in one sentence."""
    unsealed: bool
