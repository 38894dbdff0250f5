"""What --json prints, where that is neither the status nor a plan: one type for each kind of document."""

from dataclasses import dataclass

from cleanroomd.model.status import LeaseStatus, VerdictKind, WindowStatus


@dataclass(frozen=True, slots=True)
class Failure:
    """Why something could not be done, in place of the document of the command; the exit code is 1."""

    error: str
    """What could not be done and why, as "cannot DO: CAUSE"."""
    hint: str
    """What to do next; "" when there is nothing to advise."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a request."""

    request: str
    """What the daemon said that it does."""
    outcome: str | None
    """How it ended; None with --no-wait."""


@dataclass(frozen=True, slots=True)
class Uplink:
    """What is open towards the hospital's network, and what could be."""

    uplink: str
    """"dark", or what is open."""
    now: float
    """When this was said, CLOCK_BOOTTIME seconds; leases end by the same clock."""
    leases: tuple[LeaseStatus, ...]
    """What somebody opened; none while the uplink is dark."""
    windows: tuple[WindowStatus, ...]
    """What the plan allows to open."""


@dataclass(frozen=True, slots=True)
class PlanProblem:
    """One problem of a plan file."""

    path: str
    """The key that is wrong, as "service[2].memory", counted from 0; "" when the file as a whole is meant."""
    line: int | None
    """Its line, counted from 1; None when no line is to blame, as for a table that is missing."""
    message: str
    """What is wrong and what to write instead."""


@dataclass(frozen=True, slots=True)
class PlanCheck:
    """Whether a plan file can be used; the exit code is 1 when it cannot."""

    file: str
    """Name of the file."""
    problems: tuple[PlanProblem, ...]
    """Everything that is wrong with it, in the order of its lines; empty when it can be used."""
    services: int | None
    """How many services it has; None when there are problems."""
    flows: int | None
    """How many flows it has; None when there are problems."""


@dataclass(frozen=True, slots=True)
class Interval:
    """When one service would be on its way."""

    name: str
    """Short name of the service in the plan."""
    start: float
    """Seconds from the first start until its own."""
    ready: float
    """Seconds from the first start until it would be ready."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """What a restoration would look like."""

    verdict: VerdictKind
    """Whether the plan fits the memory given."""
    summary: str
    """The verdict in one sentence."""
    makespan: float
    """Seconds from the first start until the last service would be ready."""
    bound: float
    """Seconds that no order of these starts could be faster than."""
    assumed: tuple[str, ...]
    """Names of the services that nobody has measured yet."""
    services: tuple[Interval, ...]
    """Every service that would start."""
