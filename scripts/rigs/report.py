"""The outcome of a demonstration: the one document behind the end table and `--json`; pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cleanroomd.cli.text import clean, pad, width, wrap
from cleanroomd.errors import Exit
from cleanroomd.model.status import RunState, ServiceState, Status
from rigs.attack import Strike

_TIME_COLUMNS = 17


@dataclass(frozen=True, slots=True)
class Act:
    """Something done as the workstation; `proof` is what the service answered, or why it failed."""

    name: str
    service: str
    ok: bool
    proof: str
    seconds: float


@dataclass(frozen=True, slots=True)
class ServiceOutcome:
    name: str
    state: ServiceState
    priority: int
    required: bool
    start: str
    seconds: float | None
    """From power-on to ready."""
    proof: str


@dataclass(frozen=True, slots=True)
class Isolation:
    proven: bool
    proven_after: float | None
    """Seconds from power-on to the first proof."""
    generation: int
    uplink: str
    foreign_changes: int
    tried: int
    """Packets that the plan does not allow, sent by all attackers."""
    through: int
    """How many of them were answered or passed on."""
    leaked: int
    """Frames that the enclosure emitted to the hospital network, from power-on to the end."""
    strikes: tuple[Strike, ...]


@dataclass(frozen=True, slots=True)
class PowerCut:
    """Every process of the enclosure was killed, then it was powered on again."""

    record: str
    """The name that was written before."""
    found: bool
    proof: str
    seconds: float | None
    """From the second power-on to everything ready."""


@dataclass(frozen=True, slots=True)
class Report:
    services: tuple[ServiceOutcome, ...]
    isolation: Isolation
    verdict: RunState
    seconds: float | None
    acts: tuple[Act, ...]
    power_cut: PowerCut | None = None
    problems: tuple[str, ...] = ()
    """Everything that was not as planned, in words; empty after a good run."""

    def exit_code(self) -> Exit:
        if self.problems:
            return Exit.CANNOT
        return Exit.DEGRADED if self.verdict is RunState.DEGRADED else Exit.DONE

    def document(self) -> dict[str, Any]:
        """What --json prints; seconds to the hundredth, which is more than they are worth."""
        document: dict[str, Any] = _rounded(asdict(self))
        return document


def _rounded(value: Any) -> Any:
    match value:
        case float():
            return round(value, 2)
        case dict():
            return {key: _rounded(each) for key, each in value.items()}
        case list() | tuple():
            return [_rounded(each) for each in value]
        case _:
            return value


def outcomes(status: Status, acts: Iterable[Act]) -> tuple[ServiceOutcome, ...]:
    """Every service; what the workstation did with it proves more than its readiness probe."""
    proofs: dict[str, list[str]] = {}
    for act in acts:
        if act.ok:
            proofs.setdefault(act.service, []).append(act.proof)
    return tuple(
        ServiceOutcome(
            name=service.name,
            state=service.state,
            priority=service.priority,
            required=service.required,
            start=service.start,
            seconds=service.elapsed,
            proof="; ".join(proofs.get(service.name, ())) or service.proof or service.reason,
        )
        for service in status.services
    )


def isolation(status: Status, *, proven_after: float | None, strikes: Sequence[Strike], leaked: int) -> Isolation:
    return Isolation(
        proven=status.isolation.proven,
        proven_after=proven_after,
        generation=status.isolation.generation,
        uplink=status.isolation.uplink,
        foreign_changes=status.isolation.foreign_changes,
        tried=sum(strike.tried for strike in strikes),
        through=sum(strike.through for strike in strikes),
        leaked=leaked,
        strikes=tuple(strikes),
    )


def find_problems(
    status: Status, isolated: Isolation, acts: Iterable[Act], *, consoles: Mapping[str, str]
) -> tuple[str, ...]:
    """What was not as planned. `consoles` has the last words of machines, quoted for those that are not ready."""
    problems = []
    if status.state not in (RunState.RESTORED, RunState.DEGRADED):
        problems.append(f"the run ended {status.state}")
    for service in status.services:
        if service.state is not ServiceState.READY:
            last = clean(consoles.get(service.name, ""))
            quoted = f"; its console ends with: {last[-300:]}" if last else ""
            problem = f"{service.name} is {service.state}: {service.reason}{quoted}"
            if service.required or status.state is not RunState.DEGRADED:
                problems.append(problem)
    problems += [f"{act.service}: {act.proof}" for act in acts if not act.ok]
    if not isolated.proven:
        problems.append(f"isolation is not proven: {status.isolation.problem}")
    if isolated.foreign_changes:
        problems.append(f"{isolated.foreign_changes} foreign changes of the rules")
    if isolated.leaked:
        problems.append(f"the enclosure emitted {isolated.leaked} frames to the hospital network")
    for strike in isolated.strikes:
        problems += strike.findings[:5]
        if len(strike.findings) > 5:
            problems.append(f"and {len(strike.findings) - 5} more findings of the {strike.origin}")
    return tuple(problems)


def span(seconds: float | None) -> str:
    """Minutes, seconds and tenths: "01:58.4"; "-" for nothing."""
    if seconds is None:
        return "-"
    tenths = round(seconds * 10)
    return f"{tenths // 600:02}:{tenths // 10 % 60:02}.{tenths % 10}"


def table(report: Report, *, columns: int) -> list[str]:
    """The end of the demonstration, as lines of at most `columns`."""
    name_columns = max(len("isolation"), *(width(clean(service.name)) for service in report.services))
    rows = [
        (service.name, str(service.priority), span(service.seconds), service.start or "-", service.proof)
        for service in sorted(report.services, key=lambda each: (each.priority, each.name))
    ]
    isolated = report.isolation
    tried = f"{isolated.tried:,}".replace(",", " ")
    told = f"{tried} packets tried from the hospital, the workstation and between machines, {isolated.through} through"
    told += f"; {isolated.leaked} frames emitted to the hospital"
    rows.append(("isolation", "-", span(isolated.proven_after), "", told))
    lines = [f" {pad('service', name_columns)}   P   power-on to ready   start   proven by"]
    for name, priority, time, start, proof in rows:
        head = f" {pad(clean(name), name_columns)}   {priority}   {time:>{_TIME_COLUMNS}}   {start:<5}   "
        first, *others = wrap(proof, max(20, columns - len(head)))
        lines.append((head + first).rstrip())
        lines += [" " * len(head) + other for other in others]
    cut = report.power_cut
    if cut is not None:
        lines += wrap(f"After a power cut: {cut.proof}; all ready again in {span(cut.seconds)}.", columns)
    end = f"{report.verdict} in {span(report.seconds)}." if report.seconds is not None else f"{report.verdict}."
    lines.append(end)
    for problem in report.problems:
        first, *others = wrap(f"not as planned: {problem}", columns - 2)
        lines += [first, *(f"  {other}" for other in others)]
    return lines
