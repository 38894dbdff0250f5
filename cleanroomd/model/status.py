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
class LeaseStatus:
    """An opening of the uplink that closes by itself."""

    window: str
    """Its name in the plan."""
    flow: str
    """Who may connect to whom, in words."""
    opened_at: float
    """When it was opened."""
    until: float
    """When it closes."""
    author: str
    """Who opened it."""
    reason: str
    """Why, as the author said."""
    problem: str
    """Why nothing passes all the same; "" when it does."""


@dataclass(frozen=True, slots=True)
class WindowStatus:
    """What the plan allows to open towards the uplink."""

    name: str
    """Its name in the plan."""
    flow: str
    """Who may connect to whom, in words."""
    longest: float
    """Seconds that it may stay open at most."""


class PortState(StrEnum):
    """What a port with zones lets through; anything but open lets through nothing at all."""

    ABSENT = "absent"
    """No network card plays it, or more than one could."""
    UNPLUGGED = "unplugged"
    """No cable is seen."""
    LISTENING = "listening"
    """The cable is only listened to, for as long as the plan's `quarantine` says after the last of what it hears of
    another network."""
    FOREIGN = "foreign"
    """A router or server of another network was heard: the port stays closed until the cable is unplugged."""
    OPEN = "open"
    """Nothing of another network was heard: what the plan allows passes."""


@dataclass(frozen=True, slots=True)
class PortStatus:
    """A port that zones are behind."""

    name: str
    """Its name in the plan."""
    interface: str
    """The kernel's name of its network card; "" when it is absent."""
    state: PortState
    """Whether it is open."""
    reason: str
    """Why, in words, with what was heard."""
    notes: tuple[str, ...]
    """What else was heard that is worth knowing, such as a switch that somebody manages."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """A change of the rules, or of the network around them, that the daemon did not make."""

    at: float
    """When it was noticed last."""
    what: str
    """What was changed, in words."""
    who: str
    """The process that did it, as far as the kernel tells, with its pid, user and command line while it lives."""
    process: str
    """The name of that process alone; "" when it is not known."""
    undone: bool
    """All is again as it was. Otherwise the change stands, or is being undone at this moment."""
    remedy: str
    """What a person can do while it stands; "" when nothing is left to do."""
    times: int
    """How often the same happened in a row."""


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
    """How often another than the daemon changed the kernel's rules, or the network around them, since it began."""
    problem: str
    """Why isolation is not proven; "" when it is."""
    leases: tuple[LeaseStatus, ...] = ()
    """What is open on the uplink; none while it is dark."""
    windows: tuple[WindowStatus, ...] = ()
    """What the plan allows to open there."""
    alarms: tuple[Alarm, ...] = ()
    """The newest foreign changes: those that still stand first, then the newest."""


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
    ports: tuple[PortStatus, ...] = ()
    """Every port that zones are behind, in the order of the plan."""
    drill: bool = False
    """This is an exercise: the uplink never opens."""
