"""What the daemon says of itself: the one document that the command line, the console and drills read.

Fields are plain values, so that the document crosses the control socket as it is; instants are
CLOCK_BOOTTIME seconds unless they say Unix time.
"""

from dataclasses import dataclass
from enum import StrEnum


class ServiceState(StrEnum):
    """A service goes pending -> starting -> booting -> ready. One that failed, or is blocked, can still come back."""

    PENDING = "pending"
    """It will start by itself: it waits for another service, a start slot, memory, proven isolation or its next
    attempt."""
    STARTING = "starting"
    """Its machine is being made, and has not executed an instruction yet."""
    BOOTING = "booting"
    """Its machine runs, and has not given a correct answer to every probe yet."""
    READY = "ready"
    """It gave a correct answer to every probe, and the flows to it are open. It stays ready when it answers no longer;
    the reason says so."""
    FAILED = "failed"
    """No attempt is left; `cleanroomctl start` gives it new ones."""
    BLOCKED = "blocked"
    """A disk of it cannot be used, or a service that it needs will not come."""
    EXCLUDED = "excluded"
    """The enclosure has too little memory for it beside what is more urgent."""
    STOPPING = "stopping"
    """Its machine is asked to power down, and killed when its shutdown_timeout is over."""
    STOPPED = "stopped"
    """The operator stopped it, or wants it stopped once the services that need it are down; it stays so until the
    operator starts it."""


class RunState(StrEnum):
    """The enclosure as a whole."""

    RESTORING = "RESTORING"
    """Some service is on its way: waiting for its turn, starting, booting or stopping."""
    RESTORED = "RESTORED"
    """Every service is ready."""
    DEGRADED = "DEGRADED"
    """Every required service is ready; another one is not, and will not be by itself."""
    HALTED = "HALTED"
    """A required service is not ready, and will not be by itself."""
    STOPPED = "STOPPED"
    """The operator stopped every service."""


class VerdictKind(StrEnum):
    """Whether the plan fits the hardware."""

    ADMISSIBLE = "admissible"
    """Everything fits."""
    DEGRADED = "degraded"
    """Some service gets less memory than planned or cannot start; every required one can."""
    BLOCKED = "blocked"
    """A required service cannot start; the others are restored all the same."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One reason of a verdict: the service, what happens to it, the number that decides, what would help."""

    service: str
    """Its short name in the plan."""
    effect: str
    """What happens to it."""
    cause: str
    """Why, with the number that decides."""
    remedy: str
    """What would help."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgement of a plan against the hardware, before anything starts."""

    kind: VerdictKind
    """Whether the plan fits."""
    summary: str
    """The verdict in one sentence."""
    findings: tuple[Finding, ...] = ()
    """The reasons; none when everything fits."""


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """One service of the plan."""

    name: str
    """Its short name in the plan."""
    title: str
    """The name that people read."""
    priority: int
    """Its care priority, 1 (first) to 5."""
    required: bool
    """Whether the run halts without it."""
    state: ServiceState
    """How far it is."""
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
    """Which attempt this is, or the next one would be; the first is 1."""
    address: str
    """Its IPv4 address."""
    data_as_of: float | None
    """Unix time of the newest data staged for it."""
    kept_aside: int
    """Earlier sets of crisis data that are kept beside the ones in use, for people to look into."""


@dataclass(frozen=True, slots=True)
class IsolationStatus:
    """Whether the firewall's rules in the kernel are the ones that the plan asks for."""

    proven: bool
    """The rules were read back from the kernel, and are as planned; nothing starts or opens before."""
    proven_at: float | None
    """When they were read back last; None before."""
    generation: int
    """The kernel's count of changes to its rules when they were proven last; 0 before."""
    uplink: str
    """"dark", or what is open."""
    foreign_changes: int
    """How often the kernel's rules were changed by another than the daemon since it began; each time they were proven
    or written anew."""
    problem: str
    """Why isolation is not proven; "" when it is."""


@dataclass(frozen=True, slots=True)
class Status:
    """The whole document."""

    enclosure: str
    """Name of the enclosure in the plan."""
    state: RunState
    """The run as a whole."""
    now: float
    """When this was said."""
    power_on: float
    """When the enclosure was powered on; every elapsed time counts from there."""
    restored_after: float | None
    """Seconds from power-on until the last service was ready; None before."""
    remaining: float | None
    """Estimated seconds until no service is on its way any more; None when there is none, or nothing is known."""
    isolation: IsolationStatus
    """Whether the rules are in force."""
    verdict: Verdict
    """Whether the plan fits the hardware."""
    services: tuple[ServiceStatus, ...]
    """Every service, in the order in which they are started."""
    next_action: str
    """What the operator should do now, in one sentence."""
    plan_problem: str
    """Why the recovery plan could not be read again, so that the one before stays in force; "" otherwise."""
    unsealed: bool
    """The plan and the vault are not signed: fit for drills and demonstrations only."""
